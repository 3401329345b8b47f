//! Two writers to one name: the first commit wins, and what the other one wrote is kept beside it as a
//! conflict version, which can be read and restored like any other. Nothing is lost in silence.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::edit::links;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::Folder;
use crate::upload::OnConflict;
use crate::versions::VersionNumber;
use model::cluster::UploadGrant;
use model::command::{Answer, Query};
use model::tree::{CONFLICTS, Change, Expect};
use model::{EntryId, Error, Kind, Result};
use seal::tree::{Entry as Sealed, Found, Kind as SealedKind, Name, RowVerifier};
use std::sync::Arc;

/// Numbers tried for a conflict version, when others keep theirs at the same moment.
const TRIES: u64 = 16;

/// What is needed to keep a file whose commit was refused.
#[derive(Clone)]
pub(crate) struct Rescue {
    pub folder: Folder,
    pub name: Name,
    pub path: RemotePath,
    pub entry: Arc<Sealed>,
    /// What was there when the upload began, and its revision.
    pub there: Option<(EntryId, u64)>,
    /// The writer wants this revision replaced, or nothing: no new file in the place of a removed one.
    pub strict: bool,
    /// What to do when somebody else was first.
    pub on_conflict: OnConflict,
}

impl Client {
    /// What came of a commit that was refused because somebody else was first: done after all where the
    /// other one took the file away, else the error to report, after the content was kept.
    pub(crate) async fn keep_conflict(&self, rescue: &Rescue, change: &Change, grants: &[Arc<UploadGrant>], refused: Error) -> Result<()> {
        let there = self.look(rescue).await?;
        let Some(there) = there else {
            if rescue.strict {
                return Err(refused);
            }
            // Moved or removed meanwhile: the name is free, and what lay there is kept by that.
            let row = rescue.folder.keys.seal(EntryId(self.env().random()), 1, &rescue.entry, &mut self.env().rand())?;
            let again = Change { row, expect: Expect::Absent, ..change.clone() };
            return self.commit(vec![Pending::with_content(&rescue.folder.space, again, grants.to_vec(), None)]).await.map(|_| ());
        };
        if rescue.there == Some((there.id, there.rev)) {
            // Nobody was first: it was refused for another reason.
            return Err(refused);
        }
        if there.entry.kind() == SealedKind::Folder {
            return Err(Error::exists(format!("{} has become a folder meanwhile", rescue.path)));
        }
        match rescue.on_conflict {
            OnConflict::Keep => {}
            OnConflict::Refuse => return Err(refused),
            OnConflict::Overwrite => return self.write_over(rescue, change, grants, there).await,
        }
        let number = self.keep_beside(rescue, change, grants, there.id).await?;
        let names = self.names_of(&rescue.folder.space, [there.author])?;
        let who = names.get(&there.author).cloned().unwrap_or_else(|| there.author.to_string());
        Err(Error::conflict(format!(
            "{}: {who} wrote version {} at the same time, and was first; what was to be stored is kept as version {number}",
            rescue.path, there.rev
        ))
        .hint(format!("shardkeep versions {0}, then shardkeep restore {0}@{number}", rescue.path)))
    }

    /// Makes it the next revision of what is there, whoever wrote that.
    async fn write_over(&self, rescue: &Rescue, change: &Change, grants: &[Arc<UploadGrant>], mut there: Found) -> Result<()> {
        let mut tries = TRIES;
        loop {
            let keys = &rescue.folder.keys;
            let row = keys.seal(there.id, there.rev + 1, &rescue.entry, &mut self.env().rand())?;
            let expect = Expect::At { folder: keys.folder, tag: keys.tag(&rescue.name), rev: there.rev };
            let again = Change { row, expect, ..change.clone() };
            let refused = match self.commit(vec![Pending::with_content(&rescue.folder.space, again, grants.to_vec(), None)]).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists) && tries > 0 => e,
                done => return done.map(|_| ()),
            };
            tries -= 1;
            there = match self.look(rescue).await? {
                Some(there) if there.entry.kind() != SealedKind::Folder => there,
                _ => return Err(refused),
            };
        }
    }

    /// What lies at the place now.
    pub(crate) async fn look(&self, rescue: &Rescue) -> Result<Option<Found>> {
        let keys = &rescue.folder.keys;
        let space = &rescue.folder.space;
        let query = Query::Lookup { space: space.id(), folder: keys.folder, tags: vec![keys.tag(&rescue.name)], manifests: false };
        let (rows, space) = self.rows(space, query).await?;
        let found = RowVerifier::new(&space).verify(&rows)?.lookup(&[(&**keys, &rescue.name)])?;
        Ok(found.into_iter().flatten().next())
    }

    async fn keep_beside(&self, rescue: &Rescue, change: &Change, grants: &[Arc<UploadGrant>], id: EntryId) -> Result<VersionNumber> {
        let mut number = self.last_conflict(rescue, id).await? + 1;
        let (_, manifest) = links(&rescue.entry);
        for _ in 0..TRIES {
            let rev = CONFLICTS + number;
            let row = rescue.folder.keys.seal(id, rev, &rescue.entry, &mut self.env().rand())?;
            let kept =
                Change { row, expect: Expect::Beside, child: None, manifest, new_manifest: change.new_manifest.clone(), purge: false };
            match self.commit(vec![Pending::with_content(&rescue.folder.space, kept, grants.to_vec(), None)]).await {
                Ok(_) => return Ok(VersionNumber::of(rev)),
                Err(e) if e.kind == Kind::Exists => number += 1,
                Err(e) => return Err(e),
            }
        }
        Err(Error::conflict(format!("{}: too many write at the same time", rescue.path)).hint("put it again"))
    }

    /// The highest number of a conflict version of an entry.
    async fn last_conflict(&self, rescue: &Rescue, entry: EntryId) -> Result<u64> {
        let (space, mut after) = (rescue.folder.space.id(), CONFLICTS);
        loop {
            let Answer::History(page) = self.cluster().ask(Query::History { space, entry, after, limit: 500 }).await? else {
                return Err(unexpected());
            };
            let last = page.rows.rows.last().map_or(after, |row| row.row.rev);
            if last <= after || !page.rows.more {
                return Ok(last.max(after) - CONFLICTS);
            }
            after = last;
        }
    }
}
