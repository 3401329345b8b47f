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
async fn what_is_found_while_no_coordinator_answers_is_told_afterwards() {
    let (mut cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 1, &[]).await;
    cluster.stop_coordinator().await;
    flip_everywhere(&cluster.node_dir(0).join("shards"));
    let node = cluster.nodes[0].as_ref().unwrap().node;
    assert!(cluster.nodes[0].as_ref().unwrap().scrub_now().await > 0);
    cluster.start_coordinator().await;
    let named = || async {
        let Ok(Answer::Events(events)) = user.ask(Query::Events { after: 0, limit: 1000 }).await else { return false };
        events.iter().any(|e| e.what == "shard-corrupt" && e.node == Some(node))
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

/// All files of a folder.
fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

/// What was set aside is missing, and is said to be; a restart does not forget it, even where nothing on the disk
/// tells of it any more (as where the disk reads well again, or the segment was sealed before it rotted).
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_counts_as_missing_and_is_rebuilt_after_a_restart() {
    let (mut cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 3, &[]).await;
    cluster.stop_node(2).await;
    cluster.stop_node(3).await;
    let log = cluster.node_dir(0).join("shards").join("log");
    let before = files(&log);
    flip_everywhere(&cluster.node_dir(0).join("shards"));
    let node = cluster.nodes[0].as_ref().unwrap();
    let (id, bad) = (node.node, node.scrub_now().await);
    assert!(bad > 0);
    let repair = || async {
        let status = user.status().await;
        status.nodes.into_iter().find(|n| n.node == id).and_then(|n| n.heartbeat).map(|h| (h.repair.shards, h.repair.missing))
    };
    let missing = Some((bad, Some(vec![(model::Policy::DEFAULT, bad)])));
    let said = || async { repair().await == missing };
    eventually(&cluster.env, "what is set aside counts as missing", said).await;
    cluster.stop_node(0).await;
    for (path, old) in before {
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        bytes.iter_mut().zip(&old).filter(|(_, old)| **old != 0).for_each(|(byte, old)| *byte = *old);
        std::fs::write(&path, bytes).unwrap();
    }
    for i in [0, 2, 3] {
        cluster.start_node(i, None).await.unwrap();
    }
    eventually(&cluster.env, "all shards are there again", || is_whole(&user, &upload, &stored)).await;
    let none = || async { repair().await == Some((0, Some(vec![]))) };
    eventually(&cluster.env, "nothing is missing any more", none).await;
    let mark = cluster.node_dir(0).join("walk-again");
    eventually(&cluster.env, "the mark is gone", || async { !mark.exists() }).await;
}

/// A shard of which too few others are left is lost, and stays so while its node tries again.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_rotted_beyond_repair_are_counted_as_lost() {
    let (mut cluster, user) = Cluster::whole().await;
    store(&user, 1, &[]).await;
    for i in 0..3 {
        flip_everywhere(&cluster.node_dir(i).join("shards"));
    }
    // Others may have found it before: a repair that read it, or a scrub of the node's own.
    for node in cluster.nodes[..3].iter().flatten() {
        node.scrub_now().await;
    }
    let lost = || async {
        let status = user.status().await;
        status.nodes.iter().filter_map(|n| n.heartbeat.as_ref()).filter(|h| h.repair.lost == 1).count() == 3
    };
    eventually(&cluster.env, "three nodes say that it is lost", lost).await;
    for _ in 0..20 {
        assert!(lost().await, "and go on saying so");
        cluster.env.sleep(std::time::Duration::from_millis(300)).await;
    }
    // What cannot be had holds no change of the layout up.
    let token = user.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    let request = wire::coordinator::ChangeRequest { add: vec![fifth], ..Default::default() };
    user.rpc::<wire::coordinator::ApplyLayout, _>(request).await.unwrap();
    let ended = || async { user.status().await.cluster.changes.is_empty() };
    eventually(&cluster.env, "the change ends", ended).await;
    let still = || async { user.status().await.nodes.iter().filter_map(|n| n.heartbeat.as_ref()).any(|h| h.repair.lost > 0) };
    assert!(still().await);
}

/// The log is gone, the device's name is not: everything is to be fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_log_is_gone_as_a_whole_is_rebuilt() {
    let (mut cluster, user) = Cluster::whole().await;
    let (upload, stored) = store(&user, 3, &[]).await;
    let caught_up = || async { user.status().await.nodes.iter().filter_map(|n| n.heartbeat.as_ref()).all(|h| h.repair.whole_to > 0) };
    eventually(&cluster.env, "all have looked at the upload", caught_up).await;
    cluster.stop_node(1).await;
    std::fs::remove_dir_all(cluster.node_dir(1).join("shards").join("log")).unwrap();
    cluster.start_node(1, None).await.unwrap();
    eventually(&cluster.env, "all shards are there again", || is_whole(&user, &upload, &stored)).await;
}

