//! The database's file. redb takes nothing more after the first error of its disk until it is opened anew, not
//! even questions, and says only then that there was one.

use redb::StorageBackend;
use shards::DatabaseFile;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A file, and who hears of its errors.
pub(super) struct Backend<F> {
    pub file: DatabaseFile,
    pub path: PathBuf,
    pub told: F,
}

impl<F> fmt::Debug for Backend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backend").field(&self.path).finish()
    }
}

impl<F: Fn(String, bool)> Backend<F> {
    fn noted<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|e| {
            let is_full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            (self.told)(format!("{}: {e}", self.path.display()), is_full);
        })
    }
}

impl<F: Fn(String, bool) + Send + Sync + 'static> StorageBackend for Backend<F> {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.file.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.file.read(offset, out))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.noted(self.file.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.file.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.file.write(offset, data))
    }
}
