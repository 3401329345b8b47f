//! An append-only log in segments, with group commit: the mechanism under the shard store and the
//! Raft log.
//!
//! Whoever appends waits until the bytes are durable. One task writes; while it waits for the disk,
//! the next appends gather, and one fdatasync serves them all. After a crash everything acknowledged
//! is there; what was not is there whole or not at all. Damage in the middle is told from a torn end
//! (see [`format`]) and reported, never passed over in silence.

mod clean;
pub mod format;
mod inventory;
mod open;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use env::Env;
use segment::Segments;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Where and how large.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder; created when missing. Locked while open.
    pub dir: PathBuf,
    /// Bytes of a segment, preallocated. A longer record gets a segment of its own.
    pub segment_size: u64,
    /// Most bytes that may wait to be written; further appends wait.
    pub queue_bytes: usize,
}

impl Config {
    /// 256 MiB segments, 64 MiB of queue.
    pub fn new(dir: PathBuf) -> Self {
        Config { dir, segment_size: 256 << 20, queue_bytes: 64 << 20 }
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Segment.
    pub segment: u64,
    /// Byte offset of its header in the segment.
    pub offset: u64,
    /// Bytes of header, meta and body.
    pub len: u32,
}

/// What is appended.
#[derive(Debug, Clone)]
pub struct Record {
    /// Chosen by the caller; 255 is the journal's own.
    pub kind: u8,
    /// What an index needs: kept in segment footers, at most 65,535 bytes.
    pub meta: Bytes,
    /// The rest.
    pub body: Bytes,
}

/// A record met while opening.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// Where it lies.
    pub position: Position,
    /// Its kind.
    pub kind: u8,
    /// Its meta.
    pub meta: &'a [u8],
    /// Bytes of its body.
    pub body_len: u32,
}

/// A damaged range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt {
    /// Segment.
    pub segment: u64,
    /// Bytes in it.
    pub range: Range<u64>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Segments.
    pub segments: usize,
    /// Valid records.
    pub records: u64,
    /// Bytes of records at the end that were never acknowledged, and are cut.
    pub torn_bytes: u64,
    /// Damage.
    pub corrupt: Vec<Corrupt>,
    /// Segments that are gone as a whole. They are named at each opening until [`Journal::give_up_missing`].
    pub missing: Vec<u64>,
    /// The list of segments is damaged: any may be gone. The same holds for how long that is said.
    pub list_damaged: bool,
}

/// A segment, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Id; grows, never reused.
    pub id: u64,
    /// Bytes used.
    pub len: u64,
    /// No more records go into it.
    pub sealed: bool,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes used by all segments.
    pub bytes: u64,
    /// By the last one; `None` where there is none.
    pub last: Option<u64>,
}

/// Why a journal operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk failed. What was being appended is not acknowledged.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// Cause.
        source: Arc<io::Error>,
    },
    /// No space left.
    #[error("{path}: no space left")]
    Full {
        /// File or folder.
        path: String,
    },
    /// What lies there is not what was written.
    #[error("segment {segment} is damaged at byte {offset}")]
    Corrupt {
        /// Segment.
        segment: u64,
        /// Offset.
        offset: u64,
    },
    /// A file of another journal or version, or in use, or a record that cannot be.
    #[error("{path}: {why}")]
    Foreign {
        /// File.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Closed, or its task has ended.
    #[error("the journal is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(path: &Path, e: io::Error) -> Self {
        let path = path.display().to_string();
        match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path },
            _ => Error::Io { path, source: Arc::new(e) },
        }
    }
}

/// What the writer is asked.
enum Request {
    Append { records: Vec<Record>, room: OwnedSemaphorePermit, reply: oneshot::Sender<Result<Vec<Position>, Error>> },
    Roll { reply: oneshot::Sender<Result<(), Error>> },
}

