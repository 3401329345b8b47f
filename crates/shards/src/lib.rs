//! The shard store of one device: shards in an append-only [`journal`], found by an index that is made from it.
//!
//! A shard is written once and never changed; it goes when its object dies, or when it is found bad.
//! Both are records of the log as well, so an index rebuilt from it resurrects nothing. Everything
//! acknowledged is durable. No key is needed or known: a shard is checked against its descriptor.
//!
//! The index is a database beside the log, made anew at each opening from the footers of sealed segments and the
//! records of the last one.

mod compact;
mod identity;
mod index;
mod record;
mod scratch;
mod store;

#[cfg(test)]
mod tests;

pub use compact::Compaction;
pub use scratch::DatabaseFile;
pub use store::{ShardStore, Usage};
