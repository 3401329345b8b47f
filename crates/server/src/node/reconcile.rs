//! Reconciliation: the node makes itself whole. One loop reads the catalog's feed of live and dead
//! objects from a durable cursor, finds the shards that the layout puts here and that are not here,
//! and rebuilds each from `k` others; what is dead it drops. Shards that were set aside come first.
//!
//! A round goes from the cursor to the end of the feed as it was [`AGE`] ago: younger chunks may
//! still be under way. A step that fails does not stop the round; the durable cursor then stays
//! before it, and the next round, later each time, tries again. So memory is bounded whatever
//! happens, and a crash costs no more than looking once more.

use super::plan::{RepairStep, shard_bytes, steps};
use super::rebuild::rebuild;
use super::state::{Device, State};
use env::DiskExt;
use futures::stream::{self, StreamExt};
use model::cluster::{FeedItem, ObjectState};
use model::command::{Answer, Query};
use model::{DeviceId, Error, Kind, ObjectId, Result, ShardRef};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Chunks younger than this are left alone.
pub const AGE: Duration = Duration::from_secs(5);
/// Items of the feed in one question.
const PAGE: u32 = 512;
/// Rebuilds at once.
const AT_ONCE: usize = 4;
/// Pause after a round with failures: doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Where a device stands in the feed.
struct Cursor {
    file: PathBuf,
    /// Everything up to here is done, and durably so.
    done: u64,
}

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let mut cursors = Vec::new();
    for device in &state.devices {
        cursors.push(Cursor::load(&state, device).await);
    }
    let mut pause = PAUSE;
    loop {
        let target = state.memory().feed;
        let behind = cursors.iter().any(|c| c.done < target);
        if !behind && state.memory().urgent.is_empty() {
            // A minute is the longest that a lost wake-up can cost.
            state.env.timeout(Duration::from_secs(60), state.work.notified()).await;
            continue;
        }
        if !state.memory().urgent.is_empty() {
            urgent(&state).await;
        }
        if !behind {
            state.env.sleep(PAUSE).await;
            continue;
        }
        state.env.sleep(AGE).await;
        let mut whole = true;
        state.memory().report.lost = 0;
        for (device, cursor) in state.devices.iter().zip(&mut cursors) {
            match round(&state, device, cursor, target).await {
                Ok(all) => whole &= all,
                Err(e) => {
                    tracing::debug!(device = %device.id, error = %e, "reconciliation cannot go on now");
                    whole = false;
                }
            }
        }
        let done = cursors.iter().map(|c| c.done).min().unwrap_or(0);
        state.memory().report.whole_to = done;
        if whole {
            pause = PAUSE;
        } else {
            state.env.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Rebuilds what was set aside. What fails waits at the end of the queue.
async fn urgent(state: &Arc<State>) {
    let waiting: Vec<(DeviceId, ShardRef)> = state.memory().urgent.drain(..).collect();
    let again = stream::iter(waiting)
        .map(|(id, shard)| async move {
            let device = state.device(&id)?;
            match state.object_state(shard.chunk.object).await {
                Ok(ObjectState::Live) => {}
                Ok(ObjectState::Pending) | Err(_) => return Some((id, shard)),
                Ok(ObjectState::Dead | ObjectState::Expired) => return None,
            }
            match rebuild(state, device, shard, None).await {
                Ok(bytes) => {
                    state.healed(bytes);
                    None
                }
                Err(e) => {
                    tracing::warn!(object = %shard.chunk.object, chunk = shard.chunk.number, error = %e, "a damaged shard cannot be rebuilt now");
                    Some((id, shard))
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|item| async move { item })
        .collect::<Vec<_>>()
        .await;
    state.memory().urgent.extend(again);
}

/// One round of one device. Whether all of it succeeded.
async fn round(state: &Arc<State>, device: &Device, cursor: &mut Cursor, target: u64) -> Result<bool> {
    let mut after = cursor.done;
    let mut failed = false;
    while after < target {
        let Answer::Feed(items, more) = state.link.ask(&Query::Feed { after, limit: PAGE }).await? else {
            return Err(super::link::confused());
        };
        let items: Vec<(u64, FeedItem)> = items.into_iter().filter(|(number, _)| *number > after && *number <= target).collect();
        let Some((last, _)) = items.last() else { break };
        let last = *last;
        for (_, item) in &items {
            failed |= !do_item(state, device, item).await?;
        }
        after = last;
        if !failed {
            cursor.advance(state, after).await?;
        }
        if !more {
            break;
        }
    }
    if !failed {
        // The feed has nothing between the last item and the target.
        cursor.advance(state, target).await?;
    }
    state.memory().report.shards = 0;
    state.memory().report.bytes = 0;
    Ok(!failed)
}

/// Does what one item of the feed asks for. Whether all of it succeeded; an error only where going on
/// makes no sense (no coordinator answers, the disk is full).
async fn do_item(state: &Arc<State>, device: &Device, item: &FeedItem) -> Result<bool> {
    let held = match item {
        FeedItem::Dead(object) => {
            device.store.drop_object(*object).await?;
            return Ok(true);
        }
        FeedItem::Live(object, _) => held(device, object.object).await?,
    };
    let mut missing = steps(item, device.id, |width| state.map.layout(width), |shard| held.contains(shard)).peekable();
    let FeedItem::Live(object, _) = item else { return Ok(true) };
    if missing.peek().is_none() {
        return Ok(true);
    }
    // The feed tells history: the object may have died since.
    if state.object_state(object.object).await? != ObjectState::Live {
        return Ok(true);
    }
    let each = shard_bytes(object.policy);
    let outcomes = stream::iter(missing)
        .map(|step| async move {
            let RepairStep::Rebuild { shard, policy, .. } = step else { return Ok(true) };
            {
                let report = &mut state.memory().report;
                report.shards += 1;
                report.bytes += each;
            }
            let done = rebuild(state, device, shard, Some(policy)).await;
            {
                let report = &mut state.memory().report;
                report.shards = report.shards.saturating_sub(1);
                report.bytes = report.bytes.saturating_sub(each);
            }
            match done {
                Ok(bytes) => {
                    state.healed(bytes);
                    Ok(true)
                }
                Err(e) if e.kind == Kind::Insufficient => Err(e),
                Err(e) => {
                    tracing::warn!(object = %shard.chunk.object, chunk = shard.chunk.number, index = shard.index, error = %e, "a shard cannot be rebuilt now");
                    if e.kind == Kind::Corrupt || e.kind == Kind::NotFound {
                        state.memory().report.lost += 1;
                    }
                    Ok(false)
                }
            }
        })
        .buffer_unordered(AT_ONCE);
    let mut outcomes = std::pin::pin!(outcomes);
    let mut all = true;
    while let Some(outcome) = outcomes.next().await {
        all &= outcome?;
    }
    Ok(all)
}

/// Shards of an object that a device holds.
async fn held(device: &Device, object: ObjectId) -> Result<BTreeSet<ShardRef>> {
    Ok(device.store.of_object(object).await?.into_iter().collect())
}

impl State {
    async fn object_state(&self, object: ObjectId) -> Result<ObjectState> {
        match self.link.ask(&Query::Objects(vec![object])).await? {
            Answer::Objects(states) => states.first().copied().ok_or_else(super::link::confused),
            _ => Err(super::link::confused()),
        }
    }

    fn healed(&self, bytes: u64) {
        let memory = &mut *self.memory();
        memory.report.healed += 1;
        memory.healed_bytes += bytes;
    }
}

impl Cursor {
    /// From the device's folder. A device whose index lost shards, and one without a cursor, begins
    /// at the start.
    async fn load(state: &State, device: &Device) -> Cursor {
        let file = device.dir.join("feed-cursor");
        let (disk, path) = (state.env.disk.clone(), file.clone());
        let read = state.env.blocking(move || disk.read(&path)).await.ok();
        let stored = read.and_then(|bytes| bytes.try_into().ok().map(u64::from_be_bytes));
        Cursor { file, done: if device.store.is_suspect() { 0 } else { stored.unwrap_or(0) } }
    }

    async fn advance(&mut self, state: &State, done: u64) -> Result<()> {
        if done <= self.done {
            return Ok(());
        }
        let (disk, path) = (state.env.disk.clone(), self.file.clone());
        let written = state.env.blocking(move || disk.replace(&path, &done.to_be_bytes())).await;
        written.map_err(|e| Error::unavailable(format!("cannot write {}: {e}", self.file.display())))?;
        self.done = done;
        Ok(())
    }
}
