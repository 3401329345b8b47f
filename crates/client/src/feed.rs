//! Where an upload's bytes come from: a file, a stream, the outbox, another entry; one chunk at a time.

use crate::download::Reader;
use crate::local::LocalReader;
use crate::outbox::SpooledFile;
use crate::session::Client;
use model::chunk::{CHUNK_SIZE, INLINE_MAX};
use model::{Error, Result};
use seal::content::Manifest;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Where a file's bytes come from, chunk by chunk.
pub(crate) enum Feed {
    File {
        reader: Arc<LocalReader>,
        size: u64,
    },
    /// What was read of it beforehand comes first.
    Stream {
        stream: Box<dyn AsyncRead + Send + Unpin>,
        read: Vec<u8>,
    },
    Bytes(Vec<u8>),
    Entry(Reader),
    Spooled(SpooledFile),
}

impl Feed {
    pub fn stream(stream: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Feed::Stream { stream, read: Vec::new() }
    }

    /// The whole content, if it is short enough to be sealed into the entry. Of a longer one hardly anything is
    /// read: its chunks wait for room in memory.
    pub async fn inline(&mut self, client: &Client) -> Result<Option<Vec<u8>>> {
        let size = match self {
            Feed::File { size, .. } => *size,
            Feed::Entry(reader) => reader.size,
            Feed::Spooled(file) => file.size,
            Feed::Bytes(bytes) => bytes.len() as u64,
            Feed::Stream { stream, read } => {
                stream.take(INLINE_MAX as u64 + 1).read_to_end(read).await.map_err(broken)?;
                return Ok((read.len() <= INLINE_MAX).then(|| std::mem::take(read)));
            }
        };
        if size <= INLINE_MAX as u64 { self.chunk(client, 0).await.map(Some) } else { Ok(None) }
    }

    /// The chunk at an index; shorter than a full one only at the end, empty beyond it.
    pub async fn chunk(&mut self, client: &Client, index: u64) -> Result<Vec<u8>> {
        let start = index * CHUNK_SIZE as u64;
        match self {
            Feed::File { reader, size } => {
                let (reader, len) = (reader.clone(), Manifest::chunk_len(*size, index));
                client.env().blocking(move || reader.read(start, len)).await
            }
            Feed::Stream { stream, read } => {
                let mut buffer = std::mem::take(read);
                let rest = (CHUNK_SIZE - buffer.len()) as u64;
                stream.take(rest).read_to_end(&mut buffer).await.map_err(broken)?;
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

fn broken(e: std::io::Error) -> Error {
    Error::invalid(format!("the input stream broke: {e}"))
}
