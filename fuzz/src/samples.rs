//! One valid value of each record, encoded: the mutator's raw material.

use minicbor::Encode;
use minicbor::bytes::ByteVec;
use model::account::{
    Account, Grant, GrantBody, Identity, IdentityBody, Invite, LoginRecord, Member, MemberSet, MemberSetBody, NewSpace, RecoveryRecord,
    Role, SpaceInfo, StateRecord,
};
use model::cluster::{
    Capability, CapabilityBody, CatalogLife, ClusterView, Coordinator, Device, Event, FeedItem, Generations, Node, NodeState, Operation,
    ServerRole, Token, UploadGrant, UploadGrantBody,
};
use model::command::{Answer, Applied, Command, Genesis, Outcome, Proposal, Query, Rows, Totals};
use model::layout::{DeviceInfo, LayoutChange, LayoutPatch};
use model::link::{Link, LinkTarget};
use model::message::Envelope;
use model::tree::{Change, CommitBody, CommitRecord, EntryRow, Expect, ManifestRow, ObjectUse, Row};
use model::{
    AccountId, ChunkRef, ClusterId, CommitId, CoordinatorId, Descriptor, DeviceId, EntryId, Epoch, Error, FolderId, Hash, InviteId,
    KeyEpoch, Layout, LinkId, ManifestId, NameTag, NodeId, ObjectId, Policy, PublicKey, RequestId, ShardRef, Signature, SpaceId, TokenId,
    cbor,
};
use rand_chacha::rand_core::SeedableRng;
use seal::message::{Attachment, MessageBody, Said};
use wire::{Authed, SessionToken, Version};

/// The chunk of all samples.
pub const CHUNK: ChunkRef = ChunkRef { object: ObjectId([7; 16]), number: 3 };

const ACCOUNT: AccountId = AccountId([2; 16]);
const SPACE: SpaceId = SpaceId([3; 16]);
const FOLDER: FolderId = FolderId([4; 16]);
const ENTRY: EntryId = EntryId([5; 16]);
const COMMIT: CommitId = CommitId([6; 16]);
const OBJECT: ObjectId = ObjectId([7; 16]);
const MANIFEST: ManifestId = ManifestId([8; 16]);
const TAG: NameTag = NameTag([9; 16]);
const HASH: Hash = Hash([10; 32]);
const KEY: PublicKey = PublicKey([11; 32]);
const SIGNATURE: Signature = Signature([12; 64]);
const NODE: NodeId = NodeId(1);

fn opaque(len: usize) -> ByteVec {
    vec![0x5a; len].into()
}

fn all<T: Encode<()>>(values: &[T]) -> Vec<Vec<u8>> {
    values.iter().map(cbor::to_vec).collect()
}

fn descriptor(policy: Policy) -> Descriptor {
    let shard_hashes = vec![HASH; policy.width() as usize];
    Descriptor { version: 1, chunk: CHUNK, generation: 0, policy, sealed_len: 20_000, sealed_hash: HASH, shard_hashes }
}

pub fn descriptors() -> Vec<Vec<u8>> {
    all(&[descriptor(Policy { k: 1, m: 0 }), descriptor(Policy::DEFAULT), descriptor(Policy { k: 8, m: 3 })])
}

/// See `targets::erasure` for the form.
pub fn shard_sets() -> Vec<Vec<u8>> {
    let mut sets = vec![vec![2, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8], vec![1, 0, 0, 9]];
    for (k, m) in [(1, 1), (2, 2), (4, 2)] {
        let coded = erasure::Coder::new(Policy { k, m }).and_then(|c| c.encode(CHUNK, 0, vec![0xa5; 40]));
        let Ok(coded) = coded else { continue };
        let mut descriptor = coded.descriptor.to_bytes();
        descriptor.resize(descriptor.len().next_multiple_of(8), b' ');
        let mut set = vec![k, m, (descriptor.len() / 8) as u8];
        set.extend(descriptor);
        set.extend(coded.shards.concat());
        sets.push(set);
    }
    sets
}

