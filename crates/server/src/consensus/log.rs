//! The Raft log and the vote, on the journal.
//!
//! ```text
//! kind  meta (postcard)                 body
//! 1     (group u32, log id)             entry (postcard)
//! 2     (group u32, vote)               -
//! 3     (group u32, last index kept)    -      entries after it are gone
//! 4     (group u32, log id)             -      entries up to it are purged
//! ```
//! Appends go through one task in the order in which openraft hands them over; those that wait
//! share one fdatasync. A log in which a record was damaged (not merely torn at its end) is refused:
//! a damaged log never votes.

use super::failure::Failure;
use super::types::{Entry, GROUP, LogId, TypeConfig, Vote};
use bytes::Bytes;
use env::Env;
use journal::{Config, Journal, Position, Record};
use model::{Error, Kind, Result};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

pub(super) const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
/// Segments of the log are small, so that purging frees space soon.
const SEGMENT: u64 = 32 << 20;
/// Bytes of recent entries kept in memory.
const CACHE: usize = 8 << 20;

/// The log store. Clones share one log.
#[derive(Clone)]
pub(crate) struct LogStore {
    journal: Journal,
    index: Arc<Mutex<Index>>,
    writer: mpsc::UnboundedSender<Write>,
    failure: Failure,
}

#[derive(Default)]
struct Index {
    entries: BTreeMap<u64, Slot>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    cached: usize,
    /// Entries before this are not in memory any more (as far as they are on disk).
    evicted: u64,
}

struct Slot {
    id: LogId,
    /// Known once it is durable.
    position: Option<Position>,
    /// The encoded entry, while it is recent.
    bytes: Option<Bytes>,
}

struct Write {
    records: Vec<Record>,
    /// Ids of the entries, where the records are entries: to note their positions.
    entries: Vec<LogId>,
    done: Done,
}

enum Done {
    Entries(IOFlushed<TypeConfig>),
    Signal(tokio::sync::oneshot::Sender<io::Result<()>>),
}

fn encode<T: Serialize>(value: &T) -> io::Result<Bytes> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Metas begin with the group: records of another group are none of this log's.
fn grouped<T: DeserializeOwned>(meta: &[u8]) -> io::Result<T> {
    let (group, value): (u32, T) = decode(meta)?;
    if group == GROUP { Ok(value) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "a record of another consensus group")) }
}

impl Index {
    fn replay(&mut self, kind: u8, meta: &[u8], position: Position) -> io::Result<()> {
        match kind {
            ENTRY => {
                let id: LogId = grouped(meta)?;
                if self.entries.last_key_value().is_some_and(|(last, _)| id.index > last + 1) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "entries before it are missing"));
                }
                // An entry replaces whatever stood at its index and after.
                self.entries.split_off(&id.index);
                self.entries.insert(id.index, Slot { id, position: Some(position), bytes: None });
            }
            VOTE => self.vote = Some(grouped(meta)?),
            TRUNCATE => self.truncate(grouped(meta)?),
            PURGE => self.purge(grouped(meta)?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of an unknown kind")),
        }
        Ok(())
    }

    fn truncate(&mut self, keep: Option<u64>) {
        let gone = self.entries.split_off(&keep.map_or(0, |k| k + 1));
        self.cached -= gone.values().filter_map(|s| s.bytes.as_ref()).map(Bytes::len).sum::<usize>();
    }

    fn purge(&mut self, upto: LogId) {
        let kept = self.entries.split_off(&(upto.index + 1));
        let gone = std::mem::replace(&mut self.entries, kept);
        self.cached -= gone.values().filter_map(|s| s.bytes.as_ref()).map(Bytes::len).sum::<usize>();
        if self.purged.is_none_or(|p| p < upto) {
            self.purged = Some(upto);
        }
    }

    /// Lets go of the oldest entries that are on disk, beyond the memory bound.
    fn evict(&mut self) {
        if self.cached <= CACHE {
            return;
        }
        let mut upto = self.evicted;
        for (index, slot) in self.entries.range_mut(self.evicted..) {
            if self.cached <= CACHE || slot.position.is_none() {
                break;
            }
            self.cached -= slot.bytes.take().map_or(0, |b| b.len());
            upto = index + 1;
        }
        self.evicted = upto;
    }
}

