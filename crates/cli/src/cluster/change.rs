//! A change of the layout from the plan to its end: show what moves, ask, begin it, and watch it arrive.

use super::status::{change_document, progress};
use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::{local, stop, units};
use clap::Args;
use client::Client;
use client::status::Repair;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::cluster::NodeState;
use model::layout::LayoutChange;
use model::{Epoch, Error, NodeId, Result};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::time::Duration;
use wire::coordinator::{ChangeRequest, PlanResponse, StatusResponse};

/// Pause between two looks at a change under way.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a change is given to be seen by all nodes that answer.
const SEEN: Duration = Duration::from_secs(20);
/// Most devices of a plan that people are shown.
const SHOWN: usize = 40;

/// Whether and how to ask and wait.
#[derive(Debug, Clone, Copy, Args)]
pub struct Consent {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Begin, and do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
}

/// Somebody who may say yes.
pub struct Ask(Option<File>);

impl Ask {
    /// A usage error where nobody has said yes and nobody can be asked.
    pub fn new(cx: &Context, yes: bool) -> Result<Self, Failure> {
        if yes {
            return Ok(Ask(None));
        }
        let unasked = || Failure::usage("there is no terminal to ask on: say --yes");
        if cx.out.json() {
            return Err(unasked());
        }
        local::open_terminal().map(|tty| Ask(Some(tty))).map_err(|_| unasked())
    }

