//! `up`: the embedded cluster, a coordinator and nodes in this one process. The first start also
//! makes the account and the profile, so that `put` works in the next terminal.
//!
//! ```text
//! DIR/coordinator   the catalog
//! DIR/node-1 …      the nodes' folders
//! DIR/nodes         how many there are, and the id of each: one whose folder is lost is replaced
//! ```

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::local;
use crate::password::{PasswordFrom, Secret};
use crate::serve::{End, add, keep_address, kept_address, stopped_by_then};
use clap::Args;
use client::{Client, ClientOptions};
use env::DiskExt;
use model::account::canonical_name;
use model::cluster::ServerRole;
use model::{Error, Kind, NodeId, Policy, Result};
use serde_json::json;
use server::coordinator::{Coordinator, CoordinatorConfig};
use server::node::{Node, NodeConfig};
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long the join tokens are good that `up` makes for its own nodes.
const TOKEN_VALID: Duration = Duration::from_secs(600);

/// Most nodes: as many as the widest policy needs.
const NODES_MAX: u16 = Policy::MAX_WIDTH as u16;

/// `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Where the cluster keeps its data [default: ~/.shardkeep/cluster]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How many nodes a new cluster has [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u16>,
    /// Default policy of a new cluster: K data and M parity shards [default: 2+2]
    #[arg(long, value_name = "K+M")]
    pub policy: Option<Policy>,
    /// Address that the coordinator listens on; port 0 takes a free one, and keeps it
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub listen: String,
    /// Account to make at the first start [default: your login name]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[command(flatten)]
    pub password: PasswordFrom,
}

/// The account that the first start makes.
struct First {
    name: String,
    password: Secret,
}

/// What the file `nodes` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    count: u16,
    /// Ids by number, as far as they have joined.
    ids: Vec<NodeId>,
}

impl Known {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let count = words.next()?.parse().ok().filter(|n| (1..=NODES_MAX).contains(n))?;
        let ids = words.map(|id| id.parse().ok()).collect::<Option<Vec<NodeId>>>()?;
        Some(Known { count, ids })
    }

    fn to_text(&self) -> String {
        self.ids.iter().fold(self.count.to_string(), |text, id| format!("{text} {id}"))
    }

    /// The node that was number `number`.
    fn id(&self, number: u16) -> Option<NodeId> {
        self.ids.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// What runs, and the recovery words of the account that was made.
struct Began {
    nodes: Vec<server::node::Running>,
    made: Option<(String, Zeroizing<String>)>,
}

/// Runs the cluster until it is told to stop.
pub async fn run(cx: Context, args: Up) -> Result<Done, Failure> {
    let dir = std::path::absolute(args.dir.clone().unwrap_or_else(|| cx.home.join("cluster")))
        .map_err(|e| Failure::usage(format!("--dir: {e}")))?;
    let host = args.listen.rsplit_once(':').map(|(host, _)| host.to_string());
    let host = host.filter(|h| !h.is_empty()).ok_or_else(|| Failure::usage("--listen: write HOST:PORT, for example 127.0.0.1:0"))?;
    if matches!(host.as_str(), "0.0.0.0" | "[::]") {
        return Err(Failure::usage("`up` needs an address that can be connected to; for several machines there is `serve`"));
    }
    let catalog = dir.join("coordinator");
    let is_new = !cx.env.disk.exists(&catalog);
    let known = nodes(&cx, &dir, &args, is_new).await?;
    let first = if is_new { Some(first(&cx, &args).await?) } else { None };
    if is_new {
        if let Some(warning) = args.policy.and_then(crate::cluster::policy::warning) {
            cx.out.error_line(&cx.out.red(&warning));
        }
        write(&cx, &dir, "nodes", known.to_text()).await?;
    } else if args.policy.is_some() {
        cx.out.note(&format!("{} --policy counts when a cluster is made; this one keeps its own", cx.out.yellow("note:")));
    }

    let mut end = End::new(&cx.env, false);
    let mut config = CoordinatorConfig::new(&catalog, kept_address(&cx.env, &catalog, &args.listen).await);
    config.policy = args.policy.unwrap_or(config.policy);
    if let Some(first) = &first {
        config.root_invite_name = first.name.clone();
    }
    let Some(coordinator) = end.or(Coordinator::start(cx.env.clone(), config)).await else { return Ok(OK) };
    let coordinator = coordinator?;
    keep_address(&cx.env, &catalog, &coordinator.address).await?;

    // Not cut off by a signal: nobody would see the recovery words of an account made that moment.
    let began = begin(&cx, &args, &dir, (&host, &known), first, &coordinator).await;
    let Began { nodes, made } = match began {
        Ok(began) => began,
        Err(failure) => {
            coordinator.shutdown().await;
            return Err(failure);
        }
    };

    let mut ready = json!({
        "ready": true,
        "role": "up",
        "address": coordinator.address,
        "cluster": coordinator.cluster.to_string(),
        "dir": dir.display().to_string(),
        "nodes": nodes.iter().map(|n| json!({ "node": n.node.to_string(), "address": n.address })).collect::<Vec<_>>(),
    });
    if let Some((name, words)) = &made {
        add(&mut ready, "account", json!(name));
        add(&mut ready, "recovery_words", json!(**words));
    }
    let text = Zeroizing::new(welcome(&cx, &dir, &coordinator.address, nodes.len(), made.as_ref()));
    cx.out.answer(&ready, &text);

    let failure = end.or(coordinator.ended()).await;
    cx.out.note("stopping …");
    let nodes = futures::future::join_all(nodes.into_iter().map(server::node::Running::shutdown));
    stopped_by_then(async {
        // Both at once: each may take nearly the five seconds that there are.
        tokio::join!(nodes, coordinator.shutdown());
    })
    .await;
    failure.map_or(Ok(OK), |e| Err(e.into()))
}

/// How many nodes the cluster has; decided once, at the first start.
async fn nodes(cx: &Context, dir: &Path, args: &Up, is_new: bool) -> Result<Known, Failure> {
    if is_new {
        let count = args.nodes.unwrap_or(4);
        let policy = args.policy.unwrap_or(Policy::DEFAULT);
        if u16::from(policy.width()) > count {
            return Err(Failure::usage(format!("policy {policy} needs {0} nodes: say --nodes {0}, or another --policy", policy.width())));
        }
        return Ok(Known { count, ids: Vec::new() });
    }
    let (disk, file) = (cx.env.disk.clone(), dir.join("nodes"));
    let read = cx.env.blocking(move || disk.read(&file)).await.ok();
    let known = read.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| Known::parse(&text));
    let known = known.ok_or_else(|| Error::corrupt(format!("{} does not say how many nodes there are", dir.join("nodes").display())))?;
    match args.nodes {
        Some(n) if n != known.count => {
            Err(Failure::usage(format!("the cluster in {} has {} nodes, which cannot change yet", dir.display(), known.count)))
        }
        _ => Ok(known),
    }
}

