//! The fewest moves that give each device its share: a flow of least cost.
//!
//! A slot that goes from one device to another, because nothing else of its partition is in the way there, is
//! a link from the one to the other. It costs one move; none where the other one had the partition before the
//! change; and where the first one had come there by the change, its own move is saved. A chain of links
//! leads from a device that holds too much, over some that then hold as much as before, to one that holds
//! too little. If every chain is the cheapest one that there is at that time, then all together cost the least
//! that any change to these shares can (successive shortest paths: Ahuja, Magnanti and Orlin, *Network
//! Flows*, 1993, section 9.7). There always is a chain: shares are within the caps of nodes and zones, so
//! that in fractions each partition could give each device its part, and where fractions can, whole slots can.
//!
//! Chains of one cost are found many at a time (section 9.8, primal-dual). Each device has a *distance*, the
//! cost of the cheapest chain to it, or the cost that is tried now if that is less. A link is *tight* if it
//! costs as much as the distances differ; only chains of tight links are cheapest. A search in breadth
//! gives each device its level, and then chains go from level to level (Dinic). When no chain of tight links
//! is left, whatever the search did not reach is farther by one.

use super::change::{Around, Plan};

pub(super) struct Chains {
    around: Around,
    /// Distance of each device from those that hold too much.
    distance: Vec<usize>,
    /// Level of each device in the last search.
    level: Vec<Option<usize>>,
    /// By level and distance, the devices that chains may still go to.
    open: Vec<Vec<Vec<Zone>>>,
    /// The first slot of each device from which not all chains were tried yet.
    next: Vec<usize>,
}

/// Some devices of a zone.
struct Zone {
    zone: usize,
    devices: Vec<usize>,
}

