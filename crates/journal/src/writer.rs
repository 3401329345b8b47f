//! The one writer of a journal: gathers what waits, writes it, one fdatasync, answers all.

use crate::clean;
use crate::format::{self, FOOTER, Head, JournalId, Listed, RECORD_HEADER, SEGMENT_HEADER};
use crate::segment::Segments;
use crate::{Error, Position, Record, Request};
use env::{Env, File, FileExt, Open};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most requests that share one fdatasync.
const BATCH: usize = 4096;
/// Bodies of at least this many bytes are written from where they are; smaller ones are gathered.
const DIRECT: usize = 128 << 10;
/// Bytes that are read and written again at once.
const WINDOW: usize = 4 << 20;

type Reply = oneshot::Sender<Result<Vec<Position>, Error>>;

/// Runs until all handles of the journal are gone or it is closed.
pub(crate) async fn run(env: Env, mut appender: Appender, mut receiver: mpsc::UnboundedReceiver<Request>) {
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(request) => request,
            None => match receiver.recv().await {
                Some(request) => request,
                None => return env.blocking(move || appender.close()).await,
            },
        };
        let (mut appends, mut rooms): (Vec<(Vec<Record>, Reply)>, Vec<_>) = Default::default();
        match first {
            Request::Roll { reply } => {
                let roll = move || {
                    let result = appender.seal().inspect_err(|e| appender.retire(e));
                    (appender, result)
                };
                let (back, result) = env.blocking(roll).await;
                appender = back;
                let _ = reply.send(result);
                continue;
            }
            Request::Append { records, room, reply } => {
                appends.push((records, reply));
                rooms.push(room);
            }
        }
        while appends.len() < BATCH {
            match receiver.try_recv() {
                Ok(Request::Append { records, room, reply }) => {
                    appends.push((records, reply));
                    rooms.push(room);
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let batch = move || {
            appender.batch(appends);
            drop(rooms);
            appender
        };
        appender = env.blocking(batch).await;
    }
}

/// The active segment.
struct Active {
    id: u64,
    file: Arc<dyn File>,
    /// Preallocated bytes.
    room: u64,
    end: u64,
    listed: Vec<Listed>,
}

/// Appends batches. Blocking.
pub(crate) struct Appender {
    segments: Segments,
    segment_size: u64,
    next_id: u64,
    sequence: u64,
    active: Option<Active>,
}

impl Appender {
    pub fn new(segments: Segments, segment_size: u64, next_id: u64, sequence: u64) -> Self {
        Appender { segments, segment_size, next_id, sequence, active: None }
    }

    /// Goes on in a segment that was not sealed: what follows its last good record is cut off first,
    /// so that nothing torn can ever come back.
    ///
    /// `rewrite`: what was read is written again, so that the sync makes it durable also where an earlier one had
    /// failed: the operating system then takes for written what it has in memory only.
    pub fn resume(mut self, id: u64, file: Arc<dyn File>, end: u64, listed: Vec<Listed>, rewrite: bool) -> Result<Self, Error> {
        let path = self.segments.path(id);
        let io = |e| Error::io(&path, e);
        file.set_len(end).map_err(io)?;
        if rewrite {
            write_again(file.as_ref(), end).map_err(io)?;
        }
        let room = self.segment_size.max(end);
        match file.allocate(room) {
            Ok(()) => {
                file.sync_data().map_err(io)?;
                self.active = Some(Active { id, file, room, end, listed });
            }
            // No room to go on: it stays as it is, and reading goes on.
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "no space to go on in this segment");
                file.sync_data().map_err(io)?;
                self.segments.grow(id, end, true);
            }
        }
        Ok(self)
    }

    /// Makes durable what could be read of a segment that was given up after a failed write, as what
    /// [`Appender::resume`] writes again; and seals it, where its records are given.
    pub fn settle(&mut self, id: u64, file: Arc<dyn File>, end: u64, listed: Option<Vec<Listed>>) -> Result<(), Error> {
        let path = self.segments.path(id);
        write_again(file.as_ref(), end).and_then(|()| file.sync_data()).map_err(|e| Error::io(&path, e))?;
        let Some(listed) = listed else { return Ok(()) };
        self.active = Some(Active { id, file, room: end, end, listed });
        match self.seal() {
            // No room for the footer: it stays as it is, and is looked through again the next time.
            Err(e @ Error::Full { .. }) => {
                tracing::warn!(path = %path.display(), error = %e, "no space to seal this segment");
                self.active = None;
                self.segments.grow(id, end, true);
                Ok(())
            }
            other => other,
        }
    }

    /// Marks the journal as closed. A segment that failed is not the active one any more.
    fn close(self) {
        let Some(active) = self.active else { return };
        if let Err(e) = clean::mark(self.segments.env(), self.segments.dir(), self.segments.journal(), active.id, active.end) {
            tracing::warn!(error = %e, "this journal was not marked as closed: its last segment is written again at the next opening");
        }
    }

    /// Appends and answers.
    fn batch(&mut self, appends: Vec<(Vec<Record>, Reply)>) {
        let mut results: Vec<Result<Vec<Position>, Error>> = Vec::with_capacity(appends.len());
        let mut failure: Option<Error> = None;
        let mut in_batch = 0;
        let mut writes = Writes::default();
        for (records, _) in &appends {
            let mut positions = Vec::with_capacity(records.len());
            for record in records {
                if failure.is_some() {
                    break;
                }
                match self.place(record, &mut in_batch, &mut writes) {
                    Ok(position) => positions.push(position),
                    Err(e) => failure = Some(e),
                }
            }
            results.push(failure.as_ref().map_or(Ok(positions), |e| Err(e.clone())));
        }
        // What was placed before a failure is still written: it is whole, and its callers wait.
        let flushed = self.flush(&mut writes);
        // A segment that filled up on the way was flushed before the end: its failure counts too.
        if let Err(e) = writes.failed.take().map_or(flushed, Err) {
            self.retire(&e);
            results.iter_mut().for_each(|r| *r = Err(e.clone()));
        } else if let Some(active) = &self.active {
            self.segments.grow(active.id, active.end, false);
        }
        for ((_, reply), result) in appends.into_iter().zip(results) {
            let _ = reply.send(result);
        }
    }

    /// Finds a place for a record, in a new segment if need be, and notes what to write there.
    fn place(&mut self, record: &Record, in_batch: &mut u32, writes: &mut Writes) -> Result<Position, Error> {
        let meta_len = u16::try_from(record.meta.len()).map_err(|_| self.too_long())?;
        let body_len = u32::try_from(record.body.len()).ok().filter(|n| *n < u32::MAX - (1 << 17)).ok_or_else(|| self.too_long())?;
        let stride = Head { meta_len, body_len, ..Head::default() }.stride();
        if self.active.as_ref().is_some_and(|a| a.end + stride > a.room) {
            self.flush(writes).inspect_err(|e| self.retire(e))?;
            self.seal().inspect_err(|e| self.retire(e))?;
            // What comes now is a batch of its own: all before it is durable.
            *in_batch = 0;
        }
        if self.active.is_none() {
            self.begin(stride)?;
            *in_batch = 0;
        }
        let journal = *self.segments.journal();
        let sequence = self.sequence;
        let active = self.active.as_mut().ok_or(Error::Closed)?;
        let body_crc = crc32c::crc32c(&record.body);
        let head = Head { kind: record.kind, meta_len, body_len, in_batch: *in_batch, segment: active.id, sequence, body_crc };
        let position = Position { segment: active.id, offset: active.end, len: head.len() as u32 };
        writes.record(active.end, &journal, &head, record);
        active.listed.push(Listed { offset: active.end, kind: record.kind, body_len, meta: record.meta.to_vec() });
        active.end += stride;
        self.sequence += 1;
        *in_batch += 1;
        Ok(position)
    }

    fn too_long(&self) -> Error {
        Error::Foreign { path: self.segments.dir().display().to_string(), why: "the record is too long" }
    }

    /// Writes and syncs what was noted.
    fn flush(&mut self, writes: &mut Writes) -> Result<(), Error> {
        let parts = std::mem::take(&mut writes.parts);
        let Some(active) = self.active.as_ref().filter(|_| !parts.is_empty()) else { return Ok(()) };
        let written = parts.iter().try_for_each(|(offset, part)| match part {
            Part::Gathered(bytes) => active.file.write_all_at(bytes, *offset),
            Part::Body(bytes) => active.file.write_all_at(bytes, *offset),
        });
        let synced = written.and_then(|()| active.file.sync_data()).map_err(|e| Error::io(&self.segments.path(active.id), e));
        writes.failed = synced.as_ref().err().cloned();
        synced
    }

    /// A fresh segment, preallocated.
    fn begin(&mut self, need: u64) -> Result<(), Error> {
        let id = self.next_id;
        let path = self.segments.path(id);
        let io = |e| Error::io(&path, e);
        let env = self.segments.env().clone();
        let file = env.disk.open(&path, Open::New).map_err(io)?;
        self.next_id += 1;
        let room = self.segment_size.max(SEGMENT_HEADER as u64 + need);
        let made = file
            .allocate(room)
            .and_then(|()| file.write_all_at(&format::segment_header(self.segments.journal(), id, self.sequence), 0))
            .and_then(|()| file.sync_data())
            .and_then(|()| env.disk.sync_dir(self.segments.dir()));
        // Listed when it is surely there, and before it holds anything: one that is listed and missing is lost.
        let listed = made.map_err(io).and_then(|()| self.segments.inventory().list(id));
        if let Err(e) = listed {
            drop(file);
            // One that is listed all the same has to stay.
            if !self.segments.inventory().may_list(id) {
                let _ = env.disk.remove_file(&path);
            }
            return Err(e);
        }
        self.segments.set(id, file.clone(), SEGMENT_HEADER as u64, false);
        self.active = Some(Active { id, file, room, end: SEGMENT_HEADER as u64, listed: Vec::new() });
        Ok(())
    }

    /// Ends the active segment with its footer.
    fn seal(&mut self) -> Result<(), Error> {
        let Some(active) = &self.active else { return Ok(()) };
        let path = self.segments.path(active.id);
        let io = |e| Error::io(&path, e);
        let mut body = Vec::new();
        active.listed.iter().for_each(|l| l.write(&mut body));
        let head = Head {
            kind: FOOTER,
            body_len: body.len() as u32,
            segment: active.id,
            sequence: self.sequence,
            body_crc: crc32c::crc32c(&body),
            ..Head::default()
        };
        let mut bytes = Vec::with_capacity(RECORD_HEADER + body.len() + 24);
        head.write(self.segments.journal(), &[], &mut bytes);
        bytes.extend_from_slice(&body);
        bytes.resize(head.stride() as usize, 0);
        bytes.extend_from_slice(&format::trailer(active.end));
        active.file.set_len(active.end).map_err(io)?;
        active.file.write_all_at(&bytes, active.end).map_err(io)?;
        active.file.sync_data().map_err(io)?;
        self.segments.grow(active.id, active.end + bytes.len() as u64, true);
        self.sequence += 1;
        self.active = None;
        Ok(())
    }

    /// Gives the active segment up after a failed write: it is never synced again.
    fn retire(&mut self, e: &Error) {
        if let Some(active) = self.active.take() {
            tracing::error!(path = %self.segments.path(active.id).display(), error = %e, "this segment failed and takes no more records");
            self.segments.grow(active.id, active.end, true);
        }
    }
}

