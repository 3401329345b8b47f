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
//!
//! Whoever restores the last backup of the catalog finds each object coded as it was then. So where there are backups,
//! what a re-coding left behind stays until there is one that is later, or for a month.

use super::state::{Device, State};
use model::cluster::{CatalogLife, Generations};
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
/// Longest time for which an earlier coding waits for a backup of the catalog.
const UNBACKED_MS: u64 = 30 * 24 * 3600 * 1000;

/// The last sweep that was made, in log time.
#[derive(Debug, Default)]
struct Swept {
    /// When it began.
    at_ms: u64,
    /// The last backup then.
    backed_ms: u64,
    /// Up to which re-coding nothing is left to be found.
    done_ms: u64,
}

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let mut swept = Swept::default();
    loop {
        state.env.sleep(ROUND).await;
        match sweep_if_due(&state, &mut swept).await {
            Ok(0) => {}
            Ok(dropped) => tracing::info!(dropped, "shards of earlier codings were dropped"),
            Err(e) => tracing::debug!(error = %e, "earlier codings cannot be dropped now"),
        }
    }
}

/// Sweeps where something may be found.
async fn sweep_if_due(state: &Arc<State>, swept: &mut Swept) -> Result<u64> {
    let Answer::Cluster(view) = state.link.ask(&Query::Cluster).await? else { return Err(super::link::confused()) };
    let (now_ms, backed_ms) = (view.time_ms, last_backup(&view.life));
    // (While collection is frozen nothing would be dropped, and the sweep count as made.)
    if state.is_frozen() || !swept.is_due(view.recoded_ms, now_ms, backed_ms) {
        return Ok(0);
    }
    let dropped = sweep_now(state, now_ms, backed_ms).await?;
    let done_ms = if is_over(view.recoded_ms, now_ms, backed_ms) { view.recoded_ms } else { swept.done_ms };
    *swept = Swept { at_ms: now_ms, backed_ms, done_ms };
    Ok(dropped)
}

impl Swept {
    /// Whether another sweep may find something, the last re-coding of anything having been at `recoded_ms`.
    fn is_due(&self, recoded_ms: u64, now_ms: u64, backed_ms: u64) -> bool {
        let in_grace = self.at_ms < recoded_ms.saturating_add(catalog::GRACE_MS);
        recoded_ms > self.done_ms && (in_grace || backed_ms != self.backed_ms || is_over(recoded_ms, now_ms, backed_ms))
    }
}

/// Log time of the last backup of the catalog or of its last snapshot onto nodes, whichever is earlier, for either may be
/// what is restored; 0: there is none.
pub(crate) fn last_backup(life: &CatalogLife) -> u64 {
    [life.backup_ms, life.snapshot_ms].into_iter().filter(|ms| *ms > 0).min().unwrap_or(0)
}

/// Whether what a re-coding at `since_ms` left behind is needed no more: neither by who asked just before, nor by who
/// restores the last backup. (One is noted when it is done, and may have been begun a grace before.)
fn is_over(since_ms: u64, now_ms: u64, backed_ms: u64) -> bool {
    let grace = since_ms.saturating_add(catalog::GRACE_MS);
    let is_backed = backed_ms == 0 || backed_ms >= grace || since_ms.saturating_add(UNBACKED_MS) <= now_ms;
    grace <= now_ms && is_backed
}

