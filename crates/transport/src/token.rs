//! What an administrator hands on by copy and paste: join tokens for servers and invites for
//! people, both with the root's fingerprint, so that the first connection is as safe as any other.
//!
//! ```text
//! text = "sk-join-" | "sk-invite-", then base32 (RFC 4648, small letters, no padding) of
//!        first 4 bytes of BLAKE3(cbor) ‖ cbor
//! ```
//! The four bytes find typing errors; they are no protection against anything else.

use minicbor::{Decode, Encode};
use model::cluster::ServerRole;
use model::{Error, Hash, InviteId, Result, TokenId, cbor};

/// Right to join as a server, once. Secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct JoinToken {
    /// BLAKE3 of the cluster's root certificate.
    #[n(0)]
    pub root: Hash,
    /// Which token.
    #[n(1)]
    pub id: TokenId,
    /// What it makes of its holder.
    #[n(2)]
    pub role: ServerRole,
    /// One-time secret, the key of [`join_proof`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// Catalog time after which it is refused, milliseconds since 1970.
    #[n(4)]
    pub expires_ms: u64,
    /// Where to go, `host:port`, any of them.
    #[n(5)]
    pub coordinators: Vec<String>,
}

/// Right to register an account, once. Secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct InviteText {
    /// BLAKE3 of the cluster's root certificate.
    #[n(0)]
    pub root: Hash,
    /// Which invite.
    #[n(1)]
    pub id: InviteId,
    /// One-time secret; servers know its BLAKE3 only.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// The account name that it is for.
    #[n(3)]
    pub name: String,
    /// Catalog time after which it is refused, milliseconds since 1970.
    #[n(4)]
    pub expires_ms: u64,
    /// Where to go, `host:port`, any of them.
    #[n(5)]
    pub coordinators: Vec<String>,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({}, {:?}, …)", self.id, self.role)
    }
}

impl std::fmt::Debug for InviteText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InviteText({}, {}, …)", self.id, self.name)
    }
}

struct Form {
    prefix: &'static str,
    noun: &'static str,
}
const JOIN: Form = Form { prefix: "sk-join-", noun: "join token" };
const INVITE: Form = Form { prefix: "sk-invite-", noun: "invite" };

impl JoinToken {
    /// The text to hand on. Secret.
    pub fn to_text(&self) -> String {
        write(&JOIN, self)
    }

    /// Reads the text; `Invalid`, saying what is wrong, where it is no join token. Line breaks and
    /// spaces inside are ignored, and so is the case of letters.
    pub fn parse(text: &str) -> Result<Self> {
        read(&JOIN, text)
    }
}

impl InviteText {
    /// The text to hand on. Secret.
    pub fn to_text(&self) -> String {
        write(&INVITE, self)
    }

    /// Reads the text; `Invalid`, saying what is wrong, where it is no invite. Line breaks and
    /// spaces inside are ignored, and so is the case of letters.
    pub fn parse(text: &str) -> Result<Self> {
        read(&INVITE, text)
    }
}

fn write<T: Encode<()>>(form: &Form, value: &T) -> String {
    let body = cbor::to_vec(value);
    let bytes = [&Hash::of(&body).0[..4], &body].concat();
    format!("{}{}", form.prefix, data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn read<T: for<'b> Decode<'b, ()> + Encode<()>>(form: &Form, text: &str) -> Result<T> {
    let noun = form.noun;
    let text: String = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
    let Some(coded) = text.strip_prefix(form.prefix) else {
        let other = [JOIN, INVITE].into_iter().find(|f| text.starts_with(f.prefix));
        let what = other.map_or(String::new(), |f| format!(": this is one of the kind \"{}\"", f.noun));
        return Err(Error::invalid(format!("not the text of this kind: \"{noun}\" begins with {}{what}", form.prefix)));
    };
    let typo = || {
        Error::invalid(format!("this {noun} has a typing error, or a part of it is missing"))
            .hint("copy the whole text again, from its first letter to its last")
    };
    let bytes = data_encoding::BASE32_NOPAD.decode(coded.to_ascii_uppercase().as_bytes()).map_err(|_| typo())?;
    let (check, body) = bytes.split_at_checked(4).ok_or_else(typo)?;
    if check != &Hash::of(body).0[..4] {
        return Err(typo());
    }
    cbor::from_canonical(body)
        .map_err(|_| Error::invalid(format!("this {noun} was made by another version of Shardkeep")).hint("upgrade the older side"))
}

#[derive(Encode)]
struct JoinProof<'a> {
    #[n(0)]
    token: TokenId,
    #[n(1)]
    role: ServerRole,
    #[cbor(n(2), with = "minicbor::bytes")]
    exporter: &'a [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    spki: &'a [u8],
}

fn proof_input(token: TokenId, role: ServerRole, exporter: &[u8; 32], spki: &[u8]) -> Vec<u8> {
    cbor::to_vec(&JoinProof { token, role, exporter, spki })
}

/// Proof that the holder of a token's secret wants a certificate for this key, on this very
/// connection: HMAC-SHA256 over CBOR `[token id, role, exporter, joiner's SPKI]`.
pub fn join_proof(secret: &[u8; 32], token: TokenId, role: ServerRole, exporter: &[u8; 32], spki: &[u8]) -> [u8; 32] {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let tag = aws_lc_rs::hmac::sign(&key, &proof_input(token, role, exporter, spki));
    let mut proof = [0; 32];
    proof.copy_from_slice(tag.as_ref());
    proof
}

/// Checks a [`join_proof`] in constant time; `Denied` unless it is right.
pub fn check_join_proof(secret: &[u8; 32], token: TokenId, role: ServerRole, exporter: &[u8; 32], spki: &[u8], proof: &[u8]) -> Result<()> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    aws_lc_rs::hmac::verify(&key, &proof_input(token, role, exporter, spki), proof)
        .map_err(|_| Error::denied("the proof of the join token is not valid"))
}

#[cfg(test)]
mod tests;
