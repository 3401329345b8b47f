//! Where the files of an upload go, and what is there.

use super::{Place, There, Upload, Work, check_there};
use crate::commit::Committer;
use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::moved;
use crate::tree::{EntryKind, Folder};
use model::command::Query;
use model::{Error, Result};
use seal::tree::{Attributes, Name, RowVerifier};
use std::collections::BTreeMap;

/// How often a place is looked up anew because folders on the way get new keys meanwhile.
const AGAIN: usize = 8;

/// Folders of an upload and what lies in them: those just made are empty, of the others the names
/// needed are looked up in batches.
pub(super) struct Places {
    folders: BTreeMap<RemotePath, Known>,
    /// The names that are to be stored, by folder; true for the files that have their place.
    wanted: BTreeMap<RemotePath, BTreeMap<Name, bool>>,
    /// Entries that are stored anew where they are, with the versions that were read: nothing newer is replaced.
    anew: BTreeMap<RemotePath, u64>,
}

enum Known {
    Fresh(Folder),
    Old(Folder, BTreeMap<Name, (There, EntryKind)>),
}

impl Places {
    pub(super) fn new(items: &[Work]) -> Self {
        let mut wanted: BTreeMap<RemotePath, BTreeMap<Name, bool>> = BTreeMap::new();
        for path in items.iter().map(Work::remote) {
            if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
                wanted.entry(parent).or_default().insert(name.clone(), false);
            }
        }
        let anew = items.iter().filter_map(|item| match item {
            Work::Entry(entry, path) if entry.path == *path => Some((path.clone(), entry.version)),
            _ => None,
        });
        Places { folders: BTreeMap::new(), wanted, anew: anew.collect() }
    }

    /// The place of a file; for a folder it is made, unless it is there, and there is no place.
    pub(super) async fn of(
        &mut self,
        upload: &Upload,
        path: &RemotePath,
        folder: Option<Attributes>,
        committer: &Committer,
    ) -> Result<Option<Place>> {
        for _ in 0..AGAIN {
            match self.find(upload, path, folder.clone(), committer).await {
                // Folders that are given new keys are looked up anew; those just made come after the commit that
                // makes them.
                Err(e) if e == moved() => self.folders.retain(|_, known| matches!(known, Known::Fresh(_))),
                found => return found,
            }
        }
        Err(moved())
    }

    async fn find(
        &mut self,
        upload: &Upload,
        path: &RemotePath,
        folder: Option<Attributes>,
        committer: &Committer,
    ) -> Result<Option<Place>> {
        let client = &upload.client;
        let (Some(parent), Some(name)) = (path.parent(), path.name().cloned()) else {
            return if folder.is_some() { Ok(None) } else { Err(Error::invalid("the root is a folder")) };
        };
        if folder.is_some() && self.folders.contains_key(path) {
            return Ok(None);
        }
        if !self.folders.contains_key(&parent) {
            let entry = client.stat(&parent).await?;
            let folder = client.folder_of(&entry).await?;
            client.check_writable(&folder)?;
            let known = self.look_up(client, folder).await?;
            self.folders.insert(parent.clone(), known);
        }
        let (into, there) = match self.folders.get(&parent).ok_or_else(unexpected)? {
            Known::Fresh(folder) => (folder.clone(), None),
            Known::Old(folder, names) => (folder.clone(), names.get(&name).copied()),
        };
        match (folder, there) {
            (Some(_), Some((_, EntryKind::Folder))) => {
                let entry = client.stat(path).await?;
                let folder = client.folder_of(&entry).await?;
                client.check_writable(&folder)?;
                let known = self.look_up(client, folder).await?;
                self.folders.insert(path.clone(), known);
                Ok(None)
            }
            (Some(_), Some(_)) => Err(Error::exists(format!("{path} exists and is no folder"))),
            (Some(attributes), None) => {
                let (change, made) = client.new_folder_change(&into, &name, attributes)?;
                committer.send(change, path.to_string()).await?;
                self.folders.insert(path.clone(), Known::Fresh(made));
                Ok(None)
            }
            (None, there) => {
                check_there(path, there, &upload.options)?;
                if self.anew.get(path).is_some_and(|version| there.is_none_or(|(t, _)| t.rev != *version)) {
                    return Err(Error::conflict(format!("{path} was written since it was read")));
                }
                let taken = self.wanted.get_mut(&parent).and_then(|names| names.get_mut(&name)).ok_or_else(unexpected)?;
                if std::mem::replace(taken, true) {
                    return Err(Error::exists(format!("{path} is given twice: the first one is stored")));
                }
                Ok(Some(Place { folder: into, name, there: there.map(|(t, _)| t), path: path.clone() }))
            }
        }
    }

    async fn look_up(&self, client: &Client, folder: Folder) -> Result<Known> {
        let mut found = BTreeMap::new();
        let wanted: Vec<&Name> = self.wanted.get(&folder.path).into_iter().flat_map(BTreeMap::keys).collect();
        for names in wanted.chunks(256) {
            let tags = names.iter().map(|n| folder.keys.tag(n)).collect();
            let query = Query::Lookup { space: folder.space.id(), folder: folder.keys.folder, tags, manifests: false };
            let (rows, space) = client.rows(&folder.space, query).await?;
            let steps: Vec<_> = names.iter().map(|n| (&*folder.keys, *n)).collect();
            let opened = RowVerifier::new(&space).verify(&rows)?.lookup(&steps)?;
            for (name, there) in names.iter().zip(opened) {
                if let Some(f) = there {
                    found.insert((*name).clone(), (There { id: f.id, rev: f.rev }, f.entry.kind()));
                }
            }
        }
        Ok(Known::Old(folder, found))
    }
}
