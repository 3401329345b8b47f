//! Manifests and objects: who may refer to what, what is counted, and what nodes are told.

use super::*;
use model::cluster::{FeedItem, ObjectState};

fn states(world: &World, objects: &[ObjectId]) -> Vec<ObjectState> {
    match world.ask(&Query::Objects(objects.to_vec())) {
        Answer::Objects(states) => states,
        other => panic!("{other:?}"),
    }
}

fn feed(world: &World) -> Vec<(u64, FeedItem)> {
    match world.ask(&Query::Feed { after: 0, limit: 2000 }) {
        Answer::Feed(items, false) => items,
        other => panic!("{other:?}"),
    }
}

/// Proposes a new file with a manifest under exactly these proofs.
fn upload(world: &mut World, user: &User, manifest: ManifestRow, grants: Vec<UploadGrant>) -> Applied {
    let name = format!("file {}", world.number());
    let (change, _) = world.new_large(user, user.root, &name, manifest);
    let record = world.sign(user, std::slice::from_ref(&change));
    world.propose(Some(user.id), Command::Commit { record, changes: vec![change], grants })
}

#[test]
fn an_object_lives_from_its_commit_to_the_end_of_its_grace() {
    let (mut world, user) = World::ready();
    let pending = world.object();
    assert_eq!(states(&world, &[pending]), [ObjectState::Pending]);
    let (file, object) = world.put_large(&user, user.root, "file");
    assert_eq!(states(&world, &[object, pending]), [ObjectState::Live, ObjectState::Pending]);
    assert_eq!(feed(&world), [(1, FeedItem::Live(used(object), 0))]);
    // Row 128, manifest 100, four shards of 4,500,001 bytes.
    assert_eq!(world.used(&user), 128 + 100 + 18_000_004);
    let totals = world.totals();
    assert_eq!((totals.objects, totals.chunks, totals.bytes), (1, 3, 18_000_004));

    assert!(world.commit(&user, vec![World::purge(&user, &file)]).is_ok());
    let totals = world.totals();
    assert_eq!((totals.objects, totals.chunks, totals.bytes, world.used(&user)), (0, 0, 0, 0));
    // Readers that have begun may finish.
    assert_eq!(states(&world, &[object]), [ObjectState::Live]);
    world.pass(HOUR - 1);
    assert_eq!(feed(&world), [(1, FeedItem::Live(used(object), 0))]);
    world.pass(1);
    assert_eq!(states(&world, &[object]), [ObjectState::Dead]);
    assert_eq!(feed(&world), [(2, FeedItem::Dead(object))]);
    world.pass(7 * DAY - 1);
    assert_eq!(states(&world, &[object]), [ObjectState::Dead]);
    world.pass(1);
    assert_eq!(states(&world, &[object, pending]), [ObjectState::Expired, ObjectState::Expired]);
    assert_eq!(feed(&world), []);
    assert_eq!(world.totals().feed, 2);
}

#[test]
fn a_pending_object_expires_after_a_day_of_log_time() {
    let (mut world, user) = World::ready();
    let (early, late) = (world.object(), world.object());
    let manifest = world.manifest(vec![used(early)]);
    let grants = vec![world.grant(&user, &[early])];
    world.pass(DAY);
    // The last moment.
    assert_eq!(states(&world, &[early]), [ObjectState::Pending]);
    assert!(upload(&mut world, &user, manifest, grants).is_ok());
    world.now += 1;
    let manifest = world.manifest(vec![used(late)]);
    let grants = vec![world.grant(&user, &[late])];
    assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Conflict);
    world.pass(0);
    assert_eq!(states(&world, &[early, late]), [ObjectState::Live, ObjectState::Expired]);
}

