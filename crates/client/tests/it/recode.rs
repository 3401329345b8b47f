//! Spaces get other policies while their files are read; nothing is lost, and the old shards go.

use crate::support::{Cluster, Tell, at, noise, policy, sleeper};
use client::{Client, Put, PutOptions, Source};
use model::{Kind, Policy};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wire::coordinator::Administration;

const CHUNK: usize = model::chunk::CHUNK_SIZE;
const ALL: [&str; 6] = ["1+0", "1+1", "1+2", "2+1", "2+2", "4+2"];

async fn put(owner: &Client, path: &str, text: &str, bytes: Vec<u8>) {
    let options = PutOptions { policy: policy(text), ..PutOptions::default() };
    let report = owner.put(vec![Put { source: Source::Bytes(bytes), remote: at(path) }], options, Arc::new(())).await.unwrap();
    assert!(report.failed.is_empty() && !report.degraded, "{text}: {report:?}");
}

/// Gives the admin's home space a policy.
async fn set(owner: &Client, policy: &str) -> model::Result<()> {
    let space = owner.space_policy("admin").await?.space;
    owner.administer(Administration::SetPolicy { space, policy: policy.parse().unwrap() }).await
}

/// Waits until nothing is left to be coded anew.
async fn recoded(cluster: &Cluster, owner: &Client) {
    for _ in 0..600 {
        if owner.space_policy("admin").await.is_ok_and(|p| p.coding.left == 0) {
            return;
        }
        cluster.env.sleep(Duration::from_millis(100)).await;
    }
    panic!("never coded anew: {:?}", owner.events(0).await);
}

async fn policy_of(owner: &Client, path: &str) -> Policy {
    owner.stat(&at(path)).await.unwrap().policy().unwrap()
}

