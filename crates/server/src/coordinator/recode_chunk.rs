//! One chunk from one policy to another: fetched, decoded, coded, and brought to its new holders. Every
//! step is checked by hashes: of the shards that come, of the sealed chunk, and by the nodes of the
//! shards that they take.

use bytes::Bytes;
use env::Env;
use erasure::Coder;
use futures::future::try_join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use model::cluster::{Node, NodeState};
use model::layout::{DeviceInfo, Layouts};
use model::{ChunkRef, Descriptor, DescriptorId, Error, Kind, Layout, NodeId, Policy, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use transport::{Mode, Pool, Target};
use wire::node::{GetShard, GetShardRequest, HeadShards, HeadShardsRequest, PutShard, PutShardRequest, ShardState};

/// Deadline of one exchange with a node.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where nodes are, and whether they are there.
pub(crate) struct Servers {
    pool: Pool,
    nodes: BTreeMap<NodeId, (String, NodeState)>,
}

impl Servers {
    pub fn new(pool: Pool, nodes: &[Node]) -> Self {
        Servers { pool, nodes: nodes.iter().map(|n| (n.id, (n.address.clone(), n.state))).collect() }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|(_, state)| !matches!(state, NodeState::Down | NodeState::Out))
    }

    /// Whether the cluster counts with a node, although it may be away.
    fn is_awaited(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|(_, state)| *state != NodeState::Out)
    }

    fn target(&self, node: NodeId, mode: Mode) -> Result<Target> {
        let (address, _) = self.nodes.get(&node).ok_or_else(|| Error::unavailable(format!("node-{node} is not known")).on(node))?;
        Ok(Target::node(node, address).with(mode))
    }
}

/// A chunk that is to be coded otherwise.
pub(crate) struct Chunk<'a> {
    pub env: &'a Env,
    pub chunk: ChunkRef,
    /// Policy and generation that it has.
    pub was: (Policy, u16),
    /// And those that it is to have.
    pub becomes: (Policy, u16),
    /// By which its shards lie.
    pub from: &'a Layouts,
    /// By which the new ones are placed.
    pub to: &'a Layout,
    pub servers: &'a Servers,
}

