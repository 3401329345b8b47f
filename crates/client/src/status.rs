//! What the servers say, weighed: is the data safe, what may still fail, what should somebody do?
//!
//! Pure. Safety is judged partition by partition, on the layout of each policy that holds data: a shard
//! counts only where its node answers, still has the device, and has nothing left to rebuild. While a layout
//! changes, it also counts where it lay before: nothing is dropped there until it has arrived. A node that
//! perhaps misses something and does not know it yet is a doubt: it counts as missing when a second look, a
//! heartbeat later, finds it so still; so is one that was silent and has not looked since at what it missed. After an
//! upload of which some chunk got not all its shards, one shard counts as missing until every node has looked.
//!
//! The counts of chunks by redundancy are exact where all partitions of a policy stand alike (as in a cluster
//! of exactly k + m nodes) and at most one node misses single shards. They are otherwise estimated: from the
//! partitions, which a hash fills evenly, and as if what several nodes miss were of the same chunks. The report
//! says which.

mod layouts;
mod problems;

pub use layouts::Layouts;

use model::cluster::NodeState;
use model::{CoordinatorId, DeviceId, NodeId, Policy};
use problems::problems;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::coordinator::{NodeReport, StatusResponse};

/// A node that holds fewer shards than this part of what the fullest one holds, in a cluster where
/// all should hold the same, was emptied, even when it does not know yet.
const EMPTIED: u64 = 2;
/// Shards that a node must be expected to have before their number tells whether it was emptied.
const ENOUGH_TO_TELL: u64 = 64;
/// A node that came back so recently may not have looked yet at what it misses, in milliseconds.
const JUST_BACK_MS: u64 = 15_000;
/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// For how long, where that is known.
    pub since: Option<Duration>,
    /// Where.
    pub place: String,
    /// What to do about it.
    pub remedy: String,
}

/// What is being rebuilt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repair {
    /// Shards, as far as known.
    pub shards: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes a second.
    pub rate: u64,
    /// Shards that wait where they no longer belong until they have been handed over.
    pub surplus: u64,
}

impl Repair {
    /// Seconds until it is done at this rate; `None` where nothing is known or moves.
    pub fn eta(&self) -> Option<u64> {
        match (self.bytes, self.rate) {
            (0, _) => Some(0),
            (_, 0) => None,
            (bytes, rate) => Some(bytes.div_ceil(rate)),
        }
    }
}

/// Chunks by how many shards they may still lose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunks {
    /// All chunks.
    pub total: u64,
    /// How many may still lose so many shards.
    pub by_redundancy: BTreeMap<u8, u64>,
    /// Too few servers answer to read them now; their shards are not gone.
    pub unavailable: u64,
    /// So few shards are left that nothing brings them back.
    pub lost: u64,
    /// Not counted but estimated from the layout.
    pub estimated: bool,
}

/// How one policy's chunks stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReport {
    /// The policy.
    pub policy: Policy,
    /// Its chunks.
    pub chunks: u64,
    /// Bytes of their shards.
    pub bytes: u64,
    /// Further nodes that may be lost, whichever; `None` before there is a layout.
    pub survivable: Option<u8>,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// No chunk is below full redundancy as far as the servers know, and nothing is on its way.
    pub safe: bool,
    /// Further nodes that may be lost, whichever, before data of any policy cannot be read; `None` before
    /// there is a layout.
    pub failures_survivable: Option<u8>,
    /// The default policy, and all others that hold data.
    pub policies: Vec<PolicyReport>,
    /// Coordinators that may fail without the catalog stopping.
    pub catalog_survivable: usize,
    /// What is being rebuilt.
    pub repair: Repair,
    /// All chunks, by what they may still lose.
    pub chunks: Chunks,
    /// What somebody should look at.
    pub problems: Vec<Problem>,
    /// Nodes that perhaps miss shards. Not counted; for another look, a heartbeat later.
    pub doubts: BTreeSet<NodeId>,
}

