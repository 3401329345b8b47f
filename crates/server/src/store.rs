//! The catalog's rows on redb, over `env::Disk`.
//!
//! The Raft log is the write-ahead log: applies commit with `Durability::None`, and a checkpoint
//! makes everything so far durable, with the log id that was applied last in the same transaction.
//! After a crash the file is as of the last checkpoint, and the log is applied again from there.
//!
//! With the rows stands a [`Sum`] over them, brought up to date with each change, and compared with all rows
//! now and then: the database itself does not notice when the disk gives other bytes than it was given.

mod backend;
mod sum;

use backend::Backend;
use catalog::kv::{Kv, KvMut, Visit};
use env::{Env, Open};
use model::{Error, Kind, Result};
use redb::{
    Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, StorageError, Table,
    TableDefinition, WriteTransaction,
};
use shards::DatabaseFile;
use std::io::{self, ErrorKind::InvalidData, ErrorKind::UnexpectedEof};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(crate) use sum::Sum;

const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Cache of the database, in bytes (redb's own default is 1 GiB).
const CACHE: usize = 32 << 20;
/// Beyond every key.
pub(crate) const END: &[u8] = &[0xff; 64];
/// Version of the file's contents.
const FORMAT: u8 = 1;

/// A storage failure in words.
pub(crate) fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unavailable, format!("the catalog's database failed: {e}"))
}

/// redb over a file.
fn database(file: Arc<dyn env::File>, path: &Path, told: impl Fn(String, bool) + Send + Sync + 'static) -> Result<Database> {
    let backend = Backend { file: DatabaseFile(file), path: path.into(), told };
    Database::builder().set_cache_size(CACHE).create_with_backend(backend).map_err(|e| match e {
        // The disk does not answer. (A file that is too short, or none of redb's, is damage.)
        DatabaseError::Storage(StorageError::Io(e)) if !matches!(e.kind(), UnexpectedEof | InvalidData) => {
            Error::unavailable(format!("{}: {e}", path.display()))
        }
        e => Error::corrupt(format!("{}: {e}", path.display())),
    })
}

/// The catalog's database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store(Arc<Held>);

struct Held {
    db: Database,
    /// Goes after it: a database that is closed in the background is not opened a second time meanwhile.
    _lock: Option<Arc<dyn env::File>>,
}

impl Store {
    /// Opens or creates the database. `told` hears of each error of its disk, and whether that is full: after the first it is to be
    /// opened anew. `Unavailable` while somebody has it open. Blocking.
    pub fn open(env: &Env, path: &Path, told: impl Fn(String, bool) + Clone + Send + Sync + 'static) -> Result<Self> {
        let io = |e: io::Error| Error::unavailable(format!("{}: {e}", path.display()));
        let lock = env.disk.lock(&path.with_extension("lock")).map_err(io)?;
        if !env.disk.try_exists(path).map_err(io)? {
            // Under another name until it is whole: one whose making was cut short would be called damaged.
            let unfinished = path.with_extension("making");
            if env.disk.try_exists(&unfinished).map_err(io)? {
                env.disk.remove_file(&unfinished).map_err(io)?;
            }
            drop(database(env.disk.open(&unfinished, Open::New).map_err(io)?, &unfinished, told.clone())?);
            env.disk.rename(&unfinished, path).map_err(io)?;
        }
        let db = database(env.disk.open(path, Open::Existing).map_err(io)?, path, told)?;
        let store = Store(Arc::new(Held { db, _lock: Some(lock) }));
        let version = store.view()?.meta("format")?;
        match version.as_deref() {
            None => {
                let write = store.begin(true)?;
                put_meta(&write, "format", &[FORMAT])?;
                write.open_table(ROWS).map_err(failed)?;
                put_sum(&write, Sum::default(), None)?;
                write.commit().map_err(failed)?;
                env.disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
            }
            Some([FORMAT]) => store.sum_up()?,
            Some(_) => return Err(Error::invalid(format!("{} is of a version that this software does not know", path.display()))),
        }
        Ok(store)
    }

    /// A consistent view of everything committed so far.
    pub fn view(&self) -> Result<View> {
        let read = self.0.db.begin_read().map_err(failed)?;
        View::new(read)
    }

    /// Where none stands with the rows as they are, because a version before this one wrote them: the sum.
    fn sum_up(&self) -> Result<()> {
        let view = self.view()?;
        if view.sum()?.is_some() {
            return Ok(());
        }
        tracing::warn!("no sum stands with the catalog's rows, as after a version without sums: it is made anew");
        let write = self.begin(true)?;
        put_sum(&write, view.sum_of_rows()?, view.applied()?.as_deref())?;
        write.commit().map_err(failed)
    }

    fn begin(&self, durable: bool) -> Result<WriteTransaction> {
        let mut write = self.0.db.begin_write().map_err(failed)?;
        write.set_durability(if durable { Durability::Immediate } else { Durability::None }).map_err(failed)?;
        // What is durable can be opened after a crash without a walk through all of the file.
        write.set_quick_repair(durable);
        Ok(write)
    }

