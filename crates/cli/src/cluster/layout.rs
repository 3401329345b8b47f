//! `cluster layout`: which server holds what, and changes of it.

use super::change::{self, Consent, distinct};
use super::status::progress;
use super::token::node_id;
use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use clap::{Args, Subcommand};
use client::status::Layouts;
use model::{Layout, NodeId};
use serde_json::{Value, json};
use wire::coordinator::{Administration, ChangeRequest, StatusResponse};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum LayoutCommand {
    /// Which device holds how much, and what change is under way
    Show,
    /// What a change would move, beside the least possible; nothing is done
    Plan(Change),
    /// Carry a change out: without --add and --drain, over all nodes that have joined, as they are now
    Apply(Apply),
    /// Stop moving data; everything stays readable and writable
    Stop,
    /// Go on with a change that was stopped
    Resume(Resume),
}

/// Which change.
#[derive(Debug, Args)]
pub struct Change {
    /// A node to take in (may be given several times)
    #[arg(long, value_name = "NODE", value_parser = node_id)]
    pub add: Vec<NodeId>,
    /// A node to empty (may be given several times)
    #[arg(long, value_name = "NODE", value_parser = node_id)]
    pub drain: Vec<NodeId>,
}

/// `cluster layout apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub consent: Consent,
}

/// `cluster layout resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
}

pub async fn run(cx: Context, command: LayoutCommand) -> Result<Done, Failure> {
    match command {
        LayoutCommand::Show => show(&cx).await,
        LayoutCommand::Plan(change) => change::plan(&cx, request(change)?).await,
        LayoutCommand::Apply(apply) => change::carry_out(&cx, request(apply.change)?, apply.consent).await,
        LayoutCommand::Stop => {
            cx.client().await?.administer(Administration::StopLayout).await?;
            let text = "stopped: everything stays readable and writable; shardkeep cluster layout resume goes on";
            cx.out.answer(&json!({ "stopped": true }), text);
            Ok(OK)
        }
        LayoutCommand::Resume(args) => {
            let client = cx.client().await?;
            client.administer(Administration::ResumeLayout).await?;
            cx.out.answer(&json!({ "stopped": false }), "the change goes on");
            if args.no_wait { Ok(OK) } else { change::follow(&cx, &client).await }
        }
    }
}

fn request(change: Change) -> Result<ChangeRequest, Failure> {
    Ok(ChangeRequest { add: distinct(change.add)?, drain: distinct(change.drain)?, expect: Vec::new() })
}

async fn show(cx: &Context) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let status = client.status().await?;
    let layouts = Layouts::fetch(&client, &status, Layouts::default()).await?;
    if cx.out.json() {
        let left = change::left(&status);
        cx.out.object(&json!({
            "layouts": layouts.all().map(document).collect::<Vec<_>>(),
            "changes": change::under_way(&status),
            "repair": change::progress_document(&left),
        }));
    } else {
        text(cx, &status, &layouts);
    }
    Ok(OK)
}

/// Slots of each device, in the order of the layout.
fn slots(layout: &Layout) -> Vec<u64> {
    let mut slots = vec![0; layout.devices.len()];
    for slot in layout.slot_indexes() {
        if let Some(count) = slots.get_mut(usize::from(slot)) {
            *count += 1;
        }
    }
    slots
}

fn document(layout: &Layout) -> Value {
    let device = |(d, slots): (&model::layout::DeviceInfo, u64)| json!({ "device": d.device.to_string(), "node": d.node.to_string(), "zone": d.zone, "capacity": d.capacity, "slots": slots });
    json!({
        "width": layout.width,
        "epoch": layout.epoch.0,
        "partitions": layout.partitions(),
        "devices": layout.devices.iter().zip(slots(layout)).map(device).collect::<Vec<_>>(),
    })
}

fn text(cx: &Context, status: &StatusResponse, layouts: &Layouts) {
    let out = &cx.out;
    if layouts.is_empty() {
        out.line("there is no layout yet: the first one makes itself when enough nodes have joined");
    }
    for layout in layouts.all() {
        let default = if layout.width == status.cluster.policy.width() { ", that of the default policy" } else { "" };
        let head = format!("width {}{default}: epoch {}, {} partitions", layout.width, layout.epoch, layout.partitions());
        out.line(&out.bold(&head));
        for (d, slots) in layout.devices.iter().zip(slots(layout)) {
            let zone = if d.zone.is_empty() { "-".to_string() } else { crate::safe::safe(&d.zone) };
            let node = format!("node-{}", d.node);
            out.line(&format!("  {node:<10} {}  {zone:<12} {slots:>8} slots", d.device));
        }
    }
    for c in &status.cluster.changes {
        let from: Vec<String> = c.from.iter().map(ToString::to_string).collect();
        let stopped = if c.stopped { ", stopped" } else { "" };
        let why = out.name(&c.why);
        out.line(&format!(
            "\nwidth {} changes from epoch {} to {}: {why}{stopped}\n  {} slots move, at least {} must",
            c.width,
            from.join(", "),
            c.to,
            c.moved,
            c.minimum
        ));
        let waits = change::waiting(status, c);
        if !waits.is_empty() {
            out.line(&format!("  not done yet: {}", waits.join(", ")));
        }
    }
    let left = progress(&change::left(status));
    match (status.cluster.changes.is_empty(), left.is_empty()) {
        (false, false) => out.line(&format!("  {left}")),
        (true, _) if !layouts.is_empty() => out.line(&out.dim("no change is under way")),
        _ => {}
    }
}
