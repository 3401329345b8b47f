//! Stories of the simulated world: what survives a crash, and that a seed repeats.

use super::{Config, EPOCH_MS, Fault, SimDisk, World};
use crate::{DiskExt, Env, File, FileExt, Open};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SEEDS: u64 = 100;

fn put(disk: &SimDisk, name: &str, bytes: &[u8], sync: bool) -> Arc<dyn File> {
    let file = disk.handle().open(Path::new(name), Open::OrCreate).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    if sync {
        file.sync_data().unwrap();
        disk.handle().sync_dir(Path::new("")).unwrap();
    }
    file
}

fn get(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.contents(name).ok()
}

#[test]
fn synced_data_and_names_survive_every_crash() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        let old = put(&disk, "f", &[7; 10_000], true);
        put(&disk, "f", &[8; 20_000], true);
        put(&disk, "other", b"never synced", false);
        disk.crash();
        assert_eq!(get(&disk, "f").unwrap(), [8; 20_000]);
        assert!(old.write_at(b"x", 0).is_err(), "handles die with the crash");
    }
}

#[test]
fn unsynced_writes_are_kept_or_lost_by_page_and_seed() {
    let (mut all, mut none, mut some, mut torn) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        put(&disk, "f", &[1; 8 * 4096], true);
        put(&disk, "f", &[2; 8 * 4096], false);
        disk.crash();
        let bytes = get(&disk, "f").unwrap();
        assert_eq!(bytes.len(), 8 * 4096);
        assert!(bytes.iter().all(|b| *b == 1 || *b == 2));
        let new = bytes.iter().filter(|b| **b == 2).count();
        match new {
            0 => none += 1,
            n if n == bytes.len() => all += 1,
            _ => some += 1,
        }
        torn += usize::from(new % 4096 != 0);
        assert_eq!(new % 512, 0);
    }
    assert!(all > 0 && none > 0 && some > 30 && torn > 20, "{all} all, {none} none, {some} some, {torn} torn");
}

#[test]
fn lengths_and_holes_that_were_not_synced_may_go_either_way() {
    let (mut lengths, mut zeros) = ([0; 2], [0; 2]);
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        put(&disk, "cut", &[1; 9000], true).set_len(10).unwrap();
        let file = put(&disk, "hole", &[1; 9000], true);
        file.punch(4096, 4096).unwrap();
        assert_eq!(&get(&disk, "hole").unwrap()[4095..4097], [1, 0]);
        disk.crash();
        let cut = get(&disk, "cut").unwrap();
        assert!(cut == [1; 10] || cut == [1; 9000]);
        lengths[usize::from(cut.len() == 10)] += 1;
        let hole = get(&disk, "hole").unwrap();
        zeros[usize::from(hole[5000] == 0)] += 1;
        assert_eq!((hole.len(), hole[4095], hole[8192]), (9000, 1, 1));
    }
    assert!(lengths.iter().chain(&zeros).all(|n| *n > 20), "{lengths:?} {zeros:?}");
}

#[test]
fn a_shortened_file_does_not_bring_old_bytes_back() {
    let disk = SimDisk::new(1, "a");
    let file = put(&disk, "f", &[1; 9000], true);
    file.set_len(5000).unwrap();
    file.set_len(9000).unwrap();
    file.sync_data().unwrap();
    disk.crash();
    let bytes = get(&disk, "f").unwrap();
    assert_eq!((&bytes[..5000], &bytes[5000..]), (&[1; 5000][..], &[0; 4000][..]));
}

#[test]
fn names_without_sync_dir_are_kept_or_lost_and_a_rename_goes_as_a_whole() {
    let mut seen = [0; 2];
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        put(&disk, "f", b"old", true);
        put(&disk, "f.tmp", b"new", false).sync_data().unwrap();
        disk.handle().rename(Path::new("f.tmp"), Path::new("f")).unwrap();
        assert_eq!(get(&disk, "f").unwrap(), b"new");
        disk.crash();
        let renamed = get(&disk, "f").unwrap() == b"new";
        seen[usize::from(renamed)] += 1;
        assert!(renamed || get(&disk, "f").unwrap() == b"old");
        assert!(!renamed || get(&disk, "f.tmp").is_none());
    }
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
    let mut removed = [0; 2];
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        put(&disk, "f", b"old", true);
        disk.handle().remove_file(Path::new("f")).unwrap();
        assert!(disk.handle().open(Path::new("f"), Open::Existing).is_err());
        disk.crash();
        removed[usize::from(get(&disk, "f").is_none())] += 1;
    }
    assert!(removed.iter().all(|n| *n > 20), "{removed:?}");
}

