//! One command's work on the rows: typed reads and writes, and the line between a refusal, which
//! every replica computes alike, and a failure of the store, which none may mistake for one.

use crate::key::{self, Key};
use crate::kv::{Kv, KvMut, Staged};
use crate::row::Counters;
use minicbor::{Decode, Encode};
use model::cluster::Event;
use model::{Error, Hash, NodeId, cbor};
use std::ops::ControlFlow;

/// Why a command stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// By its rules: the answer to the caller.
    Refused(Error),
    /// The store failed or holds nonsense: this replica must not go on.
    Failed(Error),
}

impl From<Error> for Stop {
    /// Errors of checks are refusals. Those of the store are told apart in [`Tx`].
    fn from(e: Error) -> Self {
        Stop::Refused(e)
    }
}

/// Result of a step of a command.
pub(crate) type Step<T> = Result<T, Stop>;

fn failed(e: Error) -> Stop {
    Stop::Failed(e)
}

/// A command's view of the rows.
pub(crate) struct Tx<'a> {
    pub kv: Staged<'a>,
    /// Log time, milliseconds since 1970.
    pub now: u64,
    pub counters: Counters,
    /// Rows were written of which everybody keeps a copy: see [`key::is_map`].
    map: bool,
}

impl<'a> Tx<'a> {
    /// Begins at log time: the greatest of all proposals so far, this one included.
    pub fn begin(below: &'a mut dyn KvMut, time_ms: u64) -> Step<Self> {
        let kv = Staged::new(below);
        let mut tx = Tx { kv, now: 0, counters: Counters::default(), map: false };
        tx.load(time_ms)?;
        Ok(tx)
    }

    fn load(&mut self, time_ms: u64) -> Step<()> {
        self.counters = self.get(&key::counters())?.unwrap_or_default();
        self.now = time_ms.max(self.counters.time_ms);
        Ok(())
    }

    /// Forgets what the command did; log time goes on.
    pub fn discard(&mut self) -> Step<()> {
        self.kv.discard();
        self.map = false;
        self.load(self.now)
    }

    /// Writes everything through.
    pub fn finish(mut self) -> Step<()> {
        self.counters.time_ms = self.now;
        self.counters.revision += u64::from(self.map);
        let counters = self.counters.clone();
        self.put(&key::counters(), &counters)?;
        self.kv.write().map_err(failed)
    }

    /// A row.
    pub fn get<T: for<'b> Decode<'b, ()>>(&self, key: &[u8]) -> Step<Option<T>> {
        match self.kv.get(key).map_err(failed)? {
            Some(bytes) => cbor::from_slice(&bytes).map(Some).map_err(failed),
            None => Ok(None),
        }
    }

    /// Whether there is a row.
    pub fn has(&self, key: &[u8]) -> Step<bool> {
        Ok(self.kv.get(key).map_err(failed)?.is_some())
    }

    /// Writes a row.
    pub fn put<T: Encode<()>>(&mut self, key: &[u8], value: &T) -> Step<()> {
        self.map |= key::is_map(key);
        self.kv.put(key, &cbor::to_vec(value)).map_err(failed)
    }

    /// Removes a row.
    pub fn delete(&mut self, key: &[u8]) -> Step<()> {
        self.map |= key::is_map(key);
        self.kv.delete(key).map_err(failed)
    }

    /// Keys in `[from, to)`, at most so many.
    pub fn keys(&self, from: &[u8], to: &[u8], limit: usize) -> Step<Vec<Key>> {
        let mut keys = Vec::new();
        if limit > 0 {
            let mut visit = |key: &[u8], _: &[u8]| {
                keys.push(key.to_vec());
                if keys.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            self.kv.scan(from, to, &mut visit).map_err(failed)?;
        }
        Ok(keys)
    }

    /// Rows whose keys begin so.
    pub fn rows<T: for<'b> Decode<'b, ()>>(&self, prefix: &[u8]) -> Step<Vec<T>> {
        crate::query::rows(&self.kv, prefix).map_err(failed)
    }

    /// A row that must be there: without it the store holds nonsense.
    pub fn must<T: for<'b> Decode<'b, ()>>(&self, key: &[u8]) -> Step<T> {
        self.get(key)?.ok_or_else(|| failed(Error::corrupt(format!("a row of table {:#04x} is missing", key.first().unwrap_or(&0)))))
    }

    /// Appends to the event log.
    pub fn event(&mut self, what: &str, node: Option<NodeId>, detail: String) -> Step<()> {
        let seq = self.counters.totals.events + 1;
        let prev = self.counters.last_event.unwrap_or(Hash([0; 32]));
        let event = Event { seq, time_ms: self.now, what: what.into(), node, detail, prev };
        self.put(&key::event(seq), &event)?;
        self.counters.totals.events = seq;
        self.counters.last_event = Some(Hash::of(&cbor::to_vec(&event)));
        Ok(())
    }
}
