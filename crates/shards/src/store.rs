//! The store itself: put, get, check, drop.

use crate::index::{Change, Index};
use crate::{identity, record};
use bytes::Bytes;
use env::Env;
use journal::{Journal, OpenReport, Position, Record};
use model::{Descriptor, DescriptorId, DeviceId, Error, Kind, ObjectId, Policy, Result, ShardRef};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Segments of large disks, in bytes.
const SEGMENT: u64 = 256 << 20;
/// Segments of the smallest disks, in bytes.
const SEGMENT_MIN: u64 = 1 << 20;
/// Free space that is always left for compaction, beside two segments: at most this.
const RESERVE_MAX: u64 = 1 << 30;
/// Between two attempts to read what the disk does not give.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Attempts to read a record that compaction moves meanwhile.
const ATTEMPTS: usize = 3;

/// How full a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that the device may hold.
    pub capacity: u64,
    /// Bytes of all segments: live shards, and dead ones not yet compacted away.
    pub used: u64,
    /// Shards.
    pub shards: u64,
    /// Why it takes no new shards or is not sound, where that is so.
    pub problem: Option<String>,
}

pub(crate) struct State {
    /// Shards that are being put or ended.
    busy: BTreeMap<ShardRef, Busy>,
    /// What failed last when writing; cleared by the next success.
    problem: Option<String>,
    /// Segments that compaction found damage in, and leaves alone until the bad shards are gone.
    pub avoid: BTreeMap<u64, u64>,
}

pub(crate) struct Inner {
    pub env: Env,
    pub journal: Journal,
    pub device: DeviceId,
    dir: PathBuf,
    capacity: Option<u64>,
    segment_size: u64,
    report: OpenReport,
    pub index: Arc<Index>,
    state: Mutex<State>,
    /// Held while records that end or move shards are appended: their order is their meaning.
    pub maintenance: tokio::sync::Mutex<()>,
    /// Read by each put from before its record is in the log until the index knows.
    pub puts: tokio::sync::RwLock<()>,
}

impl Inner {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of the log in the terms of a caller.
    pub fn error(&self, e: journal::Error) -> Error {
        let device = self.device;
        match e {
            journal::Error::Full { .. } => Error::insufficient(format!("device {device} is full")),
            journal::Error::Corrupt { segment, offset } => {
                Error::corrupt(format!("device {device} is damaged in segment {segment:016x} at byte {offset}"))
            }
            journal::Error::Closed => Error::unavailable(format!("device {device} is closed")),
            e @ (journal::Error::Io { .. } | journal::Error::Foreign { .. }) => Error::unavailable(format!("device {device}: {e}")),
        }
    }

    fn used(&self) -> u64 {
        self.journal.extent().bytes
    }

    /// Capacity and what of it is left for new shards, in bytes. Blocking.
    fn room(&self) -> Result<(u64, u64)> {
        let extent = self.journal.extent();
        let used = extent.bytes;
        let space = self.env.disk.space(&self.dir).map_err(|e| Error::unavailable(format!("device {}: {e}", self.device)))?;
        // The rest of the preallocated segment is free for us though not for the file system.
        let begun = extent.last.map_or(0, |len| self.segment_size.saturating_sub(len));
        let most = used + begun + space.free;
        let capacity = self.capacity.unwrap_or(most).min(most);
        let reserve = 2 * self.segment_size + (capacity / 100).min(RESERVE_MAX);
        let by_disk = (space.free + begun).saturating_sub(reserve);
        Ok((capacity, by_disk.min(capacity.saturating_sub(used))))
    }

