//! `cluster status`: is the data safe, and how are the servers?

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::Args;
use client::Client;
use client::status::{Layouts, Problem, Repair, Report};
use model::cluster::{Node, NodeState};
use model::layout::LayoutChange;
use model::{CoordinatorId, NodeId, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::coordinator::{NodeReport, StatusResponse};

/// Pause between two pictures of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);
/// Pause before a doubt is looked at again: a heartbeat and a little.
const AGAIN: Duration = Duration::from_millis(1200);
/// Longest wait for a later heartbeat of those in doubt.
const LATER: Duration = Duration::from_secs(5);
/// Longest wait for a node's answer.
const REACH: Duration = Duration::from_secs(1);

/// `cluster status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every two seconds
    #[arg(short, long)]
    pub watch: bool,
}

/// What is shown.
struct Picture {
    status: StatusResponse,
    report: Report,
    /// How long each node takes to answer us, where it does.
    latency: BTreeMap<NodeId, Duration>,
}

pub async fn run(cx: Context, args: StatusArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let mut layouts = Layouts::default();
    if !args.watch {
        show(&cx, &picture(&cx, &client, &mut layouts).await?);
        return Ok(OK);
    }
    loop {
        let picture = picture(&cx, &client, &mut layouts).await;
        if cx.out.is_terminal() && !cx.out.json() {
            cx.out.line("\x1b[H\x1b[2J");
        }
        match picture {
            Ok(picture) => show(&cx, &picture),
            // A coordinator that is away for a while is a state of the cluster, not an end of watching it.
            Err(e) if e.kind == model::Kind::Unavailable && cx.out.json() => cx.out.error_line(&format!("warning: {}", e.message)),
            Err(e) if e.kind == model::Kind::Unavailable => cx.out.line(&cx.out.red(&e.message)),
            Err(e) => return Err(e.into()),
        }
        cx.env.sleep(PAUSE).await;
    }
}

async fn picture(cx: &Context, client: &Client, known: &mut Layouts) -> Result<Picture> {
    let mut status = client.status().await?;
    *known = Layouts::fetch(client, &status, std::mem::take(known)).await?;
    let mut report = Report::of(&status, known, &BTreeSet::new());
    if !report.doubts.is_empty() {
        // Perhaps heartbeats that are older than the latest upload: what is so still counts.
        let asked = cx.env.clock.monotonic();
        let mut since = Duration::ZERO;
        while since < LATER {
            cx.env.sleep(AGAIN).await;
            since = cx.env.clock.monotonic().saturating_sub(asked);
            status = client.status().await?;
            // One that is suspect counts as away whatever its next heartbeat would say.
            let is_away = |n: &NodeReport| matches!(n.state, NodeState::Suspect | NodeState::Down | NodeState::Out);
            let is_told = |n: &NodeReport| is_away(n) || n.silent_ms.is_some_and(|ms| Duration::from_millis(ms) < since);
            if status.nodes.iter().filter(|n| report.doubts.contains(&n.node)).all(is_told) {
                break;
            }
        }
        *known = Layouts::fetch(client, &status, std::mem::take(known)).await?;
        report = Report::of(&status, known, &report.doubts);
    }
    report.problems.extend(super::thaw::problems(&status));
    let latency = latencies(client, &status.cluster.nodes).await;
    Ok(Picture { status, report, latency })
}

/// How long each node takes to answer us.
async fn latencies(client: &Client, nodes: &[Node]) -> BTreeMap<NodeId, Duration> {
    let ping = |node: &Node| {
        let id = node.id;
        async move { Some((id, client.ping(id, REACH).await?)) }
    };
    let all = nodes.iter().filter(|n| !n.address.is_empty()).map(ping);
    futures::future::join_all(all).await.into_iter().flatten().collect()
}

fn show(cx: &Context, picture: &Picture) {
    if cx.out.json() {
        cx.out.object(&document(picture));
    } else {
        text(cx, picture);
    }
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Joining => "joining",
        NodeState::Up => "up",
        NodeState::Suspect => "suspect",
        NodeState::Down => "down",
        NodeState::Out => "out",
        NodeState::Draining => "draining",
    }
}

