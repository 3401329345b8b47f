//! Local files of the stories: made under a seed, compared with what came back.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Bytes that repeat nowhere soon and depend on the seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut x = Dice::new(seed);
    while out.len() < len {
        out.extend_from_slice(&x.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Numbers that depend on a seed alone.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// A tree with all that files can be: `files` of them up to 60 kB, one of several chunks, odd names,
/// an empty folder and an empty file, symlinks (one that leads nowhere), modes, old times.
pub fn make_tree(root: &Path, files: u64) {
    std::fs::create_dir_all(root.join("deep/er/est")).unwrap();
    std::fs::create_dir(root.join("empty folder")).unwrap();
    std::fs::write(root.join("empty file"), b"").unwrap();
    let mut dice = Dice::new(files);
    for i in 0..files {
        let dir = root.join(["", "deep", "deep/er", "deep/er/est"][(i % 4) as usize]);
        let len = [10, 4096, 4097, 60_000][(dice.below(4)) as usize];
        std::fs::write(dir.join(format!("file-{i:04}.bin")), noise(i + 1, dice.below(len) as usize)).unwrap();
    }
    std::fs::write(root.join("deep/big"), noise(77, (9 << 20) + 12_345)).unwrap();
    for name in [
        &b"with space and 'quote' and \"double\""[..],
        "Grüße 日本 🎉".as_bytes(),
        b"-rf",
        b"line\nbreak",
        b"back\\slash*?[x]",
        b"not \xff\xfe text",
    ] {
        std::fs::write(root.join("deep/er").join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let run = root.join("run.sh");
    std::fs::write(&run, b"#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o751)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::options().write(true).open(&run).unwrap().set_modified(old).unwrap();
    symlink("deep/er", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
}

/// Asserts that two trees are the same: names, kinds, contents, modes, times, targets.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (a, b) = (std::fs::symlink_metadata(one), std::fs::symlink_metadata(other));
    let (Ok(a), Ok(b)) = (a, b) else { panic!("{} or {} is missing", one.display(), other.display()) };
    let at = one.display();
    assert_eq!(a.file_type(), b.file_type(), "kind of {at}");
    if a.is_symlink() {
        assert_eq!(std::fs::read_link(one).unwrap(), std::fs::read_link(other).unwrap(), "target of {at}");
        return;
    }
    assert_eq!(a.mode() & 0o7777, b.mode() & 0o7777, "mode of {at}");
    assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()), "time of {at}");
    if a.is_file() {
        assert!(std::fs::read(one).unwrap() == std::fs::read(other).unwrap(), "content of {at}");
        return;
    }
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(one), names(other), "names in {at}");
    for name in names(one) {
        assert_same(&one.join(&name), &other.join(&name));
    }
}

/// Files below a folder, however deep.
pub fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut stack = vec![dir.to_path_buf()];
    while let Some(dir) = stack.pop() {
        // A folder of a server that runs may go at any moment.
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) { stack.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    files
}

/// The files below a folder that contain these bytes.
pub fn holding(dir: &Path, what: &[u8]) -> Vec<std::path::PathBuf> {
    let finder = memchr::memmem::Finder::new(what);
    files_below(dir).into_iter().filter(|f| std::fs::read(f).is_ok_and(|bytes| finder.find(&bytes).is_some())).collect()
}
