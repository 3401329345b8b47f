//! Shared folders: who may do what in them, how members come and go, and how everything in them gets new keys.

use super::*;
use crate::row::{Space, Stage};
use model::account::{LabelBody, Membership, SpaceLabel};
use model::command::Rekey;
use model::tree::Resealed;

/// A shared folder as its admins' clients know it.
#[derive(Clone)]
pub(super) struct Shared {
    id: SpaceId,
    root: FolderId,
    seq: u64,
    epoch: KeyEpoch,
    /// Body of the newest set.
    set: Vec<u8>,
    members: Vec<Member>,
}

fn fingerprint(user: &User) -> Hash {
    account_of(user).0.identity.fingerprint()
}

fn as_member(user: &User, role: Role) -> Member {
    Member { account: user.id, fingerprint: fingerprint(user), role }
}

fn label(by: &User, space: SpaceId, epoch: KeyEpoch) -> SpaceLabel {
    let body = cbor::to_vec(&LabelBody { space, epoch, sealed: vec![7; 200].into() });
    SpaceLabel { author: by.id, signature: sign(&by.key, "space-label", &body), body: body.into() }
}

fn grant_to(by: &User, shared: &Shared, to: &Member) -> Grant {
    let body = GrantBody {
        space: shared.id,
        epoch: shared.epoch,
        members: Hash::of(&shared.set),
        sender: fingerprint(by),
        recipient: to.account,
        recipient_fingerprint: to.fingerprint,
        enc: vec![1; 1120].into(),
        sealed: vec![2; 48].into(),
        head: None,
    };
    let body = cbor::to_vec(&body);
    Grant { author: by.id, signature: sign(&by.key, "grant", &body), body: body.into() }
}

/// The next set, and the command that proposes it with all grants that it needs.
fn next_set(by: &User, shared: &Shared, members: &[Member]) -> (Shared, Command) {
    let mut members = members.to_vec();
    members.sort_by_key(|m| m.account);
    let lost = |old: &Member| members.iter().find(|m| m.account == old.account).is_none_or(|m| m.role < old.role);
    let grown = shared.members.iter().any(lost);
    let epoch = KeyEpoch(shared.epoch.0 + u64::from(grown));
    let prev = Hash::of(&shared.set);
    let body = MemberSetBody { space: shared.id, seq: shared.seq + 1, epoch, prev, min_suite: 1, members: members.clone() };
    let set = cbor::to_vec(&body);
    let next = Shared { seq: body.seq, epoch, set: set.clone(), members: members.clone(), ..shared.clone() };
    let new = members.iter().filter(|m| grown || !shared.members.iter().any(|old| old.account == m.account));
    let grants = new.map(|m| grant_to(by, &next, m)).collect();
    let members = MemberSet { author: by.id, signature: sign(&by.key, "member-set", &set), body: set.into() };
    (next, Command::ChangeMembers { space: shared.id, members, grants, label: Some(label(by, shared.id, epoch)) })
}

/// The new space and the command that begins to make it of a folder.
pub(super) fn begin(by: &User, source: SpaceId, folder: FolderId, nonce: u8) -> (Shared, Command) {
    let genesis = cbor::to_vec(&(fingerprint(by), minicbor::bytes::ByteArray::from([nonce; 16])));
    let mut new = account_of(by).1;
    new.genesis = genesis.into();
    new.root = FolderId(id16(&format!("root {nonce}")));
    let id = new.id();
    let members = vec![as_member(by, Role::Admin)];
    let body = MemberSetBody { space: id, seq: 1, epoch: KeyEpoch(1), prev: Hash([0; 32]), min_suite: 1, members: members.clone() };
    let set = cbor::to_vec(&body);
    new.members = MemberSet { author: by.id, signature: sign(&by.key, "member-set", &set), body: set.clone().into() };
    let shared = Shared { id, root: new.root, seq: 1, epoch: KeyEpoch(1), set, members };
    new.grant = grant_to(by, &shared, &shared.members[0]);
    let new = Some((new, label(by, id, KeyEpoch(1))));
    let command = Command::BeginRekey(Box::new(Rekey { source, folder, target: id, root: shared.root, new }));
    (shared, command)
}

