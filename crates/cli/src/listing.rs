//! Looking around: `ls`, `tree`, `find`. With `--json` each entry is an object on a line.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::link::{self, LinkPassword};
use crate::out::Out;
use crate::{glob, target, units};
use clap::{Args, ValueEnum};
use client::{ChunkPlaces, Client, Entry, EntryKind, RemotePath, ShardPlaceState};
use model::{Error, Result};
use serde_json::{Value, json};
use std::ffi::OsString;

/// `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Folders and files, or a link
    #[arg(value_name = "PATH", default_value = "/")]
    pub paths: Vec<OsString>,
    /// With mode, size and time
    #[arg(short)]
    pub long: bool,
    /// Folders within, too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// With the servers that hold each shard, and what is missing or misplaced
    #[arg(long = "where")]
    pub places: bool,
    #[command(flatten)]
    pub link: LinkPassword,
}

/// `tree`.
#[derive(Debug, Args)]
pub struct Tree {
    /// Folder
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: OsString,
}

/// `find`.
#[derive(Debug, Args)]
pub struct Find {
    /// Folders to look in
    #[arg(value_name = "PATH", default_value = "/")]
    pub paths: Vec<OsString>,
    /// Only names that match, for example '*.jpg'
    #[arg(long, value_name = "PATTERN")]
    pub name: Option<String>,
    /// Only things of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<KindArg>,
}

/// A kind of entry as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    #[value(alias = "f")]
    File,
    #[value(alias = "d", alias = "directory")]
    Folder,
    #[value(alias = "l", alias = "link")]
    Symlink,
}

impl KindArg {
    fn is(self, kind: EntryKind) -> bool {
        matches!(
            (self, kind),
            (KindArg::File, EntryKind::File) | (KindArg::Folder, EntryKind::Folder) | (KindArg::Symlink, EntryKind::Symlink)
        )
    }
}

/// The word for a kind.
pub fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Folder => "folder",
        EntryKind::Symlink => "symlink",
    }
}

/// The letter for a kind in front of a mode.
pub fn kind_letter(kind: EntryKind) -> char {
    match kind {
        EntryKind::File => '-',
        EntryKind::Folder => 'd',
        EntryKind::Symlink => 'l',
    }
}

/// An entry as others rely on it.
pub fn to_json(entry: &Entry) -> Value {
    let mut object = json!({
        "path": entry.path.to_string(),
        "name": entry.name(),
        "kind": kind_word(entry.kind),
        "size": entry.size,
        "mtime": units::rfc3339_ns(entry.mtime_ns),
        "mode": entry.mode,
    });
    if let Some(target) = &entry.target {
        object["target"] = String::from_utf8_lossy(target).into();
    }
    object
}

/// A path as it may be printed here.
pub fn shown(out: &Out, path: &RemotePath) -> String {
    if !out.is_terminal() {
        return path.to_string();
    }
    match path.names() {
        [] => "/".into(),
        names => names.iter().map(|n| format!("/{}", n.printable())).collect(),
    }
}

/// A name as it may be printed here: on a terminal in the colour of its kind, and what is no text
/// escaped.
fn shown_name(out: &Out, entry: &Entry) -> String {
    let name = match entry.path.name() {
        Some(name) if out.is_terminal() => name.printable(),
        Some(_) => entry.name(),
        None => "/".into(),
    };
    match (&entry.kind, &entry.target) {
        (EntryKind::Folder, _) if out.is_terminal() && entry.path.name().is_some() => format!("{}/", out.blue(&name)),
        (EntryKind::Symlink, Some(target)) if out.is_terminal() => format!("{name} -> {}", out.name(&String::from_utf8_lossy(target))),
        _ => name,
    }
}

