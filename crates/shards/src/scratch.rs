//! Files for redb: one for what must last, and one for what is made anew at each start.

use env::{File, FileExt};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Bytes that are kept in memory together where the disk does not take them: a page of redb's.
const BLOCK: u64 = 4096;

/// A file that is of use to this process only: it is never synced, and what a full disk does not take stays in
/// memory, so that a device can be read and emptied when there is no room left on it.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    file: Arc<dyn File>,
    len: AtomicU64,
    refused: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl ScratchFile {
    /// Over an empty file.
    pub fn new(file: Arc<dyn File>) -> Self {
        ScratchFile { file, len: AtomicU64::new(0), refused: Mutex::default() }
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
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
}

/// The parts of a range by block: number of the block, where in it the part begins, and the part of the range.
fn blocks(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let inside = (at % BLOCK) as usize;
        let part = (BLOCK as usize - inside).min(len - done);
        let range = done..done + part;
        done += part;
        (part > 0).then_some((at / BLOCK, inside, range))
    })
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl StorageBackend for ScratchFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_file(offset, out)?;
        let refused = self.refused();
        if !refused.is_empty() {
            for (block, inside, range) in blocks(offset, out.len()) {
                if let Some(kept) = refused.get(&block) {
                    let len = range.len();
                    out[range].copy_from_slice(&kept[inside..inside + len]);
                }
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut refused = self.refused();
        match self.file.set_len(len) {
            Err(e) if !is_full(&e) => return Err(e),
            _ => {}
        }
        refused.split_off(&len.div_ceil(BLOCK));
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut refused = self.refused();
        match self.file.write_all_at(data, offset) {
            Ok(()) if refused.is_empty() => return Ok(()),
            Ok(()) => {
                for (block, inside, range) in blocks(offset, data.len()) {
                    if range.len() == BLOCK as usize {
                        refused.remove(&block);
                    } else if let Some(kept) = refused.get_mut(&block) {
                        kept[inside..inside + range.len()].copy_from_slice(&data[range]);
                    }
                }
                return Ok(());
            }
            Err(e) if !is_full(&e) => return Err(e),
            Err(_) => {}
        }
        for (block, inside, range) in blocks(offset, data.len()) {
            let mut kept = match refused.remove(&block) {
                Some(kept) => kept,
                None => {
                    let mut kept = vec![0; BLOCK as usize];
                    self.read_file(block * BLOCK, &mut kept)?;
                    kept
                }
            };
            kept[inside..inside + range.len()].copy_from_slice(&data[range]);
            refused.insert(block, kept);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

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
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_full_disk_refuses_reads_back_all_the_same(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (0u64..40_000, 1usize..9_000, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
                    1 => (0u64..60_000).prop_map(Step::Limit),
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
                        scratch.write(at, &vec![byte; len]).unwrap();
                        model[at as usize..at as usize + len].fill(byte);
                    }
                    Step::Limit(limit) => small.1.store(limit, Ordering::Relaxed),
                }
                let mut read = vec![7; 50_000];
                scratch.read(0, &mut read).unwrap();
                prop_assert!(read == model);
            }
            prop_assert_eq!(StorageBackend::len(&scratch).unwrap(), 50_000);
        }
    }
}
