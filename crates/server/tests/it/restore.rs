//! The catalog is data too: a backup of a live cluster, and a fresh coordinator from it.

use crate::support::*;
use model::command::{Answer, Query};
use model::{ChunkRef, CoordinatorId, Kind, NodeId};
use server::coordinator::{Coordinator, CoordinatorConfig, Page, Restored, restore, restore_from_nodes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use wire::admin::{CloseBackup, OpenBackup, ReadBackup, ReadBackupRequest};
use wire::coordinator::{Administer, Administration, ApplyLayout, ChangeRequest, NodeReport, ReadCapabilities, UploadResponse};

/// Stores and commits one file of one chunk.
async fn store(user: &User, byte: u8) -> (UploadResponse, Stored) {
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let stored = user.store_chunk(&upload, chunk, vec![byte; 90_000], &[]).await;
    user.commit(&upload, chunk.object, 1, 90_000, vec![]).await.unwrap();
    (upload, stored)
}

async fn shards_left(user: &User, (upload, stored): &(UploadResponse, Stored)) -> usize {
    // Capabilities of before the restore have run out in some of these stories.
    let capabilities = user.rpc::<ReadCapabilities, _>(user.holder()).await.unwrap();
    let upload = UploadResponse { capabilities, ..upload.clone() };
    let mut left = 0;
    for index in 0..4 {
        match stored.read(user, &upload, index).await {
            Ok(_) => left += 1,
            Err(e) => assert_eq!(e.kind, Kind::NotFound, "{e}"),
        }
    }
    left
}

/// All pages of a backup, as a client reads them.
async fn backup(user: &User, between: impl AsyncFnOnce()) -> Vec<Page> {
    let opened = user.rpc::<OpenBackup, _>(()).await.unwrap();
    between().await;
    let (mut pages, mut after) = (Vec::new(), Vec::new());
    loop {
        let page = user.rpc::<ReadBackup, _>(ReadBackupRequest { id: opened.id, after: after.clone().into() }).await.unwrap();
        after = page.rows.last().map(|(key, _)| key.to_vec()).unwrap_or_default();
        pages.push(page.rows.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect());
        if !page.more {
            break;
        }
    }
    user.rpc::<CloseBackup, _>(opened.id).await.unwrap();
    let gone = user.rpc::<ReadBackup, _>(ReadBackupRequest { id: opened.id, after: Vec::new().into() }).await;
    assert_eq!(gone.unwrap_err().kind, Kind::NotFound);
    pages
}

async fn restored(cluster: &Cluster, dir: &Path, pages: Vec<Page>) -> model::Result<Restored> {
    let mut pages = pages.into_iter();
    restore(cluster.env.clone(), dir, move || Ok(pages.next())).await
}

/// The old coordinator is gone; the restored one serves at its address.
async fn replace_coordinator(cluster: &mut Cluster, dir: PathBuf) {
    if let Some(old) = cluster.coordinator.take() {
        old.shutdown().await;
    }
    let config = CoordinatorConfig::new(dir, cluster.address.clone());
    cluster.coordinator = Some(Coordinator::start(cluster.env.clone(), config).await.unwrap());
}

/// Rule 8: what was stored after the backup is kept and counted until an operator says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn rule_08_after_a_restore_nothing_is_dropped_before_the_thaw() {
    let (env, clock) = shifted();
    let (mut cluster, user) = Cluster::whole_in(env).await;
    let before = store(&user, 1).await;
    let mut during = None;
    // What is committed while it is being read is not in it: it is of one moment.
    let pages = backup(&user, async || during = Some(store(&user, 2).await)).await;
    let during = during.unwrap();
    let dir = cluster.dir.path().join("restored");
    let told = restored(&cluster, &dir, pages.clone()).await.unwrap();
    assert_eq!(
        (told.cluster, told.fingerprint, told.coordinator, told.entries),
        (cluster.cluster, cluster.fingerprint, CoordinatorId(2), 1)
    );
    assert_eq!(restored(&cluster, &dir, pages).await.unwrap_err().kind, Kind::Exists, "never over something");

    // Found out and repaired the day after.
    cluster.stop_coordinator().await;
    clock.store(30 * 3_600_000, Ordering::Relaxed);
    replace_coordinator(&mut cluster, dir.clone()).await;
    let life = user.status().await.cluster.life;
    assert!(life.frozen);
    let coordinators: Vec<_> = user.status().await.cluster.coordinators.iter().map(|c| c.id).collect();
    assert_eq!(coordinators, [CoordinatorId(2)]);
    let frozen = || async { user.status().await.nodes.iter().all(|n| n.heartbeat.as_ref().is_some_and(|h| h.frozen.is_some())) };
    eventually(&cluster.env, "every node says that it is frozen", frozen).await;
    let counted =
        || async { user.status().await.nodes.iter().map(|n| n.heartbeat.as_ref().map_or(0, |h| h.scrub.unknown)).sum::<u64>() == 4 };
    eventually(&cluster.env, "the shards of the later file are counted", counted).await;

    // The catalog would have forgotten them long ago; they stay, also over restarts.
    cluster.stop_node(1).await;
    cluster.start_node(1, None).await.unwrap();
    for node in cluster.nodes.iter().flatten() {
        assert_eq!(node.collect_now().await.unwrap(), 0);
    }
    assert_eq!((shards_left(&user, &before).await, shards_left(&user, &during).await), (4, 4));

    user.rpc::<Administer, _>(Administration::Thaw).await.unwrap();
    let free = || async { user.status().await.nodes.iter().all(|n| n.heartbeat.as_ref().is_some_and(|h| h.frozen.is_none())) };
    eventually(&cluster.env, "every node goes on", free).await;
    eventually(&cluster.env, "what no folder names is dropped", || async { shards_left(&user, &during).await == 0 }).await;
    assert_eq!(shards_left(&user, &before).await, 4);
    assert!(!user.status().await.cluster.life.frozen);
    // The new life goes on: it stores, and starts again.
    let after = store(&user, 3).await;
    replace_coordinator(&mut cluster, dir).await;
    assert_eq!(shards_left(&user, &after).await, 4);
}

