//! Commits: signed changes of one space's tree, all or none. The linearisation point of writes.

use crate::objects::Uploads;
use crate::row::{InTrash, Place, Space, Stage};
use crate::tx::{Step, Stop, Tx};
use crate::{history, key};
use model::account::{Account, IdentityBody, Role};
use model::cluster::{UploadGrant, UploadGrantBody};
use model::command::{Genesis, Outcome};
use model::history::{Note, What};
use model::tree::{COMMIT_MAX, Change, CommitBody, CommitRecord, EntryRow, Expect, Row, SEALED_ENTRY_MAX};
use model::{AccountId, CommitId, Error, FolderId, KeyEpoch, Result, SpaceId, cbor, signed};
use std::collections::{BTreeMap, BTreeSet};

/// Deepest nesting of folders.
const DEPTH_MAX: usize = 1024;

/// What all changes of a commit share.
pub(crate) struct Work {
    pub id: SpaceId,
    pub space: Space,
    pub commit: CommitId,
    uploads: Uploads,
    /// Folders known to be live, with all their ancestors, and how deep they lie. Emptied whenever a
    /// folder moves or goes.
    live: BTreeMap<FolderId, usize>,
    /// The folder whose entry becomes the door to another space, in the one commit that does this.
    shared: Option<FolderId>,
    /// What the log of changes is to say of it.
    notes: Vec<Note>,
}

impl Work {
    /// Notes what a change did.
    pub fn note(&mut self, what: What, change: &Change) {
        let row = &change.row;
        let from = match &change.expect {
            Expect::At { folder, tag, .. } => Some((*folder, *tag)).filter(|from| *from != (row.folder, row.tag)),
            _ => None,
        };
        self.notes.push(Note { what, folder: row.folder, tag: row.tag, entry: row.entry, rev: row.rev, from, child: change.child });
    }
}

