//! Versions and trash: what was comes back, whole, to whoever may write, and to nobody else.

use crate::support::{Cluster, Tell, at, noise};
use client::{Client, TrashItem, Version, VersionNumber};
use model::Kind;

const CHUNK: usize = model::chunk::CHUNK_SIZE;

async fn trash(client: &Client, below: &str) -> Vec<TrashItem> {
    let mut items = Vec::new();
    client
        .trash(&at(below), |item| {
            items.push(item);
            Ok(true)
        })
        .await
        .unwrap();
    items
}

async fn trash_paths(client: &Client, below: &str) -> Vec<String> {
    trash(client, below).await.iter().map(|i| i.path.as_ref().map_or("?".into(), |p| p.to_string())).collect()
}

fn numbers(versions: &[Version]) -> Vec<String> {
    versions.iter().map(|v| v.number.to_string()).collect()
}

async fn content(client: &Client, version: &Version) -> Vec<u8> {
    let mut out = Vec::new();
    client.cat_entry(&version.entry().unwrap(), None, &mut out).await.unwrap();
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_overwrite_is_kept_and_comes_back() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/docs"), false).await.unwrap();
    let large = noise(1, CHUNK + 100);
    for bytes in [b"one".to_vec(), large.clone(), b"three".to_vec()] {
        owner.put_bytes("/docs/a", bytes).await.unwrap();
    }
    owner.rename(&at("/docs/a"), &at("/b")).await.unwrap();
    let versions = owner.versions(&at("/b")).await.unwrap();
    assert_eq!(numbers(&versions), ["1", "2", "3", "4"]);
    assert_eq!(versions.iter().map(|v| v.size).collect::<Vec<_>>(), [Some(3), Some(large.len() as u64), Some(5), Some(5)]);
    assert_eq!(versions.iter().map(|v| v.current).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(versions[0].path, Some(at("/docs/a")), "each says where it lay");
    assert_eq!((versions[1].author_name.as_str(), versions[1].author), ("admin", owner.whoami().await.unwrap().id));
    assert!(content(&owner, &versions[1]).await == large);
    assert_eq!(content(&owner, &versions[0]).await, b"one");
    // Restored it is a write like any other.
    assert_eq!(owner.restore(&at("/b"), Some(VersionNumber::Revision(2))).await.unwrap(), VersionNumber::Revision(2));
    assert!(owner.read("/b").await.unwrap() == large);
    assert_eq!(owner.stat(&at("/b")).await.unwrap().version, 5);
    // Without a number: what it was before.
    assert_eq!(owner.restore(&at("/b"), None).await.unwrap(), VersionNumber::Revision(4));
    assert_eq!(owner.read("/b").await.unwrap(), b"three");
    assert_eq!(owner.restore(&at("/b"), Some(VersionNumber::Revision(9))).await.unwrap_err().kind, Kind::NotFound);
    assert!(owner.kept(&at("/")).await.unwrap().versions > large.len() as u64);
    let kept = owner.kept(&at("/docs")).await.unwrap();
    assert_eq!((kept.versions, kept.trash), (0, 0), "it lies elsewhere now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_version_is_destroyed_and_the_others_stay() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/docs"), false).await.unwrap();
    let large = noise(1, CHUNK + 100);
    for bytes in [b"one".to_vec(), large.clone(), b"three".to_vec()] {
        owner.put_bytes("/docs/a", bytes).await.unwrap();
    }
    owner.rename(&at("/docs/a"), &at("/b")).await.unwrap();
    let entry = owner.stat(&at("/b")).await.unwrap();
    let old = owner.versions(&at("/b")).await.unwrap()[1].entry().unwrap();
    owner.drop_version(&entry, VersionNumber::Revision(2)).await.unwrap();
    assert_eq!(numbers(&owner.versions(&at("/b")).await.unwrap()), ["1", "3", "4"]);
    assert!(owner.open_file(&old).await.is_err(), "its content is gone with it");
    // Once only; never the current one; nothing that never was.
    for number in ["2", "4", "5", "c1"] {
        let e = owner.drop_version(&old, number.parse().unwrap()).await.unwrap_err();
        assert_eq!((e.kind, e.message.contains(&format!("no older version {number}"))), (Kind::NotFound, true), "{e}");
    }
    assert_eq!(owner.read("/b").await.unwrap(), b"three");
    assert_eq!(owner.stat(&at("/b")).await.unwrap().version, 4);
    // What is in the trash has versions too; that it was removed is none of them.
    owner.remove(&at("/b"), false, false).await.unwrap();
    assert_eq!(owner.drop_version(&entry, VersionNumber::Revision(5)).await.unwrap_err().kind, Kind::Invalid);
    owner.drop_version(&entry, VersionNumber::Revision(3)).await.unwrap();
    assert_eq!(numbers(&owner.versions(&at("/b")).await.unwrap()), ["1", "4", "5"]);
    assert_eq!(trash_paths(&owner, "/").await, ["/b"]);
    owner.restore(&at("/b"), None).await.unwrap();
    owner.drop_version(&entry, VersionNumber::Revision(1)).await.unwrap();
    assert_eq!(numbers(&owner.versions(&at("/b")).await.unwrap()), ["4", "5", "6"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_lies_in_the_trash_and_comes_back_as_it_was() {
    let (_cluster, owner) = Cluster::start(4).await;
    owner.mkdir(&at("/a/b/c"), true).await.unwrap();
    let large = noise(2, CHUNK + 5);
    owner.put_bytes("/a/b/c/large", large.clone()).await.unwrap();
    owner.put_bytes("/a/b/note", b"note".to_vec()).await.unwrap();
    owner.put_bytes("/a/b/gone", b"first".to_vec()).await.unwrap();
    owner.put_bytes("/a/b/gone", b"second".to_vec()).await.unwrap();
    owner.remove(&at("/a/b/gone"), false, false).await.unwrap();
    owner.remove(&at("/a"), true, false).await.unwrap();
    let items = trash(&owner, "/").await;
    assert_eq!(items.iter().map(|i| i.path.clone().unwrap().to_string()).collect::<Vec<_>>(), ["/a", "/a/b/gone"]);
    assert_eq!((items[0].in_removed_folder, items[1].in_removed_folder, items[1].size), (false, true, Some(6)));
    assert_eq!((items[0].by_name.as_str(), items[0].until_ms), ("admin", items[0].removed_ms + 30 * 86_400_000));
    let kept = owner.kept(&at("/")).await.unwrap();
    assert!(kept.trash > large.len() as u64 && kept.versions == 0, "{kept:?}");
    // The folder is gone: a thing in it comes back with it, or elsewhere.
    let e = owner.restore(&at("/a/b/gone"), None).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    assert!(e.hint.unwrap().contains("--to"));
    let to = owner.restore_removed(&at("/a/b/gone"), Some(&at("/saved"))).await.unwrap();
    assert_eq!((to, owner.read("/saved").await.unwrap()), (at("/saved"), b"second".to_vec()));
    assert_eq!(numbers(&owner.versions(&at("/saved")).await.unwrap()), ["1", "2", "3", "4"]);
    owner.restore(&at("/a"), None).await.unwrap();
    assert!(owner.read("/a/b/c/large").await.unwrap() == large);
    assert_eq!(owner.names("/a/b").await, ["c", "note"]);
    assert_eq!(trash_paths(&owner, "/").await, [""; 0]);
    // A place that is taken is not taken over.
    owner.remove(&at("/saved"), false, false).await.unwrap();
    owner.put_bytes("/saved", b"new".to_vec()).await.unwrap();
    owner.remove(&at("/a/b/note"), false, false).await.unwrap();
    assert_eq!(owner.restore_removed(&at("/saved"), None).await.unwrap_err().kind, Kind::Exists);
    assert_eq!(trash_paths(&owner, "/a").await, ["/a/b/note"]);
    // An earlier version of what is in the trash.
    owner.restore(&at("/a/b/note"), None).await.unwrap();
    owner.remove(&at("/saved"), false, false).await.unwrap();
    owner.remove(&at("/saved"), false, false).await.unwrap_err();
    assert_eq!(trash_paths(&owner, "/").await, ["/saved", "/saved"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trash_is_emptied_for_good() {
    let (_cluster, owner) = Cluster::start(4).await;
    let before = owner.whoami().await.unwrap().used;
    owner.mkdir(&at("/a/b"), true).await.unwrap();
    owner.put_bytes("/a/b/file", noise(1, 50_000)).await.unwrap();
    owner.put_bytes("/a/lost", b"lost".to_vec()).await.unwrap();
    owner.put_bytes("/other", b"other".to_vec()).await.unwrap();
    owner.remove(&at("/a/lost"), false, false).await.unwrap();
    owner.remove(&at("/a"), true, true).await.unwrap();
    owner.remove(&at("/other"), false, false).await.unwrap();
    // What had lain in a folder that is gone for good cannot be opened any more; it can go.
    assert_eq!(trash_paths(&owner, "/").await, ["/other", "?"]);
    assert_eq!(owner.empty_trash(&at("/"), 1).await.unwrap(), 0, "nothing is that old");
    assert_eq!(owner.empty_trash(&at("/"), u64::MAX).await.unwrap(), 2);
    assert_eq!(trash_paths(&owner, "/").await, [""; 0]);
    assert_eq!(owner.whoami().await.unwrap().used, before);
    assert_eq!(owner.restore(&at("/other"), None).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_space_keeps_what_was_for_as_long_as_its_admin_says() {
    let (_cluster, owner) = Cluster::start(0).await;
    let days = |n: u64| std::time::Duration::from_secs(n * 86_400);
    assert_eq!(owner.retention(&at("/")).await.unwrap(), days(30));
    owner.put_bytes("/a", b"one".to_vec()).await.unwrap();
    owner.put_bytes("/a", b"two".to_vec()).await.unwrap();
    owner.set_retention(&at("/"), days(7)).await.unwrap();
    assert_eq!(owner.retention(&at("/a")).await.unwrap(), days(7));
    let versions = owner.versions(&at("/a")).await.unwrap();
    assert_eq!(versions[0].until_ms.unwrap().abs_diff(versions[1].committed_ms + 7 * 86_400_000), 0);
}
