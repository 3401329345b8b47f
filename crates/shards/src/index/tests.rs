//! The index against a model of it in memory.

#![allow(clippy::disallowed_methods)] // tests put files in the way

use super::*;
use model::ChunkRef;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn any_shard() -> impl Strategy<Value = ShardRef> {
    (0u8..3, 0u32..4, 0u16..2, 0u8..3).prop_map(|(object, number, generation, index)| ShardRef {
        chunk: ChunkRef { object: ObjectId([object; 16]), number },
        generation,
        index,
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    // As in a log, a place is one record's: its length follows from it.
    let any_place =
        || (0u64..4, 0u64..64).prop_map(|(segment, offset)| Position { segment, offset: offset * 1000, len: offset as u32 + 100 });
    prop_oneof![
        6 => (any_shard(), any_place(), 1u8..5).prop_map(|(shard, at, k)| Change::Put(shard, at, Policy::new(k, 1).unwrap())),
        2 => any_shard().prop_map(Change::Remove),
        2 => any_place().prop_map(Change::Stone),
        1 => (0u64..4).prop_map(Change::ForgetSegment),
    ]
}

#[derive(Default)]
struct Model {
    shards: BTreeMap<ShardRef, (Position, Policy)>,
    stones: BTreeMap<u64, BTreeMap<u64, Position>>,
}

impl Model {
    /// `false`: it cannot come from a log.
    fn apply(&mut self, change: &Change) -> bool {
        match *change {
            Change::Put(shard, at, policy) => {
                if self.shards.iter().any(|(s, (p, _))| *s != shard && (p.segment, p.offset) == (at.segment, at.offset)) {
                    return false;
                }
                if self.shards.get(&shard).is_none_or(|(old, _)| *old <= at) {
                    self.shards.insert(shard, (at, policy));
                }
            }
            Change::Remove(shard) => drop(self.shards.remove(&shard)),
            Change::Stone(at) => drop(self.stones.entry(at.segment).or_default().insert(at.offset, at)),
            Change::ForgetSegment(id) => {
                if self.shards.values().any(|(p, _)| p.segment == id) {
                    return false;
                }
                self.stones.remove(&id);
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_says_what_was_told(batches in prop::collection::vec(prop::collection::vec(any_change(), 0..12), 0..12), after in any_shard()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        // What an earlier process left is of no matter.
        std::fs::write(&path, b"redb\x1a\x0a\xa9\x0d\x0agarbage").unwrap();
        let index = Index::create(&env::real::env(), &path).unwrap();
        let mut model = Model::default();
        for batch in batches {
            let batch: Vec<Change> = batch.into_iter().filter(|change| model.apply(change)).collect();
            index.tell(batch.clone());
            // What was told counts at once, wherever it is.
            for change in &batch {
                if let Change::Put(shard, ..) | Change::Remove(shard) = change {
                    let held = model.shards.get(shard).map(|(at, _)| *at);
                    prop_assert_eq!(index.get(shard).unwrap(), held);
                }
            }
            if batch.len().is_multiple_of(2) {
                index.flush().unwrap();
            }
        }
        let all: Vec<(ShardRef, Policy)> = model.shards.iter().map(|(s, (_, policy))| (*s, *policy)).collect();
        prop_assert_eq!(index.list(None, usize::MAX).unwrap(), &all[..]);
        prop_assert_eq!(index.len().unwrap(), all.len() as u64);
        let later: Vec<_> = all.iter().filter(|(s, _)| *s > after).take(3).copied().collect();
        prop_assert_eq!(index.list(Some(after), 3).unwrap(), later);
        prop_assert_eq!(index.get(&after).unwrap(), model.shards.get(&after).map(|(at, _)| *at));
        let same: Vec<_> = all.iter().map(|(s, _)| *s).filter(|s| s.chunk.object == after.chunk.object).collect();
        prop_assert_eq!(index.of_object(after.chunk.object).unwrap(), same);
        for segment in 0..4 {
            let mut here: Vec<_> = model.shards.iter().filter(|(_, (p, _))| p.segment == segment).map(|(s, (p, l))| (*s, *p, *l)).collect();
            here.sort_by_key(|(_, at, _)| *at);
            prop_assert_eq!(index.live_in(segment), here.iter().map(|(_, at, _)| u64::from(at.len)).sum::<u64>());
            prop_assert_eq!(index.in_segment(segment).unwrap(), here);
            let stones: Vec<Position> = model.stones.get(&segment).into_iter().flat_map(|s| s.values().copied()).collect();
            prop_assert_eq!(index.stones(segment).unwrap(), stones);
        }
    }
}
