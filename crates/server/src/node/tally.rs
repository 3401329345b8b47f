//! What a node is known to miss, round by round of its reconciliation. Pure.
//!
//! A round counts anew. Until it has looked at everything, what the one before left undone is not forgotten: a
//! chunk that cannot be rebuilt is not well again each time that somebody tries.

use super::plan::shard_bytes;
use model::Policy;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Count {
    missing: BTreeMap<Policy, u64>,
    /// Of these: shards of which too few others are left.
    lost: u64,
    /// Everything was looked at.
    whole: bool,
}

impl Count {
    fn shards(&self) -> u64 {
        self.missing.values().sum()
    }
}

/// The counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    before: Count,
    now: Count,
}

/// What is shown of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Shards by policy.
    pub missing: BTreeMap<Policy, u64>,
    /// Of these: nothing brings them back.
    pub lost: u64,
    /// There are no others.
    pub exact: bool,
}

impl Shown {
    pub fn shards(&self) -> u64 {
        self.missing.values().sum()
    }

    /// About how many bytes they are.
    pub fn bytes(&self) -> u64 {
        self.missing.iter().map(|(policy, count)| count * shard_bytes(*policy)).sum()
    }
}

impl Tally {
    /// A round begins. `unknown`: more may be missing than was known.
    pub fn begin(&mut self, unknown: bool) {
        let ended = std::mem::take(&mut self.now);
        if ended.whole || ended.shards() > self.before.shards() {
            self.before = ended;
        }
        self.before.whole &= !unknown;
    }

    /// A shard is missing.
    pub fn found(&mut self, policy: Policy) {
        *self.now.missing.entry(policy).or_default() += 1;
    }

    /// One that was found is there now.
    pub fn healed(&mut self, policy: Policy) {
        if let Some(count) = self.now.missing.get_mut(&policy) {
            *count = count.saturating_sub(1);
        }
    }

    /// One that was found cannot be had: too few others are left.
    pub fn lost(&mut self) {
        self.now.lost += 1;
    }

    /// Everything was looked at; of what was found some may still be on its way.
    pub fn surveyed(&mut self) {
        self.now.whole = true;
        self.before.missing.clear();
    }

    /// The round has ended, whether or not it came to its end.
    pub fn end(&mut self) {
        if self.now.whole {
            self.before = Count::default();
        }
    }

    pub fn shown(&self) -> Shown {
        let counted = if self.now.whole || self.now.shards() >= self.before.shards() { &self.now } else { &self.before };
        let missing = counted.missing.iter().filter(|(_, count)| **count > 0).map(|(policy, count)| (*policy, *count)).collect();
        Shown { missing, lost: self.now.lost.max(self.before.lost), exact: counted.whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Policy = Policy::DEFAULT;

    fn shown(tally: &Tally) -> (u64, u64, bool) {
        let shown = tally.shown();
        (shown.shards(), shown.lost, shown.exact)
    }

    #[test]
    fn nothing_is_claimed_before_all_was_looked_at() {
        let mut tally = Tally::default();
        assert_eq!(shown(&tally), (0, 0, false));
        tally.begin(true);
        tally.found(P);
        tally.found(P);
        tally.healed(P);
        assert_eq!(shown(&tally), (1, 0, false));
        tally.surveyed();
        assert_eq!(shown(&tally), (1, 0, true));
        tally.healed(P);
        tally.end();
        assert_eq!(shown(&tally), (0, 0, true));
    }

    #[test]
    fn what_cannot_be_rebuilt_stays_so_while_it_is_tried_again() {
        let mut tally = Tally::default();
        tally.begin(true);
        (0..3).for_each(|_| tally.found(P));
        tally.surveyed();
        tally.healed(P);
        tally.lost();
        tally.end();
        assert_eq!(shown(&tally), (2, 1, true));
        tally.begin(false);
        assert_eq!(shown(&tally), (2, 1, true));
        tally.found(P);
        assert_eq!(shown(&tally), (2, 1, true));
        tally.surveyed();
        // One came back by itself; of the other it is known when it was tried.
        assert_eq!(shown(&tally), (1, 1, true));
        tally.healed(P);
        tally.end();
        assert_eq!(shown(&tally), (0, 0, true));
    }

    #[test]
    fn a_round_that_ends_early_forgets_nothing_and_a_walk_makes_what_is_known_doubtful() {
        let mut tally = Tally::default();
        tally.begin(true);
        (0..3).for_each(|_| tally.found(P));
        tally.surveyed();
        tally.end();
        tally.begin(false);
        tally.found(P);
        tally.end();
        assert_eq!(shown(&tally), (3, 0, true));
        tally.begin(true);
        assert_eq!(shown(&tally), (3, 0, false));
    }
}
