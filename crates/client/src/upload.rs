//! Uploads: local files and streams into the tree, many at once, with bounded memory.
//!
//! A file of at most 4 KiB is sealed into its entry. A larger one goes chunk by chunk: read, sealed
//! and coded on all cores, its shards on the wire, the next chunks already under way; when all are
//! stored, its manifest and entry are committed together with whatever else is ready.

mod places;
mod writer;

pub use writer::{Spot, Writer};

use self::places::Places;
use crate::Progress;
use crate::commit::{CommitSender, Pending};
use crate::conflict::Rescue;
use crate::connection::unexpected;
use crate::feed::Feed;
use crate::issue::{Issued, Issuer};
use crate::local::{self, LocalItem, LocalKind, LocalReader};
use crate::making::{Fresh, Making, Used};
use crate::outbox::{self, QueuedFile, SpooledFile};
use crate::path::RemotePath;
use crate::properties::Properties;
use crate::session::Client;
use crate::spaces::Space;
use crate::store::{Stored, Target};
use crate::task::Task;
use crate::transfer::Transfer;
use crate::tree::{Entry, EntryKind, Folder};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::chunk::CHUNK_SIZE;
use model::cluster::UploadGrant;
use model::tree::{Change, Expect, ManifestRow};
use model::{EntryId, Epoch, Error, Kind, ObjectId, Policy, Result};
use seal::content::{ChunkRecord, Cut, Manifest};
use seal::tree::{Attributes, Content, Entry as Sealed, Name};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncRead;

/// How often the place of a file is asked for while others write there.
const TRIES: usize = 16;
/// Files of at least this many bytes keep a journal, to be resumed after an interruption.
const JOURNAL_MIN: u64 = 16 << 20;
/// Files under way at once; memory bounds it further.
const FILES: usize = 64;
/// Most chunks of one file under way at once; memory bounds it further.
const CHUNKS: usize = 16;

/// Where bytes come from.
pub enum Source {
    /// A local file, symlink or folder (with all below it).
    Path(PathBuf),
    /// A stream of unknown length.
    Stream(Box<dyn AsyncRead + Send + Unpin>),
    /// Bytes at hand.
    Bytes(Vec<u8>),
    /// What another entry holds (a file or a symlink): read, and stored anew under fresh keys.
    Entry(Box<Entry>),
    /// A local file that was queued: stored only while it is the same.
    Queued(QueuedFile),
    /// A file in the outbox.
    Spooled(SpooledFile),
    /// A stream that can be described at its end only.
    Described(Box<dyn AsyncRead + Send + Unpin>, Describe),
}

/// Asked once all of a stream has been read, before anything is committed: what is kept with the file. With an
/// error nothing is stored.
pub type Describe = Box<dyn FnOnce() -> Result<Properties> + Send>;

/// What to do when somebody else writes to the same name at the same time, and is first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Fail, and keep what was to be stored as a conflict version.
    #[default]
    Keep,
    /// Fail, and keep nothing.
    Refuse,
    /// Write over what the other one wrote, which stays as an older version.
    Overwrite,
}

/// Says where a file is to lie, once its content is stored: for those whose places move while they are written.
pub struct Ask {
    /// Before the first try, too; otherwise only when somebody else was first at the place looked up before.
    pub always: bool,
    /// The place as it is now.
    pub place: Box<dyn Fn() -> BoxFuture<'static, Result<Answered>> + Send + Sync>,
}

/// Where a file is to lie.
pub struct Answered {
    /// The place.
    pub spot: Spot,
    /// Kept until the file is committed, or that has failed.
    pub hold: Option<Box<dyn Send>>,
}

/// What goes where. `remote` is the exact target path, not the folder to put it in.
pub struct Put {
    /// From here.
    pub source: Source,
    /// To here.
    pub remote: RemotePath,
}

/// How to put.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Policy of the new contents; `None`: the default.
    pub policy: Option<Policy>,
    /// Refuse to overwrite.
    pub if_absent: bool,
    /// Refuse to overwrite anything but this version.
    pub if_version: Option<u64>,
    /// Settle for k shards where the write quorum does not answer.
    pub allow_degraded: bool,
    /// What to do when somebody else is first.
    pub on_conflict: OnConflict,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct PutReport {
    /// Files (and symlinks) committed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Some chunk has not all its shards yet; the servers heal it by themselves.
    pub degraded: bool,
    /// What failed, by path.
    pub failed: Vec<(String, Error)>,
}

