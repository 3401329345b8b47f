//! Collection: shards of uploads that were never committed are dropped once the catalog says that
//! they have expired, which is 24 h after their ids were issued, by its own time. (Shards of objects
//! that died come by the feed, see [`super::reconcile`].)
//!
//! The brake: a catalog whose feed ends before what this node has already followed was rolled back, or
//! is another one. It must not be able to erase data; so nothing is dropped any more, by feed or by
//! expiry, until an operator has looked and removed the mark. What must be rebuilt still is.

use super::state::{Device, State};
use env::DiskExt;
use model::cluster::ObjectState;
use model::command::{Answer, Query};
use model::{ObjectId, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(3600);
/// Objects younger than this are not asked about.
const YOUNG_MS: u64 = 25 * 3600 * 1000;
/// Shards looked at in one go.
const BATCH: usize = 1024;
/// Objects in one question.
const ASK: usize = 256;

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    loop {
        state.env.sleep(ROUND).await;
        if let Err(e) = collect_now(&state).await {
            tracing::debug!(error = %e, "collection cannot go on now");
        }
    }
}

/// Drops what has expired; answers how many objects that were.
pub(crate) async fn collect_now(state: &State) -> Result<u64> {
    let mut dropped = 0;
    for device in &state.devices {
        dropped += collect_device(state, device).await?;
    }
    Ok(dropped)
}

async fn collect_device(state: &State, device: &Device) -> Result<u64> {
    let mut dropped = 0;
    let mut after = None;
    loop {
        let batch = device.store.list(after, BATCH).await?;
        let now = state.memory().catalog_ms;
        let old = |o: &ObjectId| o.time_ms().saturating_add(YOUNG_MS) < now;
        let objects: BTreeSet<ObjectId> = batch.iter().map(|(s, _)| s.chunk.object).filter(old).collect();
        let objects: Vec<ObjectId> = objects.into_iter().collect();
        for some in objects.chunks(ASK) {
            let Answer::Objects(states) = state.link.ask(&Query::Objects(some.to_vec())).await? else {
                return Err(super::link::confused());
            };
            for (object, is) in some.iter().zip(states) {
                if is == ObjectState::Expired && !state.is_frozen() {
                    device.store.drop_object(*object).await?;
                    dropped += 1;
                }
            }
        }
        after = batch.last().map(|(shard, _)| *shard).filter(|_| batch.len() == BATCH);
        if after.is_none() {
            return Ok(dropped);
        }
    }
}

impl State {
    /// Where the mark of a frozen collection lies.
    fn mark(&self) -> Option<PathBuf> {
        self.devices.first().map(|d| d.dir.join("collection-frozen"))
    }

    /// Whether nothing may be dropped.
    pub fn is_frozen(&self) -> bool {
        self.memory().frozen
    }

    /// At the start: a mark left by an earlier one holds.
    pub async fn load_brake(&self) {
        let Some(mark) = self.mark() else { return };
        let disk = self.env.disk.clone();
        let frozen = self.env.blocking(move || disk.exists(&mark)).await;
        self.memory().frozen = frozen;
    }

    /// Remembers how far the catalog's feed was followed.
    pub fn followed(&self, feed: u64) {
        let memory = &mut *self.memory();
        memory.followed = memory.followed.max(feed);
    }

    /// Pulls the brake when the feed ends before what was followed already.
    pub async fn check_brake(&self, feed: u64) {
        let followed = {
            let memory = &mut *self.memory();
            if memory.frozen || feed >= memory.followed {
                return;
            }
            memory.frozen = true;
            // Other numbers mean other things now: all of the feed is read again.
            memory.rewind = true;
            memory.followed
        };
        if let Some(mark) = self.mark() {
            let disk = self.env.disk.clone();
            let text = format!("the catalog's feed ended at {feed}, and this node had followed it to {followed}\n");
            if let Err(e) = self.env.blocking(move || disk.replace(&mark, text.as_bytes())).await {
                tracing::error!(error = %e, "the mark of the frozen collection cannot be written");
            }
        }
        let detail = format!("the catalog knows {feed} changes, this node has followed {followed}: collection is frozen");
        self.link.report("catalog-went-back", detail).await;
    }
}
