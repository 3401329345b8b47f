//! Deterministic CBOR: everything sealed, signed, hashed or sent is encoded by this one pair.

use crate::{Error, Result};
use minicbor::{Decode, Encode};

/// Encodes a value. Struct fields become fixed-length arrays; definite lengths only.
pub fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Writing into a Vec cannot fail, and our Encode impls raise no errors of their own.
    minicbor::to_vec(value).expect("encoding into memory")
}

/// Decodes a value and refuses trailing bytes. For messages of our own peers, where later
/// versions may add fields.
pub fn from_slice<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T> {
    let mut d = minicbor::Decoder::new(bytes);
    let value = d.decode().map_err(|e| Error::corrupt(format!("undecodable record: {e}")))?;
    if d.position() != bytes.len() {
        return Err(Error::corrupt("undecodable record: bytes follow its end"));
    }
    Ok(value)
}

/// Decodes a value and refuses every encoding but the canonical one (RFC 8949 §4.2), unknown
/// fields included: what is decoded must encode to the same bytes. For everything sealed or signed.
pub fn from_canonical<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Result<T> {
    let value: T = from_slice(bytes)?;
    if to_vec(&value) != bytes {
        return Err(Error::corrupt("undecodable record: not in canonical form"));
    }
    Ok(value)
}
