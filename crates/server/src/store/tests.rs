//! What a crash in the middle of installing a snapshot leaves; and that the sum is of the rows.

#![allow(clippy::unwrap_used)]

use super::*;
use env::{Disk, DiskExt, File, FileExt, Space};
use std::sync::atomic::{AtomicI64, Ordering};

/// A disk on which, after so many writes, nothing more happens: as for a process that was killed.
struct Mortal {
    disk: Arc<dyn Disk>,
    left: Arc<AtomicI64>,
}

#[derive(Debug)]
struct MortalFile(Arc<dyn File>, Arc<AtomicI64>);

impl MortalFile {
    fn lives(&self) -> io::Result<()> {
        if self.1.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(io::Error::other("killed")) }
    }
}

impl File for MortalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.lives()?;
        self.0.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.lives()?;
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lives()?;
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }
}

impl Disk for Mortal {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(MortalFile(self.disk.open(path, how)?, self.left.clone())))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.read_dir(path)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.try_exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.disk.lock(path)
    }
}

fn fill(store: &Store, applied: u8, rows: u32) {
    store
        .change(|kv| {
            for n in 0..rows {
                kv.put(&n.to_be_bytes(), &[applied; 700])?;
            }
            Ok(((), vec![applied]))
        })
        .unwrap();
    store.checkpoint().unwrap();
}

/// Whether the rows are those that were written.
fn is_whole(store: &Store) -> bool {
    let view = store.view().unwrap();
    view.sum().unwrap() == Some(view.sum_of_rows().unwrap())
}

/// All rows, as pairs of number and first byte, and what was applied.
fn content(store: &Store) -> (Vec<(u32, u8)>, Option<Vec<u8>>) {
    let view = store.view().unwrap();
    let mut rows = Vec::new();
    view.scan(&[], END, &mut |key, value| {
        rows.push((u32::from_be_bytes(key.try_into().unwrap()), value[0]));
        ControlFlow::Continue(())
    })
    .unwrap();
    (rows, view.applied().unwrap())
}

#[test]
fn a_snapshot_that_is_killed_while_it_is_installed_leaves_the_old_rows_or_the_new_ones() {
    let real = env::real::env();
    let dir = tempfile::tempdir().unwrap();
    let source = Scratch::create(&real, &dir.path().join("incoming-1")).unwrap();
    let rows: Vec<([u8; 4], [u8; 700])> = (0..600u32).map(|n| ((n * 3).to_be_bytes(), [2; 700])).collect();
    assert_eq!(source.add(&rows.iter().map(|(k, v)| (&k[..], &v[..])).collect::<Vec<_>>()).unwrap(), 600);
    assert!(source.add(&[(&rows[0].0[..], b"again")]).is_err(), "no row comes twice");
    let view = source.into_view().unwrap();
    let old: Vec<(u32, u8)> = (0..400).map(|n| (n, 1)).collect();
    let new: Vec<(u32, u8)> = (0..600).map(|n| (n * 3, 2)).collect();

    let (mut kept_old, mut has_new) = (0, 0);
    for writes in 0..200 {
        let path = dir.path().join(format!("catalog-{writes}"));
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let mut env = real.clone();
        env.disk = Arc::new(Mortal { disk: real.disk.clone(), left: left.clone() });
        let store = Store::open(&env, &path, |_, _| ()).unwrap();
        fill(&store, 1, 400);
        left.store(writes, Ordering::Relaxed);
        let installed = store.replace(&view, &[2]).is_ok();
        left.store(0, Ordering::Relaxed);
        drop(store);

        let store = Store::open(&real, &path, |_, _| ()).unwrap();
        assert!(is_whole(&store), "after {writes} writes");
        let found = content(&store);
        if found == (new.clone(), Some(vec![2])) {
            has_new += 1;
        } else {
            assert_eq!(found, (old.clone(), Some(vec![1])), "after {writes} writes");
            assert!(!installed, "what was acknowledged is there");
            kept_old += 1;
        }
        if installed {
            break;
        }
    }
    assert!(kept_old > 3 && has_new > 0, "{kept_old} times the old rows, {has_new} times the new ones");
    drop(view);
    assert!(!dir.path().join("incoming-1").exists(), "the temporary file goes with its last reader");
}

