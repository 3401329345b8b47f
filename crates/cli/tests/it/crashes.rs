//! Processes are killed at times that a seed chooses, while files are on their way. What was
//! acknowledged is there, byte for byte; what was not is absent, or wholly there, never torn.

use crate::support::files::{Dice, assert_same, files_below, make_tree, noise};
use crate::support::{Cluster, Running, User, text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What may be read under a name: what was acknowledged last, and what was tried since.
#[derive(Default)]
struct Expected {
    acknowledged: Option<u64>,
    tried: Vec<u64>,
}

/// Files that are put under few names again and again; each version's bytes depend on its number.
struct Story {
    cluster: Cluster,
    dice: Dice,
    names: BTreeMap<String, Expected>,
    versions: u64,
}

impl Story {
    fn new(seed: u64) -> Story {
        Story { cluster: Cluster::start(4), dice: Dice::new(seed), names: BTreeMap::new(), versions: seed * 1000 }
    }

    fn bytes(version: u64) -> Vec<u8> {
        let len = [3000, 60_000, 1 << 20, (9 << 20) + 7][version as usize % 4];
        noise(version, len)
    }

    /// Begins to store a new version under one of a few names.
    fn begin(&mut self) -> (String, u64, Running) {
        self.versions += 1;
        let (version, name) = (self.versions, format!("/file-{}", self.dice.below(6)));
        let file = self.cluster.path("next");
        std::fs::write(&file, Story::bytes(version)).unwrap();
        self.names.entry(name.clone()).or_default().tried.push(version);
        let put = self.cluster.owner.start(&["put", text(&file), &name]);
        (name, version, put)
    }

    /// Waits for its end, and remembers what it said. `5`: too few servers, for the moment.
    fn end(&mut self, (name, version, put): (String, u64, Running)) -> bool {
        let ran = put.wait();
        assert!(ran.code == 0 || ran.code == 5, "{ran:?}");
        if ran.code == 0 {
            *self.names.get_mut(&name).unwrap() = Expected { acknowledged: Some(version), tried: Vec::new() };
        }
        ran.code == 0
    }

    fn pause(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(self.dice.below(ms)));
    }

    /// Every name holds what it may hold.
    #[track_caller]
    fn check(&self) {
        for (name, expected) in &self.names {
            let ran = self.cluster.owner.run(&["cat", name]);
            if ran.code == 3 {
                assert!(expected.acknowledged.is_none(), "{name} was acknowledged and is gone");
                continue;
            }
            assert_eq!(ran.code, 0, "{name}: {}", ran.err);
            let may_be = expected.acknowledged.iter().chain(&expected.tried);
            assert!(
                may_be.into_iter().any(|v| ran.bytes == Story::bytes(*v)),
                "{name} is neither what was acknowledged nor what was tried"
            );
        }
    }
}

#[test]
fn clients_die_at_any_time() {
    let mut story = Story::new(1);
    let (mut died, mut longest) = (0, 250);
    for number in 0..60 {
        if number >= 14 && died >= 3 {
            break;
        }
        let (name, version, put) = story.begin();
        story.pause(longest);
        let ran = put.kill();
        match ran.code {
            0 => {
                *story.names.get_mut(&name).unwrap() = Expected { acknowledged: Some(version), tried: Vec::new() };
                // Where the machine is fast most are through before they are killed.
                longest = (longest * 4 / 5).max(5);
            }
            _ => died += 1,
        }
    }
    assert!(died >= 3, "only {died} of the clients died in time");
    story.check();
    // A tree whose upload is cut off: files are whole or absent, and the same command makes it whole.
    let tree = story.cluster.path("tree");
    make_tree(&tree, 200);
    let owner = story.cluster.owner.clone();
    let mut part = 0;
    for ms in [120, 250, 400] {
        let put = owner.start(&["put", "-r", text(&tree), "/"]);
        std::thread::sleep(Duration::from_millis(ms));
        put.kill();
        let back = story.cluster.path(&format!("back-{ms}"));
        if owner.run(&["get", "-r", "/tree", text(&back)]).code == 0 {
            for file in files_below(&back).iter().filter(|f| !f.is_symlink()) {
                let original = tree.join(file.strip_prefix(&back).unwrap());
                assert!(std::fs::read(file).unwrap() == std::fs::read(&original).unwrap(), "{} is torn", file.display());
                part += 1;
            }
        }
    }
    owner.ok(&["put", "-r", text(&tree), "/"]);
    let back = story.cluster.path("back");
    owner.ok(&["get", "-r", "/tree", text(&back)]);
    assert_same(&tree, &back);
    println!("{died} clients died, {part} files of cut off trees were looked at");
}

#[test]
fn nodes_die_at_any_time() {
    let mut story = Story::new(2);
    let mut acknowledged = 0;
    for round in 0..40 {
        if round >= 10 && acknowledged >= 8 {
            break;
        }
        let put = story.begin();
        story.pause(150);
        let victim = story.dice.below(4) as usize;
        story.cluster.kill_node(victim);
        acknowledged += u64::from(story.end(put));
        story.pause(100);
        story.cluster.start_node(victim);
    }
    assert!(acknowledged >= 8, "with three of four nodes writes go on: {acknowledged} of 40 did");
    story.check();
    let verified = story.cluster.owner.json(&["verify", "-r", "--deep", "/"]);
    assert_eq!((&verified["lost"], &verified["corrupt"]), (&0.into(), &0.into()), "{verified}");
}

