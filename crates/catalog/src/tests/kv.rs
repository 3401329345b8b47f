//! The overlay of a command's changes reads as the store will after they are written through.

use crate::kv::{Kv, KvMut, MemoryKv, Staged};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::ops::ControlFlow;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(kv: &dyn Kv, from: &[u8], to: &[u8], limit: usize) -> Rows {
    let mut rows = Vec::new();
    if limit > 0 {
        kv.scan(from, to, &mut |k, v| {
            rows.push((k.to_vec(), v.to_vec()));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .expect("memory does not fail");
    }
    rows
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Few bytes, so that keys meet, and some are the beginning of others.
    prop::collection::vec(0u8..4, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn staged_reads_as_it_will_be_written(
        below in prop::collection::vec((key(), 0u8..9), 0..20),
        changes in prop::collection::vec((key(), prop::option::of(10u8..19)), 0..20),
        asks in prop::collection::vec((key(), key(), 0usize..6), 1..6),
    ) {
        let mut memory = MemoryKv::default();
        for (k, v) in &below {
            memory.put(k, &[*v]).expect("memory");
        }
        let untouched = memory.clone();
        let mut staged = Staged::new(&mut memory);
        for (k, v) in &changes {
            match v {
                Some(v) => staged.put(k, &[*v]).expect("memory"),
                None => staged.delete(k).expect("memory"),
            }
        }
        let answers = |kv: &dyn Kv| -> Vec<(Rows, Rows, Option<Vec<u8>>)> {
            asks.iter().map(|(a, b, n)| (scan(kv, a, b, *n), scan(kv, a, b, usize::MAX), kv.get(a).expect("memory"))).collect()
        };
        let before = answers(&staged);
        staged.write().expect("memory");
        prop_assert_eq!(before, answers(&memory));
        let mut dropped = untouched.clone();
        let mut staged = Staged::new(&mut dropped);
        for (k, _) in &changes {
            staged.delete(k).expect("memory");
        }
        staged.discard();
        staged.write().expect("memory");
        prop_assert_eq!(dropped, untouched);
    }
}

#[test]
fn memory_counts_its_rows() {
    let mut kv = MemoryKv::default();
    assert!(kv.is_empty());
    kv.put(b"a", b"1").expect("memory");
    kv.put(b"a", b"2").expect("memory");
    kv.delete(b"b").expect("memory");
    assert_eq!((kv.len(), kv.get(b"a")), (1, Ok(Some(b"2".to_vec()))));
    // Bounds the wrong way round are an empty range, not a panic.
    assert_eq!(scan(&kv, b"b", b"a", 9), vec![]);
    assert_eq!(scan(&Staged::new(&mut kv), b"b", b"a", 9), vec![]);
}

#[test]
fn the_end_of_a_prefix_is_the_first_key_behind_it() {
    assert_eq!(crate::key::end_of(&[1, 2]), [1, 3]);
    assert_eq!(crate::key::end_of(&[1, 0xff, 0xff]), [2]);
}
