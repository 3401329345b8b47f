//! Two writers to one name: one wins, and nothing is lost in silence.

use crate::support::{Cluster, Tell, at, noise};
use client::{Client, ClientOptions, Put, PutOptions, PutReport, Source, Version, VersionNumber};
use model::{Error, Kind, Result};
use std::sync::Arc;
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
    let slow = Slow::begin(&two, "/new", options.clone(), b"t").await;
    one.put_bytes("/new", b"one".to_vec()).await.unwrap();
    assert_eq!(slow.end(b"wo").await.unwrap_err().kind, Kind::Conflict);
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
