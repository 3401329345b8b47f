//! A disk on which the files under one folder fail when told to.

use env::{Disk, Env, File, Open, Space};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

const NONE: u8 = 0;
const FULL: u8 = 1;
const PANIC: u8 = 2;
const ALWAYS: u8 = 3;

/// What goes wrong, and where.
#[derive(Clone, Default)]
pub struct Faults {
    trouble: Arc<AtomicU8>,
    folder: Arc<Mutex<PathBuf>>,
}

impl Faults {
    /// The real world, but for its disk.
    pub fn env(&self) -> Env {
        let mut env = env::real::env();
        env.disk = Arc::new(FaultyDisk { disk: env.disk.clone(), faults: self.clone() });
        env
    }

    /// Nothing under a folder can be written any more.
    pub fn fill(&self, folder: &Path) {
        *self.folder.lock().unwrap() = folder.into();
        self.trouble.store(FULL, Ordering::Relaxed);
    }

    /// The next write under a folder panics.
    pub fn panic_once(&self, folder: &Path) {
        *self.folder.lock().unwrap() = folder.into();
        self.trouble.store(PANIC, Ordering::Relaxed);
    }

    /// Every write under a folder panics.
    pub fn panic_always(&self, folder: &Path) {
        *self.folder.lock().unwrap() = folder.into();
        self.trouble.store(ALWAYS, Ordering::Relaxed);
    }

    /// All is well again.
    pub fn mend(&self) {
        self.trouble.store(NONE, Ordering::Relaxed);
    }

    /// Whether it is still to come.
    pub fn is_armed(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) != NONE
    }

    fn before_write(&self, path: &Path) -> io::Result<()> {
        if !self.is_armed() || !path.starts_with(&*self.folder.lock().unwrap()) {
            return Ok(());
        }
        match self.trouble.compare_exchange(PANIC, NONE, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) | Err(ALWAYS) => panic!("of the test's own"),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

struct FaultyDisk {
    disk: Arc<dyn Disk>,
    faults: Faults,
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn File>,
    path: PathBuf,
    faults: Faults,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults")
    }
}

impl File for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.faults.before_write(&self.path)?;
        self.file.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.before_write(&self.path)?;
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.faults.before_write(&self.path)?;
        self.file.allocate(len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, how)?;
        Ok(Arc::new(FaultyFile { file, path: path.into(), faults: self.faults.clone() }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.read_dir(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.try_exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.lock(path)
    }
}
