//! What a job says: what goes where, how far it is, and what the user wants of it.
//!
//! ```text
//! job   = [version, created_ms, [top…], [item…], [destination name…], slash, several, options]
//! top   = [?name, folder: bool]                 one source as typed
//! item  = [top, [name below it…], path, kind, size, mtime_ns, mode, inode, ?link target, spooled]
//! state = [tries, next_ms, failed: bool, ?[kind, reason], ?[[place name…]…], retries seen, as it is: bool]
//! want  = [paused: bool, retries, as it is: bool]
//! now   = [bytes done, files done]
//! ```

use crate::local::{self, LocalItem, LocalKind, LocalReader};
use crate::path::RemotePath;
use crate::upload::{OnConflict, PutOptions};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::{Error, Kind, Policy, Result};
use seal::tree::{Attributes, Name};
use std::collections::BTreeSet;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncRead;

/// Version of the files.
const VERSION: u8 = 1;
/// Most files, folders and symlinks of one job: they are all in memory when it runs.
const ITEMS_MAX: usize = 100_000;

/// By what a source is known again: size, modification time (nanoseconds since 1970) and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub size: u64,
    pub mtime_ns: i64,
    pub inode: u64,
}

/// A source as typed.
pub enum JobSource {
    /// A file, symlink or folder. `path` is absolute.
    Path {
        /// Where it lies.
        path: PathBuf,
        /// Its name at the destination, when that is a folder; `None`: what lies in it goes there.
        name: Option<Vec<u8>>,
    },
    /// A stream, which is spooled.
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

/// A job to be added.
pub struct NewJob {
    /// What to store.
    pub sources: Vec<JobSource>,
    /// Where, as typed: which place that means is decided when the job is begun.
    pub destination: RemotePath,
    /// The destination was typed with a slash at the end.
    pub slash: bool,
    /// More than one source was typed.
    pub several: bool,
    /// Copy contents into the outbox, sealed.
    pub spool: bool,
    /// How to put.
    pub options: PutOptions,
}

/// A job that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its id.
    pub id: String,
    /// Files and symlinks.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobPhase {
    /// The agent is at it.
    Uploading,
    /// Its turn will come, or it will be tried again.
    Waiting,
    /// Until it is resumed.
    Paused,
    /// Until it is retried: see the reason.
    Failed,
    /// It belongs to another account.
    Foreign,
}

