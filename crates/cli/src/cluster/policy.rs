//! `cluster policy`: how a space is coded, and another policy for it. The servers code its files anew,
//! without any key and while they are read; this shows what that will take, and follows it.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::{local, units};
use clap::Args;
use model::{Error, Policy};
use serde_json::{Value, json};
use std::time::Duration;
use wire::admin::SpacePolicyResponse;
use wire::coordinator::Administration;

/// Pause between two looks at the progress.
const PAUSE: Duration = Duration::from_secs(1);

/// `cluster policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Name of the account whose files are meant, or a space's id
    #[arg(value_name = "SPACE")]
    pub space: String,
    /// K data and M parity shards; without it, how the space is coded now is shown
    #[arg(value_name = "K+M")]
    pub policy: Option<Policy>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Do not wait until all is coded anew
    #[arg(long)]
    pub no_wait: bool,
}

/// What a change of policy rewrites.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rewrite {
    objects: u64,
    /// Bytes of their shards now, and then.
    before: u64,
    after: u64,
}

impl Rewrite {
    fn of(shown: &SpacePolicyResponse, policy: Policy) -> Self {
        let mut rewrite = Rewrite::default();
        for (is, objects, bytes) in shown.coding.policies.iter().filter(|(is, _, _)| *is != policy) {
            rewrite.objects += objects;
            rewrite.before += stored(*is, *bytes);
            rewrite.after += stored(policy, *bytes);
        }
        rewrite
    }
}

/// Bytes of the shards of so many sealed bytes.
fn stored(policy: Policy, bytes: u64) -> u64 {
    bytes.div_ceil(u64::from(policy.k.max(1))).saturating_mul(u64::from(policy.width()))
}

/// What a policy means, in words.
fn means(policy: Policy) -> String {
    let losses = match policy.m {
        0 => "no server may be lost".to_string(),
        1 => "any one of its servers may be lost".to_string(),
        m => format!("any {m} of its servers may be lost"),
    };
    format!("{losses}, {:.2} times the bytes", f64::from(policy.width()) / f64::from(policy.k.max(1)))
}

/// What is said, loudly, of a policy without parity.
pub fn warning(policy: Policy) -> Option<String> {
    (policy.m == 0)
        .then(|| format!("WARNING: with {policy} nothing can be rebuilt: a single server or disk that is lost loses files for good"))
}

pub async fn run(cx: Context, args: PolicyArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let shown = client.space_policy(&args.space).await?;
    let Some(policy) = args.policy else {
        show(&cx, &shown);
        return Ok(OK);
    };
    let rewrite = Rewrite::of(&shown, policy);
    let size = units::size;
    cx.out.note(&format!("{policy}: {}", means(policy)));
    cx.out.note(&match rewrite.objects {
        0 => "nothing that is stored needs to be coded anew".to_string(),
        n => format!("{n} objects are coded anew: their shards take {} instead of {}", size(rewrite.after), size(rewrite.before)),
    });
    if let Some(warning) = warning(policy) {
        cx.out.error_line(&cx.out.red(&warning));
    }
    if !args.yes && (rewrite.objects > 0 || policy.m == 0) && !confirmed(&cx).await? {
        cx.out.answer(&json!({ "changed": false }), "nothing was changed");
        return Ok(OK);
    }
    client.administer(Administration::SetPolicy { space: shown.space, policy }).await?;
    let document = |left: u64| json!({ "changed": true, "policy": policy.to_string(), "objects": rewrite.objects, "left": left });
    if args.no_wait {
        let text = "the servers code its files anew: shardkeep cluster policy shows how far they are".to_string();
        cx.out.answer(&document(rewrite.objects), &text);
        return Ok(OK);
    }
    let mut told = None;
    loop {
        let coding = match client.space_policy(&args.space).await {
            Ok(shown) => shown.coding,
            Err(e) if e.kind == model::Kind::Unavailable => continue,
            Err(e) => return Err(e.into()),
        };
        if coding.policy != Some(policy) {
            return Err(Error::conflict("this space was given another policy meanwhile").into());
        }
        if coding.left == 0 {
            break;
        }
        if cx.out.prints_progress() {
            cx.out.object(&json!({ "progress": { "left": coding.left, "left_bytes": coding.left_bytes, "total": rewrite.objects } }));
        } else if told.replace(coding.left) != Some(coding.left) {
            let waits = "shardkeep cluster events says what waits";
            cx.out.note(&format!("{} objects left, {} ({waits})", coding.left, size(coding.left_bytes)));
        }
        cx.env.sleep(PAUSE).await;
    }
    cx.out.answer(&document(0), &format!("{} {} is coded {policy}", cx.out.green("✓"), cx.out.name(&shown.owner)));
    if rewrite.objects > 0 {
        cx.out.note(
            "The earlier shards go after an hour. A backup of the catalog from before does not know the new ones: shardkeep cluster backup",
        );
    }
    Ok(OK)
}

fn show(cx: &Context, shown: &SpacePolicyResponse) {
    let coding = &shown.coding;
    let now = coding.policy.unwrap_or(shown.default);
    if cx.out.json() {
        let policies: Vec<Value> = coding
            .policies
            .iter()
            .map(|(policy, objects, bytes)| {
                json!({ "policy": policy.to_string(), "objects": objects, "bytes": bytes, "stored": stored(*policy, *bytes) })
            })
            .collect();
        cx.out.object(&json!({
            "space": shown.space.to_string(), "account": shown.owner, "policy": now.to_string(), "own": coding.policy.is_some(),
            "policies": policies, "left": coding.left, "left_bytes": coding.left_bytes,
        }));
        return;
    }
    let whose = if coding.policy.is_some() { "" } else { " (the cluster's default)" };
    cx.out.line(&format!("{}: {now}{whose}: {}", cx.out.name(&shown.owner), means(now)));
    for (policy, objects, bytes) in &coding.policies {
        cx.out.line(&format!("  {policy}: {objects} objects, {} in shards", units::size(stored(*policy, *bytes))));
    }
    if coding.left > 0 {
        cx.out.line(&format!("  {} objects are still to be coded anew, {}", coding.left, units::size(coding.left_bytes)));
    }
}

/// Asks on the terminal.
async fn confirmed(cx: &Context) -> Result<bool, Failure> {
    let tty = local::open_terminal().map_err(|_| Failure::usage("there is no terminal to ask on: say --yes"))?;
    let answer = cx.env.blocking(move || local::ask_line(tty, "Change the policy? Write yes: ")).await;
    Ok(answer?.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::command::SpaceCoding;
    use model::{AccountId, SpaceId};

    #[test]
    fn a_change_says_what_it_rewrites() {
        let policies = vec![(Policy { k: 2, m: 2 }, 3, 1000), (Policy { k: 4, m: 2 }, 7, 5000)];
        let coding = SpaceCoding { owner: AccountId([1; 16]), policy: None, policies, left: 0, left_bytes: 0 };
        let shown = SpacePolicyResponse { space: SpaceId([2; 16]), owner: "a".into(), default: Policy::DEFAULT, coding };
        let to = |k, m| Rewrite::of(&shown, Policy { k, m });
        assert_eq!(to(4, 2), Rewrite { objects: 3, before: 2000, after: 1500 });
        assert_eq!(to(1, 0), Rewrite { objects: 10, before: 9500, after: 6000 });
        assert_eq!(means(Policy { k: 4, m: 2 }), "any 2 of its servers may be lost, 1.50 times the bytes");
        assert!(warning(Policy { k: 1, m: 0 }).is_some() && warning(Policy { k: 1, m: 1 }).is_none());
    }
}
