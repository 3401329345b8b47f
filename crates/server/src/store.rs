//! The catalog's rows on redb, over `env::Disk`.
//!
//! The Raft log is the write-ahead log: applies commit with `Durability::None`, and a checkpoint
//! makes everything so far durable, with the log id that was applied last in the same transaction.
//! After a crash the file is as of the last checkpoint, and the log is applied again from there.

use catalog::kv::{Kv, KvMut, Visit};
use env::{Env, Open};
use model::{Error, Kind, Result};
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use shards::DatabaseFile;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Cache of the database, in bytes (redb's own default is 1 GiB).
const CACHE: usize = 32 << 20;
/// Version of the file's contents.
const FORMAT: u8 = 1;

/// A storage failure in words.
pub(crate) fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, format!("the catalog's database failed: {e}"))
}

/// The catalog's database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    db: Arc<Database>,
}

impl Store {
    /// Opens or creates the database. Blocking.
    pub fn open(env: &Env, path: &Path) -> Result<Self> {
        let io = |e: io::Error| Error::unavailable(format!("{}: {e}", path.display()));
        let file = env.disk.open(path, Open::OrCreate).map_err(io)?;
        let store = Self::over(file, path)?;
        let version = store.view()?.meta("format")?;
        match version.as_deref() {
            None => {
                let write = store.begin(true)?;
                put_meta(&write, "format", &[FORMAT])?;
                write.open_table(ROWS).map_err(failed)?;
                write.commit().map_err(failed)?;
                env.disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
            }
            Some([FORMAT]) => {}
            Some(_) => return Err(Error::invalid(format!("{} is of a version that this software does not know", path.display()))),
        }
        Ok(store)
    }

    fn over(file: Arc<dyn env::File>, path: &Path) -> Result<Self> {
        let db = Database::builder().set_cache_size(CACHE).create_with_backend(DatabaseFile(file));
        let db = db.map_err(|e| Error::corrupt(format!("{}: {e}", path.display())))?;
        Ok(Store { db: Arc::new(db) })
    }

    /// A consistent view of everything committed so far.
    pub fn view(&self) -> Result<View> {
        let read = self.db.begin_read().map_err(failed)?;
        View::new(read)
    }

    fn begin(&self, durable: bool) -> Result<WriteTransaction> {
        let mut write = self.db.begin_write().map_err(failed)?;
        write.set_durability(if durable { Durability::Immediate } else { Durability::None }).map_err(failed)?;
        // What is durable can be opened after a crash without a walk through all of the file.
        write.set_quick_repair(durable);
        Ok(write)
    }

    /// Changes rows, and records `applied` (opaque to this module) with them: all or nothing.
    /// Durable only with the next [`Store::checkpoint`].
    pub fn change<T>(&self, change: impl FnOnce(&mut dyn KvMut) -> Result<(T, Vec<u8>)>) -> Result<T> {
        let write = self.begin(false)?;
        let (value, applied) = change(&mut Rows(write.open_table(ROWS).map_err(failed)?))?;
        put_meta(&write, "applied", &applied)?;
        write.commit().map_err(failed)?;
        Ok(value)
    }

    /// Makes everything so far durable.
    pub fn checkpoint(&self) -> Result<()> {
        self.begin(true)?.commit().map_err(failed)
    }

    /// Replaces all rows by those of a view, durably, as one transaction: after a crash at any moment
    /// either all the old rows are there or all the new ones. Blocking.
    pub fn replace(&self, from: &View, applied: &[u8]) -> Result<()> {
        let write = self.begin(true)?;
        write.delete_table(ROWS).map_err(failed)?;
        {
            let mut rows = write.open_table(ROWS).map_err(failed)?;
            let mut put = Ok(());
            from.scan(&[], &[0xff; 64], &mut |key, value| match rows.insert(key, value) {
                Ok(_) => ControlFlow::Continue(()),
                Err(e) => {
                    put = Err(failed(e));
                    ControlFlow::Break(())
                }
            })?;
            put?;
        }
        put_meta(&write, "applied", applied)?;
        write.commit().map_err(failed)
    }
}

