//! What was comes back: versions, trash, conflict versions; for how long it is kept; the log of changes.

use super::*;
use model::history::{Changes, Doors, History, LOG_COMMITS, TrashPage, What};
use model::tree::CONFLICTS;

fn trash(world: &World, user: &User) -> TrashPage {
    match world.ask(&Query::Trash { space: user.space, after: None, limit: 500 }) {
        Answer::Trash(page) => page,
        other => panic!("{other:?}"),
    }
}

/// What is in the trash, newest first.
fn in_trash(world: &World, user: &User) -> Vec<EntryId> {
    trash(world, user).items.iter().map(|i| i.entry).collect()
}

fn history(world: &World, user: &User, entry: &Entry) -> History {
    match world.ask(&Query::History { space: user.space, entry: entry.id, after: 0, limit: 2000 }) {
        Answer::History(history) => history,
        other => panic!("{other:?}"),
    }
}

fn revisions(world: &World, user: &User, entry: &Entry) -> Vec<u64> {
    history(world, user, entry).rows.rows.iter().map(|r| r.row.rev).collect()
}

fn changes(world: &World, user: &User, after: u64) -> Changes {
    match world.ask(&Query::Changes { space: user.space, after }) {
        Answer::Changes(changes) => *changes,
        other => panic!("{other:?}"),
    }
}

/// An entry that was removed comes back at a place.
fn restored(user: &User, removed: &Entry, folder: FolderId, name: &str) -> (Change, Entry) {
    let rev = removed.rev + 1;
    let entry = Entry { folder, name: name.into(), rev: rev + 1, ..removed.clone() };
    let row = World::row(user, &entry, 100);
    let (child, manifest) = (removed.child, removed.manifest);
    (Change { row, expect: Expect::Removed { rev }, child, manifest, new_manifest: None, purge: false }, entry)
}

/// What is in the trash goes for good.
fn emptied(user: &User, removed: &Entry) -> Change {
    let (mut change, _) = restored(user, removed, removed.folder, &removed.name.clone());
    change.row.sealed = Vec::new().into();
    Change { manifest: None, purge: true, ..change }
}

/// A conflict version beside an entry.
fn beside(user: &User, entry: &Entry, number: u64) -> Change {
    let row = Row { rev: CONFLICTS + number, ..World::row(user, entry, 70) };
    Change { row, expect: Expect::Beside, child: None, manifest: None, new_manifest: None, purge: false }
}

/// One older version goes for good.
fn dropped(user: &User, version: &Entry) -> Change {
    let row = World::row(user, version, 0);
    Change { row, expect: Expect::Older, child: None, manifest: None, new_manifest: None, purge: true }
}

/// Notes of ends of versions, which are as many as there are versions.
fn endings(world: &World) -> usize {
    let all: Vec<_> = rows_of(&world.kv).into_keys().filter(|k| k[0] == 0x70).collect();
    all.iter().filter(|k| crate::key::read_ends(k).is_some_and(|(kind, _)| kind == crate::expiry::VERSION)).count()
}

#[test]
fn a_removed_file_comes_back_under_its_id_with_its_versions() {
    let (mut world, user) = World::ready();
    let (file, _) = world.put_large(&user, user.root, "file");
    assert!(world.commit(&user, vec![World::removal(&user, &file)]).is_ok());
    let page = trash(&world, &user);
    assert_eq!((page.items[0].entry, page.items[0].rev, page.items[0].ended_ms, page.items.len()), (file.id, 2, world.now, 1));
    assert_eq!(page.rows.rows.iter().map(|r| r.row.rev).collect::<Vec<_>>(), [1, 2]);
    let (change, back) = restored(&user, &file, user.root, "elsewhere");
    assert!(world.commit(&user, vec![change.clone()]).is_ok());
    assert_eq!((world.list(&user, user.root), in_trash(&world, &user)), (World::names(&[("elsewhere", 3)]), vec![]));
    assert_eq!((revisions(&world, &user, &file), world.totals().entries), (vec![1, 2], 1));
    // Once only.
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Conflict);
    // Removed again it stays 30 days from then.
    world.pass(20 * DAY);
    assert!(world.commit(&user, vec![World::removal(&user, &back)]).is_ok());
    world.pass(15 * DAY);
    assert_eq!((revisions(&world, &user, &file), in_trash(&world, &user)), (vec![3, 4], vec![file.id]));
    world.pass(15 * DAY);
    assert_eq!((revisions(&world, &user, &file), in_trash(&world, &user), world.used(&user)), (vec![], vec![], 0));
}

