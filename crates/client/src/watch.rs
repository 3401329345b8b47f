//! Watching: the changes of a space as they happen, from a revision on, and none twice.
//!
//! The servers keep a log of the latest commits of each space. Who was away for longer than that reaches
//! back is told so (`Resync`) and looks at everything anew. Every change that is told comes with its signed
//! row; of what was destroyed for good nothing is left but the servers' word.

use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::moved;
use crate::tree::{EntryKind, Folder};
use crate::versions::VersionNumber;
use crate::ways::Ways;
use model::history::{Changes, Note, Noted, What};
use model::{AccountId, EntryId, FolderId, Kind, NameTag, Result};
use seal::tree::{Found, Name, RowVerifier, VerifiedRow};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use wire::watch::{WAIT_MAX_MS, WatchRequest, WatchSpace};

/// Names remembered, to tell what was destroyed.
const NAMES_MAX: usize = 10_000;
/// Shortest and longest pause while no coordinator answers.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new here.
    Created,
    /// It came back from the trash.
    Restored,
    /// It has a new revision.
    Changed,
    /// It was moved or renamed.
    Moved,
    /// It went to the trash.
    Removed,
    /// It is gone for good.
    Purged,
    /// Somebody wrote at the same time as another, and lost: that is kept as a conflict version.
    Conflict,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What happened.
    pub kind: ChangeKind,
    /// Where; the folder alone where the name is not known (any more).
    pub path: RemotePath,
    /// Whether the path has the name.
    pub named: bool,
    /// Where it was before, when it was moved from a place that is known.
    pub from: Option<RemotePath>,
    /// Its revision.
    pub version: VersionNumber,
    /// When, milliseconds since 1970, as the servers say.
    pub time_ms: u64,
    /// Who: as signed, but for what is gone for good, where it is the servers' word.
    pub author: AccountId,
    /// Name of that account.
    pub author_name: String,
    /// Revision of the space: a watch that begins after it goes on from here.
    pub revision: u64,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something changed.
    Change(Box<Changed>),
    /// Too much has happened unseen: everything has to be looked at anew. The watch goes on from here.
    Resync,
}

/// What is watched: it stays the same when it is moved.
enum Target {
    Folder(FolderId),
    File(EntryId),
}

/// A watch of a folder with all below it, or of a file, wherever that is moved.
pub struct Watch {
    client: Client,
    folder: Folder,
    target: Target,
    /// Where that lies, as far as known.
    below: RemotePath,
    ways: Ways,
    revision: u64,
    names: BTreeMap<(FolderId, NameTag), Name>,
    authors: BTreeMap<AccountId, String>,
    ready: VecDeque<WatchEvent>,
}

impl Client {
    /// Watches what lies at a path or below, from now on or from a revision of its space.
    pub async fn watch(&self, path: &RemotePath, after: Option<u64>) -> Result<Watch> {
        let entry = self.stat(path).await?;
        let folder = self.folder_above(path).await?;
        let target = match entry.kind {
            EntryKind::Folder => Target::Folder(folder.keys.folder),
            EntryKind::File | EntryKind::Symlink => Target::File(entry.id),
        };
        let ways = self.ways(&folder).await?;
        let mut watch = Watch {
            client: self.clone(),
            folder,
            target,
            below: path.clone(),
            ways,
            revision: 0,
            names: BTreeMap::new(),
            authors: BTreeMap::new(),
            ready: VecDeque::new(),
        };
        watch.revision = match after {
            Some(revision) => revision,
            None => watch.ask(u64::MAX).await?.upto,
        };
        Ok(watch)
    }
}

