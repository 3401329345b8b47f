//! `cluster users`: who has an account; shutting one out, and quotas. Admins never gain access to data.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use clap::{Args, Subcommand};
use serde_json::json;
use wire::coordinator::Administration;

/// `cluster users`.
#[derive(Debug, Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    pub command: Option<UsersCommand>,
}

/// What can be done to an account.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// End its sessions now, and let it log in no more
    Disable {
        /// Account name
        name: String,
    },
    /// Let it log in again
    Enable {
        /// Account name
        name: String,
    },
    /// Set how much it may use on disks; what it has stays
    Quota {
        /// Account name
        name: String,
        /// For example 500G; 'none' for no limit
        #[arg(value_name = "SIZE", value_parser = quota)]
        size: Quota,
    },
}

/// A quota as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(pub Option<u64>);

fn quota(text: &str) -> Result<Quota, String> {
    if text == "none" { Ok(Quota(None)) } else { units::parse_size(text).map(|size| Quota(Some(size))) }
}

pub async fn run(cx: Context, args: UsersArgs) -> Result<Done, Failure> {
    match args.command {
        None => list(cx).await,
        Some(command) => change(cx, command).await,
    }
}

async fn change(cx: Context, command: UsersCommand) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let (request, name, document, said) = match command {
        UsersCommand::Disable { name } => (
            Administration::SetDisabled { name: name.clone(), disabled: true },
            name,
            json!({ "disabled": true }),
            "may not log in any more; all its sessions have ended".to_string(),
        ),
        UsersCommand::Enable { name } => (
            Administration::SetDisabled { name: name.clone(), disabled: false },
            name,
            json!({ "disabled": false }),
            "may log in again".into(),
        ),
        UsersCommand::Quota { name, size: Quota(quota) } => {
            let said = quota.map_or_else(|| "has no quota any more".into(), |q| format!("may use {} on disks", units::size(q)));
            (Administration::SetQuota { name: name.clone(), quota }, name, json!({ "quota": quota }), said)
        }
    };
    client.administer(request).await?;
    let mut document = document;
    document["account"] = json!(name);
    cx.out.answer(&document, &format!("{} {said}", cx.out.name(&name)));
    Ok(OK)
}

async fn list(cx: Context) -> Result<Done, Failure> {
    let users = cx.client().await?.users().await?;
    if cx.out.json() {
        for user in &users {
            cx.out.object(&json!({
                "account": user.name,
                "id": user.id.to_string(),
                "admin": user.admin,
                "disabled": user.disabled,
                "quota": user.quota,
                "used": user.used,
            }));
        }
        return Ok(OK);
    }
    let width = users.iter().map(|u| u.name.chars().count()).max().unwrap_or(0).max("ACCOUNT".len());
    cx.out.line(&cx.out.dim(&format!("{:<width$}  {:>10}  {:>10}", "ACCOUNT", "USED", "OF")));
    for user in &users {
        let quota = user.quota.map_or_else(|| "-".into(), units::size);
        let mut line = format!("{:<width$}  {:>10}  {quota:>10}", cx.out.name(&user.name), units::size(user.used));
        line += if user.admin { "  admin" } else { "" };
        line += if user.disabled { "  disabled" } else { "" };
        cx.out.line(&line);
    }
    Ok(OK)
}
