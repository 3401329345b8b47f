//! The one writer of a journal.
//!
//! It takes all appends that wait, writes them, and makes one fdatasync for all: group commit. No
//! timer: while one batch is synced the next gathers by itself. Small records are put together in
//! one buffer; large bodies go to the disk from where they are.
//!
//! After a failed write or sync nobody knows what the disk holds (the kernel may drop the dirty
//! pages and call the next fdatasync a success), so the segment is cut back to what had been
//! durable and never written or synced again; the next batch starts a new one.

use crate::format::{self, ALIGN, HEADER, Header, JournalId, PAGE};
use crate::{Error, Position, Record, Segments};
use env::{Disk, Env, File, FileExt, Open};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Bodies from here on are written without being copied.
const DIRECT: usize = 64 << 10;
/// Bytes after which a batch is closed even though more waits.
const BATCH: usize = 32 << 20;

pub(crate) enum Request {
    Append { records: Vec<Record>, reply: oneshot::Sender<Result<Vec<Position>, Error>>, _room: OwnedSemaphorePermit },
    Roll(oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

pub(crate) fn size(records: &[Record]) -> usize {
    records.iter().map(|r| HEADER + ALIGN as usize + r.meta.len() + r.body.len()).sum()
}

/// Serves requests until closed or until nobody holds the journal any more.
pub(crate) async fn run(env: Env, mut writer: Writer, mut requests: mpsc::Receiver<Request>) {
    let mut pushed_back = None;
    loop {
        let request = match pushed_back.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        let (mut batch, mut replies, mut rooms, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut next = Some(request);
        while let Some(request) = next.take() {
            match request {
                Request::Append { records, reply, _room } => {
                    bytes += size(&records);
                    batch.push(records);
                    replies.push(reply);
                    rooms.push(_room);
                    if bytes < BATCH {
                        next = requests.try_recv().ok();
                    }
                }
                other => pushed_back = Some(other),
            }
        }
        if !batch.is_empty() {
            let (back, result) = env
                .blocking(move || {
                    let result = writer.append(&batch);
                    (writer, result)
                })
                .await;
            writer = back;
            let mut positions = result.as_ref().map(|p| p.iter()).unwrap_or_default();
            for reply in replies {
                let answer = match &result {
                    Ok(_) => Ok(positions.next().cloned().unwrap_or_default()),
                    Err(e) => Err(e.share()),
                };
                let _ = reply.send(answer);
            }
            drop(rooms);
        }
        match pushed_back.take() {
            Some(Request::Roll(reply)) => {
                let (back, result) = env
                    .blocking(move || {
                        let result = writer.seal();
                        (writer, result)
                    })
                    .await;
                writer = back;
                let _ = reply.send(result);
            }
            Some(Request::Close(reply)) => {
                requests.close();
                env.blocking(move || {
                    let _ = writer.seal(); // a segment without footer is scanned at the next open
                    drop(writer);
                })
                .await;
                let _ = reply.send(());
                return;
            }
            other => pushed_back = other,
        }
    }
}

/// The segment being written.
struct Active {
    id: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the next record goes.
    at: u64,
    /// Everything below is durable.
    synced: u64,
    /// Bytes reserved.
    room: u64,
    /// Records so far.
    count: u32,
    /// Footer entries of the records so far.
    entries: Vec<u8>,
}

pub(crate) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub journal: JournalId,
    pub segment_size: u64,
    /// Id of the next segment.
    pub next: u64,
    pub segments: Arc<Segments>,
    pub lock: Arc<dyn File>,
    active: Option<Active>,
}

impl Writer {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, journal: JournalId, segment_size: u64, next: u64, segments: Arc<Segments>, lock: Arc<dyn File>) -> Self {
        Writer { disk, dir, journal, segment_size, next, segments, lock, active: None }
    }

    /// Writes all records and makes them durable, or retires the segment.
    fn append(&mut self, batch: &[Vec<Record>]) -> Result<Vec<Vec<Position>>, Error> {
        let result = self.write(batch).and_then(|positions| {
            self.sync()?;
            Ok(positions)
        });
        if result.is_err() {
            self.retire();
        }
        result
    }

    fn write(&mut self, batch: &[Vec<Record>]) -> Result<Vec<Vec<Position>>, Error> {
        let mut out = Vec::with_capacity(batch.len());
        // What is not yet written, and where it begins.
        let mut pending = Vec::new();
        for records in batch {
            let mut positions = Vec::with_capacity(records.len());
            for record in records {
                let len = (HEADER + record.meta.len() + record.body.len()) as u64;
                if self.active.as_ref().is_some_and(|a| format::align(a.at + len) > a.room) {
                    self.flush(&mut pending)?;
                    self.seal()?;
                }
                let journal = self.journal;
                let active = self.start(len)?;
                let header = Header {
                    kind: record.kind,
                    meta_len: record.meta.len() as u16,
                    body_len: record.body.len() as u32,
                    body_crc: crc32c::crc32c(&record.body),
                    segment: active.id,
                    sequence: u64::from(active.count),
                    synced: active.synced,
                };
                pending.extend(header.encode(&journal, &record.meta));
                pending.extend_from_slice(&record.meta);
                positions.push(Position { segment: active.id, offset: active.at, len: len as u32 });
                format::push_entry(&mut active.entries, active.at, record.kind, &record.meta, header.body_len);
                active.count += 1;
                if record.body.len() < DIRECT {
                    pending.extend_from_slice(&record.body);
                    pending.resize(pending.len().next_multiple_of(ALIGN as usize), 0);
                    active.at = format::align(active.at + len);
                    if pending.len() >= 1 << 20 {
                        self.flush(&mut pending)?;
                    }
                } else {
                    // `pending` ends with this record's meta, so it ends where the body begins.
                    let body_at = active.at + len - record.body.len() as u64;
                    let begin = body_at - pending.len() as u64;
                    active.file.write_all_at(&pending, begin).map_err(|e| Error::io(&active.path, e))?;
                    active.file.write_all_at(&record.body, body_at).map_err(|e| Error::io(&active.path, e))?;
                    pending.clear();
                    active.at = format::align(active.at + len);
                }
            }
            out.push(positions);
        }
        self.flush(&mut pending)?;
        Ok(out)
    }

    /// Writes what is pending; it ends at the active segment's `at`.
    fn flush(&mut self, pending: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(active) = &self.active
            && !pending.is_empty()
        {
            active.file.write_all_at(pending, active.at - pending.len() as u64).map_err(|e| Error::io(&active.path, e))?;
            pending.clear();
        }
        Ok(())
    }

    /// One fdatasync; then readers may see what was written.
    fn sync(&mut self) -> Result<(), Error> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.synced < active.at {
            active.file.sync_data().map_err(|e| Error::io(&active.path, e))?;
            active.synced = active.at;
            self.segments.grow(active.id, active.at);
        }
        Ok(())
    }

