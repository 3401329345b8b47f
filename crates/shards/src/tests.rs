//! The store as a node uses it, over a real disk.

#![allow(clippy::disallowed_methods)] // tests look at the files themselves

use crate::{Compaction, ShardStore, identity, record};
use bytes::Bytes;
use env::{Disk, Env, File, Open, Space};
use model::{ChunkRef, Descriptor, Kind, ObjectId, Policy, ShardRef};
use std::io;
use std::path::Path;
use std::sync::Arc;

fn world() -> Env {
    env::real::env()
}

/// A chunk's shards, with contents that depend on the seed.
fn chunk(object: u8, number: u32, seed: u8, len: usize) -> (Descriptor, Vec<Bytes>) {
    let chunk = ChunkRef { object: ObjectId([object; 16]), number };
    let sealed: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
    let coder = erasure::Coder::new(Policy::DEFAULT).unwrap();
    let encoded = coder.encode(chunk, 0, sealed).unwrap();
    (encoded.descriptor, encoded.shards)
}

fn shard(object: u8, number: u32, index: u8) -> ShardRef {
    ShardRef { chunk: ChunkRef { object: ObjectId([object; 16]), number }, generation: 0, index }
}

async fn open(dir: &Path) -> ShardStore {
    ShardStore::open(world(), dir, Some(256 << 20)).await.unwrap()
}

async fn put(store: &ShardStore, object: u8, number: u32, index: u8, seed: u8) {
    let (descriptor, shards) = chunk(object, number, seed, 100_000);
    store.put(shard(object, number, index), descriptor, shards[index as usize].clone()).await.unwrap();
}

/// All files of the store's log.
fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "seg"));
    files.sort();
    files
}

#[tokio::test]
async fn a_shard_comes_back_after_a_restart_whole_and_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let (descriptor, shards) = chunk(1, 7, 3, 100_001);
    let at = shard(1, 7, 2);
    let store = open(dir.path()).await;
    let device = store.device();
    store.put(at, descriptor.clone(), shards[2].clone()).await.unwrap();
    store.close().await.unwrap();
    drop(store);

    let store = open(dir.path()).await;
    assert_eq!(store.device(), device);
    assert_eq!(store.get(&at, None).await.unwrap(), (descriptor.clone(), shards[2].clone()));
    assert_eq!(store.get(&at, Some((1000, 24))).await.unwrap().1, shards[2].slice(1000..1024));
    assert_eq!(store.head(&at).await.unwrap(), Some(descriptor.id()));
    store.verify(&at).await.unwrap();
    assert_eq!(store.get(&at, Some((50_000, 2))).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(store.get(&at, Some((u64::MAX, 2))).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(store.get(&shard(1, 7, 1), None).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn attack_31_a_shard_is_written_once_and_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, 1, 0, 0, 5).await;
    let used = store.usage().await.used;
    put(&store, 1, 0, 0, 5).await;
    assert_eq!(store.usage().await.used, used, "the same again is not written again");
    let (other, shards) = chunk(1, 0, 6, 100_000);
    let refused = store.put(shard(1, 0, 0), other, shards[0].clone()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
}

#[tokio::test]
async fn two_versions_put_at_once_are_never_both_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let puts = (0..8u8).map(|seed| {
        let (descriptor, shards) = chunk(1, 0, seed % 2, 100_000);
        store.put(shard(1, 0, 0), descriptor, shards[0].clone())
    });
    let acknowledged: Vec<bool> = futures::future::join_all(puts).await.into_iter().map(|r| r.is_ok()).collect();
    let held = store.head(&shard(1, 0, 0)).await.unwrap().unwrap();
    for (i, good) in acknowledged.iter().enumerate() {
        assert_eq!(*good, chunk(1, 0, i as u8 % 2, 100_000).0.id() == held);
    }
}

#[tokio::test]
async fn attack_30_what_the_descriptor_does_not_certify_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (descriptor, shards) = chunk(1, 0, 1, 100_000);
    let mut flipped = shards[0].to_vec();
    flipped[77] ^= 1;
    for (at, body) in [
        (shard(1, 0, 0), Bytes::from(flipped)),
        (shard(1, 0, 0), shards[1].clone()),
        (shard(1, 0, 0), Bytes::new()),
        (shard(1, 1, 0), shards[0].clone()),
        (shard(2, 0, 0), shards[0].clone()),
        (shard(1, 0, 4), shards[0].clone()),
        (ShardRef { generation: 1, ..shard(1, 0, 0) }, shards[0].clone()),
    ] {
        assert_eq!(store.put(at, descriptor.clone(), body).await.unwrap_err().kind, Kind::Corrupt);
    }
    assert_eq!(store.usage().await.shards, 0);
}

