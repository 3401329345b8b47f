//! The outbox with real processes: jobs that survive kill -9, clusters that are away, sources that change.

use crate::support::files::noise;
use crate::support::{Cluster, User, terminate, text, until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A user whose agent ends with the test.
struct Owner<'c> {
    user: &'c User,
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        let path = self.user.home.join("profiles/default/outbox");
        let _ = std::fs::remove_dir_all(&path);
    }
}

impl Owner<'_> {
    fn queue(&self) -> Value {
        self.user.json(&["queue", "list"])
    }

    fn jobs(&self) -> Vec<Value> {
        self.queue()["jobs"].as_array().unwrap().clone()
    }

    fn wait_until_empty(&self, seconds: u64) {
        until("the queue is empty", seconds, || {
            let jobs = self.jobs();
            assert!(jobs.iter().all(|j| j["state"] != "failed"), "{jobs:?}");
            jobs.is_empty()
        });
    }

    fn wait_for(&self, state: &str) -> Value {
        let mut found = Value::Null;
        until(&format!("a job is {state}"), 60, || {
            found = self.jobs().into_iter().find(|j| j["state"] == state).unwrap_or(Value::Null);
            !found.is_null()
        });
        found
    }

    fn outbox(&self) -> PathBuf {
        self.user.home.join("profiles/default/outbox")
    }
}

/// SIGKILL to a process that a test has made run. Whether it still ran.
fn kill(pid: u64) -> bool {
    std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success()
}

/// Whether some file below a folder holds these bytes.
fn holds(dir: &Path, needle: &[u8]) -> bool {
    crate::support::files::files_below(dir)
        .iter()
        .any(|f| std::fs::read(f).is_ok_and(|bytes| bytes.windows(needle.len()).any(|w| w == needle)))
}

#[test]
fn jobs_are_done_in_the_background_and_leave_nothing_behind() {
    let cluster = Cluster::start(4);
    let owner = Owner { user: &cluster.owner };
    let tree = cluster.path("secretname");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    std::fs::write(tree.join("deep/small"), b"a small file").unwrap();
    std::fs::write(tree.join("large"), noise(1, 9 << 20)).unwrap();
    std::os::unix::fs::symlink("large", tree.join("link")).unwrap();
    let queued = owner.user.json(&["put", "--background", "-r", text(&tree), "/"]);
    assert_eq!((&queued["files"], queued["bytes"].as_u64()), (&3.into(), Some((9 << 20) + 12)));
    // Standard input has no other copy: it is spooled, sealed, or refused.
    owner.user.run_with_input(&["put", "--background", "-", "/typed"], b"typed by hand").exits(2);
    owner.user.ok(&["queue", "pause"]);
    let spooled = owner.user.run_with_input(&["--json", "put", "--background", "--spool", "-", "/typed"], b"typed by hand").ok().json();
    assert_eq!(spooled["spooled"], true);
    for needle in [&b"typed"[..], b"secretname", b"small"] {
        assert!(!holds(&owner.outbox(), needle), "{:?} lies in the outbox in the clear", String::from_utf8_lossy(needle));
    }
    owner.user.ok(&["queue", "resume"]);
    owner.wait_until_empty(60);
    assert_eq!(owner.user.read("/typed"), b"typed by hand");
    assert_eq!(owner.user.read("/secretname/deep/small"), b"a small file");
    assert!(owner.user.read("/secretname/large") == noise(1, 9 << 20));
    assert_eq!(owner.user.json(&["stat", "/secretname/link"])["target"], "large");
    // The agent ends by itself, and no job's file is left.
    until("the agent has ended", 20, || owner.queue()["agent"].is_null());
    let left: Vec<_> = std::fs::read_dir(owner.outbox()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| name == "lock" || name == "adding"), "{left:?}");
}

#[test]
fn a_killed_agent_is_followed_by_one_that_goes_on_where_it_was() {
    let cluster = Cluster::start(4);
    let owner = Owner { user: &cluster.owner };
    let tree = cluster.path("many");
    std::fs::create_dir(&tree).unwrap();
    for i in 0..40u64 {
        std::fs::write(tree.join(format!("{i}")), noise(i, 200_000)).unwrap();
    }
    let large = noise(99, 120 << 20);
    std::fs::write(tree.join("large"), &large).unwrap();
    owner.user.ok(&["put", "--background", "--spool", "-r", text(&tree), "/"]);
    std::fs::remove_dir_all(&tree).unwrap();
    let mut killed = 0;
    for _ in 0..3 {
        let mut empty = false;
        until("an agent is at it", 30, || {
            let queue = owner.queue();
            // A fast machine may be done before the third.
            empty = queue["jobs"].as_array().is_some_and(Vec::is_empty);
            empty || queue["agent"].as_u64().is_some() && queue["jobs"][0]["bytes_done"].as_u64().unwrap_or(0) > 0
        });
        std::thread::sleep(Duration::from_millis(400));
        if let Some(pid) = owner.queue()["agent"].as_u64().filter(|_| !empty) {
            killed += u32::from(kill(pid));
        }
    }
    assert!(killed > 0);
    // 'queue list' has started the next one.
    owner.wait_until_empty(120);
    assert!(owner.user.read("/many/large") == large);
    for i in 0..40u64 {
        let path = format!("/many/{i}");
        assert!(owner.user.read(&path) == noise(i, 200_000));
        assert_eq!(owner.user.json(&["stat", &path])["version"], 1, "stored once");
    }
    assert_eq!(owner.user.json(&["stat", "/many/large"])["version"], 1);
}

