//! The tree: finding entries by path, and listing.
//!
//! A path begins at the account's own root, or under `/Shared`, and may lead through doors into other
//! spaces: each stretch of it lies in one space, and is asked for and verified there.

use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::shared::{Virtual, depth_of, not_here};
use crate::spaces::{Space, moved};
use model::command::{Answer, Query};
use model::tree::ManifestRow;
use model::{AccountId, EntryId, Error, Kind, ManifestId, Policy, Result, SpaceId};
use seal::content::Manifest;
use seal::tree::{Attributes, Content, Entry as Sealed, FolderKeys, Found, Kind as SealedKind, Listing, Name, RowVerifier};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What kind of thing an entry is.
pub type EntryKind = SealedKind;

/// An entry as callers see it.
#[derive(Clone)]
pub struct Entry {
    /// Where it lies.
    pub path: RemotePath,
    /// File, folder or symlink.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Unix permission bits.
    pub mode: u32,
    /// A symlink's target.
    pub target: Option<Vec<u8>>,
    /// Content lies in the catalog entry itself.
    pub inline: bool,
    /// Revision, from 1.
    pub version: u64,
    /// When this revision was committed, milliseconds since 1970, as the servers say.
    pub committed_ms: u64,
    /// Id, stable through renames.
    pub id: EntryId,
    pub(crate) found: Arc<Found>,
    pub(crate) manifest: Option<Arc<ManifestRow>>,
    /// The space in which its row lies.
    pub(crate) space: Arc<Space>,
    /// One of the folders that only this account sees.
    pub(crate) place: Option<Virtual>,
}

impl Entry {
    pub(crate) fn new(path: RemotePath, space: Arc<Space>, found: Found, manifest: Option<Arc<ManifestRow>>) -> Self {
        Entry::shared(path, space, Arc::new(found), manifest)
    }

    /// An older version of an entry, to be read. Its manifest is fetched when it is opened.
    pub(crate) fn of_version(path: RemotePath, space: Arc<Space>, found: Arc<Found>) -> Self {
        Entry::shared(path, space, found, None)
    }

    fn shared(path: RemotePath, space: Arc<Space>, found: Arc<Found>, manifest: Option<Arc<ManifestRow>>) -> Self {
        let (target, inline) = match &found.entry.content {
            Content::Symlink(t) => (Some(t.clone()), false),
            Content::Inline(_) => (None, true),
            _ => (None, false),
        };
        Entry {
            path,
            kind: found.entry.kind(),
            size: found.entry.size,
            mtime_ns: found.entry.attributes.mtime_ns,
            mode: found.entry.attributes.mode,
            target,
            inline,
            version: found.rev,
            committed_ms: found.time_ms,
            id: found.id,
            found,
            manifest,
            space,
            place: None,
        }
    }

    /// An entry of which there is no row: the root, what lies under `/Shared`.
    pub(crate) fn made_up(path: RemotePath, entry: Option<Sealed>, space: Arc<Space>, author: AccountId) -> Self {
        let root = || Sealed {
            name: Name::new("root").unwrap_or_else(|_| unreachable!("a plain name")),
            attributes: Attributes { mode: 0o700, ..Default::default() },
            size: 0,
            content: Content::Space(space.id()),
        };
        let found = Found {
            id: EntryId([0; 16]),
            rev: 0,
            tag: model::NameTag([0; 16]),
            commit: model::CommitId([0; 16]),
            author,
            time_ms: 0,
            entry: entry.unwrap_or_else(root),
        };
        Entry::new(path, space, found, None)
    }

    /// Whether this folder is a space of its own: shared, by its owner or with this account.
    pub fn is_shared(&self) -> bool {
        matches!(self.found.entry.content, Content::Space(_)) && self.place.is_none() && !self.is_root()
    }

    /// The root folder, which is an entry of nothing.
    fn is_root(&self) -> bool {
        self.path.name().is_none()
    }

    /// Its name; empty for the root.
    pub fn name(&self) -> String {
        self.path.name().map(|n| String::from_utf8_lossy(n.as_bytes()).into_owned()).unwrap_or_default()
    }

    /// How its chunks are coded, where it has any.
    pub fn policy(&self) -> Option<Policy> {
        self.manifest.as_ref()?.objects.first().map(|o| o.policy)
    }

    /// Bytes of all its shards on disks.
    pub fn stored(&self) -> u64 {
        let objects = self.manifest.iter().flat_map(|m| &m.objects);
        objects.map(|o| o.bytes.div_ceil(u64::from(o.policy.k.max(1))) * u64::from(o.policy.width())).sum()
    }

    /// Number of its chunks, where its manifest came along. That says how the file is cut, and is opened for it;
    /// of one that does not open, what a file of this size has mostly.
    pub fn chunks(&self) -> u64 {
        let (Some(row), Content::Manifest { id, key, hash }) = (&self.manifest, &self.found.entry.content) else { return 0 };
        let opened = Manifest::open(*id, key, hash, self.size, &row.sealed);
        opened.map_or_else(|_| Manifest::chunk_count(self.size), |manifest| manifest.cut.chunks())
    }
}

