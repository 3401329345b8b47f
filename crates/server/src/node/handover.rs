//! Handing over: shards that are here and belong elsewhere go to their rightful holder, and are dropped
//! only when that one confirms, by this node's own current layout, that it has them durably. Until then
//! they are served from here.
//!
//! They come to lie here by a change of the layout (then the new holder mostly fetches them itself, see
//! [`super::reconcile`], and only uncommitted ones are brought), by writers that took this node as a
//! stand-in, or because this node was away while the cluster went on. What is dead is dropped.

use super::plan::named;
use super::state::{Device, State};
use super::votes::is_undecodable;
use bytes::Bytes;
use model::cluster::ObjectState;
use model::layout::{DeviceInfo, Layouts};
use model::{DescriptorId, Epoch, Error, Kind, ObjectId, Policy, Result, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use transport::{Mode, Target};
use wire::node::{ConfirmShards, ConfirmShardsRequest, PutShard, PutShardRequest};

/// Shards looked at in one go.
const BATCH: usize = 1024;
/// Pause between two goes: the sweep takes a small part of one core.
const BREATH: Duration = Duration::from_millis(2);
/// Pause between two sweeps while something waits to be handed over: doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Pause between two sweeps when nothing does.
const ROUND: Duration = Duration::from_secs(3600);
/// Sweeps in which the new holder of a committed shard may fetch it by itself, before it is brought.
const PATIENCE: u32 = 3;
/// What its holder does not take is brought again after this.
const REFUSED: Duration = Duration::from_secs(600);
/// Deadline of a question, and of bringing one shard.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a sweep found and did.
#[derive(Debug, Default, Clone)]
struct Sweep {
    /// Shards that belong elsewhere and are still here.
    left: u64,
    /// Shards handed over.
    handed_over: u64,
    /// Objects of which shards were dropped because they are dead.
    dead: u64,
    /// Some of the shards that belong elsewhere.
    extra: Vec<ShardRef>,
}

/// Shards that belong elsewhere and are remembered by name.
const REMEMBERED: usize = 100;

/// Shards that belong elsewhere, by their rightful device.
type Surplus = BTreeMap<(u8, u64, model::DeviceId), (DeviceInfo, Vec<ShardRef>)>;

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    let (mut pause, mut sweeps, mut told) = (PAUSE, 0, false);
    loop {
        let epochs = state.map.epochs();
        let swept = if epochs.is_empty() { Ok(Sweep::default()) } else { sweep_all(&state, sweeps).await };
        let wait = match swept {
            Ok(Sweep { left: 0, handed_over, dead, extra }) => {
                if !epochs.is_empty() {
                    if !std::mem::replace(&mut told, true) && handed_over + dead > 0 {
                        let detail = format!(
                            "this node came with shards of {dead} removed objects, which are dropped, and {handed_over} that belong elsewhere, which are handed over: {}",
                            named(&extra)
                        );
                        state.link.report("shards-extra", detail).await;
                    }
                    state.memory().handed_over = epochs;
                }
                (pause, sweeps) = (PAUSE, 0);
                ROUND
            }
            Ok(Sweep { left, .. }) => {
                tracing::debug!(left, "shards wait to be handed over");
                sweeps += 1;
                pause = (pause * 2).min(PAUSE_MAX);
                pause
            }
            Err(e) => {
                tracing::debug!(error = %e, "handing over cannot go on now");
                pause = (pause * 2).min(PAUSE_MAX);
                pause
            }
        };
        if state.env.timeout(wait, state.hand_over.notified()).await.is_some() {
            // Something changed: let a few such changes come together.
            pause = PAUSE;
            state.env.sleep(PAUSE / 4).await;
        }
    }
}

async fn sweep_all(state: &Arc<State>, sweeps: u32) -> Result<Sweep> {
    let mut all = Sweep::default();
    for device in &state.devices {
        let one = sweep(state, device, sweeps).await?;
        all.left += one.left;
        all.handed_over += one.handed_over;
        all.dead += one.dead;
        all.extra.extend(one.extra);
    }
    state.memory().report.surplus = all.left;
    Ok(all)
}

/// Looks at every shard of a device.
async fn sweep(state: &Arc<State>, device: &Device, sweeps: u32) -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let mut after = None;
    loop {
        let batch = device.store.list(after, BATCH).await?;
        let surplus = surplus(state, device, &batch);
        if !surplus.is_empty() {
            settle(state, device, surplus, sweeps, &mut sweep).await?;
        }
        after = batch.last().map(|(shard, _)| *shard).filter(|_| batch.len() == BATCH);
        if after.is_none() {
            return Ok(sweep);
        }
        state.env.sleep(BREATH).await;
    }
}

