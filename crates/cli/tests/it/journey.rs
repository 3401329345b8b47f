//! The main job with separate processes, as a new user would do it by hand: a tree goes in, two of
//! four servers die, it comes back byte for byte; a third is gone, and the message names them all.

use crate::support::files::{assert_same, make_tree, noise};
use crate::support::{Cluster, free_port, text};

#[test]
fn a_tree_goes_in_two_servers_die_and_it_comes_back() {
    let mut cluster = Cluster::without_nodes();
    let fixed = format!("127.0.0.1:{}", free_port());
    cluster.add_node(&fixed, "1G");
    for _ in 0..3 {
        cluster.add_node("127.0.0.1:0", "1G");
    }
    assert_eq!(cluster.nodes[0].as_ref().unwrap().address(), fixed);
    let tree = cluster.path("tree");
    make_tree(&tree, 300);
    let owner = cluster.owner.clone();
    let report = owner.objects(&["put", "-r", text(&tree), "/"]);
    let last = report.last().unwrap();
    assert_eq!((&last["done"], &last["degraded"]), (&true.into(), &false.into()), "{last}");
    // All files, the big one, the empty one, six odd names, run.sh, two symlinks.
    assert_eq!(last["files"], 300 + 1 + 1 + 6 + 1 + 2);

    let dead = [cluster.kill_node(1), cluster.kill_node(3)];
    let back = cluster.path("back");
    owner.ok(&["get", "-r", "/tree", text(&back)]);
    assert_same(&tree, &back);

    let third = cluster.kill_node(0);
    let gone = owner.run(&["get", "/tree/deep/big", text(&cluster.path("big"))]).exits(5);
    let told = owner.run(&["--json", "cat", "/tree/deep/big"]).exits(5).error();
    assert_eq!(told["kind"], "unavailable");
    for name in dead.iter().chain([&third]) {
        assert!(gone.err.contains(name.as_str()), "{} does not name {name}", gone.err);
        assert!(told["message"].as_str().unwrap().contains(name.as_str()), "{told} does not name {name}");
    }
    assert!(!cluster.path("big").exists(), "nothing stands under the name of what could not be fetched");
    assert_eq!(owner.read("/tree/run.sh"), b"#!/bin/sh\n", "small files need no node");

    for i in [0, 1, 3] {
        cluster.start_node(i);
    }
    cluster.wait_until_whole("/", 60);
    let verified = owner.json(&["verify", "-r", "--deep", "/"]);
    assert_eq!(verified["ok"], verified["chunks"], "{verified}");
    assert!(verified["chunks"].as_u64().unwrap() > 60);
    crate::support::until("the cluster is safe", 20, || owner.json(&["cluster", "status"])["failures_survivable"] == 2);
}

#[test]
fn everyday_commands_do_what_they_say() {
    let cluster = Cluster::start(4);
    let owner = &cluster.owner;
    let src = cluster.path("src");
    std::fs::create_dir_all(src.join("sub/empty")).unwrap();
    let long = noise(3, (4 << 20) + 1000);
    std::fs::write(src.join("long"), &long).unwrap();
    std::fs::write(src.join("sub/a.txt"), b"alpha\n").unwrap();
    std::fs::write(src.join("sub/b.jpg"), noise(1, 5000)).unwrap();
    std::os::unix::fs::symlink("sub/a.txt", src.join("link")).unwrap();

    owner.ok(&["mkdir", "-p", "/x/y"]);
    owner.ok(&["put", "-r", text(&src), "/x/y/"]);
    assert_eq!(owner.ok(&["ls", "/x/y/src"]).lines(), ["link", "long", "sub"]);
    let long_list = owner.ok(&["ls", "-lR", "/x"]).out;
    for part in ["/x:", "/x/y:", "/x/y/src/sub:", "-rw-", "drwx", "lrwx", "link -> sub/a.txt", "4.0 MiB"] {
        assert!(long_list.contains(part), "no '{part}' in\n{long_list}");
    }
    assert_eq!(
        owner.ok(&["tree", "/x/y"]).lines(),
        ["/x/y", "└── src", "    ├── link", "    ├── long", "    └── sub", "        ├── a.txt", "        ├── b.jpg", "        └── empty"]
    );
    assert_eq!(owner.ok(&["find", "/", "-name", "*.jpg"]).lines(), ["/x/y/src/sub/b.jpg"]);
    assert_eq!(owner.ok(&["find", "/x/y/src", "-type", "d"]).lines(), ["/x/y/src", "/x/y/src/sub", "/x/y/src/sub/empty"]);
    let stat = owner.json(&["stat", "/x/y/src/long"]);
    assert_eq!((&stat["size"], &stat["chunks"], &stat["policy"]), (&long.len().into(), &2.into(), &"2+2".into()), "{stat}");
    let sum = owner.objects(&["du", "-s", "/x/y"]);
    assert_eq!((&sum[0]["files"], &sum[0]["bytes"]), (&4.into(), &(long.len() + 6 + 5000 + 9).into()), "{sum:?}");

    owner.ok(&["mv", "/x/y/src/sub", "/x/moved"]);
    owner.ok(&["cp", "/x/moved/a.txt", "/x/copy.txt"]);
    owner.ok(&["cp", "-r", "/x/moved", "/x/again"]);
    assert_eq!(owner.read("/x/copy.txt"), b"alpha\n");
    owner.ok(&["rm", "-r", "/x/moved"]);
    assert_eq!(owner.read("/x/again/b.jpg"), noise(1, 5000), "a copy lives on without its original");
    assert_eq!(owner.ok(&["find", "/x"]).lines().len(), 10);

    for (range, bytes) in
        [("0-0", &long[..1]), ("4194300-4194400", &long[4194300..4194401]), ("-7", &long[long.len() - 7..]), ("4195000-", &long[4195000..])]
    {
        assert!(owner.ok(&["cat", "--range", range, "/x/y/src/long"]).bytes == bytes, "range {range}");
    }
    let streamed = owner.run_with_input(&["put", "-", "/x/stream"], &long).ok();
    assert_eq!(streamed.err, "");
    assert!(owner.ok(&["get", "/x/stream", "-"]).bytes == long);

    // The old version counts no more, and the empty folder comes back empty.
    owner.run_with_input(&["put", "-", "/x/stream"], b"new").ok();
    assert_eq!(owner.read("/x/stream"), b"new");
    let back = cluster.path("back");
    owner.ok(&["get", "-r", "/x/again", text(&back)]);
    assert_same_without_time(&src.join("sub"), &back);
}

/// `src` was changed after nothing: only the folder's own time may differ, because of the copy.
#[track_caller]
fn assert_same_without_time(one: &std::path::Path, other: &std::path::Path) {
    let same = std::process::Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}
