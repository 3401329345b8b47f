//! Files of this machine that are no server's: passwords typed into files, results written for the
//! user, the folders that `demo` compares. Not through `env::Disk`, which speaks for servers' disks.

#![allow(clippy::disallowed_methods)] // see above: the user's own files, in the real world only

use model::{Error, Kind, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A local error in words.
pub fn io_error(path: &Path, e: &std::io::Error) -> Error {
    let kind = match e.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        std::io::ErrorKind::AlreadyExists => Kind::Exists,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Insufficient,
        _ => Kind::Invalid,
    };
    Error::new(kind, format!("{}: {e}", path.display()))
}

/// A small text file.
pub fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| io_error(path, &e))
}

/// Makes a folder with its parents.
pub fn make_folders(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| io_error(path, &e))
}

/// Writes a new file that only its owner may read.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut f| f.write_all(contents)).map_err(|e| io_error(path, &e))
}

/// Writes a file.
pub fn write(path: &Path, contents: &[u8]) -> Result<()> {
    std::fs::write(path, contents).map_err(|e| io_error(path, &e))
}

/// Writes a file that was not there; `Exists` otherwise.
pub fn write_new(path: &Path, contents: &[u8]) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut f| f.write_all(contents)).map_err(|e| io_error(path, &e))
}

/// Removes a folder with everything in it.
pub fn remove_all(path: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(path)
}

/// Whether a folder has nothing in it, or is not there.
pub fn is_empty_or_absent(path: &Path) -> bool {
    std::fs::read_dir(path).map_or(!path.exists(), |mut entries| entries.next().is_none())
}

/// The name that a local path ends in, as bytes; through `.` and `..` to the real one.
pub fn last_name(path: &Path) -> Result<Vec<u8>> {
    if let Some(name) = path.file_name() {
        return Ok(name.as_bytes().to_vec());
    }
    let real = path.canonicalize().map_err(|e| io_error(path, &e))?;
    Ok(real.file_name().ok_or_else(|| Error::invalid(format!("{} has no name", path.display())))?.as_bytes().to_vec())
}

/// A path with one name more, given as bytes.
pub fn join(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(std::ffi::OsStr::from_bytes(name))
}

/// The file system that a path lies on (or its nearest parent that is there).
pub fn file_system(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|p| p.metadata().ok()).map(|m| m.dev())
}

/// The terminal, for a question and its answer.
pub fn open_terminal() -> std::io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// Puts a question to the terminal and reads a line.
pub fn ask_line(mut tty: File, question: &str) -> Result<String> {
    let failed = |e: std::io::Error| Error::invalid(format!("the terminal cannot be read: {e}"));
    tty.write_all(question.as_bytes()).and_then(|()| tty.flush()).map_err(failed)?;
    let mut line = String::new();
    let read = BufReader::new(tty).read_line(&mut line).map_err(failed)?;
    if read == 0 {
        return Err(Error::invalid("nothing was typed"));
    }
    line.truncate(line.trim_end_matches(['\n', '\r']).len());
    Ok(line)
}

/// All files below a folder (or the file itself), sorted; symlinks are not followed.
pub fn files_below(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_path_buf()];
    while let Some(path) = folders.pop() {
        let meta = path.symlink_metadata().map_err(|e| io_error(&path, &e))?;
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(|e| io_error(&path, &e))? {
                folders.push(entry.map_err(|e| io_error(&path, &e))?.path());
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// How a comparison came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    pub files: u64,
    pub bytes: u64,
    /// Paths that are not the same, with the reason.
    pub different: Vec<String>,
}

/// Compares a file or folder with another, byte for byte.
pub fn compare(one: &Path, other: &Path) -> Result<Compared> {
    let mut result = Compared::default();
    let relative = |top: &Path| -> Result<Vec<PathBuf>> {
        Ok(files_below(top)?.iter().filter_map(|p| p.strip_prefix(top).ok().map(Path::to_path_buf)).collect())
    };
    let (names, others) = (relative(one)?, relative(other)?);
    for extra in others.iter().filter(|n| !names.contains(n)) {
        result.different.push(format!("{} has come from nowhere", extra.display()));
    }
    for name in names {
        // `join("")` would add a slash, and a file is no folder.
        let (a, b) = if name.as_os_str().is_empty() { (one.into(), other.into()) } else { (one.join(&name), other.join(&name)) };
        let shown = if name.as_os_str().is_empty() { one.display().to_string() } else { name.display().to_string() };
        result.files += 1;
        match same(&a, &b) {
            Ok(Some(bytes)) => result.bytes += bytes,
            Ok(None) => result.different.push(format!("{shown} is not the same")),
            Err(e) => result.different.push(format!("{shown}: {e}")),
        }
    }
    Ok(result)
}

/// The number of bytes, where both files (or symlinks) are the same.
fn same(a: &Path, b: &Path) -> std::io::Result<Option<u64>> {
    if a.symlink_metadata()?.is_symlink() {
        return Ok((std::fs::read_link(a)? == std::fs::read_link(b)?).then_some(0));
    }
    let (mut a, mut b) = (BufReader::with_capacity(1 << 20, File::open(a)?), BufReader::with_capacity(1 << 20, File::open(b)?));
    let mut bytes = 0u64;
    loop {
        let (x, y) = (a.fill_buf()?, b.fill_buf()?);
        let n = x.len().min(y.len());
        if n == 0 {
            return Ok((x.len() == y.len()).then_some(bytes));
        }
        if x[..n] != y[..n] {
            return Ok(None);
        }
        a.consume(n);
        b.consume(n);
        bytes += n as u64;
    }
}

/// Calls `each` with the parts of a file, which overlap by `overlap` bytes, so that nothing shorter
/// hides on a border.
pub fn scan(path: &Path, overlap: usize, mut each: impl FnMut(&[u8])) -> Result<u64> {
    let failed = |e: std::io::Error| io_error(path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let mut buffer = vec![0u8; (1 << 20) + overlap];
    let (mut kept, mut total) = (0, 0u64);
    loop {
        let read = file.read(&mut buffer[kept..]).map_err(failed)?;
        if read == 0 {
            return Ok(total);
        }
        total += read as u64;
        let filled = kept + read;
        each(&buffer[..filled]);
        kept = overlap.min(filled);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_compared_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for top in [&a, &b] {
            make_folders(&top.join("sub")).unwrap();
            write(&top.join("sub/x"), b"one").unwrap();
            write(&top.join("y"), &[7; 3_000_000]).unwrap();
        }
        assert_eq!(compare(&a, &b).unwrap(), Compared { files: 2, bytes: 3_000_003, different: vec![] });
        write(&b.join("sub/x"), b"onf").unwrap();
        write(&b.join("z"), b"").unwrap();
        let different = compare(&a, &b).unwrap().different;
        assert_eq!(different, ["z has come from nowhere", "sub/x is not the same"]);
        assert_eq!(compare(&a.join("y"), &b.join("y")).unwrap().bytes, 3_000_000);
    }

    #[test]
    fn what_lies_across_a_border_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = vec![0u8; 3 << 20];
        for border in [1 << 20, (1 << 20) + 8, 2 << 20] {
            bytes[border - 3..border + 3].copy_from_slice(b"canary");
        }
        write(&path, &bytes).unwrap();
        let mut seen = false;
        let total = scan(&path, 8, |part| seen |= part.windows(6).any(|w| w == b"canary")).unwrap();
        assert_eq!((total, seen), (3 << 20, true));
    }
}