#[test]
fn coordinators_and_whole_clusters_die_at_any_time() {
    let mut story = Story::new(3);
    for _ in 0..5 {
        let put = story.begin();
        story.pause(150);
        story.cluster.kill_coordinator();
        story.pause(200);
        story.cluster.start_coordinator();
        story.end(put);
    }
    story.check();
    for _ in 0..3 {
        let put = story.begin();
        story.pause(200);
        story.cluster.kill_coordinator();
        for i in 0..4 {
            story.cluster.kill_node(i);
        }
        story.cluster.start_coordinator();
        for i in 0..4 {
            story.cluster.start_node(i);
        }
        story.end(put);
        story.check();
    }
    // A start that finds nothing wrong with what is there.
    let put = story.begin();
    assert!(story.end(put), "after all that, writing works");
    story.check();
}

/// Kills a transfer as soon as its journal has grown to so many bytes. Whether it was in time.
fn kill_at(user: &User, mut running: Running, bytes: u64) -> bool {
    let journals = user.home.join("profiles/default/transfers");
    let start = Instant::now();
    loop {
        let longest = files_below(&journals).iter().filter_map(|f| Some(f.metadata().ok()?.len())).max().unwrap_or(0);
        if longest >= bytes {
            running.kill();
            return !files_below(&journals).is_empty();
        }
        if running.has_ended() || start.elapsed() > Duration::from_secs(120) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes that all nodes use, as soon as their heartbeats have said so.
fn used(user: &User) -> u64 {
    std::thread::sleep(Duration::from_millis(2300));
    let status = user.json(&["cluster", "status"]);
    status["nodes"].as_array().unwrap().iter().map(|n| n["used"].as_u64().unwrap()).sum()
}

#[test]
fn an_interrupted_upload_goes_on_where_it_stopped() {
    let cluster = Cluster::start(4);
    let owner = &cluster.owner;
    let len = 48usize << 20;
    let bytes = noise(11, len);
    let file = cluster.path("big");
    std::fs::write(&file, &bytes).unwrap();
    let mut tries = 0;
    // Slowly: with little memory, few chunks at a time.
    let begin = |name: &str| owner.start(&["put", "--memory", "16M", text(&file), name]);
    // (It may be stored and its journal not gone yet.)
    while !kill_at(owner, begin("/big"), 1200) || owner.run(&["stat", "/big"]).code == 0 {
        owner.run(&["rm", "--purge", "/big"]);
        tries += 1;
        assert!(tries < 6, "no upload was killed in time");
    }
    owner.run(&["stat", "/big"]).exits(3);
    let before = used(owner);
    assert!(before > 8 << 20, "some of it is there: {before}");
    owner.ok(&["put", text(&file), "/big"]);
    assert!(owner.read("/big") == bytes);
    if tries == 0 {
        // Twice the file is stored, and a few chunks whose acknowledgement was not heard any more.
        let after = used(owner);
        assert!(after < 2 * len as u64 + (40 << 20).min(before), "{before} bytes, then {after}: it began again");
    }
    assert_eq!(files_below(&owner.home.join("profiles/default/transfers")), Vec::<PathBuf>::new(), "journals go when all is done");

    // A file that has changed meanwhile begins again.
    let mut tries = 0;
    while !kill_at(owner, begin("/other"), 600) || owner.run(&["stat", "/other"]).code == 0 {
        owner.run(&["rm", "--purge", "/other"]);
        tries += 1;
        assert!(tries < 6, "no upload was killed in time");
    }
    let changed = noise(12, len);
    std::fs::write(&file, &changed).unwrap();
    owner.ok(&["put", text(&file), "/other"]);
    assert!(owner.read("/other") == changed);
}

#[test]
fn an_interrupted_download_leaves_no_half_file_and_goes_on() {
    let cluster = Cluster::start(4);
    let owner = &cluster.owner;
    let bytes = noise(13, 160 << 20);
    let file = cluster.path("big");
    std::fs::write(&file, &bytes).unwrap();
    owner.ok(&["put", text(&file), "/big"]);
    let to = cluster.path("to");
    std::fs::create_dir(&to).unwrap();
    let target = to.join("big");
    let mut tries = 0;
    while !kill_at(owner, owner.start(&["get", "--memory", "16M", "/big", text(&target)]), 20) || target.exists() {
        let _ = std::fs::remove_file(&target);
        tries += 1;
        assert!(tries < 6, "no download was killed in time");
    }
    assert!(!target.exists(), "what is not whole has no name");
    let parts = files_below(&to);
    assert_eq!(parts.len(), 1, "{parts:?}");
    owner.ok(&["get", "/big", text(&target)]);
    assert!(std::fs::read(&target).unwrap() == bytes);
    assert_eq!(files_below(&to), std::slice::from_ref(&target), "nothing else is left");
    assert_eq!(files_below(&owner.home.join("profiles/default/transfers")), Vec::<PathBuf>::new());

    // Told to stop, it says what becomes of it.
    std::fs::remove_file(&target).unwrap();
    let get = owner.start(&["get", "--memory", "8M", "/big", text(&target)]);
    let mut get = get;
    crate::support::until("the transfer runs", 20, || !files_below(&to).is_empty() || get.has_ended());
    if !get.has_ended() {
        crate::support::terminate(get.pid());
    }
    let ran = get.wait();
    if ran.code != 0 {
        assert_eq!(ran.code, 130, "{ran:?}");
        assert!(ran.err.contains("again"), "{}", ran.err);
        assert!(!target.exists());
    }
    // Over an older file: it stays until the new one is whole.
    std::fs::write(&target, b"older").unwrap();
    let get = owner.start(&["get", "--memory", "8M", "/big", text(&target)]);
    std::thread::sleep(Duration::from_millis(60));
    get.kill();
    let there = std::fs::read(&target).unwrap();
    assert!(there == b"older" || there == bytes);
    owner.ok(&["get", "/big", text(&target)]);
    assert!(std::fs::read(&target).unwrap() == bytes);
}
