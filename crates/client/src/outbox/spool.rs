//! Spooled content: the source may go. Sealed in pieces of one chunk each, so that an upload reads any chunk
//! alone and at most one of them is in memory.
//!
//! ```text
//! ID.N.spool = seal_local("outbox-spool", [ID, N, index], up to 4 MiB) …
//! ```
//! All pieces but the last are full; how long the whole is, the job says.

use env::{Env, FileExt, Open};
use model::chunk::CHUNK_SIZE;
use model::{Error, Result, cbor};
use seal::account::Unlocked;
use seal::content::Manifest;
use seal::primitive::sealed_len;
use std::path::PathBuf;
use std::sync::Arc;

/// Plain bytes of a piece.
pub(super) const PIECE: usize = CHUNK_SIZE;
/// What pieces are sealed for.
pub(super) const PURPOSE: &str = "outbox-spool";

/// The place of a piece: no piece can stand for another.
pub(super) fn context(id: &str, item: u32, index: u64) -> Vec<u8> {
    cbor::to_vec(&(id, item, index))
}

/// A spooled file, to be uploaded.
#[derive(Clone)]
pub struct SpooledFile {
    pub(super) env: Env,
    pub(super) unlocked: Arc<Unlocked>,
    pub(super) id: String,
    pub(super) item: u32,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) attributes: seal::tree::Attributes,
}

impl SpooledFile {
    /// The chunk at an index; empty beyond the end. Blocking.
    pub(crate) fn read(&self, index: u64) -> Result<Vec<u8>> {
        let len = Manifest::chunk_len(self.size, index);
        if len == 0 {
            return Ok(Vec::new());
        }
        let broken = |e: std::io::Error| Error::corrupt(format!("the spool {} cannot be read: {e}", self.path.display()));
        let file = self.env.disk.open(&self.path, Open::Existing).map_err(broken)?;
        let mut sealed = vec![0; sealed_len(len)];
        file.read_exact_at(&mut sealed, index * sealed_len(PIECE) as u64).map_err(broken)?;
        let plain = self.unlocked.open_local(PURPOSE, &context(&self.id, self.item, index), &sealed)?;
        Ok(plain.to_vec())
    }
}
