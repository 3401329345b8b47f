//! What ends by log time: sessions, tokens, invites, old versions, dead objects, results of commands. A tick
//! does a bounded amount of it, the same on every replica.

use crate::row::{InTrash, LinkSession, Session, Space, Version, VersionId};
use crate::tx::{Step, Tx};
use crate::{REQUEST_LIFE_MS, key};
use model::account::Invite;
use model::command::Outcome;
use model::link::Link;
use model::tree::EntryRow;
use model::{EntryId, FolderId, Hash, InviteId, LinkId, ObjectId, SpaceId, TokenId, cbor};

/// Kinds of endings, each with the row concerned.
pub(crate) const SESSION: u8 = 1;
/// A join token (by then long refused).
pub(crate) const TOKEN: u8 = 2;
/// An older version.
pub(crate) const VERSION: u8 = 3;
/// The grace of an object.
pub(crate) const OBJECT: u8 = 4;
/// A dead object is forgotten.
pub(crate) const DEAD: u8 = 5;
/// An invite (by then long refused).
pub(crate) const INVITE: u8 = 6;

/// The lease of a re-key.
pub(crate) const REKEY: u8 = 7;
/// What is in the trash of a space under older keys.
pub(crate) const STALE_TRASH: u8 = 8;

/// A link.
pub(crate) const LINK: u8 = 0x40;
/// The session of a link's holder.
pub(crate) const LINK_SESSION: u8 = 0x41;

/// Most rows handled in one tick.
const BATCH: usize = 2_000;

