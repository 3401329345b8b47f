//! Files of the user's own machine. The one module of the client that touches them; it does not go
//! through `env::Disk`, which speaks for servers' disks (owner-only modes, no symlinks, no times).
//! Simulations and gateways do not use this module.

#![allow(clippy::disallowed_methods)]

use crate::path::RemotePath;
use model::{Error, Kind, Result};
use seal::tree::{Attributes, Name};
use std::fs::{File, FileTimes, Metadata};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A local error in words.
pub(crate) fn io_error(path: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::AlreadyExists => Kind::Exists,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Insufficient,
        _ => Kind::Invalid,
    };
    Error::new(kind, format!("{}: {e}", path.display()))
}

/// What a local path is.
pub(crate) enum LocalKind {
    File,
    Folder,
    Symlink(Vec<u8>),
}

/// One thing found by [`scan`].
pub(crate) struct LocalItem {
    pub path: PathBuf,
    pub remote: RemotePath,
    pub kind: LocalKind,
    pub size: u64,
    pub attributes: Attributes,
    pub inode: u64,
    /// What it must be still when it is read: size, modification time, inode.
    pub expected: Option<(u64, i64, u64)>,
}

impl LocalItem {
    /// A file that was looked at earlier.
    pub fn queued(path: PathBuf, remote: RemotePath, expected: (u64, i64, u64), attributes: Attributes) -> Self {
        let (size, _, inode) = expected;
        LocalItem { path, remote, kind: LocalKind::File, size, attributes, inode, expected: Some(expected) }
    }
}

/// Size, modification time and inode of what lies at a path; symlinks are not followed.
pub(crate) fn stamp_of(path: &Path) -> Result<(u64, i64, u64)> {
    let meta = path.symlink_metadata().map_err(|e| io_error(path, &e))?;
    Ok((meta.len(), attributes(&meta).mtime_ns, meta.ino()))
}

fn attributes(meta: &Metadata) -> Attributes {
    let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
    Attributes { mode: meta.mode() & 0o7777, mtime_ns, more: Vec::new() }
}

/// A path and, for folders, everything below it: folders before their contents, sorted by name.
/// What can be neither read nor stored (sockets, devices) comes back as a failure by its path.
pub(crate) fn scan(top: &Path, remote: &RemotePath, found: &mut Vec<LocalItem>, failed: &mut Vec<(String, Error)>) {
    let mut stack = vec![(top.to_path_buf(), remote.clone())];
    while let Some((path, remote)) = stack.pop() {
        let mut failure = |e: Error| failed.push((path.display().to_string(), e));
        let meta = match path.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) => {
                failure(io_error(&path, &e));
                continue;
            }
        };
        let (kind, size) = if meta.is_dir() {
            (LocalKind::Folder, 0)
        } else if meta.is_symlink() {
            match std::fs::read_link(&path) {
                Ok(target) => {
                    let target = target.as_os_str().as_bytes().to_vec();
                    let size = target.len() as u64;
                    (LocalKind::Symlink(target), size)
                }
                Err(e) => {
                    failure(io_error(&path, &e));
                    continue;
                }
            }
        } else if meta.is_file() {
            (LocalKind::File, meta.len())
        } else {
            failure(Error::invalid(format!("{}: neither a file, a folder nor a symlink", path.display())));
            continue;
        };
        if matches!(kind, LocalKind::Folder) {
            match children(&path) {
                Err(e) => failure(e),
                Ok(names) => {
                    for name in names.into_iter().rev() {
                        let child = path.join(std::ffi::OsStr::from_bytes(&name));
                        match Name::from_bytes(&name) {
                            Ok(name) => stack.push((child, remote.join(&name))),
                            Err(e) => failed.push((child.display().to_string(), e)),
                        }
                    }
                }
            }
        }
        found.push(LocalItem { attributes: attributes(&meta), path, remote, kind, size, inode: meta.ino(), expected: None });
    }
}

fn children(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io_error(dir, &e))? {
        names.push(entry.map_err(|e| io_error(dir, &e))?.file_name().as_bytes().to_vec());
    }
    names.sort();
    Ok(names)
}

/// A local file being read. Blocking.
pub(crate) struct LocalReader {
    file: File,
    path: PathBuf,
}

