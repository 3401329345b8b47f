//! What a node must do to be whole: pure decisions over the catalog's feed, the layouts, and what a
//! device holds.

use model::chunk::CHUNK_SIZE;
use model::layout::{DeviceInfo, Layouts};
use model::tree::ObjectUse;
use model::{ChunkRef, DeviceId, NodeId, Policy, ShardRef};
use std::collections::BTreeSet;

/// Shards that an event names.
const NAMED: usize = 6;

/// A shard that belongs on a device and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub shard: ShardRef,
    pub policy: Policy,
    /// It was not at its rightful place when its chunk was committed: a stand-in may have it.
    pub hinted: bool,
    /// Other shards of its chunk whose holders are away or miss shards themselves.
    pub others_away: u8,
}

impl Missing {
    /// Whether the next failure may lose something if nobody has the shard any more, as far as is known.
    pub fn is_urgent(&self) -> bool {
        self.others_away + 1 >= self.policy.m
    }
}

/// How a missing shard comes here. A decision, to be carried out by the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RepairStep {
    /// One of these devices may have it as it is: an earlier holder, or a stand-in.
    Copy(Vec<DeviceInfo>),
    /// From `k` others.
    Rebuild,
}

/// The shards of an object that belong on a device, in the order in which they are wanted: chunks that
/// were partial at their commit first. With each, whether it was such a one.
///
/// Lazy: an object may name billions of chunks, and none of them is held before its turn.
pub(crate) fn belonging<'a>(
    object: &'a ObjectUse,
    generation: u16,
    device: DeviceId,
    layouts: &'a Layouts,
) -> impl Iterator<Item = (ShardRef, bool)> + Send + 'a {
    let partial: BTreeSet<u32> = object.partial.iter().copied().collect();
    let first: Vec<u32> = partial.iter().copied().filter(|n| object.chunks.iter().any(|(from, to)| (*from..*to).contains(n))).collect();
    let rest = object.chunks.iter().flat_map(|(from, to)| *from..*to).filter(move |n| !partial.contains(n));
    let all = first.into_iter().map(|n| (n, true)).chain(rest.map(|n| (n, false)));
    all.flat_map(move |(number, hinted)| {
        let chunk = ChunkRef { object: object.object, number };
        // A device fills one slot of a partition at most, but for a cluster of one machine.
        let slots = (0..layouts.current.width).filter(move |i| layouts.is_rightful(&chunk, *i, device));
        slots.map(move |index| (ShardRef { chunk, generation, index }, hinted))
    })
}

/// How many other shards of a shard's chunk may not be there: their rightful holders are away or miss shards
/// themselves. `is_whole`: whether a node is and does not.
pub(crate) fn others_away(shard: &ShardRef, layouts: &Layouts, is_whole: impl Fn(NodeId) -> bool) -> u8 {
    let away = |i: u8| i != shard.index && layouts.current.holder(&shard.chunk, i).is_none_or(|d| !is_whole(d.node));
    (0..layouts.current.width).filter(|i| away(*i)).count() as u8
}

/// How a missing shard is to be had. `is_up`: whether the cluster takes a node for running.
pub(crate) fn decide(missing: &Missing, device: DeviceId, layouts: &Layouts, is_up: impl Fn(NodeId) -> bool) -> RepairStep {
    let shard = &missing.shard;
    let mut sources: Vec<DeviceInfo> = layouts.holders(&shard.chunk, shard.index).into_iter().cloned().collect();
    if missing.hinted {
        for layout in std::iter::once(&layouts.current).chain(&layouts.earlier) {
            sources.extend(layout.stand_ins(shard.chunk.partition(layout.power)).into_iter().cloned());
        }
    }
    let mut seen = BTreeSet::from([device]);
    sources.retain(|d| is_up(d.node) && seen.insert(d.device));
    if sources.is_empty() { RepairStep::Rebuild } else { RepairStep::Copy(sources) }
}

/// The order of repair: what was hinted, then what has least redundancy left.
pub(crate) fn urgency(missing: &Missing) -> (bool, std::cmp::Reverse<u8>) {
    (!missing.hinted, std::cmp::Reverse(missing.others_away))
}

