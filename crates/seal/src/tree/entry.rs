//! What an entry says once it is open.
//!
//! ```text
//! plaintext = CBOR [name, [mode, mtime_ns, [[key, value]…]], size, content] ‖ zeros
//! content   = [0, bytes] inline · [1, MK, H(sealed manifest), manifest id] · [2, folder id, DK, epoch]
//!           · [3, target] symlink · [4, space id]
//! length    = what is around inline content + Padmé(inline content), rounded up to 128
//! ```

use super::Name;
use crate::keys::{FolderKey, ManifestKey};
use crate::pad::{ENTRY_STEP, check_zeros, padme};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use model::chunk::INLINE_MAX;
use model::{Error, FolderId, Hash, KeyEpoch, ManifestId, Result, SpaceId};
use std::convert::Infallible;
use zeroize::Zeroizing;

/// Longest target of a symlink, in bytes (PATH_MAX).
pub const TARGET_MAX: usize = 4096;

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file.
    File,
    /// A folder, of this space or the root of another one.
    Folder,
    /// A symbolic link.
    Symlink,
}

/// What is kept of a file's attributes. User and group are not: they mean nothing on another machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Attributes {
    /// Unix permission bits (`st_mode & 0o7777`).
    #[n(0)]
    pub mode: u32,
    /// Modification time, nanoseconds since 1970; negative before. The one signed integer of the format.
    #[n(1)]
    pub mtime_ns: i64,
    /// Further attributes (extended attributes, a later step) by key: sorted, no key twice. A client
    /// that does not know a key keeps it.
    #[n(2)]
    pub more: Vec<(ByteVec, ByteVec)>,
}

/// An opened entry.
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its attributes.
    pub attributes: Attributes,
    /// Bytes of a file or of a symlink's target; 0 for a folder.
    pub size: u64,
    /// What it is, or leads to.
    pub content: Content,
}

/// What an entry is, or leads to.
pub enum Content {
    /// A file of at most 4 KiB.
    Inline(Vec<u8>),
    /// A file in chunks.
    Manifest {
        /// MK: seals the manifest.
        key: ManifestKey,
        /// BLAKE3 of the sealed manifest.
        hash: Hash,
        /// Its id.
        id: ManifestId,
    },
    /// A folder of the same space.
    Folder {
        /// Its id.
        id: FolderId,
        /// DK.
        key: FolderKey,
        /// The epoch in which its rows are.
        epoch: KeyEpoch,
    },
    /// A symbolic link: its target, as bytes.
    Symlink(Vec<u8>),
    /// The root of another space.
    Space(SpaceId),
}

impl Content {
    /// The same content for a second entry (a copy or another name). The keys are shared on purpose:
    /// both entries lead to the same bytes.
    pub fn share(&self) -> Content {
        match self {
            Content::Inline(bytes) => Content::Inline(bytes.clone()),
            Content::Manifest { key, hash, id } => Content::Manifest { key: ManifestKey::from_bytes(key.bytes()), hash: *hash, id: *id },
            Content::Folder { id, key, epoch } => Content::Folder { id: *id, key: FolderKey::from_bytes(key.bytes()), epoch: *epoch },
            Content::Symlink(target) => Content::Symlink(target.clone()),
            Content::Space(id) => Content::Space(*id),
        }
    }
}

impl Entry {
    /// What kind of thing it is.
    pub fn kind(&self) -> Kind {
        match self.content {
            Content::Inline(_) | Content::Manifest { .. } => Kind::File,
            Content::Folder { .. } | Content::Space(_) => Kind::Folder,
            Content::Symlink(_) => Kind::Symlink,
        }
    }