/// `up`, `down`, `damaged`: its catalog is, or `learner`: it answers, and has no vote yet.
fn coordinator_state(status: &StatusResponse, id: CoordinatorId) -> &'static str {
    match status.coordinators.iter().any(|(other, up)| *other == id && *up) {
        true if status.damaged.contains(&id) => "damaged",
        true if status.learners.contains(&id) => "learner",
        true => "up",
        false => "down",
    }
}

fn report_of(status: &StatusResponse, node: NodeId) -> Option<&NodeReport> {
    status.nodes.iter().find(|r| r.node == node)
}

/// Devices as the last heartbeat has them; those of the catalog where there was none.
fn devices<'a>(status: &'a StatusResponse, node: &'a Node) -> &'a [model::cluster::Device] {
    match report_of(status, node.id).and_then(|r| r.heartbeat.as_ref()) {
        Some(heartbeat) => &heartbeat.devices,
        None => &node.devices,
    }
}

/// A time of the catalog's life, milliseconds since 1970; `None`: never.
fn happened(ms: u64) -> Option<u64> {
    Some(ms).filter(|ms| *ms > 0)
}

/// What is wrong, and for how long.
fn what(problem: &Problem) -> String {
    problem.since.map_or_else(|| problem.what.clone(), |since| format!("{} for {}", problem.what, units::duration(since)))
}

fn seconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e6
}

/// The document that others rely on.
fn document(picture: &Picture) -> Value {
    let Picture { status, report, latency } = picture;
    let node = |node: &Node| {
        let (seen, devices) = (report_of(status, node.id), devices(status, node));
        json!({
            "node": node.id.to_string(),
            "name": node.name,
            "address": node.address,
            "state": state_word(seen.map_or(node.state, |r| r.state)),
            "zone": node.zone,
            "capacity": devices.iter().map(|d| d.capacity).sum::<u64>(),
            "used": devices.iter().map(|d| d.used).sum::<u64>(),
            "version": node.version,
            "silent": seen.and_then(|r| r.silent_ms).map(|ms| ms as f64 / 1000.0),
            "latency": latency.get(&node.id).map(|d| seconds(*d)),
            "devices": devices.iter().map(|d| json!({
                "device": d.id.to_string(), "capacity": d.capacity, "used": d.used, "shards": d.shards, "problem": d.problem,
            })).collect::<Vec<_>>(),
        })
    };
    let coordinator = |c: &model::cluster::Coordinator| {
        json!({
            "id": c.id.to_string(),
            "address": c.address,
            "leader": status.cluster.leader == Some(c.id),
            "state": coordinator_state(status, c.id),
        })
    };
    let chunks = &report.chunks;
    let mut by_redundancy: serde_json::Map<String, Value> = chunks.by_redundancy.iter().map(|(r, n)| (r.to_string(), json!(n))).collect();
    by_redundancy.insert("unavailable".into(), json!(chunks.unavailable));
    by_redundancy.insert("lost".into(), json!(chunks.lost));
    json!({
        "safe": report.safe,
        "failures_survivable": report.failures_survivable,
        "policy": status.cluster.policy.to_string(),
        "nodes": status.cluster.nodes.iter().map(node).collect::<Vec<_>>(),
        "coordinators": status.cluster.coordinators.iter().map(coordinator).collect::<Vec<_>>(),
        "repair": {
            "shards": report.repair.shards, "bytes": report.repair.bytes, "rate": report.repair.rate, "eta": report.repair.eta(),
            "to_hand_over": report.repair.surplus,
        },
        "recode": { "objects": status.totals.recode, "bytes": status.totals.recode_bytes },
        "catalog": {
            "failures_survivable": report.catalog_survivable, "last_backup": happened(status.cluster.life.backup_ms).map(units::rfc3339_ms),
            "last_snapshot": happened(status.cluster.life.snapshot_ms).map(units::rfc3339_ms),
            "entries": status.totals.entries, "frozen": status.cluster.life.frozen,
        },
        "policies": report.policies.iter().map(|p| json!({
            "policy": p.policy.to_string(), "chunks": p.chunks, "bytes": p.bytes, "failures_survivable": p.survivable,
        })).collect::<Vec<_>>(),
        "changes": status.cluster.changes.iter().map(change_document).collect::<Vec<_>>(),
        "chunks": { "total": chunks.total, "by_redundancy": by_redundancy, "estimated": chunks.estimated },
        "problems": report.problems.iter().map(|p| json!({ "what": what(p), "where": p.place, "do": p.remedy })).collect::<Vec<_>>(),
    })
}

