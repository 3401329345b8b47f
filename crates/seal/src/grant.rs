//! The key of a space, handed to one member: HPKE (RFC 9180) in base mode with the hybrid KEM
//! X-Wing (0x647a), HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! HPKE's base mode authenticates no sender, so the grant is signed, and everything that gives it
//! its meaning is in the associated data: space, epoch, member set, sender, recipient.

use crate::identity::{kem_public, low_order};
use crate::keys::{KemKey, SpaceKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, kem::XWing};
use model::account::GrantBody;
use model::{Error, Result, cbor};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const INFO: &[u8] = b"shardkeep/v1/grant";
/// Bytes of the encapsulated key (ML-KEM-768 ciphertext 1,088 ‖ X25519 point 32).
pub const ENCAPSULATED: usize = 1120;
/// Bytes of a sealed space key.
pub const SEALED_KEY: usize = 48;

/// `[space, epoch, H(MemberSet), sender fp, recipient account, H(recipient bundle)]`.
fn associated(body: &GrantBody) -> Vec<u8> {
    cbor::to_vec(&(body.space, body.epoch, body.members, body.sender, body.recipient, body.recipient_fingerprint))
}

/// Fills `enc` and `sealed` of a grant whose other fields are set. `recipient` is the KEM key of the
/// identity with `body.recipient_fingerprint`.
pub(crate) fn seal(body: &mut GrantBody, key: &SpaceKey, recipient: &[u8], rng: &mut impl CryptoRng) -> Result<()> {
    let recipient = kem_public(recipient)?;
    let (enc, sealed) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeS::Base,
        &recipient,
        INFO,
        key.bytes(),
        &associated(body),
        rng,
    )
    .map_err(|_| Error::corrupt("the space key could not be sealed to this identity"))?;
    body.enc = enc.to_bytes().to_vec().into();
    body.sealed = sealed.into();
    Ok(())
}

/// Opens the space key in a grant whose signature was checked.
pub(crate) fn open(body: &GrantBody, own: &KemKey) -> Result<SpaceKey> {
    let bad = || Error::corrupt("a grant does not open: it is damaged or meant for somebody else");
    let (_, point) = body.enc.split_last_chunk::<32>().ok_or_else(bad)?;
    if body.enc.len() != ENCAPSULATED || body.sealed.len() != SEALED_KEY || low_order(point) {
        return Err(bad());
    }
    let enc = <XWing as Kem>::EncappedKey::from_bytes(&body.enc).map_err(|_| bad())?;
    let plain = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
        &OpModeR::Base,
        &own.private(),
        &enc,
        INFO,
        &body.sealed,
        &associated(body),
    )
    .map_err(|_| bad())?;
    SpaceKey::from_slice(&Zeroizing::new(plain)).ok_or_else(bad)
}
