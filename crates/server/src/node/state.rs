//! What a node works with, shared by its service and its loops.

use super::admission::Admission;
use super::brake::Brake;
use super::link::Link;
use super::map::Map;
use super::rebuild::Healed;
use super::upkeep::Scrubs;
use env::Env;
use model::{DeviceId, Epoch, Error, NodeId, Result, ShardRef};
use shards::ShardStore;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use transport::Pool;
use wire::coordinator::{LayoutProgress, RepairReport};

/// Most damaged shards that wait for repair; beyond that a full round finds them.
const URGENT: usize = 10_000;

/// So long after a client's request repair goes slower; and the longest pause between two repairs then.
const BUSY: Duration = Duration::from_millis(500);

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
    memory: Mutex<Memory>,
}

/// What changes while the node runs.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Shards set aside, to be rebuilt before anything else.
    pub urgent: VecDeque<(DeviceId, ShardRef)>,
    /// Last number of the catalog's feed, as the last heartbeat's answer said.
    pub feed: u64,
    /// The catalog's time, as the last heartbeat's answer said, milliseconds since 1970.
    pub catalog_ms: u64,
    /// The feed is to be read again from its start.
    pub rewind: bool,
    pub report: RepairReport,
    /// By which layouts everything has arrived, by device.
    pub arrived: BTreeMap<DeviceId, BTreeMap<u8, Epoch>>,
    /// By which layouts nothing is here any more that belongs elsewhere.
    pub handed_over: BTreeMap<u8, Epoch>,
    /// Monotonic time of the last request of a client.
    last_client: Option<Duration>,
    /// How long the last repair took.
    repair_took: Duration,
    /// Shards found bad since the start.
    pub found_bad: u64,
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
        self.state.memory().repair_took = took.min(BUSY);
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

    /// A client is served now: repair goes slower for a while.
    pub fn client_called(&self) {
        let now = self.env.clock.monotonic();
        self.memory().last_client = Some(now);
    }

    /// The right to one repair. While clients are served there is one at a time, and as long a pause
    /// after each as it took: they come first.
    pub async fn repair_turn(&self) -> Result<RepairTurn<'_>> {
        let stopping = |_| Error::unavailable("this node stops");
        let busy = self.is_busy();
        let permit = self.repairs.acquire_many(if busy { super::reconcile::AT_ONCE as u32 } else { 1 }).await.map_err(stopping)?;
        if busy {
            let took = self.memory().repair_took;
            self.env.sleep(took).await;
        }
        Ok(RepairTurn { state: self, began: self.env.clock.monotonic(), _permit: permit })
    }

    fn is_busy(&self) -> bool {
        let now = self.env.clock.monotonic();
        self.memory().last_client.is_some_and(|at| now.saturating_sub(at) < BUSY)
    }

    /// A shard has come here.
    pub fn healed(&self, healed: Healed) {
        let report = &mut self.memory().report;
        report.healed += 1;
        report.copied += u64::from(healed.copied);
        report.moved_bytes += healed.bytes;
    }

    /// A shard does not verify: sets it aside, names it in the event log, and has it rebuilt.
    pub async fn damaged(&self, device: &Device, shard: ShardRef, error: &Error) {
        if let Err(e) = device.store.quarantine(&shard).await {
            tracing::warn!(error = %e, "a damaged shard could not be set aside");
        }
        {
            let mut memory = self.memory();
            memory.found_bad += 1;
            let item = (device.id, shard);
            if memory.urgent.len() < URGENT && !memory.urgent.contains(&item) {
                memory.urgent.push_back(item);
            }
        }
        self.work.notify_one();
        let chunk = shard.chunk;
        let detail = format!("shard {} of chunk {}/{} on device {}: {}", shard.index, chunk.object, chunk.number, device.id, error.message);
        self.link.report("shard-corrupt", detail).await;
    }
}