/// A row of an entry in a space and folder, as its author would seal it.
fn row_in(space: SpaceId, epoch: KeyEpoch, folder: FolderId, entry: &Entry, id: EntryId, sealed: usize) -> Row {
    Row { space, folder, entry: id, rev: entry.rev, epoch, tag: tag(&entry.name), sealed: vec![0xdd; sealed].into() }
}

impl World {
    fn signed(&mut self, by: &User, space: SpaceId, epoch: KeyEpoch, rows: &[Row]) -> CommitRecord {
        let commit = CommitId(self.fresh());
        signed_commit(by, &CommitBody { space, epoch, commit, rows: rows.iter().map(Row::hash).collect() })
    }

    fn reseal(&mut self, by: &User, shared: &Shared, rows: Vec<Resealed>) -> Applied {
        let plain: Vec<Row> = rows.iter().map(|r| r.row.clone()).collect();
        let record = self.signed(by, shared.id, shared.epoch, &plain);
        self.propose(Some(by.id), Command::RekeyRows { record, rows })
    }

    /// The folder's entry becomes the door.
    fn swap_door(&mut self, by: &User, shared: &Shared, folder: &Entry) -> Applied {
        let row = Row { rev: folder.rev + 1, ..World::row(by, folder, 128) };
        let expect = Expect::At { folder: folder.folder, tag: tag(&folder.name), rev: folder.rev };
        let record = self.signed(by, by.space, KeyEpoch(1), std::slice::from_ref(&row));
        let change = Change { row, expect, child: None, manifest: None, new_manifest: None, purge: false };
        self.propose(Some(by.id), Command::SwapRekey { target: shared.id, door: Some((record, Box::new(change))) })
    }

    /// An empty folder of a user, shared with others.
    fn shared(&mut self, owner: &User, name: &str, nonce: u8, with: &[(&User, Role)]) -> Shared {
        let folder = self.mkdir(owner, owner.root, name);
        let (shared, command) = begin(owner, owner.space, folder.inside(), nonce);
        self.done(Some(owner.id), command);
        self.swap_door(owner, &shared, &folder).expect("swapped");
        let mut members = shared.members.clone();
        members.extend(with.iter().map(|(user, role)| as_member(user, *role)));
        if with.is_empty() {
            return shared;
        }
        let (next, command) = next_set(owner, &shared, &members);
        self.done(Some(owner.id), command);
        next
    }

    /// A shared folder with a large file, of which a copy outside shares the manifest: space, file, copy and object.
    fn shared_with_a_copy(&mut self, by: &User) -> (Shared, Entry, Entry, ObjectId) {
        let photos = self.mkdir(by, by.root, "photos");
        let (large, object) = self.put_large(by, photos.inside(), "large");
        let (mut change, mut copy) = self.new_file(by, by.root, "copy", 128);
        (change.manifest, copy.manifest) = (large.manifest, large.manifest);
        self.commit(by, vec![change]).expect("copied");
        let (shared, command) = begin(by, by.space, photos.inside(), 2);
        self.done(Some(by.id), command);
        let row = row_in(shared.id, shared.epoch, shared.root, &large, large.id, 130);
        self.reseal(by, &shared, vec![Resealed { row, child: None, of: large.id }]).expect("resealed");
        self.swap_door(by, &shared, &photos).expect("swapped");
        self.pass(1);
        (shared, large, copy, object)
    }

    /// A user writes a small file into a shared folder.
    fn write(&mut self, by: &User, shared: &Shared, name: &str) -> Applied {
        let entry = Entry { id: EntryId(self.fresh()), folder: shared.root, name: name.into(), rev: 1, child: None, manifest: None };
        let row = row_in(shared.id, shared.epoch, shared.root, &entry, entry.id, 200);
        let record = self.signed(by, shared.id, shared.epoch, std::slice::from_ref(&row));
        let change = Change { row, expect: Expect::Absent, child: None, manifest: None, new_manifest: None, purge: false };
        self.propose(Some(by.id), Command::Commit { record, changes: vec![change], grants: vec![] })
    }