#[test]
fn a_removed_folder_comes_back_with_all_below_it_as_it_was() {
    let (mut world, user) = World::ready();
    let outer = world.mkdir(&user, user.root, "outer");
    let inner = world.mkdir(&user, outer.inside(), "inner");
    let (large, _) = world.put_large(&user, inner.inside(), "large");
    let gone = world.put(&user, inner.inside(), "gone", 50);
    assert!(world.commit(&user, vec![World::removal(&user, &gone)]).is_ok());
    world.pass(1);
    assert!(world.commit(&user, vec![World::removal(&user, &outer)]).is_ok());
    let used = world.used(&user);
    assert_eq!(in_trash(&world, &user), [outer.id, gone.id]);
    // Its doors are known while it is in the trash.
    let Answer::Doors(Doors { rows, removed }) = world.ask(&Query::Doors { space: user.space, folders: vec![inner.inside()] }) else {
        panic!("doors")
    };
    assert_eq!((rows.rows.iter().map(|r| r.row.entry).collect::<Vec<_>>(), removed), (vec![inner.id, outer.id], vec![outer.inside()]));
    // What lies in it cannot come back without it.
    let (change, _) = restored(&user, &gone, inner.inside(), "gone");
    assert_eq!(kind(&world.commit(&user, vec![change.clone()])), Kind::NotFound);
    // Nor can it be entered by another name, or come back as something else.
    let (back, _) = restored(&user, &outer, user.root, "outer");
    let other = Change { child: Some(FolderId(world.fresh())), ..back.clone() };
    assert_eq!(kind(&world.commit(&user, vec![other])), Kind::Invalid);
    let (into_itself, _) = restored(&user, &outer, inner.inside(), "outer");
    assert!(world.commit(&user, vec![into_itself]).is_err());
    assert!(world.commit(&user, vec![back]).is_ok());
    assert_eq!(world.list(&user, inner.inside()), World::names(&[("large", 1)]));
    assert_eq!(world.used(&user), used + 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    let (change, _) = World::overwrite(&user, &large, 10);
    assert!(world.commit(&user, vec![change]).is_ok());
    world.pass(31 * DAY);
    assert_eq!(world.list(&user, inner.inside()), World::names(&[("gone", 3), ("large", 2)]));
}

#[test]
fn a_place_that_is_taken_is_not_restored_over() {
    let (mut world, user) = World::ready();
    let file = world.put(&user, user.root, "file", 50);
    assert!(world.commit(&user, vec![World::removal(&user, &file)]).is_ok());
    world.put(&user, user.root, "file", 60);
    let (change, _) = restored(&user, &file, user.root, "file");
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Exists);
    let (mut change, _) = restored(&user, &file, user.root, "other");
    change.row.rev += 1;
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Invalid);
    assert_eq!(in_trash(&world, &user), [file.id]);
}

#[test]
fn what_is_in_the_trash_goes_for_good_when_told() {
    let (mut world, user) = World::ready();
    let folder = world.mkdir(&user, user.root, "folder");
    let (large, _) = world.put_large(&user, folder.inside(), "large");
    let file = world.put(&user, folder.inside(), "file", 50);
    let (change, file) = World::overwrite(&user, &file, 60);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert!(world.commit(&user, vec![World::removal(&user, &file), World::removal(&user, &folder)]).is_ok());
    assert!(world.commit(&user, vec![emptied(&user, &file)]).is_ok());
    assert_eq!((in_trash(&world, &user), revisions(&world, &user, &file)), (vec![folder.id], vec![]));
    assert!(world.commit(&user, vec![emptied(&user, &folder)]).is_ok());
    world.pass(1);
    assert_eq!((in_trash(&world, &user), revisions(&world, &user, &large)), (vec![], vec![]));
    assert_eq!((world.used(&user), world.totals().entries), (0, 0));
    let (change, _) = restored(&user, &folder, user.root, "folder");
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Conflict);
}