async fn write(cx: &Context, dir: &Path, name: &str, text: String) -> Result<()> {
    let (disk, folder, file) = (cx.env.disk.clone(), dir.to_path_buf(), dir.join(name));
    let written = cx.env.blocking(move || disk.create_dir_all(&folder).and_then(|()| disk.replace(&file, text.as_bytes()))).await;
    written.map_err(|e| local::io_error(&dir.join(name), &e))
}

fn node_dir(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("node-{number}"))
}

/// Asks for what the first start needs, before anything is made.
async fn first(cx: &Context, args: &Up) -> Result<First, Failure> {
    if cx.profile()?.exists() {
        return Err(another_cluster(cx).into());
    }
    let name = account_name(args)?;
    let password = args.password.read_new(cx, &name).await?;
    Ok(First { name, password })
}

/// The name typed, or the login name of whoever typed.
fn account_name(args: &Up) -> Result<String, Failure> {
    let login = || ["USER", "LOGNAME"].iter().find_map(|v| std::env::var(v).ok().filter(|name| !name.is_empty()));
    let name = args.user.clone().or_else(login).ok_or_else(|| Failure::usage("this process has no login name: say --user NAME"))?;
    canonical_name(&name).map_err(|e| Failure::usage(format!("{}: choose another with --user NAME", e.message)))
}

fn another_cluster(cx: &Context) -> Error {
    Error::exists(format!("the profile in {} belongs to another cluster", cx.home.display()))
        .hint("shardkeep up --profile NAME, and --profile NAME with the commands that are meant for it")
}

/// Makes the account where there is none, and starts the nodes.
async fn begin(
    cx: &Context,
    args: &Up,
    dir: &Path,
    (host, known): (&str, &Known),
    first: Option<First>,
    coordinator: &server::coordinator::Running,
) -> Result<Began, Failure> {
    let mut admin = None;
    let mut made = None;
    if let Some(invite) = &coordinator.invite {
        // An earlier first start may have been cut off before its account was made.
        let name = client::invite_name(invite)?;
        let password = match first {
            Some(first) => first.password,
            None if cx.profile()?.exists() => return Err(another_cluster(cx).into()),
            None => args.password.read_new(cx, &name).await?,
        };
        let (client, words) = Client::register(cx.profile()?, invite, &password, ClientOptions::default()).await?;
        admin = Some(client);
        made = Some((name, words));
    }
    let mut nodes = Vec::new();
    for number in 1..=known.count {
        match start_node(cx, args, &node_dir(dir, number), (host, known.id(number)), coordinator, &mut admin).await {
            Ok(node) => nodes.push(node),
            Err(failure) => {
                futures::future::join_all(nodes.into_iter().map(server::node::Running::shutdown)).await;
                return Err(failure);
            }
        }
    }
    let now = Known { count: known.count, ids: nodes.iter().map(|n| n.node).collect() };
    if now != *known {
        write(cx, dir, "nodes", now.to_text()).await?;
    }
    Ok(Began { nodes, made })
}

