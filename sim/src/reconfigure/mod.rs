//! A cluster that is changed while it breaks: one or three coordinators, four to seven nodes, two users
//! who write to the same entries, and an operator who adds, drains, replaces, resizes and removes nodes.
//! The story of succession adds a warden, who lets coordinators come and go, one to five of them; that of recoding
//! a coder, who has everything coded anew now and then; that of restoration an archivist, who has the catalog
//! restored from a backup when all coordinators have lost their disks, and a second half that is played on that.
//!
//! Promised, and checked: the history of the entries is linearisable (see [`crate::check`]), so nothing
//! acknowledged is lost and nothing removed comes back; every change of the layout ends; within a bounded
//! time after the last fault every shard is at its place, and nobody holds one that belongs elsewhere; what the
//! status calls safe is not missing anything;
//! after everything was removed, and its grace is over, no disk holds a shard; and all coordinators hold the same
//! catalog, by the sums over its rows.

mod archivist;
mod coder;
mod operator;
mod servers;
mod stage;
mod troubles;
mod user;
mod warden;

use crate::check::Verdict;
use crate::cluster::dice::Dice;
use crate::cluster::{Ending, Outcome, align_tasks};
use env::sim::{Config, World};
use servers::Build;
use stage::{Phase, Setup, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;
use troubles::Troubles;
use user::Part;

/// Users.
const USERS: usize = 2;
/// Longest time in which all coordinators have applied what one of them has.
const SAME_WITHIN: Duration = Duration::from_secs(60);
/// Most simulated time that a phase takes before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(3000);

/// Coordinators that come later, where they come and go.
const HEIRS: usize = 2;

/// Runs the story. The error says which promise was broken, with the end of the history.
pub fn run(seed: u64) -> Result<(), String> {
    told(play(seed))
}

/// Runs a seed twice: both times the same must happen, at the same times.
pub fn repeats(seed: u64) -> Result<(), String> {
    crate::cluster::compare(play(seed), play(seed))
}

/// Runs the story in which coordinators come and go as well.
pub fn run_succession(seed: u64) -> Result<(), String> {
    told(play_succession(seed))
}

/// Runs a seed of it twice.
pub fn succession_repeats(seed: u64) -> Result<(), String> {
    crate::cluster::compare(play_succession(seed), play_succession(seed))
}

/// Runs the story in which the policy changes as well.
pub fn run_recoding(seed: u64) -> Result<(), String> {
    told(play_recoding(seed))
}

/// Runs a seed of it twice.
pub fn recoding_repeats(seed: u64) -> Result<(), String> {
    crate::cluster::compare(play_recoding(seed), play_recoding(seed))
}

/// Runs the story in which all coordinators are lost and the catalog is restored.
pub fn run_restoration(seed: u64) -> Result<(), String> {
    told(play_restoration(seed))
}

/// Runs a seed of it twice.
pub fn restoration_repeats(seed: u64) -> Result<(), String> {
    crate::cluster::compare(play_restoration(seed), play_restoration(seed))
}

fn told(Outcome { history, failure }: Outcome) -> Result<(), String> {
    failure.map_or(Ok(()), |why| Err(format!("{why}\n{}", history.tail(60))))
}

/// Plays the story of a seed. One at a time in a process.
pub fn play(seed: u64) -> Outcome {
    play_with(seed, &Also::default())
}

/// Plays the story of a seed in which coordinators come and go as well. One at a time in a process.
pub fn play_succession(seed: u64) -> Outcome {
    play_with(seed, &Also { heirs: HEIRS, ..Also::default() })
}

/// Plays the story of a seed in which the policy changes as well. One at a time in a process.
pub fn play_recoding(seed: u64) -> Outcome {
    play_with(seed, &Also { recodes: true, ..Also::default() })
}

/// Plays the story of a seed in which all coordinators are lost and the catalog is restored. One at a time in a process.
pub fn play_restoration(seed: u64) -> Outcome {
    play_with(seed, &Also { restores: true, recodes: seed.is_multiple_of(3), ..Also::default() })
}

/// What happens beside what the operator does.
#[derive(Debug, Clone, Default)]
struct Also {
    /// Coordinators come and go: so many may come.
    heirs: usize,
    /// The policy changes.
    recodes: bool,
    /// All coordinators are lost, and the catalog is restored.
    restores: bool,
}

fn play_with(seed: u64, also: &Also) -> Outcome {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    align_tasks();
    let mut dice = Dice::new(seed, "director");
    let build = Build {
        coordinators: [1, 3, 3][dice.below(3) as usize],
        heirs: also.heirs,
        nodes: [4, 5, 5, 6][dice.below(4) as usize],
        spares: 2,
        out: [Some(30), Some(60), None][dice.below(3) as usize].map(Duration::from_secs),
        checkpoint_every: [10, 60, 1000][dice.below(3) as usize],
    };
    let zones = dice.one_in(3);
    let setup = |i: usize, dice: &mut Dice| {
        let zone = if zones { ["east", "west", "north"][i % 3] } else { "" };
        (i, Setup { capacity: [96 << 20, 512 << 20, 2 << 30][dice.below(3) as usize], zone: zone.into() })
    };
    let setups: BTreeMap<usize, Setup> = (0..build.nodes + build.spares).map(|i| setup(i, &mut dice)).collect();
    let stage = Stage::new(setups);
    let ended = direct(seed, dice, &stage, &build, also);
    let shared = stage.lock();
    Outcome { history: shared.history.clone(), failure: shared.failure.clone().or(ended.err()) }
}

fn direct(seed: u64, mut dice: Dice, stage: &Stage, build: &Build, also: &Also) -> Result<(), String> {
    let ms = Duration::from_millis;
    let config =
        Config { tick: ms(4), latency: (ms(4), ms(4 + dice.below(20))), duration: Duration::from_secs(100_000), ..Config::new(seed) };
    let mut world = Ending(World::with(&config));
    stage.lock().tell(Duration::ZERO, format!("{build:?}"));
    for i in 0..build.coordinators + build.heirs {
        let (on, build) = (stage.clone(), build.clone());
        world.host(&format!("coordinator{i}"), move |env| servers::coordinator(env, on.clone(), build.clone(), i));
    }
    for i in 0..build.nodes + build.spares {
        let on = stage.clone();
        world.host(&format!("node{i}"), move |env| servers::node(env, on.clone(), i));
    }
    for me in 0..USERS {
        let (on, part) = (stage.clone(), Part { me, coordinators: build.coordinators, nodes: build.nodes, seed });
        world.host(&format!("user{me}"), move |env| user::user(env, on.clone(), part.clone()));
    }
    let (on, spares) = (stage.clone(), (build.nodes..build.nodes + build.spares).collect::<Vec<_>>());
    world.host("operator", move |env| operator::operator(env, on.clone(), seed, spares.clone()));

    if build.heirs > 0 {
        let (on, build) = (stage.clone(), build.clone());
        world.host("warden", move |env| warden::warden(env, on.clone(), seed, build.clone()));
    }

    if also.recodes {
        let on = stage.clone();
        world.host("coder", move |env| coder::coder(env, on.clone(), seed));
    }

    if also.restores {
        let (on, build) = (stage.clone(), build.clone());
        world.host("archivist", move |env| archivist::archivist(env, on.clone(), seed, build.clone()));
    }

    let mut troubles = Troubles::new(seed, &world);
    until_ready(&mut world, stage, &mut troubles, Phase::Setup)?;
    let mut play = |world: &mut World, troubles: &mut Troubles, phase: Phase, longest: u64| {
        enter(world, stage, phase);
        let end = world.elapsed() + Duration::from_secs(dice.between(longest / 3, longest));
        while world.elapsed() < end {
            step(world, stage)?;
            troubles.step(world, stage);
        }
        troubles.end(world, stage);
        Ok::<(), String>(())
    };
    let through = |world: &mut World, troubles: &mut Troubles, phase: Phase| {
        enter(world, stage, phase);
        until_ready(world, stage, troubles, phase)
    };
    play(&mut world, &mut troubles, Phase::Play, 180)?;
    through(&mut world, &mut troubles, Phase::Mend)?;
    through(&mut world, &mut troubles, Phase::Check)?;
    explained(stage)?;
    if also.restores {
        through(&mut world, &mut troubles, Phase::Backup)?;
        play(&mut world, &mut troubles, Phase::Later, 90)?;
        through(&mut world, &mut troubles, Phase::Rest)?;
        through(&mut world, &mut troubles, Phase::Restore)?;
        play(&mut world, &mut troubles, Phase::Anew, 120)?;
        through(&mut world, &mut troubles, Phase::MendAnew)?;
        through(&mut world, &mut troubles, Phase::CheckAnew)?;
        explained(stage)?;
    }
    through(&mut world, &mut troubles, Phase::Clear)?;
    until_same(&mut world, stage)
}

/// Whether there is an order that explains what users did and saw.
fn explained(stage: &Stage) -> Result<(), String> {
    let verdict = stage.lock().record.check();
    match verdict {
        Verdict::Linearisable => Ok(()),
        Verdict::Violated(why) => Err(format!("not linearisable: {why}")),
        Verdict::Undecided(why) => Err(format!("too much is open to check the history: {why}")),
    }
}

/// Waits until all coordinators have applied as much: then they hold the same, and what was written.
fn until_same(world: &mut World, stage: &Stage) -> Result<(), String> {
    let patience = world.elapsed() + SAME_WITHIN;
    loop {
        match compared(stage)? {
            None => return Ok(()),
            Some(indexes) if world.elapsed() > patience => {
                return Err(format!("coordinators are apart for {SAME_WITHIN:?}: they have applied up to {indexes:?}"));
            }
            Some(_) => step(world, stage)?,
        }
    }
}

/// Up to which entries coordinators have applied the log; `None` where all are equally far and have the same. An
/// error where those who are equally far differ.
fn compared(stage: &Stage) -> Result<Option<BTreeSet<u64>>, String> {
    let running: Vec<_> = stage.lock().coordinators.values().filter_map(Weak::upgrade).collect();
    let running: Vec<_> = running.iter().map(|r| r.lock().unwrap_or_else(PoisonError::into_inner)).collect();
    let indexes: BTreeSet<u64> = running.iter().map(|r| r.applied_index()).collect();
    if indexes.len() > 1 || running.len() < stage.lock().seats.len() {
        return Ok(Some(indexes));
    }
    let digests = running.iter().map(|r| r.digest()).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    match digests.iter().all(|d| d.kept == d.counted) && digests.windows(2).all(|w| w[0] == w[1]) {
        true => Ok(None),
        false => Err(format!("the coordinators' catalogs differ: {digests:?}")),
    }
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

/// Waits until all who take part are through a phase.
fn until_ready(world: &mut World, stage: &Stage, troubles: &mut Troubles, phase: Phase) -> Result<(), String> {
    let patience = world.elapsed() + PATIENCE;
    // In the end the operator is alone.
    let acts = |name: &str| {
        name == "operator" || phase != Phase::Clear && (["warden", "coder", "archivist"].contains(&name) || name.starts_with("user"))
    };
    let actors: Vec<String> = world.hosts().map(|h| h.name().to_owned()).filter(|name| acts(name)).collect();
    while actors.iter().any(|who| stage.lock().ready.get(who).is_none_or(|done| *done < phase)) {
        step(world, stage)?;
        troubles.wishes(world, stage);
        if world.elapsed() > patience {
            return Err(format!("{phase:?} takes more than {PATIENCE:?}"));
        }
    }
    Ok(())
}
