//! Reconciliation: the node makes itself whole. One loop reads the catalog's feed of live and dead
//! objects from a durable cursor, finds the shards that the layout puts here and that are not here,
//! and gets each; what is dead it drops. Shards that were set aside come first.
//!
//! A round goes from the cursor to the end of the feed as it was [`AGE`] ago: younger chunks may
//! still be under way. It alternates between a survey, which lists up to [`SURVEYED`] missing shards,
//! and the work on them, most urgent first. A step that fails does not stop the round; the durable
//! cursor then stays before it, and the next round, later each time, tries again. So memory is bounded
//! whatever happens, and a crash costs no more than looking once more.
//!
//! A *walk* is a round over the whole feed. A device walks when it may have lost shards, and when it
//! gained slots by a new layout (see [`super::walk`]).

use super::plan::{Missing, belonging, named, others_away, urgency};
use super::rebuild::heal;
use super::state::{Device, State};
use super::walk::Cursor;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use model::cluster::{FeedItem, ObjectState};
use model::command::{Answer, Query};
use model::tree::ObjectUse;
use model::{DeviceId, Error, Kind, ObjectId, Policy, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Chunks younger than this are left alone.
pub const AGE: Duration = Duration::from_secs(5);
/// Items of the feed in one question.
const PAGE: u32 = 512;
/// Repairs at once.
pub(crate) const AT_ONCE: usize = 4;
/// Missing shards in one survey: about 10 MiB.
const SURVEYED: usize = 100_000;
/// Pause after a round with failures: doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let mut cursors = Vec::new();
    for device in &state.devices {
        cursors.push(Cursor::load(&state, device).await);
    }
    state.memory().report.whole_to = cursors.iter().map(Cursor::done).min().unwrap_or(0);
    let mut pause = PAUSE;
    loop {
        if state.brake.wants_rewind() {
            let mut noted = true;
            for cursor in &mut cursors {
                noted &= cursor.rewind(&state).await;
            }
            if noted {
                state.note_rewound().await;
            }
        }
        for (device, cursor) in state.devices.iter().zip(&mut cursors) {
            cursor.look_at_layouts(&state, device).await;
        }
        for (device, cursor) in state.devices.iter().zip(&mut cursors) {
            cursor.look_again_if_asked(&state, device);
            cursor.settle_mark(&state, device).await;
        }
        let target = state.memory().feed;
        let behind = cursors.iter().any(|c| c.is_behind(target));
        if !behind && state.memory().aside.is_empty() {
            // A minute is the longest that a lost wake-up can cost.
            state.env.timeout(Duration::from_secs(60), state.work.notified()).await;
            continue;
        }
        aside(&state).await;
        if !behind {
            state.env.sleep(PAUSE).await;
            continue;
        }
        state.env.sleep(AGE).await;
        let mut whole = true;
        let walks = cursors.iter().any(Cursor::walks);
        state.memory().tally.begin(walks);
        let mut surveyed = 0;
        for (device, cursor) in state.devices.iter().zip(&mut cursors) {
            match round(&state, device, cursor, target, &mut surveyed).await {
                Ok(all) => whole &= all,
                Err(e) => {
                    tracing::debug!(device = %device.id, error = %e, "reconciliation cannot go on now");
                    whole = false;
                }
            }
        }
        {
            let memory = &mut *state.memory();
            memory.tally.end();
            memory.report.whole_to = cursors.iter().map(Cursor::done).min().unwrap_or(0);
        }
        if whole {
            pause = PAUSE;
        } else {
            // A new layout may be what the failed steps wait for.
            state.env.timeout(pause, state.relaid.notified()).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Gets again what was set aside. What fails stays listed.
async fn aside(state: &Arc<State>) {
    let now = state.env.clock.monotonic();
    let due = state.memory().aside.due(now);
    let mut tried = stream::iter(due).map(|(id, shard, policy)| again(state, id, shard, policy).boxed()).buffer_unordered(AT_ONCE);
    while tried.next().await.is_some() {}
}

/// Gets one shard again that was set aside.
async fn again(state: &Arc<State>, id: DeviceId, shard: ShardRef, policy: Policy) {
    let Some(device) = state.device(&id) else { return };
    match state.recheck(device, shard).await {
        Some(true) => {}
        Some(false) => return state.memory().aside.done(id, shard),
        None => return,
    }
    match state.object_states(vec![shard.chunk.object]).await.map(|s| s.first().copied()) {
        Ok(Some(ObjectState::Live)) => {}
        // Once it is committed the feed says so, and the next round finds the shard missing.
        Ok(Some(ObjectState::Dead | ObjectState::Expired | ObjectState::Pending)) => return state.memory().aside.done(id, shard),
        Ok(None) | Err(_) => return,
    }
    let layouts = state.map.layouts(policy.width());
    if layouts.as_ref().is_some_and(|l| !l.is_rightful(&shard.chunk, shard.index, id)) {
        // Whoever it belongs to now misses it as well.
        return state.memory().aside.done(id, shard);
    }
    let others_away = layouts.map_or(0, |l| others_away(&shard, &l, |node| state.map.is_whole(node)));
    let missing = Missing { shard, policy, hinted: false, others_away };
    match heal(state, device, &missing).await {
        Ok(_) => state.memory().aside.done(id, shard),
        Err(e) => {
            let now = state.env.clock.monotonic();
            state.memory().aside.failed(id, shard, e.kind == Kind::Corrupt, now);
            tracing::warn!(object = %shard.chunk.object, chunk = shard.chunk.number, error = %e, "a damaged shard cannot be rebuilt now");
        }
    }
}

/// One round of one device. Whether all of it succeeded; an error only where going on makes no sense
/// (no coordinator answers, the disk is full). `surveyed` counts the devices of which all was looked at.
async fn round(state: &Arc<State>, device: &Device, cursor: &mut Cursor, target: u64, surveyed: &mut usize) -> Result<bool> {
    let mut from = Place { after: cursor.done(), within: None };
    let mut whole = true;
    loop {
        let survey = survey(state, device, from, target).await?;
        cursor.tell(state).await;
        if !survey.missing.is_empty() && cursor.names_missing() {
            let (missing, why) = (survey.missing.len(), cursor.why_missing());
            let names = named(survey.missing.iter().map(|m| &m.shard));
            let detail = format!("device {} misses at least {missing} shards ({why}), which are copied or rebuilt: {names}", device.id);
            state.link.report("shards-missing", detail).await;
        }
        {
            let tally = &mut state.memory().tally;
            survey.missing.iter().for_each(|m| tally.found(m.policy));
            *surveyed += usize::from(survey.done);
            if *surveyed == state.devices.len() {
                tally.surveyed();
            }
        }
        whole &= work(state, device, survey.missing).await?;
        from = survey.end;
        if whole {
            cursor.advance(state, from.after).await?;
        }
        if survey.done {
            break;
        }
        aside(state).await;
        if cursor.is_outdated(state) {
            // A newer layout came: the walk begins again, by that one.
            return Ok(true);
        }
    }
    if whole {
        cursor.arrived(state, device).await?;
    }
    Ok(whole)
}

/// A place in the feed.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Everything up to this number has been looked at.
    after: u64,
    /// And of a later item so many of the shards that belong here.
    within: Option<(u64, usize)>,
}

/// What a device misses.
struct Survey {
    missing: Vec<Missing>,
    /// Where the next one goes on.
    end: Place,
    /// The target is reached.
    done: bool,
}

/// Lists what a device misses of the feed's items up to a target, and drops what is dead.
async fn survey(state: &Arc<State>, device: &Device, mut at: Place, target: u64) -> Result<Survey> {
    let mut missing = Vec::new();
    while at.after < target {
        let Answer::Feed(items, more) = state.link.ask(&Query::Feed { after: at.after, limit: PAGE }).await? else {
            return Err(super::link::confused());
        };
        let items: Vec<(u64, FeedItem)> = items.into_iter().filter(|(number, _)| *number > at.after && *number <= target).collect();
        let Some((last, _)) = items.last() else { break };
        let last = *last;
        let (found, full) = page(state, device, items, &mut at, SURVEYED - missing.len()).await?;
        missing.extend(found);
        if full {
            return Ok(Survey { missing, end: at, done: false });
        }
        at = Place { after: last, within: None };
        if !more {
            break;
        }
    }
    // The feed has nothing between its last item and the target.
    Ok(Survey { missing, end: Place { after: target.max(at.after), within: None }, done: true })
}

/// One page of the feed, up to so many missing shards. Whether it is only half read: then `at` says
/// up to where.
async fn page(
    state: &Arc<State>,
    device: &Device,
    items: Vec<(u64, FeedItem)>,
    at: &mut Place,
    room: usize,
) -> Result<(Vec<Missing>, bool)> {
    let mut missing: Vec<Missing> = Vec::new();
    let mut full = false;
    for (number, item) in items {
        let (object, generation) = match item {
            FeedItem::Dead(_) if state.is_frozen() => continue,
            FeedItem::Dead(object) => {
                device.store.drop_object(object).await?;
                continue;
            }
            FeedItem::Live(object, generation) => (object, generation),
        };
        let left = room - missing.len();
        let skip = at.within.filter(|(n, _)| *n == number).map_or(0, |(_, skip)| skip);
        let (found, looked_at) = missing_of(state, device, &object, generation, skip, left).await?;
        let is_full = found.len() == left;
        missing.extend(found);
        if is_full {
            *at = Place { after: number - 1, within: Some((number, skip + looked_at)) };
            full = true;
            break;
        }
    }
    // The feed tells history: an object may have died since.
    let objects: BTreeSet<ObjectId> = missing.iter().map(|m| m.shard.chunk.object).collect();
    let states = state.states_of(objects).await?;
    missing.retain(|m| states.get(&m.shard.chunk.object) == Some(&ObjectState::Live));
    let memory = state.memory();
    missing.retain(|m| !memory.aside.contains(device.id, &m.shard));
    drop(memory);
    Ok((missing, full))
}

/// What a device misses of an object, at most so many; and how many of its shards were looked at.
async fn missing_of(
    state: &State,
    device: &Device,
    object: &ObjectUse,
    generation: u16,
    skip: usize,
    most: usize,
) -> Result<(Vec<Missing>, usize)> {
    // Going on without it would be to forget the object: the cursor must not pass it.
    let layouts = state.map.layouts(object.policy.width());
    let layouts = layouts.ok_or_else(|| Error::unavailable("this node does not know the layout of a new width yet"))?;
    let held: BTreeSet<ShardRef> = device.store.of_object(object.object).await?.into_iter().collect();
    let (mut missing, mut looked_at) = (Vec::new(), 0);
    for (shard, hinted) in belonging(object, generation, device.id, &layouts).skip(skip) {
        if missing.len() == most {
            break;
        }
        looked_at += 1;
        if !held.contains(&shard) {
            let others_away = others_away(&shard, &layouts, |node| state.map.is_whole(node));
            missing.push(Missing { shard, policy: object.policy, hinted, others_away });
        }
    }
    Ok((missing, looked_at))
}

/// Gets what is missing, most urgent first. Whether all of it succeeded.
async fn work(state: &Arc<State>, device: &Device, mut missing: Vec<Missing>) -> Result<bool> {
    missing.sort_by_key(urgency);
    let mut outcomes = stream::iter(missing).map(|m| one(state, device, m).boxed()).buffer_unordered(AT_ONCE);
    let mut all = true;
    while let Some(outcome) = outcomes.next().await {
        all &= outcome?;
    }
    Ok(all)
}

/// Gets one missing shard. Whether that is settled: it is here, or it cannot be had and is listed as such.
async fn one(state: &Arc<State>, device: &Device, missing: Missing) -> Result<bool> {
    match heal(state, device, &missing).await {
        Ok(_) => {
            // What failed is still to do, and is said so until the next round counts again.
            state.memory().tally.healed(missing.policy);
            Ok(true)
        }
        Err(e) if e.kind == Kind::Insufficient => Err(e),
        Err(e) => {
            let ShardRef { chunk, index, .. } = missing.shard;
            tracing::warn!(object = %chunk.object, chunk = chunk.number, index, error = %e, "a shard cannot be had now");
            if e.kind == Kind::Corrupt {
                if state.give_up_for_now(device, missing.shard, missing.policy).await {
                    state.memory().tally.healed(missing.policy);
                    let detail = format!("shard {} cannot be rebuilt: {}", named([&missing.shard]), e.message);
                    state.link.report("chunk-lost", detail).await;
                    return Ok(true);
                }
                state.memory().tally.lost();
            }
            Ok(false)
        }
    }
}

impl State {
    /// States of objects, in their order.
    pub async fn object_states(&self, objects: Vec<ObjectId>) -> Result<Vec<ObjectState>> {
        let asked = objects.len();
        match self.link.ask(&Query::Objects(objects)).await? {
            Answer::Objects(states) if states.len() == asked => Ok(states),
            _ => Err(super::link::confused()),
        }
    }

    /// States of objects by their ids.
    pub async fn states_of(&self, objects: BTreeSet<ObjectId>) -> Result<BTreeMap<ObjectId, ObjectState>> {
        let objects: Vec<ObjectId> = objects.into_iter().collect();
        let mut states = BTreeMap::new();
        for some in objects.chunks(PAGE as usize) {
            states.extend(some.iter().copied().zip(self.object_states(some.to_vec()).await?));
        }
        Ok(states)
    }
}
