//! `bench`: how fast this machine seals, hashes and codes, what that allows at best, and, when
//! somebody is logged in, how near to it whole transfers come.
//!
//! Speeds of one core are bytes by CPU time, so that other work on the machine does not count; each
//! is the median of three runs. The limit is the least CPU time that a byte costs when all servers
//! run on this machine too, spread over all cores, or the disk where that is slower.

mod limit;
mod loopback;
mod transfers;
mod work;

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::Args;
use limit::Limit;
use loopback::tls;
use model::{Kind, Policy, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use transfers::Transfers;
use work::Work;

/// Runs of each measurement, of which the median counts.
const RUNS: usize = 3;

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Size of the file that is put and fetched
    #[arg(long, default_value = "256M", value_name = "SIZE", value_parser = units::parse_size)]
    pub size: u64,
    /// Threads for sealing and coding side by side [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Policy to code with [default: the cluster's, or 2+2]
    #[arg(long, value_name = "K+M")]
    pub policy: Option<Policy>,
    /// Time for each measurement
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Folder on the disk to measure [default: ~/.shardkeep]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Everything that was measured, in bytes a second.
struct Measured {
    policy: Policy,
    cores: usize,
    threads: usize,
    seal: f64,
    open: f64,
    hash: f64,
    encode: f64,
    decode: f64,
    /// Decoding with as many data shards lost as the policy allows.
    decode_lost: f64,
    /// A TLS stream over loopback, by the CPU time of both ends.
    tls: f64,
    /// Reading a file that is in memory, by CPU time.
    read: f64,
    /// Writing to a file, by CPU time.
    write: f64,
    /// Writing to a file that is then durable, by the clock.
    disk: f64,
    /// A durable write of 4 KiB, in seconds.
    sync: f64,
    /// All threads together.
    seal_all: f64,
    encode_all: f64,
}

/// Runs it.
pub async fn run(cx: Context, args: Bench) -> Result<Done, Failure> {
    if !(args.seconds > 0.0 && args.seconds <= 600.0) {
        return Err(Failure::usage("--seconds: more than 0 and at most 600"));
    }
    let client = match cx.client_with(args.policy).await {
        Ok(client) => Some(client),
        // Nobody is logged in here, or the cluster is away: the machine can be measured all the same.
        Err(e) if matches!(e.kind, Kind::NotFound | Kind::Denied | Kind::Unavailable) => {
            cx.out.note(&format!("{} whole transfers are not measured: {}", cx.out.yellow("note:"), e.message));
            None
        }
        Err(e) => return Err(e.into()),
    };
    let policy = match (&client, args.policy) {
        (_, Some(policy)) => policy,
        (Some(client), None) => client.default_policy(),
        (None, None) => Policy::DEFAULT,
    };
    let scratch = Scratch::new(&cx, args.dir.as_deref().unwrap_or(&cx.home))?;
    let done = tokio::select! {
        done = measure(&cx, &args, policy, &scratch) => done,
        () = crate::stop::told() => return Ok(130),
    };
    let measured = done?;
    let limit = Limit::of(&measured);
    if !cx.out.json() {
        table(&cx, &measured, &limit);
    }
    let transfers = match client {
        Some(client) => Some(transfers::run(&cx, &client, &scratch.0, args.size).await?),
        None => None,
    };
    if cx.out.json() {
        cx.out.object(&document(&measured, &limit, transfers.as_ref()));
    } else if let Some(transfers) = &transfers {
        compare(&cx, transfers, &limit);
    }
    Ok(OK)
}

/// A folder that goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(cx: &Context, dir: &Path) -> Result<Self> {
        let random = u32::from_be_bytes(cx.env.random());
        let path = dir.join(format!("bench-{random:08x}"));
        cx.env.disk.create_dir_all(&path).map_err(|e| crate::local::io_error(&path, &e))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = crate::local::remove_all(&self.0) {
            eprintln!("{} could not be removed: {e}", self.0.display());
        }
    }
}

