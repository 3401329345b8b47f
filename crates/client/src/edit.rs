//! Every change of the tree that moves no content.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::shared::depth_of;
use crate::tree::{Entry, EntryKind, Folder};
use model::tree::{Change, Expect};
use model::{EntryId, Error, Kind, ManifestId, Result};
use seal::tree::{Attributes, Content, Entry as Sealed, Name, new_folder};
use std::sync::Arc;

impl Client {
    /// Makes a folder; with `parents` also those above it, and an existing one is fine.
    pub async fn mkdir(&self, path: &RemotePath, parents: bool) -> Result<()> {
        let mut at = if parents { 1 } else { path.names().len() };
        while at <= path.names().len() {
            let here = path.prefix(at);
            if parents && depth_of(&here).is_some_and(|depth| depth <= 3) {
                self.stat(&here).await?;
            } else if here.name().is_some() {
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
        let content = Content::Folder { id, key, epoch: parent.space.epoch() };
        let entry = Sealed { name: name.clone(), attributes, size: 0, content };
        let keys = parent.keys.of_child(&entry).ok_or_else(unexpected)?;
        let row = parent.keys.seal(EntryId(self.env().random()), 1, &entry, &mut rng)?;
        let change = Change { row, expect: Expect::Absent, child: Some(id), manifest: None, new_manifest: None, purge: false };
        let space = parent.space.clone();
        let folder = Folder { path: parent.path.join(name), keys: Arc::new(keys), space };
        Ok((Pending::new(&parent.space, change), folder))
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
        self.commit(vec![Pending::new(&target.space, Change { row, expect, child, manifest, new_manifest: None, purge: false })]).await?;
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
                committer.send(Pending::new(&into.space, change), into.path.join(&name).to_string()).await?;
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
            let folder = self.folder_of(&entry).await?;
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
        let folder = self.folder_of(parent).await?;
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
    Pending::new(&folder.space, Change { row, expect, child, manifest: None, new_manifest: None, purge })
}

/// The same entry under another name. Keys are copied: both names lead to the same content.
fn renamed(entry: &Sealed, name: &Name) -> Result<Sealed> {
    Ok(Sealed { name: name.clone(), attributes: entry.attributes.clone(), size: entry.size, content: entry.content.share() })
}

/// What the catalog keeps beside a row in the clear.
pub(crate) fn links(entry: &Sealed) -> (Option<model::FolderId>, Option<ManifestId>) {
    match &entry.content {
        Content::Folder { id, .. } => (Some(*id), None),
        Content::Manifest { id, .. } => (None, Some(*id)),
        _ => (None, None),
    }
}
