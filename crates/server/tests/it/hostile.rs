//! Clients that keep to no rule call the wire protocol directly: what a space's outsiders, readers and former
//! members are refused by the servers. (What they could not open if they were not: the tests of `seal`.)

use crate::support::{Cluster, SOON, Stored, User, capability, eventually, put_of, shifted};
use bytes::Bytes;
use erasure::Coder;
use model::account::{Identity, Role};
use model::command::{Answer, Applied, Command, Query, Rekey};
use model::tree::{Change, Expect};
use model::{
    AccountId, ChunkRef, EntryId, Error, FolderId, Kind, ManifestId, NameTag, ObjectId, Policy, RequestId, Result, ShardRef, SpaceId,
};
use seal::sharing::{Label, create_named};
use seal::space::OpenSpace;
use seal::tree::{Attributes, Content, Entry, Name, new_folder};
use std::sync::atomic::Ordering;
use wire::coordinator::*;
use wire::node::{PutShard, PutShardRequest};
use wire::watch::{WatchRequest, WatchSpace};

impl User {
    async fn proposes(&self, command: Command) -> Applied {
        let request = RequestId::new(self.env.now_ms(), self.env.random());
        self.rpc::<Propose, _>(ProposeRequest { request, command }).await?
    }

    async fn space(&self, space: SpaceId) -> Result<OpenSpace> {
        match self.ask(Query::Space { space, account: self.account.id }).await? {
            Answer::Space(Some(info)) => OpenSpace::open(&info, &self.unlocked, None),
            _ => Err(Error::denied("no member")),
        }
    }

    async fn asks_to_upload(&self, space: SpaceId, renew: Option<&UploadResponse>) -> Result<UploadResponse> {
        let renew = renew.map(|r| r.grant.clone());
        let objects = if renew.is_some() { 0 } else { 1 };
        self.rpc::<Upload, _>(UploadRequest { space, objects, holder: self.holder(), byte_limit: 1 << 30, renew }).await
    }

    /// Signs and proposes a file in a space's root, whatever the rules say.
    async fn writes(&self, space: &OpenSpace, name: &str) -> Applied {
        let mut rng = self.env.rand();
        let content = Content::Inline(b"content".to_vec());
        let entry = Entry { name: Name::new(name).unwrap(), attributes: Attributes::default(), size: 7, content };
        let row = space.root()?.seal(EntryId(self.env.random()), 1, &entry, &mut rng)?;
        let body = model::tree::CommitBody {
            space: space.id(),
            epoch: space.epoch(),
            commit: model::CommitId(self.env.random()),
            rows: vec![row.hash()],
        };
        let body = model::cbor::to_vec(&body);
        let record = model::tree::CommitRecord { author: self.account.id, signature: self.signs("commit", &body), body: body.into() };
        let change = Change { row, expect: Expect::Absent, child: None, manifest: None, new_manifest: None, purge: false };
        self.proposes(Command::Commit { record, changes: vec![change], grants: vec![] }).await
    }

    /// Signs anything: the key is the account's own.
    fn signs(&self, kind: &str, body: &[u8]) -> model::Signature {
        let session = self.unlocked.export_session();
        let mut d = minicbor::Decoder::new(&session);
        d.array().unwrap();
        for _ in 0..5 {
            d.skip().unwrap();
        }
        let seed: minicbor::bytes::ByteArray<32> = d.decode().unwrap();
        seal::keys::SigningKey::from_seed(&seed).sign(kind, body)
    }

