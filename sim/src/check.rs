//! Is a history linearisable? What several users did to entries, each operation with the moments at
//! which it began and ended, must be explained by one order of single steps, in which each step lies
//! between its operation's two moments.
//!
//! The search goes along the moments (Lowe, "Testing for linearizability", Concurrency and Computation
//! 29(4), 2017, after Wing and Gong): it keeps all pairs of a state and the operations that have taken
//! effect in it, and lets operations take effect only when the end of one demands it. Three things keep
//! that small:
//! - keys that no operation touches together are checked apart; a listing is cut to the keys of each part;
//! - what only looks takes effect as soon as it agrees: that never forbids anything later;
//! - an operation of which nobody knows whether it happened may do so at any later time or never, so of
//!   two equal states the one in which fewer of those have happened can do all that the other can.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names an entry.
pub type Key = String;
/// Tells contents apart; no two writes store the same.
pub type Value = u64;

/// What an operation does or has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // key, value, from, to
pub enum Does {
    /// Stores a value.
    Put { key: Key, value: Value },
    /// Removes an entry that is there.
    Remove { key: Key },
    /// Moves an entry that is there to a place where none is, in one step.
    Move { from: Key, to: Key },
    /// Makes a second entry of a value, where none is.
    Copy { from: Key, to: Key },
    /// Saw a value, or that there is none.
    Read { key: Key, saw: Option<Value> },
    /// Saw that something is there, or that nothing is.
    Saw { key: Key, there: bool },
    /// Saw exactly these, of all keys.
    List { keys: BTreeSet<Key> },
    /// Nothing: what was refused for a reason that says nothing of the state.
    Nothing,
}

impl Does {
    fn keys(&self) -> Vec<&Key> {
        match self {
            Does::Put { key, .. } | Does::Remove { key } | Does::Read { key, .. } | Does::Saw { key, .. } => vec![key],
            Does::Move { from, to } | Does::Copy { from, to } => vec![from, to],
            Does::List { .. } | Does::Nothing => Vec::new(),
        }
    }

    fn looks(&self) -> bool {
        matches!(self, Does::Read { .. } | Does::Saw { .. } | Does::List { .. } | Does::Nothing)
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Whose, for the report.
    pub who: String,
    /// What.
    pub does: Does,
    /// Number of the moment at which it began.
    pub began: u64,
    /// Number of the moment at which its answer came; `None`: none came, so it may have happened, may
    /// still happen, or never.
    pub ended: Option<u64>,
}

/// Configurations looked at for one operation before the search gives up.
const MOST: usize = 300_000;

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains everything.
    Linearisable,
    /// There is none. Tells at which answer no order was left.
    Violated(String),
    /// Too much was open.
    Undecided(String),
}

/// Checks a history that begins with no entries.
pub fn check(ops: &[Op]) -> Verdict {
    for part in parts(ops) {
        match Search::new(ops, &part).run() {
            Verdict::Linearisable => {}
            other => return other,
        }
    }
    Verdict::Linearisable
}

/// Keys that must be checked together.
fn parts(ops: &[Op]) -> Vec<BTreeSet<Key>> {
    let mut parts: Vec<BTreeSet<Key>> = Vec::new();
    let listed = ops.iter().filter_map(|op| match &op.does {
        Does::List { keys } => Some(keys),
        _ => None,
    });
    let single = listed.flatten().map(|key| vec![key]);
    for keys in ops.iter().map(|op| op.does.keys()).chain(single) {
        let mut joined: BTreeSet<Key> = keys.into_iter().cloned().collect();
        parts.retain(|part| {
            let apart = part.is_disjoint(&joined);
            if !apart {
                joined.extend(part.iter().cloned());
            }
            apart
        });
        if !joined.is_empty() {
            parts.push(joined);
        }
    }
    parts
}

/// What is there, by key.
pub type State = BTreeMap<Key, Value>;

/// A state, and which of the operations that are open have taken effect in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    state: State,
    /// Of those that got an answer later.
    known: BTreeSet<usize>,
    /// Of those that never got one.
    unknown: BTreeSet<usize>,
}

