//! The recovery key of a coordinator, and what it encrypts: snapshots of the catalog that are left on
//! nodes. It lies in the coordinator's folder; whoever has a copy of it can make a fresh coordinator from
//! such a snapshot, and nobody else can read one.
//!
//! ```text
//! text     = "SKR1-" ‖ hex(key 32 ‖ fingerprint of the cluster root 32)
//! snapshot = "SKSNAP1\0" 8 ‖ salt 32 ‖ piece…
//! piece    = length 4 (big-endian) ‖ AES-256-GCM(K, nonce, AAD = the 40 bytes before) ‖ tag 16
//! nonce    = number of the piece 8 (big-endian) ‖ 00 00 00 ‖ 01 for the last one, else 00
//! K        = HKDF-SHA256(salt, key, "shardkeep/v1/catalog-snapshot")
//! owner    = Ed25519 key of the seed HKDF-SHA256(no salt, key, "shardkeep/v1/snapshot-owner")
//! piece 0  : CBOR [version: 1, cluster, catalog time];   piece i: CBOR [[key, value]…]
//! ```
//! A salt is drawn for each snapshot, so no key and nonce ever seal twice. Not `seal`'s primitive:
//! servers cannot name that crate.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use env::{DiskExt, Env};
use model::{Error, Hash, Result};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"SKSNAP1\0";
const PREFIX: &str = "SKR1-";
/// Bytes before the first piece.
pub(crate) const HEAD: usize = 40;
/// Longest sealed piece.
pub(crate) const PIECE_MAX: usize = 32 << 20;

/// Where the key lies in a coordinator's folder.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("recovery-key")
}

/// The recovery key. Secret.
pub(crate) struct RecoveryKey {
    key: [u8; 32],
    /// Fingerprint of the cluster root.
    pub root: Hash,
}

fn failed(what: &str) -> Error {
    Error::corrupt(format!("a snapshot of the catalog cannot be {what}"))
}

fn expand(salt: &[u8], key: &[u8; 32], info: &[u8]) -> Result<[u8; 32]> {
    let mut out = [0; 32];
    let prk = Salt::new(HKDF_SHA256, salt).extract(key);
    prk.expand(&[info], HKDF_SHA256).and_then(|okm| okm.fill(&mut out)).map_err(|_| failed("keyed"))?;
    Ok(out)
}

impl RecoveryKey {
    /// The key in a coordinator's folder; drawn where there is none yet.
    pub async fn of_folder(env: &Env, dir: &Path, root: Hash) -> Result<Self> {
        let path = file(dir);
        let is_there = env.disk.try_exists(&path).map_err(|e| Error::unavailable(format!("{}: {e}", path.display())))?;
        if is_there {
            let key = Self::read(env, &path).await?;
            return if key.root == root { Ok(key) } else { Err(Error::invalid(format!("{} is of another cluster", path.display()))) };
        }
        let fresh = RecoveryKey { key: env.random(), root };
        let (disk, text, to) = (env.disk.clone(), fresh.text(), path.clone());
        let written = env.blocking(move || disk.replace(&to, text.as_bytes())).await;
        written.map_err(|e| Error::unavailable(format!("cannot write {}: {e}", path.display())))?;
        Ok(fresh)
    }

    /// From a copy of the file.
    pub async fn read(env: &Env, path: &Path) -> Result<Self> {
        let (disk, from) = (env.disk.clone(), path.to_path_buf());
        let bytes = env.blocking(move || disk.read(&from)).await;
        let bytes = bytes.map_err(|e| Error::not_found(format!("{}: {e}", path.display())))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        Self::parse(text.trim()).ok_or_else(|| Error::invalid(format!("{} holds no recovery key", path.display())))
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(PREFIX).filter(|hex| hex.len() == 128 && hex.is_ascii())?;
        let (key, root) = hex.split_at_checked(64)?;
        Some(RecoveryKey { key: key.parse::<Hash>().ok()?.0, root: root.parse().ok()? })
    }

    fn text(&self) -> String {
        let hex: String = self.key.iter().chain(&self.root.0).map(|b| format!("{b:02x}")).collect();
        format!("{PREFIX}{hex}\n")
    }

