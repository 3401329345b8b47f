//! What a coordinator answers, path by path. The exchanges, and who may call them, are described in
//! `wire::coordinator`.

use super::part::Part;
use crate::rpc::answer;
use futures::future::BoxFuture;
use model::tree::HAVE_MAX;
use model::{CoordinatorId, Error, NodeId, Result};
use std::sync::Arc;
use transport::{Connection, Peer, Request, Response, Service};
use wire::Rpc;
use wire::admin::{CloseBackup, ListUsers, OpenBackup, ReadBackup, ShowSpacePolicy};
use wire::coordinator::*;
use wire::link::OpenLink;
use wire::raft::{Announce, Append, Snapshot};
use wire::watch::WatchSpace;

/// The service of a coordinator.
pub(crate) struct CoordinatorService(pub Arc<Part>);

/// Longest commit: 256 rows of 16 KiB with 256 manifests of 24 KiB, and what stands around them.
pub(crate) const COMMIT_BYTES: usize = 11 << 20;
/// Longest message of another coordinator: an entry with a commit in it, and what stands around it.
pub(crate) const PEER_BYTES: usize = COMMIT_BYTES + (1 << 20);
/// Longest question: a listing that names the commits that need not come, and what stands around them.
const QUERY_BYTES: usize = 20 * HAVE_MAX;
/// Longest message of any other kind.
const MESSAGE_BYTES: usize = 64 << 10;

impl Service for CoordinatorService {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(self.route(request))
    }

    fn max_body(&self, path: &str, connection: &Connection) -> usize {
        max_body(path, connection)
    }
}

/// Only a commit is long: rows of many files with their inline content; and what coordinators
/// say to each other.
pub(crate) fn max_body(path: &str, connection: &Connection) -> usize {
    match path {
        Propose::PATH => COMMIT_BYTES,
        Ask::PATH => QUERY_BYTES,
        Append::PATH | Snapshot::PATH if matches!(connection.peer, Peer::Coordinator(_)) => PEER_BYTES,
        _ => MESSAGE_BYTES,
    }
}

