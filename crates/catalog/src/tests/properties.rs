//! Random lives of a tree, some of their changes stale or hostile, against a model of a few lines:
//! the same answers, the same tree, and the same rows on every replica.

use super::*;
use crate::RETENTION_MS;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeSet;

/// The tree as simply as it can be said. Entries of removed folders stay until they are destroyed.
#[derive(Clone, Default)]
struct Model {
    root: Option<FolderId>,
    entries: BTreeMap<EntryId, Known>,
    /// Entries with older versions, or in the trash, and when the last of them ends.
    past: BTreeMap<EntryId, u64>,
    /// Folders in the trash, and when they end.
    trash: Vec<(FolderId, EntryId, u64)>,
    /// What is in the trash: the revision that removed it, what it led to, when it ends.
    trashed: BTreeMap<EntryId, (u64, Option<FolderId>, u64)>,
    doomed: BTreeSet<FolderId>,
}

#[derive(Clone, Copy, PartialEq)]
struct Known {
    folder: FolderId,
    tag: NameTag,
    rev: u64,
    child: Option<FolderId>,
}

impl Model {
    fn at(&self, folder: FolderId, tag: NameTag) -> Option<EntryId> {
        self.entries.iter().find(|(_, e)| (e.folder, e.tag) == (folder, tag)).map(|(id, _)| *id)
    }

    /// Goes up from a folder to the root.
    fn live(&self, folder: FolderId, moving: Option<FolderId>) -> Result<(), Kind> {
        if Some(folder) == self.root {
            return Ok(());
        }
        if Some(folder) == moving {
            return Err(Kind::Invalid);
        }
        let door = self.entries.values().find(|e| e.child == Some(folder) && !self.doomed.contains(&folder)).ok_or(Kind::NotFound)?;
        self.live(door.folder, moving)
    }

    fn knows_folder(&self, folder: FolderId) -> bool {
        Some(folder) == self.root
            || self.doomed.contains(&folder)
            || self.entries.values().any(|e| e.child == Some(folder))
            || self.trash.iter().any(|(f, _, _)| *f == folder)
    }

    fn change(&mut self, change: &Change, now: u64) -> Result<(), Kind> {
        if let Expect::Removed { rev } = &change.expect {
            return self.change_removed(change, *rev);
        }
        let (row, new) = (&change.row, Known { folder: change.row.folder, tag: change.row.tag, rev: change.row.rev, child: change.child });
        if let Expect::At { folder, tag, rev } = &change.expect {
            let moves = *folder != row.folder;
            if moves {
                self.live(*folder, None)?;
            }
            self.live(row.folder, change.child.filter(|_| moves))?;
            let old = self.entries.get(&row.entry).copied().ok_or(Kind::Conflict)?;
            if (old.folder, old.tag, old.rev) != (*folder, *tag, *rev) {
                return Err(Kind::Conflict);
            }
            if old.child != change.child {
                return Err(Kind::Invalid);
            }
            if self.at(row.folder, row.tag).is_some_and(|id| id != row.entry) {
                return Err(Kind::Exists);
            }
        } else {
            self.live(row.folder, None)?;
            let known = self.entries.contains_key(&row.entry) || self.past.contains_key(&row.entry);
            if self.at(row.folder, row.tag).is_some() || known || change.child.is_some_and(|c| self.knows_folder(c)) {
                return Err(Kind::Exists);
            }
        }
        let old = self.entries.remove(&row.entry);
        if change.purge {
            self.past.remove(&row.entry);
            self.doomed.extend(change.child);
        } else if old.is_some() {
            self.past.insert(row.entry, now + RETENTION_MS);
        }
        if row.sealed.is_empty() && !change.purge {
            self.trashed.insert(row.entry, (row.rev, change.child, now + RETENTION_MS));
        }
        if !row.sealed.is_empty() {
            self.entries.insert(row.entry, new);
        } else if let Some(child) = change.child.filter(|_| !change.purge) {
            self.trash.push((child, row.entry, now + RETENTION_MS));
        }
        Ok(())
    }

    /// Something comes back from the trash, or goes from there for good.
    fn change_removed(&mut self, change: &Change, rev: u64) -> Result<(), Kind> {
        let row = &change.row;
        let (at, child, _) = self.trashed.get(&row.entry).copied().filter(|(at, _, _)| *at == rev).ok_or(Kind::Conflict)?;
        if child != change.child {
            return Err(Kind::Invalid);
        }
        if !change.purge {
            self.live(row.folder, child)?;
            if self.at(row.folder, row.tag).is_some() {
                return Err(Kind::Exists);
            }
        }
        self.trashed.remove(&row.entry);
        self.trash.retain(|(folder, entry, _)| !(Some(*folder) == child && *entry == row.entry));
        if change.purge {
            self.past.remove(&row.entry);
            self.doomed.extend(child);
        } else {
            self.entries.insert(row.entry, Known { folder: row.folder, tag: row.tag, rev: at + 1, child });
        }
        Ok(())
    }

