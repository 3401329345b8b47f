//! What the servers say, weighed: is the data safe, what may still fail, what should somebody do?
//!
//! Pure. Safety is judged partition by partition on the layout of the default policy: a shard counts
//! only where its node answers and has nothing left to rebuild. A node that perhaps misses something
//! and does not know it yet is a doubt: it counts as missing when a second look, a heartbeat later,
//! finds it so still. The counts of chunks by redundancy are exact where all partitions stand alike (as in a
//! cluster of exactly k + m nodes) and are otherwise estimated from the partitions, which a hash
//! fills evenly; the report says which.

use model::cluster::{Node, NodeState};
use model::{Layout, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use wire::coordinator::{NodeReport, StatusResponse};

/// A node that holds fewer shards than this part of what the fullest one holds, in a cluster where
/// all should hold the same, was emptied, even when it does not know yet.
const EMPTIED: u64 = 2;
/// A node that came back so recently may not have looked yet at what it misses, in milliseconds.
const JUST_BACK_MS: u64 = 15_000;
/// Use of a node's capacity from which somebody should look at it, in percent.
const NEARLY_FULL: u64 = 90;

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub place: String,
    pub remedy: String,
}

/// What is being rebuilt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repair {
    pub shards: u64,
    pub bytes: u64,
    /// Bytes a second.
    pub rate: u64,
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
    pub total: u64,
    pub by_redundancy: BTreeMap<u8, u64>,
    /// Too few servers answer to read them now; their shards are not gone.
    pub unavailable: u64,
    /// So few shards are left that nothing brings them back.
    pub lost: u64,
    /// Not counted but estimated from the layout.
    pub estimated: bool,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub safe: bool,
    /// Further nodes that may be lost, whichever; `None` before there is a layout.
    pub failures_survivable: Option<u8>,
    /// Coordinators that may fail without the catalog stopping.
    pub catalog_survivable: usize,
    pub repair: Repair,
    pub chunks: Chunks,
    pub problems: Vec<Problem>,
    /// Nodes that perhaps miss shards. Not counted; for another look, a heartbeat later.
    pub doubts: BTreeSet<NodeId>,
}

impl Report {
    /// `layout`: that of the default policy's width. `doubted`: nodes that an earlier look doubted;
    /// those that are still doubtful count as missing shards.
    pub fn of(status: &StatusResponse, layout: Option<&Layout>, doubted: &BTreeSet<NodeId>) -> Report {
        let policy = status.cluster.policy;
        let holders: BTreeSet<NodeId> = layout.map(holders).unwrap_or_default();
        let reports: BTreeMap<NodeId, &NodeReport> = status.nodes.iter().map(|r| (r.node, r)).collect();
        let wholeness = |node: &NodeId| reports.get(node).map_or(Wholeness::Wanting, |r| wholeness(r, status, &holders));
        let doubts: BTreeSet<NodeId> = holders.iter().filter(|n| wholeness(n) == Wholeness::Doubtful).copied().collect();
        let counts = |node: &NodeId| match wholeness(node) {
            Wholeness::Whole => true,
            Wholeness::Doubtful => !doubted.contains(node),
            Wholeness::Wanting => false,
        };
        let whole: BTreeSet<NodeId> = holders.iter().filter(|n| counts(n)).copied().collect();
        let levels = layout.map(|layout| levels(layout, &whole)).unwrap_or_default();
        let worst = levels.keys().next_back().copied();
        let failures_survivable = worst.map(|missing| policy.m.saturating_sub(missing));
        let heartbeats = || status.nodes.iter().filter(|r| is_heard(r)).filter_map(|r| r.heartbeat.as_ref());
        let repair = heartbeats().fold(Repair::default(), |sum, h| Repair {
            shards: sum.shards + h.repair.shards,
            bytes: sum.bytes + h.repair.bytes,
            rate: sum.rate + h.repair.rate,
        });
        // Each node counts the chunks that it cannot get a shard of, and several count the same ones.
        let lost = heartbeats().map(|h| h.repair.lost).max().unwrap_or(0);
        let chunks = chunks(status.totals.chunks, policy.m, &levels, lost);
        let mut report = Report {
            // Every chunk at full redundancy, as far as the servers know.
            safe: worst == Some(0) && policy.m > 0 && lost == 0,
            failures_survivable,
            catalog_survivable: catalog_survivable(status),
            repair,
            chunks,
            problems: Vec::new(),
            doubts,
        };
        report.problems = problems(status, layout.is_some(), &holders, &whole, &report);
        report
    }
}

