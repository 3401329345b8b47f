//! Changes of the layout as users live through them: while shards move, files are written and read, and
//! at the end every shard is where it belongs and nowhere else.

use crate::support::evil::Evil;
use crate::support::*;
use client::{Client, ClientOptions, Put, PutOptions, Source};
use model::cluster::NodeState;
use model::command::Answer;
use model::{Kind, NodeId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::coordinator::ChangeRequest;

const CHUNK: usize = model::chunk::CHUNK_SIZE;
/// Longest wait for a change to end.
const PATIENCE: Duration = Duration::from_secs(90);

fn add(node: NodeId) -> ChangeRequest {
    ChangeRequest { add: vec![node], ..ChangeRequest::default() }
}

fn drain(node: NodeId) -> ChangeRequest {
    ChangeRequest { drain: vec![node], ..ChangeRequest::default() }
}

/// Waits until no change is under way, and all nodes that run are up and have nothing left to fetch or to hand over.
async fn settled(cluster: &Cluster, owner: &Client) {
    let all = async {
        loop {
            let status = owner.status().await.unwrap();
            let is_idle = |id: NodeId| {
                let report = status.nodes.iter().find(|n| n.node == id);
                let up = report.filter(|n| matches!(n.state, NodeState::Up | NodeState::Draining | NodeState::Joining));
                up.and_then(|n| n.heartbeat.as_ref())
                    .is_some_and(|h| h.repair.shards + h.repair.surplus == 0 && h.repair.whole_to >= status.totals.feed)
            };
            if status.cluster.changes.is_empty() && cluster.nodes.iter().flatten().all(|n| is_idle(n.node)) {
                return;
            }
            cluster.env.sleep(Duration::from_millis(200)).await;
        }
    };
    if cluster.env.timeout(PATIENCE, all).await.is_none() {
        let status = owner.status().await.unwrap();
        let nodes: Vec<_> = status.nodes.iter().map(|n| (n.node, n.state, n.heartbeat.as_ref().map(|h| (&h.repair, &h.layouts)))).collect();
        panic!("not settled: changes {:?}, feed {}, nodes {nodes:#?}", status.cluster.changes, status.totals.feed);
    }
}

/// Everything reads back, and every shard is at its place.
async fn whole(owner: &Client, files: &[(String, Vec<u8>)]) {
    for (path, bytes) in files {
        assert!(owner.read(path).await.unwrap() == *bytes, "{path}");
    }
    let report = owner.verify(&at("/"), true, true, Arc::new(())).await.unwrap();
    assert_eq!((report.degraded, report.lost, report.corrupt), (0, 0, 0), "{:?}", report.problems);
}

async fn some_files(owner: &Client, name: &str, count: u64) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for i in 0..count {
        let (path, bytes) = (format!("/{name}{i}"), noise(i + 1, 100_000 + (i as usize % 4) * CHUNK));
        owner.put_bytes(&path, bytes.clone()).await.unwrap();
        files.push((path, bytes));
    }
    files
}

/// Writes and reads until told to stop; what was written.
async fn use_it(owner: Client, stop: Arc<AtomicBool>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for i in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (path, bytes) = (format!("/during{i}"), noise(1000 + i, 200_000 + (i as usize % 2) * CHUNK));
        owner.put_bytes(&path, bytes.clone()).await.unwrap();
        files.push((path, bytes));
        let (path, bytes) = &files[files.len() / 2];
        assert!(owner.read(path).await.unwrap() == *bytes, "{path}");
    }
    files
}

