//! The tree: what commits change, what they are refused for, and that they change all or nothing.

use super::*;
use crate::kv::KvMut;
use crate::row::Space;

/// Tags and revisions in the root.
fn root(world: &World, user: &User) -> Vec<(NameTag, u64)> {
    world.list(user, user.root)
}

#[test]
fn files_come_are_overwritten_renamed_moved_and_go() {
    let (mut world, user) = World::ready();
    let docs = world.mkdir(&user, user.root, "docs");
    let a = world.put(&user, user.root, "a", 300);
    assert_eq!(root(&world, &user), World::names(&[("docs", 1), ("a", 1)]));
    assert_eq!((world.used(&user), world.totals().entries), (428, 2));

    let (change, a) = World::overwrite(&user, &a, 500);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("docs", 1), ("a", 2)]));
    // The older version stays for 30 days.
    assert_eq!(world.used(&user), 928);

    let (change, b) = World::moved(&user, &a, user.root, "b", 500);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("docs", 1), ("b", 3)]));

    let (change, c) = World::moved(&user, &b, docs.inside(), "c", 500);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("docs", 1)]));
    assert_eq!(world.list(&user, docs.inside()), World::names(&[("c", 4)]));
    assert_eq!((c.id, world.totals().entries), (a.id, 2));

    assert!(world.commit(&user, vec![World::removal(&user, &c)]).is_ok());
    assert_eq!(world.list(&user, docs.inside()), vec![]);
    assert_eq!((world.used(&user), world.totals().entries), (128 + 300 + 500 + 500 + 500, 1));
    let versions = world.rows(&Query::Versions { space: user.space, entry: c.id });
    assert_eq!(
        versions.rows.iter().map(|r| (r.row.rev, r.row.sealed.len())).collect::<Vec<_>>(),
        [(1, 300), (2, 500), (3, 500), (4, 500), (5, 0)]
    );
    assert_eq!(versions.commits.len(), 5);
}

#[test]
fn an_outcome_names_revision_and_log_time() {
    let (mut world, user) = World::ready();
    let (one, _) = world.new_file(&user, user.root, "a", 100);
    let (two, _) = world.new_file(&user, user.root, "b", 100);
    assert_eq!(world.commit(&user, vec![one]), Ok(Outcome::Committed { revision: 1, time_ms: START }));
    world.now += 5;
    assert_eq!(world.commit(&user, vec![two]), Ok(Outcome::Committed { revision: 2, time_ms: START + 5 }));
    let rows = world.rows(&Query::List { space: user.space, folder: user.root, after: None, limit: 1, manifests: false, have: Vec::new() });
    assert_eq!((rows.rows.len(), rows.more, rows.revision), (1, true, 2));
    let after = Some(rows.rows[0].row.tag);
    let rest = world.rows(&Query::List { space: user.space, folder: user.root, after, limit: 1, manifests: false, have: Vec::new() });
    assert_eq!((rest.rows.len(), rest.more, rest.commits.len()), (1, false, 1));
    // Records that the asker has do not come again.
    let have = vec![rows.rows[0].commit];
    let known = Query::List { space: user.space, folder: user.root, after: None, limit: 9, manifests: false, have };
    let known = world.rows(&known);
    assert_eq!((known.rows.len(), known.commits.len(), known.commits[0].0), (2, 1, rest.rows[0].commit));
    let have = vec![known.commits[0].0; model::tree::HAVE_MAX + 1];
    let too_many = Query::List { space: user.space, folder: user.root, after: None, limit: 9, manifests: false, have };
    assert_eq!(crate::query(&world.kv, &too_many).map_err(|e| e.kind), Err(Kind::Invalid));
    let steps = vec![(user.root, tag("b")), (user.root, tag("no")), (user.root, tag("a"))];
    let walked = world.rows(&Query::Walk { space: user.space, steps, manifests: false });
    assert_eq!(walked.rows.iter().map(|r| r.row.tag).collect::<Vec<_>>(), [tag("b"), tag("a")]);
    assert_eq!(walked.rows.iter().map(|r| r.time_ms).collect::<Vec<_>>(), [START + 5, START]);
    let found = world.rows(&Query::Lookup { space: user.space, folder: user.root, tags: vec![tag("a")], manifests: false });
    assert_eq!((found.rows.len(), found.commits.len()), (1, 1));
}

