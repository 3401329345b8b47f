//! Spaces: member histories, grants, roots, commits; and what malicious servers make of them.

use crate::support::{Person, info, kind, person};
use minicbor::bytes::ByteVec;
use model::account::{GrantBody, MemberSetBody, Role, SpaceInfo};
use model::{FolderId, Hash, KeyEpoch, Kind, cbor};
use seal::account::Seen;
use seal::space::OpenSpace;

fn home(anna: &Person) -> SpaceInfo {
    info(&anna.new.home, &[anna])
}

fn set_of(info: &SpaceInfo, i: usize) -> MemberSetBody {
    cbor::from_canonical(&info.member_sets[i].body).unwrap()
}

/// The set after the newest one, not signed yet.
fn next(info: &SpaceInfo) -> MemberSetBody {
    let last = info.member_sets.len() - 1;
    let mut body = set_of(info, last);
    body.seq += 1;
    body.prev = Hash::of(&info.member_sets[last].body);
    body
}

fn add(info: &mut SpaceInfo, body: &MemberSetBody, by: &Person) {
    info.member_sets.push(by.sign_set(body));
}

fn sorted(mut body: MemberSetBody) -> MemberSetBody {
    body.members.sort_by_key(|m| m.account);
    body
}

#[test]
fn a_home_space_opens() {
    let anna = person("anna");
    let space = OpenSpace::open(&home(&anna), anna.me(), anna_seen(&anna).as_ref()).unwrap();
    assert_eq!((space.id(), space.epoch(), space.root_epoch()), (anna.new.home.id(), KeyEpoch(1), KeyEpoch(1)));
    assert_eq!(space.root_id(), anna.new.home.root);
    assert_eq!(space.role(anna.id(), KeyEpoch(1)), Some(Role::Admin));
    assert!(space.may_write(anna.id(), KeyEpoch(1)));
    assert!(!space.may_write(anna.id(), KeyEpoch(2)));
    assert_eq!(space.seen(), seal::space::first_seen(&anna.new.home));
    assert_eq!(space.root().unwrap().folder, anna.new.home.root);
}

fn anna_seen(anna: &Person) -> Option<Seen> {
    Some(seal::space::first_seen(&anna.new.home))
}

#[test]
fn only_members_open_it() {
    let anna = person("anna");
    let berta = person("berta");
    let mut info = home(&anna);
    info.identities.push(berta.identity());
    assert_eq!(kind(OpenSpace::open(&info, berta.me(), None)), Kind::Denied);
}

#[test]
fn attack_05_grants_that_servers_make() {
    let anna = person("anna");
    let mallory = person("mallory");
    let good = home(&anna);
    let refused = |change: &dyn Fn(&mut SpaceInfo)| {
        let mut info = good.clone();
        change(&mut info);
        assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
    };
    let body: GrantBody = cbor::from_canonical(&good.grants[0].body).unwrap();
    refused(&|i| i.grants.clear());
    refused(&|i| i.grants.push(i.grants[0].clone()));
    refused(&|i| i.grants[0].signature.0[3] ^= 1);
    refused(&|i| i.grants[0] = mallory.sign_grant(&body));
    refused(&|i| {
        i.grants[0] = mallory.sign_grant(&body);
        i.grants[0].author = anna.id();
    });
    // Signed by the admin, but for another space, epoch, set, recipient, or with damaged ciphertext.
    for (what, change) in [
        ("space", (|b: &mut GrantBody| b.space.0[0] ^= 1) as fn(&mut GrantBody)),
        ("epoch", |b| b.epoch.0 += 1),
        ("set", |b| b.members.0[0] ^= 1),
        ("sender", |b| b.sender.0[0] ^= 1),
        ("recipient", |b| b.recipient.0[0] ^= 1),
        ("fingerprint", |b| b.recipient_fingerprint.0[0] ^= 1),
        ("enc", |b| b.enc[5] ^= 1),
        ("enc cut", |b| b.enc = ByteVec::from(b.enc[1..].to_vec())),
        ("enc empty", |b| b.enc = ByteVec::from(vec![])),
        ("low-order point", |b| b.enc[1088..].fill(0)),
        ("sealed", |b| b.sealed[5] ^= 1),
        ("sealed empty", |b| b.sealed = ByteVec::from(vec![])),
    ] {
        let mut body = body.clone();
        change(&mut body);
        let mut info = good.clone();
        info.grants[0] = anna.sign_grant(&body);
        assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt, "{what}");
    }
}

