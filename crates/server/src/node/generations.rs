//! Shards of coding generations that do not count any more are dropped. When an object was coded anew
//! (see `coordinator/recode.rs`), its earlier shards stay for a grace: readers may have asked how it is
//! coded just before. What was left of a re-coding that was decided otherwise goes the same way.
//!
//! A sweep asks the catalog about every object on a device, and is made only when something may be
//! found: the view of the cluster says when a re-coding last changed anything, and a sweep that began
//! a grace after that has seen all of it. After a start one sweep makes up for those that were missed.
//! So nothing need be remembered, and where no policy ever changes nothing is asked.
//!
//! A generation that the catalog has never given out stays: a catalog that was rolled back must not be
//! able to erase what it forgot. And nothing is dropped while collection is frozen.

use super::state::{Device, State};
use model::cluster::Generations;
use model::command::{Answer, Query};
use model::{ObjectId, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pause between two looks at whether a sweep is due.
const ROUND: Duration = Duration::from_secs(600);
/// Shards looked at in one go.
const BATCH: usize = 1024;
/// Objects in one question.
const ASK: usize = 512;
/// Pause between two goes: the sweep takes a small part of one core.
const BREATH: Duration = Duration::from_millis(2);

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let mut swept_ms = 0;
    loop {
        state.env.sleep(ROUND).await;
        match sweep_if_due(&state, &mut swept_ms).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "shards of earlier codings were dropped"),
            Err(e) => tracing::debug!(error = %e, "earlier codings cannot be dropped now"),
        }
    }
}

/// Sweeps where something may be found. `swept_ms`: log time at which the last whole sweep began.
async fn sweep_if_due(state: &Arc<State>, swept_ms: &mut u64) -> Result<u64> {
    let Answer::Cluster(view) = state.link.ask(&Query::Cluster).await? else { return Err(super::link::confused()) };
    if view.recoded_ms == 0 || *swept_ms >= view.recoded_ms.saturating_add(catalog::GRACE_MS) {
        return Ok(0);
    }
    let dropped = sweep_now(state, view.time_ms).await?;
    *swept_ms = view.time_ms;
    Ok(dropped)
}

/// Drops shards of generations that do not count any more at a time of the catalog; answers how many.
pub(crate) async fn sweep_now(state: &Arc<State>, now_ms: u64) -> Result<u64> {
    let mut dropped = 0;
    for device in &state.devices {
        let mut after = None;
        loop {
            let batch = device.store.list(after, BATCH).await?;
            let shards: Vec<ShardRef> = batch.iter().map(|(shard, _)| *shard).collect();
            dropped += settle(state, device, &shards, now_ms).await?;
            after = shards.last().copied().filter(|_| batch.len() == BATCH);
            if after.is_none() {
                break;
            }
            state.env.sleep(BREATH).await;
        }
    }
    // What was set aside of an earlier coding need not be rebuilt.
    let waiting = state.memory().aside.all();
    let shards: Vec<ShardRef> = waiting.iter().map(|(_, shard)| *shard).collect();
    let over: BTreeSet<ShardRef> = outdated(state, &shards, now_ms).await?.into_iter().collect();
    for (device, shard) in waiting.into_iter().filter(|(_, shard)| over.contains(shard)) {
        state.memory().aside.done(device, shard);
    }
    Ok(dropped)
}

async fn settle(state: &State, device: &Device, shards: &[ShardRef], now_ms: u64) -> Result<u64> {
    let over = outdated(state, shards, now_ms).await?;
    if over.is_empty() || state.is_frozen() {
        return Ok(0);
    }
    let count = over.len() as u64;
    device.store.drop_shards(over).await?;
    Ok(count)
}

/// Those of some shards that do not count any more.
async fn outdated(state: &State, shards: &[ShardRef], now_ms: u64) -> Result<Vec<ShardRef>> {
    let objects: BTreeSet<ObjectId> = shards.iter().map(|s| s.chunk.object).collect();
    let objects: Vec<ObjectId> = objects.into_iter().collect();
    let mut known: BTreeMap<ObjectId, Generations> = BTreeMap::new();
    for some in objects.chunks(ASK) {
        let Answer::Generations(answers) = state.link.ask(&Query::Generations(some.to_vec())).await? else {
            return Err(super::link::confused());
        };
        if answers.len() != some.len() {
            return Err(super::link::confused());
        }
        known.extend(some.iter().zip(answers).filter_map(|(object, answer)| Some((*object, answer?))));
    }
    let is_over = |s: &&ShardRef| known.get(&s.chunk.object).is_some_and(|g| is_outdated(s.generation, g, now_ms));
    Ok(shards.iter().filter(is_over).copied().collect())
}

/// Whether shards of a generation may be dropped at a time of the catalog.
fn is_outdated(generation: u16, known: &Generations, now_ms: u64) -> bool {
    let counts = generation == known.current || Some(generation) == known.next;
    !counts && generation <= known.given && known.since_ms.saturating_add(catalog::GRACE_MS) <= now_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: u64 = 1_800_000_000_000;

    /// Rule 10: what the catalog says counts, and what it is making; the rest only after the grace, and
    /// only where the catalog knows that it gave the generation out.
    #[test]
    fn rule_10_earlier_generations_go_after_the_grace_and_unknown_ones_stay() {
        let over = |generation, current, next, later| {
            let known = Generations { current, next, given: 3, since_ms: SINCE };
            is_outdated(generation, &known, SINCE + later)
        };
        let hour = catalog::GRACE_MS;
        assert!(over(0, 1, None, hour) && !over(0, 1, None, hour - 1));
        assert!(!over(1, 1, None, 9 * hour), "it counts");
        assert!(!over(3, 1, Some(3), 9 * hour), "it is being made");
        assert!(over(2, 1, Some(3), hour), "it was abandoned");
        assert!(over(2, 3, None, hour) && over(3, 1, None, hour));
        assert!(!over(4, 1, None, 9 * hour), "a catalog that was rolled back forgot it");
    }
}
