//! `cluster events`: what happened, oldest first, from the cluster's own log.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::Args;
use client::Client;
use model::cluster::Event;
use model::{Kind, Result};
use serde_json::{Value, json};
use std::time::Duration;

/// Pause between two looks of `--follow`.
const PAUSE: Duration = Duration::from_secs(1);

/// `cluster events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this number
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    pub after: u64,
}

pub async fn run(cx: Context, args: EventsArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    follow(&cx, &client, args.after, args.follow).await?;
    Ok(OK)
}

async fn follow(cx: &Context, client: &Client, mut last: u64, forever: bool) -> Result<()> {
    let mut is_away = false;
    loop {
        let events = match client.events(last).await {
            // A coordinator that is away for a while ends no watch: what happened meanwhile is told afterwards.
            Err(e) if forever && e.kind == Kind::Unavailable => {
                if !std::mem::replace(&mut is_away, true) {
                    cx.out.error_line(&format!("warning: {}; going on when one answers", e.message));
                }
                Vec::new()
            }
            answer => {
                let events = answer?;
                is_away = false;
                events
            }
        };
        for event in &events {
            show(cx, event);
            last = event.seq;
        }
        if events.is_empty() {
            if !forever {
                return Ok(());
            }
            cx.env.sleep(PAUSE).await;
        }
    }
}

fn show(cx: &Context, event: &Event) {
    let out = &cx.out;
    if out.json() {
        out.object(&object(event));
        return;
    }
    let node = event.node.map(|n| format!("node-{n}")).unwrap_or_default();
    let what = format!("{:<20}", event.what);
    let what = if is_bad(&event.what) { out.yellow(&what) } else { what };
    let time = units::rfc3339_ms(event.time_ms);
    let line = format!("{} {:>6}  {what} {node:<9} {}", out.dim(&time), event.seq, out.name(&event.detail));
    out.line(line.trim_end());
}

/// An event as others rely on it.
pub fn object(event: &Event) -> Value {
    json!({
        "seq": event.seq,
        "time": units::rfc3339_ms(event.time_ms),
        "what": event.what,
        "node": event.node.map(|n| n.to_string()),
        "detail": event.detail,
    })
}

/// Words of events that somebody should look at.
fn is_bad(what: &str) -> bool {
    ["corrupt", "damaged", "missing", "cut", "bad", "down", "out", "lost", "back", "fail", "full", "frozen"]
        .iter()
        .any(|word| what.split('-').any(|w| w == *word))
}

#[cfg(test)]
mod tests {
    use super::is_bad;

    #[test]
    fn damage_stands_out_and_everyday_events_do_not() {
        assert!(
            ["shard-corrupt", "node-down", "node-out", "catalog-went-back", "shard-bad-answer", "device-damaged"].iter().all(|w| is_bad(w))
        );
        assert!(!["node-joined", "account-registered", "node-up", "token-created"].iter().any(|w| is_bad(w)));
    }
}
