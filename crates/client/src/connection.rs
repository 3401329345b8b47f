//! The servers as a client sees them: coordinators (whichever answers), nodes with how well they
//! answer, and what the cluster looks like at present.

use crate::layouts::KnownLayouts;
use crate::pace::Paces;
use crate::profile::{Profile, ProfileInfo};
use bytes::Bytes;
use env::Env;
use model::cluster::{Capability, ClusterView, Node};
use model::command::{Answer, Query};
use model::{Error, Hash, Kind, NodeId, Result};
use seal::keys::SigningKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use transport::{Binding, ClientTls, Coordinators, Expect, OnConnect, Pool, PoolConfig, Target, Trust};
use wire::coordinator::{Ask, ReadCapabilities};
use wire::node::{GetShard, GetShardRequest, HeadShards, HeadShardsRequest, ProveRequest, PutShard, PutShardRequest, ShardState};
use wire::{Authed, Rpc, SessionToken};

/// How long a coordinator has to answer once.
const CALL: Duration = Duration::from_secs(15);
/// How long a client tries to reach any coordinator before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest pause between two tries: while coordinators elect a leader, nobody wants to wait longer than they do.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a node has to take or give one shard.
pub(crate) const SHARD_CALL: Duration = Duration::from_secs(60);
/// How old the view of the cluster may be before it is asked for again.
const VIEW_AGE: Duration = Duration::from_secs(30);
/// Read capabilities live 10 min; they are renewed after this.
const CAPABILITY_AGE: Duration = Duration::from_secs(8 * 60);
/// Younger ones are not asked for again because a server does not take them.
const CAPABILITY_REST: Duration = Duration::from_secs(5);

/// The servers of one cluster.
pub struct Cluster {
    pub(crate) env: Env,
    pool: Pool,
    coordinators: Coordinators,
    /// Fingerprint of its root.
    root: Hash,
    session: Option<SessionToken>,
    /// Where layouts are kept from one run to the next.
    pub(crate) profile: Option<Profile>,
    holder: Arc<Holder>,
    pub(crate) layouts: KnownLayouts,
    state: Mutex<State>,
    pub(crate) paces: Paces,
}

struct State {
    /// Coordinators as the profile has them.
    noted: Vec<String>,
    view: Option<(Duration, Arc<ClusterView>)>,
    reading: Option<(Moment, Arc<BTreeMap<NodeId, Capability>>)>,
}

/// A moment by both clocks: the one stands still while the machine sleeps, the other may be set. What
/// expires elsewhere counts as old as soon as either of them says so.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    monotonic: Duration,
    wall_ms: u64,
}

impl Moment {
    pub fn now(env: &Env) -> Self {
        Moment { monotonic: env.clock.monotonic(), wall_ms: env.now_ms() }
    }

    /// Whether what was asked for then may be asked for again because it is not taken.
    pub fn is_worth_renewing(&self, env: &Env) -> bool {
        !self.is_younger_than(CAPABILITY_REST, env)
    }

    /// Whether less than `age` has passed since.
    pub fn is_younger_than(&self, age: Duration, env: &Env) -> bool {
        let now = Moment::now(env);
        now.monotonic - self.monotonic < age && u128::from(now.wall_ms.abs_diff(self.wall_ms)) < age.as_millis()
    }
}

/// Proves the holder key on each new connection to a node.
struct Holder(SigningKey);

impl OnConnect for Holder {
    fn prove(&self, binding: &Binding) -> Option<(&'static str, Bytes)> {
        if !matches!(binding.target.expect, Expect::Node(_)) {
            return None;
        }
        let holder = self.0.public();
        let body = wire::node::proof_body(&binding.exporter, &binding.certificate_hash, &holder);
        let request = ProveRequest { protocol: wire::PROTOCOL, holder, signature: self.0.sign("cap-proof", &body) };
        Some((wire::node::Prove::PATH, wire::encode(&request).into()))
    }
}