/// Shards on all nodes, as heartbeats report them.
async fn shards(owner: &Client) -> u64 {
    let heartbeats = owner.status().await.unwrap().nodes.into_iter().filter_map(|n| n.heartbeat);
    heartbeats.flat_map(|h| h.devices).map(|d| d.shards).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_is_coded_anew_without_a_key_and_survives_what_its_policy_says() {
    let (mut cluster, owner) = Cluster::start_with(6, policy("4+2").unwrap()).await;
    for (i, text) in ALL.into_iter().enumerate() {
        put(&owner, &format!("/{text}"), text, noise(i as u64, CHUNK + 999)).await;
    }
    put(&owner, "/big", "2+2", noise(77, 5 * CHUNK + 5)).await;
    owner.put_bytes("/note", b"short".to_vec()).await.unwrap();
    set(&owner, "4+2").await.unwrap();
    recoded(&cluster, &owner).await;
    for text in ALL.iter().chain(&["big"]) {
        assert_eq!(policy_of(&owner, &format!("/{text}")).await, policy("4+2").unwrap());
    }
    cluster.stop_node(1).await;
    cluster.stop_node(4).await;
    for (i, text) in ALL.into_iter().enumerate() {
        assert!(owner.read(&format!("/{text}")).await.unwrap() == noise(i as u64, CHUNK + 999), "{text}");
    }
    assert!(owner.read("/big").await.unwrap() == noise(77, 5 * CHUNK + 5));
    let events = owner.events(0).await.unwrap();
    assert_eq!(events.iter().filter(|e| e.what == "space-recoded").count(), 1);
}

/// Rule 10: re-coding may be interrupted anywhere. The old generation counts until the new one is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_re_coding_goes_on_after_a_restart_and_waits_for_nodes_that_are_away() {
    let (mut cluster, owner) = Cluster::start(4).await;
    for i in 0..20 {
        put(&owner, &format!("/{i}"), "2+2", noise(i, CHUNK + i as usize)).await;
    }
    set(&owner, "1+2").await.unwrap();
    let mut left = 20;
    for _ in 0..600 {
        left = owner.space_policy("admin").await.unwrap().coding.left;
        if left < 18 {
            break;
        }
        cluster.env.sleep(Duration::from_millis(50)).await;
    }
    assert!(left < 18, "it has begun");
    cluster.restart_coordinator().await;
    for i in 0..20 {
        assert!(owner.read(&format!("/{i}")).await.unwrap() == noise(i, CHUNK + i as usize), "{i}");
    }
    recoded(&cluster, &owner).await;
    // Back again, with a node away: nothing is lost, and it is done when the node is back.
    let told = async || owner.events(0).await.unwrap().iter().filter(|e| e.what == "recode-waits").count();
    let before = told().await;
    cluster.stop_node(2).await;
    set(&owner, "2+2").await.unwrap();
    let waits = async {
        while told().await == before {
            cluster.env.sleep(Duration::from_millis(200)).await;
        }
    };
    cluster.env.timeout(Duration::from_secs(60), waits).await.expect("it says that it waits");
    assert_eq!(owner.space_policy("admin").await.unwrap().coding.left, 20);
    for i in 0..20 {
        assert!(owner.read(&format!("/{i}")).await.unwrap() == noise(i, CHUNK + i as usize), "{i}");
    }
    cluster.start_node(2, None).await.unwrap();
    recoded(&cluster, &owner).await;
    for i in 0..20 {
        assert!(owner.read(&format!("/{i}")).await.unwrap() == noise(i, CHUNK + i as usize), "{i}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_shards_go_after_a_grace_and_old_readers_find_the_new_ones() {
    let (env, slept) = sleeper();
    let (cluster, owner) = Cluster::start_in(env, 4, Policy::DEFAULT).await;
    let bytes = noise(1, 2 * CHUNK + 7);
    put(&owner, "/a", "2+2", bytes.clone()).await;
    let reader = owner.open_file(&owner.stat(&at("/a")).await.unwrap()).await.unwrap();
    set(&owner, "1+1").await.unwrap();
    recoded(&cluster, &owner).await;
    let nodes = || cluster.nodes.iter().flatten();
    for node in nodes() {
        assert_eq!(node.drop_outdated_now().await.unwrap(), 0, "not within the grace");
    }
    assert!(reader.read(0..bytes.len() as u64).await.unwrap() == bytes, "by the old shards");
    slept.store(2 * 3_600_000, Ordering::Relaxed);
    let mut dropped = 0;
    for _ in 0..300 {
        for node in nodes() {
            dropped += node.drop_outdated_now().await.unwrap();
        }
        if dropped == 12 {
            break;
        }
        cluster.env.sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(dropped, 12, "three chunks of four shards");
    assert!(reader.read(0..bytes.len() as u64).await.unwrap() == bytes, "by the new ones");
    assert!(reader.read(100..5000).await.unwrap() == bytes[100..5000]);
    for _ in 0..50 {
        if shards(&owner).await == 6 {
            let verified = owner.verify(&at("/a"), false, true, Arc::new(())).await.unwrap();
            assert_eq!((verified.chunks, verified.ok), (3, 3));
            let events = owner.events(0).await.unwrap();
            assert!(events.iter().all(|e| !e.what.starts_with("shard")), "nothing was reported as missing: {events:?}");
            return;
        }
        cluster.env.sleep(Duration::from_millis(100)).await;
    }
    panic!("{} shards are left", shards(&owner).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_placed_safely_is_refused_with_the_reason() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.put_bytes("/a", noise(1, 10_000)).await.unwrap();
    let refused = set(&owner, "4+2").await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.message.starts_with("4+2 cannot be placed safely"), "{}", refused.message);
    assert_eq!(owner.space_policy("nobody").await.unwrap_err().kind, Kind::NotFound);
    let by_id = owner.space_policy(&owner.space_policy("admin").await.unwrap().space.to_string()).await.unwrap();
    assert_eq!((by_id.owner.as_str(), by_id.coding.policy, by_id.default), ("admin", None, Policy::DEFAULT));
}