/// What lies at a place now.
#[derive(Clone, Copy)]
struct There {
    id: EntryId,
    rev: u64,
}

/// A file's place: where its row goes and what is there.
struct Place {
    folder: Folder,
    name: Name,
    there: Option<There>,
    path: RemotePath,
}

impl Place {
    fn change(
        &self,
        upload: &Upload,
        content: Content,
        size: u64,
        attributes: Attributes,
        new: Option<ManifestRow>,
    ) -> Result<(Change, Rescue)> {
        let client = &upload.client;
        let entry = Arc::new(Sealed { name: self.name.clone(), attributes, size, content });
        let mut rng = client.env().rand();
        let (id, rev) = self.there.map_or_else(|| (EntryId(client.env().random()), 1), |t| (t.id, t.rev + 1));
        let row = self.folder.keys.seal(id, rev, &entry, &mut rng)?;
        let tag = row.tag;
        let expect = self.there.map_or(Expect::Absent, |t| Expect::At { folder: self.folder.keys.folder, tag, rev: t.rev });
        let change = Change { row, expect, child: None, manifest: new.as_ref().map(|m| m.id), new_manifest: new, purge: false };
        let rescue = Rescue {
            folder: self.folder.clone(),
            name: self.name.clone(),
            path: self.path.clone(),
            entry,
            there: self.there.map(|t| (t.id, t.rev)),
            strict: upload.options.if_version.is_some(),
            on_conflict: upload.options.on_conflict,
        };
        Ok((change, rescue))
    }
}

/// What an upload's tasks share.
struct Upload {
    client: Client,
    options: PutOptions,
    progress: Arc<dyn Progress>,
    issuer: Arc<Issuer>,
    commits: CommitSender,
    /// Says where a file is to lie once its content is stored.
    ask: Option<Ask>,
}

/// What is to be committed of a file whose content is on the servers.
struct Ready {
    content: Content,
    size: u64,
    attributes: Attributes,
    row: Option<ManifestRow>,
    grants: Vec<Arc<UploadGrant>>,
    journal: Option<Transfer>,
}

impl Client {
    /// Stores files, symlinks and whole folders. Goes on past those that fail and reports them.
    pub async fn put(&self, puts: Vec<Put>, options: PutOptions, progress: Arc<dyn Progress>) -> Result<PutReport> {
        let committer = self.committer_with(progress.clone());
        let upload =
            Arc::new(Upload { client: self.clone(), options, progress, issuer: Arc::default(), commits: committer.sender(), ask: None });
        let mut report = PutReport::default();
        let mut files = FuturesUnordered::new();
        let settle = |report: &mut PutReport, path: String, done: Result<Sent>| match done {
            Ok(sent) => {
                report.bytes += sent.bytes;
                report.degraded |= sent.degraded;
            }
            Err(e) => report.failed.push((path, e)),
        };
        let mut works = Vec::with_capacity(puts.len());
        for put in puts {
            works.extend(upload.works(put, &mut report).await);
        }
        let mut places = Places::new(&works);
        for work in works {
            let path = work.remote().clone();
            let place = match places.of(&upload, &path, work.is_folder(), &committer).await {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(e) => {
                    report.failed.push((path.to_string(), e));
                    continue;
                }
            };
            while files.len() >= FILES {
                if let Some((path, done)) = files.next().await {
                    settle(&mut report, path, done);
                }
            }
            let upload = upload.clone();
            let task = Task(self.env().spawn(async move { upload.one(work, place).await }));
            files.push(async move {
                let done = task.await.unwrap_or_else(|e| Err(Error::unavailable(format!("an upload task ended: {e}"))));
                (path.to_string(), done)
            });
        }
        while let Some((path, done)) = files.next().await {
            settle(&mut report, path, done);
        }
        drop(files);
        drop(upload);
        let committed = committer.finish().await;
        report.failed.extend(committed.failed);
        report.files = committed.files;
        Ok(report)
    }
}

