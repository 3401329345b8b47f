//! A simulated file system that forgets what was not synced.
//!
//! The disk outlives the programs that use it: each start of a host gets a handle of its own
//! ([`SimDisk::handle`]), and with the end of that life (a crash, a kill) the handle, its open files
//! and its locks are dead. Contents survive as [`super::content`] says. Names (created, renamed,
//! removed) are durable with [`Disk::sync_dir`] of the folder; before that a loss of power keeps or
//! undoes each of them by chance, a rename as a whole. Folders are durable when made, as
//! [`Disk::create_dir_all`] promises.

use super::content::Content;
use super::{Life, generator};
use crate::{Disk, File, Open, Space};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Capacity of a new disk: 1 TiB.
const CAPACITY: u64 = 1 << 40;

/// The disk of one host. Cheap to clone; all clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    life: Life,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files()).finish()
    }
}

impl SimDisk {
    /// An empty disk. Seed and name decide what its crashes do.
    pub fn new(seed: u64, name: &str) -> Self {
        let state = State {
            rng: generator(seed, name, "disk"),
            capacity: CAPACITY,
            failing: false,
            sync_fails_in: None,
            operations: 0,
            crash_at: None,
            cut: false,
            next: 1,
            files: BTreeMap::new(),
            folders: [PathBuf::new(), PathBuf::from("/")].into(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
        };
        SimDisk { life: Life::new(), state: Arc::new(Mutex::new(state)) }
    }

    /// The disk as the program that runs now uses it: dead after the next crash or kill.
    pub fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(self.mounted())
    }

    fn mounted(&self) -> Mounted {
        Mounted { disk: SimDisk { life: self.life.renewed(), state: self.state.clone() } }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for an operation of a program: only while that program lives.
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if self.life.is_over() {
            return Err(gone());
        }
        if state.failing { Err(failed()) } else { Ok(state) }
    }

    /// Whether the sync that a program that lives is about to do fails.
    fn sync_fails(&self) -> bool {
        let mut state = self.state();
        if self.life.is_over() || state.failing {
            return !self.life.is_over();
        }
        let left = state.sync_fails_in.take();
        state.sync_fails_in = left.and_then(|left| left.checked_sub(1));
        left == Some(0)
    }

    /// Counts an operation that changed something; at the chosen one the power goes.
    fn changed(&self, state: &mut State) -> io::Result<()> {
        state.operations += 1;
        if state.crash_at != Some(state.operations) {
            return Ok(());
        }
        state.crash();
        state.cut = true;
        self.life.end();
        Err(gone())
    }

    /// Power is lost: what was not synced is kept or lost by chance. All handles are dead.
    pub fn crash(&self) {
        let mut state = self.state();
        self.life.end();
        state.crash();
    }

    /// Power is lost after so many more changing operations (0: after the next), in the middle of
    /// whatever runs then. A [`super::World`] then stops the host.
    pub fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + 1 + operations);
    }

    /// Takes [`SimDisk::crash_after`] back.
    pub fn crash_never(&self) {
        self.state().crash_at = None;
    }

    /// The program ends but the operating system does not: nothing is lost, locks are free.
    pub fn kill(&self) {
        let mut state = self.state();
        self.life.end();
        state.close_all();
    }

    /// Whether the power was lost by [`SimDisk::crash_after`] since this was last asked.
    pub(super) fn take_cut(&self) -> bool {
        std::mem::take(&mut self.state().cut)
    }

    /// Whether the life of those who got handles now is over.
    pub(super) fn life(&self) -> Life {
        self.life.renewed()
    }

    /// Changing operations so far (writes, syncs, creations, renames, …).
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes that its files take up.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Sets the size of the disk in bytes; what is there stays, even where that is more.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Lets the next sync fail after so many more that work. What it was to make durable of a file stays visible until
    /// the next loss of power, and no later sync makes it durable.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().sync_fails_in = Some(syncs);
    }

    /// Lets every operation fail (or work again). A sync that fails is as with [`SimDisk::fail_sync_after`].
    pub fn set_failing(&self, failing: bool) {
        self.state().failing = failing;
    }

    /// Takes the disk out and puts an empty one in. Whoever ran on it must be stopped before.
    pub fn wipe(&self) {
        let mut state = self.state();
        self.life.end();
        state.crash_at = None;
        state.files.clear();
        state.names.clear();
        state.durable.clear();
        state.pending.clear();
        state.folders = [PathBuf::new(), PathBuf::from("/")].into();
    }

    /// Bit rot: turns over one bit of the byte at an offset.
    pub fn flip(&self, path: impl AsRef<Path>, offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(&plain(path.as_ref())?)?;
        let there = state.file(id)?.content.flip(offset);
        if there { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Bad sectors: reads that touch the range fail from now on, until the file is removed.
    pub fn damage(&self, path: impl AsRef<Path>, range: Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(&plain(path.as_ref())?)?;
        state.file(id)?.damaged.push(range);
        Ok(())
    }

    /// All files with their lengths, sorted by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let length = |id| state.files.get(id).map_or(0, |f| f.content.len());
        state.names.iter().map(|(path, id)| (path.clone(), length(id))).collect()
    }

    /// The bytes of a file as the running program sees them.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let id = state.find(&plain(path.as_ref())?)?;
        let content = &state.file(id)?.content;
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }
}

