//! Every change to the catalog. The questions to it are in [`crate::query`], what it answers in [`crate::answers`].

use crate::account::{Account, Grant, Invite, LoginRecord, MemberSet, NewSpace, RecoveryRecord, SpaceLabel, StateRecord};
use crate::cluster::{Coordinator, Device, NodeState, ServerRole, Token, UploadGrant};
use crate::link::Link;
use crate::message::Message;
use crate::tree::{Change, CommitRecord, Resealed};
use crate::{
    AccountId, CoordinatorId, Epoch, Error, Hash, InviteId, LinkId, NodeId, ObjectId, Policy, RequestId, Signature, SpaceId, TokenId,
};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

pub use crate::answers::{Answer, Genesis, NewLayouts, Rekey, Rows, SpaceCoding, Totals};
pub use crate::query::Query;

/// A command with its idempotence key. The log entry adds the leader's time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Idempotence key: the result is kept for 24 h of log time; older ids are refused.
    #[n(0)]
    pub request: RequestId,
    /// Who asks: checked by the coordinator against the session; `None` for servers themselves.
    #[n(1)]
    pub account: Option<AccountId>,
    /// What.
    #[n(2)]
    pub command: Command,
    /// The proposer's time, milliseconds since 1970; log time is the maximum of all so far.
    #[n(3)]
    pub time_ms: u64,
}

