//! A sealed chunk becomes k + m shards, and any k of them become the chunk again.
//!
//! The code is systematic Reed-Solomon over GF(2^8): shards `0..k` are the contiguous pieces of the
//! sealed chunk itself (the last one zero-padded), shards `k..k+m` are parity, computed byte column
//! by byte column. So a healthy read only joins pieces, a small range lies on one shard, and the
//! same range of any k shards gives that of every other.
//!
//! Everything here is ciphertext: no key, no I/O, no time, no randomness. What comes from disk or
//! network is checked against the chunk's [`Descriptor`] before it is handed on. Work is done in
//! stripes small enough that a stripe of all shards stays in the core's cache while it is coded and
//! hashed.

mod decode;
mod encode;
mod error;
mod matrix;

pub use encode::Encoded;
pub use error::DecodeError;

use matrix::Matrix;
use model::{Descriptor, Policy};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of each shard that are coded and hashed at a time.
const STRIPE: usize = 64 << 10;

/// Codes and decodes chunks of one [`Policy`]. Cheap to clone; share it between threads freely.
#[derive(Debug, Clone)]
pub struct Coder {
    policy: Policy,
    /// `k + m` rows of `k`: row `i` gives shard `i` from the data shards; the first k are the identity.
    matrix: Arc<Matrix>,
}

impl Coder {
    /// A coder for a policy; `Invalid` if it is none.
    pub fn new(policy: Policy) -> model::Result<Self> {
        policy.check()?;
        let matrix = Matrix::systematic(policy.k as usize, policy.width() as usize)
            .ok_or_else(|| model::Error::invalid(format!("policy {policy} has no code")))?;
        Ok(Coder { policy, matrix: Arc::new(matrix) })
    }

    /// Its policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Bytes of each shard of a sealed chunk of `sealed_len` bytes: `ceil(sealed_len / k)`.
    pub fn shard_len(&self, sealed_len: usize) -> usize {
        sealed_len.div_ceil(self.policy.k as usize)
    }

    /// Bytes of all data shards together. A buffer of this capacity is encoded without a copy.
    pub fn padded_len(&self, sealed_len: usize) -> usize {
        self.shard_len(sealed_len) * self.policy.k as usize
    }

    /// Where bytes `range` of the sealed chunk lie: data shards with the byte range in each, in order.
    /// The part of `range` beyond `sealed_len` is left out.
    pub fn pieces(&self, sealed_len: usize, range: Range<usize>) -> Vec<(u8, Range<usize>)> {
        let len = self.shard_len(sealed_len);
        let range = range.start..range.end.min(sealed_len);
        if range.is_empty() {
            return Vec::new();
        }
        let holders = range.start / len..=(range.end - 1) / len;
        holders.map(|i| (i as u8, range.start.saturating_sub(i * len)..(range.end - i * len).min(len))).collect()
    }

    /// The descriptor must be possible, and of this policy.
    fn admit(&self, descriptor: &Descriptor) -> Result<(), DecodeError> {
        descriptor.check().map_err(|_| DecodeError::BadDescriptor)?;
        if descriptor.policy == self.policy { Ok(()) } else { Err(DecodeError::BadDescriptor) }
    }
}

#[cfg(test)]
mod tests;
