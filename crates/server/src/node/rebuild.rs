//! One shard made to be here: copied from who held it before, or rebuilt. What is copied must be of the
//! descriptor that another holder of the chunk has too, where any other answers. To rebuild it, `k` others of
//! the same descriptor are fetched from their holders, decoded, checked against every hash in the
//! descriptor, and the missing one is stored here. No key is needed, and fewer than `k` lying nodes
//! cannot make a false shard spread in this way.

use super::plan::{Missing, RepairStep, decide};
use super::state::{Device, State};
use super::votes::is_vouched_for;
use bytes::Bytes;
use erasure::Coder;
use futures::stream::{FuturesUnordered, StreamExt};
use model::layout::{DeviceInfo, Layouts};
use model::{ChunkRef, Descriptor, DescriptorId, DeviceId, Error, Kind, NodeId, Policy, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use transport::{Mode, Target};
use wire::node::{GetShard, GetShardRequest};

/// Deadline of fetching one shard.
const DEADLINE: Duration = Duration::from_secs(20);

/// How a shard came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Healed {
    /// Its length.
    pub bytes: u64,
    /// It was copied, not decoded.
    pub copied: bool,
}

/// Gets a missing shard onto a device.
///
/// `Unavailable`: holders do not answer, so it may succeed later. `Corrupt`: all answered that are not out, and
/// fewer than `k` shards are left.
pub(crate) async fn heal(state: &Arc<State>, device: &Device, missing: &Missing) -> Result<Healed> {
    let layouts = state.map.layouts(missing.policy.width());
    let layouts = layouts.ok_or_else(|| Error::unavailable("this node has no layout for the chunk yet"))?;
    let step = decide(missing, device.id, &layouts, |node| state.map.is_up(node));
    let _turn = state.repair_turn(missing.is_urgent() && step == RepairStep::Rebuild).await?;
    if let RepairStep::Copy(sources) = step {
        for source in sources {
            match fetch(state, &source, missing.shard, missing.policy).await {
                Ok((descriptor, body)) if is_vouched_for(state, source.node, &layouts, missing.shard, descriptor.id()).await => {
                    return store(state, device, missing.shard, descriptor, body, true).await;
                }
                Ok(_) => {
                    let shard = missing.shard;
                    tracing::warn!(node = %source.node, object = %shard.chunk.object, chunk = shard.chunk.number, index = shard.index,
                        "a shard is of another descriptor than the others of its chunk: it is rebuilt instead of copied");
                }
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => tracing::debug!(node = %source.node, error = %e, "a shard cannot be copied, and is rebuilt"),
            }
        }
    }
    // Whoever had it for this node may have brought it meanwhile, and have dropped its own.
    if device.store.head(&missing.shard).await?.is_some() {
        return Ok(Healed { bytes: 0, copied: true });
    }
    from_others(state, device, missing, &layouts).await
}

async fn store(state: &State, device: &Device, shard: ShardRef, descriptor: Descriptor, body: Bytes, copied: bool) -> Result<Healed> {
    let bytes = body.len() as u64;
    device.store.put(shard, descriptor, body).await?;
    let healed = Healed { bytes, copied };
    state.healed(healed);
    Ok(healed)
}

