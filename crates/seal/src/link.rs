//! Links: one secret that opens one file or folder for people without an account.
//!
//! ```text
//! key 32 ‖ auth 32 = Derive(HKDF-SHA512-Extract(salt = id, secret ‖ stretched), "link", 64)
//! stretched        = Argon2id(password in NFC, salt = id, 64 MiB, t = 3, p = 1, 32 bytes); nothing without a password
//! record           = Seal(key, ["link", id], CBOR [space, seen seq, H(seen member set), entry] ‖ zeros to 128s)
//! ```
//! `auth` is shown to a coordinator, which keeps its BLAKE3; `key` is shown to nobody. The entry is what a
//! folder's row would hold: the name, and the file's keys, its content, or the folder's key.

use crate::account::Seen;
use crate::keys::{SealKey, derive, fresh};
use crate::login::{ARGON2_KIB, ARGON2_PASSES};
use crate::pad::{ENTRY_STEP, check_zeros};
use crate::password::Password;
use crate::primitive;
use crate::tree::{Content, Entry, FolderKeys};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode};
use model::link::SEALED_MAX;
use model::{Error, Hash, LinkId, Result, SpaceId, cbor};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The secret of a link: it stands behind the `#` of its text, and is sent to nobody.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// A fresh one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Secret(Zeroizing::new(fresh(rng)))
    }

    /// From a link's text.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Secret(Zeroizing::new(*bytes))
    }

    /// For the link's text, and nothing else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a secret, and perhaps a password, make of a link's id.
pub struct LinkKeys {
    id: LinkId,
    key: SealKey,
    auth: Zeroizing<[u8; 32]>,
}

impl LinkKeys {
    /// Derives them. With a password it takes about 0.1 s and 64 MiB.
    pub fn derive(id: LinkId, secret: &Secret, password: Option<&Password>) -> Result<Self> {
        let mut input = Zeroizing::new(Vec::with_capacity(64));
        input.extend_from_slice(secret.expose());
        if let Some(password) = password {
            let failed = |_| Error::insufficient("there is not enough memory to stretch the password: 64 MiB are needed");
            let params = Params::new(ARGON2_KIB, ARGON2_PASSES, 1, Some(32)).map_err(failed)?;
            let mut stretched = Zeroizing::new([0; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(password.bytes(), &id.0, &mut *stretched)
                .map_err(failed)?;
            input.extend_from_slice(&*stretched);
        }
        // RFC 5869 §2.2: extraction is one HMAC, keyed with the salt.
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &id.0), &input);
        let mut both = Zeroizing::new([0; 64]);
        derive(prk.as_ref(), b"link", &mut *both);
        let (mut key, mut auth) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        key.copy_from_slice(&both[..32]);
        auth.copy_from_slice(&both[32..]);
        Ok(LinkKeys { id, key: SealKey::from_bytes(&key), auth })
    }

    /// What a holder shows to a coordinator.
    pub fn auth(&self) -> &[u8; 32] {
        &self.auth
    }

    /// What servers keep of it.
    pub fn auth_hash(&self) -> Hash {
        Hash::of(&*self.auth)
    }

    /// Seals what the link leads to. A link is sealed once, when it is made.
    pub fn seal(&self, space: SpaceId, seen: &Seen, entry: &Entry, rng: &mut impl CryptoRng) -> Result<Vec<u8>> {
        entry.check().map_err(|e| Error::invalid(e.message))?;
        let (inner, padded) = entry.to_plain();
        let mut padded_entry = inner.to_vec();
        padded_entry.resize(padded, 0);
        let record = Record { space, seq: seen.seq, members: seen.hash, entry: padded_entry.into() };
        let mut plain = Zeroizing::new(Vec::with_capacity(SEALED_MAX));
        minicbor::encode(&record, &mut *plain).expect("encoding into memory");
        let padded = plain.len().next_multiple_of(ENTRY_STEP);
        plain.resize(padded, 0);
        let sealed = primitive::seal(&self.key, &context(self.id), &plain, rng);
        if sealed.len() > SEALED_MAX {
            return Err(Error::invalid("this entry is too large for a link: its attributes do not fit"));
        }
        Ok(sealed)
    }

    /// Opens what a link leads to. `Corrupt` when the servers show another record than the one that was sealed.
    pub fn open(&self, sealed: &[u8]) -> Result<LinkRecord> {
        let bad = || Error::corrupt("the record of this link is damaged, or another link's");
        if sealed.len() > SEALED_MAX {
            return Err(bad());
        }
        let plain = primitive::open(&self.key, &context(self.id), sealed)?;
        let mut d = Decoder::new(&plain);
        let record: Record = d.decode().map_err(|_| bad())?;
        let (encoded, padding) = plain.split_at_checked(d.position()).ok_or_else(bad)?;
        if cbor::to_vec(&record) != encoded || encoded.len().next_multiple_of(ENTRY_STEP) != plain.len() {
            return Err(bad());
        }
        check_zeros(padding)?;
        let entry = Entry::from_plain(&record.entry)?;
        let seen = Seen { space: record.space, seq: record.seq, hash: record.members, head: None };
        Ok(LinkRecord { seen, entry })
    }
}

/// What a link leads to.
pub struct LinkRecord {
    /// The space, and the newest member set that the link's maker knew: whoever signed what is read must be
    /// a member by that history.
    pub seen: Seen,
    /// The entry.
    pub entry: Entry,
}

impl LinkRecord {
    /// The folder's keys; `None` for a file.
    pub fn folder(&self) -> Option<FolderKeys> {
        match &self.entry.content {
            Content::Folder { id, key, epoch } => Some(FolderKeys::new(self.seen.space, *id, *epoch, key)),
            _ => None,
        }
    }
}

#[derive(Encode, Decode)]
struct Record {
    #[n(0)]
    space: SpaceId,
    #[n(1)]
    seq: u64,
    #[n(2)]
    members: Hash,
    #[n(3)]
    entry: ByteVec,
}

impl Drop for Record {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(self.entry.as_mut_slice());
    }
}

fn context(id: LinkId) -> Vec<u8> {
    cbor::to_vec(&("link", id))
}
