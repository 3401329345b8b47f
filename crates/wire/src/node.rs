//! What a node answers.

use crate::rpc;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::cluster::Capability;
use model::{Descriptor, DescriptorId, DeviceId, Epoch, PublicKey, ShardRef, Signature};

rpc!(
    /// First on each connection of a client: proves the holder key. `Denied` unless the signature
    /// (type `"cap-proof"`) covers [`proof_body`] of this very connection.
    Prove, "/v1/prove", ProveRequest => ()
);
rpc!(
    /// Stores a shard; the body is the shard. Answers when it is durable. Clients need a capability
    /// that names the object; peers (mutual TLS) need none.
    PutShard, "/v1/shard/put", PutShardRequest => ()
);
rpc!(
    /// Reads a shard or a range of it; the response's body is the bytes asked for.
    GetShard, "/v1/shard/get", GetShardRequest => GetShardResponse
);
rpc!(
    /// What the node has of some shards, without their bytes. With `deep`, each is read and its
    /// hash checked. At most 1,024 shards a call (64 when deep).
    HeadShards, "/v1/shard/head", HeadShardsRequest => Vec<ShardState>
);

rpc!(
    /// Node: which of these shards may the asker drop? The answer is `true` only for a shard that is
    /// durable on the device named, which must be its rightful one by the layout of exactly this
    /// epoch; `Conflict` when the epoch is not the one that the asked node knows. At most 1,024 shards.
    ConfirmShards, "/v1/shard/confirm", ConfirmShardsRequest => Vec<bool>
);

/// See [`ConfirmShards`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConfirmShardsRequest {
    /// Width of the layout.
    #[n(0)]
    pub width: u8,
    /// Epoch of the layout by which the asker judges.
    #[n(1)]
    pub epoch: Epoch,
    /// Shards with the descriptor that the asker has, and the device that should hold them.
    #[n(2)]
    pub shards: Vec<(ShardRef, DescriptorId, DeviceId)>,
}

/// See [`Prove`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProveRequest {
    /// Protocol of the client.
    #[n(0)]
    pub protocol: crate::Version,
    /// Holder key.
    #[n(1)]
    pub holder: PublicKey,
    /// Signature over [`proof_body`].
    #[n(2)]
    pub signature: Signature,
}

/// The bytes that a holder signs: TLS exporter of the connection (label
/// `EXPORTER-Channel-Binding`, no context, 32 bytes), BLAKE3 of the node's certificate, holder key.
pub fn proof_body(exporter: &[u8; 32], certificate: &model::Hash, holder: &PublicKey) -> Vec<u8> {
    [&exporter[..], &certificate.0[..], &holder.0[..]].concat()
}

/// See [`PutShard`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PutShardRequest {
    /// What allows it; `None` from peers.
    #[n(0)]
    pub capability: Option<Capability>,
    /// The shard.
    #[n(1)]
    pub shard: ShardRef,
    /// Encoded [`Descriptor`].
    #[n(2)]
    pub descriptor: ByteVec,
    /// Layout epoch by which the writer placed it.
    #[n(3)]
    pub epoch: Epoch,
    /// The device that the layout names.
    #[n(4)]
    pub device: DeviceId,
}

/// See [`GetShard`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetShardRequest {
    /// What allows it; `None` from peers.
    #[n(0)]
    pub capability: Option<Capability>,
    /// The shard.
    #[n(1)]
    pub shard: ShardRef,
    /// `(offset, length)` inside the shard; `None`: all of it.
    #[n(2)]
    pub range: Option<(u64, u64)>,
    /// The device that the layout names: a hint, other devices of the node are asked too.
    #[n(3)]
    pub device: DeviceId,
}

/// See [`GetShard`]; the bytes are the response's body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetShardResponse {
    /// Encoded [`Descriptor`] stored with the shard.
    #[n(0)]
    pub descriptor: ByteVec,
}

/// See [`HeadShards`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeadShardsRequest {
    /// What allows it; `None` from peers.
    #[n(0)]
    pub capability: Option<Capability>,
    /// The shards.
    #[n(1)]
    pub shards: Vec<ShardRef>,
    /// Read them and check their hashes.
    #[n(2)]
    pub deep: bool,
}

/// What a node has of a shard, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ShardState {
    /// Nothing.
    #[n(0)]
    Missing,
    /// The shard with this descriptor on this device (checked, if `deep`).
    #[n(1)]
    Held(#[n(0)] DescriptorId, #[n(1)] DeviceId),
    /// Something that does not verify.
    #[n(2)]
    Corrupt(#[n(0)] DeviceId),
}

/// Decodes the descriptor of a message.
pub fn descriptor(bytes: &[u8]) -> model::Result<Descriptor> {
    Descriptor::from_bytes(bytes)
}