/// Drops shards of generations that do not count any more at a time of the catalog, whose last backup was at
/// `backed_ms`; answers how many.
pub(crate) async fn sweep_now(state: &Arc<State>, now_ms: u64, backed_ms: u64) -> Result<u64> {
    let mut dropped = 0;
    for device in &state.devices {
        let mut after = None;
        loop {
            let batch = device.store.list(after, BATCH).await?;
            let shards: Vec<ShardRef> = batch.iter().map(|(shard, _)| *shard).collect();
            dropped += settle(state, device, &shards, now_ms, backed_ms).await?;
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
    let over: BTreeSet<ShardRef> = outdated(state, &shards, now_ms, backed_ms).await?.into_iter().collect();
    for (device, shard) in waiting.into_iter().filter(|(_, shard)| over.contains(shard)) {
        state.memory().aside.done(device, shard);
    }
    Ok(dropped)
}

async fn settle(state: &State, device: &Device, shards: &[ShardRef], now_ms: u64, backed_ms: u64) -> Result<u64> {
    let over = outdated(state, shards, now_ms, backed_ms).await?;
    if over.is_empty() || state.is_frozen() {
        return Ok(0);
    }
    let count = over.len() as u64;
    device.store.drop_shards(over).await?;
    Ok(count)
}

/// Those of some shards that do not count any more.
async fn outdated(state: &State, shards: &[ShardRef], now_ms: u64, backed_ms: u64) -> Result<Vec<ShardRef>> {
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
    let may_go = |s: &&ShardRef| known.get(&s.chunk.object).is_some_and(|g| is_outdated(s.generation, g, now_ms, backed_ms));
    Ok(shards.iter().filter(may_go).copied().collect())
}

/// Whether shards of a generation may be dropped at a time of the catalog.
fn is_outdated(generation: u16, known: &Generations, now_ms: u64, backed_ms: u64) -> bool {
    let counts = generation == known.current || Some(generation) == known.next;
    !counts && generation <= known.given && is_over(known.since_ms, now_ms, backed_ms)
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
            is_outdated(generation, &known, SINCE + later, 0)
        };
        let hour = catalog::GRACE_MS;
        assert!(over(0, 1, None, hour) && !over(0, 1, None, hour - 1));
        assert!(!over(1, 1, None, 9 * hour), "it counts");
        assert!(!over(3, 1, Some(3), 9 * hour), "it is being made");
        assert!(over(2, 1, Some(3), hour), "it was abandoned");
        assert!(over(2, 3, None, hour) && over(3, 1, None, hour));
        assert!(!over(4, 1, None, 9 * hour), "a catalog that was rolled back forgot it");
    }

    /// Rule 8, found by the simulation: what a restored catalog reads had been coded anew since, and the earlier
    /// coding was gone an hour later.
    #[test]
    fn rule_08_an_earlier_coding_stays_until_the_catalog_was_backed_up_since() {
        let hour = catalog::GRACE_MS;
        let over = |later: u64, backed: u64| is_over(SINCE, SINCE + later, backed);
        assert!(over(hour, 0), "nobody can restore anything");
        assert!(!over(9 * hour, SINCE - 1) && !over(9 * hour, SINCE + hour - 1) && over(9 * hour, SINCE + hour));
        assert!(!over(hour - 1, SINCE + hour));
        assert!(over(UNBACKED_MS, SINCE - 1) && !over(UNBACKED_MS - 1, SINCE - 1));
        let last = |backup_ms, snapshot_ms| last_backup(&CatalogLife { backup_ms, snapshot_ms, ..CatalogLife::default() });
        assert_eq!([last(0, 0), last(0, 7), last(5, 0), last(5, 7)], [0, 7, 5, 5]);
    }

    #[test]
    fn sweeps_are_made_while_something_may_be_found() {
        let hour = catalog::GRACE_MS;
        let never = Swept::default();
        assert!(never.is_due(SINCE, SINCE + 1, 0) && !never.is_due(0, SINCE, 0), "nothing was ever coded anew");
        let swept = |later: u64, backed_ms, done_ms| Swept { at_ms: SINCE + later, backed_ms, done_ms };
        assert!(swept(hour - 1, 0, 0).is_due(SINCE, SINCE + 2 * hour, 0));
        assert!(!swept(hour, 0, SINCE).is_due(SINCE, SINCE + 9 * hour, 0));
        // It waits for a backup, and is not repeated before there is one.
        let waits = swept(hour, 7, 0);
        assert!(!waits.is_due(SINCE, SINCE + 9 * hour, 7) && waits.is_due(SINCE, SINCE + 9 * hour, SINCE + 2 * hour));
        assert!(waits.is_due(SINCE, SINCE + UNBACKED_MS, 7));
    }
}
