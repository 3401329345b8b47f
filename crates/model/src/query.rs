//! Every question to the catalog.

use crate::{AccountId, CommitId, EntryId, Epoch, FolderId, Hash, InviteId, ManifestId, NameTag, ObjectId, SpaceId, TokenId};
use minicbor::{Decode, Encode};

/// Every question to the catalog. Reads are linearisable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// Account by name.
    #[n(0)]
    AccountByName(#[n(0)] String),
    /// Account by id.
    #[n(1)]
    Account(#[n(0)] AccountId),
    /// Invite.
    #[n(2)]
    Invite(#[n(0)] InviteId),
    /// Join token.
    #[n(3)]
    Token(#[n(0)] TokenId),
    /// Account of a session, by BLAKE3 of the session token.
    #[n(4)]
    Session(#[n(0)] Hash),
    /// What a member needs to open a space.
    #[n(5)]
    Space {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Member who asks.
        #[n(1)]
        account: AccountId,
    },
    /// One entry by tag.
    #[n(6)]
    Lookup {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Folder.
        #[n(1)]
        folder: FolderId,
        /// Tags to look up (up to 256).
        #[n(2)]
        tags: Vec<NameTag>,
        /// Return manifests too.
        #[n(3)]
        manifests: bool,
    },
    /// Entries of a folder in order of tag.
    #[n(7)]
    List {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Folder.
        #[n(1)]
        folder: FolderId,
        /// Start after this tag.
        #[n(2)]
        after: Option<NameTag>,
        /// At most so many (capped at 2,000).
        #[n(3)]
        limit: u32,
        /// Return manifests too.
        #[n(4)]
        manifests: bool,
        /// Commits whose records need not come: the asker has them from earlier pages. At most 8,192.
        #[n(5)]
        #[cbor(default)]
        have: Vec<CommitId>,
    },
    /// Manifests by id.
    #[n(8)]
    Manifests {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Ids (up to 256).
        #[n(1)]
        ids: Vec<ManifestId>,
    },
    /// What everybody needs to know of the cluster.
    #[n(9)]
    Cluster,
    /// The layout of a width.
    #[n(10)]
    Layout(#[n(0)] u8),
    /// Events after a number.
    #[n(11)]
    Events {
        /// Start after.
        #[n(0)]
        after: u64,
        /// At most.
        #[n(1)]
        limit: u32,
    },
    /// Feed of objects after a number (for nodes).
    #[n(12)]
    Feed {
        /// Start after.
        #[n(0)]
        after: u64,
        /// At most.
        #[n(1)]
        limit: u32,
    },
    /// States of objects.
    #[n(13)]
    Objects(#[n(0)] Vec<ObjectId>),
    /// Rows that hold counters of the catalog.
    #[n(14)]
    Totals,
    /// The secret genesis record: in-process only, never answered over the network.
    #[n(15)]
    Genesis,
    /// Older versions and trash of an entry.
    #[n(16)]
    Versions {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Entry.
        #[n(1)]
        entry: EntryId,
    },
    /// Rows at several places of one space at once, answered as [`Answer::Rows`] in the order asked;
    /// places where nothing lies are left out. With the cached ids of a path's folders, a client
    /// resolves the whole path in one round trip, linearisably. At most 256 steps.
    #[n(17)]
    Walk {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// `(folder, tag)` of each place.
        #[n(1)]
        steps: Vec<(FolderId, NameTag)>,
        /// Return manifests too.
        #[n(2)]
        manifests: bool,
    },
    /// A layout by its epoch: the current one, or an earlier one that is still readable.
    /// [`Answer::Layout`], or [`Answer::LayoutPatch`] to the one that the asker has, where that is readable
    /// still and the difference is shorter.
    ///
    /// [`Answer::Layout`]: crate::command::Answer::Layout
    /// [`Answer::LayoutPatch`]: crate::command::Answer::LayoutPatch
    #[n(18)]
    LayoutAt {
        /// Shards of a chunk.
        #[n(0)]
        width: u8,
        /// Epoch.
        #[n(1)]
        epoch: Epoch,
        /// Epoch of a layout of this width that the asker has.
        #[n(2)]
        have: Option<Epoch>,
    },
    /// Accounts in order of id.
    #[n(19)]
    Accounts {
        /// Start after.
        #[n(0)]
        after: Option<AccountId>,
        /// At most.
        #[n(1)]
        limit: u32,
    },
    /// Objects that are to be coded anew, since their space has got another policy. A page looks at a
    /// bounded number of objects, and may hold none although there are more.
    #[n(20)]
    Recode {
        /// Start after.
        #[n(0)]
        after: Option<ObjectId>,
        /// At most.
        #[n(1)]
        limit: u32,
    },
    /// Which coding generations of objects count, in the order asked (for nodes).
    #[n(21)]
    Generations(#[n(0)] Vec<ObjectId>),
    /// How the objects of a space are coded.
    #[n(22)]
    Coding(#[n(0)] SpaceId),
    /// Spaces that an account is a member of, its home left out.
    #[n(40)]
    Spaces {
        /// Account.
        #[n(0)]
        account: AccountId,
    },
    /// The role of an account in a space.
    #[n(41)]
    Role {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Account.
        #[n(1)]
        account: AccountId,
    },
    /// Bytes on disk that an account's quota counts: of its home and of all spaces that it owns.
    #[n(43)]
    Used(#[n(0)] AccountId),
    /// Older versions and trash of a whole space, in order of entry and revision.
    #[n(42)]
    Older {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Start after this entry's revision.
        #[n(1)]
        after: Option<(EntryId, u64)>,
        /// At most so many (capped at 2,000).
        #[n(2)]
        limit: u32,
    },
    /// The public identity of the account with this name.
    #[n(60)]
    IdentityByName(#[n(0)] String),
    /// Public identities by account, at most 1,024: those that exist, in the order asked.
    #[n(61)]
    Identities(#[n(0)] Vec<AccountId>),
    /// Older and conflict versions of an entry, in order of revision.
    #[n(50)]
    History {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Entry.
        #[n(1)]
        entry: EntryId,
        /// Start after this revision; 0: from the first.
        #[n(2)]
        after: u64,
        /// At most so many (capped at 2,000).
        #[n(3)]
        limit: u32,
    },
    /// The trash of a space, newest first.
    #[n(51)]
    Trash {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Start after this item: when it was removed, and which entry.
        #[n(1)]
        after: Option<(u64, EntryId)>,
        /// At most so many (capped at 500).
        #[n(2)]
        limit: u32,
    },
    /// The rows by which folders are entered, each with all above it (up to 256 folders).
    #[n(52)]
    Doors {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Folders.
        #[n(1)]
        folders: Vec<FolderId>,
    },
    /// The log of a space's latest changes.
    #[n(53)]
    Changes {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Start after this revision; `u64::MAX`: only say which is the latest.
        #[n(1)]
        after: u64,
    },
    /// What older versions take on disk, in order of entry and revision.
    #[n(54)]
    Kept {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// Start after this version.
        #[n(1)]
        after: Option<(EntryId, u64)>,
        /// At most so many (capped at 2,000).
        #[n(2)]
        limit: u32,
    },
    /// Counts of an account's mailbox.
    #[n(62)]
    Mailbox(#[n(0)] AccountId),
    /// Messages of an account's mailbox, in the order of arrival.
    #[n(63)]
    Mail {
        /// Whose.
        #[n(0)]
        account: AccountId,
        /// Start after this number.
        #[n(1)]
        after: u64,
        /// At most so many.
        #[n(2)]
        limit: u32,
    },
    /// The link that was opened with a session, by BLAKE3 of its token, while both are good.
    #[n(65)]
    LinkBySession(#[n(0)] Hash),
    /// All links of an account.
    #[n(66)]
    Links(#[n(0)] AccountId),
    /// Whether folders, at most 256, are a folder or lie below it.
    #[n(67)]
    Within {
        /// Space.
        #[n(0)]
        space: SpaceId,
        /// The folder above.
        #[n(1)]
        top: FolderId,
        /// Those asked about.
        #[n(2)]
        folders: Vec<FolderId>,
    },
    /// How far one account has written to another.
    #[n(64)]
    Thread {
        /// Sender.
        #[n(0)]
        from: AccountId,
        /// Recipient.
        #[n(1)]
        to: AccountId,
    },
}
