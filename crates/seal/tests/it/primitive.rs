//! The sealing primitive: boundaries, ranges, and what must not open.

use crate::support::{Stream, kind, torment};
use model::Kind;
use proptest::prelude::*;
use seal::keys::SealKey;
use seal::primitive::{CELL, CellOpener, HEADER, SEALED_CELL, TAG, cells_for_range, open, open_to, plain_len, seal, seal_to, sealed_len};

const CTX: &[u8] = b"context";

fn key() -> SealKey {
    SealKey::from_bytes(&[7; 32])
}

fn opens(sealed: &[u8]) -> bool {
    open(&key(), CTX, sealed).is_ok()
}

#[test]
fn round_trips_at_every_boundary() {
    let mut rng = Stream::new("round trips");
    for n in [0, 1, 15, 16, 17, CELL - 1, CELL, CELL + 1, 2 * CELL - 1, 2 * CELL, 2 * CELL + 1, 5 * CELL, 256 * CELL] {
        let plain = rng.bytes(n);
        let sealed = seal(&key(), CTX, &plain, &mut rng);
        assert_eq!(sealed.len(), n + 56 + 16 * (n / 16384 + 1));
        assert_eq!(sealed.len(), sealed_len(n));
        assert_eq!(plain_len(sealed.len()), Ok(n));
        assert_eq!(open(&key(), CTX, &sealed).unwrap().as_slice(), plain, "{n}");
    }
}

#[test]
fn sealing_appends_and_pads_without_moving_what_is_there() {
    let mut rng = Stream::new("append");
    let plain = rng.bytes(20_000);
    let mut out = b"before".to_vec();
    seal_to(&mut out, &key(), CTX, &plain, 3 * CELL, &mut rng);
    assert_eq!(&out[..6], b"before");
    let opened = open(&key(), CTX, &out[6..]).unwrap();
    assert_eq!(opened.len(), 3 * CELL);
    assert_eq!(&opened[..20_000], plain);
    assert!(opened[20_000..].iter().all(|b| *b == 0));
}

#[test]
fn impossible_lengths_are_refused() {
    for len in (0..HEADER + TAG).chain([HEADER + SEALED_CELL, HEADER + SEALED_CELL + 15, HEADER + 2 * SEALED_CELL]) {
        assert_eq!(kind(plain_len(len)), Kind::Corrupt, "{len}");
        assert_eq!(kind(open(&key(), CTX, &vec![0; len])), Kind::Corrupt);
    }
    for n in (0..70_000).step_by(7) {
        assert_eq!(plain_len(sealed_len(n)), Ok(n));
    }
}

#[test]
fn garbage_flips_cuts_and_extensions_are_refused() {
    let mut rng = Stream::new("garbage");
    for n in [0, 1, 100, CELL - 1, CELL, CELL + 1, 3 * CELL + 5] {
        let plain = rng.bytes(n);
        torment(&format!("torment {n}"), &seal(&key(), CTX, &plain, &mut rng), opens);
    }
}

#[test]
fn every_bit_of_a_short_ciphertext_counts() {
    let mut rng = Stream::new("bits");
    let sealed = seal(&key(), CTX, b"ten bytes!", &mut rng);
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&changed), "bit {bit}");
    }
}

#[test]
fn another_key_or_context_does_not_open() {
    let mut rng = Stream::new("other");
    let sealed = seal(&key(), CTX, b"text", &mut rng);
    assert_eq!(kind(open(&SealKey::from_bytes(&[8; 32]), CTX, &sealed)), Kind::Corrupt);
    assert_eq!(kind(open(&key(), b"contexu", &sealed)), Kind::Corrupt);
    assert_eq!(kind(open(&key(), b"", &sealed)), Kind::Corrupt);
}

#[test]
fn attack_08_a_failure_delivers_no_bytes() {
    let mut rng = Stream::new("none");
    let plain = rng.bytes(3 * CELL);
    let mut sealed = seal(&key(), CTX, &plain, &mut rng);
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    let mut out = b"before".to_vec();
    assert_eq!(kind(open_to(&mut out, &key(), CTX, &sealed)), Kind::Corrupt);
    assert_eq!(out, b"before");
}

/// Every way of putting whole cells together otherwise.
#[test]
fn attack_09_cells_dropped_swapped_repeated_spliced() {
    let mut rng = Stream::new("cells");
    let plain = rng.bytes(3 * CELL + 100);
    let sealed = seal(&key(), CTX, &plain, &mut rng);
    let other = seal(&key(), CTX, &plain, &mut rng);
    let head = &sealed[..HEADER];
    let cell = |i: usize| &sealed[HEADER + i * SEALED_CELL..(HEADER + (i + 1) * SEALED_CELL).min(sealed.len())];
    let theirs = |i: usize| &other[HEADER + i * SEALED_CELL..(HEADER + (i + 1) * SEALED_CELL).min(other.len())];
    assert!(opens(&[head, cell(0), cell(1), cell(2), cell(3)].concat()));
    for (what, bytes) in [
        ("dropped in the middle", [head, cell(0), cell(2), cell(3)].concat()),
        ("dropped at the end", [head, cell(0), cell(1), cell(2)].concat()),
        ("last one dropped and the one before cut", [head, cell(0), cell(1), &cell(2)[..500]].concat()),
        ("swapped", [head, cell(1), cell(0), cell(2), cell(3)].concat()),
        ("repeated", [head, cell(0), cell(0), cell(1), cell(2), cell(3)].concat()),
        ("two ends", [head, cell(0), cell(1), cell(2), cell(3), cell(3)].concat()),
        ("of another sealing", [head, cell(0), theirs(1), cell(2), cell(3)].concat()),
        ("under another header", [&other[..HEADER], cell(0), cell(1), cell(2), cell(3)].concat()),
        ("header alone", head.to_vec()),
    ] {
        assert!(!opens(&bytes), "{what}");
    }
}

