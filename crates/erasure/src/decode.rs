//! Shards → sealed chunk, a lost shard, or the range of a lost shard.
//!
//! A reader trusts H(sealed chunk) and looks at shard hashes only when that fails, to name the
//! culprits. A rebuilder checks everything: what it makes will certify others later.

use crate::error::DecodeError;
use crate::matrix::{Matrix, combine};
use crate::{Coder, STRIPE};
use bytes::Bytes;
use model::{Descriptor, Hash};

impl Coder {
    /// The sealed chunk from any k of its shards, given by index (`None`: not at hand); more than k
    /// are not read. The result's hash is that of the descriptor.
    ///
    /// On [`DecodeError::BadShards`] leave out the shards named, add others, and call again.
    pub fn decode<T: AsRef<[u8]>>(&self, descriptor: &Descriptor, shards: &[Option<T>]) -> Result<Vec<u8>, DecodeError> {
        let at_hand = self.at_hand(descriptor, shards)?;
        let (sealed, hash) = self.join(descriptor, &at_hand)?;
        if hash == descriptor.sealed_hash {
            return Ok(sealed);
        }
        check_hashes(descriptor, &at_hand)?;
        Err(DecodeError::Contradiction)
    }

    /// Shard `index` from any k others, for repair: checks the hash of every shard given, of the
    /// sealed chunk, and of the result, so that no false shard spreads.
    pub fn rebuild<T: AsRef<[u8]>>(&self, descriptor: &Descriptor, shards: &[Option<T>], index: u8) -> Result<Bytes, DecodeError> {
        if index >= self.policy.width() {
            return Err(DecodeError::BadCall("there is no shard of this index"));
        }
        let at_hand = self.at_hand(descriptor, shards)?;
        check_hashes(descriptor, &at_hand)?;
        let (mut sealed, hash) = self.join(descriptor, &at_hand)?;
        if hash != descriptor.sealed_hash {
            return Err(DecodeError::Contradiction);
        }
        let len = descriptor.shard_len();
        sealed.resize(len * self.policy.k as usize, 0);
        let data: Vec<&[u8]> = sealed.chunks_exact(len).collect();
        let shard = match data.get(index as usize) {
            Some(piece) => Bytes::copy_from_slice(piece),
            None => Bytes::from(linear(self.matrix.row(index as usize), &data, len)),
        };
        if descriptor.certifies(index, &shard) { Ok(shard) } else { Err(DecodeError::Contradiction) }
    }

    /// A byte range of shard `index` from the *same* range of exactly k other shards, given with
    /// their indexes. The hashes of a descriptor say nothing about ranges: the caller must verify
    /// the result by other means (the cells' authentication tags).
    pub fn decode_range<T: AsRef<[u8]>>(&self, index: u8, pieces: &[(u8, T)]) -> Result<Vec<u8>, DecodeError> {
        let k = self.policy.k as usize;
        if pieces.len() < k {
            return Err(DecodeError::TooFew { have: pieces.len(), need: k });
        }
        if pieces.len() > k {
            return Err(DecodeError::BadCall("a range is decoded from exactly k shards"));
        }
        if index >= self.policy.width() || pieces.iter().any(|(i, _)| *i >= self.policy.width()) {
            return Err(DecodeError::BadCall("there is no shard of this index"));
        }
        let inputs: Vec<&[u8]> = pieces.iter().map(|(_, bytes)| bytes.as_ref()).collect();
        let len = inputs.first().map_or(0, |first| first.len());
        if inputs.iter().any(|input| input.len() != len) {
            return Err(DecodeError::BadCall("the ranges differ in length"));
        }
        let inverse = self.inverse(pieces.iter().map(|(i, _)| *i))?;
        Ok(linear(&inverse.apply(self.matrix.row(index as usize)), &inputs, len))
    }