/// Configurations of which none can do less than another.
#[derive(Default)]
struct Front(BTreeMap<(State, BTreeSet<usize>), Vec<BTreeSet<usize>>>);

impl Front {
    /// Whether it is worth having.
    fn insert(&mut self, c: &Configuration) -> bool {
        let sets = self.0.entry((c.state.clone(), c.known.clone())).or_default();
        if sets.iter().any(|s| s.is_subset(&c.unknown)) {
            return false;
        }
        sets.retain(|s| !c.unknown.is_subset(s));
        sets.push(c.unknown.clone());
        true
    }

    fn into_all(self) -> Vec<Configuration> {
        let all = self.0.into_iter().flat_map(|((state, known), sets)| {
            sets.into_iter().map(move |unknown| Configuration { state: state.clone(), known: known.clone(), unknown })
        });
        all.collect()
    }
}

/// The search over one part.
struct Search<'a> {
    part: &'a BTreeSet<Key>,
    ops: Vec<Op>,
    /// Begun and not yet demanded: places in `ops`.
    open: BTreeSet<usize>,
    now: Vec<Configuration>,
}

impl<'a> Search<'a> {
    fn new(ops: &[Op], part: &'a BTreeSet<Key>) -> Self {
        let concerns = |op: &&Op| match &op.does {
            Does::List { .. } => true,
            other => other.keys().iter().any(|key| part.contains(*key)),
        };
        let cut = |op: &Op| match &op.does {
            Does::List { keys } => Op { does: Does::List { keys: keys & part }, ..op.clone() },
            _ => op.clone(),
        };
        // What looked and got no answer says nothing.
        let ops = ops.iter().filter(concerns).filter(|op| op.ended.is_some() || !op.does.looks()).map(cut).collect();
        let first = Configuration { state: State::new(), known: BTreeSet::new(), unknown: BTreeSet::new() };
        Search { part, ops, open: BTreeSet::new(), now: vec![first] }
    }

    fn run(mut self) -> Verdict {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (i, op) in self.ops.iter().enumerate() {
            moments.push((op.began, false, i));
            moments.extend(op.ended.map(|ended| (ended, true, i)));
        }
        moments.sort_unstable();
        for (_, ends, i) in moments {
            if ends {
                match self.ends(i) {
                    None => return Verdict::Undecided(self.describe(i)),
                    Some(now) if now.is_empty() => return Verdict::Violated(self.describe(i)),
                    Some(now) => self.now = now,
                }
                self.open.remove(&i);
            } else {
                self.open.insert(i);
                let all = std::mem::take(&mut self.now);
                self.now = all.into_iter().map(|c| self.looked(c)).collect();
            }
        }
        Verdict::Linearisable
    }

    /// Everything that only looks and agrees with the state has looked.
    fn looked(&self, mut c: Configuration) -> Configuration {
        for i in &self.open {
            if self.ops[*i].does.looks() && !c.known.contains(i) && self.after(&c.state, &self.ops[*i].does).is_some() {
                c.known.insert(*i);
            }
        }
        c
    }

    /// The configurations in which an operation has taken effect, now that it must. `None`: too many.
    fn ends(&self, i: usize) -> Option<Vec<Configuration>> {
        let (mut seen, mut found) = (Front::default(), Front::default());
        let mut queue: VecDeque<Configuration> = self.now.iter().cloned().collect();
        for c in &queue {
            seen.insert(c);
        }
        let mut looked_at = 0;
        while let Some(mut c) = queue.pop_front() {
            looked_at += 1;
            if looked_at > MOST {
                return None;
            }
            if c.known.remove(&i) {
                found.insert(&c);
                continue;
            }
            for p in self.open.iter().filter(|p| !c.known.contains(p) && !c.unknown.contains(p)) {
                let op = &self.ops[*p];
                if op.does.looks() {
                    continue;
                }
                if let Some(state) = self.after(&c.state, &op.does) {
                    let mut next = Configuration { state, ..c.clone() };
                    if op.ended.is_some() {
                        next.known.insert(*p)
                    } else {
                        next.unknown.insert(*p)
                    };
                    let next = self.looked(next);
                    if seen.insert(&next) {
                        queue.push_back(next);
                    }
                }
            }
        }
        Some(found.into_all())
    }