/// A folder at hand: where it is and the keys of its rows.
#[derive(Clone)]
pub(crate) struct Folder {
    pub path: RemotePath,
    pub keys: Arc<FolderKeys>,
    pub space: Arc<Space>,
}

impl Folder {
    /// The same folder under the same keys.
    pub fn is(&self, other: &Folder) -> bool {
        let of = |f: &Folder| (f.keys.space, f.keys.folder, f.keys.epoch);
        of(self) == of(other)
    }
}

/// Keys of folders seen, by path. A guess that each look-up verifies: a folder that was moved or
/// replaced is found out because its parent's row no longer leads to it.
pub(crate) struct Folders {
    root: Folder,
    known: Mutex<BTreeMap<RemotePath, Folder>>,
}

/// Folders remembered at most.
const KNOWN_MAX: usize = 10_000;

impl Folders {
    pub fn new(home: &Arc<Space>) -> Self {
        Folders { root: home.at(RemotePath::root()), known: Mutex::default() }
    }

    fn get(&self, path: &RemotePath) -> Option<Folder> {
        if path.name().is_none() {
            return Some(self.root.clone());
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    pub fn set(&self, folder: Folder) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(folder.path.clone(), folder);
    }

    pub fn forget(&self, path: &RemotePath) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|p, _| !p.is_within(path));
    }

    /// Forgets all folders of a space.
    pub fn forget_space(&self, id: SpaceId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, f| f.space.id() != id);
    }
}

/// How often a path is looked up anew because folders on it get new keys meanwhile.
const AGAIN: usize = 8;

impl Client {
    pub(crate) fn root_folder(&self) -> Folder {
        self.folders().root.clone()
    }

