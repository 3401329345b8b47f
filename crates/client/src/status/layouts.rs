//! The layouts that a status is judged by: the current one of each width, and while it changes the
//! earlier ones, at whose places shards may still lie.

use crate::Client;
use model::{DeviceId, Layout, NodeId, Result};
use std::collections::{BTreeMap, BTreeSet};
use wire::coordinator::StatusResponse;

/// Layouts by width.
#[derive(Debug, Clone, Default)]
pub struct Layouts {
    of: BTreeMap<u8, Readable>,
}

/// The readable layouts of a width.
#[derive(Debug, Clone)]
struct Readable {
    current: Layout,
    earlier: Vec<Layout>,
}

impl Layouts {
    /// One width that does not change.
    #[cfg(test)]
    pub fn one(layout: Layout) -> Self {
        Layouts { of: BTreeMap::from([(layout.width, Readable { current: layout, earlier: Vec::new() })]) }
    }

    /// Adds a width.
    #[cfg(test)]
    pub fn and(mut self, layout: Layout) -> Self {
        self.of.insert(layout.width, Readable { current: layout, earlier: Vec::new() });
        self
    }

    /// Adds the layout that a width had before.
    #[cfg(test)]
    pub fn with_earlier(mut self, layout: Layout) -> Self {
        self.of.entry(layout.width).and_modify(|r| r.earlier.push(layout));
        self
    }

    /// All readable layouts as a status names them; those that are known already are kept.
    pub async fn fetch(client: &Client, status: &StatusResponse, known: Layouts) -> Result<Layouts> {
        let mut known = known.of;
        let mut of = BTreeMap::new();
        for (width, epoch) in &status.cluster.layouts {
            let from = status.cluster.changes.iter().find(|c| c.width == *width).map_or_else(Vec::new, |c| c.from.clone());
            let (mut current, mut before) = (None, Vec::new());
            if let Some(known) = known.remove(width) {
                // Earlier layouts change with the epoch of the current one only.
                if known.current.epoch == *epoch {
                    before = known.earlier;
                    current = Some(known.current);
                }
            }
            let current = match current {
                Some(current) => current,
                None => match client.layout(*width).await? {
                    Some(layout) => layout,
                    None => continue,
                },
            };
            let mut earlier = Vec::new();
            for epoch in from {
                match before.iter().position(|l| l.epoch == epoch) {
                    Some(i) => earlier.push(before.swap_remove(i)),
                    None => earlier.extend(client.layout_at(*width, epoch).await?),
                }
            }
            of.insert(*width, Readable { current, earlier });
        }
        Ok(Layouts { of })
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Current layouts, by width.
    pub fn all(&self) -> impl Iterator<Item = &Layout> {
        self.of.values().map(|r| &r.current)
    }

    /// Devices with slots in any readable layout, with their nodes.
    pub fn devices(&self) -> BTreeSet<(NodeId, DeviceId)> {
        self.of.values().flat_map(|r| std::iter::once(&r.current).chain(&r.earlier)).flat_map(devices).collect()
    }

    /// Devices with slots in a current layout, with their nodes.
    pub fn current_devices(&self) -> BTreeSet<(NodeId, DeviceId)> {
        self.all().flat_map(devices).collect()
    }

    /// Nodes with slots in any readable layout.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        self.devices().into_iter().map(|(node, _)| node).collect()
    }

    /// Nodes with slots in a current layout.
    pub fn current_holders(&self) -> BTreeSet<NodeId> {
        self.current_devices().into_iter().map(|(node, _)| node).collect()
    }

    /// Whether every node holds one shard of every chunk: then all have the same number.
    pub fn are_alike(&self) -> bool {
        let all = self.holders();
        let alike = |r: &Readable| r.earlier.is_empty() && usize::from(r.current.width) == all.len();
        !self.of.is_empty() && self.of.values().all(alike)
    }

    /// How many partitions of a width miss how many of their shards for certain. `whole`: devices that have
    /// everything that belongs on them; `keeping`: devices that have everything that lay on them before
    /// the change that is under way.
    pub fn levels(&self, width: u8, whole: &BTreeSet<DeviceId>, keeping: &BTreeSet<DeviceId>) -> BTreeMap<u8, u64> {
        let mut levels = BTreeMap::new();
        let Some(Readable { current, earlier }) = self.of.get(&width) else { return levels };
        let there = filled(current, whole);
        let before: Vec<Vec<bool>> = earlier.iter().map(|l| filled(l, keeping)).collect();
        let slots = there.len();
        for partition in (0..slots).collect::<Vec<_>>().chunks(usize::from(width.max(1))) {
            let is_there = |slot: &usize| std::iter::once(&there).chain(&before).any(|l| l.get(*slot).copied().unwrap_or(false));
            let missing = partition.iter().filter(|slot| !is_there(slot)).count();
            *levels.entry(missing as u8).or_default() += 1;
        }
        levels
    }

    /// About how many shards of so many chunks lie on a node, by the slots that it has in every readable
    /// layout.
    pub fn share_of_old(&self, width: u8, node: NodeId, chunks: u64) -> u64 {
        let Some(Readable { current, earlier }) = self.of.get(&width) else { return 0 };
        let count = |layout: &Layout| {
            let mine = layout.devices.iter().filter(|d| d.node == node).map(|d| d.device).collect();
            filled(layout, &mine).into_iter().filter(|is| *is).count() as u64
        };
        let slots = std::iter::once(current).chain(earlier).map(count).min().unwrap_or(0);
        (u128::from(chunks) * u128::from(slots) / u128::from(current.partitions().max(1))) as u64
    }

    /// Slots of current layouts that nobody fills, or that nodes have who are out, of all.
    pub fn vacant(&self, out: &BTreeSet<NodeId>) -> (u64, u64) {
        let (mut vacant, mut all) = (0, 0);
        for layout in self.all() {
            let gone: Vec<bool> = layout.devices.iter().map(|d| out.contains(&d.node)).collect();
            for slot in layout.slot_indexes() {
                vacant += u64::from(gone.get(usize::from(slot)).copied().unwrap_or(true));
                all += 1;
            }
        }
        (vacant, all)
    }
}

fn filled(layout: &Layout, devices: &BTreeSet<DeviceId>) -> Vec<bool> {
    let there: Vec<bool> = layout.devices.iter().map(|d| devices.contains(&d.device)).collect();
    layout.slot_indexes().into_iter().map(|slot| there.get(usize::from(slot)).copied().unwrap_or(false)).collect()
}

/// Devices that at least one slot names, with their nodes.
fn devices(layout: &Layout) -> BTreeSet<(NodeId, DeviceId)> {
    let used: BTreeSet<u16> = layout.slot_indexes().into_iter().collect();
    used.iter().filter_map(|slot| layout.devices.get(usize::from(*slot))).map(|d| (d.node, d.device)).collect()
}