fn failed() -> io::Error {
    io::Error::other("simulated disk failure")
}

fn gone() -> io::Error {
    io::Error::other("the simulated host has lost its power")
}

/// A path without `.`; `..` is refused.
fn plain(path: &Path) -> io::Result<PathBuf> {
    let parts = path.components().filter(|c| !matches!(c, Component::CurDir));
    if path.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(parts.collect())
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// A change of names that is not durable yet.
enum Naming {
    Create { path: PathBuf, id: u64 },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, id: u64 },
}

impl Naming {
    /// The folder whose sync makes it durable.
    fn folder(&self) -> &Path {
        match self {
            Naming::Create { path, .. } | Naming::Remove { path } => folder(path),
            Naming::Rename { to, .. } => folder(to),
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Naming::Create { path, id } => drop(names.insert(path, id)),
            Naming::Remove { path } => drop(names.remove(&path)),
            Naming::Rename { from, to, id } => {
                names.remove(&from);
                names.insert(to, id);
            }
        }
    }
}

#[derive(Default)]
struct Stored {
    content: Content,
    /// Open handles.
    open: u32,
    locked: bool,
    damaged: Vec<Range<u64>>,
}

struct State {
    rng: ChaCha8Rng,
    capacity: u64,
    failing: bool,
    sync_fails_in: Option<u64>,
    operations: u64,
    crash_at: Option<u64>,
    cut: bool,
    next: u64,
    files: BTreeMap<u64, Stored>,
    folders: BTreeSet<PathBuf>,
    /// As the running system sees them.
    names: BTreeMap<PathBuf, u64>,
    /// As they are on the platters.
    durable: BTreeMap<PathBuf, u64>,
    /// From the one to the other, oldest first.
    pending: Vec<Naming>,
}

