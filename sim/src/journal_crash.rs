//! A journal on a disk that loses its power, over and over, in the middle of whatever it does.
//!
//! Promised, and checked each time it is opened again: every acknowledged record is there with its
//! bytes and in its order; what was not acknowledged is there whole or not at all; a record once
//! replayed stays; a removed segment stays away; and nothing is called damage, for nothing was
//! damaged.

use bytes::Bytes;
use env::Env;
use env::sim::{Config, Fault, World};
use journal::{Journal, Position, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Lives that end in a crash or a kill; one more looks at what is left.
const CRASHES: u64 = 6;

/// What the outside knows of the journal: it survives all crashes.
#[derive(Default)]
struct Ledger {
    /// Next record's number; never given twice.
    next: u64,
    /// Promised, with their segments.
    kept: BTreeMap<u64, u64>,
    /// In segments whose removal was asked for: may be there or not.
    leaving: BTreeSet<u64>,
    /// Segments whose removal was asked for in this life.
    removing: BTreeSet<u64>,
    /// Removed for good.
    gone: BTreeSet<u64>,
}

type Shared = Arc<Mutex<Ledger>>;

fn with<T>(ledger: &Shared, f: impl FnOnce(&mut Ledger) -> T) -> T {
    f(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A number below `n`.
fn below(env: &Env, n: u64) -> u64 {
    u64::from_le_bytes(env.random()) % n
}

/// A record tells its number; its body follows from that.
fn record(number: u64) -> Record {
    let len = [0, 10, 700, 5000, 9000][(number % 5) as usize] + number as usize % 7;
    let body: Vec<u8> = (0..len).map(|i| (number as usize * 31 + i) as u8).collect();
    Record { kind: 1, meta: Bytes::copy_from_slice(&number.to_le_bytes()), body: body.into() }
}

/// Runs it. The error says which promise was broken.
pub fn run(seed: u64) -> Result<(), String> {
    let mut world = World::with(&Config { duration: Duration::from_secs(600), ..Config::new(seed) });
    let ledger = Shared::default();
    let into = ledger.clone();
    let host = world.host("store", move |env| life(env, into.clone()));
    if seed % 2 == 1 {
        host.set_slowness(Duration::from_millis(4));
    }
    for _ in 0..CRASHES {
        let dice = host.env();
        let kill = below(&dice, 6) == 0;
        host.disk().crash_after(below(&dice, 60));
        let patience = 1 + below(&dice, 40);
        for tick in 0.. {
            world.step().map_err(|e| e.to_string())?;
            if kill && tick == patience && host.is_up() {
                host.disk().crash_never();
                world.inject(Fault::Kill("store".into()));
            }
            if !host.is_up() {
                break;
            }
            if tick > 60_000 {
                return Err("the journal does nothing any more".into());
            }
        }
        world.inject(Fault::Start("store".into()));
    }
    host.disk().crash_never();
    host.set_slowness(Duration::ZERO);
    let before = with(&ledger, |l| l.next);
    world.run_for(Duration::from_millis(200)).map_err(|e| e.to_string())?;
    if with(&ledger, |l| l.next) > before { Ok(()) } else { Err("after the last crash nothing can be appended".into()) }
}

/// One life: open, check, then append, roll and remove until the end.
async fn life(env: Env, ledger: Shared) -> env::sim::Result {
    let seen: Arc<Mutex<Vec<(u64, Position)>>> = Arc::default();
    let into = seen.clone();
    let config = journal::Config { segment_size: 16 << 10, queue_bytes: 1 << 20, ..journal::Config::new(PathBuf::from("/log")) };
    let visit = move |r: journal::Replayed<'_>| {
        let number = r.meta.try_into().map_or(u64::MAX, u64::from_le_bytes);
        into.lock().unwrap_or_else(PoisonError::into_inner).push((number, r.position));
        Ok(())
    };
    let (journal, report) = Journal::open(env.clone(), config, visit).await?;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    check(&journal, &report, &seen, &ledger).await?;
    loop {
        match below(&env, 40) {
            0 => journal.roll().await?,
            1 => remove_first(&journal, &ledger).await?,
            _ => append(&env, &journal, &ledger),
        }
        if below(&env, 3) == 0 {
            env.sleep(Duration::from_millis(1 + below(&env, 3))).await;
        }
    }
}

async fn check(journal: &Journal, report: &journal::OpenReport, seen: &[(u64, Position)], ledger: &Shared) -> Result<(), String> {
    if !report.corrupt.is_empty() {
        return Err(format!("called damage what is a torn end: {:?}", report.corrupt));
    }
    if let Some(pair) = seen.windows(2).find(|pair| pair[0] >= pair[1] || pair[0].1 >= pair[1].1) {
        return Err(format!("out of order: {:?} before {:?}", pair[0], pair[1]));
    }
    for (number, position) in seen {
        let (_, body) = journal.read(*position).await.map_err(|e| format!("record {number}: {e}"))?;
        if body != record(*number).body {
            return Err(format!("record {number} has other bytes"));
        }
    }
    with(ledger, |ledger| {
        let seen: BTreeMap<u64, u64> = seen.iter().map(|(number, position)| (*number, position.segment)).collect();
        if let Some(lost) = ledger.kept.keys().find(|n| !seen.contains_key(n)) {
            return Err(format!("acknowledged record {lost} is lost; {} are there", seen.len()));
        }
        if let Some(back) = seen.keys().find(|n| ledger.gone.contains(n) || **n >= ledger.next) {
            return Err(format!("record {back} came from nowhere"));
        }
        ledger.removing.clear();
        ledger.leaving.retain(|n| seen.contains_key(n));
        ledger.kept.extend(seen.iter().filter(|(n, _)| !ledger.leaving.contains(n)));
        Ok(())
    })
}

/// Appends one to four records and notes them when they are acknowledged. Does not wait.
fn append(env: &Env, journal: &Journal, ledger: &Shared) {
    let count = 1 + below(env, 4);
    let first = with(ledger, |l| {
        l.next += count;
        l.next - count
    });
    let (journal, ledger) = (journal.clone(), ledger.clone());
    env.spawn(async move {
        if let Ok(positions) = journal.append((first..first + count).map(record).collect()).await {
            with(&ledger, |l| {
                for (number, position) in (first..).zip(&positions) {
                    if l.removing.contains(&position.segment) {
                        l.leaving.insert(number);
                    } else {
                        l.kept.insert(number, position.segment);
                    }
                }
            });
        }
    });
}

async fn remove_first(journal: &Journal, ledger: &Shared) -> Result<(), journal::Error> {
    let Some(segment) = journal.segments().into_iter().find(|s| s.sealed) else { return Ok(()) };
    let leaving: Vec<u64> = with(ledger, |l| {
        let numbers: Vec<u64> = l.kept.iter().filter(|(_, s)| **s == segment.id).map(|(n, _)| *n).collect();
        l.kept.retain(|_, s| *s != segment.id);
        l.leaving.extend(&numbers);
        l.removing.insert(segment.id);
        numbers
    });
    journal.remove_segment(segment.id).await?;
    with(ledger, |l| l.gone.extend(leaving));
    Ok(())
}