impl Cluster {
    /// Connects to nothing yet. `session` is needed by all but login and registration.
    pub(crate) fn new(
        env: &Env,
        trust: Trust,
        coordinators: Vec<String>,
        session: Option<SessionToken>,
        profile: Option<Profile>,
    ) -> Result<Self> {
        let root = match &trust {
            Trust::Root(root) => Hash::of(root),
            Trust::Fingerprint(fingerprint) => *fingerprint,
        };
        let holder = Arc::new(Holder(SigningKey::generate(&mut env.rand())));
        let tls = ClientTls::new(env, trust, None)?;
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), Some(holder.clone()));
        let noted = coordinators.clone();
        let coordinators = Coordinators::new(env.clone(), pool.clone(), coordinators);
        let (env, paces) = (env.clone(), Paces::new(env.clone()));
        let state = Mutex::new(State { noted, view: None, reading: None });
        Ok(Cluster { env, pool, coordinators, root, session, profile, holder, layouts: KnownLayouts::default(), state, paces })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn holder_key(&self) -> model::PublicKey {
        self.holder.0.public()
    }

    /// Known coordinators, the one that answered last first.
    pub(crate) fn coordinators(&self) -> Vec<String> {
        self.coordinators.known()
    }

    /// Coordinators in the order in which to try what needs a connection of its own.
    pub(crate) async fn leader_first(&self) -> Vec<String> {
        self.coordinators.leader_first().await
    }

    /// Asks whichever coordinator leads, until one answers. What is sent may be sent again: requests
    /// carry idempotence keys.
    pub(crate) async fn call<R: Rpc>(&self, request: &R::Request) -> Result<R::Response> {
        let start = self.env.clock.monotonic();
        let mut pause = Duration::from_millis(50);
        loop {
            let last = match self.coordinators.rpc::<R>(request, CALL).await {
                Err(e) if e.kind == Kind::Unavailable => e,
                answer => {
                    // Perhaps by one that another one named.
                    self.note_coordinators();
                    return answer;
                }
            };
            if self.env.clock.monotonic() - start > PATIENCE {
                let hint = last.hint.clone().unwrap_or_else(|| "start a coordinator, then try again".into());
                let all = self.coordinators().join(", ");
                return Err(Error::unavailable(format!("no coordinator answers ({all}): {}", last.message)).hint(hint));
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// A request of the account that is logged in.
    pub(crate) async fn authed<R, T>(&self, request: T) -> Result<R::Response>
    where
        R: Rpc<Request = Authed<T>>,
    {
        let session = self.session.ok_or_else(|| Error::denied("nobody is logged in here").hint("shardkeep login --user NAME"))?;
        self.call::<R>(&Authed { session, request }).await
    }

    /// A question to the catalog.
    pub(crate) async fn ask(&self, query: Query) -> Result<Answer> {
        self.authed::<Ask, _>(query).await
    }

    /// The cluster as of the last half minute, or right now with `fresh`.
    pub(crate) async fn view(&self, fresh: bool) -> Result<Arc<ClusterView>> {
        let now = self.env.clock.monotonic();
        if let (false, Some((at, view))) = (fresh, self.state().view.clone())
            && now - at < VIEW_AGE
        {
            return Ok(view);
        }
        let Answer::Cluster(view) = self.ask(Query::Cluster).await? else { return Err(unexpected()) };
        let view = Arc::new(*view);
        self.layouts.keep_those_of(&view);
        self.learn(&view);
        self.state().view = Some((now, view.clone()));
        Ok(view)
    }

    /// Fingerprint of the cluster's root.
    pub(crate) fn fingerprint(&self) -> Hash {
        self.root
    }

    /// Whether a profile is of this cluster: somebody may have logged in elsewhere with it meanwhile.
    pub(crate) fn is_of(&self, info: &ProfileInfo) -> bool {
        Hash::of(&info.root) == self.root
    }

    /// Takes over where the coordinators are.
    pub(crate) fn learn(&self, view: &ClusterView) {
        self.coordinators.learn(view.coordinators.iter().map(|c| &c.address));
        self.note_coordinators();
    }

    /// For the day on which this machine starts again and none of those is there that it knew at first.
    fn note_coordinators(&self) {
        let Some(profile) = &self.profile else { return };
        let known = self.coordinators();
        {
            let mut state = self.state();
            if known.iter().all(|c| state.noted.contains(c)) {
                return;
            }
            // Where it cannot be written that is told once.
            state.noted.clone_from(&known);
        }
        let note = |info: &mut ProfileInfo| {
            if self.is_of(info) {
                info.coordinators = known;
            }
        };
        if let Err(e) = profile.update_info(note) {
            tracing::warn!(error = %e, "the cluster's coordinators could not be noted in the profile");
        }
    }

    /// Forgets the view: a server said that it is old.
    pub(crate) fn forget_view(&self) {
        self.state().view = None;
    }

    async fn node(&self, id: NodeId) -> Result<Node> {
        let known = |view: &ClusterView| view.nodes.iter().find(|n| n.id == id).cloned();
        if let Some(node) = known(&*self.view(false).await?) {
            return Ok(node);
        }
        known(&*self.view(true).await?).ok_or_else(|| Error::unavailable(format!("node-{id} is not known to the cluster")).on(id))
    }

    async fn target(&self, id: NodeId) -> Result<Target> {
        Ok(Target::node(id, self.node(id).await?.address))
    }

    /// The capability that allows reading at a node.
    async fn reading(&self, node: NodeId) -> Result<Option<Capability>> {
        let now = Moment::now(&self.env);
        let cached = self.state().reading.clone().filter(|(at, _)| at.is_younger_than(CAPABILITY_AGE, &self.env));
        let capabilities = match cached {
            Some((_, c)) if c.contains_key(&node) => c,
            _ => {
                let fresh = self.authed::<ReadCapabilities, _>(self.holder_key()).await?;
                let fresh = Arc::new(fresh.into_iter().collect::<BTreeMap<_, _>>());
                self.state().reading = Some((now, fresh.clone()));
                fresh
            }
        };
        Ok(capabilities.get(&node).cloned())
    }

    /// A node does not take its capability: it may have been made by a clock that was wrong for a moment. Whether it is
    /// forgotten, so that the next one is a fresh one.
    fn forget_reading(&self) -> bool {
        self.state().reading.take_if(|(at, _)| at.is_worth_renewing(&self.env)).is_some()
    }

    /// Stores a shard; returns when it is durable there. The time that it took is remembered.
    pub(crate) async fn put_shard(&self, node: NodeId, request: &PutShardRequest, body: Bytes) -> Result<()> {
        let call = async {
            let target = self.target(node).await?;
            self.pool.rpc_body::<PutShard>(&target, request, body, SHARD_CALL).await.map(|_| ())
        };
        self.paces.timed_unless_resting(node, call).await
    }

    /// Reads a shard or a range of it: encoded descriptor and bytes.
    pub(crate) async fn get_shard(
        &self,
        node: NodeId,
        shard: model::ShardRef,
        device: model::DeviceId,
        range: Option<(u64, u64)>,
    ) -> Result<(Bytes, Bytes)> {
        let call = async || {
            let capability = self.reading(node).await?;
            let target = self.target(node).await?;
            let request = GetShardRequest { capability, shard, range, device };
            let (head, body) = self.pool.rpc_body::<GetShard>(&target, &request, Bytes::new(), SHARD_CALL).await?;
            Ok((Vec::from(head.descriptor).into(), body))
        };
        match self.paces.timed(node, call()).await {
            Err(e) if e.kind == Kind::Denied && self.forget_reading() => self.paces.timed(node, call()).await,
            done => done,
        }
    }

    /// What a node has of some shards.
    pub(crate) async fn head_shards(&self, node: NodeId, shards: Vec<model::ShardRef>, deep: bool) -> Result<Vec<ShardState>> {
        let capability = self.reading(node).await?;
        let target = self.target(node).await?;
        let asked = shards.len();
        let states = self.pool.rpc::<HeadShards>(&target, &HeadShardsRequest { capability, shards, deep }, SHARD_CALL).await;
        let states = states.inspect_err(|e| {
            if e.kind == Kind::Denied {
                self.forget_reading();
            }
        })?;
        if states.len() == asked { Ok(states) } else { Err(unexpected().on(node)) }
    }
}

/// A server answered with something that does not belong to the question.
pub(crate) fn unexpected() -> Error {
    Error::corrupt("a server answered something that was not asked")
}
