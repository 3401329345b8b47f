//! Whose version of a chunk is the right one: nodes hold no key, so each asks the chunk's other holders. What
//! one node says alone is not believed against others, and what could still be decoded is never given up.

use super::state::State;
use futures::stream::{self, StreamExt};
use model::command::{Answer, Query};
use model::layout::{DeviceInfo, Layouts};
use model::{DescriptorId, Error, NodeId, Policy, Result, ShardRef};
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
    let states = heads(state, holder, vec![shard]).await?;
    Ok(states.first().and_then(|s| if let ShardState::Held(id, _) = s { Some(*id) } else { None }))
}

/// What another node says that it has of some shards.
async fn heads(state: &State, holder: &DeviceInfo, shards: Vec<ShardRef>) -> Result<Vec<ShardState>> {
    let address =
        state.map.address(holder.node).ok_or_else(|| Error::unavailable("a holder's address is not known yet").on(holder.node))?;
    let target = Target::node(holder.node, &address).with(Mode::Control);
    state.pool.rpc::<HeadShards>(&target, &HeadShardsRequest { capability: None, shards, deep: false }, HEAD).await
}

/// Whether a shard is of a generation by which its object is read, so that all of the chunk was stored.
async fn is_stored(state: &State, shard: ShardRef) -> bool {
    match state.link.ask(&Query::Generations(vec![shard.chunk.object])).await {
        Ok(Answer::Generations(known)) => known.first().is_some_and(|g| g.is_some_and(|g| g.current == shard.generation)),
        _ => false,
    }
}

/// Whether a version of a chunk, of which a shard is here, is good for nothing: fewer than `k` of its shards are
/// anywhere, so nobody can decode it. Only then may it give way to another one. Every place where one may lie has
/// answered; what nodes that lie keep back they could have dropped as well. A whole copy (`k = 1`) is never that, nor is
/// what is being stored: of that there are few at first.
pub(crate) async fn is_undecodable(state: &State, layouts: &Layouts, shard: ShardRef, here: DescriptorId, policy: Policy) -> bool {
    if policy.k < 2 || policy.width() != layouts.current.width || !is_stored(state, shard).await {
        return false;
    }
    let width = layouts.current.width;
    let mut places: BTreeMap<NodeId, DeviceInfo> = BTreeMap::new();
    for layout in std::iter::once(&layouts.current).chain(&layouts.earlier) {
        let holders = (0..width).filter_map(|index| layout.holder(&shard.chunk, index));
        let all = holders.chain(layout.stand_ins(shard.chunk.partition(layout.power)));
        places.extend(all.map(|d| (d.node, d.clone())));
    }
    places.remove(&state.node);
    let all: Vec<ShardRef> = (0..width).map(|index| ShardRef { index, ..shard }).collect();
    let all = &all;
    let ask = |holder: DeviceInfo| async move { heads(state, &holder, all.clone()).await };
    let answers: Vec<_> = stream::iter(places.into_values()).map(ask).buffered(usize::from(width)).collect().await;
    let mut found = BTreeSet::from([shard.index]);
    for answer in answers {
        let Ok(states) = answer else { return false };
        if states.len() != all.len() {
            return false;
        }
        let has = |state: &ShardState| matches!(state, ShardState::Held(id, _) if *id == here);
        found.extend((0..width).zip(&states).filter(|(_, state)| has(state)).map(|(index, _)| index));
    }
    for device in &state.devices {
        for other in all {
            match device.store.head(other).await {
                Ok(Some(id)) if id == here => drop(found.insert(other.index)),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
    found.len() < usize::from(policy.k)
}