impl Report {
    /// `layouts`: those of all widths that hold data, as far as there are any. `doubted`: nodes that an
    /// earlier look doubted; those that are still doubtful count as missing shards.
    pub fn of(status: &StatusResponse, layouts: &Layouts, doubted: &BTreeSet<NodeId>) -> Report {
        let holders = layouts.holders();
        let reports: BTreeMap<NodeId, &NodeReport> = status.nodes.iter().map(|r| (r.node, r)).collect();
        let wholeness = |node: &NodeId| reports.get(node).map_or(Wholeness::Wanting, |r| wholeness(r, status, layouts));
        let doubts: BTreeSet<NodeId> = holders.iter().filter(|n| wholeness(n) == Wholeness::Doubtful).copied().collect();
        let counts = |node: &NodeId| match wholeness(node) {
            Wholeness::Whole => true,
            Wholeness::Doubtful => !doubted.contains(node),
            Wholeness::Wanting => false,
        };
        let whole: BTreeSet<NodeId> = holders.iter().filter(|n| counts(n)).copied().collect();
        let keeps = |node: &NodeId| whole.contains(node) || reports.get(node).is_some_and(|r| keeps_on(r, status, layouts));
        // Those of which every missing shard is counted. What moves to them is missing nowhere.
        let short: BTreeMap<NodeId, &[(Policy, u64)]> = holders
            .iter()
            .filter(|n| !keeps(n))
            .filter_map(|n| Some((*n, reports.get(n)?.heartbeat.as_ref().filter(|h| h.repair.lost == 0)?.repair.missing.as_deref()?)))
            .filter(|(n, _)| reports.get(n).is_some_and(|r| is_heard(r)))
            .collect();
        let has = |node: &NodeId, device: &DeviceId| {
            let heartbeat = reports.get(node).and_then(|r| r.heartbeat.as_ref());
            heartbeat.is_none_or(|h| h.devices.iter().any(|d| d.id == *device))
        };
        let there = |counts: &dyn Fn(&NodeId) -> bool| -> BTreeSet<DeviceId> {
            layouts.devices().into_iter().filter(|(node, device)| counts(node) && has(node, device)).map(|(_, device)| device).collect()
        };
        let (sure, keeping) = (there(&|n| whole.contains(n)), there(&keeps));
        let but_for_single = there(&|n| whole.contains(n) || short.contains_key(n));
        let heartbeats = || status.nodes.iter().filter(|r| is_heard(r)).filter_map(|r| r.heartbeat.as_ref());
        let repair = heartbeats().fold(Repair::default(), |sum, h| Repair {
            shards: sum.shards + h.repair.shards,
            bytes: sum.bytes + h.repair.bytes,
            rate: sum.rate + h.repair.rate,
            surplus: sum.surplus + h.repair.surplus,
        });
        // Each node counts the chunks that it cannot get a shard of, and several count the same ones.
        let lost = heartbeats().map(|h| h.repair.lost).max().unwrap_or(0);
        let mut chunks = Chunks { total: status.totals.chunks, lost: lost.min(status.totals.chunks), ..Chunks::default() };
        // Some chunk was stored without all its shards, and not every node has looked since what it misses.
        let behind =
            |n: &NodeId| reports.get(n).and_then(|r| r.heartbeat.as_ref()).is_some_and(|h| h.repair.whole_to < status.totals.partial);
        let partial = holders.iter().any(behind);
        let (mut policies, mut full, mut left_lost) = (Vec::new(), !partial, chunks.lost);
        for (policy, count, bytes) in by_policy(status) {
            let worst = layouts.levels(policy.width(), &sure, &keeping).keys().next_back().copied();
            full &= worst == Some(0) && policy.m > 0;
            let here = count.saturating_sub(left_lost);
            left_lost = left_lost.saturating_sub(count);
            let levels = layouts.levels(policy.width(), &but_for_single, &keeping);
            let single = short.values().map(|m| m.iter().filter(|(p, _)| *p == policy).map(|(_, n)| n).sum::<u64>());
            chunks.add_all(here, policy.m, &levels, single.filter(|n| *n > 0).collect(), worst.unwrap_or(0));
            let missing = worst.map(|missing| missing.max(u8::from(partial)));
            policies.push(PolicyReport {
                policy,
                chunks: count,
                bytes,
                survivable: missing.map(|missing| policy.m.saturating_sub(missing)),
            });
        }
        chunks.estimated |= partial;
        let (catalog_is_safe, catalog_survivable) = catalog(status);
        let failures_survivable = policies.iter().filter_map(|p| p.survivable).min();
        let mut report = Report {
            // Every chunk at full redundancy, as far as the servers know, and nothing on its way.
            safe: full && lost == 0 && status.cluster.changes.is_empty() && catalog_is_safe,
            failures_survivable,
            policies,
            catalog_survivable,
            repair,
            chunks,
            problems: Vec::new(),
            doubts,
        };
        report.problems = problems(status, layouts, &whole, &report);
        report
    }
}

