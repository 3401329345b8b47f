//! Accounts: what opens, and what a server may not change.

use crate::support::{CLUSTER, Stream, kind, person, torment};
use model::account::RecoverBody;
use model::{AccountId, Hash, Kind, cbor, signed};
use seal::account::{LinkSecret, Notes, Pin, Seen, Unlocked, login_record, open_root, unlock};
use seal::identity::{self, safety_number};
use seal::keys::{ContentKey, ExportKey, KemKey, SigningKey};
use seal::login::Registered;
use seal::recovery::RecoveryWords;

#[test]
fn an_account_opens_by_password_and_by_words() {
    let anna = person("anna");
    let by_password = unlock(&anna.export, anna.account(), CLUSTER).unwrap();
    let words = RecoveryWords::parse(&anna.new.words.words()).unwrap();
    let by_words = Unlocked::from_root(&words.open_root(anna.account()).unwrap(), anna.account(), CLUSTER).unwrap();
    for me in [&by_password, &by_words] {
        assert_eq!(me.fingerprint(), anna.me().fingerprint());
        assert_eq!((me.account(), me.name(), me.cluster()), (anna.id(), "anna", CLUSTER));
        let notes = me.open_notes(&anna.account().state, Some(1)).unwrap();
        assert_eq!(notes.seen(anna.account().home).map(|s| s.seq), Some(1));
    }
}

#[test]
fn attack_01_flipped_and_swapped_key_blobs() {
    let anna = person("anna");
    let berta = person("berta");
    let opens = |change: &dyn Fn(&mut model::account::Account)| {
        let mut account = anna.account().clone();
        change(&mut account);
        unlock(&anna.export, &account, CLUSTER).is_ok()
    };
    assert!(opens(&|_| ()));
    assert!(!opens(&|a| a.login.pw_wrap[60] ^= 1));
    assert!(!opens(&|a| a.secrets[60] ^= 1));
    assert!(!opens(&|a| a.login.n += 1));
    assert!(!opens(&|a| a.id = AccountId([1; 16])));
    assert!(!opens(&|a| a.name = "other".into()));
    assert!(!opens(&|a| a.login.pw_wrap = berta.account().login.pw_wrap.clone()));
    assert!(!opens(&|a| a.secrets = berta.account().secrets.clone()));
    assert!(!opens(&|a| std::mem::swap(&mut a.secrets, &mut a.login.pw_wrap)));
    assert_eq!(kind(unlock(&ExportKey::from_bytes(&[3; 64]), anna.account(), CLUSTER)), Kind::Corrupt);
}

#[test]
fn attack_03_own_key_pair_replaced() {
    let anna = person("anna");
    let mut rng = Stream::new("replaced");
    let mut account = anna.account().clone();
    account.identity = identity::create(anna.id(), "anna", &SigningKey::generate(&mut rng), &KemKey::generate(&mut rng));
    assert_eq!(kind(unlock(&anna.export, &account, CLUSTER)), Kind::Corrupt);
}

#[test]
fn a_new_password_wraps_the_same_root_key() {
    let anna = person("anna");
    let mut rng = Stream::new("passwd");
    let root = open_root(&anna.export, anna.account()).unwrap();
    let next = Registered { record: vec![1; 192], export_key: ExportKey::from_bytes(&[5; 64]) };
    let mut account = anna.account().clone();
    account.login = login_record(&next, account.id, account.identity.fingerprint(), 2, &root, &mut rng);
    assert_eq!(kind(unlock(&anna.export, &account, CLUSTER)), Kind::Corrupt);
    assert_eq!(unlock(&next.export_key, &account, CLUSTER).unwrap().fingerprint(), anna.me().fingerprint());
}

#[test]
fn recovery_words_are_checked_word_by_word() {
    let words = RecoveryWords::generate(&mut Stream::new("words"));
    let text = words.words();
    assert_eq!(text.split(' ').count(), 24);
    let shouted = format!("  {}\n", text.to_uppercase().replace(' ', "   "));
    assert!(RecoveryWords::parse(&shouted).is_ok_and(|w| w.auth_key() == words.auth_key()));
    let mut list: Vec<&str> = text.split(' ').collect();
    list.swap(0, 5);
    assert_eq!(kind(RecoveryWords::parse(&list.join(" "))), Kind::Invalid);
    list[3] = "shardkeep";
    let refused = RecoveryWords::parse(&list.join(" ")).map(|_| ()).unwrap_err();
    assert_eq!(refused.message, "recovery word 4 is not in the list");
    for short in ["", "abandon", "legal winner thank year wave sausage worth useful legal winner thank yellow"] {
        assert_eq!(kind(RecoveryWords::parse(short)), Kind::Invalid);
    }
    let anna = person("anna");
    assert_eq!(kind(words.open_root(anna.account())), Kind::Denied);
    let mut account = anna.account().clone();
    account.recovery.rec_wrap[70] ^= 1;
    assert_eq!(kind(anna.new.words.open_root(&account)), Kind::Corrupt);
}

