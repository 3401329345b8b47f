//! A cluster that is changed while it breaks, under a few seeds, and those that once found something.

fn failures(seeds: impl Iterator<Item = u64>, story: sim::Story) -> String {
    seeds.filter_map(|seed| story(seed).err().map(|why| format!("\nseed {seed}: {why}"))).collect()
}

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/reconfigure.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()), sim::reconfigure::run), "");
}

#[test]
fn seeds_of_succession_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/succession.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()), sim::reconfigure::run_succession), "");
}

#[test]
fn seeds_of_recoding_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/recoding.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()), sim::reconfigure::run_recoding), "");
}

#[test]
fn seeds_of_restoration_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/restoration.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap()), sim::reconfigure::run_restoration), "");
}

#[test]
fn a_seed_run_twice_gives_the_same_history() {
    assert_eq!(failures(2..3, sim::reconfigure::repeats), "");
}