#[test]
fn replace_leaves_the_old_or_the_new_contents_wherever_it_is_cut() {
    let mut seen = [0; 2];
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed, "a");
        disk.handle().create_dir_all(Path::new("d/e")).unwrap();
        disk.handle().replace(Path::new("d/e/f"), &[1; 5000]).unwrap();
        disk.crash_after(seed % 7);
        let acknowledged = disk.handle().replace(Path::new("d/e/f"), &[2; 6000]).is_ok();
        disk.crash();
        let bytes = get(&disk, "d/e/f").unwrap();
        assert!(bytes == [2; 6000] || (bytes == [1; 5000] && !acknowledged));
        seen[usize::from(bytes.len() == 6000)] += 1;
    }
    assert!(seen.iter().all(|n| *n > 20), "{seen:?}");
}

#[test]
fn a_full_disk_refuses_and_a_removed_file_makes_room() {
    let disk = SimDisk::new(1, "a");
    let handle = disk.handle();
    disk.set_capacity(100 << 12);
    let a = handle.open(Path::new("a"), Open::New).unwrap();
    a.allocate(60 << 12).unwrap();
    assert_eq!((a.len().unwrap(), handle.space(Path::new("")).unwrap().free), (60 << 12, 40 << 12));
    let b = handle.open(Path::new("b"), Open::New).unwrap();
    assert_eq!(b.allocate(41 << 12).unwrap_err().kind(), ErrorKind::StorageFull);
    b.write_all_at(&[1; 40 << 12], 0).unwrap();
    assert_eq!(b.write_at(&[1], 40 << 12).unwrap_err().kind(), ErrorKind::StorageFull);
    a.write_all_at(&[1; 60 << 12], 0).expect("room was reserved");
    a.punch(0, 10 << 12).unwrap();
    b.write_all_at(&[1; 10 << 12], 40 << 12).unwrap();
    handle.remove_file(Path::new("a")).unwrap();
    assert_eq!(handle.space(Path::new("")).unwrap().free, 0, "it is still open");
    drop(a);
    assert_eq!(handle.space(Path::new("")).unwrap().free, 50 << 12);
}

#[test]
fn a_lock_excludes_until_it_is_dropped_or_its_holder_dies() {
    let disk = SimDisk::new(1, "a");
    let lock = |d: &SimDisk| d.handle().lock(Path::new("lock"));
    let busy = |r: io::Result<Arc<dyn File>>| r.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
    let first = lock(&disk).unwrap();
    assert!(busy(lock(&disk)));
    drop(disk.handle().open(Path::new("lock"), Open::Existing).unwrap());
    assert!(busy(lock(&disk)), "another handle's end frees nothing");
    drop(first);
    let second = lock(&disk).unwrap();
    disk.kill();
    let third = lock(&disk).unwrap();
    drop(second);
    assert!(busy(lock(&disk)), "a dead holder frees nothing of others");
    disk.crash();
    drop(third);
    drop(lock(&disk).unwrap());
}

#[test]
fn a_killed_program_loses_nothing_but_its_handles() {
    let disk = SimDisk::new(1, "a");
    let handle = disk.handle();
    let file = put(&disk, "f", b"unsynced", false);
    disk.kill();
    assert!(file.sync_data().is_err() && handle.read_dir(Path::new("")).is_err());
    assert_eq!(disk.handle().read(Path::new("f")).unwrap(), b"unsynced");
}

#[test]
fn bits_rot_sectors_break_and_disks_fail() {
    let disk = SimDisk::new(1, "a");
    put(&disk, "f", &[0; 5000], true);
    disk.flip("f", 4500).unwrap();
    assert!(disk.flip("f", 5000).is_err());
    disk.crash();
    let bytes = disk.handle().read(Path::new("f")).unwrap();
    assert_eq!(bytes.iter().position(|b| *b != 0), Some(4500));
    disk.damage("f", 100..200).unwrap();
    let file = disk.handle().open(Path::new("f"), Open::Existing).unwrap();
    assert!(file.read_at(&mut [0; 100], 199).is_err());
    assert!(file.read_at(&mut [0; 100], 200).is_ok());
    disk.set_failing(true);
    assert!(file.read_at(&mut [0; 100], 200).is_err() && file.sync_data().is_err());
    disk.set_failing(false);
    assert!(file.sync_data().is_ok());
}