#[test]
fn what_a_crash_leaves_opens_at_its_last_checkpoint_without_a_walk_through_all_of_it() {
    let env = env::real::env();
    let dir = tempfile::tempdir().unwrap();
    let (path, left) = (dir.path().join("catalog"), dir.path().join("left"));
    let store = Store::open(&env, &path, |_, _| ()).unwrap();
    fill(&store, 1, 2_000);
    let since = store.change(|kv| (0..1_000u32).try_for_each(|n| kv.put(&n.to_be_bytes(), &[2; 700])).map(|()| ((), vec![2])));
    since.unwrap();
    std::fs::copy(&path, &left).unwrap();
    let walked = Arc::new(AtomicI64::new(0));
    {
        let counted = walked.clone();
        let mut builder = Database::builder();
        builder.set_repair_callback(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        drop(builder.open(&left).unwrap());
    }
    assert_eq!(walked.load(Ordering::Relaxed), 0);
    let (rows, applied) = content(&Store::open(&env, &left, |_, _| ()).unwrap());
    assert_eq!((rows.len(), applied), (2_000, Some(vec![1])));
    assert!(rows.iter().all(|(_, value)| *value == 1));
}

fn opened(dir: &Path) -> Store {
    Store::open(&env::real::env(), &dir.join("catalog"), |_, _| ()).unwrap()
}

#[test]
fn the_sum_follows_every_change_and_goes_back_with_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    assert!(is_whole(&store));
    fill(&store, 1, 300);
    fill(&store, 2, 200);
    let before = store.view().unwrap().sum().unwrap();
    let failed = store.change::<()>(|kv| {
        kv.put(b"new", b"value")?;
        kv.delete(&7u32.to_be_bytes())?;
        Err(Error::invalid("no"))
    });
    assert!(failed.is_err());
    assert_eq!(store.view().unwrap().sum().unwrap(), before);
    store.change(|kv| Ok((kv.delete(&7u32.to_be_bytes())?, vec![3]))).unwrap();
    store.change(|kv| Ok((kv.delete(b"never there")?, vec![4]))).unwrap();
    assert_ne!(store.view().unwrap().sum().unwrap(), before);
    assert!(is_whole(&store));
    let (mut some, mut after, view) = (Sum::default(), None, store.view().unwrap());
    for round in 0.. {
        after = view.sum_some(after.as_deref(), 10_000, &mut some).unwrap();
        if after.is_none() {
            assert!(round > 10, "{round}");
            break;
        }
    }
    assert_eq!(Some(some), view.sum().unwrap(), "the sum of all pages");
}

#[test]
fn a_value_that_rots_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    fill(&store, 7, 300);
    drop(store);
    let path = dir.path().join("catalog");
    let disk = env::real::env().disk;
    let bytes = disk.read(&path).unwrap();
    let at = bytes.windows(700).position(|w| w == [7; 700]).unwrap() + 350;
    disk.open(&path, Open::Existing).unwrap().write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
    let store = opened(dir.path());
    assert_eq!(content(&store).0.len(), 300, "the database itself notices nothing");
    assert!(!is_whole(&store));
    // Nor does it help that the row is written again.
    fill(&store, 8, 300);
    assert!(!is_whole(&store));
}

#[test]
fn rows_of_a_version_without_sums_are_summed_up_when_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(dir.path());
    fill(&store, 1, 10);
    // As that version would: with a position of its own, and the sum as it was.
    let write = store.begin(true).unwrap();
    write.open_table(ROWS).unwrap().insert(&b"row"[..], &b"value"[..]).unwrap();
    put_meta(&write, "applied", &[2]).unwrap();
    write.commit().unwrap();
    assert_eq!(store.view().unwrap().sum().unwrap(), None);
    drop(store);
    assert!(is_whole(&opened(dir.path())));
}

#[test]
fn a_file_that_is_cut_off_or_garbage_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    fill(&opened(dir.path()), 1, 300);
    let env = env::real::env();
    let whole = env.disk.read(&dir.path().join("catalog")).unwrap();
    let cut = [1, 100, 320, 5000, whole.len() / 2, whole.len() - 5000].map(|len| whole[..len].to_vec());
    for (i, bytes) in cut.into_iter().chain([vec![7; 10_000], b"garbage".to_vec()]).enumerate() {
        let path = dir.path().join(format!("bad-{i}"));
        env.disk.replace(&path, &bytes).unwrap();
        let refused = Store::open(&env, &path, |_, _| ()).err().unwrap_or_else(|| panic!("{} bytes were opened", bytes.len()));
        assert_eq!(refused.kind, Kind::Corrupt, "{} bytes: {refused}", bytes.len());
    }
}

#[test]
fn a_database_whose_making_was_cut_short_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let env = env::real::env();
    env.disk.replace(&dir.path().join("catalog.making"), &[0; 10_000]).unwrap();
    fill(&opened(dir.path()), 1, 10);
    assert_eq!(content(&opened(dir.path())).0.len(), 10);
    assert!(!env.disk.exists(&dir.path().join("catalog.making")));
}
