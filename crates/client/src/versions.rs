//! Versions of a file: what it was before, and what somebody else wrote at the same time.
//!
//! Each version is a row like the current one: signed by who wrote it, opened with the keys of the folder
//! in which it lay. To restore one is a write like any other: a fresh revision with its content.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::edit::links;
use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::Space;
use crate::tree::{Entry, EntryKind, Folder};
use model::command::{Answer, Query};
use model::history::History;
use model::tree::{CONFLICTS, Change, Expect, Row};
use model::{AccountId, EntryId, Error, Kind, Result};
use seal::tree::{Content, Entry as Sealed, Found, Name, RowVerifier};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The number of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionNumber {
    /// A revision: 1, 2, …
    Revision(u64),
    /// A conflict version: c1, c2, …
    Conflict(u64),
}

impl VersionNumber {
    /// Of a row's revision.
    pub(crate) fn of(rev: u64) -> Self {
        if rev >= CONFLICTS { VersionNumber::Conflict(rev - CONFLICTS) } else { VersionNumber::Revision(rev) }
    }

    /// The revision of its row.
    fn rev(self) -> u64 {
        match self {
            VersionNumber::Revision(rev) => rev,
            VersionNumber::Conflict(number) => CONFLICTS.saturating_add(number),
        }
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionNumber::Revision(n) => write!(f, "{n}"),
            VersionNumber::Conflict(n) => write!(f, "c{n}"),
        }
    }
}

impl FromStr for VersionNumber {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (kind, digits): (fn(u64) -> Self, _) = match text.strip_prefix('c') {
            Some(rest) => (VersionNumber::Conflict, rest),
            None => (VersionNumber::Revision, text),
        };
        let number = digits.parse::<u64>().ok().filter(|n| (1..CONFLICTS).contains(n) && !digits.starts_with('+'));
        number
            .map(kind)
            .ok_or_else(|| Error::invalid(format!("'{}' is no version: say a number, or c1 for a conflict", text.escape_debug())))
    }
}

/// One version of an entry.
#[derive(Clone)]
pub struct Version {
    /// Its number.
    pub number: VersionNumber,
    /// It is the current one.
    pub current: bool,
    /// It is a removal: from here on there was nothing.
    pub removal: bool,
    /// Where it lay; `None` when the folder is gone, and with it the means to open the version.
    pub path: Option<RemotePath>,
    /// Bytes; `None` for a removal and for what cannot be opened.
    pub size: Option<u64>,
    /// Modification time of the content, nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// When it was committed, milliseconds since 1970, as the servers say.
    pub committed_ms: u64,
    /// Who wrote and signed it.
    pub author: AccountId,
    /// Name of that account.
    pub author_name: String,
    /// When it will be gone, milliseconds since 1970; `None` for the current one.
    pub until_ms: Option<u64>,
    found: Option<Arc<Found>>,
    space: Arc<Space>,
}

impl Version {
    /// The version as an entry that can be read.
    pub fn entry(&self) -> Result<Entry> {
        let gone = || Error::invalid(format!("version {} is a removal, or its folder is gone: it has no content to read", self.number));
        let (Some(found), Some(path)) = (self.found.clone(), self.path.clone()) else { return Err(gone()) };
        Ok(Entry::of_version(path, self.space.clone(), found))
    }
}

impl Client {
    /// All versions of the file at a path, oldest first, the current one and conflict versions after it; of
    /// one that is in the trash, what is kept there.
    pub async fn versions(&self, path: &RemotePath) -> Result<Vec<Version>> {
        if let Some((folder, _, entry)) = self.there(path).await? {
            return self.versions_of(&folder, entry.id, Some(&entry)).await;
        }
        let item = self.find_in_trash(path).await?;
        self.versions_of(&self.folder_above(path).await?, item.id, None).await
    }

