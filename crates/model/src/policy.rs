//! How many shards a chunk becomes, and how many of them may be lost.

use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;

/// `k` data and `m` parity shards: any `k` of the `k + m` give the chunk back.
///
/// Invariant (kept by [`Policy::new`], to be checked again after decoding): `1 ≤ k`, `k + m ≤ 32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Policy {
    /// Data shards.
    #[n(0)]
    pub k: u8,
    /// Parity shards: how many losses a chunk survives.
    #[n(1)]
    pub m: u8,
}

impl Policy {
    /// The default of a new cluster: any two of four servers may be lost.
    pub const DEFAULT: Policy = Policy { k: 2, m: 2 };
    /// The widest policy.
    pub const MAX_WIDTH: u8 = 32;

    /// A policy, if it is one.
    pub fn new(k: u8, m: u8) -> crate::Result<Self> {
        let policy = Policy { k, m };
        policy.check()?;
        Ok(policy)
    }

    /// `Invalid` when the invariant does not hold (for values that came by wire or disk).
    pub fn check(&self) -> crate::Result<()> {
        if self.k == 0 || self.k as u16 + self.m as u16 > Self::MAX_WIDTH as u16 {
            return Err(crate::Error::invalid(format!(
                "policy {self} is not possible: k is at least 1 and k+m at most {}",
                Self::MAX_WIDTH
            )));
        }
        Ok(())
    }

    /// Shards of a chunk: `n = k + m`.
    pub fn width(&self) -> u8 {
        self.k + self.m
    }

    /// Shards that must be durable before a chunk counts as stored while a server is down or late:
    /// `w = min(k + 1, n − 1)`, at least `k`, and `k` where there is no parity.
    pub fn write_quorum(&self) -> u8 {
        if self.m == 0 { self.k } else { (self.k + 1).min(self.width() - 1).max(self.k) }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.k, self.m)
    }
}

impl FromStr for Policy {
    type Err = crate::Error;
    fn from_str(s: &str) -> crate::Result<Self> {
        let bad = || crate::Error::invalid(format!("'{s}' is not a policy: write K+M, for example 2+2"));
        let (k, m) = s.split_once('+').ok_or_else(bad)?;
        Policy::new(k.trim().parse().map_err(|_| bad())?, m.trim().parse().map_err(|_| bad())?)
    }
}
