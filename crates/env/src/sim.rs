//! The simulated world: a whole cluster in one thread, on simulated time, from one seed.
//!
//! A [`World`] is a turmoil simulation. Each host gets an [`Env`] whose clock, randomness, network
//! and disk are simulated; tokio's timers follow turmoil's time. The same seed gives the same
//! history, as far as the programs in it have no dice of their own (hash maps in whose order they
//! act, unbiased `select!`, keys from a library that asks the operating system).
//!
//! Disks are [`SimDisk`]s, not turmoil's file system: that one cannot keep or lose the pages of one
//! unsynced file independently, undo a rename, allocate, punch or lock, and its handles only work
//! inside its own simulation. A [`SimDisk`] does, and can be used without a simulation too.
//!
//! Faults are [`Fault`]s, injected by whoever steps the world ([`World::inject`]) or by any task in
//! it ([`Faults::inject`]). Programs run to the end of their tick before anything else happens, and
//! a write and its sync usually are in one tick; so a loss of power between them needs
//! [`SimDisk::crash_after`], which strikes in the middle.
//!
//! ```no_run
//! # use env::sim::{Fault, World};
//! let mut world = World::new(7);
//! let server = world.host("server", |env| async move {
//!     let listener = env.net.bind("server:7000").await?;
//!     loop { listener.accept().await?; }
//! });
//! let faults = world.faults();
//! world.client("test", |env| async move {
//!     env.net.connect("server:7000").await?;
//!     faults.inject(Fault::PowerCut("server".into()));
//!     Ok(())
//! });
//! world.run().unwrap();
//! server.disk().files();
//! ```

mod content;
mod disk;
mod host;
mod net;
#[cfg(test)]
mod tests;

pub use disk::SimDisk;
pub use host::EPOCH_MS;

use crate::Env;
use futures::FutureExt;
use host::{Life, SimClock, SimRng, SimSpawner, generator};
use net::SimNet;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How programs in the simulation end: any error fails the simulation.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The fixed properties of a world.
#[derive(Debug, Clone)]
pub struct Config {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// How long one host runs before the next one does. Crashes between operations fall on ticks.
    pub tick: Duration,
    /// Least and most time that a message travels.
    pub latency: (Duration, Duration),
    /// Simulated time after which [`World::run`] fails.
    pub duration: Duration,
}

impl Config {
    /// Ticks of 1 ms, messages of 1 to 20 ms, one hour.
    pub fn new(seed: u64) -> Self {
        let ms = Duration::from_millis;
        Config { seed, tick: ms(1), latency: (ms(1), ms(20)), duration: Duration::from_secs(3600) }
    }
}

/// What can happen to hosts and the network between them. Hosts go by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost: tasks are gone, unsynced data is lost or kept by chance, peers are not told.
    PowerCut(String),
    /// The program is killed: its data stays, its connections are closed.
    Kill(String),
    /// Starts the host again; kills it first where it runs.
    Start(String),
    /// Messages between two hosts are dropped; what is under way is lost.
    Partition(String, String),
    /// Messages from the first to the second are dropped.
    PartitionOneway(String, String),
    /// Ends both kinds of partition between two hosts.
    Repair(String, String),
    /// From now on messages between two hosts travel exactly so long.
    Latency(String, String, Duration),
}

/// Injects faults from inside the simulation: they happen in order at the end of the tick.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<Fault>>>);

