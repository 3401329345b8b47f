//! Log time, and what ends by it: versions, trash, answers; and that nothing is left behind.

use super::*;

fn time(world: &World) -> u64 {
    match world.ask(&Query::Cluster) {
        Answer::Cluster(view) => view.time_ms,
        other => panic!("{other:?}"),
    }
}

fn revisions(world: &World, user: &User, entry: &Entry) -> Vec<u64> {
    world.rows(&Query::Versions { space: user.space, entry: entry.id }).rows.iter().map(|r| r.row.rev).collect()
}

#[test]
fn log_time_never_goes_back() {
    let (mut world, user) = World::ready();
    world.now = START + 10;
    world.put(&user, user.root, "a", 100);
    assert_eq!(time(&world), START + 10);
    // A new leader's clock is behind.
    world.now = START + 3;
    let (b, _) = world.new_file(&user, user.root, "b", 100);
    assert_eq!(world.commit(&user, vec![b]), Ok(Outcome::Committed { revision: 2, time_ms: START + 10 }));
    assert_eq!(time(&world), START + 10);
    world.now = START + 11;
    world.pass(0);
    assert_eq!(time(&world), START + 11);
    // A refused command moves it as well.
    world.now = START + 12;
    assert!(world.propose(None, Command::CreateInvite(invite("guest"))).is_err());
    assert_eq!(time(&world), START + 12);
}

#[test]
fn older_versions_stay_30_days_each() {
    let (mut world, user) = World::ready();
    let a = world.put(&user, user.root, "a", 100);
    world.pass(DAY);
    let (change, a) = World::overwrite(&user, &a, 200);
    assert!(world.commit(&user, vec![change]).is_ok());
    world.pass(DAY);
    let (change, a) = World::overwrite(&user, &a, 300);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert_eq!((revisions(&world, &user, &a), world.used(&user)), (vec![1, 2], 600));
    // Counted from when they were overwritten.
    world.pass(29 * DAY - 1);
    assert_eq!(revisions(&world, &user, &a), [1, 2]);
    world.pass(1);
    assert_eq!((revisions(&world, &user, &a), world.used(&user)), (vec![2], 500));
    world.pass(DAY);
    assert_eq!((revisions(&world, &user, &a), world.used(&user)), (vec![], 300));
    assert_eq!(world.list(&user, user.root), World::names(&[("a", 3)]));
}

#[test]
fn a_removed_file_stays_30_days_with_its_removal() {
    let (mut world, user) = World::ready();
    let (file, object) = world.put_large(&user, user.root, "file");
    assert!(world.commit(&user, vec![World::removal(&user, &file)]).is_ok());
    assert_eq!((revisions(&world, &user, &file), world.totals().entries, world.totals().objects), (vec![1, 2], 0, 1));
    world.pass(30 * DAY - 1);
    assert_eq!((revisions(&world, &user, &file), world.totals().objects), (vec![1, 2], 1));
    // A copy brings it back, under a new id: its content is live still.
    let (mut copy, back) = world.new_file(&user, user.root, "back", 128);
    copy.manifest = file.manifest;
    assert!(world.commit(&user, vec![copy]).is_ok());
    world.pass(1);
    assert_eq!((revisions(&world, &user, &file), world.totals().objects), (vec![], 1));
    assert!(world.commit(&user, vec![World::purge(&user, &Entry { manifest: file.manifest, ..back })]).is_ok());
    world.pass(HOUR);
    assert_eq!(world.ask(&Query::Objects(vec![object])), Answer::Objects(vec![model::cluster::ObjectState::Dead]));
}

#[test]
fn a_removed_folder_goes_with_all_below_it_after_30_days() {
    let (mut world, user) = World::ready();
    let outer = world.mkdir(&user, user.root, "outer");
    let inner = world.mkdir(&user, outer.inside(), "inner");
    let (_, object) = world.put_large(&user, inner.inside(), "large");
    let file = world.put(&user, inner.inside(), "file", 100);
    let (change, _) = World::overwrite(&user, &file, 200);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert!(world.commit(&user, vec![World::removal(&user, &outer)]).is_ok());
    let used = 128 * 3 + 100 + 18_000_004 + 300;
    assert_eq!((world.used(&user), world.totals().entries), (used, 3));
    world.pass(30 * DAY - 1);
    assert_eq!((world.used(&user), world.totals().entries), (used, 3));
    world.pass(1);
    assert_eq!((world.used(&user), world.totals().entries, world.totals().objects), (0, 0, 0));
    world.pass(HOUR);
    assert_eq!(world.ask(&Query::Objects(vec![object])), Answer::Objects(vec![model::cluster::ObjectState::Dead]));
}

