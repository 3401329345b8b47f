//! `serve`: one server in the foreground. It says that it is ready only when it serves, and stops
//! cleanly within 5 s of SIGTERM or Ctrl-C.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::{local, secret, stop, units};
use clap::{Args, Subcommand};
use env::{DiskExt, Env};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Policy, Result};
use serde_json::{Value, json};
use server::coordinator::{Coordinator, CoordinatorConfig};
use server::node::{Node, NodeConfig};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which server.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// A coordinator: it keeps the catalog; its first start makes the cluster
    Coordinator(CoordinatorArgs),
    /// A node: it stores shards
    Node(NodeArgs),
}

/// Where a server listens, and how long it runs.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Address that others connect to [default: the one listened on]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Stop when standard input ends, that is when the process that started this one is gone
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// `serve coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Folder of the catalog
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// A new cluster has 2^P partitions [default: 16]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u8).range(1..=i64::from(model::Layout::MAX_POWER)))]
    pub partition_power: Option<u8>,
    /// Default policy of a new cluster: K data and M parity shards [default: 2+2]
    #[arg(long, value_name = "K+M")]
    pub policy: Option<Policy>,
    /// A node that was silent for so long is given up, and its shards are rebuilt elsewhere: such as 30m, 2h, or never
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = out_after)]
    pub out_after: OutAfter,
    /// Longest round trip between coordinators; give all of them the same. Over 200ms they take longer to replace a
    /// leader that fails
    #[arg(long, default_value = "200ms", value_name = "TIME", value_parser = round_trip)]
    pub round_trip: Duration,
    /// Join token of a further coordinator, needed for its first start; @FILE or - (standard input) keeps it out
    /// of the process list
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true, conflicts_with_all = ["partition_power", "policy"])]
    pub join: Option<String>,
}

/// `serve node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Folder of the node, one for each disk
    #[arg(long = "dir", value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Join token, needed for the first start; @FILE or - (standard input) keeps it out of the process list
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub join: Option<String>,
    /// Failure zone: shards of a chunk go to different ones [default: the node is its own]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ZONE")]
    pub zone: String,
    /// Most bytes to use of each --dir, such as 500G [default: what its disk has]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub capacity: Option<u64>,
    /// Take part as soon as it has joined, without waiting for `cluster add`
    #[arg(long)]
    pub auto_add: bool,
    /// Look for a coordinator here too: after a restore at another address. May be given several times
    #[arg(long = "coordinator", value_name = "HOST:PORT")]
    pub coordinators: Vec<String>,
}

/// When a silent node is given up; `None`: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutAfter(pub Option<Duration>);

/// From a millisecond to two seconds: further apart no group makes sense.
fn round_trip(text: &str) -> Result<Duration, String> {
    let time = match text.strip_suffix("ms") {
        Some(ms) => Duration::from_millis(ms.trim().parse().map_err(|_| format!("{text} is no time, such as 300ms"))?),
        None => units::parse_duration(text)?,
    };
    if (Duration::from_millis(1)..=Duration::from_secs(2)).contains(&time) { Ok(time) } else { Err("1ms to 2s".into()) }
}

fn out_after(text: &str) -> Result<OutAfter, String> {
    if text == "never" {
        return Ok(OutAfter(None));
    }
    let after = units::parse_duration(text).map_err(|e| format!("{e}, or never"))?;
    // Sooner than that a node that only restarts would be given up.
    if after < Duration::from_secs(20) { Err("give a node at least 20s to come back".into()) } else { Ok(OutAfter(Some(after))) }
}

/// Runs a server until it is told to stop.
pub async fn run(cx: Context, serve: Serve) -> Result<Done, Failure> {
    match serve {
        Serve::Coordinator(args) => coordinator(cx, args).await,
        Serve::Node(args) => node(cx, args).await,
    }
}