/// The admin that a first start made which was then cut off: by its session, or with its password.
async fn log_in(cx: &Context, args: &Up, coordinator: &server::coordinator::Running) -> Result<Client, Failure> {
    let profile = cx.profile()?;
    if profile.exists() {
        if profile.info()?.cluster != coordinator.cluster {
            return Err(another_cluster(cx).into());
        }
        match cx.client().await {
            Err(e) if e.kind == Kind::Denied => {}
            client => return Ok(client?),
        }
    } else {
        cx.out.note("the first start was cut off: nobody saw this account's recovery words, so keep its password well");
    }
    let name = account_name(args)?;
    let password = args.password.read(cx, &format!("Password of {name}: ")).await?;
    let address = client::Address { coordinator: coordinator.address.clone(), fingerprint: coordinator.fingerprint };
    Ok(Client::login(profile, Some(&name), Some(address), &password, ClientOptions::default()).await?)
}

/// Starts a node; one that is no member yet joins with a fresh token. `was`: the node that had this
/// folder before the folder was lost; the new one takes its slots over, and rebuilds what it held.
async fn start_node(
    cx: &Context,
    args: &Up,
    dir: &Path,
    (host, was): (&str, Option<NodeId>),
    coordinator: &server::coordinator::Running,
    admin: &mut Option<Client>,
) -> Result<server::node::Running, Failure> {
    let mut config = NodeConfig::new(dir, format!("{host}:0"));
    if cx.env.disk.exists(dir) {
        match Node::start(cx.env.clone(), config.clone()).await {
            // It belongs to no node: an earlier first start was cut off here.
            Err(e) if e.kind == Kind::Denied => {}
            started => return Ok(started?),
        }
    }
    let client = match admin {
        Some(client) => client,
        None => admin.insert(log_in(cx, args, coordinator).await?),
    };
    config.join = Some(client.create_token(ServerRole::Node, TOKEN_VALID, was).await?.0);
    Ok(Node::start(cx.env.clone(), config).await?)
}

fn welcome(cx: &Context, dir: &Path, address: &str, nodes: usize, made: Option<&(String, Zeroizing<String>)>) -> String {
    let out = &cx.out;
    let ok = out.green("✓");
    let mut text = format!("{ok} coordinator at {} and {nodes} nodes serve, data in {}\n", out.bold(address), dir.display());
    if let Some((name, words)) = made {
        text += &format!("{ok} account {} is made and logged in\n", out.bold(name));
        text += &format!("\n{}\n\n", out.bold("Write down your recovery words. They are the only way back when you forget your password:"));
        for (i, line) in words.split_whitespace().collect::<Vec<_>>().chunks(6).enumerate() {
            let numbered: Vec<String> = line.iter().zip(i * 6 + 1..).map(|(word, n)| format!("{n:>2} {word:<9}")).collect();
            text += &format!("  {}\n", numbered.join(" ").trim_end());
        }
    }
    text += &format!(
        "\n{} all of this is on one machine: when its disk dies, everything is lost. Lost nodes are survived,\n      \
         the only coordinator is not: without {} nothing can be read any more.\n      \
         It leaves encrypted snapshots on the nodes; keep a copy of its file recovery-key elsewhere, and make\n      \
         backups (shardkeep cluster backup).\n",
        out.yellow("note:"),
        dir.join("coordinator").display()
    );
    text + "\nIn another terminal:\n\n  shardkeep put FILE /\n  shardkeep ls /\n  shardkeep cluster status\n\nCtrl-C stops it; `shardkeep up` starts it again."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_a_cluster_are_remembered() {
        let known = Known { count: 4, ids: vec![NodeId(1), NodeId(2), NodeId(7)] };
        assert_eq!(known.to_text(), "4 1 2 7");
        assert_eq!(Known::parse("4 1 2 7\n"), Some(known.clone()));
        assert_eq!([known.id(0), known.id(1), known.id(3), known.id(4)], [None, Some(NodeId(1)), Some(NodeId(7)), None]);
        assert_eq!(Known::parse("4").map(|k| k.ids.len()), Some(0));
        for bad in ["", "0", "33", "x", "4 1 y"] {
            assert_eq!(Known::parse(bad), None, "{bad}");
        }
    }
}
