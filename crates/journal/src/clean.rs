//! Whether the last process that had the journal open closed it, with all that it wrote surely on the disk.
//!
//! ```text
//! DIR/clean = "SKJCLN1\0" 8 ‖ journal id 16 ‖ last segment 8 ‖ its end 8 ‖ CRC32C of all before 4
//! ```
//! Integers are little-endian. The mark is made by a close and goes with the next opening, before anything is
//! appended. Where there is none, a sync may have failed, after which the operating system can have in memory only
//! what it takes for written (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020): what is read
//! then is written again.

use crate::Error;
use crate::format::JournalId;
use env::{DiskExt, Env};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKJCLN1\0";

fn encoded(journal: &JournalId, segment: u64, end: u64) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], journal, &segment.to_le_bytes(), &end.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Marks a journal that is about to be closed: all up to the end of its last segment is durable.
pub(crate) fn mark(env: &Env, dir: &Path, journal: &JournalId, segment: u64, end: u64) -> Result<(), Error> {
    let path = dir.join("clean");
    env.disk.replace(&path, &encoded(journal, segment, end)).map_err(|e| Error::io(&path, e))
}

/// The mark of the last close, which there is no more after this.
pub(crate) struct Mark(Option<Vec<u8>>);

impl Mark {
    /// Takes it away.
    pub fn take(env: &Env, dir: &Path) -> Result<Mark, Error> {
        let path = dir.join("clean");
        let io = |e| Error::io(&path, e);
        if !env.disk.try_exists(&path).map_err(io)? {
            return Ok(Mark(None));
        }
        let bytes = env.disk.read(&path).map_err(io)?;
        env.disk.remove_file(&path).and_then(|()| env.disk.sync_dir(dir)).map_err(io)?;
        Ok(Mark(Some(bytes)))
    }

    /// Whether it says so of a segment up to an end.
    pub fn vouches_for(&self, journal: &JournalId, segment: u64, end: u64) -> bool {
        self.0.as_ref().is_some_and(|bytes| *bytes == encoded(journal, segment, end))
    }
}
