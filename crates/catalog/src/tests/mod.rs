//! Stories about the catalog, told with one helper: a [`World`] holds the rows, makes accounts with
//! real keys, and signs commits. Whatever a story does, the world watches two things by itself: a
//! command that is refused changes no row but its own answer and log time, and after each command
//! that is applied all counters and references agree with the rows (see `audit`).

mod accounts;
mod audit;
mod change;
mod commits;
mod coordinators;
mod expiry;
mod garbage;
mod history;
mod kv;
mod layout;
mod life;
mod links;
mod messages;
mod movement;
mod objects;
mod properties;
mod recode;
mod servers;
mod sharing;
mod trace;

use crate::kv::{Kv, MemoryKv};
use ed25519_dalek::{Signer, SigningKey};
use model::account::{
    Account, Grant, GrantBody, Identity, IdentityBody, Invite, LoginRecord, Member, MemberSet, MemberSetBody, NewSpace, RecoveryRecord,
    Role, StateRecord,
};
use model::cluster::{Coordinator, Device, ServerRole, Token, UploadGrant, UploadGrantBody};
use model::command::{Answer, Applied, Command, Genesis, Outcome, Proposal, Query, Rows, Totals};
use model::tree::{Change, CommitBody, CommitRecord, Expect, ManifestRow, ObjectUse, Row};
use model::{
    AccountId, ClusterId, CommitId, CoordinatorId, DeviceId, EntryId, Epoch, FolderId, Hash, InviteId, KeyEpoch, Kind, ManifestId, NameTag,
    NodeId, ObjectId, Policy, PublicKey, RequestId, Signature, SpaceId, TokenId, cbor, signed,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Log time at which every story begins.
const START: u64 = 1_800_000_000_000;
const HOUR: u64 = 3600 * 1000;
const DAY: u64 = 24 * HOUR;

/// An account with its private keys.
#[derive(Clone)]
struct User {
    id: AccountId,
    name: String,
    key: SigningKey,
    /// The key from the recovery words.
    words: SigningKey,
    space: SpaceId,
    root: FolderId,
}

/// Where an entry stands after a change of it.
#[derive(Clone, Debug)]
struct Entry {
    id: EntryId,
    folder: FolderId,
    name: String,
    rev: u64,
    child: Option<FolderId>,
    manifest: Option<ManifestId>,
}

impl Entry {
    /// The folder behind this entry.
    fn inside(&self) -> FolderId {
        self.child.expect("a folder")
    }
}

/// A catalog and whoever uses it.
#[derive(Clone)]
struct World {
    kv: MemoryKv,
    /// The time of the next proposal.
    now: u64,
    /// Source of ids.
    next: u64,
    capability: SigningKey,
}

fn key_of(seed: &str) -> SigningKey {
    SigningKey::from_bytes(&Hash::of(seed.as_bytes()).0)
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey(key.verifying_key().to_bytes())
}

fn sign(key: &SigningKey, kind: &str, body: &[u8]) -> Signature {
    Signature(key.sign(&signed::signing_input(kind, body)).to_bytes())
}

fn id16(seed: &str) -> [u8; 16] {
    Hash::of(seed.as_bytes()).0[..16].try_into().expect("16 bytes")
}

fn tag(name: &str) -> NameTag {
    NameTag(id16(&format!("tag {name}")))
}

/// The kind of a refusal; panics where there is none.
fn kind(applied: &Applied) -> Kind {
    match applied {
        Ok(outcome) => panic!("expected a refusal, got {outcome:?}"),
        Err(e) => e.kind,
    }
}

/// All rows with their keys.
fn rows_of(kv: &MemoryKv) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    kv.scan(&[], &[0xff], &mut |k, v| {
        rows.insert(k.to_vec(), v.to_vec());
        ControlFlow::Continue(())
    })
    .expect("memory does not fail");
    rows
}

/// The tables that have rows, and how many: `(table, rows)`.
fn tables(kv: &MemoryKv) -> Vec<(u8, usize)> {
    let mut tables = BTreeMap::new();
    rows_of(kv).keys().for_each(|k| *tables.entry(k[0]).or_insert(0) += 1);
    tables.into_iter().collect()
}