#[tokio::test]
async fn drops_and_quarantines_hold_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for number in 0..5 {
        put(&store, 1, number, 0, 1).await;
        put(&store, 2, number, 0, 1).await;
    }
    store.drop_object(ObjectId([1; 16])).await.unwrap();
    store.quarantine(&shard(2, 3, 0)).await.unwrap();
    store.quarantine(&shard(2, 4, 0)).await.unwrap();
    // A shard found bad is rebuilt in its place.
    put(&store, 2, 4, 0, 1).await;
    store.close().await.unwrap();
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.of_object(ObjectId([1; 16])).await.unwrap(), []);
    assert_eq!(store.of_object(ObjectId([2; 16])).await.unwrap(), [0, 1, 2, 4].map(|n| shard(2, n, 0)));
    let listed: Vec<ShardRef> = store.list(Some(shard(2, 0, 0)), 2).await.unwrap().into_iter().map(|(s, _)| s).collect();
    assert_eq!(listed, [shard(2, 1, 0), shard(2, 2, 0)]);
}

#[tokio::test]
async fn compaction_gives_space_back_and_neither_loses_nor_resurrects() {
    let dir = tempfile::tempdir().unwrap();
    // Small segments, so that there are many.
    let store = open(dir.path()).await;
    for number in 0..200 {
        put(&store, 1, number, 0, 1).await;
        put(&store, 2, number, 0, 1).await;
        if number % 2 == 0 {
            put(&store, 3, number, 0, 1).await;
        }
    }
    let full = store.usage().await.used;
    assert!(segments(dir.path()).len() > 5);
    store.drop_object(ObjectId([1; 16])).await.unwrap();
    store.drop_object(ObjectId([3; 16])).await.unwrap();
    put(&store, 1, 9, 0, 2).await;
    while store.compact_one().await.unwrap() == Compaction::Done {}
    let used = store.usage().await.used;
    assert!(used < full * 6 / 10, "{used} of {full} bytes are left");

    for restarts in 0..2 {
        assert_eq!(store.of_object(ObjectId([1; 16])).await.unwrap(), [shard(1, 9, 0)], "after {restarts} restarts");
        assert_eq!(store.of_object(ObjectId([2; 16])).await.unwrap().len(), 200);
        assert_eq!(store.of_object(ObjectId([3; 16])).await.unwrap(), []);
        for number in 0..200 {
            store.verify(&shard(2, number, 0)).await.unwrap();
        }
        if restarts == 0 {
            store.close().await.unwrap();
        }
    }
}

/// Whether some bytes are anywhere in a folder's segments.
fn on_disk(dir: &Path, bytes: &[u8]) -> bool {
    segments(dir).iter().any(|file| std::fs::read(file).unwrap().windows(bytes.len()).any(|w| w == bytes))
}

#[tokio::test]
async fn what_is_dropped_leaves_the_disk_also_where_little_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).await;
    for number in 0..40 {
        put(&store, 1, number, 0, number as u8).await;
    }
    let body = chunk(1, 7, 7, 100_000).1[0].clone();
    assert!(on_disk(dir.path(), &body));
    store.drop_shards(vec![shard(1, 7, 0)]).await.unwrap();
    assert_eq!(store.compact_one().await.unwrap(), Compaction::Nothing, "for its space alone it is not worth it");
    // What is dead is known after a restart, too.
    store.close().await.unwrap();
    drop(store);
    store = open(dir.path()).await;
    assert_eq!(store.segments_with_dead().await.unwrap(), 1);
    assert_eq!(store.compact_oldest().await.unwrap(), Compaction::Done);
    assert!(!on_disk(dir.path(), &body));
    assert_eq!((store.segments_with_dead().await.unwrap(), store.compact_oldest().await.unwrap()), (0, Compaction::Nothing));
    // In the segment that is being written, as well.
    let last = chunk(1, 50, 50, 100_000).1[0].clone();
    put(&store, 1, 50, 0, 50).await;
    store.drop_shards(vec![shard(1, 50, 0)]).await.unwrap();
    assert_eq!(store.compact_oldest().await.unwrap(), Compaction::Done);
    assert!(!on_disk(dir.path(), &last));
    for number in (0..40).filter(|n| *n != 7) {
        store.verify(&shard(1, number, 0)).await.unwrap();
    }
}

