//! Encrypted snapshots of the catalog on nodes: a lone coordinator leaves them there, and whoever holds
//! its recovery key may fetch them.

use crate::rpc;
use minicbor::{Decode, Encode};
use model::PublicKey;

rpc!(
    /// Coordinator: a part of a snapshot; the body is its bytes. Parts come in order. With the last one
    /// the snapshot is whole and durable, and older ones of its owner may go. `Conflict` when the part does
    /// not follow, `Insufficient` when there is too little room.
    PutSnapshot, "/v1/snapshot/put", PutSnapshotRequest => ()
);
rpc!(
    /// Whoever has proved the owner's key on this connection (see [`Prove`](crate::node::Prove)): a part of a
    /// snapshot; the response's body is its bytes. `NotFound` when the node has none.
    GetSnapshot, "/v1/snapshot/get", GetSnapshotRequest => GetSnapshotResponse
);

/// See [`PutSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PutSnapshotRequest {
    /// Key that opens the door to it: made from the recovery key.
    #[n(0)]
    pub owner: PublicKey,
    /// Catalog time of the snapshot, milliseconds since 1970.
    #[n(1)]
    pub time_ms: u64,
    /// Where the part begins.
    #[n(2)]
    pub offset: u64,
    /// It is the last one.
    #[n(3)]
    pub last: bool,
}

/// See [`GetSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetSnapshotRequest {
    /// The snapshot of that time; `None`: the newest.
    #[n(0)]
    pub time_ms: Option<u64>,
    /// Where the part begins.
    #[n(1)]
    pub offset: u64,
}

/// See [`GetSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetSnapshotResponse {
    /// Catalog time of the snapshot.
    #[n(0)]
    pub time_ms: u64,
    /// Its length in bytes.
    #[n(1)]
    pub len: u64,
}