    /// Asks the index.
    pub async fn look_up<T: Send + 'static>(&self, look: impl FnOnce(&Index) -> Result<T> + Send + 'static) -> Result<T> {
        let index = self.index.clone();
        self.env.blocking(move || look(&index)).await
    }

    /// Tells the index what happened in the log. Once it has failed what it says cannot be trusted any more, and
    /// nothing is written until the next opening.
    pub async fn take_in(&self, changes: Vec<Change>) -> Result<()> {
        if self.index.tell(changes) {
            self.look_up(Index::flush).await?;
        }
        self.index.check()
    }

    pub async fn position(&self, shard: &ShardRef) -> Result<Option<Position>> {
        let shard = *shard;
        self.look_up(move |index| index.get(&shard)).await
    }

    async fn place(&self, shard: &ShardRef) -> Result<Position> {
        let here = self.position(shard).await?;
        here.ok_or_else(|| Error::not_found(format!("device {} does not hold this shard", self.device)))
    }

    /// Reads by a shard's place.
    pub async fn read<T, F: Future<Output = Result<T, journal::Error>>>(
        &self,
        shard: &ShardRef,
        read: impl Fn(Position) -> F,
    ) -> Result<T> {
        self.try_read(shard, read).await?.map_err(|e| self.error(e))
    }

    /// Reads by a shard's place; again when compaction has moved it meanwhile. The inner error is the log's.
    async fn try_read<T, F: Future<Output = Result<T, journal::Error>>>(
        &self,
        shard: &ShardRef,
        read: impl Fn(Position) -> F,
    ) -> Result<Result<T, journal::Error>> {
        let mut at = self.place(shard).await?;
        for _ in 1..ATTEMPTS {
            match read(at).await {
                Ok(read) => return Ok(Ok(read)),
                Err(e) => {
                    let now = self.place(shard).await?;
                    if now == at {
                        return Ok(Err(e));
                    }
                    at = now;
                }
            }
        }
        Ok(read(at).await)
    }

    fn descriptor(&self, shard: &ShardRef, meta: &[u8]) -> Result<Descriptor> {
        let corrupt = || Error::corrupt(format!("device {} holds another record in the place of this shard", self.device));
        let (key, descriptor) = record::read_shard_meta(meta).ok_or_else(corrupt)?;
        let descriptor = Descriptor::from_bytes(descriptor).map_err(|_| corrupt())?;
        if key == *shard && belongs(shard, &descriptor) { Ok(descriptor) } else { Err(corrupt()) }
    }

    fn same(&self, held: DescriptorId, wanted: DescriptorId) -> Result<()> {
        if held == wanted {
            return Ok(());
        }
        Err(Error::conflict(format!("device {} holds another version of this shard", self.device)))
    }

    /// Ends shards with a record of this kind; durable on return. Only those in the index are named, and those
    /// are left out that are being put again at this moment.
    async fn end(self: &Arc<Self>, kind: u8, shards: Vec<ShardRef>) -> Result<()> {
        self.index.check()?;
        for some in shards.chunks(record::KEYS_MAX) {
            let turns: Vec<Turn> = some.iter().filter_map(|shard| Turn::to_end(self, *shard)).collect();
            let some: Vec<ShardRef> = turns.iter().filter_map(|turn| turn.shard).collect();
            if some.is_empty() {
                continue;
            }
            let stone = Record { kind, meta: record::keys_meta(&some), body: Bytes::new() };
            let positions = self.journal.append(vec![stone]).await.map_err(|e| self.error(e))?;
            let ended = some.into_iter().map(Change::Remove);
            self.take_in(positions.into_iter().map(Change::Stone).chain(ended).collect()).await?;
        }
        Ok(())
    }
}

/// Whether a descriptor is that of a shard's chunk.
fn belongs(shard: &ShardRef, descriptor: &Descriptor) -> bool {
    descriptor.chunk == shard.chunk && descriptor.generation == shard.generation && shard.index < descriptor.policy.width()
}

/// The shard store of one device. Cheap to clone.
#[derive(Clone)]
pub struct ShardStore(pub(crate) Arc<Inner>);

