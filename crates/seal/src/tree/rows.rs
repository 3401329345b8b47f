//! Rows as servers return them, and the only way from them to entries.
//!
//! A [`RowVerifier`] checks each commit's signature once and that it lists each row's hash; what
//! it gives is [`VerifiedRows`], and only those open. Opening then refuses what was not asked for,
//! and anything that comes twice.

use super::{Content, Entry, FolderKeys, Name};
use crate::space::OpenSpace;
use model::command::Rows;
use model::tree::{COMMIT_MAX, EntryRow, HAVE_MAX};
use model::{AccountId, CommitId, EntryId, Error, Hash, KeyEpoch, ManifestId, NameTag, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Verifies rows of one space.
pub struct RowVerifier<'s> {
    space: &'s OpenSpace,
}

/// A commit whose signature was checked.
struct KnownCommit {
    author: AccountId,
    epoch: KeyEpoch,
    /// Sorted.
    rows: Vec<Hash>,
    /// Rows of it that have not come yet.
    left: usize,
}

/// Commits that were checked.
#[derive(Default)]
struct KnownCommits(BTreeMap<CommitId, KnownCommit>);

impl KnownCommits {
    /// Most hashes of rows that a listing keeps: 8 MiB.
    const ROWS_MAX: usize = 1 << 18;

    /// Forgets those of which all rows have come, and where too many are left, those of which least is to come.
    fn trim(&mut self) {
        self.0.retain(|_, commit| commit.left > 0);
        let mut rows: usize = self.0.values().map(|commit| commit.rows.len()).sum();
        if self.0.len() <= HAVE_MAX && rows <= Self::ROWS_MAX {
            return;
        }
        let mut least: Vec<(usize, CommitId)> = self.0.iter().map(|(id, commit)| (commit.left, *id)).collect();
        least.sort_unstable();
        for (_, id) in least {
            if self.0.len() <= HAVE_MAX && rows <= Self::ROWS_MAX {
                break;
            }
            rows -= self.0.remove(&id).map_or(0, |commit| commit.rows.len());
        }
    }
}

/// Rows whose author, commit and integrity were checked; not opened yet.
pub struct VerifiedRows<'r> {
    rows: Vec<VerifiedRow<'r>>,
}

/// One such row.
#[derive(Clone, Copy)]
pub struct VerifiedRow<'r> {
    row: &'r EntryRow,
    author: AccountId,
}

impl<'s> RowVerifier<'s> {
    /// For a space.
    pub fn new(space: &'s OpenSpace) -> Self {
        RowVerifier { space }
    }

    /// Checks an answer: every commit named comes along once, is signed by someone who might write
    /// in its epoch, and lists the row; a row's own epoch is no later than its commit's (so that a
    /// revoked writer's signature of an old epoch is good for no newer folder).
    pub fn verify<'r>(&self, answer: &'r Rows) -> Result<VerifiedRows<'r>> {
        self.verify_page(answer, &mut KnownCommits::default())
    }

    /// The same for one page of several, whose commits may be known from those before.
    fn verify_page<'r>(&self, answer: &'r Rows, known: &mut KnownCommits) -> Result<VerifiedRows<'r>> {
        let bad = |why: &str| Error::corrupt(format!("rows from the catalog do not verify: {why}"));
        let mut came = BTreeSet::new();
        for (id, record) in &answer.commits {
            let body = self.space.verify_commit(record)?;
            if body.commit != *id || body.rows.len() > COMMIT_MAX {
                return Err(bad("a commit has another's id"));
            }
            if !came.insert(*id) {
                return Err(bad("a commit comes twice"));
            }
            let mut rows = body.rows;
            rows.sort_unstable();
            let left = rows.len();
            known.0.insert(*id, KnownCommit { author: record.author, epoch: body.epoch, rows, left });
        }
        let mut rows = Vec::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let commit = known.0.get_mut(&row.commit).ok_or_else(|| bad("a commit is missing"))?;
            if row.row.space != self.space.id() || row.row.epoch > commit.epoch {
                return Err(bad("a row belongs to another space or epoch than its commit"));
            }
            if commit.rows.binary_search(&row.row.hash()).is_err() {
                return Err(bad("a row is not in its commit"));
            }
            commit.left = commit.left.saturating_sub(1);
            rows.push(VerifiedRow { row, author: commit.author });
        }
        Ok(VerifiedRows { rows })
    }
}

/// An opened entry with what its row says.
pub struct Found {
    /// The entry's id.
    pub id: EntryId,
    /// Its revision.
    pub rev: u64,
    /// Its tag.
    pub tag: NameTag,
    /// The commit that wrote this revision.
    pub commit: CommitId,
    /// Who signed that commit.
    pub author: AccountId,
    /// When it was committed, milliseconds since 1970, as the servers say: not authenticated.
    pub time_ms: u64,
    /// The entry.
    pub entry: Entry,
}