struct Shared {
    env: Env,
    segments: Segments,
    queue: Arc<Semaphore>,
    queue_bytes: usize,
    /// `None` once closed.
    sender: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// An open journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

impl Journal {
    /// Opens or creates a journal and replays its records in order. `visit` may refuse. The torn end
    /// of the last segment is cut before the first append.
    pub async fn open(
        env: Env,
        config: Config,
        visit: impl FnMut(Replayed<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<(Journal, OpenReport), Error> {
        let queue_bytes = config.queue_bytes;
        let opened = {
            let env = env.clone();
            env.clone().blocking(move || open::open(&env, &config, visit)).await?
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let segments = opened.segments.clone();
        let writer = env.spawn(writer::run(env.clone(), opened.appender, receiver));
        let shared = Shared {
            env,
            segments,
            queue: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
        };
        Ok((Journal(Arc::new(shared)), opened.report))
    }

    fn send(&self, request: Request) -> Result<(), Error> {
        let sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().ok_or(Error::Closed)?.send(request).map_err(|_| Error::Closed)
    }

    /// Appends records in order, next to each other in time but not all or nothing. Returns when all
    /// are durable.
    pub async fn append(&self, records: Vec<Record>) -> Result<Vec<Position>, Error> {
        let bytes: usize = records.iter().map(|r| r.meta.len() + r.body.len() + 64).sum();
        // It belongs to the records, not to whoever waits: who goes away leaves them in the queue.
        let room = self.0.queue.clone().acquire_many_owned(bytes.min(self.0.queue_bytes) as u32).await.map_err(|_| Error::Closed)?;
        let (reply, wait) = oneshot::channel();
        self.send(Request::Append { records, room, reply })?;
        wait.await.map_err(|_| Error::Closed)?
    }

    /// Reads a record: meta and body, both checked. `Corrupt` when they are not what was written.
    pub async fn read(&self, position: Position) -> Result<(Bytes, Bytes), Error> {
        let segments = self.0.segments.clone();
        self.0.env.blocking(move || segments.read(position)).await
    }

    /// Reads a record's meta alone, checked. `Corrupt` when it is not what was written.
    pub async fn read_meta(&self, position: Position) -> Result<Bytes, Error> {
        let segments = self.0.segments.clone();
        self.0.env.blocking(move || segments.read_meta(position)).await
    }

    /// Reads a range of a record's body, unchecked. `Corrupt` when the body is shorter.
    pub async fn read_body_range(&self, position: Position, range: Range<u32>) -> Result<Bytes, Error> {
        let segments = self.0.segments.clone();
        self.0.env.blocking(move || segments.read_range(position, range)).await
    }

    /// All segments, oldest first; the last one is being written.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.0.segments.list()
    }

    /// The id that the journal got when it was made.
    pub fn id(&self) -> [u8; 16] {
        *self.0.segments.journal()
    }

    /// How long the segments are together, and the last one.
    pub fn extent(&self) -> Extent {
        self.0.segments.extent()
    }

    /// Removes a sealed segment with all its records. Nothing happens for the active one.
    pub async fn remove_segment(&self, id: u64) -> Result<(), Error> {
        let segments = self.0.segments.clone();
        self.0.env.blocking(move || segments.remove(id)).await
    }

    /// Those that were missing at opening are known to be lost: later openings name them no more.
    pub async fn give_up_missing(&self, missing: Vec<u64>) -> Result<(), Error> {
        let segments = self.0.segments.clone();
        self.0.env.blocking(move || segments.inventory().strike(&missing)).await
    }

    /// Seals the active segment; the next append begins a new one.
    pub async fn roll(&self) -> Result<(), Error> {
        let (reply, wait) = oneshot::channel();
        self.send(Request::Roll { reply })?;
        wait.await.map_err(|_| Error::Closed)?
    }

    /// Writes what is queued, then closes and unlocks the folder. Later appends fail with
    /// [`Error::Closed`].
    pub async fn close(&self) {
        drop(self.0.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
        self.0.segments.unlock();
    }
}
