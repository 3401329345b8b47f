//! Watching: each change once, in order, also when the coordinator was away meanwhile.

use crate::support::{Cluster, Tell, at};
use client::{ChangeKind, Client, ClientOptions, Watch, WatchEvent};
use model::Kind;
use std::time::Duration;

async fn another(cluster: &Cluster) -> Client {
    Client::open(cluster.profile("admin"), ClientOptions::default()).await.unwrap()
}

/// The next change: what, where, and from where.
async fn change(watch: &mut Watch) -> (ChangeKind, String, Option<String>) {
    let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("a change").unwrap();
    let WatchEvent::Change(change) = next else { panic!("{next:?}") };
    assert_eq!(change.author_name, "admin");
    (change.kind, change.path.to_string(), change.from.map(|p| p.to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_as_they_happen() {
    let (cluster, one) = Cluster::start(0).await;
    let two = another(&cluster).await;
    one.mkdir(&at("/a/b"), true).await.unwrap();
    let mut all = two.watch(&at("/"), None).await.unwrap();
    let mut below = two.watch(&at("/a/b"), None).await.unwrap();
    use ChangeKind::*;
    one.put_bytes("/a/b/x", b"1".to_vec()).await.unwrap();
    assert_eq!(change(&mut all).await, (Created, "/a/b/x".into(), None));
    assert_eq!(change(&mut below).await, (Created, "/a/b/x".into(), None));
    one.put_bytes("/a/b/x", b"2".to_vec()).await.unwrap();
    assert_eq!(change(&mut all).await, (Changed, "/a/b/x".into(), None));
    assert_eq!(change(&mut below).await, (Changed, "/a/b/x".into(), None));
    one.rename(&at("/a/b/x"), &at("/y")).await.unwrap();
    assert_eq!(change(&mut all).await, (Moved, "/y".into(), Some("/a/b/x".into())));
    assert_eq!(change(&mut below).await, (Moved, "/y".into(), Some("/a/b/x".into())));
    one.remove(&at("/y"), false, false).await.unwrap();
    assert_eq!(change(&mut all).await, (Removed, "/y".into(), None));
    one.restore(&at("/y"), None).await.unwrap();
    assert_eq!(change(&mut all).await, (Restored, "/y".into(), None));
    one.remove(&at("/y"), false, true).await.unwrap();
    assert_eq!(change(&mut all).await, (Purged, "/y".into(), None));
    one.rename(&at("/a"), &at("/c")).await.unwrap();
    assert_eq!(change(&mut all).await, (Moved, "/c".into(), Some("/a".into())));
    one.put_bytes("/c/b/z", b"3".to_vec()).await.unwrap();
    assert_eq!(change(&mut all).await, (Created, "/c/b/z".into(), None));
    assert_eq!(change(&mut below).await, (Created, "/c/b/z".into(), None), "it follows the folder");
    assert_eq!(two.watch(&at("/nowhere"), None).await.err().unwrap().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_while_the_coordinator_restarts() {
    let (mut cluster, one) = Cluster::start(0).await;
    let two = another(&cluster).await;
    let mut watch = two.watch(&at("/"), None).await.unwrap();
    let telling = tokio::spawn(async move {
        let mut told = Vec::new();
        for _ in 0..6 {
            told.push(change(&mut watch).await.1);
        }
        told
    });
    for round in 0..2 {
        for i in 0..3 {
            one.put_bytes(&format!("/{round}-{i}"), b"x".to_vec()).await.unwrap();
        }
        cluster.restart_coordinator().await;
    }
    assert_eq!(telling.await.unwrap(), ["/0-0", "/0-1", "/0-2", "/1-0", "/1-1", "/1-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_where_an_earlier_one_ended_and_says_when_it_cannot() {
    let (_cluster, one) = Cluster::start(0).await;
    let watch = one.watch(&at("/"), None).await.unwrap();
    let revision = watch.revision();
    drop(watch);
    one.put_bytes("/a", b"x".to_vec()).await.unwrap();
    one.put_bytes("/b", b"x".to_vec()).await.unwrap();
    let mut watch = one.watch(&at("/"), Some(revision)).await.unwrap();
    assert_eq!(change(&mut watch).await.1, "/a");
    assert_eq!(change(&mut watch).await.1, "/b");
    for i in 0..=model::history::LOG_COMMITS {
        one.put_bytes("/a", i.to_be_bytes().to_vec()).await.unwrap();
    }
    let mut watch = one.watch(&at("/"), Some(revision)).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::Resync);
    one.put_bytes("/c", b"x".to_vec()).await.unwrap();
    assert_eq!(change(&mut watch).await.1, "/c");
}
