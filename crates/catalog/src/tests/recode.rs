//! Spaces get other policies, and their objects are coded anew. After each command the audit counts
//! again what each policy has and what is left to do.

use super::*;
use model::cluster::{FeedItem, Generations};
use model::command::SpaceCoding;

const MIRROR: Policy = Policy { k: 1, m: 3 };
const NONE: Policy = Policy { k: 4, m: 0 };

/// A cluster, its operator, and a user with so many files of one object each.
fn with_files(count: usize) -> (World, User, User, Vec<(Entry, ObjectId)>) {
    let (mut world, user) = World::ready();
    let root = user.root;
    let files = (0..count).map(|i| world.put_large(&user, root, &format!("file {i}"))).collect();
    (world, user, stranger("operator"), files)
}

fn set(space: SpaceId, policy: Policy) -> Command {
    Command::SetSpacePolicy { space, policy }
}

fn recoded(object: ObjectId, from: u16, to: u16, policy: Policy) -> Command {
    Command::Recoded { object, from, to, policy, layout: Epoch(1) }
}

fn coding(world: &World, user: &User) -> SpaceCoding {
    match world.ask(&Query::Coding(user.space)) {
        Answer::Coding(Some(coding)) => coding,
        other => panic!("{other:?}"),
    }
}

/// What is to be re-coded: object, generation and policy, page by page.
fn to_recode(world: &World, limit: u32) -> Vec<(ObjectId, u16, Policy)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let Answer::Recode(page, more, next) = world.ask(&Query::Recode { after, limit }) else { panic!("not a page") };
        assert!(page.len() <= limit as usize);
        all.extend(page.into_iter().map(|(content, generation, policy)| (content.object, generation, policy)));
        if !more {
            return all;
        }
        after = next;
    }
}

fn generations(world: &World, object: ObjectId) -> Option<Generations> {
    match world.ask(&Query::Generations(vec![object])) {
        Answer::Generations(mut all) => all.remove(0),
        other => panic!("{other:?}"),
    }
}

fn last_events(world: &World, count: u64) -> Vec<String> {
    match world.ask(&Query::Events { after: world.totals().events - count, limit: 10 }) {
        Answer::Events(events) => events.into_iter().map(|e| e.what).collect(),
        other => panic!("{other:?}"),
    }
}

/// How a file's manifest says that its object is coded.
fn read(world: &World, user: &User, file: &Entry) -> ObjectUse {
    let ids = vec![file.manifest.expect("a file with content")];
    let Answer::Manifests(rows) = world.ask(&Query::Manifests { space: user.space, ids }) else { panic!("no manifests") };
    let listed =
        world.rows(&Query::List { space: user.space, folder: user.root, after: None, limit: 100, manifests: true, have: Vec::new() });
    let again = listed.manifests.into_iter().find(|m| m.id == rows[0].id).expect("listed");
    assert_eq!(again, rows[0], "both ways of asking say the same");
    rows[0].objects[0].clone()
}

/// Rule 10: re-coding. The object row names the current generation; one command flips it.
#[test]
fn rule_10_one_command_makes_the_next_generation_the_one_that_counts() {
    let (mut world, user, operator, files) = with_files(2);
    let (file, object) = files[0].clone();
    let before = world.used(&user);
    world.done(Some(operator.id), set(user.space, MIRROR));
    assert_eq!(last_events(&world, 1), ["policy-changed"]);
    assert_eq!(to_recode(&world, 10), [(object, 1, MIRROR), (files[1].1, 1, MIRROR)]);
    assert_eq!(to_recode(&world, 1), to_recode(&world, 10), "page by page it is the same");
    // Nothing has changed for readers so far.
    assert_eq!(read(&world, &user, &file), used(object));
    let then = world.now;
    assert_eq!(generations(&world, object), Some(Generations { current: 0, next: Some(1), given: 1, since_ms: then }));

    world.now += 1000;
    world.done(None, recoded(object, 0, 1, MIRROR));
    let now = read(&world, &user, &file);
    assert_eq!(now, ObjectUse { policy: MIRROR, generation: 1, ..used(object) });
    assert_eq!(generations(&world, object), Some(Generations { current: 1, next: None, given: 1, since_ms: world.now }));
    assert_eq!(world.used(&user) - before, 2 * 9_000_001 - 2, "four times the bytes instead of twice, rounded up");
    let Answer::Feed(feed, false) = world.ask(&Query::Feed { after: 0, limit: 10 }) else { panic!("no feed") };
    let numbers: Vec<(u64, u16)> = feed.iter().map(|(n, i)| (*n, if let FeedItem::Live(_, g) = i { *g } else { 99 })).collect();
    assert_eq!(numbers, [(2, 0), (3, 1)], "nodes are told of the new generation, and no more of the old one");
    assert_eq!(to_recode(&world, 10), [(files[1].1, 1, MIRROR)]);

    world.done(None, recoded(files[1].1, 0, 1, MIRROR));
    assert_eq!(last_events(&world, 1), ["space-recoded"]);
    assert_eq!(coding(&world, &user).policies, [(MIRROR, 2, 18_000_002)]);
    assert_eq!((world.totals().recode, to_recode(&world, 10)), (0, vec![]));
}