#[test]
fn what_a_failed_sync_left_out_stays_out_until_it_is_written_again() {
    for again in [false, true] {
        let disk = SimDisk::new(1, "a");
        let file = put(&disk, "f", b"old", true);
        file.write_all_at(b"new", 0).unwrap();
        disk.fail_sync_after(0);
        assert!(file.sync_data().is_err());
        if again {
            file.write_all_at(b"new", 0).unwrap();
        }
        file.sync_data().unwrap();
        assert_eq!(disk.contents("f").unwrap(), b"new");
        disk.crash();
        assert_eq!(disk.contents("f").unwrap(), if again { b"new" } else { b"old" });
    }
}

/// Found by the simulation (`restoration`, seed 203): a device whose identity was seen and not durable took shards,
/// and did not know who it was after a loss of power.
#[test]
fn a_file_that_a_failed_replacement_left_is_durable_once_it_was_read_to_be_built_upon() {
    let path = Path::new("d/f");
    let left = |settled: bool, seed: u64| {
        let disk = SimDisk::new(seed, "a");
        let handle = disk.handle();
        handle.create_dir_all(Path::new("d")).unwrap();
        disk.fail_sync_after(1);
        assert!(handle.replace(path, b"me").is_err() && handle.exists(path));
        if settled {
            assert_eq!(handle.read_settled(path).unwrap(), b"me");
        }
        disk.crash();
        disk.handle().read(path).is_ok()
    };
    assert!((0..20).all(|seed| left(true, seed)));
    assert!(!(0..20).all(|seed| left(false, seed)));
    // Where there is no room it is read all the same.
    let disk = SimDisk::new(1, "a");
    put(&disk, "f", b"me", true);
    disk.set_capacity(disk.used());
    assert_eq!(disk.handle().read_settled(Path::new("f")).unwrap(), b"me");
    disk.set_failing(true);
    assert!(disk.handle().read_settled(Path::new("f")).is_err());
}

#[test]
fn folders_are_listed_in_order_and_must_exist() {
    let disk = SimDisk::new(1, "a").handle();
    let missing = disk.open(Path::new("d/f"), Open::OrCreate).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    disk.create_dir_all(Path::new("./d/e")).unwrap();
    for name in ["d/z", "d/a"] {
        disk.open(Path::new(name), Open::New).unwrap();
    }
    assert_eq!(disk.open(Path::new("d/a"), Open::New).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.read_dir(Path::new("d")).unwrap(), ["a", "e", "z"]);
    assert!(disk.exists(Path::new("d/e")) && !disk.exists(Path::new("x")));
    assert!(disk.read_dir(Path::new("x")).is_err() && disk.create_dir_all(Path::new("d/a/b")).is_err());
}