/// Every change to the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first command of a cluster.
    #[n(0)]
    Init(#[n(0)] Box<Genesis>),
    /// Adds an invite. Admins only.
    #[n(1)]
    CreateInvite(#[n(0)] Invite),
    /// Uses an invite. `secret_hash` must be the invite's; the account name must be too.
    #[n(2)]
    Register {
        /// The invite.
        #[n(0)]
        invite: InviteId,
        /// BLAKE3 of the secret shown.
        #[n(1)]
        secret_hash: Hash,
        /// The new account (admin, quota and disabled are taken from the invite, not from here).
        #[n(2)]
        account: Box<Account>,
        /// Its home space.
        #[n(3)]
        home: NewSpace,
    },
    /// Replaces the password record (fresh login). `expect_n` is the number replaced.
    #[n(3)]
    ReplaceLogin {
        /// Whose.
        #[n(0)]
        account: AccountId,
        /// Number of the record replaced.
        #[n(1)]
        expect_n: u64,
        /// The new one, `n = expect_n + 1`.
        #[n(2)]
        login: LoginRecord,
        /// New recovery record, when the words change as well.
        #[n(3)]
        recovery: Option<RecoveryRecord>,
        /// With recovery by words instead of a login: signature by `rec_auth`, type `"recover"`,
        /// over `proof_body`; the coordinator has checked that the body is bound to the connection
        /// and names this login record.
        #[n(4)]
        proof: Option<(ByteVec, Signature)>,
    },
    /// Replaces the account's sealed notes; refused with `Conflict` unless `seq` is one more.
    #[n(4)]
    PutState {
        /// Whose.
        #[n(0)]
        account: AccountId,
        /// New record.
        #[n(1)]
        state: StateRecord,
    },
    /// Opens a session.
    #[n(5)]
    OpenSession {
        /// BLAKE3 of the session token.
        #[n(0)]
        token_hash: Hash,
        /// Whose.
        #[n(1)]
        account: AccountId,
        /// Catalog time after which it ends.
        #[n(2)]
        expires_ms: u64,
    },
    /// Ends a session.
    #[n(6)]
    CloseSession {
        /// BLAKE3 of the session token.
        #[n(0)]
        token_hash: Hash,
    },
    /// Adds a join token. Admins only.
    #[n(7)]
    CreateToken(#[n(0)] Token),
    /// Uses a join token; gives the joiner its id (`Outcome::Joined`). A node that joins is
    /// `Joining`, without devices, until its first `UpdateNode`.
    #[n(8)]
    ConsumeToken {
        /// Token.
        #[n(0)]
        token: TokenId,
        /// Role asked for: must be the token's.
        #[n(1)]
        role: ServerRole,
        /// BLAKE3 of the joiner's public key (SubjectPublicKeyInfo).
        #[n(2)]
        key: Hash,
    },
    /// A node says what it is (at start, and when something changed).
    #[n(9)]
    UpdateNode {
        /// Node.
        #[n(0)]
        node: NodeId,
        /// Address.
        #[n(1)]
        address: String,
        /// Zone.
        #[n(2)]
        zone: String,
        /// Devices.
        #[n(3)]
        devices: Vec<Device>,
        /// Software version.
        #[n(4)]
        version: String,
    },
    /// The leader's failure detector changes a node's state.
    #[n(10)]
    SetNodeState {
        /// Node.
        #[n(0)]
        node: NodeId,
        /// New state.
        #[n(1)]
        state: NodeState,
    },
    /// Makes the first layout of a width over the devices present. Does nothing (`Outcome::Done`)
    /// when there is one already; `Unavailable` when too few nodes have joined.
    #[n(11)]
    MakeLayout {
        /// Shards of a chunk.
        #[n(0)]
        width: u8,
    },
    /// Changes the tree of one space: all changes or none. The linearisation point of writes.
    #[n(12)]
    Commit {
        /// The signed record; its body lists exactly the hashes of `changes` in order.
        #[n(0)]
        record: CommitRecord,
        /// The changes.
        #[n(1)]
        changes: Vec<Change>,
        /// Proof that new objects were issued to this account for this space.
        #[n(2)]
        grants: Vec<UploadGrant>,
    },
    /// Appends to the event log.
    #[n(13)]
    Report {
        /// Kind of event.
        #[n(0)]
        what: String,
        /// Node concerned.
        #[n(1)]
        node: Option<NodeId>,
        /// Detail.
        #[n(2)]
        detail: String,
    },
    /// Moves log time forward, and with it expiry, grace and trash.
    #[n(14)]
    Tick,
    /// New layouts, planned by the proposer, of all widths that there are. Each must be one epoch
    /// further than the one that it replaces, else `Conflict`. While a change is under way only a
    /// loss supersedes it. A loss may leave widths out: those for which too few nodes remain.
    #[n(15)]
    ChangeLayouts(#[n(0)] Box<NewLayouts>),
    /// Stops or resumes the movement of all changes under way.
    #[n(16)]
    PauseLayouts(#[n(0)] bool),
    /// Everything of a change has arrived: the earlier layouts are forgotten. `Conflict` when that
    /// is not the epoch being moved to.
    #[n(17)]
    FinishLayout {
        /// Shards of a chunk.
        #[n(0)]
        width: u8,
        /// The epoch moved to.
        #[n(1)]
        epoch: Epoch,
    },
    /// A coordinator says where it is.
    #[n(18)]
    UpdateCoordinator {
        /// Coordinator.
        #[n(0)]
        id: CoordinatorId,
        /// Address.
        #[n(1)]
        address: String,
        /// Software version.
        #[n(2)]
        version: String,
    },
    /// Forgets a node that holds no slots (any more).
    #[n(19)]
    RemoveNode(#[n(0)] NodeId),
    /// A coordinator leaves the group for good. Its id is never used again.
    #[n(20)]
    RemoveCoordinator(#[n(0)] CoordinatorId),
    /// Asks all nodes to check every shard now.
    #[n(21)]
    RequestScrub,
    /// Releases collection, after a restore or after nodes froze it themselves.
    #[n(22)]
    Thaw,
    /// The policy of a space; its objects are re-coded to it.
    #[n(23)]
    SetSpacePolicy {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// New policy.
        #[n(1)]
        policy: Policy,
    },
    /// All shards of an object's next coding generation are durable: it counts from now on.
    #[n(24)]
    Recoded {
        /// Object.
        #[n(0)]
        object: ObjectId,
        /// The generation that it replaces.
        #[n(1)]
        from: u16,
        /// How it is coded now.
        #[n(2)]
        policy: Policy,
        /// Epoch of the layout by which its shards were placed.
        #[n(3)]
        layout: Epoch,
        /// The generation that they are.
        #[n(4)]
        #[cbor(default)]
        to: u16,
    },
    /// A backup was made, or a snapshot put onto the nodes.
    #[n(25)]
    NoteBackup,
    /// First command after a restore: another incarnation, collection frozen, this coordinator alone.
    #[n(26)]
    Restored {
        /// Drawn for it.
        #[cbor(n(0), with = "minicbor::bytes")]
        incarnation: [u8; 16],
        /// The coordinator that it was restored to; all others are gone.
        #[n(1)]
        coordinator: Coordinator,
    },
    /// How long a space keeps older versions and its trash. Admins of the space only. `Conflict` while
    /// the last such change is still being carried out.
    #[n(40)]
    SetRetention {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// So long, in milliseconds of log time (at most [`crate::history::RETENTION_MAX_MS`]); `None`: the default.
        #[n(1)]
        retention_ms: Option<u64>,
    },
    /// The next member set of a space, signed by one of its admins. Everybody who is new in it, and with a
    /// new key epoch everybody, gets a grant.
    #[n(27)]
    ChangeMembers {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// The set that follows the newest one.
        #[n(1)]
        members: MemberSet,
        /// Grants of the current epoch's key.
        #[n(2)]
        grants: Vec<Grant>,
        /// What the space is called, sealed for the epoch; `None`: as before.
        #[n(3)]
        label: Option<SpaceLabel>,
    },
    /// The owner hands a space on to another of its admins, whose quota it counts against from now on.
    #[n(28)]
    TransferSpace {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// The new owner.
        #[n(1)]
        to: AccountId,
    },
    /// The account that asks wants to be no member any more: refused everything from now on. The signed
    /// set follows by an admin.
    #[n(29)]
    LeaveSpace {
        /// Space.
        #[n(0)]
        space: SpaceId,
    },
    /// Begins to seal everything below a folder anew, for the root of a space: a new one, with which the folder is
    /// shared, or the same one in its new key epoch. Nobody writes below the folder until it ends.
    #[n(30)]
    BeginRekey(#[n(0)] Box<Rekey>),
    /// Rows of a re-key, parents first, signed like a commit of the target space. Renews its lease.
    #[n(31)]
    RekeyRows {
        /// The signed record; its body lists exactly the hashes of `rows` in order.
        #[n(0)]
        record: CommitRecord,
        /// The rows.
        #[n(1)]
        rows: Vec<Resealed>,
    },
    /// Ends a re-key: what was sealed anew is there, and what was there before is gone, at one moment.
    #[n(32)]
    SwapRekey {
        /// The target space.
        #[n(0)]
        target: SpaceId,
        /// For a folder that becomes a space: the commit that changes its entry, alone in it.
        #[n(1)]
        door: Option<(CommitRecord, Box<Change>)>,
    },
    /// Gives a re-key up: its rows are dropped.
    #[n(33)]
    AbandonRekey {
        /// The target space.
        #[n(0)]
        target: SpaceId,
    },
    /// The owner, its only member, destroys a space with everything in it.
    #[n(34)]
    DeleteSpace {
        /// Space.
        #[n(0)]
        space: SpaceId,
    },
    /// An account may not log in any more, and its sessions end; or it may again. Admins only, and not to
    /// themselves.
    #[n(50)]
    SetDisabled {
        /// Whose.
        #[n(0)]
        account: AccountId,
        /// From now on.
        #[n(1)]
        disabled: bool,
    },
    /// Another quota for an account. Admins only.
    #[n(51)]
    SetQuota {
        /// Whose.
        #[n(0)]
        account: AccountId,
        /// Bytes on disk that its spaces may use; `None`: no limit.
        #[n(1)]
        quota: Option<u64>,
    },
    /// Sends a message. `Conflict` unless it is the next one of its sender to its recipient;
    /// `Insufficient` when a mailbox is full of unread ones.
    #[n(52)]
    SendMessage {
        /// Sender: the account that asks.
        #[n(0)]
        from: AccountId,
        /// Recipient.
        #[n(1)]
        to: AccountId,
        /// For the recipient.
        #[n(2)]
        message: Message,
        /// The sender's own copy.
        #[n(3)]
        copy: Message,
    },
    /// Marks messages in the account's own mailbox as read, at most 1,024.
    #[n(53)]
    ReadMessages {
        /// Whose mailbox.
        #[n(0)]
        account: AccountId,
        /// Their numbers.
        #[n(1)]
        numbers: Vec<u64>,
    },
    /// Makes a link. By its owner, a member of the space.
    #[n(54)]
    CreateLink(#[n(0)] Box<Link>),
    /// Ends a link, and the sessions of those who opened it. By its owner.
    #[n(55)]
    RevokeLink(#[n(0)] LinkId),
    /// Opens a link: counts it, and begins a session that reads what it leads to.
    #[n(56)]
    OpenLink {
        /// Which.
        #[n(0)]
        link: LinkId,
        /// BLAKE3 of the proof shown: must be the link's.
        #[n(1)]
        auth_hash: Hash,
        /// BLAKE3 of the session's token.
        #[n(2)]
        token_hash: Hash,
        /// Catalog time after which the session ends.
        #[n(3)]
        expires_ms: u64,
    },
}

/// The answer to a command that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Done.
    #[n(0)]
    Done,
    /// A join token was used.
    #[n(1)]
    Joined {
        /// Node id, for a node.
        #[n(0)]
        node: Option<NodeId>,
        /// Coordinator id, for a coordinator.
        #[n(1)]
        coordinator: Option<CoordinatorId>,
    },
    /// A commit was applied.
    #[n(2)]
    Committed {
        /// Catalog revision of the space after it.
        #[n(0)]
        revision: u64,
        /// Log time, milliseconds since 1970.
        #[n(1)]
        time_ms: u64,
    },
    /// A layout exists at this epoch.
    #[n(3)]
    Layout(#[n(0)] Epoch),
    /// A re-key has begun; its lease ends at this log time unless its rows renew it, milliseconds since 1970.
    #[n(20)]
    Leased(#[n(0)] u64),
    /// A message was sent.
    #[n(40)]
    Sent {
        /// The copy's number in the sender's mailbox.
        #[n(0)]
        number: u64,
        /// Log time, milliseconds since 1970.
        #[n(1)]
        time_ms: u64,
    },
}

/// The result of a command: what every replica computes alike.
pub type Applied = Result<Outcome, Error>;
