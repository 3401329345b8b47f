//! Chunks, manifests and their index trees.

use crate::support::{Stream, kind, torment};
use model::chunk::CHUNK_SIZE;
use model::{Hash, Kind, ManifestId, ObjectId};
use seal::content::{ChunkOpener, ChunkRecord, Cut, INDEX_FANOUT, Manifest, open_chunk, open_index, seal_chunk, seal_index};
use seal::keys::{ContentKey, ManifestKey};
use seal::pad::padme;
use seal::primitive::sealed_len;

const OBJECT: ObjectId = ObjectId([6; 16]);
const ID: ManifestId = ManifestId([7; 16]);

fn fk() -> ContentKey {
    ContentKey::from_bytes(&[1; 32])
}

fn mk() -> ManifestKey {
    ManifestKey::from_bytes(&[2; 32])
}

fn open(record: &ChunkRecord, len: usize, sealed: &[u8]) -> model::Result<Vec<u8>> {
    let mut out = Vec::new();
    open_chunk(&mut out, &fk(), OBJECT, record, len, sealed).map(|()| out)
}

/// Records of a file without sealing gigabytes: lengths right, hashes and headers invented.
fn records(size: u64) -> Vec<ChunkRecord> {
    let mut rng = Stream::new("records");
    (0..Manifest::chunk_count(size))
        .map(|i| ChunkRecord {
            object: 0,
            number: i as u32,
            sealed_len: sealed_len(padme(Manifest::chunk_len(size, i))) as u32,
            hash: Hash(rng.bytes(32).try_into().unwrap()),
            header: <[u8; 56]>::try_from(rng.bytes(56)).unwrap().into(),
        })
        .collect()
}

fn manifest(size: u64) -> Manifest {
    Manifest { cut: Cut::whole(size), mtime_ns: -5, objects: vec![(OBJECT, fk())], level: 0, records: records(size) }
}

#[test]
fn chunks_come_back_at_every_length() {
    let mut rng = Stream::new("chunks");
    for n in [0, 1, 255, 256, 257, 16_383, 16_384, 16_385, 100_000, CHUNK_SIZE - 1, CHUNK_SIZE] {
        for pad in [false, true] {
            let plain = rng.bytes(n);
            let sealed = seal_chunk(&fk(), OBJECT, 3, &plain, pad, &mut rng).unwrap();
            assert_eq!(sealed.len(), sealed_len(if pad { padme(n) } else { n }));
            let record = ChunkRecord::of(0, 3, &sealed).unwrap();
            assert_eq!(open(&record, n, &sealed).unwrap(), plain, "{n} {pad}");
        }
    }
    assert_eq!(kind(seal_chunk(&fk(), OBJECT, 0, &vec![0; CHUNK_SIZE + 1], true, &mut rng)), Kind::Invalid);
}