    /// Asks, unless it was said already.
    pub async fn confirms(self, cx: &Context, question: &str) -> Result<bool, Failure> {
        let Some(tty) = self.0 else { return Ok(true) };
        let question = format!("{question} [y/N] ");
        let answer = cx.env.blocking(move || local::ask_line(tty, &question)).await;
        Ok(answer.is_ok_and(|a| matches!(a.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
    }
}

/// Plans a change and shows it; nothing else.
pub async fn plan(cx: &Context, request: ChangeRequest) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let plan = client.plan_layout(request).await?;
    show(cx, &plan);
    Ok(OK)
}

/// Plans a change, shows it, asks, begins it, and watches it.
pub async fn carry_out(cx: &Context, mut request: ChangeRequest, consent: Consent) -> Result<Done, Failure> {
    let ask = Ask::new(cx, consent.yes)?;
    let client = cx.client().await?;
    let plan = client.plan_layout(request.clone()).await?;
    if plan.why.is_empty() {
        let mut document = document(&plan);
        crate::serve::add(&mut document, "applied", json!(false));
        cx.out.answer(&document, "nothing would change: the layout is as it should be");
        return Ok(OK);
    }
    if !cx.out.json() {
        show(cx, &plan);
    }
    if !ask.confirms(cx, "Do it?").await? {
        cx.out.note("nothing was changed");
        return Ok(OK);
    }
    request.expect = plan.widths.iter().map(|w| (w.width, w.epoch)).collect();
    let plan = client.apply_layout(request).await?;
    let to: Vec<(u8, Epoch)> = plan.widths.iter().map(|w| (w.width, Epoch(w.epoch.0 + 1))).collect();
    seen(cx, &client, &to).await?;
    if cx.out.json() {
        let mut document = document(&plan);
        crate::serve::add(&mut document, "applied", json!(true));
        cx.out.object(&document);
    }
    if consent.no_wait {
        cx.out.note("begun; shardkeep cluster layout show tells how far it is");
        return Ok(OK);
    }
    follow(cx, &client).await
}

/// Waits until every node that answers knows the new layouts: from then on what is to be done shows in
/// their reports.
async fn seen(cx: &Context, client: &Client, to: &[(u8, Epoch)]) -> Result<()> {
    let start = cx.env.clock.monotonic();
    while cx.env.clock.monotonic() - start < SEEN {
        let status = client.status().await?;
        let knows = |report: &wire::coordinator::NodeReport| {
            let Some(heartbeat) = &report.heartbeat else { return true };
            let known: BTreeMap<u8, Epoch> = heartbeat.layouts.iter().map(|p| (p.width, p.epoch)).collect();
            to.iter().all(|(width, epoch)| known.get(width).is_some_and(|known| known >= epoch))
        };
        let answers = |state| matches!(state, NodeState::Up | NodeState::Draining);
        if status.nodes.iter().filter(|r| answers(r.state)).all(knows) {
            return Ok(());
        }
        cx.env.sleep(Duration::from_millis(250)).await;
    }
    cx.out.note("not every node has said yet that it knows the new layout: what is to be done may show in the status later");
    Ok(())
}

/// Watches changes until none is under way. Ctrl-C ends the watching, not the change.
pub async fn follow(cx: &Context, client: &Client) -> Result<Done, Failure> {
    tokio::select! {
        biased;
        done = watch(cx, client) => done,
        () = stop::told() => {
            Err(Failure::Interrupted("no longer watching; the change goes on: shardkeep cluster layout show".into()))
        }
    }
}

async fn watch(cx: &Context, client: &Client) -> Result<Done, Failure> {
    let bar = cx.out.draws_bars().then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style);
        bar
    });
    let start = cx.env.clock.monotonic();
    let mut most = Repair::default();
    loop {
        let status = match client.status().await {
            Ok(status) => status,
            // A coordinator that is away for a while does not end the change.
            Err(e) if e.kind == model::Kind::Unavailable => {
                cx.env.sleep(PAUSE).await;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let left = left(&status);
        most.shards = most.shards.max(left.shards);
        most.bytes = most.bytes.max(left.bytes);
        let seconds = (cx.env.clock.monotonic() - start).as_secs();
        let Some(change) = status.cluster.changes.first() else {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            let took = units::duration(Duration::from_secs(seconds));
            let text = format!("{} everything has arrived, after {took}", cx.out.green("✓"));
            cx.out.answer(&json!({ "done": true, "seconds": seconds, "shards": most.shards, "bytes": most.bytes }), &text);
            return Ok(OK);
        };
        if change.stopped {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            cx.out.answer(
                &json!({ "done": false, "stopped": true }),
                "the change is stopped; shardkeep cluster layout resume goes on with it",
            );
            return Ok(OK);
        }
        if cx.out.prints_progress() {
            cx.out.object(&progress_document(&left));
        }
        if let Some(bar) = &bar {
            let what = progress(&left);
            let waits = waiting(&status, change);
            let what = match (what.is_empty(), waits.is_empty()) {
                (false, _) => what,
                (true, false) => format!("waiting for {}", waits.join(", ")),
                (true, true) => "checking that nothing is left".into(),
            };
            bar.set_message(format!("{}: {what}", change.why));
            bar.tick();
        }
        cx.env.sleep(PAUSE).await;
    }
}

/// Nodes that have not said yet that nothing is left to do.
pub fn waiting(status: &StatusResponse, change: &LayoutChange) -> Vec<String> {
    let settled = |id: NodeId| {
        let heartbeat = status.nodes.iter().find(|r| r.node == id).and_then(|r| r.heartbeat.as_ref());
        heartbeat.is_some_and(|h| h.layouts.iter().any(|p| p.width == change.width && p.epoch == change.to && p.settled))
    };
    let counts = |state| matches!(state, NodeState::Up | NodeState::Draining | NodeState::Down | NodeState::Suspect);
    status.cluster.nodes.iter().filter(|n| counts(n.state) && !settled(n.id)).map(|n| n.name.clone()).collect()
}

/// What is left to move.
pub fn left(status: &StatusResponse) -> Repair {
    let heartbeats = status.nodes.iter().filter(|r| client::status::is_heard(r)).filter_map(|r| r.heartbeat.as_ref());
    heartbeats.fold(Repair::default(), |sum, h| Repair {
        shards: sum.shards + h.repair.shards,
        bytes: sum.bytes + h.repair.bytes,
        rate: sum.rate + h.repair.rate,
        surplus: sum.surplus + h.repair.surplus,
    })
}

/// What is left, as an object.
pub fn progress_document(left: &Repair) -> Value {
    json!({ "shards": left.shards, "bytes": left.bytes, "rate": left.rate, "eta": left.eta(), "to_hand_over": left.surplus })
}

/// Changes under way with what is left, as one document.
pub fn under_way(status: &StatusResponse) -> Value {
    let one = |change: &LayoutChange| {
        let mut document = change_document(change);
        crate::serve::add(&mut document, "waiting_for", json!(waiting(status, change)));
        document
    };
    json!(status.cluster.changes.iter().map(one).collect::<Vec<_>>())
}

/// One device over all widths.
struct Moves {
    device: String,
    node: NodeId,
    before: u64,
    gains: u64,
    gives: u64,
}

fn by_device(plan: &PlanResponse) -> Vec<Moves> {
    let mut moves: BTreeMap<(NodeId, String), Moves> = BTreeMap::new();
    for d in plan.widths.iter().flat_map(|w| &w.devices) {
        let device = d.device.to_string();
        let empty = Moves { device: device.clone(), node: d.node, before: 0, gains: 0, gives: 0 };
        let sum = moves.entry((d.node, device)).or_insert(empty);
        (sum.before, sum.gains, sum.gives) = (sum.before + d.before, sum.gains + d.gains, sum.gives + d.gives);
    }
    moves.into_values().collect()
}

fn moved(plan: &PlanResponse) -> u64 {
    plan.widths.iter().map(|w| w.moved).sum()
}

fn minimum(plan: &PlanResponse) -> u64 {
    plan.widths.iter().map(|w| w.minimum).sum()
}

fn balance(plan: &PlanResponse) -> f64 {
    plan.widths.iter().map(|w| w.balance_ppm).max().unwrap_or(0) as f64 / 1e6
}

/// The moved bytes' part that so many slots have.
fn bytes_of(plan: &PlanResponse, slots: u64) -> u64 {
    (u128::from(plan.moved_bytes) * u128::from(slots) / u128::from(moved(plan).max(1))) as u64
}

/// The plan as others rely on it.
pub fn document(plan: &PlanResponse) -> Value {
    let device = |m: &Moves| {
        json!({
            "device": m.device, "node": m.node.to_string(), "before": m.before, "in": m.gains, "out": m.gives,
            "bytes_in": bytes_of(plan, m.gains), "bytes_out": bytes_of(plan, m.gives),
        })
    };
    json!({
        "moved_slots": moved(plan),
        "minimum_slots": minimum(plan),
        "moved_bytes": plan.moved_bytes,
        "minimum_bytes": plan.minimum_bytes,
        "balance": balance(plan),
        "devices": by_device(plan).iter().map(device).collect::<Vec<_>>(),
        "why": plan.why,
        "slots": plan.widths.iter().map(|w| w.slots).sum::<u64>(),
        "widths": plan.widths.iter().map(|w| json!({
            "width": w.width, "epoch": w.epoch.0, "slots": w.slots, "moved_slots": w.moved, "minimum_slots": w.minimum,
            "balance": w.balance_ppm as f64 / 1e6,
        })).collect::<Vec<_>>(),
    })
}

/// Prints a plan.
pub fn show(cx: &Context, plan: &PlanResponse) {
    let out = &cx.out;
    if out.json() {
        return out.object(&document(plan));
    }
    if plan.why.is_empty() {
        return out.line("nothing would change: the layout is as it should be");
    }
    let slots: u64 = plan.widths.iter().map(|w| w.slots).sum();
    let percent = moved(plan) as f64 * 100.0 / slots.max(1) as f64;
    out.line(&out.bold(&plan.why));
    out.line(&format!(
        "  moves {} of {slots} slots ({percent:.1} %), about {}; no such change can move less than {} slots, {}",
        moved(plan),
        units::size(plan.moved_bytes),
        minimum(plan),
        units::size(plan.minimum_bytes),
    ));
    out.line(&format!("  then each device is within {:.2} % of its share", balance(plan) * 100.0));
    let all = by_device(plan);
    let mut moving: Vec<&Moves> = all.iter().filter(|m| m.gains + m.gives > 0).collect();
    moving.sort_by_key(|m| std::cmp::Reverse(m.gains + m.gives));
    if !moving.is_empty() {
        out.line("");
        out.line(&out.dim(&format!(
            "  {:<10} {:<32} {:>8} {:>8} {:>8} {:>10} {:>10}",
            "NODE", "DEVICE", "SLOTS", "IN", "OUT", "BYTES IN", "BYTES OUT"
        )));
    }
    for m in moving.iter().take(SHOWN) {
        let node = format!("node-{}", m.node);
        let (bytes_in, bytes_out) = (units::size(bytes_of(plan, m.gains)), units::size(bytes_of(plan, m.gives)));
        let line = format!("  {node:<10} {:<32} {:>8} {:>8} {:>8} {bytes_in:>10} {bytes_out:>10}", m.device, m.before, m.gains, m.gives);
        out.line(&line);
    }
    if moving.len() > SHOWN {
        out.line(&format!("  and {} more devices", moving.len() - SHOWN));
    }
}

/// Nodes that a command names, each once.
pub fn distinct(nodes: Vec<NodeId>) -> Result<Vec<NodeId>> {
    let set: BTreeSet<NodeId> = nodes.iter().copied().collect();
    if set.len() < nodes.len() {
        return Err(Error::invalid("a node is named twice"));
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DeviceId;
    use wire::coordinator::{DeviceMove, WidthPlan};

    fn moves(id: u8, before: u64, gains: u64, gives: u64) -> DeviceMove {
        DeviceMove { device: DeviceId([id; 16]), node: NodeId(id.into()), before, gains, gives }
    }

    #[test]
    fn the_document_of_a_plan_is_as_others_rely_on_it() {
        let width = |width, epoch, moved, devices| WidthPlan {
            width,
            epoch: Epoch(epoch),
            slots: 64,
            moved,
            minimum: moved - 1,
            balance_ppm: 1000 * u64::from(width),
            devices,
        };
        let plan = PlanResponse {
            widths: vec![
                width(2, 3, 4, vec![moves(1, 32, 0, 4), moves(2, 0, 4, 0)]),
                width(4, 1, 6, vec![moves(1, 32, 0, 6), moves(2, 0, 6, 0)]),
            ],
            moved_bytes: 1000,
            minimum_bytes: 800,
            why: "add node-2".into(),
        };
        let document = document(&plan);
        for (field, value) in [
            ("moved_slots", json!(10)),
            ("minimum_slots", json!(8)),
            ("moved_bytes", json!(1000)),
            ("minimum_bytes", json!(800)),
            ("balance", json!(0.004)),
        ] {
            assert_eq!(document[field], value, "{field}");
        }
        let device = &document["devices"][1];
        assert_eq!((&device["in"], &device["out"], &device["bytes_in"]), (&json!(10), &json!(0), &json!(1000)));
        assert_eq!(device["device"], json!(DeviceId([2; 16]).to_string()));
    }

    #[test]
    fn a_node_is_named_once() {
        assert!(distinct(vec![NodeId(1), NodeId(2)]).is_ok());
        assert!(distinct(vec![NodeId(1), NodeId(1)]).is_err());
    }
}
