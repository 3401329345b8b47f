//! Three coordinators as processes of their own: the leader is killed while files are stored.

use crate::support::three::Three;
use crate::support::{text, until};
use std::time::Instant;

#[test]
fn the_leader_is_killed_during_a_stream_of_puts() {
    let mut three = Three::start(4);
    let owner = three.cluster.owner.clone();
    // On a new machine the address of any of them will do.
    let account = owner.json(&["whoami"])["account"].as_str().unwrap().to_string();
    for (i, address) in three.addresses.iter().enumerate() {
        let machine = three.cluster.user(&format!("machine-{i}"));
        machine.ok(&["login", "--user", &account, "--coordinator", address, "--fingerprint", &three.cluster.fingerprint]);
    }
    let file = three.cluster.path("next");
    let mut stored = 0;
    let mut put = || {
        let name = format!("/file-{stored}");
        std::fs::write(&file, format!("number {stored}")).unwrap();
        let start = Instant::now();
        // Under a name of its own: `put` refuses one that exists, so a commit made twice would show.
        owner.ok(&["put", text(&file), &name]);
        stored += 1;
        start.elapsed()
    };
    let mut pauses = Vec::new();
    for _ in 0..2 {
        for _ in 0..5 {
            put();
        }
        let leader = three.leader();
        three.kill(leader);
        pauses.push(put());
        for _ in 0..5 {
            put();
        }
        three.restart(leader);
        until("three coordinators are up again", 20, || three.states() == ["up", "up", "up"]);
    }
    println!("{stored} files; the first after each kill -9 took {pauses:?}");
    for n in 0..stored {
        assert_eq!(owner.read(&format!("/file-{n}")), format!("number {n}").as_bytes());
    }
    let listed = owner.objects(&["ls", "/"]);
    assert_eq!(listed.len(), stored, "none is lost and none is there twice");

    // Two of three gone: what the last one cannot do is said, with what to do about it.
    let leader = three.leader();
    (0..3).filter(|i| *i != leader).for_each(|i| three.kill(i));
    let ran = owner.run(&["put", text(&file), "/in-vain"]).exits(5);
    assert!(ran.err.contains("reaches 1 of 3 coordinators, no majority"), "{}", ran.err);
}

/// A watcher goes on at whoever leads next, and is told each change once.
#[test]
fn a_watch_misses_nothing_when_the_leader_is_killed() {
    let mut three = Three::start(0);
    let owner = three.cluster.owner.clone();
    let out = three.cluster.path("watched");
    let mut command = owner.command(&["--json", "watch", "/"]);
    let mut watch = command.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    let told =
        || -> Vec<serde_json::Value> { std::fs::read_to_string(&out).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect() };
    until("it watches", 20, || !told().is_empty());
    let mut stored = Vec::new();
    for round in 0..3 {
        for i in 0..3 {
            let path = format!("/{round}-{i}");
            owner.run_with_input(&["put", "-", &path], b"x").ok();
            stored.push(path);
        }
        if round < 2 {
            let leader = three.leader();
            three.kill(leader);
            owner.run_with_input(&["put", "-", &format!("/after-{round}")], b"x").ok();
            stored.push(format!("/after-{round}"));
            three.restart(leader);
            until("three coordinators are up", 30, || three.states() == ["up", "up", "up"]);
        }
    }
    until("all is told", 40, || told().len() > stored.len());
    let paths: Vec<_> = told()[1..].iter().map(|c| c["path"].as_str().unwrap().to_string()).collect();
    assert_eq!(paths, stored);
    crate::support::terminate(watch.id());
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
