//! Whose version of a chunk is the right one: nodes hold no key, so each asks the chunk's other holders. What
//! one node says alone is not believed against others, and what most others have not is given up.

use super::state::State;
use futures::stream::{self, StreamExt};
use model::layout::{DeviceInfo, Layouts};
use model::{DescriptorId, Error, NodeId, Result, ShardRef};
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

/// What the rightful holders of the other shards of a chunk have, and the one of the shard itself if `all`: one answer
/// for each place, `None` where nothing was said, or nothing is.
async fn places(state: &State, layouts: &Layouts, shard: ShardRef, all: bool) -> Vec<Option<DescriptorId>> {
    let indexes = (0..layouts.current.width).filter(|i| all || *i != shard.index);
    let ask = |index: u8| async move {
        let holder = layouts.current.holder(&shard.chunk, index)?;
        head(state, holder, ShardRef { index, ..shard }).await.ok().flatten()
    };
    stream::iter(indexes).map(ask).buffered(usize::from(layouts.current.width).max(1)).collect().await
}

/// Whether a version of a shard that a node brings is to take the place of the one that is here, where it belongs: all
/// other holders of the chunk have the one that is brought, and there are two at least. So a single node that lies gets
/// nothing replaced, whoever brings it.
pub(crate) async fn is_better(state: &State, layouts: &Layouts, shard: ShardRef, brought: DescriptorId) -> bool {
    let others = places(state, layouts, shard, false).await;
    others.len() > 1 && others.into_iter().all(|has| has == Some(brought))
}

/// Whether a version of a shard that is here and belongs elsewhere is none: all holders of the chunk have another one,
/// and all the same.
pub(crate) async fn is_outvoted(state: &State, layouts: &Layouts, shard: ShardRef, here: DescriptorId) -> bool {
    let all = places(state, layouts, shard, true).await;
    let first = all.first().copied().flatten();
    all.len() > 1 && first.is_some_and(|id| id != here) && all.into_iter().all(|has| has == first)
}
