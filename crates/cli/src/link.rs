//! `link`: making links for people without an account; and `get`, `cat` and `ls` for those.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::listing::{kind_letter, shown, to_json};
use crate::meter::Meter;
use crate::password::{self, Secret};
use crate::target::{self, Source, There};
use crate::transfer::finish;
use crate::{local, units};
use clap::{Args, Subcommand};
use client::{Client, ClientOptions, EntryKind, LinkOptions, OpenedLink, OwnLink, Profile};
use model::{Error, Result};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// `link`.
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// Make a link: whoever has it can read one file, or a folder with all in it, without an account
    Create(CreateArgs),
    /// List your links
    List,
    /// End a link
    Revoke(RevokeArgs),
}

/// `link create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// File or folder
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// It takes a password too (asked for on the terminal)
    #[arg(long)]
    pub password: bool,
    /// The same, with the password from this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The servers refuse it after this time, for example 7d
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub expires: Option<Duration>,
    /// The servers let it be opened so often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// `link revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The link, or its id
    pub link: String,
}

/// Where the password of a link comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct LinkPassword {
    /// Read the password of a link from this file
    #[arg(long, value_name = "FILE")]
    pub link_password_file: Option<PathBuf>,
}

pub async fn run(cx: Context, command: LinkCommand) -> Result<Done, Failure> {
    match command {
        LinkCommand::Create(args) => create(cx, args).await,
        LinkCommand::List => list(cx).await,
        LinkCommand::Revoke(args) => revoke(cx, args).await,
    }
}

async fn create(cx: Context, args: CreateArgs) -> Result<Done, Failure> {
    let path = target::remote(&args.path)?.path;
    let client = cx.client().await?;
    let password = match &args.password_file {
        Some(file) => Some(password::from_file(&cx, file).await?),
        None if args.password => Some(choose(&cx).await?),
        None => None,
    };
    let link = client.create_link(&path, LinkOptions { password, expires: args.expires, count: args.count }).await?;
    if cx.out.json() {
        cx.out.object(&document(&link));
        return Ok(OK);
    }
    cx.out.line(link.text.as_ref().map_or("", |t| t.as_str()));
    let what = if link.folder { "all that is and will be in it" } else { "this version of it" };
    cx.out.note(&format!("Whoever has this link can read {what}. It is as good as a key: hand it on with care."));
    if args.expires.is_some() || args.count.is_some() {
        cx.out.note("Time and number are kept by the servers, not by cryptography: servers that cheat can go on serving it.");
    }
    Ok(OK)
}

async fn choose(cx: &Context) -> Result<Secret, Failure> {
    let password = password::ask(cx, "Password of the link: ", "--password-file").await?;
    if *password::ask(cx, "The same once more: ", "--password-file").await? != *password || password.is_empty() {
        return Err(Error::invalid("these were not the same, or empty").into());
    }
    Ok(password)
}

async fn list(cx: Context) -> Result<Done, Failure> {
    let links = cx.client().await?.links().await?;
    if cx.out.json() {
        links.iter().for_each(|link| cx.out.object(&document(link)));
        return Ok(OK);
    }
    if links.is_empty() {
        cx.out.note("There are no links.");
    }
    for link in &links {
        let path = link.path.as_deref().unwrap_or("(made on a machine whose notes are lost)");
        let mut line = format!("{}  {}  made {}", link.id, cx.out.bold(&cx.out.name(path)), units::rfc3339_ms(link.created_ms));
        line += &format!(", opened {} times", link.opened);
        line += &link.left.map_or_else(String::new, |n| format!(", {n} times left"));
        line += &link.expires_ms.map_or_else(String::new, |at| format!(", until {}", units::rfc3339_ms(at)));
        line += if link.password { ", with a password" } else { "" };
        cx.out.line(&line);
        if let Some(text) = &link.text {
            cx.out.line(&cx.out.dim(&format!("  {}", text.as_str())));
        }
    }
    Ok(OK)
}

async fn revoke(cx: Context, args: RevokeArgs) -> Result<Done, Failure> {
    let client = cx.client().await?;
    let id = client::link_id(&args.link)?;
    let folder = client.links().await?.iter().any(|l| l.id == id && l.folder);
    client.revoke_link(id).await?;
    cx.out.answer(&json!({ "revoked": id.to_string() }), &format!("link {id} is revoked"));
    if folder {
        cx.out.note(
            "The servers serve it no more. Whoever had it knows the folder's key: with servers that cheat they could read on, \
             until the folder is given new keys.",
        );
    }
    Ok(OK)
}