#[test]
fn a_large_folder_is_destroyed_bit_by_bit() {
    let (mut world, user) = World::ready();
    let folder = world.mkdir(&user, user.root, "folder");
    for batch in 0..18 {
        let changes = (0..250).map(|i| world.new_file(&user, folder.inside(), &format!("{batch} {i}"), 10).0).collect();
        assert!(world.commit(&user, changes).is_ok());
    }
    assert_eq!(world.totals().entries, 4501);
    assert!(world.commit(&user, vec![World::purge(&user, &folder)]).is_ok());
    let mut left = Vec::new();
    for _ in 0..4 {
        left.push((world.totals().entries, world.used(&user)));
        world.pass(1);
    }
    assert_eq!(left, [(4500, 45_000), (2500, 25_000), (500, 5_000), (0, 0)]);
}

#[test]
fn answers_are_kept_for_a_day() {
    let (mut world, operator) = World::new();
    let answers = |world: &World| rows_of(&world.kv).keys().filter(|k| k[0] == 0x03).count();
    world.pass(0);
    // Init, the registration, no tick.
    assert_eq!(answers(&world), 2);
    world.now += HOUR;
    world.done(Some(operator.id), Command::CreateInvite(invite("guest")));
    world.pass(23 * HOUR);
    assert_eq!(answers(&world), 3);
    world.pass(1);
    assert_eq!(answers(&world), 1);
    world.pass(HOUR);
    assert_eq!(answers(&world), 0);
}

/// An entry purged and made again under the same id has the revisions of the first: what was noted
/// for the first must not end the second's before their time.
#[test]
fn an_entry_that_came_again_keeps_its_versions_as_long() {
    let (mut world, user) = World::ready();
    let a = world.put(&user, user.root, "a", 100);
    let (change, newer) = World::overwrite(&user, &a, 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert!(world.commit(&user, vec![World::purge(&user, &newer)]).is_ok());
    world.pass(10 * DAY);
    let (mut change, _) = world.new_file(&user, user.root, "a", 100);
    change.row.entry = a.id;
    assert!(world.commit(&user, vec![change]).is_ok());
    let (change, _) = World::overwrite(&user, &a, 100);
    assert!(world.commit(&user, vec![change]).is_ok());
    world.pass(20 * DAY);
    assert_eq!(revisions(&world, &user, &a), [1]);
    world.pass(10 * DAY);
    assert_eq!(revisions(&world, &user, &a), [0; 0]);
}

/// All that stays when everything has ended: what the cluster is, and its log of events.
#[test]
fn nothing_is_left_of_what_is_gone() {
    let (mut world, user) = World::ready();
    world.pass(10 * DAY);
    let before = tables(&world.kv);
    let outer = world.mkdir(&user, user.root, "outer");
    let inner = world.mkdir(&user, outer.inside(), "inner");
    let (large, _) = world.put_large(&user, inner.inside(), "large");
    let (one, _) = world.put_large(&user, user.root, "one");
    let two = world.put(&user, user.root, "two", 100);
    let (change, one) = World::moved(&user, &one, inner.inside(), "one", 128);
    assert!(world.commit(&user, vec![change]).is_ok());
    let (change, _) = World::overwrite(&user, &one, 128);
    assert!(world.commit(&user, vec![change]).is_ok());
    // One to the trash, one folder for real, one inside it in the trash already.
    assert!(world.commit(&user, vec![World::removal(&user, &large), World::removal(&user, &two)]).is_ok());
    assert!(world.commit(&user, vec![World::purge(&user, &outer)]).is_ok());
    world.done(None, Command::OpenSession { token_hash: Hash([1; 32]), account: user.id, expires_ms: world.now + HOUR });
    let operator = stranger("operator");
    let expires_ms = world.now + HOUR;
    world.done(Some(operator.id), Command::CreateInvite(Invite { expires_ms, ..invite("nobody") }));
    let token = world.token(expires_ms, None);
    world.done(Some(operator.id), Command::CreateToken(token));
    let events = world.totals().events;
    for _ in 0..5 {
        world.pass(10 * DAY);
    }
    assert_eq!((world.used(&user), world.totals().entries, world.totals().objects, world.totals().bytes), (0, 0, 0, 0));
    // The logs of events and of changes are cut by length.
    let ends = |table: &u8| !matches!(table, 0x60 | 0x3c);
    let after: Vec<_> = tables(&world.kv).into_iter().filter(|(table, _)| ends(table)).collect();
    assert_eq!(after, before.into_iter().filter(|(table, _)| ends(table)).collect::<Vec<_>>());
    // Genesis, counters; accounts and names; spaces, sets, grants; nodes, coordinator, layout.
    assert_eq!(after, [(0x01, 1), (0x02, 1), (0x10, 2), (0x11, 2), (0x20, 2), (0x21, 2), (0x22, 2), (0x50, 4), (0x51, 1), (0x53, 1)]);
    assert_eq!(world.totals().events, events);
}