/// The first of some shards by name, for the event log, and how many more they are.
pub(crate) fn named<'a>(shards: impl IntoIterator<Item = &'a ShardRef>) -> String {
    let mut shards = shards.into_iter();
    let name = |s: &ShardRef| format!("{} of {}/{}", s.index, s.chunk.object, s.chunk.number);
    let mut names: Vec<String> = shards.by_ref().take(NAMED).map(name).collect();
    let more = shards.count();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

/// Bytes of one shard of an object, as far as known before it is there.
pub(crate) fn shard_bytes(policy: Policy) -> u64 {
    (CHUNK_SIZE / policy.k.max(1) as usize) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Epoch, Layout, ObjectId};
    use std::sync::Arc;

    fn device(i: u8) -> DeviceId {
        DeviceId([i; 16])
    }

    /// One partition; slot `i` on the i-th of these devices, each on a node of its own.
    fn layout(epoch: u64, slots: [u16; 4]) -> Arc<Layout> {
        let info = |i: u8| DeviceInfo { device: device(i), node: NodeId(i as u64), zone: String::new(), capacity: 1 << 30 };
        Arc::new(Layout::new(Epoch(epoch), 0, 4, (0..6).map(info).collect(), &slots).unwrap())
    }

    fn layouts(current: [u16; 4], earlier: &[[u16; 4]]) -> Layouts {
        let earlier = earlier.iter().enumerate().map(|(i, s)| layout(8 - i as u64, *s)).collect();
        Layouts { current: layout(9, current), earlier, stopped: false }
    }

    fn object(chunks: &[(u32, u32)], partial: &[u32]) -> ObjectUse {
        ObjectUse {
            object: ObjectId([1; 16]),
            policy: Policy::DEFAULT,
            chunks: chunks.to_vec(),
            layout: Epoch(1),
            bytes: 0,
            partial: partial.to_vec(),
            generation: 0,
        }
    }

    fn numbers(shards: impl Iterator<Item = (ShardRef, bool)>) -> Vec<(u32, u8)> {
        shards.map(|(s, _)| (s.chunk.number, s.index)).collect()
    }

    fn missing(index: u8, hinted: bool) -> Missing {
        let shard = ShardRef { chunk: ChunkRef { object: ObjectId([1; 16]), number: 0 }, generation: 0, index };
        Missing { shard, policy: Policy::DEFAULT, hinted, others_away: 0 }
    }

    fn nodes(step: &RepairStep) -> Vec<u64> {
        match step {
            RepairStep::Copy(from) => from.iter().map(|d| d.node.0).collect(),
            RepairStep::Rebuild => Vec::new(),
        }
    }

    #[test]
    fn a_device_should_have_what_the_layout_puts_on_it_partial_chunks_first() {
        let layouts = layouts([0, 1, 2, 3], &[]);
        assert_eq!(numbers(belonging(&object(&[(0, 2), (5, 6)], &[]), 0, device(2), &layouts)), [(0, 2), (1, 2), (5, 2)]);
        assert_eq!(numbers(belonging(&object(&[(0, 4)], &[2, 77]), 0, device(0), &layouts)), [(2, 0), (0, 0), (1, 0), (3, 0)]);
        assert_eq!(belonging(&object(&[(0, 9)], &[]), 0, device(5), &layouts).count(), 0);
    }

    #[test]
    fn an_object_that_claims_billions_of_chunks_costs_nothing_before_its_turn() {
        let layouts = layouts([0, 1, 2, 3], &[]);
        assert_eq!(numbers(belonging(&object(&[(0, u32::MAX)], &[]), 0, device(3), &layouts).take(2)), [(0, 3), (1, 3)]);
    }

    #[test]
    fn what_moved_is_copied_from_the_previous_holder_and_what_is_lost_is_rebuilt() {
        let moved = layouts([0, 1, 2, 4], &[[0, 1, 2, 3]]);
        assert_eq!(nodes(&decide(&missing(3, false), device(4), &moved, |_| true)), [3]);
        assert_eq!(decide(&missing(3, false), device(4), &moved, |n| n != NodeId(3)), RepairStep::Rebuild);
        let still = layouts([0, 1, 2, 3], &[]);
        assert_eq!(decide(&missing(3, false), device(3), &still, |_| true), RepairStep::Rebuild);
    }

    #[test]
    fn stand_ins_are_asked_only_for_what_was_hinted() {
        let still = layouts([0, 1, 2, 3], &[]);
        let mut asked = nodes(&decide(&missing(3, true), device(3), &still, |_| true));
        asked.sort_unstable();
        assert_eq!(asked, [4, 5]);
    }

    /// A loss supersedes a running change: a shard may lie at the places of all unfinished epochs.
    #[test]
    fn rule_02_sources_are_the_union_over_unfinished_epochs() {
        let superseded = layouts([0, 1, 2, 5], &[[0, 1, 2, 4], [0, 1, 2, 3]]);
        assert_eq!(nodes(&decide(&missing(3, false), device(5), &superseded, |_| true)), [4, 3]);
    }

    #[test]
    fn hints_come_first_then_what_has_least_redundancy_left() {
        let still = layouts([0, 1, 2, 3], &[]);
        let away = |up: &'static [u64]| others_away(&missing(3, false).shard, &still, move |n| up.contains(&n.0));
        assert_eq!((away(&[0, 1, 2, 3]), away(&[0, 3]), away(&[0, 1, 2])), (0, 2, 0));
        let at = |hinted, others_away| Missing { others_away, ..missing(0, hinted) };
        let mut all = vec![at(false, 0), at(false, 1), at(true, 0)];
        all.sort_by_key(urgency);
        assert_eq!(all, [at(true, 0), at(false, 1), at(false, 0)]);
    }

    #[test]
    fn a_repair_is_urgent_when_one_more_loss_is_one_too_many() {
        let of = |policy: &str, others_away| Missing { policy: policy.parse().unwrap(), others_away, ..missing(0, false) }.is_urgent();
        assert_eq!((of("2+2", 0), of("2+2", 1), of("2+1", 0)), (false, true, true));
        assert_eq!((of("10+4", 2), of("10+4", 3)), (false, true));
    }
}