#[test]
fn a_move_onto_an_existing_name_needs_its_removal_before_it_in_the_same_commit() {
    let (mut world, user) = World::ready();
    let (a, b) = (world.put(&user, user.root, "a", 100), world.put(&user, user.root, "b", 100));
    let (onto, moved) = World::moved(&user, &a, user.root, "b", 100);
    let remove = World::removal(&user, &b);
    assert_eq!(kind(&world.commit(&user, vec![onto.clone()])), Kind::Exists);
    assert_eq!(kind(&world.commit(&user, vec![onto.clone(), remove.clone()])), Kind::Exists);
    assert!(world.commit(&user, vec![remove, onto]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("b", 2)]));
    assert_eq!(world.totals().entries, 1);
    // Two that change places need a third for a moment.
    let c = world.put(&user, user.root, "c", 100);
    let (one, away) = World::moved(&user, &moved, user.root, "aside", 100);
    let (two, _) = World::moved(&user, &c, user.root, "b", 100);
    let (three, _) = World::moved(&user, &away, user.root, "c", 100);
    assert!(world.commit(&user, vec![one, two, three]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("b", 2), ("c", 4)]));
}

#[test]
fn one_commit_builds_a_tree_from_the_top() {
    let (mut world, user) = World::ready();
    let (one, outer) = world.new_folder(&user, user.root, "outer");
    let (two, inner) = world.new_folder(&user, outer.inside(), "inner");
    let (three, file) = world.new_file(&user, inner.inside(), "file", 100);
    assert_eq!(kind(&world.commit(&user, vec![two.clone(), one.clone()])), Kind::NotFound);
    assert!(world.commit(&user, vec![one, two, three]).is_ok());
    // And takes it down again from the bottom; removed from the top, the rest is not there any more.
    let (file, inner, outer) = (World::removal(&user, &file), World::removal(&user, &inner), World::removal(&user, &outer));
    assert_eq!(kind(&world.commit(&user, vec![outer.clone(), inner.clone()])), Kind::NotFound);
    assert!(world.commit(&user, vec![file, inner, outer]).is_ok());
    assert_eq!(world.totals().entries, 0);
}

#[test]
fn rule_06_nothing_changes_below_a_folder_that_was_removed() {
    let (mut world, user) = World::ready();
    let outer = world.mkdir(&user, user.root, "outer");
    let inner = world.mkdir(&user, outer.inside(), "inner");
    let file = world.put(&user, inner.inside(), "file", 100);
    assert!(world.commit(&user, vec![World::removal(&user, &outer)]).is_ok());

    let (new, _) = world.new_file(&user, inner.inside(), "new", 100);
    let (over, _) = World::overwrite(&user, &file, 100);
    let (rename, _) = World::moved(&user, &file, inner.inside(), "other", 100);
    let (rescue, _) = World::moved(&user, &file, user.root, "file", 100);
    let (bring, _) = World::moved(&user, &inner, user.root, "inner", 128);
    let stray = world.put(&user, user.root, "stray", 100);
    let (sink, _) = World::moved(&user, &stray, inner.inside(), "stray", 100);
    for change in [new, over, rename, rescue, bring, sink, World::removal(&user, &file), World::purge(&user, &inner)] {
        assert_eq!(kind(&world.commit(&user, vec![change.clone()])), Kind::NotFound, "{change:?}");
    }
    // Another of the same name is another folder.
    let again = world.mkdir(&user, user.root, "outer");
    let (new, _) = world.new_file(&user, inner.inside(), "new", 100);
    assert_eq!(kind(&world.commit(&user, vec![new])), Kind::NotFound);
    assert_eq!(world.list(&user, again.inside()), vec![]);
}