#[tokio::test]
async fn after_compaction_a_reopened_log_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    // Segment by segment: objects that live and die apart, so that stones outlive their segments.
    for number in 0..300 {
        put(&store, (number % 7) as u8, number, 0, 1).await;
        if number % 50 == 49 {
            store.drop_object(ObjectId([(number / 50) as u8; 16])).await.unwrap();
            while store.compact_one().await.unwrap() == Compaction::Done {}
        }
    }
    let before = store.list(None, 1000).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(store.list(None, 1000).await.unwrap(), before);
    for at in &before {
        store.verify(&at.0).await.unwrap();
    }
}

#[tokio::test]
async fn rule_11_flipped_bits_are_found_and_only_that_shard_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for number in 0..10 {
        put(&store, 1, number, 0, number as u8).await;
    }
    let (_, shards) = chunk(1, 4, 4, 100_000);
    let file = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(shards[0].len()).position(|w| w == &shards[0][..]).unwrap();
    bytes[at + 1000] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();

    let bad: Vec<u32> = {
        let mut bad = Vec::new();
        for number in 0..10 {
            match store.verify(&shard(1, number, 0)).await {
                Ok(()) => {}
                Err(e) if e.kind == Kind::Corrupt => bad.push(number),
                Err(e) => panic!("{e}"),
            }
        }
        bad
    };
    assert_eq!(bad, [4]);
    assert_eq!(store.get(&shard(1, 4, 0), None).await.unwrap_err().kind, Kind::Corrupt);
    // Set aside, it can be rebuilt.
    store.quarantine(&shard(1, 4, 0)).await.unwrap();
    put(&store, 1, 4, 0, 4).await;
    store.verify(&shard(1, 4, 0)).await.unwrap();
}

#[tokio::test]
async fn a_device_without_its_identity_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put(&store, 1, 0, 0, 1).await;
    store.close().await.unwrap();
    drop(store);
    let path = dir.path().join("device");
    let good = std::fs::read(&path).unwrap();
    for damage in [&good[..31], &[0; 32][..], b"", &[&good[..], b"x"].concat()] {
        std::fs::write(&path, damage).unwrap();
        let refused = ShardStore::open(world(), dir.path(), None).await.err().unwrap();
        assert_eq!(refused.kind, Kind::Corrupt);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ShardStore::open(world(), dir.path(), None).await.err().unwrap().kind, Kind::Corrupt);
    std::fs::write(&path, good).unwrap();
    open(dir.path()).await.verify(&shard(1, 0, 0)).await.unwrap();
}

#[tokio::test]
async fn a_full_device_refuses_new_shards_by_name_and_serves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = ShardStore::open(world(), dir.path(), Some(12 << 20)).await.unwrap();
    let mut stored = 0;
    let refused = loop {
        let (descriptor, shards) = chunk(1, stored, 1, 1 << 20);
        match store.put(shard(1, stored, 0), descriptor, shards[0].clone()).await {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 100);
    };
    assert_eq!(refused.kind, Kind::Insufficient);
    assert!(refused.message.contains(&store.device().to_string()));
    assert!(store.usage().await.problem.is_some());
    assert!(stored >= 20, "{stored} shards of half a MiB fit in 12 MiB");
    for number in 0..stored {
        store.verify(&shard(1, number, 0)).await.unwrap();
    }
    // What is dropped makes room again.
    store.drop_object(ObjectId([1; 16])).await.unwrap();
    while store.compact_one().await.unwrap() == Compaction::Done {}
    put(&store, 2, 0, 0, 1).await;
}

#[tokio::test]
async fn a_store_is_open_in_one_process_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let second = ShardStore::open(world(), dir.path(), None).await.err().unwrap();
    assert_eq!(second.kind, Kind::Unavailable);
    store.close().await.unwrap();
    assert_eq!(store.get(&shard(1, 0, 0), None).await.unwrap_err().kind, Kind::NotFound);
    let (descriptor, shards) = chunk(1, 0, 1, 1000);
    assert_eq!(store.put(shard(1, 0, 0), descriptor, shards[0].clone()).await.unwrap_err().kind, Kind::Unavailable);
}

proptest::proptest! {
    #[test]
    fn garbage_is_no_record(bytes: Vec<u8>) {
        if let Some(keys) = record::read_keys_meta(&bytes) {
            proptest::prop_assert_eq!(&record::keys_meta(&keys)[..], &bytes[..]);
        }
        let _ = record::read_shard_meta(&bytes);
        proptest::prop_assert!(identity::decode(&bytes).is_none());
    }
}