fn invite(name: &str) -> Invite {
    let secret_hash = Hash::of(format!("secret of {name}").as_bytes());
    Invite {
        id: InviteId(id16(&format!("invite {name}"))),
        secret_hash,
        name: name.into(),
        admin: false,
        quota: None,
        expires_ms: START + 7 * DAY,
    }
}

fn genesis(capability: &SigningKey) -> Genesis {
    Genesis {
        cluster: ClusterId([7; 16]),
        opaque_setup: vec![1; 32].into(),
        root_cert: vec![2; 32].into(),
        root_key: vec![3; 32].into(),
        capability_seed: capability.to_bytes(),
        capability_key: public(capability),
        policy: Policy::DEFAULT,
        power: 4,
        coordinator: Coordinator {
            id: CoordinatorId(1),
            address: "127.0.0.1:7000".into(),
            key: Default::default(),
            version: String::new(),
        },
        invite: Invite { admin: true, ..invite("operator") },
    }
}

/// A user's account row and home space, as the client makes them.
fn account_of(user: &User) -> (Account, NewSpace) {
    let body = IdentityBody { account: user.id, name: user.name.clone(), signing: public(&user.key), kem: vec![5; 1216].into() };
    let body = cbor::to_vec(&body);
    let identity = Identity { signature: sign(&user.key, "identity", &body), body: body.into() };
    let fingerprint = identity.fingerprint();
    let set = MemberSetBody {
        space: user.space,
        seq: 1,
        epoch: KeyEpoch(1),
        prev: Hash([0; 32]),
        min_suite: 1,
        members: vec![Member { account: user.id, fingerprint, role: Role::Admin }],
    };
    let set = cbor::to_vec(&set);
    let grant = GrantBody {
        space: user.space,
        epoch: KeyEpoch(1),
        members: Hash::of(&set),
        sender: fingerprint,
        recipient: user.id,
        recipient_fingerprint: fingerprint,
        enc: vec![1; 1120].into(),
        sealed: vec![2; 48].into(),
        head: None,
    };
    let grant = cbor::to_vec(&grant);
    let home = NewSpace {
        genesis: space_genesis(fingerprint).into(),
        root: user.root,
        members: MemberSet { author: user.id, signature: sign(&user.key, "member-set", &set), body: set.into() },
        grant: Grant { author: user.id, signature: sign(&user.key, "grant", &grant), body: grant.into() },
    };
    let account = Account {
        id: user.id,
        name: user.name.clone(),
        identity,
        login: LoginRecord { opaque: vec![1; 64].into(), pw_wrap: vec![2; 105].into(), n: 1 },
        recovery: RecoveryRecord { rec_wrap: vec![3; 105].into(), rec_auth: public(&user.words), n: 1 },
        secrets: vec![4; 200].into(),
        state: StateRecord { seq: 1, sealed: vec![5; 100].into() },
        home: user.space,
        // Not for the account to say: both come from the invite.
        admin: true,
        quota: Some(1),
        disabled: true,
    };
    (account, home)
}

fn space_genesis(fingerprint: Hash) -> Vec<u8> {
    cbor::to_vec(&(fingerprint, minicbor::bytes::ByteArray::from([9u8; 16])))
}

/// Somebody who has no account yet.
fn stranger(name: &str) -> User {
    let (id, key) = (AccountId(id16(&format!("account {name}"))), key_of(name));
    let body = IdentityBody { account: id, name: name.into(), signing: public(&key), kem: vec![5; 1216].into() };
    let hash = Hash::of(&space_genesis(Hash::of(&cbor::to_vec(&body))));
    let space = SpaceId::from_slice(&hash.0[..16]).expect("16 bytes");
    User { id, name: name.into(), key, words: key_of(&format!("words of {name}")), space, root: FolderId(id16(&format!("root of {name}"))) }
}

/// The command by which somebody uses the invite to its name.
fn registration(user: &User) -> Command {
    let (account, home) = account_of(user);
    let invite = invite(&user.name);
    Command::Register { invite: invite.id, secret_hash: invite.secret_hash, account: Box::new(account), home }
}