impl Faults {
    /// Adds one.
    pub fn inject(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    fn next(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A host of the simulation. Cheap to clone; outlives crashes.
#[derive(Clone)]
pub struct SimHost {
    name: String,
    ip: IpAddr,
    disk: SimDisk,
    clock: Arc<SimClock>,
    rng: Arc<SimRng>,
    work_rng: Arc<Mutex<ChaCha8Rng>>,
    slowness: Arc<AtomicU64>,
    up: Arc<AtomicBool>,
    starts: Arc<AtomicU64>,
}

impl SimHost {
    /// Its name, which is also its name on the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Its disk.
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Whether it was neither cut off nor killed since its last start.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// How often it was started.
    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }

    /// Sets its wall clock so many milliseconds ahead of (or behind) the simulation's.
    pub fn set_drift_ms(&self, drift: i64) {
        self.clock.drift.store(drift, Ordering::SeqCst);
    }

    /// Lets so many milliseconds pass in which the machine sleeps, in all since the beginning: timers stand
    /// still, all clocks but the monotonic one go on.
    pub fn set_slept_ms(&self, slept: u64) {
        self.clock.slept.store(slept, Ordering::SeqCst);
    }

    /// Makes blocking work (and so the disk) slow: each piece begins up to so much later.
    pub fn set_slowness(&self, longest: Duration) {
        self.slowness.store(longest.as_millis() as u64, Ordering::SeqCst);
    }

    /// The world as the program that runs now on this host sees it. Programs get theirs when they
    /// start; this is for tests.
    pub fn env(&self) -> Env {
        let life = self.disk.life();
        Env {
            clock: self.clock.clone(),
            rng: self.rng.clone(),
            disk: self.disk.handle(),
            net: Arc::new(SimNet { life: life.clone(), name: self.name.clone(), ip: self.ip }),
            spawner: Arc::new(SimSpawner { life, slowness: self.slowness.clone(), rng: self.work_rng.clone() }),
        }
    }
}

/// A simulated cluster.
pub struct World {
    sim: turmoil::Sim<'static>,
    seed: u64,
    hosts: BTreeMap<String, SimHost>,
    faults: Faults,
    /// Directions in which nothing travels, by [`Fault`].
    cut: BTreeSet<(String, String)>,
    frozen: Arc<AtomicBool>,
}

impl World {
    /// An empty world with [`Config::new`].
    pub fn new(seed: u64) -> Self {
        World::with(&Config::new(seed))
    }

    /// An empty world.
    pub fn with(config: &Config) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(config.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
            .tick_duration(config.tick)
            .simulation_duration(config.duration)
            .min_message_latency(config.latency.0)
            .max_message_latency(config.latency.1)
            // Turmoil keeps the port of a refused connection for ever, and loses the end of a stream
            // that arrives at a full buffer.
            .ephemeral_ports(16_384..=65_535)
            .tcp_capacity(1024)
            .enable_random_order();
        World {
            sim: builder.build(),
            seed: config.seed,
            hosts: BTreeMap::new(),
            faults: Faults::default(),
            cut: BTreeSet::new(),
            frozen: Arc::default(),
        }
    }

    fn register(&mut self, name: &str) -> SimHost {
        let clock = SimClock { drift: AtomicI64::new(0), slept: AtomicU64::new(0), frozen: self.frozen.clone(), last: AtomicU64::new(0) };
        let host = SimHost {
            name: name.to_owned(),
            ip: self.sim.lookup(name),
            disk: SimDisk::new(self.seed, name),
            clock: Arc::new(clock),
            rng: Arc::new(SimRng(Mutex::new(generator(self.seed, name, "rng")))),
            work_rng: Arc::new(Mutex::new(generator(self.seed, name, "work"))),
            slowness: Arc::default(),
            up: Arc::new(AtomicBool::new(true)),
            starts: Arc::default(),
        };
        self.hosts.insert(name.to_owned(), host.clone());
        host
    }

    /// Adds a host. Its program is called with each start and must not end with an error, except by
    /// a crash. Panics where the name is taken.
    pub fn host<F, Fut>(&mut self, name: &str, program: F) -> SimHost
    where
        F: Fn(Env) -> Fut + 'static,
        Fut: Future<Output = Result> + 'static,
    {
        let host = self.register(name);
        let (program, this) = (std::rc::Rc::new(program), host.clone());
        self.sim.host(name, move || {
            let (program, this) = (program.clone(), this.clone());
            async move {
                this.starts.fetch_add(1, Ordering::SeqCst);
                let life = this.disk.life();
                let ended = AssertUnwindSafe(program(this.env())).catch_unwind().await;
                if life.is_over() {
                    // It died of the crash that it is in.
                    return std::future::pending().await;
                }
                ended.unwrap_or_else(|panic| resume_unwind(panic))
            }
        });
        host
    }

    /// Adds a host that runs the test itself: [`World::run`] ends when all of these have. It cannot
    /// be crashed.
    pub fn client<F, Fut>(&mut self, name: &str, test: F) -> SimHost
    where
        F: FnOnce(Env) -> Fut + 'static,
        Fut: Future<Output = Result> + 'static,
    {
        let host = self.register(name);
        let this = host.clone();
        self.sim.client(name, async move {
            this.starts.fetch_add(1, Ordering::SeqCst);
            test(this.env()).await
        });
        host
    }

    /// The hosts and clients by name.
    pub fn hosts(&self) -> impl Iterator<Item = &SimHost> {
        self.hosts.values()
    }

    /// Simulated time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// For injecting faults from inside.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Lets a fault happen now. Panics where it names a host that is not there, or lets a client
    /// crash.
    pub fn inject(&mut self, fault: Fault) {
        self.frozen.store(true, Ordering::SeqCst);
        match fault {
            Fault::PowerCut(name) => self.power_cut(&name, true),
            Fault::Kill(name) => self.kill(&name),
            Fault::Start(name) => {
                if self.get(&name).is_up() {
                    self.kill(&name);
                }
                self.get(&name).up.store(true, Ordering::SeqCst);
                self.sim.bounce(&*name);
            }
            Fault::Partition(a, b) => {
                self.sim.partition(&*a, &*b);
                self.cut.extend([(a.clone(), b.clone()), (b, a)]);
            }
            Fault::PartitionOneway(from, to) => {
                self.sim.partition_oneway(&*from, &*to);
                self.cut.insert((from, to));
            }
            Fault::Repair(a, b) => {
                self.sim.repair(&*a, &*b);
                self.cut.remove(&(a.clone(), b.clone()));
                self.cut.remove(&(b, a));
            }
            Fault::Latency(a, b, latency) => self.sim.set_link_latency(&*a, &*b, latency),
        }
        self.frozen.store(false, Ordering::SeqCst);
    }

    fn get(&self, name: &str) -> SimHost {
        match self.hosts.get(name) {
            Some(host) => host.clone(),
            None => panic!("there is no simulated host {name}"),
        }
    }

    fn kill(&mut self, name: &str) {
        let host = self.get(name);
        host.disk.kill();
        host.up.store(false, Ordering::SeqCst);
        self.sim.crash(name);
    }

    fn power_cut(&mut self, name: &str, disk: bool) {
        let host = self.get(name);
        if disk {
            host.disk.crash();
        }
        host.up.store(false, Ordering::SeqCst);
        // Its connections must not be closed towards the others as its tasks are dropped.
        let others: Vec<String> =
            self.hosts.keys().filter(|o| *o != name && !self.cut.contains(&(name.to_owned(), (*o).clone()))).cloned().collect();
        others.iter().for_each(|other| self.sim.partition_oneway(name, &**other));
        self.sim.crash(name);
        others.iter().for_each(|other| self.sim.repair_oneway(name, &**other));
    }

    /// One tick of all hosts, then the faults that are due. Whether all clients have ended.
    pub fn step(&mut self) -> Result<bool> {
        let ended = self.sim.step()?;
        let cut: Vec<String> = self.hosts.values().filter(|h| h.disk.take_cut()).map(|h| h.name.clone()).collect();
        self.frozen.store(true, Ordering::SeqCst);
        cut.iter().for_each(|name| self.power_cut(name, false));
        self.frozen.store(false, Ordering::SeqCst);
        while let Some(fault) = self.faults.next() {
            self.inject(fault);
        }
        Ok(ended)
    }

    /// Runs until all clients have ended. An error where a program failed or time is up.
    pub fn run(&mut self) -> Result {
        while !self.step()? {}
        Ok(())
    }

    /// Runs for so long, clients or not.
    pub fn run_for(&mut self, duration: Duration) -> Result {
        let end = self.elapsed() + duration;
        while self.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }
}

/// While a world is dropped its tasks are, too.
impl Drop for World {
    fn drop(&mut self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.hosts.values().for_each(|h| h.disk.kill());
    }
}
