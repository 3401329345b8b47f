//! Nodes make themselves whole.

use crate::support::*;
use model::ChunkRef;
use model::command::{Answer, Query};
use wire::coordinator::{ReadCapabilities, UploadResponse};

/// Stores and commits one file of some chunks, leaving out slots.
async fn store(user: &User, chunks: u32, leave_out: &[u8]) -> (UploadResponse, Vec<Stored>) {
    let upload = user.upload(1).await;
    let mut stored = Vec::new();
    for number in 0..chunks {
        let chunk = ChunkRef { object: upload.objects[0], number };
        stored.push(user.store_chunk(&upload, chunk, vec![number as u8 + 1; 200_000], leave_out).await);
    }
    let partial = if leave_out.is_empty() { vec![] } else { (0..chunks).collect() };
    user.commit(&upload, upload.objects[0], chunks, u64::from(chunks) * 200_000, partial).await.unwrap();
    (upload, stored)
}

/// Every shard of every chunk can be read and is what it was.
async fn is_whole(user: &User, upload: &UploadResponse, stored: &[Stored]) -> bool {
    for chunk in stored {
        for index in 0..4 {
            match chunk.read(user, upload, index).await {
                Ok(body) => assert_eq!(body, chunk.coded.shards[index as usize]),
                Err(_) => return false,
            }
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_left_out_is_rebuilt() {
    let (cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 3, &[1, 2]).await;
    eventually(&cluster.env, "all shards are there", || is_whole(&user, &upload, &stored)).await;
    let healed: u64 = user.status().await.nodes.iter().filter_map(|n| n.heartbeat.as_ref()).map(|h| h.repair.healed).sum();
    assert!(healed <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_keeps_its_shards() {
    let (mut cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 3, &[]).await;
    let id = cluster.nodes[1].as_ref().unwrap().node;
    cluster.stop_node(1).await;
    assert_eq!(cluster.start_node(1, None).await.unwrap(), id);
    // Its address is another one now: the catalog learns it with the first heartbeat.
    assert!(is_whole(&user, &upload, &stored).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_catches_up() {
    let (mut cluster, user) = Cluster::whole().await;
    let layout = user.layout(4).await;
    let id = cluster.nodes[1].as_ref().unwrap().node;
    cluster.stop_node(1).await;
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let slot = (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node == id).unwrap();
    let stored = user.store_chunk(&upload, chunk, vec![8; 99_999], &[slot]).await;
    user.commit(&upload, chunk.object, 1, 99_999, vec![0]).await.unwrap();
    cluster.start_node(1, None).await.unwrap();
    eventually(&cluster.env, "the shard is there", || is_whole(&user, &upload, std::slice::from_ref(&stored))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_node_is_replaced_and_rebuilt() {
    let (mut cluster, user) = Cluster::whole().await;
    let (_, stored) = store(&user, 5, &[]).await;
    let old = cluster.nodes[2].as_ref().unwrap().node;
    cluster.stop_node(2).await;
    std::fs::remove_dir_all(cluster.node_dir(2).join("shards")).unwrap();
    let token = user.token(Some(old)).await;
    let new = cluster.start_node(2, Some(token)).await.unwrap();
    let layout = user.layout(4).await;
    assert!(layout.devices.iter().all(|d| d.node != old || new == old));
    // Capabilities name nodes: the new one needs its own.
    let capabilities = user.rpc::<ReadCapabilities, _>(user.holder()).await.unwrap();
    let upload = UploadResponse { capabilities, ..user.upload(1).await };
    let stored: Vec<Stored> = stored.into_iter().map(|s| Stored { layout: layout.clone(), ..s }).collect();
    eventually(&cluster.env, "all shards are there again", || is_whole(&user, &upload, &stored)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_found_named_and_healed() {
    let (cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 2, &[]).await;
    flip_everywhere(&cluster.node_dir(0).join("shards"));
    let node = cluster.nodes[0].as_ref().unwrap();
    assert!(node.scrub_now().await > 0);
    let named = || async {
        let Answer::Events(events) = user.ask(Query::Events { after: 0, limit: 1000 }).await.unwrap() else { return false };
        events.iter().any(|e| e.what == "shard-corrupt" && e.node == Some(node.node))
    };
    eventually(&cluster.env, "the bad shard is in the event log", named).await;
    eventually(&cluster.env, "all shards are there again", || is_whole(&user, &upload, &stored)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_never_committed_is_collected_after_a_day() {
    let (env, clock) = shifted();
    let (cluster, user) = Cluster::whole_in(env).await;
    let (upload, stored) = store(&user, 1, &[]).await;
    let other = user.upload(1).await;
    let chunk = ChunkRef { object: other.objects[0], number: 0 };
    user.store_chunk(&other, chunk, vec![3; 50_000], &[]).await;
    let node = cluster.nodes[0].as_ref().unwrap();
    assert_eq!(node.collect_now().await.unwrap(), 0);
    clock.store(26 * 3_600_000, std::sync::atomic::Ordering::Relaxed);
    eventually(&cluster.env, "the catalog's time has moved on and the node knows", || async { node.collect_now().await.unwrap() == 1 })
        .await;
    clock.store(0, std::sync::atomic::Ordering::Relaxed);
    assert!(is_whole(&user, &upload, &stored).await);
}

/// Flips a bit in the middle of each body: bodies are runs of one byte, found by their length.
fn flip_everywhere(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            flip_everywhere(&path);
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let mut flipped = false;
        let mut at = 0;
        while at + 4096 < bytes.len() {
            let run = bytes[at..at + 4096].iter().all(|b| *b == bytes[at]) && bytes[at] != 0;
            if run {
                bytes[at + 2000] ^= 1;
                flipped = true;
                at += 99_000;
            } else {
                at += 512;
            }
        }
        if flipped {
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
