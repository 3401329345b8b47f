//! Files put together of files that are there, without moving their contents: a manifest that names the
//! chunks of all of them, one file after another, committed at one moment with the end of those that are not
//! needed any more.
//!
//! Content that lies in an entry itself has no chunk to be named: it is stored as one, in a fresh object, where
//! index chunks go as well.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::edit::{links, removal};
use crate::fetch;
use crate::issue::Issuer;
use crate::making::{Fresh, Made, Making, Used, too_many};
use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::Space;
use crate::store::{Stored, Target};
use crate::tree::{Entry, EntryKind, Folder};
use minicbor::bytes::ByteVec;
use model::chunk::INLINE_MAX;
use model::command::{Answer, Outcome, Query};
use model::tree::{COMMIT_MAX, Change, Expect, ManifestRow, ObjectUse};
use model::{EntryId, Error, ManifestId, ObjectId, Result};
use seal::content::{ChunkRecord, Cut, Joiner, Manifest};
use seal::tree::{Attributes, Content, Entry as Sealed, Found};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Manifests asked for at once.
const ASKED: usize = 64;

/// How to put files together.
#[derive(Clone, Default)]
pub struct Compose {
    /// Refuse to replace what is there (`Exists`).
    pub if_absent: bool,
    /// Refuse to replace anything but this revision (`Conflict`).
    pub if_version: Option<u64>,
    /// Modification time of the file, nanoseconds since 1970; `None`: now.
    pub mtime_ns: Option<i64>,
    /// Further attributes of the new entry, by key, in any order.
    pub more: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries of the same space that are gone for good with the same commit: at most 255. Folders go with all
    /// below them, unseen: none may hold a folder that is shared.
    pub also_purge: Vec<Entry>,
    /// Settle for k shards of what is stored anew, where the write quorum does not answer.
    pub allow_degraded: bool,
}

/// What came of it.
pub enum Composed {
    /// The file, as committed.
    Made(Box<Entry>),
    /// Nothing was committed: the sources lie in more objects than one manifest names (about 460), or are cut into
    /// more runs of equal parts (1,024). Their bytes can be stored anew as one file.
    TooMany,
}

impl Client {
    /// Makes the file at a path, or replaces it, with the concatenation of files of the same space. `Exists`
    /// where a folder is there or, with `if_absent`, anything; `Conflict` for another revision than
    /// `if_version`, and when somebody else is faster or one of the sources is gone. Nothing is kept as a conflict
    /// version then: the sources are as they were.
    pub async fn compose(&self, sources: &[Entry], to: &RemotePath, how: Compose) -> Result<Composed> {
        let (folder, name, there) = self.resolve(to).await?;
        self.check_writable(&folder)?;
        let there = allowed(to, there, &how)?;
        let space = &folder.space;
        if let Some(other) = sources.iter().chain(&how.also_purge).find(|e| e.space.id() != space.id()) {
            return Err(Error::invalid(format!("{} lies in another space than {to}", other.path)));
        }
        if how.also_purge.len() >= COMMIT_MAX {
            return Err(Error::invalid(format!("at most {} entries can go with a file that is put together", COMMIT_MAX - 1)));
        }
        let purges = self.purges(&how.also_purge).await?;
        let attributes = Attributes { mtime_ns: how.mtime_ns.unwrap_or(self.now().mtime_ns), more: sorted(how.more)?, ..self.now() };
        let size = sources.iter().try_fold(0u64, |sum, e| sum.checked_add(e.size)).ok_or_else(|| Error::invalid("too long for a file"))?;
        let (content, row, grants) = if size <= INLINE_MAX as u64 {
            (self.joined(sources).await?, None, Vec::new())
        } else {
            match self.join(space, sources, attributes.mtime_ns, how.allow_degraded).await {
                Ok(Made { content, row, grants, .. }) => (content, Some(row), grants),
                Err(e) if e == too_many() => return Ok(Composed::TooMany),
                Err(e) => return Err(e),
            }
        };
        let entry = Sealed { name: name.clone(), attributes, size, content };
        let (id, rev) = there.as_ref().map_or_else(|| (EntryId(self.env().random()), 1), |t| (t.id, t.version + 1));
        let sealed = folder.keys.seal(id, rev, &entry, &mut self.env().rand())?;
        let tag = sealed.tag;
        let expect = there.map_or(Expect::Absent, |t| Expect::At { folder: folder.keys.folder, tag, rev: t.version });
        let manifest = row.as_ref().map(|m| m.id);
        let change = Change { row: sealed, expect, child: None, manifest, new_manifest: row.clone(), purge: false };
        let mut commit = vec![Pending::with_content(space, change, grants, None)];
        commit.extend(purges);
        let (commit, outcome) = self.commit_named(commit).await?;
        let Outcome::Committed { time_ms, .. } = outcome else { return Err(unexpected()) };
        let found = Found { id, rev, tag, commit, author: self.unlocked().account(), time_ms, entry };
        Ok(Composed::Made(Box::new(Entry::new(to.clone(), space.clone(), found, row.map(Arc::new)))))
    }