#[test]
fn rule_06_only_objects_issued_to_the_account_for_the_space_are_taken() {
    let (mut world, user) = World::ready();
    let other = world.user(&stranger("operator"), "other");
    let (object, another) = (world.object(), world.object());
    let signed = |key: &SigningKey, body: UploadGrantBody| {
        let body = cbor::to_vec(&body);
        UploadGrant { signature: sign(key, "upload-grant", &body), body: body.into() }
    };
    let good = UploadGrantBody { objects: vec![object], account: user.id, space: user.space };
    let capability = world.capability.clone();
    let cases = [
        ("none", vec![]),
        ("for another object", vec![world.grant(&user, &[another])]),
        ("to another account", vec![signed(&capability, UploadGrantBody { account: other.id, ..good.clone() })]),
        ("for another space", vec![signed(&capability, UploadGrantBody { space: other.space, ..good.clone() })]),
        ("another's, whole", vec![world.grant(&other, &[object])]),
        ("signed by the user", vec![signed(&user.key, good.clone())]),
        ("a good one beside another's", vec![world.grant(&user, &[object]), world.grant(&other, &[another])]),
    ];
    for (what, grants) in cases {
        let manifest = world.manifest(vec![used(object)]);
        assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Denied, "{what}");
    }
    let manifest = world.manifest(vec![used(object)]);
    let garbage = UploadGrant { signature: sign(&capability, "upload-grant", &[1, 2]), body: vec![1, 2].into() };
    assert_eq!(kind(&upload(&mut world, &user, manifest.clone(), vec![garbage])), Kind::Corrupt);
    let grants = vec![world.grant(&user, &[another]), world.grant(&user, &[object])];
    assert!(upload(&mut world, &user, manifest, grants).is_ok());
    // Live now: its space may refer to it again without any proof, another space not even with one.
    let manifest = world.manifest(vec![used(object)]);
    assert!(upload(&mut world, &user, manifest, vec![]).is_ok());
    assert_eq!((world.totals().objects, world.totals().bytes), (1, 18_000_004));
    let manifest = world.manifest(vec![used(object)]);
    let grants = vec![world.grant(&other, &[object])];
    assert_eq!(kind(&upload(&mut world, &other, manifest, grants)), Kind::Denied);
}

#[test]
fn an_object_lives_while_one_manifest_names_it() {
    let (mut world, user) = World::ready();
    let (one, object) = world.put_large(&user, user.root, "one");
    let mut part = used(object);
    (part.chunks, part.bytes) = (vec![(1, 2)], 1000);
    let manifest = world.manifest(vec![part]);
    let (change, two) = world.new_large(&user, user.root, "two", manifest);
    assert!(world.commit(&user, vec![change]).is_ok());
    assert!(world.commit(&user, vec![World::purge(&user, &one)]).is_ok());
    assert_eq!((world.totals().objects, world.used(&user)), (1, 128 + 100 + 18_000_004));
    assert!(world.commit(&user, vec![World::purge(&user, &two)]).is_ok());
    assert_eq!((world.totals().objects, world.used(&user)), (0, 0));
}

#[test]
fn what_nothing_refers_to_is_not_revived() {
    let (mut world, user) = World::ready();
    let (file, object) = world.put_large(&user, user.root, "file");
    assert!(world.commit(&user, vec![World::purge(&user, &file)]).is_ok());
    // In its grace, dead, and forgotten: never again, whatever the proof.
    for wait in [0, HOUR, 7 * DAY] {
        world.pass(wait);
        let manifest = world.manifest(vec![used(object)]);
        let grants = vec![world.grant(&user, &[object])];
        assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Conflict, "after {wait}");
    }
    // Nor by the manifest's id.
    let (mut change, _) = world.new_file(&user, user.root, "again", 128);
    change.manifest = file.manifest;
    assert_eq!(kind(&world.commit(&user, vec![change])), Kind::Conflict);
}

/// A dead object's row must outlive the last moment of its upload, even when it dies long before.
#[test]
fn an_object_issued_by_a_fast_clock_is_not_forgotten_before_its_upload_expires() {
    let (mut world, user) = World::ready();
    let object = ObjectId::new(START + 20 * DAY, [1; 10]);
    let manifest = world.manifest(vec![used(object)]);
    let (change, file) = world.new_large(&user, user.root, "file", manifest);
    assert!(world.commit(&user, vec![change, World::purge(&user, &file)]).is_ok());
    world.pass(HOUR);
    assert_eq!(states(&world, &[object]), [ObjectState::Dead]);
    world.pass(21 * DAY - HOUR);
    assert_eq!(states(&world, &[object]), [ObjectState::Dead]);
    let manifest = world.manifest(vec![used(object)]);
    let grants = vec![world.grant(&user, &[object])];
    assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Conflict);
    world.pass(1);
    assert_eq!(states(&world, &[object]), [ObjectState::Expired]);
}

