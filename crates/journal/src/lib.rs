//! An append-only journal in preallocated segment files, with group commit.
//!
//! A record is a kind, a short key, some metadata and a body. Whoever appends concurrently shares one
//! `fdatasync`. The keys of a full segment are written once more into its footer, so that an index can
//! be rebuilt without reading bodies. Every record is bound by checksums to its segment and its
//! sequence number. What was acknowledged survives a crash; what was not is there whole or not at
//! all; what rots is reported, never dropped in silence.
//!
//! The shard store and the Raft log both stand on this.

use bytes::Bytes;
use env::Env;
use model::Result;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How to open a journal.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the journal; made when missing. Belongs to the journal alone.
    pub dir: PathBuf,
    /// Whose journal this is: stands in each segment, and segments of another owner are refused.
    pub owner: [u8; 16],
    /// Bytes preallocated for a segment; a larger record gets a larger segment of its own.
    pub segment_size: u64,
    /// Bytes of records that may wait in memory; also the limit of one append.
    pub queue_bytes: usize,
    /// What the visitor is given.
    pub replay: Replay,
    /// Segments below this are not given to the visitor: whoever opens knows what they hold.
    pub replay_from: u64,
}

impl Config {
    /// 256 MiB segments, 64 MiB of queue, keys of everything.
    pub fn new(dir: impl Into<PathBuf>, owner: [u8; 16]) -> Self {
        Config { dir: dir.into(), owner, segment_size: 256 << 20, queue_bytes: 64 << 20, replay: Replay::Keys, replay_from: 0 }
    }
}

/// What opening gives to the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Keys and lengths: from the footers of sealed segments, which is quick.
    Keys,
    /// Metadata and bodies as well, all of them read and verified.
    Whole,
}

/// Something to append.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its meaning to the user of the journal: below [`Record::KINDS`].
    pub kind: u8,
    /// At most 1,024 bytes, repeated in the segment's footer: what an index wants to know.
    pub key: Bytes,
    /// At most 1 MiB that need not be in an index.
    pub meta: Bytes,
    /// The rest; may be empty.
    pub body: Bytes,
}

impl Record {
    /// Kinds from here on belong to the journal itself.
    pub const KINDS: u8 = 0xf0;
}

/// Where a record is. Ordered as the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Segment.
    pub segment: u64,
    /// First byte in the segment's file.
    pub offset: u64,
    /// Bytes of the record with header and padding.
    pub len: u32,
}

/// A record as replay finds it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is.
    pub position: Position,
    /// Number of the record in the journal: grows, with gaps.
    pub sequence: u64,
    /// Kind as given to append.
    pub kind: u8,
    /// Key as given to append.
    pub key: Bytes,
    /// Bytes of the metadata.
    pub meta_len: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// Metadata and body, with [`Replay::Whole`]; absent when they are damaged.
    pub contents: Option<(Bytes, Bytes)>,
    /// The body is known not to be what was written. (`false` means only that nobody looked.)
    pub damaged: bool,
}

/// A record read back and verified.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Kind.
    pub kind: u8,
    /// Key.
    pub key: Bytes,
    /// Metadata.
    pub meta: Bytes,
    /// Body.
    pub body: Bytes,
}

/// What is told about each record when a journal is opened, in the order of appending.
pub trait Visitor: Send + 'static {
    /// A record; an error ends the opening.
    fn entry(&mut self, entry: Entry) -> Result<()>;
}

impl<F: FnMut(Entry) -> Result<()> + Send + 'static> Visitor for F {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        self(entry)
    }
}

/// A part of a segment that cannot be read as what was written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Segment.
    pub segment: u64,
    /// Bytes of its file.
    pub range: Range<u64>,
    /// Key of the record that was there, where it can still be told.
    pub key: Option<Bytes>,
}

/// How a journal was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Segments in use.
    pub segments: u64,
    /// Records given to the visitor.
    pub records: u64,
    /// Bytes of appends that a crash interrupted before they were acknowledged; cut off.
    pub torn_bytes: u64,
    /// Durable bytes that are damaged; set aside.
    pub corrupt: Vec<Damage>,
    /// Files that are no segments of this journal; left alone and not read.
    pub refused: Vec<String>,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Id; grows with each new segment.
    pub id: u64,
    /// Bytes of records in it.
    pub len: u64,
    /// Whether nothing will be appended to it any more.
    pub sealed: bool,
}

/// An open journal. Cheap to clone; all clones are the same journal.
#[derive(Debug, Clone)]
pub struct Journal {}

/// The answer to an append that was handed in, when it comes.
#[derive(Debug)]
pub struct Pending {}

impl Future for Pending {
    /// Positions in the order of the records; all of them durable.
    type Output = Result<Vec<Position>>;
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}

impl Journal {
    /// Opens a journal and gives its records to `visitor`, which comes back. `Conflict` when
    /// another process has it open, `Unavailable` when the disk fails, `Insufficient` when it is full.
    pub async fn open<V: Visitor>(env: Env, config: Config, visitor: V) -> Result<(Journal, OpenReport, V)> {
        let _ = (env, config, visitor);
        todo!()
    }

    /// Appends a record; returns when it is durable. Dropping the future does not undo the append.
    ///
    /// `Insufficient` when the disk is full, `Unavailable` when it fails or the journal is closed:
    /// the record may then be there after a restart, or not, but never in part. `Invalid` when
    /// it is longer than the limits.
    pub async fn append(&self, record: Record) -> Result<Position> {
        let _ = record;
        todo!()
    }

    /// Appends records next to each other; after a crash all or none of them are there.
    pub async fn append_many(&self, records: Vec<Record>) -> Result<Vec<Position>> {
        let _ = records;
        todo!()
    }

    /// Hands in records like [`Journal::append_many`] but does not wait for the disk, only for room
    /// in the queue. What one task hands in first comes first in the journal.
    pub async fn submit(&self, records: Vec<Record>) -> Result<Pending> {
        let _ = records;
        todo!()
    }

    /// Reads a record and verifies it. `Corrupt` when it is not what was appended, `NotFound` when its
    /// segment was removed.
    pub async fn read(&self, position: Position) -> Result<Stored> {
        let _ = position;
        todo!()
    }

    /// Reads bytes of a body *without* verifying them; the header is verified. `Invalid` beyond the body.
    pub async fn read_body_range(&self, position: Position, range: Range<u32>) -> Result<Bytes> {
        let _ = (position, range);
        todo!()
    }

    /// All segments in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        todo!()
    }

    /// Seals the segment being written, so that it can be removed; later appends go to a new one.
    pub async fn seal(&self) -> Result<()> {
        todo!()
    }

    /// Removes a sealed segment with all its records, durably. `Invalid` for the one being written.
    pub async fn remove_segment(&self, id: u64) -> Result<()> {
        let _ = id;
        todo!()
    }

    /// Finishes what was handed in, seals the segment being written and gives the folder free.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}
