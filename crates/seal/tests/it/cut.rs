//! How files are cut into chunks, and files joined of others.

use crate::support::{Stream, kind, torment};
use model::chunk::CHUNK_SIZE;
use model::{Hash, Kind, ManifestId, ObjectId};
use proptest::prelude::*;
use seal::content::{ChunkRecord, Cut, INDEX_FANOUT, Joiner, Manifest, RUNS_MAX, open_index, seal_index};
use seal::keys::{ContentKey, ManifestKey, SealKey};
use seal::pad::padme;
use seal::primitive::sealed_len;

const FULL: u64 = CHUNK_SIZE as u64;
const ID: ManifestId = ManifestId([7; 16]);

fn object(n: u8) -> (ObjectId, ContentKey) {
    (ObjectId([n; 16]), ContentKey::from_bytes(&[n; 32]))
}

fn mk() -> ManifestKey {
    ManifestKey::from_bytes(&[2; 32])
}

/// Records of a file in object `object`, without sealing anything: lengths right, the rest invented.
fn records(cut: &Cut, object: u32) -> Vec<ChunkRecord> {
    let mut rng = Stream::new("records");
    (0..cut.chunks())
        .map(|i| ChunkRecord {
            object,
            number: i as u32,
            sealed_len: sealed_len(padme(cut.chunk_len(i))) as u32,
            hash: Hash(rng.bytes(32).try_into().unwrap()),
            header: <[u8; 56]>::try_from(rng.bytes(56)).unwrap().into(),
        })
        .collect()
}

fn manifest(runs: &[(u64, u64)]) -> Manifest {
    let cut = Cut::of_runs(runs.iter().copied()).unwrap();
    Manifest { mtime_ns: -5, objects: vec![object(6)], level: 0, records: records(&cut, 0), cut }
}

#[test]
fn a_file_that_is_one_part_is_cut_every_4_mib() {
    let cut = Cut::whole(2 * FULL + 5);
    assert_eq!((cut.size(), cut.parts(), cut.chunks()), (8_388_613, 1, 3));
    assert_eq!((cut.chunk(0), cut.chunk(2), cut.chunk(3)), (0..FULL, 8_388_608..8_388_613, 8_388_613..8_388_613));
    assert_eq!(cut.covering(&(0..0)), 0..0);
    assert_eq!(cut.covering(&(FULL - 1..FULL)), 0..1);
    assert_eq!(cut.covering(&(FULL - 1..FULL + 1)), 0..2);
    assert_eq!(cut.covering(&(FULL..u64::MAX)), 1..3);
    let none = Cut::whole(0);
    assert_eq!((none.size(), none.parts(), none.chunks(), none.chunk(0), none.chunk_at(0)), (0, 0, 0, 0..0, 0));
}

#[test]
fn each_part_has_its_own_last_chunk() {
    let cut = Cut::of_runs([(2, 5 << 20), (1, 1), (1, FULL), (1, 3000)]).unwrap();
    let chunks: Vec<(u64, u64)> = (0..cut.chunks()).map(|i| cut.chunk(i)).map(|c| (c.start, c.end - c.start)).collect();
    let mib = 1 << 20;
    assert_eq!(
        chunks,
        [(0, 4 * mib), (4 * mib, mib), (5 * mib, 4 * mib), (9 * mib, mib), (10 * mib, 1), (10 * mib + 1, 4 * mib), (14 * mib + 1, 3000)]
    );
    assert_eq!((cut.parts(), cut.size()), (5, 14 * mib + 3001));
    assert_eq!((cut.chunk_at(10 * mib - 1), cut.chunk_at(10 * mib), cut.chunk_at(10 * mib + 1), cut.chunk_at(u64::MAX)), (3, 4, 5, 7));
    assert_eq!(cut.covering(&(10 * mib - 1..10 * mib + 2)), 3..6);
    assert_eq!((cut.chunk_len(7), cut.chunk_len(u64::MAX)), (0, 0));
}

