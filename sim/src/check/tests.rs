//! Histories that are linearisable and histories that are not, by hand, and many by chance.

use super::*;
use crate::cluster::dice::Dice;

fn key(name: &str) -> Key {
    name.to_owned()
}

fn put(name: &str, value: Value) -> Does {
    Does::Put { key: key(name), value }
}

fn read(name: &str, saw: Option<Value>) -> Does {
    Does::Read { key: key(name), saw }
}

fn remove(name: &str) -> Does {
    Does::Remove { key: key(name) }
}

fn rename(from: &str, to: &str) -> Does {
    Does::Move { from: key(from), to: key(to) }
}

fn list(names: &[&str]) -> Does {
    Does::List { keys: names.iter().map(|n| key(n)).collect() }
}

/// `(began, ended, what)`; an end of 0: no answer came.
fn history(ops: &[(u64, u64, Does)]) -> Vec<Op> {
    let op = |(began, ended, does): &(u64, u64, Does)| Op {
        who: format!("op{began}"),
        does: does.clone(),
        began: *began,
        ended: (*ended > 0).then_some(*ended),
    };
    ops.iter().map(op).collect()
}

fn good(ops: &[(u64, u64, Does)]) {
    assert_eq!(check(&history(ops)), Verdict::Linearisable);
}

fn bad(ops: &[(u64, u64, Does)]) {
    let verdict = check(&history(ops));
    assert!(matches!(verdict, Verdict::Violated(_)), "{verdict:?}");
}

#[test]
fn what_happens_one_after_the_other_is_as_it_says() {
    good(&[(1, 2, put("a", 1)), (3, 4, read("a", Some(1))), (5, 6, remove("a")), (7, 8, read("a", None)), (9, 10, list(&[]))]);
    good(&[(1, 2, put("a", 1)), (3, 4, rename("a", "b")), (5, 6, list(&["b"])), (7, 8, read("b", Some(1)))]);
}

#[test]
fn overlapping_writes_may_have_any_order_but_one_for_all() {
    let writes = [(1, 10, put("a", 1)), (2, 11, put("a", 2))];
    good(&[&writes[..], &[(12, 13, read("a", Some(1)))]].concat());
    good(&[&writes[..], &[(12, 13, read("a", Some(2)))]].concat());
    bad(&[&writes[..], &[(12, 13, read("a", Some(2))), (14, 15, read("a", Some(1)))]].concat());
}

#[test]
fn a_stale_read_is_found() {
    bad(&[(1, 2, put("a", 1)), (3, 4, put("a", 2)), (5, 6, read("a", Some(1)))]);
    // Once somebody has seen the new value, nobody sees the old one any more.
    bad(&[(1, 2, put("a", 1)), (3, 20, put("a", 2)), (4, 5, read("a", Some(2))), (6, 7, read("a", Some(1)))]);
    bad(&[(1, 2, put("a", 1)), (3, 4, list(&[]))]);
}

#[test]
fn a_lost_update_is_found() {
    bad(&[(1, 2, put("a", 1)), (3, 4, read("a", None))]);
    bad(&[(1, 2, put("a", 1)), (3, 4, rename("a", "b")), (5, 6, list(&[]))]);
    // Of two that overlap one is the last: a third value, or none, is a loss.
    bad(&[(1, 10, put("a", 1)), (2, 11, put("a", 2)), (12, 13, read("a", None))]);
}

#[test]
fn a_resurrected_removal_is_found() {
    bad(&[(1, 2, put("a", 1)), (3, 4, remove("a")), (5, 6, read("a", None)), (7, 8, read("a", Some(1)))]);
    bad(&[(1, 2, put("a", 1)), (3, 4, remove("a")), (5, 6, list(&["a"]))]);
}

