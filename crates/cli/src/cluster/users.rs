//! `cluster users`: who has an account.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::units;
use serde_json::json;

pub async fn run(cx: Context) -> Result<Done, Failure> {
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
