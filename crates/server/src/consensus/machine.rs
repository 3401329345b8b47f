//! The state machine: committed entries into the catalog, a batch in one transaction.

use super::Digest;
use super::types::{Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::store::{Store, View};
use env::Env;
use futures::{Stream, StreamExt};
use model::{Error, Result};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::io;
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
}

fn other(e: Error) -> io::Error {
    io::Error::other(e.message)
}

impl Machine {
    /// Over an open database. Blocking.
    pub fn new(env: Env, store: Store, checkpoint_every: u64) -> Result<Self> {
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
        self.env.blocking(move || store.checkpoint()).await
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
            let bytes = postcard::to_stdvec(&state).map_err(crate::store::failed)?;
            Ok(((replies, state), bytes))
        })?;
        self.applied.send_replace(state.0.map_or(0, |l| l.index));
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) += count;
        Ok(replies)
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

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + openraft::OptionalSend,
    {
        let mut more = true;
        while more {
            let (mut batch, mut responders) = (Vec::new(), Vec::new());
            while batch.len() < BATCH {
                let Some(item) = entries.next().await else {
                    more = false;
                    break;
                };
                let (entry, responder) = item?;
                batch.push(entry);
                responders.push(responder);
            }
            if batch.is_empty() {
                break;
            }
            let replies = self.apply_batch(batch).map_err(other)?;
            for (reply, responder) in replies.into_iter().zip(responders) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            if *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) >= self.checkpoint_every {
                self.checkpoint().await.map_err(other)?;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Arc<View>) -> io::Result<()> {
        let state: State = (meta.last_log_id, meta.last_membership.clone());
        let bytes = postcard::to_stdvec(&state).map_err(io::Error::other)?;
        let store = self.store.clone();
        self.env.blocking(move || store.replace(&snapshot, &bytes)).await.map_err(other)?;
        *self.since_checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = 0;
        let applied = state.0.map_or(0, |l| l.index);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.applied.send_replace(applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Arc<View>>>> {
        if self.state().0.is_none() {
            return Ok(None);
        }
        self.snapshot().map(Some).map_err(other)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Arc<View>;

    /// The database made durable is the snapshot: from here on the log before it may be purged.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Arc<View>>> {
        self.checkpoint().await.map_err(other)?;
        self.snapshot().map_err(other)
    }
}
