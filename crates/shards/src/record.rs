//! What the log of a device holds: the meta of its three kinds of records.
//!
//! ```text
//! 1 shard      meta = version 1 ‖ shard key 23 ‖ descriptor (CBOR)      body = the shard
//! 2 drop       meta = version 1 ‖ shard key 23, as many as there are    body = none
//! 3 quarantine the same as drop: those shards were found bad
//! ```
//! The shard key is [`ShardRef::to_key`].

use bytes::Bytes;
use model::{Descriptor, ShardRef};

/// Kind of a shard's record.
pub(crate) const SHARD: u8 = 1;
/// Kind of a drop.
pub(crate) const DROP: u8 = 2;
/// Kind of a quarantine.
pub(crate) const QUARANTINE: u8 = 3;
/// Version of all of them.
const VERSION: u8 = 1;
/// Most keys in one drop.
pub(crate) const KEYS_MAX: usize = 2_000;

/// Meta of a shard's record.
pub(crate) fn shard_meta(shard: &ShardRef, descriptor: &Descriptor) -> Bytes {
    [&[VERSION][..], &shard.to_key(), &descriptor.to_bytes()].concat().into()
}

/// The key in a shard's meta, and its encoded descriptor (not yet checked).
pub(crate) fn read_shard_meta(meta: &[u8]) -> Option<(ShardRef, &[u8])> {
    let rest = meta.strip_prefix(&[VERSION])?;
    let (key, descriptor) = rest.split_at_checked(ShardRef::KEY_LEN)?;
    Some((ShardRef::from_key(key)?, descriptor))
}

/// Meta of a drop or quarantine.
pub(crate) fn keys_meta(shards: &[ShardRef]) -> Bytes {
    let mut meta = Vec::with_capacity(1 + shards.len() * ShardRef::KEY_LEN);
    meta.push(VERSION);
    for shard in shards {
        meta.extend_from_slice(&shard.to_key());
    }
    meta.into()
}

/// The keys of a drop or quarantine.
pub(crate) fn read_keys_meta(meta: &[u8]) -> Option<Vec<ShardRef>> {
    let keys = meta.strip_prefix(&[VERSION])?;
    let (keys, rest) = keys.as_chunks::<{ ShardRef::KEY_LEN }>();
    if !rest.is_empty() {
        return None;
    }
    keys.iter().map(|k| ShardRef::from_key(k)).collect()
}