impl ShardStore {
    /// Opens the store in a folder, or makes one. `capacity`: most bytes to use; `None`: the whole disk.
    ///
    /// `Corrupt`: the device does not know who it is. `Unavailable`: the disk does not answer, or
    /// another process has the store open.
    pub async fn open(env: Env, dir: &Path, capacity: Option<u64>) -> Result<ShardStore> {
        let log = dir.join("log");
        let (device, total) = {
            let (env, dir, log) = (env.clone(), dir.to_path_buf(), log.clone());
            env.clone()
                .blocking(move || {
                    let device = identity::load_or_create(&env, &dir, &log)?;
                    let space = env.disk.space(&dir).map_err(|e| Error::unavailable(format!("{}: {e}", dir.display())))?;
                    Ok::<_, Error>((device, space.total))
                })
                .await?
        };
        let segment_size = (capacity.unwrap_or(total).min(total) / 64).clamp(SEGMENT_MIN, SEGMENT);
        let config = journal::Config { segment_size, ..journal::Config::new(log) };
        let replay =
            Arc::new(Mutex::new(Replay { env: env.clone(), path: dir.join("index.redb"), index: None, changes: Vec::new(), failed: None }));
        let filling = replay.clone();
        let visit = move |r: journal::Replayed<'_>| {
            let replay = &mut *filling.lock().unwrap_or_else(PoisonError::into_inner);
            replay.record(&r).ok_or(journal::Error::Corrupt { segment: r.position.segment, offset: r.position.offset })
        };
        let opening = |e: journal::Error| match e {
            journal::Error::Foreign { .. } | journal::Error::Io { .. } => Error::unavailable(format!("device {device}: {e}")),
            e => Error::corrupt(format!("device {device}: {e}")),
        };
        let (journal, report) = Journal::open(env.clone(), config, visit).await.map_err(opening)?;
        let index = env.blocking(move || replay.lock().unwrap_or_else(PoisonError::into_inner).finish()).await?;
        if !report.missing.is_empty() {
            tracing::error!(%device, segments = report.missing.len(), "segments of a device's log are gone");
        }
        if !report.corrupt.is_empty() {
            tracing::error!(%device, ranges = report.corrupt.len(), "the log of a device is damaged");
        }
        let state = Mutex::new(State { busy: BTreeMap::new(), problem: None, avoid: BTreeMap::new() });
        let dir = dir.to_path_buf();
        Ok(ShardStore(Arc::new(Inner {
            env,
            journal,
            device,
            dir,
            capacity,
            segment_size,
            report,
            index: Arc::new(index),
            state,
            maintenance: Default::default(),
            puts: Default::default(),
        })))
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.0.device
    }

    /// The id of the log. Another one than before: the log was lost, and began anew.
    pub fn log(&self) -> [u8; 16] {
        self.0.journal.id()
    }

    /// Whether shards may be missing that were here once: damage was found at open, or a record at the
    /// very end was no good. That is mostly a write that was never acknowledged, but the same is seen
    /// when the last shard written has rotted.
    pub fn is_suspect(&self) -> bool {
        self.damaged_ranges() > 0 || self.cut_bytes() > 0 || self.missing_segments() > 0 || self.is_list_damaged()
    }

    /// Segments of the log that were gone as a whole when it was opened.
    pub fn missing_segments(&self) -> usize {
        self.0.report.missing.len()
    }

    /// Whether the list of the log's segments was damaged, so that any of them may be gone.
    pub fn is_list_damaged(&self) -> bool {
        self.0.report.list_damaged
    }

    /// That segments are missing is noted elsewhere now, durably: later openings need not say so again.
    pub async fn give_up_missing(&self) -> Result<()> {
        self.0.journal.give_up_missing(self.0.report.missing.clone()).await.map_err(|e| self.0.error(e))
    }

    /// Damaged ranges that were found at open.
    pub fn damaged_ranges(&self) -> usize {
        self.0.report.corrupt.len()
    }

    /// Bytes that were cut off the log's end at open, since they were no whole record.
    pub fn cut_bytes(&self) -> u64 {
        self.0.report.torn_bytes
    }

    /// Stores a shard; durable on return. Storing the same again changes nothing.
    ///
    /// `Corrupt`: the body is not what the descriptor certifies, or the descriptor is another chunk's.
    /// `Conflict`: a shard with another descriptor is here. `Insufficient`: no room on this device.
    pub async fn put(&self, shard: ShardRef, descriptor: Descriptor, body: Bytes) -> Result<()> {
        let s = &self.0;
        let (inner, checked, certified, id) = (s.clone(), descriptor.clone(), body.clone(), descriptor.id());
        let begun = s.env.blocking(move || {
            if !belongs(&shard, &checked) || checked.check().is_err() || !checked.certifies(shard.index, &certified) {
                return Err(Error::corrupt("the shard received is not the one that its descriptor certifies"));
            }
            // What is here is looked up by whoever has the turn: nobody else can put it or end it meanwhile.
            let turn = Turn::to_put(&inner, shard, id)?;
            Ok((turn, inner.room()?, inner.index.get(&shard)?))
        });
        let (_turn, (_, left), here) = begun.await?;
        if here.is_some()
            && let Some(held) = self.head(&shard).await?
        {
            return s.same(held, id);
        }
        s.index.check()?;
        if (body.len() as u64) > left {
            let full = format!("device {} has no room for new shards: the rest of its space is kept for repair", s.device);
            s.state().problem = Some(full.clone());
            return Err(Error::insufficient(full));
        }
        // Compaction waits for it before it decides what a segment holds, and what is nowhere.
        let _putting = s.puts.read().await;
        let policy = descriptor.policy;
        let record = Record { kind: record::SHARD, meta: record::shard_meta(&shard, &descriptor), body };
        match s.journal.append(vec![record]).await {
            Ok(positions) => {
                s.take_in(positions.into_iter().map(|p| Change::Put(shard, p, policy)).collect()).await?;
                s.state().problem = None;
                Ok(())
            }
            Err(e) => {
                let e = s.error(e);
                s.state().problem = Some(e.message.clone());
                Err(e)
            }
        }
    }

    /// A shard or a range of it, `(offset, length)`, with its descriptor. A whole shard is checked
    /// against its CRC; a range is not: readers check tags, and ask for the whole when they fail.
    ///
    /// `NotFound`; `Corrupt`: damaged on this disk; `Invalid`: the range is not inside the shard.
    pub async fn get(&self, shard: &ShardRef, range: Option<(u64, u64)>) -> Result<(Descriptor, Bytes)> {
        let s = &self.0;
        let Some((offset, len)) = range else {
            let (meta, body) = s.read(shard, |p| s.journal.read(p)).await?;
            return Ok((s.descriptor(shard, &meta)?, body));
        };
        let meta = s.read(shard, |p| s.journal.read_meta(p)).await?;
        let descriptor = s.descriptor(shard, &meta)?;
        let end = offset.checked_add(len).filter(|end| *end <= descriptor.shard_len() as u64);
        let Some(end) = end else { return Err(Error::invalid("the range asked for is not inside the shard")) };
        let range = offset as u32..end as u32;
        let body = s.read(shard, |p| s.journal.read_body_range(p, range.clone())).await?;
        Ok((descriptor, body))
    }

    /// The descriptor id of a shard that is here; its body is not looked at. A record whose head is
    /// damaged counts as not here: [`ShardStore::verify`] tells.
    pub async fn head(&self, shard: &ShardRef) -> Result<Option<DescriptorId>> {
        let s = &self.0;
        let meta = match s.read(shard, |p| s.journal.read_meta(p)).await {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Corrupt) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(s.descriptor(shard, &meta).ok().map(|d| d.id()))
    }

    /// How the chunk of a shard that is here is coded.
    pub async fn policy(&self, shard: &ShardRef) -> Result<Option<Policy>> {
        let shard = *shard;
        self.0.look_up(move |index| index.policy(&shard)).await
    }

    /// Reads a shard and checks it against its descriptor. `Corrupt` when it is not as it was written, or when the
    /// disk fails to read it twice, a second apart (a bad sector).
    pub async fn verify(&self, shard: &ShardRef) -> Result<()> {
        let s = &self.0;
        let mut read = s.try_read(shard, |p| s.journal.read(p)).await?;
        if let Err(journal::Error::Io { .. }) = read {
            s.env.sleep(READ_AGAIN).await;
            read = s.try_read(shard, |p| s.journal.read(p)).await?;
        }
        let (meta, body) = read.map_err(|e| match e {
            e @ journal::Error::Io { .. } => Error::corrupt(format!("device {}: {e}", s.device)),
            e => s.error(e),
        })?;
        let descriptor = s.descriptor(shard, &meta)?;
        let index = shard.index;
        match self.0.env.blocking(move || descriptor.certifies(index, &body)).await {
            true => Ok(()),
            false => Err(Error::corrupt(format!("device {} holds a shard whose hash is wrong", self.0.device))),
        }
    }

    /// Sets a bad shard aside: it is not here any more, and can be put again. Durable on return.
    pub async fn quarantine(&self, shard: &ShardRef) -> Result<()> {
        let _order = self.0.maintenance.lock().await;
        if self.0.position(shard).await?.is_none() {
            return Ok(());
        }
        self.0.end(record::QUARANTINE, vec![*shard]).await
    }

    /// Drops all shards of an object. Durable on return; the space comes back by compaction.
    pub async fn drop_object(&self, object: ObjectId) -> Result<()> {
        let _order = self.0.maintenance.lock().await;
        let shards = self.of_object(object).await?;
        self.0.end(record::DROP, shards).await
    }

    /// Drops some shards: they have been handed over. Durable on return.
    pub async fn drop_shards(&self, shards: Vec<ShardRef>) -> Result<()> {
        let _order = self.0.maintenance.lock().await;
        let held = move |index: &Index| {
            let here = shards.into_iter().map(|shard| Ok(index.get(&shard)?.map(|_| shard)));
            here.filter_map(Result::transpose).collect::<Result<Vec<ShardRef>>>()
        };
        let here = self.0.look_up(held).await?;
        self.0.end(record::DROP, here).await
    }

    /// Shards after a key with how their chunks are coded, in order, at most so many.
    pub async fn list(&self, after: Option<ShardRef>, limit: usize) -> Result<Vec<(ShardRef, Policy)>> {
        self.0.look_up(move |index| index.list(after, limit)).await
    }

    /// Shards of an object, in order.
    pub async fn of_object(&self, object: ObjectId) -> Result<Vec<ShardRef>> {
        self.0.look_up(move |index| index.of_object(object)).await
    }

    /// How full the device is.
    pub async fn usage(&self) -> Usage {
        let inner = self.0.clone();
        let (room, shards) = self.0.env.blocking(move || (inner.room(), inner.index.len())).await;
        let used = self.0.used();
        let state = self.0.state();
        let damage = (!self.0.report.corrupt.is_empty() || !self.0.report.missing.is_empty())
            .then(|| "its log was damaged when it was opened: what is missing is rebuilt".to_string());
        let broken = self.0.index.check().err().or(shards.as_ref().err().cloned()).map(|e| e.message);
        let (capacity, problem) = match room {
            Ok((capacity, left)) => {
                let full = (left == 0).then(|| "full: it takes no new shards".to_string());
                (capacity, broken.or(full).or(damage).or_else(|| state.problem.clone()))
            }
            Err(e) => (self.0.capacity.unwrap_or(0), Some(e.message)),
        };
        Usage { capacity, used, shards: shards.unwrap_or(0), problem }
    }

    /// Writes what is queued and closes. Later calls fail with `Unavailable`.
    pub async fn close(&self) -> Result<()> {
        self.0.journal.close().await;
        Ok(())
    }
}