    /// The key by which nodes know whose snapshots they are.
    pub fn owner(&self) -> Result<ed25519_dalek::SigningKey> {
        Ok(ed25519_dalek::SigningKey::from_bytes(&expand(&[], &self.key, b"shardkeep/v1/snapshot-owner")?))
    }

    /// Begins a snapshot.
    pub fn seal(&self, env: &Env) -> Result<Pieces> {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..].copy_from_slice(&env.random::<32>());
        self.open(&head)
    }

    /// Goes on from the first bytes of a snapshot.
    pub fn open(&self, head: &[u8]) -> Result<Pieces> {
        let head: [u8; HEAD] = head.try_into().map_err(|_| failed("read: it is too short"))?;
        if !head.starts_with(MAGIC) {
            return Err(Error::invalid("this is no snapshot of a catalog, or one of a version that this software does not know"));
        }
        let key = expand(&head[8..], &self.key, b"shardkeep/v1/catalog-snapshot")?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| failed("keyed"))?;
        Ok(Pieces { key: LessSafeKey::new(key), head, next: 0, ended: false })
    }
}

/// The pieces of one snapshot, in order.
pub(crate) struct Pieces {
    key: LessSafeKey,
    /// The first bytes of the snapshot.
    pub head: [u8; HEAD],
    next: u64,
    ended: bool,
}

impl Pieces {
    fn nonce(&mut self, last: bool) -> Result<Nonce> {
        if self.ended {
            return Err(failed("longer than its last piece"));
        }
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        nonce[11] = u8::from(last);
        self.next += 1;
        self.ended = last;
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// The next piece with its length before it.
    pub fn seal(&mut self, mut plaintext: Vec<u8>, last: bool) -> Result<Vec<u8>> {
        let nonce = self.nonce(last)?;
        self.key.seal_in_place_append_tag(nonce, Aad::from(self.head), &mut plaintext).map_err(|_| failed("encrypted"))?;
        Ok([&(plaintext.len() as u32).to_be_bytes()[..], &plaintext].concat())
    }

    /// Opens the next piece. `Corrupt` unless it is that piece of this snapshot.
    pub fn open(&mut self, mut sealed: Vec<u8>, last: bool) -> Result<Vec<u8>> {
        let nonce = self.nonce(last)?;
        let len = self.key.open_in_place(nonce, Aad::from(self.head), &mut sealed).map_err(|_| failed("opened: it is damaged"))?.len();
        sealed.truncate(len);
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> RecoveryKey {
        RecoveryKey { key: [byte; 32], root: Hash([9; 32]) }
    }

    #[test]
    fn a_key_reads_back_from_its_text_and_from_nothing_else() {
        let text = key(7).text();
        let again = RecoveryKey::parse(text.trim()).unwrap();
        assert_eq!((again.key, again.root), ([7; 32], Hash([9; 32])));
        for bad in ["", "SKR1-", &text[5..], &text[..100], &text.replace("07", "0x")] {
            assert!(RecoveryKey::parse(bad.trim()).is_none(), "{bad}");
        }
    }

    #[test]
    fn pieces_open_in_their_order_up_to_their_end_with_their_key_only() {
        let env = env::real::env();
        let mut sealing = key(7).seal(&env).unwrap();
        let head = sealing.head;
        let pieces: Vec<Vec<u8>> = [(b"one", false), (b"two", false), (b"end", true)]
            .into_iter()
            .map(|(text, last)| sealing.seal(text.to_vec(), last).unwrap()[4..].to_vec())
            .collect();
        assert!(sealing.seal(b"more".to_vec(), false).is_err());
        let read = |key: RecoveryKey, of: &[usize]| -> Result<Vec<Vec<u8>>> {
            let mut opening = key.open(&head)?;
            of.iter().enumerate().map(|(i, at)| opening.open(pieces[*at].clone(), i + 1 == of.len())).collect()
        };
        assert_eq!(read(key(7), &[0, 1, 2]).unwrap(), [b"one", b"two", b"end"]);
        for bad in [&[0, 1][..], &[1, 2], &[0, 2], &[1, 0, 2], &[0, 0, 2], &[0, 1, 2, 2]] {
            assert!(read(key(7), bad).is_err(), "{bad:?}");
        }
        assert!(read(key(8), &[0, 1, 2]).is_err());
        assert!(key(7).open(b"SKSNAP2\0").is_err());
    }
}