    /// Makes an empty folder of the home, and shares it.
    async fn shares(&self, with: &[(&User, Role)]) -> (SpaceId, FolderId) {
        let mut rng = self.env.rand();
        let home = self.space(self.account.home).await.unwrap();
        let root = home.root().unwrap();
        let (folder, key) = new_folder(&mut rng);
        let id = EntryId(self.env.random());
        let name = Name::new("Work").unwrap();
        let entry = |content| Entry { name: name.clone(), attributes: Attributes::default(), size: 0, content };
        let row = root.seal(id, 1, &entry(Content::Folder { id: folder, key, epoch: home.epoch() }), &mut rng).unwrap();
        let (tag, change) = (row.tag, |row, expect, child| Change { row, expect, child, manifest: None, new_manifest: None, purge: false });
        let (_, record) = home.sign_commit(&self.unlocked, [&row], &mut rng).unwrap();
        let made = change(row, Expect::Absent, Some(folder));
        self.proposes(Command::Commit { record, changes: vec![made], grants: vec![] }).await.unwrap();
        let label = Label { name: name.clone(), direct: vec![] };
        let (new, sealed) = create_named(&self.unlocked, &label, &mut rng).unwrap();
        let space = new.id();
        let rekey = Rekey { source: home.id(), folder, target: space, root: new.root, new: Some((new, sealed)) };
        self.proposes(Command::BeginRekey(Box::new(rekey))).await.unwrap();
        let row = root.seal(id, 2, &entry(Content::Space(space)), &mut rng).unwrap();
        let (_, record) = home.sign_commit(&self.unlocked, [&row], &mut rng).unwrap();
        let door = change(row, Expect::At { folder: root.folder, tag, rev: 1 }, None);
        self.proposes(Command::SwapRekey { target: space, door: Some((record, Box::new(door))) }).await.unwrap();
        self.lets_in(space, with).await;
        (space, self.space(space).await.unwrap().root_id())
    }

    /// The next member set: these and the owner.
    async fn lets_in(&self, space: SpaceId, with: &[(&User, Role)]) {
        let open = self.space(space).await.unwrap();
        let member =
            |user: &User, role| model::account::Member { account: user.account.id, fingerprint: user.unlocked.fingerprint(), role };
        let members = with.iter().map(|(user, role)| member(user, *role)).chain([member(self, Role::Admin)]).collect();
        let identities: Vec<Identity> = with.iter().map(|(u, _)| u).chain([&self]).map(|u| u.unlocked.identity().clone()).collect();
        let label = Label { name: Name::new("Work").unwrap(), direct: vec![] };
        let next = open.next_set(&self.unlocked, members, &identities, &label, &mut self.env.rand()).unwrap();
        let command = Command::ChangeMembers { space, members: next.members, grants: next.grants, label: Some(next.label) };
        self.proposes(command).await.unwrap();
    }
}

#[track_caller]
fn denied<T>(what: &str, result: Result<T>) {
    assert_eq!(result.map(|_| ()).expect_err(what).kind, Kind::Denied, "{what}");
}

/// Every question that names a space.
fn questions(space: SpaceId, folder: FolderId, account: AccountId) -> Vec<Query> {
    let (tag, entry) = (NameTag([1; 16]), EntryId([2; 16]));
    vec![
        Query::Lookup { space, folder, tags: vec![tag], manifests: true },
        Query::List { space, folder, after: None, limit: 100, manifests: true, have: Vec::new() },
        Query::Walk { space, steps: vec![(folder, tag)], manifests: true },
        Query::Manifests { space, ids: vec![ManifestId([3; 16])] },
        Query::Versions { space, entry },
        Query::Older { space, after: None, limit: 100 },
        Query::History { space, entry, after: 0, limit: 100 },
        Query::Trash { space, after: None, limit: 100 },
        Query::Doors { space, folders: vec![folder] },
        Query::Changes { space, after: 0 },
        Query::Kept { space, after: None, limit: 100 },
        // What nobody is told, member or not.
        Query::Role { space, account },
        Query::Used(account),
        Query::Coding(space),
        Query::Genesis,
    ]
}