#[test]
fn copies_renames_and_versions_share_a_manifest() {
    let (mut world, user) = World::ready();
    let (file, object) = world.put_large(&user, user.root, "file");
    let (mut copy, _) = world.new_file(&user, user.root, "copy", 128);
    copy.manifest = file.manifest;
    assert!(world.commit(&user, vec![copy]).is_ok());
    let (rename, file) = World::moved(&user, &file, user.root, "renamed", 128);
    assert!(world.commit(&user, vec![rename]).is_ok());
    // Three rows and a version of one, one manifest, one object.
    assert_eq!(world.used(&user), 3 * 128 + 100 + 18_000_004);
    let manifests = world.ask(&Query::Manifests { space: user.space, ids: vec![file.manifest.expect("one"), ManifestId([1; 16])] });
    assert!(matches!(&manifests, Answer::Manifests(m) if m.len() == 1 && m[0].objects == [used(object)]));
    let listed =
        world.rows(&Query::List { space: user.space, folder: user.root, after: None, limit: 10, manifests: true, have: Vec::new() });
    assert_eq!((listed.rows.len(), listed.manifests.len()), (2, 1));
    // Overwritten inline; purged: the copy holds it still.
    let (mut over, small) = World::overwrite(&user, &file, 100);
    over.manifest = None;
    assert!(world.commit(&user, vec![over]).is_ok());
    assert!(world.commit(&user, vec![World::purge(&user, &small)]).is_ok());
    assert_eq!((world.totals().objects, world.used(&user)), (1, 128 + 100 + 18_000_004));
}

#[test]
fn a_manifest_comes_once() {
    let (mut world, user) = World::ready();
    let manifest = world.manifest(vec![]);
    assert!(upload(&mut world, &user, manifest.clone(), vec![]).is_ok());
    assert_eq!(kind(&upload(&mut world, &user, manifest.clone(), vec![])), Kind::Exists);
    for sealed in [vec![], vec![0; (24 << 10) + 1]] {
        let manifest = ManifestRow { id: ManifestId([1; 16]), sealed: sealed.into(), objects: vec![] };
        assert_eq!(kind(&upload(&mut world, &user, manifest, vec![])), Kind::Invalid);
    }
}

#[test]
fn objects_that_cannot_be_are_invalid() {
    let (mut world, user) = World::ready();
    let object = world.object();
    let good = used(object);
    let sealed_max = model::chunk::SEALED_CHUNK_MAX as u64;
    let two_ranges = |chunks: Vec<(u32, u32)>| ObjectUse { chunks, ..good.clone() };
    let cases = [
        ("no chunks", two_ranges(vec![])),
        ("an empty range", two_ranges(vec![(0, 0), (1, 4)])),
        ("a range backwards", two_ranges(vec![(3, 0)])),
        ("ranges that touch", two_ranges(vec![(0, 1), (1, 3)])),
        ("ranges that overlap", two_ranges(vec![(0, 2), (1, 3)])),
        ("ranges out of order", two_ranges(vec![(2, 3), (0, 1)])),
        ("too many ranges", two_ranges((0..4097).map(|i| (2 * i, 2 * i + 1)).collect())),
        ("too many chunks", ObjectUse { bytes: 1 << 40, ..two_ranges(vec![(0, (1 << 24) + 1)]) }),
        ("all numbers", ObjectUse { bytes: u64::MAX, ..two_ranges(vec![(0, u32::MAX)]) }),
        ("fewer bytes than chunks", ObjectUse { bytes: 2, ..good.clone() }),
        ("more bytes than chunks hold", ObjectUse { bytes: 3 * sealed_max + 1, ..good.clone() }),
        ("no data shards", ObjectUse { policy: Policy { k: 0, m: 4 }, ..good.clone() }),
        ("too many shards", ObjectUse { policy: Policy { k: 255, m: 255 }, ..good.clone() }),
        ("a hint outside", ObjectUse { partial: vec![3], ..good.clone() }),
        ("hints out of order", ObjectUse { partial: vec![1, 0], ..good.clone() }),
        ("a generation of a new object", ObjectUse { generation: 1, ..good.clone() }),
        ("no layout", ObjectUse { layout: Epoch(0), ..good.clone() }),
    ];
    for (what, content) in cases {
        let manifest = world.manifest(vec![content]);
        let grants = vec![world.grant(&user, &[object])];
        assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Invalid, "{what}");
    }
    // As it was in the catalog's former life, perhaps.
    let strange = [ObjectUse { layout: Epoch(2), ..good.clone() }, ObjectUse { policy: Policy { k: 3, m: 2 }, ..good.clone() }];
    for content in strange {
        let manifest = world.manifest(vec![content]);
        let grants = vec![world.grant(&user, &[object])];
        assert_eq!(kind(&upload(&mut world, &user, manifest, grants)), Kind::Conflict);
    }
    let twice = world.manifest(vec![good.clone(), good.clone()]);
    let grants = vec![world.grant(&user, &[object])];
    assert_eq!(kind(&upload(&mut world, &user, twice, grants)), Kind::Invalid);
    let hinted = ObjectUse { partial: vec![0, 2], chunks: vec![(0, 1), (2, 4)], bytes: 3 * sealed_max, ..good };
    let manifest = world.manifest(vec![hinted]);
    let grants = vec![world.grant(&user, &[object])];
    assert!(upload(&mut world, &user, manifest, grants).is_ok());
    // What is live is as it is.
    for wrong in [ObjectUse { chunks: vec![(1, 2)], bytes: 1, ..used(object) }, ObjectUse { chunks: vec![(0, 4)], ..used(object) }] {
        let manifest = world.manifest(vec![wrong]);
        assert_eq!(kind(&upload(&mut world, &user, manifest, vec![])), Kind::Invalid);
    }
}

