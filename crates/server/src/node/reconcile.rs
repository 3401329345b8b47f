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
use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use model::cluster::{FeedItem, ObjectState};
use model::command::{Answer, Query};
use model::{DeviceId, Error, Kind, ObjectId, Result, ShardRef};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wire::coordinator::RepairReport;

/// Chunks younger than this are left alone.
pub const AGE: Duration = Duration::from_secs(5);
/// Items of the feed in one question.
const PAGE: u32 = 512;
/// Rebuilds at once, of one object and of all (see [`State::rebuilds`]).
pub(crate) const AT_ONCE: usize = 4;
/// Objects worked on at once.
const OBJECTS_AT_ONCE: usize = 8;
/// Missing shards of one object that are counted before the work; more are done, not counted.
const COUNTED: usize = 100_000;
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
    state.memory().report.whole_to = cursors.iter().map(|c| c.done).min().unwrap_or(0);
    let mut pause = PAUSE;
    loop {
        if std::mem::take(&mut state.memory().rewind) {
            cursors.iter_mut().for_each(|c| c.done = 0);
        }
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
        {
            let report = &mut state.memory().report;
            (report.lost, report.shards, report.bytes) = (0, 0, 0);
        }
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
    let left = stream::iter(waiting)
        .map(|(id, shard)| again(state, id, shard).boxed())
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect::<Vec<_>>()
        .await;
    state.memory().urgent.extend(left);
}

/// Rebuilds one shard that was set aside; gives it back when that must be tried again.
async fn again(state: &Arc<State>, id: DeviceId, shard: ShardRef) -> Option<(DeviceId, ShardRef)> {
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
}

/// One round of one device. Whether all of it succeeded; an error only where going on makes no sense
/// (no coordinator answers, the disk is full).
async fn round(state: &Arc<State>, device: &Device, cursor: &mut Cursor, target: u64) -> Result<bool> {
    let mut after = cursor.done;
    let mut whole = true;
    while after < target {
        let Answer::Feed(items, more) = state.link.ask(&Query::Feed { after, limit: PAGE }).await? else {
            return Err(super::link::confused());
        };
        let items: Vec<(u64, FeedItem)> = items.into_iter().filter(|(number, _)| *number > after && *number <= target).collect();
        let Some((last, _)) = items.last() else { break };
        let last = *last;
        whole &= page(state, device, items.into_iter().map(|(_, item)| item)).await?;
        after = last;
        if whole {
            cursor.advance(state, after).await?;
        }
        if !more {
            break;
        }
    }
    if whole {
        // The feed has nothing between its last item and the target.
        cursor.advance(state, target).await?;
    }
    Ok(whole)
}

/// Does what a page of the feed asks for. Whether all of it succeeded.
async fn page(state: &Arc<State>, device: &Device, items: impl Iterator<Item = FeedItem>) -> Result<bool> {
    let mut wanting = Vec::new();
    for item in items {
        let object = match &item {
            FeedItem::Dead(_) if state.is_frozen() => continue,
            FeedItem::Dead(object) => {
                device.store.drop_object(*object).await?;
                continue;
            }
            FeedItem::Live(object, _) => object,
        };
        let (id, each) = (object.object, shard_bytes(object.policy));
        let held = held(device, id).await?;
        let shards = missing(state, device, &item, &held).take(COUNTED).count() as u64;
        if shards > 0 {
            wanting.push((id, item, shards, shards * each));
        }
    }
    if wanting.is_empty() {
        return Ok(true);
    }
    // The feed tells history: an object may have died since.
    let ids: Vec<ObjectId> = wanting.iter().map(|(id, ..)| *id).collect();
    let Answer::Objects(states) = state.link.ask(&Query::Objects(ids)).await? else { return Err(super::link::confused()) };
    let wanting: Vec<_> = wanting.into_iter().zip(states).filter(|(_, s)| *s == ObjectState::Live).map(|(w, _)| w).collect();
    let (shards, bytes) = wanting.iter().fold((0, 0), |sum, (_, _, shards, bytes)| (sum.0 + shards, sum.1 + bytes));
    state.to_do(|report| (report.shards + shards, report.bytes + bytes));
    let outcomes = stream::iter(wanting).map(|(id, item, shards, bytes)| {
        let outcome = async move {
            let outcome = heal_object(state, device, id, item).await;
            // What failed is still to do, and is said so until the next round counts again.
            if matches!(outcome, Ok(true)) {
                state.to_do(|report| (report.shards.saturating_sub(shards), report.bytes.saturating_sub(bytes)));
            }
            outcome
        };
        outcome.boxed()
    });
    all(outcomes.buffer_unordered(OBJECTS_AT_ONCE)).await
}

/// Rebuilds what a device misses of an object. Whether all of it succeeded.
async fn heal_object(state: &Arc<State>, device: &Device, id: ObjectId, item: FeedItem) -> Result<bool> {
    let held = held(device, id).await?;
    let outcomes = stream::iter(missing(state, device, &item, &held)).map(|step| heal(state, device, step).boxed());
    all(outcomes.buffer_unordered(AT_ONCE)).await
}

/// Carries out a step. Whether it succeeded.
async fn heal(state: &Arc<State>, device: &Device, step: RepairStep) -> Result<bool> {
    let (shard, policy) = match step {
        RepairStep::Rebuild { shard, policy, .. } => (shard, policy),
        RepairStep::Drop(object) => return device.store.drop_object(object).await.map(|()| true),
    };
    match rebuild(state, device, shard, Some(policy)).await {
        Ok(bytes) => {
            state.healed(bytes);
            Ok(true)
        }
        Err(e) if e.kind == Kind::Insufficient => Err(e),
        Err(e) => {
            let chunk = shard.chunk;
            tracing::warn!(object = %chunk.object, chunk = chunk.number, index = shard.index, error = %e, "a shard cannot be rebuilt now");
            if e.kind == Kind::Corrupt {
                state.memory().report.lost += 1;
            }
            Ok(false)
        }
    }
}

/// Whether all succeed; the first error ends it.
async fn all(outcomes: impl Stream<Item = Result<bool>>) -> Result<bool> {
    let mut outcomes = std::pin::pin!(outcomes);
    let mut all = true;
    while let Some(outcome) = outcomes.next().await {
        all &= outcome?;
    }
    Ok(all)
}

/// What a device misses of an item of the feed.
fn missing<'a>(
    state: &Arc<State>,
    device: &Device,
    item: &'a FeedItem,
    held: &'a BTreeSet<ShardRef>,
) -> Box<dyn Iterator<Item = RepairStep> + Send + 'a> {
    steps(item, device.id, |width| state.map.layout(width), |shard| held.contains(shard))
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

    /// Sets what is known to be to do: shards and bytes.
    fn to_do(&self, change: impl FnOnce(&RepairReport) -> (u64, u64)) {
        let report = &mut self.memory().report;
        (report.shards, report.bytes) = change(report);
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
        let stored = read.and_then(|bytes| bytes.try_into().ok().map(u64::from_be_bytes)).unwrap_or(0);
        state.followed(stored);
        Cursor { file, done: if device.store.is_suspect() { 0 } else { stored } }
    }

    async fn advance(&mut self, state: &State, done: u64) -> Result<()> {
        if done <= self.done {
            return Ok(());
        }
        let (disk, path) = (state.env.disk.clone(), self.file.clone());
        let written = state.env.blocking(move || disk.replace(&path, &done.to_be_bytes())).await;
        written.map_err(|e| Error::unavailable(format!("cannot write {}: {e}", self.file.display())))?;
        self.done = done;
        state.followed(done);
        Ok(())
    }
}