    /// The changes by which entries go for good.
    async fn purges(&self, entries: &[Entry]) -> Result<Vec<Pending>> {
        let mut folders: BTreeMap<RemotePath, Folder> = BTreeMap::new();
        let mut purges = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(above) = entry.path.parent().filter(|_| entry.place.is_none() && !entry.is_shared()) else {
                return Err(Error::invalid(format!("{} is the root of a space, and does not go like this", entry.path)));
            };
            if !folders.contains_key(&above) {
                folders.insert(above.clone(), self.folder_of(&self.stat(&above).await?).await?);
            }
            let folder = folders.get(&above).ok_or_else(unexpected)?;
            purges.push(removal(folder, &entry.found.entry.name, entry, true));
        }
        Ok(purges)
    }

    /// Short files as one that is as short: it lies in its entry.
    async fn joined(&self, sources: &[Entry]) -> Result<Content> {
        let mut bytes = Vec::new();
        for source in sources {
            bytes.extend(self.open_file(source).await?.read(0..source.size).await?);
        }
        Ok(Content::Inline(bytes))
    }

    /// The chunks of all sources as one file.
    async fn join(&self, space: &Arc<Space>, sources: &[Entry], mtime_ns: i64, allow_degraded: bool) -> Result<Made> {
        let rows = self.manifests_of(space, sources).await?;
        let coded: BTreeMap<ObjectId, &ObjectUse> = rows.values().flat_map(|row| &row.objects).map(|o| (o.object, o)).collect();
        let policy = sources.iter().filter_map(|s| rows.get(&manifest_of(s)?)?.objects.first()).map(|o| o.policy).next();
        let issuer = Issuer::default();
        let fresh = Fresh { client: self, issuer: &issuer, space, policy, allow_degraded };
        let (mut making, mut joiner) = (Making::default(), Joiner::default());
        let mut partial = BTreeSet::new();
        for source in sources {
            match &source.found.entry.content {
                Content::Inline(bytes) if bytes.is_empty() => {}
                Content::Inline(bytes) => {
                    let (target, stored) = self.store_inline(&mut making, &fresh, bytes.clone()).await?;
                    if stored.partial {
                        partial.insert((target.object, stored.record.number));
                    }
                    let record = ChunkRecord { object: 0, ..stored.record };
                    joiner.add(&Cut::whole(source.size), &[(target.object, target.key.share())], vec![record])?;
                }
                Content::Manifest { id, key, hash } => {
                    let row = rows.get(id).ok_or_else(|| Error::conflict(format!("{} was removed meanwhile", source.path)))?;
                    let manifest = Manifest::open(*id, key, hash, source.size, &row.sealed)?;
                    let content = fetch::Content::open(manifest, space.id(), row)?;
                    let records = content.records(self, 0..content.manifest.cut.chunks()).await?;
                    joiner.add(&content.manifest.cut, &content.manifest.objects, records)?;
                }
                _ => return Err(Error::invalid(format!("{} is not a file", source.path))),
            }
        }
        let Manifest { cut, objects, records, .. } = joiner.finish(mtime_ns).ok_or_else(too_many)?;
        let own = making.target().map(|(place, target)| (place, target.object));
        let mut places = Vec::with_capacity(objects.len());
        for (object, key) in objects {
            places.push(match own {
                Some((place, own)) if own == object => place,
                _ => {
                    let coded = coded.get(&object).ok_or_else(|| Error::corrupt("the catalog does not say how an object is coded"))?;
                    let ObjectUse { policy, layout, generation, .. } = **coded;
                    making.known(Used { object, key, grant: None, policy, layout, generation })
                }
            });
        }
        let chunks = records.into_iter().map(|record| {
            let object = *places.get(record.object as usize).ok_or_else(unexpected)?;
            let partial = own.is_some_and(|(place, id)| place == object && partial.contains(&(id, record.number)));
            Ok(Stored { record: ChunkRecord { object, ..record }, partial, degraded: false })
        });
        let chunks = chunks.collect::<Result<_>>()?;
        making.finish(&fresh, cut, mtime_ns, chunks).await
    }

    /// What lies in an entry as a chunk of the object that is being made.
    async fn store_inline(&self, making: &mut Making, fresh: &Fresh<'_>, bytes: Vec<u8>) -> Result<(Arc<Target>, Stored)> {
        let (place, target) = match making.target() {
            Some(target) => target,
            None => making.begin(fresh).await?,
        };
        let number = making.next();
        let (record, encoded) = target.encode(self, number, bytes, place).await?;
        let stored = target.store(self, record, encoded, None).await?;
        Ok((target, stored))
    }

    /// The manifests of files, as far as they are not at hand. Those of files that are gone are missing.
    async fn manifests_of(&self, space: &Space, files: &[Entry]) -> Result<BTreeMap<ManifestId, Arc<ManifestRow>>> {
        let mut rows: BTreeMap<_, _> = files.iter().filter_map(|e| e.manifest.clone()).map(|row| (row.id, row)).collect();
        let missing: BTreeSet<ManifestId> = files.iter().filter_map(manifest_of).filter(|id| !rows.contains_key(id)).collect();
        let missing: Vec<ManifestId> = missing.into_iter().collect();
        for ids in missing.chunks(ASKED) {
            let query = Query::Manifests { space: space.id(), ids: ids.to_vec() };
            let Answer::Manifests(found) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            rows.extend(found.into_iter().map(|row| (row.id, Arc::new(row))));
        }
        Ok(rows)
    }
}

fn manifest_of(entry: &Entry) -> Option<ManifestId> {
    links(&entry.found.entry).1
}

/// What is at the target, if that may be replaced.
fn allowed(to: &RemotePath, there: Option<Entry>, how: &Compose) -> Result<Option<Entry>> {
    match &there {
        Some(e) if e.kind == EntryKind::Folder => Err(Error::exists(format!("{to} exists and is a folder"))),
        Some(_) if how.if_absent => Err(Error::exists(format!("{to} exists already"))),
        _ if how.if_version.is_some_and(|v| there.as_ref().is_none_or(|t| t.version != v)) => {
            let found = there.map_or_else(|| "nothing is there".into(), |t| format!("version {} is there", t.version));
            Err(Error::conflict(format!("{to}: {found}")).hint(format!("shardkeep versions {to}")))
        }
        _ => Ok(there),
    }
}

/// Attributes as an entry keeps them: sorted by key, no key twice.
fn sorted(more: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Vec<(ByteVec, ByteVec)>> {
    let (count, by_key) = (more.len(), more.into_iter().collect::<BTreeMap<_, _>>());
    if by_key.len() != count {
        return Err(Error::invalid("an attribute is given twice"));
    }
    Ok(by_key.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}