/// One thing to store.
enum Work {
    Local(LocalItem),
    Stream(Box<dyn AsyncRead + Send + Unpin>, Option<Describe>, RemotePath),
    Bytes(Vec<u8>, RemotePath),
    Entry(Box<Entry>, RemotePath),
    Spooled(SpooledFile, RemotePath),
}

impl Work {
    fn remote(&self) -> &RemotePath {
        match self {
            Work::Local(item) => &item.remote,
            Work::Stream(_, _, path) | Work::Bytes(_, path) | Work::Entry(_, path) | Work::Spooled(_, path) => path,
        }
    }

    fn is_folder(&self) -> Option<Attributes> {
        match self {
            Work::Local(LocalItem { kind: LocalKind::Folder, attributes, .. }) => Some(attributes.clone()),
            _ => None,
        }
    }
}

/// Whether a file may take the place of what is there.
fn check_there(path: &RemotePath, there: Option<(There, EntryKind)>, options: &PutOptions) -> Result<()> {
    match there {
        Some((_, EntryKind::Folder)) => Err(Error::exists(format!("{path} exists and is a folder"))),
        Some(_) if options.if_absent => Err(Error::exists(format!("{path} exists already"))),
        there if options.if_version.is_some_and(|v| there.is_none_or(|(t, _)| t.rev != v)) => {
            let found = there.map_or_else(|| "nothing is there".into(), |(t, _)| format!("version {} is there", t.rev));
            Err(Error::conflict(format!("{path}: {found}")).hint(format!("shardkeep versions {path}")))
        }
        _ => Ok(()),
    }
}

/// What one file came to.
struct Sent {
    bytes: u64,
    degraded: bool,
}

impl Upload {
    /// What is to be stored of one thing: of a local folder, all below it.
    async fn works(&self, put: Put, report: &mut PutReport) -> Vec<Work> {
        match put.source {
            Source::Path(path) => {
                let scan = move || {
                    let (mut found, mut failed) = (Vec::new(), Vec::new());
                    local::scan(&path, &put.remote, &mut found, &mut failed);
                    (found, failed)
                };
                let (found, failed) = self.client.env().blocking(scan).await;
                report.failed.extend(failed);
                let of_files = || found.iter().filter(|i| matches!(i.kind, LocalKind::File));
                self.progress.total(of_files().count() as u64, of_files().map(|i| i.size).sum());
                found.into_iter().map(Work::Local).collect()
            }
            Source::Stream(stream) => vec![Work::Stream(stream, None, put.remote)],
            Source::Described(stream, describe) => vec![Work::Stream(stream, Some(describe), put.remote)],
            Source::Queued(QueuedFile { path, stamp, attributes }) => {
                self.progress.total(1, stamp.size);
                let expected = (stamp.size, stamp.mtime_ns, stamp.inode);
                vec![Work::Local(LocalItem::queued(path, put.remote, expected, attributes))]
            }
            Source::Spooled(file) => {
                self.progress.total(1, file.size);
                vec![Work::Spooled(file, put.remote)]
            }
            Source::Bytes(bytes) => {
                self.progress.total(1, bytes.len() as u64);
                vec![Work::Bytes(bytes, put.remote)]
            }
            Source::Entry(entry) => {
                self.progress.total(1, entry.size);
                vec![Work::Entry(entry, put.remote)]
            }
        }
    }

    /// Where fresh objects of a file come from.
    fn fresh<'a>(&'a self, space: &'a Space) -> Fresh<'a> {
        let PutOptions { policy, allow_degraded, .. } = self.options;
        Fresh { client: &self.client, issuer: &self.issuer, space, policy, allow_degraded }
    }

