//! The journal under seeds, and what they found, as tests of their own.

use bytes::Bytes;
use env::sim::{SimDisk, World};
use journal::{Config, Journal, Record};
use std::sync::{Arc, Mutex};

fn failures(seeds: impl Iterator<Item = u64>) -> String {
    seeds.filter_map(|seed| sim::journal_crash::run(seed).err().map(|why| format!("\nseed {seed}: {why}"))).collect()
}

#[test]
fn acknowledged_records_survive_crashes_at_any_operation() {
    assert_eq!(failures(0..200), "");
}

#[test]
fn seeds_that_once_failed_do_not_any_more() {
    let lines = include_str!("../seeds/journal-crash.txt").lines().filter(|l| !l.starts_with('#'));
    assert_eq!(failures(lines.map(|l| l.split_whitespace().next().unwrap().parse().unwrap())), "");
}

fn config() -> Config {
    Config { segment_size: 16 << 10, queue_bytes: 1 << 20, ..Config::new("/log".into()) }
}

fn record(len: usize) -> Record {
    Record { kind: 1, meta: Bytes::new(), body: vec![1; len].into() }
}

/// Two appends share a batch; the second does not fit, so the first is flushed on the way, and that
/// fails. The first was acknowledged all the same.
#[test]
fn a_write_that_fails_as_a_segment_fills_up_acknowledges_nothing() {
    let mut world = World::new(1);
    let acknowledged: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (into, disk): (_, Arc<Mutex<Option<SimDisk>>>) = (acknowledged.clone(), Arc::default());
    let power = disk.clone();
    let host = world.host("store", move |env| {
        let (into, power) = (into.clone(), power.clone());
        async move {
            let (journal, _) = Journal::open(env.clone(), config(), |_| Ok(())).await?;
            journal.append(vec![record(10)]).await?;
            power.lock().unwrap().take().unwrap().crash_after(0);
            let tasks = [9000, 9000].map(|len| {
                let journal = journal.clone();
                env.spawn(async move { journal.append(vec![record(len)]).await.is_ok() })
            });
            for task in tasks {
                let good = task.await?;
                into.lock().unwrap().push(good);
            }
            Ok(())
        }
    });
    *disk.lock().unwrap() = Some(host.disk().clone());
    world.run_for(std::time::Duration::from_millis(20)).unwrap();
    assert_eq!(*acknowledged.lock().unwrap(), [false, false]);
    assert!(!host.is_up());
}

/// A segment's file was there but still empty when the power went. It was left lying around, and
/// called damage as soon as another one followed it.
#[test]
fn a_segment_that_was_being_made_is_cleared_away() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let reports: Arc<Mutex<Vec<journal::OpenReport>>> = Arc::default();
        let into = reports.clone();
        let host = world.host("store", move |env| {
            let into = into.clone();
            async move {
                let (journal, report) = Journal::open(env.clone(), config(), |_| Ok(())).await?;
                into.lock().unwrap().push(report);
                journal.append(vec![record(10)]).await?;
                std::future::pending().await
            }
        });
        // The first opening takes 14 operations; those that follow make the segment and list it.
        host.disk().crash_after(14 + seed % 10);
        for _ in 0..3 {
            world.run_for(std::time::Duration::from_millis(10)).unwrap();
            world.inject(env::sim::Fault::Start("store".into()));
        }
        let reports = reports.lock().unwrap();
        assert!(reports.len() == 3 && reports.iter().all(|r| r.corrupt.is_empty() && r.missing.is_empty()), "seed {seed}: {reports:?}");
        assert_eq!((reports[1].records, reports[2].records), (0, 1), "seed {seed}");
    }
}
