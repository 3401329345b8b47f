//! What clients, nodes and coordinators say to each other: one [`Rpc`] type for each exchange,
//! and the protocol version. Bulk bytes (shard bodies) travel beside a message, not in it.
//!
//! Who may call what stands on each exchange; the servers enforce it.

pub mod admin;
pub mod coordinator;
pub mod layouts;
pub mod link;
pub mod node;
pub mod raft;
pub mod snapshot;
pub mod watch;

use minicbor::{Decode, Encode};
use model::{Error, Result, cbor};

/// Version of the protocol: peers of another major version are refused, minor ones are not.
pub const PROTOCOL: Version = Version { major: 1, minor: 0 };

/// A protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode)]
pub struct Version {
    /// Differs: they cannot talk.
    #[n(0)]
    pub major: u16,
    /// Differs: each leaves out what the other does not know.
    #[n(1)]
    pub minor: u16,
}

impl Version {
    /// What a server asks: `Invalid`, saying to whoever called which side is older, unless the two can talk.
    pub fn admit(self, caller: Version) -> Result<()> {
        if self.major == caller.major { Ok(()) } else { Err(apart(self, caller)) }
    }

    /// What a caller asks: `Invalid`, saying which side is older, unless the two can talk.
    pub fn check(self, server: Version) -> Result<()> {
        server.admit(self)
    }
}

/// In the words of the caller, who gets to read it.
fn apart(server: Version, caller: Version) -> Error {
    let older = if server.major < caller.major { "the server" } else { "this program" };
    Error::invalid(format!(
        "the server speaks protocol {}.{} and this program {}.{}: {older} is too old and needs an upgrade",
        server.major, server.minor, caller.major, caller.minor
    ))
}

/// Why nobody serves a path: the error of [`Version::admit`] where it is one of another major version.
pub fn unserved(path: &str) -> Error {
    let major = path.strip_prefix("/v").and_then(|rest| rest.split('/').next()).and_then(|major| major.parse().ok());
    if let Some(Err(e)) = major.map(|major| PROTOCOL.admit(Version { major, minor: 0 })) {
        return e;
    }
    let path: String = path.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    Error::invalid(format!("this server does not serve {path}"))
}

/// One exchange: a request to a path, and its response. Either side may carry a body of raw bytes.
pub trait Rpc {
    /// Where it goes, for example `/v1/query`: the first part is the major version of [`PROTOCOL`].
    const PATH: &'static str;
    /// What is asked.
    type Request: Encode<()> + for<'b> Decode<'b, ()> + Send;
    /// What is answered.
    type Response: Encode<()> + for<'b> Decode<'b, ()> + Send;
}

/// Encodes a message.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    cbor::to_vec(message)
}

/// Decodes a message; `Invalid` (the peer sent nonsense) where it is none.
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T> {
    cbor::from_slice(bytes).map_err(|e| Error::invalid(format!("a message that cannot be read: {}", e.message)))
}

/// A request of a logged-in client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Authed<T> {
    /// The session token that `login` returned.
    #[n(0)]
    pub session: SessionToken,
    /// The request itself.
    #[n(1)]
    pub request: T,
}

/// A session token: 32 random bytes. Secret; servers keep only its BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionToken(pub [u8; 32]);

impl SessionToken {
    /// What servers keep.
    pub fn hash(&self) -> model::Hash {
        model::Hash::of(&self.0)
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

impl<C> Encode<C> for SessionToken {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut minicbor::Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SessionToken {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?;
        bytes.try_into().map(SessionToken).map_err(|_| minicbor::decode::Error::message("wrong length of a session token"))
    }
}

macro_rules! rpc {
    ($(#[$doc:meta])* $name:ident, $path:literal, $request:ty => $response:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl $crate::Rpc for $name {
            const PATH: &'static str = $path;
            type Request = $request;
            type Response = $response;
        }
        const _: () = assert!(
            matches!($path.as_bytes(), [b'/', b'v', major, b'/', ..] if *major == b'0' + $crate::PROTOCOL.major as u8),
            "a path begins with the major version"
        );
    };
}
pub(crate) use rpc;
