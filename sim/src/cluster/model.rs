//! What may be true of a folder, as far as its users can know.
//!
//! A [`Shelf`] is a folder in which one writer at a time acts and that everybody reads. It keeps the
//! set of all states in which the folder may be. An acknowledged change moves every state; a change
//! whose answer nobody got is a [`Stray`]: it may have happened, may still happen as long as its
//! precondition holds, or never. So after a failure there are several possible states, and each
//! later answer rules some out. A read must agree with one of the states that were possible while it
//! ran.
//!
//! Entries are keyed like in the catalog, by folder and name, so a stray that goes into a folder
//! goes there wherever the folder was moved.

use model::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The shelf itself, as a folder.
const TOP: u64 = 0;
/// A request is not on its way any more so long after its sender gave up: messages and work on
/// servers take much less. What happens later all the same is a finding.
const STRAY_LIFE: Duration = Duration::from_secs(90);
/// More states than this mean that the story leaves too much open to check anything.
const STATES_MAX: usize = 20_000;

/// What an entry is. Contents and folders go by the number of the change that made them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A file with the content that belongs to a number, of so many bytes.
    File {
        /// Number of the change that first stored it.
        content: u64,
        /// Bytes.
        len: u32,
    },
    /// A folder.
    Folder(u64),
}

/// An entry in one revision: the change that made it so, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    change: u64,
    /// What it is.
    pub what: What,
}

/// Folder and name.
type Place = (u64, String);

/// A state in which a shelf may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    entries: BTreeMap<Place, Version>,
    /// Strays that have happened.
    happened: BTreeSet<u64>,
}

/// What a writer does. Paths are relative to the shelf.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // from, to, and bytes
pub enum Act {
    /// Creates or overwrites a file.
    Put { path: String, len: u32, allow_degraded: bool, policy: Option<model::Policy> },
    /// Makes a folder.
    Mkdir { path: String },
    /// Moves or renames a file or folder.
    Move { from: String, to: String },
    /// Makes a second entry of a file's content.
    Copy { from: String, to: String },
    /// Removes a file or a whole folder; `purge`: for real.
    Remove { path: String, purge: bool },
}

/// What an act is in a certain state: the change that the client would commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Set { place: Place, before: Option<Version>, after: Version },
    Unset { place: Place, before: Version },
    Move { from: Place, to: Place, before: Version, after: Version },
}

impl State {
    /// Folder and name of a path; `None` when a folder on the way is missing, `Invalid` in place of
    /// `NotFound` when something on the way is no folder.
    fn place(&self, path: &str) -> Result<Place, Kind> {
        let mut folder = TOP;
        let mut names = path.split('/').peekable();
        loop {
            let name = names.next().unwrap_or_default().to_owned();
            if names.peek().is_none() {
                return Ok((folder, name));
            }
            match self.entries.get(&(folder, name)) {
                None => return Err(Kind::NotFound),
                Some(Version { what: What::Folder(id), .. }) => folder = *id,
                Some(_) => return Err(Kind::Invalid),
            }
        }
    }

    fn find(&self, path: &str) -> Result<Version, Kind> {
        self.entries.get(&self.place(path)?).copied().ok_or(Kind::NotFound)
    }

    /// The folder of a path, where it is one; "" is the shelf.
    fn folder(&self, path: &str) -> Option<u64> {
        match path {
            "" => Some(TOP),
            _ => match self.find(path).ok()?.what {
                What::Folder(id) => Some(id),
                What::File { .. } => None,
            },
        }
    }

    /// Names in a folder with the length of files.
    fn names(&self, folder: u64) -> BTreeMap<String, Option<u32>> {
        let of = |v: &Version| match v.what {
            What::File { len, .. } => Some(len),
            What::Folder(_) => None,
        };
        self.entries.iter().filter(|((f, _), _)| *f == folder).map(|((_, name), v)| (name.clone(), of(v))).collect()
    }