/// Sends back what comes, on port 7000 of `server`.
async fn echo(env: Env) -> super::Result {
    let listener = env.net.bind("server:7000").await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        env.spawn(async move {
            let mut bytes = [0; 100];
            while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                if stream.write_all(&bytes[..n]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn ask(stream: &mut crate::BoxStream, env: &Env) -> Option<io::Result<[u8; 5]>> {
    let mut bytes = [0; 5];
    let exchange = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut bytes).await
    };
    let done = env.timeout(Duration::from_secs(1), exchange).await?;
    Some(done.map(|_| bytes))
}

#[test]
fn two_hosts_talk_until_a_partition_cuts_them() {
    let mut world = World::new(3);
    let server = world.host("server", echo);
    let faults = world.faults();
    world.client("test", move |env| async move {
        let mut stream = env.net.connect("server:7000").await?;
        assert_eq!(&ask(&mut stream, &env).await.unwrap()?, b"hello");
        let mut by_ip = env.net.connect(&format!("{}:7000", server.ip())).await?;
        assert_eq!(&ask(&mut by_ip, &env).await.unwrap()?, b"hello");
        faults.inject(Fault::Partition("test".into(), "server".into()));
        env.sleep(Duration::from_millis(2)).await;
        assert!(ask(&mut stream, &env).await.is_none());
        assert!(env.net.connect("server:7000").await.is_err());
        faults.inject(Fault::Repair("server".into(), "test".into()));
        env.sleep(Duration::from_millis(2)).await;
        let mut stream = env.net.connect("server:7000").await?;
        assert_eq!(&ask(&mut stream, &env).await.unwrap()?, b"hello");
        assert_eq!(env.net.connect("nobody:1").await.err().map(|e| e.kind()), Some(ErrorKind::NotFound));
        Ok(())
    });
    world.run().unwrap();
}

#[test]
fn a_killed_host_closes_its_connections_and_one_without_power_is_silent() {
    for (fault, told) in [(Fault::Kill("server".into()), true), (Fault::PowerCut("server".into()), false)] {
        let mut world = World::new(4);
        let server = world.host("server", echo);
        let faults = world.faults();
        world.client("test", move |env| async move {
            let mut stream = env.net.connect("server:7000").await?;
            assert_eq!(&ask(&mut stream, &env).await.unwrap()?, b"hello");
            faults.inject(fault);
            let heard = env.timeout(Duration::from_secs(1), stream.read_u8()).await;
            assert_eq!((heard.is_some(), server.is_up()), (told, false));
            faults.inject(Fault::Start("server".into()));
            env.sleep(Duration::from_millis(50)).await;
            let mut stream = env.net.connect("server:7000").await?;
            assert_eq!(&ask(&mut stream, &env).await.unwrap()?, b"hello");
            assert_eq!(server.starts(), 2);
            Ok(())
        });
        world.run().unwrap();
    }
}

#[test]
fn addresses_are_bound_as_on_a_real_host() {
    let mut world = World::new(5);
    let host = world.client("a", |env| async move {
        let any = env.net.bind("0.0.0.0:0").await?;
        assert!(any.local_addr()?.ip().is_unspecified() && any.local_addr()?.port() > 0);
        let named = env.net.bind("a:0").await?;
        assert_ne!(named.local_addr()?.port(), any.local_addr()?.port());
        let address = named.local_addr()?.to_string();
        let (to, from) = tokio::join!(env.net.connect(&address), named.accept());
        let (mut to, (mut from, _)) = (to?, from?);
        to.write_u8(9).await?;
        assert_eq!(from.read_u8().await?, 9);
        let local = env.net.bind("127.0.0.1:80").await?;
        let (connected, accepted) = tokio::join!(env.net.connect("localhost:80"), local.accept());
        assert!(connected.is_ok() && accepted?.1.ip().is_loopback());
        assert_eq!(env.net.bind("127.0.0.1:80").await.err().map(|e| e.kind()), Some(ErrorKind::AddrInUse));
        for wrong in ["b:1", "192.0.2.1:1"] {
            assert_eq!(env.net.bind(wrong).await.err().map(|e| e.kind()), Some(ErrorKind::AddrNotAvailable));
        }
        assert!(env.net.bind("no port").await.is_err());
        Ok(())
    });
    world.run().unwrap();
    assert!(!host.ip().is_unspecified());
}

#[test]
fn clocks_move_by_simulated_time_only_and_drift_apart() {
    let mut world = World::new(6);
    let faults = world.faults();
    let times: Arc<Mutex<Vec<(u64, Duration)>>> = Arc::default();
    let into = times.clone();
    let host = world.host("h", move |env| {
        let into = into.clone();
        async move {
            into.lock().unwrap().push((env.now_ms(), env.clock.monotonic()));
            std::future::pending().await
        }
    });
    host.set_drift_ms(-5000);
    world.client("test", move |env| async move {
        let (wall, start) = (env.now_ms(), env.clock.monotonic());
        assert_eq!((wall, start), (EPOCH_MS, Duration::ZERO));
        let x = (0..1_000_000u64).fold(0, |a: u64, b| std::hint::black_box(a ^ b));
        assert_eq!((env.clock.monotonic(), x), (start, x));
        env.sleep(Duration::from_secs(60)).await;
        assert_eq!((env.now_ms() - wall, env.clock.monotonic() - start), (60_000, Duration::from_secs(60)));
        faults.inject(Fault::PowerCut("h".into()));
        faults.inject(Fault::Start("h".into()));
        env.sleep(Duration::from_secs(1)).await;
        Ok(())
    });
    world.run().unwrap();
    let times = times.lock().unwrap();
    assert_eq!(times[0], (EPOCH_MS - 5000, Duration::ZERO));
    assert_eq!(times[1].0, EPOCH_MS - 5000 + times[1].1.as_millis() as u64);
    assert!((60_000..60_010).contains(&times[1].1.as_millis()), "{:?}", times[1]);
}

#[test]
fn randomness_differs_by_host_and_seed_and_goes_on_over_a_restart() {
    let first = |seed, name: &'static str| {
        let mut world = World::new(seed);
        world.client(name, |_| async { Ok(()) }).env().random::<16>()
    };
    assert_eq!(first(1, "a"), first(1, "a"));
    assert_ne!(first(1, "a"), first(1, "b"));
    assert_ne!(first(1, "a"), first(2, "a"));
    let mut world = World::new(1);
    let host = world.host("a", |_| std::future::pending());
    let before: [u8; 16] = host.env().random();
    world.inject(Fault::PowerCut("a".into()));
    world.inject(Fault::Start("a".into()));
    assert_ne!(before, host.env().random::<16>());
}

#[test]
fn slow_blocking_work_takes_simulated_time() {
    let mut world = World::new(8);
    let done: Arc<Mutex<Vec<u64>>> = Arc::default();
    let into = done.clone();
    let host = world.client("a", move |env| async move {
        for _ in 0..20 {
            let before = env.now_ms();
            env.blocking(|| ()).await;
            into.lock().unwrap().push(env.now_ms() - before);
        }
        Ok(())
    });
    host.set_slowness(Duration::from_millis(30));
    world.run().unwrap();
    let done = done.lock().unwrap();
    assert!(done.iter().all(|d| *d <= 31) && done.iter().any(|d| *d > 20) && done.iter().any(|d| *d < 10), "{done:?}");
}

/// A busy little world: one host writes, syncs, dies in the middle and comes back; another asks it.
fn history(seed: u64) -> Vec<String> {
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut world = World::with(&Config { duration: Duration::from_secs(60), ..Config::new(seed) });
    let note = |log: &Arc<Mutex<Vec<String>>>, env: &Env, text: String| log.lock().unwrap().push(format!("{} {text}", env.now_ms()));
    let into = log.clone();
    let server = world.host("server", move |env| {
        let into = into.clone();
        async move {
            let file = env.disk.open(Path::new("f"), Open::OrCreate)?;
            note(&into, &env, format!("start, {} bytes", file.len()?));
            let listener = env.net.bind("server:7000").await?;
            loop {
                let (mut stream, peer) = listener.accept().await?;
                let end = file.len()?;
                let n = u64::from(stream.read_u8().await.unwrap_or(0));
                file.write_all_at(&vec![n as u8; 100 * n as usize], end)?;
                if n % 3 == 0 {
                    file.sync_data()?;
                    env.disk.sync_dir(Path::new(""))?;
                }
                note(&into, &env, format!("{n} from {peer}, {end}"));
                let _ = stream.write_u8(n as u8).await;
            }
        }
    });
    server.disk().crash_after(20);
    let (into, faults, disk) = (log.clone(), world.faults(), server.disk().clone());
    world.client("test", move |env| async move {
        for _ in 0..40 {
            let n = env.random::<1>()[0];
            let exchange = async {
                let mut stream = env.net.connect("server:7000").await?;
                stream.write_u8(n).await?;
                stream.read_u8().await
            };
            let answer = env.timeout(Duration::from_millis(200), exchange).await.map(|r| r.map_err(|e| e.kind()));
            note(&into, &env, format!("asked {n}: {answer:?}"));
            if !server.is_up() {
                note(&into, &env, format!("down: {:?}", server.disk().files()));
                faults.inject(Fault::Start("server".into()));
                env.sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    });
    world.run().unwrap();
    let mut log = log.lock().unwrap().clone();
    log.push(format!("{:?}", disk.files()));
    log
}

#[test]
fn a_seed_run_twice_gives_the_same_history() {
    for seed in 0..10 {
        let (once, again) = (history(seed), history(seed));
        assert_eq!(once, again);
        assert!(once.iter().any(|l| l.contains("down")), "{once:#?}");
    }
    assert_ne!(history(0), history(1));
}

#[test]
fn a_program_that_fails_fails_the_simulation_unless_its_power_was_cut() {
    let mut world = World::new(1);
    let host = world.host("a", |env| async move {
        let file = env.disk.open(Path::new("f"), Open::OrCreate).unwrap();
        env.sleep(Duration::from_millis(5)).await;
        file.write_all_at(b"x", 0).unwrap();
        std::future::pending().await
    });
    host.disk().crash_after(1);
    world.run_for(Duration::from_millis(10)).unwrap();
    assert!(!host.is_up() && host.disk().operations() == 2);
    host.disk().set_failing(true);
    world.inject(Fault::Start("a".into()));
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run_for(Duration::from_millis(10)).is_err()));
    assert!(failed.unwrap_or(true));
}
