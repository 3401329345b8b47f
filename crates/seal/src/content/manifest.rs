//! The manifest of one version of a file: which chunks, of which objects, under which keys.
//!
//! ```text
//! manifest = Seal(MK, ["manifest", id], CBOR [size, mtime_ns, [[object, FK]…], level, [record…], ?[[count, length]…]])
//! record   = [object index, number, sealed length, H(sealed chunk), header 56]
//! ```
//! Level 0: the records are the file's chunks, of 4 MiB each, the last one shorter. Level 1: the
//! records are *index chunks*, each holding the next 4,096 records of level 0 as a CBOR array; level
//! 2 likewise above that. So a range read of a large file fetches one index chunk a level.
//!
//! A file of several parts (see [`Cut`]) ends with their runs: at least two parts, no length 0, neighbours of
//! different length, `size` together. One that is a single part ends with its records.

use crate::content::cut::{Cut, RUNS_MAX, part_chunk_len, part_chunks};
use crate::content::{open_chunk, seal_chunk};
use crate::keys::{ContentKey, ManifestKey};
use crate::pad::{check_zeros, padme};
use crate::primitive::{self, HEADER, sealed_len};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use model::chunk::CHUNK_SIZE;
use model::tree::SEALED_MANIFEST_MAX;
use model::{Error, Hash, ManifestId, ObjectId, Result, cbor};
use rand_core::CryptoRng;
use std::collections::BTreeSet;
use std::convert::Infallible;
use zeroize::Zeroizing;

/// Records of a full index chunk; the last one of a level may have fewer.
pub const INDEX_FANOUT: usize = 4096;
/// A manifest whose sealed form is longer than this becomes a tree (bytes), as long as that makes it shorter.
pub const DIRECT_MAX: usize = 16 << 10;
/// Encoded bytes of an object with its key, and most that a record takes.
const OBJECT_LEN: usize = 52;
const RECORD_MAX: usize = 112;
/// Most levels of index chunks: enough for 2^63 bytes.
const LEVEL_MAX: u8 = 3;

/// What a manifest pins of one chunk.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChunkRecord {
    /// Which of the manifest's objects.
    #[n(0)]
    pub object: u32,
    /// The chunk's number in it.
    #[n(1)]
    pub number: u32,
    /// Bytes of the sealed chunk.
    #[n(2)]
    pub sealed_len: u32,
    /// BLAKE3 of the sealed chunk.
    #[n(3)]
    pub hash: Hash,
    /// Its first 56 bytes, salt and commitment: a range read needs them and nothing else to begin.
    #[n(4)]
    pub header: ByteArray<HEADER>,
}

impl ChunkRecord {
    /// The record of a chunk just sealed. `Corrupt` when it is none.
    pub fn of(object: u32, number: u32, sealed: &[u8]) -> Result<Self> {
        Self::with_hash(object, number, sealed, Hash::of(sealed))
    }

    /// The same, for callers that have hashed the sealed chunk already (the shard coder does).
    pub fn with_hash(object: u32, number: u32, sealed: &[u8], hash: Hash) -> Result<Self> {
        primitive::plain_len(sealed.len())?;
        let header: [u8; HEADER] = *sealed.first_chunk().ok_or_else(|| Error::corrupt("a sealed chunk is too short"))?;
        let sealed_len = u32::try_from(sealed.len()).map_err(|_| Error::invalid("a sealed chunk is too long"))?;
        Ok(ChunkRecord { object, number, sealed_len, hash, header: header.into() })
    }
}

/// One version of a file.
pub struct Manifest {
    /// How the file is cut, and so its size.
    pub cut: Cut,
    /// When the content was modified, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Objects that its chunks (and index chunks) lie in, with their keys; none twice.
    pub objects: Vec<(ObjectId, ContentKey)>,
    /// 0: `records` are the file's chunks; otherwise index chunks of that level.
    pub level: u8,
    /// Records, in the order of the file.
    pub records: Vec<ChunkRecord>,
}

impl Manifest {
    /// Chunks of a file of `size` bytes that is one part.
    pub fn chunk_count(size: u64) -> u64 {
        part_chunks(size)
    }

    /// Real bytes of chunk `index` of such a file; 0 beyond its end.
    pub fn chunk_len(size: u64, index: u64) -> usize {
        part_chunk_len(size, index)
    }

