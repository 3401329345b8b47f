//! Re-key: everything below a folder is sealed anew, under fresh folder ids and keys, and takes the
//! place of what was there at one moment.
//!
//! One mechanism for sharing a folder (its rows go to the root of a new space, and its entry becomes
//! the door to that) and for revoking (they go to a fresh root of the same space). The rows are written
//! beside the old ones, below a root that nobody reaches yet; each stands for one that is there, whose
//! content and times it takes over. Nobody writes below the folder meanwhile: a lease says for how long,
//! and what is not swapped by its end is dropped.

use crate::row::{InTrash, Lock, Manifest, Object, Place, Rekeying, Space, Stage, Version, VersionId};
use crate::tx::{Step, Stop, Tx};
use crate::{accounts, expiry, key};
use model::account::{Account, IdentityBody, Member, Role};
use model::command::{Outcome, Rekey};
use model::history::LOG_COMMITS;
use model::tree::{COMMIT_MAX, Change, CommitBody, CommitRecord, EntryRow, Resealed, SEALED_ENTRY_MAX};
use model::{AccountId, CommitId, EntryId, Error, KeyEpoch, ManifestId, SpaceId, cbor};

/// How long nobody else writes after the last rows of a re-key, in milliseconds of log time.
const LEASE_MS: u64 = 60_000;
/// Entries of the trash looked at in one step.
const STALE: usize = 500;

fn ended() -> Stop {
    Error::conflict("the new keys for this folder took too long, and were dropped").hint("try again").into()
}

/// What stands where a re-key's row comes from.
enum Source {
    Live(EntryRow),
    Older(Version),
}

