//! What a coordinator works with: the catalog, its keys, and its short memory. The memory may be
//! lost at any time without harm: logins begin again, caches fill again, heartbeats come every second.

use super::backoff::Backoff;
use super::backup::Backups;
use super::changes::Watchers;
use super::clock::{LogTime, Moment, TermClock};
use super::detector::{Limits, Steadiness};
use super::layouts::{Placed, PlacedKey};
use super::login::Logins;
use super::lookups::Lookups;
use super::opaque::Opaque;
use super::quiet::Quiet;
use super::session::Sessions;
use crate::consensus::Consensus;
use env::Env;
use model::account::Account;
use model::cluster::ClusterView;
use model::command::{Answer, Applied, Command, Outcome, Proposal, Query};
use model::{AccountId, ClusterId, CoordinatorId, DeviceId, Error, NodeId, RequestId, Result, signed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use transport::{ClusterRoot, ServerId};
use wire::coordinator::HeartbeatRequest;

/// So long after a user's request nodes are told that users are there. More than their heartbeats are apart.
const BUSY: Duration = Duration::from_secs(2);

/// One coordinator. Behind an `Arc`, shared by its services and loops.
pub(crate) struct State {
    pub env: Env,
    pub consensus: Consensus,
    pub cluster: ClusterId,
    pub me: CoordinatorId,
    pub root: ClusterRoot,
    pub opaque: Opaque,
    /// Signs capabilities and upload grants. Secret.
    pub capability: ed25519_dalek::SigningKey,
    /// From which the rows of accounts that do not exist are made. Secret.
    pub dummies: [u8; 32],
    pub limits: Limits,
    /// Views of the catalog that are being backed up.
    pub backups: Backups,
    pub watchers: Watchers,
    /// Held while a coordinator is removed.
    pub removal: tokio::sync::Mutex<()>,
    memory: Mutex<Memory>,
}

/// The short memory. It begins anew whenever this coordinator begins to lead: what it remembered of
/// an earlier time, others may have changed since.
#[derive(Default)]
pub(crate) struct Memory {
    /// The term in which this coordinator leads or last led.
    term: Option<u64>,
    /// Monotonic time from which it leads: nobody was silent here before.
    pub since: Duration,
    /// Its idea of the catalog's time, from when the catalog could be asked.
    clock: Option<TermClock>,
    /// Whether it was reported that the wall clock is not believed.
    pub jump_told: bool,
    /// Of which coordinators it was reported that their database is damaged.
    pub damage_told: BTreeSet<CoordinatorId>,
    /// Which nodes, that are no members, it was reported of that they call. Members of once, each with a certificate.
    pub strangers_told: BTreeSet<NodeId>,
    pub backoff: Backoff,
    pub logins: Logins,
    pub lookups: Lookups,
    pub sessions: Sessions,
    pub heard: BTreeMap<NodeId, Heard>,
    /// What the leader saw of each node's comings and goings.
    pub steadiness: BTreeMap<NodeId, Steadiness>,
    /// The nodes of all readable layouts.
    pub placed: BTreeMap<PlacedKey, Placed>,
    pub quiet: Quiet,
    /// Monotonic time of the last request that somebody may be waiting for at a screen.
    user_called: Option<Duration>,
    /// Since when devices with slots are known to be gone from their nodes.
    pub gone: BTreeMap<DeviceId, Duration>,
}

/// The last heartbeat of a node.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// Monotonic time.
    pub at: Duration,
    pub heartbeat: HeartbeatRequest,
    /// Number of the feed up to which it may have missed something: it was silent, or stopped, until then.
    pub owes: u64,
}

/// The keys of [`State`], from the catalog's genesis record.
pub(crate) struct Keys {
    pub root: ClusterRoot,
    pub opaque: Opaque,
    pub capability: ed25519_dalek::SigningKey,
}

