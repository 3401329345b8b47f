//! Longer parts of commands and answers: [`crate::command`] names them all.

use crate::account::{Account, Identity, Invite, Membership, NewSpace, Role, SpaceInfo, SpaceLabel};
use crate::cluster::{ClusterView, Coordinator, Event, FeedItem, Node, ObjectState, Token};
use crate::history::{Changes, Doors, History, KeptSize, TrashPage};
use crate::layout::LayoutPatch;
use crate::link::Link;
use crate::message::{MailItem, Mailbox, Thread};
use crate::tree::{CommitRecord, EntryRow, ManifestRow};
use crate::{AccountId, ClusterId, CommitId, FolderId, Layout, NodeId, ObjectId, Policy, PublicKey, SpaceId};
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
    /// Number in the feed of the last commit of which some chunk had not all its shards; 0: none.
    #[n(10)]
    #[cbor(default)]
    pub partial: u64,
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

/// The answer to a [`crate::command::Query`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Account.
    #[n(0)]
    Account(#[n(0)] Option<Box<Account>>),
    /// Invite.
    #[n(1)]
    Invite(#[n(0)] Option<Invite>),
    /// Token.
    #[n(2)]
    Token(#[n(0)] Option<Token>),
    /// Session.
    #[n(3)]
    Session(#[n(0)] Option<AccountId>),
    /// Space; `None` also for those who are no members.
    #[n(4)]
    Space(#[n(0)] Option<Box<SpaceInfo>>),
    /// Rows.
    #[n(5)]
    Rows(#[n(0)] Rows),
    /// Manifests.
    #[n(6)]
    Manifests(#[n(0)] Vec<ManifestRow>),
    /// Cluster.
    #[n(7)]
    Cluster(#[n(0)] Box<ClusterView>),
    /// Layout.
    #[n(8)]
    Layout(#[n(0)] Option<Layout>),
    /// Events.
    #[n(9)]
    Events(#[n(0)] Vec<Event>),
    /// Feed: items with their numbers, and whether there are more.
    #[n(10)]
    Feed(#[n(0)] Vec<(u64, FeedItem)>, #[n(1)] bool),
    /// Object states, in the order asked.
    #[n(11)]
    Objects(#[n(0)] Vec<ObjectState>),
    /// Counters.
    #[n(12)]
    Totals(#[n(0)] Totals),
    /// Genesis.
    #[n(13)]
    Genesis(#[n(0)] Option<Box<Genesis>>),
    /// Nodes alone.
    #[n(14)]
    Nodes(#[n(0)] Vec<Node>),
    /// Accounts, and whether there are more.
    #[n(15)]
    Accounts(#[n(0)] Vec<Account>, #[n(1)] bool),
    /// Objects with how they are coded now, and the generation and policy that they are to have;
    /// whether there may be more, and after which object to go on.
    #[n(16)]
    Recode(#[n(0)] Vec<(crate::tree::ObjectUse, u16, Policy)>, #[n(1)] bool, #[n(2)] Option<ObjectId>),
    /// Generations; `None` for objects that are not live.
    #[n(17)]
    Generations(#[n(0)] Vec<Option<crate::cluster::Generations>>),
    /// How a space is coded; `None` where there is none.
    #[n(18)]
    Coding(#[n(0)] Option<SpaceCoding>),
    /// A layout as what it has that the asker's has not.
    #[n(19)]
    LayoutPatch(#[n(0)] Box<LayoutPatch>),
    /// Public identities.
    #[n(60)]
    Identities(#[n(0)] Vec<Identity>),
    /// Versions.
    #[n(50)]
    History(#[n(0)] History),
    /// Trash.
    #[n(51)]
    Trash(#[n(0)] TrashPage),
    /// Doors of folders.
    #[n(52)]
    Doors(#[n(0)] Doors),
    /// Changes.
    #[n(53)]
    Changes(#[n(0)] Box<Changes>),
    /// Sizes of versions, and whether there are more.
    #[n(54)]
    Kept(#[n(0)] Vec<KeptSize>, #[n(1)] bool),
    /// Memberships, in order of space.
    #[n(40)]
    Spaces(#[n(0)] Vec<Membership>),
    /// A role; `None` for those who are no members.
    #[n(41)]
    Role(#[n(0)] Option<Role>),
    /// Bytes.
    #[n(43)]
    Used(#[n(0)] u64),
    /// Counts of a mailbox.
    #[n(62)]
    Mailbox(#[n(0)] Mailbox),
    /// Messages, and whether there are more.
    #[n(63)]
    Mail(#[n(0)] Vec<MailItem>, #[n(1)] bool),
    /// How far one account has written to another.
    #[n(64)]
    Thread(#[n(0)] Thread),
    /// A link.
    #[n(65)]
    Link(#[n(0)] Option<Box<Link>>),
    /// Links.
    #[n(66)]
    Links(#[n(0)] Vec<Link>),
    /// All of them.
    #[n(67)]
    Within(#[n(0)] bool),
}
