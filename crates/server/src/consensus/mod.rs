//! Agreement among coordinators: the one place that knows openraft.
//!
//! A proposal goes into the Raft log (on the journal: durable when acknowledged), is committed by a
//! majority of coordinators, and is applied to the catalog by each of them in the same order. A
//! query first makes sure that this coordinator still leads (ReadIndex), then reads its own rows.
//! Neither hangs: without a majority both end after [`PATIENCE`] with the reason.

mod failure;
mod incoming;
mod log;
mod machine;
mod membership;
mod peers;
mod restore;
mod roster;
mod runtime;
mod snapshot;
mod types;
mod watch;

use env::Env;
use failure::Failure;
pub(crate) use failure::not_now;
use log::LogStore;
use machine::Machine;
use model::command::{Answer, Applied, Proposal, Query};
use model::{CoordinatorId, Error, Kind, Result};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::raft::ReadPolicy;
use openraft::{Config, Instant, Raft, SnapshotPolicy};
pub(crate) use restore::lay_down;
pub(crate) use roster::{Health, Roster};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use transport::{Mode, Target};
use types::{Entered, TypeConfig};
use wire::raft::{Announce, Announced, Announcement};

/// Applied entries after which the database is made durable.
pub const CHECKPOINT_EVERY: u64 = 1000;
/// Checkpoints after which the log before them is purged.
const SNAPSHOT_EVERY: u64 = 5;
/// How long a change or question waits for a majority.
const PATIENCE: Duration = Duration::from_secs(5);
/// A leader that no majority has answered for so long does not lead any more, whatever it thinks.
const LEASE: Duration = Duration::from_secs(2);
/// Time for another one to take over before this one stops.
const HAND_OVER: Duration = Duration::from_millis(1200);
/// Time for an announcement at one other coordinator.
const ANNOUNCE: Duration = Duration::from_secs(2);

/// How fast the group goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// See [`CHECKPOINT_EVERY`].
    pub checkpoint_every: u64,
    /// Longest time that a message between coordinators takes there and back.
    pub round_trip: Duration,
}

impl Pace {
    /// A heartbeat that is not answered before the next one counts as lost.
    fn heartbeat_ms(&self) -> u64 {
        (self.round_trip.as_millis() as u64 * 5 / 4).max(250)
    }
}

/// A catalog summed up: at the same index it is the same on all coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Index of the last entry that was applied.
    pub index: u64,
    /// The sum over the rows that was kept up with each change.
    pub kept: [u8; 16],
    /// The sum over the rows as they are.
    pub counted: [u8; 16],
}

/// One coordinator's part in the group. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    raft: Raft<TypeConfig, Machine>,
    machine: Machine,
    log: LogStore,
    failure: Failure,
    me: CoordinatorId,
    roster: Roster,
    snapshots: snapshot::Incoming,
}

impl Consensus {
    /// Opens log and catalog under a folder, and takes part. With `found`, a fresh folder begins a
    /// group of one; without, it waits for a leader to take it in. `Corrupt` when the log is damaged: such a coordinator must not vote.
    pub(crate) async fn start(env: Env, dir: &Path, roster: Roster, pace: Pace, found: bool) -> Result<Self> {
        let io = |e: std::io::Error| Error::unavailable(format!("{}: {e}", dir.display()));
        env.disk.create_dir_all(&dir.join("log")).map_err(io)?;
        let failure = Failure::default();
        let log = LogStore::open(&env, dir.join("log"), failure.clone()).await?;
        let (machine, snapshots) = {
            let (env, dir, failure) = (env.clone(), dir.to_path_buf(), failure.clone());
            let open = move || -> Result<(Machine, snapshot::Incoming)> {
                let snapshots = snapshot::Incoming::new(env.clone(), &dir)?;
                let noted = failure.clone();
                let store = crate::store::Store::open(&env, &dir.join("catalog.redb"), move |what, is_full| {
                    noted.note(what, if is_full { Kind::Insufficient } else { Kind::Unavailable });
                })?;
                Ok((Machine::new(env, store, pace.checkpoint_every, failure)?, snapshots))
            };
            roster.env().blocking(open).await?
        };
        check_together(&log, &machine, dir)?;
        let checkpoint_every = pace.checkpoint_every;
        let heartbeat = pace.heartbeat_ms();
        // A follower that hears nothing waits for the lease of the leader, 3.6 heartbeats, and then for 2
        // to 3.6 more before it asks for votes: after a crash another one leads within 3 s where heartbeats
        // are a quarter of a second.
        let config = Config {
            cluster_name: "shardkeep".into(),
            heartbeat_interval: heartbeat,
            election_timeout_min: heartbeat * 2,
            election_timeout_max: heartbeat * 18 / 5,
            enable_pre_vote: Some(true),
            // One that led before its restart would lead on at once, and answer from its last checkpoint
            // questions about what it has acknowledged since. Elected anew it first applies all of it.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY * checkpoint_every),
            max_in_snapshot_log_to_keep: checkpoint_every,
            ..Config::default()
        };
        let config = config.validate().map_err(|e| Error::invalid(format!("consensus settings: {e}")))?;
        let me = roster.me();
        let raft = Raft::new(me.0, Arc::new(config), peers::Peers(roster.clone()), log.clone(), machine.clone());
        let raft = runtime::with_rng(env.rand(), raft).await;
        let raft = raft.map_err(|e| failure.get().unwrap_or_else(|| Error::unavailable(format!("consensus does not start: {e}"))))?;
        let consensus = Consensus { raft, machine, log, failure, me, roster, snapshots };
        consensus.begin(found).await?;
        Ok(consensus)
    }

