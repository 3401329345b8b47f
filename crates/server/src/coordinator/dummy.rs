//! Rows of accounts that do not exist, for those who ask to recover one: the same each time, shaped
//! like those of an account that was registered and never used, and signed like them; so the answer
//! tells nobody which names are taken. Made from a secret of the cluster.

use ed25519_dalek::Signer;
use model::account::{Account, Identity, IdentityBody, LoginRecord, RecoveryRecord, StateRecord};
use model::{AccountId, PublicKey, Signature, SpaceId, cbor, signed};

/// Bytes of a sealed value over those inside: salt, commitment, one tag.
const SEALED: usize = 56 + 16;
/// A sealed root key.
const WRAP: usize = 32 + SEALED;
/// Sealed private keys: CBOR array of two 32-byte strings.
const SECRETS: usize = 1 + 2 * 34 + SEALED;
/// The sealed notes of a fresh account.
const NOTES: usize = 58 + SEALED;

/// The row of an account that does not exist.
pub(crate) fn account(secret: &[u8; 32], name: &str) -> Account {
    let mut stream = blake3::Hasher::new_keyed(secret).update(name.as_bytes()).finalize_xof();
    let mut take = |n: usize| {
        let mut bytes = vec![0; n];
        stream.fill(&mut bytes);
        bytes
    };
    let id = AccountId(array(&take(16)));
    let key = ed25519_dalek::SigningKey::from_bytes(&array(&take(32)));
    let recovery = ed25519_dalek::SigningKey::from_bytes(&array(&take(32)));
    let home = SpaceId(array(&take(16)));
    let kem = kem(&mut take);
    let public = |key: &ed25519_dalek::SigningKey| PublicKey(key.verifying_key().to_bytes());
    let body = cbor::to_vec(&IdentityBody { account: id, name: name.into(), signing: public(&key), kem: kem.into() });
    let signature = Signature(key.sign(&signed::signing_input("identity", &body)).to_bytes());
    Account {
        id,
        name: name.into(),
        identity: Identity { body: body.into(), signature },
        login: LoginRecord { opaque: Vec::new().into(), pw_wrap: take(WRAP).into(), n: 1 },
        recovery: RecoveryRecord { rec_wrap: take(WRAP).into(), rec_auth: public(&recovery), n: 1 },
        secrets: take(SECRETS).into(),
        state: StateRecord { seq: 1, sealed: take(NOTES).into() },
        home,
        admin: false,
        quota: None,
        disabled: false,
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

/// A public key of the form of X-Wing's: 768 coefficients of 12 bits below ML-KEM's modulus (FIPS
/// 203, `ByteEncode12`), its 32-byte seed, and an X25519 point.
fn kem(take: &mut impl FnMut(usize) -> Vec<u8>) -> Vec<u8> {
    const Q: u16 = 3329;
    let mut coefficients = Vec::with_capacity(768);
    while coefficients.len() < 768 {
        for pair in take(256).chunks_exact(2) {
            let c = u16::from_le_bytes([pair[0], pair[1]]) & 0xfff;
            if c < Q && coefficients.len() < 768 {
                coefficients.push(c);
            }
        }
    }
    let mut key = Vec::with_capacity(1216);
    for pair in coefficients.chunks_exact(2) {
        let (a, b) = (pair[0], pair[1]);
        key.extend_from_slice(&[a as u8, (a >> 8) as u8 | (b << 4) as u8, (b >> 4) as u8]);
    }
    key.extend_from_slice(&take(32));
    let mut point = take(32);
    if let Some(top) = point.last_mut() {
        *top &= 0x7f;
    }
    key.extend_from_slice(&point);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dummy_is_the_same_each_time_and_verifies() {
        let a = account(&[1; 32], "nobody");
        assert_eq!(a, account(&[1; 32], "nobody"));
        assert_ne!(a, account(&[2; 32], "nobody"));
        assert_eq!(a.identity.verify().unwrap().kem.len(), 1216);
    }
}
