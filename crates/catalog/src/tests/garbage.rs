//! Damaged rows stop the replica; damaged commands are refused; neither ever panics.

use super::*;
use crate::kv::KvMut;
use model::Result;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// A world with a row in every table, a user, a folder, and an object that lives in it.
fn full() -> (World, User, Entry, ObjectId) {
    let (mut world, user) = World::ready();
    let operator = stranger("operator");
    let folder = world.mkdir(&user, user.root, "folder");
    let (large, object) = world.put_large(&user, folder.inside(), "large");
    let (change, _) = World::moved(&user, &large, user.root, "renamed", 128);
    world.commit(&user, vec![change]).expect("moved");
    let doomed = world.mkdir(&user, user.root, "doomed");
    world.put(&user, doomed.inside(), "file", 100);
    world.commit(&user, vec![World::purge(&user, &doomed)]).expect("purged");
    world.done(Some(operator.id), Command::CreateInvite(invite("guest")));
    world.done(None, Command::OpenSession { token_hash: Hash([1; 32]), account: user.id, expires_ms: START + HOUR });
    let token = world.token(START + HOUR, Some(NodeId(1)));
    world.done(Some(operator.id), Command::CreateToken(token.clone()));
    world.done(None, Command::ConsumeToken { token: token.id, role: ServerRole::Node, key: Hash([8; 32]) });
    (world, user, folder, object)
}

/// Commands that between them read all tables.
fn commands(world: &mut World, user: &User, folder: &Entry) -> Vec<(Option<AccountId>, Command)> {
    let operator = stranger("operator");
    let object = world.object();
    let manifest = world.manifest(vec![used(object)]);
    let (change, entry) = world.new_large(user, folder.inside(), "more", manifest);
    let changes = vec![change, World::purge(user, &entry)];
    let record = world.sign(user, &changes);
    let grants = vec![world.grant(user, &[object])];
    vec![
        (Some(user.id), Command::Commit { record, changes, grants }),
        (None, registration(&stranger("guest"))),
        (Some(operator.id), Command::CreateInvite(invite("other"))),
        (None, update(NodeId(5), vec![device(NodeId(5), 0, 1)])),
        (None, Command::MakeLayout { width: 4 }),
        (None, Command::CloseSession { token_hash: Hash([1; 32]) }),
        (None, Command::Tick),
    ]
}

fn queries(user: &User, object: ObjectId) -> Vec<Query> {
    let space = user.space;
    vec![
        Query::AccountByName(user.name.clone()),
        Query::Session(Hash([1; 32])),
        Query::Space { space, account: user.id },
        Query::List { space, folder: user.root, after: None, limit: 100, manifests: true, have: Vec::new() },
        Query::Cluster,
        Query::Layout(4),
        Query::Events { after: 0, limit: 100 },
        Query::Feed { after: 0, limit: 100 },
        Query::Totals,
        Query::Objects(vec![object]),
        Query::Genesis,
    ]
}

fn propose(world: &mut World, account: Option<AccountId>, command: Command) -> Result<Applied> {
    let proposal = Proposal { request: world.request(), account, command, time_ms: world.now };
    crate::apply(&mut world.kv, &proposal)
}

/// Each row in turn becomes garbage. Whoever reads it stops with `Corrupt`; nobody takes it for a refusal.
#[test]
fn garbage_in_any_row_never_panics_and_is_never_a_refusal() {
    let (world, user, folder, object) = full();
    let mut seen = BTreeMap::new();
    for key in rows_of(&world.kv).into_keys() {
        for garbage in [&b""[..], &[0x9f, 0xff], &[0x80], &[0xa0], &[0xff; 40], &[0x00]] {
            let mut damaged = world.clone();
            damaged.kv.put(&key, garbage).expect("memory");
            for (account, command) in commands(&mut damaged.clone(), &user, &folder) {
                let mut copy = damaged.clone();
                if command == Command::Tick {
                    copy.now += 40 * DAY;
                }
                if let Err(e) = propose(&mut copy, account, command) {
                    assert_eq!(e.kind, Kind::Corrupt, "{e}");
                    seen.insert(key[0], e);
                    // And nothing was written.
                    assert_eq!(copy.kv, damaged.kv);
                }
            }
            for query in queries(&user, object) {
                if let Err(e) = crate::query(&damaged.kv, &query) {
                    assert_eq!(e.kind, Kind::Corrupt, "{e}");
                    seen.insert(key[0], e);
                }
            }
        }
    }
    // All tables whose rows say something; those of endings and the like have empty rows.
    let tables: Vec<u8> = seen.into_keys().collect();
    assert_eq!(
        tables,
        [
            0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x30, 0x32, 0x33, 0x34, 0x35, 0x36, 0x40, 0x41, 0x50, 0x51, 0x53, 0x54,
            0x60
        ]
    );
}

