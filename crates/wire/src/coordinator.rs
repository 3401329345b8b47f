//! What a coordinator answers.

pub use crate::admin::Administration;
use crate::{Authed, SessionToken, Version, rpc};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::account::{Account, LoginRecord, NewSpace, RecoveryRecord};
use model::cluster::{Capability, Device, NodeState, UploadGrant};
use model::command::{Answer, Applied, Command, Query, Totals};
use model::{ClusterId, CoordinatorId, Epoch, Hash, InviteId, NodeId, ObjectId, Policy, PublicKey, RequestId, Signature, SpaceId, TokenId};

rpc!(
    /// Anybody: versions and cluster id.
    Hello, "/v1/hello", Version => HelloResponse
);
rpc!(
    /// Anybody: begins a login. Unknown names are answered alike, at the same cost.
    LoginStart, "/v1/login/start", LoginStartRequest => LoginStartResponse
);
rpc!(
    /// Ends a login: a session. `Denied` for a wrong password and an unknown user alike.
    LoginFinish, "/v1/login/finish", LoginFinishRequest => LoginFinishResponse
);
rpc!(
    /// Holder of an invite: begins a registration.
    RegisterStart, "/v1/register/start", RegisterStartRequest => RegisterStartResponse
);
rpc!(
    /// Holder of an invite: ends a registration, and opens a session.
    RegisterFinish, "/v1/register/finish", RegisterFinishRequest => SessionResponse
);
rpc!(
    /// Logged-in client: begins a change of password.
    PasswordStart, "/v1/password/start", Authed<ByteVec> => ByteVec
);
rpc!(
    /// Logged-in client, fresh login: replaces the password record. Ends all other sessions.
    PasswordFinish, "/v1/password/finish", Authed<PasswordFinishRequest> => ()
);
rpc!(
    /// Anybody who knows a name: begins recovery by words. Unknown names get a dummy.
    RecoverStart, "/v1/recover/start", RecoverStartRequest => RecoverStartResponse
);
rpc!(
    /// Holder of the words: replaces the password record; the proof is bound to the connection.
    RecoverFinish, "/v1/recover/finish", RecoverFinishRequest => SessionResponse
);
rpc!(
    /// Logged-in client: ends its session.
    Logout, "/v1/logout", Authed<()> => ()
);
rpc!(
    /// Logged-in client: who am I, and what have I used.
    WhoAmI, "/v1/whoami", Authed<()> => WhoAmIResponse
);
rpc!(
    /// Logged-in client: a question to the catalog. Allowed: `Space`, `Lookup`, `List`, `Walk`,
    /// `Manifests`, `Versions`, `History`, `Trash`, `Doors`, `Changes`, `Kept` of spaces of which it is a
    /// member; `Cluster`, `Layout`, `LayoutAt`; `IdentityByName` and `Identities`, in bounded numbers;
    /// `Mailbox`, `Mail` and `Thread` of its own messages, its own `Links`; and for
    /// admins `Events`, `Totals`.
    Ask, "/v1/query", Authed<Query> => Answer
);
rpc!(
    /// Logged-in client: a change of the catalog. Allowed: `Commit`, `PutState`, `SetRetention`, `SendMessage`,
    /// `ReadMessages`, `CreateLink`, `RevokeLink`, and what changes spaces: `ChangeMembers`, `TransferSpace`,
    /// `LeaveSpace`, `DeleteSpace`, `BeginRekey`, `RekeyRows`, `SwapRekey`, `AbandonRekey`. The answer is what the
    /// catalog has decided. `Unavailable` *in place of* an answer leaves open whether the command is applied: it
    /// may be proposed again under the same request id only.
    Propose, "/v1/propose", Authed<ProposeRequest> => Applied
);
rpc!(
    /// Logged-in client: fresh object ids, with proof for the catalog and capabilities for nodes.
    Upload, "/v1/upload", Authed<UploadRequest> => UploadResponse
);
rpc!(
    /// Logged-in client: capabilities that allow reading, one a node. Good for 10 min.
    ReadCapabilities, "/v1/capabilities", Authed<PublicKey> => Vec<(NodeId, Capability)>
);
rpc!(
    /// Logged-in client: what `cluster status` shows.
    Status, "/v1/status", Authed<()> => StatusResponse
);
rpc!(
    /// Admin: a join token.
    CreateToken, "/v1/token", Authed<CreateTokenRequest> => TextResponse
);
rpc!(
    /// Admin: an invite.
    CreateInvite, "/v1/invite", Authed<CreateInviteRequest> => TextResponse
);
rpc!(
    /// Logged-in client: a server gave a bad shard. Becomes an event.
    ReportShard, "/v1/report", Authed<ReportShardRequest> => ()
);
rpc!(
    /// Holder of a join token: a certificate.
    Join, "/v1/join", JoinRequest => JoinResponse
);
rpc!(
    /// Node: alive, and what it has. The answer tells it what changed.
    Heartbeat, "/v1/heartbeat", HeartbeatRequest => HeartbeatResponse
);
rpc!(
    /// Node or coordinator: a question (`Cluster`, `Layout`, `LayoutAt`, `Feed`, `Objects`).
    AskPeer, "/v1/peer/query", Query => Answer
);
rpc!(
    /// Node: something for the event log.
    ReportPeer, "/v1/peer/report", ReportPeerRequest => ()
);

