//! Recovery: what was acknowledged is there, what rots is named.

use crate::{Config, Error, Journal, OpenReport, Position, Record};
use bytes::Bytes;
use env::Env;
use env::sim::SimDisk;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Seen = Vec<(Position, u8, Vec<u8>)>;

async fn open(env: &Env, dir: &Path, segment_size: u64) -> (Journal, OpenReport, Seen) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let config = Config { segment_size, queue_bytes: 8 << 20, ..Config::new(dir.to_path_buf()) };
    let visit = move |r: crate::Replayed<'_>| {
        into.lock().unwrap().push((r.position, r.kind, r.meta.to_vec()));
        Ok(())
    };
    let (journal, report) = Journal::open(env.clone(), config, visit).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    (journal, report, seen)
}

fn record(i: u32, body: usize) -> Record {
    Record { kind: 1, meta: Bytes::copy_from_slice(&i.to_be_bytes()), body: vec![i as u8; body].into() }
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    dir.join(format!("{:016x}.seg", 1))
}

#[allow(clippy::disallowed_methods)]
fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut b = [0];
    file.read_exact_at(&mut b, at).unwrap();
    file.write_all_at(&[b[0] ^ 0x40], at).unwrap();
}

#[tokio::test]
async fn appended_records_are_read_back_and_replayed_over_many_segments() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 64 << 10).await;
    let mut positions = Vec::new();
    for i in 0..100 {
        positions.extend(journal.append(vec![record(i, 3000 + i as usize)]).await.unwrap());
    }
    assert!(journal.segments().len() > 3);
    journal.close().await;
    assert!(matches!(journal.append(vec![record(0, 1)]).await, Err(Error::Closed)));
    drop(journal);
    let (journal, report, seen) = open(&env, dir.path(), 64 << 10).await;
    assert_eq!((report.records, report.torn_bytes, report.corrupt.len()), (100, 0, 0));
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), positions);
    for (i, p) in positions.iter().enumerate() {
        let (meta, body) = journal.read(*p).await.unwrap();
        assert_eq!((&meta[..], body.len()), (&(i as u32).to_be_bytes()[..], 3000 + i));
        assert_eq!(journal.read_body_range(*p, 5..9).await.unwrap(), vec![i as u8; 4]);
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_at_every_byte_and_nothing_acknowledged_is_lost() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    for i in 0..3 {
        journal.append(vec![record(i, 100)]).await.unwrap();
    }
    let last = journal.append(vec![record(3, 100)]).await.unwrap()[0];
    journal.close().await;
    drop(journal);
    let path = only_segment(dir.path());
    let whole = env::DiskExt::read(&*env.disk, &path).unwrap();
    for cut in last.offset..last.offset + u64::from(last.len) {
        let mut torn = whole.clone();
        torn[cut as usize..].fill(0);
        env::DiskExt::replace(&*env.disk, &path, &torn).unwrap();
        let (journal, report, seen) = open(&env, dir.path(), 1 << 16).await;
        assert_eq!((seen.len(), report.corrupt.len()), (3, 0), "cut at {cut}");
        journal.append(vec![record(9, 10)]).await.unwrap();
        journal.close().await;
        drop(journal);
        let (journal, _, seen) = open(&env, dir.path(), 1 << 16).await;
        assert_eq!(seen.len(), 4);
        journal.close().await;
    }
}

#[tokio::test]
async fn a_flipped_bit_in_an_acknowledged_record_is_damage_and_costs_only_that_record() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    let mut positions = Vec::new();
    for i in 0..4 {
        positions.extend(journal.append(vec![record(i, 50)]).await.unwrap());
    }
    journal.close().await;
    drop(journal);
    let path = only_segment(dir.path());
    for at in positions[1].offset..positions[1].offset + u64::from(positions[1].len) {
        flip(&path, at);
        let (journal, report, seen) = open(&env, dir.path(), 1 << 16).await;
        assert_eq!(seen.len(), 3, "flipped at {at}");
        assert_eq!(report.corrupt.len(), 1, "flipped at {at}");
        assert!(journal.read(positions[1]).await.is_err());
        assert!(journal.read(positions[2]).await.is_ok());
        journal.close().await;
        drop(journal);
        flip(&path, at);
    }
}