    /// Whether its sealed form fits the catalog. Otherwise put the records into index chunks ([`seal_index`],
    /// [`INDEX_FANOUT`] at a time), raise `level` by one, and ask again: that ends where [`Manifest::can_fit`].
    pub fn fits(&self) -> bool {
        let len = sealed_len(self.encoded(&self.records).len());
        // Where one record is left, it is the objects and parts that are many, and those stay.
        len <= DIRECT_MAX || self.records.len() <= 1 && len <= SEALED_MANIFEST_MAX
    }

    /// Whether it fits or index chunks make it fit, in an object that is not among its own yet. About 460
    /// objects do, where the parts are a few runs; the records do not matter.
    pub fn can_fit(&self) -> bool {
        self.fits() || sealed_len(self.encoded(&[]).len() + OBJECT_LEN + RECORD_MAX) <= SEALED_MANIFEST_MAX
    }

    /// The object that a record names, with its key.
    pub fn object(&self, record: &ChunkRecord) -> Result<(ObjectId, &ContentKey)> {
        let object = self.objects.get(record.object as usize).ok_or_else(|| Error::corrupt("a manifest names no such object"))?;
        Ok((object.0, &object.1))
    }

    /// Seals it under a fresh MK and a fresh id. `Invalid` when it does not fit (see
    /// [`Manifest::fits`]) or its parts do not fit each other.
    pub fn seal(&self, id: ManifestId, key: &ManifestKey, rng: &mut impl CryptoRng) -> Result<Vec<u8>> {
        self.check().map_err(|e| Error::invalid(e.message))?;
        if !self.fits() {
            return Err(Error::invalid("a manifest is too long: its records go into index chunks"));
        }
        let plain = self.encoded(&self.records);
        Ok(primitive::seal(&key.as_seal(), &context(id), &plain, rng))
    }

    /// Opens the manifest that an entry names: its hash, key and id, and the size that it must
    /// have. `Corrupt` for anything else.
    pub fn open(id: ManifestId, key: &ManifestKey, hash: &Hash, size: u64, sealed: &[u8]) -> Result<Self> {
        if sealed.len() > SEALED_MANIFEST_MAX || Hash::of(sealed) != *hash {
            return Err(Error::corrupt("a manifest is not the one that the entry names"));
        }
        let plain = primitive::open(&key.as_seal(), &context(id), sealed)?;
        let mut d = Decoder::new(&plain);
        let manifest = Self::decode(&mut d).map_err(|_| Error::corrupt("a manifest is not decodable"))?;
        if manifest.encoded(&manifest.records).as_slice() != plain.as_slice() {
            return Err(Error::corrupt("a manifest is not in canonical form"));
        }
        manifest.check()?;
        if manifest.cut.size() != size {
            return Err(Error::corrupt("a manifest is of another size than its entry"));
        }
        Ok(manifest)
    }

    /// Parts that fit each other: sizes, counts, lengths of chunks, objects named.
    fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(Error::corrupt(why));
        if self.level > LEVEL_MAX || self.records.len() as u64 != record_count(&self.cut, self.level) {
            return bad("a manifest has not as many chunks as its file");
        }
        let mut ids = BTreeSet::new();
        if !self.objects.iter().all(|(id, _)| ids.insert(*id)) {
            return bad("a manifest names an object twice");
        }
        check_records(&self.records, self.objects.len(), &self.cut, self.level, 0)
    }

    fn encoded(&self, records: &[ChunkRecord]) -> Zeroizing<Vec<u8>> {
        // Reserved wholly, so that growing leaves no copies of keys behind.
        let room = 64 + self.objects.len() * OBJECT_LEN + records.len() * RECORD_MAX + self.cut.runs().len() * 19;
        let mut plain = Zeroizing::new(Vec::with_capacity(room));
        self.encode(records, &mut Encoder::new(&mut *plain)).expect("encoding into memory");
        plain
    }

    fn encode(&self, records: &[ChunkRecord], e: &mut Encoder<&mut Vec<u8>>) -> Result<(), encode::Error<Infallible>> {
        let in_parts = self.cut.parts() > 1;
        e.array(if in_parts { 6 } else { 5 })?.u64(self.cut.size())?.i64(self.mtime_ns)?.array(self.objects.len() as u64)?;
        for (id, key) in &self.objects {
            e.array(2)?.encode(id)?.bytes(key.bytes())?;
        }
        e.u8(self.level)?.encode(records)?;
        if in_parts {
            e.array(self.cut.runs().len() as u64)?;
            for run in self.cut.runs() {
                e.encode(run)?;
            }
        }
        Ok(())
    }

    fn decode(d: &mut Decoder) -> Result<Self, decode::Error> {
        let bad = || decode::Error::message("not a manifest");
        let array = |d: &mut Decoder| d.array()?.ok_or_else(bad);
        let fields = array(d)?;
        if !(5..=6).contains(&fields) {
            return Err(bad());
        }
        let (size, mtime_ns) = (d.u64()?, d.i64()?);
        let mut objects = Vec::new();
        for _ in 0..array(d)? {
            if array(d)? != 2 {
                return Err(bad());
            }
            objects.push((d.decode()?, ContentKey::from_slice(d.bytes()?).ok_or_else(bad)?));
        }
        let (level, records) = (d.u8()?, d.decode()?);
        let cut = if fields == 5 {
            Cut::whole(size)
        } else {
            let runs = array(d)?;
            if runs > RUNS_MAX as u64 {
                return Err(bad());
            }
            // In another form than that of its cut it is refused by whoever encodes it again.
            let runs: Vec<(u64, u64)> = (0..runs).map(|_| d.decode()).collect::<Result<_, _>>()?;
            Cut::of_runs(runs).filter(|cut| cut.size() == size).ok_or_else(bad)?
        };
        Ok(Manifest { cut, mtime_ns, objects, level, records })
    }
}