#[test]
fn attack_23_replacement_is_bound_to_words_connection_and_record() {
    let anna = person("anna");
    let login = anna.account().login.clone();
    let (body, signature) = anna.new.words.prove(anna.id(), b"exporter", &login);
    let key = anna.account().recovery.rec_auth;
    assert_eq!(signed::verify(&key, "recover", &body, &signature), Ok(()));
    let said: RecoverBody = cbor::from_canonical(&body).unwrap();
    assert_eq!(said.account, anna.id());
    assert_eq!(said.binding.as_slice(), b"exporter");
    assert_eq!((said.login, said.n), (Hash::of(&cbor::to_vec(&login)), login.n));
    assert!(signed::verify(&key, "commit", &body, &signature).is_err());
    let other = RecoveryWords::generate(&mut Stream::new("other")).prove(anna.id(), b"exporter", &login);
    assert!(signed::verify(&key, "recover", &other.0, &other.1).is_err());
}

#[test]
fn attack_17_notes_rolled_back_or_changed() {
    let anna = person("anna");
    let mut rng = Stream::new("notes");
    let mut notes = Notes { time_ms: 5, ..Notes::default() };
    notes.pins.push(Pin { account: AccountId([1; 16]), name: "berta".into(), fingerprint: Hash([2; 32]), verified: true, since_ms: None });
    let seen = |seq| Seen { space: model::SpaceId([4; 16]), seq, hash: Hash([seq as u8; 32]), head: None };
    notes.remember(seen(3));
    notes.remember(seen(2));
    assert_eq!(notes.seen(model::SpaceId([4; 16])).map(|s| s.seq), Some(3));
    let record = anna.me().seal_notes(&notes, 2, &mut rng);
    assert_eq!(anna.me().open_notes(&record, Some(2)), Ok(notes.clone()));
    assert_eq!(kind(anna.me().open_notes(&record, Some(3))), Kind::Corrupt);
    let mut older = record.clone();
    older.seq = 3;
    assert_eq!(kind(anna.me().open_notes(&older, Some(3))), Kind::Corrupt);
    notes.links = vec![LinkSecret::new(&[2], b"s"), LinkSecret::new(&[1], b"s")];
    let unsorted = anna.me().seal_notes(&notes, 4, &mut rng);
    assert_eq!(kind(anna.me().open_notes(&unsorted, None)), Kind::Corrupt);
}

#[test]
fn attack_04_another_key_under_a_pinned_name_or_account_is_refused() {
    let (berta, other) = (AccountId([1; 16]), AccountId([2; 16]));
    let (key, another) = (Hash([3; 32]), Hash([4; 32]));
    let mut notes = Notes::default();
    assert_eq!(notes.meet(berta, "berta", key, 7), Ok(true));
    assert_eq!(notes.meet(berta, "berta", key, 8), Ok(false));
    let before = notes.clone();
    for (account, name, fingerprint) in [(berta, "berta", another), (other, "berta", another), (other, "berta", key), (berta, "anna", key)]
    {
        let refused = notes.meet(account, name, fingerprint, 9).unwrap_err();
        assert_eq!(refused.kind, Kind::Denied);
        assert_eq!(refused.hint, Some(format!("shardkeep verify-user {name}")));
    }
    assert_eq!(notes, before);
    notes.set_pin(Pin { account: other, name: "berta".into(), fingerprint: another, verified: false, since_ms: Some(9) });
    assert_eq!((notes.pins.len(), notes.pin(berta), notes.pin(other).unwrap().since_ms), (1, None, Some(9)));
    // Notes written before pins had a time open as they did, and are sealed as they were.
    let old = Pin { account: berta, name: "b".into(), fingerprint: key, verified: true, since_ms: None };
    assert_eq!(cbor::to_vec(&old)[0], 0x84);
    assert_eq!(cbor::from_canonical::<Pin>(&cbor::to_vec(&old)), Ok(old));
}

#[test]
fn a_session_comes_back_and_garbage_does_not() {
    let anna = person("anna");
    let session = anna.me().export_session();
    let mut rng = Stream::new("session");
    let sealed = anna.me().seal_local("outbox", b"7", b"text", &mut rng);
    let again = Unlocked::import_session(&session).unwrap();
    assert_eq!(again.fingerprint(), anna.me().fingerprint());
    assert_eq!(again.open_local("outbox", b"7", &sealed).unwrap().as_slice(), b"text");
    assert!(again.open_local("outbox", b"8", &sealed).is_err());
    assert!(again.open_local("journal", b"7", &sealed).is_err());
    assert!(again.home_opens(&anna));
    // The last two keys and the cluster are not covered by the identity: changing them gives another
    // session, not a panic. Everything before is.
    torment("session", &session, |bytes| Unlocked::import_session(bytes).is_ok_and(|s| s.export_session() == session));
}

