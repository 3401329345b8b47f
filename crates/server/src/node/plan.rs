//! What a node must do to be whole: a pure decision over one item of the catalog's feed.

use model::chunk::CHUNK_SIZE;
use model::cluster::FeedItem;
use model::{ChunkRef, DeviceId, Layout, ObjectId, Policy, ShardRef};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A decision, to be carried out by the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RepairStep {
    /// The shard belongs here and is missing: rebuild it from `k` others, onto this device.
    Rebuild { shard: ShardRef, policy: Policy, device: DeviceId },
    /// The object is dead: drop its shards.
    Drop(ObjectId),
}

/// Steps for one item of the feed, for one device. `layout`: of the item's width. `has`: whether the
/// device holds a shard. Chunks that were partial when committed come first.
///
/// Lazy: an object may name billions of chunks, and no step of them is held before its turn.
pub(crate) fn steps<'a>(
    item: &'a FeedItem,
    device: DeviceId,
    layout: impl Fn(u8) -> Option<Arc<Layout>>,
    has: impl Fn(&ShardRef) -> bool + Send + 'a,
) -> Box<dyn Iterator<Item = RepairStep> + Send + 'a> {
    let (object, generation) = match item {
        FeedItem::Dead(object) => return Box::new(std::iter::once(RepairStep::Drop(*object))),
        FeedItem::Live(object, generation) => (object, *generation),
    };
    let Some(layout) = layout(object.policy.width()) else { return Box::new(std::iter::empty()) };
    let partial: BTreeSet<u32> = object.partial.iter().copied().collect();
    let first: Vec<u32> = partial.iter().copied().filter(|n| object.chunks.iter().any(|(from, to)| (*from..*to).contains(n))).collect();
    let rest = object.chunks.iter().flat_map(|(from, to)| *from..*to).filter(move |n| !partial.contains(n));
    let mine = first.into_iter().chain(rest).flat_map(move |number| {
        let chunk = ChunkRef { object: object.object, number };
        // A device fills one slot of a partition at most, but for a cluster of one machine.
        let slots = (0..layout.width).filter(|i| layout.holder(&chunk, *i).is_some_and(|d| d.device == device));
        slots.map(|index| ShardRef { chunk, generation, index }).collect::<Vec<_>>()
    });
    Box::new(mine.filter(move |shard| !has(shard)).map(move |shard| RepairStep::Rebuild { shard, policy: object.policy, device }))
}

/// Bytes of one shard of an object, as far as known before it is there.
pub(crate) fn shard_bytes(policy: Policy) -> u64 {
    (CHUNK_SIZE / policy.k.max(1) as usize) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::layout::DeviceInfo;
    use model::tree::ObjectUse;
    use model::{Epoch, NodeId};

    fn device(i: u8) -> DeviceId {
        DeviceId([i; 16])
    }

    /// One partition, four devices, slot `i` on device `i`.
    fn layout() -> Arc<Layout> {
        let info = |i| DeviceInfo { device: device(i), node: NodeId(i as u64 + 1), zone: String::new(), capacity: 1 << 30 };
        Arc::new(Layout::new(Epoch(1), 0, 4, (0..4).map(info).collect(), &[0, 1, 2, 3]).unwrap())
    }

    fn live(chunks: &[(u32, u32)], partial: &[u32]) -> FeedItem {
        let object = ObjectUse {
            object: ObjectId([1; 16]),
            policy: Policy::DEFAULT,
            chunks: chunks.to_vec(),
            layout: Epoch(1),
            bytes: 0,
            partial: partial.to_vec(),
            generation: 0,
        };
        FeedItem::Live(object, 0)
    }

    fn numbers(steps: impl Iterator<Item = RepairStep>) -> Vec<(u32, u8)> {
        let number = |s: RepairStep| match s {
            RepairStep::Rebuild { shard, .. } => (shard.chunk.number, shard.index),
            RepairStep::Drop(_) => panic!("nothing is dead"),
        };
        steps.map(number).collect()
    }

    #[test]
    fn a_device_rebuilds_what_the_layout_puts_on_it_and_it_does_not_have() {
        let has = |s: &ShardRef| s.chunk.number == 1;
        let item = live(&[(0, 2), (5, 6)], &[]);
        assert_eq!(numbers(steps(&item, device(2), |_| Some(layout()), has)), [(0, 2), (5, 2)]);
    }

    #[test]
    fn chunks_that_were_partial_come_first() {
        let item = live(&[(0, 4)], &[2, 77]);
        assert_eq!(numbers(steps(&item, device(0), |_| Some(layout()), |_| false)), [(2, 0), (0, 0), (1, 0), (3, 0)]);
    }

    #[test]
    fn a_device_without_slots_has_nothing_to_do_but_drop_the_dead() {
        let item = live(&[(0, 9)], &[]);
        assert_eq!(steps(&item, device(9), |_| Some(layout()), |_| false).count(), 0);
        assert_eq!(steps(&item, device(0), |_| None, |_| false).count(), 0);
        let dead = FeedItem::Dead(ObjectId([1; 16]));
        let all: Vec<RepairStep> = steps(&dead, device(9), |_| None, |_| false).collect();
        assert_eq!(all, [RepairStep::Drop(ObjectId([1; 16]))]);
    }

    #[test]
    fn an_object_that_claims_billions_of_chunks_costs_nothing_before_its_turn() {
        let item = live(&[(0, u32::MAX)], &[]);
        assert_eq!(numbers(steps(&item, device(3), |_| Some(layout()), |_| false).take(2)), [(0, 3), (1, 3)]);
    }
}
