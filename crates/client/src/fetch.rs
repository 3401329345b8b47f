//! One chunk from the servers: exactly k shards from the k best of them, one more where one is
//! late, others where one is bad.

use crate::session::Client;
use bytes::Bytes;
use erasure::{Coder, DecodeError};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use model::layout::DeviceInfo;
use model::tree::{ManifestRow, ObjectUse};
use model::{ChunkRef, Descriptor, Error, Kind, Layout, ObjectId, Result, ShardRef};
use seal::content::{ChunkOpener, ChunkRecord, Manifest, open_chunk, open_index};
use seal::keys::ContentKey;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A file's chunks and how to get them.
pub(crate) struct Content {
    pub manifest: Manifest,
    objects: BTreeMap<ObjectId, (Coder, Arc<Layout>)>,
}

/// A shard on its way: its index and what came.
type Arriving<'a> = BoxFuture<'a, (u8, Result<(Bytes, Bytes)>)>;

/// Where one chunk's shards lie.
struct Chunk<'a> {
    client: &'a Client,
    chunk: ChunkRef,
    coder: &'a Coder,
    layout: &'a Layout,
}

impl Content {
    /// What a file's manifest names.
    pub async fn open(client: &Client, manifest: Manifest, row: &ManifestRow) -> Result<Self> {
        let mut objects = BTreeMap::new();
        for ObjectUse { object, policy, .. } in &row.objects {
            let layout = client.cluster().layout(policy.width()).await?;
            objects.insert(*object, (Coder::new(*policy)?, layout));
        }
        Ok(Content { manifest, objects })
    }

    fn chunk<'a>(&'a self, client: &'a Client, record: &ChunkRecord) -> Result<(Chunk<'a>, ContentKey)> {
        let (object, key) = self.manifest.object(record)?;
        let (coder, layout) = self.objects.get(&object).ok_or_else(|| Error::corrupt("the catalog does not say how an object is coded"))?;
        Ok((Chunk { client, chunk: ChunkRef { object, number: record.number }, coder, layout }, key.share()))
    }

    /// The sealed chunk of a record.
    async fn sealed(&self, client: &Client, record: &ChunkRecord) -> Result<(Vec<u8>, ObjectId, ContentKey)> {
        let (chunk, key) = self.chunk(client, record)?;
        let sealed = chunk.fetch(record).await?;
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
        let (chunk, key) = self.chunk(client, record)?;
        let opener = ChunkOpener::new(&key, chunk.chunk.object, record, len)?;
        let span = opener.span(range.clone())?;
        let cells = chunk.fetch_range(record.sealed_len as usize, span.sealed.start as usize..span.sealed.end as usize).await?;
        match opener.open(&span, &cells) {
            Ok(plain) => Ok(plain),
            // Some shard lies: the whole chunk with its hashes finds out which.
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

impl<'a> Chunk<'a> {
    /// All shards that have a holder, best first: data shards need no decoding and win ties; a node
    /// that just failed comes last.
    fn candidates(&self) -> Vec<(u8, &'a DeviceInfo)> {
        let k = self.coder.policy().k;
        let cost = |index: u8, d: &DeviceInfo| {
            self.client.cluster().paces.cost(d.node) * if index < k { 1.0 } else { 1.3 } + if index < k { 0.0 } else { 0.0005 }
        };
        let mut all: Vec<_> = (0..self.coder.policy().width()).filter_map(|i| Some((i, self.layout.holder(&self.chunk, i)?))).collect();
        all.sort_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1)).then(a.0.cmp(&b.0)));
        all
    }

    fn shard(&self, index: u8) -> ShardRef {
        ShardRef { chunk: self.chunk, generation: 0, index }
    }

    fn get(&self, index: u8, device: &'a DeviceInfo, range: Option<(u64, u64)>) -> Arriving<'a> {
        let (client, shard) = (self.client, self.shard(index));
        Box::pin(async move { (index, client.cluster().get_shard(device.node, shard, device.device, range).await) })
    }

    /// The sealed chunk: decoded from the first k shards that fit together and give its hash.
    async fn fetch(&self, record: &ChunkRecord) -> Result<Vec<u8>> {
        let k = self.coder.policy().k as usize;
        let mut rest = self.candidates().into_iter();
        let mut under_way: FuturesUnordered<Arriving<'a>> = FuturesUnordered::new();
        let mut late = Duration::ZERO;
        for (index, device) in rest.by_ref().take(k) {
            late = late.max(self.client.cluster().paces.late_read(device.node));
            under_way.push(self.get(index, device, None));
        }
        let mut have: BTreeMap<u8, (Descriptor, Bytes)> = BTreeMap::new();
        let mut failed: Vec<Error> = Vec::new();
        loop {
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
                Some((index, Err(e))) => {
                    if matches!(e.kind, Kind::NotFound | Kind::Corrupt) {
                        self.report(index, &e.message).await;
                    }
                    failed.push(e);
                    more = true;
                }
                Some((index, Ok((descriptor, body)))) => match self.fits(record, &descriptor, index, &body) {
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
            if more && let Some((index, device)) = rest.next() {
                under_way.push(self.get(index, device, None));
            }
            if have.len() >= k {
                match self.decode(&have, record).await {
                    Ok(sealed) => return Ok(sealed),
                    Err((bad, e)) => {
                        for index in bad {
                            have.remove(&index);
                            self.report(index, "a shard's bytes are not what its descriptor says").await;
                            if let Some((index, device)) = rest.next() {
                                under_way.push(self.get(index, device, None));
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
        match self.layout.holder(&self.chunk, index) {
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
            let direct = match self.layout.holder(&self.chunk, index) {
                Some(device) if !self.client.cluster().paces.resting(device.node) => self.get(index, device, span).await.1,
                _ => Err(Error::unavailable("no holder")),
            };
            match direct {
                Ok((_, bytes)) if bytes.len() == part.len() => out.extend_from_slice(&bytes),
                _ => out.extend(self.decode_range(index, part).await?),
            }
        }
        Ok(out)
    }

    /// The same range of k other shards gives that of a missing one.
    async fn decode_range(&self, missing: u8, part: Range<usize>) -> Result<Vec<u8>> {
        let k = self.coder.policy().k as usize;
        let span = Some((part.start as u64, part.len() as u64));
        let mut rest = self.candidates().into_iter().filter(|(i, _)| *i != missing);
        let mut under_way: FuturesUnordered<_> = rest.by_ref().take(k).map(|(i, d)| self.get(i, d, span)).collect();
        let (mut have, mut failed) = (Vec::new(), Vec::new());
        while let Some((index, arrived)) = under_way.next().await {
            match arrived {
                Ok((_, bytes)) if bytes.len() == part.len() => have.push((index, bytes)),
                other => {
                    failed.extend(other.err());
                    if let Some((i, d)) = rest.next() {
                        under_way.push(self.get(i, d, span));
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
        if let Some(device) = self.layout.holder(&self.chunk, index) {
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
