//! The tree: names, entries, and the rows in which servers keep them.
//!
//! ```text
//! DK ─Derive "entry"────▶ seals every entry of the folder, context ["entry", space, folder, entry, rev, epoch]
//!    ─Derive "name-tag"─▶ HMAC of names: by it servers find a row without knowing its name
//! ```

mod entry;
mod name;
mod rows;

pub use entry::{Attributes, Content, Entry, Kind};
pub use name::{NAME_MAX, Name};
pub use rows::{Found, Listing, RowVerifier, VerifiedRow, VerifiedRows};

use crate::keys::{FolderKey, SealKey, TagKey, fresh};
use crate::primitive;
use aws_lc_rs::hmac;
use model::tree::{Row, SEALED_ENTRY_MAX};
use model::{EntryId, Error, FolderId, KeyEpoch, NameTag, Result, SpaceId, cbor};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A fresh folder: its id and DK. They go into the entry that is its door, with the space's current
/// epoch.
pub fn new_folder(rng: &mut impl CryptoRng) -> (FolderId, FolderKey) {
    (FolderId(fresh(rng)), FolderKey::generate(rng))
}

/// The keys of one folder's rows, with the place that they are good for.
pub struct FolderKeys {
    /// The space.
    pub space: SpaceId,
    /// The folder.
    pub folder: FolderId,
    /// The epoch stored beside DK in the parent's sealed entry; rows of other epochs are refused.
    pub epoch: KeyEpoch,
    entry: SealKey,
    tag: hmac::Key,
}

impl FolderKeys {
    /// From a folder's DK and what stands beside it in the parent's entry.
    pub fn new(space: SpaceId, folder: FolderId, epoch: KeyEpoch, key: &FolderKey) -> Self {
        let tag: TagKey = key.tag_key();
        FolderKeys { space, folder, epoch, entry: key.sealing("entry"), tag: hmac::Key::new(hmac::HMAC_SHA256, tag.bytes()) }
    }

    /// The folder behind an entry; `None` when the entry is no folder of this space.
    pub fn of_child(&self, entry: &Entry) -> Option<Self> {
        match &entry.content {
            Content::Folder { id, key, epoch } => Some(FolderKeys::new(self.space, *id, *epoch, key)),
            _ => None,
        }
    }

    /// The tag under which a name lies: `HMAC-SHA256(name-tag key, 01 ‖ NFC(name) or 02 ‖ raw)[..16]`.
    pub fn tag(&self, name: &Name) -> NameTag {
        let mac = hmac::sign(&self.tag, &name.tag_input());
        let mut tag = [0u8; 16];
        tag.copy_from_slice(&mac.as_ref()[..16]);
        NameTag(tag)
    }

    /// Seals an entry as revision `rev` (from 1). `Invalid` for what is no possible entry, or does
    /// not fit: inline content beyond 4 KiB, over-long attributes.
    pub fn seal(&self, id: EntryId, rev: u64, entry: &Entry, rng: &mut impl CryptoRng) -> Result<Row> {
        entry.check().map_err(|e| Error::invalid(e.message))?;
        let (plain, padded) = entry.to_plain();
        if rev == 0 || primitive::sealed_len(padded) > SEALED_ENTRY_MAX {
            return Err(Error::invalid("an entry is too large: its attributes do not fit"));
        }
        let mut sealed = Vec::new();
        primitive::seal_to(&mut sealed, &self.entry, &self.context(id, rev), &plain, padded, rng);
        let tag = self.tag(&entry.name);
        Ok(Row { space: self.space, folder: self.folder, entry: id, rev, epoch: self.epoch, tag, sealed: sealed.into() })
    }

    /// The row that ends an entry: signed like any other, with nothing sealed in it.
    pub fn removal(&self, id: EntryId, rev: u64, name: &Name) -> Row {
        let tag = self.tag(name);
        Row { space: self.space, folder: self.folder, entry: id, rev, epoch: self.epoch, tag, sealed: Vec::new().into() }
    }

    /// Opens a row of this folder, and recomputes its tag from the name inside. Does *not* check
    /// who wrote it: that is [`RowVerifier`]'s, from which other crates get their entries.
    pub(crate) fn open(&self, row: &Row) -> Result<Entry> {
        if row.space != self.space || row.folder != self.folder || row.epoch != self.epoch || row.rev == 0 {
            return Err(Error::corrupt("a row belongs to another folder or key epoch"));
        }
        if row.sealed.len() > SEALED_ENTRY_MAX {
            return Err(Error::corrupt("a sealed entry is too long"));
        }
        let mut plain = Zeroizing::new(Vec::new());
        primitive::open_to(&mut plain, &self.entry, &self.context(row.entry, row.rev), &row.sealed)?;
        let entry = Entry::from_plain(&plain)?;
        if !bool::from(self.tag(&entry.name).0.ct_eq(&row.tag.0)) {
            return Err(Error::corrupt("a row lies under the tag of another name"));
        }
        Ok(entry)
    }

    fn context(&self, entry: EntryId, rev: u64) -> Vec<u8> {
        cbor::to_vec(&("entry", self.space, self.folder, entry, rev, self.epoch))
    }
}
