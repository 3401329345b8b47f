//! What a node works with, shared by its service and its loops.

use super::admission::Admission;
use super::link::Link;
use super::map::Map;
use env::Env;
use model::{DeviceId, Error, NodeId, ShardRef};
use shards::ShardStore;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};
use transport::Pool;
use wire::coordinator::RepairReport;

/// Most damaged shards that wait for repair; beyond that a full round finds them.
const URGENT: usize = 10_000;

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
    /// One permit a rebuild, which holds about ten MiB.
    pub rebuilds: Semaphore,
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
    /// How far the feed was ever followed.
    pub followed: u64,
    /// Nothing may be dropped (see [`super::collect`]).
    pub frozen: bool,
    /// The feed is to be read again from its start.
    pub rewind: bool,
    pub report: RepairReport,
    /// Bytes rebuilt since the start.
    pub healed_bytes: u64,
    /// Shards found bad since the start.
    pub found_bad: u64,
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
            rebuilds: Semaphore::new(super::reconcile::AT_ONCE),
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