async fn join(cluster: &mut Cluster, owner: &Client) -> (usize, NodeId) {
    let (token, _) = owner.create_token(model::cluster::ServerRole::Node, Duration::from_secs(600), None).await.unwrap();
    let i = cluster.add_place();
    (i, cluster.start_node(i, Some(token)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_node_comes_in_while_files_are_written_and_read() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let mut files = some_files(&owner, "f", 12).await;
    let (_, fifth) = join(&mut cluster, &owner).await;
    let stop = Arc::new(AtomicBool::new(false));
    let during = tokio::join!(use_it(owner.clone(), stop.clone()), async {
        let plan = owner.apply_layout(add(fifth)).await.unwrap();
        assert_eq!(plan.widths[0].moved, plan.widths[0].minimum);
        assert_eq!(owner.apply_layout(add(fifth)).await.unwrap_err().kind, Kind::Conflict);
        while !owner.status().await.unwrap().cluster.changes.is_empty() {
            cluster.env.sleep(Duration::from_millis(200)).await;
        }
        stop.store(true, Ordering::Relaxed);
    });
    files.extend(during.0);
    settled(&cluster, &owner).await;
    whole(&owner, &files).await;
    let status = owner.status().await.unwrap();
    let shards = |node| -> u64 {
        let report = status.nodes.iter().find(|n| n.node == node).unwrap();
        report.heartbeat.as_ref().unwrap().devices.iter().map(|d| d.shards).sum()
    };
    let all: u64 = status.nodes.iter().map(|n| shards(n.node)).sum();
    assert_eq!(all, status.totals.chunks * 4, "each shard lies in one place");
    assert!(shards(fifth) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_and_two_others_may_die_afterwards() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let (_, fifth) = join(&mut cluster, &owner).await;
    owner.apply_layout(add(fifth)).await.unwrap();
    settled(&cluster, &owner).await;
    let files = some_files(&owner, "f", 12).await;
    owner.apply_layout(drain(NodeId(2))).await.unwrap();
    settled(&cluster, &owner).await;
    whole(&owner, &files).await;
    let status = owner.status().await.unwrap();
    let drained = status.nodes.iter().find(|n| n.node == NodeId(2)).unwrap();
    assert_eq!(drained.heartbeat.as_ref().unwrap().devices.iter().map(|d| d.shards).sum::<u64>(), 0);
    cluster.stop_node(1).await;
    cluster.stop_node(0).await;
    cluster.stop_node(2).await;
    for (path, bytes) in &files {
        assert!(owner.read(path).await.unwrap() == *bytes, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_stands_in_for_a_node_that_is_away_and_hands_over_when_it_is_back() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let (_, fifth) = join(&mut cluster, &owner).await;
    owner.apply_layout(add(fifth)).await.unwrap();
    settled(&cluster, &owner).await;
    cluster.stop_node(0).await;
    let mut files = Vec::new();
    for i in 0..8u64 {
        let (path, bytes) = (format!("/s{i}"), noise(i, 3_000_000));
        let put = vec![Put { source: Source::Bytes(bytes.clone()), remote: at(&path) }];
        let report = owner.put(put, PutOptions::default(), Arc::new(())).await.unwrap();
        assert!(report.failed.is_empty() && !report.degraded, "full redundancy with a stand-in: {report:?}");
        files.push((path, bytes));
    }
    // Two more may die: what stands in is found.
    cluster.stop_node(1).await;
    for (path, bytes) in &files {
        assert!(owner.read(path).await.unwrap() == *bytes, "{path}");
    }
    cluster.start_node(0, None).await.unwrap();
    cluster.start_node(1, None).await.unwrap();
    settled(&cluster, &owner).await;
    whole(&owner, &files).await;
    let status = owner.status().await.unwrap();
    // Brought by the stand-ins or fetched from them, whoever was first, and not decoded anew.
    let repairs = || status.nodes.iter().filter_map(|n| n.heartbeat.as_ref()).map(|h| &h.repair);
    assert!(repairs().map(|r| r.handed_over).sum::<u64>() > 0, "{:?}", repairs().collect::<Vec<_>>());
    assert!(repairs().all(|r| r.healed == r.copied), "{:?}", repairs().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_can_be_stopped_and_resumed_and_survives_restarts() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let mut files = some_files(&owner, "f", 10).await;
    let (i, fifth) = join(&mut cluster, &owner).await;
    owner.apply_layout(add(fifth)).await.unwrap();
    owner.administer(wire::coordinator::Administration::StopLayout).await.unwrap();
    files.extend(some_files(&owner, "stopped", 4).await);
    for (path, bytes) in &files {
        assert!(owner.read(path).await.unwrap() == *bytes, "{path}");
    }
    assert!(owner.status().await.unwrap().cluster.changes[0].stopped);
    cluster.restart_coordinator().await;
    cluster.stop_node(i).await;
    cluster.start_node(i, None).await.unwrap();
    assert!(owner.status().await.unwrap().cluster.changes[0].stopped);
    owner.administer(wire::coordinator::Administration::ResumeLayout).await.unwrap();
    settled(&cluster, &owner).await;
    whole(&owner, &files).await;
}

/// Files of the profile in which layouts are kept.
fn kept_layouts(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let (mut kept, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with("layout-")) {
                true => kept.push(entry),
                false if entry.is_dir() => folders.push(entry),
                false => {}
            }
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_a_layout_is_kept_by_epoch_and_a_stale_or_damaged_one_is_asked_for_anew() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let files = some_files(&owner, "f", 3).await;
    let home = cluster.dir.path().join("home");
    let kept = kept_layouts(&home);
    assert_eq!(kept.len(), 1, "one of the width in use: {kept:?}");
    let first = std::fs::read(&kept[0]).unwrap();
    let again = || client::Client::open(cluster.profile("admin"), client::ClientOptions::default());

    // Another process takes it from there: it is not written again.
    std::fs::File::open(&kept[0]).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    whole(&again().await.unwrap(), &files).await;
    assert_eq!(std::fs::metadata(&kept[0]).unwrap().modified().unwrap(), std::time::UNIX_EPOCH);

    // A damaged one costs a question.
    std::fs::write(&kept[0], &first[..first.len() / 2]).unwrap();
    whole(&again().await.unwrap(), &files).await;
    assert_eq!(std::fs::read(&kept[0]).unwrap(), first);

    // One of an earlier epoch likewise.
    let (_, fifth) = join(&mut cluster, &owner).await;
    owner.apply_layout(add(fifth)).await.unwrap();
    settled(&cluster, &owner).await;
    let again = client::Client::open(cluster.profile("admin"), client::ClientOptions::default()).await.unwrap();
    whole(&again, &files).await;
    assert_ne!(std::fs::read(&kept[0]).unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_a_new_layout_comes_as_a_difference_and_whole_where_that_does_not_fit() {
    let (mut cluster, admin) = Cluster::start(4).await;
    let files = some_files(&admin, "f", 2).await;
    let between = Evil::start(&cluster, &admin).await;
    let name = admin.whoami().await.unwrap().account;
    let login =
        |machine: &str| Client::login(cluster.profile(machine), Some(&name), between.at(&admin), PASSWORD, ClientOptions::default());
    let (one, two) = (login("one").await.unwrap(), login("two").await.unwrap());
    for reader in [&one, &two] {
        assert!(reader.read(&files[0].0).await.unwrap() == files[0].1);
    }
    let (_, fifth) = join(&mut cluster, &admin).await;
    admin.apply_layout(add(fifth)).await.unwrap();
    admin.administer(wire::coordinator::Administration::StopLayout).await.unwrap();
    // Until all nodes know it, and take nothing by the old one.
    let knows = |n: &wire::coordinator::NodeReport| {
        n.heartbeat.as_ref().is_some_and(|h| h.layouts.iter().any(|l| l.width == 4 && l.epoch == model::Epoch(2)))
    };
    while !admin.status().await.unwrap().nodes.iter().all(knows) {
        cluster.env.sleep(Duration::from_millis(100)).await;
    }

    // How layouts were answered: whole ones and differences, each spoilt where told.
    let told = Arc::new(Mutex::new((0, 0)));
    let spoilt = Arc::new(AtomicBool::new(false));
    let (count, spoil) = (told.clone(), spoilt.clone());
    between.lie_about(move |_, answer| match answer {
        Answer::Layout(_) => count.lock().unwrap().0 += 1,
        Answer::LayoutPatch(patch) => {
            count.lock().unwrap().1 += 1;
            if spoil.load(Ordering::Relaxed) {
                patch.hash.0[0] ^= 1;
            }
        }
        _ => {}
    });
    // The nodes refuse what is placed by the old epoch: both ask for the new one, and for the old one beside it.
    one.put_bytes("/of-one", noise(7, 300_000)).await.unwrap();
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), (0, 2));
    spoilt.store(true, Ordering::Relaxed);
    two.put_bytes("/of-two", noise(8, 300_000)).await.unwrap();
    assert_eq!(std::mem::take(&mut *told.lock().unwrap()), (2, 2));
    between.honest();
    admin.administer(wire::coordinator::Administration::ResumeLayout).await.unwrap();
    settled(&cluster, &admin).await;
    let files = [&files[..], &[("/of-one".into(), noise(7, 300_000)), ("/of-two".into(), noise(8, 300_000))]].concat();
    for reader in [&one, &two] {
        whole(reader, &files).await;
    }
}