rpc!(
    /// Admin: what a change of the layouts would do. Changes nothing.
    PlanLayout, "/v1/layout/plan", Authed<ChangeRequest> => PlanResponse
);
rpc!(
    /// Admin: plans and begins a change of the layouts. `Conflict` while another is under way, or when
    /// `expect` names other epochs than the current ones.
    ApplyLayout, "/v1/layout/apply", Authed<ChangeRequest> => PlanResponse
);
rpc!(
    /// Admin: one of the small things that operators ask for.
    Administer, "/v1/admin", Authed<Administration> => ()
);

/// See [`PlanLayout`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ChangeRequest {
    /// Nodes to take in, among those that joined and hold nothing. Empty, with `drain` empty too: all
    /// of them, at the capacities and zones as they are now.
    #[n(0)]
    pub add: Vec<NodeId>,
    /// Nodes to empty.
    #[n(1)]
    pub drain: Vec<NodeId>,
    /// The epochs from which the change was planned, as shown to whoever said yes; empty: whatever they are.
    #[n(2)]
    pub expect: Vec<(u8, Epoch)>,
}

/// See [`PlanLayout`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PlanResponse {
    /// By width.
    #[n(0)]
    pub widths: Vec<WidthPlan>,
    /// Bytes to move: the moved slots' part of what lies in all slots of a width.
    #[n(1)]
    pub moved_bytes: u64,
    /// Bytes that any such change must move.
    #[n(2)]
    pub minimum_bytes: u64,
    /// What changes, in words; empty: nothing.
    #[n(3)]
    pub why: String,
}

/// The plan of one width.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WidthPlan {
    /// Shards of a chunk.
    #[n(0)]
    pub width: u8,
    /// Epoch now.
    #[n(1)]
    pub epoch: Epoch,
    /// Slots in all.
    #[n(2)]
    pub slots: u64,
    /// Slots that move.
    #[n(3)]
    pub moved: u64,
    /// Slots that any such change must move.
    #[n(4)]
    pub minimum: u64,
    /// By how much the device that is furthest from its share differs from it, in millionths of the share.
    #[n(5)]
    pub balance_ppm: u64,
    /// What each device gains and gives.
    #[n(6)]
    pub devices: Vec<DeviceMove>,
}