/// What the disk fails to read twice is bad, as what it reads wrongly; what it gives at the second attempt is not.
#[tokio::test]
async fn a_bad_sector_is_damage_and_names_its_shard_to_compaction() {
    let disk = env::sim::SimDisk::new(1, "disk");
    let env = Env { disk: disk.handle(), ..world() };
    let store = ShardStore::open(env, Path::new("/device"), Some(256 << 20)).await.unwrap();
    for number in 0..200 {
        put(&store, 1 + u8::from(number % 4 != 0), number, 0, number as u8).await;
    }
    let (_, shards) = chunk(1, 4, 4, 100_000);
    let bad = disk.files().into_iter().find_map(|(path, _)| {
        let bytes = disk.contents(&path).unwrap();
        let at = bytes.windows(4096).position(|w| w == &shards[0][..4096]).filter(|_| path.extension().is_some_and(|e| e == "seg"))?;
        Some((path, at as u64))
    });
    let (path, at) = bad.unwrap();
    disk.damage(&path, at + 1000..at + 1001).unwrap();
    assert_eq!(store.get(&shard(1, 4, 0), None).await.err().unwrap().kind, Kind::Unavailable);
    assert_eq!(store.policy(&shard(1, 4, 0)).await.unwrap(), Some(Policy::DEFAULT));
    let found = store.verify(&shard(1, 4, 0)).await.unwrap_err();
    assert_eq!(found.kind, Kind::Corrupt);
    // The segment is worth compacting, and waits for the bad shard to go.
    store.drop_object(ObjectId([2; 16])).await.unwrap();
    let mut named = false;
    for _ in 0..100 {
        named |= store.compact_one().await.unwrap() == Compaction::Unreadable(shard(1, 4, 0));
    }
    assert!(named);
    store.quarantine(&shard(1, 4, 0)).await.unwrap();
    put(&store, 1, 4, 0, 4).await;
    while store.compact_one().await.unwrap() == Compaction::Done {}
    for number in (0..200).step_by(4) {
        store.verify(&shard(1, number, 0)).await.unwrap();
    }
    assert!(!disk.files().iter().any(|(p, _)| *p == path), "the segment with the bad sector is gone");
}

/// A disk that takes its time, so that what happens meanwhile happens.
struct Slow(Arc<dyn Disk>);

#[derive(Debug)]
struct SlowFile(Arc<dyn File>);

fn rest(micros: u64) {
    std::thread::sleep(std::time::Duration::from_micros(micros));
}

impl File for SlowFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        rest(300);
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        rest(3000);
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        rest(3000);
        self.0.allocate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }
}

impl Disk for Slow {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path, how)?;
        // The index is no part of what is tried.
        Ok(if path.extension().is_some_and(|e| e == "seg") { Arc::new(SlowFile(file)) } else { file })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.read_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        self.0.try_exists(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.lock(path)
    }
}

/// Puts and drops beside compaction, each key by one task, so that what must be there at the end is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_acknowledged_beside_compaction_is_there_after_a_restart() {
    const TASKS: u32 = 8;
    const KEYS: u32 = 120;
    let dir = tempfile::tempdir().unwrap();
    let slow = Env { disk: Arc::new(Slow(world().disk)), ..world() };
    let store = ShardStore::open(slow, dir.path(), Some(128 << 20)).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let compacting = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while !*stopped.borrow() {
                done += u32::from(store.compact_one().await.unwrap() == Compaction::Done);
            }
            done
        })
    };
    let writers = (0..TASKS).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            // Each key is put, dropped, and put again for good when its drop may just be carried along.
            let mut dropped = Vec::new();
            let mut random = u64::from(task) + 1;
            for number in 0..KEYS {
                put(&store, task as u8, number, 0, 1).await;
                store.drop_shards(vec![shard(task as u8, number, 0)]).await.unwrap();
                dropped.push(number);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if dropped.len() > 12 {
                    let again = dropped.swap_remove((random >> 33) as usize % dropped.len());
                    put(&store, task as u8, again, 0, 1).await;
                }
            }
            dropped
        })
    });
    let ended = futures::future::join_all(writers).await;
    stop.send(true).unwrap();
    let segments_gone = compacting.await.unwrap();
    assert!(segments_gone > 5, "{segments_gone} segments were compacted");
    for restarted in [false, true] {
        let store = if restarted { ShardStore::open(world(), dir.path(), Some(128 << 20)).await.unwrap() } else { store.clone() };
        for (task, dropped) in ended.iter().enumerate() {
            let dropped = dropped.as_ref().unwrap();
            for number in 0..KEYS {
                let is_here = store.verify(&shard(task as u8, number, 0)).await.is_ok();
                assert_eq!(is_here, !dropped.contains(&number), "shard {number} of task {task}, restarted: {restarted}");
            }
        }
        store.close().await.unwrap();
    }
}