#[test]
fn a_purged_folder_is_gone_at_once_and_its_id_with_it() {
    let (mut world, user) = World::ready();
    let folder = world.mkdir(&user, user.root, "folder");
    world.put(&user, folder.inside(), "file", 100);
    assert!(world.commit(&user, vec![World::purge(&user, &folder)]).is_ok());
    let (new, _) = world.new_file(&user, folder.inside(), "new", 100);
    assert_eq!(kind(&world.commit(&user, vec![new])), Kind::NotFound);
    // Its contents are still being destroyed: a folder of the same id would lose its own with them.
    let (mut again, _) = world.new_folder(&user, user.root, "again");
    again.child = folder.child;
    assert_eq!(kind(&world.commit(&user, vec![again])), Kind::Exists);
    world.pass(1);
    assert_eq!((world.totals().entries, world.used(&user)), (0, 0));
}

#[test]
fn rule_06_a_folder_does_not_move_below_itself() {
    let (mut world, user) = World::ready();
    let a = world.mkdir(&user, user.root, "a");
    let b = world.mkdir(&user, a.inside(), "b");
    let c = world.mkdir(&user, b.inside(), "c");
    for target in [&a, &b, &c] {
        let (change, _) = World::moved(&user, &a, target.inside(), "x", 128);
        assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Invalid);
    }
    // Not in two steps of one commit either: each sees what the one before it did.
    let d = world.mkdir(&user, user.root, "d");
    let (a_into_d, _) = World::moved(&user, &a, d.inside(), "a", 128);
    let (d_into_c, _) = World::moved(&user, &d, c.inside(), "d", 128);
    assert_eq!(kind(&world.commit(&user, vec![a_into_d.clone(), d_into_c])), Kind::Invalid);
    // Nor after a look that found the way clear.
    let (file, _) = world.new_file(&user, c.inside(), "file", 100);
    let (a_into_c, _) = World::moved(&user, &a, c.inside(), "a", 128);
    assert_eq!(kind(&world.commit(&user, vec![file, a_into_c])), Kind::Invalid);
    // Elsewhere it goes, with all below it.
    assert!(world.commit(&user, vec![a_into_d]).is_ok());
    let (up, _) = World::moved(&user, &c, user.root, "c", 128);
    assert!(world.commit(&user, vec![up]).is_ok());
    assert_eq!(root(&world, &user), World::names(&[("d", 1), ("c", 2)]));
}

#[test]
fn folders_nest_so_deep_and_no_deeper() {
    let (mut world, user) = World::ready();
    let mut at = user.root;
    // 1,024 folders, in commits of 256: the way there is known in part within each.
    for _ in 0..4 {
        let mut changes = Vec::new();
        for _ in 0..256 {
            let (change, folder) = world.new_folder(&user, at, "d");
            at = folder.inside();
            changes.push(change);
        }
        assert!(world.commit(&user, changes).is_ok());
    }
    world.put(&user, at, "file", 100);
    let deeper = world.mkdir(&user, at, "deeper");
    let (file, _) = world.new_file(&user, deeper.inside(), "file", 100);
    assert_eq!(kind(&world.commit(&user, vec![file])), Kind::Invalid);
    // The last of them can still be taken away.
    assert!(world.commit(&user, vec![World::removal(&user, &deeper)]).is_ok());
}

#[test]
fn rule_05_what_somebody_else_changed_first_is_a_conflict() {
    let (mut world, user) = World::ready();
    let a = world.put(&user, user.root, "a", 100);
    let (change, newer) = World::overwrite(&user, &a, 200);
    assert!(world.commit(&user, vec![change.clone()]).is_ok());
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Conflict);
    let (rename, _) = World::moved(&user, &a, user.root, "b", 100);
    assert_eq!(kind(&world.commit(&user, vec![rename])), Kind::Conflict);
    assert_eq!(kind(&world.commit(&user, vec![World::removal(&user, &a)])), Kind::Conflict);
    assert_eq!(kind(&world.commit(&user, vec![World::purge(&user, &a)])), Kind::Conflict);
    // Another entry has the name now.
    assert!(world.commit(&user, vec![World::removal(&user, &newer)]).is_ok());
    world.put(&user, user.root, "a", 100);
    let (change, _) = World::overwrite(&user, &a, 100);
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Conflict);
}

