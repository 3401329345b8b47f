//! The segment files: names, open handles, reading, removal.

use crate::format::{Head, JournalId, RECORD_HEADER};
use crate::inventory::Inventory;
use crate::{Error, Extent, Position, SegmentInfo};
use bytes::Bytes;
use env::{Env, File, FileExt};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All segments of a journal. Clones share them.
#[derive(Clone)]
pub(crate) struct Segments(Arc<Inner>);

struct Inner {
    env: Env,
    dir: PathBuf,
    journal: JournalId,
    /// Held until the journal is closed, or nobody can reach it any more.
    lock: Mutex<Option<Arc<dyn File>>>,
    table: Mutex<Table>,
    inventory: Mutex<Inventory>,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Their lengths together.
    bytes: u64,
}

struct Entry {
    file: Arc<dyn File>,
    len: u64,
    sealed: bool,
}

impl Segments {
    pub fn new(env: Env, dir: PathBuf, journal: JournalId, lock: Arc<dyn File>, inventory: Inventory) -> Self {
        let (lock, inventory) = (Mutex::new(Some(lock)), Mutex::new(inventory));
        Segments(Arc::new(Inner { env, dir, journal, lock, table: Mutex::default(), inventory }))
    }

    /// What segments there should be.
    pub fn inventory(&self) -> MutexGuard<'_, Inventory> {
        self.0.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn journal(&self) -> &JournalId {
        &self.0.journal
    }

    pub fn env(&self) -> &Env {
        &self.0.env
    }

    pub fn dir(&self) -> &std::path::Path {
        &self.0.dir
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.0.dir.join(format!("{id:016x}.seg"))
    }

    /// The id in a segment's file name.
    pub fn id_of(name: &str) -> Option<u64> {
        let hex = name.strip_suffix(".seg").filter(|h| h.len() == 16)?;
        u64::from_str_radix(hex, 16).ok()
    }

    pub fn set(&self, id: u64, file: Arc<dyn File>, len: u64, sealed: bool) {
        let table = &mut *self.table();
        let before = table.entries.insert(id, Entry { file, len, sealed });
        table.bytes = table.bytes + len - before.map_or(0, |e| e.len);
    }

    pub fn grow(&self, id: u64, len: u64, sealed: bool) {
        let table = &mut *self.table();
        if let Some(entry) = table.entries.get_mut(&id) {
            table.bytes = table.bytes + len - std::mem::replace(&mut entry.len, len);
            entry.sealed = sealed;
        }
    }

    pub fn list(&self) -> Vec<SegmentInfo> {
        self.table().entries.iter().map(|(id, e)| SegmentInfo { id: *id, len: e.len, sealed: e.sealed }).collect()
    }

    pub fn extent(&self) -> Extent {
        let table = self.table();
        Extent { bytes: table.bytes, last: table.entries.last_key_value().map(|(_, e)| e.len) }
    }

    fn file(&self, id: u64, offset: u64) -> Result<Arc<dyn File>, Error> {
        self.table().entries.get(&id).map(|e| e.file.clone()).ok_or(Error::Corrupt { segment: id, offset })
    }

    fn read_at(&self, id: u64, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.file(id, offset)?.read_exact_at(&mut bytes, offset).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::Corrupt { segment: id, offset },
            _ => Error::io(&self.path(id), e),
        })?;
        Ok(bytes)
    }

    /// A record's meta and body, checked.
    pub fn read(&self, p: Position) -> Result<(Bytes, Bytes), Error> {
        let corrupt = || Error::Corrupt { segment: p.segment, offset: p.offset };
        let bytes = Bytes::from(self.read_at(p.segment, p.offset, p.len as usize)?);
        let head = Head::peek(&bytes, p.segment).filter(|h| h.len() == u64::from(p.len)).ok_or_else(corrupt)?;
        let body_at = RECORD_HEADER + head.meta_len as usize;
        let meta = bytes.slice(RECORD_HEADER..body_at);
        let body = bytes.slice(body_at..);
        let good = Head::verify(&self.0.journal, &bytes[..RECORD_HEADER], &meta) && crc32c::crc32c(&body) == head.body_crc;
        if good { Ok((meta, body)) } else { Err(corrupt()) }
    }

    /// A record's meta alone, checked.
    pub fn read_meta(&self, p: Position) -> Result<Bytes, Error> {
        let corrupt = || Error::Corrupt { segment: p.segment, offset: p.offset };
        let most = (RECORD_HEADER + usize::from(u16::MAX)).min(p.len as usize);
        // Most metas are short: one read of a few hundred bytes nearly always has all of it.
        let mut bytes = Bytes::from(self.read_at(p.segment, p.offset, most.min(1024))?);
        let head = Head::peek(&bytes, p.segment).filter(|h| h.len() == u64::from(p.len)).ok_or_else(corrupt)?;
        let end = RECORD_HEADER + head.meta_len as usize;
        if end > bytes.len() {
            bytes = self.read_at(p.segment, p.offset, end)?.into();
        }
        let meta = bytes.slice(RECORD_HEADER..end);
        if Head::verify(&self.0.journal, &bytes[..RECORD_HEADER], &meta) { Ok(meta) } else { Err(corrupt()) }
    }

    /// Bytes of a record's body, unchecked.
    pub fn read_range(&self, p: Position, range: Range<u32>) -> Result<Bytes, Error> {
        let corrupt = || Error::Corrupt { segment: p.segment, offset: p.offset };
        let header = self.read_at(p.segment, p.offset, RECORD_HEADER)?;
        let head = Head::peek(&header, p.segment).filter(|h| h.len() == u64::from(p.len)).ok_or_else(corrupt)?;
        if range.start > range.end || range.end > head.body_len {
            return Err(corrupt());
        }
        let at = p.offset + (RECORD_HEADER + head.meta_len as usize) as u64 + u64::from(range.start);
        Ok(self.read_at(p.segment, at, (range.end - range.start) as usize)?.into())
    }

    /// Gives the folder free for others. What is still read through old handles does no harm.
    pub fn unlock(&self) {
        drop(self.0.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Removes a sealed segment's file. `Closed` once the folder may be somebody else's.
    pub fn remove(&self, id: u64) -> Result<(), Error> {
        let lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            return Err(Error::Closed);
        }
        {
            let table = &mut *self.table();
            if table.entries.get(&id).is_none_or(|e| !e.sealed) {
                return Ok(());
            }
            table.bytes -= table.entries.remove(&id).map_or(0, |e| e.len);
        }
        // A full disk may have no room for a new list before the segment is gone.
        let struck = self.inventory().strike(&[id]);
        let path = self.path(id);
        self.0.env.disk.remove_file(&path).map_err(|e| Error::io(&path, e))?;
        self.0.env.disk.sync_dir(&self.0.dir).map_err(|e| Error::io(&self.0.dir, e))?;
        struck.or_else(|_| self.inventory().rewrite())
    }
}
