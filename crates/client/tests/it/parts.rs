//! Files put together of files that are there: nothing is moved, and what comes of it is a file like any other.

use crate::sharing::{cluster_of, kind, with};
use crate::support::{Cluster, Tell, at, noise, policy};
use client::{Client, Compose, Composed, Entry, Get, Progress, Put, PutOptions, Source};
use model::Kind;
use model::account::Role;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const MIB: usize = 1 << 20;

async fn entries(client: &Client, paths: &[&str]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for path in paths {
        entries.push(client.stat(&at(path)).await.unwrap());
    }
    entries
}

async fn compose(client: &Client, sources: &[Entry], to: &str, how: Compose) -> model::Result<Entry> {
    match client.compose(sources, &at(to), how).await? {
        Composed::Made(entry) => Ok(*entry),
        Composed::TooMany => panic!("too many for {to}"),
    }
}

/// Many short files, quickly: each is one chunk on one server.
async fn put_short(client: &Client, folder: &str, count: usize) -> (Vec<Entry>, Vec<u8>) {
    client.mkdir(&at(folder), true).await.unwrap();
    let bytes = |i: usize| noise(i as u64, 5000 + i % 7);
    let puts = (0..count).map(|i| Put { source: Source::Bytes(bytes(i)), remote: at(&format!("{folder}/{i:04}")) }).collect();
    let report = client.put(puts, PutOptions { policy: policy("1+0"), ..PutOptions::default() }, Arc::new(())).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let all = client.list_entries(&client.stat(&at(folder)).await.unwrap(), true).await.unwrap();
    (all, (0..count).flat_map(bytes).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_become_one_file_and_may_go() {
    let (mut cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/parts"), false).await.unwrap();
    let lens = [5 * MIB, 1, 4 * MIB, 3 << 10, 0, 5000, 5 * MIB];
    let mut bytes = Vec::new();
    for (i, len) in lens.into_iter().enumerate() {
        let part = noise(i as u64, len);
        owner.put_bytes(&format!("/parts/{i}"), part.clone()).await.unwrap();
        bytes.extend(part);
    }
    // Listed without manifests: these are asked for.
    let parts = owner.list(&at("/parts")).await.unwrap();
    let how = Compose { if_absent: true, also_purge: parts.clone(), ..Compose::default() };
    let made = compose(&owner, &parts, "/whole", how.clone()).await.unwrap();
    assert_eq!((made.version, made.size, made.chunks()), (1, bytes.len() as u64, 8));
    let entry = owner.stat(&at("/whole")).await.unwrap();
    assert_eq!((entry.id, entry.version, entry.size, entry.chunks()), (made.id, 1, bytes.len() as u64, 8));
    assert_eq!((entry.mtime_ns, entry.committed_ms, entry.policy()), (made.mtime_ns, made.committed_ms, policy("2+2")));
    assert_eq!(owner.names("/parts").await, Vec::<String>::new());
    assert!(owner.read("/whole").await.unwrap() == bytes);
    // Short parts were stored anew, padded; the others lie where they lay.
    assert!(entry.stored() > 2 * bytes.len() as u64 && entry.stored() < 2 * bytes.len() as u64 + 100_000);

    let borders = [0, 4 * MIB, 5 * MIB, 5 * MIB + 1, 9 * MIB + 1, 9 * MIB + 3073, 9 * MIB + 8073, bytes.len() - MIB, bytes.len()];
    let dir = tempfile::tempdir().unwrap();
    for down in [None, Some(1), Some(3)] {
        if let Some(i) = down {
            cluster.stop_node(i).await;
        }
        let reader = owner.open_file(&entry).await.unwrap();
        for (i, from) in borders.iter().enumerate() {
            for to in &borders[i..] {
                let (from, to) = (from.saturating_sub(2), (to + 2).min(bytes.len()));
                if to - from > 64 << 10 && to - from < 9 * MIB {
                    continue;
                }
                let read = reader.read(from as u64..to as u64).await.unwrap();
                assert!(read == bytes[from..to], "{from}..{to} differs with {down:?} down");
            }
        }
        assert_eq!(reader.read(77..77).await.unwrap(), b"");
        let local = dir.path().join(format!("{down:?}"));
        owner.get_path("/whole", &local).await.unwrap();
        assert!(std::fs::read(&local).unwrap() == bytes);
        let verified = owner.verify(&at("/whole"), false, true, Arc::new(())).await.unwrap();
        assert_eq!((verified.chunks, verified.ok, verified.lost, verified.unreadable), (8, if down.is_none() { 8 } else { 0 }, 0, 0));
        // What is written into a stream or copied elsewhere is the same.
        owner.copy(&at("/whole"), &at(&format!("/copy-{}", down.unwrap_or(0))), false).await.unwrap();
    }
    for i in [1, 3] {
        cluster.start_node(i, None).await.unwrap();
    }
    cluster.restart_coordinator().await;
    assert!(owner.read("/copy-3").await.unwrap() == bytes);
    // The parts are gone: once more they cannot be had.
    assert_eq!(kind(compose(&owner, &parts, "/again", Compose::default()).await), Kind::Conflict);
    assert_eq!(kind(compose(&owner, &parts, "/whole", how).await), Kind::Exists);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_replaced_only_as_told_and_nothing_is_kept_beside() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/folder"), false).await.unwrap();
    owner.put_bytes("/a", noise(1, 10_000)).await.unwrap();
    owner.put_bytes("/b", noise(2, 20_000)).await.unwrap();
    owner.put_bytes("/to", b"before".to_vec()).await.unwrap();
    let [a, b] = entries(&owner, &["/a", "/b"]).await.try_into().ok().unwrap();
    let both = [a.clone(), b.clone()];
    let plain = Compose::default;
    assert_eq!(kind(compose(&owner, &both, "/to", Compose { if_absent: true, ..plain() }).await), Kind::Exists);
    assert_eq!(kind(compose(&owner, &both, "/to", Compose { if_version: Some(2), ..plain() }).await), Kind::Conflict);
    assert_eq!(kind(compose(&owner, &both, "/new", Compose { if_version: Some(1), ..plain() }).await), Kind::Conflict);
    assert_eq!(kind(compose(&owner, &both, "/folder", plain()).await), Kind::Exists);
    assert_eq!(kind(compose(&owner, &both, "/nowhere/to", plain()).await), Kind::NotFound);
    assert_eq!(kind(compose(&owner, &entries(&owner, &["/folder"]).await, "/new", plain()).await), Kind::Invalid);
    let twice = vec![(b"k".to_vec(), b"1".to_vec()), (b"k".to_vec(), b"2".to_vec())];
    assert_eq!(kind(compose(&owner, &both, "/new", Compose { more: twice, ..plain() }).await), Kind::Invalid);
    assert_eq!(kind(compose(&owner, &both, "/new", Compose { also_purge: vec![a.clone(); 256], ..plain() }).await), Kind::Invalid);
    assert_eq!(owner.read("/to").await.unwrap(), b"before");

    let more = vec![(b"z".to_vec(), b"last".to_vec()), (b"a".to_vec(), b"first".to_vec())];
    let how = Compose { if_version: Some(1), mtime_ns: Some(77), more, ..plain() };
    let made = compose(&owner, &both, "/to", how).await.unwrap();
    assert_eq!((made.version, made.mtime_ns), (2, 77));
    assert!(owner.read("/to").await.unwrap() == [noise(1, 10_000), noise(2, 20_000)].concat());
    let versions = owner.versions(&at("/to")).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.number.to_string()).collect::<Vec<_>>(), ["1", "2"], "no conflict version");

    // The part that should go has changed meanwhile: nothing is done, neither this nor that.
    owner.put_bytes("/b", noise(3, 30_000)).await.unwrap();
    let how = Compose { also_purge: both.to_vec(), ..plain() };
    assert_eq!(kind(compose(&owner, &both, "/new", how).await), Kind::Conflict);
    assert_eq!(owner.names("/").await, ["a", "b", "folder", "to"]);
    // As it was it can still be had: that is an older version.
    compose(&owner, &both, "/new", plain()).await.unwrap();
    assert!(owner.read("/new").await.unwrap() == owner.read("/to").await.unwrap());
    let old = owner.versions(&at("/b")).await.unwrap()[0].entry().unwrap();
    let made = compose(&owner, &[old, a], "/turned", plain()).await.unwrap();
    assert!(owner.read("/turned").await.unwrap() == [noise(2, 20_000), noise(1, 10_000)].concat());

    // A file may be among its own sources, and twice.
    let grown = compose(&owner, &[made.clone(), made.clone(), b], "/turned", plain()).await.unwrap();
    assert_eq!((grown.version, grown.id, grown.size), (2, made.id, 80_000));
    let once = [noise(2, 20_000), noise(1, 10_000)].concat();
    assert!(owner.read("/turned").await.unwrap() == [once.clone(), once, noise(2, 20_000)].concat());
    let verified = owner.verify(&at("/turned"), false, true, Arc::new(())).await.unwrap();
    assert_eq!((verified.chunks, verified.ok), (2, 2), "two chunks on the servers, five in the file");
    assert_eq!(owner.stat(&at("/turned")).await.unwrap().chunks(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_parts_make_a_short_file_and_a_folder_of_parts_goes_as_one() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/upload/in"), true).await.unwrap();
    for (name, len) in [("a", 1000), ("b", 0), ("in/c", 2000), ("d", 4096)] {
        owner.put_bytes(&format!("/upload/{name}"), noise(len, len as usize)).await.unwrap();
    }
    let [a, b, c, d] = entries(&owner, &["/upload/a", "/upload/b", "/upload/in/c", "/upload/d"]).await.try_into().ok().unwrap();
    let short = compose(&owner, &[a.clone(), b.clone(), c.clone()], "/short", Compose::default()).await.unwrap();
    assert_eq!(
        (short.inline, short.size, owner.read("/short").await.unwrap()),
        (true, 3000, [noise(1000, 1000), noise(2000, 2000)].concat())
    );
    let empty = compose(&owner, std::slice::from_ref(&b), "/empty", Compose::default()).await.unwrap();
    assert_eq!((empty.size, owner.read("/empty").await.unwrap()), (0, vec![]));
    assert_eq!(compose(&owner, &[], "/nothing", Compose::default()).await.unwrap().size, 0);
    let how = Compose { also_purge: entries(&owner, &["/upload"]).await, ..Compose::default() };
    let long = compose(&owner, &[d, c, b, a], "/long", how).await.unwrap();
    assert_eq!((long.inline, long.size, long.chunks()), (false, 7096, 3));
    assert!(owner.read("/long").await.unwrap() == [noise(4096, 4096), noise(2000, 2000), noise(1000, 1000)].concat());
    assert_eq!(owner.names("/").await, ["empty", "long", "nothing", "short"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_parts_have_an_index_and_too_many_are_said_to_be() {
    let (_cluster, owner) = Cluster::start(2).await;
    let (parts, bytes) = put_short(&owner, "/parts", 480).await;
    let Composed::TooMany = owner.compose(&parts, &at("/whole"), Compose::default()).await.unwrap() else { panic!("that does not fit") };
    assert_eq!(owner.names("/").await, ["parts"]);
    let (some, len) = (&parts[..400], (0..400).map(|i| 5000 + i % 7).sum::<usize>());
    let how = Compose { also_purge: some[..255].to_vec(), ..Compose::default() };
    let whole = compose(&owner, some, "/whole", how).await.unwrap();
    assert_eq!((whole.size, whole.chunks()), (len as u64, 400));
    assert!(owner.read("/whole").await.unwrap() == bytes[..len]);
    let read = owner.open_file(&whole).await.unwrap().read(1_000_000..1_000_009).await.unwrap();
    assert_eq!(read, bytes[1_000_000..1_000_009]);
    let verified = owner.verify(&at("/whole"), false, true, Arc::new(())).await.unwrap();
    assert_eq!((verified.chunks, verified.ok), (401, 401), "one of them is the index");
    // Put together once more, with others after it: its index is not needed any more, and goes.
    let more = [whole.clone(), parts[400].clone(), parts[401].clone()];
    let longer = compose(&owner, &more, "/longer", Compose { also_purge: vec![whole], ..Compose::default() }).await.unwrap();
    let len: usize = (0..402).map(|i| 5000 + i % 7).sum();
    assert_eq!((longer.size, longer.chunks()), (len as u64, 402));
    assert!(owner.read("/longer").await.unwrap() == bytes[..len]);
    let verified = owner.verify(&at("/longer"), false, true, Arc::new(())).await.unwrap();
    assert_eq!((verified.chunks, verified.ok), (403, 403));
    // Two files by turns: two objects only, but as many runs as parts.
    let by_turns = |n: usize| parts[470..472].iter().cycle().take(n).cloned().collect::<Vec<_>>();
    compose(&owner, &by_turns(1024), "/turns", Compose::default()).await.unwrap();
    let bytes = [noise(470, 5001), noise(471, 5002)].concat();
    assert!(owner.read("/turns").await.unwrap() == bytes.repeat(512));
    let Composed::TooMany = owner.compose(&by_turns(1025), &at("/turns"), Compose::default()).await.unwrap() else { panic!("1,025 runs") };
}

/// Gives up, as if the machine went down, after so many chunks; remembers what it was told first.
struct Fails {
    after: AtomicU64,
    first: Mutex<Option<u64>>,
}

impl Progress for Fails {
    fn total(&self, _: u64, _: u64) {}
    fn bytes(&self, done: u64) {
        self.first.lock().unwrap().get_or_insert(done);
        assert!(self.after.fetch_sub(1, Ordering::SeqCst) > 0, "the download ends here");
    }
    fn file(&self, _: &str) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_download_of_parts_goes_on_where_it_was() {
    let (_cluster, owner) = Cluster::start(2).await;
    let (mut parts, mut bytes) = put_short(&owner, "/parts", 30).await;
    let options = PutOptions { policy: policy("1+0"), ..PutOptions::default() };
    let put = vec![Put { source: Source::Bytes(noise(99, 17 * MIB + 5)), remote: at("/large") }];
    owner.put(put, options, Arc::new(())).await.unwrap();
    parts.extend(entries(&owner, &["/large"]).await);
    bytes.extend(noise(99, 17 * MIB + 5));
    let whole = compose(&owner, &parts, "/whole", Compose::default()).await.unwrap();
    assert_eq!(whole.chunks(), 35);
    let dir = tempfile::tempdir().unwrap();
    let get = || vec![Get { remote: at("/whole"), local: dir.path().join("whole") }];
    let fails = |after| Arc::new(Fails { after: AtomicU64::new(after), first: Mutex::default() });
    let report = owner.get(get(), false, fails(20)).await.unwrap();
    assert_eq!((report.files, report.failed.len()), (0, 1));
    assert!(!dir.path().join("whole").exists());
    let progress = fails(100);
    let report = owner.get(get(), false, progress.clone()).await.unwrap();
    assert_eq!((report.files, report.failed.len()), (1, 0), "{:?}", report.failed);
    assert!(progress.first.lock().unwrap().unwrap() >= 16 * 5000, "sixteen chunks were there already");
    assert!(std::fs::read(dir.path().join("whole")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_shared_given_new_keys_and_put_together_by_others() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, _] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work"), false).await.unwrap();
    ann.put_bytes("/Work/a", noise(1, 5 * MIB)).await.unwrap();
    ann.put_bytes("/Work/b", noise(2, 3000)).await.unwrap();
    compose(ann, &entries(ann, &["/Work/a", "/Work/b"]).await, "/Work/ab", Compose::default()).await.unwrap();
    ann.share(&at("/Work"), &with(&[("bea", Role::Write), ("cem", Role::Write)])).await.unwrap();
    let whole = [noise(1, 5 * MIB), noise(2, 3000)].concat();
    assert!(bea.read("/Shared/ann/Work/ab").await.unwrap() == whole);
    // What was uploaded for another space, but is named in this one.
    let there = entries(bea, &["/Shared/ann/Work/b", "/Shared/ann/Work/ab"]).await;
    let how = Compose { also_purge: there.clone(), ..Compose::default() };
    compose(bea, &there, "/Shared/ann/Work/bab", how).await.unwrap();
    assert!(ann.read("/Work/bab").await.unwrap() == [noise(2, 3000), whole.clone()].concat());
    let here = entries(bea, &["/Shared/ann/Work/a"]).await;
    assert_eq!(kind(compose(bea, &here, "/mine", Compose::default()).await), Kind::Invalid, "another space");
    // New keys for the folder: the contents keep theirs.
    ann.unshare(&at("/Work"), "cem", false, Arc::new(())).await.unwrap();
    assert!(bea.read("/Shared/ann/Work/bab").await.unwrap() == [noise(2, 3000), whole].concat());
}
