//! The workloads of the design's performance document, each with the limit of this machine measured
//! in the same run. Figures are medians of several rounds; claims are ratios within one run.
//!
//! ```text
//! cargo build --release && cargo run --release -p bench -- [limits|w1|w2|w3|w4|w5|w6|w7|w8|device]... [--rounds N] [--entries N] [--small] [--json]
//! ```
//! Servers are real processes of the release binary; the client is in this process.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // it measures the real machine

mod cluster;
mod device;
mod filler;
mod growth;
mod healing;
mod limits;
mod machine;
mod workloads;

use limits::Limits;
use std::path::PathBuf;
use workloads::{Row, Run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Those from `w6` on change the cluster for good, and take long: only when they are asked for.
const ALL: [&str; 9] = ["limits", "w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"];
/// One device with `--entries` shards, without a cluster.
const DEVICE: &str = "device";
const SHORT: usize = 6;

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| args.iter().position(|a| a == name).map(|i| args.remove(i)).is_some();
    let (json, small) = (flag("--json"), flag("--small"));
    let mut number = |name: &str, otherwise: usize| match args.iter().position(|a| a == name) {
        Some(i) if i + 1 < args.len() => args.drain(i..i + 2).nth(1).and_then(|n| n.parse().ok()).unwrap_or(otherwise),
        _ => otherwise,
    };
    let (rounds, entries) = (number("--rounds", 3), number("--entries", 1_000_000));
    if let Some(wrong) = args.iter().find(|a| !ALL.contains(&a.as_str()) && *a != DEVICE) {
        eprintln!("bench: '{wrong}' is none of {}, {DEVICE}", ALL.join(", "));
        std::process::exit(2);
    }
    let wanted = |name: &str| {
        let short = ALL.iter().take(SHORT).any(|n| *n == name);
        args.is_empty() && short || args.iter().any(|a| a == name)
    };
    let dir = tempfile::Builder::new().prefix("shardkeep-bench-").tempdir().expect("a folder for the measurement");
    let limits = Limits::measure(dir.path(), small);
    if !json {
        println!("{limits}");
    }
    let mut rows = Vec::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(8).enable_all().build().expect("threads");
    if args.iter().any(|a| a == DEVICE) {
        rows = runtime.block_on(device::measure(dir.path(), entries));
        if !json {
            rows.iter().for_each(|row| println!("{row}"));
        }
    }
    if ALL[1..].iter().any(|w| wanted(w)) {
        runtime.block_on(async {
            let mut run = Run::start(dir.path(), binary(), limits.clone(), rounds, small).await;
            for name in ALL[1..].iter().filter(|w| wanted(w)) {
                let some = match *name {
                    "w1" => run.w1().await,
                    "w2" => run.w2().await,
                    "w3" => run.w3().await,
                    "w4" => run.w4().await,
                    "w5" => run.w5().await,
                    "w6" => run.w6().await,
                    "w7" => run.w7().await,
                    _ => run.w8(entries).await,
                };
                for row in &some {
                    if !json {
                        println!("{row}");
                    }
                }
                rows.extend(some);
            }
        });
    }
    if json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{}", serde_json::json!({ "limits": limits.json(), "rows": rows }));
    }
}

/// The release binary beside this one.
fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("this program's path");
    let binary = me.with_file_name("shardkeep");
    if !binary.exists() {
        eprintln!("bench: {} is missing; first run: cargo build --release", binary.display());
        std::process::exit(1);
    }
    binary
}