/// The author's identity was checked when the account was made. Damage to it is no reason to tell
/// the author that his commit is wrong.
#[test]
fn a_damaged_identity_is_a_failure_of_the_store() {
    let (mut world, user) = World::ready();
    let key = crate::key::account(user.id);
    let mut account: Account = cbor::from_slice(&world.kv.get(&key).expect("memory").expect("row")).expect("account");
    account.identity.body = vec![1, 2, 3].into();
    world.kv.put(&key, &cbor::to_vec(&account)).expect("memory");
    let space_key = crate::key::space(user.space);
    let mut space: crate::row::Space = cbor::from_slice(&world.kv.get(&space_key).expect("memory").expect("row")).expect("space");
    space.members[0].fingerprint = account.identity.fingerprint();
    world.kv.put(&space_key, &cbor::to_vec(&space)).expect("memory");
    let (change, _) = world.new_file(&user, user.root, "a", 100);
    let record = world.sign(&user, std::slice::from_ref(&change));
    let commit = Command::Commit { record, changes: vec![change], grants: vec![] };
    assert_eq!(propose(&mut world, Some(user.id), commit).map_err(|e| e.kind), Err(Kind::Corrupt));
}

/// A row that others count on is missing altogether.
#[test]
fn a_missing_row_is_a_failure_of_the_store() {
    let (world, user, _, object) = full();
    let file = world.rows(&Query::List { space: user.space, folder: user.root, after: None, limit: 10, manifests: true, have: Vec::new() });
    let large = file.rows.iter().find(|r| r.manifest.is_some()).expect("the large file");
    let manifest = large.manifest.expect("its manifest");
    let old = Entry { id: large.row.entry, folder: user.root, name: "renamed".into(), rev: 2, child: None, manifest: Some(manifest) };
    for key in [crate::key::manifest(user.space, manifest), crate::key::object(object)] {
        let mut damaged = world.clone();
        damaged.kv.delete(&key).expect("memory");
        let changes = vec![World::purge(&user, &old)];
        let record = damaged.sign(&user, &changes);
        let purge = Command::Commit { record, changes, grants: vec![] };
        assert_eq!(propose(&mut damaged, Some(user.id), purge).map_err(|e| e.kind), Err(Kind::Corrupt));
    }
}

/// Keys that no command makes: in the list of endings and of folders to destroy.
#[test]
fn garbage_keys_are_passed_over() {
    let (mut world, _) = World::ready();
    let mut keys = vec![vec![0x70], [vec![0x70], vec![0; 8]].concat(), vec![0x71], vec![0x71, 1, 2], [vec![0x71], vec![1; 40]].concat()];
    keys.extend((0..9).map(|kind| [vec![0x70], vec![0; 8], vec![kind], vec![1, 2, 3]].concat()));
    for key in &keys {
        world.kv.put(key, &[]).expect("memory");
    }
    assert_eq!(propose(&mut world, None, Command::Tick), Ok(Ok(Outcome::Done)));
    let left = rows_of(&world.kv);
    assert!(keys.iter().all(|k| !left.contains_key(k)));
}

/// A store that fails: the command fails with it, and is no answer to anybody.
struct Broken(MemoryKv);

impl Kv for Broken {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.get(key)
    }
    fn scan(&self, _: &[u8], _: &[u8], _: &mut crate::kv::Visit<'_>) -> Result<()> {
        Err(model::Error::unavailable("the disk does not answer"))
    }
}
impl KvMut for Broken {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.put(key, value)
    }
    fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.0.delete(key)
    }
}

#[test]
fn a_failing_store_is_no_refusal() {
    let (mut world, _) = World::ready();
    let proposal = Proposal { request: world.request(), account: None, command: Command::Tick, time_ms: START };
    let mut broken = Broken(world.kv);
    assert_eq!(crate::apply(&mut broken, &proposal).map_err(|e| e.kind), Err(Kind::Unavailable));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    /// A commit, a grant, a proof that are anything at all, properly signed.
    #[test]
    fn garbage_bodies_are_refused(body in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..200, flip in any::<u8>()) {
        let (mut world, user) = World::ready();
        let (change, _) = world.new_file(&user, user.root, "a", 100);
        let good = world.sign(&user, std::slice::from_ref(&change));
        let mut bent = good.body.to_vec();
        let at = cut % bent.len();
        bent[at] ^= flip | 1;
        let cut = good.body[..at].to_vec();
        // A flipped bit may hit the commit's id: another commit, and a good one.
        for (body, bad) in [(body, true), (bent, false), (cut, true)] {
            let record = CommitRecord { author: user.id, signature: sign(&user.key, "commit", &body), body: body.clone().into() };
            let grant = UploadGrant { signature: sign(&world.capability, "upload-grant", &body), body: body.clone().into() };
            let proof = (body.clone().into(), sign(&user.words, "recover", &body));
            let login = LoginRecord { opaque: vec![].into(), pw_wrap: vec![].into(), n: 2 };
            let changes = vec![change.clone()];
            let replace = Command::ReplaceLogin { account: user.id, expect_n: 1, login, recovery: None, proof: Some(proof) };
            for command in [
                Command::Commit { record, changes: changes.clone(), grants: vec![] },
                Command::Commit { record: good.clone(), changes, grants: vec![grant] },
                replace,
            ] {
                let applied = world.propose(Some(user.id), command);
                prop_assert!(applied.is_err() || !bad);
            }
        }
    }

    /// A layout's row read in part must be as safe as one read whole.
    #[test]
    fn garbage_layouts_are_corrupt_or_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Err(e) = crate::query::layout_epoch(&bytes) {
            prop_assert_eq!(e.kind, Kind::Corrupt);
        }
    }
}
