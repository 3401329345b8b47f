//! Rules about the text of files. Comments count as text, except where a rule says otherwise.

/// Longest source file, in lines: more is two ideas.
const LINES_MAX: usize = 800;

/// Macros that mark unfinished work. Spelled in two halves, so that this file passes its own check.
const UNFINISHED: [&str; 3] = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("db", "g!")];

/// Where the consensus library may be named.
const CONSENSUS: &str = "crates/server/src/consensus";

/// Ends of host names that exist only inside somebody's network.
const PRIVATE_HOSTS: [&str; 5] = [".internal", ".corp", ".lan", ".intranet", ".localdomain"];

/// The one place from which a lock file may take packages.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Violations in one file. `path` is relative to the workspace, `/`-separated.
pub fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.ends_with(".rs") {
        rust(path, text, &mut found);
    }
    for (number, line) in text.lines().enumerate() {
        let at = format!("{path}:{}", number + 1);
        if let Some(address) = words(line).find(|w| is_private_address(w)) {
            found.push(format!("{at}: {address} is an address of a private network; examples use 192.0.2.x (RFC 5737)"));
        }
        if let Some(host) = hosts(line).find(|h| PRIVATE_HOSTS.iter().any(|end| h.ends_with(end))) {
            found.push(format!("{at}: {host} is a host of a private network"));
        }
        let line = line.trim();
        if path.ends_with("Cargo.lock") && line.starts_with("source = ") && !line.contains(REGISTRY) {
            found.push(format!("{at}: packages come from crates.io only, not from {}", line.trim_start_matches("source = ")));
        }
        if path.starts_with(".cargo/") && (line.starts_with("[source") || line.starts_with("[registr") || line.starts_with("replace-with"))
        {
            found.push(format!("{at}: no package registry is set in the project"));
        }
    }
    found
}

/// Every crate takes its lints from the workspace.
pub fn check_lints(name: &str, manifest: &str) -> Vec<String> {
    let mut lines = manifest.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let inherits = lines.find(|l| *l == "[lints]").is_some() && lines.next().is_some_and(|l| l.replace(' ', "") == "workspace=true");
    if inherits { Vec::new() } else { vec![format!("crate {name} has no `[lints] workspace = true` in its Cargo.toml")] }
}

fn rust(path: &str, text: &str, found: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{path} has {lines} lines, over {LINES_MAX}: split it, it is two ideas"));
    }
    for (number, line) in text.lines().enumerate() {
        let (at, line) = (format!("{path}:{}", number + 1), line.trim());
        if line.starts_with("//") {
            continue;
        }
        if let Some(name) = UNFINISHED.iter().find(|name| calls(line, name)) {
            found.push(format!("{at}: {name} marks unfinished work"));
        }
        if is_glob_reexport(line) {
            found.push(format!("{at}: glob re-export; name what is re-exported"));
        }
        if !path.starts_with(CONSENSUS) && !path.starts_with("xtask/") && calls(line, "openraft") {
            found.push(format!("{at}: names openraft; only {CONSENSUS} may"));
        }
    }
}

/// Whether `name` stands in `line` as a word of its own.
fn calls(line: &str, name: &str) -> bool {
    let boundary = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(name).any(|(i, _)| {
        let after = if name.ends_with('!') { None } else { line[i + name.len()..].chars().next() };
        boundary(line[..i].chars().next_back()) && boundary(after)
    })
}

/// `pub use a::b::*;`, also in braces and with a restricted `pub`.
fn is_glob_reexport(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub") else { return false };
    let rest = rest.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(rest, |(_, r)| r);
    rest.trim_start().starts_with("use ") && line.contains("::*") || rest.trim_start().starts_with("use ") && line.contains("{*")
}

/// Runs of letters, digits, dots and dashes.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).map(|w| w.trim_matches('.')).filter(|w| !w.is_empty())
}

/// RFC 1918, shared (RFC 6598) and link-local IPv4 addresses.
fn is_private_address(word: &str) -> bool {
    let parts: Vec<Option<u8>> = word.split('.').map(|p| p.parse().ok()).collect();
    match parts[..] {
        [Some(10), Some(_), Some(_), Some(_)] => true,
        [Some(172), Some(b), Some(_), Some(_)] => (16..32).contains(&b),
        [Some(192), Some(168), Some(_), Some(_)] | [Some(169), Some(254), Some(_), Some(_)] => true,
        [Some(100), Some(b), Some(_), Some(_)] => (64..128).contains(&b),
        _ => false,
    }
}

/// Host names in URLs.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.split("://").skip(1).filter_map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).next())
}

#[cfg(test)]
mod tests;
