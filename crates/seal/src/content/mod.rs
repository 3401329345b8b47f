//! The contents of files: chunks sealed under one key an object, how they are cut, and the manifest that
//! pins them.

mod chunk;
mod cut;
mod join;
mod manifest;

pub use chunk::{ChunkOpener, open_chunk, seal_chunk, seal_chunk_to};
pub use cut::{Cut, RUNS_MAX};
pub use join::Joiner;
pub use manifest::{ChunkRecord, INDEX_FANOUT, Manifest, open_index, seal_index};