    /// Whether a folder hangs on the shelf, perhaps through others.
    fn is_live(&self, folder: u64) -> bool {
        folder == TOP
            || self.entries.iter().any(|((parent, _), v)| v.what == What::Folder(folder) && *parent != folder && self.is_live(*parent))
    }

    /// Whether `folder` is `top` or lies in it.
    fn is_within(&self, folder: u64, top: u64) -> bool {
        folder == top
            || self
                .entries
                .iter()
                .any(|((parent, _), v)| v.what == What::Folder(folder) && *parent != folder && self.is_within(*parent, top))
    }

    /// What an act would be, or how it is refused.
    fn plan(&self, act: &Act, change: u64) -> Result<Step, Kind> {
        match act {
            Act::Put { path, len, .. } => {
                let place = self.place(path)?;
                let before = self.entries.get(&place).copied();
                if matches!(before, Some(Version { what: What::Folder(_), .. })) {
                    return Err(Kind::Exists);
                }
                let after = Version { change, what: What::File { content: change, len: *len } };
                Ok(Step::Set { place, before, after })
            }
            Act::Mkdir { path } => {
                let place = self.place(path)?;
                if self.entries.contains_key(&place) {
                    return Err(Kind::Exists);
                }
                Ok(Step::Set { place, before: None, after: Version { change, what: What::Folder(change) } })
            }
            Act::Move { from, to } => {
                if from != to && to.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                    return Err(Kind::Invalid);
                }
                let before = self.find(from)?;
                let (from, to) = (self.place(from)?, self.place(to)?);
                if self.entries.contains_key(&to) {
                    return Err(Kind::Exists);
                }
                Ok(Step::Move { from, to, before, after: Version { change, what: before.what } })
            }
            Act::Copy { from, to } => {
                let what = self.find(from)?.what;
                if matches!(what, What::Folder(_)) {
                    return Err(Kind::Invalid);
                }
                let place = self.place(to)?;
                if self.entries.contains_key(&place) {
                    return Err(Kind::Exists);
                }
                Ok(Step::Set { place, before: None, after: Version { change, what } })
            }
            Act::Remove { path, .. } => Ok(Step::Unset { place: self.place(path)?, before: self.find(path)? }),
        }
    }

    /// The state after a step, where its preconditions hold.
    fn after(&self, step: &Step) -> Option<State> {
        let mut state = self.clone();
        let entries = &mut state.entries;
        match step {
            Step::Set { place, before, after } => {
                if !self.is_live(place.0) || entries.get(place) != before.as_ref() {
                    return None;
                }
                entries.insert(place.clone(), *after);
            }
            Step::Unset { place, before } => {
                if !self.is_live(place.0) || entries.get(place) != Some(before) {
                    return None;
                }
                entries.remove(place);
            }
            Step::Move { from, to, before, after } => {
                if !self.is_live(from.0) || !self.is_live(to.0) || entries.get(from) != Some(before) || entries.contains_key(to) {
                    return None;
                }
                if let What::Folder(moved) = before.what
                    && self.is_within(to.0, moved)
                {
                    return None;
                }
                entries.remove(from);
                entries.insert(to.clone(), *after);
            }
        }
        let gone: BTreeSet<Place> = state.entries.keys().filter(|(folder, _)| !state.is_live(*folder)).cloned().collect();
        state.entries.retain(|place, _| !gone.contains(place));
        Some(state)
    }

    /// All files and folders by path.
    pub fn tree(&self) -> BTreeMap<String, What> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![(TOP, String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for ((_, name), v) in self.entries.iter().filter(|((f, _), _)| *f == folder) {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
                if let What::Folder(id) = v.what {
                    folders.push((id, path.clone()));
                }
                tree.insert(path, v.what);
            }
        }
        tree
    }
}

/// A change whose answer nobody got, or that has none yet.
#[derive(Debug, Clone)]
struct Stray {
    change: u64,
    steps: BTreeSet<Step>,
    /// When it was given up; `None` while it is under way.
    since: Option<Duration>,
}

