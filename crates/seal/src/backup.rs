//! A backup of the catalog: encrypted with a passphrase, piece by piece, by whoever asked for it.
//!
//! ```text
//! file  = "SKBKUP1\0" 8 ‖ salt 16 ‖ piece…
//! piece = length 4 (big-endian) ‖ Seal(K, ["backup", salt, number, last: bool], plaintext)
//! K     = Argon2id(passphrase in NFC, salt, 64 MiB, t = 3, p = 1, 32 bytes)
//! ```
//! Number and end are bound into each piece, so pieces can be neither left out, repeated, reordered,
//! nor taken from another file; and a file that was cut off has no last piece.

use crate::keys::{SealKey, fresh};
use crate::login::{ARGON2_KIB, ARGON2_PASSES};
use crate::password::Password;
use crate::primitive;
use argon2::{Algorithm, Argon2, Params, Version};
use model::{Error, Result, cbor};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// First bytes of the file: what it is, and its version.
pub const MAGIC: &[u8; 8] = b"SKBKUP1\0";
/// Bytes before the first piece.
pub const HEAD: usize = 24;
/// Longest plaintext of a piece, in bytes.
pub const PIECE_MAX: usize = 16 << 20;
/// Longest sealed piece, in bytes.
pub const SEALED_MAX: usize = primitive::sealed_len(PIECE_MAX);

/// The key of one backup, and which piece comes next.
pub struct BackupKey {
    key: SealKey,
    salt: [u8; 16],
    next: u64,
    ended: bool,
}

impl BackupKey {
    /// For a new backup: draws a salt, and stretches the passphrase (64 MiB, a few hundred milliseconds).
    pub fn create(passphrase: &Password, rng: &mut impl CryptoRng) -> Result<Self> {
        Self::stretch(passphrase, fresh(rng))
    }

    /// For a file that begins so. `Invalid` when it is no backup, or one of another version.
    pub fn from_head(passphrase: &Password, head: &[u8]) -> Result<Self> {
        let no_backup = || Error::invalid("this is no backup of a catalog");
        let (magic, salt) = head.split_at_checked(MAGIC.len()).ok_or_else(no_backup)?;
        if magic != MAGIC {
            let ours = magic.starts_with(b"SKBKUP");
            return Err(if ours { Error::invalid("this backup is of a version that this software does not know") } else { no_backup() });
        }
        Self::stretch(passphrase, salt.try_into().map_err(|_| no_backup())?)
    }

    fn stretch(passphrase: &Password, salt: [u8; 16]) -> Result<Self> {
        let failed = |_| Error::insufficient("there is not enough memory to stretch the passphrase: 64 MiB are needed");
        let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.bytes(), &salt, &mut *key)
            .map_err(failed)?;
        Ok(BackupKey { key: SealKey::from_bytes(&key), salt, next: 0, ended: false })
    }

    /// The first bytes of the file.
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..].copy_from_slice(&self.salt);
        head
    }

    fn context(&mut self, last: bool) -> Result<Vec<u8>> {
        if self.ended {
            return Err(Error::invalid("a backup ends with its last piece"));
        }
        let context = cbor::to_vec(&("backup", minicbor::bytes::ByteArray::from(self.salt), self.next, last));
        self.next += 1;
        self.ended = last;
        Ok(context)
    }

    /// The next piece with its length before it. `Invalid` for one that is too long.
    pub fn seal(&mut self, plaintext: &[u8], last: bool, rng: &mut impl CryptoRng) -> Result<Vec<u8>> {
        if plaintext.len() > PIECE_MAX {
            return Err(Error::invalid("a piece of a backup is too long"));
        }
        let context = self.context(last)?;
        let mut piece = Vec::with_capacity(4 + primitive::sealed_len(plaintext.len()));
        piece.extend_from_slice(&(primitive::sealed_len(plaintext.len()) as u32).to_be_bytes());
        primitive::seal_to(&mut piece, &self.key, &context, plaintext, plaintext.len(), rng);
        Ok(piece)
    }

    /// Opens the next piece. `last`: the file ends with it. `Corrupt` when it is not that piece of this
    /// backup; `Denied` when already the first one does not open: that is the passphrase mostly.
    pub fn open(&mut self, sealed: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>> {
        let first = self.next == 0;
        let context = self.context(last)?;
        primitive::open(&self.key, &context, sealed).map_err(|_| {
            if first {
                return Error::denied("the passphrase is not that of this backup, or its beginning is damaged");
            }
            let end = if last { ", or its end is missing" } else { "" };
            Error::corrupt(format!("piece {} of the backup is damaged{end}: nothing of it can be used", self.next))
        })
    }
}
