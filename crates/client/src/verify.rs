//! Where shards lie, and whether all are there and good.

use crate::Progress;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::{Entry, EntryKind};
use model::cluster::ClusterView;
use model::layout::Layouts;
use model::{ChunkRef, DescriptorId, DeviceId, Kind, NodeId, Partition, Policy, Result, ShardRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use wire::node::ShardState;

/// Chunks whose shards are asked for at once.
const BATCH: usize = 64;

/// What became of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardPlaceState {
    /// There, with the same descriptor as the others.
    Ok,
    /// Its server does not have it.
    Missing,
    /// Its server has something that does not verify.
    Corrupt,
    /// On another device than the layout says: on its way there.
    Misplaced,
    /// Its server does not answer.
    Unreachable,
}

/// One shard's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlace {
    /// Index among the chunk's shards.
    pub index: u8,
    /// The server that the layout names; `None`: the slot is vacant.
    pub node: Option<NodeId>,
    /// What is there.
    pub state: ShardPlaceState,
}

/// One chunk's places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlaces {
    /// Number in the file.
    pub number: u64,
    /// Partition.
    pub partition: Partition,
    /// Shards needed to read it.
    pub k: u8,
    /// All shards by index.
    pub shards: Vec<ShardPlace>,
}

impl ChunkPlaces {
    /// Shards that are there.
    pub fn present(&self) -> usize {
        self.shards.iter().filter(|s| matches!(s.state, ShardPlaceState::Ok | ShardPlaceState::Misplaced)).count()
    }
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files looked at.
    pub files: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Chunks at full redundancy.
    pub ok: u64,
    /// Chunks that can be read, with fewer shards than they should have.
    pub degraded: u64,
    /// Chunks that cannot be read now.
    pub lost: u64,
    /// Shards or chunks that do not verify.
    pub corrupt: u64,
    /// Shards whose servers do not answer.
    pub unreachable: u64,
    /// Parts of files that could not be read now, though nothing says that they are corrupt.
    pub unreadable: u64,
    /// `(path, what)` of each that is not well.
    pub problems: Vec<(String, String)>,
}

impl Client {
    /// Where each shard of a file lies. `deep`: servers read each and check its hash.
    pub async fn places(&self, entry: &Entry, deep: bool) -> Result<Vec<ChunkPlaces>> {
        let places = self.places_by_known_layouts(entry, deep).await?;
        let gone = |s: &ShardPlace| matches!(s.state, ShardPlaceState::Missing | ShardPlaceState::Misplaced);
        if !places.iter().flat_map(|chunk| &chunk.shards).any(gone) {
            return Ok(places);
        }
        // They may have moved since the layouts were asked for.
        self.cluster().view(true).await?;
        self.places_by_known_layouts(entry, deep).await
    }

    async fn places_by_known_layouts(&self, entry: &Entry, deep: bool) -> Result<Vec<ChunkPlaces>> {
        if entry.kind != EntryKind::File || entry.inline {
            return Ok(Vec::new());
        }
        let mut entry = entry.clone();
        if entry.manifest.is_none()
            && let seal::tree::Content::Manifest { id, .. } = &entry.found.entry.content
        {
            entry.manifest = Some(Arc::new(self.manifest(entry.space.id(), *id).await?));
        }
        let (chunks, by_object) = self.chunk_refs(&entry).await?;
        let mut places = Vec::with_capacity(chunks.len());
        for batch in chunks.chunks(BATCH) {
            let mut asked: BTreeMap<NodeId, Vec<ShardRef>> = BTreeMap::new();
            for (_, chunk) in batch {
                let Some(coded) = by_object.get(&chunk.object) else { continue };
                for shard in coded.shards(*chunk) {
                    for d in coded.layouts.holders(chunk, shard.index) {
                        asked.entry(d.node).or_default().push(shard);
                    }
                }
            }
            let mut states = self.heads(asked, deep).await;
            // What is nowhere where it should be, others may hold for its holder.
            let mut asked: BTreeMap<NodeId, Vec<ShardRef>> = BTreeMap::new();
            for (_, chunk) in batch {
                let Some(coded) = by_object.get(&chunk.object) else { continue };
                let layout = &coded.layouts.current;
                for shard in
                    coded.shards(*chunk).filter(|s| !coded.layouts.holders(chunk, s.index).iter().any(|d| is_held(&states, s, d.node)))
                {
                    for d in layout.stand_ins(chunk.partition(layout.power)) {
                        asked.entry(d.node).or_default().push(shard);
                    }
                }
            }
            states.extend(self.heads(asked, deep).await);
            for (number, chunk) in batch {
                if let Some(coded) = by_object.get(&chunk.object) {
                    places.push(one_chunk(*number, chunk, coded, &states));
                }
            }
        }
        Ok(places)
    }

