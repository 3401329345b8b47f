//! What coordinators say to each other. The bodies are the consensus library's own messages,
//! opaque here; the head says which group they belong to and which protocol the sender speaks.
//! Only coordinators of the cluster, known by their certificate, may call these.

use crate::{PROTOCOL, Version, rpc};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::{CoordinatorId, Error, Result};

rpc!(
    /// Entries of the log, or none: then it is a heartbeat. Body both ways: postcard.
    Append, "/v1/raft/append", Head => ()
);
rpc!(
    /// Asks for a vote. Body both ways: postcard.
    Vote, "/v1/raft/vote", Head => ()
);
rpc!(
    /// Asks whether a vote would be given. Body both ways: postcard.
    PreVote, "/v1/raft/pre-vote", Head => ()
);
rpc!(
    /// The leader wants another one to lead. Body both ways: postcard.
    TransferLeader, "/v1/raft/transfer", Head => ()
);
rpc!(
    /// A page of a snapshot: rows in order of their keys. With the last page, which has none, the
    /// follower installs it, and answers in the body.
    Snapshot, "/v1/raft/snapshot", SnapshotPage => ()
);
rpc!(
    /// A coordinator says where it is, and learns where the others are. `Unavailable` from one that
    /// does not lead: it remembers the address, but the catalog does not know it yet.
    Announce, "/v1/raft/announce", Announcement => Announced
);

/// First on every message: whose log it is about, and who can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// Protocol of the sender.
    #[n(0)]
    pub protocol: Version,
    /// Consensus group.
    #[n(1)]
    pub group: u32,
}

impl Head {
    /// For a group, as this software speaks.
    pub fn new(group: u32) -> Self {
        Head { protocol: PROTOCOL, group }
    }

    /// `Invalid` for another group, or a protocol of another major version.
    pub fn check(&self, group: u32) -> Result<()> {
        PROTOCOL.admit(self.protocol)?;
        if self.group == group {
            return Ok(());
        }
        Err(Error::invalid(format!("a message of consensus group {}, where group {group} was expected", self.group)))
    }
}

/// See [`Snapshot`]. The body is keys and values by turns, each with its length in front (4 bytes,
/// big-endian); on the last page it is postcard of the leader's vote and of what the snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotPage {
    /// Head.
    #[n(0)]
    pub head: Head,
    /// Names this transfer: another one begins with page 0.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub transfer: [u8; 16],
    /// Number of the page, from 0, without gaps.
    #[n(2)]
    pub page: u64,
    /// `Some`: all rows were sent, so many of them; the body is about the whole.
    #[n(3)]
    pub rows: Option<u64>,
    /// With that: the sum over them.
    #[n(4)]
    #[cbor(default)]
    pub sum: Option<ByteVec>,
}

/// See [`Announce`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Announcement {
    /// Head.
    #[n(0)]
    pub head: Head,
    /// Address that others connect to.
    #[n(1)]
    pub address: String,
    /// Software version.
    #[n(2)]
    pub version: String,
    /// Its catalog's database does not hold what was written to it any more.
    #[n(3)]
    #[cbor(default)]
    pub damaged: bool,
    /// There is little room left on its disk.
    #[n(4)]
    #[cbor(default)]
    pub short_of_room: bool,
    /// What its clock shows, milliseconds since 1970; 0: it does not say.
    #[n(5)]
    #[cbor(default)]
    pub now_ms: u64,
}

/// See [`Announce`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Announced {
    /// Where the cluster's coordinators are.
    #[n(0)]
    pub places: Vec<(CoordinatorId, String)>,
    /// The one that asks is none of the cluster's coordinators any more: it was removed.
    #[n(1)]
    pub removed: bool,
}
