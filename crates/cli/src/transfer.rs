//! Moving content: `put`, `get`, `cat`.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::link::{self, LinkPassword};
use crate::meter::{Meter, last_object, last_sentence};
use crate::range::Range;
use crate::target::{self, STREAM, Source, There, Typed};
use crate::versions::versioned;
use crate::{local, units};
use clap::Args;
use client::{Client, ClientOptions, EntryKind, Get, Put, PutOptions};
use model::{Error, Kind, Policy, Result};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll, ready};
use tokio::io::AsyncWrite;

/// What an interrupted transfer leaves behind.
const RESUMED: &str = "what is whole stays, and the same command again goes on with large files where it stopped";

/// The same of an upload whose source cannot be read again.
const NOT_STORED: &str = "nothing was stored";

/// Limits of a transfer.
#[derive(Debug, Args)]
pub struct Limits {
    /// Most memory for content under way
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = units::parse_size, env = "SHARDKEEP_MEMORY", hide_env_values = true)]
    pub memory: u64,
}

impl Limits {
    async fn client(&self, cx: &Context) -> Result<Client> {
        cx.client_of(self.options()).await
    }

    fn options(&self) -> ClientOptions {
        ClientOptions { memory: self.memory, ..Default::default() }
    }
}

/// `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Files and folders of this machine, or '-' for standard input
    #[arg(required = true, value_name = "SRC")]
    pub sources: Vec<PathBuf>,
    /// Remote destination: a folder to put them in, or the new name
    #[arg(value_name = "DST")]
    pub destination: OsString,
    /// Folders too, with everything in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Code new contents into K data and M parity shards, instead of the space's policy
    #[arg(long, value_name = "K+M")]
    pub policy: Option<Policy>,
    /// Do not overwrite: fail (exit code 7) where something is there
    #[arg(long)]
    pub if_absent: bool,
    /// Overwrite this version only: fail (exit code 7) where another one is there, or nothing
    #[arg(long, value_name = "N", conflicts_with_all = ["if_absent", "recursive"])]
    pub if_version: Option<u64>,
    /// Put it into the outbox, and return as soon as it is safe there: an agent uploads it
    #[arg(long)]
    pub background: bool,
    /// Copy the contents into the outbox, sealed, so that the sources may change or go
    #[arg(long, requires = "background")]
    pub spool: bool,
    /// Settle for K servers where too few answer; the rest is made up when they are back
    #[arg(long)]
    pub allow_degraded: bool,
    #[command(flatten)]
    pub limits: Limits,
}

/// `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Remote files and folders, or a link
    #[arg(required = true, value_name = "SRC")]
    pub sources: Vec<OsString>,
    /// Local destination: a folder to put them in, the new name, or '-' for standard output
    #[arg(value_name = "DST")]
    pub destination: PathBuf,
    /// Folders too, with everything in them
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub link: LinkPassword,
    #[command(flatten)]
    pub limits: Limits,
}

/// `cat`.
#[derive(Debug, Args)]
pub struct Cat {
    /// Remote file, or a link
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Only bytes A to B, both included, counted from 0; 'A-' to the end, '-N' the last N
    #[arg(long, value_name = "A-B", allow_hyphen_values = true)]
    pub range: Option<Range>,
    #[command(flatten)]
    pub link: LinkPassword,
    #[command(flatten)]
    pub limits: Limits,
}