/// The shards among some that belong elsewhere. Where a slot is vacant, or an operator has stopped the
/// movement, nothing does.
fn surplus(state: &State, device: &Device, shards: &[(ShardRef, Policy)]) -> Surplus {
    let mut surplus = Surplus::new();
    let mut known = BTreeMap::new();
    for (shard, policy) in shards {
        let width = policy.width();
        let Some(layouts) = known.entry(width).or_insert_with(|| state.map.layouts(width)) else { continue };
        let Some(holder) = layouts.current.holder(&shard.chunk, shard.index).filter(|d| d.device != device.id) else { continue };
        if !layouts.stopped {
            let of = surplus.entry((width, layouts.current.epoch.0, holder.device)).or_insert_with(|| (holder.clone(), Vec::new()));
            of.1.push(*shard);
        }
    }
    surplus
}

/// Drops what is dead, and hands over the rest as far as that can be done now.
async fn settle(state: &Arc<State>, device: &Device, surplus: Surplus, sweeps: u32, sweep: &mut Sweep) -> Result<()> {
    let objects: BTreeSet<ObjectId> = surplus.values().flat_map(|(_, shards)| shards).map(|s| s.chunk.object).collect();
    let states = state.states_of(objects).await?;
    for (object, is) in &states {
        match is {
            ObjectState::Dead if !state.is_frozen() => {
                device.store.drop_object(*object).await?;
                sweep.dead += 1;
            }
            // Whether a catalog is believed that does not know an object is decided over all that is here.
            ObjectState::Expired => state.brake.count.notify_one(),
            _ => {}
        }
    }
    for ((width, epoch, _), (holder, shards)) in surplus {
        let mut wanted = Vec::new();
        for shard in shards {
            let is = states.get(&shard.chunk.object);
            if matches!(is, Some(ObjectState::Live | ObjectState::Pending))
                && let Some(descriptor) = device.store.head(&shard).await?
            {
                wanted.push((shard, descriptor, is == Some(&ObjectState::Pending)));
            }
        }
        if wanted.is_empty() {
            continue;
        }
        let way = Way { state, device, holder: &holder, width, epoch: Epoch(epoch) };
        match way.hand_over(&wanted, sweeps).await {
            Ok(gone) => {
                sweep.handed_over += gone;
                let room = REMEMBERED.saturating_sub(sweep.extra.len());
                sweep.extra.extend(wanted.iter().take(room).map(|(shard, ..)| *shard));
                sweep.left += (wanted.len() as u64).saturating_sub(gone);
            }
            Err(e) => {
                tracing::debug!(node = %holder.node, error = %e, "shards cannot be handed over now");
                sweep.left += wanted.len() as u64;
            }
        }
    }
    Ok(())
}

/// What came of bringing one shard.
enum Brought {
    There,
    /// The holder has another version.
    Refused,
    /// It cannot be read here.
    Unreadable,
}

/// From a device of this node to a rightful holder, by one layout.
struct Way<'a> {
    state: &'a Arc<State>,
    device: &'a Device,
    holder: &'a DeviceInfo,
    width: u8,
    epoch: Epoch,
}

