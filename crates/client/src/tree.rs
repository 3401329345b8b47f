//! The tree: finding entries by path, listing, and every change that moves no content.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use model::command::{Answer, Query, Rows};
use model::tree::{Change, Expect, ManifestRow};
use model::{EntryId, Error, Kind, ManifestId, Policy, Result};
use seal::tree::{Attributes, Content, Entry as Sealed, FolderKeys, Found, Kind as SealedKind, Listing, Name, RowVerifier, new_folder};
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
}

impl Entry {
    fn new(path: RemotePath, found: Found, manifest: Option<Arc<ManifestRow>>) -> Self {
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
            found: Arc::new(found),
            manifest,
        }
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

    /// Number of its chunks.
    pub fn chunks(&self) -> u64 {
        if self.manifest.is_some() { seal::content::Manifest::chunk_count(self.size) } else { 0 }
    }
}

/// A folder at hand: where it is and the keys of its rows.
#[derive(Clone)]
pub(crate) struct Folder {
    pub path: RemotePath,
    pub keys: Arc<FolderKeys>,
}

/// Keys of folders seen, by path. A guess that each look-up verifies: a folder that was moved or
/// replaced is found out because its parent's row no longer leads to it.
pub(crate) struct Folders {
    root: Arc<FolderKeys>,
    known: Mutex<BTreeMap<RemotePath, Arc<FolderKeys>>>,
}

/// Folders remembered at most.
const KNOWN_MAX: usize = 10_000;

impl Folders {
    pub fn new(root: FolderKeys) -> Self {
        Folders { root: Arc::new(root), known: Mutex::default() }
    }

    fn get(&self, path: &RemotePath) -> Option<Arc<FolderKeys>> {
        if path.name().is_none() {
            return Some(self.root.clone());
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn set(&self, path: &RemotePath, keys: Arc<FolderKeys>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(path.clone(), keys);
    }

    fn forget(&self, path: &RemotePath) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|p, _| !p.is_within(path));
    }
}

impl Client {
    pub(crate) fn root_folder(&self) -> Folder {
        Folder { path: RemotePath::root(), keys: self.folders().root.clone() }
    }

    /// Verifies rows and opens those that were asked for.
    fn open_rows(&self, rows: &Rows, steps: &[(&FolderKeys, &Name)]) -> Result<Vec<Option<Found>>> {
        RowVerifier::new(self.home()).verify(rows)?.lookup(steps)
    }

    /// Resolves all names of a path, linearisably: one round trip when its folders are known.
    /// Gives the folder of the last name, and what lies there. `NotFound` when a folder on the way
    /// is missing; `Invalid` when something on the way is no folder.
    pub(crate) async fn resolve(&self, path: &RemotePath) -> Result<(Folder, Name, Option<Entry>)> {
        let names = path.names();
        let Some(last) = path.name().cloned() else { return Err(Error::invalid("the root itself cannot be the target here")) };
        loop {
            // The longest run of folders whose keys are known, from the root.
            let mut folders = Vec::new();
            while folders.len() < names.len() {
                let Some(keys) = self.folders().get(&path.prefix(folders.len())) else { break };
                folders.push(keys);
            }
            let known: Vec<(&FolderKeys, &Name)> = folders.iter().map(|k| &**k).zip(names).collect();
            let steps = known.iter().map(|(k, n)| (k.folder, k.tag(n))).collect();
            let query = Query::Walk { space: self.home().id(), steps, manifests: true };
            let Answer::Rows(rows) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            let found = self.open_rows(&rows, &known)?;
            let mut changed = false;
            for (i, step) in found.iter().enumerate().take(names.len() - 1) {
                let here = path.prefix(i + 1);
                let Some(step) = step else {
                    self.folders().forget(&here);
                    return Err(Error::not_found(format!("{here}: no such folder")));
                };
                let keys = folders.get(i).and_then(|k| k.of_child(&step.entry));
                let Some(keys) = keys else { return Err(Error::invalid(format!("{here} is not a folder"))) };
                if folders.get(i + 1).is_none_or(|k| k.folder != keys.folder || k.epoch != keys.epoch) {
                    self.folders().forget(&here);
                    self.folders().set(&here, Arc::new(keys));
                    changed = true;
                    break;
                }
            }
            if changed {
                continue;
            }
            let parent = path.prefix(names.len() - 1);
            let keys = folders.last().cloned().ok_or_else(unexpected)?;
            let entry = found.into_iter().nth(names.len() - 1).flatten();
            let entry = entry.map(|f| self.entry(path.clone(), f, rows.manifests)).transpose()?;
            return Ok((Folder { path: parent, keys }, last, entry));
        }
    }

