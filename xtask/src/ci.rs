//! Every check there is, in the order in which a mistake shows cheapest. All checks run even when
//! one fails, so that one look shows everything.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// A check: its heading, and the command line. `cargo` stands for the cargo in use, `./NAME` for the workspace's
/// program of that name: built by the tests, since `cargo run -p NAME` compiles half the workspace once more, with
/// fewer features.
struct Check {
    heading: &'static str,
    command: &'static [&'static str],
    /// Runs only where this file exists, relative to the workspace; empty: always.
    only_with: &'static str,
}

const CHECKS: &[Check] = &[
    Check { heading: "format", command: &["cargo", "fmt", "--all", "--", "--check"], only_with: "" },
    Check { heading: "architecture", command: &["cargo", "xtask", "tidy"], only_with: "" },
    Check { heading: "lints", command: &["cargo", "clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], only_with: "" },
    Check { heading: "tests", command: &["cargo", "test", "--workspace", "--no-fail-fast"], only_with: "" },
    // A second implementation, in Python, opens and makes the formats of testdata/formats.
    Check { heading: "formats", command: &["python3", "scripts/check_vectors.py"], only_with: "scripts/check_vectors.py" },
    Check { heading: "simulation", command: &["./sim", "--seeds", "3"], only_with: "sim/Cargo.toml" },
    // A fixed seed: CI says the same of the same code. Longer runs take other seeds.
    Check { heading: "fuzzing", command: &["./fuzz", "30", "--seed", "1"], only_with: "" },
];

/// Runs all checks; fails when one did.
pub fn run(root: &Path) -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let started = Instant::now();
    let mut failed = Vec::new();
    for check in CHECKS {
        if !check.only_with.is_empty() && !root.join(check.only_with).exists() {
            println!("\n==== {} ==== left out: there is no {}", check.heading, check.only_with);
            continue;
        }
        println!("\n==== {} ==== {}", check.heading, check.command.join(" "));
        let began = Instant::now();
        let outcome = execute(root, &cargo, check.command);
        let took = seconds(began.elapsed());
        match outcome {
            Ok(()) => println!("==== {}: good, {took}", check.heading),
            Err(why) => {
                println!("==== {}: FAILED, {took}: {why}", check.heading);
                failed.push(check.heading);
            }
        }
    }
    let all = seconds(started.elapsed());
    if failed.is_empty() {
        println!("\nAll checks are good, {all}");
        ExitCode::SUCCESS
    } else {
        println!("\nFAILED: {}, {all}", failed.join(", "));
        ExitCode::FAILURE
    }
}

fn execute(root: &Path, cargo: &str, command: &[&str]) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let built = |name: &str| Ok(std::env::current_exe()?.with_file_name(name));
    let program = match program.strip_prefix("./") {
        Some(name) => built(name).map_err(|e: std::io::Error| format!("this program's folder is not known: {e}"))?,
        None => PathBuf::from(if *program == "cargo" { cargo } else { program }),
    };
    let status = Command::new(&program)
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|e| format!("{} does not start: {e}", program.display()))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_or_does_not_start_is_told_apart() {
        let here = Path::new(".");
        assert_eq!(execute(here, "true", &["cargo", "test"]), Ok(()));
        assert_eq!(execute(here, "false", &["cargo"]), Err("exit status: 1".into()));
        assert!(execute(here, "no-such-program", &["cargo"]).unwrap_err().starts_with("no-such-program does not start"));
    }
}
