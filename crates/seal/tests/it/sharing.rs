//! How members of a space change, and what malicious servers and former members make of it.

use crate::support::{Person, Stream, answer, file, info, kind, person};
use model::account::{GrantBody, Identity, LabelBody, Role, SpaceInfo, SpaceLabel};
use model::tree::Row;
use model::{EntryId, Hash, KeyEpoch, Kind, Result, cbor};
use seal::sharing::{Label, NextSet, create_named};
use seal::space::OpenSpace;
use seal::tree::{FolderKeys, Found, Name, RowVerifier};

fn label(name: &str) -> Label {
    Label { name: Name::new(name).unwrap(), direct: vec![] }
}

/// A space that a person made of a folder, as servers keep it for all of its members.
struct Server {
    info: SpaceInfo,
    grants: Vec<model::account::Grant>,
}

impl Server {
    fn new(owner: &Person) -> Server {
        let (new, sealed) = create_named(owner.me(), &label("Work"), &mut Stream::new("space")).unwrap();
        let mut info = info(&new, &[owner]);
        info.label = Some(sealed);
        info.owner = Some(owner.id());
        Server { grants: vec![new.grant], info }
    }

    /// The next set, as an honest server takes it in.
    fn take(&mut self, next: NextSet) {
        self.info.member_sets.push(next.members);
        self.info.label = Some(next.label);
        self.grants.extend(next.grants);
    }

    /// What it shows to somebody.
    fn show(&self, to: &Person) -> SpaceInfo {
        let of = |g: &&model::account::Grant| cbor::from_canonical::<GrantBody>(&g.body).unwrap().recipient == to.id();
        SpaceInfo { grants: self.grants.iter().filter(of).cloned().collect(), ..self.info.clone() }
    }

    fn open(&self, as_: &Person) -> Result<OpenSpace> {
        OpenSpace::open(&self.show(as_), as_.me(), None)
    }

    /// The owner changes the members to these.
    fn change(&mut self, owner: &Person, members: &[(&Person, Role)]) -> Result<bool> {
        self.info.identities = members.iter().map(|(p, _)| p.identity()).chain(self.info.identities.clone()).collect();
        self.info.identities.sort_by_key(Identity::fingerprint);
        self.info.identities.dedup();
        let listed = members.iter().map(|(p, role)| p.member(*role)).collect();
        let space = self.open(owner)?;
        let next = space.next_set(owner.me(), listed, &self.info.identities, &label("Work"), &mut Stream::new("next"))?;
        let rekey = next.rekey;
        self.take(next);
        Ok(rekey)
    }
}

fn look(space: &OpenSpace, rows: &model::command::Rows, root: &FolderKeys, name: &str) -> Result<Option<Found>> {
    Ok(RowVerifier::new(space).verify(rows)?.lookup(&[(root, &Name::new(name)?)])?.pop().flatten())
}

#[test]
fn members_come_and_go_and_all_that_stay_get_the_new_key() {
    let (ann, bea, cem) = (person("ann"), person("bea"), person("cem"));
    let mut server = Server::new(&ann);
    assert!(!server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Read)]).unwrap());
    assert!(!server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Write), (&cem, Role::Read)]).unwrap());
    for who in [&ann, &bea, &cem] {
        let space = server.open(who).unwrap();
        assert_eq!((space.epoch(), space.root_epoch()), (KeyEpoch(1), KeyEpoch(1)));
        let shown = server.show(who);
        assert_eq!(space.open_label(shown.label.as_ref().unwrap(), &shown).unwrap(), label("Work"));
    }
    // A demotion and a removal: another epoch each time.
    assert!(server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Read), (&cem, Role::Read)]).unwrap());
    assert!(server.change(&ann, &[(&ann, Role::Admin), (&cem, Role::Read)]).unwrap());
    assert_eq!(kind(server.open(&bea)), Kind::Denied);
    let space = server.open(&cem).unwrap();
    assert_eq!((space.epoch(), space.root_epoch()), (KeyEpoch(3), KeyEpoch(1)));
    // Both find the same fresh root under the new key; it is another one than before.
    let fresh = space.next_root().unwrap();
    let anns = server.open(&ann).unwrap().next_root().unwrap();
    let name = Name::new("x").unwrap();
    assert_eq!((fresh.folder, fresh.tag(&name)), (anns.folder, anns.tag(&name)));
    assert_ne!((fresh.folder, fresh.tag(&name)), (space.root_id(), space.root().unwrap().tag(&name)));
    // Who may not: readers, and those who are gone.
    let shown = server.show(&cem);
    let listed = vec![ann.member(Role::Admin), cem.member(Role::Admin)];
    let next = space.next_set(cem.me(), listed, &shown.identities, &label("Work"), &mut Stream::new("cem"));
    assert_eq!(kind(next.map(|_| ())), Kind::Denied);
}

