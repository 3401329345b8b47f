//! Three coordinators as processes of their own: the leader is killed while files are stored.

use crate::support::{Cluster, Server, program, text, until};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long writes may stop after the leader is gone.
const PAUSE: Duration = Duration::from_secs(3);

/// A cluster with further coordinators, each in a folder of its own.
struct Three {
    cluster: Cluster,
    others: Vec<Option<Server>>,
    addresses: Vec<String>,
}

impl Three {
    fn start(nodes: usize) -> Three {
        let cluster = Cluster::start(nodes);
        let mut three = Three { addresses: vec![cluster.address.clone()], cluster, others: Vec::new() };
        for _ in 0..2 {
            let token = three.cluster.owner.json(&["cluster", "token", "coordinator"])["token"].as_str().unwrap().to_string();
            let file = three.cluster.path("coordinator-token");
            std::fs::write(&file, token).unwrap();
            let i = three.others.len();
            let server = three.serve(i, "127.0.0.1:0", Some(&format!("@{}", file.display())));
            three.addresses.push(server.address().to_string());
            three.others.push(Some(server));
        }
        until("three coordinators are up", 20, || three.states() == ["up", "up", "up"]);
        three
    }

    fn dir(&self, i: usize) -> PathBuf {
        self.cluster.path(&format!("coordinator-{}", i + 2))
    }

    fn serve(&self, i: usize, listen: &str, join: Option<&str>) -> Server {
        let mut command = program();
        command.args(["--json", "serve", "coordinator", "--until-stdin-ends", "--listen", listen]);
        command.arg("--dir").arg(self.dir(i));
        if let Some(token) = join {
            command.args(["--join", token]);
        }
        let started = Server::start(command, &self.cluster.logs(), &format!("coordinator-{}", i + 2));
        started.unwrap_or_else(|ran| panic!("coordinator {}: {ran:?}", i + 2))
    }

    fn states(&self) -> Vec<String> {
        let ran = self.cluster.owner.run(&["--json", "cluster", "status"]);
        if ran.code != 0 {
            return Vec::new();
        }
        let status = ran.json();
        status["coordinators"].as_array().unwrap().iter().map(|c| c["state"].as_str().unwrap().to_string()).collect()
    }

    /// Number of the coordinator that leads, from 0: the first is the cluster's own.
    fn leader(&self) -> usize {
        let status = self.cluster.owner.json(&["cluster", "status"]);
        status["coordinators"].as_array().unwrap().iter().position(|c| c["leader"] == true).expect("one leads")
    }

    /// kill -9.
    fn kill(&mut self, i: usize) {
        match i {
            0 => self.cluster.kill_coordinator(),
            i => self.others[i - 1].take().expect("it runs").kill(),
        }
    }

    fn restart(&mut self, i: usize) {
        match i {
            0 => self.cluster.start_coordinator(),
            i => self.others[i - 1] = Some(self.serve(i - 1, &self.addresses[i].clone(), None)),
        }
    }
}

#[test]
fn the_leader_is_killed_during_a_stream_of_puts() {
    let mut three = Three::start(4);
    let owner = three.cluster.owner.clone();
    let file = three.cluster.path("next");
    let mut stored = 0;
    let mut put = |within: Option<Duration>| {
        let name = format!("/file-{stored}");
        std::fs::write(&file, format!("number {stored}")).unwrap();
        let start = Instant::now();
        // Under a name of its own: `put` refuses one that exists, so a commit made twice would show.
        owner.ok(&["put", text(&file), &name]);
        let took = start.elapsed();
        if let Some(within) = within {
            assert!(took < within + Duration::from_secs(1), "{name} took {took:?} after the leader was killed");
        }
        stored += 1;
        took
    };
    let mut pauses = Vec::new();
    for _ in 0..2 {
        for _ in 0..5 {
            put(None);
        }
        let leader = three.leader();
        three.kill(leader);
        pauses.push(put(Some(PAUSE)));
        for _ in 0..5 {
            put(None);
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