    /// The state after a step, where it can be made.
    fn after(&self, state: &State, does: &Does) -> Option<State> {
        let with = |key: &Key, value: Value| {
            let mut state = state.clone();
            state.insert(key.clone(), value);
            state
        };
        let without = |mut state: State, key: &Key| {
            state.remove(key);
            state
        };
        let same = |holds: bool| holds.then(|| state.clone());
        match does {
            Does::Put { key, value } => Some(with(key, *value)),
            Does::Remove { key } => state.contains_key(key).then(|| without(state.clone(), key)),
            Does::Move { from, to } if state.contains_key(to) || from == to => None,
            Does::Move { from, to } => state.get(from).map(|value| without(with(to, *value), from)),
            Does::Copy { to, .. } if state.contains_key(to) => None,
            Does::Copy { from, to } => state.get(from).map(|value| with(to, *value)),
            Does::Read { key, saw } => same(state.get(key) == saw.as_ref()),
            Does::Saw { key, there } => same(state.contains_key(key) == *there),
            Does::List { keys } => same(state.keys().eq(keys.iter())),
            Does::Nothing => same(true),
        }
    }

    fn describe(&self, i: usize) -> String {
        let op = &self.ops[i];
        let states: BTreeSet<&State> = self.now.iter().map(|c| &c.state).collect();
        let states: Vec<_> = states.into_iter().take(6).collect();
        let before = self.ops.iter().filter(|o| o.began < op.ended.unwrap_or(u64::MAX)).rev().take(25).collect::<Vec<_>>();
        let lines: String = before
            .iter()
            .rev()
            .map(|o| format!("\n  [{} {}] {} {:?}", o.began, o.ended.map_or("?".into(), |e| e.to_string()), o.who, o.does))
            .collect();
        format!(
            "{} {:?} cannot be explained; possible before: {states:?}; keys {:?}; the last operations:{lines}",
            op.who, op.does, self.part
        )
    }
}

/// Operations as they happen.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    ops: Vec<Op>,
    moments: u64,
}

impl Recorder {
    /// An operation begins; gives its number. Until it ends it counts as unknown.
    pub fn begins(&mut self, who: impl Into<String>, does: Does) -> usize {
        self.moments += 1;
        self.ops.push(Op { who: who.into(), does, began: self.moments, ended: None });
        self.ops.len() - 1
    }

    /// It was answered.
    pub fn ends(&mut self, number: usize) {
        self.moments += 1;
        if let Some(op) = self.ops.get_mut(number) {
            op.ended = Some(self.moments);
        }
    }

    /// It was answered, and what it did is known only now: what it saw, or that it did nothing.
    pub fn ends_as(&mut self, number: usize, does: Does) {
        if let Some(op) = self.ops.get_mut(number) {
            op.does = does;
        }
        self.ends(number);
    }

    /// A history that begins with entries.
    pub fn of(state: State) -> Self {
        let mut recorder = Recorder::default();
        for (key, value) in state {
            let number = recorder.begins("nobody", Does::Put { key, value });
            recorder.ends(number);
        }
        recorder
    }

    /// What each entry was last seen to hold. The state, where everything was read since it last changed.
    pub fn last_seen(&self) -> State {
        let mut state = State::new();
        for op in self.ops.iter().filter(|op| op.ended.is_some()) {
            if let Does::Read { key, saw } = &op.does {
                state.remove(key);
                state.extend(saw.map(|value| (key.clone(), value)));
            }
        }
        state
    }

    /// All of them.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether there is an order that explains them.
    pub fn check(&self) -> Verdict {
        check(&self.ops)
    }
}

#[cfg(test)]
mod tests;