/// Found by thought: three of four nodes were exchanged after the backup, so that all but one of each file's shards
/// were on nodes that the restored catalog does not know, and which nothing but emptying them let in again.
#[tokio::test(flavor = "multi_thread")]
async fn rule_08_nodes_that_a_restored_catalog_does_not_know_join_anew_with_their_shards() {
    let (mut cluster, user) = Cluster::whole().await;
    let env = cluster.env.clone();
    let (upload, stored) = store(&user, 1).await;
    let pages = backup(&user, async || ()).await;
    let mut later = Vec::new();
    for i in 4..7 {
        let token = user.token(None).await;
        later.push(cluster.start_node(i, Some(token)).await.unwrap());
    }
    let former = vec![NodeId(1), NodeId(2), NodeId(3)];
    let change = ChangeRequest { add: later.clone(), drain: former.clone(), ..ChangeRequest::default() };
    user.rpc::<ApplyLayout, _>(change).await.unwrap();
    let idle = || async { user.status().await.cluster.changes.is_empty() };
    eventually(&env, "the nodes are exchanged", idle).await;
    for (i, node) in former.iter().enumerate() {
        cluster.stop_node(i).await;
        user.rpc::<Administer, _>(Administration::RemoveNode(*node)).await.unwrap();
        std::fs::remove_dir_all(cluster.node_dir(i)).unwrap();
    }

    let dir = cluster.dir.path().join("restored");
    restored(&cluster, &dir, pages).await.unwrap();
    replace_coordinator(&mut cluster, dir).await;
    let mut anew = Vec::new();
    for (i, before) in (4..7).zip(&later) {
        cluster.stop_node(i).await;
        let refused = cluster.start_node(i, None).await.unwrap_err();
        assert!(refused.kind == Kind::Denied && refused.hint.is_some_and(|hint| hint.contains("--join")));
        let token = user.token(None).await;
        let node = cluster.start_node(i, Some(token.clone())).await.unwrap();
        assert!(node != *before);
        // The token is used; given again it changes nothing.
        cluster.stop_node(i).await;
        assert_eq!(cluster.start_node(i, Some(token)).await.unwrap(), node);
        anew.push(node);
    }
    let Answer::Events(events) = user.ask(Query::Events { after: 0, limit: 1000 }).await.unwrap() else { panic!("not events") };
    let unknown: BTreeSet<_> = events.iter().filter(|e| e.what == "node-unknown").map(|e| e.detail.split(',').next().unwrap()).collect();
    assert!(later.iter().map(|node| format!("node-{node}")).eq(unknown));
    user.rpc::<ApplyLayout, _>(ChangeRequest { add: anew.clone(), ..ChangeRequest::default() }).await.unwrap();
    for node in former {
        user.rpc::<Administer, _>(Administration::RemoveNode(node)).await.unwrap();
    }
    let back = || async {
        let now = user.layout(4).await;
        if now.slot_indexes().iter().filter_map(|s| now.devices.get(usize::from(*s))).any(|d| d.node.0 < 4) {
            return false;
        }
        shards_left(&user, &(upload.clone(), Stored { layout: now, coded: stored.coded.clone() })).await == 4
    };
    eventually(&env, "all shards are at their places", back).await;
    // They were moved, not made anew: of one that was left alone nothing could be.
    user.rpc::<Administer, _>(Administration::Thaw).await.unwrap();
    let held = || async {
        let status = user.status().await;
        let shards = |node: &NodeReport| node.heartbeat.as_ref().map_or(0, |h| h.devices[0].shards);
        status.cluster.nodes.len() == 4 && status.nodes.iter().map(shards).sum::<u64>() == 4
    };
    eventually(&env, "nothing is kept twice", held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_read_the_catalog_and_only_two_at_a_time() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let reader = cluster.register(&admin.invite("reader").await).await.unwrap();
    assert_eq!(reader.rpc::<OpenBackup, _>(()).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(reader.ask(Query::Genesis).await.unwrap_err().kind, Kind::Denied);
    admin.rpc::<OpenBackup, _>(()).await.unwrap();
    let second = admin.rpc::<OpenBackup, _>(()).await.unwrap();
    assert_eq!(admin.rpc::<OpenBackup, _>(()).await.unwrap_err().kind, Kind::Unavailable);
    admin.rpc::<CloseBackup, _>(second.id).await.unwrap();
    admin.rpc::<OpenBackup, _>(()).await.unwrap();
}

/// Rule 7: half of a coordinator never votes. A restore that was interrupted leaves a folder that does
/// not start.
#[tokio::test(flavor = "multi_thread")]
async fn rule_07_half_a_restore_does_not_start() {
    let cluster = Cluster::start().await;
    let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
    let pages = backup(&admin, async || ()).await;
    let dir = cluster.dir.path().join("half");
    // The last step was missing.
    restored(&cluster, &dir, pages.clone()).await.unwrap();
    std::fs::rename(dir.join("catalog.redb"), dir.join("catalog.restoring")).unwrap();
    let refused = Coordinator::start(cluster.env.clone(), CoordinatorConfig::new(&dir, "127.0.0.1:0")).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().kind, Kind::Corrupt);
    // Rows out of order, or no catalog at all.
    let mut backwards = pages.clone();
    backwards.iter_mut().for_each(|page| page.reverse());
    let at = |name: &str| cluster.dir.path().join(name);
    assert_eq!(restored(&cluster, &at("a"), backwards).await.unwrap_err().kind, Kind::Corrupt);
    assert!(restored(&cluster, &at("b"), Vec::new()).await.is_err());
    assert!(restored(&cluster, &at("c"), vec![vec![(b"x".to_vec(), b"y".to_vec())]]).await.is_err());
    for name in ["a", "b", "c"] {
        assert!(Coordinator::start(cluster.env.clone(), CoordinatorConfig::new(at(name), "127.0.0.1:0")).await.is_err(), "{name}");
    }
}

/// Rule 8: a lone coordinator stores encrypted snapshots of itself on the nodes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn rule_08_a_lone_coordinator_comes_back_from_what_it_left_on_nodes() {
    let (mut cluster, user) = Cluster::whole().await;
    let stored = store(&user, 1).await;
    // The same coordinator, in more of a hurry.
    let old = cluster.dir.path().join("c");
    cluster.stop_coordinator().await;
    let config = CoordinatorConfig::new(&old, cluster.address.clone());
    let config = CoordinatorConfig { first_snapshot: std::time::Duration::from_secs(1), ..config };
    cluster.coordinator = Some(Coordinator::start(cluster.env.clone(), config).await.unwrap());
    eventually(&cluster.env, "a snapshot is noted", || async { user.status().await.cluster.life.snapshot_ms > 0 }).await;
    let key = cluster.dir.path().join("key");
    std::fs::copy(old.join("recovery-key"), &key).unwrap();
    cluster.stop_coordinator().await;
    std::fs::remove_dir_all(&old).unwrap();

    let addresses: Vec<String> = cluster.nodes.iter().flatten().map(|n| n.address.clone()).collect();
    let has_one = |i: &usize| {
        let files = std::fs::read_dir(cluster.node_dir(*i).join("catalog-snapshots"));
        files.is_ok_and(|mut files| files.any(|file| file.unwrap().path().extension().is_some_and(|e| e == "snap")))
    };
    let (with, without): (Vec<usize>, Vec<usize>) = (0..4).partition(has_one);
    assert_eq!((with.len(), without.len()), (3, 1));
    // Without the key nobody gets it, and a node that has none says so.
    let other = cluster.dir.path().join("other");
    let text = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&other, format!("SKR1-{}{}", "11".repeat(32), &text.trim()[69..])).unwrap();
    let dir = cluster.dir.path().join("again");
    let refused = restore_from_nodes(cluster.env.clone(), &addresses, &other, &dir).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotFound);
    let empty = std::slice::from_ref(&addresses[without[0]]);
    assert_eq!(restore_from_nodes(cluster.env.clone(), empty, &key, &dir).await.unwrap_err().kind, Kind::NotFound);

    let told = restore_from_nodes(cluster.env.clone(), &addresses, &key, &dir).await.unwrap();
    assert_eq!((told.cluster, told.coordinator, told.entries), (cluster.cluster, CoordinatorId(2), 1));
    replace_coordinator(&mut cluster, dir).await;
    assert_eq!(shards_left(&user, &stored).await, 4);
    assert!(user.status().await.cluster.life.frozen);
}