#[test]
fn attack_06_invented_member_history() {
    let anna = person("anna");
    let mallory = person("mallory");
    let good = home(&anna);
    let refused = |what: &str, info: &SpaceInfo| assert_eq!(kind(OpenSpace::open(info, anna.me(), None)), Kind::Corrupt, "{what}");

    // A ghost added by somebody who is no admin.
    let mut info = good.clone();
    info.identities.push(mallory.identity());
    let mut body = next(&info);
    body.members.push(mallory.member(Role::Admin));
    add(&mut info, &sorted(body), &mallory);
    refused("ghost", &info);

    // A first set by somebody else under the same genesis.
    let mut info = good.clone();
    info.identities.push(mallory.identity());
    let mut body = set_of(&info, 0);
    body.members.push(mallory.member(Role::Admin));
    info.member_sets[0] = mallory.sign_set(&sorted(body));
    refused("first set", &info);

    // Another genesis; another space's history; none.
    let mut info = good.clone();
    info.genesis = mallory.new.home.genesis.clone();
    refused("genesis", &info);
    let mut info = good.clone();
    info.member_sets = mallory.new.home.members.clone().into_vec();
    refused("other history", &info);
    let mut info = good.clone();
    info.member_sets.clear();
    refused("no history", &info);

    // What even an admin may not sign.
    for (what, change) in [
        ("seq skipped", (|b: &mut MemberSetBody| b.seq += 1) as fn(&mut MemberSetBody)),
        ("epoch grown for nothing", |b| b.epoch.0 += 1),
        ("other prev", |b| b.prev.0[0] ^= 1),
        ("other space", |b| b.space.0[0] ^= 1),
        ("nobody", |b| b.members.clear()),
        ("twice", |b| b.members.push(b.members[0].clone())),
        ("suite 0", |b| b.min_suite = 0),
    ] {
        let mut info = good.clone();
        let mut body = next(&info);
        change(&mut body);
        add(&mut info, &body, &anna);
        refused(what, &info);
    }
    let mut info = good.clone();
    info.member_sets[0].signature.0[0] ^= 1;
    refused("signature", &info);
    let mut info = good.clone();
    info.identities.clear();
    refused("no identity", &info);
    let mut info = good.clone();
    info.identities.push(anna.identity());
    refused("identity twice", &info);
}

trait IntoVec: Sized {
    fn into_vec(self) -> Vec<Self> {
        vec![self]
    }
}
impl IntoVec for model::account::MemberSet {}

#[test]
fn attack_07_a_higher_suite_is_refused_not_ignored() {
    let anna = person("anna");
    let mut info = home(&anna);
    let mut body = next(&info);
    body.min_suite = 2;
    add(&mut info, &body, &anna);
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
}

#[test]
fn attack_19_rolled_back_and_forked_member_sets() {
    let anna = person("anna");
    let berta = person("berta");
    let mut info = home(&anna);
    info.identities.push(berta.identity());
    let old = info.clone();
    let mut body = next(&info);
    body.members.push(berta.member(Role::Write));
    add(&mut info, &sorted(body), &anna);
    let seen = OpenSpace::open(&info, anna.me(), anna_seen(&anna).as_ref()).unwrap().seen();
    assert_eq!(seen.seq, 2);
    assert_eq!(kind(OpenSpace::open(&old, anna.me(), Some(&seen))), Kind::Corrupt);
    let mut fork = old;
    let mut body = next(&fork);
    body.members.push(berta.member(Role::Admin));
    add(&mut fork, &sorted(body), &anna);
    assert!(OpenSpace::open(&fork, anna.me(), None).is_ok());
    assert_eq!(kind(OpenSpace::open(&fork, anna.me(), Some(&seen))), Kind::Corrupt);
}

