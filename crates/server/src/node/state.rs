//! What a node works with, shared by its service and its loops.

use super::admission::Admission;
use super::aside::Aside;
use super::brake::Brake;
use super::link::Link;
use super::map::Map;
use super::rebuild::Healed;
use super::tally::Tally;
use super::upkeep::Scrubs;
use env::Env;
use model::{DeviceId, Epoch, Error, NodeId, Result, ShardRef};
use shards::ShardStore;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use transport::Pool;
use wire::coordinator::{LayoutProgress, RepairReport};

/// So long after a user's request repair goes slower. More than heartbeats are apart, which tell of users of
/// whom this node sees nothing.
const BUSY: Duration = Duration::from_millis(1500);
/// The longest repair that the pause after it is measured by.
const LONG: Duration = Duration::from_millis(500);

/// One folder of the node.
pub(crate) struct Device {
    pub id: DeviceId,
    pub dir: PathBuf,
    pub store: ShardStore,
}

/// One node. Behind an `Arc`.
pub(crate) struct State {
    pub env: Env,
    pub node: NodeId,
    pub devices: Vec<Device>,
    pub pool: Pool,
    pub link: Arc<Link>,
    pub map: Map,
    pub admission: Admission,
    /// The map is to be fetched again.
    pub refresh: Notify,
    /// There is something for reconciliation to do.
    pub work: Notify,
    /// Layouts, or who is up, have changed.
    pub relaid: Notify,
    /// There may be shards to hand over.
    pub hand_over: Notify,
    /// One permit a repair, which holds about ten MiB.
    repairs: Semaphore,
    /// Whether anything may be dropped.
    pub brake: Brake,
    pub scrubs: Scrubs,
    /// Devices with the mark that they may miss shards.
    pub marked: tokio::sync::Mutex<BTreeSet<DeviceId>>,
    memory: Mutex<Memory>,
}

/// What changes while the node runs.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Shards that were found bad.
    pub aside: Aside,
    /// Shards that should be here and are not.
    pub tally: Tally,
    /// Devices that are to be looked through again.
    pub walks: BTreeSet<DeviceId>,
    /// Last number of the catalog's feed, as the last heartbeat's answer said.
    pub feed: u64,
    /// The catalog's time, as the last heartbeat's answer said, milliseconds since 1970.
    pub catalog_ms: u64,
    pub report: RepairReport,
    /// By which layouts everything has arrived, by device.
    pub arrived: BTreeMap<DeviceId, BTreeMap<u8, Epoch>>,
    /// By which layouts nothing is here any more that belongs elsewhere.
    pub handed_over: BTreeMap<u8, Epoch>,
    /// Monotonic time at which users were last known to be served.
    last_user: Option<Duration>,
    /// How long the last repair took.
    repair_took: Duration,
    /// Shards found bad since the start.
    pub found_bad: u64,
    /// Shards that their holders' devices did not take, and when.
    pub refused: BTreeMap<(ShardRef, DeviceId), Duration>,
    /// Nodes of which it was said that they do not take what belongs on them.
    pub refused_by: BTreeSet<NodeId>,
}

/// See [`State::repair_turn`].
pub(crate) struct RepairTurn<'a> {
    state: &'a State,
    began: Duration,
    _permit: SemaphorePermit<'a>,
}

impl Drop for RepairTurn<'_> {
    fn drop(&mut self) {
        let took = self.state.env.clock.monotonic().saturating_sub(self.began);
        self.state.memory().repair_took = took.min(LONG);
    }
}

impl State {
    pub fn new(env: Env, node: NodeId, devices: Vec<Device>, pool: Pool, link: Arc<Link>) -> Self {
        State {
            env,
            node,
            devices,
            pool,
            link,
            map: Map::default(),
            admission: Admission::new(node),
            refresh: Notify::new(),
            work: Notify::new(),
            relaid: Notify::new(),
            hand_over: Notify::new(),
            repairs: Semaphore::new(super::reconcile::AT_ONCE),
            brake: Brake::default(),
            scrubs: Scrubs::default(),
            marked: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Never held across an await.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|d| d.id == *id)
    }

    /// Has the map fetched again, without waiting for it.
    pub fn refresh_soon(&self) {
        self.refresh.notify_one();
    }

    /// How far this node is with each layout.
    pub fn layout_progress(&self) -> Vec<LayoutProgress> {
        let epochs = self.map.epochs();
        let memory = self.memory();
        let arrived = |width, epoch| self.devices.iter().all(|d| memory.arrived.get(&d.id).and_then(|a| a.get(&width)) == Some(&epoch));
        let settled = |width, epoch| arrived(width, epoch) && memory.handed_over.get(&width) == Some(&epoch);
        epochs.into_iter().map(|(width, epoch)| LayoutProgress { width, epoch, settled: settled(width, epoch) }).collect()
    }

    /// A user is served now: repair goes slower for a while.
    pub fn user_called(&self) {
        let now = self.env.clock.monotonic();
        self.memory().last_user = Some(now);
    }

    /// The right to one repair. While users are served there is one at a time, and as long a pause after each
    /// as it took: users come first. But for what is `urgent`: what the next failure could lose.
    pub async fn repair_turn(&self, urgent: bool) -> Result<RepairTurn<'_>> {
        let stopping = |_| Error::unavailable("this node stops");
        let busy = !urgent && self.is_busy();
        let permit = self.repairs.acquire_many(if busy { super::reconcile::AT_ONCE as u32 } else { 1 }).await.map_err(stopping)?;
        if busy {
            let took = self.memory().repair_took;
            self.env.sleep(took).await;
        }
        Ok(RepairTurn { state: self, began: self.env.clock.monotonic(), _permit: permit })
    }

    /// Whether users were served within the last moments.
    pub fn is_busy(&self) -> bool {
        let now = self.env.clock.monotonic();
        self.memory().last_user.is_some_and(|at| now.saturating_sub(at) < BUSY)
    }

    /// How reconciliation stands.
    pub fn repair_report(&self) -> RepairReport {
        let memory = self.memory();
        let mut shown = memory.tally.shown();
        memory.aside.by_policy().into_iter().for_each(|(policy, count)| *shown.missing.entry(policy).or_default() += count);
        RepairReport {
            shards: shown.shards(),
            bytes: shown.bytes(),
            lost: shown.lost + memory.aside.lost(),
            missing: shown.exact.then(|| shown.missing.into_iter().collect()),
            ..memory.report.clone()
        }
    }

    /// A shard has come here.
    pub fn healed(&self, healed: Healed) {
        let report = &mut self.memory().report;
        report.healed += 1;
        report.copied += u64::from(healed.copied);
        report.moved_bytes += healed.bytes;
    }
}
