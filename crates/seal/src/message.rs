//! Messages between accounts: sealed to the recipient's identity ([`crate::hybrid`]), signed by the sender,
//! numbered and chained between the two; and the sender's own copy, sealed to itself.
//!
//! ```text
//! envelope  = [sender fp, recipient fp, seq, prev, enc, ciphertext]     signed as "message" or "message-copy"
//! aad       = [sender fp, recipient fp, seq, prev]                      prev = H(envelope before), zeros first
//! plaintext = CBOR [time_ms, what is said] ‖ zeros, Padmé of at least 256 bytes
//! ```
//! The two fingerprints refuse reflection, number and hash refuse replay and reordering. That a *last*
//! message is held back nobody can see.

use crate::account::Unlocked;
use crate::pad::{check_zeros, padme};
use crate::{hybrid, identity};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode};
use model::account::{Identity, Role};
use model::message::{ENVELOPE_MAX, Envelope, Message};
use model::{Error, Hash, Result, SpaceId, cbor, signed};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// Longest text, in bytes.
pub const TEXT_MAX: usize = 16 << 10;
/// Longest file that travels in the message itself, in bytes.
pub const INLINE_MAX: usize = 4 << 10;

const INFO: &[u8] = b"shardkeep/v1/message";
const INFO_COPY: &[u8] = b"shardkeep/v1/message-copy";
const KIND: &str = "message";
const KIND_COPY: &str = "message-copy";

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum MessageBody {
    /// A text, perhaps with a file or folder.
    #[n(0)]
    Text {
        /// The text.
        #[n(0)]
        text: String,
        /// What comes along.
        #[n(1)]
        attachment: Option<Attachment>,
    },
    /// The recipient has become a member of a space. What counts is the space's signed member set; this
    /// only tells of it.
    #[n(1)]
    ShareInvite {
        /// The space.
        #[n(0)]
        space: SpaceId,
        /// The folder's name at its owner's.
        #[n(1)]
        name: String,
        /// What the recipient may do there.
        #[n(2)]
        role: Role,
    },
}

/// What comes along with a text.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Attachment {
    /// A small file.
    #[n(0)]
    Inline {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its content.
        #[n(1)]
        bytes: ByteVec,
    },
    /// A link to a file or folder. Secret.
    #[n(1)]
    Link {
        /// Its name.
        #[n(0)]
        name: String,
        /// Bytes; 0 for a folder.
        #[n(1)]
        size: u64,
        /// The link.
        #[n(2)]
        link: String,
    },
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Attachment::Inline { name, bytes } => write!(f, "Inline({name:?}, {} bytes)", bytes.len()),
            Attachment::Link { name, size, .. } => write!(f, "Link({name:?}, {size} bytes, …)"),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Attachment::Link { link, .. } = self {
            link.zeroize();
        }
    }
}

/// An opened message: when it was written by the sender's clock, milliseconds since 1970, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Said {
    /// Milliseconds since 1970.
    #[n(0)]
    pub time_ms: u64,
    /// What it says.
    #[n(1)]
    pub body: MessageBody,
}

/// A message ready to be sent: for the recipient, and for oneself.
pub struct Outgoing {
    /// For the recipient.
    pub message: Message,
    /// For oneself.
    pub copy: Message,
}

impl Outgoing {
    /// What the next message to this recipient names as the one before.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.message.body)
    }
}

/// Seals and signs message number `seq` to an identity that was pinned; `prev` is the hash of the one
/// before. `Invalid` for what is too long.
pub fn seal(me: &Unlocked, to: &Identity, seq: u64, prev: Hash, said: &Said, rng: &mut impl CryptoRng) -> Result<Outgoing> {
    said.check().map_err(|e| Error::invalid(e.message))?;
    let recipient = identity::verify(to)?;
    let plain = said.to_plain();
    let mut make = |info, kind, key: &[u8]| -> Result<Message> {
        let mut envelope = Envelope {
            sender: me.fingerprint(),
            recipient: to.fingerprint(),
            seq,
            prev,
            enc: Vec::new().into(),
            sealed: Vec::new().into(),
        };
        let (enc, sealed) = hybrid::seal(info, key, &plain, &associated(&envelope), rng)?;
        envelope.enc = enc.into();
        envelope.sealed = sealed.into();
        let body = cbor::to_vec(&envelope);
        if body.len() > ENVELOPE_MAX {
            return Err(Error::invalid("a message is too long"));
        }
        Ok(Message { signature: me.signing.sign(kind, &body), body: body.into() })
    };
    let message = make(INFO, KIND, &recipient.kem)?;
    let copy = make(INFO_COPY, KIND_COPY, &me.kem.public())?;
    Ok(Outgoing { message, copy })
}

