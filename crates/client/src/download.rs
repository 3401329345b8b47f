//! Downloads: entries to local files and streams. A file appears under its name only when it is
//! whole and verified.

use crate::Progress;
use crate::connection::unexpected;
use crate::fetch;
use crate::local::{self, LocalWriter};
use crate::path::RemotePath;
use crate::session::Client;
use crate::transfer::Transfer;
use crate::tree::{Entry, EntryKind};
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use model::{Error, Result};
use seal::content::{Cut, Manifest};
use seal::tree::Content;
use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Files under way at once; memory bounds it further.
const FILES: usize = 32;
/// Chunks of one file under way at once; memory bounds it further.
const CHUNKS: usize = 12;
/// Chunks after which a large download's progress is made durable.
const MARK: u64 = 16;
/// Files of at least this many bytes keep a journal, to be resumed after an interruption.
const JOURNAL_MIN: u64 = 16 << 20;

/// What goes where. `local` is the exact target path.
pub struct Get {
    /// From here.
    pub remote: RemotePath,
    /// To here.
    pub local: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct GetReport {
    /// Files and symlinks written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What failed, by path.
    pub failed: Vec<(String, Error)>,
}

/// An open file for reading.
pub struct Reader {
    pub(crate) client: Client,
    content: Arc<Body>,
    /// Bytes.
    pub size: u64,
}

/// Room in the memory budget.
pub(crate) type Room = tokio::sync::OwnedSemaphorePermit;

/// Verified bytes on their way to whoever takes them, with their room.
pub(crate) struct Part {
    bytes: Vec<u8>,
    room: Option<Room>,
    end: bool,
}

impl Part {
    /// The mark that there are no more.
    pub fn end() -> Self {
        Part { bytes: Vec::new(), room: None, end: true }
    }

    pub fn is_end(&self) -> bool {
        self.end
    }

    pub fn into_parts(self) -> (Vec<u8>, Option<Room>) {
        (self.bytes, self.room)
    }
}

enum Body {
    Inline(Vec<u8>),
    Chunks(fetch::Content),
}

impl Client {
    /// Opens a file for reading: its manifest is fetched and verified.
    pub async fn open_file(&self, entry: &Entry) -> Result<Reader> {
        let body = match &entry.found.entry.content {
            Content::Inline(bytes) => Body::Inline(bytes.clone()),
            Content::Manifest { key, hash, id } => {
                let fetched;
                let row = match &entry.manifest {
                    Some(row) => row,
                    None => {
                        fetched = Arc::new(self.manifest(entry.space.id(), *id).await?);
                        &fetched
                    }
                };
                let manifest = Manifest::open(*id, key, hash, entry.size, &row.sealed)?;
                Body::Chunks(fetch::Content::open(manifest, entry.space.id(), row)?)
            }
            Content::Symlink(_) => return Err(Error::invalid(format!("{} is a symlink", entry.path))),
            Content::Folder { .. } | Content::Space(_) => return Err(Error::invalid(format!("{} is a folder", entry.path)).hint("get -r")),
        };
        Ok(Reader { client: self.clone(), content: Arc::new(body), size: entry.size })
    }

    pub(crate) async fn manifest(&self, space: model::SpaceId, id: model::ManifestId) -> Result<model::tree::ManifestRow> {
        let query = model::command::Query::Manifests { space, ids: vec![id] };
        let model::command::Answer::Manifests(rows) = self.cluster().ask(query).await? else { return Err(unexpected()) };
        rows.into_iter().find(|m| m.id == id).ok_or_else(|| Error::corrupt("the catalog does not return the manifest of a file"))
    }

    /// Writes a file's content, or a range of it, to a stream, in order, each part after it was
    /// verified. Returns the number of bytes.
    pub async fn cat(&self, path: &RemotePath, range: Option<Range<u64>>, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        self.cat_entry(&self.stat(path).await?, range, out).await
    }