const ALWAYS_DENIED: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_28_outsiders_readers_and_former_members_are_refused_by_the_servers() {
    let (env, shift) = shifted();
    let (cluster, admin) = Cluster::whole_in(env).await;
    let mut users = Vec::new();
    for name in ["ann", "bea", "cem", "eve"] {
        users.push(cluster.register(&admin.invite(name).await).await.unwrap());
    }
    let [ann, bea, cem, eve] = users.as_slice() else { unreachable!() };
    let (space, root) = ann.shares(&[(bea, Role::Read), (cem, Role::Write)]).await;

    // An outsider who knows every id, and an admin of the cluster who is no member.
    for outsider in [eve, &admin] {
        let shown = outsider.ask(Query::Space { space, account: outsider.account.id }).await.unwrap();
        assert_eq!(shown, Answer::Space(None));
        denied("another's view", outsider.ask(Query::Space { space, account: bea.account.id }).await);
        denied("another's spaces", outsider.ask(Query::Spaces { account: ann.account.id }).await);
        assert_eq!(outsider.ask(Query::Spaces { account: outsider.account.id }).await.unwrap(), Answer::Spaces(vec![]));
        for query in questions(space, root, ann.account.id) {
            denied(&format!("{query:?}"), outsider.ask(query).await);
        }
        denied("watch", outsider.rpc::<WatchSpace, _>(WatchRequest { space, after: 0, wait_ms: 10 }).await);
        denied("upload", outsider.asks_to_upload(space, None).await);
    }
    // With the very bytes by which a member would open and write it.
    let theirs = cem.space(space).await.unwrap();
    denied("writing", eve.writes(&theirs, "x").await);
    denied("leaving", eve.proposes(Command::LeaveSpace { space }).await);
    denied("taking", eve.proposes(Command::TransferSpace { space, to: eve.account.id }).await);
    denied("destroying", eve.proposes(Command::DeleteSpace { space }).await);
    denied("abandoning", eve.proposes(Command::AbandonRekey { target: space }).await);
    denied("swapping", eve.proposes(Command::SwapRekey { target: space, door: None }).await);
    let rekey = Rekey { source: space, folder: root, target: space, root: FolderId([9; 16]), new: None };
    for by in [eve, bea, cem] {
        denied("re-keying", by.proposes(Command::BeginRekey(Box::new(rekey.clone()))).await);
    }

    // A reader reads, and no more.
    for query in questions(space, root, bea.account.id).into_iter().rev().skip(ALWAYS_DENIED) {
        bea.ask(query).await.unwrap();
    }
    denied("a reader's upload", bea.asks_to_upload(space, None).await);
    denied("a reader's write", bea.writes(&bea.space(space).await.unwrap(), "x").await);
    denied("a reader's set", bea.proposes(Command::DeleteSpace { space }).await);

    // A writer writes, uploads, and is removed in the middle of it.
    cem.writes(&theirs, "by-cem").await.unwrap();
    let upload = cem.asks_to_upload(space, None).await.unwrap();
    ann.lets_in(space, &[(bea, Role::Read)]).await;
    for query in questions(space, root, ann.account.id) {
        denied(&format!("{query:?}"), cem.ask(query).await);
    }
    assert_eq!(cem.ask(Query::Space { space, account: cem.account.id }).await.unwrap(), Answer::Space(None));
    denied("a former writer's write", cem.writes(&theirs, "y").await);
    denied("his next upload", cem.asks_to_upload(space, None).await);
    denied("renewed capabilities", cem.asks_to_upload(space, Some(&upload)).await);
    // What he holds is good at the nodes until it expires, ten minutes at most; nothing that it stores is ever
    // committed.
    let object: ObjectId = upload.objects[0];
    let chunk = ChunkRef { object, number: 0 };
    let coded = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, vec![7; 70_000]).unwrap();
    let layout = ann.layout(4).await;
    let place = layout.holder(&chunk, 0).unwrap();
    let put = PutShardRequest {
        capability: Some(capability(&upload.capabilities, place.node)),
        shard: ShardRef { chunk, generation: 0, index: 0 },
        descriptor: coded.descriptor.to_bytes().into(),
        epoch: layout.epoch,
        device: place.device,
    };
    cem.put_shard(&put, place.node, coded.shards[0].clone()).await.unwrap();
    shift.fetch_add(11 * 60 * 1000, Ordering::Relaxed);
    denied("an expired capability", cem.put_shard(&put, place.node, Bytes::from(coded.shards[0].to_vec())).await);
}

