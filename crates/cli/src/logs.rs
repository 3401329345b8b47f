//! Logs, on standard error: of servers what happens, of clients only what matters, and more with `-v`.
//! `SHARDKEEP_LOG` says it exactly, for example `server=debug,warn`.

use crate::args::Cli;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Our own crates; the libraries below them are quiet unless something is wrong.
const OURS: [&str; 8] = ["server", "client", "s3", "transport", "shards", "journal", "catalog", "shardkeep"];
/// What it logs of a request that is refused would help whoever signed it wrongly to sign it well.
const SILENT: &str = "s3s";

/// Starts logging.
pub fn start(cli: &Cli) {
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, 0) if cli.serves() => LevelFilter::INFO,
        (_, 0) => LevelFilter::ERROR,
        (_, 1) => LevelFilter::INFO,
        (_, 2) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let libraries = if cli.global.verbose > 2 { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    let told = std::env::var("SHARDKEEP_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let targets = told.unwrap_or_else(|| Targets::new().with_default(libraries).with_targets(OURS.map(|name| (name, level))));
    let targets = targets.with_target(SILENT, LevelFilter::OFF);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second subscriber cannot be there: this is the process's beginning.
    let _ = if cli.global.json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        registry.with(layer.with_ansi(colour).with_target(false)).try_init()
    };
}