impl LocalReader {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| io_error(path, &e))?;
        Ok(LocalReader { file, path: path.to_path_buf() })
    }

    /// Exactly the bytes of a range; `Conflict` when the file has become shorter.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        self.file.read_exact_at(&mut buffer, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::conflict(format!("{} became shorter while it was read", self.path.display())),
            _ => io_error(&self.path, &e),
        })?;
        Ok(buffer)
    }

    /// Size, modification time and inode, to notice changes.
    pub fn stamp(&self) -> Result<(u64, i64, u64)> {
        let meta = self.file.metadata().map_err(|e| io_error(&self.path, &e))?;
        Ok((meta.len(), attributes(&meta).mtime_ns, meta.ino()))
    }
}

/// A file that appears under its name only when it is whole.
pub(crate) struct LocalWriter {
    file: File,
    part: PathBuf,
    target: PathBuf,
}

impl LocalWriter {
    /// Opens `.NAME.ID.part` beside the target, keeping what an earlier try has left there.
    pub fn open(target: &Path, id: &str) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::invalid(format!("{}: not the name of a file", target.display())))?;
        let mut part = std::ffi::OsString::from(".");
        part.push(std::ffi::OsStr::from_bytes(&name.as_bytes()[..name.len().min(200)]));
        part.push(format!(".{id}.part"));
        let part = target.with_file_name(part);
        let file =
            std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&part).map_err(|e| io_error(&part, &e))?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|e| io_error(&part, &e))?;
        Ok(LocalWriter { file, part, target: target.to_path_buf() })
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| io_error(&self.part, &e))
    }

    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| io_error(&self.part, &e))
    }

    /// Gives the whole file its size, mode, time and name. A symlink at the target is replaced, not
    /// followed.
    pub fn finish(self, size: u64, mode: u32, mtime_ns: i64) -> Result<()> {
        let part = |e: std::io::Error| io_error(&self.part, &e);
        self.file.set_len(size).map_err(part)?;
        set_attributes(&self.file, mode, mtime_ns).map_err(part)?;
        std::fs::rename(&self.part, &self.target).map_err(|e| io_error(&self.target, &e))
    }

    /// Removes what was written.
    pub fn discard(&self) {
        let _ = std::fs::remove_file(&self.part);
    }
}

/// Setuid and setgid do not come back from storage: they would be a stranger's right on this machine.
fn set_attributes(file: &File, mode: u32, mtime_ns: i64) -> std::io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o1777))?;
    file.set_times(FileTimes::new().set_modified(system_time(mtime_ns)))
}

fn system_time(ns: i64) -> SystemTime {
    let d = Duration::from_nanos(ns.unsigned_abs());
    let time = if ns >= 0 { SystemTime::UNIX_EPOCH.checked_add(d) } else { SystemTime::UNIX_EPOCH.checked_sub(d) };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Writes a small file under its name at once whole.
pub(crate) fn write_small(target: &Path, id: &str, bytes: &[u8], mode: u32, mtime_ns: i64) -> Result<()> {
    let mut writer = LocalWriter::open(target, id)?;
    writer.file.set_len(0).and_then(|()| writer.file.write_all(bytes)).map_err(|e| io_error(&writer.part, &e))?;
    writer.finish(bytes.len() as u64, mode, mtime_ns)
}

/// Makes a folder unless it is there. A symlink in its place is refused: what comes out of storage
/// never leads writes elsewhere.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::exists(format!("{} is there and is no folder", path.display()))),
        Err(_) => std::fs::create_dir(path).map_err(|e| io_error(path, &e)),
    }
}

/// Gives a folder its mode and time, after its contents were written.
pub(crate) fn finish_folder(path: &Path, mode: u32, mtime_ns: i64) -> Result<()> {
    let dir = File::open(path).map_err(|e| io_error(path, &e))?;
    set_attributes(&dir, mode | 0o700, mtime_ns).map_err(|e| io_error(path, &e))
}

/// Makes a symlink, replacing a file or symlink of that name.
pub(crate) fn make_symlink(target: &[u8], path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
        std::fs::remove_file(path).map_err(|e| io_error(path, &e))?;
    }
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path).map_err(|e| io_error(path, &e))
}
