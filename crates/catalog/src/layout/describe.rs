//! What a change of a layout moves, beside what any such change must move, and how well the new layout
//! is balanced. This is what an operator is shown before saying yes.

use super::{Map, held, shares};
use model::layout::DeviceInfo;
use model::{DeviceId, Layout, NodeId};
use std::collections::BTreeMap;

/// See [`describe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Slots in all.
    pub slots: u64,
    /// Slots that have another device than before.
    pub moved: u64,
    /// Slots that any change to the new devices' shares must give another device.
    pub minimum: u64,
    /// By how much the device that is furthest from its share differs from it, in millionths of it.
    pub balance_ppm: u64,
    /// All devices of either layout, in order of node and id.
    pub devices: Vec<Gain>,
}

/// What one device gains and gives, in slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gain {
    /// Device.
    pub device: DeviceId,
    /// Its node.
    pub node: NodeId,
    /// Slots before.
    pub before: u64,
    /// Slots that come to it.
    pub gains: u64,
    /// Slots that leave it.
    pub gives: u64,
}

/// Compares two layouts of one power and width.
///
/// The minimum: each device is to hold its share, so at least `share − slots before` must come to it
/// where that is positive, and each slot that comes is a slot that moves. What departed devices held, and
/// what was vacant, is in that sum already, once: the shares add up to all slots, so the slots come to
/// those that are below their shares. Independently of shares, a slot must move when its device is gone,
/// or when more shards of its partition lie in a zone, or on a node, than the new map allows. Such a slot
/// goes out of that zone, and what the zone then lacks of its share must come to it at other slots: for each
/// zone the two add up. The minimum is the largest of these counts. (A change may have to move more than
/// any one of them says, since all hold at once.)
pub fn describe(old: &Layout, new: &Layout) -> Description {
    let map = Map::new(1 << new.power, new.width as usize, &new.devices);
    let share = shares::of_devices(&map, &new.devices, &held(old, &new.devices));
    let mut gains: BTreeMap<(NodeId, DeviceId), (Gain, u64)> = BTreeMap::new();
    for d in old.devices.iter().chain(&new.devices) {
        let gain = Gain { device: d.device, node: d.node, before: 0, gains: 0, gives: 0 };
        gains.entry((d.node, d.device)).or_insert((gain, 0));
    }
    for (d, share) in new.devices.iter().zip(&share) {
        if let Some((_, sum)) = gains.get_mut(&(d.node, d.device)) {
            *sum += share;
        }
    }
    let mut moved = 0;
    for (before, after) in old.slot_indexes().into_iter().zip(new.slot_indexes()) {
        let (was, is) = (old.devices.get(before as usize), new.devices.get(after as usize));
        let same = was.map(|d| d.device) == is.map(|d| d.device);
        moved += u64::from(!same && is.is_some());
        let mut count = |device: Option<&DeviceInfo>, add: fn(&mut Gain)| {
            if let Some((gain, _)) = device.and_then(|d| gains.get_mut(&(d.node, d.device))) {
                add(gain);
            }
        };
        count(was, |g| g.before += 1);
        if !same {
            count(was, |g| g.gives += 1);
            count(is, |g| g.gains += 1);
        }
    }
    let off = |(gain, share): &(Gain, u64)| {
        let held = gain.before + gain.gains - gain.gives;
        held.abs_diff(*share).saturating_mul(1_000_000) / (*share).max(1)
    };
    Description {
        slots: u64::from(new.partitions()) * u64::from(new.width),
        moved,
        minimum: gains.values().map(|(g, share)| share.saturating_sub(g.before)).sum::<u64>().max(forced(&map, &share, old, new)),
        balance_ppm: gains.values().filter(|(g, share)| *share > 0 || g.before + g.gains > g.gives).map(off).max().unwrap_or(0),
        devices: gains.into_values().map(|(gain, _)| gain).collect(),
    }
}

/// Slots that cannot stay, whatever the shares: vacant ones, those whose device is gone, and those in
/// excess of one a node and of the zones' cap in their partition; or, where that is more, what goes out
/// of some zone for that and must come back to it elsewhere.
fn forced(map: &Map, share: &[u64], old: &Layout, new: &Layout) -> u64 {
    let place: BTreeMap<DeviceId, usize> = new.devices.iter().enumerate().map(|(i, d)| (d.device, i)).collect();
    let stays: Vec<Option<usize>> = old.devices.iter().map(|d| place.get(&d.device).map(|i| map.node_of[*i])).collect();
    let mut forced = 0;
    // Of each zone: slots that may stay in it, and those in excess.
    let (mut kept, mut excess) = (vec![0u64; map.zones.len()], vec![0u64; map.zones.len()]);
    let mut nodes: Vec<usize> = Vec::with_capacity(map.width);
    let mut zones: Vec<usize> = Vec::with_capacity(map.width);
    for partition in old.slot_indexes().chunks_exact(map.width.max(1)) {
        nodes.clear();
        nodes.extend(partition.iter().filter_map(|slot| stays.get(*slot as usize).copied().flatten()));
        nodes.sort_unstable();
        nodes.dedup();
        zones.clear();
        zones.extend(nodes.iter().map(|n| map.zone_of[*n]));
        zones.sort_unstable();
        let mut stay = 0;
        for zone in zones.chunk_by(|a, b| a == b) {
            let in_cap = zone.len().min(map.zone_cap);
            if let Some(z) = zone.first() {
                kept[*z] += in_cap as u64;
                excess[*z] += (zone.len() - in_cap) as u64;
            }
            stay += in_cap;
        }
        forced += (partition.len() - stay) as u64;
    }
    let mut shares = vec![0u64; map.zones.len()];
    for (device, share) in share.iter().enumerate() {
        shares[map.zone_of[map.node_of[device]]] += share;
    }
    let of_zone = |z: usize| excess[z] + shares[z].saturating_sub(kept[z]);
    (0..map.zones.len()).map(of_zone).max().unwrap_or(0).max(forced)
}
