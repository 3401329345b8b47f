//! What other coordinators ask of this one's part in the group. The service has checked that it is
//! a coordinator who asks, by its certificate.

use super::Consensus;
use super::peers::{decoded, encoded};
use super::types::GROUP;
use bytes::Bytes;
use model::{CoordinatorId, Error, Result};
use serde::Serialize;
use transport::{Request, Response};
use wire::Rpc;
use wire::raft::{Append, Head, PreVote, Snapshot, SnapshotPage, TransferLeader, Vote};

impl Consensus {
    /// Answers one request of a peer; `None` for a path that is none of the group's.
    pub(crate) async fn answer_peer(&self, from: CoordinatorId, request: &Request) -> Option<Result<Response>> {
        let body = match request.path.as_str() {
            Append::PATH => self.on_append(request).await,
            Vote::PATH => self.on_vote(request).await,
            PreVote::PATH => self.on_pre_vote(request).await,
            TransferLeader::PATH => self.on_transfer(request).await,
            Snapshot::PATH => self.on_snapshot(request).await,
            _ => return None,
        };
        if body.is_ok() {
            self.roster.heard(from);
        }
        Some(body.map(|body| Response::new(wire::encode(&()), body)))
    }

    async fn on_append(&self, request: &Request) -> Result<Bytes> {
        checked(request)?;
        answered(self.raft.append_entries(decoded(&request.body)?).await)
    }

    async fn on_vote(&self, request: &Request) -> Result<Bytes> {
        checked(request)?;
        answered(self.raft.vote(decoded(&request.body)?).await)
    }

    async fn on_pre_vote(&self, request: &Request) -> Result<Bytes> {
        checked(request)?;
        answered(self.raft.pre_vote(decoded(&request.body)?).await)
    }

    async fn on_transfer(&self, request: &Request) -> Result<Bytes> {
        checked(request)?;
        answered(self.raft.handle_transfer_leader(decoded(&request.body)?).await)
    }

    async fn on_snapshot(&self, request: &Request) -> Result<Bytes> {
        let page: SnapshotPage = wire::decode(&request.head)?;
        page.head.check(GROUP)?;
        self.snapshots.take(&self.raft, page, request.body.clone()).await
    }
}

fn checked(request: &Request) -> Result<()> {
    wire::decode::<Head>(&request.head)?.check(GROUP)
}

fn answered<T: Serialize, E: std::fmt::Display>(answer: std::result::Result<T, E>) -> Result<Bytes> {
    encoded(&answer.map_err(|e| Error::unavailable(format!("this coordinator's part in the group has ended: {e}")))?)
}
