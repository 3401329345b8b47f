//! Sealed chunk → shards and their descriptor, in one pass over each byte.
//!
//! Hashes cost more than the code, so none is computed twice: shard 0 is the beginning of the
//! sealed chunk, and the hash of the whole chunk goes on from where shard 0's ends. With k = 1 all
//! shards are the sealed chunk itself, and one hash serves all.

use crate::matrix::combine;
use crate::{Coder, STRIPE};
use bytes::Bytes;
use model::chunk::SEALED_CHUNK_MAX;
use model::{ChunkRef, Descriptor, Hash};

/// A coded chunk.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Certifies each shard.
    pub descriptor: Descriptor,
    /// The `k + m` shards in order of index, all of [`Descriptor::shard_len`] bytes. The data
    /// shards share one buffer.
    pub shards: Vec<Bytes>,
}

impl Coder {
    /// Codes a sealed chunk. The data shards are the buffer itself: give it
    /// [`Coder::padded_len`] of capacity, and nothing is copied. `Invalid` for a chunk of no bytes,
    /// or of more than [`SEALED_CHUNK_MAX`].
    pub fn encode(&self, chunk: ChunkRef, generation: u16, mut sealed: Vec<u8>) -> model::Result<Encoded> {
        let sealed_len = sealed.len();
        if sealed_len == 0 || sealed_len > SEALED_CHUNK_MAX {
            return Err(model::Error::invalid(format!("a sealed chunk of {sealed_len} bytes cannot be coded")));
        }
        let (k, n) = (self.policy.k as usize, self.policy.width() as usize);
        let len = self.shard_len(sealed_len);
        sealed.resize(len * k, 0);

        let (sealed_hash, shard_hashes, parity) = if k == 1 {
            let hash = Hash::of(&sealed);
            (hash, vec![hash; n], Vec::new())
        } else {
            self.code_and_hash(&sealed, sealed_len, len)
        };

        let whole = Bytes::from(sealed);
        let mut shards: Vec<Bytes> = (0..k).map(|i| whole.slice(i * len..(i + 1) * len)).collect();
        shards.extend(parity.into_iter().map(Bytes::from));
        // Mirrors: every shard is the chunk.
        shards.resize(n, whole);

        let descriptor = Descriptor {
            version: Descriptor::VERSION,
            chunk,
            generation,
            policy: self.policy,
            sealed_len: sealed_len as u32,
            sealed_hash,
            shard_hashes,
        };
        Ok(Encoded { descriptor, shards })
    }

    /// H(sealed chunk), H(shard_i) and the parity shards; k ≥ 2.
    fn code_and_hash(&self, padded: &[u8], sealed_len: usize, len: usize) -> (Hash, Vec<Hash>, Vec<Vec<u8>>) {
        let (k, m) = (self.policy.k as usize, self.policy.m as usize);
        let mut hashers = vec![blake3::Hasher::new(); k + m];
        let mut parity: Vec<Vec<u8>> = (0..m).map(|_| Vec::with_capacity(len)).collect();
        for start in (0..len).step_by(STRIPE) {
            let stripe = start..(start + STRIPE).min(len);
            let inputs = || padded.chunks_exact(len).map(|shard| &shard[stripe.clone()]);
            for (i, out) in parity.iter_mut().enumerate() {
                out.resize(stripe.end, 0);
                let out = &mut out[stripe.clone()];
                combine(self.matrix.row(k + i), inputs(), out);
                hashers[k + i].update(out);
            }
            for (hasher, input) in hashers.iter_mut().zip(inputs()) {
                hasher.update(input);
            }
        }
        let mut whole = hashers[0].clone();
        whole.update(&padded[len..sealed_len]);
        let digest = |h: &blake3::Hasher| Hash(*h.finalize().as_bytes());
        (digest(&whole), hashers.iter().map(digest).collect(), parity)
    }
}
