//! `watch`: changes as they happen, until Ctrl-C.

use crate::context::Context;
use crate::failure::{Done, Failure};
use crate::{listing, stop, target, units};
use clap::Args;
use client::{ChangeKind, Changed, WatchEvent};
use serde_json::{Value, json};
use std::ffi::OsString;

/// `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// File or folder
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,
    /// Begin after this revision of the space, as an earlier watch has told it, instead of now
    #[arg(long, value_name = "REVISION")]
    pub after: Option<u64>,
}

/// Prints changes.
pub async fn run(cx: Context, args: Watch) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?.path;
    let work = async {
        let client = cx.client().await?;
        let mut watch = client.watch(&path, args.after).await?;
        if cx.out.json() {
            cx.out.object(&json!({ "watching": path.to_string(), "revision": watch.revision() }));
        } else {
            cx.out.note(&format!("Watching {}; Ctrl-C ends.", listing::shown(&cx.out, &path)));
        }
        loop {
            match watch.next().await? {
                WatchEvent::Change(change) if cx.out.json() => cx.out.object(&to_json(&change)),
                WatchEvent::Change(change) => cx.out.line(&line(&cx, &change)),
                WatchEvent::Resync if cx.out.json() => cx.out.object(&json!({ "change": "resync", "revision": watch.revision() })),
                WatchEvent::Resync => cx.out.line("resync: more has changed than could be followed; look at everything anew"),
            }
        }
    };
    tokio::select! {
        biased;
        ended = work => ended,
        () = stop::told() => Ok(crate::failure::OK),
    }
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Created => "created",
        ChangeKind::Restored => "restored",
        ChangeKind::Changed => "changed",
        ChangeKind::Moved => "moved",
        ChangeKind::Removed => "removed",
        ChangeKind::Purged => "purged",
        ChangeKind::Conflict => "conflict",
    }
}

fn line(cx: &Context, change: &Changed) -> String {
    let path = listing::shown(&cx.out, &change.path);
    let path = if change.named { path } else { format!("{path} (something in it)") };
    let from = change.from.as_ref().map(|from| format!("{} -> ", listing::shown(&cx.out, from))).unwrap_or_default();
    let who = cx.out.name(&change.author_name);
    format!("{}  {who}  {:<8}  {from}{path}", units::rfc3339_ms(change.time_ms), word(change.kind))
}

fn to_json(change: &Changed) -> Value {
    json!({
        "change": word(change.kind),
        "path": change.path.to_string(),
        "named": change.named,
        "from": change.from.as_ref().map(|p| p.to_string()),
        "version": change.version.to_string(),
        "time": units::rfc3339_ms(change.time_ms),
        "author": change.author_name,
        "revision": change.revision,
    })
}
