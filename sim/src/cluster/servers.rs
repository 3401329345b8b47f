//! The servers of the story: each host runs one, and starts it again when it ends, as a supervisor
//! would.

use super::stage::Stage;
use env::Env;
use model::{Error, Kind};
use server::coordinator::detector::Limits;
use server::coordinator::{Coordinator, CoordinatorConfig};
use server::node::{Node, NodeConfig};
use std::future::Future;
use std::time::Duration;

/// Partition power: few partitions, so that every one of them sees much.
const POWER: u8 = 5;
/// What the seed decides of the cluster.
#[derive(Debug, Clone)]
pub struct Build {
    /// Nodes.
    pub nodes: usize,
    /// Bytes that a node offers; the smaller, the smaller the segments of its log.
    pub capacity: u64,
    /// Changes after which the catalog is made durable.
    pub checkpoint_every: u64,
}

/// The coordinator's host.
pub async fn coordinator(env: Env, stage: Stage, build: Build) -> env::sim::Result {
    let limits = Limits { suspect: Duration::from_secs(2), down: Duration::from_secs(4), out: None };
    let config = CoordinatorConfig {
        power: POWER,
        limits,
        checkpoint_every: build.checkpoint_every,
        ..CoordinatorConfig::new("/c", "coordinator:7000")
    };
    let running = started(&env, &stage, "coordinator", || Coordinator::start(env.clone(), config.clone())).await;
    if let Some(invite) = &running.invite {
        stage.lock().invite = Some(invite.clone());
    }
    std::future::pending().await
}

/// A node's host.
pub async fn node(env: Env, stage: Stage, build: Build, number: usize) -> env::sim::Result {
    let token = loop {
        let token = stage.lock().tokens.get(&number).cloned();
        match token {
            Some(token) => break token,
            None => env.sleep(Duration::from_millis(100)).await,
        }
    };
    let name = format!("node{number}");
    let config = NodeConfig { join: Some(token), capacity: Some(build.capacity), ..NodeConfig::new("/n", format!("{name}:7001")) };
    let running = started(&env, &stage, &name, || Node::start(env.clone(), config.clone())).await;
    let _running = running;
    std::future::pending().await
}

/// Starts a server, again where that cannot be at present. That it calls its own data damaged is a
/// promise not kept.
async fn started<T, F: Future<Output = Result<T, Error>>>(env: &Env, stage: &Stage, name: &str, start: impl Fn() -> F) -> T {
    loop {
        match start().await {
            Ok(running) => return running,
            Err(e) if e.kind == Kind::Unavailable => {
                stage.lock().tell(env.clock.monotonic(), format!("{name} does not start: {e}"));
                env.sleep(Duration::from_secs(1)).await;
            }
            Err(e) => {
                stage.lock().fail(env.clock.monotonic(), format!("{name} does not start: {:?}: {e}", e.kind));
                return std::future::pending().await;
            }
        }
    }
}