    /// The shards given, with their indexes: at least k, and all of the right length.
    fn at_hand<'a, T: AsRef<[u8]>>(&self, descriptor: &Descriptor, shards: &'a [Option<T>]) -> Result<Vec<(u8, &'a [u8])>, DecodeError> {
        self.admit(descriptor)?;
        if shards.len() > self.policy.width() as usize {
            return Err(DecodeError::BadCall("more shards than the policy has"));
        }
        let at_hand: Vec<(u8, &[u8])> = shards.iter().enumerate().filter_map(|(i, s)| s.as_ref().map(|s| (i as u8, s.as_ref()))).collect();
        let bad: Vec<u8> = at_hand.iter().filter(|(_, s)| s.len() != descriptor.shard_len()).map(|(i, _)| *i).collect();
        if !bad.is_empty() {
            return Err(DecodeError::BadShards(bad));
        }
        let (have, need) = (at_hand.len(), self.policy.k as usize);
        if have < need { Err(DecodeError::TooFew { have, need }) } else { Ok(at_hand) }
    }

    /// Joins the data shards, computing those that are missing, and hashes as it goes: one pass.
    fn join(&self, descriptor: &Descriptor, at_hand: &[(u8, &[u8])]) -> Result<(Vec<u8>, Hash), DecodeError> {
        let k = self.policy.k as usize;
        let used = at_hand.get(..k).ok_or(DecodeError::TooFew { have: at_hand.len(), need: k })?;
        let (len, sealed_len) = (descriptor.shard_len(), descriptor.sealed_len as usize);
        // Data shards come first, so with all of them at hand nothing needs decoding.
        let inverse =
            if used.last().is_some_and(|(i, _)| (*i as usize) < k) { None } else { Some(self.inverse(used.iter().map(|(i, _)| *i))?) };

        let mut sealed = Vec::with_capacity(len * k);
        let mut hasher = blake3::Hasher::new();
        for i in 0..k {
            let present = used.iter().find(|(index, _)| *index as usize == i).map(|(_, shard)| *shard);
            for start in (0..len).step_by(STRIPE) {
                let stripe = start..(start + STRIPE).min(len);
                let from = sealed.len();
                match (present, &inverse) {
                    (Some(shard), _) => sealed.extend_from_slice(&shard[stripe]),
                    (None, Some(inverse)) => {
                        sealed.resize(from + stripe.len(), 0);
                        combine(inverse.row(i), used.iter().map(|(_, shard)| &shard[stripe.clone()]), &mut sealed[from..]);
                    }
                    (None, None) => return Err(DecodeError::BadCall("a shard is given twice")),
                }
                // The padding is no part of the chunk.
                hasher.update(&sealed[from.min(sealed_len)..sealed.len().min(sealed_len)]);
            }
        }
        sealed.truncate(sealed_len);
        Ok((sealed, Hash(*hasher.finalize().as_bytes())))
    }

    /// The matrix that gives the data from these k shards.
    fn inverse(&self, indexes: impl Iterator<Item = u8>) -> Result<Matrix, DecodeError> {
        let rows: Vec<&[u8]> = indexes.map(|i| self.matrix.row(i as usize)).collect();
        // Any k different rows are independent.
        Matrix::inverse_of(&rows).ok_or(DecodeError::BadCall("a shard is given twice"))
    }
}

/// `BadShards` with every shard that is not as certified.
fn check_hashes(descriptor: &Descriptor, at_hand: &[(u8, &[u8])]) -> Result<(), DecodeError> {
    let bad: Vec<u8> = at_hand.iter().filter(|(i, shard)| !descriptor.certifies(*i, shard)).map(|(i, _)| *i).collect();
    if bad.is_empty() { Ok(()) } else { Err(DecodeError::BadShards(bad)) }
}

/// One output of `len` bytes, stripe by stripe.
fn linear(row: &[u8], inputs: &[&[u8]], len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    for start in (0..len).step_by(STRIPE) {
        let stripe = start..(start + STRIPE).min(len);
        out.resize(stripe.end, 0);
        combine(row, inputs.iter().map(|input| &input[stripe.clone()]), &mut out[stripe.clone()]);
    }
    out
}
