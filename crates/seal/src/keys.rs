//! Secret keys as newtypes, and the one way in which a key makes other keys.
//!
//! A key is used either for [`derive()`] or for sealing, never for both; the type says which. Secrets
//! are wiped when dropped and have no `Debug`, `Clone`, `PartialEq` or serialisation: they leave
//! this crate sealed, or not at all (the one exception is [`crate::account::Unlocked::export_session`]).

use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Prk};
use ed25519_dalek::Signer;
use hpke::{Deserializable, Kem, Serializable, kem::XWing};
use model::{PublicKey, Signature, signed};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `N` fresh random bytes, for secrets, salts and ids.
///
/// # Panics
/// When all of them are equal: for 16 bytes and more that is a broken random source, and a repeated
/// salt or key would cost more than a crash.
pub fn fresh<const N: usize>(rng: &mut impl CryptoRng) -> [u8; N] {
    let mut bytes = [0u8; N];
    rng.fill_bytes(&mut bytes);
    assert!(bytes.iter().any(|b| Some(b) != bytes.first()), "the random source is broken: it returned {N} equal bytes");
    bytes
}

/// Output length of an expansion, as aws-lc-rs wants it.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-SHA512-Expand (RFC 5869 §2.3) with `key` as the PRK. `out` is at most 255 × 64 bytes; all
/// callers have fixed lengths far below.
pub(crate) fn expand(key: &[u8], info: &[&[u8]], out: &mut [u8]) {
    let prk = Prk::new_less_safe(HKDF_SHA512, key);
    prk.expand(info, Length(out.len())).and_then(|okm| okm.fill(out)).expect("an HKDF output of a fixed, short length");
}

/// `Derive(K, purpose, len) = HKDF-SHA512-Expand(K, "shardkeep/v1/derive" ‖ 00 ‖ purpose, len)`
/// with `len = out.len()`. `key` has 32 or 64 uniform bytes and is used for nothing else.
pub fn derive(key: &[u8], purpose: &[u8], out: &mut [u8]) {
    expand(key, &[b"shardkeep/v1/derive\0", purpose], out);
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes bytes that are uniformly random and known to nobody else.
            pub fn from_bytes(bytes: &[u8; $len]) -> Self {
                Self(*bytes)
            }
            /// The secret itself, for this crate only.
            #[allow(dead_code)]
            pub(crate) fn bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// From a slice of exactly the right length.
            #[allow(dead_code)]
            pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }
    };
}

macro_rules! fresh_secret {
    ($($name:ident),*) => {$(
        impl $name {
            /// A fresh random key.
            pub fn generate(rng: &mut impl CryptoRng) -> Self {
                Self(fresh(rng))
            }
        }
    )*};
}

macro_rules! derives {
    ($($name:ident),*) => {$(
        impl $name {
            /// A key for sealing, of this key and a purpose.
            pub(crate) fn sealing(&self, purpose: &str) -> SealKey {
                let mut key = SealKey([0; 32]);
                derive(&self.0, purpose.as_bytes(), &mut key.0);
                key
            }
        }
    )*};
}

secret!(
    /// Seals ([`crate::primitive`]); never derives.
    SealKey, 32
);
secret!(
    /// RK: an account's root key. Random, never made from the password; derives only.
    RootKey, 32
);
secret!(
    /// What OPAQUE gives the client and no server (RFC 9807 `export_key`); derives only.
    ExportKey, 64
);
secret!(
    /// W: the entropy of 24 recovery words; derives only.
    RecoveryKey, 32
);
secret!(
    /// SK: the key of a space in one key epoch; derives only.
    SpaceKey, 32
);
secret!(
    /// DK: the key of a folder; derives only.
    FolderKey, 32
);
secret!(
    /// MK: seals one manifest.
    ManifestKey, 32
);
secret!(
    /// FK: seals the chunks of one object.
    ContentKey, 32
);
secret!(
    /// Keys the name tags of one folder (HMAC-SHA256).
    TagKey, 32
);
secret!(
    /// An X-Wing decapsulation key (32-byte seed).
    KemKey, 32
);

fresh_secret!(SealKey, RootKey, RecoveryKey, SpaceKey, FolderKey, ManifestKey, ContentKey, KemKey);
impl ContentKey {
    /// The same key again, for another task of the same upload or download.
    pub fn share(&self) -> Self {
        Self(self.0)
    }
}

derives!(RootKey, ExportKey, RecoveryKey, SpaceKey, FolderKey);

impl FolderKey {
    pub(crate) fn tag_key(&self) -> TagKey {
        let mut key = TagKey([0; 32]);
        derive(&self.0, b"name-tag", &mut key.0);
        key
    }
}

impl SpaceKey {
    /// The root folder's id in this key's epoch: `Derive(SK, "root-id", 16)`. That it is derived
    /// lets a member tell the root's epoch, and a server not choose the root.
    pub(crate) fn root_id(&self) -> model::FolderId {
        let mut id = [0u8; 16];
        derive(&self.0, b"root-id", &mut id);
        model::FolderId(id)
    }

    /// The root folder's key: `Derive(SK, "root" ‖ 00 ‖ context)`, where context is the CBOR
    /// array `["root", space, folder, epoch]`.
    pub(crate) fn root_key(&self, context: &[u8]) -> FolderKey {
        let mut key = FolderKey([0; 32]);
        derive(&self.0, &[b"root\0", context].concat(), &mut key.0);
        key
    }
}

macro_rules! seals {
    ($($name:ident),*) => {$(
        impl $name {
            pub(crate) fn as_seal(&self) -> SealKey {
                SealKey(self.0)
            }
        }
    )*};
}
seals!(ManifestKey, ContentKey);

impl KemKey {
    /// The decapsulation key in the form in which `hpke` wants it; wiped when dropped.
    pub(crate) fn private(&self) -> <XWing as Kem>::PrivateKey {
        <XWing as Kem>::PrivateKey::from_bytes(&self.0).expect("an X-Wing private key is any 32 bytes")
    }

    /// The public key, 1,216 bytes: ML-KEM-768 ‖ X25519.
    pub fn public(&self) -> Vec<u8> {
        XWing::sk_to_pk(&self.private()).to_bytes().to_vec()
    }
}

/// An Ed25519 signing key: of an account, of recovery words, or of a capability's holder.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A fresh random key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let seed = Zeroizing::new(fresh::<32>(rng));
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed (RFC 8032 private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `body` as `kind`: Ed25519 over `"shardkeep/v1/sig" ‖ 00 ‖ kind ‖ 00 ‖ body`.
    pub fn sign(&self, kind: &str, body: &[u8]) -> Signature {
        Signature(self.0.sign(&signed::signing_input(kind, body)).to_bytes())
    }
}