    /// A fresh group of one; or, after a restart of the only voter, leadership at once; or else
    /// whatever the others decide, later.
    async fn begin(&self, found: bool) -> Result<()> {
        let failed =
            |e: &dyn std::fmt::Display| self.failure.get().unwrap_or_else(|| Error::unavailable(format!("consensus does not start: {e}")));
        let fresh = !self.raft.is_initialized().await.map_err(|e| failed(&e))?;
        if fresh && found {
            let members = BTreeMap::from([(self.me.0, openraft::impls::BasicNode::default())]);
            self.raft.initialize(members).await.map_err(|e| failed(&e))?;
        } else if fresh || !self.is_alone() {
            return Ok(());
        } else if self.leader() != Some(self.me) {
            self.raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
        }
        let wait = self.raft.wait(Some(Duration::from_secs(30)));
        wait.metrics(|m| m.current_leader.is_some(), "a leader").await.map_err(|e| failed(&e))?;
        Ok(())
    }

    fn env(&self) -> &Env {
        self.roster.env()
    }

    /// Whether this coordinator is the only one that votes.
    fn is_alone(&self) -> bool {
        let group = self.group();
        group.voters.len() == 1 && group.voters.contains(&self.me)
    }

    /// Where the others are.
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Proposes a change. Acknowledged only when it is durable on a majority and applied here.
    /// `Unavailable` when this coordinator does not lead, or reaches no majority; whether it will be
    /// applied all the same is then unknown, and the same proposal may be made again.
    pub async fn propose(&self, proposal: Proposal) -> Applied {
        self.decide(proposal).await?
    }

    /// The same, and what was decided apart from that nothing was: the outer error, always `Unavailable`, leaves
    /// open whether the command has been or will be applied. It may be proposed again under the same id only.
    pub async fn decide(&self, proposal: Proposal) -> Result<Applied> {
        if !self.is_leader() {
            return Err(self.cannot());
        }
        match self.env().timeout(PATIENCE, self.raft.client_write(Entered(proposal))).await {
            Some(Ok(written)) => written.data.0.ok_or_else(|| Error::unavailable("the change was not applied")),
            Some(Err(e)) => {
                tracing::debug!(error = %e, "a proposal was not taken");
                Err(self.cannot())
            }
            None => Err(self.cannot()),
        }
    }

    /// Answers a question from a state that was current when it was asked.
    pub async fn query(&self, query: Query) -> Result<Answer> {
        if !self.is_leader() {
            return Err(self.cannot());
        }
        match self.env().timeout(PATIENCE, self.raft.ensure_linearizable(ReadPolicy::ReadIndex)).await {
            Some(Ok(_)) => self.query_local(&query),
            Some(Err(e)) => {
                tracing::debug!(error = %e, "a question could not be answered");
                Err(self.cannot())
            }
            None => Err(self.cannot()),
        }
    }

