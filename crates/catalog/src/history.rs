//! What was: older versions and the trash, for how long a space keeps them, and how they come back.
//!
//! A version ends at the time at which it ceased to be current plus the retention of its space. Each has
//! exactly one note of that on the list of endings; another retention moves all of them, bit by bit.

use crate::commit::Work;
use crate::row::{InTrash, Keeping, Place, Space, Stage, Sweep, Version, VersionId};
use crate::tx::{Step, Stop, Tx};
use crate::{RETENTION_MS, expiry, key};
use model::account::{Account, Role};
use model::command::Outcome;
use model::history::{LOG_COMMITS, Note, Noted, RETENTION_MAX_MS, What};
use model::tree::{CONFLICTS, Change, EntryRow, Expect};
use model::{AccountId, EntryId, Error, FolderId, Kind, SpaceId, cbor};

impl Tx<'_> {
    /// For how long a space keeps what was, in milliseconds.
    pub(crate) fn retention(&self, space: SpaceId) -> Step<u64> {
        Ok(self.get::<Keeping>(&key::keeping(space))?.map_or(RETENTION_MS, |k| k.retention_ms))
    }

    /// A row ceases to be current, or is kept beside one that is.
    pub(crate) fn keep_version(&mut self, id: SpaceId, row: EntryRow) -> Step<()> {
        let (entry, rev) = (row.row.entry, row.row.rev);
        self.put(&key::version(id, entry, rev), &Version { row, ended_ms: self.now })?;
        let ends = self.now.saturating_add(self.retention(id)?);
        self.end_at(ends, expiry::VERSION, &cbor::to_vec(&VersionId { space: id, entry, rev }))
    }

    /// An entry was removed by this revision.
    pub(crate) fn put_in_trash(&mut self, id: SpaceId, entry: EntryId, trashed: &InTrash) -> Step<()> {
        self.put(&key::in_trash(id, entry), trashed)?;
        self.put(&key::trash_by_time(id, trashed.ended_ms, entry), &())?;
        trashed.child.map_or(Ok(()), |child| self.put(&key::trashed_folder(id, child), &entry))
    }

    /// It is not in the trash any more.
    pub(crate) fn take_from_trash(&mut self, id: SpaceId, entry: EntryId, trashed: &InTrash) -> Step<()> {
        self.delete(&key::in_trash(id, entry))?;
        self.delete(&key::trash_by_time(id, trashed.ended_ms, entry))?;
        trashed.child.map_or(Ok(()), |child| self.delete(&key::trashed_folder(id, child)))
    }

    /// An entry of the trash comes back, or goes for good.
    pub(crate) fn change_removed(&mut self, work: &mut Work, change: &Change, rev: u64) -> Step<()> {
        let (id, row) = (work.id, &change.row);
        let trashed = self.get::<InTrash>(&key::in_trash(id, row.entry))?.filter(|t| t.rev == rev);
        let trashed = trashed.ok_or_else(|| Error::conflict("it is not in the trash any more"))?;
        if trashed.child != change.child {
            return Err(Error::invalid("an entry stays the file or the folder that it is").into());
        }
        if row.sealed.is_empty() {
            self.take_from_trash(id, row.entry, &trashed)?;
            self.destroy_versions(id, &mut work.space, row.entry)?;
            trashed.child.map_or(Ok(()), |child| self.doom(id, child))?;
            work.note(What::Purge, change);
            return Ok(());
        }
        self.check_live(work, row.folder, change.child)?;
        if self.has(&key::entry(id, row.folder, row.tag))? {
            return Err(Error::exists("something of that name exists already").into());
        }
        self.take_from_trash(id, row.entry, &trashed)?;
        self.counters.totals.entries += 1;
        self.stand(work, change)?;
        work.note(What::Restore, change);
        Ok(())
    }

    /// A row is kept beside the file that won against it.
    pub(crate) fn keep_beside(&mut self, work: &mut Work, change: &Change) -> Step<()> {
        let (id, row) = (work.id, &change.row);
        let here = Place { folder: row.folder, tag: row.tag };
        let current = match self.get::<Place>(&key::place(id, row.entry))? {
            Some(place) if place == here => self.get::<EntryRow>(&key::entry(id, here.folder, here.tag))?,
            Some(_) => None,
            None => match self.get::<InTrash>(&key::in_trash(id, row.entry))? {
                Some(trashed) => self.get::<Version>(&key::version(id, row.entry, trashed.rev))?.map(|v| v.row),
                None => None,
            },
        };
        let beside = current.filter(|c| c.child.is_none() && (c.row.folder, c.row.tag) == (here.folder, here.tag));
        if beside.is_none() {
            return Err(Error::conflict("there is no such file beside which it could be kept").into());
        }
        if self.has(&key::version(id, row.entry, row.rev))? {
            return Err(Error::exists("there is a conflict version of that number already").into());
        }
        self.hold_content(work, change)?;
        let kept = EntryRow { row: row.clone(), commit: work.commit, child: None, manifest: change.manifest, time_ms: self.now };
        self.keep_version(id, kept)?;
        self.hold_row(work, row)?;
        work.note(What::Conflict, change);
        Ok(())
    }

    /// One older version goes for good. The log of changes says nothing of it: what it tells of are entries, and
    /// this one is as it was.
    pub(crate) fn drop_version(&mut self, work: &mut Work, change: &Change) -> Step<()> {
        let (id, row) = (work.id, &change.row);
        let at = key::version(id, row.entry, row.rev);
        let gone = || Error::not_found("there is no such older version (any more)");
        let Version { row: old, ended_ms } = self.get(&at)?.ok_or_else(gone)?;
        if old.child.is_some() || (old.row.folder, old.row.tag) != (row.folder, row.tag) {
            return Err(Error::invalid("it is not the version of a file at this place").into());
        }
        if self.get::<InTrash>(&key::in_trash(id, row.entry))?.is_some_and(|t| t.rev == row.rev) {
            return Err(Error::invalid("a removal goes with what it removed, or when that comes back").into());
        }
        self.check_kept_here(work, row.folder)?;
        self.delete(&at)?;
        // Its note, wherever a change of the retention that is under way has it.
        let note = cbor::to_vec(&VersionId { space: id, entry: row.entry, rev: row.rev });
        let before = self.get::<Sweep>(&key::sweep(id))?.map(|sweep| sweep.was_ms);
        for retention in [Some(self.retention(id)?), before].into_iter().flatten() {
            self.delete(&key::ends(ended_ms.saturating_add(retention), expiry::VERSION, &note))?;
        }
        self.release_row(id, &mut work.space, &old)
    }

    /// Versions in a folder are not being sealed anew: one that went meanwhile would come back. Of a folder that is
    /// gone or in the trash it is not known what it lay in.
    fn check_kept_here(&self, work: &mut Work, folder: FolderId) -> Step<()> {
        match self.check_live(work, folder, None) {
            Err(Stop::Refused(e)) if e.kind == Kind::NotFound => {
                let locked: Vec<FolderId> = work.space.locks.iter().filter(|l| l.expires_ms > self.now).map(|l| l.folder).collect();
                locked.into_iter().try_for_each(|folder| self.check_live(work, folder, None))
            }
            other => other,
        }
    }

    /// Adds a commit to the space's log of changes, and cuts that.
    pub(crate) fn log_changes(&mut self, id: SpaceId, revision: u64, author: AccountId, notes: Vec<Note>) -> Step<()> {
        self.put(&key::changed(id, revision), &Noted { revision, time_ms: self.now, author, notes })?;
        revision.checked_sub(LOG_COMMITS).map_or(Ok(()), |old| self.delete(&key::changed(id, old)))
    }

    /// Nobody reads a space's log of changes any more. It is bounded, and so is this.
    pub(crate) fn forget_changes(&mut self, id: SpaceId) -> Step<()> {
        let log = key::changes_of(id);
        let all = self.keys(&log, &key::end_of(&log), LOG_COMMITS as usize + 1)?;
        all.iter().try_for_each(|key| self.delete(key))
    }

    /// Another retention.
    pub(crate) fn set_retention(&mut self, by: Option<AccountId>, id: SpaceId, retention_ms: Option<u64>) -> Step<Outcome> {
        let denied = || Error::denied("only admins of a space may say how long it keeps versions and trash");
        let space = self.get::<Space>(&key::space(id))?.filter(|s| s.stage == Stage::Live).ok_or_else(denied)?;
        let by = by.ok_or_else(denied)?;
        let member = space.members.iter().find(|m| m.account == by && m.role == Role::Admin).ok_or_else(denied)?;
        let account = self.get::<Account>(&key::account(by))?.filter(|a| !a.disabled).ok_or_else(denied)?;
        if account.identity.fingerprint() != member.fingerprint {
            return Err(denied().into());
        }
        let wanted = retention_ms.unwrap_or(RETENTION_MS);
        if wanted > RETENTION_MAX_MS {
            return Err(Error::invalid("versions and trash are kept for ten years at most").into());
        }
        let was_ms = self.retention(id)?;
        if wanted == was_ms {
            return Ok(Outcome::Done);
        }
        if self.has(&key::sweep(id))? {
            return Err(Error::conflict("the last change of this is still being carried out").hint("try again in a minute").into());
        }
        if wanted == RETENTION_MS {
            self.delete(&key::keeping(id))?;
        } else {
            self.put(&key::keeping(id), &Keeping { retention_ms: wanted })?;
        }
        self.put(&key::sweep(id), &Sweep { was_ms, after: None })?;
        Ok(Outcome::Done)
    }

    /// Moves the endings of versions in spaces with another retention, at most so many.
    pub(crate) fn sweep_retentions(&mut self, limit: usize) -> Step<()> {
        let prefix = key::sweeps();
        let Some(at) = self.keys(&prefix, &key::end_of(&prefix), 1)?.pop() else { return Ok(()) };
        let Some(id) = at.get(1..).and_then(SpaceId::from_slice) else { return self.delete(&at) };
        let sweep: Sweep = self.must(&at)?;
        let retention = self.retention(id)?;
        let all = key::versions_of(id);
        let from = sweep.after.map_or(all.clone(), |(entry, rev)| [key::version(id, entry, rev), vec![0]].concat());
        let some = self.keys(&from, &key::end_of(&all), limit)?;
        let mut last = None;
        for key in &some {
            let Version { row, ended_ms } = self.must(key)?;
            let version = VersionId { space: id, entry: row.row.entry, rev: row.row.rev };
            let note = cbor::to_vec(&version);
            self.delete(&key::ends(ended_ms.saturating_add(sweep.was_ms), expiry::VERSION, &note))?;
            self.end_at(ended_ms.saturating_add(retention), expiry::VERSION, &note)?;
            last = Some((version.entry, version.rev));
        }
        if some.len() < limit { self.delete(&at) } else { self.put(&at, &Sweep { after: last, ..sweep }) }
    }
}

/// What can be said of a change of what was, without looking at any row.
pub(crate) fn check_shape(change: &Change) -> model::Result<()> {
    let row = &change.row;
    let wrong = |why: &str| Err(Error::invalid(format!("a change that cannot be: {why}")));
    match &change.expect {
        Expect::Removed { rev } if rev.checked_add(1) != Some(row.rev) => wrong("revisions grow by one"),
        Expect::Removed { .. } if row.sealed.is_empty() != change.purge => wrong("what is in the trash is removed already"),
        Expect::Beside if row.rev <= CONFLICTS => wrong("a conflict version has a revision of its own kind"),
        Expect::Beside if row.sealed.is_empty() || change.child.is_some() => wrong("a conflict version is a file"),
        Expect::Older if !row.sealed.is_empty() || !change.purge || change.child.is_some() => wrong("an older version only goes"),
        Expect::Absent | Expect::At { .. } | Expect::Removed { .. } if row.rev >= CONFLICTS => wrong("its revision"),
        _ => Ok(()),
    }
}