impl<'r> VerifiedRows<'r> {
    /// The rows, in the order of the answer.
    pub fn rows(&self) -> impl Iterator<Item = VerifiedRow<'r>> + '_ {
        self.rows.iter().copied()
    }

    /// Opens the answer to a look-up of names, one folder or several (`Query::Lookup`, `Query::Walk`).
    /// Gives one result a step, in the order of `steps`: `None` where the servers say that nothing
    /// lies. Refuses rows for other places than those asked, and two rows for one.
    pub fn lookup(&self, steps: &[(&FolderKeys, &Name)]) -> Result<Vec<Option<Found>>> {
        let mut places = BTreeMap::new();
        for (i, (keys, name)) in steps.iter().enumerate() {
            if places.insert((keys.folder, keys.tag(name)), i).is_some() {
                return Err(Error::invalid("one name is looked up twice"));
            }
        }
        let mut found: Vec<Option<Found>> = Vec::new();
        found.resize_with(steps.len(), || None);
        let mut ids = BTreeSet::new();
        for row in &self.rows {
            let place = places.get(&(row.row.row.folder, row.row.row.tag));
            let step = place.and_then(|i| Some((steps.get(*i)?, found.get_mut(*i)?)));
            let ((keys, _), slot) = step.ok_or_else(|| Error::corrupt("the catalog answered a look-up with another entry"))?;
            if slot.is_some() || !ids.insert(row.row.row.entry) {
                return Err(Error::corrupt("the catalog answered a look-up with one entry twice"));
            }
            // `open` recomputes the tag from the name inside: it is the name asked for.
            *slot = Some(row.open(keys)?);
        }
        Ok(found)
    }
}

/// A listing of one folder over all its pages. It keeps the commits that earlier pages brought, so that they
/// need not come, and need not be checked, again with each page that holds one of their rows.
#[derive(Default)]
pub struct Listing {
    last: Option<NameTag>,
    seen: BTreeSet<EntryId>,
    known: KnownCommits,
}

impl Listing {
    /// A listing from the beginning.
    pub fn new() -> Self {
        Listing::default()
    }

    /// The tag after which the next page begins (`Query::List::after`).
    pub fn after(&self) -> Option<NameTag> {
        self.last
    }

    /// The commits that need not come again (`Query::List::have`), at most [`HAVE_MAX`].
    pub fn have(&self) -> Vec<CommitId> {
        self.known.0.keys().copied().collect()
    }

    /// Verifies one page. Tags must grow strictly over all pages (so no name comes twice), and no entry
    /// may come twice; `Corrupt` otherwise, and the listing is then to be given up.
    pub fn page<'r>(&mut self, space: &OpenSpace, page: &'r Rows) -> Result<VerifiedRows<'r>> {
        let verified = RowVerifier::new(space).verify_page(page, &mut self.known)?;
        self.known.trim();
        for row in &verified.rows {
            let (tag, entry) = (row.row.row.tag, row.row.row.entry);
            if self.last.is_some_and(|last| last >= tag) || !self.seen.insert(entry) {
                return Err(Error::corrupt("a listing is out of order or holds an entry twice"));
            }
            self.last = Some(tag);
        }
        Ok(verified)
    }
}

impl<'r> VerifiedRow<'r> {
    /// The row.
    pub fn row(&self) -> &'r EntryRow {
        self.row
    }

    /// Who signed its commit.
    pub fn author(&self) -> AccountId {
        self.author
    }

    /// Whether this revision ends the entry. True only as signed: nothing but the row's hash in a
    /// verified commit makes it so.
    pub fn is_removal(&self) -> bool {
        self.row.row.sealed.is_empty()
    }

    /// Opens the row with its folder's keys. What the servers say beside it (child folder, manifest)
    /// must be what the entry says.
    pub fn open(&self, keys: &FolderKeys) -> Result<Found> {
        if self.is_removal() {
            return Err(Error::corrupt("a removed entry is given as a living one"));
        }
        let EntryRow { row, commit, child, manifest, time_ms } = self.row;
        let entry = keys.open(row)?;
        let (folder, sealed_manifest): (_, Option<ManifestId>) = match &entry.content {
            Content::Folder { id, .. } => (Some(*id), None),
            Content::Manifest { id, .. } => (None, Some(*id)),
            _ => (None, None),
        };
        if *child != folder || *manifest != sealed_manifest {
            return Err(Error::corrupt("the catalog keeps another folder or manifest for an entry than it was given"));
        }
        Ok(Found { id: row.entry, rev: row.rev, tag: row.tag, commit: *commit, author: self.author, time_ms: *time_ms, entry })
    }
}