impl LogStore {
    /// Opens the log in a folder; when it fails later that is noted. `Corrupt` when a record in it was damaged.
    pub async fn open(env: &Env, dir: PathBuf, failure: Failure) -> Result<Self> {
        let index = Arc::new(Mutex::new(Index::default()));
        let shown = dir.display().to_string();
        let config = Config { segment_size: SEGMENT, ..Config::new(dir) };
        let replayed = index.clone();
        let mut bad = None;
        let (sender, receiver) = std::sync::mpsc::channel();
        let (journal, report) = Journal::open(env.clone(), config, move |r| {
            if let Err(e) = lock(&replayed).replay(r.kind, r.meta, r.position) {
                let _ = sender.send(format!("record at {:?}: {e}", r.position));
            }
            Ok(())
        })
        .await
        .map_err(|e| Error::unavailable(format!("the consensus log in {shown}: {e}")))?;
        if let Ok(why) = receiver.try_recv() {
            bad = Some(why);
        }
        if let Some(c) = report.corrupt.first() {
            bad = Some(format!("segment {} is damaged at {:?}", c.segment, c.range));
        }
        if report.list_damaged {
            bad = Some("the list of its segments is not what was written".into());
        }
        if let Some(id) = report.missing.first() {
            bad = Some(format!("segment {id} is gone"));
        }
        if let Some(why) = bad {
            return Err(Error::corrupt(format!("the consensus log in {shown} is damaged ({why}): this coordinator must not vote"))
                .hint("rebuild this coordinator under a new id; with a lone coordinator restore a backup"));
        }
        let (writer, receiver) = mpsc::unbounded_channel();
        let store = LogStore { journal, index, writer, failure };
        env.spawn(write_all(store.journal.clone(), store.index.clone(), store.failure.clone(), receiver));
        Ok(store)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    fn submit(&self, records: Vec<Record>, entries: Vec<LogId>, done: Done) -> io::Result<()> {
        self.writer.send(Write { records, entries, done }).map_err(|_| io::Error::other("the log is closed"))
    }

    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.submit(records, Vec::new(), Done::Signal(done))?;
        wait.await.map_err(|_| io::Error::other("the log is closed"))?
    }

    fn failed(&self, e: impl Display) -> io::Error {
        failed(&self.failure, e, Kind::Unavailable)
    }

    /// Whether anything was ever voted for here.
    pub fn has_vote(&self) -> bool {
        self.index().vote.is_some()
    }

    /// Index of the last entry that is purged.
    pub fn purged_index(&self) -> u64 {
        self.index().purged.map_or(0, |l| l.index)
    }

    /// Closes the journal after what is under way.
    pub async fn close(&self) {
        let _ = self.write(Vec::new()).await;
        self.journal.clone().close().await;
    }
}

fn failed(failure: &Failure, e: impl Display, kind: Kind) -> io::Error {
    let what = format!("the consensus log failed: {e}");
    failure.note(&what, kind);
    io::Error::other(what)
}

