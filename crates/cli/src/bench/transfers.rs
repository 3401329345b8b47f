//! Whole transfers: a file of random bytes goes to a folder of its own on the cluster and comes back,
//! some times; nothing of it is left, however it ends.

use super::{RUNS, median};
use crate::context::Context;
use crate::failure::Failure;
use crate::{local, stop};
use client::{Client, Get, Put, PutOptions, RemotePath, Source};
use env::{Env, FileExt, Open};
use model::{Error, Result};
use seal::tree::Name;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest time for cleaning up after an interruption.
const CLEANUP: Duration = Duration::from_secs(10);

/// What was measured, in bytes a second.
pub struct Transfers {
    pub size: u64,
    pub put: f64,
    pub get: f64,
    /// All servers are on this machine.
    pub loopback: bool,
}

/// Measures. The remote folder is removed at the end, also when something fails.
pub async fn run(cx: &Context, client: &Client, scratch: &Path, size: u64) -> Result<Transfers, Failure> {
    let random = u32::from_be_bytes(cx.env.random());
    let folder = RemotePath::root().join(&Name::new(&format!("shardkeep-bench-{random:08x}"))?);
    let done = tokio::select! {
        done = measure(cx, client, scratch, &folder, size) => done.map_err(Failure::from),
        () = stop::told() => Err(Failure::Interrupted("interrupted".into())),
    };
    let removed = cx.env.timeout(CLEANUP, client.remove(&folder, true, true)).await;
    match removed {
        Some(Ok(_)) => {}
        Some(Err(e)) if e.kind == model::Kind::NotFound => {}
        _ => cx.out.error_line(&format!("{folder} could not be removed: shardkeep rm -r --purge {folder}")),
    }
    done
}

async fn measure(cx: &Context, client: &Client, scratch: &Path, folder: &RemotePath, size: u64) -> Result<Transfers> {
    let loopback = client.status().await?.cluster.nodes.iter().all(|n| n.address.is_empty() || is_loopback(&n.address));
    let (source, target) = (scratch.join("random"), scratch.join("back"));
    random_file(&cx.env, &source, size).await?;
    client.mkdir(folder, false).await?;
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let remote = folder.join(&Name::new(&format!("random-{run}"))?);
        let start = cx.env.clock.monotonic();
        let put = Put { source: Source::Path(source.clone()), remote: remote.clone() };
        let report = client.put(vec![put], PutOptions::default(), Arc::new(())).await?;
        puts.push(size as f64 / (cx.env.clock.monotonic() - start).as_secs_f64());
        whole(report.failed)?;
        let start = cx.env.clock.monotonic();
        let report = client.get(vec![Get { remote: remote.clone(), local: target.clone() }], false, Arc::new(())).await?;
        gets.push(size as f64 / (cx.env.clock.monotonic() - start).as_secs_f64());
        whole(report.failed)?;
        let (one, other) = (source.clone(), target.clone());
        let compared = cx.env.blocking(move || local::compare(&one, &other)).await?;
        if let Some(first) = compared.different.first() {
            return Err(Error::corrupt(format!("what came back is not what was stored: {first}")));
        }
        let (disk, back) = (cx.env.disk.clone(), target.clone());
        cx.env.blocking(move || disk.remove_file(&back)).await.map_err(|e| local::io_error(&target, &e))?;
        client.remove(&remote, false, true).await?;
    }
    Ok(Transfers { size, put: median(puts), get: median(gets), loopback })
}

fn whole(failed: Vec<(String, Error)>) -> Result<()> {
    failed.into_iter().next().map_or(Ok(()), |(_, e)| Err(e))
}

fn is_loopback(address: &str) -> bool {
    let ip = address.parse::<SocketAddr>().map(|a| a.ip());
    ip.is_ok_and(|ip| IpAddr::is_loopback(&ip)) || address.starts_with("localhost:")
}

/// A file of bytes that cannot be compressed.
async fn random_file(env: &Env, path: &Path, size: u64) -> Result<()> {
    let (disk, file, seed): (_, PathBuf, [u8; 32]) = (env.disk.clone(), path.to_path_buf(), env.random());
    let written = env.blocking(move || {
        let open = disk.open(&file, Open::New)?;
        let mut stream = blake3::Hasher::new_keyed(&seed).finalize_xof();
        let mut block = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let part = block.get_mut(..(size - at).min(1 << 20) as usize).unwrap_or_default();
            stream.fill(part);
            open.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        open.sync_data()
    });
    written.await.map_err(|e| local::io_error(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn random_files_have_their_size_and_no_pattern() {
        let env = env::real::env();
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, (1 << 20) + 17] {
            let path = dir.path().join(size.to_string());
            random_file(&env, &path, size).await.unwrap();
            let mut sum = 0u64;
            assert_eq!(local::scan(&path, 0, |part| sum += part.iter().map(|b| u64::from(*b)).sum::<u64>()).unwrap(), size);
            if size > 1000 {
                assert!((size * 120..size * 135).contains(&sum));
            }
        }
    }

    #[test]
    fn servers_here_are_told_from_servers_elsewhere() {
        assert!(is_loopback("127.0.0.1:9") && is_loopback("[::1]:9") && is_loopback("localhost:9"));
        assert!(!is_loopback("192.0.2.1:9") && !is_loopback("server.example:9"));
    }
}
