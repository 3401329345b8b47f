//! Watching: each change once, in order, also when the coordinator was away meanwhile.

use crate::sharing::{cluster_of, unshare, with};
use crate::support::{Cluster, Tell, at};
use client::{ChangeKind, Client, ClientOptions, Touched, Watch, WatchEvent};
use model::Kind;
use model::account::Role;
use std::time::Duration;

async fn another(cluster: &Cluster) -> Client {
    Client::open(cluster.profile("admin"), ClientOptions::default()).await.unwrap()
}

/// The next change: what, where, and from where.
async fn change(watch: &mut Watch) -> (ChangeKind, String, Option<String>) {
    let next = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a change").unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_changed_are_told_at_once_and_others_are_not() {
    let (_cluster, one) = Cluster::start(0).await;
    for path in ["/a/b", "/a/c", "/other"] {
        one.mkdir(&at(path), true).await.unwrap();
    }
    let root = one.stat(&at("/")).await.unwrap();
    let mut ids = Vec::new();
    for path in ["/", "/a", "/a/b", "/a/c"] {
        let entry = one.stat(&at(path)).await.unwrap();
        ids.push(entry.folder_id().unwrap());
        assert_eq!(one.folder_id(&entry).await.unwrap(), entry.folder_id().unwrap());
    }
    let [top, a, b, c] = ids.try_into().unwrap();
    let mut upto = one.touched(&root, u64::MAX).await.unwrap().upto;
    let began = std::time::Instant::now();
    let nothing = one.touched(&root, upto).await.unwrap();
    assert_eq!(nothing, Touched { upto, ..Touched::default() });
    assert!(began.elapsed() < Duration::from_secs(8), "it does not wait");
    let nested = one.stat(&at("/a/b")).await.unwrap();
    macro_rules! touches {
        ($what:expr, $($folder:expr),*) => {
            $what.await.unwrap();
            let told = one.touched(&nested, upto).await.unwrap();
            assert_eq!((told.resync, told.folders), (false, [$($folder),*].into()));
            assert!(told.upto > upto);
            upto = told.upto;
        };
    }
    touches!(one.put_bytes("/a/b/x", b"1".to_vec()), b);
    touches!(one.put_bytes("/a/b/x", b"2".to_vec()), b);
    touches!(one.rename(&at("/a/b/x"), &at("/a/c/y")), b, c);
    touches!(one.rename(&at("/a/c/y"), &at("/a/c/z")), c);
    touches!(one.remove(&at("/a/c/z"), false, false), c);
    touches!(one.restore(&at("/a/c/z"), None), c);
    touches!(one.remove(&at("/a/c/z"), false, true), c);
    touches!(one.mkdir(&at("/a/new"), false), a);
    touches!(one.remove(&at("/a/c"), true, true), a);
    touches!(one.rename(&at("/a/b"), &at("/b")), top, a);
    assert_eq!(one.touched(&root, upto).await.unwrap().folders, [].into());
    assert_eq!(one.stat(&at("/b")).await.unwrap().folder_id(), Some(b), "a folder keeps its id when it is moved");
    // All of it at once, in several pages; and what lies too far back.
    let before = one.touched(&root, u64::MAX).await.unwrap().upto;
    for i in 0..600u32 {
        one.put_bytes(&format!("/{}/x", if i == 0 { "a" } else { "other" }), i.to_be_bytes().to_vec()).await.unwrap();
    }
    let told = one.touched(&root, before).await.unwrap();
    assert_eq!((told.upto, told.folders.len(), told.folders.contains(&a)), (before + 600, 2, true));
    for i in 0..500u32 {
        one.put_bytes("/other/x", i.to_be_bytes().to_vec()).await.unwrap();
    }
    let told = one.touched(&root, before).await.unwrap();
    assert_eq!((told.upto, told.resync), (before + 1100, true));
    assert!(one.touched(&root, u64::MAX - 1).await.unwrap().resync, "a revision of a catalog that was restored since");
    assert_eq!(one.touched(&one.stat(&at("/a/x")).await.unwrap(), 0).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_folder_tells_of_itself_and_new_keys_touch_everything() {
    let (_cluster, _, users) = cluster_of(&["ann", "bea", "cem"]).await;
    let [ann, bea, _] = users.as_slice() else { unreachable!() };
    ann.mkdir(&at("/Work/in"), true).await.unwrap();
    let (root, at_home) =
        (ann.stat(&at("/")).await.unwrap(), ann.touched(&ann.stat(&at("/")).await.unwrap(), u64::MAX).await.unwrap().upto);
    ann.share(&at("/Work"), &with(&[("bea", Role::Write), ("cem", Role::Write)])).await.unwrap();
    assert_eq!(ann.touched(&root, at_home).await.unwrap().folders, [root.folder_id().unwrap()].into(), "its entry became a door");
    let door = ann.stat(&at("/Work")).await.unwrap();
    assert_eq!(door.folder_id(), None);
    let work = ann.folder_id(&door).await.unwrap();
    let inner = ann.stat(&at("/Work/in")).await.unwrap();
    let before = ann.touched(&door, u64::MAX).await.unwrap().upto;
    bea.put_bytes("/Shared/ann/Work/in/x", b"1".to_vec()).await.unwrap();
    bea.put_bytes("/Shared/ann/Work/y", b"2".to_vec()).await.unwrap();
    let told = ann.touched(&door, before).await.unwrap();
    assert_eq!((told.resync, told.folders), (false, [work, inner.folder_id().unwrap()].into()));
    assert_eq!(ann.touched(&inner, before).await.unwrap().upto, told.upto, "one space");
    unshare(ann, "/Work", "cem").await.unwrap();
    assert!(ann.touched(&door, told.upto).await.unwrap().resync);
    assert_ne!(ann.folder_id(&ann.stat(&at("/Work")).await.unwrap()).await.unwrap(), work);
    let virtual_place = bea.stat(&at("/Shared")).await.unwrap();
    assert!(bea.touched(&virtual_place, 0).await.is_err());
    assert_eq!(virtual_place.folder_id(), None);
}