/// A stuck random source must stop the work rather than repeat a salt.
#[test]
#[should_panic(expected = "the random source is broken")]
fn attack_10_broken_random_source() {
    struct Stuck;
    impl rand_core::TryRng for Stuck {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(0)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(0)
        }
        fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
            dst.fill(0);
            Ok(())
        }
    }
    impl rand_core::TryCryptoRng for Stuck {}
    seal(&key(), CTX, b"text", &mut Stuck);
}

#[test]
fn attack_10_every_sealing_has_its_own_salt_and_key() {
    let mut rng = Stream::new("salts");
    let a = seal(&key(), CTX, b"the same text", &mut rng);
    let b = seal(&key(), CTX, b"the same text", &mut rng);
    assert_ne!(a[..24], b[..24]);
    assert_ne!(a[HEADER..], b[HEADER..]);
}

/// AES-GCM alone lets one ciphertext open under two keys; the commitment is checked before any tag,
/// so a header made for one key is refused under every other, whatever the cells are.
#[test]
fn attack_11_two_keys_for_one_ciphertext() {
    let mut rng = Stream::new("commit");
    let ours = seal(&key(), CTX, b"text", &mut rng);
    let theirs = SealKey::from_bytes(&[9; 32]);
    assert!(CellOpener::new(&key(), CTX, &ours[..HEADER]).is_ok());
    assert!(CellOpener::new(&theirs, CTX, &ours[..HEADER]).is_err());
    // The same salt with another commitment is no way around.
    let mut changed = ours.clone();
    changed[24..HEADER].copy_from_slice(&seal(&theirs, CTX, b"text", &mut rng)[24..HEADER]);
    assert!(!opens(&changed));
}

#[test]
fn single_cells_open_only_at_their_place() {
    let mut rng = Stream::new("single");
    let plain = rng.bytes(2 * CELL + 9);
    let sealed = seal(&key(), CTX, &plain, &mut rng);
    let opener = CellOpener::new(&key(), CTX, &sealed[..HEADER]).unwrap();
    let cell = |i: usize| &sealed[HEADER + i * SEALED_CELL..(HEADER + (i + 1) * SEALED_CELL).min(sealed.len())];
    let mut out = Vec::new();
    opener.open_cell(1, cell(1), false, &mut out).unwrap();
    assert_eq!(out, &plain[CELL..2 * CELL]);
    for (index, bytes, last) in
        [(0, cell(1), false), (1, cell(1), true), (2, cell(2), false), (1, cell(2), true), (1 << 38, cell(1), false)]
    {
        let mut out = Vec::new();
        assert!(opener.open_cell(index, bytes, last, &mut out).is_err());
        assert!(out.is_empty());
    }
    assert!(opener.open_cell(2, &[], true, &mut out).is_err());
}

#[test]
fn ranges_at_the_edges() {
    let mut rng = Stream::new("edges");
    for n in [0, 1, CELL - 1, CELL, CELL + 1, 2 * CELL, 3 * CELL + 77] {
        let plain = rng.bytes(n);
        let sealed = seal(&key(), CTX, &plain, &mut rng);
        let opener = CellOpener::new(&key(), CTX, &sealed[..HEADER]).unwrap();
        let marks = [0, 1, CELL - 1, CELL, CELL + 1, 2 * CELL, n.saturating_sub(1), n];
        for &from in marks.iter().filter(|m| **m <= n) {
            for &to in marks.iter().filter(|m| **m <= n && **m >= from) {
                let span = cells_for_range(sealed.len() as u64, from as u64..to as u64).unwrap();
                let cells = &sealed[span.sealed.start as usize..span.sealed.end as usize];
                assert_eq!(opener.open_span(&span, cells).unwrap(), &plain[from..to], "{n}: {from}..{to}");
                if from < to {
                    assert!(opener.open_span(&span, &cells[1..]).is_err());
                    let mut changed = cells.to_vec();
                    let at = changed.len() / 2;
                    changed[at] ^= 4;
                    assert!(opener.open_span(&span, &changed).is_err());
                }
            }
        }
        assert_eq!(kind(cells_for_range(sealed.len() as u64, 0..n as u64 + 1)), Kind::Invalid);
        assert!(cells_for_range(sealed.len() as u64 - 1, 0..u64::MAX).is_err());
    }
    #[expect(clippy::reversed_empty_ranges, reason = "it is the reversed range that must be refused")]
    let reversed = cells_for_range(1000, 5..4);
    assert_eq!(kind(reversed), Kind::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_length_and_any_range(n in 0usize..80_000, a in 0usize..80_001, b in 0usize..80_001, seed in any::<u64>()) {
        let mut rng = Stream::new(&seed.to_string());
        let plain = rng.bytes(n);
        let sealed = seal(&key(), CTX, &plain, &mut rng);
        let opened = open(&key(), CTX, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), plain.as_slice());
        let (from, to) = (a.min(b).min(n), a.max(b).min(n));
        let span = cells_for_range(sealed.len() as u64, from as u64..to as u64).unwrap();
        let opener = CellOpener::new(&key(), CTX, &sealed[..HEADER]).unwrap();
        let cells = &sealed[span.sealed.start as usize..span.sealed.end as usize];
        prop_assert_eq!(opener.open_span(&span, cells).unwrap(), &plain[from..to]);
    }
}
