//! What is signed, byte by byte, and the one check that every verifier uses.

use crate::{Error, Hash, PublicKey, Result, Signature};

/// The bytes under an Ed25519 signature: `"shardkeep/v1/sig" ‖ 00 ‖ type ‖ 00 ‖ body`.
pub fn signing_input(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(18 + kind.len() + body.len());
    input.extend_from_slice(b"shardkeep/v1/sig\0");
    input.extend_from_slice(kind.as_bytes());
    input.push(0);
    input.extend_from_slice(body);
    input
}

/// Checks a signature over `body` *as received* with `verify_strict` (RFC 8032, without the
/// malleable and small-order cases). `Denied` for anything but a good signature.
pub fn verify(key: &PublicKey, kind: &str, body: &[u8], signature: &Signature) -> Result<()> {
    let denied = || Error::denied(format!("the signature of this {kind} is not valid"));
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.0).map_err(|_| denied())?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(&signing_input(kind, body), &signature).map_err(|_| denied())
}

/// BLAKE3 of the concatenation of parts; callers give parts whose lengths are fixed or framed.
pub fn hash_parts(parts: &[&[u8]]) -> Hash {
    let mut h = blake3::Hasher::new();
    for part in parts {
        h.update(part);
    }
    Hash(*h.finalize().as_bytes())
}