    /// Resolves all names of a path, in each space linearisably: one round trip a space when its folders
    /// are known. Gives the folder of the last name, and what lies there. `NotFound` when a folder on the
    /// way is missing; `Invalid` when something on the way is no folder.
    pub(crate) async fn resolve(&self, path: &RemotePath) -> Result<(Folder, Name, Option<Entry>)> {
        let Some(last) = path.name().cloned() else { return Err(Error::invalid("the root itself cannot be the target here")) };
        let mut again = 0;
        loop {
            match self.try_resolve(path, &last).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(e) if e.kind == Kind::Conflict && again < AGAIN => again += 1,
                Err(e) => return Err(e),
            }
        }
    }

    /// One try; `None` when something new was learnt of the folders on the way.
    async fn try_resolve(&self, path: &RemotePath, last: &Name) -> Result<Option<(Folder, Name, Option<Entry>)>> {
        let names = path.names();
        let (start, first) = match depth_of(path) {
            Some(depth) if depth <= 3 => return Err(not_here(path)),
            Some(_) => {
                let share = path.prefix(3);
                let known = self.folders().get(&share);
                (3, if let Some(known) = known { known } else { self.share_folder(path).await? })
            }
            None => (0, self.root_folder()),
        };
        self.folders().set(first.clone());
        // The longest run of folders whose keys are known.
        let mut folders = vec![first];
        while start + folders.len() < names.len() {
            let Some(folder) = self.folders().get(&path.prefix(start + folders.len())) else { break };
            folders.push(folder);
        }
        let mut at = 0;
        while at < folders.len() {
            let rest = folders.get(at..).unwrap_or_default();
            let Some(space) = rest.first().map(|f| f.space.clone()) else { break };
            let stretch: Vec<(&FolderKeys, &Name)> =
                rest.iter().take_while(|f| f.space.id() == space.id()).map(|f| &*f.keys).zip(names.iter().skip(start + at)).collect();
            let steps = stretch.iter().map(|(k, n)| (k.folder, k.tag(n))).collect();
            let asked = self.rows(&space, Query::Walk { space: space.id(), steps, manifests: true }).await;
            let (rows, space) = match asked {
                Err(e) if e.kind == Kind::Denied => {
                    self.forget_space(space.id());
                    return Err(e);
                }
                asked => asked?,
            };
            let found = RowVerifier::new(&space).verify(&rows)?.lookup(&stretch)?;
            for step in found {
                at += 1;
                let here = path.prefix(start + at);
                if start + at == names.len() {
                    let folder = folders.pop().ok_or_else(unexpected)?;
                    let entry = step.map(|f| self.entry(path.clone(), &space, f, rows.manifests)).transpose()?;
                    return Ok(Some((Folder { space, ..folder }, last.clone(), entry)));
                }
                let Some(step) = step else {
                    self.folders().forget(&here);
                    return Err(Error::not_found(format!("{here}: no such folder")));
                };
                let next = self.behind(&space, &here, &step.entry).await?;
                if folders.get(at).is_none_or(|known| !known.is(&next)) {
                    self.folders().forget(&here);
                    self.folders().set(next);
                    return Ok(None);
                }
            }
        }
        Err(unexpected())
    }

    /// An entry with its manifest from among those that came along.
    fn entry(&self, path: RemotePath, space: &Arc<Space>, found: Found, manifests: Vec<ManifestRow>) -> Result<Entry> {
        let manifest = match &found.entry.content {
            Content::Manifest { id, .. } => Some(manifests.into_iter().find(|m| m.id == *id).ok_or_else(missing_manifest)?),
            _ => None,
        };
        Ok(Entry::new(path, space.clone(), found, manifest.map(Arc::new)))
    }

    /// The entry at a path. `NotFound` where there is none.
    pub async fn stat(&self, path: &RemotePath) -> Result<Entry> {
        if path.name().is_none() {
            return Ok(Entry::made_up(path.clone(), None, self.home_space().clone(), self.unlocked().account()));
        }
        if depth_of(path).is_some_and(|depth| depth <= 3) {
            return self.virtual_entry(path).await;
        }
        let (_, _, entry) = self.resolve(path).await?;
        entry.ok_or_else(|| Error::not_found(format!("{path}: no such file or folder")))
    }

    /// The folder behind an entry. `Invalid` when it is none.
    pub(crate) async fn folder_of(&self, entry: &Entry) -> Result<Folder> {
        if entry.is_root() {
            return Ok(self.root_folder());
        }
        if entry.place.is_some() {
            return Err(not_here(&entry.path));
        }
        let folder = self.behind(&entry.space, &entry.path, &entry.found.entry).await?;
        self.folders().set(folder.clone());
        Ok(folder)
    }

    /// One page of a folder after another, sorted inside nothing: in the order of tags.
    pub(crate) async fn pages(&self, folder: &Folder, manifests: bool, mut each: impl FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
        let mut listing = Listing::new();
        let limit = if manifests { 500 } else { 2000 };
        let mut space = folder.space.clone();
        let (space_id, folder_id) = (folder.space.id(), folder.keys.folder);
        let query = |(after, have)| Query::List { space: space_id, folder: folder_id, after, limit, manifests, have };
        let mut next = Some(self.cluster().ask(query((None, Vec::new()))).await?);
        while let Some(answer) = next.take() {
            let Answer::Rows(rows) = answer else { return Err(unexpected()) };
            let (rows, now) = self.rows_of(&space, rows).await?;
            space = now;
            let verified = listing.page(&space, &rows)?;
            // The next page is under way while this one is opened.
            let so_far = (listing.after(), listing.have());
            let ask = async { if rows.more { Some(self.cluster().ask(query(so_far)).await).transpose() } else { Ok(None) } };
            let open = async {
                let by_id: BTreeMap<ManifestId, Arc<ManifestRow>> = rows.manifests.iter().map(|m| (m.id, Arc::new(m.clone()))).collect();
                let mut page = Vec::with_capacity(rows.rows.len());
                for row in verified.rows() {
                    let found = row.open(&folder.keys)?;
                    let manifest = match &found.entry.content {
                        Content::Manifest { id, .. } if manifests => Some(by_id.get(id).cloned().ok_or_else(missing_manifest)?),
                        _ => None,
                    };
                    page.push(Entry::new(folder.path.join(&found.entry.name), space.clone(), found, manifest));
                }
                each(page)
            };
            let (answer, opened) = futures::join!(ask, open);
            opened?;
            next = answer?;
        }
        Ok(())
    }

    /// The entries of a folder, sorted by name, without their manifests' details; a file's own
    /// entry when the path names a file.
    pub async fn list(&self, path: &RemotePath) -> Result<Vec<Entry>> {
        self.list_entries(&self.stat(path).await?, false).await
    }

    /// Like [`Client::list`] for an entry at hand; `manifests` for callers that read contents next.
    pub async fn list_entries(&self, entry: &Entry, manifests: bool) -> Result<Vec<Entry>> {
        if entry.kind != EntryKind::Folder {
            return Ok(vec![entry.clone()]);
        }
        if let Some(kind) = entry.place {
            return self.virtual_list(&entry.path, kind).await;
        }
        let mut all = Vec::new();
        let folder = self.folder_of(entry).await?;
        let listed = self.pages(&folder, manifests, |page| {
            all.extend(page);
            Ok(())
        });
        if let Err(e) = listed.await {
            if e != moved() {
                return Err(e);
            }
            // Given new keys meanwhile: from its path once more.
            all.clear();
            let folder = self.folder_of(&self.stat(&entry.path).await?).await?;
            let listed = self.pages(&folder, manifests, |page| {
                all.extend(page);
                Ok(())
            });
            listed.await?;
        }
        if entry.is_root() {
            all.extend(self.shared_entry().await?);
        }
        // They lie in one folder: the rest of their paths is the same.
        all.sort_by(|a, b| a.path.name().cmp(&b.path.name()));
        Ok(all)
    }

    /// Visits an entry and all below it, folders before their contents, sorted by name.
    pub async fn walk(&self, path: &RemotePath, manifests: bool, mut visit: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
        let mut stack = vec![self.stat(path).await?];
        while let Some(entry) = stack.pop() {
            visit(&entry)?;
            if entry.kind == EntryKind::Folder {
                let mut children = self.list_entries(&entry, manifests).await?;
                children.reverse();
                stack.extend(children);
            }
        }
        Ok(())
    }
}

fn missing_manifest() -> Error {
    Error::corrupt("the catalog does not return the manifest of a file")
}
