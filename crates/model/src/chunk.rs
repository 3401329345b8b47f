//! Chunks, shards, and the descriptor that lets a shard certify itself without any key.

use crate::{Error, Hash, ObjectId, Partition, Policy, Result, cbor};
use minicbor::{Decode, Encode};

/// Plaintext bytes of a full chunk (4 MiB); the last chunk of a file may be shorter.
pub const CHUNK_SIZE: usize = 4 << 20;
/// Files of at most this many bytes are sealed into their catalog entry.
pub const INLINE_MAX: usize = 4 << 10;
/// Longest sealed chunk that any server accepts, in bytes.
pub const SEALED_CHUNK_MAX: usize = CHUNK_SIZE + 56 + 16 * (CHUNK_SIZE / 16384 + 1);

/// A chunk: an object and the chunk's number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ChunkRef {
    /// The object.
    #[n(0)]
    pub object: ObjectId,
    /// The chunk's number in the object, from 0.
    #[n(1)]
    pub number: u32,
}

impl ChunkRef {
    /// The first `power` bits of BLAKE3(object ‖ number as 4 bytes big-endian).
    pub fn partition(&self, power: u8) -> Partition {
        let mut input = [0u8; 20];
        input[..16].copy_from_slice(&self.object.0);
        input[16..].copy_from_slice(&self.number.to_be_bytes());
        let h = blake3::hash(&input);
        let b = h.as_bytes();
        let first = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        Partition(first.checked_shr(32 - u32::from(power)).unwrap_or(0))
    }
}

/// One shard of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ShardRef {
    /// Its chunk.
    #[n(0)]
    pub chunk: ChunkRef,
    /// Its coding generation: grows when the chunk is re-coded under another policy.
    #[n(1)]
    pub generation: u16,
    /// Its index among the chunk's shards: `0..k` data, `k..k+m` parity.
    #[n(2)]
    pub index: u8,
}

impl ShardRef {
    /// Length of [`ShardRef::to_key`].
    pub const KEY_LEN: usize = 23;

    /// Fixed-length key in the order object, number, generation, index (integers big-endian).
    pub fn to_key(&self) -> [u8; Self::KEY_LEN] {
        let mut key = [0u8; Self::KEY_LEN];
        key[..16].copy_from_slice(&self.chunk.object.0);
        key[16..20].copy_from_slice(&self.chunk.number.to_be_bytes());
        key[20..22].copy_from_slice(&self.generation.to_be_bytes());
        key[22] = self.index;
        key
    }

    /// Reads [`ShardRef::to_key`]; `None` unless there are exactly 23 bytes.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; Self::KEY_LEN] = key.try_into().ok()?;
        Some(ShardRef {
            chunk: ChunkRef { object: ObjectId::from_slice(&key[..16])?, number: u32::from_be_bytes([key[16], key[17], key[18], key[19]]) },
            generation: u16::from_be_bytes([key[20], key[21]]),
            index: key[22],
        })
    }
}

/// BLAKE3 of an encoded [`Descriptor`].
pub type DescriptorId = Hash;

/// Stored beside each shard; certifies it without any key.
///
/// A node that accepts, scrubs or rebuilds shard `i` checks `BLAKE3(body) = shard_hashes[i]`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Descriptor {
    /// Format of this record: 1.
    #[n(0)]
    pub version: u8,
    /// The chunk.
    #[n(1)]
    pub chunk: ChunkRef,
    /// Coding generation of this set of shards.
    #[n(2)]
    pub generation: u16,
    /// How the chunk was coded.
    #[n(3)]
    pub policy: Policy,
    /// Bytes of the sealed chunk.
    #[n(4)]
    pub sealed_len: u32,
    /// BLAKE3 of the sealed chunk.
    #[n(5)]
    pub sealed_hash: Hash,
    /// BLAKE3 of each shard, `k + m` of them.
    #[n(6)]
    pub shard_hashes: Vec<Hash>,
}

impl Descriptor {
    /// The version that this code writes.
    pub const VERSION: u8 = 1;

    /// Bytes of every shard of the chunk: `ceil(sealed_len / k)`.
    pub fn shard_len(&self) -> usize {
        (self.sealed_len as usize).div_ceil(self.policy.k.max(1) as usize)
    }

    /// Deterministic encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// BLAKE3 of the deterministic encoding.
    pub fn id(&self) -> DescriptorId {
        Hash::of(&self.to_bytes())
    }

    /// Decodes and checks a descriptor; `Corrupt` for anything but a canonical, possible one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let d: Descriptor = cbor::from_canonical(bytes)?;
        d.check()?;
        Ok(d)
    }

    /// How the chunk of an encoded descriptor is coded, without decoding the rest; `None` for bytes
    /// that are none.
    pub fn peek_policy(bytes: &[u8]) -> Option<Policy> {
        let mut d = minicbor::Decoder::new(bytes);
        d.array().ok()?;
        for _ in 0..3 {
            d.skip().ok()?; // version, chunk, generation
        }
        let policy: Policy = d.decode().ok()?;
        policy.check().ok().map(|()| policy)
    }

    /// `Corrupt` when the descriptor describes nothing possible.
    pub fn check(&self) -> Result<()> {
        let possible = self.version == Self::VERSION
            && self.policy.check().is_ok()
            && self.shard_hashes.len() == self.policy.width() as usize
            && self.sealed_len > 0
            && self.sealed_len as usize <= SEALED_CHUNK_MAX;
        if possible { Ok(()) } else { Err(Error::corrupt("impossible shard descriptor")) }
    }

    /// Whether `body` is shard `index` of this chunk.
    pub fn certifies(&self, index: u8, body: &[u8]) -> bool {
        body.len() == self.shard_len() && self.shard_hashes.get(index as usize).is_some_and(|h| *h == Hash::of(body))
    }
}
