//! What one layout has that another has not: a change of few of many devices moves few slots, and a layout of
//! 2^16 partitions is up to 2 MiB long.

use super::{DeviceInfo, Layout};
use crate::{DeviceId, Epoch, Error, Hash, Result, cbor};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// Bytes of one slot in a patch: its position (4, big-endian) and its index into the devices (2, big-endian).
const SLOT: usize = 6;

/// The difference between two layouts of the same width and power.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LayoutPatch {
    /// Epoch of the layout that it is a difference to.
    #[n(0)]
    pub from: Epoch,
    /// Epoch of the layout that comes of it.
    #[n(1)]
    pub to: Epoch,
    /// Its devices.
    #[n(2)]
    pub devices: Vec<DeviceInfo>,
    /// Its slots that have another device than before: position in [`Layout::slots`] counted in slots, 4 bytes
    /// big-endian, and index into `devices` or [`Layout::VACANT`], 2 bytes big-endian; positions grow.
    #[n(3)]
    pub slots: ByteVec,
    /// BLAKE3 of its canonical encoding.
    #[n(4)]
    pub hash: Hash,
}

fn hash_of(layout: &Layout) -> Hash {
    crate::signed::hash_parts(&[&cbor::to_vec(layout)])
}

/// The index in `to` of each device of `from`, by its index there; vacant where it is no more.
fn reindexed(from: &[DeviceInfo], to: &[DeviceInfo]) -> Vec<u16> {
    let place: BTreeMap<DeviceId, u16> = to.iter().zip(0..).map(|(d, i)| (d.device, i)).collect();
    from.iter().map(|d| place.get(&d.device).copied().unwrap_or(Layout::VACANT)).collect()
}

/// What a slot of the old layout is in terms of the new devices, unless it is said otherwise.
fn carried(slot: u16, reindexed: &[u16]) -> u16 {
    reindexed.get(slot as usize).copied().unwrap_or(Layout::VACANT)
}

impl Layout {
    /// What makes `to` of this layout; `None` where the two have not the same form, or where it would be no
    /// shorter than `to` itself.
    pub fn patch_to(&self, to: &Layout) -> Option<LayoutPatch> {
        if (self.power, self.width) != (to.power, to.width) {
            return None;
        }
        let reindexed = reindexed(&self.devices, &to.devices);
        let mut slots = Vec::new();
        for ((position, old), new) in (0u32..).zip(self.slot_indexes()).zip(to.slot_indexes()) {
            if carried(old, &reindexed) != new {
                slots.extend_from_slice(&position.to_be_bytes());
                slots.extend_from_slice(&new.to_be_bytes());
                if slots.len() >= to.slots.len() {
                    return None;
                }
            }
        }
        Some(LayoutPatch { from: self.epoch, to: to.epoch, devices: to.devices.clone(), slots: slots.into(), hash: hash_of(to) })
    }

    /// The layout that a patch makes of this one. `Corrupt` when it is a patch to another, or makes no sense.
    pub fn patched(&self, patch: &LayoutPatch) -> Result<Layout> {
        let bad = || Error::corrupt("a change of a layout does not fit the layout that it is said to change");
        if patch.from != self.epoch || !patch.slots.len().is_multiple_of(SLOT) {
            return Err(bad());
        }
        let reindexed = reindexed(&self.devices, &patch.devices);
        let mut slots: Vec<u16> = self.slot_indexes().into_iter().map(|old| carried(old, &reindexed)).collect();
        for slot in patch.slots.chunks_exact(SLOT) {
            let [a, b, c, d, i, j] = *slot else { return Err(bad()) };
            *slots.get_mut(u32::from_be_bytes([a, b, c, d]) as usize).ok_or_else(bad)? = u16::from_be_bytes([i, j]);
        }
        let layout = Layout::new(patch.to, self.power, self.width, patch.devices.clone(), &slots).map_err(|_| bad())?;
        if hash_of(&layout) == patch.hash { Ok(layout) } else { Err(bad()) }
    }
}