impl Chains {
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let all = plan.lacks.len();
        Chains { around: Around::new(plan.map()), distance: vec![0; all], level: vec![None; all], open: vec![], next: vec![0; all] }
    }

    /// Makes chains, the cheapest first, until each device has its share.
    pub(super) fn run(&mut self, plan: &mut Plan<'_>) {
        // No chain is longer than there are devices.
        for cost in 0..plan.lacks.len() {
            if cost == 1 {
                // Most chains are single links, and these may be chosen well.
                plan.steps();
            }
            while let Some(last) = self.search(plan) {
                if !self.chains(plan, last) {
                    break;
                }
            }
            if plan.lacks.iter().all(|l| *l == 0) {
                return;
            }
            for (distance, level) in self.distance.iter_mut().zip(&self.level) {
                *distance += usize::from(level.is_none());
            }
        }
    }

    /// Finds the level of each device that tight links lead to. Returns the first level at which one lacks
    /// something; those beyond are not looked for.
    fn search(&mut self, plan: &Plan<'_>) -> Option<usize> {
        let farthest = self.distance.iter().max().copied().unwrap_or(0);
        let mut unreached: Vec<Vec<Zone>> = (0..=farthest).map(|distance| self.zones(plan, |c, d| c.distance[d] == distance)).collect();
        self.level.fill(None);
        let mut queue: Vec<usize> = (0..plan.lacks.len()).filter(|d| plan.lacks[*d] < 0).collect();
        queue.iter().for_each(|d| self.level[*d] = Some(0));
        let (mut at, mut last) = (0, None);
        while let Some(from) = queue.get(at).copied() {
            at += 1;
            let level = self.level[from].map_or(0, |l| l + 1);
            if last.is_some_and(|last| level > last) || unreached.iter().all(Vec::is_empty) {
                break;
            }
            let reached = queue.len();
            for slot in plan.slots_of(from) {
                self.around.look(plan, *slot);
                let (before, after) = self.tight(plan, from, *slot);
                for device in plan.before(*slot) {
                    let tight = Some(self.distance[device]) == before && self.level[device].is_none();
                    if tight && self.around.fits(plan.map(), device) {
                        self.level[device] = Some(level);
                        queue.push(device);
                    }
                }
                let Some(zones) = unreached.get_mut(after) else { continue };
                zones.retain_mut(|zone| {
                    if !self.around.is_full(zone.zone) {
                        zone.devices.retain(|device| {
                            let fits = self.around.is_free(plan.map(), *device);
                            if fits && self.level[*device].is_none() {
                                self.level[*device] = Some(level);
                                queue.push(*device);
                            }
                            self.level[*device].is_none()
                        });
                    }
                    !zone.devices.is_empty()
                });
            }
            if queue[reached..].iter().any(|d| plan.lacks[*d] > 0) {
                last = Some(level);
            }
        }
        last
    }

    /// How far away a device must be for a link from a slot to be tight: if it had the partition before,
    /// and if it comes there new.
    fn tight(&self, plan: &Plan<'_>, from: usize, slot: usize) -> (Option<usize>, usize) {
        let distance = self.distance[from];
        if plan.is_new(slot) { (distance.checked_sub(1), distance) } else { (Some(distance), distance + 1) }
    }

    /// Some devices by their zones.
    fn zones(&self, plan: &Plan<'_>, some: impl Fn(&Self, usize) -> bool) -> Vec<Zone> {
        let map = plan.map();
        let of = |zone: usize| map.zones[zone].iter().flat_map(|n| &map.nodes[*n]).copied().filter(|d| some(self, *d)).collect();
        (0..map.zones.len()).map(|zone| Zone { zone, devices: of(zone) }).filter(|z: &Zone| !z.devices.is_empty()).collect()
    }

    /// Makes chains from level to level, until none is left. Returns whether there was any.
    fn chains(&mut self, plan: &mut Plan<'_>, last: usize) -> bool {
        let farthest = self.distance.iter().max().copied().unwrap_or(0);
        let is_open = |c: &Self, device: usize, level, distance| {
            c.level[device] == Some(level) && c.distance[device] == distance && (level < last || plan.lacks[device] > 0)
        };
        let of = |level| (0..=farthest).map(|distance| self.zones(plan, |c, d| is_open(c, d, level, distance))).collect();
        self.open = (0..=last).map(of).collect();
        self.next.fill(0);
        let mut any = false;
        for from in 0..plan.lacks.len() {
            while plan.lacks[from] < 0 && self.level[from] == Some(0) && self.chain(plan, from) {
                any = true;
            }
        }
        any
    }

    /// Moves a slot of a device to another one, and there one more, until it comes to one that lacks
    /// something. Returns whether there is such a chain; if not, nothing has changed.
    fn chain(&mut self, plan: &mut Plan<'_>, from: usize) -> bool {
        while let Some(slot) = plan.slots_of(from).get(self.next[from]).copied() {
            self.around.look(plan, slot);
            while let Some(to) = self.link(plan, from, slot) {
                let lacked = plan.lacks[to];
                plan.give(slot, to);
                if lacked == 1 {
                    self.close(to);
                }
                if lacked > 0 || self.chain(plan, to) {
                    return true;
                }
                plan.take_back(slot, from, self.next[from]);
                self.close(to);
                self.around.look(plan, slot);
            }
            self.next[from] += 1;
        }
        false
    }

    /// A device of the next level to which a tight link leads, and which is not known to lead nowhere.
    fn link(&self, plan: &Plan<'_>, from: usize, slot: usize) -> Option<usize> {
        let level = self.level[from]? + 1;
        let (before, after) = self.tight(plan, from, slot);
        let open = self.open.get(level)?;
        let is_open = |d: &usize, open: &[Vec<Zone>]| open[self.distance[*d]].iter().any(|z| z.devices.contains(d));
        let had = plan.before(slot).find(|d| {
            Some(self.distance[*d]) == before && self.level[*d] == Some(level) && self.around.fits(plan.map(), *d) && is_open(d, open)
        });
        had.or_else(|| {
            let mut free = open.get(after)?.iter().filter(|z| !self.around.is_full(z.zone)).flat_map(|z| &z.devices);
            free.find(|d| self.around.is_free(plan.map(), **d)).copied()
        })
    }

    /// Nothing more goes to a device in this search.
    fn close(&mut self, device: usize) {
        let Some(level) = self.level[device] else { return };
        for zone in &mut self.open[level][self.distance[device]] {
            zone.devices.retain(|d| *d != device);
        }
        self.open[level][self.distance[device]].retain(|z| !z.devices.is_empty());
    }
}