impl Chunk<'_> {
    /// Whether all shards of the new generation are durable where they belong, for a chunk of which nothing else is
    /// left. False also where a holder does not answer.
    async fn is_whole(&self) -> bool {
        let Some(holder) = self.to.holder(&self.chunk, 0) else { return false };
        let (Ok((descriptor, _)), Ok(ids)) =
            (self.get(holder, 0, self.becomes).await, try_join_all((0..self.to.width).map(|index| self.head(index))).await)
        else {
            return false;
        };
        ids.iter().all(|id| *id == descriptor.id())
    }

    /// Which shard of the new generation is durable where it belongs.
    async fn head(&self, index: u8) -> Result<DescriptorId> {
        let missing = || Error::not_found("a shard is not there yet");
        let holder = self.to.holder(&self.chunk, index).ok_or_else(missing)?;
        let request = HeadShardsRequest { capability: None, shards: vec![self.shard(self.becomes.1, index)], deep: false };
        let target = self.servers.target(holder.node, Mode::Control)?;
        let states = self.servers.pool.rpc::<HeadShards>(&target, &request, DEADLINE).await?;
        match states.first() {
            Some(ShardState::Held(id, device)) if *device == holder.device => Ok(*id),
            _ => Err(missing()),
        }
    }

    /// Makes the new generation durable. How long a core was busy with it.
    pub async fn recode(&self) -> Result<Duration> {
        // Without them all nothing need be fetched.
        let holders: Vec<&DeviceInfo> = (0..self.to.width)
            .map(|index| self.to.holder(&self.chunk, index).ok_or_else(|| Error::unavailable("the layout has vacant places")))
            .collect::<Result<_>>()?;
        if let Some(away) = holders.iter().find(|d| !self.servers.is_up(d.node)) {
            return Err(Error::unavailable(format!("node-{} is away", away.node)).on(away.node));
        }
        let (descriptor, shards) = match self.fetch().await {
            // As after the restore of a catalog of before it was re-coded: the old ones were dropped long ago.
            Err(e) if e.kind == Kind::NotFound && self.is_whole().await => return Ok(Duration::ZERO),
            fetched => fetched?,
        };
        let (old, new) = (Coder::new(self.was.0)?, Coder::new(self.becomes.0)?);
        let (chunk, generation, env) = (self.chunk, self.becomes.1, self.env.clone());
        let coded = self.env.blocking(move || {
            let began = env.clock.monotonic();
            let sealed = old.decode(&descriptor, &shards).map_err(|e| Error::corrupt(format!("the shards do not decode: {e}")))?;
            drop(shards);
            let coded = new.encode(chunk, generation, sealed)?;
            // The same sealed bytes under another code: what the manifest pins stays true.
            if coded.descriptor.sealed_hash != descriptor.sealed_hash || coded.descriptor.sealed_len != descriptor.sealed_len {
                return Err(Error::corrupt("a chunk came out of its code as another one"));
            }
            Ok((coded, env.clock.monotonic().saturating_sub(began)))
        });
        let (coded, worked) = coded.await?;
        let (id, descriptor) = (coded.descriptor.id(), coded.descriptor.to_bytes());
        let puts = coded.shards.into_iter().zip(holders).zip(0u8..).map(|((body, holder), index)| {
            let request = PutShardRequest {
                capability: None,
                shard: self.shard(generation, index),
                descriptor: descriptor.clone().into(),
                epoch: self.to.epoch,
                device: holder.device,
            };
            async move {
                if self.head(index).await == Ok(id) {
                    return Ok(());
                }
                let target = self.servers.target(holder.node, Mode::Bulk)?;
                self.servers.pool.rpc_body::<PutShard>(&target, &request, body, DEADLINE).await.map(|_| ())
            }
        });
        try_join_all(puts).await?;
        Ok(worked)
    }

    fn shard(&self, generation: u16, index: u8) -> ShardRef {
        ShardRef { chunk: self.chunk, generation, index }
    }

    /// k shards of one descriptor, data shards first; looked for at all places where they may lie. They come from two
    /// nodes at least, unless all others that are not out have answered and have nothing: one may have made up what it
    /// has. `NotFound` when all have answered, and they are not there.
    async fn fetch(&self) -> Result<(Descriptor, Vec<Option<Bytes>>)> {
        let (k, width) = (self.was.0.k as usize, self.was.0.width());
        let all = std::iter::once(&self.from.current).chain(&self.from.earlier);
        let stand_ins: Vec<&DeviceInfo> = all.flat_map(|l| l.stand_ins(self.chunk.partition(l.power))).collect();
        let places = |index| {
            let mut places: VecDeque<&DeviceInfo> = self.from.holders(&self.chunk, index).into();
            places.make_contiguous().sort_by_key(|d| !self.servers.is_up(d.node));
            places.extend(&stand_ins);
            places
        };
        let mut rest: VecDeque<(u8, VecDeque<&DeviceInfo>)> = (0..width).map(|index| (index, places(index))).collect();
        rest.make_contiguous().sort_by_key(|(_, places)| places.front().is_none_or(|d| !self.servers.is_up(d.node)));
        let all = rest.iter().flat_map(|(_, places)| places).map(|d| d.node);
        let awaited: BTreeSet<NodeId> = all.filter(|n| self.servers.is_awaited(*n)).collect();
        let witnesses = awaited.len().min(width as usize).min(2);
        let mut found: BTreeMap<DescriptorId, Found> = BTreeMap::new();
        let mut under_way = FuturesUnordered::new();
        let (mut want, mut unreachable) = (k, None);
        loop {
            while under_way.len() < want
                && let Some((index, mut places)) = rest.pop_front()
            {
                // Who is out is asked only for what is needed, not for a second opinion.
                let is_enough = found.values().any(|of| of.count() >= k);
                places.retain(|place| !is_enough || self.servers.is_awaited(place.node));
                if let Some(place) = places.pop_front() {
                    under_way.push(async move { (index, place.node, self.get(place, index, self.was).await, places) });
                }
            }
            let Some((index, node, got, others)) = under_way.next().await else { break };
            match got {
                Ok((descriptor, body)) => {
                    let of = found.entry(descriptor.id()).or_insert_with(|| Found::new(descriptor));
                    if let Some(slot) = of.shards.get_mut(index as usize) {
                        *slot = Some(body);
                    }
                    of.nodes.insert(node);
                    let count = of.count();
                    if count >= k && of.nodes.len() >= witnesses {
                        return Ok((of.descriptor.clone(), std::mem::take(&mut of.shards)));
                    }
                    want = k.saturating_sub(count).max(1);
                }
                Err(e) => {
                    if e.kind != Kind::NotFound {
                        unreachable = Some(e);
                    }
                    // Other shards first; then the other places of this one.
                    if !others.is_empty() {
                        rest.push_back((index, others));
                    }
                }
            }
        }
        let most = found.values().map(Found::count).max().unwrap_or(0);
        if most >= k {
            let (of, others) = (found.pop_first(), found);
            return match (of, unreachable) {
                (_, Some(e)) => {
                    Err(Error::unavailable(format!("only one node says what a chunk is, and others do not answer: {}", e.message)))
                }
                (Some((_, of)), None) if others.is_empty() => Ok((of.descriptor, of.shards)),
                _ => Err(Error::corrupt("the nodes that hold a chunk have different ones, and no two the same")),
            };
        }
        let (kind, why) = unreachable.map_or_else(|| (Kind::NotFound, String::new()), |e| (Kind::Unavailable, format!(": {}", e.message)));
        Err(Error::new(kind, format!("only {most} of the {k} shards that a chunk needs can be read{why}")))
    }

    /// A shard from a place where it may lie, certified by its own descriptor.
    async fn get(&self, place: &DeviceInfo, index: u8, coding: (Policy, u16)) -> Result<(Descriptor, Bytes)> {
        let shard = self.shard(coding.1, index);
        let request = GetShardRequest { capability: None, shard, range: None, device: place.device };
        let target = self.servers.target(place.node, Mode::Bulk)?;
        let (head, body) = self.servers.pool.rpc_body::<GetShard>(&target, &request, Bytes::new(), DEADLINE).await?;
        let descriptor = Descriptor::from_bytes(&head.descriptor)?;
        let right = descriptor.chunk == self.chunk && (descriptor.policy, descriptor.generation) == coding;
        if right && descriptor.certifies(index, &body) {
            Ok((descriptor, body))
        } else {
            Err(Error::corrupt("a node gave a shard that does not verify").on(place.node))
        }
    }
}

/// Shards of one descriptor.
struct Found {
    descriptor: Descriptor,
    shards: Vec<Option<Bytes>>,
    nodes: BTreeSet<NodeId>,
}

impl Found {
    fn new(descriptor: Descriptor) -> Self {
        let shards = vec![None; descriptor.policy.width() as usize];
        Found { descriptor, shards, nodes: BTreeSet::new() }
    }

    fn count(&self) -> usize {
        self.shards.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests;