/// When a space is coded anew, the old shards go: what lies at the new places already may be anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forges_the_next_coding_gets_no_good_shard_dropped() {
    let (cluster, user) = Cluster::whole().await;
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let stored = user.store_chunk(&upload, chunk, vec![1; 90_000], &[]).await;
    user.commit(&upload, chunk.object, 1, 90_000, vec![]).await.unwrap();

    let (pool, layout) = (cluster.pool_of_node(0), user.layout(4).await);
    let mirrors = model::Policy { k: 1, m: 3 };
    let forged = erasure::Coder::new(mirrors).unwrap().encode(chunk, 1, vec![7]).unwrap();
    for (body, index) in forged.shards.iter().zip(0..) {
        let (put, holder) = (put_of(&layout, &forged, index, None), layout.holder(&chunk, index).unwrap().node);
        pool.rpc_body::<PutShard>(&user.node_target(holder).await, &put, body.clone(), SOON).await.unwrap();
    }
    let space = user.account.home;
    user.rpc::<Administer, _>(Administration::SetPolicy { space, policy: mirrors }).await.unwrap();
    let waits = || async {
        let Answer::Events(events) = user.ask(Query::Events { after: 0, limit: 1000 }).await.unwrap() else { panic!("no events") };
        events.iter().any(|e| e.what == "recode-waits")
    };
    eventually(&cluster.env, "it is not believed", waits).await;
    let known = pool.rpc::<AskPeer>(&cluster.at(), &Query::Generations(vec![chunk.object]), SOON).await.unwrap();
    let Answer::Generations(known) = known else { panic!("no generations") };
    assert_eq!(known[0].as_ref().map(|g| (g.current, g.next)), Some((0, Some(1))));
    for index in 0..4 {
        stored.read(&user, &upload, index).await.unwrap();
    }
}

/// Of a chunk in several copies each is the whole of it: no node is believed alone when it is coded anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_copy_is_not_coded_anew() {
    let (cluster, user) = Cluster::whole().await;
    let (space, mirrors) = (user.account.home, model::Policy { k: 1, m: 3 });
    let upload = user.upload(1).await;
    let (object, layout) = (upload.objects[0], user.layout(4).await);
    let liar = cluster.nodes[1].as_ref().unwrap().node;
    let good = |number: u32| Coder::new(mirrors).unwrap().encode(ChunkRef { object, number }, 0, vec![number as u8; 4000]).unwrap();
    for number in 0..8 {
        let chunk = ChunkRef { object, number };
        let forged = Coder::new(mirrors).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
        for index in 0..4 {
            let node = layout.holder(&chunk, index).unwrap().node;
            let coded = if node == liar { &forged } else { &good(number) };
            let put = put_of(&layout, coded, index, Some(capability(&upload.capabilities, node)));
            user.put_shard(&put, node, coded.shards[index as usize].clone()).await.unwrap();
        }
    }
    user.commit_as(mirrors, &upload, object, 8, 8 * 4000, vec![]).await.unwrap();
    user.rpc::<Administer, _>(Administration::SetPolicy { space, policy: model::Policy::DEFAULT }).await.unwrap();
    let coded_anew = || async {
        let known = cluster.pool_of_node(0).rpc::<AskPeer>(&cluster.at(), &Query::Generations(vec![object]), SOON).await.unwrap();
        let Answer::Generations(known) = known else { panic!("no generations") };
        known[0].as_ref().is_some_and(|g| g.current == 1)
    };
    eventually(&cluster.env, "it is coded anew", coded_anew).await;
    for number in 0..8 {
        let sealed = good(number).descriptor.sealed_hash;
        let chunk = ChunkRef { object, number };
        let place = layout.holder(&chunk, 0).unwrap();
        let shard = model::ShardRef { chunk, generation: 1, index: 0 };
        let capability = capability(&upload.capabilities, place.node);
        let request = wire::node::GetShardRequest { capability: Some(capability), shard, range: None, device: place.device };
        let (got, _) = user.get_shard(&request, place.node).await.unwrap();
        assert_eq!(model::Descriptor::from_bytes(&got.descriptor).unwrap().sealed_hash, sealed, "chunk {number}");
    }
}