/// Records that a file has at `level`.
fn record_count(cut: &Cut, level: u8) -> u64 {
    (0..level).fold(cut.chunks(), |n, _| n.div_ceil(INDEX_FANOUT as u64))
}

/// Checks consecutive records of a level that begin with number `first` among all of that level.
fn check_records(records: &[ChunkRecord], objects: usize, cut: &Cut, level: u8, first: u64) -> Result<()> {
    for (i, record) in (first..).zip(records) {
        let plain = primitive::plain_len(record.sealed_len as usize)?;
        // A file chunk's length follows from how the file is cut; an index chunk's is checked when it opens.
        let possible = if level == 0 { plain == padme(cut.chunk_len(i)) } else { plain <= CHUNK_SIZE };
        if !possible || record.object as usize >= objects {
            return Err(Error::corrupt("a manifest holds an impossible chunk"));
        }
    }
    Ok(())
}

/// Seals at most [`INDEX_FANOUT`] consecutive records of one level as an index chunk.
pub fn seal_index(key: &ContentKey, object: ObjectId, number: u32, records: &[ChunkRecord], rng: &mut impl CryptoRng) -> Result<Vec<u8>> {
    if records.is_empty() || records.len() > INDEX_FANOUT {
        return Err(Error::invalid("an index chunk holds 1 to 4096 records"));
    }
    seal_chunk(key, object, number, &cbor::to_vec(&records), true, rng)
}

/// Opens index chunk `index` (its place among those of its level in the whole file) and gives its
/// records: those from `index × 4096` on of the level below. `manifest` is the file's; `level` is
/// the index chunk's own, from 1; `record` is what pins it, from the level above.
pub fn open_index(manifest: &Manifest, level: u8, index: u64, record: &ChunkRecord, sealed: &[u8]) -> Result<Vec<ChunkRecord>> {
    let bad = || Error::corrupt("an index chunk does not fit its manifest");
    let (object, key) = manifest.object(record)?;
    let below = level.checked_sub(1).filter(|_| level <= manifest.level).ok_or_else(bad)?;
    let first = index.checked_mul(INDEX_FANOUT as u64).ok_or_else(bad)?;
    let expected = record_count(&manifest.cut, below).saturating_sub(first).min(INDEX_FANOUT as u64);
    let mut plain = Zeroizing::new(Vec::new());
    open_chunk(&mut plain, key, object, record, primitive::plain_len(sealed.len())?, sealed)?;
    let mut d = Decoder::new(&plain);
    let records: Vec<ChunkRecord> = d.decode().map_err(|_| bad())?;
    let (encoded, padding) = plain.split_at_checked(d.position()).ok_or_else(bad)?;
    if cbor::to_vec(&records) != encoded || padme(encoded.len()) != plain.len() || records.len() as u64 != expected {
        return Err(bad());
    }
    check_zeros(padding)?;
    check_records(&records, manifest.objects.len(), &manifest.cut, below, first)?;
    Ok(records)
}

fn context(id: ManifestId) -> Vec<u8> {
    cbor::to_vec(&("manifest", id))
}