impl Watch {
    /// The revision of the space up to which everything was told.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next event, whenever that comes. Goes on by itself when coordinators were away. `Denied` when
    /// the session has ended or the space is not shared with this account any more.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        let mut pause = PAUSE.0;
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match self.take_in().await {
                Ok(()) => pause = PAUSE.0,
                Err(e) if e.kind == Kind::Unavailable => {
                    tracing::info!(error = %e, "a watch waits for the coordinators");
                    self.client.env().sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn ask(&self, after: u64) -> Result<Changes> {
        let space = self.folder.space.id();
        let request = WatchRequest { space, after, wait_ms: WAIT_MAX_MS };
        self.client.cluster().authed::<WatchSpace, _>(request).await
    }

    /// One answer of the servers. All of it or nothing: an error in the middle asks for all of it again.
    async fn take_in(&mut self) -> Result<()> {
        let told = self.ask(self.revision).await?;
        if told.resync {
            self.ways.forget();
            self.revision = told.upto;
            self.ready.push_back(WatchEvent::Resync);
            return Ok(());
        }
        let client = self.client.clone();
        let (table, space) = match client.rows_of(&self.folder.space, told.rows).await {
            // The folder has new keys: it is another one now, and everything in it.
            Err(e) if e == moved() => return self.begin_anew(told.upto).await,
            other => other?,
        };
        self.folder.space = space.clone();
        let verified = RowVerifier::new(&space).verify(&table)?;
        let rows: BTreeMap<(EntryId, u64), VerifiedRow<'_>> =
            verified.rows().map(|row| ((row.row().row.entry, row.row().row.rev), row)).collect();
        if told.commits.iter().flat_map(|c| &c.notes).any(|n| n.child.is_some()) {
            self.ways.forget();
        }
        let notes = || told.commits.iter().flat_map(|c| &c.notes);
        let folders: BTreeSet<FolderId> = notes()
            .flat_map(|n| [Some(n.folder), n.from.map(|(f, _)| f)])
            .flatten()
            .chain(table.rows.iter().map(|r| r.row.folder))
            .collect();
        let watched = match self.target {
            Target::Folder(id) => Some(id),
            Target::File(_) => None,
        };
        client.learn(&space, &mut self.ways, folders.into_iter().chain(watched)).await?;
        if let Some(way) = watched.and_then(|id| self.ways.get(id)) {
            self.below = way.path.clone();
        }
        let unknown: BTreeSet<AccountId> = told.commits.iter().map(|c| c.author).filter(|a| !self.authors.contains_key(a)).collect();
        self.authors.extend(client.names_of(&space, unknown)?);
        let mut events = Vec::new();
        for commit in &told.commits {
            for note in &commit.notes {
                events.extend(self.tell(commit, note, &rows)?);
            }
        }
        self.revision = self.revision.max(told.upto);
        self.ready.extend(events.into_iter().map(|c| WatchEvent::Change(Box::new(c))));
        Ok(())
    }

    /// Looks for the same path again, and tells that everything has to be.
    async fn begin_anew(&mut self, upto: u64) -> Result<()> {
        self.client.forget_space(self.folder.space.id());
        let Watch { folder, target, ways, .. } = self.client.watch(&self.below, Some(upto)).await?;
        (self.folder, self.target, self.ways, self.revision) = (folder, target, ways, upto);
        self.ready.push_back(WatchEvent::Resync);
        Ok(())
    }

    fn open(&self, row: Option<&VerifiedRow<'_>>) -> Result<Option<Found>> {
        let Some(row) = row.filter(|row| !row.is_removal()) else { return Ok(None) };
        self.ways.get(row.row().row.folder).map(|way| row.open(&way.keys)).transpose()
    }

    /// A change in words, if it concerns what is watched.
    fn tell(&mut self, commit: &Noted, note: &Note, rows: &BTreeMap<(EntryId, u64), VerifiedRow<'_>>) -> Result<Option<Changed>> {
        let row = rows.get(&(note.entry, note.rev));
        let new = self.open(row)?;
        let before = self.open(rows.get(&(note.entry, note.rev.saturating_sub(1))))?;
        let name_of = |names: &BTreeMap<(FolderId, NameTag), Name>, found: Option<&Found>, at: (FolderId, NameTag)| {
            found.map(|f| f.entry.name.clone()).or_else(|| names.get(&at).cloned())
        };
        let at = (note.folder, note.tag);
        let name = name_of(&self.names, new.as_ref().or(before.as_ref()), at);
        let Some(way) = self.ways.get(note.folder) else { return Ok(None) };
        let path = name.as_ref().map_or_else(|| way.path.clone(), |name| way.path.join(name));
        let from = note.from.and_then(|from| {
            let name = name_of(&self.names, before.as_ref(), from)?;
            Some(self.ways.get(from.0)?.path.join(&name))
        });
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        match (note.what, name.clone()) {
            (What::Put | What::Restore | What::Conflict, Some(name)) => {
                self.names.insert(at, name);
            }
            (What::Remove | What::Purge, _) => {
                self.names.remove(&at);
            }
            _ => {}
        }
        let itself = match self.target {
            Target::Folder(id) => note.child == Some(id),
            Target::File(id) => note.entry == id,
        };
        let within = |path: &RemotePath| path.is_within(&self.below);
        if !itself && !within(&path) && !from.as_ref().is_some_and(within) {
            return Ok(None);
        }
        let kind = match note.what {
            What::Put if note.from.is_some() => ChangeKind::Moved,
            What::Put if note.rev == 1 => ChangeKind::Created,
            What::Restore => ChangeKind::Restored,
            What::Put => ChangeKind::Changed,
            What::Remove => ChangeKind::Removed,
            What::Purge => ChangeKind::Purged,
            What::Conflict => ChangeKind::Conflict,
        };
        let author = row.map_or(commit.author, VerifiedRow::author);
        Ok(Some(Changed {
            kind,
            path,
            named: name.is_some(),
            from,
            version: VersionNumber::of(note.rev),
            time_ms: commit.time_ms,
            author,
            author_name: self.authors.get(&author).cloned().unwrap_or_else(|| author.to_string()),
            revision: commit.revision,
        }))
    }
}
