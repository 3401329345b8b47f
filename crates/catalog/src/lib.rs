//! The catalog: the replicated state machine. [`apply`] changes rows by a command, [`query`] answers
//! from them. Pure: rows lie behind an ordered key-value trait, time comes in with the command, and
//! every replica that applies the same commands in the same order holds the same rows.
//!
//! Begin with [`key`], which lists all rows; then [`commit`](self), the linearisation point of writes.

mod accounts;
mod apply;
mod change;
mod commit;
mod coordinators;
mod expiry;
mod history;
mod history_query;
mod key;
pub mod kv;
pub mod layout;
mod life;
mod links;
mod messages;
mod objects;
mod query;
mod recode;
mod rekey;
mod row;
mod servers;
mod spaces;
mod tx;

#[cfg(test)]
mod tests;

pub use apply::apply;
pub use life::{RESTORE_GAP, last_coordinator};
pub use query::query;

/// Results of commands are kept so long, in milliseconds of log time; older requests are refused.
pub const REQUEST_LIFE_MS: u64 = 24 * 3600 * 1000;
/// Uploads that are not committed within this time expire, in milliseconds of log time.
pub const UPLOAD_LIFE_MS: u64 = 24 * 3600 * 1000;
/// Overwritten and removed versions are kept so long, in milliseconds of log time.
pub const RETENTION_MS: u64 = 30 * 24 * 3600 * 1000;
/// An object that nothing refers to any more stays readable so long, in milliseconds of log time.
pub const GRACE_MS: u64 = 3600 * 1000;
/// The log of the dead is cut after this time, in milliseconds of log time.
pub const DEAD_LIFE_MS: u64 = 7 * 24 * 3600 * 1000;
