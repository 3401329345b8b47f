//! Which segments there should be: so that one that is gone as a whole is noticed, which the others
//! cannot tell. A segment is listed when it is made, before anything is in it, and struck off before it goes.
//!
//! ```text
//! DIR/segments = "SKJINV1\0" 8 ‖ journal id 16 ‖ number of segments 8 ‖ ids 8 each, ascending ‖ CRC32C of all before 4
//! ```
//! Integers are little-endian. A journal of a version without this file gets one when it is opened.

use crate::Error;
use crate::format::JournalId;
use env::{DiskExt, Env};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SKJINV1\0";
const HEAD: usize = 32;

/// What was found wrong at opening.
pub(crate) struct Checked {
    /// Segments that are listed and are not there.
    pub missing: Vec<u64>,
    /// The list itself is no good: any may be missing.
    pub damaged: bool,
}

/// The list, and where it is kept.
pub(crate) struct Inventory {
    env: Env,
    path: PathBuf,
    journal: JournalId,
    ids: BTreeSet<u64>,
}

impl Inventory {
    /// Reads the list in a folder, beside the segments that were found there. Nothing is written when
    /// something is wrong: it is found wrong again until it is given up.
    pub fn open(env: &Env, dir: &Path, journal: JournalId, found: &[u64]) -> Result<(Self, Checked), Error> {
        let path = dir.join("segments");
        let mut inventory = Inventory { env: env.clone(), path, journal, ids: found.iter().copied().collect() };
        let is_there = env.disk.try_exists(&inventory.path).map_err(|e| Error::io(&inventory.path, e))?;
        let listed = match is_there {
            true => {
                let bytes = env.disk.read(&inventory.path).map_err(|e| Error::io(&inventory.path, e))?;
                match read(&bytes, &journal) {
                    Some(listed) => listed,
                    None => return Ok((inventory, Checked { missing: Vec::new(), damaged: true })),
                }
            }
            false => BTreeSet::new(),
        };
        let missing: Vec<u64> = listed.difference(&inventory.ids).copied().collect();
        inventory.ids.extend(&listed);
        if inventory.ids != listed || !is_there {
            match inventory.rewrite() {
                // What is there can be read all the same; the next segment that is made is listed with all others.
                Err(e @ Error::Full { .. }) => tracing::warn!(error = %e, "the list of segments cannot be written"),
                other => other?,
            }
        }
        Ok((inventory, Checked { missing, damaged: false }))
    }

    /// A segment was made.
    pub fn list(&mut self, id: u64) -> Result<(), Error> {
        if !self.ids.insert(id) {
            return Ok(());
        }
        self.rewrite().inspect_err(|_| {
            self.ids.remove(&id);
        })
    }

    /// Whether a segment may stand in the list as it is on the disk, after it could not be written.
    pub fn may_list(&self, id: u64) -> bool {
        match self.env.disk.read(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(_) => true,
            Ok(bytes) => read(&bytes, &self.journal).is_none_or(|listed| listed.contains(&id)),
        }
    }

    /// Segments are about to go, or are given up as gone.
    pub fn strike(&mut self, ids: &[u64]) -> Result<(), Error> {
        self.ids.retain(|id| !ids.contains(id));
        self.rewrite()
    }

    /// Writes the list as it is known.
    pub fn rewrite(&self) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(HEAD + 8 * self.ids.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.journal);
        bytes.extend_from_slice(&(self.ids.len() as u64).to_le_bytes());
        self.ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        self.env.disk.replace(&self.path, &bytes).map_err(|e| Error::io(&self.path, e))
    }
}

fn read(bytes: &[u8], journal: &JournalId) -> Option<BTreeSet<u64>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let good = crc32c::crc32c(body) == u32::from_le_bytes(*crc) && body.starts_with(MAGIC) && body.get(8..24)? == journal;
    let count = u64::from_le_bytes(body.get(24..HEAD)?.try_into().ok()?);
    let (ids, rest) = body.get(HEAD..)?.as_chunks::<8>();
    let whole = good && rest.is_empty() && ids.len() as u64 == count && ids.is_sorted_by_key(|id| u64::from_le_bytes(*id));
    whole.then(|| ids.iter().map(|id| u64::from_le_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_the_list_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let env = env::real::env();
        let (mut inventory, found) = Inventory::open(&env, dir.path(), [7; 16], &[3, 4]).unwrap();
        assert!(found.missing.is_empty() && !found.damaged);
        inventory.list(9).unwrap();
        inventory.strike(&[3]).unwrap();
        let bytes = env.disk.read(&dir.path().join("segments")).unwrap();
        assert_eq!(read(&bytes, &[7; 16]), Some(BTreeSet::from([4, 9])));
        assert_eq!(read(&bytes, &[8; 16]), None);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(read(&bad, &[7; 16]), None, "byte {at}");
            assert_eq!(read(&bytes[..at], &[7; 16]), None, "cut at {at}");
        }
        // One that was made and not listed yet is listed when it is found; one that is gone stays listed.
        let (_, found) = Inventory::open(&env, dir.path(), [7; 16], &[4, 10]).unwrap();
        assert_eq!(found.missing, [9]);
        let (_, found) = Inventory::open(&env, dir.path(), [7; 16], &[4]).unwrap();
        assert_eq!(found.missing, [9, 10]);
        // A damaged list is told until somebody gives up what it may have listed.
        env.disk.replace(&dir.path().join("segments"), &bytes[1..]).unwrap();
        for _ in 0..2 {
            assert!(Inventory::open(&env, dir.path(), [7; 16], &[4]).unwrap().1.damaged);
        }
        let (mut inventory, _) = Inventory::open(&env, dir.path(), [7; 16], &[4]).unwrap();
        inventory.strike(&[]).unwrap();
        let (_, found) = Inventory::open(&env, dir.path(), [7; 16], &[4]).unwrap();
        assert!(found.missing.is_empty() && !found.damaged);
    }
}
