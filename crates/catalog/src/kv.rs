//! The ordered key-value store under the catalog, as a trait; in memory for tests; and the overlay
//! in which a command's changes gather until it has succeeded.

use model::Result;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// Called with key and value of each row of a scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Rows in order of their keys. An error means that the store failed, never that a row is missing.
pub trait Kv {
    /// The value at a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Visits the rows in `[from, to)` in order until told to break.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()>;
}

/// Rows that can be changed.
pub trait KvMut: Kv {
    /// Sets a value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Removes a row; one that is not there is no error.
    fn delete(&mut self, key: &[u8]) -> Result<()>;
}

/// Rows in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryKv(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryKv {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(key).cloned())
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        if from < to {
            for (key, value) in self.0.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
                if visit(key, value).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl KvMut for MemoryKv {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }
}

/// Changes on top of a store that nobody sees until they are written through: a command that fails
/// halfway leaves nothing.
pub(crate) struct Staged<'a> {
    below: &'a mut dyn KvMut,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Staged<'a> {
    pub fn new(below: &'a mut dyn KvMut) -> Self {
        Staged { below, changes: BTreeMap::new() }
    }

    /// Forgets all changes.
    pub fn discard(&mut self) {
        self.changes.clear();
    }

    /// Writes all changes through.
    pub fn write(self) -> Result<()> {
        for (key, value) in self.changes {
            match value {
                Some(value) => self.below.put(&key, &value)?,
                None => self.below.delete(&key)?,
            }
        }
        Ok(())
    }
}

impl Kv for Staged<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut ours = self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).peekable();
        let mut stopped = false;
        self.below.scan(from, to, &mut |key, value| {
            // Our changes that come before this row, then the row, unless we have changed it.
            while let Some((k, v)) = ours.next_if(|(k, _)| k.as_slice() < key) {
                if let Some(v) = v
                    && visit(k, v).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match ours.next_if(|(k, _)| k.as_slice() == key) {
                Some((_, None)) => ControlFlow::Continue(()),
                Some((_, Some(changed))) => visit(key, changed),
                None => visit(key, value),
            };
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            for (k, v) in ours {
                if let Some(v) = v
                    && visit(k, v).is_break()
                {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl KvMut for Staged<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.changes.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.changes.insert(key.to_vec(), None);
        Ok(())
    }
}