#[test]
fn a_name_an_entry_or_a_folder_that_exists_is_not_made_again() {
    let (mut world, user) = World::ready();
    let (a, folder) = (world.put(&user, user.root, "a", 100), world.mkdir(&user, user.root, "folder"));
    let (name, _) = world.new_file(&user, user.root, "a", 100);
    assert_eq!(kind(&world.commit(&user, vec![name])), Kind::Exists);
    let (mut entry, _) = world.new_file(&user, user.root, "b", 100);
    entry.row.entry = a.id;
    assert_eq!(kind(&world.commit(&user, vec![entry.clone()])), Kind::Exists);
    for taken in [user.root, folder.inside()] {
        let (mut change, _) = world.new_folder(&user, user.root, "b");
        change.child = Some(taken);
        assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Exists);
    }
    // In the trash it still exists, for 30 days; after a purge it does not.
    assert!(world.commit(&user, vec![World::removal(&user, &a)]).is_ok());
    assert_eq!(kind(&world.commit(&user, vec![entry.clone()])), Kind::Exists);
    world.pass(30 * DAY);
    assert!(world.commit(&user, vec![entry]).is_ok());
    // Twice in one commit is no better.
    let (one, _) = world.new_file(&user, user.root, "c", 100);
    assert_eq!(kind(&world.commit(&user, vec![one.clone(), one])), Kind::Exists);
}

#[test]
fn changes_that_cannot_be_are_invalid() {
    let (mut world, user) = World::ready();
    let file = world.put(&user, user.root, "file", 100);
    let folder = world.mkdir(&user, user.root, "folder");
    let (large, _) = world.put_large(&user, user.root, "large");
    let (new, _) = world.new_file(&user, user.root, "new", 100);
    let (over, _) = World::overwrite(&user, &file, 100);
    let manifest = world.manifest(vec![]);
    let with_row = |change: &Change, edit: &dyn Fn(&mut Row)| {
        let mut change = change.clone();
        edit(&mut change.row);
        change
    };
    let cases = [
        ("no epoch", with_row(&new, &|r| r.epoch = KeyEpoch(0))),
        ("an epoch to come", with_row(&new, &|r| r.epoch = KeyEpoch(2))),
        ("too long", with_row(&new, &|r| r.sealed = vec![0; 16385].into())),
        ("new at revision 2", with_row(&new, &|r| r.rev = 2)),
        ("new at revision 0", with_row(&new, &|r| r.rev = 0)),
        ("new and empty", with_row(&new, &|r| r.sealed = vec![].into())),
        ("the same revision", with_row(&over, &|r| r.rev = 1)),
        ("a revision left out", with_row(&over, &|r| r.rev = 3)),
        (
            "after the last revision",
            Change { expect: Expect::At { folder: user.root, tag: tag("file"), rev: u64::MAX }, ..with_row(&over, &|r| r.rev = 0) },
        ),
        ("a removal elsewhere", with_row(&World::removal(&user, &file), &|r| r.tag = tag("elsewhere"))),
        ("a removal that leaves content", Change { manifest: large.manifest, ..World::removal(&user, &large) }),
        ("a purge that is no removal", Change { purge: true, ..over.clone() }),
        ("a folder with content", Change { manifest: large.manifest, ..World::overwrite(&user, &folder, 128).0 }),
        ("a file that becomes a folder", Change { child: Some(FolderId([1; 16])), ..over.clone() }),
        ("a folder that becomes a file", Change { child: None, ..World::overwrite(&user, &folder, 128).0 }),
        ("a folder removed as a file", Change { child: None, ..World::removal(&user, &folder) }),
        ("a manifest that it does not name", Change { new_manifest: Some(manifest.clone()), ..new.clone() }),
        ("another manifest than it names", Change { manifest: large.manifest, new_manifest: Some(manifest), ..new.clone() }),
    ];
    for (what, change) in cases {
        assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Invalid, "{what}");
    }
    assert_eq!(kind(&world.commit(&user, vec![])), Kind::Invalid);
    let many: Vec<Change> = (0..257).map(|i| world.new_file(&user, user.root, &i.to_string(), 1).0).collect();
    assert_eq!(kind(&world.commit(&user, many.clone())), Kind::Invalid);
    assert!(world.commit(&user, many[..256].to_vec()).is_ok());
    assert_eq!(world.totals().entries, 3 + 256);
}

