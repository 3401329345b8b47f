//! What openraft's generic types are here.

use minicbor::bytes::ByteVec;
use model::cbor;
use model::command::{Applied, Proposal};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The consensus group. Spaces will be spread over many; the catalog is group 0. It stands in every
/// log record from the first day.
pub(crate) const GROUP: u32 = 0;

openraft::declare_raft_types!(
    /// The catalog's consensus group.
    pub(crate) TypeConfig:
        D = Entered,
        R = Reply,
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot<D> = openraft::type_config::alias::SnapshotOf<TypeConfig, D>;

/// A proposal as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entered(pub Proposal);

impl fmt::Display for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal {}", self.0.request)
    }
}

impl Serialize for Entered {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&cbor::to_vec(&self.0))
    }
}

impl<'de> Deserialize<'de> for Entered {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = d.deserialize_bytes(Bytes)?;
        cbor::from_slice(&bytes).map(Entered).map_err(de::Error::custom)
    }
}

/// What applying an entry answers; `None` for entries that are no proposals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply(pub Option<Applied>);

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&cbor::to_vec(&self.0))
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = d.deserialize_bytes(Bytes)?;
        cbor::from_slice(&bytes).map(Reply).map_err(de::Error::custom)
    }
}

struct Bytes;

impl de::Visitor<'_> for Bytes {
    type Value = ByteVec;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<ByteVec, E> {
        Ok(bytes.to_vec().into())
    }
}
