//! What keeps a wrong catalog from erasing data; scrubs that were asked for; space that comes back.

use crate::support::*;
use model::command::{Answer, Query};
use model::{ChunkRef, Hash};
use std::sync::atomic::Ordering;
use wire::coordinator::{Administer, Administration, HeartbeatRequest, UploadResponse};

async fn heartbeat(user: &User, i: usize) -> Option<HeartbeatRequest> {
    user.status().await.nodes.into_iter().nth(i).and_then(|n| n.heartbeat)
}

async fn administer(user: &User, what: Administration) {
    user.rpc::<Administer, _>(what).await.unwrap();
}

/// Stores and commits one file of one chunk.
async fn store(user: &User, bytes: usize) -> (UploadResponse, Stored) {
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let stored = user.store_chunk(&upload, chunk, vec![7; bytes], &[]).await;
    user.commit(&upload, chunk.object, 1, bytes as u64, vec![]).await.unwrap();
    (upload, stored)
}

async fn is_whole(user: &User, upload: &UploadResponse, stored: &Stored) -> bool {
    for index in 0..4 {
        if stored.read(user, upload, index).await.is_err() {
            return false;
        }
    }
    true
}

async fn has_event(user: &User, what: &str) -> bool {
    let Answer::Events(events) = user.ask(Query::Events { after: 0, limit: 1000 }).await.unwrap() else { return false };
    events.iter().any(|e| e.what == what)
}

/// A catalog that was rolled back must not be able to erase data; after an operator's word it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_went_back_freezes_collection_until_the_thaw() {
    let (env, clock) = shifted();
    let (mut cluster, user) = Cluster::whole_in(env).await;
    let (upload, stored) = store(&user, 90_000).await;
    let orphan = user.upload(1).await;
    let chunk = ChunkRef { object: orphan.objects[0], number: 0 };
    user.store_chunk(&orphan, chunk, vec![3; 50_000], &[]).await;
    cluster.stop_node(0).await;
    // As if the node had followed a longer feed than there is.
    type Seen = (u8, Option<(minicbor::bytes::ByteArray<16>,)>, u64, Option<u8>, u64, bool);
    let file = cluster.node_dir(0).join("catalog-seen");
    let mut seen: Seen = model::cbor::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    seen.2 = 1000;
    std::fs::write(&file, model::cbor::to_vec(&seen)).unwrap();
    cluster.start_node(0, None).await.unwrap();
    eventually(&cluster.env, "the event is there", || has_event(&user, "catalog-went-back")).await;
    let says_why = || async { heartbeat(&user, 0).await.and_then(|h| h.frozen).is_some_and(|why| why.contains("1000")) };
    eventually(&cluster.env, "the node says why", says_why).await;

    // Frozen it drops nothing, and stays so over a restart.
    cluster.stop_node(0).await;
    cluster.start_node(0, None).await.unwrap();
    clock.store(26 * 3_600_000, Ordering::Relaxed);
    let other = cluster.nodes[1].as_ref().unwrap();
    eventually(&cluster.env, "a node that is not frozen drops", || async { other.collect_now().await.unwrap() == 1 }).await;
    let frozen = cluster.nodes[0].as_ref().unwrap();
    assert_eq!(frozen.collect_now().await.unwrap(), 0);
    let counted = || async { heartbeat(&user, 0).await.is_some_and(|h| h.scrub.unknown > 0) };
    eventually(&cluster.env, "it says how many shards the catalog does not know", counted).await;

    administer(&user, Administration::Thaw).await;
    let released = || async { heartbeat(&user, 0).await.is_some_and(|h| h.frozen.is_none() && h.scrub.unknown == 0) };
    eventually(&cluster.env, "it is released and drops", released).await;
    clock.store(0, Ordering::Relaxed);
    assert!(is_whole(&user, &upload, &stored).await);
}

/// After a thaw numbers of the feed mean other things: a node that stops at that moment must know it when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stopped_before_it_could_begin_the_feed_anew_does_so_later() {
    type Bytes16 = minicbor::bytes::ByteArray<16>;
    type Seen = (u8, Option<(Bytes16,)>, u64, Option<u8>, u64, bool);
    type Arrived = (u8, std::collections::BTreeMap<u8, u64>, Option<u8>, u64, u64, Bytes16);
    let (mut cluster, user) = Cluster::whole().await;
    store(&user, 90_000).await;
    let (seen_file, arrived_file) = (cluster.node_dir(0).join("catalog-seen"), cluster.node_dir(0).join("arrived"));
    eventually(&cluster.env, "the node has noted how far it is", || async { seen_file.exists() && arrived_file.exists() }).await;
    cluster.stop_node(0).await;
    let mut seen: Seen = model::cbor::from_slice(&std::fs::read(&seen_file).unwrap()).unwrap();
    seen.5 = true;
    std::fs::write(&seen_file, model::cbor::to_vec(&seen)).unwrap();
    let bytes = std::fs::read(&arrived_file).unwrap();
    let mut arrived: Arrived = model::cbor::from_slice(&bytes[..bytes.len() - 32]).unwrap();
    arrived.4 = 1000;
    let mut bytes = model::cbor::to_vec(&arrived);
    bytes.extend_from_slice(&Hash::of(&bytes).0);
    std::fs::write(&arrived_file, bytes).unwrap();

    cluster.start_node(0, None).await.unwrap();
    let feed = user.status().await.totals.feed;
    let follows = || async { heartbeat(&user, 0).await.is_some_and(|h| h.frozen.is_none() && h.repair.whole_to == feed) };
    eventually(&cluster.env, "it follows the feed that there is", follows).await;
    assert!(!has_event(&user, "catalog-went-back").await);
    let noted = || async { !model::cbor::from_slice::<Seen>(&std::fs::read(&seen_file).unwrap()).unwrap().5 };
    eventually(&cluster.env, "that is noted", noted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_is_asked_for_is_answered_by_every_node_once() {
    let (mut cluster, user) = Cluster::whole().await;
    for _ in 0..3 {
        store(&user, 40_000).await;
    }
    assert_eq!(user.status().await.cluster.life.scrub_ms, 0);
    administer(&user, Administration::Scrub).await;
    let asked = user.status().await.cluster.life.scrub_ms;
    let answered = || async {
        let nodes = user.status().await.nodes;
        nodes.iter().all(|n| n.heartbeat.as_ref().is_some_and(|h| h.scrub.answered_ms == asked && h.scrub.bad == 0))
    };
    eventually(&cluster.env, "all have answered", answered).await;
    // What was answered is known after a restart.
    cluster.stop_node(2).await;
    assert!(cluster.node_dir(2).join("scrub").exists());
    cluster.start_node(2, None).await.unwrap();
    eventually(&cluster.env, "it still says so", answered).await;
}
