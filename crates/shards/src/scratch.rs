//! Files for redb: one for what must last, and one for what is made anew at each start.

use env::{File, FileExt};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// redb's file on an [`env::File`], as durable as that.
#[derive(Debug)]
pub struct DatabaseFile(pub Arc<dyn File>);

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// Bytes that are checked, and kept in memory, together: a page of redb's.
const BLOCK: usize = 4096;

/// A file that is of use to this process only. It is never synced. What a full disk does not take stays in memory,
/// so that a device can be read and emptied when there is no room left on it; and what the disk gives back is
/// checked against a CRC32C a block in memory (1 MB a GB), since redb takes what it reads for what it wrote.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    file: Arc<dyn File>,
    blocks: Mutex<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    len: u64,
    /// CRC32C of each block; one that was never written is zero.
    sums: Vec<u32>,
    /// Blocks that the disk did not take.
    refused: BTreeMap<usize, Vec<u8>>,
    /// CRC32C of a block of zeros.
    zero: u32,
}

/// The parts of a range by block: number of the block, where in it the part begins, and the part of the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset as usize + done;
        let inside = at % BLOCK;
        let part = (BLOCK - inside).min(len - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((at / BLOCK, inside, range))
    })
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl ScratchFile {
    /// Over an empty file.
    pub fn new(file: Arc<dyn File>) -> Self {
        let blocks = Blocks { len: 0, sums: Vec::new(), refused: BTreeMap::new(), zero: crc32c::crc32c(&[0; BLOCK]) };
        ScratchFile { file, blocks: Mutex::new(blocks) }
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the file; what it has not got is zero.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => {
                    out[done..].fill(0);
                    return Ok(());
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads whole blocks, checked.
    fn read_blocks(&self, first: usize, out: &mut [u8]) -> io::Result<()> {
        self.read_file((first * BLOCK) as u64, out)?;
        let blocks = self.blocks();
        for (i, block) in (first..).zip(out.chunks_exact_mut(BLOCK)) {
            if let Some(kept) = blocks.refused.get(&i) {
                block.copy_from_slice(kept);
            } else if crc32c::crc32c(block) != blocks.sums.get(i).copied().unwrap_or(blocks.zero) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the disk gives back something else than was written"));
            }
        }
        Ok(())
    }
}

impl StorageBackend for ScratchFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.blocks().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.is_multiple_of(BLOCK as u64) && out.len().is_multiple_of(BLOCK) {
            return self.read_blocks(offset as usize / BLOCK, out);
        }
        let mut block = vec![0; BLOCK];
        for (i, inside, range) in parts(offset, out.len()) {
            self.read_blocks(i, &mut block)?;
            let len = range.len();
            out[range].copy_from_slice(&block[inside..inside + len]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let cut = len as usize / BLOCK;
        let mut last = vec![0; BLOCK];
        let inside = len as usize % BLOCK;
        if inside > 0 {
            self.read_blocks(cut, &mut last)?;
            last[inside..].fill(0);
        }
        match self.file.set_len(len) {
            Err(e) if !is_full(&e) => return Err(e),
            _ => {}
        }
        let blocks = &mut *self.blocks();
        blocks.len = len;
        blocks.sums.resize((len as usize).div_ceil(BLOCK), blocks.zero);
        blocks.refused.split_off(&blocks.sums.len());
        if inside > 0 {
            blocks.sums[cut] = crc32c::crc32c(&last);
            blocks.refused.entry(cut).and_modify(|kept| *kept = last);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // What the blocks are to be. Those that are written in part only are few: redb's header.
        let mut whole = Vec::new();
        for (i, inside, range) in parts(offset, data.len()) {
            if range.len() == BLOCK {
                whole.push((i, crc32c::crc32c(&data[range.clone()]), range, None));
            } else {
                let mut block = vec![0; BLOCK];
                self.read_blocks(i, &mut block)?;
                block[inside..inside + range.len()].copy_from_slice(&data[range.clone()]);
                whole.push((i, crc32c::crc32c(&block), range, Some(block)));
            }
        }
        let taken = match self.file.write_all_at(data, offset) {
            Ok(()) => true,
            Err(e) if is_full(&e) => false,
            Err(e) => return Err(e),
        };
        let blocks = &mut *self.blocks();
        for (i, sum, range, block) in whole {
            let Some(kept) = blocks.sums.get_mut(i) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            *kept = sum;
            // Of a block that was refused before, the rest is not in the file.
            if taken && (block.is_none() || !blocks.refused.contains_key(&i)) {
                blocks.refused.remove(&i);
            } else {
                blocks.refused.insert(i, block.unwrap_or_else(|| data[range].to_vec()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A file that takes writes below an offset only, and the first half of one that goes beyond it.
    #[derive(Debug)]
    struct Small(Mutex<Vec<u8>>, AtomicU64);

    impl File for Small {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let bytes = self.0.lock().unwrap();
            let from = bytes.get(offset as usize..).unwrap_or_default();
            let n = from.len().min(buffer.len());
            buffer[..n].copy_from_slice(&from[..n]);
            Ok(n)
        }
        fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
            let limit = self.1.load(Ordering::Relaxed);
            let room = (limit.saturating_sub(offset) as usize).min(buffer.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut bytes = self.0.lock().unwrap();
            let end = offset as usize + room;
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset as usize..end].copy_from_slice(&buffer[..room]);
            Ok(room)
        }
        fn sync_data(&self) -> io::Result<()> {
            panic!("nothing of it needs to be durable")
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            if len > self.1.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.lock().unwrap().resize(len as usize, 0);
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }
        fn allocate(&self, len: u64) -> io::Result<()> {
            self.set_len(len)
        }
        fn punch(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, usize, u8),
        Limit(u64),
        Len(u64),
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_full_disk_refuses_reads_back_all_the_same(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (0u64..40_000, 1usize..9_000, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
                    1 => (0u64..60_000).prop_map(Step::Limit),
                    1 => (45_000u64..60_000).prop_map(Step::Len),
                ],
                1..40,
            ),
        ) {
            let small = Arc::new(Small(Mutex::default(), AtomicU64::new(20_000)));
            let scratch = ScratchFile::new(small.clone());
            scratch.set_len(50_000).unwrap();
            let mut model = vec![0u8; 50_000];
            for step in steps {
                match step {
                    Step::Write(at, len, byte) => {
                        let len = len.min(model.len() - at as usize);
                        scratch.write(at, &vec![byte; len]).unwrap();
                        model[at as usize..at as usize + len].fill(byte);
                    }
                    Step::Limit(limit) => small.1.store(limit, Ordering::Relaxed),
                    Step::Len(len) => {
                        scratch.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                let mut read = vec![7; model.len()];
                scratch.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert_eq!(StorageBackend::len(&scratch).unwrap(), model.len() as u64);
        }
    }

    #[test]
    fn what_rots_is_an_error_and_not_an_answer() {
        let small = Arc::new(Small(Mutex::default(), AtomicU64::new(100_000)));
        let scratch = ScratchFile::new(small.clone());
        scratch.set_len(50_000).unwrap();
        scratch.write(8192, &[5; 8192]).unwrap();
        scratch.read(8192, &mut [0; 8192]).unwrap();
        small.0.lock().unwrap()[8192 + 77] ^= 1;
        assert_eq!(scratch.read(8192, &mut [0; 4096]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(scratch.read(8200, &mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        scratch.read(12288, &mut [0; 4096]).unwrap();
        // A block that was never written, too.
        small.0.lock().unwrap()[40_000] ^= 1;
        assert_eq!(scratch.read(36_864, &mut [0; 4096]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // Written again it is good.
        scratch.write(8192, &[6; 4096]).unwrap();
        scratch.read(8192, &mut [0; 4096]).unwrap();
    }
}
