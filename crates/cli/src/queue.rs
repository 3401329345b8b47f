//! The outbox by the command line: `put --background`, `queue`, and the agent that does the work.
//!
//! The agent is this program again (`queue run`), one a profile, started by whoever finds work and no agent.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::target::{self, Source, Typed};
use crate::{stop, units};
use clap::{Args, Subcommand};
use client::outbox::{Agent, AgentOptions, JobInfo, JobPhase, JobSource, NewJob, Outbox, Resolve};
use client::{Client, PutOptions, RemotePath};
use model::{Error, Kind, Result};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long an agent that was started by a command waits for more work.
const IDLE: Duration = Duration::from_secs(3);

/// `queue`.
#[derive(Debug, Subcommand)]
pub enum Queue {
    /// Show what is in the outbox, and how far it is
    List,
    /// Pause jobs
    Pause(Jobs),
    /// Go on with paused jobs, and start the agent
    Resume(Jobs),
    /// Try jobs again now that failed or wait
    Retry(Retry),
    /// Take jobs out of the outbox; what of them is stored stays
    Remove(Named),
    /// Be the agent, in the foreground, until told to stop
    Run(Run),
}

/// Some jobs, or all.
#[derive(Debug, Args)]
pub struct Jobs {
    /// Ids or their beginnings [default: all]
    #[arg(value_name = "JOB")]
    pub jobs: Vec<String>,
}

/// `queue retry`.
#[derive(Debug, Args)]
pub struct Retry {
    #[command(flatten)]
    pub jobs: Jobs,
    /// Take sources as they are now, though they have changed since they were queued
    #[arg(long)]
    pub as_is: bool,
}

/// `queue remove`.
#[derive(Debug, Args)]
pub struct Named {
    /// Ids or their beginnings
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<String>,
}

/// `queue run`.
#[derive(Debug, Args)]
pub struct Run {
    /// End when there is nothing left to do
    #[arg(long)]
    pub until_empty: bool,
    /// Most memory for content under way
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = units::parse_size, env = "SHARDKEEP_MEMORY", hide_env_values = true)]
    pub memory: u64,
}

/// Puts something into the outbox; returns when it is durable there.
pub async fn add(
    cx: &Context,
    sources: Vec<Source<PathBuf>>,
    stdin: bool,
    to: &Typed,
    several: bool,
    spool: bool,
    options: PutOptions,
) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let outbox = cx.env.blocking(move || Outbox::open(&profile)).await?;
    let mut all = Vec::with_capacity(sources.len());
    for source in sources {
        let path = std::path::absolute(&source.what).map_err(|e| crate::local::io_error(&source.what, &e))?;
        all.push(JobSource::Path { path, name: source.name });
    }
    if stdin {
        all.push(JobSource::Stream(Box::new(tokio::io::stdin())));
    }
    let job = NewJob { sources: all, destination: to.path.clone(), slash: to.slash, several, spool, options };
    let queued = stop::unless_told(outbox.add(job)).await?;
    let started = wake(cx).await;
    let object = json!({ "queued": queued.id, "files": queued.files, "bytes": queued.bytes, "spooled": spool });
    let text = format!(
        "Queued as {}: {} files, {}. 'shardkeep queue list' shows how far it is.",
        queued.id,
        queued.files,
        units::size(queued.bytes)
    );
    cx.out.answer(&object, &text);
    if let Err(e) = started {
        cx.out.error_line(&format!("the agent could not be started ({e}): shardkeep queue run"));
    }
    Ok(OK)
}