    /// Changes rows, and records `applied` (opaque to this module) with them: all or nothing.
    /// Durable only with the next [`Store::checkpoint`].
    pub fn change<T>(&self, change: impl FnOnce(&mut dyn KvMut) -> Result<(T, Vec<u8>)>) -> Result<T> {
        let write = self.begin(false)?;
        let (value, applied, sum) = {
            let mut rows = Rows { sum: sum_in(&write)?, table: write.open_table(ROWS).map_err(failed)? };
            let (value, applied) = change(&mut rows)?;
            (value, applied, rows.sum)
        };
        put_meta(&write, "applied", &applied)?;
        put_sum(&write, sum, Some(&applied))?;
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
        let mut sum = Sum::default();
        {
            let mut rows = write.open_table(ROWS).map_err(failed)?;
            let mut put = Ok(());
            from.scan(&[], END, &mut |key, value| {
                sum.add(key, value);
                match rows.insert(key, value) {
                    Ok(_) => ControlFlow::Continue(()),
                    Err(e) => {
                        put = Err(failed(e));
                        ControlFlow::Break(())
                    }
                }
            })?;
            put?;
        }
        put_meta(&write, "applied", applied)?;
        put_sum(&write, sum, Some(applied))?;
        write.commit().map_err(failed)
    }
}

fn put_meta(write: &WriteTransaction, key: &str, value: &[u8]) -> Result<()> {
    let mut meta = write.open_table(META).map_err(failed)?;
    meta.insert(key, value).map_err(failed)?;
    Ok(())
}

/// What a sum is of: the position that was applied last, where anything was.
fn mark(applied: Option<&[u8]>) -> [u8; 16] {
    let mut mark = [0; 16];
    blake3::Hasher::new().update(applied.unwrap_or(&[])).finalize_xof().fill(&mut mark);
    mark
}

/// With what it is of, so that one is not believed that a version without sums has left behind.
fn put_sum(write: &WriteTransaction, sum: Sum, applied: Option<&[u8]>) -> Result<()> {
    put_meta(write, "sum", &[sum.to_bytes(), mark(applied)].concat())
}

/// The sum inside a transaction. `Corrupt` where there is none: every open makes sure that there is.
fn sum_in(write: &WriteTransaction) -> Result<Sum> {
    let meta = write.open_table(META).map_err(failed)?;
    let held = meta.get("sum").map_err(failed)?;
    let sum = held.as_ref().and_then(|held| held.value().first_chunk()).map(|sum| Sum::from_bytes(*sum));
    sum.ok_or_else(|| Error::corrupt("the catalog's database has lost the sum over its rows"))
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
        let db = database(file, path, |_, _| ())?;
        Ok(Scratch { store: Store(Arc::new(Held { db, _lock: None })), _file: scrap })
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

    /// The sum over the rows as they were written; `None` where a version before sums wrote them last.
    pub fn sum(&self) -> Result<Option<Sum>> {
        let (held, mark) = (self.meta("sum")?, mark(self.applied()?.as_deref()));
        let held = held.and_then(|held| <[u8; 32]>::try_from(held).ok());
        Ok(held.and_then(|held| {
            let (sum, of) = held.split_first_chunk::<16>()?;
            (*of == mark).then(|| Sum::from_bytes(*sum))
        }))
    }

    /// The sum over the rows as they are. Reads all of them.
    pub fn sum_of_rows(&self) -> Result<Sum> {
        let mut sum = Sum::default();
        self.sum_some(None, usize::MAX, &mut sum)?;
        Ok(sum)
    }

    /// Adds the rows after a key to a sum, about so many bytes of them. The last one's key; `None` at the end.
    pub fn sum_some(&self, after: Option<&[u8]>, most: usize, sum: &mut Sum) -> Result<Option<Vec<u8>>> {
        let from = after.map_or_else(Vec::new, |key| [key, &[0]].concat());
        let (mut bytes, mut last) = (0, None);
        self.scan(&from, END, &mut |key, value| {
            sum.add(key, value);
            bytes += key.len() + value.len();
            if bytes < most {
                return ControlFlow::Continue(());
            }
            last = Some(key.to_vec());
            ControlFlow::Break(())
        })?;
        Ok(last)
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

/// Rows inside a write transaction, and the sum over them.
struct Rows<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    sum: Sum,
}

impl Kv for Rows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&self.table, key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        scan(&self.table, from, to, visit)
    }
}

impl KvMut for Rows<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(old) = self.table.insert(key, value).map_err(failed)? {
            self.sum.take(key, old.value());
        }
        self.sum.add(key, value);
        Ok(())
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        if let Some(old) = self.table.remove(key).map_err(failed)? {
            self.sum.take(key, old.value());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
