//! How a file is cut into chunks.
//!
//! A file is one part, or several one after another: what was stored as a whole is one part, what was put
//! together of other files has theirs. Each part is cut by itself into chunks of 4 MiB, its last one shorter,
//! so that files can be joined as they lie. A part without bytes is none.
//!
//! Equal parts beside each other are one *run*, and the parts of an upload are two runs mostly. So a cut of a
//! million chunks takes a few numbers, and any chunk of it is found by a search among the runs.

use model::chunk::CHUNK_SIZE;
use std::ops::Range;

/// Most runs of a cut.
pub const RUNS_MAX: usize = 1024;

/// Bytes of a full chunk.
const FULL: u64 = CHUNK_SIZE as u64;

/// Where the chunks of a file lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// In the order of the file. Neighbours differ in length; none is empty.
    runs: Vec<Run>,
    size: u64,
    chunks: u64,
}

/// Equal parts, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Parts; at least one.
    count: u64,
    /// Bytes of each; at least one.
    len: u64,
    /// Where the first of them begins in the file.
    start: u64,
    /// Its first chunk, counted in the file.
    first: u64,
}

impl Cut {
    /// A file that is one part.
    pub fn whole(size: u64) -> Self {
        let run = Run { count: 1, len: size, start: 0, first: 0 };
        Cut { runs: if size == 0 { Vec::new() } else { vec![run] }, size, chunks: part_chunks(size) }
    }

    /// Parts as runs of `(count, length)`. Empty ones are left out, and neighbours of one length become one
    /// run. `None` for more than [`RUNS_MAX`] runs or 2^64 bytes.
    pub fn of_runs(runs: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut cut = Cut::whole(0);
        for (count, len) in runs.into_iter().filter(|(count, len)| *count > 0 && *len > 0) {
            match cut.runs.last_mut().filter(|last| last.len == len) {
                Some(last) => last.count = last.count.checked_add(count)?,
                None => cut.runs.push(Run { count, len, start: cut.size, first: cut.chunks }),
            }
            if cut.runs.len() > RUNS_MAX {
                return None;
            }
            cut.size = cut.size.checked_add(count.checked_mul(len)?)?;
            // A part has no more chunks than bytes: what follows cannot be beyond the size.
            cut.chunks = cut.chunks.checked_add(count.checked_mul(part_chunks(len))?)?;
        }
        Some(cut)
    }

    /// Files one after another. `None` where [`Cut::of_runs`] gives none.
    pub fn join<'a>(cuts: impl IntoIterator<Item = &'a Cut>) -> Option<Self> {
        Cut::of_runs(cuts.into_iter().flat_map(Cut::runs))
    }

    /// Its runs: how many parts, and how long each is.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|run| (run.count, run.len))
    }

    /// Number of parts; 0 for an empty file.
    pub fn parts(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of chunks.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The bytes of the file that are chunk `index`; none, at its end, beyond the last one.
    pub fn chunk(&self, index: u64) -> Range<u64> {
        let Some(run) = self.last_run(|run| run.first <= index).filter(|_| index < self.chunks) else { return self.size..self.size };
        let each = part_chunks(run.len);
        let (part, within) = ((index - run.first) / each, (index - run.first) % each);
        let start = run.start + part * run.len + within * FULL;
        start..start + part_chunk_len(run.len, within) as u64
    }

    /// Real bytes of chunk `index`; 0 beyond the last one.
    pub fn chunk_len(&self, index: u64) -> usize {
        let chunk = self.chunk(index);
        (chunk.end - chunk.start) as usize
    }

    /// The chunk in which a byte lies; at the file's end and beyond, the number of chunks.
    pub fn chunk_at(&self, offset: u64) -> u64 {
        let Some(run) = self.last_run(|run| run.start <= offset).filter(|_| offset < self.size) else { return self.chunks };
        let (part, within) = ((offset - run.start) / run.len, (offset - run.start) % run.len);
        run.first + part * part_chunks(run.len) + within / FULL
    }

    /// The chunks in which the bytes of a range lie; none for an empty one.
    pub fn covering(&self, range: &Range<u64>) -> Range<u64> {
        let first = self.chunk_at(range.start);
        match range.end.checked_sub(1).filter(|last| *last >= range.start) {
            Some(last) => first..self.chunk_at(last).saturating_add(1).min(self.chunks),
            None => first..first,
        }
    }

    /// The last run for which something holds that holds for a first few of them.
    fn last_run(&self, holds: impl Fn(&Run) -> bool) -> Option<&Run> {
        self.runs.get(self.runs.partition_point(holds).checked_sub(1)?)
    }
}

/// Chunks of a part of `len` bytes.
pub(super) fn part_chunks(len: u64) -> u64 {
    len.div_ceil(FULL)
}

/// Real bytes of chunk `index` of a part of `len` bytes; 0 beyond its end.
pub(super) fn part_chunk_len(len: u64, index: u64) -> usize {
    len.saturating_sub(index.saturating_mul(FULL)).min(FULL) as usize
}
