//! What somebody should look at, where, and what to do about it: the last part of a status.

use super::{Layouts, Problem, Report, is_heard};
use model::NodeId;
use model::cluster::{Node, NodeState};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::coordinator::{NodeReport, StatusResponse};

/// Use of a node's capacity from which somebody should look at it, in percent.
const NEARLY_FULL: u64 = 90;
/// Age of the last snapshot of a lone coordinator, which makes one every ten minutes, from which something is wrong.
const SNAPSHOT_MS: u64 = 6 * 3_600_000;
/// A node that was heard so recently talks, whatever it counts as, in milliseconds.
const TALKS_MS: u64 = 4_000;

/// What was found so far.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn say(&mut self, what: String, place: String, remedy: String) {
        self.0.push(Problem { what, since: None, place, remedy });
    }
}

/// Finds them. `whole`: nodes that have everything that they should have.
pub fn problems(status: &StatusResponse, layouts: &Layouts, whole: &BTreeSet<NodeId>, report: &Report) -> Vec<Problem> {
    let mut found = Found::default();
    let (policy, has_layout) = (status.cluster.policy, !layouts.is_empty());
    if report.chunks.lost > 0 {
        let what = format!("at least {} chunks have too few shards left to be rebuilt", report.chunks.lost);
        found.say(what, "cluster".into(), "bring back lost servers or disks as they were; shardkeep verify -r / names the files".into());
    }
    let bare: Vec<String> = report.policies.iter().filter(|p| p.policy.m == 0 && p.chunks > 0).map(|p| p.policy.to_string()).collect();
    if !has_layout {
        let joined = status.cluster.nodes.iter().filter(|n| !n.devices.is_empty()).count();
        let what = format!("{joined} of the {} nodes that policy {policy} needs have joined: nothing can be stored yet", policy.width());
        found.say(what, "cluster".into(), "shardkeep cluster token node, then shardkeep serve node --join TOKEN".into());
    } else if report.chunks.unavailable > 0 {
        found.say("so many servers are away that data cannot be read".into(), "cluster".into(), "start the servers named below".into());
    } else if let Some(at_risk) = report.policies.iter().find(|p| p.survivable == Some(0) && p.policy.m > 0) {
        let of = if at_risk.policy == policy { String::new() } else { format!(" of policy {}", at_risk.policy) };
        found.say(
            format!("one more lost server makes data{of} unreadable"),
            "cluster".into(),
            "bring servers back before anything else fails".into(),
        );
    }
    if !bare.is_empty() {
        let what = format!("policy {} keeps no parity: each lost server or disk takes data with it", bare.join(", "));
        found.say(what, "cluster".into(), "store what matters under another policy, such as 2+2".into());
    }
    let out: BTreeSet<NodeId> = status.cluster.nodes.iter().filter(|n| n.state == NodeState::Out).map(|n| n.id).collect();
    let (vacant, slots) = layouts.vacant(&out);
    if vacant > 0 {
        let what = format!("{vacant} of {slots} slots are vacant: too few nodes are left to put their shards on");
        found.say(
            what,
            "cluster".into(),
            "bring the lost node back, or let another join (shardkeep cluster token node) and shardkeep cluster add it".into(),
        );
    }
    if let Some(change) = status.cluster.changes.iter().find(|c| c.stopped) {
        found.say(
            format!("the change of the layout is stopped: {}", change.why),
            "cluster".into(),
            "shardkeep cluster layout resume".into(),
        );
    }
    let (holders, current) = (layouts.holders(), layouts.current_holders());
    for node in &status.cluster.nodes {
        let report = status.nodes.iter().find(|r| r.node == node.id);
        let holds = holders.contains(&node.id);
        let emptied = has_layout && !holds && !current.contains(&node.id);
        node_problems(node, report, holds, emptied, &mut found);
        if let Some(heartbeat) = report.filter(|r| is_heard(r)).and_then(|r| r.heartbeat.as_ref()) {
            let mine = layouts.devices().into_iter().filter(|(n, _)| *n == node.id).map(|(_, device)| device);
            for device in mine.filter(|device| heartbeat.devices.iter().all(|d| d.id != *device)) {
                let remedy = "put it back and start the node again; if it is lost: shardkeep cluster layout apply rebuilds what it held";
                found.say("a disk that holds shards is gone".into(), format!("{}, disk {device}", node.name), remedy.into());
            }
        }
        let unheard = report.is_some_and(|r| r.heartbeat.is_none() && r.state == NodeState::Up);
        if unheard && holds && !whole.contains(&node.id) {
            let what = "has not been heard since the coordinator started";
            found.say(what.into(), node.name.clone(), "start it again with its --dir, if it does not run".into());
        }
    }
    for (id, _) in status.coordinators.iter().filter(|(id, _)| status.damaged.contains(id)) {
        let remedy = match status.coordinators.len() {
            1 => "restore its last good backup onto a new one, or one made now: shardkeep cluster backup --damaged, cluster restore".into(),
            _ => format!("let another one join (shardkeep cluster token coordinator), then shardkeep cluster remove coordinator-{id}"),
        };
        found.say("its catalog is damaged: rows are not what was written".into(), format!("coordinator {id}"), remedy);
    }
    let life = &status.cluster.life;
    if status.coordinators.len() == 1 && life.snapshot_ms > 0 && status.cluster.time_ms.saturating_sub(life.snapshot_ms) > SNAPSHOT_MS {
        let what = "no snapshot of it could be put onto nodes for hours: should its folder be lost, so is what came since";
        let remedy = "make room on the nodes, or look at its log; meanwhile: shardkeep cluster backup";
        found.say(what.into(), "coordinator".into(), remedy.into());
    }
    for id in &status.short_of_room {
        let what = "there is little room left on its disk: when it is full it takes no part";
        let remedy = "make room on it; or let one on another disk join (shardkeep cluster token coordinator), then remove this one";
        found.say(what.into(), format!("coordinator {id}"), remedy.into());
    }
    for (id, up) in &status.coordinators {
        if !up {
            found.say("a coordinator does not answer".into(), format!("coordinator {id}"), "start it: shardkeep serve coordinator".into());
        }
    }
    found.0
}