/// What `queue list` shows of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobInfo {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub phase: JobPhase,
    /// When it was added, milliseconds since 1970.
    pub created_ms: u64,
    /// Sources as typed.
    pub sources: Vec<String>,
    /// Destination as typed.
    pub destination: String,
    /// Files and symlinks in all, and how many of them are stored.
    pub files: (u64, u64),
    /// Bytes in all, and how many of them are stored.
    pub bytes: (u64, u64),
    /// Tries so far that ended early.
    pub tries: u32,
    /// When it is tried again, milliseconds since 1970.
    pub next_ms: Option<u64>,
    /// Why the last try ended.
    pub reason: Option<String>,
    /// Contents are spooled.
    pub spooled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Top {
    #[n(0)]
    name: Option<ByteVec>,
    #[n(1)]
    folder: bool,
    #[n(2)]
    shown: ByteVec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum ItemKind {
    #[n(0)]
    File,
    #[n(1)]
    Folder,
    #[n(2)]
    Symlink,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Item {
    #[n(0)]
    pub top: u32,
    #[n(1)]
    below: Vec<ByteVec>,
    #[n(2)]
    path: ByteVec,
    #[n(3)]
    kind: ItemKind,
    #[n(4)]
    pub size: u64,
    #[n(5)]
    mtime_ns: i64,
    #[n(6)]
    mode: u32,
    #[n(7)]
    inode: u64,
    #[n(8)]
    pub spooled: bool,
}

impl Item {
    fn of(top: u32, found: &LocalItem) -> Self {
        Item {
            top,
            below: found.remote.names().iter().map(|n| n.as_bytes().to_vec().into()).collect(),
            path: found.path.as_os_str().as_bytes().to_vec().into(),
            kind: match found.kind {
                LocalKind::File => ItemKind::File,
                LocalKind::Folder => ItemKind::Folder,
                LocalKind::Symlink(_) => ItemKind::Symlink,
            },
            size: found.size,
            mtime_ns: found.attributes.mtime_ns,
            mode: found.attributes.mode,
            inode: found.inode,
            spooled: false,
        }
    }

    pub fn of_stream(size: u64, now_ms: u64) -> Self {
        let mtime_ns = i64::try_from(now_ms).unwrap_or(0).saturating_mul(1_000_000);
        let path = Vec::new().into();
        Item { top: 0, below: Vec::new(), path, kind: ItemKind::File, size, mtime_ns, mode: 0o644, inode: 0, spooled: true }
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.path.to_vec()))
    }

    pub fn is_file(&self) -> bool {
        self.kind == ItemKind::File
    }

    pub fn is_folder(&self) -> bool {
        self.kind == ItemKind::Folder
    }

    pub fn attributes(&self) -> Attributes {
        Attributes { mode: self.mode, mtime_ns: self.mtime_ns, more: Vec::new() }
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { size: self.size, mtime_ns: self.mtime_ns, inode: self.inode }
    }

    pub fn is(&self, stamp: &Stamp) -> bool {
        self.stamp() == *stamp
    }

    /// Its place below the place of its source.
    pub fn remote(&self, tops: &[RemotePath]) -> Result<RemotePath> {
        let mut path = tops.get(self.top as usize).cloned().ok_or_else(|| Error::corrupt("a job in the outbox is damaged"))?;
        for name in &self.below {
            path = path.join(&Name::from_bytes(name)?);
        }
        Ok(path)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Options {
    #[n(0)]
    policy: Option<Policy>,
    #[n(1)]
    if_absent: bool,
    #[n(2)]
    if_version: Option<u64>,
    #[n(3)]
    allow_degraded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Job {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub created_ms: u64,
    #[n(2)]
    tops: Vec<Top>,
    #[n(3)]
    pub items: Vec<Item>,
    #[n(4)]
    destination: Vec<ByteVec>,
    #[n(5)]
    pub slash: bool,
    #[n(6)]
    pub several: bool,
    #[n(7)]
    options: Options,
}

/// A path as names.
pub(super) fn to_names(path: &RemotePath) -> Vec<ByteVec> {
    path.names().iter().map(|n| n.as_bytes().to_vec().into()).collect()
}

/// And back.
pub(super) fn from_names(names: &[ByteVec]) -> Result<RemotePath> {
    names.iter().try_fold(RemotePath::root(), |path, name| Ok(path.join(&Name::from_bytes(name)?)))
}

impl Job {
    pub fn new(
        created_ms: u64,
        tops: Vec<Top>,
        items: Vec<Item>,
        destination: &RemotePath,
        slash: bool,
        several: bool,
        options: PutOptions,
    ) -> Self {
        // What a job was first to write is never thrown away: conflicts are kept, as always there.
        let PutOptions { policy, if_absent, if_version, allow_degraded, on_conflict: _ } = options;
        let options = Options { policy, if_absent, if_version, allow_degraded };
        Job { version: VERSION, created_ms, tops, items, destination: to_names(destination), slash, several, options }
    }

    pub fn destination(&self) -> Result<RemotePath> {
        from_names(&self.destination)
    }

    pub fn options(&self) -> PutOptions {
        let Options { policy, if_absent, if_version, allow_degraded } = self.options.clone();
        PutOptions { policy, if_absent, if_version, allow_degraded, on_conflict: OnConflict::Keep }
    }

    /// Of each source its name and whether it is a folder.
    pub fn sources(&self) -> Vec<(Option<Vec<u8>>, bool)> {
        self.tops.iter().map(|t| (t.name.as_ref().map(|n| n.to_vec()), t.folder)).collect()
    }

    /// `Invalid` for a job of another version of the program.
    pub fn check(&self) -> Result<()> {
        if self.version == VERSION { Ok(()) } else { Err(Error::invalid("this job was queued by another version of the program")) }
    }
}

/// What the agent knows of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct State {
    /// Tries that ended early, since the last one that got somewhere.
    #[n(0)]
    pub tries: u32,
    #[n(1)]
    pub next_ms: u64,
    #[n(2)]
    pub failed: bool,
    #[n(3)]
    pub reason: Option<String>,
    /// Where the sources go: decided once.
    #[n(4)]
    pub places: Option<Vec<Vec<ByteVec>>>,
    /// Retries of the user's that were heard.
    #[n(5)]
    pub retries: u64,
    /// Sources are taken as they are.
    #[n(6)]
    pub as_is: bool,
}

/// What the user wants of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Want {
    #[n(0)]
    pub paused: bool,
    #[n(1)]
    pub retries: u64,
    #[n(2)]
    pub as_is: bool,
}

/// How far the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Now {
    #[n(0)]
    pub bytes: u64,
}

