//! Servers come and go while files are stored: plans beside their minimum, changes that are stopped
//! and resumed, a disk that is replaced, a policy that changes.

use crate::support::files::noise;
use crate::support::{Cluster, User, text, until};
use serde_json::Value;
use std::fs;

/// A few files of several chunks under /files, and what is in them.
fn some_files(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let files: Vec<_> = (0..6u64).map(|i| (format!("/files/{i}"), noise(i + 1, 3 << 20))).collect();
    cluster.owner.ok(&["mkdir", "/files"]);
    for (path, content) in &files {
        let local = cluster.path("local");
        fs::write(&local, content).unwrap();
        cluster.owner.ok(&["put", text(&local), path]);
    }
    files
}

#[track_caller]
fn all_read_back(cluster: &Cluster, files: &[(String, Vec<u8>)]) {
    for (path, content) in files {
        assert!(cluster.owner.read(path) == *content, "{path} reads back otherwise");
    }
}

fn name(cluster: &Cluster, i: usize) -> String {
    format!("node-{}", cluster.nodes[i].as_ref().unwrap().ready["node"].as_str().unwrap())
}

fn node<'s>(status: &'s Value, name: &str) -> &'s Value {
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().find(|n| n["name"] == name || n["node"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn state(owner: &User, name: &str) -> String {
    node(&owner.json(&["cluster", "status"]), name)["state"].as_str().unwrap().to_string()
}

#[test]
fn a_cluster_grows_and_shrinks_and_moves_no_more_than_it_must() {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    let fifth = cluster.add_node("127.0.0.1:0", "1G");
    let fifth = name(&cluster, fifth);

    // It holds nothing until somebody says so, and the status says what to say.
    let status = cluster.owner.json(&["cluster", "status"]);
    assert_eq!(node(&status, &fifth)["state"], "joining");
    let told = status["problems"].as_array().unwrap().iter().any(|p| p["do"].as_str().is_some_and(|d| d.contains("cluster add")));
    assert!(told, "{status}");

    // The plan, and nothing done.
    let plan = cluster.owner.json(&["cluster", "add", &fifth, "--dry-run"]);
    let (moved, minimum) = (plan["moved_slots"].as_u64().unwrap(), plan["minimum_slots"].as_u64().unwrap());
    assert!(moved > 0 && moved as f64 <= minimum as f64 * 1.02, "{plan}");
    assert!(plan["moved_bytes"].as_u64().unwrap() >= plan["minimum_bytes"].as_u64().unwrap(), "{plan}");
    assert!(plan["balance"].as_f64().unwrap() <= 0.01, "{plan}");
    assert_eq!(plan["devices"].as_array().unwrap().len(), 5);
    assert_eq!(cluster.owner.json(&["cluster", "layout", "plan", "--add", &fifth])["moved_slots"], plan["moved_slots"]);
    assert_eq!(state(&cluster.owner, &fifth), "joining");

    // Nobody to ask: a usage error, and still nothing done.
    cluster.owner.run(&["cluster", "add", &fifth]).exits(2);

    // Begun and stopped; a second change waits; resumed to its end.
    cluster.owner.ok(&["cluster", "add", &fifth, "--yes", "--no-wait"]);
    let stopped = cluster.owner.run(&["cluster", "layout", "stop"]);
    all_read_back(&cluster, &files);
    // On a slow machine it may be done before it could be stopped.
    if stopped.code != 7 {
        stopped.ok();
        cluster.owner.ok(&["cluster", "layout", "resume"]);
    }
    assert_eq!(state(&cluster.owner, &fifth), "up");
    cluster.wait_until_whole("/files", 30);

    // One is emptied and goes.
    let first = name(&cluster, 0);
    let done = cluster.owner.objects(&["cluster", "drain", &first, "--yes"]);
    assert_eq!(done.last().unwrap()["done"], true, "{done:?}");
    cluster.owner.ok(&["cluster", "remove", &first, "--yes"]);
    cluster.kill_node(0);
    all_read_back(&cluster, &files);
    let verified = cluster.owner.json(&["verify", "-r", "--deep", "/files"]);
    assert_eq!(verified["ok"], verified["chunks"], "{verified}");
    let status = cluster.owner.json(&["cluster", "status"]);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 4, "{status}");

    // A fourth cannot be emptied: there is no room for two shards of a chunk on one node.
    let refused = cluster.owner.run(&["--json", "cluster", "drain", &name(&cluster, 1), "--yes"]);
    assert_ne!(refused.code, 0);
    assert!(refused.error()["message"].as_str().unwrap().contains("node"), "{refused:?}");
}

#[test]
fn rule_09_a_wiped_disk_is_replaced_and_nothing_else_moves() {
    let mut cluster = Cluster::start(4);
    let files = some_files(&cluster);
    let before = cluster.owner.json(&["cluster", "layout", "show"]);
    let lost = cluster.kill_node(2);
    fs::remove_dir_all(cluster.node_dir(2)).unwrap();
    all_read_back(&cluster, &files);

    let token = cluster.owner.json(&["cluster", "token", "node", "--replace", &lost])["token"].as_str().unwrap().to_string();
    cluster.try_start_node(2, Some(&token)).unwrap_or_else(|ran| panic!("{ran:?}"));
    cluster.wait_until_whole("/files", 60);
    until("it is safe", 60, || cluster.owner.json(&["cluster", "status"])["safe"] == true);
    all_read_back(&cluster, &files);

    // The new device has the old one's slots; those of all others are as they were.
    let after = cluster.owner.json(&["cluster", "layout", "show"]);
    let slots = |show: &Value| -> Vec<(String, u64)> {
        let devices = show["layouts"][0]["devices"].as_array().unwrap();
        let mut all: Vec<_> = devices.iter().map(|d| (d["device"].as_str().unwrap().to_string(), d["slots"].as_u64().unwrap())).collect();
        all.sort();
        all
    };
    let (before, after) = (slots(&before), slots(&after));
    let kept = before.iter().filter(|d| after.contains(d)).count();
    assert_eq!((before.len(), after.len(), kept), (4, 4, 3), "{before:?}\n{after:?}");
}

#[test]
fn a_space_is_coded_anew_and_stays_readable() {
    let cluster = Cluster::start(4);
    let files = some_files(&cluster);
    let shown = cluster.owner.json(&["cluster", "policy", "admin"]);
    assert_eq!(shown["policy"], "2+2", "{shown}");

    // Unsafe or impossible: refused with the reason.
    let refused = cluster.owner.run(&["--json", "cluster", "policy", "admin", "4+2", "--yes"]);
    assert_ne!(refused.code, 0);
    assert!(refused.error()["message"].as_str().unwrap().contains('6'), "{refused:?}");

    cluster.owner.ok(&["cluster", "policy", "admin", "1+2", "--yes"]);
    all_read_back(&cluster, &files);
    cluster.wait_until_whole("/files", 60);
    let listed = cluster.owner.objects(&["ls", "--where", "/files"]);
    for file in &listed {
        for chunk in file["chunks"].as_array().unwrap() {
            assert_eq!(chunk["shards"].as_array().unwrap().len(), 3, "{file}");
        }
    }
    // A single copy is possible, and warned of.
    let warned = cluster.owner.ok(&["cluster", "policy", "admin", "1+0", "--yes"]);
    assert!(warned.err.contains("1+0") || warned.out.contains("1+0"), "{warned:?}");
    all_read_back(&cluster, &files);
}
