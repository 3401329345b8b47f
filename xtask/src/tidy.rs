//! The rules of ARCHITECTURE.md that a machine can check. Each rule is a pure function from what
//! it looks at to plain sentences; this file gathers both.

mod graph;
mod layers;
mod sources;

use graph::Graph;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{fs, io};

/// Checks everything and prints one sentence for each violation.
pub fn run(root: &Path) -> ExitCode {
    match check(root) {
        Ok(violations) if violations.is_empty() => {
            println!("tidy: nothing to complain about");
            ExitCode::SUCCESS
        }
        Ok(violations) => {
            violations.iter().for_each(|v| println!("tidy: {v}"));
            println!("tidy: {} violations", violations.len());
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("tidy could not look: {why}");
            ExitCode::FAILURE
        }
    }
}

fn check(root: &Path) -> Result<Vec<String>, String> {
    let graph = Graph::parse(&metadata(root)?)?;
    let mut violations = layers::check(&graph);
    let mut files = Vec::new();
    walk(root, root, &mut files).map_err(|e| format!("reading {}: {e}", root.display()))?;
    files.sort();
    for path in files {
        // What is no text holds no rule to break.
        if let Ok(text) = fs::read_to_string(root.join(&path)) {
            violations.extend(sources::check(&path, &text));
        }
    }
    for member in &graph.members {
        let manifest = fs::read_to_string(&member.manifest).map_err(|e| format!("reading {}: {e}", member.manifest))?;
        violations.extend(sources::check_lints(&member.name, &manifest));
    }
    Ok(violations)
}

/// `cargo metadata` as JSON, without touching the network or the lock file's contents.
fn metadata(root: &Path) -> Result<serde_json::Value, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("starting cargo metadata: {e}"))?;
    if !out.status.success() {
        return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&out.stderr)));
    }
    serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata printed something unreadable: {e}"))
}

/// Paths of the project's own files, relative to the root and `/`-separated. Build output and
/// hidden folders other than the project's are left out.
fn walk(root: &Path, dir: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path: PathBuf = entry.path();
        if entry.file_type()?.is_dir() {
            let foreign = name == "target" || name == "node_modules" || (name.starts_with('.') && name != ".ci" && name != ".cargo");
            if !foreign {
                walk(root, &path, files)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}