/// What a read saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A file with content of this hash and length.
    File(blake3::Hash, usize),
    /// Names in a folder with the length of files.
    Names(BTreeMap<String, Option<u32>>),
    /// Nothing there, or something of another kind.
    Refused(Kind),
}

/// A read: who reads, and a number of its own.
pub type Read = (usize, u64);

struct Reading {
    path: String,
    states: BTreeSet<State>,
    /// [`Shelf::turns`] when it began.
    turn: u64,
}

/// A folder with one writer. See the module.
pub struct Shelf {
    possible: BTreeSet<State>,
    /// The states without the change under way.
    without: BTreeSet<State>,
    strays: Vec<Stray>,
    /// By reader and number.
    readings: BTreeMap<Read, Reading>,
    /// Grows with each change of what is possible.
    turns: u64,
}

impl Default for Shelf {
    fn default() -> Self {
        let possible: BTreeSet<State> = [State::default()].into();
        Shelf { without: possible.clone(), possible, strays: Vec::new(), readings: BTreeMap::new(), turns: 0 }
    }
}

/// All states that strays can make of some.
fn close(mut states: BTreeSet<State>, strays: &[Stray]) -> BTreeSet<State> {
    let mut fresh: Vec<State> = states.iter().cloned().collect();
    while let Some(state) = fresh.pop() {
        for stray in strays.iter().filter(|s| !state.happened.contains(&s.change)) {
            for step in &stray.steps {
                if let Some(mut after) = state.after(step) {
                    after.happened.insert(stray.change);
                    if states.insert(after.clone()) {
                        fresh.push(after);
                    }
                }
            }
        }
    }
    states
}

impl Shelf {
    /// The states that are possible now.
    pub fn possible(&self) -> &BTreeSet<State> {
        &self.possible
    }

    /// Something has become possible.
    fn turn(&mut self, possible: BTreeSet<State>) {
        self.possible = possible;
        self.turns += 1;
        for reading in self.readings.values_mut() {
            reading.states.extend(self.possible.iter().cloned());
        }
    }

    /// Forgets strays that cannot happen any more.
    fn retire(&mut self, now: Duration) {
        let old = |s: &Stray| s.since.is_some_and(|since| now > since + STRAY_LIFE);
        let done = |s: &Stray| self.possible.iter().all(|state| state.happened.contains(&s.change));
        let gone: BTreeSet<u64> = self.strays.iter().filter(|s| old(s) || done(s)).map(|s| s.change).collect();
        self.strays.retain(|s| !gone.contains(&s.change));
        let strays: BTreeSet<u64> = self.strays.iter().map(|s| s.change).collect();
        if !gone.is_empty() {
            let forget = |state: &State| State { happened: &state.happened & &strays, ..state.clone() };
            self.possible = self.possible.iter().map(forget).collect();
        }
    }

    /// A change begins. One at a time.
    pub fn begin(&mut self, act: &Act, change: u64, now: Duration) -> Result<(), String> {
        self.retire(now);
        if self.possible.len() > STATES_MAX {
            return Err(format!("too much is open: {} states", self.possible.len()));
        }
        self.without = self.possible.clone();
        let steps = self.possible.iter().filter_map(|s| s.plan(act, change).ok()).collect();
        self.strays.push(Stray { change, steps, since: None });
        let possible = close(self.possible.clone(), &self.strays);
        self.turn(possible);
        Ok(())
    }

    /// The change was acknowledged.
    pub fn done(&mut self, change: u64) -> Result<(), String> {
        let mut possible: BTreeSet<State> = self.possible.iter().filter(|s| s.happened.contains(&change)).cloned().collect();
        if possible.is_empty() {
            return Err(format!("acknowledged, although it cannot have been possible; {}", self.describe()));
        }
        self.strays.retain(|s| s.change != change);
        possible = possible
            .into_iter()
            .map(|mut s| {
                s.happened.remove(&change);
                s
            })
            .collect();
        let possible = close(possible, &self.strays);
        self.turn(possible);
        Ok(())
    }