/// Starts an agent if there is work and none is at it. It outlives this process and its terminal.
pub async fn wake(cx: &Context) -> Result<()> {
    let profile = cx.profile()?;
    if !cx.env.blocking(move || Outbox::needs_agent(&profile)).await {
        return Ok(());
    }
    let failed = |e: std::io::Error| Error::invalid(format!("{e}"));
    let home = std::path::absolute(&cx.home).map_err(failed)?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("--home").arg(&home).arg("--profile").arg(cx.profile_name()).args(["--quiet", "queue", "run", "--until-empty"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").process_group(0);
    command.spawn().map(|_| ()).map_err(failed)
}

/// Runs a command of the queue.
pub async fn run(cx: Context, command: Queue) -> Result<Done, Failure> {
    match command {
        Queue::List => list(cx).await,
        Queue::Pause(args) => act(cx, "paused", move |outbox| outbox.pause(&args.jobs)).await,
        Queue::Resume(args) => act(cx, "resumed", move |outbox| outbox.resume(&args.jobs)).await,
        Queue::Retry(args) => act(cx, "retried", move |outbox| outbox.retry(&args.jobs.jobs, args.as_is)).await,
        Queue::Remove(args) => act(cx, "removed", move |outbox| outbox.remove(&args.jobs)).await,
        Queue::Run(args) => work(cx, args).await,
    }
}

async fn act(cx: Context, word: &str, act: impl FnOnce(&Outbox) -> Result<Vec<String>> + Send + 'static) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let jobs = cx.env.blocking(move || act(&Outbox::open(&profile)?)).await?;
    wake(&cx).await?;
    let text = if jobs.is_empty() { "The queue is empty.".to_string() } else { format!("{word}: {}", jobs.join(", ")) };
    cx.out.answer(&json!({ word: jobs }), &text);
    Ok(OK)
}

fn word(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Uploading => "uploading",
        JobPhase::Waiting => "waiting",
        JobPhase::Paused => "paused",
        JobPhase::Failed => "failed",
        JobPhase::Foreign => "foreign",
    }
}

async fn list(cx: Context) -> Result<Done, Failure> {
    let profile = cx.profile()?;
    let (jobs, agent) = cx
        .env
        .blocking(move || {
            let outbox = Outbox::open(&profile)?;
            Ok::<_, Error>((outbox.list()?, outbox.agent()))
        })
        .await?;
    wake(&cx).await?;
    if cx.out.json() {
        let jobs: Vec<Value> = jobs.iter().map(to_json).collect();
        cx.out.object(&json!({ "agent": agent, "jobs": jobs }));
        return Ok(OK);
    }
    if jobs.is_empty() {
        cx.out.note("The queue is empty.");
    }
    for job in &jobs {
        cx.out.line(&line(&cx, job));
    }
    Ok(OK)
}

fn to_json(job: &JobInfo) -> Value {
    json!({
        "job": job.id,
        "state": word(job.phase),
        "queued": units::rfc3339_ms(job.created_ms),
        "sources": job.sources,
        "destination": job.destination,
        "files": job.files.0,
        "files_done": job.files.1,
        "bytes": job.bytes.0,
        "bytes_done": job.bytes.1,
        "spooled": job.spooled,
        "tries": job.tries,
        "next": job.next_ms.map(units::rfc3339_ms),
        "reason": job.reason,
    })
}

fn line(cx: &Context, job: &JobInfo) -> String {
    let state = match job.phase {
        JobPhase::Uploading => cx.out.green(word(job.phase)),
        JobPhase::Failed => cx.out.red(word(job.phase)),
        JobPhase::Paused => cx.out.yellow(word(job.phase)),
        JobPhase::Waiting | JobPhase::Foreign => word(job.phase).to_string(),
    };
    let part = if job.bytes.0 == 0 { 100 } else { u128::from(job.bytes.1) * 100 / u128::from(job.bytes.0) };
    let what = format!("{} -> {}", job.sources.join(" "), job.destination);
    let mut text = format!(
        "{}  {state}  {part}% of {} ({} of {} files)  {}",
        job.id,
        units::size(job.bytes.0),
        job.files.1,
        job.files.0,
        cx.out.name(&what)
    );
    if let Some(reason) = &job.reason {
        text += &format!("\n    {}", cx.out.name(reason));
    }
    if let Some(next) = job.next_ms {
        text += &format!("\n    again at {}", units::rfc3339_ms(next));
    }
    text
}

/// Is the agent.
async fn work(cx: Context, args: Run) -> Result<Done, Failure> {
    let options = AgentOptions { until_idle: args.until_empty.then_some(IDLE), memory: args.memory };
    let resolve: Arc<Resolve> = Arc::new(|client, sources, destination, slash, several| {
        Box::pin(async move { places(client, sources, &destination, slash, several).await })
    });
    let mut agent = Agent::new(cx.profile()?, options, resolve);
    // A terminal that closes does not end it; SIGTERM and Ctrl-C do.
    let hangups = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    tokio::select! {
        biased;
        done = agent.run() => match done {
            Err(e) if args.until_empty && e.kind == Kind::Conflict => Ok(OK),
            done => done.map(|()| OK).map_err(Into::into),
        },
        () = stop::told() => Ok(OK),
        () = ignore(hangups) => Ok(OK),
    }
}

/// Takes signals, and does nothing about them.
async fn ignore(signals: std::io::Result<tokio::signal::unix::Signal>) {
    if let Ok(mut signals) = signals {
        while signals.recv().await.is_some() {}
    }
    std::future::pending().await
}

/// The rules of `put`, applied when the job is begun.
async fn places(
    client: &Client,
    sources: Vec<(Option<Vec<u8>>, bool)>,
    destination: &RemotePath,
    slash: bool,
    several: bool,
) -> Result<Vec<RemotePath>> {
    let there = target::remote_there(client, destination).await?;
    let sources = sources.into_iter().map(|(name, folder)| Source { what: (), name, folder }).collect();
    let placed = target::places(sources, destination, slash, several, there);
    let placed = placed.map_err(|failure| match failure {
        Failure::Error(e) => e,
        Failure::Usage(message) | Failure::Interrupted(message) => Error::invalid(message),
    })?;
    Ok(placed.into_iter().map(|((), place)| place).collect())
}