#[test]
fn only_what_the_author_signed_is_committed() {
    let (mut world, user) = World::ready();
    let (a, _) = world.new_file(&user, user.root, "a", 100);
    let (b, _) = world.new_file(&user, user.root, "b", 100);
    let both = vec![a.clone(), b.clone()];
    let record = world.sign(&user, &both);
    let other = stranger("other");
    let mut try_it = |by: Option<AccountId>, record: &CommitRecord, changes: Vec<Change>| {
        kind(&world.propose(by, Command::Commit { record: record.clone(), changes, grants: vec![] }))
    };
    let forged = CommitRecord { signature: sign(&other.key, "commit", &record.body), ..record.clone() };
    assert_eq!(try_it(Some(user.id), &forged, both.clone()), Kind::Denied, "another's key");
    let kinded = CommitRecord { signature: sign(&user.key, "identity", &record.body), ..record.clone() };
    assert_eq!(try_it(Some(user.id), &kinded, both.clone()), Kind::Denied, "signed as something else");
    let unsigned = CommitRecord { signature: Signature([0; 64]), ..record.clone() };
    assert_eq!(try_it(Some(user.id), &unsigned, both.clone()), Kind::Denied, "not signed");
    assert_eq!(try_it(Some(user.id), &record, vec![b.clone(), a.clone()]), Kind::Denied, "reordered");
    assert_eq!(try_it(Some(user.id), &record, vec![a.clone(), a.clone()]), Kind::Denied, "repeated");
    let mut changed = both.clone();
    changed[1].row.sealed[0] ^= 1;
    assert_eq!(try_it(Some(user.id), &record, changed), Kind::Denied, "changed");
    let mut renamed = both.clone();
    renamed[0].row.tag = tag("c");
    assert_eq!(try_it(Some(user.id), &record, renamed), Kind::Denied, "renamed");
    assert_eq!(try_it(Some(user.id), &record, vec![a.clone()]), Kind::Invalid, "one left out");
    assert_eq!(try_it(None, &record, both.clone()), Kind::Denied, "proposed by nobody");
    assert_eq!(try_it(Some(other.id), &record, both.clone()), Kind::Denied, "proposed by another");
    let padded = [&record.body[..], &[0]].concat();
    let padded = CommitRecord { author: user.id, signature: sign(&user.key, "commit", &padded), body: padded.into() };
    assert_eq!(try_it(Some(user.id), &padded, both.clone()), Kind::Corrupt, "bytes behind the body");
    world.done(Some(user.id), Command::Commit { record: record.clone(), changes: both, grants: vec![] });
    let (c, _) = world.new_file(&user, user.root, "c", 100);
    let mut body: CommitBody = cbor::from_canonical(&record.body).expect("body");
    body.rows = vec![c.row.hash()];
    let again = signed_commit(&user, &body);
    let applied = world.propose(Some(user.id), Command::Commit { record: again, changes: vec![c], grants: vec![] });
    assert_eq!(kind(&applied), Kind::Exists, "the same commit id");
}

#[test]
fn nobody_writes_in_a_space_that_is_not_theirs() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    let (change, _) = world.new_file(&user, user.root, "a", 100);
    // The operator signs for the user's space: admins of the cluster are no members.
    let body = CommitBody { space: user.space, epoch: KeyEpoch(1), commit: CommitId([1; 16]), rows: vec![change.row.hash()] };
    let record = signed_commit(&operator, &body);
    let commit = Command::Commit { record, changes: vec![change.clone()], grants: vec![] };
    assert_eq!(kind(&world.propose(Some(operator.id), commit)), Kind::Denied);
    // A space that does not exist.
    let record = signed_commit(&user, &CommitBody { space: SpaceId([1; 16]), ..body });
    let commit = Command::Commit { record, changes: vec![change.clone()], grants: vec![] };
    assert_eq!(kind(&world.propose(Some(user.id), commit)), Kind::Denied);
    // A row of another space inside a good commit.
    let mut foreign = change;
    foreign.row.space = operator.space;
    assert_eq!(kind(&world.commit(&user, vec![foreign])), Kind::Invalid);
}

