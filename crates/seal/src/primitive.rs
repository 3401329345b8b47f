//! The one sealing primitive: C2SP chunked encryption, Cobblestone-256.
//!
//! ```text
//! sealed = salt 24 ‖ commit 32 ‖ cell_0 ‖ … ‖ cell_last
//! key 32 ‖ nonce 12 ‖ commit 32 = HKDF-SHA512-Expand(K, LABEL ‖ 00 ‖ salt ‖ ctx, 76)
//! cell_i = AES-256-GCM(key, nonce XOR i, 16,384 bytes) ‖ tag 16; the last one is always shorter
//! ```
//! The last cell's being shorter than full *is* the end mark, so cells can neither be dropped nor
//! added; the nonce holds their order; `commit` makes a ciphertext belong to one key and context
//! only. Cells open independently, which is what range reads use.

use crate::keys::{SealKey, expand, fresh};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use model::{Error, Result};
use rand_core::CryptoRng;
use std::ops::Range;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Plaintext bytes of a full cell.
pub const CELL: usize = 16_384;
/// Bytes of a cell's tag.
pub const TAG: usize = 16;
/// Bytes of a sealed full cell.
pub const SEALED_CELL: usize = CELL + TAG;
/// Bytes before the first cell: salt and commitment.
pub const HEADER: usize = 56;

const SALT: usize = 24;
const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
/// Cells of one ciphertext: the specification's bound on the counter.
const CELLS_MAX: u64 = 1 << 38;

/// Sealed length of `n` plaintext bytes: `n + 56 + 16·(⌊n/16384⌋ + 1)`.
pub const fn sealed_len(n: usize) -> usize {
    n + HEADER + TAG * (n / CELL + 1)
}

/// Plaintext length of `sealed` bytes of ciphertext; `Corrupt` for a length that no plaintext has.
pub fn plain_len(sealed: usize) -> Result<usize> {
    let body = sealed.checked_sub(HEADER).ok_or_else(impossible)?;
    let last = (body % SEALED_CELL).checked_sub(TAG).ok_or_else(impossible)?;
    Ok(body / SEALED_CELL * CELL + last)
}

/// Seals `plaintext` for a key and a context.
///
/// # Panics
/// When the random source is broken (see [`fresh`]).
pub fn seal(key: &SealKey, ctx: &[u8], plaintext: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
    let mut out = Vec::new();
    seal_to(&mut out, key, ctx, plaintext, plaintext.len(), rng);
    out
}

/// Seals `plaintext` followed by zeros up to `padded_len` bytes (at least its length), and appends
/// the result to `out`. Allocates at most once, whatever the length.
///
/// The salt is drawn here and never reused: to seal other bytes under the same context is to call
/// this again. Whoever resumes an interrupted upload must not continue a ciphertext half sent with
/// bytes sealed again; it starts under a fresh context (a fresh `ObjectId`).
pub fn seal_to(out: &mut Vec<u8>, key: &SealKey, ctx: &[u8], plaintext: &[u8], padded_len: usize, rng: &mut impl CryptoRng) {
    let padded_len = padded_len.max(plaintext.len());
    let salt: [u8; SALT] = fresh(rng);
    let (cells, commit) = Cells::derive(key, &salt, ctx);
    out.reserve(sealed_len(padded_len));
    out.extend_from_slice(&salt);
    out.extend_from_slice(&commit);
    for i in 0..=padded_len / CELL {
        let from = i * CELL;
        let to = (from + CELL).min(padded_len);
        let text = plaintext.get(from..to.min(plaintext.len())).unwrap_or(&[]);
        let start = out.len();
        out.resize(start + to - from + TAG, 0);
        let (cell, tag) = out[start..].split_at_mut(to - from);
        if text.len() == cell.len() {
            // Straight from the caller's bytes into the output, without a copy of them.
            cells.key.seal_out_of_place_scatter(cells.nonce(i as u64), Aad::empty(), text, cell, &[], tag)
        } else {
            cell[..text.len()].copy_from_slice(text);
            cells.key.seal_in_place_scatter(cells.nonce(i as u64), Aad::empty(), cell, &[], tag)
        }
        .expect("AES-GCM seals 16 KiB");
    }
}

/// Opens what [`seal`] made for the same key and context. `Corrupt` for anything else.
pub fn open(key: &SealKey, ctx: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::new());
    open_to(&mut out, key, ctx, sealed)?;
    Ok(out)
}

/// Like [`open`], appending to `out`; on an error `out` is as it was before.
pub fn open_to(out: &mut Vec<u8>, key: &SealKey, ctx: &[u8], sealed: &[u8]) -> Result<()> {
    let n = plain_len(sealed.len())?;
    let (header, body) = sealed.split_at_checked(HEADER).ok_or_else(impossible)?;
    let cells = CellOpener::new(key, ctx, header)?;
    out.reserve(n);
    cells.open_run(0, body, true, out)
}

/// Opens single cells of one ciphertext, for range reads. Made from the 56-byte header alone.
pub struct CellOpener(Cells);