impl Tx<'_> {
    pub(crate) fn commit(
        &mut self,
        by: Option<AccountId>,
        record: &CommitRecord,
        changes: &[Change],
        grants: &[UploadGrant],
    ) -> Step<Outcome> {
        self.commit_as(by, record, changes, grants, None)
    }

    /// The entry of a folder that is shared becomes the door to its space.
    pub(crate) fn commit_door(&mut self, by: AccountId, record: &CommitRecord, change: &Change, folder: FolderId) -> Step<Outcome> {
        self.commit_as(Some(by), record, std::slice::from_ref(change), &[], Some(folder))
    }

    fn commit_as(
        &mut self,
        by: Option<AccountId>,
        record: &CommitRecord,
        changes: &[Change],
        grants: &[UploadGrant],
        shared: Option<FolderId>,
    ) -> Step<Outcome> {
        if by != Some(record.author) {
            return Err(Error::denied("a commit is proposed by its author only").into());
        }
        let body: CommitBody = cbor::from_canonical(&record.body)?;
        if changes.is_empty() || changes.len() > COMMIT_MAX || body.rows.len() != changes.len() {
            return Err(Error::invalid(format!("a commit has 1 to {COMMIT_MAX} changes")).into());
        }
        let space = self.writable(&body, record)?;
        if space.stage != Stage::Live {
            return Err(Error::conflict("this space is not ready yet").into());
        }
        if changes.iter().zip(&body.rows).any(|(change, hash)| change.row.hash() != *hash) {
            return Err(Error::denied("the rows of a commit are not those that were signed").into());
        }
        if self.has(&key::commit(body.space, body.commit))? {
            return Err(Error::exists("there is such a commit already").into());
        }
        let uploads = self.uploads(record.author, body.space, grants)?;
        let before = space.used;
        let mut work = Work { id: body.space, space, commit: body.commit, uploads, live: BTreeMap::new(), shared, notes: Vec::new() };
        for change in changes {
            self.change(&mut work, change, body.epoch)?;
        }
        let Work { mut space, notes, .. } = work;
        self.check_quota(body.space, &space, before)?;
        space.revision += 1;
        self.put(&key::space(body.space), &space)?;
        self.log_changes(body.space, space.revision, record.author, notes)?;
        // A commit of purges alone leaves no row behind.
        if self.has(&key::commit_refs(body.space, body.commit))? {
            self.put(&key::commit(body.space, body.commit), record)?;
        }
        Ok(Outcome::Committed { revision: space.revision, time_ms: self.now })
    }

    /// The space, if the author may write in it and has signed.
    pub(crate) fn writable(&self, body: &CommitBody, record: &CommitRecord) -> Step<Space> {
        let denied = || Error::denied("this account may not write in this space");
        let space = self.get::<Space>(&key::space(body.space))?.filter(|s| s.stage != Stage::Dead).ok_or_else(denied)?;
        let member = space.members.iter().find(|m| m.account == record.author).ok_or_else(denied)?;
        let author = self.get::<Account>(&key::account(record.author))?.filter(|a| !a.disabled).ok_or_else(denied)?;
        if member.role < Role::Write || author.identity.fingerprint() != member.fingerprint {
            return Err(denied().into());
        }
        // Checked when the account was made: anything else is damage.
        let who: IdentityBody = cbor::from_canonical(&author.identity.body).map_err(Stop::Failed)?;
        signed::verify(&who.signing, "commit", &record.body, &record.signature)?;
        if body.epoch != space.epoch {
            return Err(Error::conflict(format!("the space is in key epoch {} now", space.epoch)).into());
        }
        Ok(space)
    }

    /// Objects that were issued to an account for a space, as proved.
    fn uploads(&self, account: AccountId, space: SpaceId, grants: &[UploadGrant]) -> Step<Uploads> {
        let mut issued = BTreeSet::new();
        if grants.is_empty() {
            return Ok(Uploads::of(issued));
        }
        if grants.len() > COMMIT_MAX {
            return Err(Error::invalid("a commit with too many proofs").into());
        }
        let genesis: Genesis = self.must(&key::genesis())?;
        for grant in grants {
            signed::verify(&genesis.capability_key, "upload-grant", &grant.body, &grant.signature)?;
            let body: UploadGrantBody = cbor::from_canonical(&grant.body)?;
            if body.account != account || body.space != space {
                return Err(Error::denied("an upload was granted to another account or for another space").into());
            }
            issued.extend(body.objects);
        }
        Ok(Uploads::of(issued))
    }

    fn change(&mut self, work: &mut Work, change: &Change, epoch: KeyEpoch) -> Step<()> {
        let row = &change.row;
        check_change(work.id, change, epoch)?;
        match change.expect {
            Expect::Removed { rev } => return self.change_removed(work, change, rev),
            Expect::Beside => return self.keep_beside(work, change),
            Expect::Older => return self.drop_version(work, change),
            Expect::Absent | Expect::At { .. } => {}
        }
        self.check_folders(work, change)?;
        let old = self.expected(work, change)?;
        if row.sealed.is_empty() {
            // `check_change` has refused a removal of nothing.
            let Some(old) = old else { return Ok(()) };
            return self.remove(work, change, old);
        }
        match old {
            Some(old) => {
                self.delete(&key::entry(work.id, old.row.folder, old.row.tag))?;
                if work.shared.is_some() {
                    // What leads to the folder as it was leads nowhere from now on.
                    self.release_row(work.id, &mut work.space, &old)?;
                    self.destroy_versions(work.id, &mut work.space, row.entry)?;
                } else {
                    self.keep_version(work.id, old)?;
                }
            }
            None => self.counters.totals.entries += 1,
        }
        self.stand(work, change)?;
        work.note(What::Put, change);
        Ok(())
    }

    /// The content of a change's row is there, and is counted.
    pub(crate) fn hold_content(&mut self, work: &mut Work, change: &Change) -> Step<()> {
        match (&change.new_manifest, change.manifest) {
            (Some(new), _) => self.add_manifest(work.id, &mut work.space, new, &mut work.uploads),
            (None, Some(held)) => self.hold_manifest(work.id, held),
            (None, None) => Ok(()),
        }
    }

    /// A change's row is current from now on. Nothing else stands at its place.
    pub(crate) fn stand(&mut self, work: &mut Work, change: &Change) -> Step<()> {
        let row = &change.row;
        self.hold_content(work, change)?;
        let here = Place { folder: row.folder, tag: row.tag };
        if let Some(child) = change.child {
            self.put(&key::door(work.id, child), &here)?;
            work.live.clear();
        }
        self.put(&key::place(work.id, row.entry), &here)?;
        let current = EntryRow { row: row.clone(), commit: work.commit, child: change.child, manifest: change.manifest, time_ms: self.now };
        self.put(&key::entry(work.id, row.folder, row.tag), &current)?;
        self.hold_row(work, row)
    }

    /// What stands where the change expects it. `Conflict` when something else does; `Exists` when
    /// the place that a new or moved entry goes to is taken.
    fn expected(&self, work: &Work, change: &Change) -> Step<Option<EntryRow>> {
        let row = &change.row;
        let taken = || Error::exists("something of that name exists already");
        match &change.expect {
            Expect::Absent => {
                if self.has(&key::entry(work.id, row.folder, row.tag))? {
                    return Err(taken().into());
                }
                let versions = key::versions(work.id, row.entry);
                let known = self.has(&key::place(work.id, row.entry))? || !self.keys(&versions, &key::end_of(&versions), 1)?.is_empty();
                let child_known = match change.child {
                    // One whose contents are being destroyed must not come back to life with them.
                    Some(child) => {
                        child == work.space.root
                            || self.has(&key::door(work.id, child))?
                            || self.has(&key::doomed_folder(work.id, child))?
                    }
                    None => false,
                };
                if known || child_known {
                    return Err(Error::exists("there is such an entry already").into());
                }
                Ok(None)
            }
            Expect::At { folder, tag, rev } => {
                let old = self.get::<EntryRow>(&key::entry(work.id, *folder, *tag))?;
                let old = old.filter(|o| o.row.entry == row.entry && o.row.rev == *rev);
                let old = old.ok_or_else(|| Error::conflict("somebody else changed it first"))?;
                if old.child != change.child.or(work.shared) {
                    return Err(Error::invalid("an entry stays the file or the folder that it is").into());
                }
                if (row.folder, row.tag) != (*folder, *tag) && self.has(&key::entry(work.id, row.folder, row.tag))? {
                    return Err(taken().into());
                }
                Ok(Some(old))
            }
            // Those do not come here.
            Expect::Removed { .. } | Expect::Beside | Expect::Older => Ok(None),
        }
    }

    /// The folder of a change is live, and so is the one that it leaves. A folder does not move below
    /// itself.
    fn check_folders(&self, work: &mut Work, change: &Change) -> Step<()> {
        let from = match &change.expect {
            Expect::At { folder, .. } if *folder != change.row.folder => Some(*folder),
            _ => None,
        };
        if let Some(from) = from {
            self.check_live(work, from, None)?;
            if change.child.is_some() {
                work.live.clear();
            }
        }
        self.check_live(work, change.row.folder, change.child.filter(|_| from.is_some()))
    }

    /// A folder and all its ancestors are there, and none of them is `moving`.
    pub(crate) fn check_live(&self, work: &mut Work, folder: FolderId, moving: Option<FolderId>) -> Step<()> {
        let gone = || Error::not_found("the folder does not exist any more");
        let mut way = Vec::new();
        let mut at = folder;
        let depth = loop {
            if work.space.locks.iter().any(|l| l.folder == at && l.expires_ms > self.now) {
                return Err(Error::unavailable("this folder is being given new keys: nothing can be written in it until that is done")
                    .hint("try again in a minute")
                    .into());
            }
            if at == work.space.root {
                break 0;
            }
            if let Some(depth) = work.live.get(&at) {
                break *depth;
            }
            if moving == Some(at) {
                return Err(Error::invalid("a folder cannot be moved into itself").into());
            }
            way.push(at);
            if way.len() > DEPTH_MAX {
                break 0;
            }
            let door: Place = self.get(&key::door(work.id, at))?.ok_or_else(gone)?;
            let entry: EntryRow = self.get(&key::entry(work.id, door.folder, door.tag))?.ok_or_else(gone)?;
            if entry.child != Some(at) {
                return Err(gone().into());
            }
            at = door.folder;
        };
        if depth + way.len() > DEPTH_MAX {
            return Err(Error::invalid(format!("folders nest at most {DEPTH_MAX} deep")).into());
        }
        work.live.extend(way.into_iter().rev().zip(depth + 1..));
        Ok(())
    }

    fn remove(&mut self, work: &mut Work, change: &Change, old: EntryRow) -> Step<()> {
        let (id, row) = (work.id, &change.row);
        self.delete(&key::entry(id, row.folder, row.tag))?;
        self.delete(&key::place(id, row.entry))?;
        self.counters.totals.entries = self.counters.totals.entries.saturating_sub(1);
        let child = old.child;
        if child.is_some() {
            work.live.clear();
        }
        if change.purge {
            self.release_row(id, &mut work.space, &old)?;
            self.destroy_versions(id, &mut work.space, row.entry)?;
            if let Some(child) = child {
                self.doom(id, child)?;
            }
            work.note(What::Purge, change);
            return Ok(());
        }
        self.keep_version(id, old)?;
        // The removal is signed as well, and stays as long as what it removed.
        self.keep_version(id, EntryRow { row: row.clone(), commit: work.commit, child, manifest: None, time_ms: self.now })?;
        self.put_in_trash(id, row.entry, &InTrash { rev: row.rev, ended_ms: self.now, child })?;
        self.hold_row(work, row)?;
        work.note(What::Remove, change);
        Ok(())
    }

    /// A folder and all its ancestors are there, and nobody keeps others from writing in it.
    pub(crate) fn check_live_folder(&self, id: SpaceId, space: &Space, folder: FolderId) -> Step<()> {
        let (commit, uploads) = (CommitId([0; 16]), Uploads::of(BTreeSet::new()));
        let mut work = Work { id, space: space.clone(), commit, uploads, live: BTreeMap::new(), shared: None, notes: Vec::new() };
        self.check_live(&mut work, folder, None)
    }

    /// What a row of a commit takes.
    pub(crate) fn hold_row(&mut self, work: &mut Work, row: &Row) -> Step<()> {
        self.hold_sealed(work.id, &mut work.space, work.commit, row.sealed.len())
    }

    /// What a row takes: room, and its commit's record.
    pub(crate) fn hold_sealed(&mut self, id: SpaceId, space: &mut Space, commit: CommitId, sealed: usize) -> Step<()> {
        space.take(sealed as u64)?;
        let key = key::commit_refs(id, commit);
        let refs: u32 = self.get(&key)?.unwrap_or(0);
        self.put(&key, &(refs + 1))
    }

    /// A row is gone for good.
    pub(crate) fn release_row(&mut self, id: SpaceId, space: &mut Space, row: &EntryRow) -> Step<()> {
        space.used = space.used.saturating_sub(row.row.sealed.len() as u64);
        if let Some(manifest) = row.manifest {
            self.release_manifest(id, space, manifest)?;
        }
        let key = key::commit_refs(id, row.commit);
        match self.get::<u32>(&key)? {
            Some(refs) if refs > 1 => self.put(&key, &(refs - 1)),
            _ => {
                self.delete(&key)?;
                self.delete(&key::commit(id, row.commit))
            }
        }
    }
}

