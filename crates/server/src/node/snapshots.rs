//! Encrypted snapshots of the catalog that a lone coordinator leaves here. The node can open none of
//! them; it keeps the newest two of each owner, of at most three owners (a coordinator that was restored
//! is another one), and gives them to whoever proves the owner's key.
//!
//! ```text
//! DIR/catalog-snapshots/TIME-OWNER.snap    time 16 hex digits, owner's public key 64; first folder only
//!                       TIME-OWNER.part    one that is on its way
//! ```

use super::state::State;
use bytes::Bytes;
use env::{Disk, FileExt, Open};
use model::{Error, Kind, PublicKey, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use wire::snapshot::{GetSnapshotRequest, GetSnapshotResponse, PutSnapshotRequest};

/// Snapshots kept of one owner.
const KEPT: usize = 2;
/// Owners of whom any are kept: those with the newest ones.
const OWNERS: usize = 3;
/// Longest part.
pub(crate) const PART: usize = 2 << 20;

impl State {
    fn snapshots(&self) -> Result<PathBuf> {
        let first = self.devices.first().ok_or_else(|| Error::unavailable("this node has no folder"))?;
        Ok(first.dir.join("catalog-snapshots"))
    }

    /// Takes a part of a snapshot.
    pub async fn put_snapshot(&self, request: PutSnapshotRequest, body: Bytes) -> Result<()> {
        if body.len() > PART {
            return Err(Error::invalid("a part of a snapshot is too long"));
        }
        let (disk, dir) = (self.env.disk.clone(), self.snapshots()?);
        self.env.blocking(move || put(&*disk, &dir, &request, &body)).await
    }

    /// A part of a snapshot for its owner.
    pub async fn get_snapshot(&self, owner: &PublicKey, request: GetSnapshotRequest) -> Result<(GetSnapshotResponse, Bytes)> {
        let (disk, dir, owner) = (self.env.disk.clone(), self.snapshots()?, *owner);
        self.env.blocking(move || get(&*disk, &dir, &owner, &request)).await
    }
}

fn failed(e: std::io::Error) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Insufficient } else { Kind::Unavailable };
    Error::new(kind, format!("a snapshot of the catalog cannot be kept: {e}"))
}

fn name(time_ms: u64, owner: &PublicKey) -> String {
    let owner: String = owner.0.iter().map(|b| format!("{b:02x}")).collect();
    format!("{time_ms:016x}-{owner}")
}

/// Time and owner of a whole snapshot, by its name.
fn parse(file: &str) -> Option<(u64, String)> {
    let (time, owner) = file.strip_suffix(".snap")?.split_once('-')?;
    let sound = time.len() == 16 && owner.len() == 64 && owner.bytes().all(|b| b.is_ascii_hexdigit());
    Some((u64::from_str_radix(time, 16).ok().filter(|_| sound)?, owner.into()))
}

fn put(disk: &dyn Disk, dir: &Path, request: &PutSnapshotRequest, body: &[u8]) -> Result<()> {
    disk.create_dir_all(dir).map_err(failed)?;
    let end = request.offset.saturating_add(body.len() as u64);
    // However large the catalog is: most of the room is for shards.
    if end > disk.space(dir).map_err(failed)?.free / 4 {
        return Err(Error::insufficient("there is too little room for a snapshot of the catalog"));
    }
    let name = name(request.time_ms, &request.owner);
    let part = dir.join(format!("{name}.part"));
    let file = disk.open(&part, Open::OrCreate).map_err(failed)?;
    if request.offset == 0 {
        file.set_len(0).map_err(failed)?;
    } else if file.len().map_err(failed)? != request.offset {
        return Err(Error::conflict("this part of a snapshot does not follow the one before"));
    }
    file.write_all_at(body, request.offset).map_err(failed)?;
    if request.last {
        file.sync_data().map_err(failed)?;
        disk.rename(&part, &dir.join(format!("{name}.snap"))).map_err(failed)?;
        disk.sync_dir(dir).map_err(failed)?;
        prune(disk, dir)?;
    }
    Ok(())
}

