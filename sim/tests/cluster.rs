//! A whole cluster under a few seeds, and those that once found something.

fn failures(seeds: impl Iterator<Item = u64>, story: sim::Story) -> String {
    seeds.filter_map(|seed| story(seed).err().map(|why| format!("\nseed {seed}: {why}"))).collect()
}

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/cluster.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()), sim::cluster::run), "");
}

#[test]
fn a_seed_run_twice_gives_the_same_history() {
    assert_eq!(failures(0..2, sim::cluster::repeats), "");
}
