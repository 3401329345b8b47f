//! Reading a segment at open: by its footer where there is a sound one, else record by record.
//!
//! A scan goes on behind bad bytes to look for more records. If one of them was written when the
//! bad bytes were already durable (its `synced` mark lies above them), then they had been
//! acknowledged: they are corruption, only they are set aside, and the scan goes on. If there is
//! none, everything from the bad bytes on was never acknowledged: a torn tail.

use crate::format::{self, ALIGN, HEADER, Header, JournalId, PAGE, RECORD_MAGIC, TRAILER};
use crate::{Error, Position, Replayed};
use env::{File, FileExt};
use std::ops::Range;
use std::path::Path;

const WINDOW: usize = 1 << 20;

/// What was found in a segment.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Sealed with a sound footer.
    pub sealed: bool,
    /// Records handed to the visitor.
    pub records: u64,
    /// Where the good part ends (aligned): where a footer starts or is to be written.
    pub end: u64,
    /// Bytes behind `end` that are not zero.
    pub torn: u64,
    /// Ranges set aside.
    pub corrupt: Vec<Range<u64>>,
    /// Footer entries of what was found by scanning.
    pub entries: Vec<u8>,
}

/// Reads one segment and shows its records to `visit` in order.
pub(crate) fn read_segment(
    file: &dyn File,
    path: &Path,
    journal: &JournalId,
    segment: u64,
    visit: &mut dyn FnMut(Replayed) -> Result<(), Error>,
) -> Result<Scan, Error> {
    let mut window = Window { file, path, len: file.len().map_err(|e| Error::io(path, e))?, start: 0, bytes: Vec::new() };
    if let Some((named, owner)) = format::decode_page(window.get(0, PAGE)?)
        && (named != segment || owner != *journal)
    {
        // A whole segment of somebody else: nothing of it is ours.
        let len = window.len;
        return Ok(Scan { end: len, corrupt: vec![0..len], ..Scan::default() });
    }
    match read_footer(&mut window, journal, segment, visit)? {
        Some(scan) => Ok(scan),
        None => scan(&mut window, journal, segment, visit),
    }
}

fn read_footer(
    window: &mut Window,
    journal: &JournalId,
    segment: u64,
    visit: &mut dyn FnMut(Replayed) -> Result<(), Error>,
) -> Result<Option<Scan>, Error> {
    let Some(at) = window.len.checked_sub(TRAILER as u64) else { return Ok(None) };
    let trailer = window.get(at, TRAILER as u64)?.to_vec();
    let Some(end) = format::entries_len(&trailer).and_then(|len| at.checked_sub(len)).filter(|end| *end >= PAGE) else { return Ok(None) };
    let mut entries = vec![0; (at - end) as usize];
    window.file.read_exact_at(&mut entries, end).map_err(|e| Error::io(window.path, e))?;
    let Some(list) = format::decode_footer(journal, segment, &entries, &trailer, end) else { return Ok(None) };
    for e in &list {
        visit(Replayed { position: e.position, kind: e.kind, meta: e.meta, body_len: e.body_len })?;
    }
    Ok(Some(Scan { sealed: true, records: list.len() as u64, end, ..Scan::default() }))
}

fn scan(
    window: &mut Window,
    journal: &JournalId,
    segment: u64,
    visit: &mut dyn FnMut(Replayed) -> Result<(), Error>,
) -> Result<Scan, Error> {
    let mut out = Scan { end: PAGE, ..Scan::default() };
    let mut at = PAGE;
    loop {
        if let Some(header) = sound(window, journal, segment, at)? {
            let meta = window.get(at + HEADER as u64, u64::from(header.meta_len))?;
            let position = Position { segment, offset: at, len: header.len() as u32 };
            visit(Replayed { position, kind: header.kind, meta, body_len: header.body_len })?;
            format::push_entry(&mut out.entries, at, header.kind, meta, header.body_len);
            out.records += 1;
            at = format::align(at + header.len());
            out.end = at;
            continue;
        }
        // Bad from here. The next sound record, and whether any later one vouches for `at`.
        let mut next = None;
        let mut look = at + ALIGN;
        let mut vouched = false;
        while let Some(found) = window.find(look)? {
            look = found + ALIGN;
            if let Some(header) = sound(window, journal, segment, found)? {
                next = next.or(Some(found));
                    if header.synced > at {
                    vouched = true;
                    break;
                }
                look = format::align(found + header.len());
            }
        }
        match next {
            Some(next) if vouched => {
                out.corrupt.push(at..next);
                at = next;
            }
            _ => {
                out.torn = window.last_nonzero(at)?.map_or(0, |last| last + 1 - at);
                return Ok(out);
            }
        }
    }
}

/// The header of a record at `at`, if header, meta and body are all sound.
fn sound(window: &mut Window, journal: &JournalId, segment: u64, at: u64) -> Result<Option<Header>, Error> {
    let bytes = window.get(at, HEADER as u64)?.to_vec();
    let Some(header) = Header::decode(&bytes) else { return Ok(None) };
    if header.segment != segment || header.len() > window.len.saturating_sub(at) || u32::try_from(header.len()).is_err() {
        return Ok(None);
    }
    if !header.holds(journal, &bytes, window.get(at + HEADER as u64, u64::from(header.meta_len))?) {
        return Ok(None);
    }
    let (mut crc, mut from) = (0, at + HEADER as u64 + u64::from(header.meta_len));
    let end = at + header.len();
    while from < end {
        let part = window.get(from, (end - from).min(WINDOW as u64))?;
        crc = crc32c::crc32c_append(crc, part);
        from += part.len().max(1) as u64;
    }
    Ok((crc == header.body_crc).then_some(header))
}

/// A file seen through a buffer.
struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to `len` (at most a MiB) bytes from `at`; fewer only at the end of the file.
    fn get(&mut self, at: u64, len: u64) -> Result<&[u8], Error> {
        let end = at.saturating_add(len).min(self.len);
        let at = at.min(end);
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let want = (self.len - at).min(WINDOW as u64) as usize;
            self.bytes.resize(want, 0);
            self.start = at;
            if let Err(e) = self.file.read_exact_at(&mut self.bytes, at) {
                self.bytes.clear();
                return Err(Error::io(self.path, e));
            }
        }
        let from = (at - self.start) as usize;
        Ok(self.bytes.get(from..from + (end - at) as usize).unwrap_or_default())
    }

    /// The next place from `at` (aligned) on that begins like a record.
    fn find(&mut self, mut at: u64) -> Result<Option<u64>, Error> {
        loop {
            // What is buffered first: a hit must not cost another read.
            let buffered = (self.start + self.bytes.len() as u64).saturating_sub(at.max(self.start));
            let part = self.get(at, if at >= self.start && buffered >= HEADER as u64 { buffered } else { WINDOW as u64 })?;
            if part.len() < HEADER {
                return Ok(None);
            }
            match part.chunks_exact(ALIGN as usize).position(|c| c.starts_with(&RECORD_MAGIC)) {
                Some(i) => return Ok(Some(at + i as u64 * ALIGN)),
                None => at += part.len() as u64 & !(ALIGN - 1),
            }
        }
    }

    fn last_nonzero(&mut self, mut at: u64) -> Result<Option<u64>, Error> {
        let mut last = None;
        while at < self.len {
            let part = self.get(at, WINDOW as u64)?;
            if let Some(i) = part.iter().rposition(|b| *b != 0) {
                last = Some(at + i as u64);
            }
            at += part.len().max(1) as u64;
        }
        Ok(last)
    }
}
