//! What can go wrong in a journal.

use std::io;
use std::path::{Path, PathBuf};

/// An error of a journal, named by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk failed, or the request made no sense (`InvalidInput`).
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No space left.
    #[error("{}: no space left", path.display())]
    Full {
        /// File or folder.
        path: PathBuf,
    },
    /// The bytes at a position are not the record that was written there.
    #[error("segment {segment} is damaged at offset {offset}")]
    Corrupt {
        /// The segment.
        segment: u64,
        /// Offset in it, in bytes.
        offset: u64,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { path: path.to_owned() },
            _ => Error::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn invalid(path: &Path, why: &str) -> Self {
        Error::Io { path: path.to_owned(), source: io::Error::new(io::ErrorKind::InvalidInput, why) }
    }

    /// The same error for another of those who wait.
    pub(crate) fn share(&self) -> Self {
        match self {
            Error::Io { path, source } => Error::Io { path: path.clone(), source: io::Error::new(source.kind(), source.to_string()) },
            Error::Full { path } => Error::Full { path: path.clone() },
            Error::Corrupt { segment, offset } => Error::Corrupt { segment: *segment, offset: *offset },
            Error::Closed => Error::Closed,
        }
    }
}
