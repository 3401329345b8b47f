//! `cluster thaw`: nodes may drop again what the catalog calls dead, after a restore or after they
//! froze collection themselves. It shows first what that will cost.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::local;
use clap::Args;
use client::status::Problem;
use model::{Error, Result};
use serde_json::json;
use wire::coordinator::{Administration, StatusResponse};

/// `cluster thaw`.
#[derive(Debug, Args)]
pub struct ThawArgs {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What a thaw lets go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// The catalog itself is frozen, after a restore.
    pub catalog: bool,
    /// Nodes that froze by themselves, with the reason.
    pub nodes: Vec<(String, String)>,
    /// Shards of objects that the catalog does not know, by node.
    pub unknown: Vec<(String, u64)>,
    /// Chunks that references name and that cannot be rebuilt, at least.
    pub lost: u64,
}

impl Frozen {
    pub fn of(status: &StatusResponse) -> Self {
        let mut frozen = Frozen { catalog: status.cluster.life.frozen, ..Frozen::default() };
        for node in &status.cluster.nodes {
            let Some(heartbeat) = status.nodes.iter().find(|r| r.node == node.id).and_then(|r| r.heartbeat.as_ref()) else { continue };
            if let Some(reason) = &heartbeat.frozen {
                frozen.nodes.push((node.name.clone(), reason.clone()));
            }
            if heartbeat.scrub.unknown > 0 {
                frozen.unknown.push((node.name.clone(), heartbeat.scrub.unknown));
            }
            frozen.lost = frozen.lost.max(heartbeat.repair.lost);
        }
        frozen
    }

    /// Nothing is frozen.
    pub fn is_none(&self) -> bool {
        !self.catalog && self.nodes.is_empty()
    }

    /// Shards of unknown objects on all nodes.
    pub fn unknown_shards(&self) -> u64 {
        self.unknown.iter().map(|(_, shards)| shards).sum()
    }
}

/// What `cluster status` says of it.
pub fn problems(status: &StatusResponse) -> Vec<Problem> {
    let frozen = Frozen::of(status);
    let mut problems = Vec::new();
    let mut say =
        |what: String, place: &str, remedy: &str| problems.push(Problem { what, since: None, place: place.into(), remedy: remedy.into() });
    if frozen.catalog {
        let what = format!(
            "the catalog was restored from a backup: nothing is dropped, and nodes keep {} shards of objects that it does not know",
            frozen.unknown_shards()
        );
        say(
            what,
            "catalog",
            "look whether files are missing or lost, restore a later backup if there is one, or else: shardkeep cluster thaw",
        );
    }
    for (node, reason) in &frozen.nodes {
        let unknown = frozen.unknown.iter().find(|(n, _)| n == node).map_or(0, |(_, shards)| *shards);
        let what = format!("drops nothing any more: {reason} ({unknown} shards of objects that the catalog does not know)");
        say(what, node, "make sure that this is the right catalog, then: shardkeep cluster thaw");
    }
    problems
}

pub async fn run(cx: Context, args: ThawArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let frozen = Frozen::of(&client.status().await?);
    if frozen.is_none() {
        cx.out.answer(&json!({ "thawed": false, "frozen": false }), "nothing is frozen");
        return Ok(OK);
    }
    tell(&cx, &frozen);
    if !args.yes && !confirmed(&cx).await? {
        cx.out.answer(&json!({ "thawed": false, "frozen": true }), "nothing was changed");
        return Ok(OK);
    }
    client.administer(Administration::Thaw).await?;
    let document = json!({ "thawed": true, "frozen": false, "unknown_shards": frozen.unknown_shards(), "lost_chunks": frozen.lost });
    cx.out.answer(&document, &format!("{} collection goes on", cx.out.green("✓")));
    Ok(OK)
}

fn tell(cx: &Context, frozen: &Frozen) {
    let out = &cx.out;
    if frozen.catalog {
        out.note("The catalog was restored from a backup: what was stored after the backup is on the nodes, and in no folder.");
    }
    for (node, reason) in &frozen.nodes {
        out.note(&format!("{node} froze collection: {}", out.name(reason)));
    }
    for (node, shards) in &frozen.unknown {
        out.note(&format!("{node} keeps {shards} shards of objects that this catalog does not know"));
    }
    if frozen.unknown.is_empty() {
        out.note("No node has reported shards that this catalog does not know (they count once an hour).");
    } else {
        out.note("A thaw drops those shards for good. With a later backup, restore that one instead.");
    }
    if frozen.lost > 0 {
        out.note(&format!("At least {} chunks that the catalog names are gone: shardkeep verify -r / names the files.", frozen.lost));
    }
}

/// Asks on the terminal.
async fn confirmed(cx: &Context) -> Result<bool, Failure> {
    let tty = local::open_terminal().map_err(|_| Failure::usage("there is no terminal to ask on: say --yes"))?;
    let answer = cx.env.blocking(move || local::ask_line(tty, "Thaw? Write yes: ")).await;
    match answer {
        Ok(text) => Ok(text.trim() == "yes"),
        Err(e) => Err(Error::invalid(e.message).into()),
    }
}