#[test]
fn runs_are_joined_and_bounded() {
    let runs = |runs: &[(u64, u64)]| Cut::of_runs(runs.iter().copied()).map(|cut| cut.runs().collect::<Vec<_>>());
    assert_eq!(runs(&[(1, 5), (2, 5), (0, 9), (3, 0), (1, 5), (1, 6)]), Some(vec![(4, 5), (1, 6)]));
    let alternating = |n: usize| (0..n).map(|i| (1, 1 + i as u64 % 2)).collect::<Vec<_>>();
    assert!(runs(&alternating(RUNS_MAX)).is_some());
    assert!(runs(&alternating(RUNS_MAX + 1)).is_none());
    assert!(runs(&[(u64::MAX, 1)]).is_some());
    for too_much in [&[(u64::MAX, 2)][..], &[(1, u64::MAX), (1, 1)], &[(u64::MAX, 1), (1, 1)]] {
        assert!(runs(too_much).is_none(), "{too_much:?}");
    }
    let longest = Cut::whole(u64::MAX);
    assert_eq!(longest.chunk_at(u64::MAX - 1), longest.chunks() - 1);
    assert_eq!(longest.chunk(longest.chunks() - 1).end, u64::MAX);
    let cuts = [Cut::whole(7), Cut::whole(0), Cut::of_runs([(1, 7), (1, 8)]).unwrap()];
    assert_eq!(Cut::join(&cuts).unwrap().runs().collect::<Vec<_>>(), [(2, 7), (1, 8)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the parts: the chunks follow each other without a gap, none is empty or longer than 4 MiB, none
    /// reaches over the end of a part, and every byte lies in the chunk that is said to hold it.
    #[test]
    fn chunks_tile_the_file_and_the_parts(parts in prop::collection::vec((1u64..5, prop_oneof![0u64..3, FULL - 2..FULL + 3, 0..3 * FULL]), 0..12)) {
        let cut = Cut::of_runs(parts.iter().copied()).unwrap();
        let lens: Vec<u64> = parts.iter().flat_map(|(count, len)| vec![*len; *count as usize]).collect();
        prop_assert_eq!(cut.size(), lens.iter().sum::<u64>());
        let mut expected = Vec::new();
        let mut at = 0;
        for len in lens {
            let end = at + len;
            while at < end {
                let next = end.min(at + FULL);
                expected.push(at..next);
                at = next;
            }
        }
        prop_assert_eq!((0..cut.chunks()).map(|i| cut.chunk(i)).collect::<Vec<_>>(), expected.clone());
        for (i, chunk) in (0u64..).zip(&expected) {
            prop_assert_eq!((cut.chunk_at(chunk.start), cut.chunk_at(chunk.end - 1)), (i, i));
            prop_assert_eq!(cut.covering(chunk), i..i + 1);
            prop_assert_eq!(cut.covering(&(0..chunk.end)), 0..i + 1);
        }
        prop_assert_eq!(Cut::of_runs(cut.runs()), Some(cut));
    }
}

#[test]
fn manifests_of_parts_come_back() {
    let mut rng = Stream::new("parts");
    for runs in [&[(2, 1)][..], &[(3, 5 << 20), (1, 77)], &[(1, FULL), (1, 1), (1, FULL)], &[(1, 3000), (5, 6 << 20)]] {
        let m = manifest(runs);
        let size = m.cut.size();
        let sealed = m.seal(ID, &mk(), &mut rng).unwrap();
        let again = Manifest::open(ID, &mk(), &Hash::of(&sealed), size, &sealed).unwrap();
        assert_eq!((&again.cut, again.level, &again.records), (&m.cut, 0, &m.records));
        torment("manifest of parts", &sealed, |bytes| Manifest::open(ID, &mk(), &Hash::of(bytes), size, bytes).is_ok());
        assert_eq!(kind(Manifest::open(ID, &mk(), &Hash::of(&sealed), size + 1, &sealed)), Kind::Corrupt);
    }
}

/// The chunks must be those of the parts: each is as long as its place says.
#[test]
fn manifests_whose_chunks_are_not_those_of_the_parts_are_not_sealed() {
    let mut rng = Stream::new("impossible parts");
    for (what, runs) in [
        ("one part of the same size", &[(1, 10 << 20)][..]),
        ("parts of other lengths", &[(1, 6 << 20), (1, 4 << 20)]),
        ("a part more", &[(2, 5 << 20), (1, 1)]),
        ("a part less", &[(1, 5 << 20)]),
    ] {
        let mut m = manifest(&[(2, 5 << 20)]);
        m.cut = Cut::of_runs(runs.iter().copied()).unwrap();
        assert_eq!(kind(m.seal(ID, &mk(), &mut rng)), Kind::Invalid, "{what}");
    }
}

/// What a member who seals by hand may not bring in: parts in another form, or of another size.
#[test]
fn attack_36_other_encodings_of_parts() {
    let mut rng = Stream::new("encodings of parts");
    let ctx = model::cbor::to_vec(&("manifest", ID));
    let key = SealKey::from_bytes(&[2; 32]);
    // Two parts of one byte and one of two: three chunks of 256 bytes, padded.
    let m = manifest(&[(2, 1), (1, 2)]);
    let mut head = vec![0x86, 4, 0x24, 0x81, 0x82, 0x50];
    head.extend([6; 16]);
    head.extend([0x58, 32]);
    head.extend([6; 32]);
    head.push(0);
    head.extend(model::cbor::to_vec(&m.records));
    let mut verdict = |first: u8, tail: &[u8]| {
        let mut plain = [&head, tail].concat();
        plain[0] = first;
        let sealed = seal::primitive::seal(&key, &ctx, &plain, &mut rng);
        Manifest::open(ID, &mk(), &Hash::of(&sealed), 4, &sealed).is_ok()
    };
    assert!(verdict(0x86, &[0x82, 0x82, 2, 1, 0x82, 1, 2]));
    for bad in [
        &[0x83, 0x82, 1, 1, 0x82, 1, 1, 0x82, 1, 2][..],
        &[0x83, 0x82, 2, 1, 0x82, 1, 2, 0x82, 1, 0],
        &[0x83, 0x82, 2, 1, 0x82, 1, 2, 0x82, 0, 1],
        &[0x83, 0x82, 0, 1, 0x82, 2, 1, 0x82, 1, 2],
        &[0x82, 0x82, 2, 1, 0x82, 1, 3],
        &[0x82, 0x82, 2, 1, 0x82, 1, 1],
        &[0x81, 0x82, 1, 4],
        &[0x81, 0x82, 4, 1],
        &[0x80],
        &[0x82, 0x82, 0x18, 2, 1, 0x82, 1, 2],
        &[0x98, 2, 0x82, 2, 1, 0x82, 1, 2],
        &[0x9f, 0x82, 2, 1, 0x82, 1, 2, 0xff],
        &[0x82, 0x9f, 2, 1, 0xff, 0x82, 1, 2],
        &[0x82, 0x83, 2, 1, 0, 0x82, 1, 2],
        &[0x82, 0x82, 2, 1, 0x82, 1, 2, 0],
        &[0x82, 0x82, 2, 1],
        &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xf6],
        &[],
    ] {
        assert!(!verdict(0x86, bad), "{bad:02x?}");
    }
    assert!(!verdict(0x85, &[]), "as one part of four bytes it would have one chunk");
    assert!(!verdict(0x87, &[0x82, 0x82, 2, 1, 0x82, 1, 2, 0]));
    let mut single = manifest(&[(1, 4)]);
    single.mtime_ns = 0;
    assert_eq!(single.cut, Cut::whole(4), "a single part is a plain file");
}

#[test]
fn joined_files_keep_their_chunks_and_keys() {
    let (a, b) = (Cut::whole(5 << 20), Cut::of_runs([(1, 7), (1, FULL)]).unwrap());
    let mut joiner = Joiner::default();
    joiner.add(&a, &[object(1)], records(&a, 0)).unwrap();
    // Its first object held its index only, and the object of its chunks is that of the first file.
    joiner.add(&b, &[object(3), object(1)], records(&b, 1)).unwrap();
    joiner.add(&Cut::whole(0), &[object(4)], Vec::new()).unwrap();
    joiner.add(&Cut::whole(9), &[object(2)], records(&Cut::whole(9), 0)).unwrap();
    let m = joiner.finish(-5).unwrap();
    assert_eq!(m.cut.runs().collect::<Vec<_>>(), [(1, 5 << 20), (1, 7), (1, FULL), (1, 9)]);
    assert_eq!(m.objects.iter().map(|(id, _)| id.0[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(m.records.iter().map(|r| (r.object, r.number)).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0)]);
    assert!(m.seal(ID, &mk(), &mut Stream::new("joined")).is_ok());

    let mut joiner = Joiner::default();
    joiner.add(&a, &[object(1)], records(&a, 0)).unwrap();
    let other = [(object(1).0, object(2).1)];
    assert_eq!(kind(joiner.add(&a, &other, records(&a, 0))), Kind::Corrupt, "one object, two keys");
    assert_eq!(kind(joiner.add(&a, &[object(5)], records(&a, 1))), Kind::Corrupt, "an object that is not there");
    assert_eq!(kind(joiner.add(&a, &[object(5)], Vec::new())), Kind::Corrupt, "a chunk missing");
    let mut joiner = Joiner::default();
    for len in 1..=RUNS_MAX as u64 + 1 {
        let cut = Cut::whole(len);
        joiner.add(&cut, &[object(1)], records(&cut, 0)).unwrap();
    }
    assert!(joiner.finish(0).is_none());
}

/// Records go into index chunks until the rest fits; that objects or parts are too many is known before.
#[test]
fn many_objects_make_a_manifest_longer_and_too_many_do_not_fit() {
    let of = |objects: u64| {
        let cut = Cut::of_runs([(objects, 5 << 20)]).unwrap();
        let keys = (0..objects).map(|i| (ObjectId(u128::from(i).to_be_bytes()), ContentKey::from_bytes(&[1; 32]))).collect();
        Manifest { mtime_ns: 0, objects: keys, level: 0, records: records(&cut, 0), cut }
    };
    assert!(of(50).fits());
    let mut rng = Stream::new("many objects");
    for (objects, fits) in [(300, true), (460, true), (480, false), (10_000, false)] {
        let mut m = of(objects);
        assert_eq!((m.fits(), m.can_fit()), (false, fits), "{objects}");
        let (size, all) = (m.cut.size(), m.records.clone());
        let key = ContentKey::from_bytes(&[9; 32]);
        let index: Vec<Vec<u8>> = (0..)
            .zip(all.chunks(INDEX_FANOUT))
            .map(|(n, some)| seal_index(&key, ObjectId([0xff; 16]), n, some, &mut rng).unwrap())
            .collect();
        m.objects.push((ObjectId([0xff; 16]), ContentKey::from_bytes(&[9; 32])));
        m.records = (0..).zip(&index).map(|(n, sealed)| ChunkRecord::of(objects as u32, n, sealed).unwrap()).collect();
        m.level = 1;
        assert_eq!(m.fits(), fits, "{objects}");
        match m.seal(ID, &mk(), &mut rng) {
            Ok(sealed) => {
                assert!(fits && sealed.len() <= model::tree::SEALED_MANIFEST_MAX);
                let again = Manifest::open(ID, &mk(), &Hash::of(&sealed), size, &sealed).unwrap();
                assert_eq!(open_index(&again, 1, 0, &again.records[0], &index[0]).unwrap(), all[..all.len().min(INDEX_FANOUT)]);
            }
            Err(e) => assert!(!fits && e.kind == Kind::Invalid),
        }
    }
}