fn layout() -> Layout {
    let device = |i: u8| DeviceInfo { device: DeviceId([i; 16]), node: NodeId(i.into()), zone: format!("z{i}"), capacity: 1 << 40 };
    let slots: Vec<u8> = [0u16, 1, 1, 0, 0, 1, Layout::VACANT, 1].iter().flat_map(|s| s.to_be_bytes()).collect();
    Layout { epoch: Epoch(3), power: 2, width: 2, devices: vec![device(1), device(2)], slots: slots.into() }
}

pub fn layouts() -> Vec<Vec<u8>> {
    all(&[layout()])
}

fn error() -> Error {
    Error::unavailable("node-1 does not answer").on(NODE).hint("shardkeep cluster status")
}

pub fn errors() -> Vec<Vec<u8>> {
    all(&[error(), Error::corrupt("x")])
}

fn identity() -> Identity {
    Identity { body: identities().concat().into(), signature: SIGNATURE }
}

pub fn identities() -> Vec<Vec<u8>> {
    all(&[IdentityBody { account: ACCOUNT, name: "alice".into(), signing: KEY, kem: opaque(1216) }])
}

fn login() -> LoginRecord {
    LoginRecord { opaque: opaque(192), pw_wrap: opaque(104), n: 1 }
}

fn account() -> Account {
    Account {
        id: ACCOUNT,
        name: "alice".into(),
        identity: identity(),
        login: login(),
        recovery: RecoveryRecord { rec_wrap: opaque(104), rec_auth: KEY, n: 1 },
        secrets: opaque(200),
        state: StateRecord { seq: 1, sealed: opaque(100) },
        home: SPACE,
        admin: true,
        quota: Some(1 << 40),
        disabled: false,
    }
}

pub fn accounts() -> Vec<Vec<u8>> {
    all(&[account()])
}

pub fn member_sets() -> Vec<Vec<u8>> {
    let members = vec![Member { account: ACCOUNT, fingerprint: HASH, role: Role::Admin }];
    all(&[MemberSetBody { space: SPACE, seq: 1, epoch: KeyEpoch(1), prev: Hash([0; 32]), min_suite: 1, members }])
}

pub fn grants() -> Vec<Vec<u8>> {
    all(&[GrantBody {
        space: SPACE,
        epoch: KeyEpoch(1),
        members: HASH,
        sender: HASH,
        recipient: ACCOUNT,
        recipient_fingerprint: HASH,
        enc: opaque(1120),
        sealed: opaque(48),
        head: None,
    }])
}

fn new_space() -> NewSpace {
    NewSpace {
        genesis: cbor::to_vec(&(HASH, SPACE)).into(),
        root: FOLDER,
        members: MemberSet { body: member_sets().concat().into(), author: ACCOUNT, signature: SIGNATURE },
        grant: Grant { body: grants().concat().into(), author: ACCOUNT, signature: SIGNATURE },
    }
}

fn space() -> SpaceInfo {
    let NewSpace { genesis, root, members, grant } = new_space();
    SpaceInfo {
        space: SPACE,
        genesis,
        root,
        member_sets: vec![members],
        grants: vec![grant],
        identities: vec![identity()],
        policy: Some(Policy::DEFAULT),
        used: 1 << 33,
        owner: Some(ACCOUNT),
        parent: None,
        label: None,
        left: vec![ACCOUNT],
        since: vec![(ACCOUNT, 7)],
    }
}

pub fn spaces() -> Vec<Vec<u8>> {
    all(&[space()])
}

fn invite() -> Invite {
    Invite { id: InviteId([1; 16]), secret_hash: HASH, name: "bob".into(), admin: false, quota: None, expires_ms: 1_700_000_000_000 }
}

pub fn invites() -> Vec<Vec<u8>> {
    all(&[invite()])
}