impl World {
    /// A cluster that is initialised, with its operator registered.
    fn new() -> (Self, User) {
        let mut world = World::empty();
        let init = Command::Init(Box::new(genesis(&world.capability)));
        world.done(None, init);
        let operator = stranger("operator");
        world.done(None, registration(&operator));
        (world, operator)
    }

    /// No command has been applied yet.
    fn empty() -> Self {
        World { kv: MemoryKv::default(), now: START, next: 0, capability: key_of("capability key") }
    }

    /// A cluster with an operator, one more user, and four nodes in a layout of width 4 at epoch 1.
    fn ready() -> (Self, User) {
        let (mut world, operator) = World::new();
        let user = world.user(&operator, "writer");
        world.nodes(&operator, 4);
        assert_eq!(world.propose(None, Command::MakeLayout { width: 4 }), Ok(Outcome::Layout(Epoch(1))));
        (world, user)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Twelve fresh bytes of an id, four zeros.
    fn fresh(&mut self) -> [u8; 16] {
        id16(&format!("fresh {}", self.number()))
    }

    fn request(&mut self) -> RequestId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.number().to_be_bytes());
        RequestId::new(self.now, random)
    }

    /// Applies a command under a fresh request id.
    fn propose(&mut self, account: Option<AccountId>, command: Command) -> Applied {
        let proposal = Proposal { request: self.request(), account, command, time_ms: self.now };
        self.apply(&proposal)
    }

    /// Applies a proposal, and watches over it.
    fn apply(&mut self, proposal: &Proposal) -> Applied {
        let before = self.kv.clone();
        let applied = crate::apply(&mut self.kv, proposal).expect("the store does not fail");
        match &applied {
            Ok(_) => audit::check(&self.kv),
            Err(_) => assert_eq!(without_answers(&before), without_answers(&self.kv), "a refused command left something"),
        }
        applied
    }

    /// Applies a command that succeeds.
    fn done(&mut self, account: Option<AccountId>, command: Command) -> Outcome {
        self.propose(account, command).expect("applied")
    }

    fn ask(&self, query: &Query) -> Answer {
        crate::query(&self.kv, query).expect("answered")
    }

    fn totals(&self) -> Totals {
        match self.ask(&Query::Totals) {
            Answer::Totals(totals) => totals,
            other => panic!("{other:?}"),
        }
    }

    fn rows(&self, query: &Query) -> Rows {
        match self.ask(query) {
            Answer::Rows(rows) => rows,
            other => panic!("{other:?}"),
        }
    }

    /// Names' tags and revisions in a folder, in order of tag.
    fn list(&self, user: &User, folder: FolderId) -> Vec<(NameTag, u64)> {
        let query = Query::List { space: user.space, folder, after: None, limit: 2000, manifests: true, have: Vec::new() };
        self.rows(&query).rows.iter().map(|r| (r.row.tag, r.row.rev)).collect()
    }

    /// Tags with revision 1.. of names, as [`World::list`] gives them.
    fn names(names: &[(&str, u64)]) -> Vec<(NameTag, u64)> {
        let mut tags: Vec<_> = names.iter().map(|(name, rev)| (tag(name), *rev)).collect();
        tags.sort();
        tags
    }

    /// Bytes on disk that a user's home space counts.
    fn used(&self, user: &User) -> u64 {
        match self.ask(&Query::Space { space: user.space, account: user.id }) {
            Answer::Space(Some(info)) => info.used,
            other => panic!("{other:?}"),
        }
    }

    /// Log time goes on and a tick sees it.
    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.done(None, Command::Tick);
    }

    /// Invites and registers somebody.
    fn user(&mut self, admin: &User, name: &str) -> User {
        let expires_ms = self.now + DAY;
        self.done(Some(admin.id), Command::CreateInvite(Invite { expires_ms, ..invite(name) }));
        let user = stranger(name);
        self.done(None, registration(&user));
        user
    }

    fn token(&mut self, expires_ms: u64, replace: Option<NodeId>) -> Token {
        Token { id: TokenId(self.fresh()), secret: [6; 32], role: ServerRole::Node, expires_ms, replace, used: false }
    }

    /// So many nodes join, each with one device of 1 TB.
    fn nodes(&mut self, admin: &User, count: usize) -> Vec<NodeId> {
        (0..count).map(|_| self.node(admin, None, &[1_000_000_000_000])).collect()
    }

    /// A node joins, with devices of these capacities.
    fn node(&mut self, admin: &User, replace: Option<NodeId>, capacities: &[u64]) -> NodeId {
        let token = self.token(self.now + HOUR, replace);
        self.done(Some(admin.id), Command::CreateToken(token.clone()));
        let join = Command::ConsumeToken { token: token.id, role: ServerRole::Node, key: Hash([8; 32]) };
        let Outcome::Joined { node: Some(node), coordinator: None } = self.done(None, join) else { panic!("a node joins") };
        let devices = capacities.iter().zip(0..).map(|(c, i)| device(node, i, *c)).collect();
        self.done(None, update(node, devices));
        node
    }

    /// An object issued now.
    fn object(&mut self) -> ObjectId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.number().to_be_bytes());
        ObjectId::new(self.now, random)
    }

    /// The coordinators' proof that objects were issued to a user for its home space.
    fn grant(&self, user: &User, objects: &[ObjectId]) -> UploadGrant {
        let body = cbor::to_vec(&UploadGrantBody { objects: objects.to_vec(), account: user.id, space: user.space });
        UploadGrant { signature: sign(&self.capability, "upload-grant", &body), body: body.into() }
    }

    /// A manifest of objects, sealed in 100 bytes.
    fn manifest(&mut self, objects: Vec<ObjectUse>) -> ManifestRow {
        ManifestRow { id: ManifestId(self.fresh()), sealed: vec![0xaa; 100].into(), objects }
    }

    fn row(user: &User, entry: &Entry, sealed: usize) -> Row {
        Row {
            space: user.space,
            folder: entry.folder,
            entry: entry.id,
            rev: entry.rev,
            epoch: KeyEpoch(1),
            tag: tag(&entry.name),
            sealed: vec![0xee; sealed].into(),
        }
    }

    /// A new file in a folder, sealed in so many bytes.
    fn new_file(&mut self, user: &User, folder: FolderId, name: &str, sealed: usize) -> (Change, Entry) {
        let entry = Entry { id: EntryId(self.fresh()), folder, name: name.into(), rev: 1, child: None, manifest: None };
        let row = World::row(user, &entry, sealed);
        (Change { row, expect: Expect::Absent, child: None, manifest: None, new_manifest: None, purge: false }, entry)
    }

    /// A new folder in a folder, sealed in 128 bytes.
    fn new_folder(&mut self, user: &User, folder: FolderId, name: &str) -> (Change, Entry) {
        let (mut change, mut entry) = self.new_file(user, folder, name, 128);
        let child = Some(FolderId(self.fresh()));
        (change.child, entry.child) = (child, child);
        (change, entry)
    }

    /// A new file with a manifest.
    fn new_large(&mut self, user: &User, folder: FolderId, name: &str, manifest: ManifestRow) -> (Change, Entry) {
        let (mut change, mut entry) = self.new_file(user, folder, name, 128);
        (change.manifest, entry.manifest) = (Some(manifest.id), Some(manifest.id));
        change.new_manifest = Some(manifest);
        (change, entry)
    }

    /// An entry's next revision, at the same place.
    fn overwrite(user: &User, old: &Entry, sealed: usize) -> (Change, Entry) {
        World::moved(user, old, old.folder, &old.name.clone(), sealed)
    }

    /// An entry's next revision, at another place. It keeps its manifest.
    fn moved(user: &User, old: &Entry, folder: FolderId, name: &str, sealed: usize) -> (Change, Entry) {
        let entry = Entry { folder, name: name.into(), rev: old.rev + 1, ..old.clone() };
        let expect = Expect::At { folder: old.folder, tag: tag(&old.name), rev: old.rev };
        let row = World::row(user, &entry, sealed);
        (Change { row, expect, child: old.child, manifest: old.manifest, new_manifest: None, purge: false }, entry)
    }

    /// An entry's removal to the trash.
    fn removal(user: &User, old: &Entry) -> Change {
        let (change, _) = World::overwrite(user, old, 0);
        Change { manifest: None, ..change }
    }

    /// An entry's removal for real.
    fn purge(user: &User, old: &Entry) -> Change {
        Change { purge: true, ..World::removal(user, old) }
    }

    /// A user's signature over changes of its home space.
    fn sign(&mut self, user: &User, changes: &[Change]) -> CommitRecord {
        let body = CommitBody {
            space: user.space,
            epoch: KeyEpoch(1),
            commit: CommitId(self.fresh()),
            rows: changes.iter().map(|c| c.row.hash()).collect(),
        };
        signed_commit(user, &body)
    }

    /// Signs and proposes changes, with the upload grants that they need.
    fn commit(&mut self, user: &User, changes: Vec<Change>) -> Applied {
        let objects: Vec<ObjectId> = changes.iter().flat_map(|c| &c.new_manifest).flat_map(|m| &m.objects).map(|o| o.object).collect();
        let grants = if objects.is_empty() { Vec::new() } else { vec![self.grant(user, &objects)] };
        let record = self.sign(user, &changes);
        self.propose(Some(user.id), Command::Commit { record, changes, grants })
    }

    /// Commits a new file, sealed in so many bytes.
    fn put(&mut self, user: &User, folder: FolderId, name: &str, sealed: usize) -> Entry {
        let (change, entry) = self.new_file(user, folder, name, sealed);
        self.commit(user, vec![change]).expect("created");
        entry
    }

    /// Commits a new folder.
    fn mkdir(&mut self, user: &User, folder: FolderId, name: &str) -> Entry {
        let (change, entry) = self.new_folder(user, folder, name);
        self.commit(user, vec![change]).expect("created");
        entry
    }

    /// Commits a new file with one new object of 3 chunks, 9,000,001 sealed bytes, on 2+2.
    fn put_large(&mut self, user: &User, folder: FolderId, name: &str) -> (Entry, ObjectId) {
        let object = self.object();
        let manifest = self.manifest(vec![used(object)]);
        let (change, entry) = self.new_large(user, folder, name, manifest);
        self.commit(user, vec![change]).expect("created");
        (entry, object)
    }
}