impl Way<'_> {
    /// Hands shards over: `(shard, its descriptor, whether it is uncommitted)`. How many are not here any more.
    async fn hand_over(&self, shards: &[(ShardRef, DescriptorId, bool)], sweeps: u32) -> Result<u64> {
        if self.holder.node != self.state.node && !self.state.map.is_up(self.holder.node) {
            return Err(Error::unavailable("the rightful holder is away").on(self.holder.node));
        }
        let mut asked: Vec<(ShardRef, DescriptorId)> = shards.iter().map(|(s, d, _)| (*s, *d)).collect();
        let confirmed = self.confirmed(&asked).await?;
        let layouts = self.state.map.layouts(self.width).ok_or_else(super::link::confused)?;
        let (mut brought, mut given_up) = (Vec::new(), 0);
        for ((shard, descriptor, pending), confirmed) in shards.iter().zip(&confirmed) {
            // A committed shard that this device held before is fetched by its new holder, which knows
            // best what it needs first. It is not told of others.
            let fetched_there = !pending
                && sweeps < PATIENCE
                && layouts.earlier.iter().any(|l| l.holder(&shard.chunk, shard.index).is_some_and(|d| d.device == self.device.id));
            if !confirmed && !fetched_there && !self.is_refused(shard) {
                match self.bring(*shard).await? {
                    Brought::There => brought.push((*shard, *descriptor)),
                    Brought::Refused if self.is_good_for_nothing(&layouts, *shard, *descriptor).await => {
                        let why =
                            Error::corrupt("too few shards are of this version of its chunk, and its rightful holder has another one");
                        self.state.damaged(self.device, *shard, &why).await;
                        given_up += 1;
                    }
                    // What is not committed yet is not decided yet.
                    Brought::Refused if *pending => {}
                    Brought::Refused => self.tell_refused(shard).await,
                    Brought::Unreadable => {}
                }
            }
        }
        let again = if brought.is_empty() { Vec::new() } else { self.confirmed(&brought).await? };
        let mut gone: Vec<ShardRef> = asked.drain(..).zip(confirmed).filter(|(_, yes)| *yes).map(|((s, _), _)| s).collect();
        gone.extend(brought.into_iter().zip(again).filter(|(_, yes)| *yes).map(|((s, _), _)| s));
        Ok(self.drop_confirmed(gone).await? + given_up)
    }

    /// Whether a shard that its holder does not take may go.
    async fn is_good_for_nothing(&self, layouts: &Layouts, shard: ShardRef, descriptor: DescriptorId) -> bool {
        match self.device.store.policy(&shard).await {
            Ok(Some(policy)) if !self.state.is_frozen() => is_undecodable(self.state, layouts, shard, descriptor, policy).await,
            _ => false,
        }
    }

    /// Whether the holder did not take a shard a while ago.
    fn is_refused(&self, shard: &ShardRef) -> bool {
        let now = self.state.env.clock.monotonic();
        self.state.memory().refused.get(&(*shard, self.holder.device)).is_some_and(|at| now.saturating_sub(*at) < REFUSED)
    }

    /// Remembers what its holder does not take, and names the holder once.
    async fn tell_refused(&self, shard: &ShardRef) {
        let now = self.state.env.clock.monotonic();
        let is_new = {
            let memory = &mut *self.state.memory();
            memory.refused.retain(|_, at| now.saturating_sub(*at) < REFUSED);
            if memory.refused.len() < REMEMBERED * 10 {
                memory.refused.insert((*shard, self.holder.device), now);
            }
            memory.refused_by.insert(self.holder.node)
        };
        if is_new {
            let detail =
                format!("node-{} does not take what belongs on it, for it has another version: {}", self.holder.node, named([shard]));
            self.state.link.report("shards-refused", detail).await;
        }
    }

    /// Drops what was confirmed, if the layout is still the one by which it was. How many.
    async fn drop_confirmed(&self, gone: Vec<ShardRef>) -> Result<u64> {
        // Behind the gate no newer layout comes between this look and the drop.
        let _gate = self.state.map.gate().await;
        if self.state.map.layout(self.width).is_none_or(|l| l.epoch != self.epoch) {
            return Err(Error::conflict("the layout has changed meanwhile"));
        }
        let count = gone.len() as u64;
        if !self.state.is_frozen() {
            self.device.store.drop_shards(gone).await?;
            self.state.memory().report.handed_over += count;
        }
        Ok(count)
    }

    /// Which shards the holder has durably, as its own.
    async fn confirmed(&self, shards: &[(ShardRef, DescriptorId)]) -> Result<Vec<bool>> {
        if self.holder.node == self.state.node {
            let Some(other) = self.state.device(&self.holder.device) else { return Ok(vec![false; shards.len()]) };
            let mut held = Vec::with_capacity(shards.len());
            for (shard, descriptor) in shards {
                held.push(other.store.head(shard).await? == Some(*descriptor));
            }
            return Ok(held);
        }
        let named = shards.iter().map(|(s, d)| (*s, *d, self.holder.device)).collect();
        let request = ConfirmShardsRequest { width: self.width, epoch: self.epoch, shards: named };
        let answer = self.state.pool.rpc::<ConfirmShards>(&self.target(Mode::Control)?, &request, DEADLINE).await?;
        if answer.len() == shards.len() { Ok(answer) } else { Err(super::link::confused()) }
    }

    /// Brings a shard to its holder.
    async fn bring(&self, shard: ShardRef) -> Result<Brought> {
        let _turn = self.state.repair_turn(false).await?;
        let (descriptor, body) = match self.device.store.get(&shard, None).await {
            Ok(read) => read,
            Err(e) if e.kind == Kind::Corrupt => {
                self.state.damaged(self.device, shard, &e).await;
                return Ok(Brought::Unreadable);
            }
            Err(e) if e.kind == Kind::Unavailable => {
                self.state.doubt(self.device, shard).await;
                return Ok(Brought::Unreadable);
            }
            Err(e) => return Err(e),
        };
        let put = match self.holder.node == self.state.node {
            true => match self.state.device(&self.holder.device) {
                Some(other) => other.store.put(shard, descriptor, body).await,
                None => return Ok(Brought::Unreadable),
            },
            false => self.send(shard, descriptor.to_bytes(), body).await,
        };
        match put {
            // By the layout, or because it has another version: the layout is the same as long as it answers
            // questions about this epoch, which it did just now.
            Err(e) if e.kind == Kind::Conflict => {
                tracing::warn!(node = %self.holder.node, error = %e, "a shard is not taken by its holder");
                Ok(Brought::Refused)
            }
            other => other.map(|()| Brought::There),
        }
    }

    async fn send(&self, shard: ShardRef, descriptor: Vec<u8>, body: Bytes) -> Result<()> {
        let request =
            PutShardRequest { capability: None, shard, descriptor: descriptor.into(), epoch: self.epoch, device: self.holder.device };
        self.state.pool.rpc_body::<PutShard>(&self.target(Mode::Bulk)?, &request, body, DEADLINE).await.map(|_| ())
    }

    fn target(&self, mode: Mode) -> Result<Target> {
        let node = self.holder.node;
        let address = self.state.map.address(node).ok_or_else(|| Error::unavailable("a holder's address is not known yet").on(node))?;
        Ok(Target::node(node, &address).with(mode))
    }
}