/// Lists folders, and files by their own entry. Goes on past paths that fail.
pub async fn ls(cx: Context, args: Ls) -> Result<Done, Failure> {
    if let Some(text) = args.paths.iter().find_map(link::typed) {
        return match args.paths.len() {
            1 => link::ls(&cx, text, &args.link, args.long, args.recursive).await,
            _ => Err(Failure::usage("a link is listed alone")),
        };
    }
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let (headings, many) = (args.recursive || typed.len() > 1, typed.len() > 1);
    let mut failed = Vec::new();
    let mut first = true;
    for path in typed {
        let result = async {
            let entry = client.stat(&path.path).await?;
            if path.slash && entry.kind != EntryKind::Folder {
                return Err(Error::invalid(format!("{} is not a folder", path.path)));
            }
            list(&cx, &client, entry, &args, headings, &mut first).await
        };
        match result.await {
            Ok(()) => {}
            Err(e) if !many => return Err(e.into()),
            Err(e) => failed.push((path.path.to_string(), e)),
        }
    }
    Ok(report_each(&failed, &cx.out))
}

async fn list(cx: &Context, client: &Client, top: Entry, args: &Ls, headings: bool, first: &mut bool) -> Result<()> {
    if top.kind != EntryKind::Folder {
        let alone = vec![top.clone()];
        return show(cx, client, &alone, args, true).await;
    }
    let mut folders = vec![top];
    while let Some(folder) = folders.pop() {
        let entries = client.list_entries(&folder, args.places).await?;
        if headings && !cx.out.json() {
            let gap = if std::mem::take(first) { "" } else { "\n" };
            cx.out.line(&format!("{gap}{}:", shown(&cx.out, &folder.path)));
        }
        show(cx, client, &entries, args, false).await?;
        if args.recursive {
            folders.extend(entries.into_iter().rev().filter(|e| e.kind == EntryKind::Folder));
        }
    }
    Ok(())
}

/// Prints entries that stand together. `whole`: by their paths, not their names.
async fn show(cx: &Context, client: &Client, entries: &[Entry], args: &Ls, whole: bool) -> Result<()> {
    let out = &cx.out;
    let widest = entries.iter().map(|e| units::size(e.size).len()).max().unwrap_or(0);
    for entry in entries {
        let places = if args.places { Some(client.places(entry, false).await?) } else { None };
        if out.json() {
            let mut object = to_json(entry);
            if let Some(places) = &places {
                object["inline"] = entry.inline.into();
                object["chunks"] = places.iter().map(chunk_json).collect();
            }
            out.object(&object);
            continue;
        }
        let name = if whole { shown(out, &entry.path) } else { shown_name(out, entry) };
        if args.long {
            let size = if entry.kind == EntryKind::Folder { "-".into() } else { units::size(entry.size) };
            let mode = units::mode_letters(kind_letter(entry.kind), entry.mode);
            out.line(&format!("{mode}  {size:>widest$}  {}  {name}{}", units::short_time(entry.mtime_ns), arrow(out, entry)));
        } else {
            out.line(&name);
        }
        for line in places.iter().flat_map(|p| places_lines(out, entry, p)) {
            out.line(&line);
        }
    }
    Ok(())
}

/// Where a symlink leads, where the name does not say so already.
fn arrow(out: &Out, entry: &Entry) -> String {
    match &entry.target {
        Some(target) if !out.is_terminal() => format!(" -> {}", String::from_utf8_lossy(target)),
        _ => String::new(),
    }
}

fn state_word(state: ShardPlaceState) -> &'static str {
    match state {
        ShardPlaceState::Ok => "ok",
        ShardPlaceState::Missing => "missing",
        ShardPlaceState::Corrupt => "corrupt",
        ShardPlaceState::Misplaced => "misplaced",
        ShardPlaceState::Unreachable => "unreachable",
    }
}

fn chunk_json(chunk: &ChunkPlaces) -> Value {
    let shards =
        chunk.shards.iter().map(|s| json!({ "index": s.index, "node": s.node.map(|n| n.to_string()), "state": state_word(s.state) }));
    json!({ "number": chunk.number, "shards": shards.collect::<Vec<_>>() })
}