async fn measure(cx: &Context, args: &Bench, policy: Policy, scratch: &Scratch) -> Result<Measured> {
    let time = Duration::from_secs_f64(args.seconds);
    let cores = cx.env.cores();
    let threads = args.threads.map_or(cores, usize::from);
    let work = Work::new(&cx.env, policy)?;
    let seal = work.one(Work::seal, time).await?;
    let open = work.one(Work::open, time).await?;
    let hash = work.one(Work::hash, time).await?;
    let encode = work.one(Work::encode, time).await?;
    let decode = work.one(Work::decode, time).await?;
    let decode_lost = work.one(Work::decode_lost, time).await?;
    let tls = tls(&cx.env, policy, time).await?;
    let disk = work::disk(&cx.env, &scratch.0.join("disk"), time).await?;
    let seal_all = work.all(Work::seal, threads, time).await?;
    let encode_all = work.all(Work::encode, threads, time).await?;
    Ok(Measured {
        policy,
        cores,
        threads,
        seal,
        open,
        hash,
        encode,
        decode,
        decode_lost,
        tls,
        read: disk.read,
        write: disk.write,
        disk: disk.durable,
        sync: disk.sync,
        seal_all,
        encode_all,
    })
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// `1,234`: megabytes (10^6) a second.
fn mb(rate: f64) -> String {
    let mut text = format!("{:.0}", rate / 1e6);
    let mut at = text.len();
    while at > 3 {
        at -= 3;
        text.insert(at, ',');
    }
    text
}

fn table(cx: &Context, m: &Measured, limit: &Limit) {
    let out = &cx.out;
    let row = |what: &str, rate: f64| out.line(&format!("  {what:<44} {:>9}", mb(rate)));
    out.line(&out.bold(&format!("{:<46} {:>9}", "One core", "MB/s")));
    row("seal (AES-256-GCM)", m.seal);
    row("open, with its hash", m.open);
    row("hash (BLAKE3)", m.hash);
    row(&format!("code {} and hash, chunk and shards", m.policy), m.encode);
    row("join from data shards, with its hash", m.decode);
    if m.policy.m > 0 && m.policy.k > 1 {
        row(&format!("decode, {} data shards lost", m.policy.m.min(m.policy.k)), m.decode_lost);
    }
    row("TLS over loopback, both ends", m.tls);
    row("read a file from memory", m.read);
    row("write a file to memory", m.write);
    out.line("");
    out.line(&out.bold(&format!("{:<46} {:>9}", format!("{} threads on {} cores", m.threads, m.cores), "MB/s")));
    let with = |what: &str, all: f64, one: f64| {
        let ratio = all / one / m.threads.min(m.cores) as f64;
        out.line(&format!("  {what:<44} {:>9}  {}", mb(all), out.dim(&format!("{ratio:.2} of one core each"))));
    };
    with("seal", m.seal_all, m.seal);
    with("code and hash", m.encode_all, m.encode);
    out.line("");
    out.line(&out.bold(&format!("{:<46} {:>9}", "Disk", "MB/s")));
    row("sequential write, then durable", m.disk);
    out.line(&format!("  {:<44} {:>6.2} ms", "one durable write of 4 KiB", m.sync * 1e3));
    out.line("");
    out.line(&out.bold(&format!("{:<46} {:>9}", "Limit with all servers on this machine", "MB/s")));
    for (what, side) in [("put", &limit.put), ("get", &limit.get)] {
        let terms: Vec<String> = side.terms.iter().map(|(name, ns)| format!("{name} {ns:.2}")).collect();
        out.line(&format!("  {what:<44} {:>9}  {}", mb(side.limit), out.dim(&format!("by {}", side.bound))));
        out.line(&format!("    {}", out.dim(&format!("CPU ns a byte: {}", terms.join(" + ")))));
    }
}

fn compare(cx: &Context, t: &Transfers, limit: &Limit) {
    let out = &cx.out;
    out.line("");
    out.line(&out.bold(&format!("{:<46} {:>9}", format!("Whole transfers of {}, median of {RUNS}", units::size(t.size)), "MB/s")));
    for (what, rate, limit) in [("put", t.put, limit.put.limit), ("get", t.get, limit.get.limit)] {
        let ratio =
            if t.loopback { format!("{:.2} of the limit", rate / limit) } else { "servers elsewhere: the limit does not apply".into() };
        out.line(&format!("  {what:<44} {:>9}  {}", mb(rate), out.dim(&ratio)));
    }
}

/// Numbers for machines: bytes and seconds.
fn document(m: &Measured, limit: &Limit, transfers: Option<&Transfers>) -> Value {
    let side = |s: &limit::Side| {
        let terms: serde_json::Map<String, Value> = s.terms.iter().map(|(name, ns)| (name.to_string(), json!(ns))).collect();
        json!({ "rate": s.limit.round() as u64, "bound": s.bound, "cpu_ns_per_byte": terms })
    };
    let whole = transfers.map(|t| {
        let ratio = |rate: f64, limit: f64| t.loopback.then(|| (rate / limit * 1000.0).round() / 1000.0);
        json!({
            "size": t.size,
            "put": { "rate": t.put.round() as u64, "ratio": ratio(t.put, limit.put.limit) },
            "get": { "rate": t.get.round() as u64, "ratio": ratio(t.get, limit.get.limit) },
        })
    });
    json!({
        "policy": m.policy.to_string(),
        "cores": m.cores,
        "per_core": {
            "seal": m.seal.round() as u64, "open": m.open.round() as u64, "hash": m.hash.round() as u64, "encode_and_hash": m.encode.round() as u64,
            "decode": m.decode.round() as u64, "decode_lost": m.decode_lost.round() as u64, "tls_loopback": m.tls.round() as u64,
            "read": m.read.round() as u64, "write": m.write.round() as u64,
        },
        "threads": { "number": m.threads, "seal": m.seal_all.round() as u64, "encode_and_hash": m.encode_all.round() as u64 },
        "disk": { "write": m.disk.round() as u64, "sync_seconds": m.sync },
        "limit": { "put": side(&limit.put), "get": side(&limit.get) },
        "transfers": whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_at_a_glance() {
        assert_eq!([mb(0.4e6), mb(999e6), mb(1234.5e6), mb(1_234_567e6)], ["0", "999", "1,234", "1,234,567"]);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
