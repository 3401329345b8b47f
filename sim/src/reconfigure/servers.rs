//! The servers of the story: each host runs one, and starts it again when it ends, as a supervisor
//! would. Coordinators after the first, and all nodes, wait for a token.

use super::stage::Stage;
use client::BackupReader;
use env::{DiskExt, Env};
use model::{Error, Kind};
use server::coordinator::detector::Limits;
use server::coordinator::{Coordinator, CoordinatorConfig, restore};
use server::node::{Node, NodeConfig};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Partition power: few partitions, so that every one of them sees much.
const POWER: u8 = 5;

/// Where a backup of the catalog lies.
pub const BACKUP: &str = "/backup";
/// What it is encrypted with.
pub const BACKUP_PASSPHRASE: &str = "a passphrase that is long enough for a backup";

/// What the seed decides of the cluster.
#[derive(Debug, Clone)]
pub struct Build {
    /// Coordinators at the beginning: 1 or 3.
    pub coordinators: usize,
    /// Coordinators that may come later.
    pub heirs: usize,
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
    loop {
        let founds = number == 0 && !stage.lock().vacated.contains(&0);
        let backup = stage.lock().backup.clone().filter(|_| number == 0);
        let restores = backup.is_some();
        let dir = match backup {
            Some(backup) => restored(&env, &stage, backup).await,
            None => "/c".into(),
        };
        let join = if founds || restores { None } else { Some(token(&env, &stage, &name).await) };
        let config = CoordinatorConfig {
            power: POWER,
            limits,
            checkpoint_every: build.checkpoint_every,
            join,
            ..CoordinatorConfig::new(dir, format!("{name}:7000"))
        };
        match Coordinator::start(env.clone(), config).await {
            Ok(running) => {
                let (id, invite, ended) = (running.id, running.invite.clone(), running.ended());
                let running = Arc::new(Mutex::new(running));
                {
                    let mut shared = stage.lock();
                    shared.tell(env.clock.monotonic(), format!("{name} serves as coordinator-{id}"));
                    shared.seats.insert(number, id);
                    shared.coordinators.insert(number, Arc::downgrade(&running));
                    shared.invite = invite.or(shared.invite.take());
                }
                refused(&env, &stage, &name, &ended.await).await;
            }
            // The token was used by a life that did not live to see it: another one is needed.
            Err(e) if e.kind == Kind::Denied && build.heirs > 0 => {
                let mut shared = stage.lock();
                shared.tell(env.clock.monotonic(), format!("{name} is not let in: {e}"));
                shared.tokens.remove(&name);
            }
            Err(e) => refused(&env, &stage, &name, &e).await,
        }
    }
}

/// The folder in which the catalog of a backup is. Whoever was interrupted begins in another one.
async fn restored(env: &Env, stage: &Stage, backup: Vec<u8>) -> String {
    loop {
        let (tries, done) = stage.lock().restores;
        if done {
            return format!("/restored{tries}");
        }
        let dir = format!("/restored{}", tries + 1);
        stage.lock().restores.0 += 1;
        let again = env.clone();
        let copied = backup.clone();
        let opened = env.blocking(move || {
            let path = Path::new(BACKUP);
            again.disk.replace(path, &copied).map_err(|e| Error::unavailable(e.to_string()))?;
            BackupReader::open(&again, path, BACKUP_PASSPHRASE)
        });
        let done = match opened.await {
            Ok(mut reader) => restore(env.clone(), Path::new(&dir), move || reader.next_rows()).await,
            Err(e) => Err(e),
        };
        match done {
            Ok(told) => {
                stage.lock().restores.1 = true;
                stage.lock().tell(env.clock.monotonic(), format!("restored: {told:?}"));
            }
            Err(e) => refused(env, stage, "the restored coordinator", &e).await,
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