    /// Why this coordinator neither takes changes nor answers questions at present.
    fn cannot(&self) -> Error {
        let me = self.me;
        if let Some(why) = self.failure.get() {
            return not_now(me, &why);
        }
        if let Some(leader) = self.leader().filter(|leader| *leader != me) {
            let place = self.roster.address(leader).map(|a| format!(" at {a}")).unwrap_or_default();
            return Error::unavailable(format!("coordinator-{me} does not lead: coordinator-{leader}{place} does"));
        }
        let group = self.group();
        let (live, silent): (Vec<_>, Vec<_>) = group.voters.iter().copied().partition(|id| self.roster.is_live(*id));
        if live.len() * 2 > group.voters.len() {
            return Error::unavailable("no coordinator leads at present: one is being elected");
        }
        let place = |id: &CoordinatorId| match self.roster.address(*id) {
            Some(address) => format!("coordinator-{id} at {address}"),
            None => format!("coordinator-{id}"),
        };
        let silent: Vec<String> = silent.iter().map(place).collect();
        Error::unavailable(format!(
            "this coordinator reaches {} of {} coordinators, no majority: it can neither change the catalog nor vouch for it",
            live.len(),
            group.voters.len()
        ))
        .hint(format!("start {}", silent.join(" or ")))
    }

    /// Waits until this coordinator can take no part any more, and says why. Log and catalog are to be opened anew
    /// then, after a [`Consensus::shutdown`].
    pub(crate) fn failed(&self) -> impl Future<Output = Error> + Send + use<> {
        let (failure, mut metrics) = (self.failure.clone(), self.raft.metrics());
        // Whatever fails in the disk is noted. What is left are openraft's own failures.
        let stopped = async move {
            loop {
                let state = metrics.borrow_watched().running_state.clone();
                match state {
                    Ok(()) if metrics.changed().await.is_ok() => {}
                    Ok(()) => return Error::unavailable("consensus has stopped, which is a bug"),
                    // Told to.
                    Err(Fatal::Stopped) => return std::future::pending().await,
                    Err(e) => return Error::unavailable(format!("consensus has stopped: {e}")),
                }
            }
        };
        async move { futures::future::select(pin!(failure.wait()), pin!(stopped)).await.factor_first().0 }
    }

    /// Answers from what was applied here, however old.
    pub fn query_local(&self, query: &Query) -> Result<Answer> {
        catalog::query(&self.machine.view()?, query)
    }

    /// A consistent view of the rows as they were applied here.
    pub(crate) fn view(&self) -> Result<crate::store::View> {
        self.machine.view()
    }

