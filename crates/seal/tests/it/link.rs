//! Links: the secret, and the password where there is one, open the record of that link and of no other.

use crate::support::{Stream, kind, person};
use model::{Hash, Kind, LinkId, SpaceId};
use seal::account::Seen;
use seal::link::{LinkKeys, Secret};
use seal::password::Password;
use seal::tree::{Attributes, Content, Entry, Name};

const ID: LinkId = LinkId([1; 16]);

fn seen() -> Seen {
    Seen { space: SpaceId([5; 16]), seq: 3, hash: Hash([6; 32]), head: None }
}

fn note(bytes: &[u8]) -> Entry {
    let attributes = Attributes { mode: 0o600, mtime_ns: -5, more: Vec::new() };
    Entry { name: Name::new("note.txt").unwrap(), attributes, size: bytes.len() as u64, content: Content::Inline(bytes.to_vec()) }
}

fn keys(secret: u8, password: Option<&str>) -> LinkKeys {
    LinkKeys::derive(ID, &Secret::from_bytes(&[secret; 32]), password.map(Password::new).as_ref()).unwrap()
}

#[test]
fn a_link_opens_with_its_secret_and_password() {
    let mut rng = Stream::new("links");
    for password in [None, Some("tr\u{e9}s secret"), Some("")] {
        let sealed = keys(7, password).seal(seen().space, &seen(), &note(b"hello"), &mut rng).unwrap();
        let record = keys(7, password).open(&sealed).unwrap();
        assert_eq!((record.seen, record.entry.size), (seen(), 5));
        assert_eq!(record.entry.name, Name::new("note.txt").unwrap());
        assert!(matches!(record.entry.content, Content::Inline(bytes) if bytes == b"hello"));
    }
    // However it was typed.
    assert_eq!(keys(7, Some("tr\u{e9}s")).auth_hash(), keys(7, Some("tre\u{301}s")).auth_hash());
}

#[test]
fn attack_22_the_proof_of_a_link_opens_nothing_and_another_link_or_password_neither() {
    let mut rng = Stream::new("links");
    let good = keys(7, Some("a password"));
    let sealed = good.seal(seen().space, &seen(), &note(b"hello"), &mut rng).unwrap();
    let other_id = LinkKeys::derive(LinkId([2; 16]), &Secret::from_bytes(&[7; 32]), Some(&Password::new("a password"))).unwrap();
    let others = [keys(7, None), keys(7, Some("")), keys(7, Some("another")), keys(8, Some("a password")), keys_of(good.auth()), other_id];
    for other in others {
        assert_eq!(kind(other.open(&sealed).map(|_| ())), Kind::Corrupt);
        assert_ne!(other.auth(), good.auth());
    }
    assert_eq!(good.auth_hash(), Hash::of(good.auth()));
    for i in (0..sealed.len()).step_by(7) {
        let mut changed = sealed.clone();
        changed[i] ^= 1;
        assert_eq!(kind(good.open(&changed).map(|_| ())), Kind::Corrupt);
        assert!(good.open(&sealed[..i]).is_err());
    }
    // Neither name nor content shows, and the length of a name does not either.
    assert!(!sealed.windows(4).any(|w| w == b"note" || w == b"hell"));
    let longer = good.seal(seen().space, &seen(), &note(b"hello, you"), &mut rng).unwrap();
    assert_eq!(sealed.len(), longer.len());
}

fn keys_of(secret: &[u8; 32]) -> LinkKeys {
    LinkKeys::derive(ID, &Secret::from_bytes(secret), Some(&Password::new("a password"))).unwrap()
}

#[test]
fn a_holder_knows_whose_signatures_count_and_holds_no_key() {
    let anna = person("anna");
    let info = crate::support::info(&anna.new.home, &[&anna]);
    let home = anna.home();
    let open = seal::space::OpenSpace::without_keys(&info, &home.seen()).unwrap();
    assert!(open.root().is_err());
    assert!(open.may_write(anna.id(), home.epoch()) && !open.may_write(person("berta").id(), home.epoch()));
    let forked = Seen { hash: Hash([9; 32]), ..home.seen() };
    let later = Seen { seq: 2, ..home.seen() };
    let elsewhere = Seen { space: SpaceId([9; 16]), ..home.seen() };
    for seen in [forked, later, elsewhere] {
        assert_eq!(kind(seal::space::OpenSpace::without_keys(&info, &seen)), Kind::Corrupt);
    }
}
