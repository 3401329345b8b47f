//! Layout planning: which device holds which shard of each partition. A pure function of the old
//! layout and the devices.
//!
//! Each device gets its share by capacity, as far as one shard of a partition on a node and an even
//! spread over zones allow ([`shares`]). A first layout draws the devices of each partition by
//! systematic sampling with unequal probabilities (Madow, Annals of Mathematical Statistics 20(3),
//! 1949): lay what all devices have left on a line, node beside node and zone beside zone, in random
//! order, and take the device at every R-th point, where R partitions remain. A node has at most R
//! left, so no partition gets two devices of it, one that has R is always drawn, and at the end each
//! device has exactly its share. The order is drawn anew for each partition: so each node shares
//! partitions with all others, and all of them help when it must be rebuilt. A later layout starts
//! from the old one ([`change`]) and moves the least that any could that gives each device its share
//! ([`chains`]).

mod chains;
mod change;
mod describe;
mod shares;

pub use describe::{Description, Gain, describe};

use model::layout::DeviceInfo;
use model::{DeviceId, Epoch, Error, Layout, NodeId, Policy, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Plans a layout of `2^power` partitions and `width` shards over devices. Devices without capacity
/// are left out.
///
/// `Unavailable`: there are fewer nodes than `width`. Never puts two shards of a partition on one node.
pub fn plan(old: Option<&Layout>, epoch: Epoch, power: u8, width: u8, devices: &[DeviceInfo]) -> Result<Layout> {
    if power > Layout::MAX_POWER || width == 0 || width > Policy::MAX_WIDTH {
        return Err(Error::invalid("no layout has this power or width"));
    }
    let mut devices: Vec<DeviceInfo> = devices.iter().filter(|d| d.capacity > 0).cloned().collect();
    devices.sort_by_key(|d| d.device);
    devices.dedup_by_key(|d| d.device);
    let nodes = devices.iter().map(|d| d.node).collect::<BTreeSet<_>>().len();
    if nodes < width as usize {
        let (has, missing) = (if nodes == 1 { "has" } else { "have" }, width as usize - nodes);
        return Err(Error::unavailable(format!("{width} nodes are needed and {nodes} {has} joined: {missing} more must join"))
            .hint("shardkeep serve node --join TOKEN"));
    }
    if devices.len() >= usize::from(Layout::VACANT) {
        return Err(Error::invalid("too many devices for one layout"));
    }
    let map = Map::new(1 << power, width as usize, &devices);
    let slots = match old.filter(|o| o.power == power && o.width == width) {
        Some(old) => change::change(&map, old, &devices),
        None => draw(&map, shares::of_devices(&map, &devices, &vec![0; devices.len()])),
    };
    Layout::new(epoch, power, width, devices, &slots)
}

/// Devices that have slots, with their nodes.
pub fn filled(layout: &Layout) -> BTreeSet<(NodeId, DeviceId)> {
    let filled: BTreeSet<u16> = layout.slot_indexes().into_iter().collect();
    filled.into_iter().filter_map(|slot| layout.devices.get(slot as usize)).map(|d| (d.node, d.device)).collect()
}

/// Nodes that have slots.
pub fn holders(layout: &Layout) -> BTreeSet<NodeId> {
    filled(layout).into_iter().map(|(node, _)| node).collect()
}

/// Nodes over which a layout was planned, with or without a slot.
pub fn members(layout: &Layout) -> BTreeSet<NodeId> {
    layout.devices.iter().map(|d| d.node).collect()
}

/// How many slots of a layout each of some devices has.
fn held(layout: &Layout, devices: &[DeviceInfo]) -> Vec<u64> {
    let place: BTreeMap<_, _> = devices.iter().enumerate().map(|(i, d)| (d.device, i)).collect();
    let places: Vec<Option<usize>> = layout.devices.iter().map(|d| place.get(&d.device).copied()).collect();
    let mut held = vec![0; devices.len()];
    for slot in layout.slot_indexes() {
        if let Some(device) = places.get(slot as usize).copied().flatten() {
            held[device] += 1;
        }
    }
    held
}

/// The devices by their nodes and zones. Devices, nodes and zones are named by their places in lists.
struct Map {
    partitions: usize,
    /// Shards of a partition.
    width: usize,
    /// Devices of each node.
    nodes: Vec<Vec<usize>>,
    /// Nodes of each zone.
    zones: Vec<Vec<usize>>,
    node_of: Vec<usize>,
    /// Zone of each node.
    zone_of: Vec<usize>,
    /// Most shards of a partition in one zone: as few as the zones allow.
    zone_cap: usize,
}

impl Map {
    fn new(partitions: usize, width: usize, devices: &[DeviceInfo]) -> Self {
        let mut by_zone: BTreeMap<String, BTreeMap<NodeId, Vec<usize>>> = BTreeMap::new();
        for (i, d) in devices.iter().enumerate() {
            // Without a name each node is a zone of its own.
            let zone = if d.zone.is_empty() { format!("\0{:020}", d.node.0) } else { d.zone.clone() };
            by_zone.entry(zone).or_default().entry(d.node).or_default().push(i);
        }
        let mut map =
            Map { partitions, width, nodes: vec![], zones: vec![], node_of: vec![0; devices.len()], zone_of: vec![], zone_cap: 1 };
        for (z, members) in by_zone.into_values().enumerate() {
            let mut zone = Vec::new();
            for list in members.into_values() {
                list.iter().for_each(|d| map.node_of[*d] = map.nodes.len());
                zone.push(map.nodes.len());
                map.zone_of.push(z);
                map.nodes.push(list);
            }
            map.zones.push(zone);
        }
        // There are at least `width` nodes, so that this ends.
        while map.zones.iter().map(|z| z.len().min(map.zone_cap)).sum::<usize>() < width {
            map.zone_cap += 1;
        }
        map
    }
}

/// A first layout: see above. `left`: what each device is to hold.
fn draw(map: &Map, mut left: Vec<u64>) -> Vec<u16> {
    let mut random = Random(0);
    let (mut zones, mut inside) = ((0..map.zones.len()).collect::<Vec<_>>(), map.zones.clone());
    let mut indexes = Indexes::new(left.len(), map.width);
    let mut slots = Vec::with_capacity(map.partitions * map.width);
    for partition in 0..map.partitions {
        let rest = (map.partitions - partition) as u64;
        random.shuffle(&mut zones);
        inside.iter_mut().for_each(|zone| random.shuffle(zone));
        let line = zones.iter().flat_map(|z| &inside[*z]).flat_map(|n| &map.nodes[*n]);
        let (mut point, mut end, mut drawn) = (random.below(rest), 0, Vec::with_capacity(map.width));
        for device in line.copied() {
            end += left[device];
            if point < end {
                point += rest;
                drawn.push(device);
            }
        }
        drawn.iter().for_each(|d| left[*d] -= 1);
        slots.extend(indexes.order(drawn, partition));
    }
    slots
}

/// Gives each device each index about equally often: data shards are read, parity is not.
struct Indexes {
    width: usize,
    /// How many partitions each device is in so far.
    placed: Vec<usize>,
    /// At how many of them it has each index: device by device.
    at: Vec<usize>,
}

impl Indexes {
    fn new(devices: usize, width: usize) -> Self {
        Indexes { width, placed: vec![0; devices], at: vec![0; devices * width] }
    }

    /// The devices of a partition in the order of their indexes. Each index in turn takes the device
    /// that is most behind there; which comes first changes.
    fn order(&mut self, mut devices: Vec<usize>, partition: usize) -> Vec<u16> {
        let mut slots = vec![Layout::VACANT; self.width];
        for turn in 0..self.width {
            let index = (partition + turn) % self.width;
            let behind = |d: &usize| self.placed[*d] as i64 - (self.width * self.at[*d * self.width + index]) as i64;
            let most = (0..devices.len()).max_by_key(|i| (behind(&devices[*i]), std::cmp::Reverse(devices[*i])));
            if let Some(most) = most {
                let device = devices.swap_remove(most);
                self.placed[device] += 1;
                self.at[device * self.width + index] += 1;
                slots[index] = device as u16;
            }
        }
        slots
    }
}

/// Pseudo-random numbers, the same everywhere (SplitMix64: Steele, Lea and Flood, OOPSLA 2014). They
/// decide nothing but which of many equally good layouts is made.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 for 0.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    fn shuffle(&mut self, list: &mut [usize]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