impl State {
    pub fn new(env: Env, consensus: Consensus, cluster: ClusterId, me: CoordinatorId, keys: Keys, limits: Limits) -> Self {
        let Keys { root, opaque, capability } = keys;
        let dummies = blake3::derive_key("shardkeep 2026 rows of accounts that do not exist", capability.as_bytes());
        State {
            env,
            consensus,
            cluster,
            me,
            root,
            opaque,
            capability,
            dummies,
            limits,
            backups: Backups::default(),
            watchers: Watchers::default(),
            removal: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// The short memory. Never held across an await.
    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        let term = self.consensus.term_led();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if term.is_some() && memory.term != term {
            *memory = Memory { term, since: self.now(), ..Memory::default() };
        }
        memory
    }

    /// The catalog's time as this coordinator would move it on now.
    pub fn log_time(&self) -> LogTime {
        let now = Moment::of(&self.env);
        self.with_clock(|clock| clock.read(now)).unwrap_or(LogTime { ms: now.wall_ms, off: None, is_settled: false })
    }

    /// The catalog's time, milliseconds since 1970: this machine's, unless most servers have another.
    pub fn now_ms(&self) -> u64 {
        self.log_time().ms
    }

    /// The same, for what cannot be taken back. `Unavailable` while this leader does not know yet whose clock is right.
    pub fn settled_ms(&self) -> Result<u64> {
        let time = self.log_time();
        if time.is_settled || !self.consensus.is_leader() {
            return Ok(time.ms);
        }
        Err(Error::unavailable("this coordinator's clock is far from the catalog's time: other servers have to say what theirs show")
            .hint("wait a moment; start the nodes, or set this machine's clock"))
    }

    /// A server of the cluster says what its clock shows; 0: it is of a version that does not say.
    pub fn hear_clock(&self, who: ServerId, wall_ms: u64) {
        let now = self.env.clock.uptime();
        self.with_clock(|clock| clock.hear(who, wall_ms, now));
    }

    /// `None` while this coordinator does not lead, or cannot read its catalog.
    fn with_clock<T>(&self, then: impl FnOnce(&mut TermClock) -> T) -> Option<T> {
        self.consensus.term_led()?;
        if self.memory().clock.is_none() {
            let Ok(Answer::Cluster(view)) = self.consensus.query_local(&Query::Cluster) else { return None };
            let servers = view.coordinators.len() + view.nodes.iter().filter(|n| !n.devices.is_empty()).count();
            let began = TermClock::begin(Moment::of(&self.env), view.time_ms, servers);
            self.memory().clock.get_or_insert(began);
        }
        self.memory().clock.as_mut().map(then)
    }

    /// A user is served now: repair is to go slower for a while.
    pub fn user_called(&self) {
        let now = self.now();
        self.memory().user_called = Some(now);
    }

    /// Whether users were served within the last moments.
    pub fn is_busy(&self) -> bool {
        let now = self.now();
        self.memory().user_called.is_some_and(|at| now.saturating_sub(at) < BUSY)
    }

    pub fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    /// A fresh idempotence key, of the catalog's time: it would be refused for a wall clock that is not
    /// believed.
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.now_ms(), self.env.random())
    }

    /// Changes the catalog in the name of an account (`None`: of the servers themselves).
    pub async fn propose(&self, request: RequestId, account: Option<AccountId>, command: Command) -> Result<Outcome> {
        self.decide(request, account, command).await?
    }

    /// The same, and what the catalog decided apart from that nobody could: see [`Consensus::decide`].
    pub async fn decide(&self, request: RequestId, account: Option<AccountId>, command: Command) -> Result<Applied> {
        let time_ms = self.settled_ms()?;
        self.consensus.decide(Proposal { request, account, command, time_ms }).await
    }

    /// Changes the catalog in the name of the servers, under a fresh idempotence key.
    pub async fn command(&self, command: Command) -> Result<Outcome> {
        self.propose(self.request_id(), None, command).await
    }

    /// Asks the catalog, linearisably.
    pub async fn ask(&self, query: Query) -> Result<Answer> {
        self.consensus.query(query).await
    }

    pub async fn account_by_name(&self, name: &str) -> Result<Option<Box<Account>>> {
        match self.ask(Query::AccountByName(name.into())).await? {
            Answer::Account(account) => Ok(account),
            _ => Err(confused()),
        }
    }

    pub async fn account(&self, id: AccountId) -> Result<Option<Box<Account>>> {
        match self.ask(Query::Account(id)).await? {
            Answer::Account(account) => Ok(account),
            _ => Err(confused()),
        }
    }

    pub async fn view(&self) -> Result<ClusterView> {
        match self.ask(Query::Cluster).await? {
            Answer::Cluster(view) => Ok(*view),
            _ => Err(confused()),
        }
    }

    /// Signs with the capability key.
    pub fn sign(&self, kind: &str, body: &[u8]) -> model::Signature {
        use ed25519_dalek::Signer;
        model::Signature(self.capability.sign(&signed::signing_input(kind, body)).to_bytes())
    }

    /// Writes an event, unless the same one was written within the last minute or its source
    /// (who says it) said too much. Failures are logged only: no caller can do anything about them.
    pub async fn event(&self, source: &str, what: &str, node: Option<NodeId>, detail: String) {
        if let Err(e) = self.try_event(source, what, node, detail).await {
            tracing::warn!(error = %e, "an event could not be written to the catalog");
        }
    }

    /// The same for callers that say it again where it fails.
    pub async fn try_event(&self, source: &str, what: &str, node: Option<NodeId>, detail: String) -> Result<()> {
        let now = self.now();
        let event = format!("{what} {node:?} {detail}");
        let passes = self.memory().quiet.lets(now, source, &event);
        let Some(held) = passes else { return Ok(()) };
        let detail = if held > 0 { format!("{detail} ({held} more of {source} were left out before)") } else { detail };
        tracing::warn!(what, ?node, detail, "event");
        let written = self.command(Command::Report { what: what.into(), node, detail }).await;
        if written.is_err() {
            self.memory().quiet.forget(source, &event);
        }
        written.map(|_| ())
    }
}

/// The catalog answered another question than was asked: a bug, said as an error.
pub(crate) fn confused() -> Error {
    Error::invalid("the catalog's answer does not fit the question")
}
