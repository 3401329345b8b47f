//! Housekeeping of a device: every shard is read and checked within thirty days, or at once when an
//! operator asks for it, and segments with much dead space are compacted.
//!
//! Where the scrub stands is kept beside the shards, so that a node that restarts every day still
//! gets through all of them in thirty. One that was asked for takes at most half of the time.
//!
//! ```text
//! DEVICE/scrub    CBOR [version: 1, regular: [?last shard, checked], asked: [?last shard, checked],
//!                 asked_ms, answered_ms]
//! ```

use super::state::{Device, State};
use env::{DiskExt, Env};
use minicbor::{Decode, Encode};
use model::{DeviceId, Kind, ShardRef, cbor};
use shards::Compaction;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::coordinator::ScrubReport;

/// Every shard is checked within this time.
const SCRUB: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shards checked in one go.
const BATCH: usize = 64;
/// Shortest and longest pause between two goes.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// How often a scrub that was asked for notes where it stands.
const NOTE: Duration = Duration::from_secs(10);
/// Pause between two looks for a segment to compact.
const COMPACT: Duration = Duration::from_secs(30);
/// Whatever is dead leaves the disk within this time, as far as [`REST_MIN`] allows.
const EMPTY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shortest and longest pause between two compactions for that, and the first one.
const REST_MIN: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(24 * 3600);
const REST_FIRST: Duration = Duration::from_secs(3600);

/// How far a walk over all shards is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
struct Walk {
    /// The last one checked; `None`: at the start.
    #[n(0)]
    after: Option<ShardRef>,
    /// Checked so far.
    #[n(1)]
    checked: u64,
}

/// Where the scrub of a device stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
struct Position {
    #[n(0)]
    version: u8,
    #[n(1)]
    regular: Walk,
    /// The one that was asked for.
    #[n(2)]
    asked: Walk,
    /// When it was asked for, by the catalog's time; 0: none is under way.
    #[n(3)]
    asked_ms: u64,
    /// The last one that was asked for and is done.
    #[n(4)]
    answered_ms: u64,
}

impl Position {
    const VERSION: u8 = 1;

    /// From the device's folder. One that cannot be read begins anew: no more is lost than time.
    async fn load(env: &Env, dir: &Path) -> Position {
        let (disk, path) = (env.disk.clone(), dir.join("scrub"));
        let bytes = env.blocking(move || disk.read(&path)).await.ok();
        let held = bytes.and_then(|bytes| cbor::from_canonical::<Position>(&bytes).ok()).filter(|p| p.version == Self::VERSION);
        held.unwrap_or(Position { version: Self::VERSION, ..Position::default() })
    }

    async fn note(&self, env: &Env, dir: &Path) {
        let (disk, path, bytes) = (env.disk.clone(), dir.join("scrub"), cbor::to_vec(self));
        if let Err(e) = env.blocking(move || disk.replace(&path, &bytes)).await {
            tracing::warn!(error = %e, "where a scrub stands cannot be noted");
        }
    }
}

/// The scrubs of a node.
#[derive(Debug)]
pub(crate) struct Scrubs {
    /// The catalog's time at which one was asked for last.
    asked_ms: watch::Sender<u64>,
    /// Position of each device, and how many shards it has.
    devices: Mutex<BTreeMap<DeviceId, (Position, u64)>>,
}

impl Default for Scrubs {
    fn default() -> Self {
        Scrubs { asked_ms: watch::Sender::new(0), devices: Mutex::default() }
    }
}