#[test]
fn a_conflict_version_stands_beside_and_disturbs_nothing() {
    let (mut world, user) = World::ready();
    let file = world.put(&user, user.root, "file", 50);
    let object = world.object();
    let manifest = world.manifest(vec![used(object)]);
    let mut change = beside(&user, &file, 1);
    (change.manifest, change.new_manifest) = (Some(manifest.id), Some(manifest.clone()));
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!(revisions(&world, &user, &file), [CONFLICTS + 1]);
    assert_eq!(world.list(&user, user.root), World::names(&[("file", 1)]));
    assert_eq!(kind(&world.commit(&user, vec![beside(&user, &file, 1)])), Kind::Exists);
    assert!(world.commit(&user, vec![beside(&user, &file, 2)]).is_ok());
    // It is restored as any version: its content is there.
    let (mut change, file) = World::overwrite(&user, &file, 80);
    change.manifest = Some(manifest.id);
    assert!(world.commit(&user, vec![change]).is_ok());
    let file = Entry { manifest: Some(manifest.id), ..file };
    // Also when the other one removed it; then no longer than the removal.
    assert!(world.commit(&user, vec![World::removal(&user, &file)]).is_ok());
    assert!(world.commit(&user, vec![beside(&user, &Entry { rev: 3, ..file.clone() }, 3)]).is_ok());
    world.pass(30 * DAY);
    assert_eq!((revisions(&world, &user, &file), world.used(&user)), (vec![], 0));
    // Not beside a folder, not at another name, not beside nothing; never current.
    let folder = world.mkdir(&user, user.root, "folder");
    assert_eq!(kind(&world.commit(&user, vec![beside(&user, &folder, 1)])), Kind::Conflict);
    let other = world.put(&user, user.root, "other", 50);
    assert_eq!(kind(&world.commit(&user, vec![beside(&user, &Entry { name: "folder".into(), ..other.clone() }, 1)])), Kind::Conflict);
    assert_eq!(kind(&world.commit(&user, vec![beside(&user, &file, 1)])), Kind::Conflict);
    let (mut change, _) = World::overwrite(&user, &other, 10);
    change.row.rev = CONFLICTS + 2;
    change.expect = Expect::At { folder: other.folder, tag: tag("other"), rev: CONFLICTS + 1 };
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Invalid);
}

#[test]
fn one_older_version_goes_for_good_and_the_others_stay() {
    let (mut world, user) = World::ready();
    let (first, _) = world.put_large(&user, user.root, "file");
    let (change, second) = World::overwrite(&user, &first, 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    let folder = world.mkdir(&user, user.root, "folder");
    let (change, third) = World::moved(&user, &second, folder.inside(), "moved", 110);
    assert!(world.commit(&user, vec![Change { manifest: None, ..change }]).is_ok());
    let (used, revision) = (world.used(&user), changes(&world, &user, u64::MAX).upto);
    // The content of the second is that of the first.
    assert!(world.commit(&user, vec![dropped(&user, &first)]).is_ok());
    assert_eq!((revisions(&world, &user, &third), endings(&world)), (vec![2], 1));
    assert_eq!(used - world.used(&user), 128);
    // It is gone already; the current one is none of them; nor does it lie where the entry is now.
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &first)])), Kind::NotFound);
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &third)])), Kind::NotFound);
    let elsewhere = Entry { rev: 2, ..third.clone() };
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &elsewhere)])), Kind::Invalid);
    // All or none, as of any commit.
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &second), dropped(&user, &second)])), Kind::NotFound);
    assert!(world.commit(&user, vec![dropped(&user, &second)]).is_ok());
    assert_eq!((revisions(&world, &user, &third), endings(&world), world.totals().objects), (vec![], 0, 0));
    assert_eq!((world.used(&user), world.list(&user, folder.inside())), (110 + 128, World::names(&[("moved", 3)])));
    // What watches tell of are entries: nothing was done to this one.
    let told = changes(&world, &user, revision);
    assert_eq!((told.upto, told.commits.iter().map(|c| c.notes.len()).collect::<Vec<_>>()), (revision + 2, vec![0, 0]));
    world.pass(31 * DAY);
    assert_eq!(world.used(&user), 110 + 128);
}