#[test]
fn attack_28_whoever_knows_ids_removes_and_takes_nothing() {
    let (mut world, ann) = World::ready();
    let operator = stranger("operator");
    let bea = world.user(&operator, "bea");
    let note = world.put(&ann, ann.root, "note", 100);
    let (large, object) = world.put_large(&ann, ann.root, "large");
    let before = without_answers(&world.kv);
    let signed = |by: &User, space: SpaceId, change: &Change| {
        let body = CommitBody { space, epoch: KeyEpoch(1), commit: CommitId([7; 16]), rows: vec![change.row.hash()] };
        Command::Commit { record: signed_commit(by, &body), changes: vec![change.clone()], grants: vec![] }
    };
    for entry in [&note, &large] {
        // All that servers and former members know: ids, tag, revision. Signed by bea, for ann's space.
        for change in [World::removal(&ann, entry), World::purge(&ann, entry), World::overwrite(&ann, entry, 10).0] {
            let command = signed(&bea, ann.space, &change);
            assert_eq!(kind(&world.propose(Some(bea.id), command)), Kind::Denied);
        }
        // Signed for her own space, where there is no such thing.
        for mut change in [World::removal(&ann, entry), World::purge(&ann, entry)] {
            change.row.space = bea.space;
            let command = signed(&bea, bea.space, &change);
            assert!(world.propose(Some(bea.id), command).is_err());
        }
    }
    // The object in a manifest of her own, to have a say in its life.
    let manifest = world.manifest(vec![used(object)]);
    let (claim, _) = world.new_large(&bea, bea.root, "mine", manifest);
    assert!(world.commit(&bea, vec![claim]).is_err());
    assert_eq!(without_answers(&world.kv), before);
}

/// Puts the space's row as it would be after a change of its members.
fn set_members(world: &mut World, user: &User, epoch: u64, member: &User, role: Role, fingerprint: Hash) {
    let key = crate::key::space(user.space);
    let mut space: Space = cbor::from_slice(&world.kv.get(&key).expect("memory").expect("space")).expect("space");
    space.epoch = KeyEpoch(epoch);
    space.members.retain(|m| m.account != member.id);
    space.members.push(Member { account: member.id, fingerprint, role });
    world.kv.put(&key, &cbor::to_vec(&space)).expect("memory");
}

#[test]
fn roles_fingerprints_and_key_epochs_decide_who_writes() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    let fingerprint = account_of(&operator).0.identity.fingerprint();
    let write = |world: &mut World, name: &str, epoch: u64| {
        let (change, _) = world.new_file(&user, user.root, name, 100);
        let body = CommitBody { space: user.space, epoch: KeyEpoch(epoch), commit: CommitId(world.fresh()), rows: vec![change.row.hash()] };
        let record = signed_commit(&operator, &body);
        world.propose(Some(operator.id), Command::Commit { record, changes: vec![change], grants: vec![] })
    };
    set_members(&mut world, &user, 1, &operator, Role::Read, fingerprint);
    assert_eq!(kind(&write(&mut world, "a", 1)), Kind::Denied);
    set_members(&mut world, &user, 1, &operator, Role::Write, Hash([1; 32]));
    assert_eq!(kind(&write(&mut world, "a", 1)), Kind::Denied);
    set_members(&mut world, &user, 1, &operator, Role::Write, fingerprint);
    assert!(write(&mut world, "a", 1).is_ok());
    // The next epoch: who signs in an older one, or one to come, has to look again.
    set_members(&mut world, &user, 2, &operator, Role::Write, fingerprint);
    assert_eq!(kind(&write(&mut world, "b", 1)), Kind::Conflict);
    assert_eq!(kind(&write(&mut world, "b", 3)), Kind::Conflict);
    // Folders keep the epoch in which they were sealed.
    assert!(write(&mut world, "b", 2).is_ok());
    // A disabled account writes nothing.
    let key = crate::key::account(operator.id);
    let account: Account = cbor::from_slice(&world.kv.get(&key).expect("memory").expect("account")).expect("account");
    world.kv.put(&key, &cbor::to_vec(&Account { disabled: true, ..account })).expect("memory");
    assert_eq!(kind(&write(&mut world, "c", 2)), Kind::Denied);
}

