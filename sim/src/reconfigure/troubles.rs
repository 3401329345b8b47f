//! What goes wrong by itself, and what the operator lets happen to machines. At most two nodes are down
//! at once; coordinators and users' machines go down whenever.

use super::stage::{Stage, Wish};
use crate::cluster::dice::Dice;
use env::sim::{Fault, SimHost, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nodes that may be down at once.
const NODES_DOWN: usize = 2;
/// Farthest that a node's clock is off.
const DRIFT_MS: u64 = 45_000;
/// Size of a disk that has room.
const ROOM: u64 = 1 << 40;

/// How a trouble ends.
#[derive(Debug, Clone)]
enum Mend {
    Start(String),
    Repair(String, String),
    Fast(String, String),
    Quick(String),
    Room(String),
    Works(String),
}

/// The troubles of a run.
pub struct Troubles {
    dice: Dice,
    /// Longest pause between two troubles, in milliseconds.
    pause: u64,
    next: Duration,
    mends: BTreeMap<(Duration, u64), Mend>,
    number: u64,
    /// Hosts that are down or soon will be.
    down: BTreeSet<String>,
    /// Loses its power again soon after it comes back.
    interrupted: Option<String>,
    servers: Vec<String>,
    users: Vec<String>,
    /// How far all clocks were put forward.
    passed_ms: u64,
    drifts: BTreeMap<String, i64>,
}

impl Troubles {
    /// Begins now.
    pub fn new(seed: u64, world: &World) -> Self {
        let mut dice = Dice::new(seed, "troubles");
        let named =
            |prefix: &str| -> Vec<String> { world.hosts().map(|h| h.name().to_owned()).filter(|n| n.starts_with(prefix)).collect() };
        Troubles {
            pause: [3000, 8000, 20_000][dice.below(3) as usize],
            next: world.elapsed() + Duration::from_millis(dice.below(2000)),
            mends: BTreeMap::new(),
            number: 0,
            down: BTreeSet::new(),
            interrupted: None,
            servers: [named("coordinator"), named("node")].concat(),
            users: named("user"),
            passed_ms: 0,
            drifts: BTreeMap::new(),
            dice,
        }
    }

    /// Lets begin and end what is due.
    pub fn step(&mut self, world: &mut World, stage: &Stage) {
        self.wishes(world, stage);
        let now = world.elapsed();
        if now >= self.next {
            self.next = now + Duration::from_millis(self.dice.below(self.pause));
            self.trouble(world, stage);
            stage.lock().broken = Some(now);
        }
    }

    /// What the operator wants, and what ends.
    pub fn wishes(&mut self, world: &mut World, stage: &Stage) {
        let now = world.elapsed();
        while let Some(entry) = self.mends.first_entry().filter(|e| e.key().0 <= now) {
            let mend = entry.remove();
            self.mend(mend, world, stage);
        }
        loop {
            let wish = stage.lock().wishes.pop_front();
            let Some(wish) = wish else { break };
            stage.lock().broken = Some(now);
            self.grant(wish, world, stage);
        }
        if !self.mends.is_empty() {
            stage.lock().broken = Some(now);
        }
    }

    /// Ends all troubles.
    pub fn end(&mut self, world: &mut World, stage: &Stage) {
        for mend in std::mem::take(&mut self.mends).into_values() {
            self.mend(mend, world, stage);
        }
        self.drifts.clear();
        self.set_clocks(world);
        stage.lock().broken = Some(world.elapsed());
    }

    fn grant(&mut self, wish: Wish, world: &mut World, stage: &Stage) {
        stage.lock().tell(world.elapsed(), format!("{wish:?}"));
        let name = |number: usize| format!("node{number}");
        match wish {
            Wish::Wipe(n, rest) => {
                world.inject(Fault::PowerCut(name(n)));
                host(world, &name(n)).disk().wipe();
                self.down.insert(name(n));
                self.later(world, rest, Mend::Start(name(n)));
            }
            Wish::Discard(n) => {
                stage.lock().gone.insert(n);
                world.inject(Fault::PowerCut(name(n)));
                host(world, &name(n)).disk().wipe();
                self.mends.retain(|_, mend| !matches!(mend, Mend::Start(of) if *of == name(n)));
            }
            Wish::Restart(n) => {
                if !stage.lock().gone.contains(&n) {
                    world.inject(Fault::Kill(name(n)));
                    self.down.insert(name(n));
                    self.later(world, 500, Mend::Start(name(n)));
                }
            }
            Wish::Rot(n) => {
                stage.lock().rotten = true;
                match self.dice.one_in(3) {
                    true => {
                        let sectors = self.damage(&host(world, &name(n)));
                        stage.lock().tell(world.elapsed(), format!("{sectors} bad sectors on {}", name(n)));
                    }
                    false => self.rot(&host(world, &name(n))),
                }
            }
            Wish::Vacate(n) => {
                let name = format!("coordinator{n}");
                {
                    let mut shared = stage.lock();
                    shared.tokens.remove(&name);
                    shared.seats.remove(&n);
                    shared.vacated.insert(n);
                }
                world.inject(Fault::PowerCut(name.clone()));
                host(world, &name).disk().wipe();
                self.down.insert(name.clone());
                let rest = self.dice.below(5000);
                self.later(world, rest, Mend::Start(name));
            }
            Wish::Interrupt(n) => self.interrupted = Some(format!("coordinator{n}")),
            Wish::Hours(hours) => {
                self.passed_ms += hours * 3_600_000;
                self.set_clocks(world);
            }
        }
    }

    /// Sectors of a device's log cannot be read any more. Those of the last segment are spared: what a device cannot
    /// even open by has to be replaced.
    fn damage(&mut self, host: &SimHost) -> usize {
        let segments: Vec<_> =
            host.disk().files().into_iter().filter(|(p, len)| p.extension().is_some_and(|e| e == "seg") && *len > 0).collect();
        let Some((_, sealed)) = segments.split_last() else { return 0 };
        let mut damaged = 0;
        for _ in 0..self.dice.between(1, 4) {
            let Some((path, len)) = sealed.get(self.dice.below(sealed.len() as u64) as usize) else { break };
            // Not its header, and not its footer.
            let (first, last) = (4096, len * 9 / 10);
            if first < last {
                let at = self.dice.between(first, last) / 512 * 512;
                damaged += usize::from(host.disk().damage(path, at..at + 512).is_ok());
            }
        }
        damaged
    }

    /// Bits turn over in some places of a device's log.
    fn rot(&mut self, host: &SimHost) {
        let segments: Vec<_> =
            host.disk().files().into_iter().filter(|(p, len)| p.extension().is_some_and(|e| e == "seg") && *len > 0).collect();
        for _ in 0..self.dice.between(1, 6) {
            let Some((path, _)) = segments.get(self.dice.below(segments.len() as u64) as usize) else { return };
            let used = host.disk().contents(path).map_or(0, |bytes| bytes.iter().rposition(|b| *b != 0).unwrap_or(0));
            // The header of a segment is written once and read at once; what rots is what lies there.
            if used > 4096 {
                let _ = host.disk().flip(path, self.dice.between(4096, used as u64));
            }
        }
    }

    fn set_clocks(&self, world: &World) {
        for host in world.hosts() {
            host.set_slept_ms(self.passed_ms);
            host.set_drift_ms(self.drifts.get(host.name()).copied().unwrap_or(0));
        }
    }

    fn later(&mut self, world: &World, ms: u64, mend: Mend) {
        self.number += 1;
        self.mends.insert((world.elapsed() + Duration::from_millis(ms), self.number), mend);
    }

    fn mend(&mut self, mend: Mend, world: &mut World, stage: &Stage) {
        stage.lock().tell(world.elapsed(), format!("{mend:?}"));
        match mend {
            Mend::Start(name) => {
                self.down.remove(&name);
                host(world, &name).disk().crash_never();
                let gone = stage.lock().gone.iter().any(|n| name == format!("node{n}"));
                if !gone && !host(world, &name).is_up() {
                    if self.interrupted.take_if(|of| *of == name).is_some() {
                        let operations = self.dice.below(80);
                        stage.lock().tell(world.elapsed(), format!("power cut {name} after {operations} disk operations"));
                        host(world, &name).disk().crash_after(operations);
                        self.later(world, 10_000, Mend::Start(name.clone()));
                    }
                    world.inject(Fault::Start(name));
                }
            }
            Mend::Repair(a, b) => world.inject(Fault::Repair(a, b)),
            Mend::Fast(a, b) => {
                let ms = Duration::from_millis(self.dice.between(2, 20));
                world.inject(Fault::Latency(a, b, ms));
            }
            Mend::Quick(name) => host(world, &name).set_slowness(Duration::ZERO),
            Mend::Room(name) => host(world, &name).disk().set_capacity(ROOM),
            Mend::Works(name) => host(world, &name).disk().set_failing(false),
        }
    }

    fn trouble(&mut self, world: &mut World, stage: &Stage) {
        let tell = |world: &World, text: String| stage.lock().tell(world.elapsed(), text);
        match self.dice.below(20) {
            0..=8 => {
                let Some(name) = self.victim(stage) else { return };
                self.down.insert(name.clone());
                // Some are away long enough to be given up.
                let longest = [5000, 5000, 20_000, 110_000][self.dice.below(4) as usize];
                let mut rest = self.dice.below(longest);
                match self.dice.below(3) {
                    0 => {
                        tell(world, format!("kill {name}"));
                        world.inject(Fault::Kill(name.clone()));
                    }
                    1 => {
                        tell(world, format!("power cut {name}"));
                        world.inject(Fault::PowerCut(name.clone()));
                    }
                    _ => {
                        let operations = self.dice.below(40);
                        tell(world, format!("power cut {name} after {operations} disk operations"));
                        host(world, &name).disk().crash_after(operations);
                        rest += 500;
                    }
                }
                self.later(world, rest, Mend::Start(name));
            }
            9..=12 => {
                let (a, b) = self.pair();
                tell(world, format!("cut {a} {b}"));
                let fault = if self.dice.one_in(3) { Fault::PartitionOneway } else { Fault::Partition };
                world.inject(fault(a.clone(), b.clone()));
                let ms = self.dice.below(20_000);
                self.later(world, ms, Mend::Repair(a, b));
            }
            13..=14 => {
                let (a, b) = self.pair();
                let ms = self.dice.between(50, 800);
                tell(world, format!("slow link {a} {b}: {ms} ms"));
                world.inject(Fault::Latency(a.clone(), b.clone(), Duration::from_millis(ms)));
                let ms = self.dice.below(20_000);
                self.later(world, ms, Mend::Fast(a, b));
            }
            15 => {
                let name = self.server();
                let ms = self.dice.between(2, 80);
                tell(world, format!("slow disk {name}: {ms} ms"));
                host(world, &name).set_slowness(Duration::from_millis(ms));
                let ms = self.dice.below(20_000);
                self.later(world, ms, Mend::Quick(name));
            }
            16 => {
                let name = self.server();
                let (host, ms) = (host(world, &name), self.dice.below(30_000));
                let disk = host.disk();
                let is_node = name.starts_with("node");
                match self.dice.below(4) {
                    0 => {
                        let syncs = self.dice.below(8);
                        tell(world, format!("failing sync {name} after {syncs}"));
                        disk.fail_sync_after(syncs);
                    }
                    1 if !is_node => {
                        tell(world, format!("failing disk {name}"));
                        disk.set_failing(true);
                        self.later(world, ms / 4, Mend::Works(name));
                    }
                    _ => {
                        tell(world, format!("full disk {name}"));
                        let room = self.dice.below(if is_node { 1 << 20 } else { 64 << 10 });
                        disk.set_capacity(disk.used() + room);
                        self.later(world, ms, Mend::Room(name));
                    }
                }
            }
            17 => {
                let minutes = self.dice.between(10, 90);
                self.passed_ms += minutes * 60_000;
                tell(world, format!("{minutes} minutes pass"));
                self.set_clocks(world);
            }
            _ => {
                let name = self.server();
                let drift = self.dice.below(2 * DRIFT_MS) as i64 - DRIFT_MS as i64;
                tell(world, format!("clock of {name}: {drift} ms"));
                self.drifts.insert(name, drift);
                self.set_clocks(world);
            }
        }
    }

    /// Who goes down next.
    fn victim(&mut self, stage: &Stage) -> Option<String> {
        let away = stage.lock().hurt.keys().map(|n| format!("node{n}")).collect::<BTreeSet<_>>();
        let nodes_down = self.down.union(&away).filter(|n| n.starts_with("node")).count();
        let (nodes, coordinators): (Vec<String>, Vec<String>) = self.servers.iter().cloned().partition(|n| n.starts_with("node"));
        let of = match self.dice.below(8) {
            0..=2 => coordinators,
            3 => self.users.clone(),
            _ if nodes_down >= NODES_DOWN => return None,
            _ => nodes,
        };
        let up: Vec<String> = of.into_iter().filter(|n| !self.down.contains(n)).collect();
        up.get(self.dice.below(up.len() as u64) as usize).cloned()
    }

    fn server(&mut self) -> String {
        self.servers[self.dice.below(self.servers.len() as u64) as usize].clone()
    }

    /// Two hosts that talk to each other, in any order.
    fn pair(&mut self) -> (String, String) {
        let a = self.server();
        loop {
            let b = if self.dice.one_in(3) { self.users[self.dice.below(self.users.len() as u64) as usize].clone() } else { self.server() };
            if a != b {
                return if self.dice.one_in(2) { (a, b) } else { (b, a) };
            }
        }
    }
}

fn host(world: &World, name: &str) -> SimHost {
    match world.hosts().find(|h| h.name() == name) {
        Some(host) => host.clone(),
        None => panic!("there is no simulated host {name}"),
    }
}
