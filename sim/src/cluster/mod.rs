//! A whole cluster under faults: one coordinator, four to six nodes and two users, all of them the real
//! crates on the simulated world.
//!
//! The users put, overwrite, move, copy, remove, read and list, while the seed lets servers and users
//! crash, lose what they did not sync, and cuts, slows and skews what is between them. Then all is
//! mended. Promised, and checked: every answer agrees with what was possible then (see [`model`]);
//! what was acknowledged is there at the end, and nothing is half there; within a bounded time
//! every chunk is at full redundancy again.

pub mod dice;
pub mod model;
mod servers;
pub mod stage;
mod troubles;
pub(crate) mod user;

use dice::Dice;
use env::sim::{Config, World};
use servers::Build;
use stage::{History, Phase, Stage};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use troubles::Troubles;
use user::Part;

/// Users.
const USERS: usize = 2;
/// Shelves of each user.
const SHELVES: usize = 2;
/// Most simulated time that a phase takes before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(1200);

/// How a run ended.
pub struct Outcome {
    /// All that was done and happened.
    pub history: History,
    /// The first promise that was not kept.
    pub failure: Option<String>,
}

/// Runs the story. The error says which promise was broken, with the end of the history.
pub fn run(seed: u64) -> Result<(), String> {
    let Outcome { history, failure } = play(seed);
    match failure {
        None => Ok(()),
        Some(why) => Err(format!("{why}\n{}", history.tail(60))),
    }
}

/// Runs a seed twice: both times the same must happen, at the same times.
pub fn repeats(seed: u64) -> Result<(), String> {
    compare(play(seed), play(seed))
}

/// Two runs of one seed.
pub(crate) fn compare(first: Outcome, again: Outcome) -> Result<(), String> {
    if first.history == again.history && first.failure == again.failure {
        return first.failure.map_or(Ok(()), Err);
    }
    let lines = first.history.0.iter().zip(&again.history.0);
    let common = lines.take_while(|(a, b)| a == b).count();
    let line = |history: &History| history.0.get(common).map_or("the end".into(), ToString::to_string);
    Err(format!("another history the second time, after {common} lines:\n{}\n{}", line(&first.history), line(&again.history)))
}

/// Plays the story of a seed. One at a time in a process.
pub fn play(seed: u64) -> Outcome {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    align_tasks();
    let stage = Stage::new(USERS * SHELVES);
    let ended = direct(seed, &stage);
    let shared = stage.lock();
    Outcome { history: shared.history.clone(), failure: shared.failure.clone().or(ended.err()) }
}

/// When a host dies, tokio drops its tasks in an order in which their process-wide numbers play a
/// part (modulo a small power of two), and with that its connections close. So each play begins with
/// the same remainder.
pub(crate) fn align_tasks() {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        let number = || runtime.spawn(async {}).id().to_string().parse::<u64>().unwrap_or(0);
        while number() % 64 != 0 {}
    }
}

/// A world whose disks are emptied at its end: whatever of the programs in it is left over keeps no
/// contents of files.
pub(crate) struct Ending(pub World);

impl std::ops::Deref for Ending {
    type Target = World;

    fn deref(&self) -> &World {
        &self.0
    }
}

impl std::ops::DerefMut for Ending {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.hosts().for_each(|host| host.disk().wipe());
    }
}

fn direct(seed: u64, stage: &Stage) -> Result<(), String> {
    let mut dice = Dice::new(seed, "director");
    let ms = Duration::from_millis;
    let config =
        Config { tick: ms(2), latency: (ms(2), ms(2 + dice.below(20))), duration: Duration::from_secs(100_000), ..Config::new(seed) };
    let mut world = Ending(World::with(&config));
    let build = Build {
        nodes: [4, 4, 5, 6][dice.below(4) as usize],
        capacity: [512 << 20, 2 << 30][dice.below(2) as usize],
        checkpoint_every: [10, 60, 1000][dice.below(3) as usize],
    };
    let (on, built) = (stage.clone(), build.clone());
    world.host("coordinator", move |env| servers::coordinator(env, on.clone(), built.clone()));
    for i in 0..build.nodes {
        let (on, built) = (stage.clone(), build.clone());
        world.host(&format!("node{i}"), move |env| servers::node(env, on.clone(), built.clone(), i));
    }
    for me in 0..USERS {
        let (on, part) = (stage.clone(), Part { me, users: USERS, each: SHELVES, nodes: build.nodes, seed });
        world.host(&format!("user{me}"), move |env| user::user(env, on.clone(), part));
    }
    until_ready(&mut world, stage, Phase::Setup)?;
    enter(&world, stage, Phase::Play);
    let end = world.elapsed() + Duration::from_secs(dice.between(20, 90));
    let mut troubles = Troubles::new(seed, &world);
    while world.elapsed() < end {
        step(&mut world, stage)?;
        troubles.step(&mut world, stage);
    }
    troubles.end(&mut world, stage);
    enter(&world, stage, Phase::Mend);
    until_ready(&mut world, stage, Phase::Mend)?;
    enter(&world, stage, Phase::Check);
    until_ready(&mut world, stage, Phase::Check)
}

fn enter(world: &World, stage: &Stage, phase: Phase) {
    let mut shared = stage.lock();
    shared.phase = phase;
    shared.tell(world.elapsed(), format!("{phase:?}"));
}

/// One tick. An error as soon as a promise was not kept.
fn step(world: &mut World, stage: &Stage) -> Result<(), String> {
    world.step().map_err(|e| e.to_string())?;
    match &stage.lock().failure {
        Some(why) => Err(why.clone()),
        None => Ok(()),
    }
}

/// Waits until all users are through a phase.
fn until_ready(world: &mut World, stage: &Stage, phase: Phase) -> Result<(), String> {
    let patience = world.elapsed() + PATIENCE;
    while (0..USERS).any(|me| stage.lock().ready.get(&me).is_none_or(|done| *done < phase)) {
        step(world, stage)?;
        if world.elapsed() > patience {
            return Err(format!("{phase:?} takes more than {PATIENCE:?}"));
        }
    }
    Ok(())
}