/// Checks and opens a message from a pinned identity to this account. `Corrupt` for everything that
/// is not exactly that.
pub fn open(me: &Unlocked, from: &Identity, message: &Message) -> Result<(Envelope, Said)> {
    let sender = identity::verify(from)?;
    let envelope = envelope(message, KIND, &sender.signing)?;
    if envelope.sender != from.fingerprint() || envelope.recipient != me.fingerprint() {
        return Err(bad("it is from or to somebody else"));
    }
    let said = said(me, INFO, &envelope)?;
    Ok((envelope, said))
}

/// Checks and opens the copy of a message that this account has sent; the envelope says to whom.
pub fn open_copy(me: &Unlocked, copy: &Message) -> Result<(Envelope, Said)> {
    let envelope = envelope(copy, KIND_COPY, &me.signing.public())?;
    if envelope.sender != me.fingerprint() {
        return Err(bad("it is from somebody else"));
    }
    let said = said(me, INFO_COPY, &envelope)?;
    Ok((envelope, said))
}

fn bad(why: &str) -> Error {
    Error::corrupt(format!("a message does not verify: {why}"))
}

fn associated(envelope: &Envelope) -> Vec<u8> {
    cbor::to_vec(&(envelope.sender, envelope.recipient, envelope.seq, envelope.prev))
}

fn envelope(message: &Message, kind: &str, key: &model::PublicKey) -> Result<Envelope> {
    if message.body.len() > ENVELOPE_MAX {
        return Err(bad("it is too long"));
    }
    signed::verify(key, kind, &message.body, &message.signature).map_err(|_| bad("its signature is wrong"))?;
    let envelope: Envelope = cbor::from_canonical(&message.body)?;
    if envelope.seq == 0 || (envelope.seq == 1) != (envelope.prev == Hash([0; 32])) {
        return Err(bad("its number is none"));
    }
    Ok(envelope)
}

fn said(me: &Unlocked, info: &[u8], envelope: &Envelope) -> Result<Said> {
    let plain = hybrid::open(info, &me.kem, &envelope.enc, &envelope.sealed, &associated(envelope));
    Said::from_plain(&plain.ok_or_else(|| bad("it does not open"))?)
}

impl Said {
    fn check(&self) -> Result<()> {
        let (text, attached, name) = match &self.body {
            MessageBody::Text { text, attachment } => match attachment {
                Some(Attachment::Inline { name, bytes }) => (text.len(), bytes.len(), name.len()),
                Some(Attachment::Link { name, link, .. }) => (text.len(), link.len(), name.len()),
                None => (text.len(), 0, 0),
            },
            MessageBody::ShareInvite { name, .. } => (0, 0, name.len()),
        };
        if text > TEXT_MAX {
            return Err(Error::corrupt(format!("a message of more than {} KiB", TEXT_MAX >> 10)));
        }
        if attached > INLINE_MAX || name > crate::tree::NAME_MAX {
            return Err(Error::corrupt("an attachment that is too long"));
        }
        Ok(())
    }

    fn to_plain(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(2 * TEXT_MAX));
        minicbor::encode(self, &mut *plain).expect("encoding into memory");
        let padded = padme(plain.len());
        plain.resize(padded, 0);
        plain
    }

    fn from_plain(plain: &[u8]) -> Result<Said> {
        let mut d = Decoder::new(plain);
        let said: Said = d.decode().map_err(|_| bad("it is not decodable"))?;
        let padding = plain.get(d.position()..).ok_or_else(|| bad("it is cut off"))?;
        check_zeros(padding)?;
        if said.to_plain().as_slice() != plain {
            return Err(bad("it is not in canonical form"));
        }
        said.check()?;
        Ok(said)
    }
}