async fn coordinator(cx: Context, args: CoordinatorArgs) -> Result<Done, Failure> {
    check_addresses(&args.listen)?;
    let mut end = End::new(&cx.env, args.listen.until_stdin_ends);
    let join = match &args.join {
        Some(text) => Some(secret::given(&cx.env, text, "a join token").await?),
        None => None,
    };
    let mut config = CoordinatorConfig::new(&args.dir, kept_address(&cx.env, &args.dir, &args.listen.listen).await);
    config.advertise = args.listen.advertise;
    config.power = args.partition_power.unwrap_or(config.power);
    config.policy = args.policy.unwrap_or(config.policy);
    config.limits.out = args.out_after.0;
    config.round_trip = args.round_trip;
    config.join = join.map(|token| token.to_string());
    let warning = crate::cluster::policy::warning(config.policy);
    let Some(running) = end.or(Coordinator::start(cx.env.clone(), config)).await else { return Ok(OK) };
    let running = running?;
    if let Some(warning) = warning.filter(|_| running.invite.is_some()) {
        cx.out.error_line(&cx.out.red(&warning));
    }
    keep_address(&cx.env, &args.dir, &running.address).await?;
    let mut ready = json!({
        "ready": true,
        "role": "coordinator",
        "address": running.address,
        "coordinator": running.id.to_string(),
        "cluster": running.cluster.to_string(),
        "fingerprint": running.fingerprint.to_string(),
        "caught_up": running.caught_up,
    });
    let mut text = format!("{} coordinator serves at {}", cx.out.green("✓"), cx.out.bold(&running.address));
    if !running.caught_up {
        text += "\n  it does not have the catalog yet, and is waiting for the coordinator that leads";
    }
    if let Some(invite) = &running.invite {
        add(&mut ready, "invite", json!(invite));
        text += &format!("\n\nThe cluster is new. Make its first account, an admin:\n\n  shardkeep register {invite}\n");
        text += "\nthen a join token for each node:\n\n  shardkeep cluster token node\n";
        text += &format!(
            "\nCopy {} to another machine. While this coordinator is the only one it leaves encrypted\nsnapshots of the catalog on nodes; with that file a new one can be made from them.\n",
            args.dir.join("recovery-key").display()
        );
    }
    cx.out.answer(&ready, &text);
    let failure = end.or(running.ended()).await;
    cx.out.note("stopping …");
    stopped_by_then(running.shutdown()).await;
    failure.map_or(Ok(OK), |e| Err(e.into()))
}

async fn node(cx: Context, args: NodeArgs) -> Result<Done, Failure> {
    check_addresses(&args.listen)?;
    if args.zone.len() > 64 || args.zone.chars().any(char::is_control) {
        return Err(Failure::usage("a zone is a word of at most 64 bytes"));
    }
    for (one, other) in on_one_file_system(&args.dirs) {
        cx.out.error_line(&format!(
            "{} {} and {} are on one file system: when its disk dies, both are lost",
            cx.out.yellow("warning:"),
            one.display(),
            other.display()
        ));
    }
    let mut end = End::new(&cx.env, args.listen.until_stdin_ends);
    let join = match &args.join {
        Some(text) => Some(secret::given(&cx.env, text, "a join token").await?),
        None => None,
    };
    let config = NodeConfig {
        dirs: args.dirs,
        listen: args.listen.listen,
        advertise: args.listen.advertise,
        join: join.map(|token| token.to_string()),
        zone: args.zone,
        capacity: args.capacity,
        auto_add: args.auto_add,
        coordinators: args.coordinators,
    };
    let Some(running) = end.or(Node::start(cx.env.clone(), config)).await else { return Ok(OK) };
    let running = running?;
    let devices: Vec<String> = running.devices.iter().map(ToString::to_string).collect();
    let ready = json!({
        "ready": true,
        "role": "node",
        "address": running.address,
        "node": running.node.to_string(),
        "cluster": running.cluster.to_string(),
        "devices": devices,
    });
    let name = format!("node-{}", running.node);
    cx.out.answer(&ready, &format!("{} {} serves at {}", cx.out.green("✓"), cx.out.bold(&name), cx.out.bold(&running.address)));
    end.wait().await;
    cx.out.note("stopping …");
    stopped_by_then(running.shutdown()).await;
    Ok(OK)
}

/// When a server ends: on SIGTERM or Ctrl-C, and, for children of `demo`, when standard input does.
/// What comes while nobody waits is not forgotten.
pub struct End(BoxFuture<'static, ()>);

impl End {
    /// `with_parent`: also when standard input ends.
    pub fn new(env: &Env, with_parent: bool) -> Self {
        let env = env.clone();
        let end = async move {
            let parent_gone = async {
                match with_parent {
                    true => stop::orphaned(&env).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop::told() => {}
                () = parent_gone => {}
            }
        };
        End(end.boxed())
    }

    /// Waits until it is time.
    pub async fn wait(self) {
        self.0.await;
    }

    /// Does something that takes a while; `None` when the end came first.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = &mut self.0 => None,
        }
    }
}

/// Shuts down; whoever asks a second time does not want to wait.
pub async fn stopped_by_then(shutdown: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown => {}
        () = stop::told() => {}
    }
}

/// Adds a field to a JSON object.
pub fn add(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.into(), value);
    }
}