    /// `Corrupt` when the parts do not fit each other.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(Error::corrupt(why));
        let size = match &self.content {
            Content::Inline(bytes) if bytes.len() > INLINE_MAX => return bad("an inline file is longer than 4 KiB"),
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Manifest { .. } => self.size,
            Content::Symlink(target) if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) => {
                return bad("a symlink's target is empty, longer than 4096 bytes or contains a NUL");
            }
            Content::Symlink(target) => target.len() as u64,
            Content::Folder { .. } | Content::Space(_) => 0,
        };
        if size != self.size {
            return bad("an entry's size is not that of its content");
        }
        if self.attributes.mode > 0o7777 || !self.attributes.more.is_sorted_by(|a, b| a.0 < b.0) {
            return bad("an entry's attributes are not possible");
        }
        Ok(())
    }

    /// Its encoding, and the length to which that is padded.
    pub(crate) fn to_plain(&self) -> (Zeroizing<Vec<u8>>, usize) {
        // Reserved wholly for all but long attributes, so that growing leaves no copies behind.
        let inside = match &self.content {
            Content::Inline(bytes) | Content::Symlink(bytes) => bytes.len(),
            _ => 0,
        };
        let mut plain = Zeroizing::new(Vec::with_capacity(512 + inside));
        self.encode(&mut Encoder::new(&mut *plain)).expect("encoding into memory");
        let padded = self.padded_len(plain.len());
        (plain, padded)
    }

    fn padded_len(&self, encoded: usize) -> usize {
        let unrounded = match &self.content {
            Content::Inline(bytes) => encoded - bytes.len() + padme(bytes.len()),
            _ => encoded,
        };
        unrounded.next_multiple_of(ENTRY_STEP)
    }

    /// Decodes a padded plaintext: canonical form, zero padding of exactly the right length, and
    /// parts that fit each other, or `Corrupt`.
    pub(crate) fn from_plain(plain: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(plain);
        let entry = Entry::decode(&mut d).map_err(|_| Error::corrupt("an entry is not decodable"))?;
        let (encoded, padding) = plain.split_at_checked(d.position()).ok_or_else(|| Error::corrupt("an entry is cut off"))?;
        let (canonical, padded) = entry.to_plain();
        if canonical.as_slice() != encoded {
            return Err(Error::corrupt("an entry is not in canonical form"));
        }
        if padded != plain.len() {
            return Err(Error::corrupt("an entry has the wrong padding"));
        }
        check_zeros(padding)?;
        entry.check()?;
        Ok(entry)
    }

    fn encode(&self, e: &mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        e.array(4)?.encode(&self.name)?.encode(&self.attributes)?.u64(self.size)?;
        match &self.content {
            Content::Inline(bytes) => e.array(2)?.u8(0)?.bytes(bytes)?,
            Content::Manifest { key, hash, id } => e.array(4)?.u8(1)?.bytes(key.bytes())?.encode(hash)?.encode(id)?,
            Content::Folder { id, key, epoch } => e.array(4)?.u8(2)?.encode(id)?.bytes(key.bytes())?.encode(epoch)?,
            Content::Symlink(target) => e.array(2)?.u8(3)?.bytes(target)?,
            Content::Space(id) => e.array(2)?.u8(4)?.encode(id)?,
        };
        Ok(())
    }

    fn decode(d: &mut Decoder) -> Result<Self, decode::Error> {
        array(d, 4)?;
        let (name, attributes, size) = (d.decode()?, d.decode()?, d.u64()?);
        let len = d.array()?;
        let key = || decode::Error::message("wrong length of a key");
        let content = match (d.u8()?, len) {
            (0, Some(2)) => Content::Inline(d.bytes()?.into()),
            (1, Some(4)) => {
                Content::Manifest { key: ManifestKey::from_slice(d.bytes()?).ok_or_else(key)?, hash: d.decode()?, id: d.decode()? }
            }
            (2, Some(4)) => {
                Content::Folder { id: d.decode()?, key: FolderKey::from_slice(d.bytes()?).ok_or_else(key)?, epoch: d.decode()? }
            }
            (3, Some(2)) => Content::Symlink(d.bytes()?.into()),
            (4, Some(2)) => Content::Space(d.decode()?),
            _ => return Err(decode::Error::message("unknown content of an entry")),
        };
        Ok(Entry { name, attributes, size, content })
    }
}

/// Reads the head of an array of exactly `len` items.
fn array(d: &mut Decoder, len: u64) -> Result<(), decode::Error> {
    if d.array()? == Some(len) { Ok(()) } else { Err(decode::Error::message("an array of the wrong length")) }
}
