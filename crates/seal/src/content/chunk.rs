//! One chunk: `Seal(FK, ["chunk", object, number], plaintext ‖ zeros)`.
//!
//! A duty of whoever uploads: an object's chunk is sealed **once**. A chunk whose upload broke off
//! is sent again byte for byte from what was sealed, or the file goes on under a fresh `ObjectId`
//! with a fresh [`ContentKey`]; sealing other bytes as the same chunk would let servers choose
//! between two contents. (The salt is fresh in any case.)

use super::ChunkRecord;
use crate::keys::ContentKey;
use crate::pad::{check_zeros, padme};
use crate::primitive::{self, CELL, CellOpener, CellSpan, cells_for_range};
use model::chunk::CHUNK_SIZE;
use model::{Error, Hash, ObjectId, Result, cbor};
use rand_core::CryptoRng;
use std::ops::Range;

fn context(object: ObjectId, number: u32) -> Vec<u8> {
    cbor::to_vec(&("chunk", object, number))
}

/// Seals a chunk of at most 4 MiB. `pad` hides a tail's exact length (Padmé, at least 256 bytes);
/// a full chunk is the same with and without.
pub fn seal_chunk(
    key: &ContentKey,
    object: ObjectId,
    number: u32,
    plaintext: &[u8],
    pad: bool,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    seal_chunk_to(&mut out, key, object, number, plaintext, pad, rng)?;
    Ok(out)
}

/// Like [`seal_chunk`], appending to a buffer that the caller uses again.
pub fn seal_chunk_to(
    out: &mut Vec<u8>,
    key: &ContentKey,
    object: ObjectId,
    number: u32,
    plaintext: &[u8],
    pad: bool,
    rng: &mut impl CryptoRng,
) -> Result<()> {
    if plaintext.len() > CHUNK_SIZE {
        return Err(Error::invalid("a chunk has at most 4 MiB"));
    }
    let padded = if pad { padme(plaintext.len()) } else { plaintext.len() };
    primitive::seal_to(out, &key.as_seal(), &context(object, number), plaintext, padded, rng);
    Ok(())
}

/// Opens a whole chunk, appending its `len` real bytes to `out`. Checks what the manifest pins
/// (length, hash and header), every tag, and that the padding is zero. On an error `out` is as it
/// was before.
pub fn open_chunk(out: &mut Vec<u8>, key: &ContentKey, object: ObjectId, record: &ChunkRecord, len: usize, sealed: &[u8]) -> Result<()> {
    let pinned = sealed.len() == record.sealed_len as usize && sealed.starts_with(&*record.header) && Hash::of(sealed) == record.hash;
    if !pinned {
        return Err(Error::corrupt("a chunk is not the one that the manifest names"));
    }
    let start = out.len();
    primitive::open_to(out, &key.as_seal(), &context(object, record.number), sealed)?;
    let padding = out.get(start + len..).ok_or_else(|| Error::corrupt("a chunk is shorter than the manifest says"));
    let checked = padding.and_then(check_zeros);
    out.truncate(if checked.is_ok() { start + len } else { start });
    checked
}

/// Reads ranges of one chunk, from the header that the manifest pins.
///
/// The bytes are authenticated by the cells' tags, that is against servers; against a co-member who
/// knows FK only [`open_chunk`] is, by H(sealed chunk).
pub struct ChunkOpener {
    cells: CellOpener,
    sealed_len: u64,
    len: u64,
}

impl ChunkOpener {
    /// For a chunk with `len` real bytes (the rest is padding).
    pub fn new(key: &ContentKey, object: ObjectId, record: &ChunkRecord, len: usize) -> Result<Self> {
        let plain = primitive::plain_len(record.sealed_len as usize)?;
        if len > plain {
            return Err(Error::corrupt("a chunk is shorter than the manifest says"));
        }
        let cells = CellOpener::new(&key.as_seal(), &context(object, record.number), &*record.header)?;
        Ok(ChunkOpener { cells, sealed_len: u64::from(record.sealed_len), len: len as u64 })
    }

    /// Which bytes of the sealed chunk to fetch for a range of its real bytes; `Invalid` beyond them.
    pub fn span(&self, range: Range<u64>) -> Result<CellSpan> {
        if range.end > self.len {
            return Err(Error::invalid("the range lies outside of the content"));
        }
        cells_for_range(self.sealed_len, range)
    }

    /// Opens the bytes of a span. Padding that lies in the cells read is verified as well.
    pub fn open(&self, span: &CellSpan, cells: &[u8]) -> Result<Vec<u8>> {
        if span.plain.is_empty() {
            return if cells.is_empty() { Ok(Vec::new()) } else { Err(Error::corrupt("more bytes than were asked for")) };
        }
        // Read to the end of the last cell, so that a padded tail cannot hide something there.
        let plain_total = primitive::plain_len(self.sealed_len as usize)? as u64;
        let cells_end = if span.to_end { plain_total } else { span.plain.end.next_multiple_of(CELL as u64) };
        let whole = CellSpan { plain: span.plain.start..cells_end, ..span.clone() };
        let mut out = self.cells.open_span(&whole, cells)?;
        let real = self.len.min(cells_end).saturating_sub(span.plain.start) as usize;
        check_zeros(out.get(real..).unwrap_or(&[]))?;
        out.truncate((span.plain.end - span.plain.start) as usize);
        Ok(out)
    }
}
