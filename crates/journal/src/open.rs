//! Opening: which records are there, where the end is, and what is damaged.

use crate::clean::Mark;
use crate::format::{self, FOOTER, Head, JournalId, Listed, RECORD_HEADER, RECORD_MAGIC, SEGMENT_HEADER, TRAILER};
use crate::inventory::Inventory;
use crate::segment::Segments;
use crate::writer::Appender;
use crate::{Config, Corrupt, Error, OpenReport, Position, Replayed};
use env::{DiskExt, Env, File, FileExt, Open};
use std::path::Path;
use std::sync::Arc;

/// An opened journal.
pub(crate) struct Opened {
    pub segments: Segments,
    pub appender: Appender,
    pub report: OpenReport,
}

/// Most bytes read at once while scanning.
const WINDOW: usize = 4 << 20;

pub(crate) fn open(env: &Env, config: &Config, mut visit: impl FnMut(Replayed<'_>) -> Result<(), Error>) -> Result<Opened, Error> {
    let dir = &config.dir;
    let io = |e| Error::io(dir, e);
    env.disk.create_dir_all(dir).map_err(io)?;
    let lock = env.disk.lock(&dir.join("lock")).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::Foreign { path: dir.display().to_string(), why: "in use by another process" },
        _ => Error::io(dir, e),
    })?;
    let journal = journal_id(env, dir)?;
    let mut ids: Vec<u64> = env.disk.read_dir(dir).map_err(io)?.iter().filter_map(|n| Segments::id_of(n)).collect();
    ids.sort_unstable();
    let (inventory, checked) = Inventory::open(env, dir, journal, &ids)?;
    // Numbers are used once, also those of lost ones.
    let newest = ids.last().copied().max(checked.missing.last().copied());
    let segments = Segments::new(env.clone(), dir.clone(), journal, lock, inventory);
    let mut report = OpenReport { segments: ids.len(), missing: checked.missing, list_damaged: checked.damaged, ..OpenReport::default() };
    let mark = Mark::take(env, dir)?;
    let mut sequence = 0;
    let mut tail = None;
    let mut given_up = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        let path = segments.path(*id);
        let file = env.disk.open(&path, Open::Existing).map_err(|e| Error::io(&path, e))?;
        let mut scan = Scan { file: &file, path: &path, journal: &journal, id: *id, report: &mut report, visit: &mut visit };
        let last = i + 1 == ids.len();
        let damaged = scan.report.corrupt.len();
        let Some(found) = scan.segment(last)? else {
            drop(file);
            report.segments -= 1;
            segments.inventory().strike(&[*id])?;
            env.disk.remove_file(&path).and_then(|()| env.disk.sync_dir(dir)).map_err(|e| Error::io(&path, e))?;
            continue;
        };
        sequence = sequence.max(found.next_sequence);
        // A segment that the disk refused to write was given up; a sealed one has its footer.
        let active = last && !found.sealed;
        segments.set(*id, file.clone(), found.end, !active);
        if active {
            tail = Some((*id, file, found.end, found.listed));
        } else if !found.sealed {
            // Where something is damaged, that is to be found again.
            let is_good = report.corrupt.len() == damaged;
            given_up.push((*id, file, found.end, is_good.then_some(found.listed)));
        }
    }
    let next_id = newest.map_or(1, |id| id + 1);
    let mut appender = Appender::new(segments.clone(), config.segment_size, next_id, sequence);
    for (id, file, end, listed) in given_up {
        appender.settle(id, file, end, listed)?;
    }
    let appender = match tail {
        Some((id, file, end, listed)) => appender.resume(id, file, end, listed, !mark.vouches_for(&journal, id, end))?,
        None => appender,
    };
    Ok(Opened { segments, appender, report })
}

/// The journal's id, made with the first opening.
fn journal_id(env: &Env, dir: &Path) -> Result<JournalId, Error> {
    let path = dir.join("journal");
    if env.disk.try_exists(&path).map_err(|e| Error::io(&path, e))? {
        let bytes = env.disk.read(&path).map_err(|e| Error::io(&path, e))?;
        let id = format::read_segment_header(&bytes).filter(|(_, segment, _)| *segment == 0);
        return id
            .map(|(id, ..)| id)
            .ok_or(Error::Foreign { path: path.display().to_string(), why: "no journal of a version that is known" });
    }
    let id = env.random();
    env.disk.replace(&path, &format::segment_header(&id, 0, 0)).map_err(|e| Error::io(&path, e))?;
    Ok(id)
}

