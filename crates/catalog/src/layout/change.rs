//! The next layout from the last one, with as few moves as can be: slots keep their device, and with
//! it their index, while it is there and within its share.
//!
//! First whatever cannot stay becomes vacant. Then vacant slots, and slots of devices that hold more
//! than their share, go to devices that hold less. Where no such step is left, because those that hold
//! less lie in all the partitions in question, a chain of moves does it: an augmenting path, from a
//! device that holds too much, over some that hold enough, to one that holds too little.

use super::{Map, Random};
use model::Layout;
use model::layout::DeviceInfo;
use std::collections::{BTreeMap, VecDeque};

/// Slots of the new layout. `share`: what each device is to hold.
pub(super) fn change(map: &Map, share: Vec<u64>, old: &Layout, devices: &[DeviceInfo]) -> Vec<u16> {
    let place: BTreeMap<_, _> = devices.iter().enumerate().map(|(i, d)| (d.device, i)).collect();
    let mut plan = Plan { map, lacks: share.into_iter().map(|s| s as i64).collect(), slots: vec![None; map.partitions * map.width] };
    for (slot, index) in old.slot_indexes().into_iter().enumerate() {
        let device = old.devices.get(index as usize).and_then(|d| place.get(&d.device)).copied();
        if let Some(device) = device.filter(|d| plan.fits(slot, *d)) {
            plan.set(slot, device);
        }
    }
    plan.steps();
    plan.chains();
    plan.fill();
    plan.slots.iter().map(|s| s.map_or(Layout::VACANT, |d| d as u16)).collect()
}

struct Plan<'a> {
    map: &'a Map,
    /// What each device may still take; below 0 it holds too much.
    lacks: Vec<i64>,
    slots: Vec<Option<usize>>,
}

