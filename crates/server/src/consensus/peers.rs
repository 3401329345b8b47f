//! The way to other coordinators. A group has one voter so far, so nobody is ever called: whoever
//! tries is told so. (Groups of three and five come with `serve coordinator --join`.)

use super::machine::Machine;
use super::types::{Snapshot, TypeConfig, Vote};
use crate::store::View;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use std::future::Future;
use std::sync::Arc;

/// Makes no connection.
pub(crate) struct Peers;

/// Nobody.
pub(crate) struct Nobody;

fn nobody() -> Unreachable<TypeConfig> {
    Unreachable::new(&std::io::Error::new(std::io::ErrorKind::NotConnected, "this group has one coordinator"))
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Nobody;
    async fn new_client(&mut self, _: u64, _: &openraft::impls::BasicNode) -> Nobody {
        Nobody
    }
}

impl RaftNetworkV2<TypeConfig> for Nobody {
    type SnapshotData = Arc<View>;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn vote(&mut self, _: VoteRequest<TypeConfig>, _: RPCOption) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<Arc<View>>,
        _: impl Future<Output = ReplicationClosed> + openraft::OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(nobody().into())
    }
}

/// The factory's network carries the machine's snapshots.
const _: fn() = || {
    fn same<S: openraft::storage::RaftStateMachine<TypeConfig, SnapshotData = Arc<View>>>() {}
    same::<Machine>();
};
