//! What is refused, how plainly that is said, and what stays secret.

use crate::support::files::{holding, noise};
use crate::support::{Cluster, PASSWORD, Server, User, program, run, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn who_does_not_belong_here_is_told_so_plainly() {
    let mut cluster = Cluster::start(4);
    let (address, fingerprint) = (cluster.address.clone(), cluster.fingerprint.clone());
    let login = |user: &User, name: &str, fingerprint: &str| {
        user.run(&["--json", "login", "--user", name, "--coordinator", &address, "--fingerprint", fingerprint])
    };
    // Nothing tells an account that exists from one that does not.
    let stranger = User::with_password(cluster.dir.path(), "stranger", "not the right password");
    let wrong = login(&stranger, "admin", &fingerprint).exits(4).error();
    let unknown = login(&stranger, "nobody", &fingerprint).exits(4).error();
    assert_eq!(wrong, unknown);
    assert_eq!(wrong["kind"], "denied");
    assert!(!stranger.home.join("profiles/default/session").exists());

    // Another cluster answers at this address than the one that was meant.
    let other = "0".repeat(63) + "1";
    let elsewhere = login(&cluster.user("elsewhere"), "admin", &other).exits(4).error();
    assert!(
        elsewhere["message"].as_str().unwrap().contains("fingerprint") || elsewhere["message"].as_str().unwrap().contains("cluster"),
        "{elsewhere}"
    );
    login(&cluster.user("second"), "admin", &fingerprint).ok();

    // Commands without a session.
    let nobody = cluster.user("nobody");
    let ran = nobody.run(&["ls", "/"]);
    assert!(ran.code == 4 || ran.code == 3, "{ran:?}");
    assert!(ran.err.contains("register") || ran.err.contains("login"), "{}", ran.err);

    // Tokens and invites: too old, used up, changed.
    let owner = cluster.owner.clone();
    let old = owner.json(&["cluster", "token", "node", "--expires", "1s"])["token"].as_str().unwrap().to_string();
    let old_invite = owner.json(&["cluster", "invite", "bea", "--expires", "1s"])["invite"].as_str().unwrap().to_string();
    let invite = owner.json(&["cluster", "invite", "carl"])["invite"].as_str().unwrap().to_string();
    cluster.user("carl").ok(&["register", &invite]);
    let again = cluster.user("carl2").run(&["--json", "register", &invite]).exits(4).error();
    assert_eq!(again["kind"], "denied");
    std::thread::sleep(Duration::from_millis(1500));
    cluster.user("bea").run(&["register", &old_invite]).exits(4);
    let used = std::fs::read_to_string(cluster.path("token-0")).unwrap();
    let mut changed = owner.json(&["cluster", "token", "node"])["token"].as_str().unwrap().to_string();
    let at = changed.len() / 2;
    let other = if changed.as_bytes()[at] == b'a' { "b" } else { "a" };
    changed.replace_range(at..at + 1, other);
    for (what, token) in [("old", old.as_str()), ("used", used.trim()), ("changed", &changed), ("garbage", "SKJ1-garbage")] {
        let mut command = program();
        command.args(["--json", "serve", "node", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--join", token]);
        command.arg("--dir").arg(cluster.path(&format!("refused-{what}")));
        let Err(ran) = Server::start(command, &cluster.logs(), what) else { panic!("a node joined with a token that is {what}") };
        let expected: &[i32] = if matches!(what, "old" | "used") { &[4] } else { &[1, 4] };
        assert!(expected.contains(&ran.code), "{what}: {ran:?}");
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
    }
    // A folder that belongs to no node, and no token.
    let mut command = program();
    command.args(["--json", "serve", "node", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--dir", text(&cluster.path("none"))]);
    let Err(ran) = Server::start(command, &cluster.logs(), "none") else { panic!("a node joined without a token") };
    assert_eq!(ran.exits(4).error()["hint"], "shardkeep cluster token node");
    // The same folder twice.
    let dir = cluster.node_dir(0);
    let mut command = program();
    command.args(["--json", "serve", "node", "--until-stdin-ends", "--listen", "127.0.0.1:0", "--dir", text(&dir)]);
    let Err(ran) = Server::start(command, &cluster.logs(), "twice") else { panic!("two processes use one folder") };
    ran.exits(7);
    assert!(cluster.servers().all(|s| s.is_alive()));

    // Not an admin, and out of space of one's own.
    let invite = owner.json(&["cluster", "invite", "dora", "--quota", "100K"])["invite"].as_str().unwrap().to_string();
    let dora = cluster.user("dora");
    dora.ok(&["register", &invite]);
    dora.run(&["cluster", "token", "node"]).exits(4);
    dora.run_with_input(&["put", "-", "/a"], &noise(1, 300_000)).exits(8);
    dora.run(&["ls", "/a"]).exits(3);
    // Logged out is out.
    dora.ok(&["logout"]);
    dora.run(&["ls", "/"]).exits(4);
    dora.ok(&["login"]);
    dora.ok(&["ls", "/"]);
}

#[test]
fn exit_codes_say_what_kind_of_failure_it_is() {
    let cluster = Cluster::start(4);
    let owner = &cluster.owner;
    owner.run_with_input(&["put", "-", "/a"], b"one").ok();
    owner.ok(&["mkdir", "/d"]);
    for (args, code) in [
        (&["ls", "/no"][..], 3),
        (&["cat", "/no"], 3),
        (&["get", "/no", "x"], 3),
        (&["rm", "/no"], 3),
        (&["mkdir", "/no/d"], 3),
        (&["mv", "/no", "/b"], 3),
        (&["put", "/does/not/exist", "/"], 3),
        (&["mkdir", "/d"], 7),
        (&["cp", "/d", "/e"], 2),
        (&["rm", "/"], 2),
        (&["put", "/etc", "/"], 2),
        (&["cat", "-", "x"], 2),
        (&["cat", "--range", "7-3", "/a"], 2),
        (&["ls", "/../x"], 2),
        (&["nonsense"], 2),
        (&["put"], 2),
        (&["put", "--policy", "0+1", "x", "/"], 2),
        (&["cluster", "token", "node", "--expires", "soon"], 2),
        (&["serve", "node", "--dir", "x", "--listen", "nowhere"], 2),
    ] {
        let ran = owner.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{args:?}: {ran:?}");
        let ran = owner.run(&[&["--json"], args].concat()).exits(code);
        let error = ran.error();
        for field in ["kind", "message", "node", "hint"] {
            assert!(error.get(field).is_some(), "{args:?}: no '{field}' in {error}");
        }
    }
    let both = owner.run(&["stat", "/a", "/no"]).exits(3);
    assert!(both.out.contains("/a") && both.err.contains("/no"), "what is there is told all the same");
    // Taken names.
    owner.run_with_input(&["put", "--if-absent", "-", "/a"], b"two").exits(7);
    owner.run_with_input(&["put", "-", "/b"], b"two").ok();
    owner.run(&["mv", "/b", "/a"]).exits(7);
    owner.run(&["cp", "/b", "/a"]).exits(7);
    assert_eq!(owner.read("/a"), b"one");
    owner.run(&["rm", "/d/x", "/b"]).exits(3);
    owner.run(&["stat", "/b"]).exits(3);
    // Somebody who has registered already.
    let invite = owner.json(&["cluster", "invite", "eva"])["invite"].as_str().unwrap().to_string();
    owner.run(&["register", &invite]).exits(7);
    let weak = User::with_password(cluster.dir.path(), "eva", "eva");
    weak.run(&["register", &invite]).exits(1);
    User::new(cluster.dir.path(), "eva").ok(&["register", &invite]);
    // No server at all.
    let ran = run(&[
        "--json",
        "--home",
        text(&cluster.path("none")),
        "login",
        "--user",
        "x",
        "--coordinator",
        "127.0.0.1:1",
        "--fingerprint",
        &cluster.fingerprint,
        "--password-file",
        text(&owner.password_file),
    ]);
    assert_eq!(ran.exits(5).error()["kind"], "unavailable");
}

/// Sends bytes and reads what comes until the peer closes or falls silent.
fn send(address: &str, bytes: &[u8], wait: Duration) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Vec::new() };
    stream.set_read_timeout(Some(wait)).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    // The peer may close before it has all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn garbage_on_every_port_is_refused_and_costs_nothing() {
    let mut cluster = Cluster::start(4);
    let owner = cluster.owner.clone();
    let bytes = noise(9, 300_000);
    owner.run_with_input(&["put", "-", "/a"], &bytes).ok();
    let addresses: Vec<String> = cluster.servers().map(|s| s.address().to_string()).collect();
    let before: Vec<u64> = cluster.servers().map(|s| s.memory()).collect();

    // The beginning of a TLS hello that promises much, and one of another version.
    let mut promise = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    promise.extend(noise(5, 500));
    let pieces: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0".to_vec(),
        b"SSH-2.0-OpenSSH_9.0\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        vec![0x16, 3, 1, 0xff, 0xff],
        vec![0x15, 3, 3, 0, 2, 1, 0],
        promise,
    ];
    std::thread::scope(|scope| {
        for address in &addresses {
            let pieces = &pieces;
            scope.spawn(move || {
                for round in 0..15u64 {
                    for piece in pieces {
                        let answer = send(address, piece, Duration::from_millis(20));
                        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{address} answers strangers");
                    }
                    for seed in 0..6 {
                        send(address, &noise(1000 * round + seed + 1, 60_000), Duration::from_millis(5));
                    }
                }
            });
        }
    });
    // Many that connect and say nothing; the servers go on serving.
    let silent: Vec<_> = addresses.iter().flat_map(|a| (0..60).filter_map(move |_| TcpStream::connect(a).ok())).collect();
    assert!(silent.len() > 100);
    assert!(owner.read("/a") == bytes);
    owner.run_with_input(&["put", "-", "/b"], &bytes).ok();
    drop(silent);

    // A right TLS hello of somebody without a certificate: openssl is asked where it is installed.
    for address in &addresses {
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-connect", address, "-alpn", "h2"]).stdin(std::process::Stdio::null());
        let _ = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
    }
    for (server, before) in cluster.servers().zip(before) {
        assert!(server.is_alive());
        let now = server.memory();
        assert!(now < before + (64 << 20), "a server grew from {before} to {now} bytes");
    }
    assert!(owner.read("/b") == bytes);
    for file in crate::support::files::files_below(&cluster.logs()) {
        assert!(!std::fs::read_to_string(&file).unwrap().contains("panicked"), "{}", file.display());
    }
}

#[test]
fn servers_and_logs_hold_no_secret() {
    let canary = "CANARY-4c1d-plaintext";
    let mut cluster = Cluster::start(4);
    let owner = cluster.owner.clone();
    let tree = cluster.path(&format!("{canary}-tree"));
    std::fs::create_dir(&tree).unwrap();
    let mut long = noise(1, 5 << 20);
    for at in [0, 100_000, (4 << 20) + 5] {
        long[at..at + canary.len()].copy_from_slice(canary.as_bytes());
    }
    std::fs::write(tree.join(format!("{canary}-long")), long).unwrap();
    std::fs::write(tree.join(format!("{canary}-short")), canary).unwrap();
    std::os::unix::fs::symlink(canary, tree.join("link")).unwrap();
    // Everything that is printed, but for listings, which must name names.
    let mut printed = String::new();
    let mut say = |ran: crate::support::Ran| {
        let ran = ran.ok();
        printed += &ran.out;
        printed += &ran.err;
        ran
    };
    say(owner.run(&["--json", "put", "-r", text(&tree), "/"]));
    let name = format!("/{canary}-tree");
    say(owner.run(&["--json", "verify", "-r", "--deep", "/"]));
    owner.ok(&["mv", &format!("{name}/{canary}-short"), &format!("{name}/{canary}-moved")]);
    owner.ok(&["ls", "-lR", "/"]);
    let token = say(owner.run(&["--json", "cluster", "token", "node", "--expires", "10m"])).json()["token"].as_str().unwrap().to_string();
    let second = "another password, as good as it gets";
    std::fs::write(cluster.path("new"), second).unwrap();
    say(owner.run(&["-vv", "--json", "passwd", "--new-password-file", text(&cluster.path("new"))]));
    std::fs::copy(cluster.path("new"), &owner.password_file).unwrap();
    say(owner.run(&["-vv", "--json", "logout"]));
    say(owner.run(&["-vvv", "--json", "login"]));
    say(owner.run(&["-vv", "--json", "whoami"]));
    say(owner.run(&["--json", "cluster", "status"]));
    say(owner.run(&["--json", "cluster", "events"]));
    let invite = say(owner.run(&["--json", "cluster", "invite", "fred"])).json()["invite"].as_str().unwrap().to_string();
    let words = cluster.user("fred").run(&["--json", "register", &invite]).ok().json()["recovery_words"].as_str().unwrap().to_string();

    let tokens: Vec<String> = (0..4).map(|i| std::fs::read_to_string(cluster.path(&format!("token-{i}"))).unwrap()).collect();
    for i in 0..4 {
        cluster.stop_node(i);
    }
    cluster.coordinator.take().unwrap().stop();
    for secret in [canary, PASSWORD, second] {
        assert!(!printed.contains(secret), "'{secret}' was printed");
    }
    let mut secrets = vec![canary.to_string(), PASSWORD.into(), second.into(), token, invite, words];
    secrets.extend(tokens);
    let first_words: String = secrets[5].split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    secrets.push(first_words);
    let places = ["coordinator", "node-0", "node-1", "node-2", "node-3", "logs"].map(|name| cluster.path(name));
    for place in &places {
        assert!(!crate::support::files::files_below(place).is_empty());
        for secret in &secrets {
            assert_eq!(holding(place, secret.as_bytes()), Vec::<std::path::PathBuf>::new(), "'{secret}' is found");
        }
    }
    // The search does find what is there.
    assert!(places[1..5].iter().all(|p| !holding(p, b"SKR1").is_empty()));
    // Neither does the user's own folder keep the password, and nobody else may read it.
    for secret in [PASSWORD, second] {
        assert_eq!(holding(&owner.home, secret.as_bytes()), Vec::<std::path::PathBuf>::new());
    }
    use std::os::unix::fs::PermissionsExt;
    for file in crate::support::files::files_below(&owner.home) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} can be read by others", file.display());
    }
}
