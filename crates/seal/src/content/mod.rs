//! The contents of files: chunks sealed under one key an object, and the manifest that pins them.

mod chunk;
mod manifest;

pub use chunk::{ChunkOpener, open_chunk, seal_chunk, seal_chunk_to};
pub use manifest::{ChunkRecord, INDEX_FANOUT, Manifest, open_index, seal_index};
