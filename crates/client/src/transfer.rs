//! The client's own journal of a large transfer, so that an interrupted one goes on where it was.
//!
//! ```text
//! HOME/profiles/NAME/transfers/ID     ID = BLAKE3 of what and whither, hex
//! records, appended: length 4 bytes big-endian ‖ BLAKE3(body)[..8] ‖ body (CBOR)
//! ```
//! A torn last record is ignored. Nothing in it is plaintext; content keys are sealed.

use env::{Env, FileExt, Open};
use minicbor::{Decode, Encode};
use model::{Error, Hash, Result, cbor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Longest record.
const RECORD_MAX: usize = 1 << 20;

/// An open journal.
pub(crate) struct Transfer {
    env: Env,
    path: PathBuf,
    file: Arc<dyn env::File>,
    end: Mutex<u64>,
    records: Vec<Vec<u8>>,
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::invalid(format!("{}: {e}", path.display()))
}

impl Transfer {
    /// Opens the journal of a transfer, with the records of an earlier try.
    pub fn open(env: &Env, dir: &Path, id: &Hash) -> Result<Self> {
        let path = dir.join(&id.to_string()[..32]);
        let file = env.disk.open(&path, Open::OrCreate).map_err(|e| failed(&path, &e))?;
        let mut bytes = vec![0; file.len().map_err(|e| failed(&path, &e))? as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|e| failed(&path, &e))?;
        let mut records = Vec::new();
        let mut end = 0;
        while let Some((head, rest)) = bytes.get(end..).and_then(|b| b.split_first_chunk::<12>()) {
            let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let Some(body) = rest.get(..len).filter(|_| len <= RECORD_MAX) else { break };
            if Hash::of(body).0[..8] != head[4..] {
                break;
            }
            records.push(body.to_vec());
            end += 12 + len;
        }
        Ok(Transfer { env: env.clone(), path, file, end: Mutex::new(end as u64), records })
    }

    /// The records of an earlier try that decode as `T`; the first that does not ends them.
    pub fn records<T: for<'b> Decode<'b, ()>>(&self, from: usize) -> Vec<T> {
        self.records.iter().skip(from).map_while(|r| cbor::from_slice(r).ok()).collect()
    }

    /// Appends a record. It survives the death of this process; after a power cut it may be missing,
    /// and then its part of the transfer is done again.
    pub fn append<T: Encode<()>>(&self, record: &T) -> Result<()> {
        let body = cbor::to_vec(record);
        let mut bytes = Vec::with_capacity(12 + body.len());
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&Hash::of(&body).0[..8]);
        bytes.extend_from_slice(&body);
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(&bytes, *end).map_err(|e| failed(&self.path, &e))?;
        *end += bytes.len() as u64;
        Ok(())
    }

    /// Forgets an earlier try.
    pub fn restart(&mut self) -> Result<()> {
        self.records.clear();
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        self.file.set_len(0).map_err(|e| failed(&self.path, &e))
    }

    /// The transfer is done.
    pub fn remove(self) {
        if let Err(e) = self.env.disk.remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "a finished transfer's journal could not be removed");
        }
    }
}
