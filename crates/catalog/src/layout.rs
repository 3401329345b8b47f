//! Layout planning: which device holds which shard of each partition. A pure function of the old
//! layout and the devices.
//!
//! Each device gets its share by capacity, as far as one partition on one node at most and an even
//! spread over zones allow (water-filling). Slots that need not change keep their device and index.
//! The others are filled partition by partition with the zone, node and device that have most of their
//! share left: the rule by which McNaughton's schedule (Management Science 6(1), 1959) keeps a task
//! from running on two machines at once, here a chunk from lying twice on one node.

use model::layout::DeviceInfo;
use model::{Epoch, Error, Layout, NodeId, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Plans a layout of `2^power` partitions and `width` shards over devices.
///
/// `Unavailable`: there are fewer nodes than `width`. A layout that has no better place for a slot never
/// puts two shards of a partition on one node.
pub fn plan(old: Option<&Layout>, epoch: Epoch, power: u8, width: u8, devices: &[DeviceInfo]) -> Result<Layout> {
    let mut devices: Vec<DeviceInfo> = devices.to_vec();
    devices.sort_by_key(|d| d.device);
    let nodes: BTreeSet<NodeId> = devices.iter().filter(|d| d.capacity > 0).map(|d| d.node).collect();
    if nodes.len() < width as usize {
        let missing = width as usize - nodes.len();
        return Err(Error::unavailable(format!(
            "{width} nodes are needed and {} {} joined: {missing} more must join",
            nodes.len(),
            if nodes.len() == 1 { "has" } else { "have" },
        ))
        .hint("shardkeep serve node --join TOKEN"));
    }
    if devices.len() >= usize::from(Layout::VACANT) {
        return Err(Error::invalid("too many devices for one layout"));
    }
    let mut plan = Plan::new(power, width, &devices);
    if let Some(old) = old.filter(|o| o.power == power && o.width == width) {
        plan.keep(old, &devices);
    }
    plan.fill();
    Layout::new(epoch, power, width, devices, &plan.slots)
}

/// Shares of `total` slots by weight, none above its cap; the sum is `total` where the caps allow it.
/// Remainders go to the largest fractions, then to the first.
fn shares(total: u64, parts: &[(u64, u64)]) -> Vec<u64> {
    let mut share = vec![0u64; parts.len()];
    let mut open: BTreeSet<usize> = (0..parts.len()).filter(|i| parts[*i].0 > 0 && parts[*i].1 > 0).collect();
    let mut left = total;
    // Whatever would get more than its cap gets the cap; the others share the rest.
    loop {
        let weight: u128 = open.iter().map(|i| u128::from(parts[*i].0)).sum();
        if weight == 0 {
            return share;
        }
        let full: Vec<usize> =
            open.iter().copied().filter(|i| u128::from(left) * u128::from(parts[*i].0) >= u128::from(parts[*i].1) * weight).collect();
        if full.is_empty() {
            break;
        }
        for i in full {
            share[i] = parts[i].1.min(left);
            left -= share[i];
            open.remove(&i);
        }
    }
    let weight: u128 = open.iter().map(|i| u128::from(parts[*i].0)).sum();
    let mut fractions = Vec::new();
    let mut given = 0;
    for i in &open {
        let exact = u128::from(left) * u128::from(parts[*i].0);
        share[*i] = (exact / weight) as u64;
        given += share[*i];
        fractions.push((std::cmp::Reverse(exact % weight), *i));
    }
    fractions.sort();
    let mut rest = left - given;
    for (_, i) in fractions.iter().cycle().take(fractions.len() * 2) {
        if rest > 0 && share[*i] < parts[*i].1 {
            share[*i] += 1;
            rest -= 1;
        }
    }
    share
}

struct Plan {
    partitions: u64,
    width: usize,
    /// Devices of each node, nodes of each zone, by their places in these lists.
    nodes: Vec<Vec<usize>>,
    zones: Vec<Vec<usize>>,
    node_of: Vec<usize>,
    zone_of: Vec<usize>,
    /// What each may still take.
    device_left: Vec<i64>,
    node_left: Vec<i64>,
    zone_left: Vec<i64>,
    /// Most shards of a partition in one zone.
    zone_cap: usize,
    slots: Vec<u16>,
}

impl Plan {
    fn new(power: u8, width: u8, devices: &[DeviceInfo]) -> Self {
        let (partitions, width) = (1u64 << power, width as usize);
        let mut by_zone: BTreeMap<String, BTreeMap<NodeId, Vec<usize>>> = BTreeMap::new();
        for (i, d) in devices.iter().enumerate() {
            // Without a name each node is a zone of its own.
            let zone = if d.zone.is_empty() { format!("\0{:020}", d.node.0) } else { d.zone.clone() };
            by_zone.entry(zone).or_default().entry(d.node).or_default().push(i);
        }
        let zone_cap = width.div_ceil(by_zone.len());
        let (mut nodes, mut zones) = (Vec::new(), Vec::new());
        let (mut node_of, mut zone_of) = (vec![0; devices.len()], Vec::new());
        for (z, members) in by_zone.into_values().enumerate() {
            let mut zone = Vec::new();
            for list in members.into_values() {
                list.iter().for_each(|d| node_of[*d] = nodes.len());
                zone.push(nodes.len());
                zone_of.push(z);
                nodes.push(list);
            }
            zones.push(zone);
        }
        let weight = |devices_of: &[usize]| devices_of.iter().map(|d| devices[*d].capacity).sum::<u64>();
        let node_weight: Vec<u64> = nodes.iter().map(|n| weight(n)).collect();
        let zone_parts: Vec<(u64, u64)> = zones
            .iter()
            .map(|z| {
                let usable = z.iter().filter(|n| node_weight[**n] > 0).count();
                (z.iter().map(|n| node_weight[*n]).sum(), partitions * usable.min(zone_cap) as u64)
            })
            .collect();
        let mut zone_left = shares(partitions * width as u64, &zone_parts);
        // Zones that are too small for an even spread: the rest goes where there are nodes.
        let missing = partitions * width as u64 - zone_left.iter().sum::<u64>();
        if missing > 0 {
            let room: Vec<(u64, u64)> = zones
                .iter()
                .zip(&zone_left)
                .map(|(z, share)| {
                    let usable = z.iter().filter(|n| node_weight[**n] > 0).count() as u64;
                    (z.iter().map(|n| node_weight[*n]).sum(), (partitions * usable).saturating_sub(*share))
                })
                .collect();
            zone_left.iter_mut().zip(shares(missing, &room)).for_each(|(have, more)| *have += more);
        }
        let mut node_left = vec![0u64; nodes.len()];
        let mut device_left = vec![0u64; devices.len()];
        for (z, zone) in zones.iter().enumerate() {
            let parts: Vec<_> = zone.iter().map(|n| (node_weight[*n], partitions)).collect();
            for (n, share) in zone.iter().zip(shares(zone_left[z], &parts)) {
                node_left[*n] = share;
                let parts: Vec<_> = nodes[*n].iter().map(|d| (devices[*d].capacity, partitions)).collect();
                nodes[*n].iter().zip(shares(share, &parts)).for_each(|(d, share)| device_left[*d] = share);
            }
        }
        let signed = |v: Vec<u64>| v.into_iter().map(|x| x as i64).collect();
        Plan {
            partitions,
            width,
            nodes,
            zones,
            node_of,
            zone_of,
            device_left: signed(device_left),
            node_left: signed(node_left),
            zone_left: signed(zone_left),
            zone_cap,
            slots: vec![Layout::VACANT; partitions as usize * width],
        }
    }

    fn take(&mut self, slot: usize, device: usize) {
        self.slots[slot] = device as u16;
        let node = self.node_of[device];
        self.device_left[device] -= 1;
        self.node_left[node] -= 1;
        self.zone_left[self.zone_of[node]] -= 1;
    }

    /// Slots keep their device while it is there, has a share left, and shares no node in the partition.
    fn keep(&mut self, old: &Layout, devices: &[DeviceInfo]) {
        let place: BTreeMap<_, _> = devices.iter().enumerate().map(|(i, d)| (d.device, i)).collect();
        for (slot, index) in old.slot_indexes().into_iter().enumerate() {
            let Some(device) = old.devices.get(index as usize).and_then(|d| place.get(&d.device)).copied() else { continue };
            let taken = self.used_nodes(slot / self.width).contains(&self.node_of[device]);
            if self.device_left[device] > 0 && !taken {
                self.take(slot, device);
            }
        }
    }

    fn used_nodes(&self, partition: usize) -> BTreeSet<usize> {
        let slots = &self.slots[partition * self.width..(partition + 1) * self.width];
        slots.iter().filter(|s| **s != Layout::VACANT).map(|s| self.node_of[*s as usize]).collect()
    }

    fn fill(&mut self) {
        for partition in 0..self.partitions as usize {
            let mut used = self.used_nodes(partition);
            let mut chosen = Vec::new();
            for _ in used.len()..self.width {
                let Some(node) = self.best_node(&used, true).or_else(|| self.best_node(&used, false)) else { break };
                used.insert(node);
                let device = self.nodes[node].iter().copied().max_by_key(|d| (self.device_left[*d], std::cmp::Reverse(*d)));
                let Some(device) = device else { break };
                // Accounted for at once, so that the next choice sees it; the slot follows below.
                self.device_left[device] -= 1;
                self.node_left[node] -= 1;
                self.zone_left[self.zone_of[node]] -= 1;
                chosen.push(device);
            }
            // Each device should hold each index about equally often: data shards are read, parity is not.
            if !chosen.is_empty() {
                chosen.sort_unstable();
                let turn = partition % chosen.len();
                chosen.rotate_left(turn);
            }
            let mut chosen = chosen.into_iter();
            for slot in partition * self.width..(partition + 1) * self.width {
                if self.slots[slot] == Layout::VACANT
                    && let Some(device) = chosen.next()
                {
                    self.slots[slot] = device as u16;
                }
            }
        }
    }

    /// The node to fill next: in the zone with most left, the node with most left.
    fn best_node(&self, used: &BTreeSet<usize>, spread: bool) -> Option<usize> {
        let in_zone = |z: usize| self.zones[z].iter().filter(|n| used.contains(n)).count();
        let free = |n: &usize| !used.contains(n) && (!spread || self.node_left[*n] > 0);
        let best_in = |z: usize| self.zones[z].iter().copied().filter(free).max_by_key(|n| (self.node_left[*n], std::cmp::Reverse(*n)));
        let zones = (0..self.zones.len()).filter(|z| !spread || in_zone(*z) < self.zone_cap);
        let candidates = zones.filter_map(|z| Some((z, best_in(z)?)));
        // Fewest of this partition first where the spread is what is wanted least; then most left.
        candidates.max_by_key(|(z, n)| (self.zone_left[*z], self.node_left[*n], std::cmp::Reverse(*z))).map(|(_, n)| n)
    }
}