/// Nodes of which at least one slot names a device.
fn holders(layout: &Layout) -> BTreeSet<NodeId> {
    let used: BTreeSet<u16> = layout.slot_indexes().into_iter().collect();
    used.iter().filter_map(|slot| layout.devices.get(usize::from(*slot))).map(|d| d.node).collect()
}

/// Whether a node talks.
fn is_heard(report: &NodeReport) -> bool {
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

fn wholeness(report: &NodeReport, status: &StatusResponse, holders: &BTreeSet<NodeId>) -> Wholeness {
    if report.heartbeat.is_none() && report.state == NodeState::Up {
        // Right after its start a coordinator has heard nobody yet.
        return Wholeness::Doubtful;
    }
    let Some(heartbeat) = report.heartbeat.as_ref().filter(|_| is_heard(report)) else { return Wholeness::Wanting };
    if heartbeat.repair.shards > 0 || heartbeat.repair.lost > 0 {
        return Wholeness::Wanting;
    }
    let others = || status.nodes.iter().filter(|r| r.node != report.node && holders.contains(&r.node)).filter_map(|r| r.heartbeat.as_ref());
    let shards = |h: &wire::coordinator::HeartbeatRequest| h.devices.iter().map(|d| d.shards).sum::<u64>();
    let most = others().map(shards).max().unwrap_or(0);
    // In a cluster of just as many nodes as a chunk has shards, all hold the same number.
    let alike = holders.len() == usize::from(status.cluster.policy.width());
    let emptied = alike && shards(heartbeat).saturating_mul(EMPTIED) < most;
    let as_full = alike && shards(heartbeat) >= most;
    let behind = heartbeat.repair.whole_to < status.totals.feed && !as_full;
    let up_for = status.cluster.time_ms.saturating_sub(heartbeat.started_ms);
    // After a start of the whole cluster everybody is behind alike, and misses nothing.
    let alone = others().any(|h| h.started_ms + JUST_BACK_MS < heartbeat.started_ms);
    if emptied || behind && alone && up_for < JUST_BACK_MS { Wholeness::Doubtful } else { Wholeness::Whole }
}

/// How many partitions miss how many of their shards for certain.
fn levels(layout: &Layout, whole: &BTreeSet<NodeId>) -> BTreeMap<u8, u64> {
    let mut levels = BTreeMap::new();
    let there: Vec<bool> = layout.devices.iter().map(|d| whole.contains(&d.node)).collect();
    for slots in layout.slot_indexes().chunks_exact(usize::from(layout.width.max(1))) {
        let missing = slots.iter().filter(|s| !there.get(usize::from(**s)).copied().unwrap_or(false)).count();
        *levels.entry(missing as u8).or_default() += 1;
    }
    levels
}

fn chunks(total: u64, parity: u8, levels: &BTreeMap<u8, u64>, lost: u64) -> Chunks {
    let mut chunks = Chunks { total, lost: lost.min(total), estimated: levels.len() > 1, ..Chunks::default() };
    chunks.by_redundancy = (0..=parity).map(|r| (r, 0)).collect();
    let partitions: u64 = levels.values().sum();
    let mut left = total - chunks.lost;
    let share = left;
    // From the best off to the worst, which take what rounding leaves.
    for (i, (missing, count)) in levels.iter().enumerate() {
        let here =
            if i + 1 == levels.len() { left } else { (u128::from(share) * u128::from(*count) / u128::from(partitions.max(1))) as u64 };
        left -= here;
        match parity.checked_sub(*missing) {
            Some(redundancy) => *chunks.by_redundancy.entry(redundancy).or_default() += here,
            None => chunks.unavailable += here,
        }
    }
    chunks
}

fn catalog_survivable(status: &StatusResponse) -> usize {
    // Those that are catching up do not count yet.
    let voters = || status.coordinators.iter().filter(|(id, _)| !status.learners.contains(id));
    let all = voters().count();
    let up = voters().filter(|(_, up)| *up).count();
    up.saturating_sub(all / 2 + 1)
}

fn problems(
    status: &StatusResponse,
    has_layout: bool,
    holders: &BTreeSet<NodeId>,
    whole: &BTreeSet<NodeId>,
    report: &Report,
) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |what: String, place: String, remedy: String| found.push(Problem { what, place, remedy });
    let policy = status.cluster.policy;
    if report.chunks.lost > 0 {
        let what = format!("at least {} chunks have too few shards left to be rebuilt", report.chunks.lost);
        say(what, "cluster".into(), "bring back lost servers or disks as they were; shardkeep verify -r / names the files".into());
    }
    if !has_layout {
        let joined = status.cluster.nodes.iter().filter(|n| !n.devices.is_empty()).count();
        let what = format!("{joined} of the {} nodes that policy {policy} needs have joined: nothing can be stored yet", policy.width());
        say(what, "cluster".into(), "shardkeep cluster token node, then shardkeep serve node --join TOKEN".into());
    } else if report.failures_survivable == Some(0) && policy.m > 0 {
        let (what, remedy) = match report.chunks.unavailable {
            0 => ("one more lost server makes data unreadable", "bring servers back before anything else fails"),
            _ => ("so many servers are away that data cannot be read", "start the servers named below"),
        };
        say(what.into(), "cluster".into(), remedy.into());
    }
    for node in &status.cluster.nodes {
        let report = status.nodes.iter().find(|r| r.node == node.id);
        node_problems(node, report, has_layout, holders.contains(&node.id), &mut say);
        let unheard = report.is_some_and(|r| r.heartbeat.is_none() && r.state == NodeState::Up);
        if unheard && holders.contains(&node.id) && !whole.contains(&node.id) {
            let what = "has not been heard since the coordinator started";
            say(what.into(), node.name.clone(), "start it again with its --dir, if it does not run".into());
        }
    }
    for (id, up) in &status.coordinators {
        if !up {
            say("a coordinator does not answer".into(), format!("coordinator {id}"), "start it: shardkeep serve coordinator".into());
        }
    }
    found
}

