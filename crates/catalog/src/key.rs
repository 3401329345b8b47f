//! The keys of all rows. The first byte is the table; numbers are big-endian, so that order is
//! numeric; a space's rows and a folder's entries lie together.
//!
//! ```text
//! 0x01                              genesis            (once, secret)
//! 0x02                              counters, log time
//! 0x03 request 16 account 16        result of a command, 24 h
//! 0x04                              life of the catalog, wishes to all nodes
//! 0x10 account 16                   account
//! 0x11 name                         account id by name
//! 0x12 invite 16                    invite
//! 0x13 hash of session token 32     session
//! 0x14 account 16, that hash 32     sessions of an account
//! 0x15 account 16 number 8          message in a mailbox
//! 0x16 account 16                   counts of a mailbox
//! 0x17 sender 16 recipient 16       how far one has written to the other
//! 0x18 link 16                      link
//! 0x19 account 16 link 16           links of an account
//! 0x1a hash of session token 32     session of a link's holder
//! 0x1b link 16, that hash 32        sessions of a link
//! 0x20 space 16                     space
//! 0x21 space 16 number 8            member set
//! 0x22 space 16 account 16 epoch 8  grant
//! 0x23 account 16 space 16          spaces that an account is a member of, homes left out
//! 0x24 account 16 space 16          spaces that an account owns, homes left out
//! 0x25 object 16 space 16           references to an object from another space than its own
//! 0x26 space 16 entry 16            space to which an entry is the door
//! 0x30 space 16 folder 16 tag 16    entry
//! 0x31 space 16 entry 16            where an entry lies
//! 0x32 space 16 folder 16           entry that leads to a folder
//! 0x33 space 16 entry 16 rev 8      older version
//! 0x34 space 16 commit 16           commit record
//! 0x35 space 16 commit 16           rows that name a commit
//! 0x36 space 16 manifest 16         manifest, with the rows that name it
//! 0x38 space 16                     how long the space keeps versions and trash
//! 0x39 space 16 time 8 entry 16     trash, newest first: the time is inverted
//! 0x3a space 16 entry 16            entry in the trash
//! 0x3b space 16 folder 16           entry in the trash that leads to a folder
//! 0x3c space 16 revision 8          log of changes: one commit
//! 0x3d space 16                     another retention that is being carried out
//! 0x40 object 16                    object
//! 0x41 number 8                     feed
//! 0x50 node 8                       node
//! 0x51 coordinator 8                coordinator
//! 0x52 token 16                     join token
//! 0x53 width 1                      layout
//! 0x54 node 8                       node whose slots a joiner takes over
//! 0x55 width 1 epoch 8              earlier layout that is still readable
//! 0x56 width 1                      change of a layout under way
//! 0x60 number 8                     event
//! 0x70 time 8 kind 1 key            what ends at a time of the log
//! 0x71 space 16 folder 16           folder whose contents are to be destroyed
//! ```

use model::{
    AccountId, CommitId, CoordinatorId, EntryId, Epoch, FolderId, Hash, InviteId, KeyEpoch, ManifestId, NameTag, NodeId, ObjectId,
};
use model::{LinkId, RequestId, SpaceId, TokenId};

/// A key.
pub(crate) type Key = Vec<u8>;

fn join(table: u8, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|p| key.extend_from_slice(p));
    key
}

/// The first key after all that begin with a prefix.
pub(crate) fn end_of(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}

