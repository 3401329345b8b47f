//! Whose version of a chunk is the right one: nodes hold no key, so each asks the chunk's other holders. What
//! one node says alone is not believed against others, and what most others have not is given up.

use super::state::State;
use futures::stream::{self, StreamExt};
use model::layout::{DeviceInfo, Layouts};
use model::{DescriptorId, Error, NodeId, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use transport::{Mode, Target};
use wire::node::{HeadShards, HeadShardsRequest, ShardState};

/// Deadline of asking what a node has.
const HEAD: Duration = Duration::from_secs(5);

/// Whether what a node has of a chunk is what others have: one of them says so, or none that answers has any.
pub(crate) async fn is_vouched_for(state: &State, source: NodeId, layouts: &Layouts, shard: ShardRef, descriptor: DescriptorId) -> bool {
    let others = (0..layouts.current.width).filter(|i| *i != shard.index);
    let mut holders: Vec<(u8, DeviceInfo)> =
        others.flat_map(|i| layouts.holders(&shard.chunk, i).into_iter().map(move |d| (i, d.clone()))).collect();
    holders.retain(|(_, d)| d.node != source && state.map.is_up(d.node));
    let mut another = false;
    for (index, holder) in holders {
        match head(state, &holder, ShardRef { index, ..shard }).await {
            Ok(Some(id)) if id == descriptor => return true,
            Ok(Some(_)) => another = true,
            Ok(None) => {}
            Err(e) => tracing::debug!(node = %holder.node, error = %e, "a holder does not say what it has"),
        }
    }
    !another
}

/// The descriptor of which a device has a shard, by its node's word.
async fn head(state: &State, holder: &DeviceInfo, shard: ShardRef) -> Result<Option<DescriptorId>> {
    if holder.node == state.node {
        let Some(device) = state.device(&holder.device) else { return Ok(None) };
        return device.store.head(&shard).await;
    }
    let address =
        state.map.address(holder.node).ok_or_else(|| Error::unavailable("a holder's address is not known yet").on(holder.node))?;
    let target = Target::node(holder.node, &address).with(Mode::Control);
    let request = HeadShardsRequest { capability: None, shards: vec![shard], deep: false };
    let states = state.pool.rpc::<HeadShards>(&target, &request, HEAD).await?;
    Ok(states.first().and_then(|s| if let ShardState::Held(id, _) = s { Some(*id) } else { None }))
}

/// By descriptor, which nodes have a shard of it, of all holders of the shard's chunk that answer, but for some.
async fn votes(state: &State, layouts: &Layouts, shard: ShardRef, but: &[NodeId]) -> BTreeMap<DescriptorId, BTreeSet<NodeId>> {
    let all = (0..layouts.current.width).flat_map(|i| layouts.holders(&shard.chunk, i).into_iter().map(move |d| (i, d.clone())));
    let holders: Vec<(u8, DeviceInfo)> = all.filter(|(_, d)| !but.contains(&d.node) && state.map.is_up(d.node)).collect();
    let ask = |(index, holder): (u8, DeviceInfo)| async move { (holder.node, head(state, &holder, ShardRef { index, ..shard }).await) };
    let answers: Vec<_> = stream::iter(holders).map(ask).buffer_unordered(usize::from(layouts.current.width).max(1)).collect().await;
    let mut votes: BTreeMap<DescriptorId, BTreeSet<NodeId>> = BTreeMap::new();
    for (node, said) in answers {
        if let Ok(Some(id)) = said {
            votes.entry(id).or_default().insert(node);
        }
    }
    votes
}

/// Whether a version of a chunk that another node brings is to take the place of the one that is here: more of the
/// other holders have it.
pub(crate) async fn is_better(
    state: &State,
    layouts: &Layouts,
    shard: ShardRef,
    brought: (NodeId, DescriptorId),
    here: DescriptorId,
) -> bool {
    let votes = votes(state, layouts, shard, &[state.node, brought.0]).await;
    let of = |id| votes.get(&id).map_or(0, BTreeSet::len);
    of(brought.1) > of(here)
}

/// Whether a version of a chunk that is here is none: two other holders at least have another one, and more than have it.
pub(crate) async fn is_outvoted(state: &State, layouts: &Layouts, shard: ShardRef, here: DescriptorId) -> bool {
    let mut votes = votes(state, layouts, shard, &[state.node]).await;
    let with_us = votes.remove(&here).map_or(0, |nodes| nodes.len());
    votes.into_values().any(|nodes| nodes.len() > with_us.max(1))
}