    async fn one(&self, work: Work, place: Place) -> Result<Sent> {
        let client = &self.client;
        match work {
            Work::Local(LocalItem { kind: LocalKind::Symlink(target), attributes, size, .. }) => {
                let (change, rescue) = place.change(self, Content::Symlink(target), size, attributes, None)?;
                self.commit(Pending::new(&place.folder.space, change).or_kept(rescue), &place, Sent { bytes: 0, degraded: false }).await
            }
            Work::Local(item) => {
                let path = item.path.clone();
                let (reader, stamp) = client
                    .env()
                    .blocking(move || {
                        let reader = LocalReader::open(&path)?;
                        let stamp = reader.stamp()?;
                        Ok::<_, Error>((Arc::new(reader), stamp))
                    })
                    .await?;
                if item.expected.is_some_and(|expected| expected != stamp) {
                    return Err(outbox::changed(&item.path.display().to_string()));
                }
                let (size, mtime_ns, _) = stamp;
                let attributes = Attributes { mtime_ns, ..item.attributes };
                let feed = Feed::File { reader: reader.clone(), size };
                let sent = self.file(feed, Some(size), attributes, place, Some(&item.path), |_| {
                    if reader.stamp()? == stamp {
                        Ok(())
                    } else {
                        Err(Error::conflict(format!("{} changed while it was read", item.path.display())).hint("put it again"))
                    }
                });
                sent.await
            }
            Work::Stream(stream, describe, _) => {
                let described = |attributes: &mut Attributes| {
                    attributes.more = describe.map(|describe| describe()).transpose()?.unwrap_or_default().into_attributes();
                    Ok(())
                };
                self.file(Feed::stream(stream), None, client.now(), place, None, described).await
            }
            Work::Entry(entry, _) => {
                let attributes = entry.found.entry.attributes.clone();
                if let Content::Symlink(target) = &entry.found.entry.content {
                    let (change, rescue) = place.change(self, Content::Symlink(target.clone()), entry.size, attributes, None)?;
                    let pending = Pending::new(&place.folder.space, change).or_kept(rescue);
                    return self.commit(pending, &place, Sent { bytes: 0, degraded: false }).await;
                }
                let feed = Feed::Entry(client.open_file(&entry).await?);
                self.file(feed, Some(entry.size), attributes, place, None, |_| Ok(())).await
            }
            Work::Spooled(spooled, _) => {
                let (size, attributes, path) = (spooled.size, spooled.attributes.clone(), spooled.path.clone());
                self.file(Feed::Spooled(spooled), Some(size), attributes, place, Some(&path), |_| Ok(())).await
            }
            Work::Bytes(bytes, _) => {
                let size = bytes.len() as u64;
                self.file(Feed::Bytes(bytes), Some(size), client.now(), place, None, |_| Ok(())).await
            }
        }
    }

    async fn commit(&self, pending: Pending, place: &Place, sent: Sent) -> Result<Sent> {
        self.commits.send_file(pending, place.path.to_string()).await?;
        Ok(sent)
    }

    /// One file of known or unknown size. `finish` has the last word on its attributes, and on whether it is
    /// committed.
    async fn file(
        &self,
        mut feed: Feed,
        size: Option<u64>,
        mut attributes: Attributes,
        place: Place,
        local: Option<&Path>,
        finish: impl FnOnce(&mut Attributes) -> Result<()>,
    ) -> Result<Sent> {
        let client = &self.client;
        if let Some(inline) = feed.inline(client).await? {
            let size = inline.len() as u64;
            finish(&mut attributes)?;
            self.progress.bytes(size);
            let content = Content::Inline(inline);
            let ready = Ready { content, size, attributes, row: None, grants: Vec::new(), journal: None };
            return self.settle(place, ready, Sent { bytes: size, degraded: false }).await;
        }
        let mut session = FileUpload::begin(self, size, attributes.mtime_ns, local, &place).await?;
        let total = session.send_all(self, &mut feed, size).await?;
        finish(&mut attributes)?;
        let FileUpload { mut making, done, journal, degraded, .. } = session;
        let mut chunks: Vec<Stored> = done.into_values().collect();
        // Not before all are stored: the journal counts every object that was ever begun.
        making.drop_unused(&mut chunks);
        let fresh = self.fresh(&place.folder.space);
        let made = making.finish(&fresh, Cut::whole(total), attributes.mtime_ns, chunks).await?;
        let degraded = degraded || made.degraded;
        let ready = Ready { content: made.content, size: total, attributes, row: Some(made.row), grants: made.grants, journal };
        self.settle(place, ready, Sent { bytes: total, degraded }).await
    }