impl Scrubs {
    /// A heartbeat's answer says that a scrub was asked for then.
    pub fn ask(&self, asked_ms: u64) {
        self.asked_ms.send_if_modified(|known| std::mem::replace(known, asked_ms) != asked_ms);
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, (Position, u64)>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Every shard that is there was checked: those that are not are looked for as well.
    fn count_again(&self, device: &Device) {
        self.memory().walks.insert(device.id);
        self.work.notify_one();
    }

    /// How the scrub stands.
    pub fn scrub_report(&self) -> ScrubReport {
        let mut report = ScrubReport { unknown: self.brake.unknown(), answered_ms: u64::MAX, ..ScrubReport::default() };
        let devices = self.scrubs.devices().clone();
        for device in &self.devices {
            let (position, total) = devices.get(&device.id).copied().unwrap_or_default();
            let walk = if position.asked_ms > 0 { position.asked } else { position.regular };
            report.checked += walk.checked.min(total);
            report.total += total;
            report.answered_ms = report.answered_ms.min(position.answered_ms);
        }
        // At last: whoever sees that a scrub is done sees what it found.
        report.bad = self.memory().found_bad;
        report
    }
}

/// Checks all shards of the node again and again. Runs until the process stops.
pub(crate) async fn scrub(state: Arc<State>) {
    futures::future::join_all(state.devices.iter().map(|device| scrub_device(&state, device))).await;
}

async fn scrub_device(state: &State, device: &Device) {
    let mut position = Position::load(&state.env, &device.dir).await;
    let mut asked = state.scrubs.asked_ms.subscribe();
    loop {
        let shards = device.store.usage().await.shards;
        state.scrubs.devices().insert(device.id, (position, shards));
        let asked_ms = *asked.borrow_and_update();
        if asked_ms > position.answered_ms {
            scrub_as_asked(state, device, &mut position, asked_ms).await;
            continue;
        }
        let goes = (shards as usize).div_ceil(BATCH).max(1) as u32;
        if state.env.timeout((SCRUB / goes).clamp(PAUSE_MIN, PAUSE_MAX), asked.changed()).await.is_some() {
            continue;
        }
        position.regular = check_batch(state, device, position.regular, false).await;
        if position.regular.after.is_none() {
            state.count_again(device);
        }
        position.note(&state.env, &device.dir).await;
    }
}

/// Checks everything, in at most half of the time.
async fn scrub_as_asked(state: &State, device: &Device, position: &mut Position, asked_ms: u64) {
    if position.asked_ms != asked_ms {
        (position.asked, position.asked_ms) = (Walk::default(), asked_ms);
        tracing::info!(device = %device.id, "every shard is checked, as asked for");
    }
    let mut noted = state.env.clock.monotonic();
    loop {
        let next = check_batch(state, device, position.asked, true).await;
        if next.after.is_none() {
            break;
        }
        position.asked = next;
        let total = device.store.usage().await.shards;
        state.scrubs.devices().insert(device.id, (*position, total));
        let now = state.env.clock.monotonic();
        if now.saturating_sub(noted) >= NOTE {
            position.note(&state.env, &device.dir).await;
            noted = now;
        }
    }
    state.count_again(device);
    // All was checked: the regular one begins anew as well.
    *position = Position { version: Position::VERSION, answered_ms: asked_ms, ..Position::default() };
    position.note(&state.env, &device.dir).await;
}

/// Checks all shards of a device at once, as fast as the disk gives them; answers how many it found bad.
pub(crate) async fn scrub_now(state: &State, device: &Device) -> u64 {
    let before = state.memory().found_bad;
    let mut walk = Walk::default();
    loop {
        walk = check_batch(state, device, walk, false).await;
        if walk.after.is_none() {
            return state.memory().found_bad - before;
        }
    }
}

/// Checks some shards more; at the end of all the walk is at its start. `gently`: with a pause after
/// each as long as it took.
async fn check_batch(state: &State, device: &Device, walk: Walk, gently: bool) -> Walk {
    let batch = match device.store.list(walk.after, BATCH).await {
        Ok(batch) => batch,
        Err(e) => {
            tracing::warn!(device = %device.id, error = %e, "the shards of a device cannot be listed");
            return Walk::default();
        }
    };
    for (shard, _) in &batch {
        let began = state.env.clock.monotonic();
        match device.store.verify(shard).await {
            Err(e) if e.kind == Kind::Corrupt => state.damaged(device, *shard, &e).await,
            // Dropped since it was listed, or the disk does not answer: the next time round tells.
            Ok(_) | Err(_) => {}
        }
        if gently {
            state.env.sleep(state.env.clock.monotonic().saturating_sub(began)).await;
        }
    }
    match batch.last() {
        Some((last, _)) if batch.len() == BATCH => Walk { after: Some(*last), checked: walk.checked + BATCH as u64 },
        _ => Walk::default(),
    }
}

/// Compacts segments: soon where that gives much space back, and within a month or so wherever anything is dead.
/// Runs until the process stops.
pub(crate) async fn compact(state: Arc<State>) {
    let mut waited = REST_MAX - REST_FIRST;
    loop {
        state.env.sleep(COMPACT).await;
        waited += COMPACT;
        let mut most = 0;
        for device in &state.devices {
            // One segment after another, as long as there are any, without starving the rest.
            while after(&state, device, device.store.compact_one().await).await {
                state.env.sleep(Duration::from_millis(100)).await;
            }
            most = device.store.segments_with_dead().await.unwrap_or(0).max(most);
        }
        if waited >= rest(most) {
            waited = Duration::ZERO;
            for device in &state.devices {
                after(&state, device, device.store.compact_oldest().await).await;
            }
        }
    }
}

/// Pause between two compactions for what little is dead, when something is in so many segments of a device.
fn rest(segments: usize) -> Duration {
    (EMPTY / segments.max(1) as u32).clamp(REST_MIN, REST_MAX)
}

/// What follows from a compaction. Whether there may be more to do at once.
async fn after(state: &State, device: &Device, done: model::Result<Compaction>) -> bool {
    match done {
        Ok(Compaction::Done) => return true,
        Ok(Compaction::Unreadable(shard)) => state.doubt(device, shard).await,
        Ok(Compaction::Nothing) => {}
        Err(e) => tracing::warn!(device = %device.id, error = %e, "compaction failed, and is tried again"),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dead_goes_within_a_month_and_at_most_a_segment_a_minute_is_written_again() {
        assert_eq!((rest(0), rest(1), rest(30)), (REST_MAX, REST_MAX, REST_MAX));
        assert_eq!(rest(720), Duration::from_secs(3600));
        assert_eq!(rest(1_000_000), REST_MIN);
    }
}
