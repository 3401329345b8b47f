//! The state machine: committed entries into the catalog, a batch in one transaction.

use super::Digest;
use super::failure::Failure;
use super::types::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::store::{Store, View, failed};
use env::Env;
use futures::{FutureExt, Stream, StreamExt};
use model::{Error, Kind, Result};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Entries applied in one transaction at most: bounds memory while a long log is applied again.
const BATCH: usize = 64;

/// The last entry applied, and who was in the group by then.
pub(crate) type State = (Option<LogId>, StoredMembership);

/// The catalog as a state machine. Clones share it.
#[derive(Clone)]
pub(crate) struct Machine {
    env: Env,
    store: Store,
    state: Arc<Mutex<State>>,
    applied: Arc<watch::Sender<u64>>,
    since_checkpoint: Arc<Mutex<u64>>,
    /// Applied entries after which the database is made durable.
    checkpoint_every: u64,
    failure: Failure,
}

fn other(e: Error) -> io::Error {
    io::Error::other(e.message)
}

impl Machine {
    /// Over an open database; when that fails later it is noted. Blocking.
    pub fn new(env: Env, store: Store, checkpoint_every: u64, failure: Failure) -> Result<Self> {
        let state: State = match store.view()?.applied()? {
            None => Default::default(),
            Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| Error::corrupt("the catalog's applied position cannot be read"))?,
        };
        let index = state.0.map_or(0, |l| l.index);
        Ok(Machine {
            env,
            store,
            state: Arc::new(Mutex::new(state)),
            applied: Arc::new(watch::Sender::new(index)),
            since_checkpoint: Arc::default(),
            checkpoint_every,
            failure,
        })
    }

    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Tells whenever that grows.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// A view of the rows.
    pub fn view(&self) -> Result<View> {
        self.store.view()
    }

    /// Whether anything was applied since the database was made durable.
    pub fn is_behind(&self) -> bool {
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }

    /// Makes the database durable.
    pub async fn checkpoint(&self) -> Result<()> {
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let store = self.store.clone();
        self.guarded(self.env.blocking(move || store.checkpoint())).await
    }

    /// Does something with the database, and notes when that fails; also by a panic, such as redb's over pages that
    /// make no sense: openraft would not notice it, and wait for ever.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = AssertUnwindSafe(work).catch_unwind().await;
        let done = done.unwrap_or_else(|_| Err(failed("its pages make no sense, or this is a bug")));
        done.inspect_err(|e| self.failure.note(&e.message, Kind::Unavailable))
    }

    /// Applies entries as one transaction and answers in their order.
    fn apply_batch(&self, entries: Vec<Entry>) -> Result<Vec<Reply>> {
        let mut state = self.state();
        let count = entries.len() as u64;
        let (replies, state) = self.store.change(|kv| {
            let mut replies = Vec::with_capacity(entries.len());
            for entry in entries {
                state.0 = Some(entry.log_id);
                replies.push(Reply(match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(entered) => Some(catalog::apply(kv, &entered.0)?),
                    EntryPayload::Membership(membership) => {
                        state.1 = StoredMembership::new(Some(entry.log_id), membership);
                        None
                    }
                }));
            }
            let bytes = postcard::to_stdvec(&state).map_err(failed)?;
            Ok(((replies, state), bytes))
        })?;
        self.applied.send_replace(state.0.map_or(0, |l| l.index));
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) += count;
        Ok(replies)
    }

    /// Applies all entries, as many at once as there are but for [`BATCH`], and answers who waits for them.
    async fn apply_all<S>(&self, mut entries: S) -> Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin,
    {
        let mut more = true;
        while more {
            let (mut batch, mut responders) = (Vec::new(), Vec::new());
            while batch.len() < BATCH {
                let Some(item) = entries.next().await else {
                    more = false;
                    break;
                };
                let (entry, responder) = item.map_err(|e| Error::unavailable(e.to_string()))?;
                batch.push(entry);
                responders.push(responder);
            }
            if batch.is_empty() {
                break;
            }
            let replies = self.apply_batch(batch)?;
            for (reply, responder) in replies.into_iter().zip(responders) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            if *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) >= self.checkpoint_every {
                self.checkpoint().await?;
            }
        }
        Ok(())
    }

    /// Puts a snapshot in the place of all rows.
    async fn install(&self, meta: &SnapshotMeta, snapshot: &Arc<View>) -> Result<()> {
        let state: State = (meta.last_log_id, meta.last_membership.clone());
        let bytes = postcard::to_stdvec(&state).map_err(failed)?;
        let (store, snapshot) = (self.store.clone(), snapshot.clone());
        self.env.blocking(move || store.replace(&snapshot, &bytes)).await?;
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let applied = state.0.map_or(0, |l| l.index);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.applied.send_replace(applied);
        Ok(())
    }

    /// Reads all rows.
    pub fn digest(&self) -> Result<Digest> {
        let Snapshot { meta, snapshot } = self.snapshot()?;
        let kept = snapshot.sum()?.ok_or_else(|| Error::corrupt("no sum stands with the catalog's rows"))?.to_bytes();
        let counted = snapshot.sum_of_rows()?.to_bytes();
        Ok(Digest { index: meta.last_log_id.map_or(0, |l| l.index), kept, counted })
    }

    fn meta((last_log_id, last_membership): State) -> SnapshotMeta {
        SnapshotMeta { last_log_id, last_membership }
    }

    /// A snapshot is a view of the database with the position in that same view.
    fn snapshot(&self) -> Result<Snapshot<Arc<View>>> {
        let view = self.store.view()?;
        let state: State = match view.applied()? {
            None => Default::default(),
            Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| Error::corrupt("the catalog's applied position cannot be read"))?,
        };
        Ok(Snapshot { meta: Self::meta(state), snapshot: Arc::new(view) })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    /// A consistent view, read row by row: never a copy in memory.
    type SnapshotData = Arc<View>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<State> {
        Ok(self.state())
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + openraft::OptionalSend,
    {
        self.guarded(self.apply_all(entries)).await.map_err(other)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Arc<View>) -> io::Result<()> {
        self.guarded(self.install(meta, &snapshot)).await.map_err(other)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Arc<View>>>> {
        if self.state().0.is_none() {
            return Ok(None);
        }
        self.guarded(async { self.snapshot().map(Some) }).await.map_err(other)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Arc<View>;

    /// The database made durable is the snapshot: from here on the log before it may be purged.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Arc<View>>> {
        self.checkpoint().await.map_err(other)?;
        self.guarded(async { self.snapshot() }).await.map_err(other)
    }
}
