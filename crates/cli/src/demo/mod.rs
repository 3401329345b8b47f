//! `demo`: the promise, kept before your eyes. A coordinator and four nodes, each a process of its
//! own, take files, lose two of the nodes, give the files back byte for byte, and heal.
//!
//! Everything lies in one folder, which goes at the end with all processes, however it ends.

mod look;
mod sample;
mod servers;
mod tell;

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::{local, stop, units};
use clap::Args;
use client::{Client, ClientOptions, Entry, EntryKind, Get, Put, PutOptions, RemotePath};
use model::cluster::ServerRole;
use model::{Error, NodeId, Result};
use seal::tree::Name;
use serde_json::json;
use servers::{Server, Servers};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tell::Tell;

/// How many nodes there are, and which two of them die.
const NODES: usize = 4;
const VICTIMS: [usize; 2] = [1, 3];
/// Longest time that healing may take before the demo counts as failed, beside what the data needs.
const HEALING: Duration = Duration::from_secs(60);
/// How long the join tokens are good.
const TOKEN_VALID: Duration = Duration::from_secs(600);

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Files and folders to store [default: a sample made on the spot]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Keep everything in this folder, to look at afterwards
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs it. Ends with 0 only if everything held.
pub async fn run(cx: Context, args: Demo) -> Result<Done, Failure> {
    tokio::select! {
        done = story(&cx, args) => done.map(|()| OK),
        // The story is dropped, and with it processes and folder.
        () = stop::told() => {
            cx.out.note("\nstopped; processes and folder are gone");
            Ok(130)
        }
    }
}

/// The folder of the demo. Removed when dropped, unless it is to be kept.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn new(cx: &Context, dir: Option<PathBuf>) -> Result<Self> {
        let keep = dir.is_some();
        let random = u32::from_be_bytes(cx.env.random());
        let path = dir.unwrap_or_else(|| std::env::temp_dir().join(format!("shardkeep-demo-{random:08x}")));
        let path = std::path::absolute(&path).map_err(|e| local::io_error(&path, &e))?;
        if !local::is_empty_or_absent(&path) {
            return Err(Error::exists(format!("{} is not empty", path.display())).hint("choose another --dir"));
        }
        // The owner's alone: a session lies in it.
        cx.env.disk.create_dir_all(&path).map_err(|e| local::io_error(&path, &e))?;
        Ok(Folder { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = local::remove_all(&self.path)
        {
            eprintln!("{} could not be removed: {e}", self.path.display());
        }
    }
}

/// What is stored: where it is here, and under which name there.
struct Item {
    local: PathBuf,
    name: Name,
}

async fn story(cx: &Context, args: Demo) -> Result<(), Failure> {
    let tell = Tell::new(cx);
    // Declared before the processes, so that it is dropped after them.
    let folder = Folder::new(cx, args.dir)?;
    let dir = folder.path.clone();
    let items = match args.files.is_empty() {
        true => sample::make(cx, &dir.join("files")).await?,
        false => args.files.clone(),
    };
    let items = named(items)?;
    let (files, bytes) = measure(cx, &items).await?;
    tell.title(&format!("Shardkeep: a throwaway cluster of {} processes in {}", NODES + 1, dir.display()));

    tell.step("start", "One coordinator and four nodes start");
    let servers = Servers::new(cx, &dir, bytes)?;
    let coordinator = servers.coordinator().await?;
    let invite = coordinator.field("invite")?;
    tell.server(&coordinator);
    let password = format!("demo {}", hex(&cx.env.random::<12>()));
    let user = cx.at_home(dir.join("home"));
    let (client, _words) = Client::register(user.profile()?, &invite, &password, ClientOptions::default()).await?;
    // One after another, so that node N lies in folder N.
    let mut nodes: Vec<Option<Server>> = Vec::new();
    for number in 1..=NODES {
        let (token, _) = client.create_token(ServerRole::Node, TOKEN_VALID, None).await?;
        let node = servers.node(number, Some(token)).await?;
        tell.server(&node);
        nodes.push(Some(node));
    }
    tell.ok("an account is made; its keys and password stay on this side", json!({ "nodes": NODES }));

    tell.step("store", "Files are sealed here, cut into 2 + 2 shards, and stored on all four nodes");
    let entries = store(cx, &client, &items, &tell).await?;
    let chunks = entries.iter().map(Entry::chunks).sum::<u64>();

    tell.step("kill", "Two nodes die (kill -9)");
    let mut gone = Vec::new();
    for victim in VICTIMS {
        if let Some(mut server) = nodes.get_mut(victim).and_then(Option::take) {
            server.kill();
            tell.killed(&server);
            gone.push((victim + 1, server.node()?));
        }
    }

    tell.step("read", "Everything is read back from the two that are left");
    read_back(cx, &user, &items, &dir.join("back"), (files, bytes), &tell).await?;

    tell.step("look", "What the servers hold");
    look::look(cx, &dir, &items, &password, &tell).await?;

    tell.step("heal", "One node comes back as it was; an empty one takes the place of the other");
    heal(cx, &user, &servers, &mut nodes, &gone, &tell).await?;
    let client = user.client().await?;
    whole(cx, &client, &entries, bytes, chunks, &tell).await?;
    safe(cx, &client, &tell).await?;

    if folder.keep {
        tell.note(&format!("\n{} keeps what the servers stored, and their logs.", dir.display()));
    }
    tell.end(files, bytes);
    drop(nodes);
    drop(coordinator);
    Ok(())
}