#[test]
fn removal_and_demotion_must_raise_the_epoch() {
    let anna = person("anna");
    let berta = person("berta");
    for demote in [false, true] {
        let mut info = home(&anna);
        info.identities.push(berta.identity());
        let mut body = next(&info);
        body.members.push(berta.member(Role::Write));
        add(&mut info, &sorted(body), &anna);
        let mut body = next(&info);
        body.members.retain(|m| m.account == anna.id());
        if demote {
            body.members.push(berta.member(Role::Read));
        }
        let body = sorted(body);
        let mut same = info.clone();
        add(&mut same, &body, &anna);
        assert_eq!(kind(OpenSpace::open(&same, anna.me(), None)), Kind::Corrupt);
        // With the epoch raised the history is right, and the next thing missing is the grant.
        let mut raised = info.clone();
        add(&mut raised, &MemberSetBody { epoch: KeyEpoch(2), ..body }, &anna);
        let e = OpenSpace::open(&raised, anna.me(), None).map(|_| ()).unwrap_err();
        assert_eq!(e.message, "the grant for the current epoch of a space is missing");
    }
}

#[test]
fn a_root_that_the_server_chose_is_refused() {
    let anna = person("anna");
    let mut info = home(&anna);
    info.root = FolderId([5; 16]);
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
}

#[test]
fn attack_36_other_encodings_of_signed_records() {
    let anna = person("anna");
    let good = home(&anna);
    // The same array with its head in two bytes instead of one, signed by its true author.
    let longer = |body: &[u8]| [&[0x98, body[0] & 0x1f][..], &body[1..]].concat();
    let mut info = good.clone();
    let body = longer(&good.member_sets[0].body);
    info.member_sets[0].signature = anna.key().sign("member-set", &body);
    info.member_sets[0].body = body.into();
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
    let mut info = good.clone();
    let body = longer(&good.grants[0].body);
    info.grants[0].signature = anna.key().sign("grant", &body);
    info.grants[0].body = body.into();
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
    let mut info = good.clone();
    info.genesis = longer(&good.genesis).into();
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
    // A field more than there are.
    let mut info = good;
    let mut body = info.member_sets[0].body.to_vec();
    body[0] += 1;
    body.push(0);
    info.member_sets[0].signature = anna.key().sign("member-set", &body);
    info.member_sets[0].body = body.into();
    assert_eq!(kind(OpenSpace::open(&info, anna.me(), None)), Kind::Corrupt);
}

#[test]
fn garbage_in_every_place_of_a_space_is_refused() {
    let anna = person("anna");
    let good = home(&anna);
    let mut rng = crate::support::Stream::new("space garbage");
    for len in (0..64).chain([100, 1000, 3000]) {
        let garbage = || ByteVec::from(crate::support::Stream::new("g").bytes(len));
        for place in 0..4 {
            let mut info = good.clone();
            match place {
                0 => info.genesis = garbage(),
                1 => info.member_sets[0].body = garbage(),
                2 => info.grants[0].body = garbage(),
                _ => info.identities[0].body = garbage(),
            }
            assert!(OpenSpace::open(&info, anna.me(), None).is_err());
        }
        // Signed garbage: passes the signature and must fall at the decoder.
        let body = rng.bytes(len);
        let mut info = good.clone();
        info.grants[0].signature = anna.key().sign("grant", &body);
        info.grants[0].body = body.into();
        assert!(OpenSpace::open(&info, anna.me(), None).is_err());
    }
}