impl JobInfo {
    pub(super) fn foreign(id: String) -> Self {
        JobInfo {
            id,
            phase: JobPhase::Foreign,
            created_ms: 0,
            sources: Vec::new(),
            destination: String::new(),
            files: (0, 0),
            bytes: (0, 0),
            tries: 0,
            next_ms: None,
            reason: Some("it belongs to another account, or is damaged".into()),
            spooled: false,
        }
    }

    pub(super) fn of(id: String, job: &Job, state: &State, want: &Want, now: Option<Now>, done: &BTreeSet<u32>) -> Self {
        let items = || (0u32..).zip(&job.items);
        let (mut files, mut bytes) = ((0, 0), (0, 0));
        for (number, item) in items().filter(|(_, item)| !item.is_folder()) {
            let size = if item.is_file() { item.size } else { 0 };
            (files.0, bytes.0) = (files.0 + 1, bytes.0 + size);
            if done.contains(&number) {
                (files.1, bytes.1) = (files.1 + 1, bytes.1 + size);
            }
        }
        if let Some(now) = now {
            bytes.1 = bytes.1.max(now.bytes).min(bytes.0);
        }
        let failed = state.failed && want.retries <= state.retries;
        let phase = match (want.paused, failed, now) {
            (true, _, _) => JobPhase::Paused,
            (_, true, _) => JobPhase::Failed,
            (_, _, Some(_)) => JobPhase::Uploading,
            _ => JobPhase::Waiting,
        };
        JobInfo {
            id,
            phase,
            created_ms: job.created_ms,
            sources: job.tops.iter().map(|t| String::from_utf8_lossy(&t.shown).into_owned()).collect(),
            destination: job.destination().map(|d| d.to_string()).unwrap_or_default()
                + if job.slash && !job.destination.is_empty() { "/" } else { "" },
            files,
            bytes,
            tries: state.tries,
            next_ms: Some(state.next_ms).filter(|n| *n > 0 && phase == JobPhase::Waiting),
            reason: state.reason.clone(),
            spooled: job.items.iter().any(|i| i.spooled),
        }
    }
}

pub(super) type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// Looks at all sources. Blocking.
pub(super) fn collect(sources: Vec<JobSource>) -> Result<(Vec<Top>, Vec<Item>, Option<Stream>)> {
    let (mut tops, mut items, mut stream) = (Vec::new(), Vec::new(), None);
    for source in sources {
        let top = tops.len() as u32;
        match source {
            JobSource::Stream(s) => {
                stream = Some(s);
                tops.push(Top { name: None, folder: false, shown: b"-".to_vec().into() });
            }
            JobSource::Path { path, name } => {
                let (mut found, mut failed) = (Vec::new(), Vec::new());
                local::scan(&path, &RemotePath::root(), &mut found, &mut failed);
                if let Some((_, e)) = failed.into_iter().next() {
                    return Err(e);
                }
                let folder = found.first().is_some_and(|f| matches!(f.kind, LocalKind::Folder));
                items.extend(found.iter().map(|f| Item::of(top, f)));
                tops.push(Top { name: name.map(Into::into), folder, shown: path.as_os_str().as_bytes().to_vec().into() });
            }
        }
        if items.len() > ITEMS_MAX {
            return Err(
                Error::new(Kind::Insufficient, format!("more than {ITEMS_MAX} files in one job")).hint("queue its folders one by one")
            );
        }
    }
    if stream.is_some() && tops.len() > 1 {
        return Err(Error::invalid("a stream goes alone"));
    }
    Ok((tops, items, stream))
}

/// What lies at a local path now. Blocking.
pub(super) fn stamp(path: &Path) -> Result<Stamp> {
    let (size, mtime_ns, inode) = local::stamp_of(path)?;
    Ok(Stamp { size, mtime_ns, inode })
}

/// A source to be spooled, and what it is. Blocking.
pub(super) fn open_source(path: &Path) -> Result<(Arc<LocalReader>, Stamp)> {
    let reader = LocalReader::open(path)?;
    let (size, mtime_ns, inode) = reader.stamp()?;
    Ok((Arc::new(reader), Stamp { size, mtime_ns, inode }))
}

/// A file to be uploaded only if it is the one that was queued.
pub struct QueuedFile {
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
    pub(crate) attributes: Attributes,
}
