//! The servers of the story: each host runs one, and starts it again when it ends, as a supervisor
//! would. Coordinators after the first, and all nodes, wait for a token.

use super::stage::Stage;
use env::Env;
use model::{Error, Kind};
use server::coordinator::detector::Limits;
use server::coordinator::{Coordinator, CoordinatorConfig};
use server::node::{Node, NodeConfig};
use std::time::Duration;

/// Partition power: few partitions, so that every one of them sees much.
const POWER: u8 = 5;

/// What the seed decides of the cluster.
#[derive(Debug, Clone)]
pub struct Build {
    /// Coordinators: 1 or 3.
    pub coordinators: usize,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Nodes that may come later.
    pub spares: usize,
    /// After how much silence a node is given up.
    pub out: Option<Duration>,
    /// Changes after which the catalog is made durable.
    pub checkpoint_every: u64,
}

/// A coordinator's host.
pub async fn coordinator(env: Env, stage: Stage, build: Build, number: usize) -> env::sim::Result {
    let limits = Limits { suspect: Duration::from_secs(2), down: Duration::from_secs(4), out: build.out };
    let name = format!("coordinator{number}");
    let join = if number == 0 { None } else { Some(token(&env, &stage, &name).await) };
    let config = CoordinatorConfig {
        power: POWER,
        limits,
        checkpoint_every: build.checkpoint_every,
        join,
        ..CoordinatorConfig::new("/c", format!("{name}:7000"))
    };
    loop {
        match Coordinator::start(env.clone(), config.clone()).await {
            Ok(running) => {
                stage.lock().tell(env.clock.monotonic(), format!("{name} serves"));
                if let Some(invite) = &running.invite {
                    stage.lock().invite = Some(invite.clone());
                }
                return std::future::pending().await;
            }
            Err(e) => refused(&env, &stage, &name, &e).await,
        }
    }
}

/// A node's host.
pub async fn node(env: Env, stage: Stage, number: usize) -> env::sim::Result {
    let name = format!("node{number}");
    loop {
        let token = token(&env, &stage, &name).await;
        let setup = stage.lock().setups.get(&number).cloned();
        let Some(setup) = setup else { return Ok(()) };
        let config = NodeConfig {
            join: Some(token),
            capacity: Some(setup.capacity),
            zone: setup.zone,
            ..NodeConfig::new("/n", format!("{name}:7001"))
        };
        match Node::start(env.clone(), config).await {
            Ok(running) => {
                {
                    let mut shared = stage.lock();
                    shared.tell(env.clock.monotonic(), format!("{name} serves as node {}", running.node));
                    shared.ids.insert(number, running.node);
                }
                return std::future::pending().await;
            }
            // The token was used by a life that did not live to see it: another one is needed.
            Err(e) if e.kind == Kind::Denied => {
                let mut shared = stage.lock();
                shared.tell(env.clock.monotonic(), format!("{name} is not let in: {e}"));
                shared.tokens.remove(&name);
                shared.wanting.insert(number);
            }
            Err(e) => refused(&env, &stage, &name, &e).await,
        }
    }
}

/// The token that waits for a host. It stays: a member ignores it.
async fn token(env: &Env, stage: &Stage, name: &str) -> String {
    loop {
        let token = stage.lock().tokens.get(name).cloned();
        match token {
            Some(token) => return token,
            None => env.sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A server does not start. Soon it is tried again, where that helps; that it calls its own data
/// damaged is a promise not kept.
async fn refused(env: &Env, stage: &Stage, name: &str, e: &Error) {
    let now = env.clock.monotonic();
    stage.lock().tell(now, format!("{name} does not start: {:?}: {e}", e.kind));
    match e.kind {
        Kind::Unavailable | Kind::Insufficient => env.sleep(Duration::from_secs(1)).await,
        kind => {
            stage.lock().fail(now, format!("{name} does not start: {kind:?}: {e}"));
            std::future::pending().await
        }
    }
}