#[test]
fn versions_of_what_is_in_the_trash_go_one_by_one_but_the_removal_does_not() {
    let (mut world, user) = World::ready();
    let (first, _) = world.put_large(&user, user.root, "file");
    let (change, second) = World::overwrite(&user, &first, 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert!(world.commit(&user, vec![World::removal(&user, &second)]).is_ok());
    let removal = Entry { rev: 3, ..second.clone() };
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &removal)])), Kind::Invalid);
    assert!(world.commit(&user, vec![dropped(&user, &first)]).is_ok());
    let (change, back) = restored(&user, &second, user.root, "file");
    assert!(world.commit(&user, vec![change]).is_ok());
    // It came back: that it was away is a version like any other now.
    assert!(world.commit(&user, vec![dropped(&user, &removal)]).is_ok());
    assert_eq!((revisions(&world, &user, &back), endings(&world)), (vec![2], 1));
    // Removed again, with nothing left of it but that: it lies in the trash until it is emptied or ends.
    assert!(world.commit(&user, vec![World::removal(&user, &back)]).is_ok());
    assert!(world.commit(&user, vec![dropped(&user, &second), dropped(&user, &back)]).is_ok());
    assert_eq!((in_trash(&world, &user), revisions(&world, &user, &back), endings(&world)), (vec![back.id], vec![5], 1));
    assert_eq!(trash(&world, &user).rows.rows.len(), 1);
    assert!(world.commit(&user, vec![emptied(&user, &back)]).is_ok());
    assert_eq!((in_trash(&world, &user), world.used(&user)), (vec![], 0));
}

#[test]
fn only_versions_of_files_go_alone_and_nothing_else_is_asked_of_them() {
    let (mut world, user) = World::ready();
    let file = world.put(&user, user.root, "file", 50);
    // A conflict version's number is free again; the next one of that number ends in its own time.
    let conflict = Entry { rev: CONFLICTS + 1, ..file.clone() };
    assert!(world.commit(&user, vec![beside(&user, &file, 1)]).is_ok());
    assert!(world.commit(&user, vec![dropped(&user, &conflict)]).is_ok());
    assert_eq!((revisions(&world, &user, &file), endings(&world)), (vec![], 0));
    world.pass(10 * DAY);
    assert!(world.commit(&user, vec![beside(&user, &file, 1)]).is_ok());
    assert_eq!(endings(&world), 1);
    world.pass(25 * DAY);
    assert_eq!(revisions(&world, &user, &file), [CONFLICTS + 1]);
    world.pass(5 * DAY);
    assert_eq!((revisions(&world, &user, &file), endings(&world)), (vec![], 0));

    let folder = world.mkdir(&user, user.root, "folder");
    let (change, _) = World::moved(&user, &folder, user.root, "renamed", 128);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &folder)])), Kind::Invalid);
    let (change, _) = World::overwrite(&user, &file, 60);
    assert!(world.commit(&user, vec![change]).is_ok());
    let good = dropped(&user, &file);
    for bad in [
        Change { purge: false, ..good.clone() },
        Change { row: World::row(&user, &file, 10), purge: false, ..good.clone() },
        Change { row: World::row(&user, &file, 10), ..good.clone() },
        Change { child: folder.child, ..good.clone() },
        Change { manifest: Some(ManifestId(world.fresh())), ..good.clone() },
    ] {
        assert_eq!(kind(&world.commit(&user, vec![bad])), Kind::Invalid);
    }
    assert!(world.commit(&user, vec![good]).is_ok());
}

/// Its note is found wherever a change of the retention has it.
#[test]
fn a_version_that_goes_while_the_retention_changes_leaves_no_note() {
    let (mut world, user) = World::ready();
    let set = |days: u64| Command::SetRetention { space: user.space, retention_ms: Some(days * DAY) };
    for swept in [false, true] {
        let file = world.put(&user, user.root, &format!("file {swept}"), 50);
        let (change, _) = World::overwrite(&user, &file, 60);
        assert!(world.commit(&user, vec![change]).is_ok());
        world.done(Some(user.id), set(if swept { 7 } else { 60 }));
        if swept {
            world.pass(0);
        }
        assert!(world.commit(&user, vec![dropped(&user, &file)]).is_ok());
        world.pass(0);
        assert_eq!((revisions(&world, &user, &file), endings(&world)), (vec![], 0), "{swept}");
    }
}

