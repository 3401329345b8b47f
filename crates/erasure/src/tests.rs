//! The code against an independent one, every way to lose shards, and what liars may try.

use crate::{Coder, DecodeError, Encoded};
use bytes::Bytes;
use model::chunk::SEALED_CHUNK_MAX;
use model::{ChunkRef, Descriptor, Hash, ObjectId, Policy};
use proptest::prelude::*;

const CHUNK: ChunkRef = ChunkRef { object: ObjectId([7; 16]), number: 3 };
const POLICIES: [(u8, u8); 9] = [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 0), (4, 2), (8, 3), (30, 2)];

fn coder(k: u8, m: u8) -> Coder {
    Coder::new(Policy { k, m }).unwrap()
}

/// Bytes that look random and are the same each time.
fn sample(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&(len as u64).to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn options(shards: &[Bytes]) -> Vec<Option<Bytes>> {
    shards.iter().cloned().map(Some).collect()
}

/// The shards of a chunk, as the systematic Vandermonde code defines them, written down once more
/// without matrices: in each byte column there is one polynomial P of degree below k over GF(2^8)
/// with P(i) = data shard i; shard r is P(r), by Lagrange's formula.
mod lagrange {
    fn times(mut a: u8, b: u8) -> u8 {
        let mut product = 0;
        for bit in 0..8 {
            if b >> bit & 1 == 1 {
                product ^= a;
            }
            let overflow = a & 0x80 != 0;
            a <<= 1;
            if overflow {
                a ^= 0x1d;
            }
        }
        product
    }

    fn inverse(a: u8) -> u8 {
        (1..=255).find(|&b| times(a, b) == 1).unwrap()
    }

    pub fn shards(k: u8, m: u8, sealed: &[u8]) -> Vec<Vec<u8>> {
        let len = sealed.len().div_ceil(k as usize);
        let mut padded = sealed.to_vec();
        padded.resize(len * k as usize, 0);
        let mut shards: Vec<Vec<u8>> = padded.chunks(len).map(<[u8]>::to_vec).collect();
        for r in k..k + m {
            let mut shard = vec![0; len];
            for i in 0..k {
                let others = || (0..k).filter(|j| *j != i);
                let above = others().fold(1, |p, j| times(p, r ^ j));
                let below = others().fold(1, |p, j| times(p, i ^ j));
                let weight = times(above, inverse(below));
                for (out, byte) in shard.iter_mut().zip(&padded[i as usize * len..]) {
                    *out ^= times(weight, *byte);
                }
            }
            shards.push(shard);
        }
        shards
    }
}

#[test]
fn shards_are_those_of_the_vandermonde_code_written_down_independently() {
    for (k, m) in POLICIES {
        for len in [1, 2, 7, 8, 9, 31, 1000, 4097] {
            let sealed = sample(len);
            let encoded = coder(k, m).encode(CHUNK, 0, sealed.clone()).unwrap();
            assert_eq!(encoded.shards, lagrange::shards(k, m, &sealed), "{k}+{m}, {len} bytes");
        }
    }
}

#[test]
fn shards_are_those_of_the_librarys_own_coder() {
    for (k, m) in POLICIES.into_iter().filter(|(_, m)| *m > 0) {
        let encoded = coder(k, m).encode(CHUNK, 0, sample(200_001)).unwrap();
        let mut shards: Vec<Vec<u8>> = encoded.shards.iter().map(|s| s.to_vec()).collect();
        shards[k as usize..].iter_mut().for_each(|s| s.fill(0));
        rustfs_erasure_codec::galois_8::ReedSolomon::new(k as usize, m as usize).unwrap().encode(&mut shards).unwrap();
        assert_eq!(encoded.shards, shards, "{k}+{m}");
    }
}

/// The first parity shards of 2+2 over one byte each, by hand: P(x) = d0 + (d0 + d1)·x, so
/// P(2) = 3·d0 + 2·d1 and P(3) = 2·d0 + 3·d1.
#[test]
fn parity_of_two_bytes_by_hand() {
    let encoded = coder(2, 2).encode(CHUNK, 0, vec![1, 0x80]).unwrap();
    assert_eq!(encoded.shards, [vec![0x01], vec![0x80], vec![0x03 ^ 0x1d], vec![0x02 ^ 0x1d ^ 0x80]]);
}

#[test]
fn the_descriptor_certifies_every_shard_and_nothing_else() {
    for (k, m) in POLICIES {
        for len in [1, 73, 5000, 300_000] {
            let sealed = sample(len);
            let Encoded { descriptor, shards } = coder(k, m).encode(CHUNK, 9, sealed.clone()).unwrap();
            assert_eq!(Descriptor::from_bytes(&descriptor.to_bytes()).unwrap(), descriptor);
            assert_eq!((descriptor.chunk, descriptor.generation, descriptor.sealed_len as usize), (CHUNK, 9, len));
            assert_eq!(descriptor.sealed_hash, Hash::of(&sealed));
            assert_eq!(shards.len(), (k + m) as usize);
            for (i, shard) in shards.iter().enumerate() {
                assert_eq!(descriptor.shard_hashes[i], Hash::of(shard), "shard {i} of {k}+{m}, {len} bytes");
                assert!(descriptor.certifies(i as u8, shard));
                let mut flipped = shard.to_vec();
                flipped[0] ^= 1;
                assert!(!descriptor.certifies(i as u8, &flipped));
            }
        }
    }
}

/// All ways to have exactly `count` of `n` shards.
fn subsets(n: u8, count: u8) -> impl Iterator<Item = u32> {
    (0..1u32 << n).filter(move |bits| bits.count_ones() == count as u32)
}

#[test]
fn any_k_shards_give_the_chunk_and_every_other_shard() {
    for (k, m) in [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (4, 2), (8, 3)] {
        let coder = coder(k, m);
        for len in [1, 2, 3, 15, 16, 17, 255, 257, 40_000] {
            let sealed = sample(len);
            let Encoded { descriptor, shards } = coder.encode(CHUNK, 0, sealed.clone()).unwrap();
            for kept in subsets(k + m, k) {
                let some: Vec<Option<Bytes>> = shards.iter().enumerate().map(|(i, s)| (kept >> i & 1 == 1).then(|| s.clone())).collect();
                assert!(coder.decode(&descriptor, &some).unwrap() == sealed, "{k}+{m}, {len} bytes, shards {kept:b}");
                for lost in (0..k + m).filter(|i| kept >> i & 1 == 0) {
                    assert!(coder.rebuild(&descriptor, &some, lost).unwrap() == shards[lost as usize]);
                    let range = shards[0].len() / 3..shards[0].len();
                    let pieces: Vec<(u8, &[u8])> =
                        (0..k + m).filter(|i| kept >> i & 1 == 1).map(|i| (i, &shards[i as usize][range.clone()])).collect();
                    assert!(coder.decode_range(lost, &pieces).unwrap() == shards[lost as usize][range]);
                }
            }
        }
    }
}

#[test]
fn the_largest_chunk_survives_the_loss_of_all_its_data_shards() {
    let sealed = sample(SEALED_CHUNK_MAX);
    let Encoded { descriptor, shards } = coder(2, 2).encode(CHUNK, 0, sealed.clone()).unwrap();
    let parity_only = [None, None, Some(shards[2].clone()), Some(shards[3].clone())];
    assert!(coder(2, 2).decode(&descriptor, &parity_only).unwrap() == sealed);
}

#[test]
fn data_shards_are_the_buffer_itself() {
    let coder = coder(3, 2);
    let mut sealed = Vec::with_capacity(coder.padded_len(1000));
    sealed.extend(sample(1000));
    let at = sealed.as_ptr();
    let encoded = coder.encode(CHUNK, 0, sealed).unwrap();
    assert_eq!(encoded.shards[0].as_ptr(), at);
    assert_eq!(encoded.shards[2].as_ptr(), at.wrapping_add(2 * 334));
}

#[test]
fn fewer_than_k_are_refused_with_both_numbers() {
    let Encoded { descriptor, shards } = coder(4, 2).encode(CHUNK, 0, sample(100)).unwrap();
    let mut some = options(&shards);
    some[..3].fill(None);
    assert_eq!(coder(4, 2).decode(&descriptor, &some).unwrap_err(), DecodeError::TooFew { have: 3, need: 4 });
    assert_eq!(coder(4, 2).rebuild(&descriptor, &some, 0).unwrap_err(), DecodeError::TooFew { have: 3, need: 4 });
    let error = model::Error::from(DecodeError::TooFew { have: 3, need: 4 });
    assert_eq!((error.kind, error.message.as_str()), (model::Kind::Unavailable, "only 3 shards of the 4 needed are at hand"));
    assert_eq!(coder(4, 2).decode_range(0, &[(1, [1u8])]).unwrap_err(), DecodeError::TooFew { have: 1, need: 4 });
}

#[test]
fn corrupt_shards_are_named_and_the_rest_gives_the_chunk() {
    let sealed = sample(10_000);
    let Encoded { descriptor, shards } = coder(2, 2).encode(CHUNK, 0, sealed.clone()).unwrap();
    let mut some = options(&shards);
    let mut flipped = shards[1].to_vec();
    flipped[4321] ^= 0x10;
    some[1] = Some(flipped.into());
    some[3] = Some(shards[3].slice(1..));
    // A wrong length shows at once; a wrong byte only when it was read.
    assert_eq!(coder(2, 2).decode(&descriptor, &some).unwrap_err(), DecodeError::BadShards(vec![3]));
    some[3] = None;
    assert_eq!(coder(2, 2).decode(&descriptor, &some).unwrap_err(), DecodeError::BadShards(vec![1]));
    assert_eq!(coder(2, 2).rebuild(&descriptor, &some, 3).unwrap_err(), DecodeError::BadShards(vec![1]));
    some[1] = None;
    assert!(coder(2, 2).decode(&descriptor, &some).unwrap() == sealed);
    assert_eq!(coder(2, 2).rebuild(&descriptor, &some, 3).unwrap(), shards[3]);
}

#[test]
fn two_shards_swapped_are_both_named() {
    let Encoded { descriptor, shards } = coder(2, 1).encode(CHUNK, 0, sample(64)).unwrap();
    let swapped = [Some(shards[1].clone()), Some(shards[0].clone()), None];
    assert_eq!(coder(2, 1).decode(&descriptor, &swapped).unwrap_err(), DecodeError::BadShards(vec![0, 1]));
}

/// An uploader who certifies shards that are no code word: every choice of shards gives the pinned
/// chunk or an error, never another chunk.
#[test]
fn attack_12_a_false_descriptor_never_gives_other_bytes() {
    let sealed = sample(500);
    let Encoded { mut descriptor, mut shards } = coder(2, 2).encode(CHUNK, 0, sealed.clone()).unwrap();
    shards[2] = Bytes::from(sample(250));
    descriptor.shard_hashes[2] = Hash::of(&shards[2]);
    for kept in subsets(4, 2) {
        let some: Vec<Option<Bytes>> = shards.iter().enumerate().map(|(i, s)| (kept >> i & 1 == 1).then(|| s.clone())).collect();
        match coder(2, 2).decode(&descriptor, &some) {
            Ok(got) => assert!(got == sealed && kept & 4 == 0),
            Err(e) => assert_eq!(e, DecodeError::Contradiction),
        }
    }
    let honest = [Some(shards[0].clone()), Some(shards[1].clone()), None, None];
    assert_eq!(coder(2, 2).rebuild(&descriptor, &honest, 2).unwrap_err(), DecodeError::Contradiction);
}

#[test]
fn attack_30_padding_that_is_not_zero_is_never_rebuilt() {
    let Encoded { mut descriptor, shards } = coder(2, 1).encode(CHUNK, 0, sample(5)).unwrap();
    let mut padded = shards[1].to_vec();
    padded[2] = 1;
    descriptor.shard_hashes[1] = Hash::of(&padded);
    let some = [Some(shards[0].clone()), None, Some(shards[2].clone())];
    assert_eq!(coder(2, 1).rebuild(&descriptor, &some, 1).unwrap_err(), DecodeError::Contradiction);
}

#[test]
fn impossible_calls_are_refused() {
    assert!(Coder::new(Policy { k: 0, m: 2 }).is_err());
    assert!(Coder::new(Policy { k: 200, m: 100 }).is_err());
    let coder = coder(2, 1);
    assert!(coder.encode(CHUNK, 0, Vec::new()).is_err());
    assert!(coder.encode(CHUNK, 0, vec![0; SEALED_CHUNK_MAX + 1]).is_err());
    let Encoded { descriptor, shards } = coder.encode(CHUNK, 0, sample(9)).unwrap();
    assert!(matches!(coder.rebuild(&descriptor, &options(&shards), 3), Err(DecodeError::BadCall(_))));
    let mut four = options(&shards);
    four.push(Some(shards[0].clone()));
    assert!(matches!(coder.decode(&descriptor, &four), Err(DecodeError::BadCall(_))));
    assert!(matches!(coder.decode_range(2, &[(0, &shards[0]), (0, &shards[0])]), Err(DecodeError::BadCall(_))));
    assert!(matches!(coder.decode_range(2, &[(0, &[1u8][..]), (1, &[1, 2][..])]), Err(DecodeError::BadCall(_))));
    assert!(matches!(coder.decode_range(2, &[(0, [1u8]), (9, [1])]), Err(DecodeError::BadCall(_))));
    let wider = Coder::new(Policy { k: 2, m: 2 }).unwrap();
    assert_eq!(wider.decode(&descriptor, &options(&shards)).unwrap_err(), DecodeError::BadDescriptor);
}

#[test]
fn a_range_of_the_chunk_lies_on_these_shards() {
    let coder = coder(2, 2);
    // 11 bytes: shards of 6.
    assert_eq!(coder.pieces(11, 0..11), [(0, 0..6), (1, 0..5)]);
    assert_eq!(coder.pieces(11, 2..4), [(0, 2..4)]);
    assert_eq!(coder.pieces(11, 5..7), [(0, 5..6), (1, 0..1)]);
    assert_eq!(coder.pieces(11, 6..100), [(1, 0..5)]);
    assert_eq!(coder.pieces(11, 11..12), []);
    assert_eq!(coder.pieces(11, 4..4), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_lost_within_the_policy_comes_back(
        k in 1u8..12, m in 0u8..6, sealed in prop::collection::vec(any::<u8>(), 1..5000), order in any::<u64>(),
    ) {
        let coder = coder(k, m);
        let Encoded { descriptor, shards } = coder.encode(CHUNK, 1, sealed.clone()).unwrap();
        let mut some = options(&shards);
        let mut seed = order;
        while some.iter().flatten().count() > k as usize {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let lost = (seed >> 33) as usize % some.len();
            some[lost] = None;
        }
        prop_assert_eq!(coder.decode(&descriptor, &some).unwrap(), sealed.clone());
        for (start, end) in [(0, sealed.len()), (sealed.len() / 3, sealed.len() / 2 + 1)] {
            let joined: Vec<u8> =
                coder.pieces(sealed.len(), start..end).into_iter().flat_map(|(i, r)| shards[i as usize][r].to_vec()).collect();
            prop_assert_eq!(&joined[..], &sealed[start..end]);
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(
        k in 0u8..6, m in 0u8..6, sealed_len in 0u32..200, hashes in 0usize..12,
        shards in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..100)), 0..14), index in any::<u8>(),
    ) {
        let descriptor = Descriptor {
            version: 1, chunk: CHUNK, generation: 0, policy: Policy { k, m }, sealed_len,
            sealed_hash: Hash([1; 32]), shard_hashes: vec![Hash([2; 32]); hashes],
        };
        if let Ok(coder) = Coder::new(Policy { k: k.max(1), m }) {
            prop_assert!(coder.decode(&descriptor, &shards).is_err());
            prop_assert!(coder.rebuild(&descriptor, &shards, index).is_err());
            let pieces: Vec<(u8, &[u8])> = shards.iter().flatten().map(|s| (s.len() as u8 % 16, &s[..])).collect();
            let _ = coder.decode_range(index, &pieces);
        }
    }
}