    /// The same of an entry at hand, which may be an older version.
    pub async fn cat_entry(&self, entry: &Entry, range: Option<Range<u64>>, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        let reader = self.open_file(entry).await?;
        let range = range.unwrap_or(0..reader.size);
        let range = range.start.min(reader.size)..range.end.min(reader.size);
        let broke = |e: std::io::Error| Error::invalid(format!("the output stream broke: {e}"));
        let mut parts = reader.parts(range.clone()).await?;
        while let Some(part) = parts.next().await {
            out.write_all(&part?).await.map_err(broke)?;
        }
        out.flush().await.map_err(broke)?;
        Ok(range.end - range.start)
    }

    /// Fetches files, symlinks and, with `recursive`, folders. Goes on past those that fail and
    /// reports them.
    pub async fn get(&self, gets: Vec<Get>, recursive: bool, progress: Arc<dyn Progress>) -> Result<GetReport> {
        let mut found = Vec::with_capacity(gets.len());
        for get in gets {
            found.push((self.stat(&get.remote).await, get.remote, get.local));
        }
        self.get_found(found, recursive, progress).await
    }

    /// The same of entries at hand; those that were not found are reported.
    pub async fn get_found(
        &self,
        found: Vec<(Result<Entry>, RemotePath, PathBuf)>,
        recursive: bool,
        progress: Arc<dyn Progress>,
    ) -> Result<GetReport> {
        let mut report = GetReport::default();
        let mut files = FuturesUnordered::new();
        let mut folders: Vec<(PathBuf, Entry)> = Vec::new();
        let mut stack = found;
        for (entry, ..) in &stack {
            if let Ok(Entry { kind: EntryKind::File, size, .. }) = entry {
                progress.total(1, *size);
            }
        }
        stack.reverse();
        while let Some((entry, remote, local)) = stack.pop() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    report.failed.push((remote.to_string(), e));
                    continue;
                }
            };
            if entry.kind == EntryKind::Folder {
                match self.get_folder(&entry, &local, recursive).await {
                    Ok(children) => {
                        let of_files = || children.iter().filter(|e| e.kind == EntryKind::File);
                        progress.total(of_files().count() as u64, of_files().map(|e| e.size).sum());
                        folders.push((local.clone(), entry));
                        for child in children.into_iter().rev() {
                            let name = child.found.entry.name.as_bytes();
                            let local = local.join(std::ffi::OsStr::from_bytes(name));
                            stack.push((Ok(child.clone()), child.path, local));
                        }
                    }
                    Err(e) => report.failed.push((remote.to_string(), e)),
                }
                continue;
            }
            while files.len() >= FILES {
                if let Some(done) = files.next().await {
                    settle(&mut report, done, &*progress);
                }
            }
            let (client, progress) = (self.clone(), progress.clone());
            let task = self.env().spawn(async move { client.get_file(&entry, &local, &*progress).await.map(|()| entry.size) });
            files.push(async move {
                (remote.to_string(), task.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a download task ended: {e}")))))
            });
        }
        while let Some(done) = files.next().await {
            settle(&mut report, done, &*progress);
        }
        // Times of folders last, deepest first: writing into them changed them.
        let finished = self.env().blocking(move || {
            let done = folders.iter().rev().filter(|(_, e)| e.path.name().is_some());
            done.filter_map(|(path, e)| Some((path.display().to_string(), local::finish_folder(path, e.mode, e.mtime_ns).err()?)))
                .collect::<Vec<_>>()
        });
        report.failed.extend(finished.await);
        Ok(report)
    }

    /// Fetches an entry at hand, which may be an older version, to a local file.
    pub async fn get_entry(&self, entry: &Entry, local: &Path, progress: &dyn Progress) -> Result<()> {
        progress.total(1, entry.size);
        self.get_file(entry, local, progress).await?;
        progress.file(&entry.path.to_string());
        Ok(())
    }

    async fn get_folder(&self, entry: &Entry, local: &Path, recursive: bool) -> Result<Vec<Entry>> {
        if !recursive {
            return Err(Error::invalid(format!("{} is a folder", entry.path)).hint("get -r"));
        }
        let path = local.to_path_buf();
        self.env().blocking(move || local::make_folder(&path)).await?;
        self.list_entries(entry, true).await
    }

    /// One file or symlink under its local name.
    async fn get_file(&self, entry: &Entry, path: &Path, progress: &dyn Progress) -> Result<()> {
        let id = entry.id.to_string();
        if let Some(target) = entry.target.clone() {
            let path = path.to_path_buf();
            return self.env().blocking(move || local::make_symlink(&target, &path)).await;
        }
        let reader = self.open_file(entry).await?;
        let (mode, mtime_ns, path) = (entry.mode, entry.mtime_ns, path.to_path_buf());
        if let Body::Inline(bytes) = &*reader.content {
            let bytes = bytes.clone();
            progress.bytes(bytes.len() as u64);
            return self.env().blocking(move || local::write_small(&path, &id, &bytes, mode, mtime_ns)).await;
        }
        let writer = {
            let path = path.clone();
            let id = format!("{}-{}", &id[..8], entry.version);
            Arc::new(self.env().blocking(move || LocalWriter::open(&path, &id)).await?)
        };
        let journal = if entry.size >= JOURNAL_MIN {
            let id = model::signed::hash_parts(&[b"get", &entry.id.0, &entry.version.to_be_bytes(), path.as_os_str().as_bytes()]);
            Some(Transfer::open(self.env(), &self.profile().transfers()?, &id)?)
        } else {
            None
        };
        let written = reader.write_to(&writer, journal.as_ref(), progress).await;
        match (written, journal) {
            (Ok(()), journal) => {
                // All chunks are written: their tasks have let go of the file.
                let writer = Arc::try_unwrap(writer).map_err(|_| unexpected())?;
                let size = entry.size;
                self.env().blocking(move || writer.finish(size, mode, mtime_ns)).await?;
                if let Some(journal) = journal {
                    journal.remove();
                }
                Ok(())
            }
            // What is there stays for the next try.
            (Err(e), Some(_)) => Err(e),
            // Other chunks may still be on their way into it: they go with the file.
            (Err(e), None) => {
                writer.discard();
                Err(e)
            }
        }
    }
}

