//! Housekeeping of a device: every shard is read and checked within thirty days, and segments with
//! much dead space are compacted.

use super::state::{Device, State};
use model::{Kind, ShardRef};
use std::sync::Arc;
use std::time::Duration;

/// Every shard is checked within this time.
const SCRUB: Duration = Duration::from_secs(30 * 24 * 3600);
/// Shards checked in one go.
const BATCH: usize = 64;
/// Shortest and longest pause between two goes.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Pause between two looks for a segment to compact.
const COMPACT: Duration = Duration::from_secs(30);

/// Checks all shards of the node again and again. Runs until the process stops.
pub(crate) async fn scrub(state: Arc<State>) {
    futures::future::join_all(state.devices.iter().map(|device| scrub_device(&state, device))).await;
}

async fn scrub_device(state: &State, device: &Device) {
    let mut after = None;
    loop {
        let shards = device.store.usage().await.shards;
        let goes = (shards as usize).div_ceil(BATCH).max(1) as u32;
        state.env.sleep((SCRUB / goes).clamp(PAUSE_MIN, PAUSE_MAX)).await;
        after = check_batch(state, device, after).await;
    }
}

/// Checks all shards of a device at once, as fast as the disk gives them; answers how many it found bad.
pub(crate) async fn scrub_now(state: &State, device: &Device) -> u64 {
    let before = state.memory().found_bad;
    let mut after = None;
    loop {
        after = check_batch(state, device, after).await;
        if after.is_none() {
            return state.memory().found_bad - before;
        }
    }
}

/// Checks the shards after a key; answers the last one checked, `None` at the end.
async fn check_batch(state: &State, device: &Device, after: Option<ShardRef>) -> Option<ShardRef> {
    let batch = match device.store.list(after, BATCH).await {
        Ok(batch) => batch,
        Err(e) => {
            tracing::warn!(device = %device.id, error = %e, "the shards of a device cannot be listed");
            return None;
        }
    };
    for (shard, _) in &batch {
        match device.store.verify(shard).await {
            Err(e) if e.kind == Kind::Corrupt => state.damaged(device, *shard, &e).await,
            // Dropped since it was listed, or the disk does not answer: the next time round tells.
            Ok(_) | Err(_) => {}
        }
    }
    batch.last().map(|(shard, _)| *shard).filter(|_| batch.len() == BATCH)
}

/// Compacts segments. Runs until the process stops.
pub(crate) async fn compact(state: Arc<State>) {
    loop {
        state.env.sleep(COMPACT).await;
        for device in &state.devices {
            // One segment after another, as long as there are any, without starving the rest.
            while matches!(device.store.compact_one().await, Ok(true)) {
                state.env.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