    /// An entry with its manifest from among those that came along.
    fn entry(&self, path: RemotePath, found: Found, manifests: Vec<ManifestRow>) -> Result<Entry> {
        let manifest = match &found.entry.content {
            Content::Manifest { id, .. } => Some(manifests.into_iter().find(|m| m.id == *id).ok_or_else(missing_manifest)?),
            _ => None,
        };
        Ok(Entry::new(path, found, manifest.map(Arc::new)))
    }

    /// The entry at a path. `NotFound` where there is none.
    pub async fn stat(&self, path: &RemotePath) -> Result<Entry> {
        if path.name().is_none() {
            return self.root_entry();
        }
        let (_, _, entry) = self.resolve(path).await?;
        entry.ok_or_else(|| Error::not_found(format!("{path}: no such file or folder")))
    }

    fn root_entry(&self) -> Result<Entry> {
        let home = self.home();
        let key = home.root_key()?;
        let content = Content::Folder { id: home.root_id(), key, epoch: home.root_epoch() };
        let sealed = Sealed { name: Name::new("root")?, attributes: Attributes { mode: 0o700, ..Default::default() }, size: 0, content };
        let found = Found {
            id: EntryId([0; 16]),
            rev: 0,
            tag: model::NameTag([0; 16]),
            commit: model::CommitId([0; 16]),
            author: self.unlocked().account(),
            time_ms: 0,
            entry: sealed,
        };
        Ok(Entry::new(RemotePath::root(), found, None))
    }

    /// The folder behind an entry. `Invalid` when it is none.
    pub(crate) fn folder_of(&self, entry: &Entry) -> Result<Folder> {
        if entry.is_root() {
            return Ok(self.root_folder());
        }
        let keys = self.folders().root.of_child(&entry.found.entry);
        let keys = Arc::new(keys.ok_or_else(|| Error::invalid(format!("{} is not a folder", entry.path)))?);
        self.folders().set(&entry.path, keys.clone());
        Ok(Folder { path: entry.path.clone(), keys })
    }

