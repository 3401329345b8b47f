//! Longer parts of commands and answers: [`crate::command`] names them all.

use crate::account::{Invite, NewSpace, SpaceLabel};
use crate::cluster::Coordinator;
use crate::tree::{CommitRecord, EntryRow, ManifestRow};
use crate::{AccountId, ClusterId, CommitId, FolderId, Layout, NodeId, Policy, PublicKey, SpaceId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Rows with the commit records that they name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Rows {
    /// Rows, in order of tag.
    #[n(0)]
    pub rows: Vec<EntryRow>,
    /// Each commit named by a row, once.
    #[n(1)]
    pub commits: Vec<(CommitId, CommitRecord)>,
    /// Manifests named by rows, where asked for.
    #[n(2)]
    pub manifests: Vec<ManifestRow>,
    /// There may be more after the last row.
    #[n(3)]
    pub more: bool,
    /// Revision of the space.
    #[n(4)]
    pub revision: u64,
    /// Number of the space's newest member set: whoever knows an older one asks for the space anew.
    #[n(5)]
    #[cbor(default)]
    pub members: u64,
    /// The space's root folder as it is now.
    #[n(6)]
    pub root: Option<FolderId>,
}

/// Counters of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Totals {
    /// Accounts.
    #[n(0)]
    pub accounts: u64,
    /// Live entries.
    #[n(1)]
    pub entries: u64,
    /// Live objects.
    #[n(2)]
    pub objects: u64,
    /// Chunks of live objects.
    #[n(3)]
    pub chunks: u64,
    /// Bytes of shards of live objects.
    #[n(4)]
    pub bytes: u64,
    /// Last number of the feed.
    #[n(5)]
    pub feed: u64,
    /// Last number of the event log.
    #[n(6)]
    pub events: u64,
    /// Live chunks, and bytes of their shards, by policy, in order of k and m; those without any are left out.
    #[n(7)]
    #[cbor(default)]
    pub policies: Vec<(Policy, u64, u64)>,
    /// Live objects that are to be coded anew.
    #[n(8)]
    #[cbor(default)]
    pub recode: u64,
    /// Their sealed bytes.
    #[n(9)]
    #[cbor(default)]
    pub recode_bytes: u64,
}

/// How the live objects of a space are coded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpaceCoding {
    /// Whose space it is.
    #[n(0)]
    pub owner: AccountId,
    /// Its policy; `None`: it was never given one, and new files take the cluster's default.
    #[n(1)]
    pub policy: Option<Policy>,
    /// Objects and their sealed bytes (before coding) by policy, in order of k and m.
    #[n(2)]
    pub policies: Vec<(Policy, u64, u64)>,
    /// Objects that are still to be coded anew.
    #[n(3)]
    pub left: u64,
    /// Their sealed bytes.
    #[n(4)]
    pub left_bytes: u64,
}

/// See [`crate::command::Command::BeginRekey`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rekey {
    /// The space in which the folder lies.
    #[n(0)]
    pub source: SpaceId,
    /// The folder. For a space that gets new keys: its root.
    #[n(1)]
    pub folder: FolderId,
    /// Where everything goes: a space.
    #[n(2)]
    pub target: SpaceId,
    /// Its root from then on, which is fresh.
    #[n(3)]
    pub root: FolderId,
    /// The target, when it is made for this: a folder that is shared.
    #[n(4)]
    pub new: Option<(NewSpace, SpaceLabel)>,
}

/// What makes a cluster, fixed when its first coordinator starts. Secret: lives in the catalog only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    /// Cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// OPAQUE `ServerSetup`, serialised; never rebuilt.
    #[n(1)]
    pub opaque_setup: ByteVec,
    /// Cluster root certificate, DER.
    #[n(2)]
    pub root_cert: ByteVec,
    /// Its private key, PKCS#8 DER.
    #[n(3)]
    pub root_key: ByteVec,
    /// Ed25519 seed of the capability key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub capability_seed: [u8; 32],
    /// Its public key.
    #[n(5)]
    pub capability_key: PublicKey,
    /// Default policy.
    #[n(6)]
    pub policy: Policy,
    /// Partition power.
    #[n(7)]
    pub power: u8,
    /// First coordinator.
    #[n(8)]
    pub coordinator: Coordinator,
    /// Invite of the first admin.
    #[n(9)]
    pub invite: Invite,
}

/// See [`crate::command::Command::ChangeLayouts`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct NewLayouts {
    /// The new layouts with the slots that each moves, and the least that it must: `(layout, moved, minimum)`.
    #[n(0)]
    pub layouts: Vec<(Layout, u64, u64)>,
    /// Nodes that an operator wants emptied from now on.
    #[n(1)]
    pub drain: Vec<NodeId>,
    /// Nodes that an operator wants kept (again).
    #[n(2)]
    pub keep: Vec<NodeId>,
    /// Planned because of a loss: supersedes a change that is under way.
    #[n(3)]
    pub loss: bool,
    /// In words, for the log of events.
    #[n(4)]
    pub why: String,
    /// Nodes that are gone for good: out from now on, and forgotten with the end of the change.
    #[n(5)]
    #[cbor(default)]
    pub remove: Vec<NodeId>,
}
