//! All client-side cryptography: keys, sealing and opening, names, signed trees.
//!
//! The only crate that holds plaintext keys; servers never reach it. Pure: no I/O, no time, and
//! randomness comes in as `rng: &mut impl CryptoRng`. Every check that fails is an error and
//! delivers no bytes: [`model::Kind::Corrupt`] for what does not verify, [`model::Kind::Denied`]
//! for a wrong password or a missing right. `docs/format.md` draws every layout.
//! Read the modules in the order below.

pub mod keys;
pub mod primitive;

pub mod pad;

pub mod identity;
pub mod login;
pub mod password;

pub mod account;
pub mod backup;
pub mod recovery;

pub mod grant;
pub mod hybrid;
pub mod members;
pub mod sharing;
pub mod space;

pub mod content;
pub mod gateway_key;
pub mod link;
pub mod message;
pub mod tree;
