//! Links: made by members, good for as long and as often as they say, and for what they lead to.

use super::*;
use crate::{GRACE_MS, RETENTION_MS};
use model::LinkId;
use model::link::{LINKS_MAX, Link, LinkTarget, SEALED_MAX};

fn link_to(owner: &User, n: u8, target: LinkTarget) -> Link {
    Link {
        id: LinkId([n; 16]),
        owner: owner.id,
        space: owner.space,
        target,
        auth_hash: Hash::of(&[n]),
        sealed: vec![9; 300].into(),
        created_ms: 0,
        expires_ms: None,
        left: None,
        opened: 77,
    }
}

fn create(link: &Link) -> Command {
    Command::CreateLink(Box::new(link.clone()))
}

fn open(n: u8, auth: u8, token: u8) -> Command {
    Command::OpenLink { link: LinkId([n; 16]), auth_hash: Hash::of(&[auth]), token_hash: Hash([token; 32]), expires_ms: START + 40 * DAY }
}

/// Whether a session still reads its link.
fn reads(world: &World, token: u8) -> bool {
    match world.ask(&Query::LinkBySession(Hash([token; 32]))) {
        Answer::Link(link) => link.is_some(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn links_are_made_by_members_of_what_exists_and_end_by_their_owner() {
    let (mut world, ann) = World::new();
    let bea = world.user(&ann, "bea");
    let good = link_to(&ann, 1, LinkTarget::Folder(ann.root));
    assert_eq!(kind(&world.propose(Some(bea.id), create(&good))), Kind::Denied);
    assert_eq!(kind(&world.propose(Some(bea.id), create(&Link { owner: bea.id, ..good.clone() }))), Kind::Denied);
    for bad in [
        Link { sealed: vec![0; SEALED_MAX + 1].into(), ..good.clone() },
        Link { left: Some(0), ..good.clone() },
        Link { expires_ms: Some(START), ..good.clone() },
    ] {
        assert_eq!(kind(&world.propose(Some(ann.id), create(&bad))), Kind::Invalid);
    }
    for target in [LinkTarget::File(ManifestId([1; 16])), LinkTarget::Folder(FolderId([1; 16]))] {
        assert_eq!(kind(&world.propose(Some(ann.id), create(&Link { target, ..good.clone() }))), Kind::NotFound);
    }
    world.done(Some(ann.id), create(&good));
    assert_eq!(kind(&world.propose(Some(ann.id), create(&good))), Kind::Exists);
    let Answer::Links(links) = world.ask(&Query::Links(ann.id)) else { panic!() };
    assert_eq!(links, [Link { created_ms: world.now, opened: 0, ..good }]);
    assert_eq!(kind(&world.propose(Some(bea.id), Command::RevokeLink(LinkId([1; 16])))), Kind::NotFound);
    world.done(None, open(1, 1, 50));
    world.done(Some(ann.id), Command::RevokeLink(LinkId([1; 16])));
    assert!(!reads(&world, 50));
    assert_eq!(world.ask(&Query::Links(ann.id)), Answer::Links(Vec::new()));
    assert_eq!(kind(&world.propose(None, open(1, 1, 51))), Kind::Denied);
}

#[test]
fn a_link_is_opened_with_its_proof_in_its_time_and_as_often_as_it_says() {
    let (mut world, ann) = World::new();
    let bea = world.user(&ann, "bea");
    world.done(Some(bea.id), create(&Link { left: Some(2), ..link_to(&bea, 1, LinkTarget::Record) }));
    world.done(Some(bea.id), create(&Link { expires_ms: Some(START + HOUR), ..link_to(&bea, 2, LinkTarget::Record) }));
    world.done(Some(bea.id), create(&link_to(&bea, 3, LinkTarget::Record)));
    assert_eq!(kind(&world.propose(None, open(1, 2, 50))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, open(9, 9, 50))), Kind::Denied);
    world.done(None, open(1, 1, 51));
    world.done(None, open(1, 1, 52));
    assert_eq!(kind(&world.propose(None, open(1, 1, 53))), Kind::Denied);
    assert_eq!(kind(&world.propose(None, open(3, 3, 52))), Kind::Invalid);
    assert!(reads(&world, 51) && reads(&world, 52) && !reads(&world, 53));
    world.done(None, open(2, 2, 54));
    world.done(None, open(3, 3, 55));
    // Whoever made it is shut out: so are its holders, as long as that lasts.
    let disabled = |disabled| Command::SetDisabled { account: bea.id, disabled };
    world.done(Some(ann.id), disabled(true));
    assert!(!reads(&world, 51) && !reads(&world, 55));
    assert_eq!(kind(&world.propose(None, open(3, 3, 56))), Kind::Denied);
    world.done(Some(ann.id), disabled(false));
    assert!(reads(&world, 51) && reads(&world, 54));
    world.now = START + 2 * HOUR;
    world.done(None, Command::Tick);
    assert!(!reads(&world, 54) && reads(&world, 55));
    assert_eq!(kind(&world.propose(None, open(2, 2, 57))), Kind::Denied);
    let Answer::Links(links) = world.ask(&Query::Links(bea.id)) else { panic!() };
    assert_eq!(links.iter().map(|l| (l.id.0[0], l.left, l.opened)).collect::<Vec<_>>(), [(1, Some(0), 2), (3, None, 1)]);
    // Sessions end by themselves, and nothing of them stays.
    world.now = START + 41 * DAY;
    world.done(None, Command::Tick);
    assert!(!reads(&world, 55));
    assert!(tables(&world.kv).iter().all(|(table, _)| !matches!(table, 0x1a | 0x1b)));
    assert!(world.now > START + GRACE_MS + RETENTION_MS);
}

#[test]
fn only_what_lies_below_a_folder_is_within_it() {
    let (mut world, ann) = World::new();
    let top = world.mkdir(&ann, ann.root, "top");
    let mid = world.mkdir(&ann, top.inside(), "mid");
    let deep = world.mkdir(&ann, mid.inside(), "deep");
    let beside = world.mkdir(&ann, ann.root, "beside");
    let within = |world: &World, top: FolderId, folders: Vec<FolderId>| {
        world.ask(&Query::Within { space: ann.space, top, folders }) == Answer::Within(true)
    };
    let (t, m, d, b) = (top.inside(), mid.inside(), deep.inside(), beside.inside());
    assert!(within(&world, t, vec![t, m, d]) && within(&world, ann.root, vec![t, b, ann.root]) && within(&world, d, vec![]));
    for (top, folders) in [(t, vec![b]), (m, vec![t]), (m, vec![d, ann.root]), (t, vec![FolderId([7; 16])])] {
        assert!(!within(&world, top, folders));
    }
}

#[test]
fn an_account_has_a_bounded_number_of_links() {
    let (mut world, ann) = World::new();
    for i in 0..LINKS_MAX {
        let id = LinkId(id16(&format!("link {i}")));
        world.done(Some(ann.id), create(&Link { id, ..link_to(&ann, 1, LinkTarget::Record) }));
    }
    assert_eq!(kind(&world.propose(Some(ann.id), create(&link_to(&ann, 2, LinkTarget::Record)))), Kind::Insufficient);
    let Answer::Links(links) = world.ask(&Query::Links(ann.id)) else { panic!() };
    assert_eq!(links.len(), LINKS_MAX);
}
