//! Files as gateways keep them: with attributes of their own, sealed in the entry like its name, and changed or
//! copied without touching content.

use crate::commit::Pending;
use crate::edit::links;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::{Entry, EntryKind, Folder};
use crate::upload::{OnConflict, Put, PutOptions, Source};
use minicbor::bytes::ByteVec;
use model::tree::{Change, Expect};
use model::{EntryId, Error, Kind, Result};
use seal::tree::{Attributes, Entry as Sealed, Name};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a change is tried while others change the same entry.
const TRIES: usize = 16;

/// Attributes beyond those of a file system, by key. Each gateway has one key, and keeps what others wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<Vec<u8>, Vec<u8>>);

impl Properties {
    /// One property.
    pub fn one(key: &[u8], value: Vec<u8>) -> Self {
        Properties(BTreeMap::from([(key.to_vec(), value)]))
    }

    /// These and one more.
    pub fn with(mut self, key: &[u8], value: Vec<u8>) -> Self {
        self.0.insert(key.to_vec(), value);
        self
    }

    /// By key, sorted.
    pub fn into_pairs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.into_iter().collect()
    }

    /// Sorted, as an entry keeps them.
    pub(crate) fn into_attributes(self) -> Vec<(ByteVec, ByteVec)> {
        self.0.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    }

    /// Those of an entry, with these in the place of what it had under the same keys.
    fn over(self, there: &Attributes) -> Self {
        let old = there.more.iter().map(|(key, value)| (key.to_vec(), value.to_vec()));
        Properties(old.chain(self.0).collect())
    }
}

impl Entry {
    /// The value of a property.
    pub fn property(&self, key: &[u8]) -> Option<&[u8]> {
        let more = &self.found.entry.attributes.more;
        more.iter().find(|(k, _)| k.as_slice() == key).map(|(_, value)| value.as_slice())
    }
}

impl Client {
    /// Gives an entry other properties: a fresh revision with the same content and times. `Conflict` when it has
    /// changed since it was looked up.
    pub async fn set_properties(&self, entry: &Entry, properties: Properties) -> Result<()> {
        let (folder, name, there) = self.resolve(&entry.path).await?;
        self.check_writable(&folder)?;
        let changed = || Error::conflict(format!("{} was changed meanwhile", entry.path));
        let there = there.filter(|t| (t.id, t.version) == (entry.id, entry.version)).ok_or_else(changed)?;
        let old = &there.found.entry;
        let attributes = Attributes { more: properties.over(&old.attributes).into_attributes(), ..old.attributes.clone() };
        let new = Sealed { name: name.clone(), attributes, size: old.size, content: old.content.share() };
        self.commit_over(&folder, &name, Some(&there), &new).await
    }

    /// Puts a file's content under a second path, in the place of what is there, with the present time. Within a
    /// space nothing is moved; from another one it is stored anew. `properties`: other ones than the source has.
    pub async fn copy_file(&self, source: &Entry, to: &RemotePath, properties: Option<Properties>, options: PutOptions) -> Result<()> {
        let properties = properties.unwrap_or_default().over(&source.found.entry.attributes);
        for _ in 0..TRIES {
            let (folder, name, there) = self.resolve(to).await?;
            self.check_writable(&folder)?;
            if there.as_ref().is_some_and(|t| t.kind == EntryKind::Folder) {
                return Err(Error::exists(format!("{to} exists and is a folder")));
            }
            if folder.space.id() != source.space.id() {
                return self.copy_over(source, to, properties, options).await;
            }
            if there.is_some() && options.if_absent {
                return Err(Error::exists(format!("{to} exists already")));
            }
            if options.if_version.is_some() && options.if_version != there.as_ref().map(|t| t.version) {
                return Err(Error::conflict(format!("{to} was changed meanwhile")));
            }
            let old = &source.found.entry;
            let attributes = Attributes { mode: old.attributes.mode, more: properties.clone().into_attributes(), ..self.now() };
            let new = Sealed { name: name.clone(), attributes, size: old.size, content: old.content.share() };
            match self.commit_over(&folder, &name, there.as_ref(), &new).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists) && options.on_conflict == OnConflict::Overwrite => {}
                done => return done,
            }
        }
        Err(Error::conflict(format!("{to}: too many write at the same time")))
    }

    /// From one space into another: the content is read, and stored under keys of its own.
    async fn copy_over(&self, source: &Entry, to: &RemotePath, properties: Properties, options: PutOptions) -> Result<()> {
        let content = Box::new(self.read_all(vec![source.clone()]));
        let put = Put { source: Source::Described(content, Box::new(|| Ok(properties))), remote: to.clone() };
        let report = self.put(vec![put], options, Arc::new(())).await?;
        report.failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))
    }

    /// Commits an entry as the next revision of what is there, or as the first one.
    async fn commit_over(&self, folder: &Folder, name: &Name, there: Option<&Entry>, new: &Sealed) -> Result<()> {
        let (id, rev) = there.map_or_else(|| (EntryId(self.env().random()), 1), |t| (t.id, t.version + 1));
        let row = folder.keys.seal(id, rev, new, &mut self.env().rand())?;
        let at = |rev| Expect::At { folder: folder.keys.folder, tag: folder.keys.tag(name), rev };
        let expect = there.map_or(Expect::Absent, |t| at(t.version));
        let (child, manifest) = links(new);
        let change = Change { row, expect, child, manifest, new_manifest: None, purge: false };
        self.commit(vec![Pending::new(&folder.space, change)]).await.map(|_| ())
    }

    /// Gives way to a folder: the file at a path gets another name beside it, and a new folder its own, both at
    /// once. `Conflict` when it changes meanwhile; nothing to do when it is a folder already.
    pub async fn displace(&self, path: &RemotePath, aside: &str) -> Result<()> {
        let (folder, name, there) = self.resolve(path).await?;
        self.check_writable(&folder)?;
        let there = there.ok_or_else(|| Error::not_found(format!("{path}: no such file or folder")))?;
        if there.kind == EntryKind::Folder {
            return Ok(());
        }
        let aside = Name::new(aside)?;
        let old = &there.found.entry;
        let moved = Sealed { name: aside, attributes: old.attributes.clone(), size: old.size, content: old.content.share() };
        let row = folder.keys.seal(there.id, there.version + 1, &moved, &mut self.env().rand())?;
        let expect = Expect::At { folder: folder.keys.folder, tag: folder.keys.tag(&name), rev: there.version };
        let (_, manifest) = links(&moved);
        let away = Pending::new(&folder.space, Change { row, expect, child: None, manifest, new_manifest: None, purge: false });
        let (made, _) = self.new_folder_change(&folder, &name, Attributes { mode: 0o755, ..self.now() })?;
        self.commit(vec![away, made]).await.map(|_| ())
    }

    /// The entries of a folder, in pages, in no order: for folders too large to be held at once.
    pub async fn each_page(&self, folder: &Entry, each: impl FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
        if folder.kind != EntryKind::Folder || folder.place.is_some() {
            return Err(Error::invalid(format!("{} is not a folder with entries of its own", folder.path)));
        }
        let folder = self.folder_of(folder).await?;
        self.pages(&folder, false, each).await
    }
}