#[test]
fn a_commit_that_fails_at_its_end_leaves_nothing() {
    let (mut world, user) = World::ready();
    let (old, object) = world.put_large(&user, user.root, "old");
    let fresh = world.object();
    let manifest = world.manifest(vec![used(fresh), used(object)]);
    let (folder, inside) = world.new_folder(&user, user.root, "folder");
    let (large, _) = world.new_large(&user, inside.inside(), "large", manifest);
    let purge = World::purge(&user, &old);
    let (stale, _) = World::overwrite(&user, &Entry { rev: 7, ..old.clone() }, 100);
    // The world compares all rows before and after.
    assert_eq!(kind(&world.commit(&user, vec![folder.clone(), large.clone(), purge.clone(), stale])), Kind::Conflict);
    assert_eq!(world.totals().objects, 1);
    assert!(world.commit(&user, vec![folder, large, purge]).is_ok());
    assert_eq!((world.totals().objects, world.totals().entries), (2, 2));
}

#[test]
fn rule_05_a_request_is_applied_once() {
    let (mut world, user) = World::ready();
    let (a, entry) = world.new_file(&user, user.root, "a", 100);
    let (record, request) = (world.sign(&user, std::slice::from_ref(&a)), world.request());
    let command = Command::Commit { record, changes: vec![a], grants: vec![] };
    let proposal = Proposal { request, account: Some(user.id), command, time_ms: START };
    let first = world.apply(&proposal);
    assert_eq!(first, Ok(Outcome::Committed { revision: 1, time_ms: START }));
    assert_eq!(world.apply(&proposal), first);
    // Even when another change lies between: with the same answer, and not applied.
    let (over, _) = World::overwrite(&user, &entry, 200);
    assert!(world.commit(&user, vec![over]).is_ok());
    let late = Proposal { time_ms: START + DAY, ..proposal.clone() };
    assert_eq!(world.apply(&late), first);
    assert_eq!(root(&world, &user), World::names(&[("a", 2)]));
    // The replay came a day later: log time knows.
    let Answer::Cluster(view) = world.ask(&Query::Cluster) else { panic!() };
    assert_eq!(view.time_ms, START + DAY);
    // A millisecond later the id is refused, whether or not a tick has come by.
    let later = Proposal { time_ms: START + DAY + 1, ..proposal };
    assert_eq!(kind(&world.apply(&later)), Kind::Invalid);
    world.now = START + DAY + 1;
    world.pass(0);
    assert_eq!(kind(&world.apply(&later)), Kind::Invalid);
}

#[test]
fn refusals_are_answers_too_and_ids_belong_to_their_account() {
    let (mut world, operator) = World::new();
    let guest = world.user(&operator, "guest");
    let request = world.request();
    let proposal =
        |account: Option<AccountId>| Proposal { request, account, command: Command::CreateInvite(invite("third")), time_ms: START };
    let refused = world.apply(&proposal(Some(guest.id)));
    assert_eq!(kind(&refused), Kind::Denied);
    // Another account's request of the same id is another request.
    assert_eq!(world.apply(&proposal(Some(operator.id))), Ok(Outcome::Done));
    assert_eq!(world.apply(&proposal(Some(operator.id))), Ok(Outcome::Done));
    assert_eq!(world.apply(&proposal(Some(guest.id))), refused);
}

#[test]
fn a_clock_that_is_wrong_by_more_than_a_day_is_told_so() {
    let (mut world, operator) = World::new();
    let invite = Command::CreateInvite(invite("guest"));
    let mut at = |time: u64| {
        let request = RequestId::new(time, [1; 10]);
        let proposal = Proposal { request, account: Some(operator.id), command: invite.clone(), time_ms: START };
        world.apply(&proposal)
    };
    assert_eq!(kind(&at(START - DAY - 1)), Kind::Invalid);
    assert_eq!(kind(&at(START + DAY + 1)), Kind::Invalid);
    assert!(at(START + DAY + 1).is_err_and(|e| e.hint.is_some()));
    assert_eq!(at(START - DAY), Ok(Outcome::Done));
}

