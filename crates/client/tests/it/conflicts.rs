//! Two writers to one name: one wins, and nothing is lost in silence.

use crate::support::{Cluster, PASSWORD, Tell, at, noise};
use client::{ChangeKind, Client, ClientOptions, Put, PutOptions, PutReport, Source, Version, VersionNumber, WatchEvent};
use model::account::Role;
use model::{Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// Somebody who has begun to store a file, and has seen what lies there.
struct Slow {
    rest: DuplexStream,
    task: JoinHandle<Result<PutReport>>,
}

impl Slow {
    async fn begin(client: &Client, path: &str, options: PutOptions, first: &[u8]) -> Slow {
        let (mut rest, stream) = tokio::io::duplex(1);
        let (client, remote) = (client.clone(), at(path));
        let put = vec![Put { source: Source::Stream(Box::new(stream)), remote }];
        let task = tokio::spawn(async move { client.put(put, options, Arc::new(())).await });
        rest.write_all(first).await.unwrap();
        Slow { rest, task }
    }

    /// Writes the rest; answers with what came of it.
    async fn end(mut self, rest: &[u8]) -> std::result::Result<(), Error> {
        self.rest.write_all(rest).await.unwrap();
        drop(self.rest);
        let report = self.task.await.unwrap().unwrap();
        report.failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))
    }
}

async fn another(cluster: &Cluster) -> Client {
    Client::open(cluster.profile("admin"), ClientOptions::default()).await.unwrap()
}

fn told(versions: &[Version]) -> Vec<(String, Option<u64>, bool)> {
    versions.iter().map(|v| (v.number.to_string(), v.size, v.current)).collect()
}

