//! `cluster add`, `drain` and `remove`: nodes come and go.

use super::change::{self, Ask, Consent, distinct};
use super::token::node_id;
use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use clap::Args;
use model::{CoordinatorId, Error, Kind, NodeId};
use serde_json::json;
use wire::coordinator::{Administration, ChangeRequest};

/// `cluster add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Which nodes, such as node-5 or 5 [default: all that have joined and hold nothing]
    #[arg(value_name = "NODE", value_parser = node_id)]
    pub nodes: Vec<NodeId>,
    /// Show what would move, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// `cluster drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Which nodes, such as node-5 or 5
    #[arg(required = true, value_name = "NODE", value_parser = node_id)]
    pub nodes: Vec<NodeId>,
    /// Show what would move, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub consent: Consent,
}

/// `cluster remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// A node, such as node-5 or 5, or a coordinator, such as coordinator-2
    #[arg(value_name = "SERVER", value_parser = server)]
    pub server: Server,
    #[command(flatten)]
    pub consent: Consent,
}

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Node(NodeId),
    Coordinator(CoordinatorId),
}

fn server(text: &str) -> Result<Server, String> {
    let bad = || format!("'{text}' is no server: write node-3, 3 or coordinator-2");
    match text.strip_prefix("coordinator-") {
        Some(number) => number.parse().ok().filter(|n| *n > 0).map(|n| Server::Coordinator(CoordinatorId(n))).ok_or_else(bad),
        None => node_id(text).map(Server::Node).map_err(|_| bad()),
    }
}

pub async fn add(cx: Context, args: AddArgs) -> Result<Done, Failure> {
    let request = ChangeRequest { add: distinct(args.nodes)?, ..ChangeRequest::default() };
    if args.dry_run { change::plan(&cx, request).await } else { change::carry_out(&cx, request, args.consent).await }
}

pub async fn drain(cx: Context, args: DrainArgs) -> Result<Done, Failure> {
    let request = ChangeRequest { drain: distinct(args.nodes)?, ..ChangeRequest::default() };
    if args.dry_run {
        return change::plan(&cx, request).await;
    }
    let drained = request.drain.clone();
    let done = change::carry_out(&cx, request, args.consent).await?;
    for node in drained {
        cx.out.note(&format!("once node-{node} holds nothing: stop it, then shardkeep cluster remove node-{node}"));
    }
    Ok(done)
}

pub async fn remove(cx: Context, args: RemoveArgs) -> Result<Done, Failure> {
    let ask = Ask::new(&cx, args.consent.yes)?;
    let client = cx.client().await?;
    let (question, request, name) = match args.server {
        Server::Node(node) => {
            let status = client.status().await?;
            let layouts = client::status::Layouts::fetch(&client, &status, Default::default()).await?;
            let holds = layouts.holders().contains(&node);
            let report = client::status::Report::of(&status, &layouts, &Default::default());
            let runs = status.nodes.iter().any(|r| r.node == node && client::status::is_heard(r));
            if let Some(p) = report.policies.iter().find(|p| p.survivable == Some(0) && p.chunks > 0).filter(|_| holds && runs) {
                let what = format!("node-{node} runs, and without it data of policy {} could not be read", p.policy);
                let first = format!("shardkeep cluster drain node-{node}, or bring other servers back first");
                return Err(Error::conflict(what).hint(first).into());
            }
            let question = match holds {
                true => format!(
                    "node-{node} still holds data. It counts as lost from now on, and its shards are rebuilt elsewhere; to keep redundancy meanwhile, drain it first. Remove it?"
                ),
                false => format!("node-{node} holds nothing. Forget it for good?"),
            };
            (question, Administration::RemoveNode(node), format!("node-{node}"))
        }
        Server::Coordinator(id) => {
            if client.status().await?.cluster.coordinators.iter().all(|c| c.id != id) {
                return Err(Error::not_found(format!("there is no coordinator-{id}")).into());
            }
            let question = format!("coordinator-{id} leaves for good; its id is never used again. Remove it?");
            (question, Administration::RemoveCoordinator(id), format!("coordinator-{id}"))
        }
    };
    if !ask.confirms(&cx, &question).await? {
        cx.out.note("nothing was changed");
        return Ok(OK);
    }
    match client.administer(request).await {
        // It was listed a moment ago: the answer to the first try was lost.
        Err(e) if e.kind == Kind::NotFound && matches!(args.server, Server::Coordinator(_)) => {}
        done => done?,
    }
    let rebuilds = matches!(args.server, Server::Node(_)) && !client.status().await?.cluster.changes.is_empty();
    if !rebuilds {
        let then = if matches!(args.server, Server::Node(_)) { "is forgotten" } else { "has left: it can be stopped" };
        cx.out.answer(&json!({ "removed": name }), &format!("{} {name} {then}", cx.out.green("✓")));
        return Ok(OK);
    }
    cx.out.answer(&json!({ "removed": name, "rebuilding": true }), &format!("{name} counts as lost: its shards are rebuilt elsewhere"));
    if args.consent.no_wait { Ok(OK) } else { change::follow(&cx, &client).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_number_or_name() {
        assert_eq!(server("node-5"), Ok(Server::Node(NodeId(5))));
        assert_eq!(server("5"), Ok(Server::Node(NodeId(5))));
        assert_eq!(server("coordinator-2"), Ok(Server::Coordinator(CoordinatorId(2))));
        for bad in ["", "coordinator-", "coordinator-0", "coordinator-x", "node-0", "x"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