/// Slots that one device gains and gives.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeviceMove {
    /// Device.
    #[n(0)]
    pub device: model::DeviceId,
    /// Its node.
    #[n(1)]
    pub node: NodeId,
    /// Slots before.
    #[n(2)]
    pub before: u64,
    /// Slots that come to it.
    #[n(3)]
    pub gains: u64,
    /// Slots that leave it.
    #[n(4)]
    pub gives: u64,
}

/// See [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HelloResponse {
    /// Protocol.
    #[n(0)]
    pub protocol: Version,
    /// Software version.
    #[n(1)]
    pub software: String,
    /// Cluster.
    #[n(2)]
    pub cluster: ClusterId,
    /// Address of the leader, where known.
    #[n(3)]
    pub leader: Option<String>,
    /// Root certificate, DER. A client that pins its fingerprint checks the BLAKE3 of it.
    #[n(4)]
    pub root: ByteVec,
    /// The one that answers leads, and has heard so from a majority just now.
    #[n(5)]
    #[cbor(default)]
    pub leads: bool,
}

/// See [`LoginStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LoginStartRequest {
    /// Account name.
    #[n(0)]
    pub name: String,
    /// OPAQUE KE1.
    #[n(1)]
    pub ke1: ByteVec,
}

/// See [`LoginStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LoginStartResponse {
    /// Names the login for [`LoginFinish`] (state lives in memory of this coordinator, 60 s).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub login: [u8; 16],
    /// OPAQUE KE2.
    #[n(1)]
    pub ke2: ByteVec,
}

/// See [`LoginFinish`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LoginFinishRequest {
    /// From [`LoginStartResponse`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub login: [u8; 16],
    /// OPAQUE KE3.
    #[n(1)]
    pub ke3: ByteVec,
}

/// A session opened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SessionResponse {
    /// Token.
    #[n(0)]
    pub session: SessionToken,
    /// Catalog time at which it ends, milliseconds since 1970.
    #[n(1)]
    pub expires_ms: u64,
}

/// See [`LoginFinish`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LoginFinishResponse {
    /// The session.
    #[n(0)]
    pub session: SessionResponse,
    /// The account's row: its secrets are sealed.
    #[n(1)]
    pub account: Account,
}

/// See [`RegisterStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterStartRequest {
    /// Invite.
    #[n(0)]
    pub invite: InviteId,
    /// BLAKE3 of its secret.
    #[n(1)]
    pub secret_hash: Hash,
    /// OPAQUE registration request.
    #[n(2)]
    pub request: ByteVec,
}

/// See [`RegisterStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterStartResponse {
    /// The account name that the invite is for.
    #[n(0)]
    pub name: String,
    /// OPAQUE registration response.
    #[n(1)]
    pub response: ByteVec,
}

/// See [`RegisterFinish`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterFinishRequest {
    /// Invite.
    #[n(0)]
    pub invite: InviteId,
    /// BLAKE3 of its secret.
    #[n(1)]
    pub secret_hash: Hash,
    /// Idempotence key.
    #[n(2)]
    pub request: RequestId,
    /// The account, its OPAQUE record in `login.opaque`.
    #[n(3)]
    pub account: Account,
    /// Its home space.
    #[n(4)]
    pub home: NewSpace,
}

/// See [`PasswordFinish`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PasswordFinishRequest {
    /// Idempotence key.
    #[n(0)]
    pub request: RequestId,
    /// Number of the record replaced.
    #[n(1)]
    pub expect_n: u64,
    /// The new record.
    #[n(2)]
    pub login: LoginRecord,
    /// New recovery record, when the words change too.
    #[n(3)]
    pub recovery: Option<RecoveryRecord>,
}

/// See [`RecoverStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecoverStartRequest {
    /// Account name.
    #[n(0)]
    pub name: String,
    /// OPAQUE registration request with the new password.
    #[n(1)]
    pub request: ByteVec,
}

/// See [`RecoverStart`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecoverStartResponse {
    /// OPAQUE registration response.
    #[n(0)]
    pub response: ByteVec,
    /// The account's row (secrets sealed).
    #[n(1)]
    pub account: Account,
}

