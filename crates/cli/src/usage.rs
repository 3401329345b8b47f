//! Numbers: `stat` of one thing, `du` of what lies below.

use crate::context::Context;
use crate::failure::{Done, Failure, OK, report_each};
use crate::{listing, target, units};
use clap::Args;
use client::{Entry, EntryKind, Kept, RemotePath};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;

/// `stat`.
#[derive(Debug, Args)]
pub struct Stat {
    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// `du`.
#[derive(Debug, Args)]
pub struct Du {
    /// Folders
    #[arg(value_name = "PATH", default_value = "/")]
    pub paths: Vec<OsString>,
    /// Show folders so many levels down
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub depth: usize,
    /// Only the sum: like '--depth 0'
    #[arg(short, long, conflicts_with = "depth")]
    pub summarize: bool,
}

/// Tells everything about each path.
pub async fn stat(cx: Context, args: Stat) -> Result<Done, Failure> {
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let many = typed.len() > 1;
    let mut failed = Vec::new();
    for (i, path) in typed.into_iter().enumerate() {
        match client.stat(&path.path).await {
            Ok(entry) if cx.out.json() => cx.out.object(&stat_json(&entry)),
            Ok(entry) => {
                if i > 0 {
                    cx.out.line("");
                }
                stat_lines(&cx, &entry);
            }
            Err(e) if !many => return Err(e.into()),
            Err(e) => failed.push((path.path.to_string(), e)),
        }
    }
    Ok(report_each(&failed, &cx.out))
}

fn stat_json(entry: &Entry) -> Value {
    let mut object = listing::to_json(entry);
    object["id"] = entry.id.to_string().into();
    object["version"] = entry.version.into();
    object["committed"] = units::rfc3339_ms(entry.committed_ms).into();
    if entry.kind == EntryKind::File {
        object["inline"] = entry.inline.into();
        object["policy"] = entry.policy().map(|p| p.to_string()).into();
        object["chunks"] = entry.chunks().into();
        object["stored"] = entry.stored().into();
    }
    object
}

fn stat_lines(cx: &Context, entry: &Entry) {
    let out = &cx.out;
    let line = |what: &str, text: String| out.line(&format!("{what:>9}  {text}"));
    line("path", out.bold(&listing::shown(out, &entry.path)));
    line("kind", listing::kind_word(entry.kind).into());
    if let Some(target) = &entry.target {
        line("leads to", out.name(&String::from_utf8_lossy(target)));
    }
    if entry.kind == EntryKind::File {
        line("size", format!("{} ({} bytes)", units::size(entry.size), entry.size));
        line(
            "stored",
            match entry.policy() {
                Some(policy) => {
                    let chunks = entry.chunks();
                    let plural = if chunks == 1 { "" } else { "s" };
                    format!(
                        "{} on disks: {chunks} chunk{plural}, policy {policy}, any {} servers of it may be lost",
                        units::size(entry.stored()),
                        policy.m
                    )
                }
                None => "in the catalog: too small for chunks".into(),
            },
        );
    }
    line("mode", format!("{} ({:04o})", units::mode_letters(listing::kind_letter(entry.kind), entry.mode), entry.mode));
    if entry.path.name().is_some() {
        line("modified", units::rfc3339_ns(entry.mtime_ns));
        line("version", format!("{}, committed {}", entry.version, units::rfc3339_ms(entry.committed_ms)));
        line("id", entry.id.to_string());
    }
}

/// What lies in a folder, at all depths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    files: u64,
    folders: u64,
    bytes: u64,
    stored: u64,
}

/// Sums by folder, down to some depth below the top.
struct Sums {
    top: RemotePath,
    depth: usize,
    of: BTreeMap<RemotePath, Sum>,
}

impl Sums {
    fn new(top: &RemotePath, depth: usize) -> Self {
        Sums { top: top.clone(), depth, of: BTreeMap::from([(top.clone(), Sum::default())]) }
    }