/// One disk of a node is emptied, then one cannot be opened: the others go on, and what was lost is rebuilt.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_one_of_its_disks_goes_on_without_it_and_heals() {
    let (mut cluster, user) = Cluster::whole_with_out(std::time::Duration::from_secs(6)).await;
    let token = user.token(None).await;
    let disks: Vec<_> = ["a", "b", "c"].map(|name| cluster.node_dir(4).join(name)).to_vec();
    let id = cluster.start_node_on(4, disks.clone(), Some(token)).await.unwrap();
    let request = wire::coordinator::ChangeRequest { add: vec![id], ..Default::default() };
    user.rpc::<wire::coordinator::ApplyLayout, _>(request).await.unwrap();
    let (upload, mut stored) = store(&user, 24, &[]).await;
    let settled = || async { user.status().await.cluster.changes.is_empty() };
    eventually(&cluster.env, "the node is taken in", settled).await;
    for broken in [false, true] {
        let epoch = user.layout(4).await.epoch;
        cluster.stop_node(4).await;
        match broken {
            false => std::fs::remove_dir_all(disks[1].join("shards")).unwrap(),
            true => std::fs::write(disks[2].join("shards").join("device"), b"rot").unwrap(),
        }
        assert_eq!(cluster.start_node_on(4, disks.clone(), None).await.unwrap(), id);
        let planned_around = || async { user.layout(4).await.epoch != epoch && settled().await };
        eventually(&cluster.env, "the layout names the disks that are left", planned_around).await;
        let layout = user.layout(4).await;
        stored.iter_mut().for_each(|s| s.layout = layout.clone());
        eventually(&cluster.env, "all shards are there", || is_whole(&user, &upload, &stored)).await;
    }
    let devices = user.status().await.nodes.into_iter().find(|n| n.node == id).unwrap().heartbeat.unwrap().devices;
    assert_eq!(devices.len(), 2);
}

/// What was written while its holder was down helps to rebuild other shards from where it lies.
#[tokio::test(flavor = "multi_thread")]
async fn shards_on_stand_ins_count_where_others_are_rebuilt() {
    let (mut cluster, user) = Cluster::whole().await;
    let token = user.token(None).await;
    let fifth = cluster.start_node(4, Some(token)).await.unwrap();
    let request = wire::coordinator::ChangeRequest { add: vec![fifth], ..Default::default() };
    user.rpc::<wire::coordinator::ApplyLayout, _>(request).await.unwrap();
    eventually(&cluster.env, "five nodes hold shards", || async { user.status().await.cluster.changes.is_empty() }).await;
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let stored = user.store_chunk(&upload, chunk, vec![7; 200_000], &[2, 3]).await;
    let layout = &stored.layout;
    // They are down before anything lies on the stand-in, which otherwise could bring it to them.
    for slot in [1, 2] {
        let holder = layout.holder(&chunk, slot).unwrap().node;
        let i = cluster.nodes.iter().position(|n| n.as_ref().is_some_and(|n| n.node == holder)).unwrap();
        cluster.stop_node(i).await;
    }
    let stand_in = layout.stand_ins(chunk.partition(layout.power))[0];
    let request = wire::node::PutShardRequest {
        capability: Some(capability(&upload.capabilities, stand_in.node)),
        shard: model::ShardRef { chunk, generation: 0, index: 2 },
        descriptor: stored.coded.descriptor.to_bytes().into(),
        epoch: layout.epoch,
        device: stand_in.device,
    };
    user.put_shard(&request, stand_in.node, stored.coded.shards[2].clone()).await.unwrap();
    user.commit(&upload, chunk.object, 1, 200_000, vec![0]).await.unwrap();
    let rebuilt = || async { stored.read(&user, &upload, 3).await.is_ok() };
    eventually(&cluster.env, "the fourth shard is made of the first and of the third, which lies on a stand-in", rebuilt).await;
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