    /// What servers say of shards.
    async fn heads(&self, asked: BTreeMap<NodeId, Vec<ShardRef>>, deep: bool) -> States {
        let answers = asked.into_iter().map(|(node, shards)| async move {
            let mut states = Vec::with_capacity(shards.len());
            for part in shards.chunks(if deep { 64 } else { 1024 }) {
                match self.cluster().head_shards(node, part.to_vec(), deep).await {
                    Ok(s) => states.extend(s.into_iter().map(Some)),
                    Err(e) => {
                        tracing::debug!(%node, error = %e, "a server does not say what it has");
                        states.extend(part.iter().map(|_| None));
                    }
                }
            }
            shards.into_iter().map(|s| (s, node)).zip(states).collect::<Vec<_>>()
        });
        futures::future::join_all(answers).await.into_iter().flatten().collect()
    }

    /// The chunks of a file (and of its index) with how each object is coded.
    async fn chunk_refs(&self, entry: &Entry) -> Result<(Vec<(u64, ChunkRef)>, BTreeMap<model::ObjectId, Coded>)> {
        let mut by_object = BTreeMap::new();
        let mut chunks = Vec::new();
        let mut number = 0u64;
        for object in entry.manifest.iter().flat_map(|m| &m.objects) {
            let layouts = self.cluster().layouts(object.policy.width()).await?;
            by_object.insert(object.object, Coded { policy: object.policy, generation: object.generation, layouts });
            for n in object.chunks.iter().flat_map(|(from, to)| *from..*to) {
                chunks.push((number, ChunkRef { object: object.object, number: n }));
                number += 1;
            }
        }
        Ok((chunks, by_object))
    }

    /// Checks a file or, with `recursive`, everything below a folder: every chunk is there at full
    /// redundancy and opens; with `deep` also every shard is read by its server.
    pub async fn verify(&self, path: &RemotePath, recursive: bool, deep: bool, progress: Arc<dyn Progress>) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let mut stack = vec![self.stat(path).await?];
        let view = self.cluster().view(true).await?;
        let mut first = true;
        while let Some(entry) = stack.pop() {
            match entry.kind {
                EntryKind::Folder if first || recursive => {
                    let mut children = self.list_entries(&entry, true).await?;
                    let files = || children.iter().filter(|e| e.kind == EntryKind::File);
                    progress.total(files().count() as u64, files().map(|e| e.size).sum());
                    children.reverse();
                    stack.extend(children);
                }
                EntryKind::File => {
                    if first {
                        progress.total(1, entry.size);
                    }
                    self.verify_file(&entry, deep, &view, &mut report, &*progress).await?;
                    progress.file(&entry.path.to_string());
                }
                _ => {}
            }
            first = false;
        }
        Ok(report)
    }

    async fn verify_file(
        &self,
        entry: &Entry,
        deep: bool,
        view: &ClusterView,
        report: &mut VerifyReport,
        progress: &dyn Progress,
    ) -> Result<()> {
        report.files += 1;
        let path = entry.path.to_string();
        let places = self.places(entry, deep).await?;
        let name = |node: NodeId| view.nodes.iter().find(|n| n.id == node).map_or_else(|| format!("node-{node}"), |n| n.name.clone());
        for chunk in &places {
            report.chunks += 1;
            let present = chunk.present();
            let bad: Vec<_> = chunk.shards.iter().filter(|s| s.state != ShardPlaceState::Ok).collect();
            report.corrupt += bad.iter().filter(|s| s.state == ShardPlaceState::Corrupt).count() as u64;
            report.unreachable += bad.iter().filter(|s| s.state == ShardPlaceState::Unreachable).count() as u64;
            if present < chunk.k as usize {
                report.lost += 1;
            } else if bad.is_empty() {
                report.ok += 1;
            } else {
                report.degraded += 1;
            }
            for shard in bad {
                let node = shard.node.map_or_else(|| "no server (vacant slot)".into(), name);
                let what =
                    format!("chunk {}: shard {} on {node} is {}", chunk.number, shard.index, format!("{:?}", shard.state).to_lowercase());
                report.problems.push((path.clone(), what));
            }
        }
        // Opening it all is what proves that it is the user's own bytes.
        let reader = match self.open_file(entry).await {
            Ok(reader) => reader,
            Err(e) => {
                if e.kind == Kind::Corrupt {
                    report.corrupt += 1;
                } else {
                    report.unreadable += 1;
                }
                report.problems.push((path, e.message));
                return Ok(());
            }
        };
        let cut = reader.cut();
        for index in 0..cut.chunks().max(1) {
            match reader.read(cut.chunk(index)).await {
                Ok(bytes) => progress.bytes(bytes.len() as u64),
                Err(e) => {
                    if e.kind == Kind::Corrupt {
                        report.corrupt += 1;
                    } else {
                        report.unreadable += 1;
                    }
                    report.problems.push((path.clone(), format!("chunk {index}: {}", e.message)));
                }
            }
        }
        Ok(())
    }
}