/// An object of 3 chunks, 9,000,001 sealed bytes, on 2+2: 18,000,004 bytes on disk.
fn used(object: ObjectId) -> ObjectUse {
    ObjectUse { object, policy: Policy::DEFAULT, chunks: vec![(0, 3)], layout: Epoch(1), bytes: 9_000_001, partial: vec![], generation: 0 }
}

fn signed_commit(user: &User, body: &CommitBody) -> CommitRecord {
    let body = cbor::to_vec(body);
    CommitRecord { author: user.id, signature: sign(&user.key, "commit", &body), body: body.into() }
}

fn device(node: NodeId, index: u8, capacity: u64) -> Device {
    let id = DeviceId(id16(&format!("device {index} of {node}")));
    Device { id, capacity, used: 0, problem: None, shards: 0 }
}

fn update(node: NodeId, devices: Vec<Device>) -> Command {
    Command::UpdateNode { node, address: format!("192.0.2.{node}:7001"), zone: String::new(), devices, version: "0.1.0".into() }
}

/// The rows without the answers to requests and log time.
fn without_answers(kv: &MemoryKv) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = rows_of(kv);
    rows.retain(|key, _| key[0] != 0x03);
    if let Some(counters) = rows.get_mut(&crate::key::counters()) {
        let decoded: crate::row::Counters = cbor::from_slice(counters).expect("counters");
        *counters = cbor::to_vec(&crate::row::Counters { time_ms: 0, ..decoded });
    } else {
        rows.insert(crate::key::counters(), cbor::to_vec(&crate::row::Counters::default()));
    }
    rows
}
