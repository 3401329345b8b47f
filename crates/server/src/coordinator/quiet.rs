//! Keeps events from filling the log: the same event passes once a minute, and of one kind from one
//! source only so many different ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Time after which an event may pass again.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// Most different events of one source within [`INTERVAL`].
pub const MOST: usize = 20;
/// Most sources remembered; beyond that new ones wait until old ones may be forgotten.
const SOURCES: usize = 1024;

/// What passed lately.
#[derive(Debug, Default)]
pub struct Quiet {
    sources: BTreeMap<String, Source>,
}

#[derive(Debug)]
struct Source {
    since: Duration,
    passed: BTreeSet<String>,
    /// Different ones, or at least other ones than the last, that did not pass.
    held: u64,
}

impl Quiet {
    /// Whether an event of a source may go to the log at monotonic time `now`; and how many of that source did not,
    /// since there were too many, before this one.
    pub fn lets(&mut self, now: Duration, source: &str, event: &str) -> Option<u64> {
        let over = |s: &Source| s.since + INTERVAL <= now;
        let held = self.sources.get(source).filter(|s| over(s)).map_or(0, |s| s.held);
        if self.sources.get(source).is_some_and(over) {
            self.sources.remove(source);
        }
        if self.sources.len() >= SOURCES {
            self.sources.retain(|_, s| !over(s));
        }
        if self.sources.len() >= SOURCES && !self.sources.contains_key(source) {
            return None;
        }
        let entry = self.sources.entry(source.into()).or_insert(Source { since: now, passed: BTreeSet::new(), held: 0 });
        if entry.passed.contains(event) {
            return None;
        }
        if entry.passed.len() >= MOST {
            entry.held += 1;
            return None;
        }
        entry.passed.insert(event.into());
        Some(held)
    }

    /// An event that passed was not written: it may pass again.
    pub fn forget(&mut self, source: &str, event: &str) {
        if let Some(entry) = self.sources.get_mut(source) {
            entry.passed.remove(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_event_passes_once_a_minute() {
        let mut q = Quiet::default();
        let at = Duration::from_secs;
        assert_eq!(q.lets(at(1), "node 1", "a"), Some(0));
        assert_eq!(q.lets(at(60), "node 1", "a"), None);
        assert_eq!(q.lets(at(60), "node 1", "b"), Some(0));
        assert_eq!(q.lets(at(60), "node 2", "a"), Some(0));
        assert_eq!(q.lets(at(61), "node 1", "a"), Some(0));
        q.forget("node 1", "a");
        assert_eq!(q.lets(at(62), "node 1", "a"), Some(0), "it was not written");
    }

    #[test]
    fn a_flood_of_different_events_is_bounded() {
        let mut q = Quiet::default();
        let passed = (0..100_000).filter(|i| q.lets(Duration::from_secs(1), "node 1", &i.to_string()).is_some()).count();
        assert_eq!(passed, MOST);
        let passed = (0..5_000).filter(|i| q.lets(Duration::from_secs(1), &i.to_string(), "a").is_some()).count();
        assert_eq!(passed, SOURCES - 1);
        assert_eq!(q.lets(Duration::from_secs(62), "node 1", "later"), Some(100_000 - MOST as u64));
        assert_eq!(q.lets(Duration::from_secs(62), "node 1", "and later"), Some(0));
    }
}
