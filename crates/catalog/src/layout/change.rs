//! The next layout from the last one, with as few moves as can be: slots keep their device, and with
//! it their index, while it is there and within its share.
//!
//! First whatever cannot stay becomes vacant. Then vacant slots, and slots of devices that hold more
//! than their share, go to devices that hold less: one move each. Where no such step is left, because
//! those that hold less lie in all the partitions in question, chains of moves do it ([`super::chains`]).

use super::chains::Chains;
use super::{Map, Random, held, shares};
use model::Layout;
use model::layout::DeviceInfo;
use std::collections::BTreeMap;

/// Slots of the new layout.
pub(super) fn change(map: &Map, old: &Layout, devices: &[DeviceInfo]) -> Vec<u16> {
    let place: BTreeMap<_, _> = devices.iter().enumerate().map(|(i, d)| (d.device, i as u16)).collect();
    let places: Vec<u16> = old.devices.iter().map(|d| place.get(&d.device).copied().unwrap_or(Layout::VACANT)).collect();
    let was = old.slot_indexes().into_iter().map(|i| places.get(i as usize).copied().unwrap_or(Layout::VACANT)).collect();
    let share = shares::of_devices(map, devices, &held(old, devices));
    let mut plan = Plan::new(map, share, was);
    Chains::new(&plan).run(&mut plan);
    plan.slots()
}

/// A layout that is being changed. Vacant slots are held by *nobody*, a device that comes after all others
/// and should hold nothing: so it holds too much while there are any.
pub(super) struct Plan<'a> {
    map: &'a Map,
    /// What each device may still take; below 0 it holds too much.
    pub(super) lacks: Vec<i64>,
    /// Device that each slot had, if it is still there; else `VACANT`.
    was: Vec<u16>,
    /// Device of each slot.
    has: Vec<u16>,
    /// Slots of each device, in random order: which of its partitions a device gives away is chance, so
    /// that a new device meets all others.
    slots_of: Vec<Vec<usize>>,
    /// At which place of its device's list each slot is.
    place: Vec<usize>,
}

impl<'a> Plan<'a> {
    /// All that can stay stays; the rest is vacant.
    fn new(map: &'a Map, share: Vec<u64>, was: Vec<u16>) -> Self {
        let nobody = share.len();
        let mut plan = Plan {
            map,
            lacks: share.into_iter().map(|s| s as i64).chain([0]).collect(),
            has: vec![nobody as u16; was.len()],
            was,
            slots_of: vec![Vec::new(); nobody + 1],
            place: vec![0; map.partitions * map.width],
        };
        let mut around = Around::new(map);
        for slot in 0..plan.was.len() {
            around.look(&plan, slot);
            if plan.was[slot] != Layout::VACANT && around.fits(map, plan.was[slot] as usize) {
                plan.has[slot] = plan.was[slot];
            }
            plan.lacks[plan.has[slot] as usize] -= 1;
        }
        let mut order: Vec<usize> = (0..plan.was.len()).collect();
        Random(0).shuffle(&mut order);
        for slot in order {
            let list = &mut plan.slots_of[plan.has[slot] as usize];
            plan.place[slot] = list.len();
            list.push(slot);
        }
        plan
    }

    pub(super) fn map(&self) -> &'a Map {
        self.map
    }

    /// The holder of vacant slots.
    pub(super) fn nobody(&self) -> usize {
        self.lacks.len() - 1
    }

    pub(super) fn slots_of(&self, device: usize) -> &[usize] {
        &self.slots_of[device]
    }

    fn partition(&self, slot: usize) -> std::ops::Range<usize> {
        let start = slot - slot % self.map.width;
        start..start + self.map.width
    }

    /// Devices that the partition of a slot had before the change, and that are still there.
    pub(super) fn before(&self, slot: usize) -> impl Iterator<Item = usize> + '_ {
        self.was[self.partition(slot)].iter().filter(|d| **d != Layout::VACANT).map(|d| *d as usize)
    }

    /// Whether the device of a slot has come to its partition by the change.
    pub(super) fn is_new(&self, slot: usize) -> bool {
        let device = self.has[slot];
        device as usize != self.nobody() && !self.was[self.partition(slot)].contains(&device)
    }

    /// Gives a slot to a device, as the last of its slots.
    pub(super) fn give(&mut self, slot: usize, device: usize) {
        let from = self.has[slot] as usize;
        let (list, place) = (&mut self.slots_of[from], self.place[slot]);
        list.swap_remove(place);
        if let Some(other) = list.get(place) {
            self.place[*other] = place;
        }
        self.place[slot] = self.slots_of[device].len();
        self.slots_of[device].push(slot);
        self.has[slot] = device as u16;
        self.lacks[from] += 1;
        self.lacks[device] -= 1;
    }

    /// Takes the last slot that a device was given back to a place among those of the one that gave it.
    pub(super) fn take_back(&mut self, slot: usize, from: usize, place: usize) {
        self.give(slot, from);
        let list = &mut self.slots_of[from];
        let last = list.len() - 1;
        list.swap(place, last);
        (self.place[list[place]], self.place[list[last]]) = (place, last);
    }

    /// One move each: vacant slots first, and of them those that few may have; then slots of devices that
    /// hold too much. Each goes to the device that lacks most.
    pub(super) fn steps(&mut self) {
        let mut around = Around::new(self.map);
        let mut needy = Needy::new(self);
        let mut vacant = self.slots_of[self.nobody()].clone();
        vacant.sort_by_cached_key(|slot| {
            around.look(self, *slot);
            needy.how_many(self.map, &around)
        });
        let over: Vec<usize> = (0..self.nobody()).filter(|d| self.lacks[*d] < 0).collect();
        let mut held: Vec<usize> = over.iter().flat_map(|d| &self.slots_of[*d]).copied().collect();
        held.sort_unstable();
        Random(0).shuffle(&mut held);
        for slot in vacant.into_iter().chain(held) {
            if needy.is_empty() {
                return;
            }
            if self.lacks[self.has[slot] as usize] < 0 {
                around.look(self, slot);
                if let Some(device) = needy.first(self.map, &around) {
                    self.give(slot, device);
                    needy.took(device);
                }
            }
        }
    }

    /// The slots at last: whoever was in a partition before is where it was.
    fn slots(self) -> Vec<u16> {
        let nobody = self.nobody() as u16;
        let mut slots = Vec::with_capacity(self.has.len());
        for (was, has) in self.was.chunks_exact(self.map.width).zip(self.has.chunks_exact(self.map.width)) {
            let stays = |d: &u16| has.contains(d);
            let mut come = has.iter().filter(|d| !was.contains(d));
            slots.extend(was.iter().map(|d| match Some(d).filter(|d| stays(d)).or_else(|| come.next()) {
                Some(device) if *device != nobody => *device,
                _ => Layout::VACANT,
            }));
        }
        slots
    }
}

