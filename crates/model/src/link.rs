//! Links as servers keep them: whoever shows the secret's proof may read one file or folder, without an
//! account. What the link leads to is ciphertext here.

use crate::{AccountId, FolderId, Hash, LinkId, ManifestId, SpaceId};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Longest sealed record of a link, in bytes: a small file lies in it.
pub const SEALED_MAX: usize = 12 << 10;
/// Most links of one account.
pub const LINKS_MAX: usize = 1_000;

/// What a link lets its holders read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LinkTarget {
    /// What lies in the sealed record itself.
    #[n(0)]
    Record,
    /// One version of a file.
    #[n(1)]
    File(#[n(0)] ManifestId),
    /// A folder with all below it.
    #[n(2)]
    Folder(#[n(0)] FolderId),
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// Id.
    #[n(0)]
    pub id: LinkId,
    /// Who made it. It is good as long as they may read the space themselves.
    #[n(1)]
    pub owner: AccountId,
    /// Where it leads.
    #[n(2)]
    pub space: SpaceId,
    /// To what.
    #[n(3)]
    pub target: LinkTarget,
    /// BLAKE3 of the proof that its holders show.
    #[n(4)]
    pub auth_hash: Hash,
    /// Name and keys, sealed under the link's secret.
    #[n(5)]
    pub sealed: ByteVec,
    /// Log time at which it was made, milliseconds since 1970 (set by the catalog).
    #[n(6)]
    pub created_ms: u64,
    /// Log time after which it is refused; `None`: never.
    #[n(7)]
    pub expires_ms: Option<u64>,
    /// How often it may still be opened; `None`: without limit.
    #[n(8)]
    pub left: Option<u64>,
    /// How often it was opened (set by the catalog).
    #[n(9)]
    pub opened: u64,
}
