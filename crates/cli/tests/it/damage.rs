//! Disks that lie, break off, or are full: what is damaged is read around, named in the event log and
//! healed; what is full is named, and the others go on.

use crate::support::files::noise;
use crate::support::{Cluster, text};
use serde_json::Value;
use std::path::Path;

/// Where records begin in a segment.
fn records(segment: &[u8]) -> Vec<usize> {
    memchr::memmem::find_iter(segment, b"SKR1").filter(|at| at % 8 == 0).collect()
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

/// Files of one chunk and of several; answers them with their bytes.
fn some_files(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let files = (0..5u64).map(|i| (format!("/file-{i}"), noise(i + 1, 300_000 + i as usize))).chain([("/big".into(), noise(9, 9 << 20))]);
    let files: Vec<_> = files.collect();
    for (path, bytes) in &files {
        cluster.owner.run_with_input(&["put", "-", path], bytes).ok();
    }
    files
}

/// Damages two stopped nodes in the same way, starts them, reads, and waits until all is well.
/// Answers the events about nodes.
fn damaged(harm: impl Fn(&mut Vec<u8>)) -> Vec<Value> {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    let mut names = Vec::new();
    for i in [0, 2] {
        names.push(cluster.stop_node(i).trim_start_matches("node-").to_string());
        change(&cluster.last_segment(i), &harm);
        cluster.start_node(i);
    }
    for (path, bytes) in &files {
        assert!(cluster.owner.read(path) == *bytes, "{path} differs");
    }
    let ran = cluster.owner.run(&["--json", "verify", "-r", "--deep", "/"]);
    assert!(matches!(ran.code, 0 | 6) && ran.json()["lost"] == 0, "{ran:?}");
    cluster.wait_until_whole("/", 25);
    for i in [1, 3] {
        cluster.kill_node(i);
    }
    for (path, bytes) in &files {
        assert!(cluster.owner.read(path) == *bytes, "{path} differs when the healed nodes stand alone");
    }
    let events = cluster.owner.events();
    let of = |name: &String| events.iter().filter(|e| e["node"] == *name && is_damage(e)).cloned().collect::<Vec<_>>();
    for name in &names {
        assert!(!of(name).is_empty(), "no event names node-{name}: {events:#?}");
    }
    names.iter().flat_map(of).collect()
}

/// Writes over a part of a shard's body under a node that runs.
fn rot(cluster: &Cluster, node: usize) {
    use std::os::unix::fs::FileExt;
    let segment = cluster.last_segment(node);
    let at = records(&std::fs::read(&segment).unwrap())[2] + 30_000;
    std::fs::File::options().write(true).open(&segment).unwrap().write_all_at(b"rotten", at as u64).unwrap();
}

fn is_damage(event: &Value) -> bool {
    ["shard-corrupt", "shards-missing", "device-damaged", "log-cut"].iter().any(|w| event["what"] == *w)
}

#[test]
fn flipped_bits_are_read_around_named_and_healed() {
    let events = damaged(|segment| {
        let records = records(segment);
        // In a body in the middle, in a head, and in the last record.
        for (i, at) in [(1, 5000), (3, 20), (records.len() - 1, 90_000)] {
            segment[records[i] + at] ^= 0x10;
        }
    });
    assert!(events.iter().any(|e| e["what"] == "device-damaged"), "{events:#?}");
}

#[test]
fn a_truncated_segment_is_read_around_named_and_healed() {
    let events = damaged(|segment| {
        let records = records(segment);
        let at = records[records.len() / 2] + 1000;
        segment.truncate(at);
    });
    assert!(events.iter().any(|e| e["what"] == "shards-missing"), "{events:#?}");
}

#[test]
fn swapped_records_are_read_around_named_and_healed() {
    damaged(|segment| {
        let records = records(segment);
        // Bodies of two records of the same length: their heads stay.
        let (one, other, len) = (records[0] + 4096, records[1] + 4096, 100_000);
        assert!(records[1] > one + len && records[2] > other + len);
        for i in 0..len {
            segment.swap(one + i, other + i);
        }
    });
}

#[test]
fn rot_under_a_running_node_is_found_by_a_deep_verify() {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    let name = cluster.nodes[1].as_ref().unwrap().ready["node"].clone();
    rot(&cluster, 1);
    let ran = cluster.owner.run(&["--json", "verify", "-r", "--deep", "/"]).exits(6);
    assert_eq!((&ran.json()["degraded"], &ran.json()["corrupt"]), (&1.into(), &1.into()), "{}", ran.out);
    for (path, bytes) in &files {
        assert!(cluster.owner.read(path) == *bytes, "{path} differs");
    }
    cluster.wait_until_whole("/", 20);
    let events = cluster.owner.events();
    let event = events.iter().find(|e| e["what"] == "shard-corrupt").unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!(event["node"], name);
    assert!(cluster.servers().all(|s| s.is_alive()));
}

#[test]
fn rot_under_a_running_node_is_found_by_a_scrub_and_heals() {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    rot(&cluster, 1);
    let done = cluster.owner.objects(&["cluster", "scrub", "--wait"]);
    let last = done.last().unwrap();
    assert!(last["checked"].as_u64().unwrap() > 0 && last["bad"] != 0, "{last}");
    cluster.wait_until_whole("/", 20);
    for (path, bytes) in &files {
        assert!(cluster.owner.read(path) == *bytes, "{path} differs");
    }
    assert!(cluster.owner.events().iter().any(|e| e["what"] == "shard-corrupt"));
    assert!(cluster.servers().all(|s| s.is_alive()));
}

#[test]
fn full_devices_are_named_and_the_others_go_on() {
    let mut cluster = Cluster::without_nodes();
    for capacity in ["1G", "1G", "1G", "16M"] {
        cluster.add_node("127.0.0.1:0", capacity);
    }
    let owner = cluster.owner.clone();
    let full = format!("node-{}", cluster.nodes[3].as_ref().unwrap().ready["node"].as_str().unwrap());
    let file = cluster.path("file");
    let mut degraded = 0;
    for i in 0..8u64 {
        std::fs::write(&file, noise(i + 1, 6 << 20)).unwrap();
        let ran = owner.run(&["--json", "put", text(&file), &format!("/file-{i}")]).ok();
        degraded += u64::from(ran.objects().last().unwrap()["degraded"] == true);
    }
    assert!((1..8).contains(&degraded), "first there was room everywhere, then not: {degraded}");
    let named = || {
        let status = owner.json(&["cluster", "status"]);
        let said = |p: &Value, field: &str| p[field].as_str().unwrap().to_string();
        let is_full = |p: &Value| said(p, "where").contains(&full) && ["full", "room"].iter().any(|w| said(p, "what").contains(w));
        status["problems"].as_array().unwrap().iter().any(is_full)
    };
    crate::support::until("the status names the full disk", 10, named);

    // A second one is full: three of four can not be had any more, and the error names them.
    cluster.stop_node(2);
    let mut small = crate::support::program();
    small.args([
        "--json",
        "serve",
        "node",
        "--until-stdin-ends",
        "--listen",
        "127.0.0.1:0",
        "--capacity",
        "16M",
        "--dir",
        text(&cluster.node_dir(2)),
    ]);
    cluster.nodes[2] = Some(crate::support::Server::start(small, &cluster.logs(), "node-2").unwrap());
    let second = format!("node-{}", cluster.nodes[2].as_ref().unwrap().ready["node"].as_str().unwrap());
    std::fs::write(&file, noise(99, 6 << 20)).unwrap();
    let ran = owner.run(&["put", text(&file), "/too-much"]).exits(8);
    assert!(ran.err.contains("device") || ran.err.contains("disk"), "{}", ran.err);
    assert!(ran.err.contains(&full) || ran.err.contains(&second), "{}", ran.err);
    let error = owner.run(&["--json", "put", text(&file), "/too-much"]).exits(8).error();
    assert_eq!(error["kind"], "insufficient");
    owner.run(&["stat", "/too-much"]).exits(3);
    // Nothing is lost, and small files, which need no disk of a node, still go in.
    for i in 0..8u64 {
        assert!(owner.read(&format!("/file-{i}")) == noise(i + 1, 6 << 20));
    }
    owner.run_with_input(&["put", "-", "/small"], b"small").ok();
    assert!(cluster.servers().all(|s| s.is_alive()));
}

#[test]
fn a_node_whose_files_are_deleted_is_rebuilt_and_named() {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    cluster.stop_node(1);
    std::fs::remove_file(cluster.last_segment(1)).unwrap();
    cluster.start_node(1);
    for (path, bytes) in &files {
        assert!(cluster.owner.read(path) == *bytes, "{path} differs");
    }
    cluster.wait_until_whole("/", 30);
    assert!(cluster.owner.events().iter().any(|e| e["what"] == "device-damaged"));
}
