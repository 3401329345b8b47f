//! What the servers hold: every file of every server is searched for pieces of what was stored, its
//! names, and the password. The same search over the originals finds them, or it would prove nothing.

use super::Item;
use super::sample::CANARY;
use super::tell::Tell;
use crate::context::Context;
use crate::{local, units};
use env::{FileExt, Open};
use memchr::memmem::Finder;
use model::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Length of a piece of content that is searched for.
const PIECE: usize = 24;
/// Most files from which a piece is taken, and most names.
const PIECES: usize = 16;
/// Shortest name that is searched for: shorter ones occur by chance.
const NAME_MIN: usize = 8;

/// Searches, and shows a line of what is there.
pub async fn look(cx: &Context, dir: &Path, items: &[Item], password: &str, tell: &Tell) -> Result<()> {
    let tops: Vec<PathBuf> = items.iter().map(|i| i.local.clone()).collect();
    let (dir, password) = (dir.to_path_buf(), password.as_bytes().to_vec());
    let own_sample = tops.iter().any(|t| t.starts_with(&dir));
    let disk = cx.env.disk.clone();
    let found = cx
        .env
        .blocking(move || {
            let mut contents = pieces(&*disk, &tops)?;
            let mut others = names(&tops)?;
            if own_sample {
                contents.push(CANARY.as_bytes().to_vec());
            }
            let control = search(&originals(&tops)?, &contents)?;
            others.push(password);
            let secrets: Vec<Vec<u8>> = contents.iter().chain(&others).cloned().collect();
            let servers = search(&servers(&dir)?, &secrets)?;
            let sight = sight(&*disk, &tops, &dir)?;
            Ok::<_, Error>((contents.len(), secrets.len(), control, servers, sight))
        })
        .await?;
    let (contents, secrets, control, servers, sight) = found;
    if control.found.len() < contents {
        return Err(Error::invalid("the search does not find what is there, so it proves nothing"));
    }
    if let Some((path, _)) = servers.found.first() {
        return Err(Error::corrupt(format!("{} holds plaintext", path.display())));
    }
    if let Some((plain, sealed)) = sight {
        tell.detail(&format!("{:<10} {}", "your file", cx.out.dim(&hexdump(&plain))));
        tell.detail(&format!("{:<10} {}", "node-1", cx.out.dim(&hexdump(&sealed))));
    }
    let text = format!(
        "{secrets} pieces of content, names and the password: none is in {} files ({}) of the servers",
        servers.files,
        units::size(servers.bytes)
    );
    tell.ok(&text, json!({ "secrets": secrets, "searched_files": servers.files, "searched_bytes": servers.bytes, "found": 0 }));
    Ok(())
}

/// What a search came to.
#[derive(Debug, Default)]
struct Found {
    files: u64,
    bytes: u64,
    /// File and number of what was found in it, each number once.
    found: Vec<(PathBuf, usize)>,
}

fn search(files: &[PathBuf], secrets: &[Vec<u8>]) -> Result<Found> {
    let finders: Vec<Finder<'_>> = secrets.iter().map(Finder::new).collect();
    let overlap = secrets.iter().map(Vec::len).max().unwrap_or(0);
    let mut result = Found::default();
    for path in files {
        result.files += 1;
        result.bytes += local::scan(path, overlap, |part| {
            for (number, finder) in finders.iter().enumerate() {
                if result.found.iter().all(|(_, n)| *n != number) && finder.find(part).is_some() {
                    result.found.push((path.clone(), number));
                }
            }
        })?;
    }
    Ok(result)
}

/// Files (not symlinks) that were stored.
fn originals(tops: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for top in tops {
        files.extend(local::files_below(top)?.into_iter().filter(|f| f.symlink_metadata().is_ok_and(|m| m.is_file())));
    }
    Ok(files)
}

/// All files of all servers, their logs with them.
fn servers(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let names = ["coordinator", "node-1", "node-2", "node-3", "node-4", "logs"];
    for top in names.iter().map(|name| dir.join(name)).filter(|top| top.exists()) {
        files.extend(local::files_below(&top)?);
    }
    Ok(files)
}

