//! What the actors share: how far the story has come, what was done to the entries, and what the
//! operator wants to happen to machines.

use crate::check::Recorder;
use crate::cluster::stage::{History, Line};
use model::{CoordinatorId, NodeId};
use server::coordinator::Running;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// How far the story has come. It only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Servers join, the account is made.
    Setup,
    /// Users act, the operator changes the cluster, things break.
    Play,
    /// All is mended; the operator looks until all is whole.
    Mend,
    /// Everybody reads everything.
    Check,
    /// The archivist makes a backup of the catalog, of a moment in which nobody does anything.
    Backup,
    /// Users act and things break; all that is done now will be forgotten.
    Later,
    /// All is mended, and everybody comes to rest.
    Rest,
    /// All coordinators have lost their disks; one is restored from the backup, the others join it.
    Restore,
    /// Users go on with what the catalog was at the backup, and things break.
    Anew,
    /// All is mended; the operator looks until all is whole.
    MendAnew,
    /// Everybody reads everything.
    CheckAnew,
    /// Everything is removed for good, and time passes: nothing must be left.
    Clear,
}

/// What operator and warden do with machines, by the number of the node or coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Its disk is replaced by an empty one, and it starts again after so many milliseconds, with the
    /// token that waits for it.
    Wipe(usize, u64),
    /// It is switched off for good.
    Discard(usize),
    /// It starts again, with another capacity or zone.
    Restart(usize),
    /// Bytes on its disk rot.
    Rot(usize),
    /// A coordinator's machine is taken away, and comes back with an empty disk, waiting for a token.
    Vacate(usize),
    /// When a coordinator's machine comes back next, it loses its power again after some operations of its disk.
    Interrupt(usize),
    /// So many hours pass.
    Hours(u64),
}

/// How a node is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Bytes that it offers.
    pub capacity: u64,
    /// Its zone; empty: one of its own.
    pub zone: String,
}

/// What all share.
pub struct Shared {
    /// How far it is.
    pub phase: Phase,
    /// The first admin's invite.
    pub invite: Option<String>,
    /// Join tokens by host.
    pub tokens: BTreeMap<String, String>,
    /// How nodes are set up, by number.
    pub setups: BTreeMap<usize, Setup>,
    /// Nodes that need a token.
    pub wanting: BTreeSet<usize>,
    /// Who nodes are, by number, as they say themselves.
    pub ids: BTreeMap<usize, NodeId>,
    /// Who coordinators are, by number, as they say themselves.
    pub seats: BTreeMap<usize, CoordinatorId>,
    /// Coordinators that run, by number.
    pub coordinators: BTreeMap<usize, Weak<Mutex<Running>>>,
    /// Coordinators' hosts that were emptied: none of them begins a cluster any more.
    pub vacated: BTreeSet<usize>,
    /// A backup of the catalog, once the first coordinator is to be restored from it.
    pub backup: Option<Vec<u8>>,
    /// Folders in which that was tried, and whether the last one holds all of it.
    pub restores: (usize, bool),
    /// Nodes that are switched off for good.
    pub gone: BTreeSet<usize>,
    /// Nodes that lost shards, with the moment, until everything was seen whole after it.
    pub hurt: BTreeMap<usize, Duration>,
    /// Bytes have rotted, and not everything was read since.
    pub rotten: bool,
    /// What is to happen to machines.
    pub wishes: VecDeque<Wish>,
    /// The logged-in user's files, for the other machines.
    pub profile: Option<Vec<(PathBuf, Vec<u8>)>>,
    /// What was done to entries.
    pub record: Recorder,
    /// Numbers of contents by their hash.
    pub contents: BTreeMap<[u8; 32], u64>,
    /// Who is ready for the next phase.
    pub ready: BTreeMap<String, Phase>,
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
    /// The beginning, with nodes set up in certain ways.
    pub fn new(setups: BTreeMap<usize, Setup>) -> Self {
        Stage(Arc::new(Mutex::new(Shared {
            phase: Phase::Setup,
            invite: None,
            tokens: BTreeMap::new(),
            setups,
            wanting: BTreeSet::new(),
            ids: BTreeMap::new(),
            seats: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            vacated: BTreeSet::new(),
            backup: None,
            restores: (0, false),
            gone: BTreeSet::new(),
            hurt: BTreeMap::new(),
            rotten: false,
            wishes: VecDeque::new(),
            profile: None,
            record: Recorder::default(),
            contents: BTreeMap::new(),
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