pub fn envelopes() -> Vec<Vec<u8>> {
    all(&[Envelope { sender: HASH, recipient: HASH, seq: 2, prev: HASH, enc: opaque(1120), sealed: opaque(272) }])
}

pub fn said() -> Vec<Vec<u8>> {
    let text = |attachment| MessageBody::Text { text: "hello".into(), attachment };
    let link = Attachment::Link { name: "a".into(), size: 7, link: "https://x/s/1#1".into() };
    let bodies = [
        text(None),
        text(Some(Attachment::Inline { name: "a".into(), bytes: opaque(5) })),
        text(Some(link)),
        MessageBody::ShareInvite { space: SPACE, name: "Trip".into(), role: Role::Write },
    ];
    all(&bodies.map(|body| Said { time_ms: 7, body }))
}

pub fn links() -> Vec<Vec<u8>> {
    let link = |target| Link {
        id: LinkId([1; 16]),
        owner: ACCOUNT,
        space: SPACE,
        target,
        auth_hash: HASH,
        sealed: opaque(200),
        created_ms: 1,
        expires_ms: Some(9),
        left: None,
        opened: 3,
    };
    all(&[LinkTarget::Record, LinkTarget::File(MANIFEST), LinkTarget::Folder(FOLDER)].map(link))
}

pub fn link_texts() -> Vec<Vec<u8>> {
    let coordinators = vec!["a.example:7000".into(), "[::1]:7001".into()];
    let link = transport::LinkText { id: LinkId([1; 16]), secret: [2; 32], root: HASH, password: true, coordinators };
    vec![link.to_text().as_bytes().to_vec()]
}

fn token() -> Token {
    Token { id: TokenId([1; 16]), secret: [2; 32], role: ServerRole::Node, expires_ms: 1, replace: Some(NODE), used: false }
}

pub fn tokens() -> Vec<Vec<u8>> {
    all(&[token()])
}

fn capability() -> Capability {
    Capability { body: capabilities().concat().into(), signature: SIGNATURE }
}

pub fn capabilities() -> Vec<Vec<u8>> {
    all(&[CapabilityBody {
        audience: NODE,
        account: ACCOUNT,
        operations: vec![Operation::Put, Operation::Get],
        objects: vec![OBJECT; 3],
        byte_limit: 1 << 32,
        holder: KEY,
        not_before_ms: 1,
        expires_ms: 600_001,
    }])
}

pub fn upload_grants() -> Vec<Vec<u8>> {
    all(&[UploadGrantBody { objects: vec![OBJECT; 3], account: ACCOUNT, space: SPACE }])
}

fn node() -> Node {
    Node {
        id: NODE,
        name: "node-1".into(),
        address: "127.0.0.1:10001".into(),
        zone: String::new(),
        devices: vec![Device { id: DeviceId([1; 16]), capacity: 1 << 40, used: 5, problem: Some("full".into()), shards: 7 }],
        state: NodeState::Up,
        key: HASH,
        version: "0.1.0".into(),
        draining: false,
        leaving: false,
    }
}

fn coordinator() -> Coordinator {
    Coordinator { id: CoordinatorId(1), address: "127.0.0.1:10000".into(), key: Default::default(), version: String::new() }
}

fn cluster() -> ClusterView {
    ClusterView {
        nodes: vec![node(); 2],
        coordinators: vec![coordinator()],
        leader: Some(CoordinatorId(1)),
        policy: Policy::DEFAULT,
        layouts: vec![(4, Epoch(1))],
        capability_key: KEY,
        time_ms: 1_700_000_000_000,
        power: 16,
        revision: 3,
        changes: vec![layout_change()],
        life: CatalogLife { incarnation: [7; 16], frozen: true, thaws: 1, scrub_ms: 2, backup_ms: 3, snapshot_ms: 4 },
        recoded_ms: 0,
    }
}

