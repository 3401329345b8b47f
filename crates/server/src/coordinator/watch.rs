//! What a coordinator does by itself: the failure detector every second, changes of the layouts begun and
//! ended, and log time moved on when nobody else moves it.

use super::detector::{Standing, judge, worth_a_command};
use super::state::{State, confused};
use model::cluster::NodeState;
use model::command::{Answer, Command, Query};
use model::{CoordinatorId, NodeId, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use wire::SessionToken;
use wire::coordinator::{NodeReport, StatusResponse};

/// Pause between two rounds of the failure detector.
const ROUND: Duration = Duration::from_secs(1);
/// Rounds between two ticks of log time.
const ROUNDS_A_TICK: u64 = 10;

/// Runs until the process stops.
pub(crate) async fn run(state: Arc<State>) {
    for round in 1u64.. {
        let began = state.now();
        state.env.sleep(ROUND).await;
        let stood_still = state.now().saturating_sub(began) > 2 * ROUND;
        state.backups.sweep(state.now());
        if !state.consensus.is_leader() {
            continue;
        }
        state.watch_clock().await;
        state.watch_databases().await;
        // Who stood still itself cannot tell others' silence from its own: what they sent meanwhile is taken in first.
        let detected = if stood_still { Ok(()) } else { state.detect().await };
        if let Err(e) = detected {
            tracing::debug!(error = %e, "the failure detector could not do its round");
        }
        if let Err(e) = state.tend_layouts().await {
            tracing::debug!(error = %e, "the layouts could not be looked after");
        }
        if round.is_multiple_of(ROUNDS_A_TICK) {
            state.lay_out_if_possible().await;
            if let Err(e) = state.command(Command::Tick).await {
                tracing::debug!(error = %e, "log time could not be moved on");
            }
        }
    }
}

impl State {
    /// Says once that this machine's clock is not believed.
    async fn watch_clock(&self) {
        let time = self.log_time();
        let Some(off) = time.off.filter(|_| time.is_settled).filter(|_| !std::mem::replace(&mut self.memory().jump_told, true)) else {
            return;
        };
        let hours = off.unsigned_abs() / 3_600_000;
        let way = if off > 0 { "ahead" } else { "behind" };
        let detail = format!("the clock of coordinator-{} is {hours} h {way}: it is not believed; set it right", self.me);
        self.event("coordinator", "clock-jump", None, detail).await;
    }

    /// Members of the group whose database is damaged.
    fn damaged(&self) -> BTreeSet<CoordinatorId> {
        self.members(self.consensus.roster().damaged())
    }

    fn members(&self, mut of: BTreeSet<CoordinatorId>) -> BTreeSet<CoordinatorId> {
        let group = self.consensus.group();
        of.retain(|id| group.has(*id));
        of
    }

    /// Says once whose database is damaged.
    async fn watch_databases(&self) {
        let damaged = self.damaged();
        let told = std::mem::replace(&mut self.memory().damage_told, damaged.clone());
        for id in damaged.difference(&told) {
            let detail = format!("the catalog of coordinator-{id} is damaged: replace it");
            self.event("coordinator", "catalog-damaged", None, detail).await;
        }
    }

    async fn detect(&self) -> Result<()> {
        self.observe().await?;
        for report in self.reports().await? {
            let Some((stored, now)) = report.1 else { continue };
            if worth_a_command(stored, now) {
                tracing::info!(node = %report.0, ?stored, ?now, "a node changes its state");
                self.command(Command::SetNodeState { node: report.0, state: now }).await?;
            }
        }
        Ok(())
    }

    /// Takes in who was heard when, for whoever comes and goes too often.
    async fn observe(&self) -> Result<()> {
        let nodes = self.view().await?.nodes;
        let now = self.now();
        let memory = &mut *self.memory();
        memory.steadiness.retain(|id, _| nodes.iter().any(|n| n.id == *id));
        for node in nodes {
            let silent = now.saturating_sub(memory.heard.get(&node.id).map_or(memory.since, |h| h.at));
            memory.steadiness.entry(node.id).or_default().observe(&self.limits, now, silent);
        }
        Ok(())
    }

    /// Each node with its state in the catalog and its state now; `None`: never heard of since it
    /// joined, so nothing to judge.
    async fn reports(&self) -> Result<Vec<(NodeId, Option<(NodeState, NodeState)>)>> {
        let view = self.view().await?;
        let members: BTreeSet<NodeId> = self.readable(&view).await?.values().flat_map(|r| r.members()).collect();
        let now = self.now();
        let memory = self.memory();
        let report = |n: &model::cluster::Node| {
            // Heartbeats went to whoever led before: silence begins when this coordinator begins to lead.
            let silent = now.saturating_sub(memory.heard.get(&n.id).map_or(memory.since, |h| h.at));
            let flapping = memory.steadiness.get(&n.id).is_some_and(|s| s.is_flapping(now));
            let (member, heard) = (members.contains(&n.id), memory.heard.contains_key(&n.id));
            let standing = Standing { stored: n.state, member, draining: n.draining, leaving: n.leaving, heard };
            let joined = !n.devices.is_empty();
            (n.id, joined.then(|| (n.state, judge(&self.limits, standing, silent, flapping))))
        };
        Ok(view.nodes.iter().map(report).collect())
    }

    /// What `cluster status` shows.
    pub async fn status(&self, token: SessionToken) -> Result<StatusResponse> {
        self.who(&token).await?;
        let mut cluster = self.view().await?;
        cluster.leader = self.consensus.leader();
        let Answer::Totals(totals) = self.ask(Query::Totals).await? else { return Err(confused()) };
        let states = self.reports().await?;
        let now = self.now();
        let memory = self.memory();
        let nodes = states
            .into_iter()
            .map(|(node, state)| {
                let heard = memory.heard.get(&node);
                NodeReport {
                    node,
                    state: state.map_or(NodeState::Joining, |(_, now)| now),
                    silent_ms: heard.map(|h| now.saturating_sub(h.at).as_millis() as u64),
                    heartbeat: heard.map(|h| h.heartbeat.clone()),
                    owes: heard.map_or(0, |h| h.owes),
                }
            })
            .collect();
        let listed: Vec<CoordinatorId> = cluster.coordinators.iter().map(|c| c.id).collect();
        let coordinators = listed.iter().map(|id| (*id, self.consensus.roster().is_live(*id))).collect();
        let learners = self.consensus.without_vote(&listed).into_iter().collect();
        let damaged = self.damaged().into_iter().collect();
        let short_of_room = self.members(self.consensus.roster().short_of_room()).into_iter().collect();
        Ok(StatusResponse { cluster, totals, nodes, coordinators, learners, damaged, short_of_room })
    }
}
