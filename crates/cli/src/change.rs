//! Changes of the tree that move no content: `mkdir`, `mv`, `cp`, `rm`.

use crate::context::Context;
use crate::failure::{Done, Failure, report_each};
use crate::target::{self, Source};
use clap::Args;
use client::{Client, EntryKind, RemotePath};
use model::{Error, Kind, Result};
use serde_json::{Value, json};
use std::ffi::OsString;

/// `mkdir`.
#[derive(Debug, Args)]
pub struct Mkdir {
    /// Folders to make
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    /// Those above, too; one that is there is fine
    #[arg(short, long)]
    pub parents: bool,
}

/// `mv`.
#[derive(Debug, Args)]
pub struct Mv {
    /// Files and folders
    #[arg(value_name = "SRC", required = true)]
    pub sources: Vec<OsString>,
    /// A folder to put them in, or the new name
    #[arg(value_name = "DST")]
    pub destination: OsString,
}

/// `cp`.
#[derive(Debug, Args)]
pub struct Cp {
    /// Files and folders
    #[arg(value_name = "SRC", required = true)]
    pub sources: Vec<OsString>,
    /// A folder to put the copies in, or the new name
    #[arg(value_name = "DST")]
    pub destination: OsString,
    /// Folders too, with everything in them
    #[arg(short, long)]
    pub recursive: bool,
}

/// `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    /// Folders too, with everything in them
    #[arg(short, long)]
    pub recursive: bool,
    /// For good, not into the trash
    #[arg(long)]
    pub purge: bool,
}

/// Makes folders.
pub async fn mkdir(cx: Context, args: Mkdir) -> Result<Done, Failure> {
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for path in typed {
        match client.mkdir(&path.path, args.parents).await {
            Ok(()) => made.push(path.path.to_string()),
            Err(e) => {
                let hint = format!("shardkeep mkdir -p {}", path.path);
                let e = if e.kind == Kind::NotFound && !args.parents { e.hint(hint) } else { e };
                failed.push((path.path.to_string(), e));
            }
        }
    }
    Ok(finish(&cx, json!({ "made": made }), &failed))
}

/// Prints the document and what has failed; answers with the exit code.
fn finish(cx: &Context, document: Value, failed: &[(String, Error)]) -> Done {
    if cx.out.json() {
        cx.out.object(&document);
    }
    report_each(failed, &cx.out)
}

/// Sources and destination of `mv` and `cp`, with the exact place of each. What is not there has failed.
struct Plan {
    steps: Vec<(RemotePath, RemotePath)>,
    failed: Vec<(String, Error)>,
}

async fn plan(client: &Client, sources: &[OsString], destination: &OsString, verb: &str, folders: bool) -> Result<Plan, Failure> {
    let sources = sources.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let to = target::remote(destination)?;
    if let Some(whole) = sources.iter().find(|s| s.contents) {
        return Err(Failure::usage(format!("'{verb}' takes things by their names: name what lies in {}", whole.path)));
    }
    let several = sources.len() > 1;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        match client.stat(&source.path).await {
            Ok(entry) => {
                let folder = entry.kind == EntryKind::Folder;
                if folder && !folders {
                    return Err(Failure::usage(format!("{} is a folder: say -r to copy it with everything in it", source.path)));
                }
                if source.slash && !folder {
                    return Err(Error::invalid(format!("{} is not a folder", source.path)).into());
                }
                let name = source.path.name().map(|n| n.as_bytes().to_vec());
                found.push(Source { what: source.path, name, folder });
            }
            Err(e) if several && e.kind == Kind::NotFound => failed.push((source.path.to_string(), e)),
            Err(e) => return Err(e.into()),
        }
    }
    // Case-only and same-place renames of a folder would otherwise go into the folder itself.
    let there = target::remote_there(client, &to.path).await?;
    let steps = target::places(found, &to.path, to.slash, several, there)?;
    Ok(Plan { steps, failed })
}

fn pairs(done: &[(RemotePath, RemotePath)]) -> Value {
    done.iter().map(|(from, to)| json!({ "from": from.to_string(), "to": to.to_string() })).collect()
}

/// Moves or renames. Nothing is overwritten.
pub async fn mv(cx: Context, args: Mv) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let Plan { steps, mut failed } = plan(&client, &args.sources, &args.destination, "mv", true).await?;
    let mut done = Vec::new();
    for (from, to) in steps {
        match client.rename(&from, &to).await {
            Ok(()) => done.push((from, to)),
            Err(e) => failed.push((from.to_string(), occupied(e, &to))),
        }
    }
    Ok(finish(&cx, json!({ "moved": pairs(&done) }), &failed))
}

/// Copies. Nothing is overwritten.
pub async fn cp(cx: Context, args: Cp) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let Plan { steps, mut failed } = plan(&client, &args.sources, &args.destination, "cp", args.recursive).await?;
    let mut done = Vec::new();
    for (from, to) in steps {
        match client.copy(&from, &to, args.recursive).await {
            Ok(()) => done.push((from, to)),
            Err(e) => failed.push((from.to_string(), occupied(e, &to))),
        }
    }
    Ok(finish(&cx, json!({ "copied": pairs(&done) }), &failed))
}

/// What to do about a place that is taken.
fn occupied(e: Error, to: &RemotePath) -> Error {
    if e.kind == Kind::Exists && e.hint.is_none() { e.hint(format!("shardkeep rm {to}, or choose another name")) } else { e }
}

/// Removes: to the trash, or for good.
pub async fn rm(cx: Context, args: Rm) -> Result<Done, Failure> {
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    if typed.iter().any(|t| t.path.name().is_none()) {
        return Err(Failure::usage("the root itself cannot be removed: name what lies in it"));
    }
    if let Some(contents) = typed.iter().find(|t| t.contents) {
        return Err(Failure::usage(format!("'rm' takes things by their names: say {}", contents.path)));
    }
    let client = cx.client().await?;
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for path in typed {
        match client.remove(&path.path, args.recursive, args.purge).await {
            Ok(_) => removed.push(path.path.to_string()),
            Err(e) => failed.push((path.path.to_string(), e)),
        }
    }
    Ok(finish(&cx, json!({ "removed": removed, "purged": args.purge }), &failed))
}
