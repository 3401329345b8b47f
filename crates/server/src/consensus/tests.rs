//! The consensus library's own suite on our store, and what a restart finds.

#![allow(clippy::disallowed_methods)] // tests damage files themselves

use super::failure::Failure;
use super::log::LogStore;
use super::machine::Machine;
use super::types::{LogId, TypeConfig};
use super::{CHECKPOINT_EVERY, Consensus, Pace, Roster};
use crate::store::Store;
use env::Env;
use model::account::Invite;
use model::cluster::{Coordinator, Event};
use model::command::{Answer, Command, Genesis, Outcome, Proposal, Query};
use model::{ClusterId, CoordinatorId, Hash, InviteId, Kind, Policy, PublicKey, RequestId};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::path::Path;
use std::time::Duration;

struct Builder(Env);

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::open(&self.0, dir.path().join("log"), Failure::default()).await.unwrap();
        let store = Store::open(&self.0, &dir.path().join("catalog.redb"), |_, _| ()).unwrap();
        let machine = Machine::new(self.0.clone(), store, CHECKPOINT_EVERY, Failure::default()).unwrap();
        Ok((dir, log, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_storage_suite_passes() {
    Suite::test_all(Builder(env::real::env())).await.unwrap();
}

fn genesis() -> Genesis {
    Genesis {
        cluster: ClusterId([1; 16]),
        opaque_setup: vec![1].into(),
        root_cert: vec![2].into(),
        root_key: vec![3].into(),
        capability_seed: [4; 32],
        capability_key: PublicKey([5; 32]),
        policy: Policy::DEFAULT,
        power: 4,
        coordinator: Coordinator { id: CoordinatorId(1), address: "127.0.0.1:1".into(), key: Default::default(), version: String::new() },
        invite: Invite {
            id: InviteId([6; 16]),
            secret_hash: Hash([7; 32]),
            name: "admin".into(),
            admin: true,
            quota: None,
            expires_ms: u64::MAX,
        },
    }
}

fn proposal(env: &Env, command: Command) -> Proposal {
    Proposal { request: RequestId::new(env.now_ms(), env.random()), account: None, command, time_ms: env.now_ms() }
}

fn report(env: &Env, n: u64) -> Proposal {
    proposal(env, Command::Report { what: "test".into(), node: None, detail: n.to_string() })
}

async fn try_start(dir: &Path) -> model::Result<Consensus> {
    let roster = Roster::new(env::real::env(), CoordinatorId(1));
    let pace = Pace { checkpoint_every: CHECKPOINT_EVERY, round_trip: Duration::from_millis(200) };
    Consensus::start(env::real::env(), dir, roster, pace, true).await
}

async fn start(dir: &Path) -> Consensus {
    try_start(dir).await.unwrap()
}

/// A coordinator with an empty catalog, in a folder of its own.
async fn begin() -> (Env, tempfile::TempDir, Consensus) {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let consensus = start(dir.path()).await;
    consensus.propose(proposal(&env, Command::Init(Box::new(genesis())))).await.unwrap();
    (env, dir, consensus)
}

async fn events(consensus: &Consensus) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |e: &Event| e.seq);
        let Answer::Events(some) = consensus.query(Query::Events { after, limit: 1000 }).await.unwrap() else { panic!("not events") };
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

/// Everything in a folder, copied as it lies there: what a kill -9 at this moment would leave.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill_and_applied_once() {
    let env = env::real::env();
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    let init = proposal(&env, Command::Init(Box::new(genesis())));
    assert_eq!(consensus.propose(init.clone()).await, Ok(Outcome::Done));
    for n in 0..300 {
        consensus.propose(report(&env, n)).await.unwrap();
    }
    // Durability::None: the database lags behind, the log has it all.
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    let after = start(killed.path()).await;
    let found: Vec<String> = events(&after).await.into_iter().filter(|e| e.what == "test").map(|e| e.detail).collect();
    assert_eq!(found, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    // A late retry of the first command answers the same and changes nothing.
    assert_eq!(after.propose(init).await, Ok(Outcome::Done));
    assert_eq!(events(&after).await.len(), 301);
    after.shutdown().await;
    consensus.shutdown().await;
}

/// After a step back to an earlier version: opening the folder anew would not help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_later_version_ends_a_coordinator() {
    let (env, dir, consensus) = begin().await;
    consensus.shutdown().await;
    let later = tempfile::tempdir().unwrap();
    copy(dir.path(), later.path());
    let dir = later;
    let (found, last) = std::sync::mpsc::channel();
    let take = move |r: journal::Replayed<'_>| {
        if r.kind == super::log::ENTRY {
            let _ = found.send(r.meta.to_vec());
        }
        Ok(())
    };
    let config = journal::Config { segment_size: 32 << 20, ..journal::Config::new(dir.path().join("log")) };
    let (log, _) = journal::Journal::open(env.clone(), config, take).await.unwrap();
    let (group, mut id): (u32, LogId) = postcard::from_bytes(&last.try_iter().last().unwrap()).unwrap();
    id.index += 1;
    let meta = postcard::to_stdvec(&(group, id)).unwrap().into();
    log.append(vec![journal::Record { kind: super::log::ENTRY, meta, body: vec![0xff; 40].into() }]).await.unwrap();
    log.close().await;

    let why = match try_start(dir.path()).await {
        Ok(consensus) => env.timeout(Duration::from_secs(20), consensus.failed()).await.expect("it ends"),
        Err(e) => e,
    };
    assert_eq!(why.kind, Kind::Corrupt, "{why}");
    assert!(why.message.contains("later version"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_07_the_log_is_purged_below_the_checkpoint_and_restarts_stay_whole() {
    let (env, dir, consensus) = begin().await;
    let many = (0..8).map(|t| {
        let (consensus, env) = (consensus.clone(), env.clone());
        async move {
            for n in 0..1500 {
                consensus.propose(report(&env, t * 10_000 + n)).await.unwrap();
            }
        }
    });
    futures::future::join_all(many).await;
    assert!(consensus.log.purged_index() > 1000, "{} entries are purged", consensus.log.purged_index());
    // Neither closed nor made durable: what the log has lost by now must be in the database as it lies there.
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    consensus.shutdown().await;
    drop(consensus);
    let consensus = start(killed.path()).await;
    let found = events(&consensus).await;
    assert_eq!(found.len(), 12_001);
    for pair in found.windows(2) {
        assert_eq!(pair[1].prev, Hash::of(&model::cbor::to_vec(&pair[0])));
    }
    consensus.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_07_a_coordinator_with_half_of_its_state_does_not_vote() {
    let (env, dir, consensus) = begin().await;
    for n in 0..50 {
        consensus.propose(report(&env, n)).await.unwrap();
    }
    consensus.shutdown().await;
    drop(consensus);

    let without_log = tempfile::tempdir().unwrap();
    copy(dir.path(), without_log.path());
    std::fs::remove_dir_all(without_log.path().join("log")).unwrap();
    let refused = try_start(without_log.path()).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Corrupt);

    // A whole segment is gone: what it held may have been acknowledged.
    let robbed = tempfile::tempdir().unwrap();
    copy(dir.path(), robbed.path());
    for entry in std::fs::read_dir(robbed.path().join("log")).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "seg") {
            std::fs::remove_file(entry).unwrap();
        }
    }
    let refused = try_start(robbed.path()).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Corrupt);

    let damaged = tempfile::tempdir().unwrap();
    copy(dir.path(), damaged.path());
    let mut segments: Vec<_> = std::fs::read_dir(damaged.path().join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.retain(|p| p.extension().is_some_and(|e| e == "seg"));
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    let refused = try_start(damaged.path()).await.err().unwrap();
    assert_eq!(refused.kind, Kind::Corrupt);
}

/// Found by the simulation: a leader that led on after its restart answered from its last checkpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_restarts_is_elected_anew() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    let before = consensus.term_led();
    consensus.shutdown().await;
    drop(consensus);
    let after = start(dir.path()).await.term_led();
    assert!(before.is_some() && after > before, "{before:?} {after:?}");
}