    /// Who leads, as far as this coordinator knows. Not one that has fallen silent.
    pub fn leader(&self) -> Option<CoordinatorId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // One that was removed while it led still holds the vote by which it did.
        let leader = metrics.current_leader.filter(|id| *id != self.me.0 || metrics.state.is_leader());
        leader.map(CoordinatorId).filter(|id| self.roster.is_live(*id))
    }

    /// Whether this coordinator believes that it leads.
    pub fn is_leader(&self) -> bool {
        self.term_led().is_some()
    }

    /// The term in which this coordinator leads, as it believes.
    pub(crate) fn term_led(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.state.is_leader().then_some(metrics.current_term)
    }

    /// Whether this coordinator leads, and a majority has said so within the last moments.
    pub(crate) fn surely_leads(&self) -> bool {
        let acknowledged = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.state.is_leader() && metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < LEASE)
        };
        acknowledged || (self.is_leader() && self.is_alone())
    }

    /// What was applied here, summed up.
    pub(crate) fn digest(&self) -> Result<Digest> {
        self.machine.digest()
    }

    /// Index of the last entry applied here.
    pub fn applied_index(&self) -> u64 {
        self.machine.applied_index()
    }

    /// Tells of each batch of entries that was applied here.
    pub(crate) fn applied(&self) -> tokio::sync::watch::Receiver<u64> {
        self.machine.applied()
    }

    /// Makes what was applied so far durable, so that the next start finds it without the log.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.machine.checkpoint().await
    }

    /// The same where anything was applied since the last time.
    pub(crate) async fn checkpoint_if_behind(&self) -> Result<()> {
        if self.machine.is_behind() { self.machine.checkpoint().await } else { Ok(()) }
    }

    /// Takes over what the catalog, as far as it was applied here, says of where the others are.
    /// Whether it lists this coordinator.
    pub(crate) fn read_roster(&self) -> Result<Option<model::cluster::Coordinator>> {
        let Answer::Cluster(view) = self.query_local(&Query::Cluster)? else { return Ok(None) };
        view.coordinators.iter().for_each(|c| self.roster.listed(c.id, &c.address));
        Ok(view.coordinators.into_iter().find(|c| c.id == self.me))
    }

    /// Tells the others where this coordinator is, until the leader has taken it down. Whether it is
    /// one of the cluster's still.
    pub(crate) async fn announce(&self, address: &str) -> Result<bool> {
        let roster::Health { damaged, short_of_room } = self.roster.health();
        let (head, version) = (self.roster.head(), env!("CARGO_PKG_VERSION").into());
        let now_ms = self.env().now_ms();
        let message = Announcement { head, address: address.into(), version, damaged, short_of_room, now_ms };
        let mut last = self.cannot();
        for (id, _) in self.roster.all() {
            let peer = peers::Peer { id, roster: self.roster.clone() };
            match peer.call::<Announce>(Mode::Control, &message, bytes::Bytes::new(), ANNOUNCE).await {
                Ok((announced, _)) => return Ok(self.was_taken_down(&announced)),
                Err(e) => last = e,
            }
        }
        // Those may all have gone, and others serve where they were: whoever it is knows who leads.
        let Some((pool, leader)) = self.roster.leader_by_address().await else { return Err(last) };
        let announced = pool.rpc::<Announce>(&Target::coordinator(leader), &message, ANNOUNCE).await?;
        Ok(self.was_taken_down(&announced))
    }

    /// Takes over where the leader says that the others are. Whether this one is one of the cluster's still.
    fn was_taken_down(&self, announced: &Announced) -> bool {
        announced.places.iter().for_each(|(id, address)| self.roster.hint(*id, address));
        !announced.removed
    }

    /// `Invalid` unless a message is about this group, in a protocol that is spoken here.
    pub(crate) fn check_head(&self, head: &wire::raft::Head) -> Result<()> {
        head.check(types::GROUP)
    }

    /// Gives up transfers of snapshots that stopped half-way.
    pub(crate) async fn sweep(&self) {
        self.snapshots.sweep().await;
    }

    /// Lets another one lead, where there is one that can: for a stop that nobody notices.
    pub(crate) async fn hand_over(&self) {
        if let Some(best) = self.successor(true).or_else(|| self.successor(false)) {
            self.hand_over_to(best).await;
        }
    }

    /// Lets one lead whose database is not damaged, where there is one that can.
    pub(crate) async fn yield_to_sound(&self) {
        if let Some(best) = self.successor(true).filter(|best| self.is_near(*best)) {
            self.hand_over_to(best).await;
        }
    }

    /// Of those that vote and answer, who is the least behind; `None` unless this one leads.
    fn successor(&self, sound: bool) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (voters, damaged) = (membership::group_of(&metrics).voters, self.roster.damaged());
        let matched = metrics.replication.as_ref().filter(|_| metrics.state.is_leader());
        let others = matched.into_iter().flatten().filter(|(id, _)| {
            let id = CoordinatorId(**id);
            voters.contains(&id) && id != self.me && self.roster.is_live(id) && !(sound && damaged.contains(&id))
        });
        others.max_by_key(|(id, matched)| (matched.as_ref().map(|m| m.index), **id)).map(|(id, _)| *id)
    }

    /// Whether one has nearly all of this leader's log.
    fn is_near(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|r| r.get(&id)).and_then(|m| m.as_ref());
        matched.is_some_and(|m| m.index + membership::LAG >= metrics.last_log_index.unwrap_or(0))
    }

    async fn hand_over_to(&self, best: u64) {
        tracing::info!(to = best, "another coordinator takes over");
        let asked = self.env().timeout(HAND_OVER, self.raft.trigger().transfer_leader(best)).await;
        if asked.is_some_and(|asked| asked.is_ok()) {
            let wait = self.raft.wait(Some(HAND_OVER));
            let other = wait.metrics(|m| m.current_leader.is_some_and(|l| l != self.me.0), "another leader").await;
            if other.is_err() {
                tracing::warn!("no other coordinator took over in time");
            }
        }
    }

    /// Takes no part any more; what was applied can still be read.
    pub(crate) async fn leave(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(error = %e, "consensus did not stop cleanly");
        }
    }

    /// Stops taking part, makes the catalog durable and closes the log.
    pub async fn shutdown(&self) {
        self.leave().await;
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