    /// The active segment, begun if there is none, with room for at least `len` bytes.
    fn start(&mut self, len: u64) -> Result<&mut Active, Error> {
        let active = match self.active.take() {
            Some(active) => active,
            None => {
                let id = self.next;
                self.next += 1;
                let path = crate::segment_path(&self.dir, id);
                let room = self.segment_size.max(format::align(PAGE + len));
                match self.create(&path, id, room) {
                    Ok(file) => {
                        self.segments.add(id, file.clone(), PAGE, false);
                        Active { id, path, file, at: PAGE, synced: PAGE, room, count: 0, entries: Vec::new() }
                    }
                    Err(e) => {
                        let _ = self.disk.remove_file(&path); // without records it means nothing
                        return Err(Error::io(&path, e));
                    }
                }
            }
        };
        Ok(self.active.insert(active))
    }

    fn create(&self, path: &std::path::Path, id: u64, room: u64) -> std::io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, Open::New)?;
        file.allocate(room)?;
        file.write_all_at(&format::encode_page(&self.journal, id), 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(file)
    }

    /// Ends the active segment with a footer and gives back what it does not need.
    fn seal(&mut self) -> Result<(), Error> {
        self.sync()?;
        let Some(active) = self.active.take() else { return Ok(()) };
        self.segments.seal(active.id);
        write_footer(&*active.file, &self.journal, active.id, active.at, &active.entries, active.count).map_err(|e| Error::io(&active.path, e))
    }

    /// Gives up the active segment where it was last durable.
    fn retire(&mut self) {
        if let Some(active) = self.active.take() {
            let _ = active.file.set_len(active.synced);
            self.segments.seal(active.id);
        }
    }
}

/// Writes a footer at `at`, cuts the file behind it and syncs.
pub(crate) fn write_footer(file: &dyn File, journal: &JournalId, segment: u64, at: u64, entries: &[u8], count: u32) -> std::io::Result<()> {
    file.write_all_at(entries, at)?;
    let trailer = format::encode_trailer(journal, segment, entries, count);
    file.write_all_at(&trailer, at + entries.len() as u64)?;
    file.set_len(at + (entries.len() + trailer.len()) as u64)?;
    file.sync_data()
}