#[test]
fn jobs_wait_while_the_cluster_is_away() {
    let mut cluster = Cluster::start(4);
    let file = cluster.path("file");
    std::fs::write(&file, b"patience").unwrap();
    cluster.kill_coordinator();
    let user = cluster.owner.clone();
    let owner = Owner { user: &user };
    // No server is needed to queue.
    owner.user.ok(&["put", "--background", text(&file), "/file"]);
    until("the agent has tried", 90, || owner.jobs()[0]["tries"].as_u64().unwrap() > 0);
    let job = owner.wait_for("waiting");
    assert!(job["next"].is_string() && job["reason"].as_str().unwrap().contains("coordinator"), "{job}");
    cluster.start_coordinator();
    owner.user.ok(&["queue", "retry"]);
    owner.wait_until_empty(60);
    assert_eq!(owner.user.read("/file"), b"patience");
}

#[test]
fn a_source_that_changed_is_not_stored_unless_told() {
    let cluster = Cluster::start(4);
    let owner = Owner { user: &cluster.owner };
    let file = cluster.path("file");
    std::fs::write(&file, b"as it was").unwrap();
    // Nobody is at it until the file has changed: another process holds the agent's place.
    let mut agent = owner.user.start(&["queue", "run"]);
    until("the agent runs", 20, || owner.queue()["agent"].as_u64().is_some());
    terminate(agent.pid());
    until("it has ended", 10, || agent.has_ended());
    let queued = owner.user.json(&["put", "--background", text(&file), "/file"]);
    owner.user.ok(&["queue", "pause"]);
    let done = owner.jobs().is_empty();
    std::fs::write(&file, b"and as it is").unwrap();
    owner.user.ok(&["queue", "resume"]);
    if !done {
        let job = owner.wait_for("failed");
        assert_eq!(job["job"], queued["queued"]);
        assert!(job["reason"].as_str().unwrap().contains("has changed since it was queued"), "{job}");
        owner.user.run(&["stat", "/file"]).exits(3);
        owner.user.ok(&["queue", "retry"]);
        owner.wait_for("failed");
        owner.user.ok(&["queue", "retry", "--as-is", queued["queued"].as_str().unwrap()]);
        owner.wait_until_empty(60);
        assert_eq!(owner.user.read("/file"), b"and as it is");
    }
    // A job is taken back before it is done.
    std::fs::write(cluster.path("other"), noise(1, 60 << 20)).unwrap();
    let queued = owner.user.json(&["put", "--background", text(&cluster.path("other")), "/other"]);
    owner.user.ok(&["queue", "remove", queued["queued"].as_str().unwrap()]);
    assert_eq!(owner.jobs(), [Value::Null; 0]);
    owner.user.run(&["queue", "remove", "ffff"]).exits(3);
}

/// A job of one account is never done by another that logs in on the same profile, nor read by it; damage
/// hides no other job.
#[test]
fn jobs_belong_to_whoever_queued_them() {
    let cluster = Cluster::start(4);
    let owner = Owner { user: &cluster.owner };
    let invite = owner.user.json(&["cluster", "invite", "bea"])["invite"].as_str().unwrap().to_string();
    let bea = cluster.user("bea");
    bea.ok(&["register", &invite]);
    let file = cluster.path("file");
    std::fs::write(&file, b"the owner's").unwrap();
    let mine = owner.user.json(&["put", "--background", text(&file), "/file"]);
    owner.wait_until_empty(60);
    owner.user.ok(&["rm", "/file"]);
    // An agent that stays, and somebody else who takes the owner's seat.
    let mut agent = owner.user.start(&["queue", "run"]);
    until("the agent runs", 20, || owner.queue()["agent"].as_u64() == Some(agent.pid().into()));
    owner.user.ok(&["queue", "pause"]);
    let paused = owner.user.json(&["put", "--background", text(&file), "/file"]);
    assert_ne!(mine["queued"], paused["queued"]);
    owner.wait_until_empty(60);
    let info = |user: &User| user.json(&["whoami"]);
    let (address, fingerprint) = (cluster.address.clone(), cluster.fingerprint.clone());
    owner.user.ok(&["login", "--user", "bea", "--coordinator", &address, "--fingerprint", &fingerprint]);
    assert_eq!(info(owner.user)["account"], "bea");
    owner.user.ok(&["put", "--background", text(&file), "/hers"]);
    owner.wait_until_empty(60);
    assert_eq!(bea.read("/hers"), b"the owner's", "into the tree of whoever is logged in");
    // What is damaged is shown as such, and can be removed.
    owner.user.ok(&["queue", "pause"]);
    std::fs::write(owner.outbox().join("00000000.job"), b"nonsense").unwrap();
    assert_eq!(owner.jobs()[0]["state"], "foreign");
    owner.user.ok(&["queue", "remove", "00000000"]);
    assert_eq!(owner.jobs().len(), 0);
    terminate(agent.pid());
    until("it has ended", 10, || agent.has_ended());
}
