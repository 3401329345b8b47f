//! Rows of the catalog's tree as servers see them: ids, tags, ciphertext and signatures.

use crate::{
    AccountId, CommitId, EntryId, Epoch, FolderId, Hash, KeyEpoch, ManifestId, NameTag, ObjectId, Policy, Signature, SpaceId, cbor,
};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Largest sealed entry, in bytes (inline content, name and attributes, padded).
pub const SEALED_ENTRY_MAX: usize = 16 << 10;
/// Largest sealed manifest kept in the catalog, in bytes. A longer one is a tree of sealed chunks.
pub const SEALED_MANIFEST_MAX: usize = 24 << 10;
/// Most changes in one commit.
pub const COMMIT_MAX: usize = 256;
/// Most commits that whoever lists a folder may say to have.
pub const HAVE_MAX: usize = 8_192;
/// Revisions from here on are those of conflict versions: kept beside an entry, never current.
pub const CONFLICTS: u64 = 1 << 63;
/// Most hints for repair in one [`ObjectUse`]. Further ones are left out: reconciliation finds all.
pub const HINTS_MAX: usize = 4096;

/// The signed part of a row. Its hash covers all fields in this order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Row {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Folder in which the entry lies.
    #[n(1)]
    pub folder: FolderId,
    /// The entry; stays through renames, moves and overwrites.
    #[n(2)]
    pub entry: EntryId,
    /// Revision of the entry, from 1; grows by one with every change of it.
    #[n(3)]
    pub rev: u64,
    /// Key epoch of the folder under which it is sealed.
    #[n(4)]
    pub epoch: KeyEpoch,
    /// Keyed hash of the name.
    #[n(5)]
    pub tag: NameTag,
    /// The sealed entry. Empty: the entry ends with this revision (a signed removal).
    #[n(6)]
    pub sealed: ByteVec,
}

impl Row {
    /// BLAKE3 of the row's encoding: what a commit signs.
    pub fn hash(&self) -> Hash {
        Hash::of(&cbor::to_vec(self))
    }
}

/// The body of a signed commit: `[space, epoch, commit id, [H(row)…]]`. Signed as type `"commit"`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommitBody {
    /// Space.
    #[n(0)]
    pub space: SpaceId,
    /// Key epoch of the space in which the author signs.
    #[n(1)]
    pub epoch: KeyEpoch,
    /// Random id of the commit.
    #[n(2)]
    pub commit: CommitId,
    /// Hashes of the rows, in the order of the commit's changes.
    #[n(3)]
    pub rows: Vec<Hash>,
}

/// A commit's record as kept and returned with the rows that it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommitRecord {
    /// Who signed.
    #[n(0)]
    pub author: AccountId,
    /// Encoded [`CommitBody`], as received.
    #[n(1)]
    pub body: ByteVec,
    /// Signature over it.
    #[n(2)]
    pub signature: Signature,
}

/// The chunks of one object that a manifest uses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ObjectUse {
    /// The object.
    #[n(0)]
    pub object: ObjectId,
    /// How it is coded.
    #[n(1)]
    pub policy: Policy,
    /// Chunk numbers stored: sorted, disjoint ranges `[from, to)`.
    #[n(2)]
    pub chunks: Vec<(u32, u32)>,
    /// Layout epoch under which its shards were placed.
    #[n(3)]
    pub layout: Epoch,
    /// Sealed bytes of all its chunks (before coding); quota counts these times (k+m)/k.
    #[n(4)]
    pub bytes: u64,
    /// Chunk numbers of which not all shards were durable at commit: hints for repair,
    /// sorted, at most [`HINTS_MAX`].
    #[n(5)]
    pub partial: Vec<u32>,
    /// Coding generation: 0 as uploaded, one more with each re-coding. The catalog's to say; commits
    /// name 0 for new objects and may name any for those that are there.
    #[n(6)]
    #[cbor(default)]
    pub generation: u16,
}

/// A sealed manifest with what the catalog must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ManifestRow {
    /// Random id; part of the sealing context.
    #[n(0)]
    pub id: ManifestId,
    /// The sealed manifest (opaque).
    #[n(1)]
    pub sealed: ByteVec,
    /// The objects that it refers to: each counts one reference.
    #[n(2)]
    pub objects: Vec<ObjectUse>,
}

/// What a change expects to find at the row's place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Expect {
    /// Nothing under this tag in this folder (and no such entry).
    #[n(0)]
    Absent,
    /// The entry at this revision, lying in this folder under this tag.
    #[n(1)]
    At {
        /// Where it lies now: equal to the row's folder unless the change moves it.
        #[n(0)]
        folder: FolderId,
        /// Its tag now.
        #[n(1)]
        tag: NameTag,
        /// Its revision now; the row's is one more.
        #[n(2)]
        rev: u64,
    },
    /// The entry in the trash, removed by this revision. It comes back, at any free place, or (with an
    /// empty row and `purge`) goes for good with all its versions.
    #[n(2)]
    Removed {
        /// The revision that removed it; the row's is one more.
        #[n(0)]
        rev: u64,
    },
    /// The file under this tag in this folder, current or in the trash, whatever its revision: the row
    /// is kept beside it as a conflict version. The row's revision is [`CONFLICTS`] and a number
    /// from 1 that is free.
    #[n(3)]
    Beside,
    /// An older version of a file, of the row's own revision, or a conflict version: with an empty row and
    /// `purge` it goes for good, and nothing else of its entry.
    #[n(4)]
    Older,
}

/// One change of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// The new row. With an empty `sealed` the entry is removed (to the trash).
    #[n(0)]
    pub row: Row,
    /// What must be there.
    #[n(1)]
    pub expect: Expect,
    /// The folder that this entry is the door to, when it is a folder. Fresh for a new entry;
    /// the same one in every later revision.
    #[n(2)]
    pub child: Option<FolderId>,
    /// The manifest of this revision: an id alone refers to one live in the same space.
    #[n(3)]
    pub manifest: Option<ManifestId>,
    /// Manifests that come with this change (`manifest` names one of them, or an older one).
    #[n(4)]
    pub new_manifest: Option<ManifestRow>,
    /// With a removal: destroy for real instead of keeping a version in the trash. Of [`Expect::Older`]: the
    /// version alone.
    #[n(5)]
    pub purge: bool,
}

/// A row as returned to clients.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EntryRow {
    /// The signed part.
    #[n(0)]
    pub row: Row,
    /// The commit that wrote it; its record comes along in the same answer.
    #[n(1)]
    pub commit: CommitId,
    /// Child folder, when it is a folder.
    #[n(2)]
    pub child: Option<FolderId>,
    /// Manifest of this revision.
    #[n(3)]
    pub manifest: Option<ManifestId>,
    /// Log time at which it was committed, milliseconds since 1970.
    #[n(4)]
    pub time_ms: u64,
}

/// A row of a re-key: one that is there, sealed anew for a fresh folder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Resealed {
    /// The new row. Its revision is that of the row that it stands for.
    #[n(0)]
    pub row: Row,
    /// The fresh folder behind it, where the old row leads to a folder.
    #[n(1)]
    pub child: Option<FolderId>,
    /// The entry that it stands for; with `row.rev` that names a current row or an older version.
    #[n(2)]
    pub of: EntryId,
}