/// See [`RecoverFinish`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RecoverFinishRequest {
    /// Account name.
    #[n(0)]
    pub name: String,
    /// Idempotence key.
    #[n(1)]
    pub request: RequestId,
    /// Number of the login record replaced.
    #[n(2)]
    pub expect_n: u64,
    /// New login record.
    #[n(3)]
    pub login: LoginRecord,
    /// Signed by the recovery key as type `"recover"`: CBOR `[account, channel binding,
    /// BLAKE3(login record), n]`.
    #[n(4)]
    pub proof_body: ByteVec,
    /// Its signature.
    #[n(5)]
    pub proof: Signature,
}

/// See [`WhoAmI`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WhoAmIResponse {
    /// The account's row.
    #[n(0)]
    pub account: Account,
    /// Bytes on disk used by its home space.
    #[n(1)]
    pub used: u64,
    /// Cluster.
    #[n(2)]
    pub cluster: ClusterId,
    /// Unread messages.
    #[n(3)]
    pub unread: u64,
}

/// See [`Propose`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProposeRequest {
    /// Idempotence key.
    #[n(0)]
    pub request: RequestId,
    /// What.
    #[n(1)]
    pub command: Command,
}

/// See [`Upload`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UploadRequest {
    /// Space that the objects are for.
    #[n(0)]
    pub space: SpaceId,
    /// How many object ids: 1 to 256.
    #[n(1)]
    pub objects: u32,
    /// Key that the client's connections to nodes prove.
    #[n(2)]
    pub holder: PublicKey,
    /// Bytes of shards that it means to put on any one node, at most.
    #[n(3)]
    pub byte_limit: u64,
    /// Instead of fresh ids: renew the capabilities of these objects, issued to this account before
    /// (with their grant as proof).
    #[n(4)]
    pub renew: Option<UploadGrant>,
}

/// See [`Upload`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UploadResponse {
    /// Fresh ids.
    #[n(0)]
    pub objects: Vec<ObjectId>,
    /// Proof for the catalog.
    #[n(1)]
    pub grant: UploadGrant,
    /// One capability a node.
    #[n(2)]
    pub capabilities: Vec<(NodeId, Capability)>,
    /// Milliseconds for which they are good.
    #[n(3)]
    pub valid_ms: u64,
}

/// See [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StatusResponse {
    /// Cluster as the catalog has it.
    #[n(0)]
    pub cluster: model::cluster::ClusterView,
    /// Counters.
    #[n(1)]
    pub totals: Totals,
    /// What each node last said, in order of id.
    #[n(2)]
    pub nodes: Vec<NodeReport>,
    /// Whether each coordinator answers.
    #[n(3)]
    pub coordinators: Vec<(CoordinatorId, bool)>,
    /// Those that have no vote (yet): they are catching up.
    #[n(4)]
    #[cbor(default)]
    pub learners: Vec<CoordinatorId>,
    /// Those whose database does not hold what was written to it any more.
    #[n(5)]
    #[cbor(default)]
    pub damaged: Vec<CoordinatorId>,
    /// Those with little room left on their disk.
    #[n(6)]
    #[cbor(default)]
    pub short_of_room: Vec<CoordinatorId>,
}

/// What a node last said, as its coordinator remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeReport {
    /// Node.
    #[n(0)]
    pub node: NodeId,
    /// State as the failure detector sees it now.
    #[n(1)]
    pub state: NodeState,
    /// Milliseconds since its last heartbeat; `None`: none yet.
    #[n(2)]
    pub silent_ms: Option<u64>,
    /// Its last heartbeat.
    #[n(3)]
    pub heartbeat: Option<HeartbeatRequest>,
    /// It was silent, or stopped: it is whole no sooner than it has looked at the feed up to this number.
    #[n(4)]
    #[cbor(default)]
    pub owes: u64,
}