/// A piece from the middle of each of the largest files, where it says anything.
fn pieces(disk: &dyn env::Disk, tops: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut files: Vec<(u64, PathBuf)> = originals(tops)?.into_iter().filter_map(|f| Some((f.symlink_metadata().ok()?.len(), f))).collect();
    files.sort_by(|a, b| b.cmp(a));
    let mut pieces = Vec::new();
    for (len, path) in files.iter().take(PIECES) {
        let Some(offset) = (len / 3).checked_sub(PIECE as u64) else { continue };
        let piece = read_at(disk, path, offset, PIECE)?;
        // Rows of the same byte are everywhere, and prove nothing.
        if distinct(&piece) >= 4 {
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

/// Names long enough to be no accident.
fn names(tops: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for file in originals(tops)? {
        let name = local::last_name(&file)?;
        if name.len() >= NAME_MIN && !names.contains(&name) && names.len() < PIECES {
            names.push(name);
        }
    }
    Ok(names)
}

fn distinct(bytes: &[u8]) -> usize {
    let mut sorted = bytes.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len()
}

/// Sixteen bytes as they were stored, and sixteen as node 1 has them.
fn sight(disk: &dyn env::Disk, tops: &[PathBuf], dir: &Path) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let readable = |bytes: &[u8]| bytes.iter().all(|b| (0x20..0x7f).contains(b)) && distinct(bytes) >= 6;
    let random = |bytes: &[u8]| distinct(bytes) >= 13;
    let mut plain = None;
    for file in originals(tops)? {
        // Text says more to the eye than the inside of a photo.
        match first_line(disk, &file, &[6, 0], readable)? {
            Some(line) => {
                plain = Some(line);
                break;
            }
            None => plain = plain.or(first_line(disk, &file, &[0], |_| true)?),
        }
    }
    let mut files: Vec<(u64, PathBuf)> =
        local::files_below(&dir.join("node-1"))?.into_iter().filter_map(|f| Some((f.symlink_metadata().ok()?.len(), f))).collect();
    files.sort_by(|a, b| b.cmp(a));
    for (len, file) in files {
        let offsets: Vec<u64> = (1..=64).map(|i| i * 4096).filter(|o| o + 16 < len).collect();
        if let (Some(plain), Some(sealed)) = (&plain, first_line(disk, &file, &offsets, random)?) {
            return Ok(Some((plain.clone(), sealed)));
        }
    }
    Ok(None)
}

fn first_line(disk: &dyn env::Disk, path: &Path, offsets: &[u64], wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
    let len = path.symlink_metadata().map_err(|e| local::io_error(path, &e))?.len();
    for offset in offsets.iter().filter(|o| **o + 16 <= len) {
        let line = read_at(disk, path, *offset, 16)?;
        if wanted(&line) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn read_at(disk: &dyn env::Disk, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = disk.open(path, Open::Existing).and_then(|f| f.read_exact_at(&mut bytes, offset));
    read.map(|()| bytes).map_err(|e| local::io_error(path, &e))
}

/// `4c 69 …  Dear reader, …`.
fn hexdump(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text: String = bytes.iter().map(|b| if (0x20..0x7f).contains(b) { char::from(*b) } else { '·' }).collect();
    format!("{}  {text}", hex.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_what_is_there_and_only_that() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        local::write(&one, b"abc the canary sings xyz").unwrap();
        local::write(&two, &[7; 5000]).unwrap();
        let found = search(&[one.clone(), two.clone()], &[b"canary sings".to_vec(), b"nightingale".to_vec()]).unwrap();
        assert_eq!((found.files, found.bytes, found.found), (2, 5024, vec![(one, 0)]));
    }

    #[test]
    fn pieces_that_would_be_found_anywhere_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        local::write(&dir.path().join("zeros"), &[0; 9000]).unwrap();
        local::write(&dir.path().join("short"), b"short").unwrap();
        let text: Vec<u8> = (0..2000u32).flat_map(|n| format!("{n} ").into_bytes()).collect();
        local::write(&dir.path().join("numbers.txt"), &text).unwrap();
        let env = env::real::env();
        let tops = [dir.path().to_path_buf()];
        assert_eq!(pieces(&*env.disk, &tops).unwrap().len(), 1);
        assert_eq!(names(&tops).unwrap(), [b"numbers.txt".to_vec()]);
    }

    #[test]
    fn bytes_are_shown_with_their_text() {
        assert_eq!(hexdump(b"Hi\x00\xff"), "48 69 00 ff  Hi··");
    }
}
