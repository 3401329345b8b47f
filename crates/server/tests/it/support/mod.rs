//! A whole cluster in one process over loopback, and a user of it: what the tests tell stories with.

#![allow(clippy::unwrap_used)]

pub mod faults;

use bytes::Bytes;
use env::{Clock, Env};
use erasure::{Coder, Encoded};
use model::account::Account;
use model::cluster::{Capability, ServerRole};
use model::command::{Answer, Command, Outcome, Query};
use model::tree::{Change, Expect, ManifestRow, ObjectUse, Row};
use model::{
    ChunkRef, ClusterId, Descriptor, EntryId, FolderId, Hash, KeyEpoch, Layout, ManifestId, NameTag, NodeId, ObjectId, Policy, PublicKey,
    RequestId, Result, ShardRef,
};
use seal::account::{NewAccount, Unlocked, new_account};
use seal::keys::SigningKey;
use seal::login::{Login, Registration};
use seal::password::Password;
use seal::space::OpenSpace;
use server::consensus::CHECKPOINT_EVERY;
use server::coordinator::detector::Limits;
use server::coordinator::{self, Coordinator, CoordinatorConfig};
use server::node::{self, Node, NodeConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use transport::InviteText;
use transport::{Binding, Mode, OnConnect, Pool, PoolConfig, Target};
use transport::{ClientTls, Trust};
use wire::coordinator::*;
use wire::node::*;
use wire::{Authed, Rpc, SessionToken};

/// Deadline of everything.
pub const SOON: Duration = Duration::from_secs(20);
/// The password of every user.
pub const PASSWORD: &str = "correct horse battery staple";

/// What a node shows its peers, from its card.
#[derive(minicbor::Decode)]
struct Shown {
    #[n(3)]
    root: minicbor::bytes::ByteVec,
    #[n(4)]
    key: minicbor::bytes::ByteVec,
    #[n(5)]
    certificate: minicbor::bytes::ByteVec,
}

/// A cluster: one coordinator, some nodes, each in its own folder.
pub struct Cluster {
    pub env: Env,
    pub dir: tempfile::TempDir,
    pub address: String,
    pub fingerprint: Hash,
    pub cluster: ClusterId,
    pub invite: String,
    pub coordinator: Option<coordinator::Running>,
    pub nodes: Vec<Option<node::Running>>,
    pub checkpoint_every: u64,
}

impl Cluster {
    /// A coordinator alone.
    pub async fn start() -> Self {
        Self::start_in(env::real::env()).await
    }

    /// A coordinator alone, in a world of the test's own.
    pub async fn start_in(env: Env) -> Self {
        Self::start_as(env, |_| ()).await
    }

    async fn start_with(env: Env, out: Option<Duration>) -> Self {
        Self::start_as(env, |config| config.limits.out = out).await
    }

    /// The same, told otherwise.
    pub async fn start_as(env: Env, otherwise: impl FnOnce(&mut CoordinatorConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Self::config(dir.path().join("c"), "127.0.0.1:0");
        otherwise(&mut config);
        let checkpoint_every = config.checkpoint_every;
        let coordinator = Coordinator::start(env.clone(), config).await.unwrap();
        Cluster {
            env,
            dir,
            address: coordinator.address.clone(),
            fingerprint: coordinator.fingerprint,
            cluster: coordinator.cluster,
            invite: coordinator.invite.clone().unwrap(),
            coordinator: Some(coordinator),
            nodes: Vec::new(),
            checkpoint_every,
        }
    }

    /// The same; nodes are out after a time of silence.
    pub async fn whole_with_out(out: Duration) -> (Self, User) {
        Self::four(Self::start_with(env::real::env(), Some(out)).await).await
    }

    fn config(dir: PathBuf, listen: &str) -> CoordinatorConfig {
        Self::config_with(dir, listen, CHECKPOINT_EVERY)
    }

    pub fn config_with(dir: PathBuf, listen: &str, checkpoint_every: u64) -> CoordinatorConfig {
        // Shorter limits of silence than the real ones, so that tests need not wait for those.
        let limits = Limits { suspect: Duration::from_secs(2), down: Duration::from_secs(4), out: None };
        CoordinatorConfig { power: 4, limits, checkpoint_every, ..CoordinatorConfig::new(dir, listen) }
    }

    /// A coordinator, its admin, and four nodes with their layout.
    pub async fn whole() -> (Self, User) {
        Self::whole_in(env::real::env()).await
    }

    /// The same, in a world of the test's own.
    pub async fn whole_in(env: Env) -> (Self, User) {
        Self::four(Self::start_in(env).await).await
    }

    async fn four(mut cluster: Self) -> (Self, User) {
        let admin = cluster.register(&cluster.invite.clone()).await.unwrap();
        for i in 0..4 {
            let token = admin.token(None).await;
            cluster.start_node(i, Some(token)).await.unwrap();
        }
        admin.layout(4).await;
        (cluster, admin)
    }

    pub fn node_dir(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("n{i}"))
    }

    pub async fn start_node(&mut self, i: usize, join: Option<String>) -> Result<NodeId> {
        let folders = vec![self.node_dir(i)];
        self.start_node_on(i, folders, join).await
    }

    /// A node on several disks.
    pub async fn start_node_on(&mut self, i: usize, folders: Vec<PathBuf>, join: Option<String>) -> Result<NodeId> {
        let fresh = NodeConfig::new(self.node_dir(i), "127.0.0.1:0");
        let config = NodeConfig { join, dirs: folders, capacity: Some(4 << 30), ..fresh };
        let node = Node::start(self.env.clone(), config).await?;
        let id = node.node;
        self.nodes.resize_with(self.nodes.len().max(i + 1), || None);
        self.nodes[i] = Some(node);
        Ok(id)
    }

    /// A node that wants to be taken in as soon as it has joined.
    pub async fn start_eager_node(&mut self, i: usize, join: String) -> Result<NodeId> {
        let fresh = NodeConfig::new(self.node_dir(i), "127.0.0.1:0");
        let node = Node::start(self.env.clone(), NodeConfig { join: Some(join), capacity: Some(4 << 30), auto_add: true, ..fresh }).await?;
        let id = node.node;
        self.nodes.resize_with(self.nodes.len().max(i + 1), || None);
        self.nodes[i] = Some(node);
        Ok(id)
    }

    pub async fn stop_node(&mut self, i: usize) {
        self.nodes[i].take().unwrap().shutdown().await;
    }

    pub async fn stop_coordinator(&mut self) {
        self.coordinator.take().unwrap().shutdown().await;
    }

    pub async fn restart_coordinator(&mut self) {
        self.stop_coordinator().await;
        self.start_coordinator().await;
    }

    pub async fn start_coordinator(&mut self) {
        let config = Self::config(self.dir.path().join("c"), &self.address);
        self.coordinator = Some(Coordinator::start(self.env.clone(), config).await.unwrap());
    }

    /// Connections of somebody without a certificate.
    pub fn pool(&self) -> Pool {
        let tls = ClientTls::new(&self.env, Trust::Fingerprint(self.fingerprint), None).unwrap();
        Pool::new(self.env.clone(), tls, PoolConfig::default(), None)
    }

    /// The way to the servers as a node has it, with the key from its card.
    pub fn pool_of_node(&self, i: usize) -> Pool {
        let card: Shown = minicbor::decode(&std::fs::read(self.node_dir(i).join("node")).unwrap()).unwrap();
        let key = transport::ServerKey::load(&card.key).unwrap();
        let identity = transport::TlsIdentity::new(&self.env, &card.root, &card.certificate, &key).unwrap();
        let tls = ClientTls::new(&self.env, Trust::Fingerprint(self.fingerprint), Some(identity)).unwrap();
        Pool::new(self.env.clone(), tls, PoolConfig::default(), None)
    }

    pub fn at(&self) -> Target {
        Target::coordinator(&self.address).with(Mode::Control)
    }

    pub async fn rpc<R: Rpc>(&self, request: &R::Request) -> Result<R::Response>
    where
        R::Request: Sync,
    {
        self.pool().rpc::<R>(&self.at(), request, SOON).await
    }

    pub async fn register(&self, invite: &str) -> Result<User> {
        let invite = InviteText::parse(invite)?;
        let mut rng = self.env.rand();
        let (registration, request) = Registration::start(Password::new(PASSWORD), &invite.name, &mut rng)?;
        let secret_hash = Hash::of(&invite.secret);
        let start = self.rpc::<RegisterStart>(&RegisterStartRequest { invite: invite.id, secret_hash, request: request.into() }).await?;
        let registered = registration.finish(&start.response, self.cluster, &start.name, &mut rng)?;
        let NewAccount { account, home, unlocked, words, .. } = new_account(&registered, &start.name, self.cluster, &mut rng)?;
        let request = RequestId::new(self.env.now_ms(), self.env.random());
        let finish = RegisterFinishRequest { invite: invite.id, secret_hash, request, account: account.clone(), home };
        let session = self.rpc::<RegisterFinish>(&finish).await?.session;
        Ok(self.user(session, account, unlocked, words.words().to_string()))
    }

    fn user(&self, session: SessionToken, account: Account, unlocked: Unlocked, words: String) -> User {
        let holder = Arc::new(SigningKey::generate(&mut self.env.rand()));
        let tls = ClientTls::new(&self.env, Trust::Fingerprint(self.fingerprint), None).unwrap();
        let nodes = Pool::new(self.env.clone(), tls, PoolConfig::default(), Some(Arc::new(Prover(holder.clone()))));
        User { env: self.env.clone(), at: self.at(), pool: self.pool(), nodes, session, account, unlocked, words, holder }
    }

    /// The admin again, with a fresh session. A coordinator that was off for long takes changes as soon as it has heard
    /// what others' clocks show, and a login is one.
    pub async fn login_again(&self, admin: &mut User) {
        let session = std::sync::Mutex::new(None);
        let logs_in = async || {
            *session.lock().unwrap() = match self.login("admin", PASSWORD).await {
                Err(e) if e.kind == model::Kind::Unavailable => None,
                login => Some(login.unwrap().session.session),
            };
            session.lock().unwrap().is_some()
        };
        eventually(&self.env, "changes are taken", logs_in).await;
        admin.session = session.into_inner().unwrap().unwrap();
    }

    /// KE1 to KE3 with a password; whatever goes wrong is the error.
    pub async fn login(&self, name: &str, password: &str) -> Result<LoginFinishResponse> {
        let mut rng = self.env.rand();
        let (login, ke1) = Login::start(Password::new(password), &mut rng)?;
        let start = self.rpc::<LoginStart>(&LoginStartRequest { name: name.into(), ke1: ke1.into() }).await?;
        // A client that cannot open KE2 knows that the password is wrong; it still may go on.
        let ke3 = match login.finish(&start.ke2, self.cluster, name, &mut rng) {
            Ok(done) => done.message,
            Err(_) => vec![7; 64],
        };
        self.rpc::<LoginFinish>(&LoginFinishRequest { login: start.login, ke3: ke3.into() }).await
    }
}

/// Proves a holder key on each connection to a node.
pub struct Prover(pub Arc<SigningKey>);

impl OnConnect for Prover {
    fn prove(&self, binding: &Binding) -> Option<(&'static str, Bytes)> {
        let holder = self.0.public();
        let signature = self.0.sign("cap-proof", &proof_body(&binding.exporter, &binding.certificate_hash, &holder));
        let request = ProveRequest { protocol: wire::PROTOCOL, holder, signature };
        Some((Prove::PATH, wire::encode(&request).into()))
    }
}

/// A logged-in user.
pub struct User {
    pub env: Env,
    pub at: Target,
    pub pool: Pool,
    pub nodes: Pool,
    pub session: SessionToken,
    pub account: Account,
    pub unlocked: Unlocked,
    pub words: String,
    pub holder: Arc<SigningKey>,
}

impl User {
    pub async fn rpc<R: Rpc<Request = Authed<T>>, T: Sync>(&self, request: T) -> Result<R::Response>
    where
        R::Request: Sync,
    {
        self.pool.rpc::<R>(&self.at, &Authed { session: self.session, request }, SOON).await
    }

    pub async fn ask(&self, query: Query) -> Result<Answer> {
        self.rpc::<Ask, _>(query).await
    }

    pub async fn token(&self, replace: Option<NodeId>) -> String {
        let request = CreateTokenRequest { role: ServerRole::Node, valid_ms: 3_600_000, replace };
        self.rpc::<CreateToken, _>(request).await.unwrap().text
    }

    pub async fn invite(&self, name: &str) -> String {
        let request = CreateInviteRequest { name: name.into(), admin: false, quota: None, valid_ms: 3_600_000 };
        self.rpc::<CreateInvite, _>(request).await.unwrap().text
    }

    pub async fn status(&self) -> StatusResponse {
        self.rpc::<Status, _>(()).await.unwrap()
    }

    /// The layout of a width, as soon as there is one.
    pub async fn layout(&self, width: u8) -> Layout {
        for _ in 0..300 {
            if let Answer::Layout(Some(layout)) = self.ask(Query::Layout(width)).await.unwrap() {
                return layout;
            }
            self.env.sleep(Duration::from_millis(100)).await;
        }
        panic!("no layout of width {width}");
    }

    pub fn holder(&self) -> PublicKey {
        self.holder.public()
    }

    pub async fn upload(&self, objects: u32) -> UploadResponse {
        let request = UploadRequest { space: self.account.home, objects, holder: self.holder(), byte_limit: 1 << 30, renew: None };
        self.rpc::<Upload, _>(request).await.unwrap()
    }

    pub async fn node_target(&self, node: NodeId) -> Target {
        let Answer::Cluster(view) = self.ask(Query::Cluster).await.unwrap() else { panic!("not a cluster view") };
        let node = view.nodes.iter().find(|n| n.id == node).unwrap();
        Target::node(node.id, &node.address).with(Mode::Bulk)
    }

    pub async fn put_shard(&self, request: &PutShardRequest, node: NodeId, body: Bytes) -> Result<()> {
        let target = self.node_target(node).await;
        self.nodes.rpc_body::<PutShard>(&target, request, body, SOON).await.map(|_| ())
    }

    pub async fn get_shard(&self, request: &GetShardRequest, node: NodeId) -> Result<(GetShardResponse, Bytes)> {
        let target = self.node_target(node).await;
        self.nodes.rpc_body::<GetShard>(&target, request, Bytes::new(), SOON).await
    }

    /// Stores one chunk of an object on the nodes of the layout, but for the slots left out.
    pub async fn store_chunk(&self, upload: &UploadResponse, chunk: ChunkRef, sealed: Vec<u8>, leave_out: &[u8]) -> Stored {
        let layout = self.layout(4).await;
        let coded = Coder::new(Policy::DEFAULT).unwrap().encode(chunk, 0, sealed).unwrap();
        for (index, body) in coded.shards.iter().enumerate() {
            let index = index as u8;
            if leave_out.contains(&index) {
                continue;
            }
            let place = layout.holder(&chunk, index).unwrap();
            let capability = capability(&upload.capabilities, place.node);
            self.put_shard(&put_of(&layout, &coded, index, Some(capability)), place.node, body.clone()).await.unwrap();
        }
        Stored { coded, layout }
    }

    /// Commits one file that uses chunks `0..chunks` of an object.
    pub async fn commit(&self, upload: &UploadResponse, object: ObjectId, chunks: u32, bytes: u64, partial: Vec<u32>) -> Result<Outcome> {
        self.commit_as(Policy::DEFAULT, upload, object, chunks, bytes, partial).await
    }

    /// The same, coded otherwise.
    pub async fn commit_as(
        &self,
        policy: Policy,
        upload: &UploadResponse,
        object: ObjectId,
        chunks: u32,
        bytes: u64,
        partial: Vec<u32>,
    ) -> Result<Outcome> {
        let Answer::Space(Some(info)) = self.ask(Query::Space { space: self.account.home, account: self.account.id }).await? else {
            panic!("no space")
        };
        let space = OpenSpace::open(&info, &self.unlocked, None)?;
        let layout = self.layout(4).await.epoch;
        let uses = ObjectUse { object, policy, chunks: vec![(0, chunks)], layout, bytes, partial, generation: 0 };
        let manifest = ManifestRow { id: ManifestId(self.env.random()), sealed: vec![1; 300].into(), objects: vec![uses] };
        let row = Row {
            space: info.space,
            folder: FolderId(info.root.0),
            entry: EntryId(self.env.random()),
            rev: 1,
            epoch: KeyEpoch(1),
            tag: NameTag(self.env.random()),
            sealed: vec![2; 256].into(),
        };
        let (_, record) = space.sign_commit(&self.unlocked, [&row], &mut self.env.rand())?;
        let change =
            Change { row, expect: Expect::Absent, child: None, manifest: Some(manifest.id), new_manifest: Some(manifest), purge: false };
        let command = Command::Commit { record, changes: vec![change], grants: vec![upload.grant.clone()] };
        let request = RequestId::new(self.env.now_ms(), self.env.random());
        self.rpc::<Propose, _>(ProposeRequest { request, command }).await?
    }
}

/// A chunk as it was stored.
pub struct Stored {
    pub coded: Encoded,
    pub layout: Layout,
}

impl Stored {
    /// Reads one shard back with an upload's capability.
    pub async fn read(&self, user: &User, upload: &UploadResponse, index: u8) -> Result<Bytes> {
        let chunk = self.coded.descriptor.chunk;
        let place = self.layout.holder(&chunk, index).unwrap();
        let request = GetShardRequest {
            capability: Some(capability(&upload.capabilities, place.node)),
            shard: ShardRef { chunk, generation: 0, index },
            range: None,
            device: place.device,
        };
        user.get_shard(&request, place.node).await.map(|(_, body)| body)
    }
}

/// A put of a shard where it belongs. `capability`: `None` from servers.
pub fn put_of(layout: &Layout, coded: &Encoded, index: u8, capability: Option<Capability>) -> PutShardRequest {
    let Descriptor { chunk, generation, .. } = coded.descriptor;
    PutShardRequest {
        capability,
        shard: ShardRef { chunk, generation, index },
        descriptor: coded.descriptor.to_bytes().into(),
        epoch: layout.epoch,
        device: layout.holder(&chunk, index).unwrap().device,
    }
}

pub fn capability(all: &[(NodeId, Capability)], node: NodeId) -> Capability {
    all.iter().find(|(id, _)| *id == node).unwrap().1.clone()
}

/// A clock that tests set forward.
struct Shifted(Arc<dyn Clock>, Arc<AtomicU64>);

impl Clock for Shifted {
    fn now_ms(&self) -> u64 {
        self.0.now_ms() + self.1.load(Ordering::Relaxed)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    /// The machine slept: no jump that its coordinator would not believe.
    fn uptime(&self) -> Duration {
        self.0.uptime() + Duration::from_millis(self.1.load(Ordering::Relaxed))
    }
}

/// The real world with a clock that can be set forward, in milliseconds.
pub fn shifted() -> (Env, Arc<AtomicU64>) {
    let shift = Arc::new(AtomicU64::new(0));
    let mut env = env::real::env();
    env.clock = Arc::new(Shifted(env.clock.clone(), shift.clone()));
    (env, shift)
}

/// A wall clock that is wrong.
struct Wrong(Arc<dyn Clock>, u64);

impl Clock for Wrong {
    fn now_ms(&self) -> u64 {
        self.0.now_ms() + self.1
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

/// The real world on a machine whose wall clock is so many milliseconds ahead.
pub fn ahead(ms: u64) -> Env {
    let mut env = env::real::env();
    env.clock = Arc::new(Wrong(env.clock.clone(), ms));
    env
}

/// Waits until something is true; panics with `what` after half a minute.
pub async fn eventually<F: Future<Output = bool>>(env: &Env, what: &str, mut check: impl FnMut() -> F) {
    for _ in 0..300 {
        if check().await {
            return;
        }
        env.sleep(Duration::from_millis(100)).await;
    }
    panic!("never happened: {what}");
}
