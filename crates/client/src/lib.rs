//! The client core: seal, code, place, commit, and back. The Rust API of Shardkeep, on which the
//! command line and all gateways stand.
//!
//! A [`Profile`] remembers a cluster and a session on this machine; a [`Client`] is a profile that
//! is logged in. Remote paths are `/`-separated and begin at the user's own root. Read the modules
//! in the order below.

pub mod path;
pub mod profile;

mod admin;
mod audit;
mod backup;
mod connection;
mod login;
mod messages;
mod notes;
mod pace;
mod part;
mod pins;
mod session;

mod again;
mod commit;
mod compose;
mod edit;
mod local;
mod rekey;
mod shared;
mod sharing;
mod spaces;
mod tree;

mod download;
mod feed;
mod fetch;
mod gateway_keys;
mod issue;
mod layouts;
mod links;
mod making;
pub mod status;
mod store;
mod stream;
mod task;
mod transfer;
mod upload;
mod verify;

mod conflict;
mod kept;
pub mod outbox;
mod properties;
mod touched;
mod trash;
mod versions;
mod watch;
mod ways;

pub use audit::{Chain, Verified};
pub use backup::{BackupInfo, BackupReader, BackupReport, BackupRows, check_passphrase, rows_of};
pub use compose::{Compose, Composed};
pub use connection::Cluster;
pub use download::{Get, GetReport, Reader};
pub use env::{BoxStream, Env, Listener};
pub use kept::Kept;
pub use links::{LinkOptions, OpenedLink, OwnLink, is_link, link_id, link_takes_password};
pub use login::{Address, invite_name};
pub use messages::Mail;
pub use notes::NotesAge;
pub use part::PartFile;
pub use path::RemotePath;
pub use pins::{Acquaintance, PinState};
pub use profile::{Profile, ProfileInfo};
pub use properties::Properties;
pub use rekey::Rekeyed;
pub use seal::gateway_key::GatewayKey;
pub use seal::message::{Attachment, INLINE_MAX as ATTACHED_MAX, MessageBody, Said, TEXT_MAX};
pub use session::{Client, ClientOptions, WhoAmIAnswer};
pub use sharing::{ShareInfo, ShareMember, Shared};
pub use touched::Touched;
pub use trash::TrashItem;
pub use tree::{Entry, EntryKind};
pub use upload::{Answered, Ask, Describe, OnConflict, Put, PutOptions, PutReport, Source, Spot, Writer};
pub use verify::{ChunkPlaces, ShardPlace, ShardPlaceState, VerifyReport};
pub use versions::{Version, VersionNumber};
pub use watch::{ChangeKind, Changed, Watch, WatchEvent};

/// Refuses passwords that are too easily guessed (`Invalid`, with the reason).
pub fn check_password(account: &str, password: &str) -> model::Result<()> {
    seal::password::Password::new(password).check_strength(account)
}

/// Progress of a transfer, in plaintext bytes and whole files. Called from many tasks: keep it cheap.
pub trait Progress: Send + Sync {
    /// So much more is known to be there to do.
    fn total(&self, files: u64, bytes: u64);
    /// So many bytes more are done (stored on all servers, or written to the output).
    fn bytes(&self, done: u64);
    /// One file more is whole: committed, or under its name.
    fn file(&self, path: &str);
}

/// No progress.
impl Progress for () {
    fn total(&self, _: u64, _: u64) {}
    fn bytes(&self, _: u64) {}
    fn file(&self, _: &str) {}
}
