//! The trash: `trash list`, `restore`, `empty`, and for how long a space keeps what was.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::{listing, local, target, units};
use clap::{Args, Subcommand};
use client::{EntryKind, RemotePath, TrashItem};
use model::Result;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::time::Duration;

/// `trash`.
#[derive(Debug, Subcommand)]
pub enum Trash {
    /// Show what was removed, where it lay, when and by whom; newest first
    List(List),
    /// Bring back what was removed last from each path: a folder with everything below it
    Restore(RestoreArgs),
    /// Destroy for good what was removed
    Empty(Empty),
    /// Say for how long versions and trash are kept, or show it
    Keep(Keep),
}

/// `trash list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only what lay there or below
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,
}

/// `trash restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Where they lay
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    /// Another place to bring it back to
    #[arg(long, value_name = "PATH")]
    pub to: Option<OsString>,
}

/// `trash empty`.
#[derive(Debug, Args)]
pub struct Empty {
    /// Only what lay there or below
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,
    /// Only what was removed longer ago than this, for example 7d
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub older: Option<Duration>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `trash keep`.
#[derive(Debug, Args)]
pub struct Keep {
    /// A path of the space
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// So many days (0: nothing is kept; at most ten years); without it, what holds is shown
    #[arg(value_name = "DAYS")]
    pub days: Option<u32>,
}

/// Runs a command of the trash.
pub async fn run(cx: Context, command: Trash) -> Result<Done, Failure> {
    match command {
        Trash::List(args) => list(cx, args).await,
        Trash::Restore(args) => restore(cx, args).await,
        Trash::Empty(args) => empty(cx, args).await,
        Trash::Keep(args) => keep(cx, args).await,
    }
}

async fn list(cx: Context, args: List) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?.path;
    let client = cx.client().await?;
    client
        .trash(&path, |item| {
            if cx.out.json() {
                cx.out.object(&to_json(&item))
            } else {
                cx.out.line(&line(&cx, &item))
            }
            Ok(true)
        })
        .await?;
    Ok(OK)
}

fn line(cx: &Context, item: &TrashItem) -> String {
    let path = item.path.as_ref().map_or_else(|| format!("(its folder is gone: {})", item.id), |p| listing::shown(&cx.out, p));
    let folder = if item.kind == Some(EntryKind::Folder) && item.path.is_some() { "/" } else { "" };
    let size = item.size.filter(|_| item.kind != Some(EntryKind::Folder)).map_or_else(|| "-".into(), units::size);
    let until = cx.out.dim(&format!("kept until {}", units::rfc3339_ms(item.until_ms)));
    format!("{}  {size:>9}  {}  {path}{folder}  {until}", units::rfc3339_ms(item.removed_ms), cx.out.name(&item.by_name))
}

fn to_json(item: &TrashItem) -> Value {
    json!({
        "id": item.id.to_string(),
        "path": item.path.as_ref().map(|p| p.to_string()),
        "kind": item.kind.map(listing::kind_word),
        "size": item.size,
        "removed": units::rfc3339_ms(item.removed_ms),
        "by": item.by_name,
        "until": units::rfc3339_ms(item.until_ms),
        "in_removed_folder": item.in_removed_folder,
    })
}

async fn restore(cx: Context, args: RestoreArgs) -> Result<Done, Failure> {
    let paths = args.paths.iter().map(|p| target::remote(p).map(|t| t.path)).collect::<Result<Vec<RemotePath>, _>>()?;
    let to = args.to.as_deref().map(target::remote).transpose()?.map(|to| to.path);
    if to.is_some() && paths.len() > 1 {
        return Err(Failure::usage("'--to' is for one path"));
    }
    let client = cx.client().await?;
    let (mut restored, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        match client.restore_removed(&path, to.as_ref()).await {
            Ok(at) => restored.push(at.to_string()),
            Err(e) => failed.push((path.to_string(), e)),
        }
    }
    if !restored.is_empty() || cx.out.json() {
        cx.out.answer(&json!({ "restored": restored }), &format!("Back: {}", restored.join(", ")));
    }
    Ok(report_each(&failed, &cx.out))
}

async fn empty(cx: Context, args: Empty) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?.path;
    let what = if path.name().is_none() { "everything in your trash".to_string() } else { format!("what was removed from {path}") };
    if !args.yes {
        let tty = local::open_terminal().map_err(|_| Failure::usage("there is no terminal to ask on: say --yes"))?;
        let question = format!("Destroy {what} for good? Write yes: ");
        if cx.env.blocking(move || local::ask_line(tty, &question)).await?.trim() != "yes" {
            cx.out.note("Nothing was destroyed.");
            return Ok(OK);
        }
    }
    let client = cx.client().await?;
    let before = args.older.map_or(u64::MAX, |age| cx.env.now_ms().saturating_sub(age.as_millis() as u64));
    let gone = client.empty_trash(&path, before).await?;
    cx.out.answer(&json!({ "destroyed": gone }), &format!("{gone} destroyed for good."));
    Ok(OK)
}

async fn keep(cx: Context, args: Keep) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?.path;
    let client = cx.client().await?;
    if let Some(days) = args.days {
        client.set_retention(&path, Duration::from_secs(u64::from(days) * 86_400)).await?;
    }
    let kept = client.retention(&path).await?;
    let text = format!("Versions and trash of this space are kept for {}.", units::duration(kept));
    cx.out.answer(&json!({ "path": path.to_string(), "keep": kept.as_secs() }), &text);
    Ok(OK)
}