/// What is being sealed anew would come back with the new keys.
#[test]
fn versions_do_not_go_while_their_folder_is_being_given_new_keys() {
    let (mut world, user) = World::ready();
    let folder = world.mkdir(&user, user.root, "folder");
    let inner = world.mkdir(&user, folder.inside(), "inner");
    let (inside, outside) = (world.put(&user, inner.inside(), "file", 50), world.put(&user, user.root, "file", 50));
    for file in [&inside, &outside] {
        let (change, _) = World::overwrite(&user, file, 60);
        assert!(world.commit(&user, vec![change]).is_ok());
    }
    assert!(world.commit(&user, vec![World::removal(&user, &inner)]).is_ok());
    world.done(Some(user.id), sharing::begin(&user, user.space, folder.inside(), 1).1);
    assert_eq!(kind(&world.commit(&user, vec![dropped(&user, &inside)])), Kind::Unavailable, "in the trash: who knows where");
    assert!(world.commit(&user, vec![dropped(&user, &outside)]).is_ok());
    world.pass(DAY);
    assert!(world.commit(&user, vec![dropped(&user, &inside)]).is_ok());
}

#[test]
fn another_retention_holds_for_what_is_kept_already() {
    let (mut world, user) = World::ready();
    let a = world.put(&user, user.root, "a", 100);
    let (change, a) = World::overwrite(&user, &a, 200);
    assert!(world.commit(&user, vec![change]).is_ok());
    let set = |days: Option<u64>| Command::SetRetention { space: user.space, retention_ms: days.map(|d| d * DAY) };
    world.done(Some(user.id), set(Some(60)));
    assert_eq!(kind(&world.propose(Some(user.id), set(Some(7)))), Kind::Conflict, "one after another");
    world.pass(0);
    world.pass(40 * DAY);
    assert_eq!((revisions(&world, &user, &a), history(&world, &user, &a).retention_ms), (vec![1], 60 * DAY));
    // Shorter: what is older ends with the next ticks.
    world.done(Some(user.id), set(Some(7)));
    world.pass(1);
    world.pass(1);
    assert_eq!(revisions(&world, &user, &a), [0; 0]);
    let (change, a) = World::overwrite(&user, &a, 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    world.done(Some(user.id), set(None));
    world.pass(10 * DAY);
    assert_eq!(revisions(&world, &user, &a), [2]);
    world.pass(20 * DAY);
    assert_eq!(revisions(&world, &user, &a), [0; 0]);
    assert_eq!(kind(&world.propose(Some(user.id), set(Some(10_000)))), Kind::Invalid);
}

/// The sweep is bit by bit, and each version ends once.
#[test]
fn another_retention_of_many_versions_is_carried_out_over_several_ticks() {
    let (mut world, user) = World::ready();
    let mut files: Vec<Entry> = Vec::new();
    for batch in 0..10 {
        let new: Vec<_> = (0..250).map(|i| world.new_file(&user, user.root, &format!("{batch} {i}"), 10)).collect();
        assert!(world.commit(&user, new.iter().map(|(c, _)| c.clone()).collect()).is_ok());
        let removals = new.iter().map(|(_, e)| World::removal(&user, e)).collect();
        assert!(world.commit(&user, removals).is_ok());
        files.extend(new.into_iter().map(|(_, e)| e));
    }
    world.done(Some(user.id), Command::SetRetention { space: user.space, retention_ms: Some(0) });
    for _ in 0..7 {
        world.pass(1);
    }
    assert_eq!((in_trash(&world, &user).len(), world.used(&user)), (0, 0));
    assert!(tables(&world.kv).iter().all(|(table, _)| !matches!(table, 0x33 | 0x39..=0x3b | 0x3d)), "{:?}", tables(&world.kv));
}

#[test]
fn the_log_of_changes_tells_each_change_once_and_says_when_it_cannot() {
    let (mut world, user) = World::ready();
    let begin = changes(&world, &user, u64::MAX).upto;
    assert_eq!(begin, 0);
    let folder = world.mkdir(&user, user.root, "folder");
    let a = world.put(&user, user.root, "a", 10);
    let (moved, a) = World::moved(&user, &a, folder.inside(), "b", 10);
    assert!(world.commit(&user, vec![moved]).is_ok());
    assert!(world.commit(&user, vec![beside(&user, &a, 1), World::removal(&user, &a)]).is_ok());
    let (back, a) = restored(&user, &a, user.root, "a");
    assert!(world.commit(&user, vec![back]).is_ok());
    assert!(world.commit(&user, vec![World::purge(&user, &a)]).is_ok());
    let told = changes(&world, &user, begin);
    assert_eq!((told.upto, told.resync, told.more), (6, false, false));
    let notes: Vec<_> = told.commits.iter().flat_map(|c| &c.notes).map(|n| (n.what, n.entry == a.id, n.rev, n.from.is_some())).collect();
    use What::*;
    assert_eq!(
        notes,
        [
            (Put, false, 1, false),
            (Put, true, 1, false),
            (Put, true, 2, true),
            (Conflict, true, CONFLICTS + 1, false),
            (Remove, true, 3, false),
            (Restore, true, 4, false),
            (Purge, true, 5, false)
        ]
    );
    // Rows of what was purged are gone.
    assert_eq!(told.rows.rows.len(), 1);
    assert_eq!(changes(&world, &user, 5).commits.len(), 1);
    assert_eq!((changes(&world, &user, 6).commits.len(), changes(&world, &user, 7).resync), (0, true));
    for i in 0..LOG_COMMITS {
        world.put(&user, user.root, &format!("{i}"), 1);
    }
    assert!(changes(&world, &user, 5).resync);
    let mut after = 6;
    let mut count = 0;
    loop {
        let told = changes(&world, &user, after);
        assert!(!told.resync);
        count += told.commits.len() as u64;
        after = told.upto;
        if !told.more {
            break;
        }
    }
    assert_eq!((count, after), (LOG_COMMITS, LOG_COMMITS + 6));
}

/// Ids of entries, versions and manifests are not secret to the servers, nor to former members. Knowing them
/// gives no right to restore, to keep, to purge, or to shorten how long things are kept.
#[test]
fn attack_28_knowing_ids_of_what_was_gives_no_right_to_it() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    let mallory = world.user(&operator, "mallory");
    let (file, _) = world.put_large(&user, user.root, "file");
    assert!(world.commit(&user, vec![World::removal(&user, &file)]).is_ok());
    let live = world.put(&user, user.root, "live", 10);
    let attempts = [
        emptied(&user, &file),
        restored(&user, &file, user.root, "file").0,
        beside(&user, &live, 1),
        World::purge(&user, &live),
        World::removal(&user, &live),
        dropped(&user, &file),
    ];
    for change in attempts {
        // As herself in the owner's space; with the owner's name on it; in her own space with the owner's rows.
        let record = signed_commit(&mallory, &body_of(&mut world, user.space, &change));
        let propose = |record: &CommitRecord| Command::Commit { record: record.clone(), changes: vec![change.clone()], grants: vec![] };
        assert_eq!(kind(&world.propose(Some(mallory.id), propose(&record))), Kind::Denied);
        let forged = CommitRecord { author: user.id, ..record.clone() };
        assert_eq!(kind(&world.propose(Some(mallory.id), propose(&forged))), Kind::Denied);
        assert!(world.propose(Some(user.id), propose(&forged)).is_err());
        let record = signed_commit(&mallory, &body_of(&mut world, mallory.space, &change));
        assert_eq!(kind(&world.propose(Some(mallory.id), propose(&record))), Kind::Invalid);
        let mut hers = change.clone();
        hers.row.space = mallory.space;
        assert!(world.commit(&mallory, vec![hers]).is_err());
    }
    for by in [Some(mallory.id), Some(operator.id), None] {
        let shorten = Command::SetRetention { space: user.space, retention_ms: Some(0) };
        assert_eq!(kind(&world.propose(by, shorten)), Kind::Denied);
    }
    assert_eq!((in_trash(&world, &user), revisions(&world, &user, &file)), (vec![file.id], vec![1, 2]));
}

fn body_of(world: &mut World, space: SpaceId, change: &Change) -> CommitBody {
    CommitBody { space, epoch: KeyEpoch(1), commit: CommitId(world.fresh()), rows: vec![change.row.hash()] }
}
