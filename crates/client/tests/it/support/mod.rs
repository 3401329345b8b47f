//! A whole cluster in one process over loopback, and users of it: what the tests tell stories with.

pub mod evil;

use client::{Client, ClientOptions, Get, GetReport, Profile, Put, PutOptions, PutReport, RemotePath, Source};
use env::{Clock, Env};
use model::{NodeId, Policy, Result};
use server::coordinator::detector::Limits;
use server::coordinator::{self, Coordinator, CoordinatorConfig};
use server::node::{self, Node, NodeConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The password of every user.
pub const PASSWORD: &str = "correct horse battery staple";

/// A cluster: one coordinator, some nodes, each in its own folder.
pub struct Cluster {
    pub env: Env,
    pub dir: tempfile::TempDir,
    pub address: String,
    pub invite: String,
    pub coordinator: Option<coordinator::Running>,
    pub nodes: Vec<Option<node::Running>>,
    addresses: Vec<String>,
}

impl Cluster {
    /// A coordinator, its admin and so many nodes.
    pub async fn start(nodes: usize) -> (Cluster, Client) {
        Cluster::start_with(nodes, Policy::DEFAULT).await
    }

    /// The same with another default policy. Its first layout is of that width, and takes all nodes that
    /// have joined by then; later ones are `joining` until an operator adds them.
    pub async fn start_with(nodes: usize, policy: Policy) -> (Cluster, Client) {
        Cluster::start_in(env::real::env(), nodes, policy).await
    }

    /// The same in another environment.
    pub async fn start_in(env: Env, nodes: usize, policy: Policy) -> (Cluster, Client) {
        let dir = tempfile::tempdir().unwrap();
        let config = CoordinatorConfig { policy, ..config(dir.path().join("c"), "127.0.0.1:0") };
        let coordinator = Coordinator::start(env.clone(), config).await.unwrap();
        let mut cluster = Cluster {
            env,
            dir,
            address: coordinator.address.clone(),
            invite: coordinator.invite.clone().unwrap(),
            coordinator: Some(coordinator),
            nodes: Vec::new(),
            addresses: Vec::new(),
        };
        let profile = cluster.profile("admin");
        let (admin, _) = Client::register(profile, &cluster.invite, PASSWORD, ClientOptions::default()).await.unwrap();
        for _ in 0..nodes {
            cluster.join(&admin).await;
        }
        (cluster, admin)
    }

    /// One more node joins.
    pub async fn join(&mut self, admin: &Client) -> NodeId {
        let (token, _) = admin.create_token(model::cluster::ServerRole::Node, Duration::from_secs(600), None).await.unwrap();
        self.nodes.push(None);
        self.addresses.push("127.0.0.1:0".into());
        self.start_node(self.nodes.len() - 1, Some(token)).await.unwrap()
    }

    pub fn profile(&self, name: &str) -> Profile {
        Profile::new(self.env.clone(), &self.dir.path().join("home"), name).unwrap()
    }

    pub fn node_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("n{i}"))
    }

    /// Room for one more node; its place.
    pub fn add_place(&mut self) -> usize {
        self.nodes.push(None);
        self.addresses.push("127.0.0.1:0".into());
        self.nodes.len() - 1
    }

    pub async fn start_node(&mut self, i: usize, join: Option<String>) -> Result<NodeId> {
        let config = NodeConfig { join, capacity: Some(8 << 30), ..NodeConfig::new(self.node_dir(i), self.addresses[i].clone()) };
        let node = Node::start(self.env.clone(), config).await?;
        let id = node.node;
        self.addresses[i] = node.address.clone();
        self.nodes[i] = Some(node);
        Ok(id)
    }

    /// Stops a node; answers its id.
    pub async fn stop_node(&mut self, i: usize) -> NodeId {
        let node = self.nodes[i].take().unwrap();
        let id = node.node;
        node.shutdown().await;
        id
    }

    pub async fn restart_coordinator(&mut self) {
        self.coordinator.take().unwrap().shutdown().await;
        self.coordinator = Some(Coordinator::start(self.env.clone(), config(self.dir.path().join("c"), &self.address)).await.unwrap());
    }
}

fn config(dir: PathBuf, listen: &str) -> CoordinatorConfig {
    // Shorter limits of silence than the real ones, so that tests need not wait for those.
    let limits = Limits { suspect: Duration::from_secs(2), down: Duration::from_secs(4), out: None };
    CoordinatorConfig { power: 6, limits, ..CoordinatorConfig::new(dir, listen) }
}

/// A remote path.
pub fn at(path: &str) -> RemotePath {
    RemotePath::parse(path).unwrap()
}

/// Bytes that repeat nowhere soon and depend on the seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// What the stories say of a client.
pub trait Tell {
    async fn put_bytes(&self, path: &str, bytes: Vec<u8>) -> Result<PutReport>;
    async fn put_path(&self, local: &Path, remote: &str, options: PutOptions) -> Result<PutReport>;
    async fn read(&self, path: &str) -> Result<Vec<u8>>;
    async fn get_path(&self, remote: &str, local: &Path) -> Result<GetReport>;
    async fn names(&self, path: &str) -> Vec<String>;
}

impl Tell for Client {
    async fn put_bytes(&self, path: &str, bytes: Vec<u8>) -> Result<PutReport> {
        let report = self.put(vec![Put { source: Source::Bytes(bytes), remote: at(path) }], PutOptions::default(), Arc::new(())).await?;
        first_failure(report.failed.clone())?;
        Ok(report)
    }

    async fn put_path(&self, local: &Path, remote: &str, options: PutOptions) -> Result<PutReport> {
        let report = self.put(vec![Put { source: Source::Path(local.into()), remote: at(remote) }], options, Arc::new(())).await?;
        first_failure(report.failed.clone())?;
        Ok(report)
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.cat(&at(path), None, &mut out).await?;
        Ok(out)
    }

    async fn get_path(&self, remote: &str, local: &Path) -> Result<GetReport> {
        let report = self.get(vec![Get { remote: at(remote), local: local.into() }], true, Arc::new(())).await?;
        first_failure(report.failed.clone())?;
        Ok(report)
    }

    async fn names(&self, path: &str) -> Vec<String> {
        self.list(&at(path)).await.unwrap().iter().map(|e| e.name()).collect()
    }
}

fn first_failure(failed: Vec<(String, model::Error)>) -> Result<()> {
    failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))
}

/// `k+m`.
pub fn policy(text: &str) -> Option<Policy> {
    Some(text.parse().unwrap())
}

/// The real world, in which the machine may have slept for a while: so many milliseconds.
struct Slept(Arc<dyn Clock>, Arc<AtomicU64>);

impl Clock for Slept {
    fn now_ms(&self) -> u64 {
        self.0.now_ms() + self.1.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn uptime(&self) -> Duration {
        self.0.uptime() + Duration::from_millis(self.1.load(Ordering::Relaxed))
    }
}

/// The real world with such a machine.
pub fn sleeper() -> (Env, Arc<AtomicU64>) {
    let slept = Arc::new(AtomicU64::new(0));
    let mut env = env::real::env();
    env.clock = Arc::new(Slept(env.clock.clone(), slept.clone()));
    (env, slept)
}
