//! The way to other coordinators: the consensus library's network over [`Pool`](transport::Pool),
//! with mutual TLS. Who answers must be the coordinator that was meant, by its certificate.
//!
//! Heartbeats and votes share one connection a peer; entries and snapshots go over connections of
//! their own, so that no heartbeat waits behind bulk. Every call has a deadline. A request carries
//! at most [`APPEND_BYTES`] of entries, or one entry; what does not fit goes with the next.

use super::machine::Machine;
use super::roster::Roster;
use super::snapshot;
use super::types::{Entry, Snapshot, TypeConfig, Vote};
use crate::store::View;
use bytes::Bytes;
use futures::future::{Either, select};
use model::{CoordinatorId, Error};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use transport::{Mode, Target};
use wire::Rpc;
use wire::raft::{Append, Head, PreVote, TransferLeader};

/// Bytes of entries in a request.
const APPEND_BYTES: usize = 2 << 20;
/// Time for a request with entries, beside that for its bytes.
const APPEND: Duration = Duration::from_secs(1);
/// The slowest line between coordinators that is reckoned with, in bytes a second.
const SLOWEST: u64 = 1 << 20;

/// Makes connections to peers.
pub(crate) struct Peers(pub Roster);

/// One peer.
pub(crate) struct Peer {
    pub id: CoordinatorId,
    pub roster: Roster,
}

/// In the library's words.
pub(crate) fn unreachable(e: &Error) -> Unreachable<TypeConfig> {
    Unreachable::from_string(&e.message)
}

pub(crate) fn encoded<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(|e| Error::invalid(format!("a message that cannot be written: {e}")))
}

pub(crate) fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    postcard::from_bytes(bytes).map_err(|e| Error::invalid(format!("a message of a coordinator that cannot be read: {e}")))
}

impl Peer {
    /// One exchange with this very coordinator, over its present address.
    pub async fn call<R: Rpc>(&self, mode: Mode, head: &R::Request, body: Bytes, deadline: Duration) -> Result<(R::Response, Bytes), Error>
    where
        R::Request: Sync,
    {
        let pool = self.roster.pool().ok_or_else(|| Error::unavailable("this coordinator has no certificate yet"))?;
        let address = self.roster.address(self.id);
        let address = address.ok_or_else(|| Error::unavailable(format!("nobody knows where coordinator-{} is", self.id)))?;
        let target = Target::coordinator_id(self.id, address).with(mode);
        let answer = pool.rpc_body::<R>(&target, head, body, deadline).await?;
        self.roster.heard(self.id);
        Ok(answer)
    }

    async fn ask<R>(&self, mode: Mode, body: Bytes, deadline: Duration) -> Result<Bytes, Error>
    where
        R: Rpc<Request = Head, Response = ()>,
    {
        Ok(self.call::<R>(mode, &self.roster.head(), body, deadline).await?.1)
    }

    async fn exchange<R, Q: Serialize, A: DeserializeOwned>(&self, request: &Q, deadline: Duration) -> Result<A, RPCError<TypeConfig>>
    where
        R: Rpc<Request = Head, Response = ()>,
    {
        let body = encoded(request).map_err(|e| unreachable(&e))?;
        let answer = self.ask::<R>(Mode::Control, body, deadline).await.and_then(|b| decoded(&b));
        answer.map_err(|e| unreachable(&e).into())
    }
}

/// A request with as many of its entries as fit, and the last of them where some did not.
///
/// The same bytes as postcard of the whole request would be.
fn fitted(request: &AppendEntriesRequest<TypeConfig>) -> Result<(Bytes, Option<&Entry>), Error> {
    let (mut entries, mut count) = (Vec::new(), 0u64);
    for entry in &request.entries {
        let next = encoded(entry)?;
        if count > 0 && entries.len() + next.len() > APPEND_BYTES {
            break;
        }
        entries.extend_from_slice(&next);
        count += 1;
    }
    let parts = [encoded(&(&request.vote, &request.prev_log_id, count))?, entries.into(), encoded(&request.leader_commit)?];
    let cut = count < request.entries.len() as u64;
    let last = usize::try_from(count).ok().and_then(|n| request.entries.get(n.checked_sub(1)?)).filter(|_| cut);
    Ok((parts.concat().into(), last))
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &openraft::impls::BasicNode) -> Peer {
        let id = CoordinatorId(target);
        self.0.hint(id, &node.addr);
        Peer { id, roster: self.0.clone() }
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Arc<View>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        if request.entries.is_empty() {
            return self.exchange::<Append, _, _>(&request, option.hard_ttl()).await;
        }
        let (body, cut) = fitted(&request).map_err(|e| unreachable(&e))?;
        let deadline = APPEND + Duration::from_millis(body.len() as u64 * 1000 / SLOWEST);
        let answer = self.ask::<Append>(Mode::Bulk, body, deadline).await.and_then(|b| decoded(&b));
        match (answer.map_err(|e| unreachable(&e))?, cut) {
            (AppendEntriesResponse::Success, Some(last)) => Ok(AppendEntriesResponse::PartialSuccess(Some(last.log_id))),
            (answer, _) => Ok(answer),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange::<wire::raft::Vote, _, _>(&request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange::<PreVote, _, _>(&request, option.hard_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.exchange::<TransferLeader, _, _>(&request, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Arc<View>>,
        cancel: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        match select(pin!(cancel), pin!(snapshot::send(self, vote, snapshot))).await {
            Either::Left((closed, _)) => Err(closed.into()),
            Either::Right((sent, _)) => sent.map_err(|e| unreachable(&e).into()),
        }
    }
}

/// The factory's network carries the machine's snapshots.
const _: fn() = || {
    fn same<S: openraft::storage::RaftStateMachine<TypeConfig, SnapshotData = Arc<View>>>() {}
    same::<Machine>();
};