/// See [`CreateToken`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreateTokenRequest {
    /// Role.
    #[n(0)]
    pub role: model::cluster::ServerRole,
    /// Milliseconds until it expires.
    #[n(1)]
    pub valid_ms: u64,
    /// The node whose slots the joiner takes over.
    #[n(2)]
    pub replace: Option<NodeId>,
}

/// See [`CreateInvite`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreateInviteRequest {
    /// Account name.
    #[n(0)]
    pub name: String,
    /// Makes an admin.
    #[n(1)]
    pub admin: bool,
    /// Quota in bytes.
    #[n(2)]
    pub quota: Option<u64>,
    /// Milliseconds until it expires.
    #[n(3)]
    pub valid_ms: u64,
}

/// A token or invite as text.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct TextResponse {
    /// The text to hand on. Secret.
    #[n(0)]
    pub text: String,
    /// Catalog time at which it expires, milliseconds since 1970.
    #[n(1)]
    pub expires_ms: u64,
}

impl std::fmt::Debug for TextResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextResponse(…, {})", self.expires_ms)
    }
}

/// See [`ReportShard`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReportShardRequest {
    /// Server.
    #[n(0)]
    pub node: NodeId,
    /// Shard.
    #[n(1)]
    pub shard: model::ShardRef,
    /// What was wrong with it.
    #[n(2)]
    pub detail: String,
}

/// See [`Join`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinRequest {
    /// Token.
    #[n(0)]
    pub token: TokenId,
    /// Role asked for.
    #[n(1)]
    pub role: model::cluster::ServerRole,
    /// The joiner's public key (SubjectPublicKeyInfo, DER).
    #[n(2)]
    pub key: ByteVec,
    /// HMAC-SHA256 with the token's secret, bound to this connection.
    #[n(3)]
    pub proof: ByteVec,
    /// Protocol of the joiner.
    #[n(4)]
    pub protocol: Version,
}

/// See [`Join`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinResponse {
    /// Cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// Root certificate, DER.
    #[n(1)]
    pub root: ByteVec,
    /// The joiner's certificate, DER.
    #[n(2)]
    pub certificate: ByteVec,
    /// Node id, for a node.
    #[n(3)]
    pub node: Option<NodeId>,
    /// Coordinator id, for a coordinator.
    #[n(4)]
    pub coordinator: Option<CoordinatorId>,
    /// Where the cluster's coordinators are, for a coordinator.
    #[n(5)]
    #[cbor(default)]
    pub coordinators: Vec<(CoordinatorId, String)>,
}

/// See [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeartbeatRequest {
    /// Address that others connect to.
    #[n(0)]
    pub address: String,
    /// Zone.
    #[n(1)]
    pub zone: String,
    /// Devices with their use.
    #[n(2)]
    pub devices: Vec<Device>,
    /// Software version.
    #[n(3)]
    pub version: String,
    /// Reconciliation.
    #[n(4)]
    pub repair: RepairReport,
    /// Grows with each start of the process.
    #[n(5)]
    pub started_ms: u64,
    /// The node's public key, when it wants a fresh certificate.
    #[n(6)]
    pub renew: Option<ByteVec>,
    /// How far it is with each layout.
    #[n(7)]
    #[cbor(default)]
    pub layouts: Vec<LayoutProgress>,
    /// Its last scrub of everything.
    #[n(8)]
    #[cbor(default)]
    pub scrub: ScrubReport,
    /// Why it drops nothing any more, where it does not.
    #[n(9)]
    #[cbor(default)]
    pub frozen: Option<String>,
    /// Its protocol.
    #[n(10)]
    #[cbor(default)]
    pub protocol: Version,
    /// It wants to be taken in without an operator's asking for it, when it has just joined.
    #[n(11)]
    #[cbor(default)]
    pub auto_add: bool,
    /// What its clock shows, milliseconds since 1970; 0: it does not say.
    #[n(12)]
    #[cbor(default)]
    pub now_ms: u64,
}