/// A change of a layout that is under way.
pub fn change_document(change: &LayoutChange) -> Value {
    json!({
        "width": change.width,
        "from": change.from.iter().map(|e| e.0).collect::<Vec<_>>(),
        "to": change.to.0,
        "why": change.why,
        "began": units::rfc3339_ms(change.began_ms),
        "stopped": change.stopped,
        "moved_slots": change.moved,
        "minimum_slots": change.minimum,
    })
}

/// What is left to move, in words.
pub fn progress(repair: &Repair) -> String {
    let mut parts = Vec::new();
    if repair.shards > 0 {
        parts.push(format!("{} shards to fetch, {}, {}/s", repair.shards, units::size(repair.bytes), units::size(repair.rate)));
        parts.extend(repair.eta().map(|s| format!("{} left", units::duration(Duration::from_secs(s)))));
    }
    if repair.surplus > 0 {
        parts.push(format!("{} shards to hand over", repair.surplus));
    }
    parts.join(", ")
}

fn text(cx: &Context, picture: &Picture) {
    let Picture { status, report, latency } = picture;
    let out = &cx.out;
    out.line(&headline(cx, picture));
    let policy = status.cluster.policy;
    let chunks = &report.chunks;
    let mut stored = format!("entries {}, chunks {}, {} in shards", status.totals.entries, chunks.total, units::size(status.totals.bytes));
    if report.policies.len() == 1 {
        stored += &format!(", policy {policy}");
    }
    out.line(&format!("  {stored}"));
    for p in report.policies.iter().filter(|_| report.policies.len() > 1) {
        let may = match p.survivable {
            None => "no layout yet".to_string(),
            Some(0) if p.policy.m == 0 => "no node may fail: no parity".into(),
            Some(0) => "no more nodes may fail".into(),
            Some(1) => "any one more node may fail".into(),
            Some(n) => format!("any {n} more nodes may fail"),
        };
        let which = if p.policy == policy { ", the default" } else { "" };
        out.line(&format!("  policy {}{which}: {} chunks, {}, {may}", p.policy, p.chunks, units::size(p.bytes)));
    }
    let below = report.policies.iter().any(|p| p.chunks > 0 && p.survivable.is_some_and(|s| s < p.policy.m));
    if below || chunks.lost > 0 || chunks.unavailable > 0 {
        let about = if chunks.estimated { "about " } else { "" };
        let most = report.policies.iter().map(|p| p.policy.m).max().unwrap_or(0);
        for (redundancy, count) in chunks.by_redundancy.iter().rev().filter(|(r, n)| **r < most && **n > 0) {
            let more = match redundancy {
                0 => "no more shards".to_string(),
                1 => "one more shard".to_string(),
                n => format!("{n} more shards"),
            };
            out.line(&format!("  {about}{count} chunks may lose {more}"));
        }
        if chunks.unavailable > 0 {
            out.line(&out.red(&format!("  {about}{} chunks cannot be read until servers come back", chunks.unavailable)));
        }
        if chunks.lost > 0 {
            out.line(&out.red(&format!("  {} chunks are lost", chunks.lost)));
        }
    }
    let moving = progress(&report.repair);
    match status.cluster.changes.first() {
        Some(change) => {
            let stopped = if change.stopped { "stopped: " } else { "" };
            let what = if moving.is_empty() { "being checked".to_string() } else { moving };
            out.line(&format!("  {stopped}changing the layout ({}): {what}", out.name(&change.why)));
        }
        None if !moving.is_empty() => out.line(&format!("  repairing: {moving}")),
        None => {}
    }
    if status.totals.recode > 0 {
        let (objects, bytes) = (status.totals.recode, units::size(status.totals.recode_bytes));
        out.line(&format!("  {objects} objects are being coded anew by another policy, {bytes}"));
    }

    let rows: Vec<[String; 7]> = status.cluster.nodes.iter().map(|node| row(status, latency, node)).collect();
    let head = ["NODE", "ADDRESS", "STATE", "ZONE", "USED", "OF", "LATENCY"].map(String::from);
    let mut widths = [0usize; 7];
    for row in rows.iter().chain([&head]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    out.line("");
    out.line(&out.dim(&line(&head)));
    for (row, node) in rows.iter().zip(&status.cluster.nodes) {
        let text = line(row);
        out.line(&match report_of(status, node.id).map_or(node.state, |r| r.state) {
            NodeState::Up | NodeState::Draining => text,
            NodeState::Suspect | NodeState::Joining => out.yellow(&text),
            NodeState::Down => out.red(&text),
            NodeState::Out => out.dim(&text),
        });
    }

    out.line("");
    for c in &status.cluster.coordinators {
        let address = if c.address.is_empty() { "an address that it has not said yet" } else { &c.address };
        let line = format!("coordinator {} at {address}", c.id);
        out.line(&match coordinator_state(status, c.id) {
            state @ ("down" | "damaged") => out.red(&format!("{line}, {state}")),
            "learner" => out.yellow(&format!("{line}, catching up")),
            _ if status.cluster.leader == Some(c.id) => format!("{line}, leads"),
            _ => line,
        });
    }
    let (life, is_lone) = (&status.cluster.life, status.cluster.coordinators.len() == 1);
    let ago = |ms| units::duration(Duration::from_millis(status.cluster.time_ms.saturating_sub(ms)));
    if is_lone {
        out.line(&out.dim("  the only one: while it is down nothing can be read or written"));
        if let Some(ms) = happened(life.snapshot_ms) {
            let text = "  should its folder be lost: encrypted snapshots on the nodes (opened with a copy of its recovery-key), the last";
            out.line(&out.dim(&format!("{text} {} ago", ago(ms))));
        }
    }
    let text = match happened(life.backup_ms) {
        Some(ms) => format!("  the catalog was last backed up {} ago", ago(ms)),
        None if is_lone => "  its folder is not to be lost: there is no backup of the catalog yet (shardkeep cluster backup)".into(),
        None => "  there is no backup of the catalog yet (shardkeep cluster backup)".into(),
    };
    out.line(&out.dim(&text));
    for problem in &report.problems {
        out.line(&format!("\n{} {}: {}\n  do: {}", out.yellow("!"), out.name(&problem.place), out.name(&what(problem)), problem.remedy));
    }
}

fn headline(cx: &Context, picture: &Picture) -> String {
    let (out, report) = (&cx.out, &picture.report);
    match report.failures_survivable {
        None => out.yellow("Not ready: nothing can be stored yet"),
        Some(_) if report.chunks.lost > 0 => out.red("Data is lost"),
        Some(_) if report.chunks.unavailable > 0 => out.red("Not readable: too few servers answer"),
        Some(0) => out.red("Not safe: nothing more may fail"),
        Some(n) => {
            let word = if report.safe { out.green("Safe:") } else { out.yellow("Degraded:") };
            let nodes = if n == 1 { "one more node".into() } else { format!("{n} more nodes") };
            // What a lone one means stands beside it.
            let coordinators = match (picture.status.cluster.coordinators.len(), report.catalog_survivable) {
                (..=1, _) => String::new(),
                (_, 0) => ", and no coordinator".into(),
                (_, 1) => ", and one coordinator".into(),
                (_, n) => format!(", and {n} coordinators"),
            };
            format!("{word} any {nodes} may fail{coordinators}")
        }
    }
}

fn row(status: &StatusResponse, latency: &BTreeMap<NodeId, Duration>, node: &Node) -> [String; 7] {
    let devices = devices(status, node);
    let state = report_of(status, node.id).map_or(node.state, |r| r.state);
    let ms = |d: &Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
    let dash = || "-".to_string();
    [
        node.name.clone(),
        if node.address.is_empty() { dash() } else { node.address.clone() },
        state_word(state).into(),
        if node.zone.is_empty() { dash() } else { crate::safe::safe(&node.zone) },
        units::size(devices.iter().map(|d| d.used).sum()),
        units::size(devices.iter().map(|d| d.capacity).sum()),
        latency.get(&node.id).map_or_else(dash, ms),
    ]
}