/// A shard says of itself how many of its kind are needed: one that says "one" would do alone.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rebuilt_from_what_one_node_has_alone() {
    let (cluster, user) = Cluster::whole().await;
    let upload = user.upload(1).await;
    let (object, layout) = (upload.objects[0], user.layout(4).await);
    let liar = cluster.nodes[1].as_ref().unwrap().node;
    let mirrors = model::Policy { k: 1, m: 3 };
    let mut missing = Vec::new();
    for number in 0..8 {
        let chunk = ChunkRef { object, number };
        let slot_of = |node| (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node == node).unwrap();
        let (lies, misses) = (slot_of(liar), slot_of(cluster.nodes[2].as_ref().unwrap().node));
        missing.push((misses, user.store_chunk(&upload, chunk, vec![number as u8; 4000], &[lies, misses]).await));
        let forged = Coder::new(mirrors).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
        let put = put_of(&layout, &forged, lies, Some(capability(&upload.capabilities, liar)));
        user.put_shard(&put, liar, forged.shards[lies as usize].clone()).await.unwrap();
    }
    user.commit(&upload, object, 8, 8 * 4000, (0..8).collect()).await.unwrap();
    for (index, stored) in missing {
        let body = stored.coded.shards[index as usize].clone();
        eventually(&cluster.env, "it is rebuilt", || async { stored.read(&user, &upload, index).await.is_ok() }).await;
        assert!(stored.read(&user, &upload, index).await.unwrap() == body, "shard {index}");
    }
}

/// What one node says of a chunk, and an honest one passes on, replaces nothing: also not while others are away.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_shard_does_not_give_way_to_what_one_other_node_has() {
    let (mut cluster, user) = Cluster::whole().await;
    let (upload, layout) = (user.upload(1).await, user.layout(4).await);
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let [liar, victim, bringer, away] = [0, 1, 2, 3].map(|i| cluster.nodes[i].as_ref().unwrap().node);
    let slot_of = |node| (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node == node).unwrap();
    let stored = user.store_chunk(&upload, chunk, vec![1; 4000], &[slot_of(liar)]).await;
    let forged = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
    let lie = put_of(&layout, &forged, slot_of(liar), Some(capability(&upload.capabilities, liar)));
    user.put_shard(&lie, liar, forged.shards[slot_of(liar) as usize].clone()).await.unwrap();
    let target = user.node_target(victim).await;
    assert!(![liar, victim].contains(&bringer) && away != bringer);
    cluster.stop_node(2).await;
    cluster.stop_node(3).await;
    let down = || async { user.status().await.nodes.iter().filter(|n| n.state == model::cluster::NodeState::Down).count() == 2 };
    eventually(&cluster.env, "two are away", down).await;
    let slot = slot_of(victim);
    let (put, body) = (put_of(&layout, &forged, slot, None), forged.shards[slot as usize].clone());
    let taken = cluster.pool_of_node(2).rpc_body::<PutShard>(&target, &put, body, SOON).await;
    assert_eq!(taken.unwrap_err().kind, Kind::Conflict);
    assert!(stored.read(&user, &upload, slot).await.unwrap() == stored.coded.shards[slot as usize]);
}