/// The key goes to the identity that the member's fingerprint names, or to none.
#[test]
fn attack_04_a_recipients_key_is_substituted() {
    let (ann, bea, mallory) = (person("ann"), person("bea"), person("mallory"));
    let server = Server::new(&ann);
    let space = server.open(&ann).unwrap();
    let members = || vec![ann.member(Role::Admin), bea.member(Role::Read)];
    let next =
        |identities: &[Identity]| space.next_set(ann.me(), members(), identities, &label("Work"), &mut Stream::new("next")).map(|_| ());
    assert!(next(&[ann.identity(), bea.identity()]).is_ok());
    assert!(next(&[ann.identity(), mallory.identity()]).is_err());
    // Mallory's keys in a bundle that says that it is bea's: a good signature, another fingerprint.
    let session = mallory.key();
    let body = bea.identity().verify().unwrap();
    let forged = cbor::to_vec(&model::account::IdentityBody { signing: session.public(), ..body });
    let forged = Identity { signature: session.sign("identity", &forged), body: forged.into() };
    assert!(forged.verify().is_ok());
    assert!(next(&[ann.identity(), forged]).is_err());
    let mut broken = bea.identity();
    broken.signature.0[5] ^= 1;
    assert!(next(&[ann.identity(), broken]).is_err());
    // And a grant that was meant for somebody else opens for nobody.
    let mut server = server;
    server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Read)]).unwrap();
    let mut shown = server.show(&bea);
    shown.grants = server.show(&ann).grants;
    assert_eq!(kind(OpenSpace::open(&shown, bea.me(), None)), Kind::Corrupt);
}

/// Replayed from before: a grant of an older epoch does not stand for the newest, and a name sealed in an
/// epoch in which its author was an admin is good for that epoch's set only.
#[test]
fn attack_19_old_grants_and_names_are_replayed() {
    let (ann, bea) = (person("ann"), person("bea"));
    let mut server = Server::new(&ann);
    server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Admin)]).unwrap();
    let before = server.show(&ann);
    server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Read)]).unwrap();
    let mut shown = server.show(&ann);
    shown.grants = before.grants.clone();
    assert_eq!(kind(OpenSpace::open(&shown, ann.me(), None)), Kind::Corrupt);
    // Bea was an admin in epoch 1, and is none any more: she names nothing in epoch 2.
    let space = server.open(&ann).unwrap();
    let old: LabelBody = cbor::from_canonical(&before.label.as_ref().unwrap().body).unwrap();
    let body = cbor::to_vec(&LabelBody { epoch: KeyEpoch(2), ..old.clone() });
    let forged = SpaceLabel { author: bea.id(), signature: bea.key().sign("space-label", &body), body: body.into() };
    assert_eq!(kind(space.open_label(&forged, &server.show(&ann))), Kind::Corrupt);
    // Servers move a sealed name to another epoch, or change it.
    let body = cbor::to_vec(&LabelBody { epoch: KeyEpoch(2), ..old.clone() });
    let moved = SpaceLabel { author: ann.id(), signature: ann.key().sign("space-label", &body), body: body.into() };
    assert_eq!(kind(space.open_label(&moved, &server.show(&ann))), Kind::Corrupt);
    let mut flipped = server.info.label.clone().unwrap();
    flipped.body[60] ^= 1;
    assert_eq!(kind(space.open_label(&flipped, &server.show(&ann))), Kind::Corrupt);
}

