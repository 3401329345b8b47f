//! What admins ask of a coordinator beside the small things of
//! [`Administer`](crate::coordinator::Administer): who has accounts, and the catalog itself for a backup.

use crate::{Authed, rpc};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::command::SpaceCoding;
use model::{AccountId, ClusterId, CoordinatorId, NodeId, Policy, SpaceId};

rpc!(
    /// Admin: accounts in order of id, without anything that is sealed or could be guessed at.
    ListUsers, "/v1/users", Authed<UsersRequest> => UsersResponse
);
rpc!(
    /// Admin: how the objects of a space are coded, and what is still to be coded anew. `NotFound`.
    ShowSpacePolicy, "/v1/policy", Authed<SpacePolicyRequest> => SpacePolicyResponse
);
rpc!(
    /// Admin: holds one consistent view of the catalog open for reading. It is let go of when nothing
    /// was read from it for a minute. `Unavailable` when several are open already.
    OpenBackup, "/v1/backup/open", Authed<()> => OpenBackupResponse
);
rpc!(
    /// Admin: rows of an open view in order of key, **with every secret of the servers**: whoever asks
    /// encrypts them before they touch a disk. `NotFound` when the view is not open (any more).
    ReadBackup, "/v1/backup/read", Authed<ReadBackupRequest> => ReadBackupResponse
);
rpc!(
    /// Admin: lets go of a view. One that is not open is no error.
    CloseBackup, "/v1/backup/close", Authed<BackupId> => ()
);

/// See [`ListUsers`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UsersRequest {
    /// Start after.
    #[n(0)]
    pub after: Option<AccountId>,
}

/// See [`ShowSpacePolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpacePolicyRequest {
    /// Name of the account whose home space is meant, or a space's id in hex.
    #[n(0)]
    pub space: String,
}

/// See [`ShowSpacePolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SpacePolicyResponse {
    /// The space.
    #[n(0)]
    pub space: SpaceId,
    /// Name of the account whose it is.
    #[n(1)]
    pub owner: String,
    /// Default policy of the cluster.
    #[n(2)]
    pub default: Policy,
    /// How it is coded.
    #[n(3)]
    pub coding: SpaceCoding,
}

/// See [`ListUsers`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UsersResponse {
    /// Accounts.
    #[n(0)]
    pub users: Vec<User>,
    /// There are more after the last one.
    #[n(1)]
    pub more: bool,
}

/// An account as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct User {
    /// Id.
    #[n(0)]
    pub id: AccountId,
    /// Name.
    #[n(1)]
    pub name: String,
    /// May administer the cluster.
    #[n(2)]
    pub admin: bool,
    /// May not log in.
    #[n(3)]
    pub disabled: bool,
    /// Bytes on disk allowed.
    #[n(4)]
    pub quota: Option<u64>,
    /// Bytes on disk used by its home space.
    #[n(5)]
    pub used: u64,
}

/// Names an open view: random, known to whoever opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct BackupId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// See [`OpenBackup`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenBackupResponse {
    /// Names the view.
    #[n(0)]
    pub id: BackupId,
    /// Cluster.
    #[n(1)]
    pub cluster: ClusterId,
    /// Catalog time of the view, milliseconds since 1970.
    #[n(2)]
    pub time_ms: u64,
    /// Entries in it: the greater part of its rows, for the display of progress.
    #[n(3)]
    pub entries: u64,
}

/// See [`ReadBackup`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReadBackupRequest {
    /// The view.
    #[n(0)]
    pub id: BackupId,
    /// Rows after this key; empty: from the start.
    #[n(1)]
    pub after: ByteVec,
}

/// See [`ReadBackup`].
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReadBackupResponse {
    /// Key and value of each row, in order. Secret.
    #[n(0)]
    pub rows: Vec<(ByteVec, ByteVec)>,
    /// There are more after the last one.
    #[n(1)]
    pub more: bool,
    /// Known with the last page: not all rows are what was written.
    #[n(2)]
    #[cbor(default)]
    pub damaged: bool,
}

impl std::fmt::Debug for ReadBackupResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadBackupResponse({} rows, more: {})", self.rows.len(), self.more)
    }
}

/// See [`crate::coordinator::Administer`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Administration {
    /// Stops the movement of changes under way.
    #[n(0)]
    StopLayout,
    /// Goes on with it.
    #[n(1)]
    ResumeLayout,
    /// A node goes for good. One that holds slots counts as lost from now on.
    #[n(2)]
    RemoveNode(#[n(0)] NodeId),
    /// A coordinator goes for good.
    #[n(3)]
    RemoveCoordinator(#[n(0)] CoordinatorId),
    /// Has every shard checked now.
    #[n(4)]
    Scrub,
    /// Releases a frozen collection.
    #[n(5)]
    Thaw,
    /// Gives a space another policy, and its objects with it.
    #[n(6)]
    SetPolicy {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Policy.
        #[n(1)]
        policy: model::Policy,
    },
    /// A backup was written.
    #[n(7)]
    BackedUp,
    /// An account may not log in any more, and its sessions end at once; or it may again.
    #[n(50)]
    SetDisabled {
        /// Account name.
        #[n(0)]
        name: String,
        /// From now on.
        #[n(1)]
        disabled: bool,
    },
    /// Another quota for an account.
    #[n(51)]
    SetQuota {
        /// Account name.
        #[n(0)]
        name: String,
        /// Bytes on disk; `None`: no limit.
        #[n(1)]
        quota: Option<u64>,
    },
}
