//! `verify`: is everything there, at full redundancy, and does it open.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, exit_code};
use crate::meter::Meter;
use crate::{target, units};
use clap::Args;
use client::VerifyReport;
use model::Kind;
use serde_json::{Value, json};
use std::ffi::OsString;

/// `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// File or folder
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Folders within, too
    #[arg(short, long)]
    pub recursive: bool,
    /// Let servers read every shard and check its hash
    #[arg(long)]
    pub deep: bool,
}

/// Problems shown to people one by one; of more, the number is told.
const SHOWN: usize = 50;

/// Checks and tells. Exit code 6 when something is lost or corrupt, 5 when it is out of reach; less
/// redundancy than there should be is told, and is no failure: everything can be read.
pub async fn run(cx: Context, args: Verify) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?;
    let meter = Meter::bar_only(&cx);
    let whole = async {
        let client = cx.client().await?;
        client.verify(&path.path, args.recursive, args.deep, meter.clone()).await
    };
    let report = meter.watch("nothing was changed", whole).await?;
    if cx.out.json() {
        cx.out.object(&to_json(&report));
    } else {
        for (path, what) in report.problems.iter().take(SHOWN) {
            cx.out.line(&format!("{}: {}", cx.out.name(path), cx.out.name(what)));
        }
        if report.problems.len() > SHOWN {
            cx.out.line(&format!("and {} more", report.problems.len() - SHOWN));
        }
        let text = sentence(&report);
        cx.out.line(&match outcome(&report) {
            Some(_) => cx.out.red(&text),
            None if report.degraded > 0 => cx.out.yellow(&text),
            None => cx.out.green(&text),
        });
        cx.out.note(&format!("{} read in {}", units::size(meter.counts().bytes), units::duration(meter.elapsed())));
    }
    Ok(outcome(&report).map_or(OK, exit_code))
}

/// What is wrong, the worst first.
fn outcome(report: &VerifyReport) -> Option<Kind> {
    if report.corrupt > 0 || report.lost > 0 && report.unreachable == 0 {
        Some(Kind::Corrupt)
    } else if report.lost > 0 || report.unreadable > 0 {
        Some(Kind::Unavailable)
    } else {
        None
    }
}

fn sentence(report: &VerifyReport) -> String {
    let VerifyReport { files, chunks, ok, degraded, lost, corrupt, unreadable, .. } = report;
    let mut parts = vec![format!("{files} files, {chunks} chunks: {ok} at full redundancy")];
    for (number, what) in
        [(degraded, "readable with less"), (lost, "not readable now"), (unreadable, "could not be read"), (corrupt, "corrupt")]
    {
        if *number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

fn to_json(report: &VerifyReport) -> Value {
    let problems: Vec<_> = report.problems.iter().map(|(path, what)| json!({ "path": path, "what": what })).collect();
    json!({
        "files": report.files,
        "chunks": report.chunks,
        "ok": report.ok,
        "degraded": report.degraded,
        "lost": report.lost,
        "corrupt": report.corrupt,
        "unreachable_shards": report.unreachable,
        "unreadable": report.unreadable,
        "problems": problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_corrupt_from_out_of_reach() {
        let outcome =
            |degraded, lost, corrupt, unreachable| outcome(&VerifyReport { degraded, lost, corrupt, unreachable, ..Default::default() });
        assert_eq!(outcome(0, 0, 0, 0), None);
        assert_eq!(outcome(3, 0, 0, 3), None);
        assert_eq!(outcome(0, 1, 0, 3), Some(Kind::Unavailable));
        assert_eq!(outcome(0, 1, 0, 0), Some(Kind::Corrupt));
        assert_eq!(outcome(1, 0, 1, 1), Some(Kind::Corrupt));
    }

    #[test]
    fn people_read_what_is_not_well_and_nothing_else() {
        let report = VerifyReport { files: 2, chunks: 5, ok: 4, degraded: 1, ..Default::default() };
        assert_eq!(sentence(&report), "2 files, 5 chunks: 4 at full redundancy, 1 readable with less");
    }
}
