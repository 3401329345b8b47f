//! Which shards there are and where they lie, and how much of each segment is alive. Pure: it is told
//! what is in the log, in whatever order the acknowledgements come.

use journal::Position;
use model::{ObjectId, Policy, ShardRef};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// One segment's account.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Bytes of records of shards that are in the index.
    pub live: u64,
    /// Records of drops and quarantines.
    pub stones: BTreeSet<Position>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    shards: BTreeMap<ShardRef, (Position, Policy)>,
    segments: BTreeMap<u64, Segment>,
}

impl Index {
    /// A shard lies here. The later of two copies is kept.
    pub fn put(&mut self, shard: ShardRef, position: Position, policy: Policy) {
        if self.shards.get(&shard).is_some_and(|(p, _)| *p > position) {
            return;
        }
        if let Some((old, _)) = self.shards.insert(shard, (position, policy)) {
            self.retire(old);
        }
        self.segments.entry(position.segment).or_default().live += u64::from(position.len);
    }

    /// A shard is gone.
    pub fn remove(&mut self, shard: &ShardRef) -> bool {
        match self.shards.remove(shard) {
            Some((old, _)) => {
                self.retire(old);
                true
            }
            None => false,
        }
    }

    fn retire(&mut self, old: Position) {
        if let Some(segment) = self.segments.get_mut(&old.segment) {
            segment.live = segment.live.saturating_sub(u64::from(old.len));
        }
    }

    /// A record of a drop or quarantine lies here.
    pub fn stone(&mut self, position: Position) {
        self.segments.entry(position.segment).or_default().stones.insert(position);
    }

    /// Where a shard lies.
    pub fn get(&self, shard: &ShardRef) -> Option<Position> {
        self.shards.get(shard).map(|(position, _)| *position)
    }

    /// How many shards.
    pub fn len(&self) -> u64 {
        self.shards.len() as u64
    }

    /// Shards after a key, in order.
    pub fn list(&self, after: Option<ShardRef>, limit: usize) -> Vec<(ShardRef, Policy)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.shards.range((from, Bound::Unbounded)).take(limit).map(|(s, (_, policy))| (*s, *policy)).collect()
    }

    /// Shards of an object.
    pub fn of_object(&self, object: ObjectId) -> Vec<ShardRef> {
        let at = |number, generation, index| ShardRef { chunk: model::ChunkRef { object, number }, generation, index };
        self.shards.range(at(0, 0, 0)..=at(u32::MAX, u16::MAX, u8::MAX)).map(|(s, _)| *s).collect()
    }

    /// Shards in a segment with their places, in the order in which they lie.
    pub fn in_segment(&self, id: u64) -> Vec<(ShardRef, Position, Policy)> {
        let mut all: Vec<_> = self.shards.iter().filter(|(_, (p, _))| p.segment == id).map(|(s, (p, policy))| (*s, *p, *policy)).collect();
        all.sort_by_key(|(_, p, _)| *p);
        all
    }

    /// A segment's account.
    pub fn segment(&self, id: u64) -> Segment {
        self.segments.get(&id).cloned().unwrap_or_default()
    }

    /// A segment was removed.
    pub fn forget_segment(&mut self, id: u64) {
        self.segments.remove(&id);
    }
}
