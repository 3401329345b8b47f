//! One chunk from the servers: exactly k shards from the k best of them, one more where one is
//! late, others where one is bad.
//!
//! A manifest row says how its objects were coded when it was asked for. They may have been coded anew
//! since, and the earlier shards be gone: where shards are missing, the catalog is asked again once, and
//! reading goes on with those that there are now.
//!
//! While a layout changes a shard may still lie at an earlier place: it is looked for there when it is
//! not at its rightful one, and below k also on the devices that stand in for others.

use crate::session::Client;
use bytes::Bytes;
use erasure::{Coder, DecodeError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use model::layout::{DeviceInfo, Layouts};
use model::tree::{ManifestRow, ObjectUse};
use model::{ChunkRef, Descriptor, Error, Kind, ManifestId, ObjectId, Result, ShardRef, SpaceId};
use seal::content::{ChunkOpener, ChunkRecord, Manifest, open_chunk, open_index};
use seal::keys::ContentKey;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A file's chunks and how to get them.
pub(crate) struct Content {
    pub manifest: Manifest,
    space: SpaceId,
    id: ManifestId,
    /// How each object is coded, as far as known, and its generation.
    objects: Mutex<Objects>,
}

type Objects = BTreeMap<ObjectId, (Coder, u16)>;

/// A shard on its way: its index and what came.
type Arriving<'a> = BoxFuture<'a, (Candidate, Result<(Bytes, Bytes)>)>;

/// Where one chunk's shards lie.
struct Chunk<'a> {
    client: &'a Client,
    chunk: ChunkRef,
    generation: u16,
    coder: Coder,
    layouts: Arc<Layouts>,
    /// Shards that were nowhere, with what a node said.
    missing: Mutex<Vec<(u8, String)>>,
}

/// A shard and the places where it may be, best first.
type Candidate = (u8, VecDeque<DeviceInfo>);

impl Content {
    /// What a file's manifest names.
    pub fn open(manifest: Manifest, space: SpaceId, row: &ManifestRow) -> Result<Self> {
        Ok(Content { manifest, space, id: row.id, objects: Mutex::new(coded(row)?) })
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn chunk<'a>(&self, client: &'a Client, record: &ChunkRecord) -> Result<(Chunk<'a>, ContentKey)> {
        let (object, key) = self.manifest.object(record)?;
        let coded = self.objects().get(&object).cloned();
        let (coder, generation) = coded.ok_or_else(|| Error::corrupt("the catalog does not say how an object is coded"))?;
        let layouts = client.cluster().layouts(coder.policy().width()).await?;
        let chunk = ChunkRef { object, number: record.number };
        Ok((Chunk { client, chunk, generation, coder, layouts, missing: Mutex::default() }, key.share()))
    }

    /// Asks the catalog how the objects are coded now. Whether an object is coded otherwise than a chunk
    /// of it was read.
    async fn is_recoded(&self, chunk: &Chunk<'_>) -> bool {
        let fresh = chunk.client.manifest(self.space, self.id).await.and_then(|row| coded(&row));
        // Without an answer, or when the file is gone, what was known stays.
        if let Ok(fresh) = fresh {
            *self.objects() = fresh;
        }
        let now = self.objects().get(&chunk.chunk.object).map(|(coder, generation)| (coder.policy(), *generation));
        now.is_some_and(|now| now != (chunk.coder.policy(), chunk.generation))
    }

    /// The sealed chunk of a record.
    async fn sealed(&self, client: &Client, record: &ChunkRecord) -> Result<(Vec<u8>, ObjectId, ContentKey)> {
        let (mut chunk, key) = self.chunk(client, record).await?;
        let mut fetched = chunk.fetch(record).await;
        let missing = std::mem::take(&mut *chunk.missing());
        if (fetched.is_err() || !missing.is_empty()) && self.is_recoded(&chunk).await {
            if fetched.is_err() {
                (chunk, _) = self.chunk(client, record).await?;
                fetched = chunk.fetch(record).await;
            }
        } else {
            for (index, detail) in missing {
                chunk.report(index, &detail).await;
            }
        }
        let sealed = match fetched {
            Err(e) if chunk.look_again().await => {
                chunk.fetch(record).await.map_err(|again| if again.kind == Kind::Unavailable { again } else { e })?
            }
            fetched => fetched?,
        };
        Ok((sealed, chunk.chunk.object, key))
    }

    /// All `len` plaintext bytes of a chunk, verified.
    pub async fn plain(&self, client: &Client, record: &ChunkRecord, len: usize) -> Result<Vec<u8>> {
        let (sealed, object, key) = self.sealed(client, record).await?;
        let record = record.clone();
        client
            .env()
            .blocking(move || {
                let mut plain = Vec::with_capacity(sealed.len());
                open_chunk(&mut plain, &key, object, &record, len, &sealed)?;
                Ok(plain)
            })
            .await
    }