/// Writes what is in a file again, up to an end.
fn write_again(file: &dyn File, end: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; end.min(WINDOW as u64) as usize];
    for at in (0..end).step_by(WINDOW) {
        let part = &mut bytes[..(end - at).min(WINDOW as u64) as usize];
        file.read_exact_at(part, at)?;
        file.write_all_at(part, at)?;
    }
    Ok(())
}

/// What a batch writes: small things gathered, large bodies from where they are.
#[derive(Default)]
struct Writes {
    parts: Vec<(u64, Part)>,
    /// What was handed over before this is not durable.
    failed: Option<Error>,
}

enum Part {
    Gathered(Vec<u8>),
    Body(bytes::Bytes),
}

impl Writes {
    fn record(&mut self, offset: u64, journal: &JournalId, head: &Head, record: &Record) {
        let joins = matches!(self.parts.last(), Some((at, Part::Gathered(g))) if at + g.len() as u64 == offset && g.len() < (4 << 20));
        if !joins {
            self.parts.push((offset, Part::Gathered(Vec::new())));
        }
        let Some((_, Part::Gathered(gathered))) = self.parts.last_mut() else { return };
        head.write(journal, &record.meta, gathered);
        if record.body.len() < DIRECT {
            gathered.extend_from_slice(&record.body);
            let padded = gathered.len() + (head.stride() - head.len()) as usize;
            gathered.resize(padded, 0);
        } else {
            let at = offset + (RECORD_HEADER + record.meta.len()) as u64;
            self.parts.push((at, Part::Body(record.body.clone())));
        }
    }
}