    fn tick(&mut self, now: u64) {
        self.trashed.retain(|_, (_, _, at)| *at > now);
        let (ended, kept) = std::mem::take(&mut self.trash).into_iter().partition(|(_, _, at)| *at <= now);
        self.trash = kept;
        self.past.retain(|_, at| *at > now);
        let ended: Vec<(FolderId, EntryId, u64)> = ended;
        self.doomed.extend(ended.into_iter().map(|(folder, _, _)| folder));
        while let Some(folder) = self.doomed.pop_first() {
            let gone: Vec<EntryId> = self.entries.iter().filter(|(_, e)| e.folder == folder).map(|(id, _)| *id).collect();
            for id in gone {
                self.past.remove(&id);
                self.doomed.extend(self.entries.remove(&id).and_then(|e| e.child));
            }
        }
    }
}

/// What a user does. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Op {
    File { folder: usize, name: u8, size: usize, large: bool },
    Folder { folder: usize, name: u8 },
    Copy { entry: usize, folder: usize, name: u8 },
    Overwrite { entry: usize, size: usize },
    Move { entry: usize, folder: usize, name: u8 },
    Remove { entry: usize, purge: bool },
    Restore { entry: usize, folder: usize, name: u8, purge: bool },
    Hostile { how: u8, entry: usize, other: usize },
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Op>),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (n, name) = (any::<usize>(), 0u8..5);
    prop_oneof![
        4 => (n, name.clone(), 1usize..300, any::<bool>()).prop_map(|(folder, name, size, large)| Op::File { folder, name, size, large }),
        4 => (n, name.clone()).prop_map(|(folder, name)| Op::Folder { folder, name }),
        1 => (n, n, name.clone()).prop_map(|(entry, folder, name)| Op::Copy { entry, folder, name }),
        2 => (n, 1usize..300).prop_map(|(entry, size)| Op::Overwrite { entry, size }),
        4 => (n, n, name.clone()).prop_map(|(entry, folder, name)| Op::Move { entry, folder, name }),
        2 => (n, n, name.clone(), any::<bool>()).prop_map(|(entry, folder, name, purge)| Op::Restore { entry, folder, name, purge }),
        3 => (n, any::<bool>()).prop_map(|(entry, purge)| Op::Remove { entry, purge }),
        2 => (0u8..7, n, n).prop_map(|(how, entry, other)| Op::Hostile { how, entry, other }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(op(), 1..4).prop_map(Step::Commit),
        1 => prop::sample::select(vec![1, HOUR, 15 * DAY, 31 * DAY]).prop_map(Step::Wait),
    ]
}

/// Handles that a user has: some of them stale.
struct Hands {
    entries: Vec<Entry>,
    folders: Vec<FolderId>,
}

impl Hands {
    /// One of the last few mostly, seldom any.
    fn entry(&self, n: usize) -> Option<Entry> {
        let len = self.entries.len();
        let recent = if n.is_multiple_of(4) { len } else { len.min(6) };
        (len > 0).then(|| self.entries[len - 1 - n / 4 % recent].clone())
    }

    /// The root often, one of the last few mostly, seldom any.
    fn folder(&self, n: usize) -> FolderId {
        let len = if n.is_multiple_of(3) { 1 } else { self.folders.len() };
        let recent = if n.is_multiple_of(4) { len } else { len.min(5) };
        self.folders[len - 1 - n / 4 % recent]
    }