/// Stores files and folders.
pub async fn put(cx: Context, args: PutArgs) -> Result<Done, Failure> {
    if args.destination == STREAM {
        return Err(Failure::usage("'put' stores: its destination is a remote path (to read, use 'get' or 'cat')"));
    }
    let to = target::remote(&args.destination)?;
    let from_stream = args.sources.iter().any(|s| s.as_os_str() == STREAM);
    if from_stream && args.sources.len() > 1 {
        return Err(Failure::usage("standard input ('-') goes alone: it has no name to lie under beside others"));
    }
    if from_stream && args.background && !args.spool {
        return Err(Failure::usage("standard input goes into the outbox with '--spool' only: it cannot be read again"));
    }
    let mut puts = if from_stream { vec![from_stdin(&to)?] } else { Vec::new() };
    let (sources, recursive) = (args.sources, args.recursive);
    let found = if from_stream { Vec::new() } else { cx.env.blocking(move || look_at(sources, recursive)).await? };
    let several = found.len() > 1;
    if several && args.if_version.is_some() {
        return Err(Failure::usage("'--if-version' is for one file"));
    }
    if let Some(warning) = args.policy.and_then(crate::cluster::policy::warning) {
        cx.out.error_line(&cx.out.red(&warning));
    }
    let options = PutOptions {
        policy: args.policy,
        if_absent: args.if_absent,
        if_version: args.if_version,
        allow_degraded: args.allow_degraded,
        ..PutOptions::default()
    };
    if args.background {
        return crate::queue::add(&cx, found, from_stream, &to, several, args.spool, options).await;
    }
    let meter = Meter::new(&cx);
    let whole = async {
        let client = args.limits.client(&cx).await?;
        let there = target::remote_there(&client, &to.path).await?;
        if from_stream && there == There::Folder {
            return Err(no_name(&to).into());
        }
        for (path, remote) in target::places(found, &to.path, to.slash, several, there)? {
            puts.push(Put { source: client::Source::Path(path), remote });
        }
        Ok::<_, Failure>(client.put(puts, options, meter.clone()).await?)
    };
    let report = meter.watch(if from_stream { NOT_STORED } else { RESUMED }, whole).await?;
    let code = report_each(&report.failed, &cx.out);
    finish(&cx, &meter, report.files, report.bytes, report.degraded, report.failed.len());
    if report.degraded {
        cx.out.note("Some servers were down or late: not every chunk has all its shards yet. The servers make them up by themselves.");
    }
    Ok(code)
}

/// The end of a transfer, in words or as its last object.
pub fn finish(cx: &Context, meter: &Meter, files: u64, bytes: u64, degraded: bool, failed: usize) {
    let elapsed = meter.elapsed();
    // Alone and failed: the error has said everything, to people.
    if cx.out.json() || files > 0 || failed == 0 {
        cx.out.answer(&last_object(files, bytes, elapsed, degraded, failed), &last_sentence(files, bytes, elapsed));
    }
}

fn no_name(to: &Typed) -> Error {
    Error::invalid(format!("{} is a folder, and standard input has no name to lie under", to.path))
        .hint(format!("shardkeep put - {}/NAME", if to.path.name().is_none() { String::new() } else { to.path.to_string() }))
}

fn from_stdin(to: &Typed) -> Result<Put, Failure> {
    if to.slash {
        return Err(Failure::usage(no_name(to).message));
    }
    Ok(Put { source: client::Source::Stream(Box::new(tokio::io::stdin())), remote: to.path.clone() })
}

/// Local sources with their names. What is not there is left to fail by itself, so that the others
/// get through.
fn look_at(sources: Vec<PathBuf>, recursive: bool) -> Result<Vec<Source<PathBuf>>, Failure> {
    let mut found = Vec::with_capacity(sources.len());
    for path in sources {
        let name = target::local_name(&path);
        let meta = path.metadata();
        let folder = meta.as_ref().is_ok_and(|m| m.is_dir());
        // Like cp: a symlink named as a source is followed, unless whole trees are copied.
        let is_link = path.symlink_metadata().is_ok_and(|m| m.is_symlink());
        if folder && !recursive {
            return Err(Failure::usage(format!("{} is a folder: say -r to store it with everything in it", path.display())));
        }
        let what = if is_link && !recursive { path.canonicalize().unwrap_or(path) } else { path };
        found.push(Source { what, name, folder: folder && !is_link });
    }
    Ok(found)
}

