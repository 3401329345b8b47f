//! What a change of the layout moves: never more than any change to the same balance must, which is proved for
//! each layout by looking for an exchange that would save a move.

use super::layout::{balanced, counts, devices, least_cap, made, most_in_a_zone, moves, whole};
use crate::layout::{describe, plan};
use model::layout::DeviceInfo;
use model::{DeviceId, Epoch, Layout, NodeId};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};
use std::collections::{BTreeMap, BTreeSet};

/// Whether no change that gives each device as many slots as `after` does moves fewer of them.
///
/// Two layouts with the same counts differ by rings of exchanges: in some partition a device gives way to
/// another one, which in some partition gives way to a third, and so on, back to the first. If no ring saves a
/// move, nothing does. Rings are looked for among the cheapest exchanges of each two devices (Bellman and Ford).
pub(super) fn is_least(before: &Layout, after: &Layout) -> bool {
    let n = after.devices.len();
    let cap = least_cap(after);
    let width = after.width as usize;
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let zone: Vec<usize> = (after.devices.iter())
        .map(|d| {
            let (name, next) = (if d.zone.is_empty() { format!("node {}", d.node) } else { d.zone.clone() }, names.len());
            *names.entry(name).or_insert(next)
        })
        .collect();
    let mut cost = vec![i64::MAX / 4; n * n];
    let (was, is) = (before.slot_indexes(), after.slot_indexes());
    for (was, is) in was.chunks(width).zip(is.chunks(width)) {
        let had: Vec<_> = was.iter().map(|d| before.devices[*d as usize].device).collect();
        let had: Vec<bool> = after.devices.iter().map(|d| had.contains(&d.device)).collect();
        for from in is.iter().map(|d| *d as usize) {
            let others = || is.iter().map(|d| *d as usize).filter(|d| *d != from);
            let free = |to: &usize| others().all(|d| after.devices[d].node != after.devices[*to].node);
            let in_cap = |to: &usize| others().filter(|d| zone[*d] == zone[*to]).count() < cap;
            for to in (0..n).filter(|to| *to != from && free(to) && in_cap(to)) {
                let moves = i64::from(had[from]) - i64::from(had[to]);
                cost[from * n + to] = cost[from * n + to].min(moves);
            }
        }
    }
    let mut sum = vec![0; n];
    for _ in 0..=n {
        let mut less = false;
        for from in 0..n {
            for to in 0..n {
                let through = sum[from] + cost[from * n + to];
                if through < sum[to] {
                    (sum[to], less) = (through, true);
                }
            }
        }
        if !less {
            return true;
        }
    }
    false
}

/// Everything that a change promises: no shard twice on a node, balance within 1 % of ideal where there are
/// slots enough for that, and as few moves as can be: no more than 2 % beyond the bound that is shown, where
/// that is sharp.
fn check_change(before: &Layout, next: &[DeviceInfo]) -> Result<(), TestCaseError> {
    let Ok(after) = plan(Some(before), Epoch(before.epoch.0 + 1), before.power, before.width, next) else { return Ok(()) };
    whole(&after);
    let cap = least_cap(&after);
    prop_assert!(most_in_a_zone(&after) <= cap);
    balanced(&after, cap, 2.0);
    let about = describe(before, &after);
    prop_assert_eq!(about.moved, moves(before, &after));
    prop_assert!(about.minimum <= about.moved);
    let large = next.len() >= 200;
    prop_assert!(large || is_least(before, &after), "an exchange would save a move");
    // With few zones the bound is not sharp: what goes out of a zone depends on what else does, and a slot may
    // only come by a chain of moves.
    let zones: BTreeSet<&str> = next.iter().map(|d| d.zone.as_str()).collect();
    let rezoned = next.iter().any(|d| before.devices.iter().any(|b| b.device == d.device && b.zone != d.zone));
    if large || zones.len() == 1 && !rezoned {
        prop_assert!(about.moved <= about.minimum + (about.minimum / 50).max(2), "{} moved, {} had to", about.moved, about.minimum);
    }
    // Whole nodes that come or go move what they hold, whatever the shares of others are rounded to.
    let (had, has) = (counts(before), counts(&after));
    let only_in = |some: &BTreeMap<DeviceId, u64>, other: &BTreeMap<DeviceId, u64>| -> u64 {
        some.iter().filter(|(d, _)| !other.contains_key(*d)).map(|(_, n)| n).sum()
    };
    let (gone, come) = (only_in(&had, &has), only_in(&has, &had));
    if large && gone + come > 0 {
        prop_assert!(about.moved <= (gone + come) * 51 / 50, "{} moved, {gone} were lost and {come} came", about.moved);
    }
    Ok(())
}

/// What may become of a cluster.
#[derive(Debug, Clone)]
enum Becomes {
    More(usize),
    Fewer(Vec<prop::sample::Index>),
    Resized(prop::sample::Index, u64),
    Rezoned(prop::sample::Index, u8),
}

fn becomes() -> impl Strategy<Value = Becomes> {
    prop_oneof![
        (1usize..5).prop_map(Becomes::More),
        prop::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Becomes::Fewer),
        (any::<prop::sample::Index>(), 1u64..9000).prop_map(|(at, capacity)| Becomes::Resized(at, capacity)),
        (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, zone)| Becomes::Rezoned(at, zone)),
    ]
}

