//! `verify-user`: is the key that the servers show for somebody really theirs?

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::{local, units};
use clap::Args;
use client::{Acquaintance, Client, PinState};
use model::Error;
use serde_json::json;

/// `verify-user`.
#[derive(Debug, Args)]
pub struct VerifyUser {
    /// Account name of the other one
    pub user: String,
    /// You have compared the safety number with them, and it was the same
    #[arg(long)]
    pub verified: bool,
    /// Take a key that has changed (asks on the terminal)
    #[arg(long)]
    pub accept: bool,
}

/// Shows the safety number, and what is known of the key.
pub async fn verify_user(cx: Context, args: VerifyUser) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let seen = client.acquaintance(&args.user).await?;
    let state = decide(&cx, &client, &seen, &args).await?;
    let since = seen.since_ms.map(units::rfc3339_ms);
    if cx.out.json() {
        cx.out.object(&json!({
            "user": seen.name,
            "account": seen.account.to_string(),
            "fingerprint": seen.fingerprint.to_string(),
            "safety_number": seen.safety_number,
            "state": state,
            "pinned": since,
        }));
    } else {
        let when = since.as_ref().map_or_else(String::new, |at| format!(" since {at}"));
        cx.out.line(&format!("account        {}", cx.out.bold(&cx.out.name(&seen.name))));
        cx.out.line(&format!("fingerprint    {}", seen.fingerprint));
        for (i, line) in lines(&seen.safety_number).iter().enumerate() {
            cx.out.line(&format!("{:<13}  {line}", if i == 0 { "safety number" } else { "" }));
        }
        let line = match state {
            "new" => "pinned just now: nothing was known of this account here".to_string(),
            "verified" => format!("{} pinned{when}, and the safety number was compared", cx.out.green("✓")),
            "accepted" => "the changed key was accepted and is pinned from now on".to_string(),
            "changed" => cx.out.red("CHANGED: another key was pinned before"),
            _ => format!("pinned{when}; the safety number was not compared yet"),
        };
        cx.out.line(&format!("state          {line}"));
    }
    match (state, &seen.state) {
        ("changed", PinState::Changed(before, verified)) => {
            let compared = if *verified { ", whose safety number you had compared" } else { "" };
            Err(Error::denied(format!(
                "the key of '{}' is another than the one pinned here before (fingerprint {before}{compared}): \
                 somebody may be between you, or the account was made anew",
                seen.name
            ))
            .hint(format!("compare the safety number by another way, then: shardkeep verify-user {} --accept", seen.name))
            .into())
        }
        ("new" | "pinned", _) => {
            cx.out.note(&format!(
                "Compare the safety number by another way (telephone, in person): {} sees the same with 'verify-user {}'.\n\
                 When it is: shardkeep verify-user {} --verified",
                cx.out.name(&seen.name),
                client.profile().info()?.account,
                seen.name
            ));
            Ok(OK)
        }
        _ => Ok(OK),
    }
}

/// Does what the flags ask for, and says how things stand then.
async fn decide(cx: &Context, client: &Client, seen: &Acquaintance, args: &VerifyUser) -> Result<&'static str, Failure> {
    match seen.state {
        PinState::Changed(..) if args.accept => {
            if !confirmed(cx, &seen.name).await? {
                return Ok("changed");
            }
            client.accept(seen, args.verified).await?;
            Ok(if args.verified { "verified" } else { "accepted" })
        }
        PinState::Changed(..) => Ok("changed"),
        PinState::Verified => Ok("verified"),
        _ if args.verified => {
            client.accept(seen, true).await?;
            Ok("verified")
        }
        PinState::New => Ok("new"),
        PinState::Pinned => Ok("pinned"),
    }
}

/// A safety number in lines of six groups: one a party.
fn lines(number: &str) -> Vec<String> {
    number.split(' ').collect::<Vec<_>>().chunks(6).map(|line| line.join(" ")).collect()
}

/// Asks on the terminal: a changed key is taken by a person, never by a script.
async fn confirmed(cx: &Context, name: &str) -> Result<bool, Failure> {
    let tty = local::open_terminal().map_err(|_| {
        Failure::Error(Error::denied("a changed key is accepted by a person: there is no terminal to ask on").hint("run it in a terminal"))
    })?;
    let question = format!("The key of {} has CHANGED. Type the account name to take the new one: ", cx.out.name(name));
    match cx.env.blocking(move || local::ask_line(tty, &question)).await {
        Ok(text) => Ok(text.trim() == name),
        Err(e) => Err(Error::invalid(e.message).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn a_safety_number_is_shown_in_one_line_a_party() {
        let number = (0..12).map(|i| format!("{i:05}")).collect::<Vec<_>>().join(" ");
        assert_eq!(lines(&number), ["00000 00001 00002 00003 00004 00005", "00006 00007 00008 00009 00010 00011"]);
    }
}
