//! The two roles of a server. A **coordinator** keeps the catalog: accounts, trees, membership, layout.
//! A **node** keeps shards, checks them and makes itself whole. Neither can name a key: this crate does
//! not reach `seal`.
//!
//! Read [`coordinator`] and [`node`] first; [`consensus`] is the only place that knows openraft.

pub mod consensus;
pub mod coordinator;
pub mod node;
mod rpc;
mod running;
mod store;