/// Changes that are taken in together while the log is read.
const AT_ONCE: usize = 10_000;

/// Makes the index while the log is opened.
struct Replay {
    env: Env,
    path: PathBuf,
    /// Made with the first record, or at the end: the log is locked by then.
    index: Option<Index>,
    changes: Vec<Change>,
    failed: Option<Error>,
}

impl Replay {
    /// One record of the log; `None` when it cannot be understood.
    fn record(&mut self, r: &journal::Replayed<'_>) -> Option<()> {
        match r.kind {
            record::SHARD => {
                let (shard, descriptor) = record::read_shard_meta(r.meta)?;
                self.changes.push(Change::Put(shard, r.position, Descriptor::peek_policy(descriptor)?));
            }
            record::DROP | record::QUARANTINE => {
                self.changes.extend(record::read_keys_meta(r.meta)?.into_iter().map(Change::Remove));
                self.changes.push(Change::Stone(r.position));
            }
            _ => return None,
        }
        if self.changes.len() >= AT_ONCE {
            match self.failed {
                None => self.failed = self.take_in().err(),
                Some(_) => self.changes.clear(),
            }
        }
        Some(())
    }

    fn take_in(&mut self) -> Result<()> {
        let index = match self.index.take() {
            Some(index) => index,
            None => Index::create(&self.env, &self.path)?,
        };
        index.apply(std::mem::take(&mut self.changes))?;
        self.index = Some(index);
        Ok(())
    }

