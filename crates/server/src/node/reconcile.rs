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
use env::{DiskExt, Env};
use futures::FutureExt;
use futures::stream::{self, Stream, StreamExt};
use model::cluster::{FeedItem, ObjectState};
use model::command::{Answer, Query};
use model::{DeviceId, Error, Kind, ObjectId, Result, ShardRef};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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
    /// Everything up to here is done.
    done: u64,
    /// What the file says. Behind it while a suspect device is walked through again: a crash begins
    /// that again, and forgets nothing of how far the feed was ever followed.
    stored: u64,
    /// The device lost shards, or perhaps did: its mark, until the walk is through.
    again: Option<PathBuf>,
    /// What opening found wrong with the log, until the event log has been told.
    untold: Vec<(&'static str, String)>,
    /// That this walk found shards missing has been told.
    named: bool,
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
            cursors.iter_mut().for_each(|c| (c.done, c.stored) = (0, 0));
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
        for (what, detail) in std::mem::take(&mut cursor.untold) {
            state.link.report(what, detail).await;
        }
        let Some((last, _)) = items.last() else { break };
        let last = *last;
        let suspect = cursor.again.is_some() && !cursor.named;
        let (all, missing) = page(state, device, suspect, items.into_iter().map(|(_, item)| item)).await?;
        cursor.named |= missing;
        whole &= all;
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
        cursor.walked(state).await;
    }
    Ok(whole)
}

/// Does what a page of the feed asks for. Whether all of it succeeded, and whether shards were
/// missing. On a suspect device these were perhaps here once: that is told before they are rebuilt.
async fn page(state: &Arc<State>, device: &Device, suspect: bool, items: impl Iterator<Item = FeedItem>) -> Result<(bool, bool)> {
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
        return Ok((true, false));
    }
    // The feed tells history: an object may have died since.
    let ids: Vec<ObjectId> = wanting.iter().map(|(id, ..)| *id).collect();
    let Answer::Objects(states) = state.link.ask(&Query::Objects(ids)).await? else { return Err(super::link::confused()) };
    let wanting: Vec<_> = wanting.into_iter().zip(states).filter(|(_, s)| *s == ObjectState::Live).map(|(w, _)| w).collect();
    let (shards, bytes) = wanting.iter().fold((0, 0), |sum, (_, _, shards, bytes)| (sum.0 + shards, sum.1 + bytes));
    state.to_do(|report| (report.shards + shards, report.bytes + bytes));
    let missing = shards > 0;
    if suspect && missing {
        let detail = format!("device {}, whose log was not whole, misses at least {shards} shards: they are rebuilt", device.id);
        state.link.report("shards-missing", detail).await;
    }
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
    Ok((all(outcomes.buffer_unordered(OBJECTS_AT_ONCE)).await?, missing))
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
    /// From the device's folder. A device whose log was not whole, now or at a start whose walk never
    /// came to its end, and one without a cursor, begins at the start.
    async fn load(state: &State, device: &Device) -> Cursor {
        let file = device.dir.join("feed-cursor");
        let (disk, path, mark) = (state.env.disk.clone(), file.clone(), walk_mark(&device.dir));
        let (read, marked) = state.env.blocking(move || (disk.read(&path).ok(), disk.exists(&mark))).await;
        let stored = read.and_then(|bytes| bytes.try_into().ok().map(u64::from_be_bytes)).unwrap_or(0);
        state.followed(stored);
        let again = (marked || device.store.is_suspect()).then(|| walk_mark(&device.dir));
        Cursor { file, done: if again.is_some() { 0 } else { stored }, stored, again, untold: found_wrong(device), named: false }
    }

    async fn advance(&mut self, state: &State, done: u64) -> Result<()> {
        if done <= self.done {
            return Ok(());
        }
        if done > self.stored {
            let (disk, path) = (state.env.disk.clone(), self.file.clone());
            let written = state.env.blocking(move || disk.replace(&path, &done.to_be_bytes())).await;
            written.map_err(|e| Error::unavailable(format!("cannot write {}: {e}", self.file.display())))?;
            self.stored = done;
        }
        self.done = done;
        state.followed(done);
        Ok(())
    }

    /// All of the feed has been looked at, and nothing is missing.
    async fn walked(&mut self, state: &State) {
        let Some(mark) = self.again.take() else { return };
        let disk = state.env.disk.clone();
        // A mark that stays costs another walk after the next start.
        let removed = state.env.blocking(move || if disk.exists(&mark) { disk.remove_file(&mark) } else { Ok(()) }).await;
        if let Err(e) = removed {
            tracing::warn!(error = %e, "the mark of a suspect device cannot be removed");
        }
    }
}

/// Where it is marked that a device may have lost shards. Opening the log cuts what is torn, so
/// without the mark a crash before the walk would make the loss look like a whole log.
fn walk_mark(dir: &Path) -> PathBuf {
    dir.join("walk-again")
}

/// Marks a device whose log was not whole when it was opened. A full disk may not take the mark, and
/// must be read all the same.
pub(crate) async fn mark_suspect(env: &Env, device: &Device) {
    if !device.store.is_suspect() {
        return;
    }
    let (disk, mark) = (env.disk.clone(), walk_mark(&device.dir));
    if let Err(e) = env.blocking(move || disk.replace(&mark, b"")).await {
        tracing::warn!(device = %device.id, error = %e, "a suspect device cannot be marked");
    }
}

/// What opening a device found wrong, in the words of the event log.
fn found_wrong(device: &Device) -> Vec<(&'static str, String)> {
    let (id, ranges, cut) = (device.id, device.store.damaged_ranges(), device.store.cut_bytes());
    let mut found = Vec::new();
    if ranges > 0 {
        found.push((
            "device-damaged",
            format!("the log of device {id} was damaged in {ranges} places when it was opened: what was there is rebuilt"),
        ));
    }
    if cut > 0 {
        let detail = format!(
            "the last {cut} bytes in the log of device {id} were no whole record, and were cut off: a write that a crash interrupted, or damage"
        );
        found.push(("log-cut", detail));
    }
    found
}