/// Nobody can connect to "any address": what is advertised must be one that others reach.
fn check_addresses(args: &ListenArgs) -> Result<(), Failure> {
    let has_port = |a: &str| a.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !has_port(&args.listen) {
        return Err(Failure::usage(format!("--listen {}: write HOST:PORT, for example 0.0.0.0:10000", args.listen)));
    }
    match &args.advertise {
        Some(address) if !has_port(address) || address.ends_with(":0") => {
            Err(Failure::usage(format!("--advertise {address}: write HOST:PORT, where others connect to")))
        }
        None if args.listen.parse::<SocketAddr>().is_ok_and(|a| a.ip().is_unspecified()) => Err(Failure::usage(format!(
            "--listen {} takes every address of this machine, so say with --advertise HOST:PORT which one others connect to",
            args.listen
        ))),
        _ => Ok(()),
    }
}

/// Pairs of folders that lie on one file system: each with an earlier one.
fn on_one_file_system(dirs: &[PathBuf]) -> Vec<(&PathBuf, &PathBuf)> {
    let on: Vec<_> = dirs.iter().map(|dir| local::file_system(dir)).collect();
    let same_as = |i: usize| (0..i).find(|j| on.get(i).is_some_and(|f| f.is_some() && on.get(*j) == Some(f)));
    dirs.iter().enumerate().filter_map(|(i, dir)| Some((dirs.get(same_as(i)?)?, dir))).collect()
}

/// Where the address is remembered.
fn address_file(dir: &Path) -> PathBuf {
    dir.join("last-address")
}

/// A coordinator that takes any port takes the one that it had before: clients and nodes look for
/// it there.
pub async fn kept_address(env: &Env, dir: &Path, listen: &str) -> String {
    let Some(host) = listen.strip_suffix(":0") else { return listen.to_string() };
    let (disk, file) = (env.disk.clone(), address_file(dir));
    let last = env.blocking(move || disk.read(&file)).await.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let port = last.as_deref().and_then(|a| a.trim().rsplit_once(':')).and_then(|(_, port)| port.parse::<u16>().ok());
    format!("{host}:{}", port.unwrap_or(0))
}

/// Remembers the address for the next start.
pub async fn keep_address(env: &Env, dir: &Path, address: &str) -> Result<()> {
    let (disk, file, text) = (env.disk.clone(), address_file(dir), address.to_string());
    let written = env.blocking(move || disk.replace(&file, text.as_bytes())).await;
    written.map_err(|e| local::io_error(&address_file(dir), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(listen: &str, advertise: Option<&str>) -> ListenArgs {
        ListenArgs { listen: listen.into(), advertise: advertise.map(Into::into), until_stdin_ends: false }
    }

    #[test]
    fn silent_nodes_are_given_up_late_or_never() {
        assert_eq!(round_trip("300ms"), Ok(Duration::from_millis(300)));
        assert!(round_trip("0ms").is_err() && round_trip("1h").is_err() && round_trip("ms").is_err());
        assert_eq!(out_after("never"), Ok(OutAfter(None)));
        assert_eq!(out_after("2h"), Ok(OutAfter(Some(Duration::from_secs(7200)))));
        assert!(out_after("5s").is_err() && out_after("soon").is_err());
    }

    #[test]
    fn addresses_that_nobody_can_connect_to_are_refused() {
        assert!(check_addresses(&listen("127.0.0.1:0", None)).is_ok());
        assert!(check_addresses(&listen("server.example:10000", None)).is_ok());
        assert!(check_addresses(&listen("0.0.0.0:10000", Some("192.0.2.7:10000"))).is_ok());
        for (at, advertise) in [("0.0.0.0:10000", None), ("[::]:1", None), ("127.0.0.1", None), (":80", None), ("127.0.0.1:0", Some("h:0"))]
        {
            assert_eq!(check_addresses(&listen(at, advertise)).map_err(|e| e.code()), Err(2), "{at} {advertise:?}");
        }
    }

    #[tokio::test]
    async fn any_port_means_the_one_of_last_time() {
        let env = env::real::env();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept_address(&env, dir.path(), "127.0.0.1:0").await, "127.0.0.1:0");
        keep_address(&env, dir.path(), "127.0.0.1:41234").await.unwrap();
        assert_eq!(kept_address(&env, dir.path(), "127.0.0.1:0").await, "127.0.0.1:41234");
        assert_eq!(kept_address(&env, dir.path(), "127.0.0.1:10000").await, "127.0.0.1:10000");
    }

    #[test]
    fn folders_on_one_file_system_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().join("a"), PathBuf::from("/proc"), dir.path().join("not/yet/there")];
        let pairs = on_one_file_system(&dirs);
        assert_eq!(pairs, [(&dirs[0], &dirs[2])]);
        assert!(on_one_file_system(&dirs[..1]).is_empty());
    }
}