/// Policies with their chunks and bytes: the default one first, then all others that hold data.
fn by_policy(status: &StatusResponse) -> Vec<(Policy, u64, u64)> {
    let default = status.cluster.policy;
    let others: Vec<_> = status.totals.policies.iter().filter(|(p, _, _)| *p != default).copied().collect();
    let sum = |f: fn(&(Policy, u64, u64)) -> u64| others.iter().map(f).sum::<u64>();
    // What is not counted by policy was stored before there were counts.
    let first = (default, status.totals.chunks.saturating_sub(sum(|o| o.1)), status.totals.bytes.saturating_sub(sum(|o| o.2)));
    std::iter::once(first).chain(others).collect()
}

/// Whether a node talks.
pub fn is_heard(report: &NodeReport) -> bool {
    matches!(report.state, NodeState::Up | NodeState::Draining | NodeState::Joining) && report.heartbeat.is_some()
}

/// Whether a node has every shard that it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wholeness {
    Whole,
    /// Perhaps it misses some; or its last heartbeat is older than the latest upload.
    Doubtful,
    Wanting,
}

fn wholeness(report: &NodeReport, status: &StatusResponse, layouts: &Layouts) -> Wholeness {
    if report.heartbeat.is_none() && report.state == NodeState::Up {
        // Right after its start a coordinator has heard nobody yet.
        return Wholeness::Doubtful;
    }
    let Some(heartbeat) = report.heartbeat.as_ref().filter(|_| is_heard(report)) else { return Wholeness::Wanting };
    if heartbeat.repair.shards > 0 || heartbeat.repair.lost > 0 {
        return Wholeness::Wanting;
    }
    let holders = layouts.holders();
    let others = || status.nodes.iter().filter(|r| r.node != report.node && holders.contains(&r.node)).filter_map(|r| r.heartbeat.as_ref());
    let most = others().map(shards).max().unwrap_or(0);
    // In a cluster of just as many nodes as a chunk has shards, all hold the same number.
    let alike = layouts.are_alike();
    let emptied = alike && shards(heartbeat).saturating_mul(EMPTIED) < most || is_emptied(report.node, heartbeat, status, layouts);
    let as_full = alike && shards(heartbeat) >= most;
    let behind = heartbeat.repair.whole_to < status.totals.feed && !as_full;
    // It was away, and has not looked since at what it missed.
    let owes = heartbeat.repair.whole_to < report.owes;
    let up_for = status.cluster.time_ms.saturating_sub(heartbeat.started_ms);
    // After a start of the whole cluster everybody is behind alike, and misses nothing.
    let alone = others().any(|h| h.started_ms + JUST_BACK_MS < heartbeat.started_ms);
    if emptied || owes || behind && alone && up_for < JUST_BACK_MS { Wholeness::Doubtful } else { Wholeness::Whole }
}

