//! A device with very many shards: what its index costs in memory and on the disk, how long it takes to open, and
//! how fast shards are found and listed. They are as small as shards can be, since their number is what counts.

use crate::machine::memory_mb;
use crate::workloads::{Row, Run};
use bytes::Bytes;
use env::Env;
use futures::StreamExt;
use model::{ChunkRef, ObjectId, Policy, ShardRef};
use shards::ShardStore;
use std::path::Path;
use std::time::Instant;

/// Chunks of one object.
const CHUNKS: u32 = 1000;
/// Shards put at once.
const AT_ONCE: usize = 1024;
/// Bytes in each of them.
const BODY: usize = 16;
/// Shards that are looked up.
const LOOKED_UP: usize = 100_000;
/// Shards of a page of the list.
const PAGE: usize = 4096;

fn shard(i: usize) -> ShardRef {
    let object = blake3::hash(&(i as u64 / u64::from(CHUNKS)).to_be_bytes());
    let object = ObjectId::from_slice(&object.as_bytes()[..16]).expect("16 bytes");
    ShardRef { chunk: ChunkRef { object, number: (i as u64 % u64::from(CHUNKS)) as u32 }, generation: 0, index: 0 }
}

/// So many shards on one device in `dir`.
pub async fn measure(dir: &Path, count: usize) -> Vec<Row> {
    let (env, dir) = (env::real::env(), dir.join("device"));
    let memory = || memory_mb(std::process::id(), "VmRSS");
    let open = |env: Env| async { ShardStore::open(env, &dir, None).await.expect("the store opens") };
    let store = open(env.clone()).await;
    let (before, start) = (memory(), Instant::now());
    let coder = erasure::Coder::new(Policy::new(1, 0).expect("a policy")).expect("a coder");
    let put = |i: usize| {
        let encoded = coder.encode(shard(i).chunk, 0, vec![i as u8; BODY]).expect("coded");
        let (store, body) = (&store, Bytes::clone(&encoded.shards[0]));
        async move { store.put(shard(i), encoded.descriptor, body).await.expect("put") }
    };
    futures::stream::iter(0..count).for_each_concurrent(AT_ONCE, put).await;
    let mut rows = vec![
        Run::plain_row(&format!("put {count} shards on one device"), count as f64 / start.elapsed().as_secs_f64(), "/s"),
        Run::plain_row("memory that came with them", memory() - before, "MB"),
    ];
    let index = std::fs::metadata(dir.join("index.redb")).map_or(0.0, |m| m.len() as f64);
    rows.push(Run::plain_row("index of a shard on disk", index / count as f64, "bytes"));

    let start = Instant::now();
    let found = futures::stream::iter((0..LOOKED_UP.min(count)).map(|i| i * 7919 % count))
        .map(|i| {
            let store = store.clone();
            async move { store.head(&shard(i)).await.expect("an answer").is_some() }
        })
        .buffer_unordered(64)
        .filter(|found| std::future::ready(*found))
        .count()
        .await;
    rows.push(Run::plain_row("shards found by key", found as f64 / start.elapsed().as_secs_f64(), "/s"));

    let (start, mut listed, mut after) = (Instant::now(), 0, None);
    loop {
        let page = store.list(after, PAGE).await.expect("a page");
        let Some((last, _)) = page.last() else { break };
        (listed, after) = (listed + page.len(), Some(*last));
    }
    assert_eq!(listed, count);
    rows.push(Run::plain_row("shards listed", listed as f64 / start.elapsed().as_secs_f64(), "/s"));

    store.close().await.expect("closed");
    drop(store);
    let start = Instant::now();
    let store = open(env).await;
    rows.push(Run::plain_row("opened", start.elapsed().as_secs_f64(), "s"));
    rows.push(Run::plain_row("memory after it was opened", memory(), "MB"));
    assert_eq!(store.usage().await.shards, count as u64);
    store.close().await.expect("closed");
    rows
}