#[test]
fn attack_09_chunks_exchanged_cut_or_renumbered() {
    let mut rng = Stream::new("exchange");
    let plain = rng.bytes(20_000);
    let sealed = seal_chunk(&fk(), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let other = seal_chunk(&fk(), OBJECT, 1, &plain, true, &mut rng).unwrap();
    let record = ChunkRecord::of(0, 0, &sealed).unwrap();
    torment("chunk", &sealed, |bytes| open(&record, plain.len(), bytes).is_ok());
    assert_eq!(kind(open(&record, plain.len(), &other)), Kind::Corrupt);
    // Even where the record itself follows (a member who equivocates), number and object are bound.
    let renumbered = ChunkRecord::of(0, 0, &other).unwrap();
    assert_eq!(kind(open(&renumbered, plain.len(), &other)), Kind::Corrupt);
    let mut out = b"before".to_vec();
    assert_eq!(kind(open_chunk(&mut out, &fk(), ObjectId([9; 16]), &record, plain.len(), &sealed)), Kind::Corrupt);
    assert_eq!(kind(open_chunk(&mut out, &ContentKey::from_bytes(&[3; 32]), OBJECT, &record, plain.len(), &sealed)), Kind::Corrupt);
    // Hiding a tail by lying about the length: what would be padding is not zero.
    assert_eq!(kind(open_chunk(&mut out, &fk(), OBJECT, &record, plain.len() - 1, &sealed)), Kind::Corrupt);
    assert_eq!(kind(open_chunk(&mut out, &fk(), OBJECT, &record, 1 << 30, &sealed)), Kind::Corrupt);
    assert_eq!(out, b"before");
}

#[test]
fn ranges_of_a_padded_tail() {
    let mut rng = Stream::new("tail ranges");
    let n = 40_000;
    let plain = rng.bytes(n);
    let sealed = seal_chunk(&fk(), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let record = ChunkRecord::of(0, 0, &sealed).unwrap();
    let opener = ChunkOpener::new(&fk(), OBJECT, &record, n).unwrap();
    for (from, to) in [(0, 0), (0, 1), (0, n), (16_383, 16_385), (16_384, 32_768), (39_999, 40_000), (40_000, 40_000), (100, 30_000)] {
        let span = opener.span(from as u64..to as u64).unwrap();
        let cells = &sealed[span.sealed.start as usize..span.sealed.end as usize];
        assert_eq!(opener.open(&span, cells).unwrap(), &plain[from..to], "{from}..{to}");
        if from < to {
            let mut changed = cells.to_vec();
            changed[0] ^= 1;
            assert!(opener.open(&span, &changed).is_err());
            assert!(opener.open(&span, &cells[..cells.len() - 1]).is_err());
        }
    }
    assert_eq!(kind(opener.span(0..n as u64 + 1)), Kind::Invalid, "padding is no content");
    // The manifest says less than there is: reading near the end shows that the padding speaks.
    let liar = ChunkOpener::new(&fk(), OBJECT, &record, n - 10).unwrap();
    let span = liar.span(39_000..39_010).unwrap();
    assert!(liar.open(&span, &sealed[span.sealed.start as usize..span.sealed.end as usize]).is_err());
    // Another header than the pinned one.
    let mut other = record.clone();
    other.header[0] ^= 1;
    assert!(ChunkOpener::new(&fk(), OBJECT, &other, n).is_err());
}

#[test]
fn manifests_come_back() {
    let mut rng = Stream::new("manifests");
    for size in [0, 1, 4097, CHUNK_SIZE as u64, CHUNK_SIZE as u64 + 1, 100 * CHUNK_SIZE as u64 + 17] {
        let m = manifest(size);
        assert!(m.fits());
        let sealed = m.seal(ID, &mk(), &mut rng).unwrap();
        let again = Manifest::open(ID, &mk(), &Hash::of(&sealed), size, &sealed).unwrap();
        assert_eq!((again.cut.size(), again.mtime_ns, again.level, &again.records), (size, -5, 0, &m.records));
        assert_eq!(again.objects.len(), 1);
        torment("manifest", &sealed, |bytes| Manifest::open(ID, &mk(), &Hash::of(bytes), size, bytes).is_ok());
        assert_eq!(kind(Manifest::open(ID, &mk(), &Hash([0; 32]), size, &sealed)), Kind::Corrupt);
        assert_eq!(kind(Manifest::open(ManifestId([8; 16]), &mk(), &Hash::of(&sealed), size, &sealed)), Kind::Corrupt);
        let other = ManifestKey::from_bytes(&[3; 32]);
        assert_eq!(kind(Manifest::open(ID, &other, &Hash::of(&sealed), size, &sealed)), Kind::Corrupt);
    }
}

#[test]
fn attack_14_a_manifest_of_another_size_than_its_entry() {
    let mut rng = Stream::new("size");
    let sealed = manifest(5_000_000).seal(ID, &mk(), &mut rng).unwrap();
    assert_eq!(kind(Manifest::open(ID, &mk(), &Hash::of(&sealed), 4_999_999, &sealed)), Kind::Corrupt);
}

#[test]
fn impossible_manifests_are_not_sealed() {
    let mut rng = Stream::new("impossible");
    let size = 3 * CHUNK_SIZE as u64 + 5;
    for (what, change) in [
        ("a chunk missing", (|m: &mut Manifest| m.records.truncate(3)) as fn(&mut Manifest)),
        ("a chunk too many", |m| m.records.push(m.records[0].clone())),
        ("an object that is not there", |m| m.records[0].object = 1),
        ("an object twice", |m| m.objects.push((OBJECT, ContentKey::from_bytes(&[4; 32])))),
        ("a short chunk in the middle", |m| m.records[1].sealed_len -= 1),
        ("an impossible length", |m| m.records[1].sealed_len = 3),
        ("a size too large", |m| m.cut = Cut::whole(m.cut.size() + CHUNK_SIZE as u64)),
        ("a tail of the wrong length", |m| m.cut = Cut::whole(m.cut.size() + 4096)),
        ("a level too high", |m| m.level = 9),
    ] {
        let mut m = manifest(size);
        change(&mut m);
        assert_eq!(kind(m.seal(ID, &mk(), &mut rng)), Kind::Invalid, "{what}");
    }
}

/// What a member who seals by hand may not bring in: other encodings of the same manifest.
#[test]
fn attack_36_other_encodings_of_a_manifest() {
    let mut rng = Stream::new("encodings");
    let ctx = model::cbor::to_vec(&("manifest", ID));
    let key = seal::keys::SealKey::from_bytes(&[2; 32]);
    let verdict = |plain: &[u8], rng: &mut Stream| {
        let sealed = seal::primitive::seal(&key, &ctx, plain, rng);
        Manifest::open(ID, &mk(), &Hash::of(&sealed), 0, &sealed).is_ok()
    };
    let good = [0x85, 0, 0, 0x80, 0, 0x80];
    assert!(verdict(&good, &mut rng));
    for bad in [
        &[0x98, 5, 0, 0, 0x80, 0, 0x80][..],
        &[0x85, 0x18, 0, 0, 0x80, 0, 0x80],
        &[0x85, 0, 0, 0x9f, 0xff, 0, 0x80],
        &[0x9f, 0, 0, 0x80, 0, 0x80, 0xff],
        &[0x86, 0, 0, 0x80, 0, 0x80, 0],
        &[0x85, 0, 0, 0x80, 0, 0x80, 0],
        &[0x85, 0, 0, 0x80, 0, 0x81, 0x80],
        &[0x85, 0, 0, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x85, 0, 0, 0x80, 0, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[],
    ] {
        assert!(!verdict(bad, &mut rng), "{bad:02x?}");
    }
    for len in 0..200 {
        let garbage = rng.bytes(len);
        assert!(!verdict(&garbage, &mut rng));
    }
}

#[test]
fn large_files_have_a_tree_of_records() {
    let mut rng = Stream::new("index");
    let size = 5000 * CHUNK_SIZE as u64 + 123;
    let all = records(size);
    let mut m = manifest(size);
    assert!(!m.fits());
    assert_eq!(kind(m.seal(ID, &mk(), &mut rng)), Kind::Invalid);
    let sealed: Vec<Vec<u8>> =
        (9000..).zip(all.chunks(INDEX_FANOUT)).map(|(n, part)| seal_index(&fk(), OBJECT, n, part, &mut rng).unwrap()).collect();
    m.records = (9000..).zip(&sealed).map(|(n, s)| ChunkRecord::of(0, n, s).unwrap()).collect();
    m.level = 1;
    assert_eq!(m.records.len(), 2);
    let bytes = m.seal(ID, &mk(), &mut rng).unwrap();
    let m = Manifest::open(ID, &mk(), &Hash::of(&bytes), size, &bytes).unwrap();
    let again: Vec<ChunkRecord> = (0..).zip(&sealed).flat_map(|(i, s)| open_index(&m, 1, i, &m.records[i as usize], s).unwrap()).collect();
    assert_eq!(again, all);
    // An index chunk at another's place, level or bytes.
    assert_eq!(kind(open_index(&m, 1, 1, &m.records[0], &sealed[0])), Kind::Corrupt);
    assert_eq!(kind(open_index(&m, 1, 0, &m.records[0], &sealed[1])), Kind::Corrupt);
    assert_eq!(kind(open_index(&m, 2, 0, &m.records[0], &sealed[0])), Kind::Corrupt);
    assert_eq!(kind(open_index(&m, 0, 0, &m.records[0], &sealed[0])), Kind::Corrupt);
    assert_eq!(kind(open_index(&m, 1, u64::MAX, &m.records[0], &sealed[0])), Kind::Corrupt);
    let mut cut = sealed[1].clone();
    cut.pop();
    assert_eq!(kind(open_index(&m, 1, 1, &m.records[1], &cut)), Kind::Corrupt);
    assert_eq!(kind(seal_index(&fk(), OBJECT, 0, &[], &mut rng)), Kind::Invalid);
    assert_eq!(kind(seal_index(&fk(), OBJECT, 0, &all[..INDEX_FANOUT + 1], &mut rng)), Kind::Invalid);
}

/// Two people, or one twice, storing the same bytes give nothing in common.
#[test]
fn attack_26_equal_files_are_not_equal_on_servers() {
    let mut rng = Stream::new("convergent");
    let plain = vec![5; 50_000];
    let a = seal_chunk(&ContentKey::generate(&mut rng), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let b = seal_chunk(&ContentKey::generate(&mut rng), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let c = seal_chunk(&fk(), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let d = seal_chunk(&fk(), OBJECT, 0, &plain, true, &mut rng).unwrap();
    let cells: std::collections::BTreeSet<&[u8]> = [&a, &b, &c, &d].iter().flat_map(|s| s[56..].chunks_exact(64)).collect();
    assert_eq!(cells.len(), [&a, &b, &c, &d].iter().map(|s| (s.len() - 56) / 64).sum::<usize>());
}

#[test]
fn attack_27_tails_hide_their_length() {
    let mut rng = Stream::new("tails");
    let mut len = |n: usize| seal_chunk(&fk(), OBJECT, 0, &vec![0; n], true, &mut rng).unwrap().len();
    assert_eq!(len(1), len(256));
    assert_eq!(len(50_000), len(51_200));
    assert_ne!(len(50_000), len(51_201));
    let sizes: std::collections::BTreeSet<usize> = (0..=CHUNK_SIZE).map(padme).collect();
    assert_eq!(sizes.len(), 321, "8 octaves of 16, 6 of 32, and the full chunk");
}
