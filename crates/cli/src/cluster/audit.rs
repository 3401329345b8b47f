//! `cluster audit`: the log of events, checked from its first event on.

use super::events;
use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::{Args, Subcommand};
use client::PartFile;
use serde_json::json;
use std::path::PathBuf;

/// What to do with the log.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check that no event was changed, left out or taken back since the last check
    Verify(VerifyArgs),
    /// Check it, and write it to a file: a JSON object a line, with its hash
    Export(ExportArgs),
}

/// `cluster audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Forget what was verified here before: after a restore from a backup
    #[arg(long)]
    pub forget: bool,
}

/// `cluster audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// New file to write; - is standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Forget what was verified here before: after a restore from a backup
    #[arg(long)]
    pub forget: bool,
}

pub async fn run(cx: Context, audit: Audit) -> Result<Done, Failure> {
    match audit {
        Audit::Verify(args) => verify(cx, args).await,
        Audit::Export(args) => export(cx, args).await,
    }
}

async fn verify(cx: Context, args: VerifyArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let mut last_ms = None;
    let verified = client.verify_events(args.forget, |event, _| {
        last_ms = Some(event.time_ms);
        Ok(())
    });
    let verified = verified.await?;
    let until = last_ms.map(units::rfc3339_ms);
    let text = match &until {
        Some(time) => {
            format!("{} {} events, the last of {time}, are chained without a gap\n  {}", cx.out.green("✓"), verified.seq, verified.hash)
        }
        None => "there are no events yet".into(),
    };
    cx.out.answer(&json!({ "verified": true, "events": verified.seq, "hash": verified.hash.to_string(), "until": until }), &text);
    Ok(OK)
}

async fn export(cx: Context, args: ExportArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let to_file = args.file.as_os_str() != "-";
    let mut part = if to_file { Some(PartFile::create(cx.env.disk.clone(), &args.file)?) } else { None };
    let verified = client.verify_events(args.forget, |event, hash| {
        let mut object = events::object(event);
        object["prev"] = event.prev.to_string().into();
        object["hash"] = hash.to_string().into();
        match &mut part {
            Some(part) => part.write(format!("{object}\n").as_bytes()),
            None => {
                cx.out.object(&object);
                Ok(())
            }
        }
    });
    let verified = verified.await?;
    if let Some(part) = part {
        part.finish()?;
        let text = format!("{} verified events are in {}", verified.seq, args.file.display());
        cx.out
            .answer(&json!({ "events": verified.seq, "hash": verified.hash.to_string(), "file": args.file.display().to_string() }), &text);
    }
    Ok(OK)
}