async fn from_others(state: &Arc<State>, device: &Device, missing: &Missing, layouts: &Layouts) -> Result<Healed> {
    let (shard, policy) = (missing.shard, missing.policy);
    // Beginning at another holder for each chunk spreads the reads over all of them.
    let width = layouts.current.width;
    let first = shard.chunk.number % u32::from(width);
    let order = (0..u32::from(width)).map(|i| ((first + i) % u32::from(width)) as u8).filter(|i| *i != shard.index);
    let mut candidates: VecDeque<(u8, VecDeque<DeviceInfo>)> =
        order.map(|i| (i, layouts.holders(&shard.chunk, i).into_iter().cloned().collect())).collect();
    // Who is down is asked last: perhaps it is not.
    let is_up = |c: &(u8, VecDeque<DeviceInfo>)| c.1.front().is_some_and(|d| state.map.is_up(d.node));
    candidates.make_contiguous().sort_by_key(|c| !is_up(c));
    let mut fetching = FuturesUnordered::new();
    let mut found: BTreeMap<DescriptorId, Group> = BTreeMap::new();
    let (mut unreachable, mut there, mut last) = (None, BTreeSet::new(), false);
    // While users are there one is asked after another.
    let at_once = if state.is_busy() && !missing.is_urgent() { 1 } else { usize::MAX };
    let k = usize::from(policy.k);
    let mut want = k;
    loop {
        while fetching.len() < want.min(at_once)
            && let Some((index, mut holders)) = candidates.pop_front()
        {
            let Some(holder) = holders.pop_front() else { continue };
            fetching.push(async move {
                let fetched = fetch(state, &holder, ShardRef { index, ..shard }, policy).await;
                (index, holder.node, fetched, holders)
            });
        }
        let Some((index, from, fetched, earlier)) = fetching.next().await else {
            if std::mem::replace(&mut last, true) {
                break;
            }
            // At last: what was written while its holder was down lies on a stand-in.
            let stand_ins = stand_ins(layouts, &shard.chunk, device.id);
            let wanted = (0..width).filter(|i| *i != shard.index && !there.contains(i));
            candidates.extend(wanted.map(|i| (i, stand_ins.clone())));
            continue;
        };
        match fetched {
            Ok((descriptor, body)) => {
                let id = descriptor.id();
                let group = found.entry(id).or_insert_with(|| Group::new(descriptor));
                group.add(from, index, body);
                there.insert(index);
                if group.count < k {
                    want = k - group.count;
                } else if group.nodes.len() > 1 || is_vouched_for(state, from, layouts, shard, id).await {
                    return group.finish(state, device, shard).await;
                } else {
                    tracing::warn!(node = %from, object = %shard.chunk.object, chunk = shard.chunk.number, "a chunk that only one node has like this is not rebuilt from it");
                    // Others may have more of this shard's kind, and an earlier holder the right one.
                    found.remove(&id);
                    there.remove(&index);
                    want = k;
                    if !earlier.is_empty() {
                        candidates.push_back((index, earlier));
                    }
                }
                continue;
            }
            Err(e) if e.kind == Kind::NotFound => {}
            Err(_) if state.map.is_out(from) => {}
            Err(e) => unreachable = Some(e),
        }
        // An earlier holder of the same shard may have it still.
        if !earlier.is_empty() {
            candidates.push_front((index, earlier));
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

/// Devices that may stand in for holders of a chunk, but for one.
fn stand_ins(layouts: &Layouts, chunk: &ChunkRef, but: DeviceId) -> VecDeque<DeviceInfo> {
    let mut seen = BTreeSet::from([but]);
    let all = std::iter::once(&layouts.current).chain(&layouts.earlier).flat_map(|l| l.stand_ins(chunk.partition(l.power)));
    all.filter(|d| seen.insert(d.device)).cloned().collect()
}

/// Shards that agree on a descriptor.
struct Group {
    descriptor: Descriptor,
    shards: Vec<Option<Bytes>>,
    count: usize,
    /// Who had them. Whatever one node has it may have made up, its k too.
    nodes: BTreeSet<NodeId>,
}

impl Group {
    fn new(descriptor: Descriptor) -> Self {
        let shards = vec![None; descriptor.policy.width() as usize];
        Group { descriptor, shards, count: 0, nodes: BTreeSet::new() }
    }

    fn add(&mut self, from: NodeId, index: u8, body: Bytes) {
        self.nodes.insert(from);
        if let Some(slot @ None) = self.shards.get_mut(index as usize) {
            *slot = Some(body);
            self.count += 1;
        }
    }

    async fn finish(&mut self, state: &State, device: &Device, shard: ShardRef) -> Result<Healed> {
        let coder = Coder::new(self.descriptor.policy)?;
        let (descriptor, shards) = (self.descriptor.clone(), std::mem::take(&mut self.shards));
        let rebuilt = state.env.blocking(move || coder.rebuild(&descriptor, &shards, shard.index)).await;
        let body = rebuilt.map_err(|e| Error::corrupt(format!("the shards left do not decode: {e}")))?;
        store(state, device, shard, self.descriptor.clone(), body, false).await
    }
}

/// A shard from a device that should hold it, certified by its own descriptor, and coded as it should be.
pub(crate) async fn fetch(state: &State, holder: &DeviceInfo, shard: ShardRef, policy: Policy) -> Result<(Descriptor, Bytes)> {
    let (descriptor, body) = if holder.node == state.node {
        let device = state.device(&holder.device).ok_or_else(|| Error::not_found("this node has no such device any more"))?;
        device.store.get(&shard, None).await?
    } else {
        let address =
            state.map.address(holder.node).ok_or_else(|| Error::unavailable("a holder's address is not known yet").on(holder.node))?;
        let target = Target::node(holder.node, &address).with(Mode::Bulk);
        let request = GetShardRequest { capability: None, shard, range: None, device: holder.device };
        let (head, body) = state.pool.rpc_body::<GetShard>(&target, &request, Bytes::new(), DEADLINE).await?;
        (Descriptor::from_bytes(&head.descriptor)?, body)
    };
    let right = descriptor.chunk == shard.chunk && descriptor.generation == shard.generation && descriptor.policy == policy;
    if !right || !descriptor.certifies(shard.index, &body) {
        return Err(Error::corrupt("a holder gave a shard that does not verify").on(holder.node));
    }
    Ok((descriptor, body))
}
