//! Runs the stories: `sim [--story NAME] [--seeds N] [--from SEED]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut story, mut seeds, mut from) = (None, 20, 0);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_default();
        match (argument.as_str(), value.parse::<u64>()) {
            ("--story", _) if sim::STORIES.iter().any(|(name, _)| *name == value) => story = Some(value),
            ("--seeds", Ok(n)) => seeds = n,
            ("--from", Ok(n)) => from = n,
            _ => {
                let names: Vec<&str> = sim::STORIES.iter().map(|(name, _)| *name).collect();
                eprintln!("usage: sim [--story {}] [--seeds N] [--from SEED]", names.join("|"));
                return ExitCode::from(2);
            }
        }
    }
    let mut failed = 0;
    for (name, run) in sim::STORIES.iter().filter(|(name, _)| story.as_deref().is_none_or(|s| s == *name)) {
        for seed in from..from + seeds {
            if let Err(why) = run(seed) {
                failed += 1;
                println!("{name}: seed {seed}: {why}");
            }
        }
        println!("{name}: {seeds} seeds from {from}, {failed} failures so far");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
