//! What was: older versions, the trash, and the log of a space's latest changes, as servers tell of them.
//! Rows come with the commit records that they name and are verified like any other; what stands beside
//! them here (times, which entry is in the trash) is what the servers say.

use crate::tree::EntryRow;
use crate::{AccountId, EntryId, FolderId, NameTag, ObjectId};
use minicbor::{Decode, Encode};

/// Longest time for which a space may keep versions and trash, in milliseconds: ten years.
pub const RETENTION_MAX_MS: u64 = 3_653 * 24 * 3_600_000;
/// Commits of a space that its log of changes remembers.
pub const LOG_COMMITS: u64 = 1_024;

/// What one change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// A row was written: a new entry or a new revision.
    #[n(0)]
    Put,
    /// The entry went to the trash.
    #[n(1)]
    Remove,
    /// The entry is gone for good.
    #[n(2)]
    Purge,
    /// A conflict version was kept beside the entry.
    #[n(3)]
    Conflict,
    /// The entry came back from the trash.
    #[n(4)]
    Restore,
}

/// One change of a commit, as the log of changes remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Note {
    /// What it did.
    #[n(0)]
    pub what: What,
    /// Folder of the entry.
    #[n(1)]
    pub folder: FolderId,
    /// Its tag there.
    #[n(2)]
    pub tag: NameTag,
    /// The entry.
    #[n(3)]
    pub entry: EntryId,
    /// The row's revision.
    #[n(4)]
    pub rev: u64,
    /// Where it lay before, when it was moved or renamed.
    #[n(5)]
    pub from: Option<(FolderId, NameTag)>,
    /// The folder that it is the door to.
    #[n(6)]
    pub child: Option<FolderId>,
}

/// One commit in the log of changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Noted {
    /// Revision of the space after it.
    #[n(0)]
    pub revision: u64,
    /// Log time, milliseconds since 1970.
    #[n(1)]
    pub time_ms: u64,
    /// Who signed it.
    #[n(2)]
    pub author: AccountId,
    /// Its changes, in order.
    #[n(3)]
    pub notes: Vec<Note>,
}

/// A page of the log of changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Changes {
    /// Revision up to which this page tells everything: the next page begins after it.
    #[n(0)]
    pub upto: u64,
    /// The log does not reach back as far as was asked: look at everything anew, then go on from `upto`.
    #[n(1)]
    pub resync: bool,
    /// There is more after this page.
    #[n(2)]
    pub more: bool,
    /// The commits, in order.
    #[n(3)]
    pub commits: Vec<Noted>,
    /// The rows that they wrote and those that they replaced, as far as they are still there.
    #[n(4)]
    pub rows: crate::command::Rows,
}

/// An entry in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trashed {
    /// The entry.
    #[n(0)]
    pub entry: EntryId,
    /// The revision that removed it.
    #[n(1)]
    pub rev: u64,
    /// Log time at which it was removed, milliseconds since 1970.
    #[n(2)]
    pub ended_ms: u64,
    /// The folder that it was the door to; all below it is as it was.
    #[n(3)]
    pub child: Option<FolderId>,
}

/// A page of a space's trash, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct TrashPage {
    /// What is in it.
    #[n(0)]
    pub items: Vec<Trashed>,
    /// Of each the row that removed it and the one before it, as far as they are still there.
    #[n(1)]
    pub rows: crate::command::Rows,
    /// There is more after the last item.
    #[n(2)]
    pub more: bool,
    /// For how long the space keeps what was, in milliseconds.
    #[n(3)]
    pub retention_ms: u64,
}

/// Older versions of an entry, and conflict versions after them, in order of revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct History {
    /// The versions' rows; a removal is one of them. `more`: there are more after the last one.
    #[n(0)]
    pub rows: crate::command::Rows,
    /// Of each row, when it ceased to be current: log time, milliseconds since 1970.
    #[n(1)]
    pub ended_ms: Vec<u64>,
    /// For how long the space keeps what was, in milliseconds.
    #[n(2)]
    pub retention_ms: u64,
}

/// The rows by which folders are entered, up to the root.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Doors {
    /// One row a folder; of folders in the trash the last one before the removal. Folders that are gone
    /// have none. `more`: too many were asked for at once, and some are left out.
    #[n(0)]
    pub rows: crate::command::Rows,
    /// Folders among them that are in the trash.
    #[n(1)]
    pub removed: Vec<FolderId>,
}

/// What one version takes on disk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct KeptSize {
    /// The entry.
    #[n(0)]
    pub entry: EntryId,
    /// The version's revision.
    #[n(1)]
    pub rev: u64,
    /// Folder in which it lay.
    #[n(2)]
    pub folder: FolderId,
    /// The entry is in the trash.
    #[n(3)]
    pub trashed: bool,
    /// For the removal of a folder: the folder, with all below it.
    #[n(4)]
    pub child: Option<FolderId>,
    /// Bytes in the catalog.
    #[n(5)]
    pub sealed: u64,
    /// Its objects with the bytes of all their shards. Other versions may share them.
    #[n(6)]
    pub objects: Vec<(ObjectId, u64)>,
}

/// Whether a row is a conflict version.
pub fn is_conflict(row: &EntryRow) -> bool {
    row.row.rev >= crate::tree::CONFLICTS
}