    /// One page of a folder after another, sorted inside nothing: in the order of tags.
    pub(crate) async fn pages(&self, folder: &Folder, manifests: bool, mut each: impl FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
        let mut listing = Listing::new();
        let limit = if manifests { 500 } else { 2000 };
        let query = |after| Query::List { space: self.home().id(), folder: folder.keys.folder, after, limit, manifests };
        let mut next = Some(self.cluster().ask(query(None)).await?);
        while let Some(answer) = next.take() {
            let Answer::Rows(rows) = answer else { return Err(unexpected()) };
            let verified = RowVerifier::new(self.home()).verify(&rows)?;
            for row in verified.rows() {
                listing.admit(&row)?;
            }
            // The next page is under way while this one is opened.
            let after = listing.after();
            let ask = async { if rows.more { Some(self.cluster().ask(query(after)).await).transpose() } else { Ok(None) } };
            let open = async {
                let by_id: BTreeMap<ManifestId, Arc<ManifestRow>> = rows.manifests.iter().map(|m| (m.id, Arc::new(m.clone()))).collect();
                let mut page = Vec::with_capacity(rows.rows.len());
                for row in verified.rows() {
                    let found = row.open(&folder.keys)?;
                    let manifest = match &found.entry.content {
                        Content::Manifest { id, .. } if manifests => Some(by_id.get(id).cloned().ok_or_else(missing_manifest)?),
                        _ => None,
                    };
                    page.push(Entry::new(folder.path.join(&found.entry.name), found, manifest));
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
        let folder = self.folder_of(entry)?;
        let mut all = Vec::new();
        self.pages(&folder, manifests, |page| {
            all.extend(page);
            Ok(())
        })
        .await?;
        all.sort_by(|a, b| a.path.cmp(&b.path));
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

    /// Makes a folder; with `parents` also those above it, and an existing one is fine.
    pub async fn mkdir(&self, path: &RemotePath, parents: bool) -> Result<()> {
        let mut at = if parents { 1 } else { path.names().len() };
        while at <= path.names().len() {
            let here = path.prefix(at);
            if here.name().is_some() {
                let (folder, name, entry) = self.resolve(&here).await?;
                match entry {
                    Some(e) if parents && e.kind == EntryKind::Folder => {}
                    Some(_) => return Err(Error::exists(format!("{here} exists already"))),
                    None => {
                        let made = self.new_folder_change(&folder, &name, Attributes { mode: 0o755, ..self.now() })?.0;
                        match self.commit(vec![made]).await {
                            Err(e) if parents && e.kind == Kind::Exists => continue,
                            other => other?,
                        };
                    }
                }
            } else if !parents {
                return Err(Error::exists("/ exists already"));
            }
            at += 1;
        }
        Ok(())
    }

    /// Attributes with the present time.
    pub(crate) fn now(&self) -> Attributes {
        Attributes { mode: 0o644, mtime_ns: (self.env().now_ms() as i64).saturating_mul(1_000_000), more: Vec::new() }
    }

    /// The change that makes a folder, and the folder.
    pub(crate) fn new_folder_change(&self, parent: &Folder, name: &Name, attributes: Attributes) -> Result<(Pending, Folder)> {
        let mut rng = self.env().rand();
        let (id, key) = new_folder(&mut rng);
        let content = Content::Folder { id, key, epoch: self.home().epoch() };
        let entry = Sealed { name: name.clone(), attributes, size: 0, content };
        let keys = parent.keys.of_child(&entry).ok_or_else(unexpected)?;
        let row = parent.keys.seal(EntryId(self.env().random()), 1, &entry, &mut rng)?;
        let change = Change { row, expect: Expect::Absent, child: Some(id), manifest: None, new_manifest: None, purge: false };
        let folder = Folder { path: parent.path.join(name), keys: Arc::new(keys) };
        Ok((Pending::new(change), folder))
    }

    /// Moves or renames. `Exists` when there is something at `to`.
    pub async fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<()> {
        if to != from && to.is_within(from) {
            return Err(Error::invalid(format!("{from} cannot be moved into itself")));
        }
        let (source, name, entry) = self.resolve(from).await?;
        let entry = entry.ok_or_else(|| Error::not_found(format!("{from}: no such file or folder")))?;
        let (target, new_name, there) = self.resolve(to).await?;
        if there.is_some_and(|e| e.id != entry.id) {
            return Err(Error::exists(format!("{to} exists already")));
        }
        let found = &entry.found;
        let moved = renamed(&found.entry, &new_name)?;
        let row = target.keys.seal(found.id, found.rev + 1, &moved, &mut self.env().rand())?;
        let expect = Expect::At { folder: source.keys.folder, tag: source.keys.tag(&name), rev: found.rev };
        let (child, manifest) = links(&found.entry);
        self.commit(vec![Pending::new(Change { row, expect, child, manifest, new_manifest: None, purge: false })]).await?;
        self.folders().forget(from);
        Ok(())
    }

    /// Copies a file or, with `recursive`, a folder with all below it. Content is shared, not moved:
    /// a copy costs its entries only. `Exists` when there is something at `to`.
    pub async fn copy(&self, from: &RemotePath, to: &RemotePath, recursive: bool) -> Result<()> {
        let source = self.stat(from).await?;
        if source.kind == EntryKind::Folder && !recursive {
            return Err(Error::invalid(format!("{from} is a folder")).hint("cp -r"));
        }
        if to.is_within(from) {
            return Err(Error::invalid(format!("{from} cannot be copied into itself")));
        }
        let (parent, name, there) = self.resolve(to).await?;
        if there.is_some() {
            return Err(Error::exists(format!("{to} exists already")));
        }
        let committer = self.committer();
        let mut stack = vec![(source, parent, name)];
        while let Some((entry, into, name)) = stack.pop() {
            if entry.kind == EntryKind::Folder {
                let (change, folder) = self.new_folder_change(&into, &name, entry.found.entry.attributes.clone())?;
                committer.send(change, folder.path.to_string()).await?;
                for child in self.list_entries(&entry, false).await? {
                    let name = child.found.entry.name.clone();
                    stack.push((child, folder.clone(), name));
                }
            } else {
                let copied = renamed(&entry.found.entry, &name)?;
                let row = into.keys.seal(EntryId(self.env().random()), 1, &copied, &mut self.env().rand())?;
                let (_, manifest) = links(&copied);
                let change = Change { row, expect: Expect::Absent, child: None, manifest, new_manifest: None, purge: false };
                committer.send(Pending::new(change), into.path.join(&name).to_string()).await?;
            }
        }
        committer.finish().await.into_result().map(|_| ())
    }

    /// Removes a file or, with `recursive`, a folder with all below it: to the trash, or with `purge`
    /// for real.
    pub async fn remove(&self, path: &RemotePath, recursive: bool, purge: bool) -> Result<u64> {
        let (folder, name, entry) = self.resolve(path).await?;
        let entry = entry.ok_or_else(|| Error::not_found(format!("{path}: no such file or folder")))?;
        let committer = self.committer();
        if entry.kind == EntryKind::Folder {
            if !recursive && !self.list_entries(&entry, false).await?.is_empty() {
                return Err(Error::invalid(format!("{path} is a folder that is not empty")).hint("rm -r"));
            }
            if recursive && purge {
                self.purge_below(&entry, &committer).await?;
            }
        }
        committer.send(removal(&folder, &name, &entry, purge), path.to_string()).await?;
        let done = committer.finish().await.into_result()?;
        self.folders().forget(path);
        Ok(done)
    }

    /// Removes everything below a folder for real, deepest first.
    async fn purge_below(&self, top: &Entry, committer: &crate::commit::Committer) -> Result<()> {
        let mut folders = vec![top.clone()];
        let mut order = Vec::new();
        while let Some(entry) = folders.pop() {
            let folder = self.folder_of(&entry)?;
            for child in self.list_entries(&entry, false).await? {
                if child.kind == EntryKind::Folder {
                    folders.push(child.clone());
                }
                order.push((folder.clone(), child));
            }
        }
        for (folder, child) in order.iter().rev() {
            committer.send(removal(folder, &child.found.entry.name, child, true), child.path.to_string()).await?;
        }
        Ok(())
    }

    /// Removes several entries, in batches. For callers that listed them.
    pub async fn remove_entries(&self, parent: &Entry, entries: &[Entry], purge: bool) -> Result<u64> {
        let folder = self.folder_of(parent)?;
        let committer = self.committer();
        for entry in entries {
            committer.send(removal(&folder, &entry.found.entry.name, entry, purge), entry.path.to_string()).await?;
        }
        committer.finish().await.into_result()
    }
}

fn removal(folder: &Folder, name: &Name, entry: &Entry, purge: bool) -> Pending {
    let found = &entry.found;
    let row = folder.keys.removal(found.id, found.rev + 1, name);
    let expect = Expect::At { folder: folder.keys.folder, tag: folder.keys.tag(name), rev: found.rev };
    let (child, _) = links(&found.entry);
    Pending::new(Change { row, expect, child, manifest: None, new_manifest: None, purge })
}

/// The same entry under another name. Keys are copied: both names lead to the same content.
fn renamed(entry: &Sealed, name: &Name) -> Result<Sealed> {
    Ok(Sealed { name: name.clone(), attributes: entry.attributes.clone(), size: entry.size, content: entry.content.share() })
}

/// What the catalog keeps beside a row in the clear.
fn links(entry: &Sealed) -> (Option<model::FolderId>, Option<ManifestId>) {
    match &entry.content {
        Content::Folder { id, .. } => (Some(*id), None),
        Content::Manifest { id, .. } => (None, Some(*id)),
        _ => (None, None),
    }
}

fn missing_manifest() -> Error {
    Error::corrupt("the catalog does not return the manifest of a file")
}