/// Whether a node that still has shards to fetch has those at least that lay on it before the change
/// that is under way.
fn keeps_on(report: &NodeReport, status: &StatusResponse, layouts: &Layouts) -> bool {
    let Some(heartbeat) = report.heartbeat.as_ref().filter(|_| is_heard(report)) else { return false };
    !status.cluster.changes.is_empty() && heartbeat.repair.lost == 0 && !is_emptied(report.node, heartbeat, status, layouts)
}

/// Whether a node has far fewer shards than its slots of old make likely: by number, so of use only
/// where there are many.
fn is_emptied(node: NodeId, heartbeat: &wire::coordinator::HeartbeatRequest, status: &StatusResponse, layouts: &Layouts) -> bool {
    let expected: u64 = by_policy(status).iter().map(|(policy, chunks, _)| layouts.share_of_old(policy.width(), node, *chunks)).sum();
    expected >= ENOUGH_TO_TELL && shards(heartbeat).saturating_mul(EMPTIED) < expected
}

fn shards(heartbeat: &wire::coordinator::HeartbeatRequest) -> u64 {
    heartbeat.devices.iter().map(|d| d.shards).sum()
}

impl Chunks {
    /// Counts chunks of a policy with so much parity, by how many of its partitions miss how many shards, and where
    /// some nodes miss so many single ones besides. None misses more than `worst`.
    fn add_all(&mut self, count: u64, parity: u8, levels: &BTreeMap<u8, u64>, mut single: Vec<u64>, worst: u8) {
        for redundancy in 0..=parity {
            self.by_redundancy.entry(redundancy).or_default();
        }
        self.estimated |= single.len() > 1;
        // The worst that these numbers can mean: that all of them miss shards of the same chunks.
        single.sort_unstable();
        let mut counted = 0;
        for (i, missing) in single.iter().enumerate() {
            let here = (*missing).min(count).saturating_sub(counted);
            let more = (single.len() - i) as u8;
            let shifted = levels.iter().fold(BTreeMap::new(), |mut all: BTreeMap<u8, u64>, (level, of)| {
                *all.entry(level.saturating_add(more).min(worst)).or_default() += of;
                all
            });
            self.add(here, parity, &shifted);
            counted += here;
        }
        self.add(count - counted, parity, levels);
    }

    /// Counts chunks of a policy with so much parity, by how many of its partitions miss how many shards.
    fn add(&mut self, count: u64, parity: u8, levels: &BTreeMap<u8, u64>) {
        self.estimated |= levels.len() > 1 && count > 0;
        let partitions: u64 = levels.values().sum();
        let mut left = count;
        // From the best off to the worst, which take what rounding leaves.
        for (i, (missing, of)) in levels.iter().enumerate() {
            let last = i + 1 == levels.len();
            let here = if last { left } else { (u128::from(count) * u128::from(*of) / u128::from(partitions.max(1))) as u64 };
            left -= here;
            match parity.checked_sub(*missing) {
                Some(redundancy) => *self.by_redundancy.entry(redundancy).or_default() += here,
                None => self.unavailable += here,
            }
        }
    }
}

/// Whether the catalog is as safe as it was meant to be, and how many coordinators may fail without it stopping.
///
/// Where several keep it, one of them at least may fail. A lone one is what somebody chose, and leaves snapshots on
/// the nodes.
fn catalog(status: &StatusResponse) -> (bool, usize) {
    // Those that are catching up do not count yet.
    let voters = || status.coordinators.iter().filter(|(id, _)| !status.learners.contains(id));
    let sound = |id: &CoordinatorId| !status.damaged.contains(id);
    let (all, good) = (voters().count(), voters().filter(|(id, up)| *up && sound(id)).count());
    let survivable = good.saturating_sub(all / 2 + 1);
    let lone_is_sound = all <= 1 && voters().all(|(id, _)| sound(id));
    (lone_is_sound || survivable > 0, survivable)
}

#[cfg(test)]
mod tests;