    /// The change, and the entry as it stands after it.
    fn change(&self, world: &mut World, user: &User, op: &Op) -> Option<(Change, Entry)> {
        let word = |name: u8| format!("name {name}");
        Some(match op {
            Op::File { folder, name, size, large: false } => world.new_file(user, self.folder(*folder), &word(*name), *size),
            Op::File { folder, name, size, large: true } => {
                let mut content = used(world.object());
                content.bytes = 3 + *size as u64;
                let manifest = world.manifest(vec![content]);
                world.new_large(user, self.folder(*folder), &word(*name), manifest)
            }
            Op::Folder { folder, name } => world.new_folder(user, self.folder(*folder), &word(*name)),
            Op::Copy { entry, folder, name } => {
                let from = self.entry(*entry)?;
                let (mut change, mut copy) = world.new_file(user, self.folder(*folder), &word(*name), 50);
                (change.manifest, copy.manifest) = (from.manifest, from.manifest);
                (change, copy)
            }
            Op::Overwrite { entry, size } => World::overwrite(user, &self.entry(*entry)?, *size),
            Op::Move { entry, folder, name } => World::moved(user, &self.entry(*entry)?, self.folder(*folder), &word(*name), 60),
            Op::Remove { entry, purge } => {
                let entry = self.entry(*entry)?;
                let change = if *purge { World::purge(user, &entry) } else { World::removal(user, &entry) };
                (change, entry)
            }
            Op::Restore { entry, folder, name, purge } => {
                let removed = self.entry(*entry)?;
                let rev = removed.rev + 1;
                let back = Entry { folder: self.folder(*folder), name: word(*name), rev: rev + 1, ..removed };
                let row = World::row(user, &back, if *purge { 0 } else { 90 });
                let manifest = back.manifest.filter(|_| !*purge);
                let expect = Expect::Removed { rev };
                (Change { row, expect, child: back.child, manifest, new_manifest: None, purge: *purge }, back)
            }
            Op::Hostile { how, entry, other } => {
                let (entry, folder) = (self.entry(*entry)?, self.folder(*other));
                let another = self.entry(*other)?;
                let (mut change, after) = World::overwrite(user, &entry, 70);
                match how {
                    0 => return Some(World::overwrite(user, &Entry { rev: entry.rev + 1, ..entry }, 70)),
                    1 => change.child = Some(folder),
                    2 => change.child = None,
                    3 => change.row.entry = another.id,
                    4 => return Some(World::overwrite(user, &Entry { folder, ..entry }, 70)),
                    // A new folder that is the door to an old one; a new file with an old entry's id.
                    5 => {
                        let (mut change, after) = world.new_folder(user, self.folder(*other / 7), "name 1");
                        change.child = Some(folder);
                        return Some((change, Entry { child: Some(folder), ..after }));
                    }
                    _ => {
                        let (mut change, after) = world.new_file(user, folder, "name 2", 70);
                        change.row.entry = another.id;
                        return Some((change, Entry { id: another.id, ..after }));
                    }
                }
                // A folder with content is invalid by itself: not what is tested here.
                if change.child.is_some() {
                    change.manifest = None;
                }
                (change, after)
            }
        })
    }
}

/// The tree that the catalog lists equals the model's.
fn compare(world: &World, user: &User, model: &Model, folders: &[FolderId]) {
    for folder in folders {
        let query = Query::List { space: user.space, folder: *folder, after: None, limit: 2000, manifests: true, have: Vec::new() };
        let listed: Vec<_> = world.rows(&query).rows.iter().map(|r| (r.row.tag, r.row.entry, r.row.rev, r.child)).collect();
        let mut told: Vec<_> =
            model.entries.iter().filter(|(_, e)| e.folder == *folder).map(|(id, e)| (e.tag, *id, e.rev, e.child)).collect();
        told.sort();
        assert_eq!(listed, told);
    }
    assert_eq!(world.totals().entries, model.entries.len() as u64);
}

