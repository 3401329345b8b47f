//! Files go in and come back, whole and in ranges; servers die, and they still do.

use crate::support::evil::Evil;
use crate::support::{Cluster, PASSWORD, Tell, at, noise, policy};
use client::{Client, ClientOptions, Put, PutOptions, Source};
use model::Kind;
use std::path::Path;
use std::sync::Arc;
use wire::Rpc;

const CHUNK: usize = model::chunk::CHUNK_SIZE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_all_sizes_come_back_byte_for_byte() {
    let (_cluster, owner) = Cluster::start(4).await;
    for (i, len) in [0, 1, 4096, 4097, 16384, 100_000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 77].into_iter().enumerate() {
        let bytes = noise(i as u64, len);
        let path = format!("/file-{len}");
        let report = owner.put_bytes(&path, bytes.clone()).await.unwrap();
        assert_eq!((report.files, report.bytes, report.degraded), (1, len as u64, false));
        assert!(owner.read(&path).await.unwrap() == bytes, "{len} bytes differ");
        let entry = owner.stat(&at(&path)).await.unwrap();
        assert_eq!((entry.size, entry.version, entry.inline), (len as u64, 1, len <= 4096));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_those_of_the_file() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let bytes = noise(7, 2 * CHUNK + 100_000);
    owner.put_bytes("/big", bytes.clone()).await.unwrap();
    let entry = owner.stat(&at("/big")).await.unwrap();
    let ranges = [
        0..1,
        5..5,
        16_383..16_385,
        CHUNK - 10..CHUNK + 10,
        CHUNK / 2 - 3..CHUNK / 2 + 70_000,
        2 * CHUNK..2 * CHUNK + 100_000,
        100..2 * CHUNK + 5,
    ];
    for down in [None, Some(0), Some(2)] {
        if let Some(i) = down {
            cluster.stop_node(i).await;
        }
        let reader = owner.open_file(&entry).await.unwrap();
        for range in &ranges {
            let read = reader.read(range.start as u64..range.end as u64).await.unwrap();
            assert!(read == bytes[range.clone()], "{range:?} differs with {down:?} down");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_of_four_servers_may_die_and_a_third_is_named() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let bytes = noise(1, 3 * CHUNK);
    owner.put_bytes("/photo", bytes.clone()).await.unwrap();
    owner.put_bytes("/note", b"short".to_vec()).await.unwrap();
    let mut dead = vec![cluster.stop_node(1).await, cluster.stop_node(3).await];
    assert!(owner.read("/photo").await.unwrap() == bytes);
    dead.push(cluster.stop_node(0).await);
    let e = owner.read("/photo").await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable);
    for node in &dead {
        assert!(e.message.contains(&format!("node-{node}")), "'{}' does not name node-{node}", e.message);
    }
    // Inline files need no shard.
    assert_eq!(owner.read("/note").await.unwrap(), b"short");
    for i in [0, 1, 3] {
        cluster.start_node(i, None).await.unwrap();
    }
    assert!(owner.read("/photo").await.unwrap() == bytes);
}

/// A failed download said "a server answered something that was not asked" (corrupt): other chunks'
/// tasks still held the local file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_cannot_be_is_unavailable_and_leaves_nothing() {
    let (mut cluster, owner) = Cluster::start(4).await;
    owner.put_bytes("/photo", noise(1, 3 * CHUNK)).await.unwrap();
    for i in [0, 1, 3] {
        cluster.stop_node(i).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let get = client::Get { remote: at("/photo"), local: dir.path().join("photo") };
    let report = owner.get(vec![get], false, Arc::new(())).await.unwrap();
    assert_eq!((report.files, report.failed.len()), (0, 1));
    assert_eq!(report.failed[0].1.kind, Kind::Unavailable, "{}", report.failed[0].1);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_server_down_writes_go_on_and_say_so() {
    let (mut cluster, owner) = Cluster::start(4).await;
    cluster.stop_node(2).await;
    let bytes = noise(1, CHUNK + 5);
    let report = owner.put_bytes("/a", bytes.clone()).await.unwrap();
    assert!(report.degraded);
    assert!(owner.read("/a").await.unwrap() == bytes);
    let verified = owner.verify(&at("/a"), false, true, Arc::new(())).await.unwrap();
    assert_eq!((verified.chunks, verified.degraded, verified.lost), (2, 2, 0));
    // With two down the write quorum of three is gone.
    cluster.stop_node(0).await;
    let refused = owner.put_bytes("/b", noise(2, CHUNK)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert_eq!(owner.stat(&at("/b")).await.err().unwrap().kind, Kind::NotFound, "what was not acknowledged is not there");
    let settle = PutOptions { allow_degraded: true, ..PutOptions::default() };
    let put = vec![Put { source: Source::Bytes(noise(3, CHUNK)), remote: at("/c") }];
    let report = owner.put(put, settle, Arc::new(())).await.unwrap();
    assert!(report.degraded && report.failed.is_empty());
    assert!(owner.read("/c").await.unwrap() == noise(3, CHUNK));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_04_a_mirror_goes_on_writing_with_one_server_down() {
    let (mut cluster, owner) = Cluster::start_with(2, policy("1+1").unwrap()).await;
    cluster.stop_node(1).await;
    let report = owner.put_bytes("/a", noise(1, CHUNK + 5)).await.unwrap();
    assert!(report.degraded, "one copy of two is not what was asked for");
    assert!(owner.read("/a").await.unwrap() == noise(1, CHUNK + 5));
    cluster.stop_node(0).await;
    assert_eq!(owner.put_bytes("/b", noise(2, CHUNK)).await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trees_keep_names_modes_times_and_links() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let (_cluster, owner) = Cluster::start(4).await;
    let from = tempfile::tempdir().unwrap();
    let root = from.path().join("tree");
    std::fs::create_dir_all(root.join("deep/er/est")).unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    for i in 0..300 {
        std::fs::write(root.join(format!("deep/file {i:03} ü.txt")), noise(i, (i * 50) as usize)).unwrap();
    }
    std::fs::write(root.join("deep/er/est/big"), noise(99, 2 * CHUNK)).unwrap();
    std::fs::write(root.join("run"), b"#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o751)).unwrap();
    symlink("deep/er", root.join("link")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    std::fs::File::options().write(true).open(root.join("run")).unwrap().set_modified(old).unwrap();

    let report = owner.put_path(&root, "/tree", PutOptions::default()).await.unwrap();
    assert_eq!(report.files, 303);
    let to = tempfile::tempdir().unwrap();
    let back = to.path().join("back");
    owner.get_path("/tree", &back).await.unwrap();
    let same = std::process::Command::new("diff").args(["-r", "--no-dereference"]).arg(&root).arg(&back).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    let meta = std::fs::metadata(back.join("run")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o751);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert_eq!(std::fs::read_link(back.join("link")).unwrap(), Path::new("deep/er"));
    assert!(back.join("empty").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_can_be_changed_in_every_way() {
    let (mut cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/a/b/c"), true).await.unwrap();
    assert_eq!(owner.mkdir(&at("/a/b/c"), false).await.unwrap_err().kind, Kind::Exists);
    assert_eq!(owner.mkdir(&at("/x/y"), false).await.unwrap_err().kind, Kind::NotFound);
    owner.put_bytes("/a/b/one", noise(1, 50_000)).await.unwrap();
    owner.put_bytes("/a/b/one", noise(2, 50_000)).await.unwrap();
    assert!(owner.read("/a/b/one").await.unwrap() == noise(2, 50_000));
    assert_eq!(owner.stat(&at("/a/b/one")).await.unwrap().version, 2);
    owner.rename(&at("/a/b"), &at("/moved")).await.unwrap();
    assert!(owner.read("/moved/one").await.unwrap() == noise(2, 50_000));
    assert_eq!(owner.stat(&at("/a/b")).await.err().unwrap().kind, Kind::NotFound);
    assert_eq!(owner.rename(&at("/moved"), &at("/moved/c/in")).await.unwrap_err().kind, Kind::Invalid);
    owner.copy(&at("/moved"), &at("/copy"), true).await.unwrap();
    owner.remove(&at("/moved"), true, false).await.unwrap();
    assert!(owner.read("/copy/one").await.unwrap() == noise(2, 50_000));
    assert_eq!(owner.names("/").await, ["a", "copy"]);
    cluster.restart_coordinator().await;
    assert_eq!(owner.names("/copy").await, ["c", "one"]);
    assert!(owner.read("/copy/one").await.unwrap() == noise(2, 50_000));
    owner.remove(&at("/copy/one"), false, true).await.unwrap();
    assert_eq!(owner.read("/copy/one").await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_survives_its_losses() {
    let (mut cluster, owner) = Cluster::start_with(6, policy("4+2").unwrap()).await;
    for text in ["1+0", "1+1", "1+2", "2+1", "2+2", "4+2"] {
        let options = PutOptions { policy: policy(text), ..PutOptions::default() };
        let put = vec![Put { source: Source::Bytes(noise(5, CHUNK + 999)), remote: at(&format!("/{text}")) }];
        let report = owner.put(put, options, Arc::new(())).await.unwrap();
        assert!(report.failed.is_empty() && !report.degraded, "{text}: {report:?}");
    }
    cluster.stop_node(5).await;
    for text in ["1+1", "1+2", "2+1", "2+2", "4+2"] {
        assert!(owner.read(&format!("/{text}")).await.unwrap() == noise(5, CHUNK + 999), "{text}");
    }
    cluster.stop_node(0).await;
    for text in ["1+2", "2+2", "4+2"] {
        assert!(owner.read(&format!("/{text}")).await.unwrap() == noise(5, CHUNK + 999), "{text}");
    }
}

/// Nodes that came after the first layout are not in use before an operator adds them: the refusal said
/// that none was missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_too_wide_says_which_nodes_wait_to_be_added() {
    let (mut cluster, owner) = Cluster::start(4).await;
    owner.put_bytes("/a", noise(1, 5000)).await.unwrap();
    cluster.join(&owner).await;
    let options = PutOptions { policy: policy("4+2"), ..PutOptions::default() };
    let put = vec![Put { source: Source::Bytes(noise(5, CHUNK)), remote: at("/wide") }];
    let e = owner.put(put, options, Arc::new(())).await.unwrap().failed.remove(0).1;
    assert_eq!(e.kind, Kind::Unavailable);
    assert_eq!(e.message, "4 of the 6 nodes that this policy needs are in use; 1 more has joined and is not in use yet");
    assert_eq!(e.hint.as_deref(), Some("shardkeep cluster add"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_hold_no_plaintext() {
    let canary = "CANARY-7f3a-plaintext";
    let (mut cluster, owner) = Cluster::start(4).await;
    let mut long = noise(1, 100_000);
    for at in [0, 10_000, 99_000] {
        long[at..at + canary.len()].copy_from_slice(canary.as_bytes());
    }
    owner.mkdir(&at(&format!("/{canary}-folder")), false).await.unwrap();
    owner.put_bytes(&format!("/{canary}-folder/{canary}-long"), long).await.unwrap();
    owner.put_bytes(&format!("/{canary}-folder/{canary}-short"), canary.as_bytes().to_vec()).await.unwrap();
    for i in 0..4 {
        cluster.stop_node(i).await;
    }
    cluster.coordinator.take().unwrap().shutdown().await;
    let mut looked_at = 0;
    for dir in ["c", "n0", "n1", "n2", "n3"] {
        let grep =
            |what: &str| std::process::Command::new("grep").args(["-rlF", what]).arg(cluster.dir.path().join(dir)).output().unwrap().stdout;
        for secret in [canary, crate::support::PASSWORD] {
            assert_eq!(String::from_utf8_lossy(&grep(secret)), "", "'{secret}' is found on a server");
        }
        looked_at += usize::from(!grep("SK").is_empty());
    }
    assert_eq!(looked_at, 5, "the search does look at the servers' files");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_flipped_bits_are_read_around_named_and_healed() {
    let (mut cluster, owner) = Cluster::start(4).await;
    let bytes = noise(4, CHUNK);
    owner.put_bytes("/a", bytes.clone()).await.unwrap();
    // A bit in the middle of the only shard of two servers; nobody has noticed so far.
    for i in [0, 1] {
        cluster.stop_node(i).await;
        let log = cluster.node_dir(i).join("shards/log");
        let mut segments: Vec<_> = std::fs::read_dir(log).unwrap().map(|e| e.unwrap().path()).collect();
        segments.retain(|p| p.extension().is_some_and(|e| e == "seg"));
        let mut contents = std::fs::read(&segments[0]).unwrap();
        contents[1 << 20] ^= 0x40;
        std::fs::write(&segments[0], contents).unwrap();
        cluster.start_node(i, None).await.unwrap();
    }
    assert!(owner.read("/a").await.unwrap() == bytes);
    let verified = owner.verify(&at("/a"), false, true, Arc::new(())).await.unwrap();
    assert_eq!(verified.lost, 0);
    for _ in 0..100 {
        let verified = owner.verify(&at("/a"), false, true, Arc::new(())).await.unwrap();
        if verified.ok == verified.chunks && verified.corrupt == 0 {
            let events = owner.events(0).await.unwrap();
            assert!(events.iter().any(|e| e.what.contains("shard") && e.node.is_some()), "{events:?}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("the shards were not healed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logging_in_and_out_and_recovering() {
    use client::{Address, Client, Profile};
    let (cluster, owner) = Cluster::start(4).await;
    owner.put_bytes("/a", b"mine".to_vec()).await.unwrap();
    let info = owner.profile().info().unwrap();
    let address = || Some(Address { coordinator: cluster.address.clone(), fingerprint: info.fingerprint() });
    let fresh = |name: &str| -> Profile { cluster.profile(name) };
    let login = |name: &'static str, user: &'static str, password: &'static str, address| {
        Client::login(fresh(name), Some(user), address, password, ClientOptions::default())
    };
    let wrong = login("p1", "admin", "wrong password here", address()).await.err().unwrap();
    let unknown = login("p1", "nobody", "wrong password here", address()).await.err().unwrap();
    assert_eq!((wrong.kind, &wrong.message), (Kind::Denied, &unknown.message));
    let elsewhere = Address { fingerprint: model::Hash([9; 32]), ..address().unwrap() };
    assert_eq!(login("p1", "admin", crate::support::PASSWORD, Some(elsewhere)).await.err().unwrap().kind, Kind::Denied);
    let second = login("p1", "admin", crate::support::PASSWORD, address()).await.unwrap();
    assert_eq!(second.read("/a").await.unwrap(), b"mine");
    second.change_password(crate::support::PASSWORD, "another long passphrase 42").await.unwrap();
    assert_eq!(owner.read("/a").await.err().unwrap().kind, Kind::Denied, "other sessions end");
    assert_eq!(login("p2", "admin", crate::support::PASSWORD, address()).await.err().unwrap().kind, Kind::Denied);
    let third = login("p2", "admin", "another long passphrase 42", address()).await.unwrap();
    assert_eq!(third.whoami().await.unwrap().account, "admin");
    third.logout().await.unwrap();
    assert_eq!(Client::open(fresh("p2"), ClientOptions::default()).await.err().unwrap().kind, Kind::Denied);

    let (invite, _) = second_session(&cluster, address())
        .await
        .create_invite("bea", false, Some(1 << 20), std::time::Duration::from_secs(60))
        .await
        .unwrap();
    let (bea, words) = Client::register(fresh("bea"), &invite, crate::support::PASSWORD, ClientOptions::default()).await.unwrap();
    assert_eq!(
        Client::register(fresh("bea2"), &invite, crate::support::PASSWORD, ClientOptions::default()).await.err().unwrap().kind,
        Kind::Denied
    );
    bea.put_bytes("/b", b"hers".to_vec()).await.unwrap();
    assert_eq!(bea.put_bytes("/c", noise(1, 1 << 20)).await.unwrap_err().kind, Kind::Insufficient, "the quota holds");
    let again = Client::recover(fresh("bea3"), "bea", address(), &words, "a fresh start, 1234", ClientOptions::default()).await.unwrap();
    assert_eq!(again.read("/b").await.unwrap(), b"hers");
    assert_eq!(bea.read("/b").await.err().unwrap().kind, Kind::Denied);
    assert_eq!(again.read("/a").await.unwrap_err().kind, Kind::NotFound);
}

async fn second_session(cluster: &Cluster, address: Option<client::Address>) -> client::Client {
    client::Client::login(cluster.profile("p9"), Some("admin"), address, "another long passphrase 42", ClientOptions::default())
        .await
        .unwrap()
}

/// Object, number and salt of a chunk.
type Sealed = (u32, u32, Vec<u8>);

/// What an upload's journal says: the objects begun, and of each chunk its object, number and salt.
fn journal(home: &Path) -> (Vec<Vec<u8>>, Vec<Sealed>) {
    let (mut objects, mut chunks) = (Vec::new(), Vec::new());
    let Ok(dir) = std::fs::read_dir(home.join("profiles/admin/transfers")) else { return (objects, chunks) };
    let bytes = dir.map(|e| std::fs::read(e.unwrap().path()).unwrap()).next().unwrap_or_default();
    let mut rest = &bytes[..];
    let mut first = true;
    while rest.len() > 12 {
        let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let Some(body) = rest.get(12..12 + len) else { break };
        rest = &rest[12 + len..];
        if std::mem::take(&mut first) {
            continue;
        }
        let mut d = minicbor::Decoder::new(body);
        d.array().unwrap();
        let is_chunk = d.u8().unwrap() == 1;
        d.array().unwrap();
        d.array().unwrap();
        if is_chunk {
            let (object, number, _) = (d.u32().unwrap(), d.u32().unwrap(), d.u32().unwrap());
            d.bytes().unwrap();
            chunks.push((object, number, d.bytes().unwrap()[..24].to_vec()));
        } else {
            objects.push(d.bytes().unwrap().to_vec());
        }
    }
    (objects, chunks)
}

/// An upload is cut off while some chunks are sealed and under way: what goes on seals nothing again under
/// an id that was used, and no salt comes twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_10_an_interrupted_upload_never_seals_twice_under_one_id() {
    let (cluster, owner) = Cluster::start(4).await;
    let file = cluster.dir.path().join("large");
    let bytes = noise(5, 24 * CHUNK);
    std::fs::write(&file, &bytes).unwrap();
    let home = cluster.dir.path().join("home");
    let mut seen: Vec<(Vec<u8>, u32, Vec<u8>)> = Vec::new();
    for round in 1..=2 {
        let before = journal(&home).1.len();
        let (owner, file) = (owner.clone(), file.clone());
        let put = tokio::spawn(async move { owner.put_path(&file, "/large", PutOptions::default()).await.map(|_| ()) });
        while journal(&home).1.len() < before + 3 {
            assert!(!put.is_finished(), "the upload ended before it was cut off");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        put.abort();
        let _ = put.await;
        let (objects, chunks) = journal(&home);
        assert_eq!(objects.len(), round, "a fresh object each time");
        seen = chunks.into_iter().map(|(object, number, salt)| (objects[object as usize].clone(), number, salt)).collect();
    }
    let distinct = |n: usize| assert_eq!(n, seen.len(), "{seen:?}");
    distinct(seen.iter().map(|(o, n, _)| (o, n)).collect::<std::collections::BTreeSet<_>>().len());
    distinct(seen.iter().map(|(_, _, salt)| salt).collect::<std::collections::BTreeSet<_>>().len());
    owner.put_path(&file, "/large", PutOptions::default()).await.unwrap();
    assert!(owner.read("/large").await.unwrap() == bytes);
    assert_eq!(owner.stat(&at("/large")).await.unwrap().version, 1);
}

/// An upload that was cut off before its first chunk was stored left an object without chunks in its journal.
/// The next try did not count that one, the try after did, and took the chunks of one object for those of
/// another: the file was committed and could not be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_cut_off_before_its_first_chunk_is_whole_in_the_end() {
    let (cluster, owner) = Cluster::start(4).await;
    let file = cluster.dir.path().join("large");
    let bytes = noise(6, 24 * CHUNK);
    std::fs::write(&file, &bytes).unwrap();
    let home = cluster.dir.path().join("home");
    for wanted in [0, 3] {
        let objects = journal(&home).0.len();
        let (owner, file) = (owner.clone(), file.clone());
        let put = tokio::spawn(async move { owner.put_path(&file, "/large", PutOptions::default()).await.map(|_| ()) });
        while journal(&home).0.len() == objects || journal(&home).1.len() < wanted {
            assert!(!put.is_finished(), "the upload ended before it was cut off");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        put.abort();
        let _ = put.await;
    }
    assert_eq!(journal(&home).0.len(), 2);
    owner.put_path(&file, "/large", PutOptions::default()).await.unwrap();
    assert!(owner.read("/large").await.unwrap() == bytes);
}

/// Places were looked up for each of them by itself, one after another, and each made a commit of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_puts_of_one_call_are_looked_up_and_committed_together() {
    let (cluster, owner) = Cluster::start(1).await;
    let between = Evil::start(&cluster, &owner).await;
    let name = owner.whoami().await.unwrap().account;
    let owner = Client::login(cluster.profile("other"), Some(&name), between.at(&owner), PASSWORD, ClientOptions::default()).await.unwrap();
    owner.mkdir(&at("/many"), false).await.unwrap();
    owner.put_bytes("/many/7", b"before".to_vec()).await.unwrap();
    let calls = || between.calls(wire::coordinator::Ask::PATH) + between.calls(wire::coordinator::Propose::PATH);
    let before = calls();
    let put = |i: usize| Put { source: Source::Bytes(format!("file {i}").into_bytes()), remote: at(&format!("/many/{i}")) };
    let report = owner.put((0..1000).map(put).collect(), PutOptions::default(), Arc::new(())).await.unwrap();
    assert!(report.failed.is_empty() && report.files == 1000, "{:?}", report.failed);
    assert!(calls() - before < 100, "{} requests for 1,000 files of one folder", calls() - before);
    assert_eq!(owner.names("/many").await.len(), 1000);
    assert_eq!(owner.read("/many/7").await.unwrap(), b"file 7");
    assert_eq!(owner.stat(&at("/many/7")).await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_puts_to_one_name_in_one_call_the_first_is_stored_and_the_second_told() {
    let (cluster, owner) = Cluster::start(1).await;
    let (a, b) = (cluster.dir.path().join("a/photos"), cluster.dir.path().join("b/photos"));
    for (dir, file) in [(&a, "one"), (&b, "two")] {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(file), file).unwrap();
        std::fs::write(dir.join("both"), file).unwrap();
    }
    let put = |dir: &Path| Put { source: Source::Path(dir.into()), remote: at("/photos") };
    let report = owner.put(vec![put(&a), put(&b)], PutOptions::default(), Arc::new(())).await.unwrap();
    assert_eq!((report.files, report.failed.len()), (3, 1), "{:?}", report.failed);
    let (path, error) = &report.failed[0];
    assert_eq!((path.as_str(), error.kind), ("/photos/both", Kind::Exists));
    assert_eq!(owner.names("/photos").await, ["both", "one", "two"]);
    assert_eq!(owner.read("/photos/both").await.unwrap(), b"one");
}