fn places_lines(out: &Out, entry: &Entry, places: &[ChunkPlaces]) -> Vec<String> {
    if entry.kind != EntryKind::File {
        return Vec::new();
    }
    if places.is_empty() {
        return vec![out.dim("    in the catalog: too small for chunks")];
    }
    let width = places.iter().flat_map(|c| &c.shards).filter_map(|s| Some(format!("node-{}", s.node?).len())).max().unwrap_or(0);
    let line = |chunk: &ChunkPlaces| {
        let shards = chunk.shards.iter().map(|s| {
            let node = s.node.map_or_else(|| "vacant".into(), |n| format!("node-{n}"));
            let text = format!("{node:<width$} {:<11}", state_word(s.state));
            match s.state {
                ShardPlaceState::Ok => out.green(&text),
                ShardPlaceState::Misplaced => out.yellow(&text),
                _ => out.red(&text),
            }
        });
        let shards = shards.collect::<Vec<_>>().join("  ");
        format!("    chunk {:>4}: {}", chunk.number, shards.trim_end())
    };
    places.iter().map(line).collect()
}

/// Draws a folder with all below it.
pub async fn tree(cx: Context, args: Tree) -> Result<Done, Failure> {
    let out = &cx.out;
    let client = cx.client().await?;
    let top = client.stat(&target::remote(&args.path)?.path).await?;
    let is_folder = top.kind == EntryKind::Folder;
    if out.json() {
        client
            .walk(&top.path, false, |entry| {
                out.object(&to_json(entry));
                Ok(())
            })
            .await?;
        return Ok(OK);
    }
    out.line(&shown(out, &top.path));
    let (mut folders, mut files, mut bytes) = (0u64, 0u64, 0u64);
    // What is still to be drawn: the entry, the lines before its branch, whether it is its folder's last.
    let mut stack = if is_folder { branches(client.list_entries(&top, false).await?, "") } else { Vec::new() };
    while let Some(Branch { entry, before, last }) = stack.pop() {
        out.line(&format!("{before}{}{}", if last { "└── " } else { "├── " }, shown_name(out, &entry)));
        if entry.kind == EntryKind::Folder {
            folders += 1;
            let before = format!("{before}{}", if last { "    " } else { "│   " });
            stack.extend(branches(client.list_entries(&entry, false).await?, &before));
        } else {
            files += 1;
            bytes += entry.size;
        }
    }
    if is_folder {
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        out.note(&format!("\n{folders} folder{}, {files} file{}, {}", plural(folders), plural(files), units::size(bytes)));
    }
    Ok(OK)
}

struct Branch {
    entry: Entry,
    before: String,
    last: bool,
}

/// The entries of a folder, the first on top of the stack.
fn branches(entries: Vec<Entry>, before: &str) -> Vec<Branch> {
    let reversed = entries.into_iter().rev().enumerate();
    reversed.map(|(i, entry)| Branch { entry, before: before.to_string(), last: i == 0 }).collect()
}

/// Prints what matches below the given folders, and these themselves.
pub async fn find(cx: Context, args: Find) -> Result<Done, Failure> {
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let many = typed.len() > 1;
    let wanted = |entry: &Entry| {
        args.kind.is_none_or(|kind| kind.is(entry.kind)) && args.name.as_deref().is_none_or(|pattern| glob::matches(pattern, &entry.name()))
    };
    let mut failed = Vec::new();
    for path in typed {
        let walked = client.walk(&path.path, false, |entry| {
            if wanted(entry) {
                if cx.out.json() { cx.out.object(&to_json(entry)) } else { cx.out.line(&shown(&cx.out, &entry.path)) }
            }
            Ok(())
        });
        match walked.await {
            Ok(()) => {}
            Err(e) if !many => return Err(e.into()),
            Err(e) => failed.push((path.path.to_string(), e)),
        }
    }
    Ok(report_each(&failed, &cx.out))
}
