//! `cluster token`: with it one server joins, once.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::{Args, ValueEnum};
use model::NodeId;
use model::cluster::ServerRole;
use serde_json::json;
use std::time::Duration;

/// What the joiner becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// A storage server
    Node,
    /// A further coordinator
    Coordinator,
}

/// `cluster token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// For which kind of server
    pub role: Role,
    /// How long it is good, such as 30m, 1h or 7d
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = units::parse_duration)]
    pub expires: Duration,
    /// The new node takes over the slots of this one, which is lost
    #[arg(long, value_name = "NODE", value_parser = node_id)]
    pub replace: Option<NodeId>,
}

/// `3` or `node-3`.
pub fn node_id(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix("node-").unwrap_or(text);
    number.parse().ok().filter(|n: &NodeId| n.0 > 0).ok_or_else(|| format!("'{text}' is no node: write node-3 or 3"))
}

pub async fn run(cx: Context, args: TokenArgs) -> Result<Done, Failure> {
    let role = match args.role {
        Role::Node => ServerRole::Node,
        Role::Coordinator if args.replace.is_some() => {
            return Err(Failure::usage("--replace is for nodes: a lost coordinator is removed with cluster remove coordinator-N"));
        }
        Role::Coordinator => ServerRole::Coordinator,
    };
    let (token, expires_ms) = cx.client().await?.create_token(role, args.expires, args.replace).await?;
    let expires = units::rfc3339_ms(expires_ms);
    if cx.out.json() {
        cx.out.object(&json!({ "token": token, "expires": expires }));
        return Ok(OK);
    }
    // The token alone on standard output: `TOKEN=$(shardkeep cluster token node)`.
    cx.out.line(&token);
    let replacing = args.replace.map(|n| format!(" It takes over what node-{n} held.")).unwrap_or_default();
    let server = if args.role == Role::Node { "node" } else { "coordinator" };
    cx.out.note(&format!("\nGood for one {server}, until {expires}.{replacing} On its machine:"));
    cx.out.note(&format!("  shardkeep serve {server} --dir DIR --listen HOST:PORT --join TOKEN"));
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_by_number_or_name() {
        assert_eq!([node_id("3"), node_id("node-12")], [Ok(NodeId(3)), Ok(NodeId(12))]);
        for bad in ["", "node-", "0", "node-x", "-1", "three"] {
            assert!(node_id(bad).is_err(), "{bad}");
        }
    }
}
