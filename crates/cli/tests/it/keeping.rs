//! What an operator does to keep the catalog and the data: back up, restore, thaw, check the log of
//! events.

use crate::support::files::noise;
use crate::support::{Cluster, Server, program, text, until};
use std::fs;

const PASSPHRASE: &str = "a passphrase that nobody would guess";

fn put(cluster: &Cluster, path: &str, content: &[u8]) {
    let local = cluster.path("local");
    fs::write(&local, content).unwrap();
    cluster.owner.ok(&["put", text(&local), path]);
}

#[test]
fn a_lost_coordinator_comes_back_from_a_backup_and_nothing_is_collected_before_thaw() {
    let mut cluster = Cluster::start(4);
    let (old, new) = (noise(1, 2 << 20), noise(2, 2 << 20));
    put(&cluster, "/old", &old);
    let passphrase = cluster.path("passphrase");
    fs::write(&passphrase, PASSPHRASE).unwrap();
    let backup = cluster.path("catalog.backup");
    let written = cluster.owner.json(&["cluster", "backup", text(&backup), "--password-file", text(&passphrase)]);
    assert!(written["bytes"].as_u64().unwrap() > 0, "{written}");
    let status = cluster.owner.json(&["cluster", "status"]);
    assert!(status["catalog"]["last_backup"].is_string(), "{status}");
    let sealed = fs::read(&backup).unwrap();
    assert!(!sealed.windows(5).any(|w| w == b"admin"), "the backup holds an account name in the clear");

    // Stored after the backup; then the coordinator is lost with all it knew.
    put(&cluster, "/new", &new);
    cluster.kill_coordinator();
    fs::remove_dir_all(cluster.path("coordinator")).unwrap();

    // A wrong passphrase, a damaged file: refused, and no folder is left that would start.
    let wrong = cluster.path("wrong");
    fs::write(&wrong, "something else entirely").unwrap();
    let dir = cluster.path("coordinator");
    let restore = |file: &std::path::Path, passphrase: &std::path::Path| {
        cluster.owner.run(&["--json", "cluster", "restore", text(file), "--dir", text(&dir), "--password-file", text(passphrase)])
    };
    assert_ne!(restore(&backup, &wrong).code, 0);
    let mut torn = sealed.clone();
    torn.truncate(sealed.len() - 40);
    let torn_file = cluster.path("torn.backup");
    fs::write(&torn_file, torn).unwrap();
    assert_ne!(restore(&torn_file, &passphrase).code, 0);
    let mut command = program();
    command.args(["--json", "serve", "coordinator", "--until-stdin-ends", "--listen", &cluster.address, "--dir", text(&dir)]);
    if dir.exists() {
        assert!(Server::start(command, &cluster.logs(), "half").is_err(), "half a restore does not start");
        fs::remove_dir_all(&dir).unwrap();
    }

    let restored = restore(&backup, &passphrase).ok().json();
    assert_eq!(restored["fingerprint"], cluster.fingerprint.as_str(), "{restored}");
    cluster.start_coordinator();
    assert!(cluster.owner.read("/old") == old);
    cluster.owner.run(&["cat", "/new"]).exits(3);

    // Frozen: what the catalog does not know is kept, and named, until it is thawed.
    until("the nodes say what they hold and the catalog does not know", 60, || {
        let status = cluster.owner.json(&["cluster", "status"]);
        status["problems"].as_array().unwrap().iter().any(|p| p["do"].as_str().is_some_and(|d| d.contains("thaw")))
    });
    let thawed = cluster.owner.json(&["cluster", "thaw", "--yes"]);
    assert_eq!(thawed["thawed"], true, "{thawed}");
    assert_eq!(cluster.owner.json(&["cluster", "thaw", "--yes"])["frozen"], false);
    put(&cluster, "/newer", &new);
    assert!(cluster.owner.read("/newer") == new);
}

/// Nobody made a backup. A lone coordinator left snapshots on nodes by itself; its key was copied from its folder.
#[test]
fn a_lost_lone_coordinator_comes_back_from_what_it_left_on_nodes() {
    let mut cluster = Cluster::start(4);
    let content = noise(3, 2 << 20);
    put(&cluster, "/file", &content);
    let (dir, key, other) = (cluster.path("coordinator"), cluster.path("key"), cluster.path("other"));
    fs::copy(dir.join("recovery-key"), &key).unwrap();
    // The first snapshot is made a minute after a start.
    let snapshot = |cluster: &Cluster| cluster.owner.json(&["cluster", "status"])["catalog"]["last_snapshot"].clone();
    let before = snapshot(&cluster);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    until("it leaves a snapshot on nodes", 90, || snapshot(&cluster) != before);
    let nodes: Vec<String> = cluster.nodes.iter().flatten().map(|n| n.address().to_string()).collect();
    cluster.kill_coordinator();
    fs::remove_dir_all(&dir).unwrap();

    let restore = |key: Option<&std::path::Path>| {
        let mut args = vec!["--json", "cluster", "restore", "--from-node"];
        args.extend(nodes.iter().map(String::as_str));
        key.iter().for_each(|key| args.extend(["--recovery-key", text(key)]));
        args.extend(["--dir", text(&dir)]);
        cluster.owner.run(&args)
    };
    // Without the key, or with another one: refused, and no folder is left that would start.
    restore(None).exits(2);
    let line = fs::read_to_string(&key).unwrap();
    fs::write(&other, line.replacen(&line[5..69], &"11".repeat(32), 1)).unwrap();
    assert_ne!(restore(Some(&other)).code, 0);
    assert!(!dir.exists() || fs::read_dir(&dir).unwrap().next().is_none());
    let restored = restore(Some(&key)).ok().json();
    assert_eq!(restored["fingerprint"], cluster.fingerprint.as_str(), "{restored}");

    cluster.start_coordinator();
    assert!(cluster.owner.read("/file") == content);
    assert_eq!(cluster.owner.json(&["cluster", "thaw", "--yes"])["thawed"], true);
    put(&cluster, "/newer", &content);
    assert!(cluster.owner.read("/newer") == content);
}

#[test]
fn the_log_of_events_is_a_chain_that_is_checked_and_exported() {
    let cluster = Cluster::start(4);
    let verified = cluster.owner.json(&["cluster", "audit", "verify"]);
    assert_eq!(verified["verified"], true, "{verified}");
    let events = verified["events"].as_u64().unwrap();
    assert!(events >= 5, "{verified}");
    let file = cluster.path("audit.jsonl");
    cluster.owner.ok(&["cluster", "audit", "export", text(&file)]);
    let exported = fs::read_to_string(&file).unwrap();
    assert!(exported.lines().count() as u64 >= events, "{exported}");
    assert!(exported.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()));
    // What was seen before must still be there the next time.
    assert!(cluster.owner.json(&["cluster", "audit", "verify"])["events"].as_u64().unwrap() >= events);
    let users = cluster.owner.objects(&["cluster", "users"]);
    assert_eq!((&users[0]["account"], &users[0]["admin"]), (&"admin".into(), &true.into()));
}
