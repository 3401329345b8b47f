//! The vocabulary of Shardkeep: what the system is made of, as plain values.
//!
//! No I/O, no async, no time source and no randomness: every other crate speaks in these types.
//! Read the modules in the order below; it is the order in which a newcomer needs them.

pub mod account;
pub mod answers;
pub mod cbor;
pub mod chunk;
pub mod cluster;
pub mod command;
pub mod error;
pub mod history;
pub mod ids;
pub mod layout;
pub mod link;
pub mod message;
pub mod policy;
pub mod query;
pub mod signed;
pub mod tree;

pub use chunk::{ChunkRef, Descriptor, DescriptorId, ShardRef};
pub use error::{Error, Kind, Result};
pub use ids::{
    AccountId, ClusterId, CommitId, CoordinatorId, DeviceId, EntryId, Epoch, FolderId, Hash, InviteId, KeyEpoch, LinkId, ManifestId,
    NameTag, NodeId, ObjectId, Partition, PublicKey, RequestId, Signature, SpaceId, TokenId,
};
pub use layout::Layout;
pub use policy::Policy;
