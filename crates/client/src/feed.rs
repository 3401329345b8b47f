//! Where an upload's bytes come from: a file, a stream, the outbox, another entry; one chunk at a time.

use crate::download::Reader;
use crate::local::LocalReader;
use crate::outbox::SpooledFile;
use crate::session::Client;
use model::chunk::CHUNK_SIZE;
use model::{Error, Result};
use seal::content::Manifest;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Where a file's bytes come from, chunk by chunk.
pub(crate) enum Feed {
    File { reader: Arc<LocalReader>, size: u64 },
    Stream(Box<dyn AsyncRead + Send + Unpin>),
    Bytes(Vec<u8>),
    Entry(Reader),
    Spooled(SpooledFile),
}

impl Feed {
    /// The chunk at an index; shorter than a full one only at the end, empty beyond it.
    pub async fn chunk(&mut self, client: &Client, index: u64) -> Result<Vec<u8>> {
        let start = index * CHUNK_SIZE as u64;
        match self {
            Feed::File { reader, size } => {
                let (reader, len) = (reader.clone(), Manifest::chunk_len(*size, index));
                client.env().blocking(move || reader.read(start, len)).await
            }
            Feed::Stream(stream) => {
                let mut buffer = Vec::new();
                let read = stream.take(CHUNK_SIZE as u64).read_to_end(&mut buffer).await;
                read.map_err(|e| Error::invalid(format!("the input stream broke: {e}")))?;
                Ok(buffer)
            }
            Feed::Entry(reader) => {
                let end = reader.size.min(start + CHUNK_SIZE as u64);
                reader.read(start.min(end)..end).await
            }
            Feed::Spooled(file) => {
                let file = file.clone();
                client.env().blocking(move || file.read(index)).await
            }
            Feed::Bytes(bytes) => Ok(bytes.iter().skip(start as usize).take(CHUNK_SIZE).copied().collect()),
        }
    }
}
