//! The bytes of a simulated file, twice: as the running system sees them and as the platters have
//! them. Between two syncs every change is kept in a list; a loss of power applies some of the list
//! to the durable bytes, page by page, as chance has it.
//!
//! Pages that were never written take no memory, and both copies share the pages that are equal.

use rand_core::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Bytes that the page cache writes back together.
pub(super) const PAGE: u64 = 4096;
/// Bytes that a disk writes wholly or not at all.
const SECTOR: usize = 512;

type Page = [u8; PAGE as usize];

/// A sparse run of bytes.
#[derive(Clone, Default)]
struct Bytes {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// The parts of a range that lie in one page each: page, offset in it, and place in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let inside = (at % PAGE) as usize;
        let n = (PAGE as usize - inside).min(len - done);
        done += n;
        Some((at / PAGE, inside, done - n..done))
    })
}

impl Bytes {
    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let n = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (page, inside, place) in parts(offset, n) {
            let to = &mut buffer[place];
            match self.pages.get(&page) {
                Some(page) => to.copy_from_slice(&page[inside..inside + to.len()]),
                None => to.fill(0),
            }
        }
        n
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, inside, place) in parts(offset, bytes.len()) {
            let page = Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize])));
            page[inside..inside + place.len()].copy_from_slice(&bytes[place]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn zero(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let (page, inside) = (at / PAGE, at % PAGE);
            let end = ((page + 1) * PAGE).min(range.end);
            if inside == 0 && end - at == PAGE {
                self.pages.remove(&page);
            } else if let Some(page) = self.pages.get_mut(&page) {
                Arc::make_mut(page)[inside as usize..(inside + end - at) as usize].fill(0);
            }
            at = end;
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            self.zero(len..len.next_multiple_of(PAGE));
        }
        self.len = len;
    }
}

/// What was done since the last sync.
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
    Zero(Range<u64>),
}

/// The contents of one file.
#[derive(Default)]
pub(super) struct Content {
    current: Bytes,
    durable: Bytes,
    unsynced: Vec<Change>,
    /// Pages in which the two may differ, and that the next sync makes equal.
    dirty: BTreeSet<u64>,
    /// Which pages have a block on the disk (written or reserved).
    blocks: Vec<bool>,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.current.len
    }

    /// Bytes of disk space taken.
    pub fn space(&self) -> u64 {
        self.blocks.iter().filter(|b| **b).count() as u64 * PAGE
    }

    /// Bytes of disk space that a range still needs.
    pub fn missing(&self, range: Range<u64>) -> u64 {
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        pages.filter(|p| !self.blocks.get(*p as usize).is_some_and(|b| *b)).count() as u64 * PAGE
    }

    /// Takes blocks for a range.
    pub fn reserve(&mut self, range: Range<u64>) {
        let end = range.end.div_ceil(PAGE) as usize;
        if self.blocks.len() < end {
            self.blocks.resize(end, false);
        }
        self.blocks[(range.start / PAGE) as usize..end].fill(true);
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.current.read(buffer, offset)
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        self.reserve(offset..offset + bytes.len() as u64);
        self.current.write(bytes, offset);
        self.dirty.extend(parts(offset, bytes.len()).map(|p| p.0));
        self.unsynced.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub fn set_len(&mut self, len: u64) {
        if len == self.current.len {
            return;
        }
        self.dirty.extend(self.current.pages.range(len / PAGE..).map(|(page, _)| *page));
        self.current.set_len(len);
        self.blocks.truncate(len.div_ceil(PAGE) as usize);
        self.unsynced.push(Change::Length(len));
    }

    /// Zeroes what of a range lies inside the file and gives its whole pages back.
    pub fn punch(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.current.len);
        if range.is_empty() {
            return;
        }
        self.dirty.extend(range.start / PAGE..range.end.div_ceil(PAGE));
        self.current.zero(range.clone());
        for page in range.start.div_ceil(PAGE)..range.end / PAGE {
            if let Some(block) = self.blocks.get_mut(page as usize) {
                *block = false;
            }
        }
        self.unsynced.push(Change::Zero(range));
    }

    pub fn sync(&mut self) {
        self.durable.set_len(self.current.len);
        for page in std::mem::take(&mut self.dirty) {
            match self.current.pages.get(&page) {
                Some(bytes) => self.durable.pages.insert(page, bytes.clone()),
                None => self.durable.pages.remove(&page),
            };
        }
        self.unsynced.clear();
    }

    /// A sync has failed, after which the system takes for written what it has in memory only: a later sync leaves it
    /// out, unless it is written again. See Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.
    pub fn forget(&mut self) {
        self.dirty.clear();
        self.unsynced.clear();
    }

    /// Power is lost. Of every page that an unsynced change touched, that change is there, or not,
    /// or (for writes) there in its first sectors; `keep` of 256 are there.
    pub fn crash(&mut self, rng: &mut impl Rng, keep: u32) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { offset, bytes } => {
                    for (_, inside, place) in parts(offset, bytes.len()) {
                        if rng.next_u32() % 256 >= keep {
                            continue;
                        }
                        let at = offset + place.start as u64;
                        let mut piece = &bytes[place];
                        if rng.next_u32().is_multiple_of(8) {
                            // The first sector may begin in the middle.
                            let sectors = (inside + piece.len()).div_ceil(SECTOR) - inside / SECTOR;
                            let end = (inside / SECTOR + rng.next_u32() as usize % sectors) * SECTOR;
                            piece = &piece[..end.saturating_sub(inside).min(piece.len())];
                        }
                        if !piece.is_empty() {
                            self.durable.write(piece, at);
                        }
                    }
                }
                Change::Length(len) => {
                    if rng.next_u32() % 256 < keep {
                        self.durable.set_len(len);
                    }
                }
                Change::Zero(range) => {
                    let mut at = range.start;
                    while at < range.end {
                        let end = ((at / PAGE + 1) * PAGE).min(range.end);
                        if rng.next_u32() % 256 < keep {
                            self.durable.zero(at..end.min(self.durable.len).max(at));
                        }
                        at = end;
                    }
                }
            }
        }
        self.dirty.clear();
        self.current = self.durable.clone();
        self.blocks.resize(self.current.len.div_ceil(PAGE) as usize, false);
        for page in self.current.pages.keys() {
            self.blocks[*page as usize] = true;
        }
    }

    /// Turns one bit over, on the platters and in the cache; whether there is such a byte.
    pub fn flip(&mut self, offset: u64) -> bool {
        let mut byte = [0];
        for bytes in [&mut self.current, &mut self.durable] {
            if bytes.read(&mut byte, offset) == 1 {
                bytes.write(&[byte[0] ^ 0x10], offset);
            }
        }
        offset < self.current.len
    }
}