/// What can be said of a change without looking at any row.
fn check_change(space: SpaceId, change: &Change, epoch: KeyEpoch) -> Result<()> {
    let row = &change.row;
    let wrong = |why: &str| Err(Error::invalid(format!("a change that cannot be: {why}")));
    if row.space != space || row.epoch > epoch || row.epoch == KeyEpoch(0) || row.sealed.len() > SEALED_ENTRY_MAX {
        return wrong("its space, key epoch or size");
    }
    match &change.expect {
        Expect::Absent if row.rev != 1 || row.sealed.is_empty() => return wrong("a new entry begins at revision 1"),
        Expect::At { rev, .. } if rev.checked_add(1) != Some(row.rev) => return wrong("revisions grow by one"),
        Expect::At { folder, tag, .. } if row.sealed.is_empty() && (*folder, *tag) != (row.folder, row.tag) => {
            return wrong("a removal stands where the entry stood");
        }
        _ => {}
    }
    if change.child.is_some() && (change.manifest.is_some() || change.new_manifest.is_some()) {
        return wrong("a folder has no content");
    }
    if change.new_manifest.as_ref().is_some_and(|m| change.manifest != Some(m.id)) {
        return wrong("it brings a manifest that it does not name");
    }
    if row.sealed.is_empty() && (change.manifest.is_some() || change.new_manifest.is_some()) {
        return wrong("a removal leaves nothing");
    }
    if change.purge && !row.sealed.is_empty() {
        return wrong("only a removal purges");
    }
    history::check_shape(change)
}