    fn space_row(&self, id: SpaceId) -> Space {
        cbor::from_slice(&self.kv.get(&crate::key::space(id)).expect("memory").expect("a space")).expect("decodes")
    }

    fn spaces_of(&self, user: &User) -> Vec<Membership> {
        match self.ask(&Query::Spaces { account: user.id }) {
            Answer::Spaces(spaces) => spaces,
            other => panic!("{other:?}"),
        }
    }

    fn role_of(&self, shared: &Shared, user: &User) -> Option<Role> {
        match self.ask(&Query::Role { space: shared.id, account: user.id }) {
            Answer::Role(role) => role,
            other => panic!("{other:?}"),
        }
    }

    fn tags_in(&self, space: SpaceId, folder: FolderId) -> Vec<(NameTag, u64)> {
        let query = Query::List { space, folder, after: None, limit: 2000, manifests: true, have: Vec::new() };
        self.rows(&query).rows.iter().map(|r| (r.row.tag, r.row.rev)).collect()
    }
}

fn people(names: &[&str]) -> (World, User, Vec<User>) {
    let (mut world, operator) = World::new();
    world.nodes(&operator, 4);
    world.done(None, Command::MakeLayout { width: 4 });
    let users = names.iter().map(|n| world.user(&operator, n)).collect();
    (world, operator, users)
}

#[test]
fn a_folder_becomes_a_space_with_its_contents_versions_and_trash() {
    let (mut world, _, users) = people(&["ann", "bea"]);
    let ann = &users[0];
    let photos = world.mkdir(ann, ann.root, "photos");
    let small = world.put(ann, photos.inside(), "small", 300);
    let (change, small2) = World::overwrite(ann, &small, 400);
    world.commit(ann, vec![change]).expect("overwritten");
    let (large, object) = world.put_large(ann, photos.inside(), "large");
    let sub = world.mkdir(ann, photos.inside(), "sub");
    let deep = world.put(ann, sub.inside(), "deep", 100);
    let gone = world.put(ann, photos.inside(), "gone", 150);
    world.commit(ann, vec![World::removal(ann, &gone)]).expect("removed");
    let before = world.used(ann);

    let (shared, command) = begin(ann, ann.space, photos.inside(), 1);
    world.done(Some(ann.id), command);
    assert_eq!(world.spaces_of(ann), [], "not before it is whole");
    // Nobody writes below it meanwhile; elsewhere everybody does.
    let (change, _) = world.new_file(ann, sub.inside(), "late", 10);
    assert_eq!(kind(&world.commit(ann, vec![change])), Kind::Unavailable);
    let (change, _) = World::moved(ann, &deep, ann.root, "out", 10);
    assert_eq!(kind(&world.commit(ann, vec![change])), Kind::Unavailable);
    world.put(ann, ann.root, "elsewhere", 10);

    let (id, root, epoch) = (shared.id, shared.root, shared.epoch);
    let inner = FolderId(id16("inner"));
    let row = |entry: &Entry, folder, sealed| row_in(id, epoch, folder, entry, entry.id, sealed);
    let resealed = |entry: &Entry, folder, sealed, child| Resealed { row: row(entry, folder, sealed), child, of: entry.id };
    // What lies in a folder does not come before it.
    assert_eq!(kind(&world.reseal(ann, &shared, vec![resealed(&deep, inner, 100, None)])), Kind::Invalid);
    // A row stands for one that is there, of its kind.
    assert_eq!(kind(&world.reseal(ann, &shared, vec![resealed(&sub, root, 100, None)])), Kind::Invalid);
    let removal = Entry { rev: 2, ..gone.clone() };
    let rows = vec![
        resealed(&small2, root, 410, None),
        resealed(&small, root, 310, None),
        resealed(&large, root, 130, None),
        resealed(&sub, root, 130, Some(inner)),
        resealed(&deep, inner, 110, None),
        resealed(&removal, root, 0, None),
        resealed(&gone, root, 160, None),
    ];
    assert!(matches!(world.reseal(ann, &shared, rows), Ok(Outcome::Leased(_))));
    world.swap_door(ann, &shared, &photos).expect("swapped");

    assert_eq!(world.tags_in(id, root), World::names(&[("small", 2), ("large", 1), ("sub", 1)]));
    assert_eq!(world.tags_in(id, inner), World::names(&[("deep", 1)]));
    let versions = world.rows(&Query::Older { space: id, after: None, limit: 100 });
    assert_eq!(versions.rows.len(), 3, "a version of small, gone and its removal");
    assert_eq!(world.spaces_of(ann).iter().map(|m| (m.space, m.parent, m.role)).collect::<Vec<_>>(), [(id, Some(ann.space), Role::Admin)]);
    // What was there goes bit by bit, and with it what it counted for.
    world.pass(1);
    world.pass(1);
    assert_eq!(world.tags_in(ann.space, photos.inside()), []);
    let both = [world.space_row(ann.space).used, world.space_row(id).used];
    assert!(both[1] > 18_000_000 && both[0] < 10_000, "{both:?}");
    assert!(both[0] + both[1] < before + 2000);
    assert_eq!(world.ask(&Query::Objects(vec![object])), Answer::Objects(vec![model::cluster::ObjectState::Live]));
    // It counts for the quota of its owner, wherever it is.
    assert_eq!(world.ask(&Query::Used(ann.id)), Answer::Used(both[0] + both[1]));
}

