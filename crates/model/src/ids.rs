//! Identifiers: newtypes, never bare integers or strings.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use std::fmt;
use std::str::FromStr;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The identifier's bytes.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
            /// From exactly as many bytes as the identifier has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = crate::Error;
            fn from_str(s: &str) -> crate::Result<Self> {
                let bad = || crate::Error::invalid(concat!("not a valid ", stringify!($name)));
                let s = s.as_bytes();
                if s.len() != $len * 2 {
                    return Err(bad());
                }
                let mut out = [0u8; $len];
                for (o, pair) in out.iter_mut().zip(s.chunks_exact(2)) {
                    let hex = std::str::from_utf8(pair).map_err(|_| bad())?;
                    *o = u8::from_str_radix(hex, 16).map_err(|_| bad())?;
                }
                Ok(Self(out))
            }
        }
        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let bytes = d.bytes()?;
                Self::from_slice(bytes).ok_or_else(|| decode::Error::message(concat!("wrong length of ", stringify!($name))))
            }
        }
    };
}

byte_id!(
    /// The cluster, fixed when its first coordinator starts; OPAQUE's server identity.
    ClusterId, 16
);
byte_id!(
    /// An account.
    AccountId, 16
);
byte_id!(
    /// A space: the unit of sharing, key epochs and quota.
    SpaceId, 16
);
byte_id!(
    /// A folder inside a space.
    FolderId, 16
);
byte_id!(
    /// An entry (file, folder or symlink) in a folder; kept across renames.
    EntryId, 16
);
byte_id!(
    /// A sealed manifest kept in the catalog.
    ManifestId, 16
);
byte_id!(
    /// A signed commit.
    CommitId, 16
);
byte_id!(
    /// An invite to register.
    InviteId, 16
);
byte_id!(
    /// A link to a file or folder.
    LinkId, 16
);
byte_id!(
    /// A join token of a server.
    TokenId, 16
);
byte_id!(
    /// A disk of a node. Lives on the device itself, so an emptied disk is a new device.
    DeviceId, 16
);
byte_id!(
    /// An immutable object: 48 bits of milliseconds since 1970, big-endian, and 80 random bits.
    ObjectId, 16
);
byte_id!(
    /// Idempotence key of a command: 48 bits of issue time like [`ObjectId`], and 80 random bits.
    RequestId, 16
);
byte_id!(
    /// A BLAKE3-256 hash.
    Hash, 32
);
byte_id!(
    /// A row's name tag: a keyed hash of the name, opaque to servers.
    NameTag, 16
);
byte_id!(
    /// An Ed25519 public key.
    PublicKey, 32
);
byte_id!(
    /// An Ed25519 signature.
    Signature, 64
);

impl Default for Hash {
    /// Zeros: the hash of nothing that there is.
    fn default() -> Self {
        Hash([0; 32])
    }
}

impl Hash {
    /// BLAKE3-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

macro_rules! timed_id {
    ($name:ident) => {
        impl $name {
            /// From a time in milliseconds since 1970 (its low 48 bits) and 10 random bytes.
            pub fn new(time_ms: u64, random: [u8; 10]) -> Self {
                let mut id = [0u8; 16];
                id[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
                id[6..].copy_from_slice(&random);
                Self(id)
            }
            /// The time at which it was issued, in milliseconds since 1970.
            pub fn time_ms(&self) -> u64 {
                let mut t = [0u8; 8];
                t[2..].copy_from_slice(&self.0[..6]);
                u64::from_be_bytes(t)
            }
        }
    };
}
timed_id!(ObjectId);
timed_id!(RequestId);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub $int);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = crate::Error;
            fn from_str(s: &str) -> crate::Result<Self> {
                s.parse().map(Self).map_err(|_| crate::Error::invalid(concat!("not a valid ", stringify!($name))))
            }
        }
    };
}
number_id!(
    /// A storage server. Given out by the catalog in order of joining, from 1; never reused.
    NodeId, u64
);
number_id!(
    /// A coordinator. From 1, never reused (a consensus log must never meet an old voter's id).
    CoordinatorId, u64
);
number_id!(
    /// The number of a layout; grows by one with each change.
    Epoch, u64
);
number_id!(
    /// The number of a space's key generation; grows when a member is removed or demoted.
    KeyEpoch, u64
);
number_id!(
    /// A partition of a layout: `0 .. 2^partition_power`.
    Partition, u32
);