#[test]
fn a_quota_bounds_what_grows_and_nothing_else() {
    let (mut world, operator) = World::new();
    world.done(Some(operator.id), Command::CreateInvite(Invite { quota: Some(1000), ..invite("guest") }));
    let guest = stranger("guest");
    world.done(None, registration(&guest));
    let a = world.put(&guest, guest.root, "a", 900);
    let (b, _) = world.new_file(&guest, guest.root, "b", 101);
    assert_eq!(kind(&world.commit(&guest, vec![b])), Kind::Insufficient);
    let b = world.put(&guest, guest.root, "b", 100);
    assert_eq!(world.used(&guest), 1000);
    // Full: renames are kept as versions and need room too, removals do not.
    let (rename, _) = World::moved(&guest, &b, guest.root, "c", 100);
    assert_eq!(kind(&world.commit(&guest, vec![rename])), Kind::Insufficient);
    assert!(world.commit(&guest, vec![World::removal(&guest, &b)]).is_ok());
    assert_eq!(world.used(&guest), 1000);
    assert!(world.commit(&guest, vec![World::purge(&guest, &a)]).is_ok());
    assert_eq!(world.used(&guest), 100);
    world.put(&guest, guest.root, "c", 900);
}

#[test]
fn commit_records_stay_as_long_as_one_of_their_rows() {
    let (mut world, user) = World::ready();
    let (one, a) = world.new_file(&user, user.root, "a", 100);
    let (two, b) = world.new_file(&user, user.root, "b", 100);
    assert!(world.commit(&user, vec![one, two]).is_ok());
    let records = |world: &World| rows_of(&world.kv).keys().filter(|k| k[0] == 0x34).count();
    assert_eq!(records(&world), 1);
    assert!(world.commit(&user, vec![World::purge(&user, &a)]).is_ok());
    assert_eq!(records(&world), 1);
    // A removal is signed, and kept with what it removed.
    assert!(world.commit(&user, vec![World::removal(&user, &b)]).is_ok());
    assert_eq!(records(&world), 2);
    world.pass(30 * DAY);
    assert_eq!(records(&world), 0);
    // Made and purged in one commit: nothing is left of it.
    let (three, c) = world.new_file(&user, user.root, "c", 100);
    assert!(world.commit(&user, vec![three, World::purge(&user, &c)]).is_ok());
    assert_eq!((records(&world), world.used(&user)), (0, 0));
}

/// A listing with manifests ended by the length of its rows alone: 500 manifests of 24 KiB and more
/// made answers that no client accepts.
#[test]
fn a_page_ends_before_its_manifests_are_too_long_for_one_answer() {
    let (mut world, user) = World::ready();
    let mut total = 0;
    for batch in 0..2 {
        let changes = (0..250).map(|i| {
            let manifest = ManifestRow { id: ManifestId(world.fresh()), sealed: vec![1; 24 << 10].into(), objects: vec![] };
            world.new_large(&user, user.root, &format!("{batch} {i}"), manifest).0
        });
        let changes = changes.collect();
        assert!(world.commit(&user, changes).is_ok());
    }
    let (mut after, mut pages) = (None, 0);
    loop {
        let rows = world.rows(&Query::List { space: user.space, folder: user.root, after, limit: 500, manifests: true, have: Vec::new() });
        assert!(cbor::to_vec(&rows).len() < 9 << 20);
        assert_eq!(rows.rows.len(), rows.manifests.len());
        total += rows.rows.len();
        pages += 1;
        after = rows.rows.last().map(|r| r.row.tag);
        if !rows.more {
            break;
        }
    }
    assert_eq!((total, pages), (500, 2));
    // Places asked for by name are all answered, or none.
    let tags: Vec<NameTag> = (0..250).flat_map(|i| [tag(&format!("0 {i}")), tag(&format!("1 {i}"))]).collect();
    let ask = |tags: &[NameTag], manifests| {
        crate::query(&world.kv, &Query::Lookup { space: user.space, folder: user.root, tags: tags.to_vec(), manifests })
    };
    assert_eq!(ask(&tags, true).map_err(|e| e.kind), Err(Kind::Invalid));
    assert!(ask(&tags, false).is_ok() && ask(&tags[..256], true).is_ok());
    assert_eq!(ask(&vec![tag("x"); 1025], false).map_err(|e| e.kind), Err(Kind::Invalid));
}
