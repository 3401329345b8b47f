//! The JSON that others rely on: every document has its fields, of their kinds.

use crate::support::files::noise;
use crate::support::{Cluster, text};
use serde_json::Value;

/// Asserts that an object has these fields; each as `name:kind`, where the kind is one of `s`tring,
/// `n`umber, `b`ool, `a`rray, `o`bject, and `?` allows null.
#[track_caller]
fn has(value: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        let (name, kinds) = field.split_once(':').unwrap();
        let Some(found) = value.get(name) else { panic!("no '{name}' in {value:#}") };
        let kind = match found {
            Value::String(_) => 's',
            Value::Number(_) => 'n',
            Value::Bool(_) => 'b',
            Value::Array(_) => 'a',
            Value::Object(_) => 'o',
            Value::Null => '?',
        };
        assert!(kinds.contains(kind), "'{name}' is {found}, not {kinds}");
    }
}

/// RFC 3339, UTC.
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("0000-00-00T00:00:00") && shape.ends_with('Z'), "{text}");
}

#[test]
fn every_document_has_its_fields() {
    let mut cluster = Cluster::start(4);
    let owner = cluster.owner.clone();
    for server in cluster.servers() {
        has(&server.ready, "ready:b role:s address:s");
        let is_node = server.ready["role"] == "node";
        assert_eq!((server.ready["node"].is_string(), server.ready["invite"].is_string()), (is_node, !is_node), "{}", server.ready);
    }
    for args in [&["cluster", "token", "node"][..], &["cluster", "invite", "gina"]] {
        let document = owner.json(args);
        has(&document, if args[1] == "token" { "token:s expires:s" } else { "invite:s expires:s" });
        is_time(&document["expires"]);
    }
    let dir = cluster.path("dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), noise(1, 5 << 20)).unwrap();
    std::fs::write(dir.join("small"), b"small").unwrap();
    std::os::unix::fs::symlink("small", dir.join("link")).unwrap();
    let put = owner.objects(&["put", "-r", text(&dir), "/"]);
    has(put.last().unwrap(), "done:b files:n bytes:n seconds:n degraded:b");
    assert!(put[..put.len() - 1].iter().all(|p| p["done"] != true), "only the last object says that it is done");
    let get = owner.objects(&["get", "-r", "/dir", text(&cluster.path("back"))]);
    has(get.last().unwrap(), "done:b files:n bytes:n seconds:n degraded:b");

    for args in [&["ls", "/dir"][..], &["ls", "-lR", "/"], &["find", "/"], &["tree", "/"], &["stat", "/dir/file", "/dir"]] {
        let objects = owner.objects(args);
        assert!(!objects.is_empty());
        for object in objects {
            has(&object, "path:s name:s kind:s size:n mtime:s mode:n");
            assert!(["file", "folder", "symlink"].contains(&object["kind"].as_str().unwrap()));
            is_time(&object["mtime"]);
        }
    }
    let places = owner.objects(&["ls", "--where", "/dir/file"]);
    let chunks = places[0]["chunks"].as_array().unwrap();
    assert_eq!(chunks.len(), 2);
    for chunk in chunks {
        has(chunk, "number:n shards:a");
        for shard in chunk["shards"].as_array().unwrap() {
            has(shard, "index:n node:s? state:s");
            assert_eq!(shard["state"], "ok");
        }
    }
    has(&owner.json(&["verify", "-r", "--deep", "/"]), "files:n chunks:n ok:n degraded:n lost:n corrupt:n");
    has(&owner.json(&["whoami"]), "account:s cluster:s admin:b quota:n? used:n unread:n");
    for event in owner.events() {
        has(&event, "seq:n time:s what:s node:s? detail:s");
        is_time(&event["time"]);
    }
    has(&owner.objects(&["du", "/"])[0], "path:s files:n folders:n bytes:n stored:n");

    let status = owner.json(&["cluster", "status"]);
    has(&status, "safe:b failures_survivable:n nodes:a coordinators:a repair:o catalog:o chunks:o problems:a");
    has(&status["repair"], "shards:n bytes:n rate:n eta:n?");
    has(&status["catalog"], "failures_survivable:n last_backup:s?");
    has(&status["chunks"], "total:n by_redundancy:o");
    has(&status["chunks"]["by_redundancy"], "2:n 1:n 0:n lost:n");
    assert_eq!((&status["safe"], &status["failures_survivable"]), (&true.into(), &2.into()), "{status:#}");
    assert_eq!(status["chunks"]["total"], 2);
    for node in status["nodes"].as_array().unwrap() {
        has(node, "node:s name:s address:s state:s zone:s capacity:n used:n devices:a");
        assert_eq!(node["state"], "up");
    }
    for coordinator in status["coordinators"].as_array().unwrap() {
        has(coordinator, "id:s address:s leader:b state:s");
    }
    assert_eq!(status["problems"], Value::Array(Vec::new()));

    // Servers away: said in numbers, and with what to do.
    cluster.kill_node(0);
    crate::support::until("the status sees that a node is away", 20, || {
        let status = owner.json(&["cluster", "status"]);
        let problems = status["problems"].as_array().unwrap();
        problems.iter().for_each(|p| has(p, "what:s where:s do:s"));
        status["failures_survivable"] == 1 && problems.iter().any(|p| p["where"].as_str().unwrap().contains("node-1"))
    });
    // A failure names kind, message, node and hint; verify still prints its document.
    cluster.kill_node(1);
    cluster.kill_node(2);
    has(&owner.run(&["--json", "cat", "/dir/file"]).exits(5).error(), "kind:s message:s node:s? hint:s?");
    let failed = owner.run(&["--json", "get", "-r", "/dir", text(&cluster.path("partly"))]).exits(5);
    has(&failed.error(), "kind:s message:s node:s? hint:s?");
    let last = failed.objects().pop().unwrap();
    assert_eq!(last["done"], false, "{last}");
    let ran = owner.run(&["--json", "verify", "-r", "/"]).exits(5);
    has(&ran.json(), "files:n chunks:n ok:n degraded:n lost:n corrupt:n");
    assert_eq!(ran.json()["lost"], 2);
}

#[test]
fn verify_prints_its_document_also_at_exit_6() {
    let mut cluster = Cluster::start(4);
    let owner = cluster.owner.clone();
    owner.run_with_input(&["put", "-", "/file"], &noise(1, 300_000)).ok();
    owner.run_with_input(&["put", "-", "/good"], b"in the catalog").ok();
    for i in 0..3 {
        cluster.stop_node(i);
    }
    for i in 0..3 {
        std::fs::remove_dir_all(cluster.node_dir(i).join("shards/log")).unwrap();
        // Bare of its shards, a node comes back or says why not.
        let _ = cluster.try_start_node(i, None);
    }
    let ran = owner.run(&["--json", "verify", "-r", "--deep", "/"]);
    has(&ran.json(), "files:n chunks:n ok:n degraded:n lost:n corrupt:n");
    assert_eq!(ran.json()["lost"], 1, "{}", ran.out);
    let all_run = cluster.nodes.iter().all(Option::is_some);
    assert_eq!(ran.code, if all_run { 6 } else { 5 }, "{}{}", ran.out, ran.err);
    assert_eq!(owner.read("/good"), b"in the catalog");
}