/// `emptied`: there are layouts, and it holds nothing.
fn node_problems(node: &Node, report: Option<&NodeReport>, holds: bool, emptied: bool, found: &mut Found) {
    let state = report.map_or(node.state, |r| r.state);
    let place = format!("{} ({})", node.name, if node.address.is_empty() { "no address yet" } else { &node.address });
    let silent_ms = report.and_then(|r| r.silent_ms);
    let talks = silent_ms.is_some_and(|ms| ms < TALKS_MS);
    match state {
        NodeState::Down if holds && talks => {
            let what = "comes and goes: it counts as up again when it has stayed for a minute";
            found.say(what.into(), place.clone(), "look at its network and its log".into());
        }
        NodeState::Suspect | NodeState::Down | NodeState::Out if holds && !node.leaving => {
            let remedy =
                format!("start it again with its --dir; if its disks are lost: shardkeep cluster token node --replace {}", node.name);
            let since = silent_ms.map(Duration::from_millis);
            found.0.push(Problem { what: "does not answer".into(), since, place: place.clone(), remedy });
        }
        NodeState::Joining if emptied => {
            found.say("has joined and holds nothing yet".into(), place.clone(), format!("shardkeep cluster add {}", node.name));
        }
        NodeState::Draining if emptied => {
            found.say(
                "is drained: it holds nothing any more".into(),
                place.clone(),
                format!("stop it, then shardkeep cluster remove {}", node.name),
            );
        }
        _ => {}
    }
    let Some(heartbeat) = report.filter(|r| is_heard(r)).and_then(|r| r.heartbeat.as_ref()) else { return };
    for device in &heartbeat.devices {
        if let Some(problem) = &device.problem {
            found.say(problem.clone(), format!("{place}, disk {}", device.id), "free or add space, or replace the disk".into());
        } else if device.used.saturating_mul(100) >= device.capacity.saturating_mul(NEARLY_FULL) {
            found.say("the disk is nearly full".into(), format!("{place}, disk {}", device.id), "free or add space".into());
        }
    }
}
