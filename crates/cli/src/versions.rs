//! What was: `versions` of a file, and `restore`. A version is named behind the path: `/a.txt@3`, and
//! `/a.txt@c1` for what lost against somebody else's write.

use crate::context::Context;
use crate::failure::{Done, Failure, OK};
use crate::target::{self, Typed};
use crate::{listing, units};
use clap::Args;
use client::{Client, RemotePath, Version, VersionNumber};
use model::{Kind, Result};
use seal::tree::Name;
use serde_json::{Value, json};
use std::ffi::OsString;

/// `versions`.
#[derive(Debug, Args)]
pub struct Versions {
    /// Remote file, also one that is in the trash
    #[arg(value_name = "PATH")]
    pub path: OsString,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Remote file with the version to bring back; without one, the version before the current one. What
    /// is in the trash comes back from there: a folder with everything below it
    #[arg(value_name = "PATH[@VERSION]")]
    pub path: OsString,
    /// Where to, for what comes back from the trash
    #[arg(long, value_name = "PATH")]
    pub to: Option<OsString>,
}

/// A path and the version behind it, if one was typed. A file whose own name ends like that comes first.
pub async fn versioned(client: &Client, path: &RemotePath) -> Result<(RemotePath, Option<VersionNumber>)> {
    let Some((plain, number)) = split(path) else { return Ok((path.clone(), None)) };
    match client.stat(path).await {
        Err(e) if e.kind == Kind::NotFound => Ok((plain, Some(number))),
        found => found.map(|_| (path.clone(), None)),
    }
}

/// `NAME@VERSION` taken apart.
fn split(path: &RemotePath) -> Option<(RemotePath, VersionNumber)> {
    let name = path.name()?.as_str()?.to_string();
    let (plain, number) = name.rsplit_once('@')?;
    let (plain, number) = (Name::new(plain).ok()?, number.parse().ok()?);
    Some((path.parent()?.join(&plain), number))
}

/// Lists versions.
pub async fn versions(cx: Context, args: Versions) -> Result<Done, Failure> {
    let Typed { path, .. } = target::remote(&args.path)?;
    let client = cx.client().await?;
    let all = client.versions(&path).await?;
    if cx.out.json() {
        all.iter().for_each(|v| cx.out.object(&to_json(&path, v)));
        return Ok(OK);
    }
    let number = |v: &Version| v.number.to_string();
    let size = |v: &Version| v.size.map_or_else(|| "-".into(), units::size);
    let (widest, wide) = all.iter().fold((0, 0), |(a, b), v| (a.max(number(v).len()), b.max(size(v).len())));
    for v in &all {
        let what = match (v.current, v.removal, v.number) {
            (true, _, _) => cx.out.green("current"),
            (_, true, _) => "removed".into(),
            (_, _, VersionNumber::Conflict(_)) => cx.out.yellow("conflict"),
            _ => String::new(),
        };
        let moved = v.path.as_ref().filter(|p| **p != path).map(|p| format!(" as {}", listing::shown(&cx.out, p))).unwrap_or_default();
        let when = units::rfc3339_ms(v.committed_ms);
        let line = format!("{:>widest$}  {:>wide$}  {when}  {}  {what}{moved}", number(v), size(v), cx.out.name(&v.author_name));
        cx.out.line(line.trim_end());
    }
    Ok(OK)
}

fn to_json(path: &RemotePath, v: &Version) -> Value {
    json!({
        "path": path.to_string(),
        "version": v.number.to_string(),
        "current": v.current,
        "conflict": matches!(v.number, VersionNumber::Conflict(_)),
        "removed": v.removal,
        "was": v.path.as_ref().map(|p| p.to_string()),
        "size": v.size,
        "mtime": v.mtime_ns.map(units::rfc3339_ns),
        "time": units::rfc3339_ms(v.committed_ms),
        "author": v.author_name,
        "until": v.until_ms.map(units::rfc3339_ms),
    })
}

/// Brings a version back.
pub async fn restore(cx: Context, args: Restore) -> Result<Done, Failure> {
    let typed = target::remote(&args.path)?;
    let to = args.to.as_deref().map(target::remote).transpose()?.map(|to| to.path);
    if typed.path.name().is_none() {
        return Err(Failure::usage("the root itself cannot be restored: name what lay in it"));
    }
    let client = cx.client().await?;
    let (path, number) = versioned(&client, &typed.path).await?;
    if let Some(to) = to {
        if number.is_some() {
            return Err(Failure::usage("a version goes elsewhere by 'get PATH@VERSION' and 'put': '--to' is for what is in the trash"));
        }
        let at = client.restore_removed(&path, Some(&to)).await?;
        return told(&cx, &path, &at, None);
    }
    let number = client.restore(&path, number).await?;
    told(&cx, &path, &path, Some(number))
}

fn told(cx: &Context, path: &RemotePath, at: &RemotePath, number: Option<VersionNumber>) -> Result<Done, Failure> {
    let object = json!({ "path": path.to_string(), "restored": at.to_string(), "version": number.map(|n| n.to_string()) });
    let version = number.map(|n| format!(" as of version {n}")).unwrap_or_default();
    cx.out.answer(&object, &format!("{} is back{version}.", listing::shown(&cx.out, at)));
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_behind_the_path() {
        let path = |text| RemotePath::parse(text).unwrap();
        assert_eq!(split(&path("/a/b.txt@3")), Some((path("/a/b.txt"), VersionNumber::Revision(3))));
        assert_eq!(split(&path("/a@b@c12")), Some((path("/a@b"), VersionNumber::Conflict(12))));
        for none in ["/a", "/a@", "/a@x", "/a@0", "/a@-1", "/a@+1", "/ann@example.org", "/a@3/b", "/@3"] {
            assert_eq!(split(&path(none)), None, "{none}");
        }
    }
}