/// Where nothing is yet, the first who comes is taken at its word: until the others have something.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_forged_beforehand_gives_way_to_what_was_stored() {
    let (mut cluster, user) = Cluster::whole().await;
    let fifth = cluster.start_node(4, Some(user.token(None).await)).await.unwrap();
    user.rpc::<ApplyLayout, _>(ChangeRequest { add: vec![fifth], drain: vec![], expect: vec![] }).await.unwrap();
    eventually(&cluster.env, "it is taken in", || async { user.status().await.cluster.changes.is_empty() }).await;
    let (upload, layout) = (user.upload(1).await, user.layout(4).await);
    let (object, pool) = (upload.objects[0], cluster.pool_of_node(1));
    let liar = cluster.nodes[1].as_ref().unwrap().node;
    let mut planted = Vec::new();
    for number in 0..8 {
        let chunk = ChunkRef { object, number };
        let slot = (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node != liar).unwrap();
        let rightful = layout.holder(&chunk, slot).unwrap();
        let stand_in = layout.stand_ins(chunk.partition(layout.power))[0];
        if stand_in.node == liar {
            continue;
        }
        let forged = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
        // At the rightful place of every other chunk, so that the writer has to go elsewhere; else at a stand-in.
        let (first, left_out) = if number % 2 == 0 { (rightful, vec![slot]) } else { (stand_in, vec![]) };
        let put = PutShardRequest { device: first.device, ..put_of(&layout, &forged, slot, None) };
        pool.rpc_body::<PutShard>(&user.node_target(first.node).await, &put, forged.shards[slot as usize].clone(), SOON).await.unwrap();
        let stored = user.store_chunk(&upload, chunk, vec![number as u8; 4000], &left_out).await;
        if number % 2 == 0 {
            let capability = Some(capability(&upload.capabilities, stand_in.node));
            let put = PutShardRequest { device: stand_in.device, ..put_of(&layout, &stored.coded, slot, capability) };
            user.put_shard(&put, stand_in.node, stored.coded.shards[slot as usize].clone()).await.unwrap();
        }
        planted.push((slot, stand_in.clone(), stored));
    }
    assert!(planted.len() > 2);
    user.commit(&upload, object, 8, 8 * 4000, (0..8).filter(|n| n % 2 == 0).collect()).await.unwrap();
    for (slot, stand_in, stored) in planted {
        let body = &stored.coded.shards[slot as usize];
        let is_right = || async { stored.read(&user, &upload, slot).await.is_ok_and(|b| b == body) };
        eventually(&cluster.env, "the right one is at its place", is_right).await;
        let capability = Some(capability(&upload.capabilities, stand_in.node));
        let shard = model::ShardRef { chunk: stored.coded.descriptor.chunk, generation: 0, index: slot };
        let request = wire::node::GetShardRequest { capability, shard, range: None, device: stand_in.device };
        let is_gone = || async { user.get_shard(&request, stand_in.node).await.is_err_and(|e| e.kind == Kind::NotFound) };
        eventually(&cluster.env, "none is left at the stand-in", is_gone).await;
    }
}

/// A node that is drained gives away what it holds; others need not believe that it is the right thing.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_one_node_says_of_a_chunk_is_not_copied() {
    let (mut cluster, user) = Cluster::whole().await;
    let upload = user.upload(1).await;
    let (object, layout) = (upload.objects[0], user.layout(4).await);
    let liar = cluster.nodes[1].as_ref().unwrap().node;
    let mut stored = Vec::new();
    for number in 0..8 {
        let chunk = ChunkRef { object, number };
        let index = (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node == liar).unwrap();
        stored.push((index, user.store_chunk(&upload, chunk, vec![number as u8; 4000], &[index]).await));
        let forged = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
        let put = put_of(&layout, &forged, index, Some(capability(&upload.capabilities, liar)));
        user.put_shard(&put, liar, forged.shards[index as usize].clone()).await.unwrap();
    }
    // Nor is it taken where it is brought, as to whoever misses something.
    let chunk = ChunkRef { object, number: 8 };
    let index = (0..4).find(|i| layout.holder(&chunk, *i).unwrap().node != liar).unwrap();
    let whole = user.store_chunk(&upload, chunk, vec![8; 4000], &[index]).await;
    let forged = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, vec![99; 4000]).unwrap();
    let target = user.node_target(layout.holder(&chunk, index).unwrap().node).await;
    for (coded, taken) in [(&forged, Err(Kind::Conflict)), (&whole.coded, Ok(()))] {
        let (put, body) = (put_of(&layout, coded, index, None), coded.shards[index as usize].clone());
        let put = cluster.pool_of_node(1).rpc_body::<PutShard>(&target, &put, body, SOON).await;
        assert_eq!(put.map(|_| ()).map_err(|e| e.kind), taken);
    }
    user.commit(&upload, object, 9, 9 * 4000, vec![]).await.unwrap();
    let fifth = cluster.start_node(4, Some(user.token(None).await)).await.unwrap();
    let change = ChangeRequest { add: vec![fifth], drain: vec![liar], expect: vec![] };
    user.rpc::<ApplyLayout, _>(change).await.unwrap();
    eventually(&cluster.env, "it is drained", || async { user.status().await.cluster.changes.is_empty() }).await;

    let capabilities = user.rpc::<ReadCapabilities, _>(user.holder()).await.unwrap();
    let (upload, layout) = (UploadResponse { capabilities, ..upload }, user.layout(4).await);
    for (index, stored) in stored {
        let body = stored.coded.shards[index as usize].clone();
        let now = Stored { layout: layout.clone(), ..stored };
        assert!(now.read(&user, &upload, index).await.unwrap() == body, "shard {index}");
    }
}
