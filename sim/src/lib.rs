//! Stories under seeds: each runs the real crates in the simulated world of [`env::sim`], breaks
//! something at a moment that the seed chooses, and checks that the promises still hold. A seed
//! that once failed stays in `seeds/` as a regression test.

pub mod check;
pub mod cluster;
pub mod journal_crash;
pub mod reconfigure;

/// A story: what a seed leads to. The error is a sentence with what was promised and not kept.
pub type Story = fn(seed: u64) -> Result<(), String>;

/// All stories by name; those that end in `-repeats` run each seed of the one before twice and compare.
pub const STORIES: &[(&str, Story)] = &[
    ("journal-crash", journal_crash::run),
    ("cluster", cluster::run),
    ("cluster-repeats", cluster::repeats),
    ("reconfigure", reconfigure::run),
    ("reconfigure-repeats", reconfigure::repeats),
    ("succession", reconfigure::run_succession),
    ("succession-repeats", reconfigure::succession_repeats),
    ("recoding", reconfigure::run_recoding),
    ("recoding-repeats", reconfigure::recoding_repeats),
    ("restoration", reconfigure::run_restoration),
    ("restoration-repeats", reconfigure::restoration_repeats),
];