#[tokio::test]
async fn a_batch_that_was_never_acknowledged_is_a_torn_end_not_damage() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    journal.append(vec![record(0, 50)]).await.unwrap();
    let batch = journal.append(vec![record(1, 50), record(2, 50), record(3, 50)]).await.unwrap();
    journal.close().await;
    drop(journal);
    // The disk wrote the third record of the batch but not the second.
    flip(&only_segment(dir.path()), batch[1].offset + 20);
    let (_journal, report, seen) = open(&env, dir.path(), 1 << 16).await;
    assert_eq!((seen.len(), report.corrupt.len()), (2, 0));
    assert!(report.torn_bytes > 0);
}

#[tokio::test]
async fn a_damaged_footer_falls_back_to_the_records() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    journal.append(vec![record(0, 50), record(1, 60)]).await.unwrap();
    journal.roll().await.unwrap();
    journal.append(vec![record(2, 50)]).await.unwrap();
    let sealed = journal.segments()[0].len;
    journal.close().await;
    drop(journal);
    flip(&only_segment(dir.path()), sealed - 3);
    let (_journal, report, seen) = open(&env, dir.path(), 1 << 16).await;
    assert_eq!((seen.len(), report.corrupt.len()), (3, 0));
}

#[tokio::test]
async fn two_processes_cannot_open_one_journal_and_segments_of_another_are_refused() {
    let (env, dir, other) = (env::real::env(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    journal.append(vec![record(0, 50)]).await.unwrap();
    let second = Journal::open(env.clone(), Config::new(dir.path().to_path_buf()), |_| Ok(())).await;
    assert!(matches!(second, Err(Error::Foreign { .. })));
    let (foreign, ..) = open(&env, other.path(), 1 << 16).await;
    foreign.append(vec![record(7, 50)]).await.unwrap();
    journal.close().await;
    foreign.close().await;
    drop((journal, foreign));
    let bytes = env::DiskExt::read(&*env.disk, &only_segment(other.path())).unwrap();
    env::DiskExt::replace(&*env.disk, &only_segment(dir.path()), &bytes).unwrap();
    let (_journal, report, seen) = open(&env, dir.path(), 1 << 16).await;
    assert_eq!((seen.len(), report.corrupt.len()), (0, 1));
}

#[tokio::test]
async fn garbage_files_do_not_panic() {
    let env = env::real::env();
    for seed in 0..200u32 {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ..) = open(&env, dir.path(), 1 << 14).await;
        journal.append(vec![record(0, 500), record(1, 500)]).await.unwrap();
        journal.close().await;
        drop(journal);
        let path = only_segment(dir.path());
        let mut bytes = env::DiskExt::read(&*env.disk, &path).unwrap();
        let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        for _ in 0..1 + seed % 40 {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            let at = x as usize % 1300;
            bytes[at] = (x >> 16) as u8;
        }
        bytes.truncate(1300 + (x % 3000) as usize);
        env::DiskExt::replace(&*env.disk, &path, &bytes).unwrap();
        let (journal, ..) = open(&env, dir.path(), 1 << 14).await;
        journal.append(vec![record(5, 5)]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_share_syncs_and_all_come_back() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 20).await;
    let tasks: Vec<_> = (0..200u32)
        .map(|i| {
            let journal = journal.clone();
            env.spawn(async move { journal.append(vec![record(i, 200_000 * (i as usize % 2) + 10)]).await.unwrap() })
        })
        .collect();
    for (i, task) in tasks.into_iter().enumerate() {
        let p = task.await.unwrap()[0];
        assert_eq!(journal.read(p).await.unwrap().0[..], (i as u32).to_be_bytes());
    }
    journal.close().await;
    drop(journal);
    assert_eq!(open(&env, dir.path(), 1 << 20).await.2.len(), 200);
}

/// It is refused as it is: taken for a torn end it would be cut off.
#[tokio::test]
async fn what_a_later_version_wrote_is_neither_torn_nor_damaged() {
    let (env, dir) = (env::real::env(), tempfile::tempdir().unwrap());
    let (journal, ..) = open(&env, dir.path(), 1 << 16).await;
    journal.append(vec![record(0, 50)]).await.unwrap();
    let last = journal.append(vec![record(1, 50)]).await.unwrap()[0];
    journal.close().await;
    drop(journal);
    let id: [u8; 16] = env::DiskExt::read(&*env.disk, &dir.path().join("journal")).unwrap()[8..24].try_into().unwrap();
    let path = only_segment(dir.path());
    let good = env::DiskExt::read(&*env.disk, &path).unwrap();
    let at = last.offset as usize;
    let mut record = good.clone();
    record[at + 4] += 1;
    let crc = [&id[..], &record[at..at + 36], &record[at + 40..at + 44]].concat();
    record[at + 36..at + 40].copy_from_slice(&crc32c::crc32c(&crc).to_le_bytes());
    let mut segment = good.clone();
    segment[6] += 1;
    let crc = crc32c::crc32c(&segment[..60]);
    segment[60..64].copy_from_slice(&crc.to_le_bytes());
    for later in [record, segment] {
        env::DiskExt::replace(&*env.disk, &path, &later).unwrap();
        let config = Config::new(dir.path().to_path_buf());
        let refused = Journal::open(env.clone(), config, |_| Ok(())).await.err().unwrap();
        assert!(refused.to_string().contains("a version that this software does not know"), "{refused}");
        assert!(env::DiskExt::read(&*env.disk, &path).unwrap() == later, "nothing is changed");
    }
    env::DiskExt::replace(&*env.disk, &path, &good).unwrap();
    assert_eq!(open(&env, dir.path(), 1 << 16).await.2.len(), 2);
}

/// An opening that reads a record must not lose it later: others may count on it by then.
#[tokio::test]
async fn what_a_failed_sync_left_behind_is_lost_before_an_opening_or_never() {
    for (power_lost_first, goes_on) in [(false, false), (false, true), (true, false), (true, true)] {
        let (disk, dir) = (SimDisk::new(1, "disk"), Path::new("/journal"));
        let world = || Env { disk: disk.handle(), ..env::real::env() };
        let (journal, ..) = open(&world(), dir, 1 << 20).await;
        journal.append(vec![record(0, 5000)]).await.unwrap();
        disk.fail_sync_after(0);
        assert!(journal.append(vec![record(1, 5000)]).await.is_err());
        if goes_on {
            journal.append(vec![record(2, 5000)]).await.unwrap();
        }
        drop(journal);
        tokio::task::yield_now().await;
        if power_lost_first {
            disk.crash();
        } else {
            disk.kill();
        }
        let (journal, _, seen) = open(&world(), dir, 1 << 20).await;
        assert_eq!(seen.len(), if power_lost_first { 1 } else { 2 } + usize::from(goes_on));
        drop(journal);
        disk.crash();
        let (journal, report, again) = open(&world(), dir, 1 << 20).await;
        assert_eq!((&again, report.corrupt.len()), (&seen, 0));
        // Once more, from the footer of what was given up.
        journal.close().await;
        assert_eq!(open(&world(), dir, 1 << 20).await.2, seen);
    }
}

#[tokio::test]
async fn a_journal_that_was_closed_is_not_written_again() {
    let (disk, dir) = (SimDisk::new(1, "disk"), Path::new("/journal"));
    let world = || Env { disk: disk.handle(), ..env::real::env() };
    let (journal, ..) = open(&world(), dir, 1 << 20).await;
    journal.append(vec![record(0, 5000)]).await.unwrap();
    journal.close().await;
    drop(journal);
    let mut written = Vec::new();
    // Closed, killed, killed; and with a mark that is older than the last record.
    for (number, is_closed) in [(1, false), (2, false), (3, true), (4, true)] {
        let before = disk.operations();
        let (journal, _, seen) = open(&world(), dir, 1 << 20).await;
        written.push(disk.operations() - before);
        assert_eq!(seen.len(), number as usize);
        let mark = disk.contents("/journal/clean").ok();
        assert_eq!(mark, None, "it goes before anything is appended");
        journal.append(vec![record(number, 5000)]).await.unwrap();
        match is_closed {
            true => journal.close().await,
            false => disk.kill(),
        }
        drop(journal);
    }
    let [closed, killed, again, before] = written[..] else { panic!("four") };
    // A mark costs two operations to take away, and saves one that writes.
    assert_eq!((killed, again), (closed - 2 + 1, closed - 2 + 1));
    assert_eq!(before, closed);
}

/// Of a segment, of its folder, of the list of segments: whichever fails, nothing is called lost that is not.
#[tokio::test]
async fn any_sync_may_fail_once() {
    for (syncs, goes_on) in (0..24).flat_map(|syncs| [(syncs, false), (syncs, true)]) {
        let (disk, dir) = (SimDisk::new(1, "disk"), Path::new("/journal"));
        let world = || Env { disk: disk.handle(), ..env::real::env() };
        let (journal, ..) = open(&world(), dir, 4096).await;
        disk.fail_sync_after(syncs);
        let (mut acknowledged, mut failed) = (Vec::new(), 0);
        for i in 0..12 {
            match journal.append(vec![record(i, 1000)]).await {
                Ok(positions) => acknowledged.push((positions[0], i)),
                Err(_) => failed += 1,
            }
            if failed > 0 && !goes_on {
                break;
            }
        }
        assert_eq!(failed, 1, "after {syncs}");
        drop(journal);
        for power_is_lost in [false, true] {
            if power_is_lost {
                disk.crash()
            } else {
                disk.kill()
            }
            let (journal, report, seen) = open(&world(), dir, 4096).await;
            assert!(report.missing.is_empty() && !report.list_damaged && report.corrupt.is_empty(), "after {syncs}: {report:?}");
            let seen: Vec<_> = seen.into_iter().map(|(at, _, meta)| (at, meta)).collect();
            for (at, i) in &acknowledged {
                assert!(seen.contains(&(*at, i.to_be_bytes().to_vec())), "after {syncs}: {i}");
            }
            journal.close().await;
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_is_missed_until_it_is_given_up() {
    let env = env::real::env();
    let dir = tempfile::tempdir().unwrap();
    let (journal, report, _) = open(&env, dir.path(), 4096).await;
    assert!(report.missing.is_empty());
    for i in 0..12 {
        journal.append(vec![record(i, 1000)]).await.unwrap();
    }
    let ids: Vec<u64> = journal.segments().iter().map(|s| s.id).collect();
    assert!(ids.len() >= 3, "{ids:?}");
    // One goes as it should, one in the middle and the last are lost.
    journal.remove_segment(ids[0]).await.unwrap();
    journal.close().await;
    drop(journal);
    let (middle, last) = (ids[1], ids[ids.len() - 1]);
    for id in [middle, last] {
        env.disk.remove_file(&dir.path().join(format!("{id:016x}.seg"))).unwrap();
    }
    for _ in 0..2 {
        let (journal, report, _) = open(&env, dir.path(), 4096).await;
        assert_eq!(report.missing, [middle, last]);
        journal.append(vec![record(99, 10)]).await.unwrap();
        assert!(journal.segments().iter().all(|s| !report.missing.contains(&s.id)), "numbers are used once");
        journal.close().await;
    }
    let (journal, report, _) = open(&env, dir.path(), 4096).await;
    journal.give_up_missing(report.missing).await.unwrap();
    journal.close().await;
    assert!(open(&env, dir.path(), 4096).await.1.missing.is_empty());
}
