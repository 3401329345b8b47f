//! One shard rebuilt: `k` others of the same descriptor are fetched from their holders, decoded,
//! checked against every hash in the descriptor, and the missing one is stored here. No key is
//! needed, and fewer than `k` lying nodes cannot make a false shard spread.

use super::state::{Device, State};
use bytes::Bytes;
use erasure::Coder;
use futures::stream::{FuturesUnordered, StreamExt};
use model::{Descriptor, DescriptorId, Error, Kind, Layout, Policy, Result, ShardRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use transport::{Mode, Target};
use wire::node::{GetShard, GetShardRequest};

/// Deadline of fetching one shard.
const DEADLINE: Duration = Duration::from_secs(20);

/// Rebuilds a shard onto a device; answers its length. `policy`: how the chunk is coded, where known.
///
/// `Unavailable`: holders do not answer, so it may succeed later. `Corrupt`: all answered, and
/// fewer than `k` shards are left.
pub(crate) async fn rebuild(state: &Arc<State>, device: &Device, shard: ShardRef, policy: Option<Policy>) -> Result<u64> {
    let _permit = state.rebuilds.acquire().await.map_err(|_| Error::unavailable("this node stops"))?;
    let layouts = match policy {
        Some(policy) => state.map.layout(policy.width()).into_iter().collect(),
        None => state.map.layouts(),
    };
    let mut last = Error::unavailable("this node has no layout for the chunk yet");
    for layout in layouts {
        if shard.index >= layout.width {
            continue;
        }
        match from_holders(state, device, shard, &layout).await {
            Err(e) if policy.is_none() => last = e,
            other => return other,
        }
    }
    Err(last)
}

async fn from_holders(state: &Arc<State>, device: &Device, shard: ShardRef, layout: &Layout) -> Result<u64> {
    // Beginning at another holder for each chunk spreads the reads over all of them.
    let width = u32::from(layout.width);
    let first = shard.chunk.number % width;
    let mut candidates = (0..width).map(|i| ((first + i) % width) as u8).filter(|i| *i != shard.index);
    let mut fetching = FuturesUnordered::new();
    let mut found: BTreeMap<DescriptorId, Group> = BTreeMap::new();
    let mut unreachable = None;
    // One suffices to learn k; until then two are asked at once.
    let mut want = 2;
    loop {
        while fetching.len() < want
            && let Some(index) = candidates.next()
        {
            fetching.push(fetch(state, layout, ShardRef { index, ..shard }));
        }
        let Some(fetched) = fetching.next().await else { break };
        match fetched {
            Ok((index, descriptor, body)) => {
                let k = descriptor.policy.k as usize;
                let group = found.entry(descriptor.id()).or_insert_with(|| Group::new(descriptor));
                group.add(index, body);
                if group.count == k {
                    return group.finish(state, device, shard).await;
                }
                want = k - group.count;
            }
            Err(e) if e.kind == Kind::NotFound => {}
            Err(e) => unreachable = Some(e),
        }
    }
    let most = found.values().map(|g| g.count).max().unwrap_or(0);
    match unreachable {
        Some(e) if e.kind != Kind::Corrupt => {
            Err(Error::unavailable(format!("not enough shards can be read now ({most} found): {}", e.message)))
        }
        _ => Err(Error::corrupt(format!("only {most} good shards of this chunk are left"))),
    }
}

/// Shards that agree on a descriptor.
struct Group {
    descriptor: Descriptor,
    shards: Vec<Option<Bytes>>,
    count: usize,
}

impl Group {
    fn new(descriptor: Descriptor) -> Self {
        let shards = vec![None; descriptor.policy.width() as usize];
        Group { descriptor, shards, count: 0 }
    }

    fn add(&mut self, index: u8, body: Bytes) {
        if let Some(slot @ None) = self.shards.get_mut(index as usize) {
            *slot = Some(body);
            self.count += 1;
        }
    }

    async fn finish(&mut self, state: &State, device: &Device, shard: ShardRef) -> Result<u64> {
        let coder = Coder::new(self.descriptor.policy)?;
        let (descriptor, shards) = (self.descriptor.clone(), std::mem::take(&mut self.shards));
        let rebuilt = state.env.blocking(move || coder.rebuild(&descriptor, &shards, shard.index)).await;
        let body = rebuilt.map_err(|e| Error::corrupt(format!("the shards left do not decode: {e}")))?;
        let len = body.len() as u64;
        device.store.put(shard, self.descriptor.clone(), body).await?;
        Ok(len)
    }
}

/// A shard from its holder, certified by its own descriptor.
async fn fetch(state: &State, layout: &Layout, shard: ShardRef) -> Result<(u8, Descriptor, Bytes)> {
    let vacant = || Error::not_found("no device fills this slot");
    let holder = layout.holder(&shard.chunk, shard.index).ok_or_else(vacant)?;
    let (descriptor, body) = if holder.node == state.node {
        let device = state.device(&holder.device).ok_or_else(vacant)?;
        device.store.get(&shard, None).await?
    } else {
        let address =
            state.map.address(holder.node).ok_or_else(|| Error::unavailable("a holder's address is not known yet").on(holder.node))?;
        let target = Target::node(holder.node, &address).with(Mode::Bulk);
        let request = GetShardRequest { capability: None, shard, range: None, device: holder.device };
        let (head, body) = state.pool.rpc_body::<GetShard>(&target, &request, Bytes::new(), DEADLINE).await?;
        (Descriptor::from_bytes(&head.descriptor)?, body)
    };
    let right = descriptor.chunk == shard.chunk && descriptor.generation == shard.generation && descriptor.policy.width() == layout.width;
    if !right || !descriptor.certifies(shard.index, &body) {
        return Err(Error::corrupt("a holder gave a shard that does not verify").on(holder.node));
    }
    Ok((shard.index, descriptor, body))
}