fn node_problems(node: &Node, report: Option<&NodeReport>, has_layout: bool, holds: bool, say: &mut impl FnMut(String, String, String)) {
    let state = report.map_or(node.state, |r| r.state);
    let place = format!("{} ({})", node.name, if node.address.is_empty() { "no address yet" } else { &node.address });
    let silent =
        report.and_then(|r| r.silent_ms).map(|ms| format!(" for {}", crate::units::duration(std::time::Duration::from_millis(ms))));
    match state {
        NodeState::Suspect | NodeState::Down | NodeState::Out if holds => {
            let remedy =
                format!("start it again with its --dir; if its disks are lost: shardkeep cluster token node --replace {}", node.name);
            say(format!("does not answer{}", silent.unwrap_or_default()), place.clone(), remedy);
        }
        NodeState::Joining if has_layout && !holds => {
            let remedy =
                "a new node takes over a lost one: shardkeep cluster token node --replace NODE; other changes of the layout come later";
            say("holds nothing yet".into(), place.clone(), remedy.into());
        }
        _ => {}
    }
    let Some(heartbeat) = report.filter(|r| is_heard(r)).and_then(|r| r.heartbeat.as_ref()) else { return };
    for device in &heartbeat.devices {
        if let Some(problem) = &device.problem {
            say(problem.clone(), format!("{place}, disk {}", device.id), "free or add space, or replace the disk".into());
        } else if device.used.saturating_mul(100) >= device.capacity.saturating_mul(NEARLY_FULL) {
            say("the disk is nearly full".into(), format!("{place}, disk {}", device.id), "free or add space".into());
        }
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