impl CoordinatorService {
    async fn route(&self, request: Request) -> Result<Response> {
        let part = &self.0;
        let connection = request.connection.clone();
        if request.path == Hello::PATH {
            return answer::<Hello, _>(&request, |theirs| part.hello(theirs)).await;
        }
        if let Peer::Coordinator(from) = connection.peer
            && let Some(answer) = part.consensus.answer_peer(from, &request).await
        {
            return answer;
        }
        if request.path == Announce::PATH {
            let from = coordinator(&connection.peer)?;
            return answer::<Announce, _>(&request, |r| part.on_announce(from, r)).await;
        }
        let s = part.state()?;
        let address = connection.remote.ip();
        match request.path.as_str() {
            LoginStart::PATH => answer::<LoginStart, _>(&request, |r| s.login_start(r, address)).await,
            LoginFinish::PATH => answer::<LoginFinish, _>(&request, |r| s.login_finish(r)).await,
            RegisterStart::PATH => answer::<RegisterStart, _>(&request, |r| s.register_start(r, address)).await,
            RegisterFinish::PATH => answer::<RegisterFinish, _>(&request, |r| s.register_finish(r, address)).await,
            PasswordStart::PATH => answer::<PasswordStart, _>(&request, |r| s.password_start(r.session, r.request, address)).await,
            PasswordFinish::PATH => answer::<PasswordFinish, _>(&request, |r| s.password_finish(r.session, r.request, address)).await,
            RecoverStart::PATH => answer::<RecoverStart, _>(&request, |r| s.recover_start(r, address)).await,
            RecoverFinish::PATH => answer::<RecoverFinish, _>(&request, |r| s.recover_finish(r, &connection.exporter, address)).await,
            OpenLink::PATH => answer::<OpenLink, _>(&request, |r| s.open_link(r, address)).await,
            Logout::PATH => answer::<Logout, _>(&request, |r| s.logout(r.session)).await,
            WhoAmI::PATH => answer::<WhoAmI, _>(&request, |r| s.who_am_i(r.session)).await,
            Ask::PATH => answer::<Ask, _>(&request, |r| s.ask_as(r.session, r.request)).await,
            WatchSpace::PATH => answer::<WatchSpace, _>(&request, |r| s.watch_space(r.session, r.request)).await,
            Propose::PATH => answer::<Propose, _>(&request, |r| s.propose_as(r.session, r.request)).await,
            Upload::PATH => answer::<Upload, _>(&request, |r| s.upload(r.session, r.request)).await,
            ReadCapabilities::PATH => answer::<ReadCapabilities, _>(&request, |r| s.read_capabilities(r.session, r.request)).await,
            Status::PATH => answer::<Status, _>(&request, |r| s.status(r.session)).await,
            CreateToken::PATH => answer::<CreateToken, _>(&request, |r| s.create_token(r.session, r.request)).await,
            CreateInvite::PATH => answer::<CreateInvite, _>(&request, |r| s.create_invite(r.session, r.request)).await,
            ListUsers::PATH => answer::<ListUsers, _>(&request, |r| s.users(r.session, r.request)).await,
            OpenBackup::PATH => answer::<OpenBackup, _>(&request, |r| s.open_backup(r.session)).await,
            ReadBackup::PATH => answer::<ReadBackup, _>(&request, |r| s.read_backup(r.session, r.request)).await,
            CloseBackup::PATH => answer::<CloseBackup, _>(&request, |r| s.close_backup(r.session, r.request)).await,
            ShowSpacePolicy::PATH => answer::<ShowSpacePolicy, _>(&request, |r| s.space_policy(r.session, r.request)).await,
            ReportShard::PATH => answer::<ReportShard, _>(&request, |r| s.report_shard(r.session, r.request)).await,
            Administer::PATH => answer::<Administer, _>(&request, |r| s.administer(r.session, r.request)).await,
            PlanLayout::PATH => answer::<PlanLayout, _>(&request, |r| s.plan_layout(r.session, r.request)).await,
            ApplyLayout::PATH => answer::<ApplyLayout, _>(&request, |r| s.apply_layout(r.session, r.request)).await,
            Join::PATH => answer::<Join, _>(&request, |r| s.join(r, &connection.exporter)).await,
            Heartbeat::PATH => {
                let node = node(&connection.peer)?;
                answer::<Heartbeat, _>(&request, |r| s.heartbeat(node, r)).await
            }
            AskPeer::PATH => {
                server(&connection.peer)?;
                answer::<AskPeer, _>(&request, |r| s.ask_as_peer(r)).await
            }
            ReportPeer::PATH => {
                let node = node(&connection.peer)?;
                answer::<ReportPeer, _>(&request, |r| s.report_peer(node, r)).await
            }
            other => Err(wire::unserved(other)),
        }
    }
}

/// The node at the other end.
fn node(peer: &Peer) -> Result<NodeId> {
    match peer {
        Peer::Node(id) => Ok(*id),
        Peer::Coordinator(_) | Peer::Anonymous => {
            Err(Error::denied("only nodes of the cluster, known by their certificate, may call this"))
        }
    }
}

/// The coordinator at the other end.
fn coordinator(peer: &Peer) -> Result<CoordinatorId> {
    match peer {
        Peer::Coordinator(id) => Ok(*id),
        Peer::Node(_) | Peer::Anonymous => {
            Err(Error::denied("only coordinators of the cluster, known by their certificate, may call this"))
        }
    }
}

/// `Denied` unless a server of the cluster is at the other end.
fn server(peer: &Peer) -> Result<()> {
    match peer {
        Peer::Node(_) | Peer::Coordinator(_) => Ok(()),
        Peer::Anonymous => Err(Error::denied("only servers of the cluster, known by their certificate, may call this")),
    }
}