/// What was found in a segment.
struct Found {
    /// Where the next record goes.
    end: u64,
    next_sequence: u64,
    sealed: bool,
    /// Its records, for the footer to come (where there is none yet).
    listed: Vec<Listed>,
}

struct Scan<'a, V> {
    file: &'a Arc<dyn File>,
    path: &'a Path,
    journal: &'a JournalId,
    id: u64,
    report: &'a mut OpenReport,
    visit: &'a mut V,
}

impl<V: FnMut(Replayed<'_>) -> Result<(), Error>> Scan<'_, V> {
    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).map_err(|e| Error::io(self.path, e))?;
        Ok(bytes)
    }

    fn show(&mut self, record: &Listed) -> Result<(), Error> {
        let len = (RECORD_HEADER + record.meta.len()) as u64 + u64::from(record.body_len);
        let position = Position { segment: self.id, offset: record.offset, len: u32::try_from(len).unwrap_or(u32::MAX) };
        self.report.records += 1;
        (self.visit)(Replayed { position, kind: record.kind, meta: &record.meta, body_len: record.body_len })
    }

    /// What is in a segment; `None` where it was being made when the power went.
    fn segment(&mut self, last: bool) -> Result<Option<Found>, Error> {
        let len = self.file.len().map_err(|e| Error::io(self.path, e))?;
        let header = if len >= SEGMENT_HEADER as u64 { self.read(0, SEGMENT_HEADER)? } else { Vec::new() };
        let good = format::read_segment_header(&header).filter(|(journal, id, _)| (journal, *id) == (self.journal, self.id));
        let Some((.., first)) = good else {
            if format::is_later_segment(&header) {
                return Err(self.later("a segment of a version that this software does not know"));
            }
            // The last one may have been torn while it was made: then nothing was ever in it.
            if last && self.written(0, len)? == 0 {
                return Ok(None);
            }
            self.report.corrupt.push(Corrupt { segment: self.id, range: 0..len });
            return Ok(Some(Found { end: len, next_sequence: 0, sealed: true, listed: Vec::new() }));
        };
        if let Some((records, next_sequence)) = self.footer(len)? {
            for record in &records {
                self.show(record)?;
            }
            return Ok(Some(Found { end: len, next_sequence, sealed: true, listed: Vec::new() }));
        }
        self.records(len, first).map(Some)
    }

    /// The footer of a sealed segment; `None` when there is none that verifies.
    fn footer(&self, len: u64) -> Result<Option<(Vec<Listed>, u64)>, Error> {
        if len < (SEGMENT_HEADER + RECORD_HEADER + TRAILER) as u64 {
            return Ok(None);
        }
        let Some(at) = format::read_trailer(&self.read(len - TRAILER as u64, TRAILER)?) else { return Ok(None) };
        let Some(room) = (len - TRAILER as u64).checked_sub(at).filter(|r| *r >= RECORD_HEADER as u64) else { return Ok(None) };
        let bytes = self.read(at, room as usize)?;
        let Some(head) = Head::peek_any(&bytes, self.id).filter(|h| h.kind == FOOTER && h.meta_len == 0 && h.len() <= room) else {
            return Ok(None);
        };
        let body = &bytes[RECORD_HEADER..head.len() as usize];
        if !Head::verify(self.journal, &bytes[..RECORD_HEADER], &[]) || crc32c::crc32c(body) != head.body_crc {
            return Ok(None);
        }
        self.known(&bytes)?;
        Ok(Listed::read_all(body).map(|records| (records, head.sequence + 1)))
    }

    fn later(&self, why: &'static str) -> Error {
        Error::Foreign { path: self.path.display().to_string(), why }
    }

    /// Refuses what a later version has written: it is neither torn nor damaged.
    fn known(&self, header: &[u8]) -> Result<(), Error> {
        let why = "a record of a version that this software does not know";
        if Head::is_known(header) { Ok(()) } else { Err(self.later(why)) }
    }

    /// A valid record at an offset: its head, meta, and whether the body is good too.
    fn record(&self, offset: u64, len: u64) -> Result<Option<(Head, Vec<u8>, bool)>, Error> {
        if offset + RECORD_HEADER as u64 > len {
            return Ok(None);
        }
        let header = self.read(offset, RECORD_HEADER)?;
        let Some(head) = Head::peek_any(&header, self.id).filter(|h| offset + h.len() <= len) else { return Ok(None) };
        let meta = self.read(offset + RECORD_HEADER as u64, head.meta_len as usize)?;
        if !Head::verify(self.journal, &header, &meta) {
            return Ok(None);
        }
        self.known(&header)?;
        let mut crc = 0;
        let start = offset + RECORD_HEADER as u64 + u64::from(head.meta_len);
        let mut done = 0u64;
        while done < u64::from(head.body_len) {
            let part = (u64::from(head.body_len) - done).min(WINDOW as u64) as usize;
            crc = crc32c::crc32c_append(crc, &self.read(start + done, part)?);
            done += part as u64;
        }
        Ok(Some((head, meta, crc == head.body_crc)))
    }

    /// Every record, one after another; `first` is the first one's sequence.
    fn records(&mut self, len: u64, first: u64) -> Result<Found, Error> {
        let mut found = Found { end: SEGMENT_HEADER as u64, next_sequence: first, sealed: false, listed: Vec::new() };
        loop {
            match self.record(found.end, len)? {
                Some((head, meta, true)) => {
                    if head.kind == FOOTER {
                        // Its trailer did not make it: sealed all the same.
                        found.sealed = true;
                        found.next_sequence = head.sequence + 1;
                        found.end += head.stride();
                        return Ok(found);
                    }
                    let listed = Listed { offset: found.end, kind: head.kind, body_len: head.body_len, meta };
                    self.show(&listed)?;
                    found.listed.push(listed);
                    found.next_sequence = head.sequence + 1;
                    found.end += head.stride();
                }
                bad => {
                    let from = found.end + bad.as_ref().filter(|(h, ..)| h.len() > 0).map_or(format::ALIGN, |(h, ..)| h.stride());
                    let expected = found.next_sequence;
                    let Some((next, head)) = self.next_valid(from, len)? else {
                        self.report.torn_bytes += self.written(found.end, len)?;
                        return Ok(found);
                    };
                    if head.sequence.saturating_sub(u64::from(head.in_batch)) <= expected {
                        // Same batch, never acknowledged.
                        self.report.torn_bytes += self.written(found.end, len)?;
                        return Ok(found);
                    }
                    self.report.corrupt.push(Corrupt { segment: self.id, range: found.end..next });
                    found.end = next;
                }
            }
        }
    }

    /// The next offset at which a whole valid record begins.
    fn next_valid(&self, from: u64, len: u64) -> Result<Option<(u64, Head)>, Error> {
        let mut at = from.next_multiple_of(format::ALIGN);
        while at + RECORD_HEADER as u64 <= len {
            let window = self.read(at, ((len - at) as usize).min(WINDOW))?;
            let hits = (0..window.len()).step_by(format::ALIGN as usize).filter(|i| window.get(*i..i + 4) == Some(&RECORD_MAGIC[..]));
            for hit in hits {
                if let Some((head, _, true)) = self.record(at + hit as u64, len)? {
                    return Ok(Some((at + hit as u64, head)));
                }
            }
            at += (window.len() as u64).next_multiple_of(format::ALIGN);
        }
        Ok(None)
    }

    /// Bytes from an offset up to the last that is not zero.
    fn written(&self, from: u64, len: u64) -> Result<u64, Error> {
        let (mut at, mut end) = (from, from);
        while at < len {
            let window = self.read(at, ((len - at) as usize).min(WINDOW))?;
            if let Some(last) = window.iter().rposition(|b| *b != 0) {
                end = at + last as u64 + 1;
            }
            at += window.len() as u64;
        }
        Ok(end - from)
    }
}