    /// A range of a chunk's `len` plaintext bytes: only the cells that it lies in are read.
    pub async fn range(&self, client: &Client, record: &ChunkRecord, len: usize, range: Range<u64>) -> Result<Vec<u8>> {
        if (range.end - range.start) * 2 > len as u64 {
            let plain = self.plain(client, record, len).await?;
            return Ok(plain.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec());
        }
        let (chunk, key) = self.chunk(client, record).await?;
        let opener = ChunkOpener::new(&key, chunk.chunk.object, record, len)?;
        let span = opener.span(range.clone())?;
        let cells = chunk.fetch_range(record.sealed_len as usize, span.sealed.start as usize..span.sealed.end as usize).await;
        match cells.and_then(|cells| opener.open(&span, &cells)) {
            Ok(plain) => Ok(plain),
            // Some shard lies, and the whole chunk with its hashes finds out which; or too few are where
            // they are looked for, and there it is looked for anew.
            Err(_) => {
                let plain = self.plain(client, record, len).await?;
                Ok(plain.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec())
            }
        }
    }

    /// The records of level 0 that cover chunks `range` of the file. Fetches only the index chunks
    /// that it needs.
    pub async fn records(&self, client: &Client, range: Range<u64>) -> Result<Vec<ChunkRecord>> {
        let fanout = seal::content::INDEX_FANOUT as u64;
        let mut records = self.manifest.records.clone();
        let mut first = 0u64;
        for level in (1..=self.manifest.level).rev() {
            let unit = fanout.pow(u32::from(level));
            let (from, to) = (range.start / unit, range.end.div_ceil(unit));
            let mut below = Vec::new();
            for (index, record) in (first..).zip(&records).filter(|(i, _)| (from..to).contains(i)) {
                let (sealed, _, _) = self.sealed(client, record).await?;
                below.extend(open_index(&self.manifest, level, index, record, &sealed)?);
            }
            records = below;
            first = from * fanout;
        }
        let skip = range.start.saturating_sub(first) as usize;
        Ok(records.into_iter().skip(skip).take((range.end - range.start) as usize).collect())
    }
}

/// How the objects of a manifest are coded.
fn coded(row: &ManifestRow) -> Result<Objects> {
    let coded = |o: &ObjectUse| Ok((o.object, (Coder::new(o.policy)?, o.generation)));
    row.objects.iter().map(coded).collect()
}