/// Removes what is older than what is kept, and parts of transfers that stopped.
fn prune(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let files = disk.read_dir(dir).map_err(failed)?;
    let mut of: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (time, owner) in files.iter().filter_map(|f| parse(f)) {
        of.entry(owner).or_default().insert(time);
    }
    let mut owners: Vec<(u64, String)> = of.iter().map(|(owner, times)| (times.last().copied().unwrap_or(0), owner.clone())).collect();
    owners.sort();
    let owners: BTreeSet<String> = owners.into_iter().rev().take(OWNERS).map(|(_, owner)| owner).collect();
    for file in files {
        let kept = match parse(&file) {
            Some((time, owner)) => {
                let newer = of.get(&owner).map_or(0, |times| times.iter().filter(|t| **t > time).count());
                owners.contains(&owner) && newer < KEPT
            }
            None => !file.ends_with(".part"),
        };
        if !kept {
            disk.remove_file(&dir.join(&file)).map_err(failed)?;
        }
    }
    Ok(())
}

fn get(disk: &dyn Disk, dir: &Path, owner: &PublicKey, request: &GetSnapshotRequest) -> Result<(GetSnapshotResponse, Bytes)> {
    let none = || Error::not_found("this node has no snapshot of the catalog for this recovery key");
    let files = disk.read_dir(dir).map_err(|_| none())?;
    let mine = |file: &String| parse(file).filter(|(time, _)| *file == format!("{}.snap", name(*time, owner))).map(|(time, _)| time);
    let time_ms = files.iter().filter_map(mine).filter(|time| request.time_ms.is_none_or(|t| t == *time)).max().ok_or_else(none)?;
    let file = disk.open(&dir.join(format!("{}.snap", name(time_ms, owner))), Open::Existing).map_err(|_| none())?;
    let len = file.len().map_err(failed)?;
    let mut bytes = vec![0; (len.saturating_sub(request.offset) as usize).min(PART)];
    file.read_exact_at(&mut bytes, request.offset).map_err(failed)?;
    Ok((GetSnapshotResponse { time_ms, len }, bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: PublicKey = PublicKey([5; 32]);

    fn store(disk: &dyn Disk, dir: &Path, owner: PublicKey, time_ms: u64) -> Result<()> {
        put(disk, dir, &PutSnapshotRequest { owner, time_ms, offset: 0, last: false }, b"some")?;
        put(disk, dir, &PutSnapshotRequest { owner, time_ms, offset: 4, last: true }, b" bytes")
    }

    fn held(disk: &dyn Disk, dir: &Path, owner: PublicKey, time_ms: Option<u64>) -> Option<(u64, Bytes)> {
        get(disk, dir, &owner, &GetSnapshotRequest { time_ms, offset: 0 }).ok().map(|(head, bytes)| (head.time_ms, bytes))
    }

    #[test]
    fn the_newest_two_of_an_owner_are_kept_and_given_to_it_alone() {
        let env = env::real::env();
        let dir = tempfile::tempdir().unwrap();
        let (disk, dir) = (&*env.disk, dir.path());
        for time in [10, 30, 20, 40] {
            store(disk, dir, OWNER, time).unwrap();
        }
        assert_eq!(held(disk, dir, OWNER, None), Some((40, Bytes::from_static(b"some bytes"))));
        assert_eq!(held(disk, dir, OWNER, Some(30)).map(|(t, _)| t), Some(30));
        assert_eq!(held(disk, dir, OWNER, Some(20)), None);
        assert_eq!(held(disk, dir, PublicKey([6; 32]), None), None);
        // Half a snapshot is none, and goes with the next whole one.
        put(disk, dir, &PutSnapshotRequest { owner: OWNER, time_ms: 50, offset: 0, last: false }, b"half").unwrap();
        let gap = put(disk, dir, &PutSnapshotRequest { owner: OWNER, time_ms: 50, offset: 9, last: true }, b"x");
        assert_eq!(gap.unwrap_err().kind, Kind::Conflict);
        assert_eq!(held(disk, dir, OWNER, None).map(|(t, _)| t), Some(40));
        // Another coordinator's do not push these out, only the fourth's.
        for owner in 6..9 {
            assert!(held(disk, dir, OWNER, None).is_some());
            store(disk, dir, PublicKey([owner; 32]), 100 + u64::from(owner)).unwrap();
        }
        assert_eq!(held(disk, dir, OWNER, None), None);
        assert_eq!(disk.read_dir(dir).unwrap().len(), 3);
    }
}
