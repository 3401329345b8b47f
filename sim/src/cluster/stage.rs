//! What the actors of the story share: how far it has come, what is known of every shelf, and the
//! history by which two runs of a seed are compared.

use super::model::{Act, Shelf};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far the story has come. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Servers join, the account is made.
    Setup,
    /// Users act, things break.
    Play,
    /// All is mended; users finish what they do.
    Mend,
    /// Nobody acts; the first user looks until all is whole, then everybody reads everything.
    Check,
}

/// One thing that was done or that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Simulated time at which it ended.
    pub at: Duration,
    /// Who, what, and what came of it.
    pub text: String,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:10.3} {}", self.at.as_secs_f64(), self.text)
    }
}

/// Everything that happened, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(pub Vec<Line>);

impl History {
    /// A hash over all lines with their times.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for line in &self.0 {
            hasher.update(line.to_string().as_bytes());
            hasher.update(b"\n");
        }
        hasher.finalize()
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let from = self.0.len().saturating_sub(lines);
        self.0[from..].iter().map(|l| format!("  {l}\n")).collect()
    }
}

/// What all share.
pub struct Shared {
    /// How far it is.
    pub phase: Phase,
    /// The first admin's invite.
    pub invite: Option<String>,
    /// Join tokens by node.
    pub tokens: BTreeMap<usize, String>,
    /// The logged-in user's files, for the other users' machines.
    pub profile: Option<Vec<(PathBuf, Vec<u8>)>>,
    /// The shelves by number.
    pub shelves: Vec<Shelf>,
    /// Changes under way, by shelf: a user that crashes leaves its own here.
    pub under_way: BTreeMap<usize, (u64, Act)>,
    /// Users that are ready for the next phase.
    pub ready: BTreeMap<usize, Phase>,
    /// When something last was broken; `None`: nothing ever was.
    pub broken: Option<Duration>,
    /// What happened.
    pub history: History,
    /// The first promise that was not kept.
    pub failure: Option<String>,
    next: u64,
}

/// The shared state, with its handles.
#[derive(Clone)]
pub struct Stage(Arc<Mutex<Shared>>);

impl Stage {
    /// With so many shelves.
    pub fn new(shelves: usize) -> Self {
        Stage(Arc::new(Mutex::new(Shared {
            phase: Phase::Setup,
            invite: None,
            tokens: BTreeMap::new(),
            profile: None,
            shelves: (0..shelves).map(|_| Shelf::default()).collect(),
            under_way: BTreeMap::new(),
            ready: BTreeMap::new(),
            broken: None,
            history: History::default(),
            failure: None,
            next: 1,
        })))
    }

    /// Locks it. Nothing awaits while it is locked.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Writes a line of the history.
    pub fn tell(&mut self, at: Duration, text: impl Into<String>) {
        self.history.0.push(Line { at, text: text.into() });
    }

    /// A promise was not kept. The first one counts.
    pub fn fail(&mut self, at: Duration, why: impl Into<String>) {
        let why = why.into();
        self.tell(at, format!("FAILED: {why}"));
        self.failure.get_or_insert(why);
    }
}
