//! Shards that were found bad, or could not be read: each is set aside, counted as missing, and rebuilt before
//! anything else. And those that are missing and cannot be rebuilt now, since too few others are left: they are
//! tried again at times, and hold nothing up.
//!
//! The list of them is in memory. A mark on the device says that there is one, so that a node that stops before all
//! are rebuilt looks through everything after its next start (see [`super::walk`]): nothing else would find a shard
//! missing that the device was whole with before.

use super::state::{Device, State};
use super::walk;
use model::{DeviceId, Kind, Policy, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most of them that are listed, over all devices. Beyond that a walk through everything finds them.
const MOST: usize = 10_000;

/// Pause between two attempts: doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    policy: Policy,
    /// The last attempt found fewer than `k` others, though all holders answered that are not out.
    lost: bool,
    /// Attempts that failed.
    tries: u32,
    /// Not to be tried before, monotonic.
    next: Duration,
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    waiting: BTreeMap<(DeviceId, ShardRef), Waiting>,
    /// Devices with more than could be listed.
    overflowed: BTreeSet<DeviceId>,
}

impl Aside {
    /// `false`: there are too many.
    fn add(&mut self, device: DeviceId, shard: ShardRef, policy: Policy) -> bool {
        let has_room = self.waiting.len() < MOST || self.waiting.contains_key(&(device, shard));
        if has_room {
            self.waiting.entry((device, shard)).or_insert(Waiting { policy, lost: false, tries: 0, next: Duration::ZERO });
        }
        has_room
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All of them, in order.
    pub fn all(&self) -> Vec<(DeviceId, ShardRef)> {
        self.waiting.keys().copied().collect()
    }

    pub fn contains(&self, device: DeviceId, shard: &ShardRef) -> bool {
        self.waiting.contains_key(&(device, *shard))
    }

    /// One is there again, or not wanted any more.
    pub fn done(&mut self, device: DeviceId, shard: ShardRef) {
        self.waiting.remove(&(device, shard));
    }

    /// Those to be tried now, in order, with how their chunks are coded.
    pub fn due(&self, now: Duration) -> Vec<(DeviceId, ShardRef, Policy)> {
        self.waiting.iter().filter(|(_, w)| w.next <= now).map(|((device, shard), w)| (*device, *shard, w.policy)).collect()
    }

    /// An attempt to rebuild one has failed. `lost`: since too few others are left.
    pub fn failed(&mut self, device: DeviceId, shard: ShardRef, lost: bool, now: Duration) {
        if let Some(waiting) = self.waiting.get_mut(&(device, shard)) {
            waiting.lost = lost;
            waiting.next = now + (PAUSE * 2u32.saturating_pow(waiting.tries.min(16))).min(PAUSE_MAX);
            waiting.tries += 1;
        }
    }

    /// How many, by policy.
    pub fn by_policy(&self) -> BTreeMap<Policy, u64> {
        let mut count = BTreeMap::new();
        self.waiting.values().for_each(|w| *count.entry(w.policy).or_default() += 1);
        count
    }

    /// How many of them nothing brings back.
    pub fn lost(&self) -> u64 {
        self.waiting.values().filter(|w| w.lost).count() as u64
    }

    /// Whether a device had more than could be listed since this was last asked.
    pub fn take_overflowed(&mut self, device: DeviceId) -> bool {
        self.overflowed.remove(&device)
    }

    fn owes(&self, device: DeviceId) -> bool {
        self.overflowed.contains(&device) || self.waiting.keys().any(|(d, _)| *d == device)
    }
}

impl State {
    /// A shard does not verify: sets it aside, names it in the event log, and has it rebuilt.
    pub async fn damaged(&self, device: &Device, shard: ShardRef, error: &model::Error) {
        self.set_aside(device, shard).await;
        self.memory().found_bad += 1;
        let chunk = shard.chunk;
        let detail = format!("shard {} of chunk {}/{} on device {}: {}", shard.index, chunk.object, chunk.number, device.id, error.message);
        self.link.report("shard-corrupt", detail).await;
    }

    /// A shard could not be read. Whether it is bad is found out before anything else is done.
    pub async fn doubt(&self, device: &Device, shard: ShardRef) {
        self.list(device, shard).await;
    }

    async fn set_aside(&self, device: &Device, shard: ShardRef) {
        if self.list(device, shard).await
            && let Err(e) = device.store.quarantine(&shard).await
        {
            // It is tried again with every attempt to rebuild it.
            tracing::warn!(error = %e, "a damaged shard could not be set aside");
        }
    }

    /// Lists a shard, on a device that is marked first. `false`: it is not here any more.
    async fn list(&self, device: &Device, shard: ShardRef) -> bool {
        let policy = match device.store.policy(&shard).await {
            Ok(Some(policy)) => policy,
            Ok(None) => return false,
            Err(e) => {
                tracing::warn!(error = %e, "a damaged shard could not be looked up");
                return false;
            }
        };
        if !self.owe(device, shard, policy).await {
            self.memory().aside.overflowed.insert(device.id);
        }
        self.work.notify_one();
        true
    }

    /// A shard is missing of which too few others are left now: that is said, and tried again at times, and nothing
    /// else waits for it. `false`: there are too many of them.
    pub async fn give_up_for_now(&self, device: &Device, shard: ShardRef, policy: Policy) -> bool {
        if !self.owe(device, shard, policy).await {
            return false;
        }
        let now = self.env.clock.monotonic();
        self.memory().aside.failed(device.id, shard, true, now);
        true
    }

    /// Lists what is missing on a device that is marked first.
    async fn owe(&self, device: &Device, shard: ShardRef, policy: Policy) -> bool {
        let mut marked = self.marked.lock().await;
        if !marked.contains(&device.id) {
            match walk::mark(&self.env, device).await {
                Ok(()) => drop(marked.insert(device.id)),
                // It is rebuilt all the same, as long as the node runs.
                Err(e) => tracing::warn!(device = %device.id, error = %e, "a device with a damaged shard cannot be marked"),
            }
        }
        self.memory().aside.add(device.id, shard, policy)
    }

    /// Checks one that is listed once more. `Some(true)`: it is to be rebuilt; `Some(false)`: it is sound after all,
    /// or was put again; `None`: neither can be told now.
    pub async fn recheck(&self, device: &Device, shard: ShardRef) -> Option<bool> {
        match device.store.verify(&shard).await {
            Ok(()) => Some(false),
            Err(e) if e.kind == Kind::NotFound => Some(true),
            Err(e) if e.kind == Kind::Corrupt => device.store.quarantine(&shard).await.ok().map(|()| true),
            Err(_) => None,
        }
    }

    /// Takes the mark off a device that owes nothing any more.
    pub async fn settle_mark(&self, device: &Device) {
        let mut marked = self.marked.lock().await;
        if !marked.contains(&device.id) || self.memory().aside.owes(device.id) {
            return;
        }
        match walk::unmark(&self.env, device).await {
            Ok(()) => drop(marked.remove(&device.id)),
            // A mark that stays costs another walk after the next start.
            Err(e) => tracing::warn!(device = %device.id, error = %e, "the mark of a device cannot be removed"),
        }
    }
}
