//! Collection: shards of objects that the catalog calls dead or expired are dropped. Expired are uploads
//! that were never committed, 24 h after their ids were issued, by the catalog's own time. Dead ones come
//! by the feed already (see [`super::reconcile`]); here are dropped those that were passed over then.
//!
//! A round looks at everything before it drops anything: a catalog that does not know what is here is
//! not to be believed (see [`super::brake`]). What it does not know is counted, and told with heartbeats. A node that
//! was away for longer than the dead are remembered cannot tell them from what a wrong catalog never knew: its first
//! round relies on the catalog's incarnation and feed alone.

use super::brake::is_foreign;
use super::state::{Device, State};
use model::cluster::ObjectState;
use model::command::{Answer, Query};
use model::{DeviceId, ObjectId, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(3600);
/// Pause before the first one.
const FIRST: Duration = Duration::from_secs(60);
/// Objects younger than this are not asked about, but for counting what a restored catalog does not know.
const YOUNG_MS: u64 = 25 * 3600 * 1000;
/// Shards looked at in one go.
const BATCH: usize = 1024;
/// Objects in one question.
const ASK: usize = 256;
/// Most objects of a device dropped in one round; the next one goes on.
const DROPS: usize = 10_000;

/// What a look at everything has found.
#[derive(Debug, Default)]
struct Found {
    /// Objects that the catalog knows, dead or alive.
    known: u64,
    /// Objects that it does not know and would have forgotten.
    expired: u64,
    /// Shards of objects that it does not know.
    unknown: u64,
    /// What may go, by device.
    droppable: Vec<(DeviceId, Vec<ObjectId>)>,
}

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let mut pause = FIRST;
    loop {
        state.env.timeout(pause, state.brake.count.notified()).await;
        pause = ROUND;
        if let Err(e) = collect_now(&state).await {
            tracing::debug!(error = %e, "collection cannot go on now");
        }
    }
}

/// Drops what is dead or has expired; answers how many objects that were.
pub(crate) async fn collect_now(state: &State) -> Result<u64> {
    let mut found = Found::default();
    for device in &state.devices {
        look(state, device, &mut found).await?;
    }
    state.brake.set_unknown(found.unknown);
    if is_foreign(found.known, found.expired) && !state.brake.was_away_long() {
        state.is_stranger(found.known, found.expired).await;
    }
    let mut dropped = 0;
    let full = found.droppable.iter().any(|(_, objects)| objects.len() >= DROPS);
    for (device, objects) in found.droppable {
        let Some(device) = state.device(&device) else { continue };
        for object in objects {
            if state.is_frozen() {
                return Ok(dropped);
            }
            device.store.drop_object(object).await?;
            dropped += 1;
        }
    }
    if !state.is_frozen() && !full {
        state.brake.has_caught_up();
    }
    if dropped > 0 {
        // Those that it did not know are gone.
        state.brake.set_unknown(0);
    }
    Ok(dropped)
}

/// Asks the catalog about everything on a device.
async fn look(state: &State, device: &Device, found: &mut Found) -> Result<()> {
    let mut droppable = Vec::new();
    let mut after = None;
    loop {
        let batch = device.store.list(after, BATCH).await?;
        let (now, doubtful) = (state.memory().catalog_ms, state.brake.doubts_catalog());
        let mut shards: BTreeMap<ObjectId, u64> = BTreeMap::new();
        for (shard, _) in &batch {
            let object = shard.chunk.object;
            if doubtful || object.time_ms().saturating_add(YOUNG_MS) < now {
                *shards.entry(object).or_default() += 1;
            }
        }
        let objects: Vec<(ObjectId, u64)> = shards.into_iter().collect();
        for some in objects.chunks(ASK) {
            let ids = some.iter().map(|(object, _)| *object).collect();
            let Answer::Objects(states) = state.link.ask(&Query::Objects(ids)).await? else {
                return Err(super::link::confused());
            };
            for ((object, shards), is) in some.iter().zip(states) {
                match is {
                    ObjectState::Live => found.known += 1,
                    ObjectState::Pending => found.unknown += shards,
                    ObjectState::Expired => {
                        found.expired += 1;
                        found.unknown += shards;
                    }
                    ObjectState::Dead => found.known += 1,
                }
                if matches!(is, ObjectState::Dead | ObjectState::Expired) && droppable.len() < DROPS {
                    droppable.push(*object);
                }
            }
        }
        after = batch.last().map(|(shard, _)| *shard).filter(|_| batch.len() == BATCH);
        if after.is_none() {
            break;
        }
    }
    droppable.dedup();
    found.droppable.push((device.id, droppable));
    Ok(())
}
