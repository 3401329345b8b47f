//! Every change of the tree that moves no content.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::shared::depth_of;
use crate::tree::{Entry, EntryKind, Folder};
use crate::upload::{Put, PutOptions, Source};
use model::command::Command;
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
        self.check_writable(&source)?;
        self.check_writable(&target)?;
        if source.space.id() != target.space.id() {
            return self.move_over(&entry, to).await;
        }
        self.move_within(&source, &name, &entry, &target, &new_name).await
    }

    /// Renames an entry as it was looked up. `Conflict` when it has changed since, `Exists` when the new name is
    /// taken, `Invalid` for another space.
    pub async fn rename_entry(&self, entry: &Entry, to: &RemotePath) -> Result<()> {
        let (source, name, now) = self.resolve(&entry.path).await?;
        if now.is_none_or(|now| (now.id, now.version) != (entry.id, entry.version)) {
            return Err(Error::conflict(format!("{} was changed meanwhile", entry.path)));
        }
        let (target, new_name, there) = self.resolve(to).await?;
        if there.is_some() {
            return Err(Error::exists(format!("{to} exists already")));
        }
        if source.space.id() != target.space.id() {
            return Err(Error::invalid(format!("{to} lies in another space")));
        }
        self.check_writable(&target)?;
        self.move_within(&source, &name, entry, &target, &new_name).await
    }

    async fn move_within(&self, source: &Folder, name: &Name, entry: &Entry, target: &Folder, new_name: &Name) -> Result<()> {
        let found = &entry.found;
        let moved = renamed(&found.entry, new_name)?;
        let row = target.keys.seal(found.id, found.rev + 1, &moved, &mut self.env().rand())?;
        let expect = Expect::At { folder: source.keys.folder, tag: source.keys.tag(name), rev: found.rev };
        let (child, manifest) = links(&found.entry);
        self.commit(vec![Pending::new(&target.space, Change { row, expect, child, manifest, new_manifest: None, purge: false })]).await?;
        self.folders().forget(&entry.path);
        Ok(())
    }

    /// Moves something into another space: it is copied, contents and all, and then removed, to the trash.
    async fn move_over(&self, entry: &Entry, to: &RemotePath) -> Result<()> {
        if entry.kind == EntryKind::Folder {
            let mut inside = None;
            self.walk(&entry.path, false, |e| {
                if inside.is_none() && e.is_shared() {
                    inside = Some(e.path.clone());
                }
                Ok(())
            })
            .await?;
            if let Some(inside) = inside {
                return Err(Error::invalid(format!("{inside} is a shared folder: it stays in the space in which it is"))
                    .hint("copy it (shardkeep cp -r), and share the copy"));
            }
        }
        self.copy(&entry.path, to, true).await?;
        self.remove(&entry.path, true, false).await.map(|_| ())
    }

    /// Copies a file or, with `recursive`, a folder with all below it. Within a space content is shared, not
    /// moved: a copy costs its entries only. In another one it is stored anew. `Exists` when there is
    /// something at `to`.
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
        self.check_writable(&parent)?;
        let committer = self.committer();
        let mut over = Vec::new();
        let mut stack = vec![(source, parent, name)];
        while let Some((entry, into, name)) = stack.pop() {
            if entry.kind == EntryKind::Folder {
                let attributes = match &entry.found.entry.content {
                    Content::Folder { .. } => entry.found.entry.attributes.clone(),
                    _ => Attributes { mode: 0o755, ..self.now() },
                };
                let (change, folder) = self.new_folder_change(&into, &name, attributes)?;
                committer.send(change, folder.path.to_string()).await?;
                for child in self.list_entries(&entry, false).await? {
                    let name = child.found.entry.name.clone();
                    stack.push((child, folder.clone(), name));
                }
            } else if entry.space.id() != into.space.id() {
                over.push(Put { remote: into.path.join(&name), source: Source::Entry(Box::new(entry)) });
            } else {
                let copied = renamed(&entry.found.entry, &name)?;
                let row = into.keys.seal(EntryId(self.env().random()), 1, &copied, &mut self.env().rand())?;
                let (_, manifest) = links(&copied);
                let change = Change { row, expect: Expect::Absent, child: None, manifest, new_manifest: None, purge: false };
                committer.send(Pending::new(&into.space, change), into.path.join(&name).to_string()).await?;
            }
        }
        committer.finish().await.into_result()?;
        let stored = self.put(over, PutOptions { if_absent: true, ..PutOptions::default() }, Arc::new(())).await?;
        stored.failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))
    }

    /// Removes a file or, with `recursive`, a folder with all below it: to the trash, or with `purge`
    /// for real.
    pub async fn remove(&self, path: &RemotePath, recursive: bool, purge: bool) -> Result<u64> {
        let (folder, name, entry) = self.resolve(path).await?;
        let entry = entry.ok_or_else(|| Error::not_found(format!("{path}: no such file or folder")))?;
        self.check_writable(&folder)?;
        if entry.is_shared() {
            self.end_share(path, &entry, recursive, purge).await?;
        }
        let committer = self.committer();
        if entry.kind == EntryKind::Folder && !entry.is_shared() {
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

    /// What has to be before the entry of a shared folder goes: nobody else is in it. For good, the space goes
    /// with it.
    async fn end_share(&self, path: &RemotePath, entry: &Entry, recursive: bool, purge: bool) -> Result<()> {
        let Content::Space(id) = entry.found.entry.content else { return Err(unexpected()) };
        // As it is now: who is in it decides.
        let space = match self.space_anew(id).await {
            // The space was destroyed and a crash left its door, or it is somebody else's by now. Nobody else sees
            // what lies at home.
            Err(e) if e.kind == Kind::Denied && entry.space.id() == self.home().id() => return Ok(()),
            other => other?,
        };
        let folder = space.at(path.clone());
        let me = self.unlocked().account();
        let others = folder.space.members().newest().1.members.iter().any(|m| m.account != me);
        if others || folder.space.owner()? != me {
            return Err(still_shared(path));
        }
        if !recursive && !self.list_entries(entry, false).await?.is_empty() {
            return Err(Error::invalid(format!("{path} is a folder that is not empty")).hint("rm -r"));
        }
        if purge {
            let space = folder.space.id();
            self.propose(Command::DeleteSpace { space }).await?;
            self.forget_space(space);
        }
        Ok(())
    }

    /// Removes everything below a folder for real, deepest first.
    async fn purge_below(&self, top: &Entry, committer: &crate::commit::Committer) -> Result<()> {
        let mut folders = vec![top.clone()];
        let mut order = Vec::new();
        while let Some(entry) = folders.pop() {
            let folder = self.folder_of(&entry).await?;
            for child in self.list_entries(&entry, false).await? {
                if child.is_shared() {
                    return Err(still_shared(&child.path));
                }
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

fn still_shared(path: &RemotePath) -> Error {
    Error::invalid(format!("{path} is shared")).hint(format!("shardkeep unshare {path} USER, or shardkeep shares leave {path}"))
}

/// The change by which an entry goes: to the trash or, with `purge`, for good.
pub(crate) fn removal(folder: &Folder, name: &Name, entry: &Entry, purge: bool) -> Pending {
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
