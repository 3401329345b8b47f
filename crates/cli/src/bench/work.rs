//! What is measured without a network: sealing, hashing, coding, and the disk.

use super::{RUNS, median};
use env::{Clock, Env, FileExt, Open};
use erasure::{Coder, Encoded};
use model::chunk::CHUNK_SIZE;
use model::{ChunkRef, Error, ObjectId, Policy, Result};
use rustix::time::{ClockId, clock_gettime};
use seal::content::{ChunkRecord, open_chunk, seal_chunk_to};
use seal::keys::ContentKey;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// CPU time of this process or thread so far.
pub fn cpu(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32)
}

/// One chunk in all its forms.
pub struct Work {
    env: Env,
    key: ContentKey,
    plain: Vec<u8>,
    sealed: Vec<u8>,
    record: ChunkRecord,
    coder: Coder,
    encoded: Encoded,
    chunk: ChunkRef,
}

/// Does a piece of work once; answers with the CPU time that it took, without preparations.
pub type Step = fn(&Work) -> Result<Duration>;

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu(ClockId::ThreadCPUTime);
    let done = black_box(work());
    (cpu(ClockId::ThreadCPUTime).saturating_sub(start), done)
}

impl Work {
    pub fn new(env: &Env, policy: Policy) -> Result<Arc<Self>> {
        let mut rng = env.rand();
        let key = ContentKey::generate(&mut rng);
        let chunk = ChunkRef { object: ObjectId(env.random()), number: 0 };
        let coder = Coder::new(policy)?;
        let mut plain = vec![0; CHUNK_SIZE];
        env.rng.fill(&mut plain);
        let mut sealed = Vec::new();
        seal_chunk_to(&mut sealed, &key, chunk.object, chunk.number, &plain, true, &mut rng)?;
        let record = ChunkRecord::of(0, chunk.number, &sealed)?;
        let encoded = coder.encode(chunk, 0, sealed.clone())?;
        Ok(Arc::new(Work { env: env.clone(), key, plain, sealed, record, coder, encoded, chunk }))
    }

    /// Bytes of plaintext by CPU time of one core, a second: the median of some runs.
    pub async fn one(self: &Arc<Self>, step: Step, time: Duration) -> Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let work = self.clone();
            let done = self.env.blocking(move || work.repeat(step, time / RUNS as u32)).await?;
            rates.push(done.0 as f64 / done.1.as_secs_f64().max(1e-9));
        }
        Ok(median(rates))
    }

    /// What some threads reach side by side, each on a core of its own as far as there are cores: by
    /// their CPU time, which grows where they are in each other's way (memory, shared caches).
    pub async fn all(self: &Arc<Self>, step: Step, threads: usize, time: Duration) -> Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let running = (0..threads).map(|_| {
                let work = self.clone();
                self.env.blocking(move || work.repeat(step, time / RUNS as u32))
            });
            let done = futures::future::join_all(running).await.into_iter().collect::<Result<Vec<_>>>()?;
            let (bytes, spent) = done.iter().fold((0, Duration::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let each = bytes as f64 / spent.as_secs_f64().max(1e-9);
            rates.push(each * threads.min(self.env.cores()) as f64);
        }
        Ok(median(rates))
    }

    fn repeat(&self, step: Step, time: Duration) -> Result<(u64, Duration)> {
        let start = self.env.clock.monotonic();
        let (mut bytes, mut spent) = (0, Duration::ZERO);
        loop {
            spent += step(self)?;
            bytes += CHUNK_SIZE as u64;
            if self.env.clock.monotonic() - start >= time {
                return Ok((bytes, spent));
            }
        }
    }

    pub fn seal(&self) -> Result<Duration> {
        let mut rng = self.env.rand();
        let mut out = touched(self.sealed.len());
        let (took, done) = timed(|| seal_chunk_to(&mut out, &self.key, self.chunk.object, self.chunk.number, &self.plain, true, &mut rng));
        done.map(|()| took)
    }

    pub fn open(&self) -> Result<Duration> {
        let mut out = touched(CHUNK_SIZE);
        let (took, done) = timed(|| open_chunk(&mut out, &self.key, self.chunk.object, &self.record, CHUNK_SIZE, &self.sealed));
        done.map(|()| took)
    }

    pub fn hash(&self) -> Result<Duration> {
        Ok(timed(|| blake3::hash(&self.plain)).0)
    }

    pub fn encode(&self) -> Result<Duration> {
        let mut sealed = Vec::with_capacity(self.coder.padded_len(self.sealed.len()));
        sealed.extend_from_slice(&self.sealed);
        let (took, done) = timed(|| self.coder.encode(self.chunk, 0, sealed));
        done.map(|_| took)
    }

    pub fn decode(&self) -> Result<Duration> {
        self.decode_without(0)
    }

    pub fn decode_lost(&self) -> Result<Duration> {
        let policy = self.coder.policy();
        self.decode_without(policy.m.min(policy.k))
    }

    /// Decodes without the first shards.
    fn decode_without(&self, lost: u8) -> Result<Duration> {
        let shards: Vec<_> = (0u8..).zip(&self.encoded.shards).map(|(i, s)| (i >= lost).then_some(s)).collect();
        let (took, done) = timed(|| self.coder.decode(&self.encoded.descriptor, &shards));
        done.map(|_| took).map_err(|e| Error::corrupt(format!("a chunk that was just coded does not decode: {e}")))
    }
}

