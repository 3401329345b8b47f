//! How many slots each device is to hold: in proportion to capacity, as far as the caps allow. A node
//! holds at most one shard of a partition, a zone at most the map's cap. What a capped one cannot take
//! is shared out among all others, until none is above its cap (water-filling).
//!
//! Slots are whole and shares are not, so somebody's is rounded up. Those come first that held as many
//! before: a share that is rounded the other way with every change would move slots for nothing.

use super::Map;
use model::layout::DeviceInfo;

/// Part of a whole that is shared out.
struct Part {
    weight: u128,
    /// No more slots than this.
    cap: u64,
    /// Slots that it has now.
    has: u64,
}

/// Slots of each device; all slots in sum. `has`: what each of them holds now, zeros for a first layout.
pub(super) fn of_devices(map: &Map, devices: &[DeviceInfo], has: &[u64]) -> Vec<u64> {
    let cap = map.partitions as u64;
    let has_node: Vec<u64> = map.nodes.iter().map(|n| n.iter().map(|d| has[*d]).sum()).collect();
    let weight: Vec<u128> = map.nodes.iter().map(|n| n.iter().map(|d| u128::from(devices[*d].capacity)).sum()).collect();
    let mut share = vec![0; devices.len()];
    for (zone, slots) in map.zones.iter().zip(of_zones(map, &weight, &has_node)) {
        let parts: Vec<_> = zone.iter().map(|n| Part { weight: weight[*n], cap, has: has_node[*n] }).collect();
        for (node, slots) in zone.iter().zip(split(slots, &parts)) {
            let part = |d: &usize| Part { weight: u128::from(devices[*d].capacity), cap, has: has[*d] };
            let parts: Vec<_> = map.nodes[*node].iter().map(part).collect();
            map.nodes[*node].iter().zip(split(slots, &parts)).for_each(|(d, slots)| share[*d] = slots);
        }
    }
    share
}

/// Slots of each zone. A node that is full holds less than its weight says, and so does its zone:
/// nodes and zones are filled at one common level, which rises as they become full.
fn of_zones(map: &Map, weight: &[u128], has_node: &[u64]) -> Vec<u64> {
    let partitions = map.partitions as u128;
    let cap = |zone: &[usize]| zone.len().min(map.zone_cap) as u128 * partitions;
    let mut full_node = vec![false; map.nodes.len()];
    let mut full_zone = vec![false; map.zones.len()];
    loop {
        let mut rest = partitions * map.width as u128;
        let mut open = vec![0u128; map.zones.len()];
        let mut taken = vec![0u128; map.zones.len()];
        for (z, zone) in map.zones.iter().enumerate() {
            taken[z] = if full_zone[z] { cap(zone) } else { zone.iter().filter(|n| full_node[**n]).count() as u128 * partitions };
            rest = rest.saturating_sub(taken[z]);
            if !full_zone[z] {
                open[z] = zone.iter().filter(|n| !full_node[**n]).map(|n| weight[*n]).sum();
            }
        }
        let total: u128 = open.iter().sum();
        // The level is `rest / total`: what a unit of weight gets now.
        let mut rises = false;
        for (n, full) in full_node.iter_mut().enumerate() {
            if !*full && !full_zone[map.zone_of[n]] && rest * weight[n] >= partitions * total {
                (*full, rises) = (true, true);
            }
        }
        if !rises {
            for (z, full) in full_zone.iter_mut().enumerate() {
                if !*full && taken[z] * total + rest * open[z] >= cap(&map.zones[z]) * total {
                    (*full, rises) = (true, true);
                }
            }
        }
        if !rises {
            let room = |z: usize| (cap(&map.zones[z]) - taken[z]) as u64;
            let has = |z: usize| map.zones[z].iter().map(|n| has_node[*n]).sum::<u64>().saturating_sub(taken[z] as u64);
            let part = |z: usize| Part { weight: open[z], cap: if full_zone[z] { 0 } else { room(z) }, has: has(z) };
            return split(rest as u64, &(0..map.zones.len()).map(part).collect::<Vec<_>>())
                .into_iter()
                .zip(taken)
                .map(|(more, taken)| taken as u64 + more)
                .collect();
        }
    }
}

/// Whole shares of `total` by weight, none above its cap. The sum is `total` where the caps allow it.
/// Remainders go to those that have as much already, then to the largest fractions, then to the first.
fn split(total: u64, parts: &[Part]) -> Vec<u64> {
    let mut share = vec![0u64; parts.len()];
    let mut open: Vec<usize> = (0..parts.len()).filter(|i| parts[*i].weight > 0 && parts[*i].cap > 0).collect();
    let mut left = total;
    let mut weight: u128 = open.iter().map(|i| parts[*i].weight).sum();
    loop {
        let (full, rest): (Vec<_>, Vec<_>) =
            open.iter().partition(|i| u128::from(left) * parts[**i].weight >= u128::from(parts[**i].cap) * weight);
        open = rest;
        if full.is_empty() {
            break;
        }
        for i in full {
            share[i] = parts[i].cap.min(left);
            left -= share[i];
        }
        weight = open.iter().map(|i| parts[*i].weight).sum();
    }
    let mut fractions = Vec::with_capacity(open.len());
    let mut given = 0;
    for i in open {
        let exact = u128::from(left) * parts[i].weight;
        share[i] = (exact / weight) as u64;
        given += share[i];
        // What is whole already is not rounded up for what it has.
        let keeps = parts[i].has > share[i] && !exact.is_multiple_of(weight);
        fractions.push((std::cmp::Reverse((keeps, exact % weight)), i));
    }
    fractions.sort_unstable();
    // Fewer than there are fractions; and each is below its cap, or it would be full.
    fractions.iter().take((left - given) as usize).for_each(|(_, i)| share[*i] += 1);
    share
}