impl<'a> Chunk<'a> {
    fn missing(&self) -> MutexGuard<'_, Vec<(u8, String)>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All shards with their places, best first: data shards need no decoding and win ties; a node
    /// that just failed comes last.
    fn candidates(&self) -> VecDeque<Candidate> {
        let k = self.coder.policy().k;
        let paces = &self.client.cluster().paces;
        let cost = |c: &Candidate| {
            let parity = c.0 >= k;
            let node = c.1.front().map_or(f64::MAX, |d| paces.cost(d.node));
            node * if parity { 1.3 } else { 1.0 } + if parity { 0.0005 } else { 0.0 }
        };
        let mut all: Vec<Candidate> = Vec::new();
        for index in 0..self.coder.policy().width() {
            let mut places: VecDeque<DeviceInfo> = self.layouts.holders(&self.chunk, index).into_iter().cloned().collect();
            places.make_contiguous().sort_by_key(|d| paces.resting(d.node));
            if !places.is_empty() {
                all.push((index, places));
            }
        }
        all.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.0.cmp(&b.0)));
        all.into()
    }

    /// Shards that have not been had, on the devices that stand in for others.
    fn on_stand_ins(&self, have: &BTreeMap<u8, (Descriptor, Bytes)>) -> VecDeque<Candidate> {
        let layouts = std::iter::once(&self.layouts.current).chain(&self.layouts.earlier);
        let places: VecDeque<DeviceInfo> = layouts.flat_map(|l| l.stand_ins(self.chunk.partition(l.power))).cloned().collect();
        let wanted = (0..self.coder.policy().width()).filter(|i| !have.contains_key(i) && !places.is_empty());
        wanted.map(|index| (index, places.clone())).collect()
    }

    /// Asks for the layouts anew. Whether they are others than those known.
    async fn look_again(&mut self) -> bool {
        self.client.cluster().outdated();
        match self.client.cluster().layouts(self.coder.policy().width()).await {
            Ok(fresh) if fresh != self.layouts => {
                self.layouts = fresh;
                true
            }
            _ => false,
        }
    }

    fn shard(&self, index: u8) -> ShardRef {
        ShardRef { chunk: self.chunk, generation: self.generation, index }
    }

    /// Asks the first place of a candidate.
    fn get(&self, mut candidate: Candidate, range: Option<(u64, u64)>) -> Arriving<'a> {
        let (client, shard) = (self.client, self.shard(candidate.0));
        Box::pin(async move {
            let Some(place) = candidate.1.pop_front() else { return (candidate, Err(Error::not_found("no device holds this shard"))) };
            let got = client.cluster().get_shard(place.node, shard, place.device, range).await;
            (candidate, got)
        })
    }

    /// How long to wait for the first place of a candidate before another is asked.
    fn patience(&self, candidate: &Candidate) -> Duration {
        candidate.1.front().map_or(Duration::ZERO, |d| self.client.cluster().paces.late_read(d.node))
    }

    /// The sealed chunk: decoded from the first k shards that fit together and give its hash.
    async fn fetch(&self, record: &ChunkRecord) -> Result<Vec<u8>> {
        let k = self.coder.policy().k as usize;
        let mut rest = self.candidates();
        let mut under_way: FuturesUnordered<Arriving<'a>> = FuturesUnordered::new();
        let mut late = Duration::ZERO;
        for candidate in rest.drain(..k.min(rest.len())) {
            late = late.max(self.patience(&candidate));
            under_way.push(self.get(candidate, None));
        }
        let mut have: BTreeMap<u8, (Descriptor, Bytes)> = BTreeMap::new();
        let mut failed: Vec<Error> = Vec::new();
        let mut asked_stand_ins = false;
        loop {
            if under_way.is_empty() && rest.is_empty() && !std::mem::replace(&mut asked_stand_ins, true) {
                rest = self.on_stand_ins(&have);
                let next = rest.len().min(k);
                under_way.extend(rest.drain(..next).map(|c| self.get(c, None)));
            }
            let hedge = self.client.env().sleep(late);
            let arrived = tokio::select! {
                biased;
                Some(arrived) = under_way.next() => Some(arrived),
                () = hedge, if !under_way.is_empty() => None,
                else => return Err(self.too_few(have.len(), failed)),
            };
            let mut more = false;
            match arrived {
                None => {
                    more = true;
                    late *= 2;
                }
                Some((candidate, Err(e))) => {
                    let (index, others) = (candidate.0, !candidate.1.is_empty());
                    if e.kind == Kind::Corrupt {
                        self.report(index, &e.message).await;
                    }
                    if e.kind == Kind::NotFound && !others && !asked_stand_ins && self.layouts.earlier.is_empty() {
                        self.missing().push((index, e.message.clone()));
                    }
                    if e.kind != Kind::NotFound || !asked_stand_ins {
                        failed.push(e);
                    }
                    if others {
                        rest.push_front(candidate);
                    }
                    more = true;
                }
                Some(((index, _), Ok((descriptor, body)))) => match self.fits(record, &descriptor, index, &body) {
                    Ok(descriptor) => {
                        have.insert(index, (descriptor, body));
                    }
                    Err(e) => {
                        self.report(index, &e.message).await;
                        failed.push(self.named(index, e));
                        more = true;
                    }
                },
            }
            if more && let Some(candidate) = rest.pop_front() {
                under_way.push(self.get(candidate, None));
            }
            if have.len() >= k {
                match self.decode(&have, record).await {
                    Ok(sealed) => return Ok(sealed),
                    Err((bad, e)) => {
                        for index in bad {
                            have.remove(&index);
                            self.report(index, "a shard's bytes are not what its descriptor says").await;
                            if let Some(candidate) = rest.pop_front() {
                                under_way.push(self.get(candidate, None));
                            }
                        }
                        failed.push(e);
                    }
                }
            }
        }
    }

    /// An error with the node on which it happened.
    fn named(&self, index: u8, e: Error) -> Error {
        match self.layouts.current.holder(&self.chunk, index) {
            Some(device) => e.on(device.node),
            None => e,
        }
    }

    /// What can be checked of one shard alone: its descriptor is of this very chunk.
    fn fits(&self, record: &ChunkRecord, descriptor: &[u8], index: u8, body: &Bytes) -> Result<Descriptor> {
        let bad = || Error::corrupt("a shard's descriptor is not of the chunk that the manifest names");
        let d = Descriptor::from_bytes(descriptor).map_err(|_| bad())?;
        let same = d.chunk == self.chunk
            && d.policy == self.coder.policy()
            && d.sealed_hash == record.hash
            && d.sealed_len == record.sealed_len
            && index < d.policy.width()
            && body.len() == d.shard_len();
        if same { Ok(d) } else { Err(bad()) }
    }

    /// Decodes from k of the shards at hand. On failure: which of them to leave out.
    async fn decode(&self, have: &BTreeMap<u8, (Descriptor, Bytes)>, record: &ChunkRecord) -> Result<Vec<u8>, (Vec<u8>, Error)> {
        let k = self.coder.policy().k as usize;
        // Take k that carry the same descriptor, preferring data shards.
        let mut by_id: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for (index, (d, _)) in have {
            by_id.entry(d.id()).or_default().push(*index);
        }
        let Some(group) = by_id.values().find(|g| g.len() >= k) else {
            return Err((Vec::new(), Error::corrupt("shards of one chunk carry different descriptors")));
        };
        let mut shards: Vec<Option<Bytes>> = vec![None; self.coder.policy().width() as usize];
        let mut descriptor = None;
        for index in group.iter().take(k) {
            if let (Some((d, body)), Some(slot)) = (have.get(index), shards.get_mut(*index as usize)) {
                *slot = Some(body.clone());
                descriptor = Some(d.clone());
            }
        }
        let Some(descriptor) = descriptor else { return Err((Vec::new(), Error::corrupt("no shard is at hand"))) };
        let (coder, expected) = (self.coder.clone(), record.hash);
        debug_assert_eq!(descriptor.sealed_hash, expected);
        let decoded = self.client.env().blocking(move || coder.decode(&descriptor, &shards)).await;
        decoded.map_err(|e| match e {
            DecodeError::BadShards(ref bad) => (bad.clone(), e.into()),
            // All k agree with a descriptor that contradicts itself: its whole group is worthless.
            other => (group.clone(), other.into()),
        })
    }

    /// Some bytes of the sealed chunk, unverified: the caller's cell tags verify them.
    async fn fetch_range(&self, sealed_len: usize, range: Range<usize>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(range.len());
        for (index, part) in self.coder.pieces(sealed_len, range) {
            let span = Some((part.start as u64, part.len() as u64));
            let places = self.layouts.holders(&self.chunk, index).into_iter().cloned();
            let places = places.filter(|d| !self.client.cluster().paces.resting(d.node)).collect();
            match self.get_anywhere((index, places), span).await {
                Ok(bytes) if bytes.len() == part.len() => out.extend_from_slice(&bytes),
                _ => out.extend(self.decode_range(index, part).await?),
            }
        }
        Ok(out)
    }

    /// Asks the places of a shard one after another.
    async fn get_anywhere(&self, mut candidate: Candidate, span: Option<(u64, u64)>) -> Result<Bytes> {
        loop {
            let (rest, got) = self.get(candidate, span).await;
            match got {
                Ok((_, bytes)) => return Ok(bytes),
                Err(e) if rest.1.is_empty() => return Err(e),
                Err(_) => candidate = rest,
            }
        }
    }

    /// The same range of k other shards gives that of a missing one.
    async fn decode_range(&self, missing: u8, part: Range<usize>) -> Result<Vec<u8>> {
        let k = self.coder.policy().k as usize;
        let span = Some((part.start as u64, part.len() as u64));
        let mut rest = self.candidates().into_iter().filter(|(i, _)| *i != missing);
        let ask = |candidate: Candidate| async move { (candidate.0, self.get_anywhere(candidate, span).await) };
        let mut under_way: FuturesUnordered<_> = rest.by_ref().take(k).map(ask).collect();
        let (mut have, mut failed) = (Vec::new(), Vec::new());
        while let Some((index, arrived)) = under_way.next().await {
            match arrived {
                Ok(bytes) if bytes.len() == part.len() => have.push((index, bytes)),
                other => {
                    failed.extend(other.err());
                    if let Some(candidate) = rest.next() {
                        under_way.push(ask(candidate));
                    }
                }
            }
        }
        if have.len() < k {
            return Err(self.too_few(have.len(), failed));
        }
        Ok(self.coder.decode_range(missing, &have)?)
    }

    async fn report(&self, index: u8, detail: &str) {
        if let Some(device) = self.layouts.current.holder(&self.chunk, index) {
            self.client.report_shard(device.node, self.shard(index), detail).await;
        }
    }

    fn too_few(&self, have: usize, failed: Vec<Error>) -> Error {
        let k = self.coder.policy().k;
        let mut nodes: Vec<String> = failed.iter().filter_map(|e| Some(format!("node-{} ({})", e.node?, e.message))).collect();
        nodes.sort();
        nodes.dedup();
        let corrupt = failed.iter().all(|e| e.kind == Kind::Corrupt) && !failed.is_empty();
        let kind = if corrupt { Kind::Corrupt } else { Kind::Unavailable };
        let message = format!("too few servers: {have} of the {k} shards needed could be read; missing: {}", nodes.join(", "));
        let mut error = Error::new(kind, message).hint("start these servers again, then retry; shardkeep cluster status shows them");
        error.node = failed.iter().find_map(|e| e.node);
        error
    }
}