    fn finish(&mut self) -> Result<Index> {
        match self.failed.take() {
            Some(e) => return Err(e),
            None => self.take_in()?,
        }
        self.index.take().ok_or_else(|| Error::unavailable("a device's index was not made"))
    }
}

/// What is happening to a shard.
#[derive(Debug, Clone, Copy)]
enum Busy {
    Put(DescriptorId),
    End,
}

/// The right to put or end one shard, given back when dropped.
struct Turn {
    store: Arc<Inner>,
    /// `None` where somebody else puts the same.
    shard: Option<ShardRef>,
}

impl Turn {
    /// `Conflict` while another version is being put, `Unavailable` while the shard is being ended.
    fn to_put(store: &Arc<Inner>, shard: ShardRef, id: DescriptorId) -> Result<Turn> {
        let busy = &mut store.state().busy;
        match busy.get(&shard) {
            // The same is being put at this moment: two copies do no harm, two answers are needed.
            Some(Busy::Put(other)) => store.same(*other, id).map(|()| Turn { store: store.clone(), shard: None }),
            Some(Busy::End) => Err(Error::unavailable(format!("device {} drops this shard at this moment", store.device))),
            None => {
                busy.insert(shard, Busy::Put(id));
                Ok(Turn { store: store.clone(), shard: Some(shard) })
            }
        }
    }

    /// `None` while it is being put.
    fn to_end(store: &Arc<Inner>, shard: ShardRef) -> Option<Turn> {
        let busy = &mut store.state().busy;
        if busy.contains_key(&shard) {
            return None;
        }
        busy.insert(shard, Busy::End);
        Some(Turn { store: store.clone(), shard: Some(shard) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(shard) = &self.shard {
            self.store.state().busy.remove(shard);
        }
    }
}