    /// Commits a file at its place: where that is to be asked for, at what is answered, as often as somebody else is
    /// first there.
    async fn settle(&self, mut place: Place, ready: Ready, sent: Sent) -> Result<Sent> {
        let Ready { content, size, attributes, row, grants, journal } = ready;
        let Some(ask) = &self.ask else {
            let (change, rescue) = place.change(self, content, size, attributes, row)?;
            let pending = Pending::with_content(&place.folder.space, change, grants, journal).or_kept(rescue);
            return self.commit(pending, &place, sent).await;
        };
        let mut tries = 0;
        loop {
            let mut _hold = None;
            if ask.always || tries > 0 {
                let answer = (ask.place)().await?;
                if answer.spot.space() != place.folder.space.id() {
                    return Err(Error::conflict(format!("{} lies in another space now", place.path)));
                }
                place = answer.spot.into_place(&self.options)?;
                _hold = answer.hold;
            }
            let (change, _) = place.change(self, content.share(), size, attributes.clone(), row.clone())?;
            let pending = Pending::with_content(&place.folder.space, change, grants.clone(), None);
            match self.commits.send_file(pending, place.path.to_string()).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound) && tries < TRIES => tries += 1,
                done => return done.map(|()| sent),
            }
        }
    }
}

/// First record of an upload's journal.
#[derive(Encode, Decode)]
struct Begun {
    #[n(0)]
    size: u64,
    #[n(1)]
    mtime_ns: i64,
    /// Chunks name their objects as counted from the first one ever begun. Journals of earlier versions left
    /// out those of which no chunk was stored, and cannot be trusted.
    #[n(2)]
    #[cbor(default)]
    counts_all: bool,
}

/// A fresh object was begun.
#[derive(Encode, Decode)]
struct BegunObject {
    #[n(0)]
    object: ObjectId,
    #[n(1)]
    key: ByteVec,
    #[n(2)]
    grant: UploadGrant,
    #[n(3)]
    policy: Policy,
    #[n(4)]
    layout: Epoch,
}

