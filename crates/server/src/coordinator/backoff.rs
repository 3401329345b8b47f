//! Back-off of password guesses: every OPAQUE evaluation counts against the account name and the
//! address that asked, before any work is done; a login that succeeds gets its count back.
//!
//! After a few free attempts the next one must wait 1 s, then 2 s, 4 s … up to 15 min. Unknown
//! names count like known ones, so the delay tells nothing about who has an account.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Attempts on one name that need not wait.
pub const FREE_BY_NAME: u32 = 5;
/// Attempts from one address that need not wait: several people may share one.
pub const FREE_BY_ADDRESS: u32 = 30;
/// Longest delay between two attempts.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);
/// A count that nobody touched for so long is forgotten.
const FORGET: Duration = Duration::from_secs(60 * 60);
/// Most counts kept.
const MOST: usize = 20_000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Count {
    attempts: u32,
    last: Duration,
}

impl Count {
    /// When the next attempt may be made.
    fn next(&self, free: u32) -> Duration {
        if self.attempts < free {
            return Duration::ZERO;
        }
        let delay = Duration::from_secs(1u64 << (self.attempts - free).min(20));
        self.last + delay.min(LONGEST)
    }
}

/// Counts of attempts. Times are monotonic ([`env::Clock::monotonic`]).
#[derive(Debug, Default)]
pub struct Backoff {
    counts: BTreeMap<Key, Count>,
}

impl Backoff {
    /// Counts one attempt on `name` from `address`. `Err(seconds)`: too early, not counted, and
    /// nothing may be done for it.
    pub fn attempt(&mut self, now: Duration, name: &str, address: IpAddr) -> Result<(), u64> {
        self.forget(now);
        let keys = [(Key::Name(name.into()), FREE_BY_NAME), (Key::Address(network(address)), FREE_BY_ADDRESS)];
        let next = keys.iter().filter_map(|(key, free)| self.counts.get(key).map(|c| c.next(*free))).max().unwrap_or_default();
        if next > now {
            return Err((next - now).as_secs().max(1));
        }
        for (key, _) in keys {
            let count = self.counts.entry(key).or_insert(Count { attempts: 0, last: now });
            count.attempts = count.attempts.saturating_add(1);
            count.last = now;
        }
        Ok(())
    }

    /// Gives back what [`Backoff::attempt`] counted: the attempt was no guess.
    pub fn refund(&mut self, name: &str, address: IpAddr) {
        for key in [Key::Name(name.into()), Key::Address(network(address))] {
            if let Some(count) = self.counts.get_mut(&key) {
                count.attempts = count.attempts.saturating_sub(1);
                if count.attempts == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }

    /// Drops what is old and, when there are too many counts, those that say least: a flood of
    /// made-up names must not wash out the count of a name under attack.
    fn forget(&mut self, now: Duration) {
        if self.counts.len() < MOST {
            return;
        }
        self.counts.retain(|_, c| c.last + FORGET > now);
        let mut floor = 1;
        while self.counts.len() >= MOST {
            self.counts.retain(|_, c| c.attempts > floor);
            floor *= 2;
        }
    }
}

/// What one customer of a network provider has: an IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn attempts_are_free_at_first_and_then_wait_twice_as_long_each_time() {
        let mut b = Backoff::default();
        for _ in 0..5 {
            assert_eq!(b.attempt(s(100), "ada", HERE), Ok(()));
        }
        assert_eq!(b.attempt(s(100), "ada", HERE), Err(1));
        assert_eq!(b.attempt(s(101), "ada", HERE), Ok(()));
        assert_eq!(b.attempt(s(101), "ada", HERE), Err(2));
        assert_eq!(b.attempt(s(103), "ada", HERE), Ok(()));
        assert_eq!(b.attempt(s(103), "ada", HERE), Err(4));
        assert_eq!(b.attempt(s(103), "grace", HERE), Ok(()));
    }

    #[test]
    fn the_longest_delay_is_a_quarter_of_an_hour() {
        let mut b = Backoff::default();
        let mut now = s(0);
        for _ in 0..40 {
            let _ = b.attempt(now, "ada", HERE);
            now += LONGEST;
        }
        assert_eq!(b.attempt(now - LONGEST, "ada", HERE), Err(900));
    }

    #[test]
    fn a_good_login_gets_its_count_back() {
        let mut b = Backoff::default();
        for _ in 0..100 {
            assert_eq!(b.attempt(s(1), "ada", HERE), Ok(()));
            b.refund("ada", HERE);
        }
    }

    #[test]
    fn one_address_may_not_try_many_names() {
        let mut b = Backoff::default();
        for i in 0..FREE_BY_ADDRESS {
            assert_eq!(b.attempt(s(1), &format!("user{i}"), HERE), Ok(()));
        }
        assert_eq!(b.attempt(s(1), "another", HERE), Err(1));
        // One customer has many addresses of IPv6, and may write those of IPv4 in two ways.
        assert_eq!(b.attempt(s(1), "another", "::ffff:127.0.0.1".parse().unwrap()), Err(1));
        for i in 0..FREE_BY_ADDRESS {
            assert_eq!(b.attempt(s(1), &format!("other{i}"), format!("2001:db8::{i:x}").parse().unwrap()), Ok(()));
        }
        assert_eq!(b.attempt(s(1), "another", "2001:db8::ffff".parse().unwrap()), Err(1));
        assert_eq!(b.attempt(s(1), "another", "2001:db8:0:1::1".parse().unwrap()), Ok(()));
    }

    #[test]
    fn a_flood_of_names_does_not_wash_out_a_name_under_attack() {
        let mut b = Backoff::default();
        for _ in 0..5 {
            let _ = b.attempt(s(1), "ada", HERE);
        }
        for i in 0..40_000u32 {
            let address = IpAddr::from((i + 1).to_be_bytes());
            let _ = b.attempt(s(1), &format!("user{i}"), address);
        }
        assert!(b.counts.len() <= MOST + 2);
        assert_eq!(b.attempt(s(1), "ada", IpAddr::from([9, 9, 9, 9])), Err(1));
    }
}
