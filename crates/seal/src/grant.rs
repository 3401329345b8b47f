//! The key of a space, handed to one member: sealed to its identity ([`crate::hybrid`]).
//!
//! The grant is signed, and everything that gives it its meaning is in the associated data: space,
//! epoch, member set, sender, recipient.

use crate::hybrid;
pub use crate::hybrid::ENCAPSULATED;
use crate::keys::{KemKey, SpaceKey};
use model::account::GrantBody;
use model::{Error, Result, cbor};
use rand_core::CryptoRng;

const INFO: &[u8] = b"shardkeep/v1/grant";
/// Bytes of a sealed space key.
pub const SEALED_KEY: usize = 48;

/// `[space, epoch, H(MemberSet), sender fp, recipient account, H(recipient bundle)]`.
fn associated(body: &GrantBody) -> Vec<u8> {
    cbor::to_vec(&(body.space, body.epoch, body.members, body.sender, body.recipient, body.recipient_fingerprint))
}

/// Fills `enc` and `sealed` of a grant whose other fields are set. `recipient` is the KEM key of the
/// identity with `body.recipient_fingerprint`.
pub(crate) fn seal(body: &mut GrantBody, key: &SpaceKey, recipient: &[u8], rng: &mut impl CryptoRng) -> Result<()> {
    let (enc, sealed) = hybrid::seal(INFO, recipient, key.bytes(), &associated(body), rng)?;
    body.enc = enc.into();
    body.sealed = sealed.into();
    Ok(())
}

/// Opens the space key in a grant whose signature was checked.
pub(crate) fn open(body: &GrantBody, own: &KemKey) -> Result<SpaceKey> {
    let bad = || Error::corrupt("a grant does not open: it is damaged or meant for somebody else");
    if body.sealed.len() != SEALED_KEY {
        return Err(bad());
    }
    let plain = hybrid::open(INFO, own, &body.enc, &body.sealed, &associated(body)).ok_or_else(bad)?;
    SpaceKey::from_slice(&plain).ok_or_else(bad)
}
