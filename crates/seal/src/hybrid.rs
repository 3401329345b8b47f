//! Sealing to somebody's identity: HPKE (RFC 9180) in base mode with the hybrid KEM X-Wing (0x647a),
//! HKDF-SHA256 and ChaCha20-Poly1305.
//!
//! Base mode authenticates no sender, so whatever is sealed here is signed too, and everything that gives
//! it its meaning is in the associated data.

use crate::identity::{kem_public, low_order};
use crate::keys::KemKey;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, kem::XWing};
use model::Result;
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Bytes of the encapsulated key (ML-KEM-768 ciphertext 1,088 ‖ X25519 point 32).
pub const ENCAPSULATED: usize = 1120;
/// Bytes by which a ciphertext is longer than its plaintext.
pub const TAG: usize = 16;

/// Seals to a KEM public key: `(enc, ciphertext)`. `Corrupt` for a key that is none.
pub(crate) fn seal(info: &[u8], recipient: &[u8], plain: &[u8], associated: &[u8], rng: &mut impl CryptoRng) -> Result<(Vec<u8>, Vec<u8>)> {
    let recipient = kem_public(recipient)?;
    let (enc, sealed) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeS::Base, &recipient, info, plain, associated, rng)
            .map_err(|_| model::Error::corrupt("nothing can be sealed to this identity"))?;
    Ok((enc.to_bytes().to_vec(), sealed))
}

/// Opens what was sealed to `own`; `None` for anything damaged or meant for somebody else.
pub(crate) fn open(info: &[u8], own: &KemKey, enc: &[u8], sealed: &[u8], associated: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (_, point) = enc.split_last_chunk::<32>()?;
    if enc.len() != ENCAPSULATED || low_order(point) {
        return None;
    }
    let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).ok()?;
    let plain =
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(&OpModeR::Base, &own.private(), &enc, info, sealed, associated);
    plain.ok().map(Zeroizing::new)
}
