//! What somebody should look at, where, and what to do about it: the last part of a status.

use super::layouts::Layouts;
use super::report::{Problem, Report, is_heard};
use model::NodeId;
use model::cluster::{Node, NodeState};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::coordinator::{NodeReport, StatusResponse};

/// Use of a node's capacity from which somebody should look at it, in percent.
const NEARLY_FULL: u64 = 90;
/// A node that was heard so recently talks, whatever it counts as, in milliseconds.
const TALKS_MS: u64 = 4_000;

/// Finds them. `whole`: nodes that have everything that they should have.
pub fn problems(status: &StatusResponse, layouts: &Layouts, whole: &BTreeSet<NodeId>, report: &Report) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut say = |what: String, place: String, remedy: String| found.push(Problem { what, place, remedy });
    let (policy, has_layout) = (status.cluster.policy, !layouts.is_empty());
    if report.chunks.lost > 0 {
        let what = format!("at least {} chunks have too few shards left to be rebuilt", report.chunks.lost);
        say(what, "cluster".into(), "bring back lost servers or disks as they were; shardkeep verify -r / names the files".into());
    }
    let bare: Vec<String> = report.policies.iter().filter(|p| p.policy.m == 0 && p.chunks > 0).map(|p| p.policy.to_string()).collect();
    if !has_layout {
        let joined = status.cluster.nodes.iter().filter(|n| !n.devices.is_empty()).count();
        let what = format!("{joined} of the {} nodes that policy {policy} needs have joined: nothing can be stored yet", policy.width());
        say(what, "cluster".into(), "shardkeep cluster token node, then shardkeep serve node --join TOKEN".into());
    } else if report.chunks.unavailable > 0 {
        say("so many servers are away that data cannot be read".into(), "cluster".into(), "start the servers named below".into());
    } else if let Some(at_risk) = report.policies.iter().find(|p| p.survivable == Some(0) && p.policy.m > 0) {
        let of = if at_risk.policy == policy { String::new() } else { format!(" of policy {}", at_risk.policy) };
        say(
            format!("one more lost server makes data{of} unreadable"),
            "cluster".into(),
            "bring servers back before anything else fails".into(),
        );
    }
    if !bare.is_empty() {
        let what = format!("policy {} keeps no parity: each lost server or disk takes data with it", bare.join(", "));
        say(what, "cluster".into(), "store what matters under another policy, such as 2+2".into());
    }
    let out: BTreeSet<NodeId> = status.cluster.nodes.iter().filter(|n| n.state == NodeState::Out).map(|n| n.id).collect();
    let (vacant, slots) = layouts.vacant(&out);
    if vacant > 0 {
        let what = format!("{vacant} of {slots} slots are vacant: too few nodes are left to put their shards on");
        say(
            what,
            "cluster".into(),
            "bring the lost node back, or let another join (shardkeep cluster token node) and shardkeep cluster add it".into(),
        );
    }
    if let Some(change) = status.cluster.changes.iter().find(|c| c.stopped) {
        say(format!("the change of the layout is stopped: {}", change.why), "cluster".into(), "shardkeep cluster layout resume".into());
    }
    let (holders, current) = (layouts.holders(), layouts.current_holders());
    for node in &status.cluster.nodes {
        let report = status.nodes.iter().find(|r| r.node == node.id);
        let holds = holders.contains(&node.id);
        let emptied = has_layout && !holds && !current.contains(&node.id);
        node_problems(node, report, holds, emptied, &mut say);
        let unheard = report.is_some_and(|r| r.heartbeat.is_none() && r.state == NodeState::Up);
        if unheard && holds && !whole.contains(&node.id) {
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

/// `emptied`: there are layouts, and it holds nothing.
fn node_problems(node: &Node, report: Option<&NodeReport>, holds: bool, emptied: bool, say: &mut impl FnMut(String, String, String)) {
    let state = report.map_or(node.state, |r| r.state);
    let place = format!("{} ({})", node.name, if node.address.is_empty() { "no address yet" } else { &node.address });
    let silent_ms = report.and_then(|r| r.silent_ms);
    let talks = silent_ms.is_some_and(|ms| ms < TALKS_MS);
    let silent = silent_ms.map(|ms| format!(" for {}", crate::units::duration(Duration::from_millis(ms)))).unwrap_or_default();
    match state {
        NodeState::Down if holds && talks => {
            let what = "comes and goes: it counts as up again when it has stayed for a minute";
            say(what.into(), place.clone(), "look at its network and its log".into());
        }
        NodeState::Suspect | NodeState::Down | NodeState::Out if holds && !node.leaving => {
            let remedy =
                format!("start it again with its --dir; if its disks are lost: shardkeep cluster token node --replace {}", node.name);
            say(format!("does not answer{silent}"), place.clone(), remedy);
        }
        NodeState::Joining if emptied => {
            say("has joined and holds nothing yet".into(), place.clone(), format!("shardkeep cluster add {}", node.name));
        }
        NodeState::Draining if emptied => {
            say(
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
            say(problem.clone(), format!("{place}, disk {}", device.id), "free or add space, or replace the disk".into());
        } else if device.used.saturating_mul(100) >= device.capacity.saturating_mul(NEARLY_FULL) {
            say("the disk is nearly full".into(), format!("{place}, disk {}", device.id), "free or add space".into());
        }
    }
}
