//! Messages as servers keep them: who wrote to whom, and the number between the two. What is said is
//! ciphertext.

use crate::{AccountId, Hash, Signature};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Longest encoded [`Envelope`], in bytes.
pub const ENVELOPE_MAX: usize = 32 << 10;
/// Most messages in a mailbox, those sent included.
pub const MAIL_MAX: u64 = 1_000;
/// Most bytes of them.
pub const MAIL_BYTES_MAX: u64 = 8 << 20;
/// Most messages of one sender that the recipient has not read.
pub const UNREAD_MAX: u64 = 200;

/// A message, signed by its sender: as type `"message"`, or, the copy that the sender keeps,
/// as type `"message-copy"`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    /// Encoded [`Envelope`], as received.
    #[n(0)]
    pub body: ByteVec,
    /// The sender's signature.
    #[n(1)]
    pub signature: Signature,
}

/// What a [`Message`] signs. The first four fields are the associated data of the encryption.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    /// Fingerprint of the sender.
    #[n(0)]
    pub sender: Hash,
    /// Fingerprint of the recipient, in the sender's copy too.
    #[n(1)]
    pub recipient: Hash,
    /// Number of this message from this sender to this recipient, from 1.
    #[n(2)]
    pub seq: u64,
    /// BLAKE3 of the body of the one before, as the recipient has it; zeros in the first.
    #[n(3)]
    pub prev: Hash,
    /// HPKE encapsulated key.
    #[n(4)]
    pub enc: ByteVec,
    /// HPKE ciphertext.
    #[n(5)]
    pub sealed: ByteVec,
}

/// How far one account has written to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Thread {
    /// Number of the last message; 0: none yet.
    #[n(0)]
    pub seq: u64,
    /// BLAKE3 of its body; zeros: none yet.
    #[n(1)]
    pub last: Hash,
    /// Messages of it that the recipient has not read.
    #[n(2)]
    pub unread: u64,
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MailItem {
    /// Its number in this mailbox; grows, and is never used again.
    #[n(0)]
    pub number: u64,
    /// Who wrote it, or to whom it was written.
    #[n(1)]
    pub peer: AccountId,
    /// It came from the peer; otherwise it is the copy of one that was sent.
    #[n(2)]
    pub incoming: bool,
    /// The message.
    #[n(3)]
    pub message: Message,
    /// Log time at which it was sent, milliseconds since 1970, as the servers say.
    #[n(4)]
    pub time_ms: u64,
    /// The owner has read it.
    #[n(5)]
    pub read: bool,
}

/// Counts of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Mailbox {
    /// The last number given out.
    #[n(0)]
    pub last: u64,
    /// Messages in it.
    #[n(1)]
    pub count: u64,
    /// Bytes of them.
    #[n(2)]
    pub bytes: u64,
    /// Those that are not read.
    #[n(3)]
    pub unread: u64,
}
