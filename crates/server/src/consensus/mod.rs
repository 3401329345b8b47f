//! Agreement among coordinators: the one place that knows openraft.
//!
//! A proposal goes into the Raft log (on the journal: durable when acknowledged), is committed by a
//! majority of coordinators, and is applied to the catalog by each of them in the same order. A
//! query first makes sure that this coordinator still leads (ReadIndex), then reads its own rows.

mod log;
mod machine;
mod peers;
mod runtime;
mod types;

use env::Env;
use log::LogStore;
use machine::Machine;
use model::command::{Answer, Applied, Proposal, Query};
use model::{CoordinatorId, Error, Result};
use openraft::raft::ReadPolicy;
use openraft::{Config, Raft, SnapshotPolicy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use types::{Entered, TypeConfig};

/// Applied entries after which the database is made durable.
pub const CHECKPOINT_EVERY: u64 = 1000;
/// Checkpoints after which the log before them is purged.
const SNAPSHOT_EVERY: u64 = 5;

/// One coordinator's part in the group. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft<TypeConfig, Machine>,
    machine: Machine,
    log: LogStore,
    me: CoordinatorId,
}

impl Consensus {
    /// Opens log and catalog under a folder, and takes part. A fresh folder begins a group of one.
    /// `checkpoint_every`: see [`CHECKPOINT_EVERY`]. `Corrupt` when the log is damaged: such a
    /// coordinator must not vote.
    pub async fn start(env: Env, dir: &Path, me: CoordinatorId, checkpoint_every: u64) -> Result<Self> {
        let io = |e: std::io::Error| Error::unavailable(format!("{}: {e}", dir.display()));
        env.disk.create_dir_all(&dir.join("log")).map_err(io)?;
        let log = LogStore::open(&env, dir.join("log")).await?;
        let machine = {
            let (env, path) = (env.clone(), dir.join("catalog.redb"));
            env.clone().blocking(move || Machine::new(env.clone(), crate::store::Store::open(&env, &path)?, checkpoint_every)).await?
        };
        check_together(&log, &machine, dir)?;
        let config = Config {
            cluster_name: "shardkeep".into(),
            heartbeat_interval: 300,
            election_timeout_min: 1000,
            election_timeout_max: 2000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY * checkpoint_every),
            max_in_snapshot_log_to_keep: checkpoint_every,
            ..Config::default()
        };
        let config = config.validate().map_err(|e| Error::invalid(format!("consensus settings: {e}")))?;
        let raft = Raft::new(me.0, Arc::new(config), peers::Peers, log.clone(), machine.clone());
        let raft = runtime::with_rng(env.rand(), raft).await.map_err(|e| Error::unavailable(format!("consensus does not start: {e}")))?;
        let consensus = Consensus { raft, machine, log, me };
        consensus.begin().await?;
        Ok(consensus)
    }

    /// A fresh group of one; or, after a restart of the only voter, leadership at once.
    async fn begin(&self) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::unavailable(format!("consensus does not start: {e}"));
        let fresh = !self.raft.is_initialized().await.map_err(|e| failed(&e))?;
        if fresh {
            let members = BTreeMap::from([(self.me.0, openraft::impls::BasicNode::default())]);
            self.raft.initialize(members).await.map_err(|e| failed(&e))?;
        } else if !self.is_leader() {
            self.raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
        }
        let wait = self.raft.wait(Some(Duration::from_secs(30)));
        wait.metrics(|m| m.current_leader.is_some(), "a leader").await.map_err(|e| failed(&e))?;
        Ok(())
    }

    /// Proposes a change. Acknowledged only when it is durable on a majority and applied here.
    /// `Unavailable` when this coordinator does not lead.
    pub async fn propose(&self, proposal: Proposal) -> Applied {
        match self.raft.client_write(Entered(proposal)).await {
            Ok(written) => written.data.0.unwrap_or_else(|| Err(Error::unavailable("the change was not applied"))),
            Err(e) => Err(Error::unavailable(format!("this coordinator cannot take changes now: {e}"))),
        }
    }

    /// Answers a question from a state that was current when it was asked.
    pub async fn query(&self, query: Query) -> Result<Answer> {
        let ready = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        ready.map_err(|e| Error::unavailable(format!("this coordinator cannot answer now: {e}")))?;
        self.query_local(&query)
    }

    /// Answers from what was applied here, however old.
    pub fn query_local(&self, query: &Query) -> Result<Answer> {
        catalog::query(&self.machine.view()?, query)
    }

    /// Who leads, as far as this coordinator knows.
    pub fn leader(&self) -> Option<CoordinatorId> {
        use openraft::async_runtime::watch::WatchReceiver;
        self.raft.metrics().borrow_watched().current_leader.map(CoordinatorId)
    }

    /// Whether this coordinator leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.me)
    }

    /// Index of the last entry applied here.
    pub fn applied_index(&self) -> u64 {
        self.machine.applied_index()
    }

    /// Stops taking part, makes the catalog durable and closes the log.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "consensus did not stop cleanly");
        }
        if let Err(e) = self.machine.checkpoint().await {
            tracing::warn!(error = %e, "the catalog could not be made durable at the end; the log has it");
        }
        self.log.close().await;
    }
}

/// Log and catalog must belong together: with either of them lost, this coordinator would have
/// forgotten votes or changes that it acknowledged.
fn check_together(log: &LogStore, machine: &Machine, dir: &Path) -> Result<()> {
    let lost = |what: &str| {
        Err(Error::corrupt(format!("{}: {what}: this coordinator must not vote", dir.display()))
            .hint("rebuild this coordinator under a new id; with a lone coordinator restore a backup"))
    };
    if machine.applied_index() > 0 && !log.has_vote() {
        return lost("there is a catalog, but its log is gone");
    }
    if log.purged_index() > machine.applied_index() {
        return lost("there is a log, but the catalog that it continues is gone");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
