//! Servers: nodes, coordinators, tokens, capabilities, and the log of events.

use crate::{AccountId, CoordinatorId, DeviceId, Epoch, NodeId, ObjectId, Policy, PublicKey, Signature, SpaceId, TokenId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// What a certificate or token makes its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ServerRole {
    /// Storage server.
    #[n(0)]
    Node,
    /// Catalog server.
    #[n(1)]
    Coordinator,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NodeState {
    /// Known, holds no slots yet.
    #[n(0)]
    Joining,
    /// Answers heartbeats.
    #[n(1)]
    Up,
    /// Silent for 5 s.
    #[n(2)]
    Suspect,
    /// Silent for 10 s.
    #[n(3)]
    Down,
    /// Silent for 30 min: the layout changes without it.
    #[n(4)]
    Out,
    /// Being emptied.
    #[n(5)]
    Draining,
}

/// A disk of a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Device {
    /// Id, written on the disk itself.
    #[n(0)]
    pub id: DeviceId,
    /// Usable bytes.
    #[n(1)]
    pub capacity: u64,
    /// Bytes used, as last reported.
    #[n(2)]
    pub used: u64,
    /// Why the device takes no new shards, if it does not.
    #[n(3)]
    pub problem: Option<String>,
    /// Shards on it, as last reported.
    #[n(4)]
    pub shards: u64,
}

/// A node row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// Id.
    #[n(0)]
    pub id: NodeId,
    /// Short name for people: `node-ID`.
    #[n(1)]
    pub name: String,
    /// Address that clients and nodes connect to.
    #[n(2)]
    pub address: String,
    /// Failure zone; by default each node is a zone of its own (empty string).
    #[n(3)]
    pub zone: String,
    /// Disks.
    #[n(4)]
    pub devices: Vec<Device>,
    /// State, as last proposed through the log.
    #[n(5)]
    pub state: NodeState,
    /// BLAKE3 of the node's certificate public key (SubjectPublicKeyInfo).
    #[n(6)]
    pub key: crate::Hash,
    /// Software and protocol version, "major.minor.patch".
    #[n(7)]
    pub version: String,
    /// An operator wants it emptied: layouts are planned without it.
    #[n(8)]
    #[cbor(default)]
    pub draining: bool,
    /// An operator has taken it out for good: it counts as out whatever it says, and is forgotten with
    /// the end of the change that does without it.
    #[n(9)]
    #[cbor(default)]
    pub leaving: bool,
}

/// A coordinator row: the coordinators that there should be. The consensus group follows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Coordinator {
    /// Id; also its id in the consensus group.
    #[n(0)]
    pub id: CoordinatorId,
    /// Address; empty: it has a certificate, and has not said yet where it is.
    #[n(1)]
    pub address: String,
    /// BLAKE3 of its certificate's public key; zeros for the one that made the cluster.
    #[n(2)]
    #[cbor(default)]
    pub key: crate::Hash,
    /// Software version, "major.minor.patch".
    #[n(3)]
    #[cbor(default)]
    pub version: String,
}

/// A join token as kept by the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// Id.
    #[n(0)]
    pub id: TokenId,
    /// One-time secret (the joiner proves it by HMAC, so the catalog needs it; it dies with use).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// What it makes of its holder.
    #[n(2)]
    pub role: ServerRole,
    /// Catalog time after which it is refused.
    #[n(3)]
    pub expires_ms: u64,
    /// The node whose slots the joiner takes over.
    #[n(4)]
    pub replace: Option<NodeId>,
    /// Used already.
    #[n(5)]
    pub used: bool,
}

/// What a capability allows at a node. There is no client operation that deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Operation {
    /// Store shards of the objects named.
    #[n(0)]
    Put,
    /// Read shards.
    #[n(1)]
    Get,
}

/// A node capability: signed with the coordinators' capability key as type `"capability"`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CapabilityBody {
    /// The one node that may honour it.
    #[n(0)]
    pub audience: NodeId,
    /// For whom.
    #[n(1)]
    pub account: AccountId,
    /// What.
    #[n(2)]
    pub operations: Vec<Operation>,
    /// Exactly the objects that may be put.
    #[n(3)]
    pub objects: Vec<ObjectId>,
    /// Most bytes of shards that may be put under it.
    #[n(4)]
    pub byte_limit: u64,
    /// Ed25519 key that the connection must have proved.
    #[n(5)]
    pub holder: PublicKey,
    /// Milliseconds since 1970.
    #[n(6)]
    pub not_before_ms: u64,
    /// Milliseconds since 1970; at most 10 min after `not_before_ms`.
    #[n(7)]
    pub expires_ms: u64,
}

/// A signed [`CapabilityBody`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Capability {
    /// Encoded body.
    #[n(0)]
    pub body: ByteVec,
    /// Signature.
    #[n(1)]
    pub signature: Signature,
}

