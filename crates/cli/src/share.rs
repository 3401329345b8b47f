//! Sharing folders: `share`, `unshare`, and `shares`, which lists both directions and looks after them.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::meter::Meter;
use crate::{listing, target, units};
use clap::{Args, Subcommand};
use client::{RemotePath, ShareInfo};
use model::Error;
use model::account::Role;
use serde_json::{Value, json};
use std::ffi::OsString;

/// `share`.
#[derive(Debug, Args)]
pub struct Share {
    /// A folder
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// With whom, and as what: read (if you say nothing), write, or admin
    #[arg(value_name = "USER[:ROLE]", required = true)]
    pub with: Vec<String>,
}

/// `unshare`.
#[derive(Debug, Args)]
pub struct Unshare {
    /// A shared folder
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// From whom it is taken
    #[arg(value_name = "USER")]
    pub user: String,
    /// Also store what is in it anew, under keys that USER has never had
    #[arg(long)]
    pub reencrypt: bool,
}

/// `shares`.
#[derive(Debug, Args)]
pub struct Shares {
    #[command(subcommand)]
    pub what: Option<What>,
}

/// What `shares` does.
#[derive(Debug, Subcommand)]
pub enum What {
    /// List what you share and what is shared with you (what 'shares' alone does)
    List,
    /// Call something that is shared with you otherwise, for yourself alone
    Rename {
        /// /Shared/OWNER/NAME
        #[arg(value_name = "PATH")]
        path: OsString,
        /// Its new name; left out: its owner's again
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// List it under /Shared no more
    Hide {
        /// /Shared/OWNER/NAME
        #[arg(value_name = "PATH")]
        path: OsString,
    },
    /// List it again
    Show {
        /// /Shared/OWNER/NAME
        #[arg(value_name = "PATH")]
        path: OsString,
    },
    /// Leave what is shared with you
    Leave {
        /// /Shared/OWNER/NAME
        #[arg(value_name = "PATH")]
        path: OsString,
    },
    /// Make another admin of a shared folder its owner
    Transfer {
        /// A folder that you own
        #[arg(value_name = "PATH")]
        path: OsString,
        /// Who owns it from now on
        #[arg(value_name = "USER")]
        user: String,
    },
}

/// The word for a role.
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
        Role::Admin => "admin",
    }
}

/// `bea:write` as a person types it.
fn user_and_role(typed: &str) -> Result<(String, Role), Failure> {
    let (name, role) = typed.split_once(':').unwrap_or((typed, "read"));
    let role = match role {
        "read" => Role::Read,
        "write" => Role::Write,
        "admin" => Role::Admin,
        other => return Err(Failure::usage(format!("'{other}' is no role: say read, write or admin"))),
    };
    Ok((name.to_string(), role))
}

fn path_of(typed: &OsString) -> Result<RemotePath, Failure> {
    Ok(target::remote(typed)?.path)
}