async fn content(client: &Client, path: &str, number: VersionNumber) -> Vec<u8> {
    let mut out = Vec::new();
    client.cat_entry(&client.version(&at(path), number).await.unwrap().entry().unwrap(), None, &mut out).await.unwrap();
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_of_two_writers_is_told_and_its_data_is_kept() {
    let (cluster, one) = Cluster::start(4).await;
    let two = another(&cluster).await;
    one.put_bytes("/plan", b"begin".to_vec()).await.unwrap();
    let large = noise(3, 5 << 20);
    let small = Slow::begin(&two, "/plan", PutOptions::default(), b"sec").await;
    let big = Slow::begin(&two, "/plan", PutOptions::default(), &large[..100]).await;
    one.put_bytes("/plan", b"winner".to_vec()).await.unwrap();
    let e = small.end(b"ond").await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict);
    assert!(e.message.contains("admin wrote version 2") && e.message.contains("kept as version c1"), "{e}");
    let e = big.end(&large[100..]).await.unwrap_err();
    assert!(e.hint.unwrap().contains("shardkeep restore /plan@c2"));
    assert_eq!(one.read("/plan").await.unwrap(), b"winner");
    let versions = one.versions(&at("/plan")).await.unwrap();
    let size = large.len() as u64;
    assert_eq!(
        told(&versions),
        [("1".into(), Some(5), false), ("2".into(), Some(6), true), ("c1".into(), Some(6), false), ("c2".into(), Some(size), false)]
    );
    assert_eq!(versions[2].author_name, "admin");
    assert_eq!(content(&one, "/plan", VersionNumber::Conflict(1)).await, b"second");
    one.restore(&at("/plan"), Some(VersionNumber::Conflict(2))).await.unwrap();
    assert!(one.read("/plan").await.unwrap() == large);
    // Whoever looks and then overwrites knows what it does.
    two.put_bytes("/plan", b"later".to_vec()).await.unwrap();
    assert_eq!(one.read("/plan").await.unwrap(), b"later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_make_the_same_new_file_end_with_one_and_a_conflict() {
    let (cluster, one) = Cluster::start(0).await;
    let two = another(&cluster).await;
    let options = PutOptions { if_absent: true, ..PutOptions::default() };
    let slow = Slow::begin(&two, "/new", options.clone(), b"tw").await;
    one.put_bytes("/new", b"one".to_vec()).await.unwrap();
    assert_eq!(slow.end(b"o").await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(content(&one, "/new", VersionNumber::Conflict(1)).await, b"two");
    // Who finds it there is refused at once, and nothing is kept: nothing was taken.
    let put = vec![Put { source: Source::Bytes(b"three".to_vec()), remote: at("/new") }];
    let report = two.put(put, options, Arc::new(())).await.unwrap();
    assert_eq!(report.failed[0].1.kind, Kind::Exists);
    assert_eq!(one.versions(&at("/new")).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_can_be_named_that_alone_may_be_overwritten() {
    let (cluster, one) = Cluster::start(0).await;
    let two = another(&cluster).await;
    one.put_bytes("/a", b"one".to_vec()).await.unwrap();
    let options = |version| PutOptions { if_version: Some(version), ..PutOptions::default() };
    let put = |version, bytes: &[u8]| {
        let put = vec![Put { source: Source::Bytes(bytes.to_vec()), remote: at("/a") }];
        let one = one.clone();
        async move { one.put(put, options(version), Arc::new(())).await.unwrap().failed.into_iter().next().map(|(_, e)| e.kind) }
    };
    assert_eq!(put(2, b"x").await, Some(Kind::Conflict));
    assert_eq!(put(1, b"two").await, None);
    assert_eq!(put(1, b"x").await, Some(Kind::Conflict));
    // The file goes while a new version of it is under way: that version was wanted, and is gone.
    let slow = Slow::begin(&two, "/a", options(2), b"th").await;
    one.remove(&at("/a"), false, false).await.unwrap();
    assert_eq!(slow.end(b"ree").await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(one.stat(&at("/a")).await.err().unwrap().kind, Kind::NotFound);
}

/// Removing is no writing: the name is free, what lay there is in the trash, and the new file is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_meanwhile_is_made_anew() {
    let (cluster, one) = Cluster::start(0).await;
    let two = another(&cluster).await;
    one.put_bytes("/a", b"one".to_vec()).await.unwrap();
    let slow = Slow::begin(&two, "/a", PutOptions::default(), b"tw").await;
    one.remove(&at("/a"), false, false).await.unwrap();
    slow.end(b"o").await.unwrap();
    assert_eq!(one.read("/a").await.unwrap(), b"two");
    assert_eq!(one.restore_removed(&at("/a"), Some(&at("/b"))).await.unwrap(), at("/b"));
    assert_eq!(one.read("/b").await.unwrap(), b"one");
}

/// A folder of ann's, written by bea as well and read by cem: what was, and what happens, is theirs together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_shared_folder_share_its_past_and_its_conflicts() {
    let (cluster, admin) = Cluster::start(4).await;
    let mut users = Vec::new();
    for name in ["ann", "bea", "cem"] {
        let (invite, _) = admin.create_invite(name, false, None, Duration::from_secs(600)).await.unwrap();
        users.push(Client::register(cluster.profile(name), &invite, PASSWORD, ClientOptions::default()).await.unwrap().0);
    }
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work/deep"), true).await.unwrap();
    ann.put_bytes("/Work/plan", b"one".to_vec()).await.unwrap();
    ann.share(&at("/Work"), &[("bea".into(), Role::Write), ("cem".into(), Role::Read)]).await.unwrap();
    let hers = "/Shared/ann/Work/plan";
    let mut watch = cem.watch(&at("/Shared/ann/Work"), None).await.unwrap();
    let slow = Slow::begin(ann, "/Work/plan", PutOptions::default(), b"of ").await;
    bea.put_bytes(hers, b"of bea's".to_vec()).await.unwrap();
    let e = slow.end(b"ann's").await.unwrap_err();
    assert_eq!(e.kind, Kind::Conflict);
    assert!(e.message.contains("bea wrote version"), "{e}");
    // All see both, and who wrote which.
    for (client, path) in [(ann, "/Work/plan"), (bea, hers), (cem, hers)] {
        let versions = client.versions(&at(path)).await.unwrap();
        let told: Vec<_> = versions.iter().map(|v| (v.number.to_string(), v.author_name.clone(), v.current)).collect();
        let last = told.len() - 2;
        assert_eq!(told[last..], [("2".into(), "bea".into(), true), ("c1".into(), "ann".into(), false)], "{told:?}");
        assert_eq!(content(client, path, VersionNumber::Conflict(1)).await, b"of ann's");
    }
    // Who may only read restores and empties nothing.
    assert_eq!(cem.restore(&at(hers), Some(VersionNumber::Conflict(1))).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(bea.restore(&at(hers), Some(VersionNumber::Conflict(1))).await.unwrap(), VersionNumber::Conflict(1));
    assert_eq!(ann.read("/Work/plan").await.unwrap(), b"of ann's");
    bea.remove(&at("/Shared/ann/Work/deep"), true, false).await.unwrap();
    let mut seen = Vec::new();
    cem.trash(&at("/Shared/ann/Work"), |item| {
        seen.push((item.path.unwrap().to_string(), item.by_name));
        Ok(true)
    })
    .await
    .unwrap();
    assert_eq!(seen, [("/Shared/ann/Work/deep".to_string(), "bea".to_string())]);
    assert_eq!(cem.restore(&at("/Shared/ann/Work/deep"), None).await.unwrap_err().kind, Kind::Denied);
    assert_eq!(cem.empty_trash(&at("/Shared/ann/Work"), u64::MAX).await.unwrap_err().kind, Kind::Denied);
    for client in [bea, cem] {
        assert_eq!(client.set_retention(&at("/Shared/ann/Work"), Duration::ZERO).await.unwrap_err().kind, Kind::Denied);
    }
    ann.restore(&at("/Work/deep"), None).await.unwrap();
    // And the one who watches was told all of it.
    let mut told = Vec::new();
    while told.len() < 5 {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("a change").unwrap();
        let WatchEvent::Change(change) = next else { panic!("{next:?}") };
        told.push((change.kind, change.path.to_string(), change.author_name));
    }
    use ChangeKind::*;
    let expected = [
        (Changed, hers, "bea"),
        (Conflict, hers, "ann"),
        (Changed, hers, "bea"),
        (Removed, "/Shared/ann/Work/deep", "bea"),
        (Restored, "/Shared/ann/Work/deep", "ann"),
    ];
    assert_eq!(told, expected.map(|(kind, path, who)| (kind, path.to_string(), who.to_string())));
    // Whoever is taken out is told nothing more.
    ann.unshare(&at("/Work"), "cem", false, Arc::new(())).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match watch.next().await {
                Ok(WatchEvent::Resync) => {}
                Ok(other) => panic!("{other:?}"),
                Err(e) => return e,
            }
        }
    });
    assert_eq!(end.await.expect("the watch ends").kind, Kind::Denied);
    assert_eq!(cem.versions(&at(hers)).await.err().map(|e| e.kind == Kind::Denied || e.kind == Kind::NotFound), Some(true));
}

/// Contents stored anew where they are (under fresh keys, after a revocation) never replace what somebody wrote since
/// they were read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_anew_replaces_nothing_newer() {
    let (_cluster, one) = Cluster::start(4).await;
    for path in ["/old", "/gone", "/same"] {
        one.put_bytes(path, noise(1, 300_000)).await.unwrap();
    }
    let mut read = Vec::new();
    for path in ["/old", "/gone", "/same"] {
        read.push(one.stat(&at(path)).await.unwrap());
    }
    one.put_bytes("/old", noise(2, 300_000)).await.unwrap();
    one.remove(&at("/gone"), false, false).await.unwrap();
    let anew = read.into_iter().map(|entry| Put { remote: entry.path.clone(), source: Source::Entry(Box::new(entry)) }).collect();
    let report = one.put(anew, PutOptions::default(), Arc::new(())).await.unwrap();
    let failed: Vec<(&str, Kind)> = report.failed.iter().map(|(path, e)| (path.as_str(), e.kind)).collect();
    assert_eq!((report.files, failed), (1, vec![("/old", Kind::Conflict), ("/gone", Kind::Conflict)]));
    assert_eq!(one.stat(&at("/old")).await.unwrap().version, 2);
    assert_eq!(one.stat(&at("/same")).await.unwrap().version, 2);
    assert_eq!(one.stat(&at("/gone")).await.err().unwrap().kind, Kind::NotFound);
}
