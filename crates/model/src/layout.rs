//! Which device holds which shard: partition → ordered list of devices, at an epoch.

mod patch;

pub use patch::LayoutPatch;

use crate::{ChunkRef, DeviceId, Epoch, Error, NodeId, Partition, Result};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use std::sync::Arc;

/// A device as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DeviceInfo {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// The node that it is in.
    #[n(1)]
    pub node: NodeId,
    /// Failure zone of its node.
    #[n(2)]
    pub zone: String,
    /// Usable bytes: its weight.
    #[n(3)]
    pub capacity: u64,
}

/// The layout of one width `n`: for each of `2^power` partitions, `n` devices in slot order.
/// Shard `i` of a chunk lives on slot `i` of the chunk's partition.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Layout {
    /// Its number; grows by one with each change.
    #[n(0)]
    pub epoch: Epoch,
    /// Partition power: `2^power` partitions.
    #[n(1)]
    pub power: u8,
    /// Devices of a partition: `n = k + m`.
    #[n(2)]
    pub width: u8,
    /// The devices that slots refer to.
    #[n(3)]
    pub devices: Vec<DeviceInfo>,
    /// `2^power × width` indexes into `devices`, 2 bytes big-endian each, partition by partition;
    /// [`Layout::VACANT`] marks a slot that no device may fill now.
    #[n(4)]
    pub slots: ByteVec,
}

/// The layouts of one width by which shards may lie now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layouts {
    /// The newest: where shards belong.
    pub current: Arc<Layout>,
    /// Those before it at whose places shards may still lie, newest first.
    pub earlier: Vec<Arc<Layout>>,
    /// An operator has stopped the movement.
    pub stopped: bool,
}

impl Layouts {
    /// Where a shard may lie: first its rightful device, then those of earlier layouts.
    pub fn holders(&self, chunk: &ChunkRef, index: u8) -> Vec<&DeviceInfo> {
        let mut all: Vec<&DeviceInfo> = Vec::new();
        for layout in std::iter::once(&self.current).chain(&self.earlier) {
            if let Some(device) = layout.holder(chunk, index)
                && all.iter().all(|d| d.device != device.device)
            {
                all.push(device);
            }
        }
        all
    }

    /// Whether a shard belongs on a device.
    pub fn is_rightful(&self, chunk: &ChunkRef, index: u8, device: DeviceId) -> bool {
        self.current.holder(chunk, index).is_some_and(|d| d.device == device)
    }

    /// The layout of an epoch, if it is one of these.
    pub fn at(&self, epoch: Epoch) -> Option<&Arc<Layout>> {
        std::iter::once(&self.current).chain(&self.earlier).find(|l| l.epoch == epoch)
    }
}

/// A change from one layout to the next, from the command that planned it to the moment at which every
/// shard has arrived. Until then the layouts of the earlier epochs stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LayoutChange {
    /// Shards of a chunk.
    #[n(0)]
    pub width: u8,
    /// Epoch of the layout that is being moved to: the current one.
    #[n(1)]
    pub to: Epoch,
    /// Earlier epochs at whose places shards may still lie, oldest first. More than one when a loss
    /// superseded a change that was under way.
    #[n(2)]
    pub from: Vec<Epoch>,
    /// Log time at which it began, milliseconds since 1970.
    #[n(3)]
    pub began_ms: u64,
    /// An operator has stopped it: nothing is moved, everything stays readable and writable.
    #[n(4)]
    pub stopped: bool,
    /// Slots that have another device than before.
    #[n(5)]
    pub moved: u64,
    /// The least number of slots that such a change must move.
    #[n(6)]
    pub minimum: u64,
    /// In words: `add node-5`, `drain node-2`, `node-3 is out`.
    #[n(7)]
    pub why: String,
}

impl Layout {
    /// The mark of a vacant slot.
    pub const VACANT: u16 = u16::MAX;
    /// Largest partition power.
    pub const MAX_POWER: u8 = 20;
    /// How many devices of a partition's ranking stand in for others.
    pub const STAND_INS: usize = 4;

    /// Builds a layout from slot indexes (partition-major). `Invalid` if lengths do not fit.
    pub fn new(epoch: Epoch, power: u8, width: u8, devices: Vec<DeviceInfo>, slots: &[u16]) -> Result<Self> {
        let bytes: Vec<u8> = slots.iter().flat_map(|s| s.to_be_bytes()).collect();
        let layout = Layout { epoch, power, width, devices, slots: bytes.into() };
        layout.check()?;
        Ok(layout)
    }

    /// `Invalid` unless every slot names a device or is vacant and lengths fit.
    pub fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(Error::invalid(format!("impossible layout: {why}")));
        if self.power > Self::MAX_POWER || self.width == 0 || self.width > crate::Policy::MAX_WIDTH {
            return bad("power or width out of range");
        }
        if self.slots.len() != (1usize << self.power) * self.width as usize * 2 {
            return bad("wrong number of slots");
        }
        let n = self.devices.len();
        if self.slots.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).any(|s| s != Self::VACANT && s as usize >= n) {
            return bad("a slot names no device");
        }
        Ok(())
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u32 {
        1 << self.power
    }

    /// Index into `devices` of a partition's slot; `None` when it is vacant or out of range.
    pub fn slot(&self, partition: Partition, index: u8) -> Option<usize> {
        if index >= self.width {
            return None;
        }
        let at = (partition.0 as usize * self.width as usize + index as usize) * 2;
        let b = self.slots.get(at..at + 2)?;
        let s = u16::from_be_bytes([b[0], b[1]]);
        (s != Self::VACANT).then_some(s as usize)
    }

    /// All slot indexes, partition-major.
    pub fn slot_indexes(&self) -> Vec<u16> {
        self.slots.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]])).collect()
    }

    /// Devices that stand in where a holder of a partition does not answer: those on nodes that hold
    /// nothing of it, in a ranking that writers, readers and nodes compute alike (highest random
    /// weight: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998). At most
    /// [`Layout::STAND_INS`], each on a node of its own.
    pub fn stand_ins(&self, partition: Partition) -> Vec<&DeviceInfo> {
        let holders: Vec<NodeId> =
            (0..self.width).filter_map(|i| self.slot(partition, i)).filter_map(|s| self.devices.get(s)).map(|d| d.node).collect();
        let weight = |d: &DeviceInfo| {
            let mut input = [0u8; 20];
            input[..16].copy_from_slice(&d.device.0);
            input[16..].copy_from_slice(&partition.0.to_be_bytes());
            *blake3::hash(&input).as_bytes()
        };
        let free = self.devices.iter().filter(|d| !holders.contains(&d.node));
        let mut ranked: Vec<_> = free.map(|d| (weight(d), d)).collect();
        ranked.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let mut chosen: Vec<&DeviceInfo> = Vec::new();
        for (_, device) in ranked {
            if chosen.len() < Self::STAND_INS && chosen.iter().all(|c| c.node != device.node) {
                chosen.push(device);
            }
        }
        chosen
    }

    /// The device that holds shard `index` of a chunk.
    pub fn holder(&self, chunk: &ChunkRef, index: u8) -> Option<&DeviceInfo> {
        self.slot(chunk.partition(self.power), index).and_then(|s| self.devices.get(s))
    }
}