fn settle(report: &mut GetReport, (path, done): (String, Result<u64>), progress: &dyn Progress) {
    match done {
        Ok(bytes) => {
            report.files += 1;
            report.bytes += bytes;
            progress.file(&path);
        }
        Err(e) => report.failed.push((path, e)),
    }
}

impl Reader {
    fn chunks(&self) -> Result<&fetch::Content> {
        match &*self.content {
            Body::Chunks(content) => Ok(content),
            Body::Inline(_) => Err(unexpected()),
        }
    }

    /// How the file is cut into chunks; one that lies in its entry is one.
    pub(crate) fn cut(&self) -> Cut {
        match &*self.content {
            Body::Chunks(content) => content.manifest.cut.clone(),
            Body::Inline(_) => Cut::whole(self.size),
        }
    }

    /// The bytes of a range (which lies in the file), in order, a part at a time; several chunks
    /// ahead are under way.
    async fn parts(&self, range: Range<u64>) -> Result<BoxStream<'_, Result<Vec<u8>>>> {
        Ok(self.held_parts(range, CHUNKS).await?.map(|part| part.map(|part| part.bytes)).boxed())
    }

    /// The same, each part with its room in the memory budget for as long as it is held; at most `ahead` are under way
    /// or waiting to be taken. Room is given out in order: whoever waits for a part has asked for it before any later one.
    pub(crate) async fn held_parts(&self, range: Range<u64>, ahead: usize) -> Result<BoxStream<'_, Result<Part>>> {
        if let Body::Inline(bytes) = &*self.content {
            let bytes = bytes.get(range.start as usize..range.end as usize).unwrap_or_default().to_vec();
            return Ok(futures::stream::once(async move { Ok(Part { bytes, room: None, end: false }) }).boxed());
        }
        let cut = &self.chunks()?.manifest.cut;
        let chunks = cut.covering(&range);
        let records = self.chunks()?.records(&self.client, chunks.clone()).await?;
        let work = chunks.zip(records).map(move |(index, record)| {
            let chunk = cut.chunk(index);
            let len = (chunk.end - chunk.start) as usize;
            let within = range.start.saturating_sub(chunk.start)..range.end.min(chunk.end) - chunk.start;
            async move {
                let mut room = self.room(len).await?;
                let bytes = self.chunks()?.range(&self.client, &record, len, within).await?;
                // Sealed form and shards are gone by now: what is left is the part itself.
                drop(room.split(room.num_permits() - room.num_permits().min((bytes.len() >> 10) + 1)));
                Ok(Part { bytes, room: Some(room), end: false })
            }
        });
        Ok(futures::stream::iter(work).buffered(ahead.max(1)).boxed())
    }

    /// Bytes of a range, which is cut to the file's end.
    pub async fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let range = range.start.min(self.size)..range.end.min(self.size).max(range.start.min(self.size));
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        let mut parts = self.parts(range).await?;
        while let Some(part) = parts.next().await {
            out.extend_from_slice(&part?);
        }
        Ok(out)
    }

    /// Room in the memory budget for a chunk, its sealed form and its shards.
    async fn room(&self, len: usize) -> Result<Room> {
        let bytes = (3 * len as u64).min(self.client.memory_budget());
        let kib = ((bytes >> 10) + 1) as u32;
        self.client.memory().clone().acquire_many_owned(kib).await.map_err(|_| unexpected())
    }

    /// Writes all chunks that an earlier try has not written, in any order.
    async fn write_to(&self, writer: &Arc<LocalWriter>, journal: Option<&Transfer>, progress: &dyn Progress) -> Result<()> {
        let cut = &self.chunks()?.manifest.cut;
        let count = cut.chunks();
        let have: BTreeSet<u64> = journal.map(|j| j.records::<Vec<u64>>(0).into_iter().flatten().collect()).unwrap_or_default();
        progress.bytes(have.iter().map(|i| cut.chunk_len(*i) as u64).sum());
        let env = self.client.env();
        let mut under_way = FuturesUnordered::new();
        let mut unmarked = Vec::new();
        let batch = 1024u64;
        for first in (0..count).step_by(batch as usize) {
            let range = first..(first + batch).min(count);
            if range.clone().all(|i| have.contains(&i)) {
                continue;
            }
            let records = self.chunks()?.records(&self.client, range.clone()).await?;
            for (index, record) in range.zip(records) {
                if have.contains(&index) {
                    continue;
                }
                while under_way.len() >= CHUNKS {
                    self.mark(under_way.next().await, &mut unmarked, writer, journal, progress).await?;
                }
                let chunk = cut.chunk(index);
                let len = (chunk.end - chunk.start) as usize;
                let room = self.room(len).await?;
                let (reader, writer, owned) = (self.share(), writer.clone(), env.clone());
                let task = env.spawn(async move {
                    let plain = reader.chunks()?.plain(&reader.client, &record, len).await?;
                    let done = owned.blocking(move || writer.write(chunk.start, &plain)).await;
                    drop(room);
                    done.map(|()| (index, len as u64))
                });
                under_way.push(async move { task.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a chunk's task ended: {e}")))) });
            }
        }
        while !under_way.is_empty() {
            self.mark(under_way.next().await, &mut unmarked, writer, journal, progress).await?;
        }
        Ok(())
    }

    /// Remembers a chunk as written, durable ones in the journal.
    async fn mark(
        &self,
        done: Option<Result<(u64, u64)>>,
        unmarked: &mut Vec<u64>,
        writer: &Arc<LocalWriter>,
        journal: Option<&Transfer>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let Some(done) = done else { return Ok(()) };
        let (index, len) = done?;
        progress.bytes(len);
        if let Some(journal) = journal {
            unmarked.push(index);
            if unmarked.len() as u64 >= MARK {
                let writer = writer.clone();
                self.client.env().blocking(move || writer.sync()).await?;
                journal.append(&std::mem::take(unmarked))?;
            }
        }
        Ok(())
    }

    pub(crate) fn share(&self) -> Reader {
        Reader { client: self.client.clone(), content: self.content.clone(), size: self.size }
    }
}
