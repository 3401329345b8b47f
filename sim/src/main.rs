//! Runs the stories: `sim [--story NAME] [--seeds N | --seconds S] [--from SEED]`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut story, mut seeds, mut seconds, mut from, mut history) = (None, 20, None, 0, false);
    while let Some(argument) = arguments.next() {
        if argument == "--history" {
            history = true;
            continue;
        }
        if argument == "--trace" {
            trace();
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        match (argument.as_str(), value.parse::<u64>()) {
            ("--story", _) if sim::STORIES.iter().any(|(name, _)| *name == value) => story = Some(value),
            ("--seeds", Ok(n)) => seeds = n,
            ("--seconds", Ok(n)) => seconds = Some(Duration::from_secs(n)),
            ("--from", Ok(n)) => from = n,
            _ => return usage(),
        }
    }
    if history {
        let outcome = match story.as_deref() {
            Some("reconfigure") => sim::reconfigure::play(from),
            Some("succession") => sim::reconfigure::play_succession(from),
            Some("recoding") => sim::reconfigure::play_recoding(from),
            Some("restoration") => sim::reconfigure::play_restoration(from),
            _ => sim::cluster::play(from),
        };
        print!("{}", outcome.history.tail(usize::MAX));
        println!("hash {}", outcome.history.hash());
        return outcome.failure.map_or(ExitCode::SUCCESS, |why| {
            println!("{why}");
            ExitCode::FAILURE
        });
    }
    let chosen: Vec<_> = sim::STORIES.iter().filter(|(name, _)| story.as_deref().is_none_or(|s| s == *name)).collect();
    let mut failed = 0;
    for (name, run) in &chosen {
        let began = now();
        let mut done = 0;
        // Whether a seed repeats is asked of fewer seeds: each is played twice.
        let seeds = if story.is_none() && name.ends_with("-repeats") { seeds.div_ceil(4) } else { seeds };
        let share = seconds.map(|s| s / chosen.len() as u32);
        while share.map_or(done < seeds, |share| began.elapsed() < share) {
            let seed = from + done;
            if let Err(why) = run(seed) {
                failed += 1;
                println!("{name}: seed {seed}: {why}\nagain: cargo run -p sim -- --story {name} --seeds 1 --from {seed}\n");
            }
            done += 1;
        }
        println!("{name}: {done} seeds from {from} in {:.1} s, {failed} failures so far", began.elapsed().as_secs_f64());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows on standard error what the programs and the simulated network tell.
fn trace() {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt;
    let ours = ["server", "client", "transport", "journal", "shards"].map(|name| (name, LevelFilter::DEBUG));
    let filter = Targets::new().with_targets(ours).with_target("turmoil", LevelFilter::TRACE);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_ansi(false);
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines).with(filter));
}

/// The real time: how long all this takes is no part of any story.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

fn usage() -> ExitCode {
    let names: Vec<&str> = sim::STORIES.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: sim [--story {}] [--seeds N | --seconds S] [--from SEED]", names.join("|"));
    eprintln!(
        "       sim [--trace] [--story reconfigure|succession|recoding|restoration] --history --from SEED    all that happens in one cluster"
    );
    ExitCode::from(2)
}