/// A life; returns how many commits were applied, in how many of them something came back or went from the
/// trash, and why others were refused.
fn live(steps: &[Step]) -> (usize, usize, Vec<Kind>) {
    let (mut world, user) = World::ready();
    let begun = world.kv.clone();
    let mut model = Model { root: Some(user.root), ..Model::default() };
    let mut hands = Hands { entries: vec![], folders: vec![user.root] };
    let (mut history, mut applied, mut restored, mut refused) = (Vec::new(), 0, 0, Vec::new());
    for step in steps {
        let (account, command, expected) = match step {
            Step::Wait(ms) => {
                world.now += ms;
                model.tick(world.now);
                (None, Command::Tick, Ok(vec![]))
            }
            Step::Commit(ops) => {
                let mut changes = Vec::new();
                let mut next = model.clone();
                let mut made = Ok(vec![]);
                for op in ops {
                    let Some((change, after)) = hands.change(&mut world, &user, op) else { continue };
                    let result = match manifest_there(&world, &user, &changes, &change) {
                        true => next.change(&change, world.now),
                        // What the model does not know: the manifest went with its last row.
                        false => next.change(&change, world.now).and(Err(Kind::Conflict)),
                    };
                    changes.push(change);
                    match (result, &mut made) {
                        (Ok(()), Ok(made)) => made.push(after),
                        (Err(kind), Ok(_)) => made = Err(kind),
                        (_, Err(_)) => {}
                    }
                }
                if changes.is_empty() {
                    continue;
                }
                if made.is_ok() {
                    model = next;
                }
                let objects: Vec<_> = changes.iter().flat_map(|c| &c.new_manifest).flat_map(|m| &m.objects).map(|o| o.object).collect();
                let grants = vec![world.grant(&user, &objects)];
                let record = world.sign(&user, &changes);
                (Some(user.id), Command::Commit { record, changes, grants }, made)
            }
        };
        let from_trash =
            matches!(&command, Command::Commit { changes, .. } if changes.iter().any(|c| matches!(c.expect, Expect::Removed { .. })));
        let proposal = Proposal { request: world.request(), account, command, time_ms: world.now };
        let answer = world.apply(&proposal);
        assert_eq!(
            answer.as_ref().map(|_| ()).map_err(|e| e.kind),
            expected.as_ref().map(|_| ()).map_err(|k| *k),
            "{proposal:?}: {answer:?}"
        );
        match expected {
            Ok(made) => {
                applied += 1;
                restored += usize::from(from_trash);
                hands.folders.extend(made.iter().filter_map(|e| e.child));
                hands.entries.extend(made);
            }
            Err(kind) => refused.push(kind),
        }
        history.push(proposal);
        compare(&world, &user, &model, &hands.folders);
    }
    // Another replica, from the log as it is stored.
    let mut replica = begun;
    for proposal in &history {
        let proposal: Proposal = cbor::from_canonical(&cbor::to_vec(proposal)).expect("encoded");
        let _ = crate::apply(&mut replica, &proposal).expect("memory does not fail");
    }
    assert!(replica == world.kv, "replicas differ");
    // Everything purged, everything ended: nothing is left.
    let top: Vec<Change> = model.entries.iter().filter(|(_, e)| e.folder == user.root).map(|(id, e)| purge_of(&user, *id, e)).collect();
    if !top.is_empty() {
        world.commit(&user, top).expect("purged");
    }
    for _ in 0..5 {
        world.pass(16 * DAY);
    }
    assert_eq!((world.used(&user), world.totals().entries, world.totals().objects, world.totals().bytes), (0, 0, 0, 0));
    // Of the tree only its log of changes, which is cut by length.
    let left = |table: &u8| *table == 0x3c || !(0x30..0x50).contains(table) && *table < 0x70;
    assert!(tables(&world.kv).iter().all(|(table, _)| left(table)), "{:?}", tables(&world.kv));
    (applied, restored, refused)
}

fn purge_of(user: &User, id: EntryId, known: &Known) -> Change {
    let entry = Entry { id, folder: known.folder, name: String::new(), rev: known.rev, child: known.child, manifest: None };
    let mut change = World::purge(user, &entry);
    change.row.tag = known.tag;
    change.expect = Expect::At { folder: known.folder, tag: known.tag, rev: known.rev };
    change
}

/// Whether a manifest that a change refers to is there, after the purges before it in its commit.
fn manifest_there(world: &World, user: &User, before: &[Change], change: &Change) -> bool {
    let Some(manifest) = change.manifest.filter(|_| change.new_manifest.is_none()) else { return true };
    if before.iter().any(|c| c.new_manifest.as_ref().is_some_and(|m| m.id == manifest)) {
        return true;
    }
    let mut copy = world.clone();
    if !before.is_empty() {
        let before = before.to_vec();
        if copy.commit(user, before).is_err() {
            return true;
        }
    }
    copy.ask(&Query::Manifests { space: user.space, ids: vec![manifest] }) != Answer::Manifests(vec![])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_of_a_tree_is_that_of_the_model(steps in prop::collection::vec(step(), 1..60)) {
        live(&steps);
    }
}

/// The property above is worth little if all its commits are refused, or none.
#[test]
fn random_lives_meet_every_kind_of_refusal() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, TestRunner};
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(15), failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 300).new_tree(&mut runner).expect("steps").current();
    let (applied, restored, refused) = live(&steps);
    for kind in [Kind::NotFound, Kind::Exists, Kind::Conflict, Kind::Invalid] {
        assert!(refused.iter().filter(|k| **k == kind).count() > 5, "{kind:?}: {refused:?}");
    }
    assert!(applied > 60 && restored > 2, "{applied} applied, {restored} of them from the trash");
}