fn kind_of(e: &journal::Error) -> Kind {
    if matches!(e, journal::Error::Full { .. }) { Kind::Insufficient } else { Kind::Unavailable }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record<T: Serialize>(kind: u8, value: &T) -> io::Result<Record> {
    Ok(Record { kind, meta: encode(&(GROUP, value))?, body: Bytes::new() })
}

/// The one writer: takes what is there, appends it with one fdatasync, answers all.
async fn write_all(journal: Journal, index: Arc<Mutex<Index>>, failure: Failure, mut receiver: mpsc::UnboundedReceiver<Write>) {
    while let Some(first) = receiver.recv().await {
        let mut batch = vec![first];
        while batch.len() < 1024 {
            let Ok(next) = receiver.try_recv() else { break };
            batch.push(next);
        }
        let lengths: Vec<usize> = batch.iter().map(|w| w.records.len()).collect();
        let records: Vec<Record> = batch.iter_mut().flat_map(|w| std::mem::take(&mut w.records)).collect();
        let result = match failure.get() {
            _ if records.is_empty() => Ok(Vec::new()),
            // What comes after a record that may not be there is not written: it would leave a hole.
            Some(first) => Err(first.message),
            None => journal.append(records).await.map_err(|e| failed(&failure, &e, kind_of(&e)).to_string()),
        };
        if let Ok(positions) = &result {
            let mut positions = positions.iter();
            let mut index = lock(&index);
            for (write, length) in batch.iter().zip(lengths) {
                let own: Vec<Position> = positions.by_ref().take(length).copied().collect();
                for (id, position) in write.entries.iter().zip(own) {
                    // Unless it was truncated meanwhile, and another entry stands there.
                    if let Some(slot) = index.entries.get_mut(&id.index).filter(|s| s.id == *id) {
                        slot.position = Some(position);
                    }
                }
            }
            index.evict();
        }
        for write in batch {
            let answer = result.as_ref().map(|_| ()).map_err(|e| io::Error::other(e.clone()));
            match write.done {
                Done::Entries(callback) => callback.io_completed(answer),
                Done::Signal(signal) => {
                    let _ = signal.send(answer);
                }
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + openraft::OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i + 1,
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        if from >= to {
            return Ok(Vec::new());
        }
        let slots: Vec<(u64, Option<Bytes>, Option<Position>)> =
            self.index().entries.range(from..to).map(|(index, s)| (*index, s.bytes.clone(), s.position)).collect();
        let mut entries = Vec::with_capacity(slots.len());
        for (index, bytes, position) in slots {
            let bytes = match (bytes, position) {
                (Some(bytes), _) => bytes,
                (None, Some(position)) => self.journal.read(position).await.map_err(|e| self.failed(e))?.1,
                (None, None) => return Err(self.failed("an entry is neither in memory nor on disk")),
            };
            // Its checksum is right. What one version has written an earlier one may not know.
            let entry = decode(&bytes).map_err(|e| {
                let what = format!("entry {index} cannot be understood: it is of a later version, which is the one to start ({e})");
                failed(&self.failure, what, Kind::Corrupt)
            })?;
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.index().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let index = self.index();
        let last = index.entries.last_key_value().map(|(_, s)| s.id);
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: last.or(index.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(vec![record(VOTE, vote)?]).await?;
        self.index().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        let mut records = Vec::new();
        let mut ids = Vec::new();
        {
            let mut index = self.index();
            for entry in entries {
                let id = entry.log_id;
                let body = encode(&entry)?;
                records.push(Record { kind: ENTRY, meta: encode(&(GROUP, id))?, body: body.clone() });
                ids.push(id);
                index.cached += body.len();
                index.entries.insert(id.index, Slot { id, position: None, bytes: Some(body) });
            }
        }
        self.submit(records, ids, Done::Entries(callback))
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let keep = last.map(|l| l.index);
        self.write(vec![record(TRUNCATE, &keep)?]).await?;
        self.index().truncate(keep);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let vote = self.index().vote;
        self.write(vec![record(PURGE, &upto)?]).await?;
        // The vote may stand in a segment that goes: it is written again first.
        if let Some(vote) = vote {
            self.write(vec![record(VOTE, &vote)?]).await?;
        }
        let oldest = {
            let mut index = self.index();
            index.purge(upto);
            index.entries.values().find_map(|s| s.position).map(|p| p.segment)
        };
        let segments = self.journal.segments();
        let oldest = oldest.unwrap_or_else(|| segments.last().map_or(0, |s| s.id));
        for segment in segments.iter().filter(|s| s.sealed && s.id < oldest) {
            self.journal.remove_segment(segment.id).await.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use openraft::vote::RaftLeaderId;

    #[test]
    fn a_log_with_a_hole_is_damaged() {
        let leader = openraft::type_config::alias::CommittedLeaderIdOf::<TypeConfig>::new(1, 1);
        let entry = |index| encode(&(GROUP, LogId::new(leader, index))).unwrap();
        let position = Position { segment: 1, offset: 0, len: 0 };
        let mut index = Index::default();
        // The first one that is left after a purge may be any.
        for at in [7, 8, 9, 8, 9, 10] {
            index.replay(ENTRY, &entry(at), position).unwrap();
        }
        assert!(index.replay(ENTRY, &entry(12), position).is_err());
    }
}
