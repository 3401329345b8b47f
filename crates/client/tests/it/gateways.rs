//! What gateways build on: single files written by many at once, properties, copies, names that give way, keys.

use crate::support::{Cluster, Tell, at, noise};
use client::{EntryKind, OnConflict, Properties, PutOptions, Source};
use futures::StreamExt;
use model::Kind;

fn over() -> PutOptions {
    PutOptions { on_conflict: OnConflict::Overwrite, ..PutOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_name_all_succeed_and_the_last_one_stays() {
    let (_cluster, client) = Cluster::start(4).await;
    let writer = client.writer();
    let put = |i: u64| {
        let (client, writer) = (client.clone(), writer.clone());
        async move { writer.put(client.spot(&at("/one")).await?, Source::Bytes(noise(i, 5_000)), over()).await }
    };
    let done: Vec<_> = futures::stream::iter(0..20).map(put).buffer_unordered(20).collect().await;
    assert!(done.iter().all(|d| d.as_ref().is_ok_and(|(bytes, degraded)| *bytes == 5_000 && !degraded)), "{done:?}");
    assert_eq!(client.stat(&at("/one")).await.unwrap().version, 20);
    // Whoever must not write over anything is told, and nothing of it is kept.
    let spot = client.spot(&at("/one")).await.unwrap();
    let refused = writer.put(spot, Source::Bytes(b"x".to_vec()), PutOptions { if_absent: true, ..PutOptions::default() }).await;
    assert_eq!(refused.unwrap_err().kind, Kind::Exists);
    let spot = client.spot(&at("/one")).await.unwrap();
    put(21).await.unwrap();
    let refuse = PutOptions { on_conflict: OnConflict::Refuse, ..PutOptions::default() };
    assert_eq!(writer.put(spot.clone(), Source::Bytes(b"x".to_vec()), refuse).await.unwrap_err().kind, Kind::Conflict);
    assert_eq!(client.versions(&at("/one")).await.unwrap().len(), 21);
    assert_eq!(writer.remove(spot, false).await.unwrap_err().kind, Kind::Conflict);
    writer.remove(client.spot(&at("/one")).await.unwrap(), false).await.unwrap();
    assert_eq!(client.stat(&at("/one")).await.err().unwrap().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_described_at_its_end_or_not_stored() {
    let (_cluster, client) = Cluster::start(4).await;
    let writer = client.writer();
    for len in [0, 4_096, 4_097, 9_000_000] {
        let bytes = noise(len as u64, len);
        let describe = Box::new(|| Ok(Properties::one(b"k", b"v".to_vec())));
        let source = Source::Described(Box::new(std::io::Cursor::new(bytes.clone())), describe);
        writer.put(client.spot(&at("/f")).await.unwrap(), source, over()).await.unwrap();
        let entry = client.stat(&at("/f")).await.unwrap();
        assert_eq!((entry.size, entry.property(b"k")), (len as u64, Some(&b"v"[..])));
        let read: Vec<_> = client.open_file(&entry).await.unwrap().stream(0..u64::MAX).collect().await;
        assert!(read.into_iter().flat_map(|part| part.unwrap()).eq(bytes), "{len}");
    }
    let wrong = Box::new(|| Err(model::Error::invalid("not what was announced")));
    let source = Source::Described(Box::new(std::io::Cursor::new(noise(1, 100_000))), wrong);
    assert_eq!(writer.put(client.spot(&at("/g")).await.unwrap(), source, over()).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(client.stat(&at("/g")).await.err().unwrap().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn properties_stay_through_copies_and_change_without_content() {
    let (_cluster, client) = Cluster::start(4).await;
    client.put_bytes("/a", noise(3, 50_000)).await.unwrap();
    let entry = client.stat(&at("/a")).await.unwrap();
    client.set_properties(&entry, Properties::one(b"one", b"1".to_vec())).await.unwrap();
    assert_eq!(client.set_properties(&entry, Properties::default()).await.unwrap_err().kind, Kind::Conflict);
    let entry = client.stat(&at("/a")).await.unwrap();
    client.set_properties(&entry, Properties::one(b"two", b"2".to_vec())).await.unwrap();
    let entry = client.stat(&at("/a")).await.unwrap();
    assert_eq!((entry.property(b"one"), entry.property(b"two"), entry.size), (Some(&b"1"[..]), Some(&b"2"[..]), 50_000));
    client.copy_file(&entry, &at("/b"), Some(Properties::one(b"two", b"3".to_vec())), over()).await.unwrap();
    let copy = client.stat(&at("/b")).await.unwrap();
    assert_eq!((copy.property(b"one"), copy.property(b"two")), (Some(&b"1"[..]), Some(&b"3"[..])));
    client.remove(&at("/a"), false, true).await.unwrap();
    assert_eq!(client.read("/b").await.unwrap(), noise(3, 50_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_gives_way_to_a_folder_at_once() {
    let (_cluster, client) = Cluster::start(4).await;
    client.put_bytes("/n", noise(4, 6_000)).await.unwrap();
    client.displace(&at("/n"), "aside").await.unwrap();
    assert_eq!(client.stat(&at("/n")).await.unwrap().kind, EntryKind::Folder);
    assert_eq!(client.read("/aside").await.unwrap(), noise(4, 6_000));
    client.displace(&at("/n"), "aside").await.unwrap();
    assert_eq!(client.displace(&at("/none"), "x").await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_keys_are_kept_in_the_account() {
    let (_cluster, client) = Cluster::start(4).await;
    let key = client.create_gateway_key(|key| key.read_only = true).await.unwrap();
    let known = client.gateway_keys().await.unwrap();
    assert_eq!(known.len(), 1);
    assert!(known[0] == key && known[0].read_only && key.secret().len() == 40);
    assert!(!format!("{key:?}").contains(key.secret()));
    client.revoke_gateway_key(&key.id).await.unwrap();
    assert!(client.gateway_keys().await.unwrap().is_empty());
    assert_eq!(client.revoke_gateway_key(&key.id).await.unwrap_err().kind, Kind::NotFound);
}