#[test]
fn content_that_two_spaces_refer_to_counts_for_one_and_lives_until_both_let_go() {
    let (mut world, _, users) = people(&["ann"]);
    let ann = &users[0];
    let (shared, _, copy, object) = world.shared_with_a_copy(ann);
    let state = |world: &World| world.ask(&Query::Objects(vec![object]));
    let live = Answer::Objects(vec![model::cluster::ObjectState::Live]);
    assert!(world.space_row(ann.space).used > 18_000_000 && world.space_row(shared.id).used < 1000);
    // The home lets go: from then on it counts for the shared folder.
    world.commit(ann, vec![World::purge(ann, &copy)]).expect("purged");
    assert_eq!(state(&world), live);
    assert!(world.space_row(ann.space).used < 1000 && world.space_row(shared.id).used > 18_000_000);
    world.done(Some(ann.id), Command::DeleteSpace { space: shared.id });
    world.pass(1);
    world.pass(2 * HOUR);
    assert_eq!(state(&world), Answer::Objects(vec![model::cluster::ObjectState::Dead]));
    assert_eq!(world.space_row(shared.id).used, 0);
}

/// What a copy in a shared folder refers to belongs to the home until the home lets go of it.
#[test]
fn rule_10_content_of_two_spaces_is_read_by_both_and_never_gets_a_generation_twice() {
    let (mut world, operator, users) = people(&["ann"]);
    let ann = &users[0];
    let (shared, large, copy, object) = world.shared_with_a_copy(ann);

    let (mirror, wide) = (Policy { k: 1, m: 3 }, Policy { k: 3, m: 1 });
    world.done(Some(operator.id), Command::SetSpacePolicy { space: ann.space, policy: mirror });
    world.done(None, Command::Recoded { object, from: 0, to: 1, policy: mirror, layout: Epoch(1) });
    // The old shards go: whoever reads through the shared folder has to know.
    for (space, folder) in [(ann.space, ann.root), (shared.id, shared.root)] {
        let ids = vec![large.manifest.expect("a file with content")];
        let Answer::Manifests(rows) = world.ask(&Query::Manifests { space, ids }) else { panic!("no manifests") };
        let list = Query::List { space, folder, after: None, limit: 100, manifests: true, have: Vec::new() };
        for row in rows.iter().chain(&world.rows(&list).manifests) {
            assert_eq!((row.objects[0].policy, row.objects[0].generation), (mirror, 1));
        }
    }
    // The folder's own policy draws a number that the object has already.
    world.done(Some(operator.id), Command::SetSpacePolicy { space: shared.id, policy: wide });
    let to_recode = |world: &World| match world.ask(&Query::Recode { after: None, limit: 10 }) {
        Answer::Recode(page, false, _) => {
            page.into_iter().map(|(c, generation, policy)| (c.object, generation, policy)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(to_recode(&world), []);
    world.commit(ann, vec![World::purge(ann, &copy)]).expect("purged");
    assert_eq!(to_recode(&world), [(object, 2, wide)]);
    let again = Command::Recoded { object, from: 1, to: 1, policy: wide, layout: Epoch(1) };
    assert_eq!(kind(&world.propose(None, again)), Kind::Conflict);
    world.done(None, Command::Recoded { object, from: 1, to: 2, policy: wide, layout: Epoch(1) });
    assert_eq!(to_recode(&world), []);
}

#[test]
fn roles_are_kept_by_the_catalog() {
    let (mut world, _, users) = people(&["ann", "bea", "cem", "dora", "eve"]);
    let [ann, bea, cem, dora, eve] = users.as_slice() else { unreachable!() };
    let shared = world.shared(ann, "work", 3, &[(bea, Role::Read), (cem, Role::Write), (dora, Role::Admin)]);
    assert_eq!(world.role_of(&shared, bea), Some(Role::Read));
    assert_eq!(world.role_of(&shared, eve), None);
    assert_eq!(world.ask(&Query::Space { space: shared.id, account: eve.id }), Answer::Space(None));
    // Writing takes the right to write.
    assert_eq!(kind(&world.write(eve, &shared, "x")), Kind::Denied);
    assert_eq!(kind(&world.write(bea, &shared, "x")), Kind::Denied);
    world.write(cem, &shared, "x").expect("a writer writes");
    world.write(dora, &shared, "y").expect("an admin, too");
    // Members are the admins' to change; nobody proposes another's set.
    let mut more = shared.members.clone();
    more.push(as_member(eve, Role::Read));
    for by in [bea, cem, eve] {
        assert_eq!(kind(&world.propose(Some(by.id), next_set(by, &shared, &more).1)), Kind::Denied, "{}", by.name);
        assert_eq!(kind(&world.propose(Some(by.id), next_set(dora, &shared, &more).1)), Kind::Denied, "{}", by.name);
    }
    // Re-keys too, also of folders inside.
    let next = Rekey { source: shared.id, folder: shared.root, target: shared.id, root: FolderId([9; 16]), new: None };
    for by in [bea, cem, eve] {
        assert_eq!(kind(&world.propose(Some(by.id), Command::BeginRekey(Box::new(next.clone())))), Kind::Denied);
        assert_eq!(kind(&world.propose(Some(by.id), Command::AbandonRekey { target: shared.id })), Kind::Denied);
        assert_eq!(kind(&world.propose(Some(by.id), Command::SwapRekey { target: shared.id, door: None })), Kind::Denied);
    }
    // And nobody makes a space of somebody else's folder.
    let folder = world.mkdir(ann, ann.root, "private");
    assert_eq!(kind(&world.propose(Some(eve.id), begin(eve, ann.space, folder.inside(), 4).1)), Kind::Denied);
    // The owner's: handing on, destroying.
    for by in [bea, cem, dora, eve] {
        let transfer = Command::TransferSpace { space: shared.id, to: dora.id };
        assert_eq!(kind(&world.propose(Some(by.id), transfer)), Kind::Denied, "{}", by.name);
        assert_eq!(kind(&world.propose(Some(by.id), Command::DeleteSpace { space: shared.id })), Kind::Denied, "{}", by.name);
    }
    assert_eq!(kind(&world.propose(Some(eve.id), Command::LeaveSpace { space: shared.id })), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(ann.id), Command::LeaveSpace { space: shared.id })), Kind::Invalid);
    assert_eq!(kind(&world.propose(Some(ann.id), Command::DeleteSpace { space: shared.id })), Kind::Denied, "others are in it");
    // Homes are shared with nobody.
    let home = Shared { id: ann.space, root: ann.root, ..shared.clone() };
    assert_eq!(kind(&world.propose(Some(ann.id), next_set(ann, &home, &shared.members).1)), Kind::Invalid);
}

#[test]
fn attack_06_sets_that_break_the_chain_are_refused() {
    let (mut world, _, users) = people(&["ann", "bea", "cem"]);
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    let shared = world.shared(ann, "work", 5, &[(bea, Role::Write)]);
    let owner = as_member(ann, Role::Admin);
    let refused = |world: &mut World, by: &User, command: Command| {
        let applied = world.propose(Some(by.id), command);
        assert!(applied.is_err(), "{applied:?}");
    };
    let with_cem = [owner.clone(), as_member(bea, Role::Write), as_member(cem, Role::Read)];
    // Without a grant for the newcomer; with one of somebody who is not in it; with one from another set.
    let (next, command) = next_set(ann, &shared, &with_cem);
    let Command::ChangeMembers { space, members, grants, label } = command else { unreachable!() };
    let change = |members: &MemberSet, grants: Vec<Grant>, label| Command::ChangeMembers { space, members: members.clone(), grants, label };
    refused(&mut world, ann, change(&members, vec![], label.clone()));
    let stranger = Member { account: AccountId([1; 16]), fingerprint: Hash([1; 32]), role: Role::Read };
    refused(&mut world, ann, change(&members, [grants.clone(), vec![grant_to(ann, &next, &stranger)]].concat(), label.clone()));
    refused(&mut world, ann, change(&members, vec![grant_to(ann, &shared, &with_cem[2])], label.clone()));
    refused(&mut world, ann, change(&members, vec![grant_to(bea, &next, &with_cem[2])], label.clone()));
    // Signed by somebody else, or by nobody.
    let forged = MemberSet { signature: sign(&bea.key, "member-set", &members.body), ..members.clone() };
    refused(&mut world, ann, change(&forged, grants.clone(), label.clone()));
    // Another identity than the account's; the owner not its admin; a set twice.
    let ghost = Member { fingerprint: Hash([3; 32]), ..as_member(cem, Role::Read) };
    refused(&mut world, ann, next_set(ann, &shared, &[owner.clone(), as_member(bea, Role::Write), ghost]).1);
    refused(&mut world, ann, next_set(ann, &shared, &[as_member(ann, Role::Write), as_member(bea, Role::Admin)]).1);
    // Epochs that do not grow when somebody goes, or grow when nobody does; numbers and hashes that do not follow.
    let body = |f: &dyn Fn(&mut MemberSetBody)| {
        let mut body: MemberSetBody = cbor::from_canonical(&members.body).expect("a set");
        f(&mut body);
        let set = cbor::to_vec(&body);
        let next = Shared { seq: body.seq, epoch: body.epoch, set: set.clone(), ..shared.clone() };
        let grants = body.members.iter().map(|m| grant_to(ann, &next, m)).collect();
        let signed = MemberSet { author: ann.id, signature: sign(&ann.key, "member-set", &set), body: set.into() };
        Command::ChangeMembers { space, members: signed, grants, label: Some(super::sharing::label(ann, space, body.epoch)) }
    };
    refused(&mut world, ann, body(&|b| b.epoch = KeyEpoch(2)));
    refused(&mut world, ann, body(&|b| b.members.retain(|m| m.account == ann.id)));
    refused(&mut world, ann, body(&|b| b.seq += 1));
    refused(&mut world, ann, body(&|b| b.seq -= 1));
    refused(&mut world, ann, body(&|b| b.prev = Hash([4; 32])));
    refused(&mut world, ann, body(&|b| b.min_suite = 0));
    refused(&mut world, ann, body(&|b| b.members.reverse()));
    refused(&mut world, ann, body(&|b| b.space = ann.space));
    // As it should be, once.
    world.done(Some(ann.id), change(&members, grants.clone(), label.clone()));
    assert_eq!(kind(&world.propose(Some(ann.id), change(&members, grants, label))), Kind::Conflict);
}

#[test]
fn whoever_is_removed_is_refused_everything_from_that_moment_and_the_rest_gets_new_keys() {
    let (mut world, _, users) = people(&["ann", "bea", "cem"]);
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    let shared = world.shared(ann, "work", 6, &[(bea, Role::Write), (cem, Role::Read)]);
    world.write(bea, &shared, "file").expect("written");
    let file = world
        .rows(&Query::List { space: shared.id, folder: shared.root, after: None, limit: 9, manifests: false, have: Vec::new() })
        .rows[0]
        .row
        .clone();
    let (next, command) = next_set(ann, &shared, &[as_member(ann, Role::Admin), as_member(cem, Role::Read)]);
    assert_eq!(next.epoch, KeyEpoch(2));
    world.done(Some(ann.id), command);
    assert_eq!((world.role_of(&shared, bea), world.spaces_of(bea)), (None, vec![]));
    assert_eq!(world.ask(&Query::Space { space: shared.id, account: bea.id }), Answer::Space(None));
    assert_eq!(kind(&world.write(bea, &shared, "more")), Kind::Denied);
    assert_eq!(kind(&world.write(bea, &next, "more")), Kind::Denied);
    // Old signatures of others do not count for new commits either.
    assert_eq!(kind(&world.write(ann, &shared, "more")), Kind::Conflict);
    world.write(ann, &next, "kept").expect("the owner writes on");
    let Answer::Space(Some(info)) = world.ask(&Query::Space { space: shared.id, account: cem.id }) else { panic!("a member") };
    assert_eq!((info.grants.len(), info.member_sets.len()), (2, 3));

    // New keys: a fresh root beside the old one, and one moment.
    let kept =
        world.rows(&Query::List { space: shared.id, folder: shared.root, after: None, limit: 9, manifests: false, have: Vec::new() }).rows;
    let root = FolderId(id16("second root"));
    let rekey = Rekey { source: next.id, folder: next.root, target: next.id, root, new: None };
    world.done(Some(ann.id), Command::BeginRekey(Box::new(rekey.clone())));
    assert_eq!(kind(&world.write(ann, &next, "late")), Kind::Unavailable);
    let fresh = |world: &mut World, row: &Row| {
        let id = EntryId(world.fresh());
        Resealed {
            row: Row { folder: root, entry: id, epoch: KeyEpoch(2), sealed: vec![9; 150].into(), ..row.clone() },
            child: None,
            of: row.entry,
        }
    };
    let rows = kept.iter().map(|r| fresh(&mut world, &r.row)).collect();
    world.reseal(ann, &next, rows).expect("resealed");
    // Of an older epoch: refused.
    let mut old = fresh(&mut world, &file);
    old.row.epoch = KeyEpoch(1);
    assert_eq!(kind(&world.reseal(ann, &next, vec![old])), Kind::Invalid);
    world.done(Some(ann.id), Command::SwapRekey { target: next.id, door: None });
    assert_eq!(world.tags_in(next.id, root), World::names(&[("file", 1), ("kept", 1)]));
    let told = world.rows(&Query::List { space: next.id, folder: root, after: None, limit: 9, manifests: false, have: Vec::new() });
    assert_eq!((told.members, told.root), (next.seq, Some(root)));
    world.pass(1);
    assert_eq!(world.tags_in(next.id, next.root), []);
    assert_eq!(kind(&world.write(ann, &next, "under the old root")), Kind::NotFound);
    world.write(ann, &Shared { root, ..next.clone() }, "under the new one").expect("written");
}

#[test]
fn a_rekey_that_nobody_ends_is_dropped_with_its_lease() {
    let (mut world, _, users) = people(&["ann", "bea"]);
    let [ann, bea] = users.as_slice() else { unreachable!() };
    let photos = world.mkdir(ann, ann.root, "photos");
    let file = world.put(ann, photos.inside(), "file", 300);
    let (first, command) = begin(ann, ann.space, photos.inside(), 7);
    world.done(Some(ann.id), command);
    let row = row_in(first.id, first.epoch, first.root, &file, file.id, 310);
    world.reseal(ann, &first, vec![Resealed { row, child: None, of: file.id }]).expect("resealed");
    // The same account begins anew: what it had begun is dropped.
    let (second, command) = begin(ann, ann.space, photos.inside(), 8);
    world.done(Some(ann.id), command);
    assert_eq!(world.space_row(first.id).stage, Stage::Dead);
    assert_eq!(kind(&world.swap_door(ann, &first, &photos)), Kind::Denied);
    // A minute passes: everybody writes again, and the swap comes too late.
    world.now += 61_000;
    let (change, _) = World::overwrite(ann, &file, 200);
    world.commit(ann, vec![change]).expect("written");
    assert_eq!(kind(&world.swap_door(ann, &second, &photos)), Kind::Conflict);
    world.pass(1);
    world.pass(1);
    assert_eq!((world.space_row(second.id).stage, world.space_row(first.id).used), (Stage::Dead, 0));
    assert_eq!(world.spaces_of(ann), []);
    // Given up by hand it goes at once.
    let (third, command) = begin(ann, ann.space, photos.inside(), 19);
    world.done(Some(ann.id), command);
    assert_eq!(kind(&world.propose(Some(bea.id), Command::AbandonRekey { target: third.id })), Kind::Denied);
    world.done(Some(ann.id), Command::AbandonRekey { target: third.id });
    world.put(ann, photos.inside(), "another", 10);
}

#[test]
fn leaving_handing_on_and_the_quota_of_whoever_owns() {
    let (mut world, operator, users) = people(&["ann", "bea", "cem"]);
    let [ann, bea, cem] = users.as_slice() else { unreachable!() };
    let shared = world.shared(ann, "work", 10, &[(bea, Role::Admin), (cem, Role::Write)]);
    world.done(Some(cem.id), Command::LeaveSpace { space: shared.id });
    assert_eq!((world.role_of(&shared, cem), world.spaces_of(cem)), (None, vec![]));
    assert_eq!(kind(&world.write(cem, &shared, "x")), Kind::Denied);
    let Answer::Space(Some(info)) = world.ask(&Query::Space { space: shared.id, account: ann.id }) else { panic!("a member") };
    assert_eq!(info.left, [cem.id]);
    // A set that still lists them does not bring them back.
    let (next, command) = next_set(ann, &shared, &[shared.members.clone(), vec![as_member(&operator, Role::Read)]].concat());
    world.done(Some(ann.id), command);
    assert_eq!(world.role_of(&shared, cem), None);
    let (next, command) = next_set(ann, &next, &[as_member(ann, Role::Admin), as_member(bea, Role::Admin)]);
    world.done(Some(ann.id), command);
    assert_eq!(world.space_row(shared.id).left, []);

    let transfer = |to: &User| Command::TransferSpace { space: shared.id, to: to.id };
    assert_eq!(kind(&world.propose(Some(ann.id), transfer(cem))), Kind::Invalid, "only to an admin");
    world.done(Some(ann.id), transfer(bea));
    assert_eq!(world.space_row(shared.id).owner, bea.id);
    assert_eq!(kind(&world.propose(Some(ann.id), transfer(ann))), Kind::Denied);
    // The new owner stays, the old one may go.
    world.done(Some(ann.id), Command::LeaveSpace { space: shared.id });
    assert_eq!(kind(&world.propose(Some(bea.id), Command::LeaveSpace { space: shared.id })), Kind::Invalid);
    let used = world.ask(&Query::Used(bea.id));
    world.write(bea, &next, "y").expect("written");
    assert!(matches!((used, world.ask(&Query::Used(bea.id))), (Answer::Used(a), Answer::Used(b)) if b == a + 200));
}