impl Tx<'_> {
    /// Notes that something ends at a time of the log.
    pub(crate) fn end_at(&mut self, time_ms: u64, kind: u8, row: &[u8]) -> Step<()> {
        self.put(&key::ends(time_ms, kind, row), &())
    }

    pub(crate) fn tick(&mut self) -> Step<Outcome> {
        let (from, to) = key::ended_by(self.now);
        for ending in self.keys(&from, &to, BATCH)? {
            if let Some((kind, row)) = key::read_ends(&ending) {
                self.end(kind, row)?;
            }
            self.delete(&ending)?;
        }
        let (from, to) = key::requests_before(self.now.saturating_sub(REQUEST_LIFE_MS));
        for old in self.keys(&from, &to, BATCH)? {
            self.delete(&old)?;
        }
        self.destroy_doomed(BATCH)?;
        self.sweep_retentions(BATCH)?;
        Ok(Outcome::Done)
    }

    fn end(&mut self, kind: u8, row: &[u8]) -> Step<()> {
        match kind {
            SESSION => {
                let Some(hash) = Hash::from_slice(row) else { return Ok(()) };
                // Opened again with the same token, it ends at another time.
                if let Some(session) = self.get::<Session>(&key::session(&hash))?.filter(|s| s.expires_ms <= self.now) {
                    self.delete(&key::session(&hash))?;
                    self.delete(&key::session_of(session.account, &hash))?;
                }
                Ok(())
            }
            TOKEN => TokenId::from_slice(row).map_or(Ok(()), |id| self.delete(&key::token(id))),
            INVITE => {
                let Some(id) = InviteId::from_slice(row) else { return Ok(()) };
                let invite = self.get::<Invite>(&key::invite(id))?.filter(|i| i.expires_ms < self.now);
                if invite.is_some() { self.delete(&key::invite(id)) } else { Ok(()) }
            }
            VERSION => match cbor::from_slice::<VersionId>(row) {
                Ok(VersionId { space, entry, rev }) => self.end_version(space, entry, rev),
                Err(_) => Ok(()),
            },
            LINK => {
                let Some(id) = LinkId::from_slice(row) else { return Ok(()) };
                match self.get::<Link>(&key::link(id))?.filter(|l| l.expires_ms.is_some_and(|at| at <= self.now)) {
                    Some(link) => self.end_link(&link),
                    None => Ok(()),
                }
            }
            LINK_SESSION => {
                let Some(token) = Hash::from_slice(row) else { return Ok(()) };
                if let Some(session) = self.get::<LinkSession>(&key::link_session(&token))?.filter(|s| s.expires_ms <= self.now) {
                    self.delete(&key::link_session(&token))?;
                    self.delete(&key::link_session_of(session.link, &token))?;
                }
                Ok(())
            }
            OBJECT => ObjectId::from_slice(row).map_or(Ok(()), |id| self.bury(id)),
            STALE_TRASH => self.drop_stale_trash(row),
            REKEY => SpaceId::from_slice(row).map_or(Ok(()), |id| self.end_rekey(id)),
            DEAD => ObjectId::from_slice(row).map_or(Ok(()), |id| self.forget(id)),
            _ => Ok(()),
        }
    }

    fn end_version(&mut self, id: SpaceId, entry: EntryId, rev: u64) -> Step<()> {
        let key = key::version(id, entry, rev);
        let Some(version) = self.get::<Version>(&key)? else { return Ok(()) };
        // It may have been purged before its time, and an entry of the same id have come since; or the
        // space keeps what was for longer by now.
        let ends = version.ended_ms.saturating_add(self.retention(id)?);
        if ends > self.now {
            return self.end_at(ends, VERSION, &cbor::to_vec(&VersionId { space: id, entry, rev }));
        }
        let mut space: Space = self.must(&key::space(id))?;
        self.delete(&key)?;
        self.release_row(id, &mut space, &version.row)?;
        self.put(&key::space(id), &space)?;
        // What was removed ends with its removal, unless it has come back since.
        if let Some(trashed) = self.get::<InTrash>(&key::in_trash(id, entry))?.filter(|t| t.rev == rev) {
            self.take_from_trash(id, entry, &trashed)?;
            trashed.child.map_or(Ok(()), |child| self.doom(id, child))?;
        }
        Ok(())
    }

    /// All older versions of an entry go.
    pub(crate) fn destroy_versions(&mut self, id: SpaceId, space: &mut Space, entry: EntryId) -> Step<()> {
        let prefix = key::versions(id, entry);
        for key in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
            let version: Version = self.must(&key)?;
            self.delete(&key)?;
            self.release_row(id, space, &version.row)?;
        }
        Ok(())
    }

    /// A folder's contents are to be destroyed, bit by bit. Nothing leads to it any more.
    pub(crate) fn doom(&mut self, space: SpaceId, folder: FolderId) -> Step<()> {
        self.delete(&key::door(space, folder))?;
        self.put(&key::doomed_folder(space, folder), &())
    }

    fn destroy_doomed(&mut self, limit: usize) -> Step<()> {
        let prefix = key::doomed_folders();
        let mut left = limit;
        while left > 0 {
            let Some(doomed) = self.keys(&prefix, &key::end_of(&prefix), 1)?.pop() else { return Ok(()) };
            let Some((id, folder)) = key::read_doomed(&doomed) else {
                self.delete(&doomed)?;
                left -= 1;
                continue;
            };
            let entries = key::entries(id, folder);
            let some = self.keys(&entries, &key::end_of(&entries), left)?;
            if some.is_empty() {
                self.delete(&doomed)?;
                left -= 1;
                continue;
            }
            left -= some.len();
            let mut space: Space = self.must(&key::space(id))?;
            for key in some {
                let row: EntryRow = self.must(&key)?;
                self.delete(&key)?;
                self.delete(&key::place(id, row.row.entry))?;
                self.delete(&key::leads_to(id, row.row.entry))?;
                self.counters.totals.entries = self.counters.totals.entries.saturating_sub(1);
                self.release_row(id, &mut space, &row)?;
                self.destroy_versions(id, &mut space, row.row.entry)?;
                if let Some(child) = row.child {
                    self.doom(id, child)?;
                }
            }
            self.put(&key::space(id), &space)?;
        }
        Ok(())
    }
}
