//! `cluster invite`: with it somebody makes an account of that name, once.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// `cluster invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// The account's name
    pub name: String,
    /// May administer the cluster
    #[arg(long)]
    pub admin: bool,
    /// Most bytes on disk, such as 50G; with 2+2 a file takes twice its size [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub quota: Option<u64>,
    /// How long it is good, such as 1h or 7d
    #[arg(long, default_value = "7d", value_name = "TIME", value_parser = units::parse_duration)]
    pub expires: Duration,
}

pub async fn run(cx: Context, args: InviteArgs) -> Result<Done, Failure> {
    let (invite, expires_ms) = cx.client().await?.create_invite(&args.name, args.admin, args.quota, args.expires).await?;
    let expires = units::rfc3339_ms(expires_ms);
    if cx.out.json() {
        cx.out.object(&json!({ "invite": invite, "expires": expires }));
        return Ok(OK);
    }
    cx.out.line(&invite);
    cx.out.note(&format!("\nGood once, until {expires}. Send it by a way that you trust: who has it makes the account. Then:"));
    cx.out.note("  shardkeep register INVITE");
    Ok(OK)
}