impl State {
    fn find(&self, path: &Path) -> io::Result<u64> {
        if self.folders.contains(path) {
            return Err(ErrorKind::IsADirectory.into());
        }
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn file(&mut self, id: u64) -> io::Result<&mut Stored> {
        self.files.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn create(&mut self, path: PathBuf) -> io::Result<u64> {
        if !self.folders.contains(folder(&path)) {
            return Err(ErrorKind::NotFound.into());
        }
        let id = self.next;
        self.next += 1;
        self.files.insert(id, Stored::default());
        self.names.insert(path.clone(), id);
        self.pending.push(Naming::Create { path, id });
        Ok(id)
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.iter().filter(|(id, f)| f.open > 0 || named.contains(id)).map(|(_, f)| f.content.space()).sum()
    }

    /// Makes sure of room for a range of a file.
    fn room(&mut self, id: u64, range: Range<u64>) -> io::Result<()> {
        let missing = self.file(id)?.content.missing(range);
        if missing > 0 && self.used() + missing > self.capacity { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Drops files that no name and no handle can reach any more.
    fn sweep(&mut self) {
        let mut named: BTreeSet<u64> = self.names.values().chain(self.durable.values()).copied().collect();
        named.extend(self.pending.iter().filter_map(|n| match n {
            Naming::Create { id, .. } | Naming::Rename { id, .. } => Some(*id),
            Naming::Remove { .. } => None,
        }));
        self.files.retain(|id, f| f.open > 0 || named.contains(id));
    }

    fn close_all(&mut self) {
        for file in self.files.values_mut() {
            file.open = 0;
            file.locked = false;
        }
        self.sweep();
    }

    fn crash(&mut self) {
        self.crash_at = None;
        // Some crashes lose all, some nothing, most something.
        let keep = [0, 32, 128, 224, 256][self.rng.next_u32() as usize % 5];
        for naming in std::mem::take(&mut self.pending) {
            if self.rng.next_u32() % 256 < keep {
                naming.apply(&mut self.durable);
            }
        }
        self.names = self.durable.clone();
        self.close_all();
        for file in self.files.values_mut() {
            file.content.crash(&mut self.rng, keep);
        }
    }
}

/// The disk as one life of a host sees it.
struct Mounted {
    disk: SimDisk,
}

impl Mounted {
    fn opened(&self, state: &mut State, id: u64, lock: bool) -> io::Result<Arc<dyn File>> {
        let file = state.file(id)?;
        file.open += 1;
        file.locked |= lock;
        Ok(Arc::new(SimFile { disk: self.disk.clone(), id, lock }))
    }
}

impl Disk for Mounted {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let path = plain(path)?;
        let mut state = self.disk.live()?;
        let id = match (state.find(&path), how) {
            (Ok(_), Open::New) => return Err(ErrorKind::AlreadyExists.into()),
            (Ok(id), _) => id,
            (Err(e), Open::OrCreate | Open::New) if e.kind() == ErrorKind::NotFound => {
                let id = state.create(path)?;
                self.disk.changed(&mut state)?;
                id
            }
            (Err(e), _) => return Err(e),
        };
        self.opened(&mut state, id, false)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        let mut state = self.disk.live()?;
        if path.ancestors().any(|a| state.names.contains_key(a)) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if state.folders.contains(&path) {
            return Ok(());
        }
        state.folders.extend(path.ancestors().map(Path::to_path_buf));
        self.disk.changed(&mut state)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = plain(path)?;
        let state = self.disk.live()?;
        if !state.folders.contains(&path) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = |p: &&PathBuf| p.parent() == Some(&path);
        let names = state.names.keys().chain(&state.folders).filter(inside);
        let mut names: Vec<String> = names.filter_map(|p| Some(p.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        let mut state = self.disk.live()?;
        state.find(&path)?;
        state.names.remove(&path);
        state.pending.push(Naming::Remove { path });
        self.disk.changed(&mut state)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (plain(from)?, plain(to)?);
        let mut state = self.disk.live()?;
        let id = state.find(&from)?;
        if state.folders.contains(&to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !state.folders.contains(folder(&to)) {
            return Err(ErrorKind::NotFound.into());
        }
        if from == to {
            return Ok(());
        }
        state.names.remove(&from);
        state.names.insert(to.clone(), id);
        state.pending.push(Naming::Rename { from, to, id });
        self.disk.changed(&mut state)
    }

    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        let path = plain(path)?;
        let state = self.disk.live()?;
        Ok(state.names.contains_key(&path) || state.folders.contains(&path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = plain(path)?;
        if self.disk.sync_fails() {
            return Err(failed());
        }
        let mut state = self.disk.live()?;
        if !state.folders.contains(&path) {
            return Err(ErrorKind::NotFound.into());
        }
        let mut later = Vec::new();
        for naming in std::mem::take(&mut state.pending) {
            if naming.folder() != path {
                later.push(naming);
                continue;
            }
            if let Naming::Rename { from, .. } = &naming {
                // What led to the old name, in another folder, must not bring it back.
                later.retain(|n| !matches!(n, Naming::Create { path, .. } | Naming::Rename { to: path, .. } if path == from));
            }
            naming.apply(&mut state.durable);
        }
        state.pending = later;
        state.sweep();
        self.disk.changed(&mut state)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let path = plain(path)?;
        let state = self.disk.live()?;
        if !state.names.contains_key(&path) && !state.folders.contains(&path) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Space { total: state.capacity, free: state.capacity.saturating_sub(state.used()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let path = plain(path)?;
        let mut state = self.disk.live()?;
        let id = match state.find(&path) {
            Ok(id) => id,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let id = state.create(path)?;
                self.disk.changed(&mut state)?;
                id
            }
            Err(e) => return Err(e),
        };
        if state.file(id)?.locked {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.opened(&mut state, id, true)
    }
}

/// An open file of one life of a host.
struct SimFile {
    disk: SimDisk,
    id: u64,
    lock: bool,
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimFile({})", self.id)
    }
}

impl SimFile {
    /// Changes the content, after making sure of room for a range of it.
    fn change(&self, room: Range<u64>, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let mut state = self.disk.live()?;
        state.room(self.id, room)?;
        change(&mut state.file(self.id)?.content);
        self.disk.changed(&mut state)
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.live()?;
        let file = state.file(self.id)?;
        let end = offset + buffer.len() as u64;
        if file.damaged.iter().any(|d| d.start < end && offset < d.end) {
            return Err(io::Error::other("simulated bad sector"));
        }
        Ok(file.content.read(buffer, offset))
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.change(offset..offset + buffer.len() as u64, |content| content.write(buffer, offset))?;
        Ok(buffer.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.sync_fails() {
            self.disk.state().file(self.id)?.content.forget();
            return Err(failed());
        }
        self.change(0..0, Content::sync)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(0..0, |content| content.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.live()?.file(self.id)?.content.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(0..len, |content| {
            content.set_len(len.max(content.len()));
            content.reserve(0..len);
        })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(0..0, |content| content.punch(offset..offset.saturating_add(len)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        // At the end of a life everything was closed.
        if self.disk.life.is_over() {
            return;
        }
        if let Ok(file) = state.file(self.id) {
            file.open = file.open.saturating_sub(1);
            file.locked &= !self.lock;
            if file.open == 0 {
                state.sweep();
            }
        }
    }
}