/// A whole cluster of so many nodes of 1 to 3 devices, unequal up to eightfold, in no zones or in as many.
fn unequal(nodes: std::ops::Range<usize>, zones: std::ops::Range<u8>) -> impl Strategy<Value = (Vec<DeviceInfo>, u8)> {
    let node = prop::collection::vec(1000u64..8000, 1..4);
    (prop::collection::vec(node, nodes), zones).prop_map(|(nodes, zones)| {
        let zone = |n: u64| if zones == 0 { String::new() } else { format!("zone {}", n % u64::from(zones)) };
        let mut of = Vec::new();
        for (n, capacities) in (1u64..).zip(&nodes) {
            of.extend(capacities.iter().map(|c| (n, zone(n), *c)));
        }
        (devices(&of.iter().map(|(n, z, c)| (*n, z.as_str(), *c)).collect::<Vec<_>>()), zones)
    })
}

fn change_of(all: &[DeviceInfo], becomes: &Becomes) -> (Vec<DeviceInfo>, Vec<DeviceInfo>) {
    let (mut now, mut next) = (all.to_vec(), all.to_vec());
    match becomes {
        Becomes::More(late) => now.truncate(all.len().saturating_sub(*late).max(1)),
        // Whole nodes go.
        Becomes::Fewer(gone) => {
            let gone: BTreeSet<NodeId> = gone.iter().map(|i| all[i.index(all.len())].node).collect();
            next.retain(|d| !gone.contains(&d.node));
        }
        Becomes::Resized(at, capacity) => next[at.index(all.len())].capacity = *capacity,
        Becomes::Rezoned(at, zone) => {
            let node = all[at.index(all.len())].node;
            next.iter_mut().filter(|d| d.node == node).for_each(|d| d.zone = format!("zone {zone}"));
        }
    }
    (now, next)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..ProptestConfig::default() })]

    /// Without zones: drains, removals, additions, new capacities.
    #[test]
    fn changes_move_hardly_more_than_they_must((all, _) in unequal(8..40, 0..1), becomes in becomes(), power in 7u8..11, width in 1u8..7) {
        let (now, next) = change_of(&all, &becomes);
        let Ok(before) = plan(None, Epoch(1), power, width, &now) else { return Ok(()) };
        check_change(&before, &next)?;
    }

    /// In zones, more of them than shards.
    #[test]
    fn so_do_changes_in_zones((all, _) in unequal(20..60, 6..9), becomes in becomes(), power in 8u8..11, width in 1u8..5) {
        let (now, next) = change_of(&all, &becomes);
        let Ok(before) = plan(None, Epoch(1), power, width, &now) else { return Ok(()) };
        check_change(&before, &next)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(4), failure_persistence: None, ..ProptestConfig::default() })]

    /// A thousand devices, and as many slots as a balance within 1 % takes.
    #[test]
    fn so_do_changes_of_a_thousand_devices((all, _) in unequal(450..500, 8..12), becomes in becomes(), width in 3u8..7) {
        let (now, next) = change_of(&all, &becomes);
        let before = plan(None, Epoch(1), 16, width, &now).expect("planned");
        balanced(&before, least_cap(&before), 2.0);
        check_change(&before, &next)?;
    }
}

/// The nodes of a cluster of unequal devices in eight zones, four devices a node.
fn in_eight_zones(nodes: u64) -> Vec<DeviceInfo> {
    let of: Vec<_> = (0..nodes * 4).map(|i| (1 + i / 4, format!("zone {}", i / 4 % 8), 4000 + i * 977 % 12_000)).collect();
    devices(&of.iter().map(|(n, z, c)| (*n, z.as_str(), *c)).collect::<Vec<_>>())
}

/// What a node leaves behind goes to many others, a slot or two to each, and to most of its partitions several
/// of them may not come. Greedy steps, and chains for the rest, moved 605 slots of 575, and 2,159 of 2,012.
#[test]
fn a_lost_node_moves_what_it_held_and_nothing_else() {
    let all = in_eight_zones(100);
    for width in [4, 14] {
        let before = made(13, width, &all);
        let after = plan(Some(&before), Epoch(2), 13, width, &all[4..]).expect("planned");
        whole(&after);
        balanced(&after, least_cap(&after), 2.0);
        let lost: u64 = all[..4].iter().map(|d| counts(&before)[&d.device]).sum();
        assert_eq!((moves(&before, &after), describe(&before, &after).minimum), (lost, lost), "width {width}");
    }
}

/// Nodes that come to another zone leave partitions with too many shards there, and as many with too few.
#[test]
fn nodes_that_change_zone_move_what_the_zone_must_give_and_get() {
    let all = in_eight_zones(24);
    for (width, nodes) in [(4, 1), (4, 3), (14, 1), (14, 3)] {
        let before = made(9, width, &all);
        let mut next = all.clone();
        next.iter_mut().filter(|d| d.node.0 <= nodes).for_each(|d| d.zone = "zone 7".into());
        check_change(&before, &next).expect("kept");
    }
}