#[test]
fn only_admins_change_policies_and_only_to_possible_ones() {
    let (mut world, user, operator, _) = with_files(1);
    assert_eq!(kind(&world.propose(Some(user.id), set(user.space, MIRROR))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, set(user.space, MIRROR))), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(operator.id), set(user.space, Policy { k: 0, m: 2 }))), Kind::Invalid);
    assert_eq!(kind(&world.propose(Some(operator.id), set(user.space, Policy { k: 30, m: 3 }))), Kind::Invalid);
    assert_eq!(kind(&world.propose(Some(operator.id), set(SpaceId([9; 16]), MIRROR))), Kind::NotFound);
}

#[test]
fn what_was_coded_for_another_plan_does_not_count() {
    let (mut world, user, operator, files) = with_files(2);
    let object = files[0].1;
    assert_eq!(kind(&world.propose(None, recoded(object, 0, 1, MIRROR))), Kind::Conflict, "nobody asked for it");
    world.done(Some(operator.id), set(user.space, MIRROR));
    // Decided anew while the first plan is being carried out: another policy is another generation.
    world.done(Some(operator.id), set(user.space, NONE));
    for wrong in [recoded(object, 0, 1, MIRROR), recoded(object, 0, 1, NONE), recoded(object, 0, 2, MIRROR), recoded(object, 1, 2, NONE)] {
        assert_eq!(kind(&world.propose(None, wrong)), Kind::Conflict);
    }
    let nowhere = Command::Recoded { object, from: 0, to: 2, policy: NONE, layout: Epoch(2) };
    assert_eq!(kind(&world.propose(None, nowhere)), Kind::Invalid);
    world.done(None, recoded(object, 0, 2, NONE));
    assert_eq!(kind(&world.propose(None, recoded(object, 0, 2, NONE))), Kind::Conflict, "it is there already");
    // Back to where all began: what was re-coded goes back, as a generation of its own.
    world.done(Some(operator.id), set(user.space, Policy::DEFAULT));
    assert_eq!(to_recode(&world, 10), [(object, 3, Policy::DEFAULT)]);
    // The abandoned generation 1 was given out: nodes may drop what they have of it.
    let other = generations(&world, files[1].1).expect("live");
    assert_eq!((other.current, other.next, other.given), (0, None, 3));
}

#[test]
fn the_same_policy_again_changes_nothing_unless_something_differs() {
    let (mut world, user, operator, files) = with_files(1);
    world.done(Some(operator.id), set(user.space, MIRROR));
    world.done(None, recoded(files[0].1, 0, 1, MIRROR));
    world.done(Some(operator.id), set(user.space, MIRROR));
    // With a policy of its own, put after the change: it keeps it.
    world.now += 1;
    let root = user.root;
    let (_, own) = world.put_large(&user, root, "own");
    assert_eq!((to_recode(&world, 10), generations(&world, own).expect("live").given), (vec![], 1));
    world.done(Some(operator.id), set(user.space, MIRROR));
    assert_eq!(to_recode(&world, 10), [(own, 2, MIRROR)]);
}

#[test]
fn an_upload_that_began_before_the_change_is_re_coded_too() {
    let (mut world, user, operator, _) = with_files(0);
    let object = world.object();
    world.now += 1000;
    world.done(Some(operator.id), set(user.space, MIRROR));
    let manifest = world.manifest(vec![used(object)]);
    let (change, _) = world.new_large(&user, user.root, "late", manifest);
    world.commit(&user, vec![change]).expect("committed");
    assert_eq!(to_recode(&world, 10), [(object, 1, MIRROR)]);
}

#[test]
fn a_copy_may_name_how_its_content_was_coded_at_any_time_before() {
    let (mut world, user, operator, files) = with_files(1);
    let object = files[0].1;
    world.done(Some(operator.id), set(user.space, MIRROR));
    world.done(None, recoded(object, 0, 1, MIRROR));
    let manifest = world.manifest(vec![used(object)]);
    let (change, copy) = world.new_large(&user, user.root, "copy", manifest);
    world.commit(&user, vec![change]).expect("committed");
    assert_eq!(read(&world, &user, &copy), ObjectUse { policy: MIRROR, generation: 1, ..used(object) });
}

#[test]
fn what_is_removed_need_not_be_re_coded() {
    let (mut world, user, operator, files) = with_files(2);
    world.done(Some(operator.id), set(user.space, MIRROR));
    let (file, object) = files[0].clone();
    world.commit(&user, vec![World::purge(&user, &file)]).expect("removed");
    assert_eq!(to_recode(&world, 10), [(files[1].1, 1, MIRROR)]);
    assert_eq!(kind(&world.propose(None, recoded(object, 0, 1, MIRROR))), Kind::Conflict);
    // In its grace it is still read; dead, no generation of it counts.
    assert!(generations(&world, object).is_some());
    world.pass(2 * HOUR);
    assert_eq!(generations(&world, object), None);
    assert_eq!(generations(&world, ObjectId([5; 16])), None);
}