/// Each source with the name under which it is stored. Two of one name would overwrite each other.
fn named(sources: Vec<PathBuf>) -> Result<Vec<Item>, Failure> {
    let mut taken = BTreeMap::new();
    for local in sources {
        let name = Name::from_bytes(&local::last_name(&local)?)?;
        if let Some(other) = taken.insert(name.clone(), local.clone()) {
            return Err(Failure::usage(format!("{} and {} have the same name", other.display(), local.display())));
        }
    }
    Ok(taken.into_iter().map(|(name, local)| Item { local, name }).collect())
}

/// Files and bytes.
async fn measure(cx: &Context, items: &[Item]) -> Result<(u64, u64)> {
    let tops: Vec<PathBuf> = items.iter().map(|i| i.local.clone()).collect();
    cx.env
        .blocking(move || {
            let (mut files, mut bytes) = (0, 0);
            for top in tops {
                for file in local::files_below(&top)? {
                    let meta = file.symlink_metadata().map_err(|e| local::io_error(&file, &e))?;
                    files += 1;
                    bytes += if meta.is_file() { meta.len() } else { 0 };
                }
            }
            Ok((files, bytes))
        })
        .await
}

/// Stores everything and lists it. Answers with the entries of all files.
async fn store(cx: &Context, client: &Client, items: &[Item], tell: &Tell) -> Result<Vec<Entry>> {
    let root = RemotePath::root();
    let puts = items.iter().map(|i| Put { source: client::Source::Path(i.local.clone()), remote: root.join(&i.name) }).collect();
    let start = cx.env.clock.monotonic();
    let report = client.put(puts, PutOptions::default(), Arc::new(())).await?;
    let took = cx.env.clock.monotonic() - start;
    if let Some((path, e)) = report.failed.into_iter().next() {
        return Err(Error { message: format!("{path}: {}", e.message), ..e });
    }
    let mut entries = Vec::new();
    client
        .walk(&root, true, |entry| {
            entries.push(entry.clone());
            Ok(())
        })
        .await?;
    entries.retain(|e| e.kind != EntryKind::Folder);
    tell.listing(&entries);
    let stored: u64 = entries.iter().map(Entry::stored).sum();
    let text = format!(
        "{} in {}{}, {} on disk, acknowledged by {}",
        tell::files(report.files, report.bytes),
        units::duration(took),
        tell::rate(report.bytes, took),
        units::size(stored),
        if report.degraded { "a write quorum" } else { "all four" }
    );
    tell.ok(&text, json!({ "files": report.files, "bytes": report.bytes, "stored": stored, "degraded": report.degraded }));
    if report.degraded {
        late_ones(cx, client, &entries).await?;
    }
    Ok(entries)
}

/// Waits for shards with which servers were late: two of the servers die next.
async fn late_ones(cx: &Context, client: &Client, entries: &[Entry]) -> Result<()> {
    let start = cx.env.clock.monotonic();
    loop {
        let (there, all) = shards(client, entries).await?;
        if there == all {
            return Ok(());
        }
        if cx.env.clock.monotonic() - start > HEALING {
            return Err(Error::unavailable(format!("{} of {all} shards are not there yet", all - there)));
        }
        cx.env.sleep(Duration::from_millis(250)).await;
    }
}