impl Tx<'_> {
    pub(crate) fn begin_rekey(&mut self, by: Option<AccountId>, r: &Rekey) -> Step<Outcome> {
        let (by, source) = self.space_of(by, r.source, Role::Admin)?;
        if source.stage != Stage::Live {
            return Err(Error::conflict("this space is not ready yet").into());
        }
        // What this account began before and did not end is dropped.
        for lock in source.locks.iter().filter(|l| l.folder == r.folder) {
            let rekey = self.get::<Space>(&key::space(lock.target))?.and_then(|t| t.rekey);
            if rekey.is_some_and(|k| k.by == by || k.expires_ms <= self.now) {
                self.drop_rekey(lock.target)?;
            }
        }
        let source: Space = self.must(&key::space(r.source))?;
        self.check_live_folder(r.source, &source, r.folder)?;
        let most = source.used.saturating_mul(2).saturating_add(1 << 20);
        let mut target = match &r.new {
            Some((new, label)) => {
                if new.id() != r.target || new.root != r.root || r.folder == source.root || self.has(&key::space(r.target))? {
                    return Err(Error::invalid("a space that cannot be made of this folder").into());
                }
                let account: Account = self.must(&key::account(by))?;
                let who: IdentityBody = cbor::from_canonical(&account.identity.body).map_err(Stop::Failed)?;
                let mut space = accounts::new_space(new, &account, &who)?;
                let author = Member { account: by, fingerprint: account.identity.fingerprint(), role: Role::Admin };
                self.check_label(r.target, space.epoch, &author, label)?;
                (space.owner, space.parent, space.label) = (source.owner, Some(r.source), Some(label.clone()));
                (space.policy, space.stage) = (source.policy, Stage::Coming);
                // Objects come along with the generations that they have.
                let (coding, of) = (&mut space.coding, &source.coding);
                (coding.generation, coding.since_ms, coding.since_feed) = (of.generation, of.since_ms, of.since_feed);
                self.put(&key::member_set(r.target, 1), &new.members)?;
                self.put(&key::grant(r.target, by, space.epoch), &new.grant)?;
                self.put(&key::owned(space.owner, r.target), &())?;
                self.write_joined(r.target, &[], &space.members)?;
                space
            }
            None => {
                let fresh = r.root != source.root
                    && !self.has(&key::door(r.target, r.root))?
                    && !self.has(&key::doomed_folder(r.target, r.root))?;
                if r.target != r.source || r.folder != source.root || !fresh {
                    return Err(Error::invalid("a space gets new keys from its root on").into());
                }
                source
            }
        };
        if target.rekey.is_some() {
            return Err(Error::conflict("this space is being given new keys already").into());
        }
        let expires_ms = self.now.saturating_add(LEASE_MS);
        let (source, folder, root, epoch) = (r.source, r.folder, r.root, target.epoch);
        target.rekey = Some(Rekeying { source, folder, root, by, epoch, expires_ms, taken: 0, most });
        self.put(&key::space(r.target), &target)?;
        let mut source: Space = self.must(&key::space(r.source))?;
        source.locks.push(Lock { folder: r.folder, target: r.target, expires_ms });
        self.put(&key::space(r.source), &source)?;
        self.end_at(expires_ms, expiry::REKEY, &r.target.0)?;
        Ok(Outcome::Leased(expires_ms))
    }

    pub(crate) fn rekey_rows(&mut self, by: Option<AccountId>, record: &CommitRecord, rows: &[Resealed]) -> Step<Outcome> {
        if by != Some(record.author) {
            return Err(Error::denied("a re-key is proposed by its author only").into());
        }
        let body: CommitBody = cbor::from_canonical(&record.body)?;
        if rows.is_empty() || rows.len() > COMMIT_MAX || body.rows.len() != rows.len() {
            return Err(Error::invalid(format!("a commit has 1 to {COMMIT_MAX} changes")).into());
        }
        let mut space = self.writable(&body, record)?;
        let id = body.space;
        let rekey = space.rekey.clone().filter(|r| r.by == record.author && r.expires_ms > self.now && r.epoch == space.epoch);
        let mut rekey = rekey.ok_or_else(ended)?;
        if rows.iter().zip(&body.rows).any(|(r, hash)| r.row.hash() != *hash) {
            return Err(Error::denied("the rows of a commit are not those that were signed").into());
        }
        if self.has(&key::commit(id, body.commit))? {
            return Err(Error::exists("there is such a commit already").into());
        }
        let before = space.used;
        for row in rows {
            self.reseal(id, &mut space, &rekey, body.commit, row)?;
        }
        rekey.taken = rekey.taken.saturating_add(space.used.saturating_sub(before));
        if rekey.taken > rekey.most {
            return Err(Error::insufficient("a re-key that grows beyond what it is made of").into());
        }
        if self.has(&key::commit_refs(id, body.commit))? {
            self.put(&key::commit(id, body.commit), record)?;
        }
        rekey.expires_ms = self.now.saturating_add(LEASE_MS);
        let (source, expires_ms) = (rekey.source, rekey.expires_ms);
        space.rekey = Some(rekey);
        self.put(&key::space(id), &space)?;
        let mut from: Space = self.must(&key::space(source))?;
        from.locks.iter_mut().filter(|l| l.target == id).for_each(|l| l.expires_ms = expires_ms);
        self.put(&key::space(source), &from)?;
        Ok(Outcome::Leased(expires_ms))
    }

    /// One row, which stands for another.
    fn reseal(&mut self, id: SpaceId, space: &mut Space, rekey: &Rekeying, commit: CommitId, new: &Resealed) -> Step<()> {
        let row = &new.row;
        let wrong = |why: &str| Stop::from(Error::invalid(format!("a re-key that cannot be: {why}")));
        // A version may have come to its end since its row was sealed.
        let Some(source) = self.source(rekey.source, new.of, row.rev)? else { return Ok(()) };
        let old = match &source {
            Source::Live(row) => row,
            Source::Older(version) => &version.row,
        };
        if row.space != id || row.epoch != rekey.epoch || row.sealed.len() > SEALED_ENTRY_MAX {
            return Err(wrong("its space, key epoch or size"));
        }
        if row.sealed.is_empty() != old.row.sealed.is_empty() || new.child.is_some() != old.child.is_some() {
            return Err(wrong("a row is not of the kind that it stands for"));
        }
        if row.folder != rekey.root && !self.has(&key::door(id, row.folder))? {
            return Err(wrong("a row comes before its folder"));
        }
        let here = Place { folder: row.folder, tag: row.tag };
        if let Some(child) = new.child {
            let door: Option<Place> = self.get(&key::door(id, child))?;
            let taken = match &door {
                // Older versions of a folder lead to the same one; two that live do not.
                Some(door) => {
                    let there: Option<EntryRow> = self.get(&key::entry(id, door.folder, door.tag))?;
                    matches!(source, Source::Live(_)) && there.is_some_and(|e| e.child == Some(child))
                }
                None => child == space.root || child == rekey.root || self.has(&key::doomed_folder(id, child))?,
            };
            if taken {
                return Err(wrong("a folder is not fresh"));
            }
            let live = matches!(source, Source::Live(_));
            if live || door.is_none() {
                self.put(&key::door(id, child), &here)?;
            }
        }
        if let Some(manifest) = old.manifest {
            self.hold_for(rekey.source, manifest, id, space)?;
        }
        let fresh = EntryRow { row: row.clone(), commit, child: new.child, manifest: old.manifest, time_ms: old.time_ms };
        match source {
            Source::Live(_) => {
                if self.has(&key::entry(id, row.folder, row.tag))? || self.has(&key::place(id, row.entry))? {
                    return Err(wrong("an entry comes twice"));
                }
                self.counters.totals.entries += 1;
                self.follow_door(rekey.source, new.of, id, row.entry)?;
                self.put(&key::place(id, row.entry), &here)?;
                self.put(&key::entry(id, row.folder, row.tag), &fresh)?;
            }
            Source::Older(Version { ended_ms, .. }) => {
                let at = key::version(id, row.entry, row.rev);
                if self.has(&at)? {
                    return Err(wrong("a version comes twice"));
                }
                self.put(&at, &Version { row: fresh, ended_ms })?;
                let version = VersionId { space: id, entry: row.entry, rev: row.rev };
                let retention = self.retention(id)?;
                self.end_at(ended_ms.saturating_add(retention), expiry::VERSION, &cbor::to_vec(&version))?;
                let trashed: Option<InTrash> = self.get(&key::in_trash(rekey.source, new.of))?;
                if let Some(trashed) = trashed.filter(|t| t.rev == row.rev) {
                    self.put_in_trash(id, row.entry, &InTrash { child: new.child, ..trashed })?;
                }
            }
        }
        self.hold_sealed(id, space, commit, row.sealed.len())
    }

    /// An entry that is the door to a space stands for another one.
    fn follow_door(&mut self, from: SpaceId, old: EntryId, to: SpaceId, new: EntryId) -> Step<()> {
        let behind: Option<SpaceId> = self.get(&key::leads_to(from, old))?;
        behind.map_or(Ok(()), |behind| self.put(&key::leads_to(to, new), &behind))
    }

    /// The re-key has ended: spaces behind doors in it have them, and this space around them, from now on.
    fn settle_doors(&mut self, id: SpaceId, rekey: &Rekeying) -> Step<()> {
        let prefix = key::leads_to_from(id);
        for at in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
            let Some(entry) = at.get(17..).and_then(EntryId::from_slice) else { continue };
            let behind: SpaceId = self.must(&at)?;
            let Some(place) = self.get::<Place>(&key::place(id, entry))? else { continue };
            let row: Option<EntryRow> = self.get(&key::entry(id, place.folder, place.tag))?;
            if row.is_some_and(|r| r.row.epoch == rekey.epoch) {
                let mut space: Space = self.must(&key::space(behind))?;
                (space.parent, space.door) = (Some(id), Some(entry));
                self.put(&key::space(behind), &space)?;
            }
        }
        Ok(())
    }

    fn source(&self, space: SpaceId, entry: EntryId, rev: u64) -> Step<Option<Source>> {
        if let Some(place) = self.get::<Place>(&key::place(space, entry))?
            && let Some(row) = self.get::<EntryRow>(&key::entry(space, place.folder, place.tag))?.filter(|r| r.row.rev == rev)
        {
            return Ok(Some(Source::Live(row)));
        }
        let older: Option<Version> = self.get(&key::version(space, entry, rev))?;
        Ok(older.map(Source::Older))
    }

    /// A row of a space names a manifest of another one: it gets its own copy, and refers to the objects.
    fn hold_for(&mut self, from: SpaceId, manifest: ManifestId, id: SpaceId, space: &mut Space) -> Step<()> {
        let at = key::manifest(id, manifest);
        if from == id || self.has(&at)? {
            return self.hold_manifest(id, manifest);
        }
        let Manifest { row, .. } = self.must(&key::manifest(from, manifest))?;
        for content in &row.objects {
            let key = key::object(content.object);
            let mut object: Object = self.must(&key)?;
            object.refs += 1;
            if object.space != id {
                let guest = key::guest(content.object, id);
                let held: u32 = self.get(&guest)?.unwrap_or(0);
                self.put(&guest, &(held + 1))?;
            }
            self.put(&key, &object)?;
        }
        space.take(row.sealed.len() as u64)?;
        self.put(&at, &Manifest { refs: 1, row })
    }

    pub(crate) fn swap_rekey(&mut self, by: Option<AccountId>, id: SpaceId, door: Option<&(CommitRecord, Box<Change>)>) -> Step<Outcome> {
        let (by, mut target) = self.space_of(by, id, Role::Admin)?;
        let rekey = target.rekey.take().filter(|r| r.by == by && r.expires_ms > self.now && r.epoch == target.epoch).ok_or_else(ended)?;
        self.space_of(Some(by), rekey.source, Role::Admin)?;
        self.settle_doors(id, &rekey)?;
        if rekey.source == id {
            if door.is_some() {
                return Err(Error::invalid("the root of a space has no entry").into());
            }
            target.locks.retain(|l| l.target != id);
            let old = std::mem::replace(&mut target.root, rekey.root);
            // Whoever follows its changes begins anew.
            target.revision += LOG_COMMITS + 1;
            self.put(&key::space(id), &target)?;
            self.doom(id, old)?;
            self.end_at(self.now, expiry::STALE_TRASH, &[&id.0[..], &rekey.epoch.0.to_be_bytes()].concat())?;
            self.event("space-rekeyed", None, format!("space {id} has new keys, of epoch {}", target.epoch))?;
            return Ok(Outcome::Committed { revision: target.revision, time_ms: self.now });
        }
        let (record, change) = door.ok_or_else(|| Error::invalid("a shared folder's entry becomes the door to its space"))?;
        if target.role(target.owner) != Some(Role::Admin) {
            return Err(Error::invalid("the owner of a space is its admin").into());
        }
        target.stage = Stage::Live;
        target.door = Some(change.row.entry);
        self.put(&key::leads_to(rekey.source, change.row.entry), &id)?;
        self.put(&key::space(id), &target)?;
        let mut source: Space = self.must(&key::space(rekey.source))?;
        source.locks.retain(|l| l.target != id);
        self.put(&key::space(rekey.source), &source)?;
        let body: CommitBody = cbor::from_canonical(&record.body)?;
        if body.space != rekey.source {
            return Err(Error::invalid("a shared folder's entry lies in the space that it is shared from").into());
        }
        let outcome = self.commit_door(by, record, change, rekey.folder)?;
        self.doom(rekey.source, rekey.folder)?;
        self.event("folder-shared", None, format!("a folder of space {} is space {id} now", rekey.source))?;
        Ok(outcome)
    }

    pub(crate) fn abandon_rekey(&mut self, by: Option<AccountId>, id: SpaceId) -> Step<Outcome> {
        let (_, target) = self.space_of(by, id, Role::Admin)?;
        if target.rekey.is_some() {
            self.drop_rekey(id)?;
        }
        Ok(Outcome::Done)
    }

    /// The lease of a re-key may have ended.
    pub(crate) fn end_rekey(&mut self, id: SpaceId) -> Step<()> {
        let rekey = self.get::<Space>(&key::space(id))?.and_then(|t| t.rekey);
        match rekey {
            Some(rekey) if rekey.expires_ms <= self.now => self.drop_rekey(id),
            Some(rekey) => self.end_at(rekey.expires_ms, expiry::REKEY, &id.0),
            None => Ok(()),
        }
    }

    /// After a re-key of a whole space: what is in its trash under older keys was sealed anew, and goes. A part of
    /// it, and where to go on; `rest` is the space, the epoch, and the entry after which to look.
    pub(crate) fn drop_stale_trash(&mut self, rest: &[u8]) -> Step<()> {
        let (Some(id), Some(epoch)) = (rest.get(..16).and_then(SpaceId::from_slice), rest.get(16..24)) else { return Ok(()) };
        let epoch = KeyEpoch(epoch.try_into().map_or(0, u64::from_be_bytes));
        let prefix = key::in_trash_of(id);
        let from = [&prefix, rest.get(24..).unwrap_or_default()].concat();
        let some = self.keys(&from, &key::end_of(&prefix), STALE)?;
        let mut space: Space = self.must(&key::space(id))?;
        for at in &some {
            let Some(entry) = at.get(17..).and_then(EntryId::from_slice) else { continue };
            let trashed: InTrash = self.must(at)?;
            let removal: Option<Version> = self.get(&key::version(id, entry, trashed.rev))?;
            if removal.is_none_or(|v| v.row.row.epoch < epoch) {
                self.take_from_trash(id, entry, &trashed)?;
                self.destroy_versions(id, &mut space, entry)?;
                trashed.child.map_or(Ok(()), |child| self.doom(id, child))?;
            }
        }
        self.put(&key::space(id), &space)?;
        match some.last().filter(|_| some.len() == STALE) {
            Some(last) => {
                let next = [rest.get(..24).unwrap_or_default(), last.get(17..).unwrap_or_default(), &[0]].concat();
                self.end_at(self.now + 1, expiry::STALE_TRASH, &next)
            }
            None => Ok(()),
        }
    }

    fn drop_rekey(&mut self, id: SpaceId) -> Step<()> {
        let mut target: Space = self.must(&key::space(id))?;
        let Some(rekey) = target.rekey.take() else { return Ok(()) };
        target.locks.retain(|l| l.target != id);
        if target.stage == Stage::Coming {
            self.bury_space(id, &mut target)?;
        } else {
            self.doom(id, rekey.root)?;
        }
        self.put(&key::space(id), &target)?;
        if rekey.source != id {
            let mut source: Space = self.must(&key::space(rekey.source))?;
            source.locks.retain(|l| l.target != id);
            self.put(&key::space(rekey.source), &source)?;
        }
        Ok(())
    }
}