pub(crate) fn genesis() -> Key {
    join(0x01, &[])
}
pub(crate) fn counters() -> Key {
    join(0x02, &[])
}
pub(crate) fn request(request: RequestId, account: Option<AccountId>) -> Key {
    join(0x03, &[&request.0, &account.map_or([0; 16], |a| a.0)])
}
/// Bounds of the requests issued before a time.
pub(crate) fn requests_before(time_ms: u64) -> (Key, Key) {
    (join(0x03, &[]), join(0x03, &[&RequestId::new(time_ms, [0; 10]).0]))
}
pub(crate) fn life() -> Key {
    join(0x04, &[])
}
pub(crate) fn accounts() -> Key {
    join(0x10, &[])
}
pub(crate) fn account(id: AccountId) -> Key {
    join(0x10, &[&id.0])
}
pub(crate) fn name(name: &str) -> Key {
    join(0x11, &[name.as_bytes()])
}
pub(crate) fn invite(id: InviteId) -> Key {
    join(0x12, &[&id.0])
}
pub(crate) fn session(token: &Hash) -> Key {
    join(0x13, &[&token.0])
}
pub(crate) fn sessions_of(account: AccountId) -> Key {
    join(0x14, &[&account.0])
}
pub(crate) fn session_of(account: AccountId, token: &Hash) -> Key {
    join(0x14, &[&account.0, &token.0])
}
pub(crate) fn mail(owner: AccountId) -> Key {
    join(0x15, &[&owner.0])
}
pub(crate) fn mail_item(owner: AccountId, number: u64) -> Key {
    join(0x15, &[&owner.0, &number.to_be_bytes()])
}
pub(crate) fn mailbox(owner: AccountId) -> Key {
    join(0x16, &[&owner.0])
}
pub(crate) fn thread(from: AccountId, to: AccountId) -> Key {
    join(0x17, &[&from.0, &to.0])
}
pub(crate) fn link(id: LinkId) -> Key {
    join(0x18, &[&id.0])
}
pub(crate) fn links_of(owner: AccountId) -> Key {
    join(0x19, &[&owner.0])
}
pub(crate) fn link_of(owner: AccountId, link: LinkId) -> Key {
    join(0x19, &[&owner.0, &link.0])
}
pub(crate) fn link_session(token: &Hash) -> Key {
    join(0x1a, &[&token.0])
}
pub(crate) fn link_sessions(link: LinkId) -> Key {
    join(0x1b, &[&link.0])
}
pub(crate) fn link_session_of(link: LinkId, token: &Hash) -> Key {
    join(0x1b, &[&link.0, &token.0])
}
pub(crate) fn space(id: SpaceId) -> Key {
    join(0x20, &[&id.0])
}
pub(crate) fn member_sets(space: SpaceId) -> Key {
    join(0x21, &[&space.0])
}
pub(crate) fn member_set(space: SpaceId, seq: u64) -> Key {
    join(0x21, &[&space.0, &seq.to_be_bytes()])
}
pub(crate) fn grants(space: SpaceId, account: AccountId) -> Key {
    join(0x22, &[&space.0, &account.0])
}
pub(crate) fn grant(space: SpaceId, account: AccountId, epoch: KeyEpoch) -> Key {
    join(0x22, &[&space.0, &account.0, &epoch.0.to_be_bytes()])
}
pub(crate) fn joined_by(account: AccountId) -> Key {
    join(0x23, &[&account.0])
}
pub(crate) fn joined(account: AccountId, space: SpaceId) -> Key {
    join(0x23, &[&account.0, &space.0])
}
pub(crate) fn owned_by(account: AccountId) -> Key {
    join(0x24, &[&account.0])
}
pub(crate) fn owned(account: AccountId, space: SpaceId) -> Key {
    join(0x24, &[&account.0, &space.0])
}
/// Space of a key made by [`joined`] or [`owned`].
pub(crate) fn read_space_of(key: &[u8]) -> Option<SpaceId> {
    SpaceId::from_slice(key.get(17..33)?)
}
pub(crate) fn guests(object: ObjectId) -> Key {
    join(0x25, &[&object.0])
}
pub(crate) fn guest(object: ObjectId, space: SpaceId) -> Key {
    join(0x25, &[&object.0, &space.0])
}
pub(crate) fn leads_to_from(space: SpaceId) -> Key {
    join(0x26, &[&space.0])
}
pub(crate) fn leads_to(space: SpaceId, entry: EntryId) -> Key {
    join(0x26, &[&space.0, &entry.0])
}
pub(crate) fn entries(space: SpaceId, folder: FolderId) -> Key {
    join(0x30, &[&space.0, &folder.0])
}
pub(crate) fn entry(space: SpaceId, folder: FolderId, tag: NameTag) -> Key {
    join(0x30, &[&space.0, &folder.0, &tag.0])
}
pub(crate) fn place(space: SpaceId, entry: EntryId) -> Key {
    join(0x31, &[&space.0, &entry.0])
}
pub(crate) fn door(space: SpaceId, folder: FolderId) -> Key {
    join(0x32, &[&space.0, &folder.0])
}
pub(crate) fn versions(space: SpaceId, entry: EntryId) -> Key {
    join(0x33, &[&space.0, &entry.0])
}
pub(crate) fn version(space: SpaceId, entry: EntryId, rev: u64) -> Key {
    join(0x33, &[&space.0, &entry.0, &rev.to_be_bytes()])
}
pub(crate) fn commit(space: SpaceId, commit: CommitId) -> Key {
    join(0x34, &[&space.0, &commit.0])
}
pub(crate) fn commit_refs(space: SpaceId, commit: CommitId) -> Key {
    join(0x35, &[&space.0, &commit.0])
}
pub(crate) fn manifest(space: SpaceId, manifest: ManifestId) -> Key {
    join(0x36, &[&space.0, &manifest.0])
}
pub(crate) fn versions_of(space: SpaceId) -> Key {
    join(0x33, &[&space.0])
}
pub(crate) fn keeping(space: SpaceId) -> Key {
    join(0x38, &[&space.0])
}
pub(crate) fn trash(space: SpaceId) -> Key {
    join(0x39, &[&space.0])
}
pub(crate) fn trash_by_time(space: SpaceId, ended_ms: u64, entry: EntryId) -> Key {
    join(0x39, &[&space.0, &(!ended_ms).to_be_bytes(), &entry.0])
}
/// The entry of a key made by [`trash_by_time`].
pub(crate) fn read_trash(key: &[u8]) -> Option<EntryId> {
    EntryId::from_slice(key.get(25..)?)
}
pub(crate) fn in_trash_of(space: SpaceId) -> Key {
    join(0x3a, &[&space.0])
}
pub(crate) fn in_trash(space: SpaceId, entry: EntryId) -> Key {
    join(0x3a, &[&space.0, &entry.0])
}
pub(crate) fn trashed_folder(space: SpaceId, folder: FolderId) -> Key {
    join(0x3b, &[&space.0, &folder.0])
}
pub(crate) fn changes_of(space: SpaceId) -> Key {
    join(0x3c, &[&space.0])
}
pub(crate) fn changed(space: SpaceId, revision: u64) -> Key {
    join(0x3c, &[&space.0, &revision.to_be_bytes()])
}
pub(crate) fn sweeps() -> Key {
    join(0x3d, &[])
}
pub(crate) fn sweep(space: SpaceId) -> Key {
    join(0x3d, &[&space.0])
}
pub(crate) fn objects() -> Key {
    join(0x40, &[])
}
pub(crate) fn object(id: ObjectId) -> Key {
    join(0x40, &[&id.0])
}
pub(crate) fn feed(number: u64) -> Key {
    join(0x41, &[&number.to_be_bytes()])
}
pub(crate) fn nodes() -> Key {
    join(0x50, &[])
}
pub(crate) fn node(id: NodeId) -> Key {
    join(0x50, &[&id.0.to_be_bytes()])
}
pub(crate) fn coordinators() -> Key {
    join(0x51, &[])
}
pub(crate) fn coordinator(id: CoordinatorId) -> Key {
    join(0x51, &[&id.0.to_be_bytes()])
}
pub(crate) fn token(id: TokenId) -> Key {
    join(0x52, &[&id.0])
}
pub(crate) fn layouts() -> Key {
    join(0x53, &[])
}
pub(crate) fn layout(width: u8) -> Key {
    join(0x53, &[&[width]])
}
pub(crate) fn earlier_layouts() -> Key {
    join(0x55, &[])
}
pub(crate) fn earlier_layouts_of(width: u8) -> Key {
    join(0x55, &[&[width]])
}
pub(crate) fn earlier_layout(width: u8, epoch: Epoch) -> Key {
    join(0x55, &[&[width], &epoch.0.to_be_bytes()])
}
pub(crate) fn changes() -> Key {
    join(0x56, &[])
}
pub(crate) fn change(width: u8) -> Key {
    join(0x56, &[&[width]])
}
pub(crate) fn heir(node: NodeId) -> Key {
    join(0x54, &[&node.0.to_be_bytes()])
}
pub(crate) fn event(number: u64) -> Key {
    join(0x60, &[&number.to_be_bytes()])
}
/// Whether a row is part of what everybody keeps a copy of: nodes, coordinators, layouts and their
/// changes, life. Such rows grow the revision.
pub(crate) fn is_map(key: &[u8]) -> bool {
    matches!(key.first(), Some(0x04 | 0x50 | 0x51 | 0x53 | 0x55 | 0x56))
}
/// What ends at a time: `kind` says how, `key` which row.
pub(crate) fn ends(time_ms: u64, kind: u8, key: &[u8]) -> Key {
    join(0x70, &[&time_ms.to_be_bytes(), &[kind], key])
}
/// Bounds of what has ended up to a time, that included.
pub(crate) fn ended_by(time_ms: u64) -> (Key, Key) {
    (join(0x70, &[]), join(0x70, &[&time_ms.saturating_add(1).to_be_bytes()]))
}
/// Kind and row of a key made by [`ends`].
pub(crate) fn read_ends(key: &[u8]) -> Option<(u8, &[u8])> {
    Some((*key.get(9)?, key.get(10..)?))
}
pub(crate) fn doomed_folders() -> Key {
    join(0x71, &[])
}
pub(crate) fn doomed_folder(space: SpaceId, folder: FolderId) -> Key {
    join(0x71, &[&space.0, &folder.0])
}
/// Space and folder of a key made by [`doomed_folder`].
pub(crate) fn read_doomed(key: &[u8]) -> Option<(SpaceId, FolderId)> {
    Some((SpaceId::from_slice(key.get(1..17)?)?, FolderId::from_slice(key.get(17..)?)?))
}
