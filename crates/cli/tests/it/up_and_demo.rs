//! The two ways to begin: `up`, a cluster in one process that is there again tomorrow, and `demo`,
//! which leaves nothing behind.

use crate::support::files::noise;
use crate::support::{Server, User, text};
use std::path::Path;

fn up(user: &User, dir: &Path, more: &[&str]) -> Server {
    let folder = dir.join("cluster");
    let args = [&["--json", "up", "--dir", text(&folder)], more].concat();
    Server::start(user.command(&args), &dir.join("logs"), "up").unwrap_or_else(|ran| panic!("{ran:?}"))
}

#[test]
fn up_makes_a_cluster_an_account_and_a_profile_and_keeps_them() {
    let dir = tempfile::Builder::new().prefix("shardkeep-test-").tempdir().unwrap();
    let user = User::new(dir.path(), "ada");
    let first = up(&user, dir.path(), &["--user", "ada"]);
    assert_eq!((first.ready["role"].as_str(), first.ready["account"].as_str()), (Some("up"), Some("ada")));
    assert_eq!(first.ready["recovery_words"].as_str().unwrap().split(' ').count(), 24);
    let address = first.address().to_string();
    let bytes = noise(1, 5 << 20);
    user.run_with_input(&["put", "-", "/file"], &bytes).ok();
    assert_eq!(user.json(&["whoami"])["account"], "ada");
    // Twice on one folder: refused, and the first goes on.
    let again = user.run(&["--json", "up", "--dir", text(&dir.path().join("cluster"))]);
    assert_eq!(again.code, 7, "{again:?}");
    assert!(user.read("/file") == bytes);
    assert_eq!(first.stop().0, 0);

    let second = up(&user, dir.path(), &[]);
    assert_eq!(second.address(), address, "clients look for it where it was");
    assert!(second.ready.get("recovery_words").is_none(), "they are shown once");
    assert!(user.read("/file") == bytes);
    user.run_with_input(&["put", "-", "/two"], &bytes).ok();
    second.kill();
    let third = up(&user, dir.path(), &[]);
    assert!(user.read("/two") == bytes, "also after kill -9");
    let verified = user.json(&["verify", "-r", "--deep", "/"]);
    assert_eq!(verified["ok"], verified["chunks"], "{verified}");
    assert_eq!(third.stop().0, 0);
    // A login on a machine that knows nothing of it.
    let fourth = up(&user, dir.path(), &[]);
    let fingerprint = user.json(&["whoami"])["cluster_fingerprint"].as_str().unwrap().to_string();
    let other = User::new(dir.path(), "other");
    other.ok(&["login", "--user", "ada", "--coordinator", fourth.address(), "--fingerprint", &fingerprint]);
    assert!(other.read("/file") == bytes);
}

/// Ids of processes that have this text in their command line or environment.
fn processes_with(what: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32, file: &str| {
        std::fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(what))
    };
    pids.filter(|pid| *pid != std::process::id() && (has(pid, "cmdline") || has(pid, "environ"))).collect()
}

/// Runs a demo with a temporary folder of its own: answers what it printed.
fn demo(dir: &Path, args: &[&str]) -> crate::support::Ran {
    let user = User::new(dir, "nobody");
    let temporary = dir.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = user.command(&[&["demo"], args].concat());
    command.env("TMPDIR", &temporary).env_remove("SHARDKEEP_PASSWORD_FILE");
    let ran = crate::support::Running::of(command).wait();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "a folder is left behind");
    assert_eq!(processes_with(text(&temporary)), Vec::<u32>::new(), "a process is left behind");
    assert!(!user.home.exists(), "a demo leaves the user's own folder alone");
    ran
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let dir = tempfile::Builder::new().prefix("shardkeep-test-").tempdir().unwrap();
    let ran = demo(dir.path(), &["--json"]).ok();
    let objects = ran.objects();
    assert!(objects.len() > 5, "{}", ran.out);
    let held = objects.iter().any(|o| o["same"] == true) && objects.iter().any(|o| o["failures_survivable"] == 2);
    assert!(held, "{}", ran.out);
}

#[test]
fn a_demo_of_ones_own_files_holds_and_can_be_stopped() {
    let dir = tempfile::Builder::new().prefix("shardkeep-test-").tempdir().unwrap();
    let file = dir.path().join("my file.bin");
    std::fs::write(&file, noise(1, 3_000_000)).unwrap();
    let ran = demo(dir.path(), &[text(&file)]).ok();
    assert!(ran.out.contains("my file.bin") && ran.out.contains("byte for byte"), "{}", ran.out);
    demo(dir.path(), &["/does/not/exist"]).exits(3);

    // Ctrl-C and kill -9 in the middle leave no process behind either.
    let temporary = dir.path().join("tmp");
    for hard in [false, true] {
        let user = User::new(dir.path(), "nobody");
        let mut command = user.command(&["demo"]);
        command.env("TMPDIR", &temporary);
        let running = crate::support::Running::of(command);
        crate::support::until("servers run", 20, || processes_with(text(&temporary)).len() >= 4);
        if hard {
            running.kill();
        } else {
            crate::support::terminate(running.pid());
            running.wait().exits(130);
            assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
        }
        crate::support::until("no process is left", 8, || processes_with(text(&temporary)).is_empty());
    }
}