/// A node acknowledges no shard by an epoch that it has fenced, and what it acknowledged before moves with
/// the rest: so the commit may name the older epoch.
#[test]
fn an_upload_under_an_older_layout_is_committed() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    // Node 1 is replaced: epoch 2.
    world.node(&operator, Some(NodeId(1)), &[1_000_000_000_000]);
    let no = |kind| Err::<bool, _>(kind);
    for (epoch, taken) in [(0, no(Kind::Invalid)), (1, Ok(true)), (2, Ok(true)), (3, no(Kind::Conflict))] {
        let object = world.object();
        let manifest = world.manifest(vec![ObjectUse { layout: Epoch(epoch), ..used(object) }]);
        let grants = vec![world.grant(&user, &[object])];
        let applied = upload(&mut world, &user, manifest, grants);
        assert_eq!(applied.as_ref().map(|_| true).map_err(|e| e.kind), taken, "{epoch}");
    }
}

/// 16 GiB and more, written while a server was down: every chunk is a hint, and the client names as
/// many as are taken.
#[test]
fn hints_are_bounded() {
    let (mut world, user) = World::ready();
    for (hints, taken) in [(4096, true), (4097, false)] {
        let object = world.object();
        let content = ObjectUse { chunks: vec![(0, 5000)], bytes: 5000 * 4_000_000, partial: (0..hints).collect(), ..used(object) };
        let manifest = world.manifest(vec![content]);
        let grants = vec![world.grant(&user, &[object])];
        assert_eq!(upload(&mut world, &user, manifest, grants).is_ok(), taken);
    }
}

/// The sizes are what clients claim: 2^50 bytes each, and the counters must not overflow on them.
#[test]
fn sizes_beyond_all_measure_are_refused() {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    world.nodes(&operator, 28);
    let all: Vec<u64> = (1..=32).collect();
    let taken_in = world.planned(&all);
    world.change(taken_in).expect("begun");
    assert_eq!(world.propose(None, Command::MakeLayout { width: 32 }), Ok(Outcome::Layout(Epoch(1))));
    let chunks = 1 << 24;
    let bytes = u64::from(chunks) * model::chunk::SEALED_CHUNK_MAX as u64;
    let mut applied = Ok(Outcome::Done);
    for _ in 0..3 {
        let objects: Vec<ObjectId> = (0..4096).map(|_| world.object()).collect();
        let grants = vec![world.grant(&user, &objects)];
        let claim = |object: &ObjectId| ObjectUse { policy: Policy { k: 1, m: 31 }, chunks: vec![(0, chunks)], bytes, ..used(*object) };
        let manifest = world.manifest(objects.iter().map(claim).collect());
        applied = upload(&mut world, &user, manifest, grants);
        if applied.is_err() {
            break;
        }
    }
    assert_eq!(kind(&applied), Kind::Insufficient);
}

#[test]
fn the_feed_comes_in_pages() {
    let (mut world, user) = World::ready();
    let objects: Vec<ObjectId> = (0..5).map(|i| world.put_large(&user, user.root, &format!("{i}")).1).collect();
    let Answer::Feed(first, true) = world.ask(&Query::Feed { after: 0, limit: 3 }) else { panic!() };
    let Answer::Feed(rest, false) = world.ask(&Query::Feed { after: 3, limit: 3 }) else { panic!() };
    let numbers: Vec<u64> = first.iter().chain(&rest).map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let live: Vec<FeedItem> = first.into_iter().chain(rest).map(|(_, item)| item).collect();
    assert_eq!(live, objects.into_iter().map(|o| FeedItem::Live(used(o), 0)).collect::<Vec<_>>());
    let Answer::Feed(none, false) = world.ask(&Query::Feed { after: 5, limit: 3 }) else { panic!() };
    assert_eq!(none, []);
    assert_eq!(world.ask(&Query::Feed { after: u64::MAX, limit: 3 }), Answer::Feed(vec![], false));
}
