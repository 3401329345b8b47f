//! Errors named by what the caller does next.

use crate::NodeId;
use minicbor::{Decode, Encode};

/// What a caller can do about an error. The CLI maps each to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// The thing named does not exist.
    #[n(0)]
    NotFound,
    /// Something of that name exists already.
    #[n(1)]
    Exists,
    /// Credentials, role or signature do not allow it.
    #[n(2)]
    Denied,
    /// Somebody else changed it first: read again, then decide.
    #[n(3)]
    Conflict,
    /// Too few servers answer: try later, or start them.
    #[n(4)]
    Unavailable,
    /// No space left, or quota used up.
    #[n(5)]
    Insufficient,
    /// Stored bytes are not what was written.
    #[n(6)]
    Corrupt,
    /// The request itself makes no sense: do not retry it.
    #[n(7)]
    Invalid,
}

/// An error as it crosses crate and machine boundaries: a [`Kind`], a plain sentence,
/// the server concerned, and the next thing to try. Never carries keys or names of files.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the caller can do.
    #[n(0)]
    pub kind: Kind,
    /// What failed, where and why: a plain sentence without a final stop.
    #[n(1)]
    pub message: String,
    /// The server on which it failed, where there is one.
    #[n(2)]
    pub node: Option<NodeId>,
    /// The next command to try.
    #[n(3)]
    pub hint: Option<String>,
}

/// Result with the crate-crossing [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind with its sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), node: None, hint: None }
    }
    /// [`Kind::NotFound`].
    pub fn not_found(m: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, m)
    }
    /// [`Kind::Exists`].
    pub fn exists(m: impl Into<String>) -> Self {
        Self::new(Kind::Exists, m)
    }
    /// [`Kind::Denied`].
    pub fn denied(m: impl Into<String>) -> Self {
        Self::new(Kind::Denied, m)
    }
    /// [`Kind::Conflict`].
    pub fn conflict(m: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, m)
    }
    /// [`Kind::Unavailable`].
    pub fn unavailable(m: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, m)
    }
    /// [`Kind::Insufficient`].
    pub fn insufficient(m: impl Into<String>) -> Self {
        Self::new(Kind::Insufficient, m)
    }
    /// [`Kind::Corrupt`].
    pub fn corrupt(m: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, m)
    }
    /// [`Kind::Invalid`].
    pub fn invalid(m: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, m)
    }
    /// Names the server on which it failed.
    pub fn on(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }
    /// Adds the next command to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