/// Proof for the catalog that object ids were issued: signed as type `"upload-grant"`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UploadGrantBody {
    /// Objects issued.
    #[n(0)]
    pub objects: Vec<ObjectId>,
    /// To whom.
    #[n(1)]
    pub account: AccountId,
    /// For which space.
    #[n(2)]
    pub space: SpaceId,
}

/// A signed [`UploadGrantBody`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UploadGrant {
    /// Encoded body.
    #[n(0)]
    pub body: ByteVec,
    /// Signature.
    #[n(1)]
    pub signature: Signature,
}

/// What everybody needs to know of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClusterView {
    /// Nodes in order of id.
    #[n(0)]
    pub nodes: Vec<Node>,
    /// Coordinators in order of id.
    #[n(1)]
    pub coordinators: Vec<Coordinator>,
    /// The leader, where known.
    #[n(2)]
    pub leader: Option<CoordinatorId>,
    /// Default policy.
    #[n(3)]
    pub policy: Policy,
    /// `(width, epoch)` of each layout.
    #[n(4)]
    pub layouts: Vec<(u8, Epoch)>,
    /// Key that signs capabilities.
    #[n(5)]
    pub capability_key: PublicKey,
    /// Milliseconds since 1970, the catalog's time.
    #[n(6)]
    pub time_ms: u64,
    /// Partition power.
    #[n(7)]
    pub power: u8,
    /// Grows whenever nodes, coordinators, layouts or their changes do: whoever has another one asks again.
    #[n(8)]
    #[cbor(default)]
    pub revision: u64,
    /// Changes of layouts that are under way, by width.
    #[n(9)]
    #[cbor(default)]
    pub changes: Vec<crate::layout::LayoutChange>,
    /// Which life of the catalog this is.
    #[n(10)]
    #[cbor(default)]
    pub life: CatalogLife,
    /// Log time at which a policy or a coding generation last changed, milliseconds since 1970; 0: never.
    #[n(11)]
    #[cbor(default)]
    pub recoded_ms: u64,
}

/// Which life of the catalog it is, and what operators ask of all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct CatalogLife {
    /// Random; drawn when the cluster is made and again with each restore from a backup. Numbers of
    /// the feed mean something within one incarnation only.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub incarnation: [u8; 16],
    /// Restored and not yet released: nobody drops anything.
    #[n(1)]
    pub frozen: bool,
    /// How often an operator has released collection: nodes that froze by themselves go on when it grows.
    #[n(2)]
    pub thaws: u64,
    /// Log time at which an operator last asked for a scrub of everything; 0: never.
    #[n(3)]
    pub scrub_ms: u64,
    /// Log time of the last backup that somebody made; 0: never.
    #[n(4)]
    pub backup_ms: u64,
    /// Log time of the last snapshot onto the nodes; 0: never.
    #[n(5)]
    #[cbor(default)]
    pub snapshot_ms: u64,
}

/// An event for operators: hash-chained in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Event {
    /// Number in the chain, from 1.
    #[n(0)]
    pub seq: u64,
    /// Log time.
    #[n(1)]
    pub time_ms: u64,
    /// What kind of event: a word such as `node-joined`, `shard-corrupt`, `account-registered`.
    #[n(2)]
    pub what: String,
    /// The node concerned.
    #[n(3)]
    pub node: Option<NodeId>,
    /// Detail for people; no names of files, no secrets.
    #[n(4)]
    pub detail: String,
    /// BLAKE3 of the previous event's encoding; zeros for the first.
    #[n(5)]
    pub prev: crate::Hash,
}

/// One step of the feed by which nodes learn which chunks must exist.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FeedItem {
    /// An object is live with these chunks.
    #[n(0)]
    Live(#[n(0)] crate::tree::ObjectUse, #[n(1)] u16),
    /// An object is dead: drop its shards.
    #[n(1)]
    Dead(#[n(0)] ObjectId),
}

/// Which coding generations of a live object count. Shards of others may be dropped after a grace,
/// if the catalog has given those generations out at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Generations {
    /// The one that is read.
    #[n(0)]
    pub current: u16,
    /// The one that is being made, if the object is to be coded anew.
    #[n(1)]
    pub next: Option<u16>,
    /// The last one that was given out in its space.
    #[n(2)]
    pub given: u16,
    /// Log time since which that is so, milliseconds since 1970.
    #[n(3)]
    pub since_ms: u64,
}

/// What the catalog knows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ObjectState {
    /// Issued, not committed: never dropped.
    #[n(0)]
    Pending,
    /// Referred to.
    #[n(1)]
    Live,
    /// Nothing refers to it any more.
    #[n(2)]
    Dead,
    /// Never committed within 24 h of catalog time.
    #[n(3)]
    Expired,
}