/// What the other slots of a slot's partition leave free for it.
pub(super) struct Around {
    /// Grows with each look; marks of earlier ones count no more.
    look: u32,
    /// For each node, the last look that found it.
    node: Vec<u32>,
    /// For each zone, the last look that found it, and how many slots it has.
    zone: Vec<(u32, usize)>,
    zone_cap: usize,
}

impl Around {
    pub(super) fn new(map: &Map) -> Self {
        Around { look: 0, node: vec![0; map.nodes.len()], zone: vec![(0, 0); map.zones.len()], zone_cap: map.zone_cap }
    }

    /// Looks at the partition of a slot.
    pub(super) fn look(&mut self, plan: &Plan<'_>, slot: usize) {
        self.look += 1;
        let nobody = plan.nobody();
        for other in plan.partition(slot).filter(|s| *s != slot) {
            let device = plan.has[other] as usize;
            if device != nobody {
                let node = plan.map.node_of[device];
                self.node[node] = self.look;
                let (look, count) = &mut self.zone[plan.map.zone_of[node]];
                *count = if *look == self.look { *count + 1 } else { 1 };
                *look = self.look;
            }
        }
    }

    /// Whether the zone has as many slots as it may have, without this one.
    pub(super) fn is_full(&self, zone: usize) -> bool {
        let (look, count) = self.zone[zone];
        look == self.look && count >= self.zone_cap
    }

    fn has_node(&self, node: usize) -> bool {
        self.node[node] == self.look
    }

    /// Whether a device of a zone that is not full may have the slot: nothing else lies on its node.
    pub(super) fn is_free(&self, map: &Map, device: usize) -> bool {
        !self.has_node(map.node_of[device])
    }

    /// Whether a device may have the slot, whoever has it now.
    pub(super) fn fits(&self, map: &Map, device: usize) -> bool {
        self.is_free(map, device) && !self.is_full(map.zone_of[map.node_of[device]])
    }
}

/// Devices that hold less than their share.
struct Needy {
    /// What each of them lacks, most first; a device that took something moves back by a few places.
    order: Vec<(i64, usize)>,
    /// How many there are in each node and zone, at first.
    in_node: Vec<usize>,
    in_zone: Vec<usize>,
}

impl Needy {
    fn new(plan: &Plan<'_>) -> Self {
        let mut order: Vec<(i64, usize)> = plan.lacks.iter().copied().zip(0..).filter(|(lacks, _)| *lacks > 0).collect();
        order.sort_unstable_by_key(|(lacks, device)| (std::cmp::Reverse(*lacks), *device));
        let mut needy = Needy { order, in_node: vec![0; plan.map.nodes.len()], in_zone: vec![0; plan.map.zones.len()] };
        for (_, device) in &needy.order {
            let node = plan.map.node_of[*device];
            needy.in_node[node] += 1;
            needy.in_zone[plan.map.zone_of[node]] += 1;
        }
        needy
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// How many of them might have a slot.
    fn how_many(&self, map: &Map, around: &Around) -> usize {
        let nodes = |zone: &Vec<usize>| zone.iter().filter(|n| !around.has_node(**n)).map(|n| self.in_node[*n]).sum::<usize>();
        let zones = (0..map.zones.len()).filter(|z| self.in_zone[*z] > 0 && !around.is_full(*z));
        zones.map(|z| nodes(&map.zones[z])).sum()
    }

    /// The one that lacks most of those that may have a slot.
    fn first(&self, map: &Map, around: &Around) -> Option<usize> {
        self.order.iter().map(|(_, device)| *device).find(|device| around.fits(map, *device))
    }

    /// A device lacks one slot less.
    fn took(&mut self, device: usize) {
        let Some(mut at) = self.order.iter().position(|(_, d)| *d == device) else { return };
        self.order[at].0 -= 1;
        while at + 1 < self.order.len() && self.order[at + 1].0 > self.order[at].0 {
            self.order.swap(at, at + 1);
            at += 1;
        }
        if self.order[at].0 == 0 {
            self.order.remove(at);
        }
    }
}