/// Fetches everything and compares it with what was stored, byte for byte.
async fn read_back(cx: &Context, user: &Context, items: &[Item], back: &Path, all: (u64, u64), tell: &Tell) -> Result<()> {
    cx.env.disk.create_dir_all(back).map_err(|e| local::io_error(back, &e))?;
    // Somebody else's terminal: nothing is remembered from the upload.
    let client = user.client().await?;
    let to = |i: &Item| local::join(back, i.name.as_bytes());
    let gets = items.iter().map(|i| Get { remote: RemotePath::root().join(&i.name), local: to(i) }).collect();
    let start = cx.env.clock.monotonic();
    let report = client.get(gets, true, Arc::new(())).await?;
    let took = cx.env.clock.monotonic() - start;
    if let Some((path, e)) = report.failed.into_iter().next() {
        return Err(Error { message: format!("{path}: {}", e.message), ..e });
    }
    let pairs: Vec<(PathBuf, PathBuf)> = items.iter().map(|i| (i.local.clone(), to(i))).collect();
    let compared = cx
        .env
        .blocking(move || {
            let mut sum = local::Compared::default();
            for (one, other) in pairs {
                let c = local::compare(&one, &other)?;
                sum.files += c.files;
                sum.bytes += c.bytes;
                sum.different.extend(c.different);
            }
            Ok::<_, Error>(sum)
        })
        .await?;
    if let Some(first) = compared.different.first() {
        return Err(Error::corrupt(format!("what came back is not what was stored: {first}")));
    }
    if (compared.files, compared.bytes) != all {
        return Err(Error::corrupt("the files that were stored have changed meanwhile, so nothing can be said"));
    }
    let text = format!(
        "{} in {}{}, byte for byte the same",
        tell::files(compared.files, compared.bytes),
        units::duration(took),
        tell::rate(compared.bytes, took)
    );
    tell.ok(&text, json!({ "files": compared.files, "bytes": compared.bytes, "same": true }));
    Ok(())
}

/// Starts the victims again: the first emptied, with a token that gives it the slots of its
/// predecessor, the others as they were.
async fn heal(
    cx: &Context,
    user: &Context,
    servers: &Servers,
    nodes: &mut [Option<Server>],
    gone: &[(usize, NodeId)],
    tell: &Tell,
) -> Result<()> {
    let client = user.client().await?;
    let mut replaced = false;
    for (number, id) in gone {
        let (number, id) = (*number, *id);
        let server = if !replaced {
            let dir = servers.node_dir(number);
            cx.env.blocking(move || local::remove_all(&dir).map_err(|e| local::io_error(&dir, &e))).await?;
            let (token, _) = client.create_token(ServerRole::Node, TOKEN_VALID, Some(id)).await?;
            let server = servers.node(number, Some(token)).await?;
            replaced = true;
            tell.back(&server, &format!("empty, takes the place of node-{id}"));
            server
        } else {
            let server = servers.node(number, None).await?;
            tell.back(&server, "with its disk as it was");
            server
        };
        if let Some(place) = nodes.get_mut(number - 1) {
            *place = Some(server);
        }
    }
    Ok(())
}

/// Waits until every shard of every chunk is in its place.
async fn whole(cx: &Context, client: &Client, entries: &[Entry], bytes: u64, chunks: u64, tell: &Tell) -> Result<()> {
    let start = cx.env.clock.monotonic();
    // At 10 MB/s even a slow disk is done by then.
    let limit = HEALING + Duration::from_secs(bytes / 10_000_000);
    let mut missing_first = None;
    loop {
        let (there, all) = shards(client, entries).await?;
        let missing = all - there;
        let first = *missing_first.get_or_insert(missing);
        let took = cx.env.clock.monotonic() - start;
        if missing == 0 {
            let text = match chunks {
                0 => "all files are small enough to lie in the catalog: there is nothing to rebuild".to_string(),
                _ => format!("{first} missing shards rebuilt in {}: all {all} shards of {chunks} chunks are there", units::duration(took)),
            };
            tell.ok(&text, json!({ "shards": all, "rebuilt": first, "seconds": took.as_secs_f64() }));
            return Ok(());
        }
        if took > limit {
            return Err(Error::unavailable(format!("after {} {missing} of {all} shards are still missing", units::duration(took))));
        }
        cx.env.sleep(Duration::from_millis(250)).await;
    }
}

/// Shards that are in their place, and that should be.
async fn shards(client: &Client, entries: &[Entry]) -> Result<(u64, u64)> {
    let (mut there, mut all) = (0, 0);
    for entry in entries.iter().filter(|e| e.chunks() > 0) {
        for chunk in client.places(entry, false).await? {
            all += chunk.shards.len() as u64;
            there += chunk.shards.iter().filter(|s| s.state == client::ShardPlaceState::Ok).count() as u64;
        }
    }
    Ok((there, all))
}

/// Waits until the cluster says so itself.
async fn safe(cx: &Context, client: &Client, tell: &Tell) -> Result<()> {
    for _ in 0..120 {
        let survivable = crate::cluster::survivable(client).await?;
        if survivable == Some(2) {
            tell.ok("the cluster says: any two servers may be lost", json!({ "failures_survivable": 2 }));
            return Ok(());
        }
        cx.env.sleep(Duration::from_millis(250)).await;
    }
    Err(Error::unavailable("all shards are there, and yet the cluster does not count itself safe"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