impl CellOpener {
    /// Derives the keys and checks the commitment (in constant time): `Corrupt` when the header
    /// does not belong to this key and context.
    pub fn new(key: &SealKey, ctx: &[u8], header: &[u8]) -> Result<Self> {
        let header: &[u8; HEADER] = header.try_into().map_err(|_| impossible())?;
        let (salt, commit) = header.split_first_chunk::<SALT>().ok_or_else(impossible)?;
        let (cells, expected) = Cells::derive(key, salt, ctx);
        if bool::from(expected.as_slice().ct_eq(commit)) { Ok(Self(cells)) } else { Err(unopened()) }
    }

    /// Opens cell `index` and appends its plaintext to `out`. `last` says whether it must be the
    /// last cell: then it is shorter than full, otherwise exactly full. On an error `out` is as
    /// it was before.
    pub fn open_cell(&self, index: u64, cell: &[u8], last: bool, out: &mut Vec<u8>) -> Result<()> {
        let n = cell.len().checked_sub(TAG).ok_or_else(impossible)?;
        if index >= CELLS_MAX || (last && n >= CELL) || (!last && n != CELL) {
            return Err(impossible());
        }
        let (text, tag) = cell.split_at(n);
        let start = out.len();
        out.resize(start + n, 0);
        let opened = self.0.key.open_separate_gather(self.0.nonce(index), Aad::empty(), text, tag, &mut out[start..]);
        if opened.is_err() {
            out[start..].zeroize();
            out.truncate(start);
            return Err(unopened());
        }
        Ok(())
    }

    /// Opens consecutive cells from `first` on; `to_end` says whether the run ends with the last
    /// cell. On an error `out` is as it was before.
    pub fn open_run(&self, first: u64, cells: &[u8], to_end: bool, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let full = cells.len() / SEALED_CELL;
        if to_end == cells.len().is_multiple_of(SEALED_CELL) {
            return Err(impossible());
        }
        let mut result = Ok(());
        for (i, cell) in cells.chunks(SEALED_CELL).enumerate() {
            result = self.open_cell(first + i as u64, cell, i == full, out);
            if result.is_err() {
                break;
            }
        }
        if result.is_err() {
            out[start..].zeroize();
            out.truncate(start);
        }
        result
    }

    /// Opens the cells that [`cells_for_range`] named and returns exactly the bytes of the range.
    pub fn open_span(&self, span: &CellSpan, cells: &[u8]) -> Result<Vec<u8>> {
        if cells.len() as u64 != span.sealed.end - span.sealed.start {
            return Err(impossible());
        }
        if span.sealed.is_empty() {
            return Ok(Vec::new());
        }
        let mut out = Vec::with_capacity(cells.len());
        self.open_run(span.first, cells, span.to_end, &mut out)?;
        let skip = (span.plain.start - span.first * CELL as u64) as usize;
        let take = (span.plain.end - span.plain.start) as usize;
        out.truncate(skip + take);
        out.drain(..skip);
        Ok(out)
    }
}

/// The cells that a range of plaintext lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSpan {
    /// Number of the first cell.
    pub first: u64,
    /// Range of plaintext bytes asked for.
    pub plain: Range<u64>,
    /// Range of sealed bytes to fetch; empty when the plaintext range is.
    pub sealed: Range<u64>,
    /// Whether the last cell is among them.
    pub to_end: bool,
}

/// Which bytes of a ciphertext of `sealed_len` bytes to fetch for a range of its plaintext.
/// `Invalid` when the range does not lie in the plaintext, `Corrupt` for an impossible length.
pub fn cells_for_range(sealed_len: u64, plain: Range<u64>) -> Result<CellSpan> {
    let n = plain_len(usize::try_from(sealed_len).map_err(|_| impossible())?)? as u64;
    if plain.start > plain.end || plain.end > n {
        return Err(Error::invalid("the range lies outside of the content"));
    }
    let cell = CELL as u64;
    let first = plain.start / cell;
    let start = HEADER as u64 + first * SEALED_CELL as u64;
    if plain.is_empty() {
        return Ok(CellSpan { first, plain, sealed: start..start, to_end: false });
    }
    let last = (plain.end - 1) / cell;
    let to_end = last == n / cell;
    let end = if to_end { sealed_len } else { HEADER as u64 + (last + 1) * SEALED_CELL as u64 };
    Ok(CellSpan { first, plain, sealed: start..end, to_end })
}

/// What a key, a salt and a context give: the cipher and its first nonce.
struct Cells {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Cells {
    fn derive(key: &SealKey, salt: &[u8; SALT], ctx: &[u8]) -> (Self, [u8; 32]) {
        let mut okm = Zeroizing::new([0u8; 76]);
        expand(key.bytes(), &[LABEL, salt, ctx], okm.as_mut_slice());
        let mut nonce = [0u8; 12];
        let mut commit = [0u8; 32];
        nonce.copy_from_slice(&okm[32..44]);
        commit.copy_from_slice(&okm[44..]);
        let key = UnboundKey::new(&AES_256_GCM, &okm[..32]).expect("AES-256 takes any 32 bytes");
        (Cells { key: LessSafeKey::new(key), nonce }, commit)
    }

    fn nonce(&self, index: u64) -> Nonce {
        assert!(index < CELLS_MAX, "the cell counter is used up");
        let mut nonce = self.nonce;
        for (n, i) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
            *n ^= i;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

fn impossible() -> Error {
    Error::corrupt("sealed bytes of an impossible length")
}

fn unopened() -> Error {
    Error::corrupt("sealed bytes do not open: they were changed, moved, or sealed under another key")
}