#[test]
fn a_commit_that_happens_twice_is_found() {
    bad(&[(1, 2, put("a", 1)), (3, 4, put("a", 2)), (5, 6, read("a", Some(2))), (7, 8, read("a", Some(1)))]);
    // A move that was answered happens again, on what was stored since.
    bad(&[(1, 2, put("a", 1)), (3, 4, rename("a", "b")), (5, 6, remove("b")), (7, 8, put("a", 2)), (9, 10, read("a", None))]);
    // So does one without an answer, once too often.
    let once = [(1, 2, put("a", 1)), (3, 0, remove("a")), (4, 5, read("a", None)), (6, 7, put("a", 2))];
    good(&once);
    bad(&[&once[..], &[(8, 9, read("a", None))]].concat());
}

#[test]
fn what_got_no_answer_may_happen_late_or_never() {
    let lost = [(1, 2, put("a", 1)), (3, 0, put("a", 2)), (4, 5, read("a", Some(1)))];
    good(&lost);
    good(&[&lost[..], &[(6, 7, read("a", Some(2)))]].concat());
    bad(&[&lost[..], &[(6, 7, read("a", Some(2))), (8, 9, read("a", Some(1)))]].concat());
    // Not before it began.
    bad(&[(1, 2, read("a", Some(1))), (3, 0, put("a", 1))]);
}

#[test]
fn a_move_is_one_step_for_both_keys() {
    let moves = [(1, 2, put("a", 1)), (3, 10, rename("a", "b"))];
    good(&[&moves[..], &[(4, 5, list(&["a"])), (6, 7, list(&["b"]))]].concat());
    bad(&[&moves[..], &[(4, 5, list(&["a", "b"]))]].concat());
    bad(&[&moves[..], &[(4, 5, read("b", Some(1))), (6, 7, read("a", Some(1)))]].concat());
}

#[test]
fn a_refusal_says_what_was_there() {
    let saw = |there| Does::Saw { key: key("a"), there };
    good(&[(1, 2, put("a", 1)), (3, 4, saw(true)), (5, 0, remove("a")), (6, 7, saw(false))]);
    bad(&[(1, 2, put("a", 1)), (3, 4, saw(false))]);
}

#[test]
fn thirty_lost_writes_are_no_matter() {
    let mut ops: Vec<(u64, u64, Does)> = (1..=30).map(|n| (n, 0, put(if n % 2 == 0 { "a" } else { "b" }, n))).collect();
    ops.push((31, 0, rename("a", "b")));
    ops.extend((1..=15).map(|n| (30 + 2 * n, 31 + 2 * n, read("a", Some(2 * n)))));
    good(&ops);
    ops.push((70, 71, read("a", Some(2))));
    bad(&ops);
}

/// Histories made from a true order: always good; with one read changed to a value that was never there,
/// never.
#[test]
fn histories_with_an_order_are_good_and_others_not() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed, "histories");
        let (mut state, mut ops, mut value) = (BTreeMap::<Key, Value>::new(), Vec::new(), 0);
        for at in 1..=40u64 {
            let (a, b) = (key(dice.pick(&["a", "b", "c"])), key(dice.pick(&["a", "b", "c"])));
            let does = match dice.below(6) {
                0 | 1 => {
                    value += 1;
                    state.insert(a.clone(), value);
                    Does::Put { key: a, value }
                }
                2 if state.remove(&a).is_some() => Does::Remove { key: a },
                3 if state.contains_key(&a) && !state.contains_key(&b) => {
                    let moved = state.remove(&a).unwrap();
                    state.insert(b.clone(), moved);
                    Does::Move { from: a, to: b }
                }
                4 => Does::List { keys: state.keys().cloned().collect() },
                _ => Does::Read { saw: state.get(&a).copied(), key: a },
            };
            // It takes effect at `10 * at`, and is under way for a while around that.
            let ended = if !does.looks() && dice.one_in(8) { 0 } else { 10 * at + 1 + dice.below(30) };
            ops.push((10 * at - dice.below(30).min(10 * at - 1), ended, does));
        }
        good(&ops);
        let reads: Vec<usize> = (0..ops.len()).filter(|i| matches!(ops[*i].2, Does::Read { .. })).collect();
        if let Some(i) = reads.first() {
            let Does::Read { saw, .. } = &mut ops[*i].2 else { continue };
            *saw = Some(9999);
            bad(&ops);
        }
    }
}
