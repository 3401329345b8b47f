//! What a simulated host has besides its disk and network: lives, a clock, randomness, and the
//! place where blocking work runs.

use crate::{Clock, Rng, Spawner};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Start of simulated time: 2026-01-01 00:00 UTC, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// A generator that depends on nothing but its three arguments.
pub(super) fn generator(seed: u64, host: &str, purpose: &str) -> ChaCha8Rng {
    // FNV-1a: stable over versions of the compiler, as `Hash` is not.
    let fnv = |text: &str| text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&fnv(host).to_le_bytes());
    bytes[16..24].copy_from_slice(&fnv(purpose).to_le_bytes());
    ChaCha8Rng::from_seed(bytes)
}

/// One life of a host, from start to crash. What belongs to a life that is over does nothing more.
#[derive(Clone)]
pub(super) struct Life {
    mine: u64,
    now: Arc<AtomicU64>,
}

impl Life {
    pub fn new() -> Self {
        Life { mine: 0, now: Arc::new(AtomicU64::new(0)) }
    }

    /// The life that runs now.
    pub fn renewed(&self) -> Self {
        Life { mine: self.now.load(Ordering::SeqCst), now: self.now.clone() }
    }

    /// Ends the life that runs now.
    pub fn end(&self) {
        self.now.fetch_add(1, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.mine != self.now.load(Ordering::SeqCst)
    }
}

/// Simulated time, with a drift of its own for each host.
pub(super) struct SimClock {
    /// Milliseconds that the wall clock is ahead of the simulation's.
    pub drift: AtomicI64,
    /// Milliseconds that the machine has slept: its timers stood still, its wall clock went on.
    pub slept: AtomicU64,
    /// Set while hosts are torn down or set up: then turmoil's clocks show real time.
    pub frozen: Arc<AtomicBool>,
    /// The last time shown, in microseconds.
    pub last: AtomicU64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let now = EPOCH_MS + self.uptime().as_millis() as u64;
        now.saturating_add_signed(self.drift.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        let frozen = self.frozen.load(Ordering::SeqCst);
        if let Some(elapsed) = turmoil::sim_elapsed().filter(|_| !frozen) {
            self.last.fetch_max(elapsed.as_micros() as u64, Ordering::SeqCst);
        }
        Duration::from_micros(self.last.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        self.monotonic() + Duration::from_millis(self.slept.load(Ordering::SeqCst))
    }
}

/// Reproducible randomness. Goes on over restarts, so that no life repeats the last one's keys.
pub(super) struct SimRng(pub Mutex<ChaCha8Rng>);

impl Rng for SimRng {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
    }
}

/// Runs work at once, on the spot, or after a delay where the host is slow.
pub(super) struct SimSpawner {
    pub life: Life,
    /// Longest delay, in milliseconds.
    pub slowness: Arc<AtomicU64>,
    pub rng: Arc<Mutex<ChaCha8Rng>>,
}

impl Spawner for SimSpawner {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        let slowness = self.slowness.load(Ordering::SeqCst);
        if slowness == 0 {
            return work();
        }
        let delay = self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64() % (slowness + 1);
        let life = self.life.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            if !life.is_over() {
                work();
            }
        });
    }

    fn cores(&self) -> usize {
        2
    }
}
