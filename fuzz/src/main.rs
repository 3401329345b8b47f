//! Feeds random and mutated bytes to every decoder, for so many seconds.
//!
//! ```text
//! cargo run -p fuzz -- SECONDS [--seed N] [--only TARGET]   without --seed, another one each time
//! cargo run -p fuzz -- replay TARGET HEX                    runs one input again
//! cargo run -p fuzz -- list
//! ```
//! A decoder may refuse, but not panic, not hang, and not accept what it cannot write again.
//! The inputs follow from the seed alone. New decoders are one line in `targets.rs`.

// A tool of the developer's machine: it lives outside the simulated world on purpose.
#![allow(clippy::disallowed_methods)]

mod mutate;
mod samples;
mod targets;

use mutate::Mutator;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};
use targets::{TARGETS, Target};

/// An input that takes longer is reported as a hang.
const SLOW: Duration = Duration::from_secs(2);

/// What the last panic said.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = info.to_string();
        }
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => {
            TARGETS.iter().for_each(|t| println!("{}", t.name));
            ExitCode::SUCCESS
        }
        ["replay", name, hex] => replay(name, hex),
        [seconds, ref options @ ..] => match (seconds.parse(), parse(options)) {
            (Ok(seconds), Some((seed, only))) => fuzz(Duration::from_secs(seconds), seed, only),
            _ => usage(),
        },
        [] => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: fuzz SECONDS [--seed N] [--only TARGET] | fuzz replay TARGET HEX | fuzz list");
    ExitCode::from(2)
}

fn parse<'a>(options: &[&'a str]) -> Option<(u64, Option<&'a str>)> {
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let mut only = None;
    for pair in options.chunks(2) {
        match pair {
            ["--seed", n] => seed = n.parse().ok()?,
            ["--only", name] if TARGETS.iter().any(|t| t.name == *name) => only = Some(*name),
            _ => return None,
        }
    }
    Some((seed, only))
}

fn replay(name: &str, hex: &str) -> ExitCode {
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect();
    let (Some(target), Some(bytes)) = (TARGETS.iter().find(|t| t.name == name), bytes) else { return usage() };
    match attempt(target, &bytes) {
        None => {
            println!("{name}: good");
            ExitCode::SUCCESS
        }
        Some(why) => {
            println!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Goes round the targets until the time is over. A target that failed is left alone from then on.
fn fuzz(time: Duration, seed: u64, only: Option<&str>) -> ExitCode {
    let started = Instant::now();
    let mut targets: Vec<(&Target, Mutator)> = TARGETS
        .iter()
        .enumerate()
        .filter(|(_, t)| only.is_none_or(|name| name == t.name))
        // Each target has its own sequence, so that --only repeats it.
        .map(|(i, t)| (t, Mutator::new(seed.wrapping_add(i as u64), (t.seeds)())))
        .collect();
    println!("fuzzing {} decoders for {} s, seed {seed}", targets.len(), time.as_secs());
    let (mut inputs, mut failed) = (0u64, BTreeSet::new());
    while started.elapsed() < time && !targets.is_empty() {
        targets.retain_mut(|(target, mutator)| {
            for _ in 0..64 {
                let input = mutator.input();
                inputs += 1;
                if let Some(why) = attempt(target, &input) {
                    let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
                    println!("{}: {why}\n  seed {seed}; again with: cargo run -p fuzz -- replay {} {hex}", target.name, target.name);
                    failed.insert(target.name);
                    return false;
                }
            }
            true
        });
    }
    println!("{inputs} inputs, {} decoders failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What went wrong with an input, if anything.
fn attempt(target: &Target, input: &[u8]) -> Option<String> {
    let began = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        return Some(LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_else(|_| "panicked".into()));
    }
    let took = began.elapsed();
    // Perhaps the machine stood still: what is slow is so each time.
    let again = || {
        let began = Instant::now();
        let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        began.elapsed() > SLOW
    };
    (took > SLOW && (0..2).all(|_| again())).then(|| format!("took {:.1} s for {} bytes", took.as_secs_f64(), input.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::command::{Answer, Proposal};
    use model::{Descriptor, cbor};

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut mutator = Mutator::new(seed, samples::messages());
            (0..1000).map(|_| mutator.input()).collect()
        };
        assert_eq!(inputs(5), inputs(5));
        assert_ne!(inputs(5), inputs(6));
    }

    #[test]
    fn samples_are_valid_and_many_inputs_still_are() {
        assert!(samples::descriptors().iter().all(|d| Descriptor::from_bytes(d).is_ok()));
        assert!(samples::proposals().iter().all(|p| cbor::from_canonical::<Proposal>(p).is_ok()));
        assert!(samples::answers().iter().all(|a| cbor::from_canonical::<Answer>(a).is_ok()));
        let mut mutator = Mutator::new(1, samples::descriptors());
        let accepted = (0..1000).filter(|_| Descriptor::from_bytes(&mutator.input()).is_ok()).count();
        assert!((100..900).contains(&accepted), "{accepted} of 1000");
    }

    #[test]
    fn every_target_stands_its_own_samples() {
        for target in TARGETS {
            (target.seeds)().iter().for_each(|seed| assert_eq!(attempt(target, seed), None, "{}", target.name));
        }
    }

    #[test]
    fn a_planted_panic_is_found_and_told() {
        let target = Target { name: "planted", seeds: Vec::new, run: |bytes| assert_ne!(bytes.first(), Some(&0x42), "planted") };
        let mut mutator = Mutator::new(1, (target.seeds)());
        assert!((0..10_000).any(|_| attempt(&target, &mutator.input()).is_some()));
        assert!(attempt(&target, &[0x42]).is_some());
        assert_eq!(attempt(&target, &[0x43]), None);
    }
}