/// An empty buffer whose pages are there already, as those of a pool are.
fn touched(len: usize) -> Vec<u8> {
    let mut buffer = vec![1; len];
    buffer.clear();
    buffer
}

/// Speeds of a disk, in bytes a second.
pub struct DiskSpeed {
    /// By CPU time, of a file that is in memory.
    pub read: f64,
    /// By CPU time.
    pub write: f64,
    /// By the clock, until it is durable.
    pub durable: f64,
    /// Seconds of one durable write of 4 KiB.
    pub sync: f64,
}

/// Measures the disk that holds a file. The file is made, and removed.
pub async fn disk(env: &Env, path: &Path, time: Duration) -> Result<DiskSpeed> {
    let (disk, clock, file) = (env.disk.clone(), env.clock.clone(), path.to_path_buf());
    let mut block = vec![0; 1 << 20];
    env.rng.fill(&mut block);
    let measured = env.blocking(move || {
        let measured = (|| {
            let open = disk.open(&file, Open::New)?;
            let mut runs = Vec::new();
            for _ in 0..RUNS {
                runs.push(one_disk(&*open, &*clock, &block, time / RUNS as u32)?);
            }
            let of = |field: fn(&DiskSpeed) -> f64| median(runs.iter().map(field).collect());
            Ok(DiskSpeed { read: of(|r| r.read), write: of(|r| r.write), durable: of(|r| r.durable), sync: of(|r| r.sync) })
        })();
        // What is left of it goes with its folder.
        let _ = disk.remove_file(&file);
        measured
    });
    measured.await.map_err(|e: std::io::Error| crate::local::io_error(path, &e))
}

/// Most bytes of one run: a fast disk is not filled.
const RUN_MAX: u64 = 1 << 30;

fn one_disk(file: &dyn env::File, clock: &dyn Clock, block: &[u8], time: Duration) -> std::io::Result<DiskSpeed> {
    let (mut end, mut writing) = (0u64, Duration::ZERO);
    let start = clock.monotonic();
    while clock.monotonic() - start < time && end < RUN_MAX {
        // In batches as a group commit makes them: some megabytes, then durable.
        for _ in 0..16 {
            let (took, done) = timed(|| file.write_all_at(block, end));
            done?;
            writing += took;
            end += block.len() as u64;
        }
        file.sync_data()?;
    }
    let durable = end as f64 / (clock.monotonic() - start).as_secs_f64().max(1e-9);

    let mut buffer = vec![0; block.len()];
    let (mut at, mut reading) = (0u64, Duration::ZERO);
    while at < end {
        let (took, done) = timed(|| file.read_exact_at(&mut buffer, at));
        done?;
        reading += took;
        at += block.len() as u64;
    }
    let mut syncs = Vec::new();
    for _ in 0..20 {
        let start = clock.monotonic();
        file.write_all_at(block.get(..4096).unwrap_or(block), end)?;
        file.sync_data()?;
        end += 4096;
        syncs.push((clock.monotonic() - start).as_secs_f64());
    }
    file.set_len(0)?;
    let by = |spent: Duration, bytes: u64| bytes as f64 / spent.as_secs_f64().max(1e-9);
    Ok(DiskSpeed { read: by(reading, at), write: by(writing, at), durable, sync: median(syncs) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_step_works_with_every_kind_of_policy() {
        let env = env::real::env();
        for policy in ["2+2", "1+2", "3+0", "6+3", "2+5"] {
            let work = Work::new(&env, policy.parse().unwrap()).unwrap();
            for step in [Work::seal as Step, Work::open, Work::hash, Work::encode, Work::decode, Work::decode_lost] {
                assert!(work.one(step, Duration::from_millis(1)).await.unwrap() > 0.0, "{policy}");
            }
        }
        let work = Work::new(&env, Policy::DEFAULT).unwrap();
        assert!(work.all(Work::encode, 3, Duration::from_millis(1)).await.unwrap() > 0.0);
    }

    #[tokio::test]
    async fn the_disk_is_measured_and_left_as_it_was() {
        let env = env::real::env();
        let dir = tempfile::tempdir().unwrap();
        let speed = disk(&env, &dir.path().join("disk"), Duration::from_millis(30)).await.unwrap();
        assert!([speed.read, speed.write, speed.durable, speed.sync].iter().all(|v| *v > 0.0));
        assert_eq!(env.disk.read_dir(dir.path()).unwrap(), Vec::<String>::new());
    }
}
