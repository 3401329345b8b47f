//! The fuzzer as a program. (It also has cargo build that program with the features of all tests: CI runs it from
//! there, instead of compiling half the workspace once more.)

#![allow(clippy::disallowed_methods)] // it starts a process

use std::process::Command;

#[test]
fn a_short_run_reaches_every_target_and_finds_nothing() {
    let run = Command::new(env!("CARGO_BIN_EXE_fuzz")).args(["1", "--seed", "7"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{text}");
    assert!(text.contains("inputs"), "{text}");
    let wrong = Command::new(env!("CARGO_BIN_EXE_fuzz")).arg("no-number").output().expect("it runs");
    assert!(!wrong.status.success());
}
