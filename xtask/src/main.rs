//! What developers and CI run: `cargo xtask tidy` checks that the code keeps to ARCHITECTURE.md,
//! `cargo xtask ci` is every check there is.

// A tool of the developer's machine: it lives outside the simulated world on purpose.
#![allow(clippy::disallowed_methods)]

mod ci;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The workspace is the folder above this crate, wherever the command was given.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::run(root),
        Some("ci") => ci::run(root),
        _ => {
            eprintln!("usage: cargo xtask tidy|ci");
            ExitCode::from(2)
        }
    }
}