    /// The change was refused for a reason: it did not happen and will not.
    pub fn refused(&mut self, act: &Act, change: u64, kind: Kind) -> Result<(), String> {
        self.strays.retain(|s| s.change != change);
        let without = std::mem::take(&mut self.without);
        let expected = without.iter().any(|s| s.plan(act, change).err() == Some(kind));
        // A stray that got in between looks like somebody else's change.
        let stray = !self.strays.is_empty() && matches!(kind, Kind::Conflict | Kind::Exists | Kind::NotFound | Kind::Invalid);
        if !expected && !stray {
            return Err(format!("refused as {kind:?}, for no reason; {}", self.describe()));
        }
        self.turn(without);
        Ok(())
    }

    /// Nobody knows whether the change happened.
    pub fn unknown(&mut self, change: u64, now: Duration) {
        for stray in self.strays.iter_mut().filter(|s| s.change == change) {
            stray.since = Some(now);
        }
    }

    /// A read of a path begins; "" is the shelf itself.
    pub fn read_begins(&mut self, read: Read, path: &str, now: Duration) {
        self.retire(now);
        self.readings.insert(read, Reading { path: path.to_owned(), states: self.possible.clone(), turn: self.turns });
    }

    /// A read got no answer.
    pub fn read_failed(&mut self, read: Read) {
        self.readings.remove(&read);
    }

    /// A reader crashed with all its reads.
    pub fn reader_gone(&mut self, reader: usize) {
        self.readings.retain(|(who, _), _| *who != reader);
    }

    /// A read saw something: it must have been so at some time while it ran. `hash` makes the hash of
    /// a content.
    pub fn read_saw(&mut self, read: Read, seen: &Seen, hash: impl Fn(u64, u32) -> blake3::Hash) -> Result<(), String> {
        let Some(Reading { path, states, turn }) = self.readings.remove(&read) else { return Ok(()) };
        let fits = |state: &State| match (seen, state.find(&path)) {
            (Seen::File(h, n), Ok(Version { what: What::File { content, len }, .. })) => *n == len as usize && *h == hash(content, len),
            (Seen::Names(names), _) => state.folder(&path).is_some_and(|f| state.names(f) == *names),
            (Seen::Refused(Kind::Invalid), Ok(Version { what: What::Folder(_), .. })) => true,
            (Seen::Refused(kind), Err(expected)) => *kind == expected,
            _ => false,
        };
        // A listing finds the folder first and reads its names then: two looks at two states.
        let split = |names: &BTreeMap<String, Option<u32>>| {
            let folders: BTreeSet<u64> = states.iter().filter_map(|s| s.folder(&path)).collect();
            let fits = |s: &State, f: u64| s.names(f) == *names || (names.is_empty() && !s.is_live(f));
            states.len() > 1 && folders.iter().any(|f| states.iter().any(|s| fits(s, *f)))
        };
        let exact = states.iter().any(fits);
        if !exact && !matches!(seen, Seen::Names(names) if split(names)) {
            return Err(format!("read of '{path}' saw {seen:?}; {}", describe(&states)));
        }
        let one_look = path.is_empty() || !matches!(seen, Seen::Names(_));
        if one_look && turn == self.turns && self.strays.iter().all(|s| s.since.is_some()) {
            let narrowed: BTreeSet<State> = self.possible.iter().filter(|s| fits(s)).cloned().collect();
            let narrowed = close(narrowed, &self.strays);
            if !narrowed.is_empty() && narrowed.len() < self.possible.len() {
                self.turn(narrowed);
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("{}; {} strays", describe(&self.possible), self.strays.len())
    }
}

fn describe(states: &BTreeSet<State>) -> String {
    let trees: Vec<String> = states.iter().take(4).map(|s| format!("{:?}", s.tree())).collect();
    format!("{} possible: {}", states.len(), trees.join(" or "))
}
