//! Public identities: a signing key and a KEM key in one signed bundle, and how people compare them.

use crate::keys::{KemKey, SigningKey};
use hpke::{Deserializable, Kem, kem::XWing};
use model::account::{Identity, IdentityBody, canonical_name};
use model::{AccountId, Error, Hash, Result, cbor};

/// Bytes of an X-Wing public key (ML-KEM-768 1,184 ‖ X25519 32).
pub const KEM_PUBLIC: usize = 1216;

/// Makes and signs the bundle of an account. `name` must be canonical.
pub fn create(account: AccountId, name: &str, signing: &SigningKey, kem: &KemKey) -> Identity {
    let body = IdentityBody { account, name: name.into(), signing: signing.public(), kem: kem.public().into() };
    let body = cbor::to_vec(&body);
    let signature = signing.sign("identity", &body);
    Identity { body: body.into(), signature }
}

/// Checks a bundle wholly: canonical form, signature by the key inside, canonical name, and a KEM
/// key that is one. `Corrupt` otherwise.
pub fn verify(identity: &Identity) -> Result<IdentityBody> {
    let body = identity.verify().map_err(|_| Error::corrupt("an identity does not verify"))?;
    if canonical_name(&body.name).as_deref() != Ok(body.name.as_str()) {
        return Err(Error::corrupt("an identity names no canonical account name"));
    }
    kem_public(&body.kem)?;
    Ok(body)
}

/// Parses a KEM public key, refusing wrong lengths, ML-KEM values out of range (FIPS 203 §7.2) and
/// X25519 points of low order.
pub(crate) fn kem_public(bytes: &[u8]) -> Result<<XWing as Kem>::PublicKey> {
    let bad = || Error::corrupt("an identity holds no valid KEM key");
    let (_, point) = bytes.split_last_chunk::<32>().ok_or_else(bad)?;
    if bytes.len() != KEM_PUBLIC || low_order(point) {
        return Err(bad());
    }
    <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| bad())
}

/// Whether an X25519 u-coordinate has low order (RFC 7748 §6.1; every encoding below 2^255, the top
/// bit being ignored).
pub(crate) fn low_order(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c,
            0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58,
            0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
    ];
    let mut p = *point;
    p[31] &= 0x7f;
    let middle_is = |b: u8| p[1..31].iter().all(|x| *x == b);
    // 0 and 1; then p − 1, p and p + 1 for p = 2^255 − 19, whose lowest bytes are ec, ed and ee.
    (p[0] <= 1 && middle_is(0) && p[31] == 0) || ((0xec..=0xee).contains(&p[0]) && middle_is(0xff) && p[31] == 0x7f) || ORDER_8.contains(&p)
}

/// What two people read to each other to know that they have each other's keys: twelve groups of
/// five digits, the same for both. Per party six 8-byte big-endian integers of
/// BLAKE3-XOF("shardkeep/v1/safety" ‖ account ‖ fingerprint), each mod 10^5; parties by fingerprint.
pub fn safety_number(a: (AccountId, Hash), b: (AccountId, Hash)) -> String {
    let mut parties = [a, b];
    parties.sort_by_key(|(account, fingerprint)| (*fingerprint, *account));
    let mut groups = Vec::with_capacity(12);
    for (account, fingerprint) in parties {
        let mut digits = [0u8; 48];
        blake3::Hasher::new().update(b"shardkeep/v1/safety").update(&account.0).update(&fingerprint.0).finalize_xof().fill(&mut digits);
        for group in digits.as_chunks::<8>().0 {
            groups.push(format!("{:05}", u64::from_be_bytes(*group) % 100_000));
        }
    }
    groups.join(" ")
}