/// How an object is coded, and where its shards may lie.
struct Coded {
    policy: Policy,
    generation: u16,
    layouts: Arc<Layouts>,
}

impl Coded {
    /// All shards of a chunk.
    fn shards(&self, chunk: ChunkRef) -> impl Iterator<Item = ShardRef> + use<> {
        let generation = self.generation;
        (0..self.policy.width()).map(move |index| ShardRef { chunk, generation, index })
    }
}

/// What servers said of shards; `None`: nothing.
type States = BTreeMap<(ShardRef, NodeId), Option<ShardState>>;

fn is_held(states: &States, shard: &ShardRef, node: NodeId) -> bool {
    matches!(states.get(&(*shard, node)), Some(Some(ShardState::Held(..))))
}

/// What the answers say of one chunk. The descriptor that most shards carry is taken for the right
/// one; opening the chunk tells for certain.
fn one_chunk(number: u64, chunk: &ChunkRef, coded: &Coded, states: &States) -> ChunkPlaces {
    let all = || coded.shards(*chunk);
    let first = (ShardRef { chunk: *chunk, generation: 0, index: 0 }, NodeId(0));
    let last = (ShardRef { chunk: *chunk, generation: u16::MAX, index: u8::MAX }, NodeId(u64::MAX));
    let mut votes: BTreeMap<DescriptorId, usize> = BTreeMap::new();
    for state in states.range(first..=last).map(|(_, s)| s) {
        if let Some(ShardState::Held(id, _)) = state {
            *votes.entry(*id).or_default() += 1;
        }
    }
    let right = votes.into_iter().max_by_key(|(_, n)| *n).map(|(id, _)| id);
    let elsewhere = |shard: ShardRef| {
        let answers = states.range((shard, NodeId(0))..=(shard, NodeId(u64::MAX)));
        answers.into_iter().any(|(_, s)| matches!(s, Some(ShardState::Held(id, _)) if Some(*id) == right))
    };
    let judge = |shard: ShardRef, node: NodeId, device: DeviceId| match states.get(&(shard, node)) {
        Some(Some(ShardState::Held(id, on))) if Some(*id) == right && *on == device => ShardPlaceState::Ok,
        _ if elsewhere(shard) => ShardPlaceState::Misplaced,
        None | Some(None) => ShardPlaceState::Unreachable,
        Some(Some(ShardState::Missing)) => ShardPlaceState::Missing,
        Some(Some(ShardState::Corrupt(_) | ShardState::Held(..))) => ShardPlaceState::Corrupt,
    };
    let place = |shard: ShardRef| match coded.layouts.current.holder(chunk, shard.index) {
        Some(d) => ShardPlace { index: shard.index, node: Some(d.node), state: judge(shard, d.node, d.device) },
        None if elsewhere(shard) => ShardPlace { index: shard.index, node: None, state: ShardPlaceState::Misplaced },
        None => ShardPlace { index: shard.index, node: None, state: ShardPlaceState::Missing },
    };
    let power = coded.layouts.current.power;
    ChunkPlaces { number, partition: chunk.partition(power), k: coded.policy.k, shards: all().map(place).collect() }
}