/// Shares a folder.
pub async fn share(cx: Context, args: Share) -> Result<Done, Failure> {
    let path = path_of(&args.path)?;
    let with = args.with.iter().map(|w| user_and_role(w)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let done = client.share(&path, &with).await?;
    let people = with.iter().map(|(name, role)| json!({ "user": name, "role": role_word(*role) }));
    let value =
        json!({ "path": path.to_string(), "shared": people.collect::<Vec<_>>(), "rekeyed": done.rekeyed.entries, "nested": done.nested });
    let words: Vec<String> = with.iter().map(|(name, role)| format!("{} ({})", cx.out.name(name), role_word(*role))).collect();
    cx.out.answer(&value, &format!("{} is shared with {}.", listing::shown(&cx.out, &path), words.join(", ")));
    Ok(OK)
}

/// Takes a folder back.
pub async fn unshare(cx: Context, args: Unshare) -> Result<Done, Failure> {
    let path = path_of(&args.path)?;
    let client = cx.client().await?;
    let meter = Meter::new(&cx);
    let whole = client.unshare(&path, &args.user, args.reencrypt, meter.clone());
    let (done, report) = meter.watch("run it again: what is done stays done", whole).await?;
    let value = json!({
        "path": path.to_string(), "user": args.user, "rekeyed": done.rekeyed.entries, "nested": done.nested,
        "reencrypted": report.files, "bytes": report.bytes,
    });
    let nested = if done.nested > 0 { format!(", and {} shared folders in it too", done.nested) } else { String::new() };
    let contents =
        if args.reencrypt { format!("; {} files ({}) are stored anew", report.files, units::size(report.bytes)) } else { String::new() };
    let shown = listing::shown(&cx.out, &path);
    let user = cx.out.name(&args.user);
    cx.out.answer(
        &value,
        &format!("{shown} is not shared with {user} any more{nested}: {} entries have new keys{contents}.", done.rekeyed.entries),
    );
    Ok(report_each(&report.failed, &cx.out))
}

/// Lists shares, or looks after one.
pub async fn shares(cx: Context, args: Shares) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let told = |path: &RemotePath, what: &str, words: &str| {
        let text = format!("{} {words}", listing::shown(&cx.out, path));
        cx.out.answer(&json!({ "path": path.to_string(), "done": what }), &text);
    };
    match args.what.unwrap_or(What::List) {
        What::List => return list(&cx, &client).await,
        What::Rename { path, name } => {
            let path = path_of(&path)?;
            client.rename_share(&path, name.as_deref()).await?;
            told(
                &path,
                "renamed",
                &name.map_or("has its owner's name again.".into(), |n| format!("is called {} now, for you.", cx.out.name(&n))),
            );
        }
        What::Hide { path } => {
            let path = path_of(&path)?;
            client.hide_share(&path, true).await?;
            told(&path, "hidden", "is not listed any more.");
        }
        What::Show { path } => {
            let path = path_of(&path)?;
            client.hide_share(&path, false).await?;
            told(&path, "shown", "is listed again.");
        }
        What::Leave { path } => {
            let path = path_of(&path)?;
            client.leave(&path).await?;
            told(&path, "left", "is not shared with you any more.");
        }
        What::Transfer { path, user } => {
            let path = path_of(&path)?;
            client.transfer_share(&path, &user).await?;
            told(&path, "transferred", &format!("belongs to {} now.", cx.out.name(&user)));
        }
    }
    Ok(OK)
}

fn to_json(info: &ShareInfo) -> Value {
    let members = info
        .members
        .iter()
        .map(|m| json!({ "name": m.name, "role": role_word(m.role), "since": m.since_ms.map(units::rfc3339_ms), "left": m.left }));
    json!({
        "space": info.space.to_string(),
        "path": info.path.as_ref().map(ToString::to_string),
        "name": info.name,
        "owner": info.owner,
        "mine": info.mine,
        "role": role_word(info.role),
        "since": units::rfc3339_ms(info.since_ms),
        "hidden": info.hidden,
        "members": members.collect::<Vec<_>>(),
        "unfinished": info.unfinished,
    })
}

async fn list(cx: &Context, client: &client::Client) -> Result<Done, Failure> {
    let (infos, failed) = client.shares().await?;
    let out = &cx.out;
    let day = |ms: u64| units::rfc3339_ms(ms).chars().take(10).collect::<String>();
    for (mine, heading) in [(true, "Shared by you"), (false, "Shared with you")] {
        let these: Vec<&ShareInfo> = infos.iter().filter(|i| i.mine == mine).collect();
        if out.json() {
            these.iter().for_each(|i| out.object(&to_json(i)));
            continue;
        }
        if !these.is_empty() {
            out.line(&out.bold(heading));
        }
        for info in these {
            let at = info.path.as_ref().map_or_else(|| out.name(&info.name), |p| listing::shown(out, p));
            let hidden = if info.hidden { ", hidden" } else { "" };
            let pending = if info.unfinished { "  (not all of it has new keys yet: run unshare again)" } else { "" };
            if mine {
                out.line(&format!("  {at}{pending}"));
            } else {
                out.line(&format!("  {at}  {} since {}{hidden}{pending}", role_word(info.role), day(info.since_ms)));
            }
            for member in info.members.iter().filter(|m| mine && m.name != info.owner) {
                let since = member.since_ms.map(|ms| format!(" since {}", day(ms))).unwrap_or_default();
                let left = if member.left { ", has left" } else { "" };
                out.line(&format!("    {:<20} {}{since}{left}", out.name(&member.name), role_word(member.role)));
            }
        }
    }
    let failed: Vec<(String, Error)> = failed.into_iter().map(|(space, e)| (format!("shared folder {space}"), e)).collect();
    Ok(report_each(&failed, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_typed_behind_the_name() {
        assert_eq!(user_and_role("bea").unwrap(), ("bea".into(), Role::Read));
        assert_eq!(user_and_role("bea:admin").unwrap(), ("bea".into(), Role::Admin));
        assert!(user_and_role("bea:owner").is_err());
    }
}