fn document(link: &OwnLink) -> Value {
    json!({
        "id": link.id.to_string(),
        "path": link.path,
        "link": link.text.as_ref().map(|t| t.as_str()),
        "kind": if link.folder { "folder" } else { "file" },
        "password": link.password,
        "created": units::rfc3339_ms(link.created_ms),
        "expires": link.expires_ms.map(units::rfc3339_ms),
        "left": link.left,
        "opened": link.opened,
    })
}

/// A link in the place of a path; `None` where it is none.
pub fn typed(text: &OsString) -> Option<&str> {
    text.to_str().filter(|text| client::is_link(text))
}

/// Opens a link; asks for its password where it takes one.
async fn open(cx: &Context, text: &str, from: &LinkPassword, options: ClientOptions) -> Result<OpenedLink, Failure> {
    let password = match (client::link_takes_password(text)?, &from.link_password_file) {
        (false, _) => None,
        (true, Some(file)) => Some(password::from_file(cx, file).await?),
        (true, None) => Some(password::ask(cx, "Password of the link: ", "--link-password-file").await?),
    };
    // No account, no profile: only journals of interrupted downloads lie here.
    let profile = Profile::new(cx.env.clone(), &cx.home, "links")?;
    Ok(Client::open_link(profile, text, password.as_ref().map(|p| p.as_str()), options).await?)
}

/// `ls LINK`.
pub async fn ls(cx: &Context, text: &str, from: &LinkPassword, long: bool, recursive: bool) -> Result<Done, Failure> {
    let OpenedLink { client, entry } = open(cx, text, from, ClientOptions::default()).await?;
    let mut folders = vec![entry];
    while let Some(folder) = folders.pop() {
        let entries = client.list_entries(&folder, false).await?;
        for entry in &entries {
            if cx.out.json() {
                cx.out.object(&to_json(entry));
                continue;
            }
            let name = if recursive || folder.kind != EntryKind::Folder { shown(&cx.out, &entry.path) } else { cx.out.name(&entry.name()) };
            if long {
                let mode = units::mode_letters(kind_letter(entry.kind), entry.mode);
                cx.out.line(&format!("{mode} {:>10} {} {name}", units::size(entry.size), units::short_time(entry.mtime_ns)));
            } else {
                cx.out.line(&name);
            }
        }
        if recursive && folder.kind == EntryKind::Folder {
            folders.extend(entries.into_iter().rev().filter(|e| e.kind == EntryKind::Folder));
        }
    }
    Ok(OK)
}

/// `cat LINK`.
pub async fn cat(cx: &Context, text: &str, from: &LinkPassword, options: ClientOptions) -> Result<Done, Failure> {
    let OpenedLink { client, entry } = open(cx, text, from, options).await?;
    client.cat_entry(&entry, None, &mut tokio::io::stdout()).await?;
    Ok(OK)
}

/// `get LINK DST`.
pub async fn get(
    cx: &Context,
    text: &str,
    to: PathBuf,
    recursive: bool,
    from: &LinkPassword,
    options: ClientOptions,
) -> Result<Done, Failure> {
    let OpenedLink { client, entry } = open(cx, text, from, options).await?;
    let folder = entry.kind == EntryKind::Folder;
    if folder && !recursive {
        return Err(Failure::usage("this link leads to a folder: say -r to fetch it with everything in it"));
    }
    let slash = target::ends_in_slash(to.as_os_str());
    let (there, to) = cx
        .env
        .blocking(move || {
            let there = target::local_there(&to);
            let real = if there == There::Folder { to.canonicalize().map_err(|e| local::io_error(&to, &e))? } else { to };
            Ok::<_, Error>((there, real))
        })
        .await?;
    let name = entry.path.name().map(|n| n.as_bytes().to_vec());
    let path = entry.path.clone();
    let placed = target::places(vec![Source { what: entry, name, folder }], &to, slash, false, there)?;
    let found = placed.into_iter().map(|(entry, local)| (Ok(entry), path.clone(), local)).collect();
    let meter = Meter::new(cx);
    let whole = async { Ok::<_, Failure>(client.get_found(found, recursive, meter.clone()).await?) };
    let report = meter.watch("what is whole stays", whole).await?;
    let code = report_each(&report.failed, &cx.out);
    finish(cx, &meter, report.files, report.bytes, false, report.failed.len());
    Ok(code)
}