/// How far a node is with the layout of a width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LayoutProgress {
    /// Shards of a chunk.
    #[n(0)]
    pub width: u8,
    /// The newest epoch that it knows. From then on it refuses writes placed by an older one.
    #[n(1)]
    pub epoch: Epoch,
    /// Since it knows that epoch, everything that belongs on it has arrived, and everything that does
    /// not has been handed over.
    #[n(2)]
    pub settled: bool,
}

/// A node's scrubbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct ScrubReport {
    /// Shards checked since the scrub that is under way began.
    #[n(0)]
    pub checked: u64,
    /// Shards to be checked in it.
    #[n(1)]
    pub total: u64,
    /// Shards found bad since the node's start.
    #[n(2)]
    pub bad: u64,
    /// Catalog time for which everything was last asked for and has been checked (see `CatalogLife::scrub_ms`).
    #[n(3)]
    pub answered_ms: u64,
    /// Shards older than a day of objects that the catalog does not know, as last counted. They are
    /// kept while collection is frozen.
    #[n(4)]
    #[cbor(default)]
    pub unknown: u64,
}

/// How a node's reconciliation stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct RepairReport {
    /// Shards still to copy or rebuild, as far as known.
    #[n(0)]
    pub shards: u64,
    /// Their bytes.
    #[n(1)]
    pub bytes: u64,
    /// Bytes a second at present.
    #[n(2)]
    pub rate: u64,
    /// Feed number up to which this node has everything that it should have.
    #[n(3)]
    pub whole_to: u64,
    /// Shards that could not be rebuilt (fewer than k left).
    #[n(4)]
    pub lost: u64,
    /// Shards copied or rebuilt since the start.
    #[n(5)]
    pub healed: u64,
    /// Shards here that belong elsewhere and wait to be handed over.
    #[n(6)]
    #[cbor(default)]
    pub surplus: u64,
    /// Of `healed`: copied from an earlier holder or stand-in, not decoded.
    #[n(7)]
    #[cbor(default)]
    pub copied: u64,
    /// Bytes written by repair since the start.
    #[n(8)]
    #[cbor(default)]
    pub moved_bytes: u64,
    /// Shards handed over and dropped here since the start.
    #[n(9)]
    #[cbor(default)]
    pub handed_over: u64,
    /// Of `shards`: how many of each policy, once the node knows of all that it misses; `None` before.
    #[n(10)]
    #[cbor(default)]
    pub missing: Option<Vec<(Policy, u64)>>,
}

/// See [`Heartbeat`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeartbeatResponse {
    /// `(width, epoch)` of the layouts: fetch those that are newer than yours.
    #[n(0)]
    pub layouts: Vec<(u8, Epoch)>,
    /// Last number of the feed.
    #[n(1)]
    pub feed: u64,
    /// Coordinators' addresses.
    #[n(2)]
    pub coordinators: Vec<String>,
    /// Fresh certificate, if asked for.
    #[n(3)]
    pub certificate: Option<ByteVec>,
    /// Catalog time, milliseconds since 1970.
    #[n(4)]
    pub time_ms: u64,
    /// [`ClusterView::revision`](model::cluster::ClusterView): another one means that the map is to be
    /// fetched again.
    #[n(5)]
    #[cbor(default)]
    pub revision: u64,
    /// Which life of the catalog this is.
    #[n(6)]
    #[cbor(default)]
    pub life: model::cluster::CatalogLife,
    /// Nodes that miss shards by their own last word, in order of id.
    #[n(7)]
    #[cbor(default)]
    pub wanting: Vec<NodeId>,
    /// Users were served within the last moments: repair goes slower.
    #[n(8)]
    #[cbor(default)]
    pub busy: bool,
}

/// See [`ReportPeer`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReportPeerRequest {
    /// Kind of event.
    #[n(0)]
    pub what: String,
    /// Detail; no secrets.
    #[n(1)]
    pub detail: String,
}
