//! Versions, trash and changes by the command line.

use crate::support::{Cluster, text, until};
use serde_json::Value;

#[test]
fn what_was_is_listed_read_and_restored() {
    let cluster = Cluster::start(4);
    let owner = &cluster.owner;
    for content in ["one", "two", "three"] {
        owner.run_with_input(&["put", "-", "/a.txt"], content.as_bytes()).ok();
    }
    let versions = owner.objects(&["versions", "/a.txt"]);
    let told: Vec<_> = versions.iter().map(|v| (v["version"].as_str().unwrap(), v["size"].as_u64(), v["current"] == true)).collect();
    assert_eq!(told, [("1", Some(3), false), ("2", Some(3), false), ("3", Some(5), true)]);
    assert_eq!((owner.read("/a.txt@1"), owner.read("/a.txt@3")), (b"one".to_vec(), b"three".to_vec()));
    owner.run(&["cat", "/a.txt@9"]).exits(3);
    owner.ok(&["get", "/a.txt@2", text(&cluster.path("two"))]);
    assert_eq!(std::fs::read(cluster.path("two")).unwrap(), b"two");
    assert_eq!(owner.json(&["restore", "/a.txt@1"])["version"], "1");
    assert_eq!(owner.read("/a.txt"), b"one");
    assert!(owner.ok(&["versions", "/a.txt"]).lines().len() == 4);
    // Only over the version that one has seen.
    owner.run_with_input(&["put", "--if-version", "3", "-", "/a.txt"], b"x").exits(7);
    owner.run_with_input(&["put", "--if-version", "4", "-", "/a.txt"], b"five").ok();
    // The trash.
    owner.ok(&["mkdir", "-p", "/d/e"]);
    owner.run_with_input(&["put", "-", "/d/e/f"], b"deep").ok();
    owner.ok(&["rm", "-r", "/d"]);
    owner.ok(&["rm", "/a.txt"]);
    let trash = owner.objects(&["trash", "list"]);
    assert_eq!(trash.iter().map(|i| i["path"].as_str().unwrap()).collect::<Vec<_>>(), ["/a.txt", "/d"]);
    assert_eq!((&trash[0]["by"], &trash[1]["kind"]), (&Value::from("admin"), &Value::from("folder")));
    owner.ok(&["trash", "restore", "/d"]);
    assert_eq!(owner.read("/d/e/f"), b"deep");
    owner.ok(&["restore", "/a.txt", "--to", "/b.txt"]);
    assert_eq!(owner.read("/b.txt"), b"five");
    owner.run(&["restore", "/a.txt"]).exits(3);
    owner.ok(&["rm", "/b.txt"]);
    let sum = owner.objects(&["du", "-s", "/"]);
    assert!(sum[0]["trash"].as_u64().unwrap() > 0, "{sum:?}");
    owner.run(&["trash", "empty"]).exits(2);
    assert_eq!(owner.json(&["trash", "empty", "--yes"])["destroyed"], 1);
    assert_eq!(owner.objects(&["trash", "list"]).len(), 0);
    assert_eq!(owner.json(&["trash", "keep", "/"])["keep"], 30 * 86_400);
    assert_eq!(owner.json(&["trash", "keep", "/", "7"])["keep"], 7 * 86_400);
}

#[test]
fn changes_are_printed_as_they_happen() {
    let mut cluster = Cluster::start(4);
    let owner = cluster.owner.clone();
    owner.ok(&["mkdir", "/w"]);
    let out = cluster.path("watched");
    let mut command = owner.command(&["--json", "watch", "/w"]);
    let mut watch = command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    let told = || -> Vec<Value> {
        let text = std::fs::read_to_string(&out).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    until("it watches", 20, || !told().is_empty());
    owner.run_with_input(&["put", "-", "/w/a"], b"1").ok();
    owner.run_with_input(&["put", "-", "/elsewhere"], b"1").ok();
    cluster.kill_coordinator();
    cluster.start_coordinator();
    owner.ok(&["mv", "/w/a", "/w/b"]);
    owner.ok(&["rm", "/w/b"]);
    until("all is told", 40, || told().len() >= 4);
    let changes: Vec<_> = told()[1..].iter().map(|c| (c["change"].as_str().unwrap().to_string(), c["path"].clone())).collect();
    assert_eq!(changes, [("created".into(), "/w/a".into()), ("moved".into(), "/w/b".into()), ("removed".into(), Value::from("/w/b"))]);
    crate::support::terminate(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
