//! What goes wrong, and when: one trouble after another as the seed has it, each with the time at
//! which it ends. At most two nodes are down at once, as many as the policy can lose; the coordinator
//! and the users' machines go down whenever.

use super::dice::Dice;
use super::stage::Stage;
use env::sim::{Fault, SimHost, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nodes that may be down at once.
const NODES_DOWN: usize = 2;
/// Farthest that a node's clock is off.
const DRIFT_MS: u64 = 45_000;

/// How a trouble ends.
#[derive(Debug, Clone)]
enum Mend {
    /// A host is started, where it is down.
    Start(String),
    Repair(String, String),
    Fast(String, String),
    Quick(String),
}

/// The troubles of a run.
pub struct Troubles {
    dice: Dice,
    /// How hard the world is: longest pause between two troubles, in milliseconds.
    pause: u64,
    next: Duration,
    /// What ends when; the number keeps those of one moment apart.
    mends: BTreeMap<(Duration, u64), Mend>,
    number: u64,
    /// Hosts that are down or soon will be.
    down: BTreeSet<String>,
    nodes: Vec<String>,
    users: Vec<String>,
    /// How far all clocks were put forward.
    passed_ms: u64,
    /// How far single ones are off.
    drifts: BTreeMap<String, i64>,
}

impl Troubles {
    /// Begins now.
    pub fn new(seed: u64, world: &World) -> Self {
        let mut dice = Dice::new(seed, "troubles");
        let named = |prefix: &str| world.hosts().map(|h| h.name().to_owned()).filter(|n| n.starts_with(prefix)).collect();
        Troubles {
            pause: [1500, 4000, 12_000][dice.below(3) as usize],
            next: world.elapsed() + Duration::from_millis(dice.below(2000)),
            mends: BTreeMap::new(),
            number: 0,
            down: BTreeSet::new(),
            nodes: named("node"),
            users: named("user"),
            passed_ms: 0,
            drifts: BTreeMap::new(),
            dice,
        }
    }

    /// Lets begin and end what is due.
    pub fn step(&mut self, world: &mut World, stage: &Stage) {
        let now = world.elapsed();
        while let Some(entry) = self.mends.first_entry().filter(|e| e.key().0 <= now) {
            let mend = entry.remove();
            self.mend(mend, world, stage);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.dice.below(self.pause));
            self.trouble(world, stage);
            stage.lock().broken = Some(now);
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
                if !host(world, &name).is_up() {
                    world.inject(Fault::Start(name));
                }
            }
            Mend::Repair(a, b) => world.inject(Fault::Repair(a, b)),
            Mend::Fast(a, b) => {
                let ms = Duration::from_millis(self.dice.between(2, 20));
                world.inject(Fault::Latency(a, b, ms));
            }
            Mend::Quick(name) => host(world, &name).set_slowness(Duration::ZERO),
        }
    }

    fn trouble(&mut self, world: &mut World, stage: &Stage) {
        let tell = |world: &World, text: String| stage.lock().tell(world.elapsed(), text);
        match self.dice.below(20) {
            0..=8 => {
                let Some(name) = self.victim() else { return };
                self.down.insert(name.clone());
                let longest = if self.dice.one_in(3) { 30_000 } else { 5000 };
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
                let ms = self.dice.below(15_000);
                self.later(world, ms, Mend::Repair(a, b));
            }
            13..=15 => {
                let (a, b) = self.pair();
                let ms = self.dice.between(50, 800);
                tell(world, format!("slow link {a} {b}: {ms} ms"));
                world.inject(Fault::Latency(a.clone(), b.clone(), Duration::from_millis(ms)));
                let ms = self.dice.below(20_000);
                self.later(world, ms, Mend::Fast(a, b));
            }
            16..=17 => {
                let name = self.server();
                let ms = self.dice.between(2, 80);
                tell(world, format!("slow disk {name}: {ms} ms"));
                host(world, &name).set_slowness(Duration::from_millis(ms));
                let ms = self.dice.below(20_000);
                self.later(world, ms, Mend::Quick(name));
            }
            18 => {
                // Time passes, for all: over the grace of what was removed.
                let minutes = self.dice.between(10, 90);
                self.passed_ms += minutes * 60_000;
                tell(world, format!("{minutes} minutes pass"));
                self.set_clocks(world);
            }
            _ => {
                let name = self.nodes[self.dice.below(self.nodes.len() as u64) as usize].clone();
                let drift = self.dice.below(2 * DRIFT_MS) as i64 - DRIFT_MS as i64;
                tell(world, format!("clock of {name}: {drift} ms"));
                self.drifts.insert(name, drift);
                self.set_clocks(world);
            }
        }
    }

    /// Who goes down next.
    fn victim(&mut self) -> Option<String> {
        let nodes_down = self.down.iter().filter(|n| self.nodes.contains(n)).count();
        let of = match self.dice.below(8) {
            0..=1 => vec!["coordinator".to_owned()],
            2 => self.users.clone(),
            _ if nodes_down >= NODES_DOWN => return None,
            _ => self.nodes.clone(),
        };
        let up: Vec<String> = of.into_iter().filter(|n| !self.down.contains(n)).collect();
        up.get(self.dice.below(up.len() as u64) as usize).cloned()
    }

    fn server(&mut self) -> String {
        let all: Vec<&String> = self.nodes.iter().collect();
        match self.dice.below(all.len() as u64 + 1) as usize {
            i if i < all.len() => all[i].clone(),
            _ => "coordinator".to_owned(),
        }
    }

    /// Two hosts that talk to each other, in any order.
    fn pair(&mut self) -> (String, String) {
        let a = self.server();
        loop {
            let b = if self.dice.one_in(2) { self.users[self.dice.below(self.users.len() as u64) as usize].clone() } else { self.server() };
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
