//! How many accounts an account may look up: enough to share with everybody whom one knows, too few
//! to list who has an account by trying names. Names that do not exist count alike.

use super::session::Who;
use super::state::State;
use model::{AccountId, Error, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// Look-ups of one account within [`WINDOW`].
pub const MOST: usize = 5_000;
/// After this time counting begins anew.
pub const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Accounts of which counts are kept; beyond that, old ones go first.
const ACCOUNTS: usize = 10_000;

/// What each account looked up lately.
#[derive(Debug, Default)]
pub struct Lookups {
    counts: BTreeMap<AccountId, (Duration, usize)>,
}

impl Lookups {
    /// Counts `n` look-ups at monotonic time `now`. `Err(seconds)`: too many, not counted.
    pub fn count(&mut self, now: Duration, account: AccountId, n: usize) -> Result<(), u64> {
        if self.counts.len() >= ACCOUNTS {
            self.counts.retain(|_, (since, _)| *since + WINDOW > now);
        }
        let (since, count) = self.counts.entry(account).or_insert((now, 0));
        if *since + WINDOW <= now {
            (*since, *count) = (now, 0);
        }
        if count.saturating_add(n) > MOST {
            return Err((*since + WINDOW - now).as_secs().max(1));
        }
        *count += n;
        Ok(())
    }
}

impl State {
    /// `Denied`, with the seconds to wait, when an account looks up too many others.
    pub fn count_lookups(&self, who: &Who, n: usize) -> Result<()> {
        let now = self.now();
        let counted = self.memory().lookups.count(now, who.account, n);
        counted.map_err(|s| Error::denied(format!("too many accounts were looked up, try again in {s} s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_24_names_cannot_be_tried_without_limit_by_those_who_are_logged_in() {
        let mut lookups = Lookups::default();
        let (ann, bea) = (AccountId([1; 16]), AccountId([2; 16]));
        let at = Duration::from_secs;
        for _ in 0..MOST {
            assert_eq!(lookups.count(at(1), ann, 1), Ok(()));
        }
        assert_eq!(lookups.count(at(11), ann, 1), Err(590));
        assert_eq!(lookups.count(at(11), bea, 1_024), Ok(()));
        assert_eq!(lookups.count(at(601), ann, 1), Ok(()));
        assert_eq!(lookups.count(at(601), bea, usize::MAX), Err(10));
    }
}
