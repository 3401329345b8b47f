//! What a coordinator works with: the catalog, its keys, and its short memory. The memory may be
//! lost at any time without harm: logins begin again, caches fill again, heartbeats come every second.

use super::backoff::Backoff;
use super::backup::Backups;
use super::changes::Watchers;
use super::clock::Moment;
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
use transport::ClusterRoot;
use wire::coordinator::HeartbeatRequest;

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
    /// Both clocks at that time.
    pub began: Option<Moment>,
    /// Whether it was reported that the wall clock is not believed.
    pub jump_told: bool,
    /// Of which coordinators it was reported that their database is damaged.
    pub damage_told: BTreeSet<CoordinatorId>,
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
            *memory = Memory { term, since: self.now(), began: Some(Moment::of(&self.env)), ..Memory::default() };
        }
        memory
    }

    /// The time to propose, and by how many milliseconds this machine's clock differs from it where it is
    /// not believed.
    pub fn log_time(&self) -> (u64, Option<i64>) {
        let now = Moment::of(&self.env);
        let began = self.memory().began;
        began.map_or((now.wall_ms, None), |began| began.believed(now))
    }

    pub fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    /// A fresh idempotence key, of the catalog's time: it would be refused for a wall clock that is not
    /// believed.
    pub fn request_id(&self) -> RequestId {
        RequestId::new(self.log_time().0, self.env.random())
    }

    /// Changes the catalog in the name of an account (`None`: of the servers themselves).
    pub async fn propose(&self, request: RequestId, account: Option<AccountId>, command: Command) -> Result<Outcome> {
        self.decide(request, account, command).await?
    }

    /// The same, and what the catalog decided apart from that nobody could: see [`Consensus::decide`].
    pub async fn decide(&self, request: RequestId, account: Option<AccountId>, command: Command) -> Result<Applied> {
        self.consensus.decide(Proposal { request, account, command, time_ms: self.log_time().0 }).await
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
        let now = self.now();
        let passes = self.memory().quiet.lets(now, source, &format!("{what} {node:?} {detail}"));
        let Some(held) = passes else { return };
        let detail = if held > 0 { format!("{detail} ({held} more of {source} were left out before)") } else { detail };
        tracing::warn!(what, ?node, detail, "event");
        if let Err(e) = self.command(Command::Report { what: what.into(), node, detail }).await {
            tracing::warn!(error = %e, "an event could not be written to the catalog");
        }
    }
}

/// The catalog answered another question than was asked: a bug, said as an error.
pub(crate) fn confused() -> Error {
    Error::invalid("the catalog's answer does not fit the question")
}