impl Plan<'_> {
    fn partition(&self, slot: usize) -> std::ops::Range<usize> {
        let start = slot - slot % self.map.width;
        start..start + self.map.width
    }

    /// Whether a device may have a slot, whoever has it now: no other shard of the partition lies on
    /// its node, and not too many in its zone.
    fn fits(&self, slot: usize, device: usize) -> bool {
        let node = self.map.node_of[device];
        let zone = self.map.zone_of[node];
        let others = self.partition(slot).filter(|s| *s != slot).filter_map(|s| self.slots[s]).map(|d| self.map.node_of[d]);
        let mut in_zone = 1;
        for other in others {
            if other == node {
                return false;
            }
            in_zone += usize::from(self.map.zone_of[other] == zone);
        }
        in_zone <= self.map.zone_cap
    }

    fn set(&mut self, slot: usize, device: usize) {
        if let Some(old) = self.slots[slot].replace(device) {
            self.lacks[old] += 1;
        }
        self.lacks[device] -= 1;
    }

    /// Whether a slot is to get another device: it has none, or one that holds too much.
    fn is_over(&self, slot: usize) -> bool {
        self.slots[slot].is_none_or(|d| self.lacks[d] < 0)
    }

    /// The device that lacks most of those that fit.
    fn neediest(&self, slot: usize, least: i64) -> Option<usize> {
        let needy = (0..self.lacks.len()).filter(|d| self.lacks[*d] >= least);
        // Most first; the dear test last.
        let mut best: Option<usize> = None;
        for device in needy {
            if best.is_none_or(|b| self.lacks[device] > self.lacks[b]) && self.fits(slot, device) {
                best = Some(device);
            }
        }
        best
    }

    /// One move each: vacant slots first, then those of devices that hold too much, in random order,
    /// so that a new device meets all others.
    fn steps(&mut self) {
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        Random(0).shuffle(&mut order);
        let (mut vacant, held): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|s| self.slots[*s].is_none());
        // Those first that few may have.
        let needy: Vec<usize> = (0..self.lacks.len()).filter(|d| self.lacks[*d] > 0).collect();
        vacant.sort_by_cached_key(|s| needy.iter().filter(|d| self.fits(*s, **d)).count());
        let mut lacking: i64 = self.lacks.iter().filter(|l| **l > 0).sum();
        for slot in vacant.into_iter().chain(held) {
            if lacking > 0
                && self.is_over(slot)
                && let Some(device) = self.neediest(slot, 1)
            {
                self.set(slot, device);
                lacking -= 1;
            }
        }
    }

    /// Chains of moves, as long as there are any: for each slot without a device, then for devices that hold
    /// too much, the shortest from there.
    fn chains(&mut self) {
        // Each chain that is not cut short brings one device one slot nearer to its share.
        let bound = 64 + 4 * self.lacks.iter().filter(|l| **l > 0).sum::<i64>();
        let mut slots_of = vec![Vec::new(); self.lacks.len()];
        (0..self.slots.len()).filter_map(|s| Some((s, self.slots[s]?))).for_each(|(slot, d)| slots_of[d].push(slot));
        let mut vacant: Vec<usize> = (0..self.slots.len()).filter(|s| self.slots[*s].is_none()).collect();
        for _ in 0..bound {
            let Some(chain) = self.chain(&vacant, &slots_of) else { return };
            // From its end, so that each move goes to a device that lacks something.
            for (slot, device) in chain {
                if !self.fits(slot, device) {
                    break;
                }
                match self.slots[slot] {
                    Some(old) => slots_of[old].retain(|s| *s != slot),
                    None => vacant.retain(|s| *s != slot),
                }
                slots_of[device].push(slot);
                self.set(slot, device);
            }
        }
    }

    /// A chain, its last move first: `(slot, device that takes it)`. The search goes on from one beginning to
    /// the next: what was reached in vain before leads nowhere.
    fn chain(&self, vacant: &[usize], slots_of: &[Vec<usize>]) -> Option<Vec<(usize, usize)>> {
        if self.lacks.iter().all(|l| *l <= 0) {
            return None;
        }
        // By which slot each device was reached.
        let mut by: Vec<Option<usize>> = vec![None; self.lacks.len()];
        let mut unreached: Vec<usize> = (0..self.lacks.len()).filter(|d| self.lacks[*d] >= 0).collect();
        let over = (0..self.lacks.len()).filter(|d| self.lacks[*d] < 0);
        let beginnings = vacant.iter().map(std::slice::from_ref).chain(over.map(|d| slots_of[d].as_slice()));
        let mut queue: VecDeque<usize> = VecDeque::new();
        for beginning in beginnings {
            let mut slots = beginning;
            loop {
                for slot in slots {
                    let (reached, rest): (Vec<usize>, Vec<usize>) = unreached.into_iter().partition(|d| self.fits(*slot, *d));
                    unreached = rest;
                    for device in reached {
                        by[device] = Some(*slot);
                        if self.lacks[device] > 0 {
                            return Some(self.trace(device, &by));
                        }
                        queue.push_back(device);
                    }
                    if unreached.is_empty() {
                        break;
                    }
                }
                match queue.pop_front() {
                    Some(device) => slots = &slots_of[device],
                    None => break,
                }
            }
        }
        None
    }

    fn trace(&self, mut device: usize, by: &[Option<usize>]) -> Vec<(usize, usize)> {
        let mut chain = Vec::new();
        while let Some(slot) = by[device] {
            chain.push((slot, device));
            let Some(before) = self.slots[slot] else { break };
            device = before;
        }
        chain
    }

    /// What is vacant still goes beyond shares, and beyond what a zone should hold, but never twice to
    /// a node: there are at least as many nodes as slots.
    fn fill(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_none() {
                let used: Vec<usize> = self.partition(slot).filter_map(|s| self.slots[s]).map(|d| self.map.node_of[d]).collect();
                let free = || (0..self.lacks.len()).filter(|d| !used.contains(&self.map.node_of[*d]));
                let best = self.neediest(slot, i64::MIN).or_else(|| free().max_by_key(|d| self.lacks[*d]));
                if let Some(device) = best {
                    self.set(slot, device);
                }
            }
        }
    }
}