trait HomeOpens {
    fn home_opens(&self, whose: &crate::support::Person) -> bool;
}

impl HomeOpens for Unlocked {
    fn home_opens(&self, whose: &crate::support::Person) -> bool {
        seal::space::OpenSpace::open(&crate::support::info(&whose.new.home, &[whose]), self, None).is_ok()
    }
}

#[test]
fn content_keys_go_through_the_journal() {
    let anna = person("anna");
    let mut rng = Stream::new("journal");
    let key = ContentKey::generate(&mut rng);
    let object = model::ObjectId([6; 16]);
    let sealed = anna.me().seal_content_key(object, &key, &mut rng);
    let again = anna.me().open_content_key(object, &sealed).unwrap();
    let chunk = seal::content::seal_chunk(&key, object, 0, b"abc", true, &mut rng).unwrap();
    let record = seal::content::ChunkRecord::of(0, 0, &chunk).unwrap();
    let mut out = Vec::new();
    seal::content::open_chunk(&mut out, &again, object, &record, 3, &chunk).unwrap();
    assert_eq!(out, b"abc");
    assert!(anna.me().open_content_key(model::ObjectId([7; 16]), &sealed).is_err());
}

#[test]
fn identities_verify_wholly() {
    let anna = person("anna");
    let identity = anna.identity();
    let body = identity::verify(&identity).unwrap();
    assert_eq!((body.account, body.name.as_str(), body.kem.len()), (anna.id(), "anna", identity::KEM_PUBLIC));
    torment("identity", &identity.body, |bytes| {
        let mut changed = identity.clone();
        changed.body = bytes.to_vec().into();
        identity::verify(&changed).is_ok()
    });
    // A name that is not canonical, signed well.
    let crooked = identity::create(anna.id(), "Anna", &SigningKey::from_seed(&[1; 32]), &KemKey::from_bytes(&[2; 32]));
    assert_eq!(kind(identity::verify(&crooked)), Kind::Corrupt);
}

/// Low-order X25519 points, ML-KEM values out of range, wrong lengths, weak signing keys.
#[test]
fn attack_35_bad_keys_in_an_identity() {
    let key = SigningKey::from_seed(&[1; 32]);
    let good = KemKey::from_bytes(&[2; 32]).public();
    let verdict = |kem: &[u8]| {
        let body = model::account::IdentityBody {
            account: AccountId([1; 16]),
            name: "anna".into(),
            signing: key.public(),
            kem: kem.to_vec().into(),
        };
        let body = cbor::to_vec(&body);
        let signature = key.sign("identity", &body);
        identity::verify(&model::account::Identity { body: body.into(), signature }).is_ok()
    };
    assert!(verdict(&good));
    assert!(!verdict(&good[1..]));
    assert!(!verdict(&[good.as_slice(), &[0]].concat()));
    assert!(!verdict(&[]));
    assert!(!verdict(&[0xff; 1216]), "ML-KEM coefficients beyond the modulus");
    let p_minus_1 = [&[0xec][..], &[0xff; 30], &[0x7f]].concat();
    let p = [&[0xed][..], &[0xff; 30], &[0x7f]].concat();
    let p_plus_1 = [&[0xee][..], &[0xff; 30], &[0x7f]].concat();
    let order_8 = [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32,
        0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ];
    let one = [&[1][..], &[0; 31]].concat();
    for point in [&[0; 32][..], &one, &p_minus_1, &p, &p_plus_1, &order_8] {
        for top in [0, 0x80] {
            let mut kem = good.clone();
            kem[1184..].copy_from_slice(point);
            kem[1215] |= top;
            assert!(!verdict(&kem), "{point:02x?} {top:x}");
        }
    }
    // The neutral element as an Ed25519 key verifies almost anything, but not strictly.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(signed::verify(&model::PublicKey(neutral), "identity", b"body", &model::Signature(signature)).is_err());
}

#[test]
fn safety_numbers_agree_and_tell_keys_apart() {
    let a = (AccountId([1; 16]), Hash([7; 32]));
    let b = (AccountId([2; 16]), Hash([3; 32]));
    let number = safety_number(a, b);
    assert_eq!(number, safety_number(b, a));
    assert_eq!(number.len(), 12 * 6 - 1);
    assert!(number.split(' ').all(|g| g.len() == 5 && g.bytes().all(|c| c.is_ascii_digit())));
    assert_ne!(number, safety_number(a, (b.0, Hash([4; 32]))));
}