    /// Adds something to every shown folder in which it lies.
    fn add(&mut self, path: &RemotePath, folder: bool, bytes: u64, stored: u64) {
        let top = self.top.names().len();
        let depth = path.names().len().saturating_sub(top);
        if folder && depth <= self.depth {
            self.of.entry(path.clone()).or_default();
        }
        // What is given itself counts for itself; everything else for the folders above it.
        let above = if depth == 0 { 0..=0 } else { 0..=(depth - 1).min(self.depth) };
        for level in above {
            let sum = self.of.entry(path.prefix(top + level)).or_default();
            sum.files += u64::from(!folder);
            sum.folders += u64::from(folder && depth > 0);
            sum.bytes += bytes;
            sum.stored += stored;
        }
    }

    /// Folders before the ones that hold them, the top last.
    fn lines(mut self) -> Vec<(RemotePath, Sum)> {
        let top = self.of.remove_entry(&self.top);
        self.of.into_iter().chain(top).collect()
    }
}

/// Sums up each path.
pub async fn du(cx: Context, args: Du) -> Result<Done, Failure> {
    let typed = args.paths.iter().map(|p| target::remote(p)).collect::<Result<Vec<_>, _>>()?;
    let client = cx.client().await?;
    let many = typed.len() > 1;
    let depth = if args.summarize { 0 } else { args.depth };
    let mut failed = Vec::new();
    for path in typed {
        let mut sums = Sums::new(&path.path, depth);
        let walked = client.walk(&path.path, true, |entry| {
            sums.add(&entry.path, entry.kind == EntryKind::Folder, entry.size, entry.stored());
            Ok(())
        });
        match walked.await {
            Ok(()) => {
                let kept = client.kept(&path.path).await?;
                print(&cx, sums.lines(), kept);
            }
            Err(e) if !many => return Err(e.into()),
            Err(e) => failed.push((path.path.to_string(), e)),
        }
    }
    if failed.is_empty() { Ok(OK) } else { Ok(report_each(&failed, &cx.out)) }
}

/// The top comes last, with what is kept beside it.
fn print(cx: &Context, lines: Vec<(RemotePath, Sum)>, kept: Kept) {
    let widest = lines.iter().map(|(_, sum)| units::size(sum.bytes).len()).max().unwrap_or(0);
    for (i, (path, sum)) in (1..).zip(&lines) {
        let last = i == lines.len();
        let Sum { files, folders, bytes, stored } = *sum;
        if cx.out.json() {
            let mut object = json!({ "path": path.to_string(), "files": files, "folders": folders, "bytes": bytes, "stored": stored });
            if last {
                (object["versions"], object["trash"]) = (kept.versions.into(), kept.trash.into());
            }
            cx.out.object(&object);
        } else {
            let detail = cx.out.dim(&format!("({files} files, {} on disks)", units::size(stored)));
            cx.out.line(&format!("{:>widest$}  {}  {detail}", units::size(bytes), listing::shown(&cx.out, path)));
            if last && kept != Kept::default() {
                let (versions, trash) = (units::size(kept.versions), units::size(kept.trash));
                cx.out.line(&cx.out.dim(&format!("and {versions} of earlier versions, {trash} of trash on disks")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_to_all_folders_shown() {
        let path = |text| RemotePath::parse(text).unwrap();
        let mut sums = Sums::new(&path("/a"), 1);
        for (at, folder, bytes) in
            [("/a", true, 0), ("/a/x", false, 5), ("/a/b", true, 0), ("/a/b/c", true, 0), ("/a/b/c/y", false, 7), ("/a/e", true, 0)]
        {
            sums.add(&path(at), folder, bytes, 2 * bytes);
        }
        let lines: Vec<_> = sums.lines().into_iter().map(|(p, s)| (p.to_string(), s.files, s.folders, s.bytes, s.stored)).collect();
        assert_eq!(lines, [("/a/b".into(), 1, 1, 7, 14), ("/a/e".into(), 0, 0, 0, 0), ("/a".into(), 2, 3, 12, 24)]);
    }

    #[test]
    fn a_file_is_its_own_sum() {
        let file = RemotePath::parse("/a/x").unwrap();
        let mut sums = Sums::new(&file, 1);
        sums.add(&file, false, 5, 10);
        assert_eq!(sums.lines(), [(file, Sum { files: 1, folders: 0, bytes: 5, stored: 10 })]);
    }
}
