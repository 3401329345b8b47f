//! `cluster scrub`: every shard on every node is read and checked now, not within thirty days.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use clap::Args;
use model::Error;
use model::cluster::NodeState;
use serde_json::json;
use std::time::Duration;
use wire::coordinator::{Administration, StatusResponse};

/// Pause between two looks of `--wait`.
const PAUSE: Duration = Duration::from_secs(1);

/// `cluster scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// Wait until all of it is done
    #[arg(long)]
    pub wait: bool,
}

/// How far the nodes are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    checked: u64,
    total: u64,
    /// Shards found bad since each node's start.
    bad: u64,
    /// Nodes that still check.
    busy: Vec<String>,
    /// Nodes that cannot be asked.
    silent: Vec<String>,
}

impl Progress {
    fn of(status: &StatusResponse) -> Self {
        let asked = status.cluster.life.scrub_ms;
        let mut progress = Progress::default();
        for node in &status.cluster.nodes {
            let report = status.nodes.iter().find(|r| r.node == node.id);
            // (One that is suspect may only be late with a heartbeat.)
            let silent = report.is_none_or(|r| matches!(r.state, NodeState::Down | NodeState::Out));
            let heartbeat = report.and_then(|r| r.heartbeat.as_ref()).filter(|_| !silent);
            let Some(heartbeat) = heartbeat else {
                if !node.devices.is_empty() {
                    progress.silent.push(node.name.clone());
                }
                continue;
            };
            progress.bad += heartbeat.scrub.bad;
            let held: u64 = heartbeat.devices.iter().map(|d| d.shards).sum();
            if heartbeat.scrub.answered_ms >= asked {
                progress.checked += held;
                progress.total += held;
            } else {
                let total = heartbeat.scrub.total.max(held);
                progress.checked += heartbeat.scrub.checked.min(total);
                progress.total += total;
                progress.busy.push(node.name.clone());
            }
        }
        progress
    }
}

pub async fn run(cx: Context, args: ScrubArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let bad_before = Progress::of(&client.status().await?).bad;
    client.administer(Administration::Scrub).await?;
    if !args.wait {
        cx.out.answer(&json!({ "asked": true }), "every node checks all its shards now: shardkeep cluster events names what is bad");
        return Ok(OK);
    }
    loop {
        // The word reaches the nodes with a heartbeat.
        cx.env.sleep(PAUSE).await;
        let progress = match client.status().await {
            Ok(status) => Progress::of(&status),
            Err(e) if e.kind == model::Kind::Unavailable => continue,
            Err(e) => return Err(e.into()),
        };
        let bad = progress.bad.saturating_sub(bad_before);
        if progress.busy.is_empty() {
            let document = json!({ "checked": progress.checked, "bad": bad, "silent": progress.silent });
            let text = match bad {
                0 => format!("{} {} shards are as they should be", cx.out.green("✓"), progress.checked),
                _ => format!("{bad} of {} shards were bad and are being rebuilt: shardkeep cluster events names them", progress.checked),
            };
            cx.out.answer(&document, &text);
            if progress.silent.is_empty() {
                return Ok(OK);
            }
            let silent = progress.silent.join(", ");
            return Err(Error::unavailable(format!("not checked, since they do not answer: {silent}"))
                .hint("shardkeep cluster status")
                .into());
        }
        if cx.out.prints_progress() {
            cx.out.object(
                &json!({ "progress": { "checked": progress.checked, "total": progress.total, "bad": bad, "busy": progress.busy } }),
            );
        } else {
            cx.out.note(&format!("{} of {} shards checked, {bad} bad", progress.checked, progress.total));
        }
    }
}