/// A writer who was removed signs, with all servers helping, as if it had been before: nothing of it is good
/// for the folders that were sealed anew, and of what is written there he opens nothing.
#[test]
fn attack_20_a_removed_writer_back_dates_and_reads_on() {
    let (ann, bea) = (person("ann"), person("bea"));
    let mut server = Server::new(&ann);
    server.change(&ann, &[(&ann, Role::Admin), (&bea, Role::Write)]).unwrap();
    let hers = server.open(&bea).unwrap();
    let old_root = hers.root().unwrap();
    server.change(&ann, &[(&ann, Role::Admin)]).unwrap();
    // The re-key: from now on the root is the one of the new key.
    let space = server.open(&ann).unwrap();
    let fresh = space.next_root().unwrap();
    server.info.root = fresh.folder;
    let space = server.open(&ann).unwrap();
    assert_eq!((space.root_epoch(), space.root_id()), (KeyEpoch(2), fresh.folder));
    let root = space.root().unwrap();
    let mut rng = Stream::new("rows");
    let kept = root.seal(EntryId([1; 16]), 3, &file("kept", b"secret"), &mut rng).unwrap();
    let rows = answer(std::slice::from_ref(&kept), space.sign_commit(ann.me(), [&kept], &mut rng).unwrap());
    assert!(look(&space, &rows, &root, "kept").unwrap().is_some());
    // She knows the id of the fresh folder from the servers, and every older key.
    let forged = old_root.seal(EntryId([2; 16]), 1, &file("forged", b"bad"), &mut rng).unwrap();
    for (row, epoch) in [
        (forged.clone(), 1),
        (Row { folder: root.folder, ..forged.clone() }, 1),
        (Row { folder: root.folder, epoch: KeyEpoch(2), tag: root.tag(&Name::new("forged").unwrap()), ..forged.clone() }, 1),
        (Row { folder: root.folder, epoch: KeyEpoch(2), tag: root.tag(&Name::new("forged").unwrap()), ..forged }, 2),
        (Row { sealed: vec![].into(), rev: 4, ..kept.clone() }, 1),
        (Row { sealed: vec![].into(), rev: 4, ..kept.clone() }, 2),
    ] {
        let rows = answer(std::slice::from_ref(&row), bea.sign_rows(space.id(), epoch, std::slice::from_ref(&row)));
        assert_eq!(kind(look(&space, &rows, &root, "forged")), Kind::Corrupt);
        assert_eq!(kind(look(&space, &rows, &root, "kept")), Kind::Corrupt);
    }
    assert_eq!(kind(server.open(&bea)), Kind::Denied);
    assert_eq!(kind(look(&hers, &rows, &old_root, "kept")), Kind::Corrupt);
}

/// Servers put the door's space under another id, or another space behind it.
#[test]
fn attack_25_another_space_is_put_behind_a_door() {
    let (ann, mallory) = (person("ann"), person("mallory"));
    let (server, theirs) = (Server::new(&ann), Server::new(&mallory));
    let mut shown = theirs.show(&mallory);
    shown.space = server.info.space;
    assert_eq!(kind(OpenSpace::open(&shown, ann.me(), None)), Kind::Corrupt);
    let mut shown = server.show(&ann);
    shown.genesis = theirs.info.genesis.clone();
    assert_eq!(kind(OpenSpace::open(&shown, ann.me(), None)), Kind::Corrupt);
    let mut shown = server.show(&ann);
    shown.label = theirs.info.label.clone();
    let space = server.open(&ann).unwrap();
    assert_eq!(kind(space.open_label(shown.label.as_ref().unwrap(), &shown)), Kind::Corrupt);
    assert_ne!(Hash::of(&server.info.genesis), Hash::of(&theirs.info.genesis));
}