/// Fetches files and folders.
pub async fn get(cx: Context, args: GetArgs) -> Result<Done, Failure> {
    if let Some(text) = args.sources.iter().find_map(link::typed) {
        return match args.sources.len() {
            1 if args.destination.as_os_str() == STREAM => link::cat(&cx, text, &args.link, args.limits.options()).await,
            1 => link::get(&cx, text, args.destination, args.recursive, &args.link, args.limits.options()).await,
            _ => Err(Failure::usage("a link is fetched alone")),
        };
    }
    let sources = args.sources.iter().map(|s| target::remote(s)).collect::<Result<Vec<_>, _>>()?;
    if args.destination.as_os_str() == STREAM {
        return match sources.as_slice() {
            [one] => to_stdout(&cx, &args.limits, &one.path, None, true).await,
            _ => Err(Failure::usage("only one file at a time goes to standard output")),
        };
    }
    let slash = target::ends_in_slash(args.destination.as_os_str());
    let wanted = args.destination.clone();
    let (there, destination) = cx
        .env
        .blocking(move || {
            let there = target::local_there(&wanted);
            // Through a symlink to a folder at once: what is fetched is never written through one.
            let real = if there == There::Folder { wanted.canonicalize().map_err(|e| local::io_error(&wanted, &e))? } else { wanted };
            Ok::<_, Error>((there, real))
        })
        .await?;
    let meter = Meter::new(&cx);
    let whole = async {
        let client = args.limits.client(&cx).await?;
        let several = sources.len() > 1;
        let mut failed = Vec::new();
        let mut found = Vec::with_capacity(sources.len());
        for source in sources {
            let name = source.path.name().filter(|_| !source.contents).map(|n| n.as_bytes().to_vec());
            let (path, number) = versioned(&client, &source.path).await?;
            if let Some(number) = number {
                let version = client.version(&path, number).await?.entry()?;
                let name = path.name().map(|n| n.as_bytes().to_vec());
                found.push(Source { what: (path, Some(version)), name, folder: false });
                continue;
            }
            match client.stat(&source.path).await {
                Ok(entry) => {
                    let folder = entry.kind == EntryKind::Folder;
                    if folder && !args.recursive {
                        return Err(Failure::usage(format!("{} is a folder: say -r to fetch it with everything in it", source.path)));
                    }
                    if source.slash && !folder {
                        return Err(Error::invalid(format!("{} is not a folder", source.path)).into());
                    }
                    found.push(Source { what: (source.path, None), name, folder });
                }
                Err(e) if several && e.kind == Kind::NotFound => failed.push((source.path.to_string(), e)),
                Err(e) => return Err(e.into()),
            }
        }
        let (mut gets, mut older) = (Vec::new(), Vec::new());
        for ((remote, version), local) in target::places(found, &destination, slash, several, there)? {
            match version {
                Some(version) => older.push((version, local)),
                None => gets.push(Get { remote, local }),
            }
        }
        let mut report = client.get(gets, args.recursive, meter.clone()).await?;
        for (version, local) in older {
            match client.get_entry(&version, &local, &*meter).await {
                Ok(()) => (report.files, report.bytes) = (report.files + 1, report.bytes + version.size),
                Err(e) => report.failed.push((version.path.to_string(), e)),
            }
        }
        report.failed.extend(failed);
        Ok(report)
    };
    let report = meter.watch(RESUMED, whole).await?;
    let code = report_each(&report.failed, &cx.out);
    finish(&cx, &meter, report.files, report.bytes, false, report.failed.len());
    Ok(code)
}

/// Writes a file, or a part of it, to standard output.
pub async fn cat(cx: Context, args: Cat) -> Result<Done, Failure> {
    if let Some(text) = link::typed(&args.path) {
        if args.range.is_some() {
            return Err(Failure::usage("'--range' is for paths: of a link all is written"));
        }
        return link::cat(&cx, text, &args.link, args.limits.options()).await;
    }
    let path = target::remote(&args.path)?;
    if path.slash {
        return Err(Failure::usage(format!("{} is a folder: 'cat' takes a file", path.path)));
    }
    to_stdout(&cx, &args.limits, &path.path, args.range, false).await
}

/// The content goes out as it is, also with `--json`: it is what was asked for. `told`: the last
/// object of a transfer then goes to standard error.
async fn to_stdout(cx: &Context, limits: &Limits, path: &client::RemotePath, range: Option<Range>, told: bool) -> Result<Done, Failure> {
    let meter = Meter::bar_only(cx);
    let mut pipe = Pipe { out: tokio::io::stdout(), meter: meter.clone(), closed: false };
    let whole = async {
        let client = limits.client(cx).await?;
        let (path, number) = versioned(&client, path).await?;
        let entry = match number {
            None => client.stat(&path).await?,
            Some(number) => client.version(&path, number).await?.entry()?,
        };
        let range = range.map(|range| range.within(if range.needs_size() { entry.size } else { u64::MAX }));
        client.cat_entry(&entry, range, &mut pipe).await
    };
    match meter.watch("what was written is not the whole file", whole).await {
        Ok(bytes) => {
            if told && cx.out.json() {
                cx.out.error_line(&last_object(1, bytes, meter.elapsed(), false, 0).to_string());
            }
            Ok(OK)
        }
        // Whoever closes the pipe has seen enough.
        Err(_) if pipe.closed => Ok(OK),
        Err(e) => Err(e),
    }
}

/// Standard output, which counts and remembers when its reader has gone.
struct Pipe {
    out: tokio::io::Stdout,
    meter: Arc<Meter>,
    closed: bool,
}

impl Pipe {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.closed |= result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.out).poll_write(cx, bytes));
        if let Ok(n) = &written {
            client::Progress::bytes(&*self.meter, *n as u64);
        }
        Poll::Ready(self.note(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.out).poll_flush(cx));
        Poll::Ready(self.note(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(Pin::new(&mut self.out).poll_shutdown(cx));
        Poll::Ready(self.note(shut))
    }
}