fn put_meta(write: &WriteTransaction, key: &str, value: &[u8]) -> Result<()> {
    let mut meta = write.open_table(META).map_err(failed)?;
    meta.insert(key, value).map_err(failed)?;
    Ok(())
}

/// A database that lives as long as somebody reads it: rows of a snapshot on their way. Its file goes
/// with the last handle or view. Nothing of it needs to be durable.
#[derive(Clone)]
pub(crate) struct Scratch {
    store: Store,
    _file: Arc<Scrap>,
}

/// A file that goes when nobody needs it any more.
struct Scrap(Arc<dyn env::Disk>, PathBuf);

impl Drop for Scrap {
    fn drop(&mut self) {
        if let Err(e) = self.0.remove_file(&self.1) {
            tracing::warn!(path = %self.1.display(), error = %e, "a temporary file stays until the next start");
        }
    }
}

impl Scratch {
    /// A fresh one. Blocking.
    pub fn create(env: &Env, path: &Path) -> Result<Self> {
        let file = env.disk.open(path, Open::New).map_err(|e| Error::unavailable(format!("{}: {e}", path.display())))?;
        let scrap = Arc::new(Scrap(env.disk.clone(), path.to_path_buf()));
        Ok(Scratch { store: Store::over(file, path)?, _file: scrap })
    }

    /// Adds rows that are not there yet; answers how many.
    pub fn add(&self, added: &[(&[u8], &[u8])]) -> Result<u64> {
        let write = self.store.begin(false)?;
        {
            let mut rows = write.open_table(ROWS).map_err(failed)?;
            for (key, value) in added {
                if rows.insert(*key, *value).map_err(failed)?.is_some() {
                    return Err(Error::invalid("a row came twice"));
                }
            }
        }
        write.commit().map_err(failed)?;
        Ok(added.len() as u64)
    }

    /// All that was added.
    pub fn into_view(self) -> Result<View> {
        let view = self.store.view()?;
        Ok(View { _scratch: Some(self), ..view })
    }
}

/// A consistent view of the rows.
pub(crate) struct View {
    read: ReadTransaction,
    rows: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    /// What it is a view of, where nobody else keeps that.
    _scratch: Option<Scratch>,
}

impl View {
    fn new(read: ReadTransaction) -> Result<Self> {
        let rows = match read.open_table(ROWS) {
            Ok(rows) => Some(rows),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(failed(e)),
        };
        Ok(View { read, rows, _scratch: None })
    }

    fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match self.read.open_table(META) {
            Ok(meta) => Ok(meta.get(key).map_err(failed)?.map(|v| v.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }

    /// What [`Store::change`] recorded last.
    pub fn applied(&self) -> Result<Option<Vec<u8>>> {
        self.meta("applied")
    }
}

fn get(table: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(table.get(key).map_err(failed)?.map(|v| v.value().to_vec()))
}

fn scan(table: &impl ReadableTable<&'static [u8], &'static [u8]>, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
    if from >= to {
        return Ok(());
    }
    for row in table.range(from..to).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if visit(key.value(), value.value()).is_break() {
            break;
        }
    }
    Ok(())
}

impl Kv for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.rows.as_ref().map_or(Ok(None), |rows| get(rows, key))
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.rows.as_ref().map_or(Ok(()), |rows| scan(rows, from, to, visit))
    }
}

/// Rows inside a write transaction.
struct Rows<'t>(Table<'t, &'static [u8], &'static [u8]>);

impl Kv for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&self.0, key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        scan(&self.0, from, to, visit)
    }
}

impl KvMut for Rows<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value).map_err(failed)?;
        Ok(())
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.0.remove(key).map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