fn layout_patch() -> LayoutPatch {
    let slots = [0u8, 0, 0, 1, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
    LayoutPatch { from: Epoch(2), to: Epoch(3), devices: layout().devices, slots: slots.to_vec().into(), hash: HASH }
}

fn layout_change() -> LayoutChange {
    LayoutChange {
        width: 4,
        to: Epoch(3),
        from: vec![Epoch(1), Epoch(2)],
        began_ms: 1_700_000_000_000,
        stopped: false,
        moved: 20,
        minimum: 19,
        why: "add node-5".into(),
    }
}

pub fn clusters() -> Vec<Vec<u8>> {
    all(&[cluster()])
}

fn event() -> Event {
    Event { seq: 1, time_ms: 2, what: "node-joined".into(), node: Some(NODE), detail: "node-1".into(), prev: Hash([0; 32]) }
}

pub fn events() -> Vec<Vec<u8>> {
    all(&[event()])
}

fn object_use() -> ObjectUse {
    ObjectUse {
        object: OBJECT,
        policy: Policy::DEFAULT,
        chunks: vec![(0, 5), (7, 9)],
        layout: Epoch(1),
        bytes: 20_000_000,
        partial: vec![3],
        generation: 0,
    }
}

pub fn feed() -> Vec<Vec<u8>> {
    all(&[FeedItem::Live(object_use(), 4), FeedItem::Dead(OBJECT)])
}

fn row() -> Row {
    Row { space: SPACE, folder: FOLDER, entry: ENTRY, rev: 2, epoch: KeyEpoch(1), tag: TAG, sealed: opaque(200) }
}

pub fn rows() -> Vec<Vec<u8>> {
    all(&[row()])
}

fn entry_row() -> EntryRow {
    EntryRow { row: row(), commit: COMMIT, child: Some(FOLDER), manifest: Some(MANIFEST), time_ms: 3 }
}

pub fn entry_rows() -> Vec<Vec<u8>> {
    all(&[entry_row()])
}

pub fn commits() -> Vec<Vec<u8>> {
    all(&[CommitBody { space: SPACE, epoch: KeyEpoch(1), commit: COMMIT, rows: vec![HASH; 2] }])
}

fn commit_record() -> CommitRecord {
    CommitRecord { author: ACCOUNT, body: commits().concat().into(), signature: SIGNATURE }
}

fn manifest() -> ManifestRow {
    ManifestRow { id: MANIFEST, sealed: opaque(300), objects: vec![object_use()] }
}

pub fn manifests() -> Vec<Vec<u8>> {
    all(&[manifest()])
}

fn change() -> Change {
    let expect = Expect::At { folder: FOLDER, tag: TAG, rev: 1 };
    Change { row: row(), expect, child: None, manifest: Some(MANIFEST), new_manifest: Some(manifest()), purge: false }
}

pub fn changes() -> Vec<Vec<u8>> {
    let older = Change { expect: Expect::Older, manifest: None, new_manifest: None, purge: true, ..change() };
    all(&[change(), Change { expect: Expect::Absent, new_manifest: None, ..change() }, older])
}

fn genesis() -> Genesis {
    Genesis {
        cluster: ClusterId([1; 16]),
        opaque_setup: opaque(128),
        root_cert: opaque(400),
        root_key: opaque(100),
        capability_seed: [4; 32],
        capability_key: KEY,
        policy: Policy::DEFAULT,
        power: 16,
        coordinator: coordinator(),
        invite: invite(),
    }
}

pub fn geneses() -> Vec<Vec<u8>> {
    all(&[genesis()])
}

fn commands() -> Vec<Command> {
    let grant = UploadGrant { body: upload_grants().concat().into(), signature: SIGNATURE };
    vec![
        Command::Init(Box::new(genesis())),
        Command::CreateInvite(invite()),
        Command::Register { invite: InviteId([1; 16]), secret_hash: HASH, account: Box::new(account()), home: new_space() },
        Command::ReplaceLogin { account: ACCOUNT, expect_n: 1, login: login(), recovery: None, proof: Some((opaque(90), SIGNATURE)) },
        Command::PutState { account: ACCOUNT, state: StateRecord { seq: 2, sealed: opaque(9) } },
        Command::OpenSession { token_hash: HASH, account: ACCOUNT, expires_ms: 1 },
        Command::CreateToken(token()),
        Command::ConsumeToken { token: TokenId([1; 16]), role: ServerRole::Coordinator, key: HASH },
        Command::UpdateNode { node: NODE, address: "[::1]:1".into(), zone: "a".into(), devices: node().devices, version: "1".into() },
        Command::SetNodeState { node: NODE, state: NodeState::Down },
        Command::MakeLayout { width: 4 },
        Command::Commit { record: commit_record(), changes: vec![change(); 2], grants: vec![grant] },
        Command::Report { what: "shard-corrupt".into(), node: Some(NODE), detail: "x".into() },
        Command::Tick,
        Command::SetSpacePolicy { space: SPACE, policy: Policy::DEFAULT },
        Command::Recoded { object: OBJECT, from: 1, policy: Policy::DEFAULT, layout: Epoch(2), to: 3 },
    ]
}

pub fn proposals() -> Vec<Vec<u8>> {
    let request = RequestId([1; 16]);
    let proposal = |command| Proposal { request, account: Some(ACCOUNT), command, time_ms: 5 };
    all(&commands().into_iter().map(proposal).collect::<Vec<_>>())
}

pub fn applied() -> Vec<Vec<u8>> {
    let good: [Applied; 3] = [
        Ok(Outcome::Done),
        Ok(Outcome::Joined { node: Some(NODE), coordinator: None }),
        Ok(Outcome::Committed { revision: 1, time_ms: 2 }),
    ];
    [all(&good), all::<Applied>(&[Err(error())])].concat()
}

fn query_values() -> Vec<Query> {
    vec![
        Query::AccountByName("alice".into()),
        Query::Session(HASH),
        Query::Space { space: SPACE, account: ACCOUNT },
        Query::Lookup { space: SPACE, folder: FOLDER, tags: vec![TAG; 3], manifests: true },
        Query::List { space: SPACE, folder: FOLDER, after: Some(TAG), limit: 100, manifests: false, have: vec![COMMIT] },
        Query::Manifests { space: SPACE, ids: vec![MANIFEST] },
        Query::Cluster,
        Query::Layout(4),
        Query::LayoutAt { width: 4, epoch: Epoch(3), have: Some(Epoch(2)) },
        Query::Feed { after: 1, limit: 2 },
        Query::Objects(vec![OBJECT]),
        Query::Walk { space: SPACE, steps: vec![(FOLDER, TAG)], manifests: true },
        Query::Recode { after: Some(OBJECT), limit: 5 },
        Query::Generations(vec![OBJECT; 2]),
        Query::Coding(SPACE),
    ]
}

pub fn queries() -> Vec<Vec<u8>> {
    all(&query_values())
}

fn row_set() -> Rows {
    Rows {
        rows: vec![entry_row(); 2],
        commits: vec![(COMMIT, commit_record())],
        manifests: vec![manifest()],
        more: true,
        revision: 9,
        members: 3,
        root: Some(FOLDER),
    }
}

pub fn row_sets() -> Vec<Vec<u8>> {
    all(&[row_set()])
}

pub fn answers() -> Vec<Vec<u8>> {
    all(&[
        Answer::Account(Some(Box::new(account()))),
        Answer::Invite(None),
        Answer::Space(Some(Box::new(space()))),
        Answer::Rows(row_set()),
        Answer::Cluster(Box::new(cluster())),
        Answer::Layout(Some(layout())),
        Answer::LayoutPatch(Box::new(layout_patch())),
        Answer::Events(vec![event()]),
        Answer::Feed(vec![(1, FeedItem::Dead(OBJECT))], true),
        Answer::Totals(Totals::default()),
        Answer::Nodes(vec![node()]),
        Answer::Recode(vec![(object_use(), 2, Policy::DEFAULT)], true, Some(OBJECT)),
        Answer::Generations(vec![None, Some(Generations { current: 1, next: Some(3), given: 3, since_ms: 5 })]),
    ])
}

/// The context of [`sealed`].
pub const CONTEXT: &[u8] = b"fuzz";

/// The key of [`sealed`].
pub fn seal_key() -> seal::keys::SealKey {
    seal::keys::SealKey::from_bytes(&[1; 32])
}

/// Empty, short, and of more than one cell.
pub fn sealed() -> Vec<Vec<u8>> {
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
    [0, 100, 17_000].iter().map(|n| seal::primitive::seal(&seal_key(), CONTEXT, &vec![3; *n], &mut rng)).collect()
}

pub fn recovery_words() -> Vec<Vec<u8>> {
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
    vec![seal::recovery::RecoveryWords::generate(&mut rng).words().as_bytes().to_vec()]
}

/// Messages of many exchanges: each decoder gets its own among others' (which it must refuse).
pub fn messages() -> Vec<Vec<u8>> {
    let session = SessionToken([9; 32]);
    let shard = ShardRef { chunk: CHUNK, generation: 0, index: 1 };
    let device = DeviceId([1; 16]);
    let put = wire::node::PutShardRequest {
        capability: Some(capability()),
        shard,
        descriptor: descriptor(Policy::DEFAULT).to_bytes().into(),
        epoch: Epoch(1),
        device,
    };
    let get = wire::node::GetShardRequest { capability: None, shard, range: Some((5, 10)), device };
    let head = wire::node::HeadShardsRequest { capability: Some(capability()), shards: vec![shard; 3], deep: true };
    let states = vec![wire::node::ShardState::Held(HASH, device), wire::node::ShardState::Missing];
    let prove = wire::node::ProveRequest { protocol: Version { major: 1, minor: 0 }, holder: KEY, signature: SIGNATURE };
    let authed: Vec<Authed<Query>> = query_values().into_iter().map(|request| Authed { session, request }).collect();
    let mut messages = all(&authed);
    messages.extend([
        cbor::to_vec(&Version { major: 1, minor: 0 }),
        cbor::to_vec(&(String::from("alice"), opaque(96))),
        cbor::to_vec(&(ByteVec::from(vec![1; 16]), opaque(64))),
        cbor::to_vec(&(session, (account(), login(), opaque(90), SIGNATURE))),
        cbor::to_vec(&(session, 1_700_000_000_000u64)),
        cbor::to_vec(&put),
        cbor::to_vec(&get),
        cbor::to_vec(&head),
        cbor::to_vec(&states),
        cbor::to_vec(&prove),
    ]);
    messages.extend(answers());
    messages.extend(applied());
    messages
}

/// A record's head with its meta, a footer's body, a segment's header, a trailer.
pub fn journal_records() -> Vec<Vec<u8>> {
    use journal::format::{Head, Listed, segment_header, trailer};
    let head = Head { kind: 1, meta_len: 5, body_len: 100, in_batch: 0, segment: 1, sequence: 9, body_crc: 7 };
    let mut record = Vec::new();
    head.write(&[7; 16], b"hello", &mut record);
    let mut footer = Vec::new();
    Listed { offset: 64, kind: 1, body_len: 100, meta: b"hello".to_vec() }.write(&mut footer);
    vec![record, footer, segment_header(&[7; 16], 1, 1).to_vec(), trailer(4096).to_vec()]
}

/// Texts of join tokens.
pub fn join_tokens() -> Vec<Vec<u8>> {
    vec![b"sk-join-aaaa".to_vec(), b"sk-invite-aaaa".to_vec()]
}