/// Further records.
#[derive(Encode, Decode)]
enum Step {
    #[n(0)]
    Object(#[n(0)] BegunObject),
    #[n(1)]
    Chunk(#[n(0)] ChunkRecord, #[n(1)] bool),
}

/// One file under way.
struct FileUpload {
    space: Arc<Space>,
    making: Making,
    /// Stored chunks of the file by index.
    done: BTreeMap<u64, Stored>,
    journal: Option<Transfer>,
    /// Some chunk has not all its shards yet.
    degraded: bool,
}

impl FileUpload {
    async fn begin(upload: &Upload, size: Option<u64>, mtime_ns: i64, local: Option<&Path>, place: &Place) -> Result<Self> {
        let client = &upload.client;
        let (space, remote) = (place.folder.space.clone(), &place.path);
        let mut file = FileUpload { space, making: Making::default(), done: BTreeMap::new(), journal: None, degraded: false };
        if let (Some(local), Some(size)) = (local, size.filter(|s| *s >= JOURNAL_MIN)) {
            let id = model::signed::hash_parts(&[local.as_os_str().as_encoded_bytes(), &[0], remote.to_string().as_bytes()]);
            let mut journal = Transfer::open(client.env(), &client.profile().transfers()?, &id)?;
            let begun = journal.records::<Begun>(0).into_iter().next();
            let same = begun.is_some_and(|b| b.size == size && b.mtime_ns == mtime_ns && b.counts_all);
            if !(same && file.resume(upload, &journal).await) {
                file.making.clear();
                file.done.clear();
                journal.restart()?;
                journal.append(&Begun { size, mtime_ns, counts_all: true })?;
            }
            file.journal = Some(journal);
        }
        Ok(file)
    }

    /// Takes up what an earlier try has stored. False when it is too old or of another policy.
    async fn resume(&mut self, upload: &Upload, journal: &Transfer) -> bool {
        let client = &upload.client;
        for step in journal.records::<Step>(1) {
            match step {
                Step::Object(b) => {
                    let Ok(wanted) = upload.fresh(&self.space).policy().await else { return false };
                    // An hour of margin: objects that were never committed expire after 24 h.
                    let young = b.object.time_ms() + 23 * 3_600_000 > client.env().now_ms();
                    let renewed = Issued::renewed(client, self.space.id(), b.grant.clone()).await;
                    let key = client.unlocked().open_content_key(b.object, &b.key);
                    let (true, true, Ok(_), Ok(key)) = (young, wanted == b.policy, renewed, key) else { return false };
                    let grant = Some(Arc::new(b.grant));
                    self.making.known(Used { object: b.object, key, grant, policy: b.policy, layout: b.layout, generation: 0 });
                }
                Step::Chunk(record, partial) => {
                    if record.object as usize >= self.making.objects() {
                        return false;
                    }
                    self.degraded |= partial;
                    self.done.insert(u64::from(record.number), Stored { record, partial, degraded: partial });
                }
            }
        }
        true
    }

    /// A fresh object for what is to be sent. Chunks of an interrupted try are never sealed twice
    /// under the same id: what is left goes to a fresh one.
    async fn target(&mut self, upload: &Upload) -> Result<(u32, Arc<Target>)> {
        if let Some(target) = self.making.target() {
            return Ok(target);
        }
        let begun = self.making.begin(&upload.fresh(&self.space)).await?;
        if let (Some(journal), Some(Used { object, key, grant: Some(grant), policy, layout, .. })) = (&self.journal, self.making.last()) {
            let sealed = upload.client.unlocked().seal_content_key(*object, key, &mut upload.client.env().rand());
            let (grant, policy, layout) = ((**grant).clone(), *policy, *layout);
            journal.append(&Step::Object(BegunObject { object: *object, key: sealed.into(), grant, policy, layout }))?;
        }
        Ok(begun)
    }

    /// Sends all chunks that are not stored yet; returns the size of the file.
    async fn send_all(&mut self, upload: &Upload, feed: &mut Feed, size: Option<u64>) -> Result<u64> {
        let client = &upload.client;
        let mut under_way = FuturesUnordered::new();
        let (mut index, mut total) = (0u64, 0u64);
        loop {
            if size.is_some_and(|s| index >= Manifest::chunk_count(s)) {
                break;
            }
            if let (Some(size), true) = (size, self.done.contains_key(&index)) {
                let len = Manifest::chunk_len(size, index) as u64;
                upload.progress.bytes(len);
                total += len;
                index += 1;
                continue;
            }
            let (place, target) = self.target(upload).await?;
            // Room first, then read: plaintext, sealed chunk and parity are in memory at once.
            let cost = CHUNK_SIZE as u64 * (1 + target.policy().width() as u64).div_ceil(u64::from(target.policy().k)).max(2);
            let cost = (cost.min(client.memory_budget()) >> 10) as u32;
            while under_way.len() >= CHUNKS {
                self.settle(upload, under_way.next().await)?;
            }
            let weight = if size.is_some_and(|s| s < CHUNK_SIZE as u64) {
                (cost as u64 * size.unwrap_or(0).max(64 << 10) / CHUNK_SIZE as u64 + 1) as u32
            } else {
                cost
            };
            let permit = loop {
                let room = client.memory().clone().acquire_many_owned(weight);
                tokio::select! {
                    biased;
                    done = under_way.next(), if !under_way.is_empty() => self.settle(upload, done)?,
                    permit = room => break permit.map_err(|_| unexpected())?,
                }
            };
            let plain = feed.chunk(client, index).await?;
            if plain.is_empty() {
                break;
            }
            let len = plain.len();
            total += len as u64;
            let number = u32::try_from(index).map_err(|_| Error::invalid("the file has too many chunks"))?;
            let owned = client.clone();
            let task = Task(client.env().spawn(async move {
                let (record, encoded) = target.encode(&owned, number, plain, place).await?;
                target.store(&owned, record, encoded, Some(permit)).await
            }));
            under_way.push(async move {
                let stored = task.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a chunk's task ended: {e}"))));
                (index, len, stored)
            });
            self.making.taken(number);
            index += 1;
            if len < CHUNK_SIZE && size.is_none() {
                break;
            }
        }
        while !under_way.is_empty() {
            self.settle(upload, under_way.next().await)?;
        }
        Ok(total)
    }

    fn settle(&mut self, upload: &Upload, done: Option<(u64, usize, Result<Stored>)>) -> Result<()> {
        let Some((index, len, stored)) = done else { return Ok(()) };
        let stored = stored?;
        if let Some(journal) = &self.journal {
            journal.append(&Step::Chunk(stored.record.clone(), stored.partial))?;
        }
        self.degraded |= stored.degraded;
        self.done.insert(index, stored);
        upload.progress.bytes(len as u64);
        Ok(())
    }
}