    /// What lies at a path, if anything does.
    async fn there(&self, path: &RemotePath) -> Result<Option<(Folder, Name, Entry)>> {
        match self.resolve(path).await {
            Ok((folder, name, entry)) => Ok(entry.map(|entry| (folder, name, entry))),
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One version of the file at a path.
    pub async fn version(&self, path: &RemotePath, number: VersionNumber) -> Result<Version> {
        let all = self.versions(path).await?;
        let missing = || Error::not_found(format!("{path} has no version {number} (any more)")).hint(format!("shardkeep versions {path}"));
        all.into_iter().find(|v| v.number == number).ok_or_else(missing)
    }

    pub(crate) async fn versions_of(&self, folder: &Folder, id: EntryId, current: Option<&Entry>) -> Result<Vec<Version>> {
        let space = &folder.space;
        let mut pages: Vec<History> = Vec::new();
        let mut after = 0;
        loop {
            let query = Query::History { space: space.id(), entry: id, after, limit: 500 };
            let Answer::History(page) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            for row in &page.rows.rows {
                if row.row.entry != id || row.row.rev <= after {
                    return Err(Error::corrupt("the catalog answers with versions of something else, or out of order"));
                }
                after = row.row.rev;
            }
            let more = page.rows.more && !page.rows.rows.is_empty();
            pages.push(page);
            if !more {
                break;
            }
        }
        let mut ways = self.ways(folder).await?;
        self.learn(space, &mut ways, pages.iter().flat_map(|p| &p.rows.rows).map(|row| row.row.folder)).await?;
        let mut versions = Vec::new();
        let mut space = space.clone();
        for History { rows, ended_ms, retention_ms } in pages {
            let (rows, now) = self.rows_of(&space, rows).await?;
            space = now;
            let verified = RowVerifier::new(&space).verify(&rows)?;
            for (row, ended_ms) in verified.rows().zip(&ended_ms) {
                let removal = row.is_removal();
                let way = ways.get(row.row().row.folder).filter(|_| !removal);
                let found = way.map(|way| row.open(&way.keys).map(Arc::new)).transpose()?;
                versions.push(Version {
                    number: VersionNumber::of(row.row().row.rev),
                    current: false,
                    removal,
                    path: way.zip(found.as_ref()).map(|(way, found)| way.path.join(&found.entry.name)),
                    size: found.as_ref().map(|f| f.entry.size),
                    mtime_ns: found.as_ref().map(|f| f.entry.attributes.mtime_ns),
                    committed_ms: row.row().time_ms,
                    author: row.author(),
                    author_name: String::new(),
                    until_ms: Some(ended_ms.saturating_add(retention_ms)),
                    found,
                    space: space.clone(),
                });
            }
        }
        if let Some(entry) = current {
            let found = &entry.found;
            // A revision that ceased to be current between the two questions comes twice.
            versions.retain(|v| v.number != VersionNumber::Revision(found.rev));
            versions.push(Version {
                number: VersionNumber::Revision(found.rev),
                current: true,
                removal: false,
                path: Some(entry.path.clone()),
                size: Some(found.entry.size),
                mtime_ns: Some(found.entry.attributes.mtime_ns),
                committed_ms: found.time_ms,
                author: found.author,
                author_name: String::new(),
                until_ms: None,
                found: Some(found.clone()),
                space: space.clone(),
            });
        }
        versions.sort_by_key(|v| v.number);
        let names = self.names_of(&space, versions.iter().map(|v| v.author).collect::<BTreeSet<_>>())?;
        for version in &mut versions {
            version.author_name = names.get(&version.author).cloned().unwrap_or_default();
        }
        Ok(versions)
    }

    /// Makes a version's content the current one again, as a fresh revision: of a file that is there, or of
    /// one in the trash. Without a number: the version before the current one, or what was removed last from
    /// this place. Answers with the number of the version restored.
    pub async fn restore(&self, path: &RemotePath, number: Option<VersionNumber>) -> Result<VersionNumber> {
        let Some((folder, name, entry)) = self.there(path).await? else {
            let item = self.find_in_trash(path).await?;
            return self.restore_from_trash(&item, number, None).await;
        };
        if entry.kind == EntryKind::Folder {
            return Err(Error::invalid(format!("{path} is a folder that is there: only files have versions to restore"))
                .hint(format!("shardkeep trash list {path}")));
        }
        let versions = self.versions_of(&folder, entry.id, Some(&entry)).await?;
        let chosen = choose(path, &versions, number)?;
        let (content, number) = (chosen.content(path)?, chosen.number);
        let expect = Expect::At { folder: folder.keys.folder, tag: folder.keys.tag(&name), rev: entry.found.rev };
        self.commit_restored(&folder, &name, entry.id, entry.found.rev + 1, expect, content).await?;
        Ok(number)
    }

    /// Destroys one older version of a file, or a conflict version, for good; the entry is as it was. The file
    /// may be given by any of its versions. `NotFound` for the current version, and for one that is gone
    /// already; `Invalid` for the removal of what is in the trash. Watches do not tell of it.
    pub async fn drop_version(&self, entry: &Entry, number: VersionNumber) -> Result<()> {
        let missing = || Error::not_found(format!("{} has no older version {number} (any more)", entry.path));
        let rev = number.rev();
        let query = Query::History { space: entry.space.id(), entry: entry.id, after: rev.saturating_sub(1), limit: 1 };
        let Answer::History(page) = self.cluster().ask(query).await? else { return Err(unexpected()) };
        let (rows, space) = self.rows_of(&entry.space, page.rows).await?;
        let verified = RowVerifier::new(&space).verify(&rows)?;
        let old = verified.rows().map(|row| &row.row().row).find(|row| (row.entry, row.rev) == (entry.id, rev)).ok_or_else(missing)?;
        let row = Row { sealed: Vec::new().into(), ..old.clone() };
        let change = Change { row, expect: Expect::Older, child: None, manifest: None, new_manifest: None, purge: true };
        match self.commit(vec![Pending::new(&space, change)]).await {
            Err(e) if e.kind == Kind::NotFound => Err(missing()),
            done => done.map(|_| ()),
        }
    }

    /// Commits old content as a fresh revision at a place.
    pub(crate) async fn commit_restored(
        &self,
        folder: &Folder,
        name: &Name,
        id: EntryId,
        rev: u64,
        expect: Expect,
        old: &Sealed,
    ) -> Result<()> {
        let entry = Sealed { name: name.clone(), attributes: old.attributes.clone(), size: old.size, content: old.content.share() };
        let row = folder.keys.seal(id, rev, &entry, &mut self.env().rand())?;
        let (child, manifest) = links(&entry);
        let change = Change { row, expect, child, manifest, new_manifest: None, purge: false };
        self.commit(vec![Pending::new(&folder.space, change)]).await.map(|_| ())
    }
}

impl Version {
    /// What restoring it brings back.
    pub(crate) fn content(&self, path: &RemotePath) -> Result<&Sealed> {
        let gone =
            || Error::invalid(format!("version {} of {path} cannot be restored: it is a removal, or its folder is gone", self.number));
        let found = self.found.as_ref().ok_or_else(gone)?;
        match found.entry.content {
            Content::Space(_) => Err(gone()),
            _ => Ok(&found.entry),
        }
    }
}

/// The version with a number, or the last one before the current one that has content.
pub(crate) fn choose<'v>(path: &RemotePath, versions: &'v [Version], number: Option<VersionNumber>) -> Result<&'v Version> {
    let hint = format!("shardkeep versions {path}");
    let revisions = |v: &&Version| matches!(v.number, VersionNumber::Revision(_)) && !v.current && !v.removal && v.path.is_some();
    match number {
        Some(number) => versions
            .iter()
            .find(|v| v.number == number)
            .ok_or_else(|| Error::not_found(format!("{path} has no version {number} (any more)")).hint(hint)),
        None => versions.iter().rev().find(revisions).ok_or_else(|| Error::not_found(format!("{path} has no earlier version"))),
    }
}
