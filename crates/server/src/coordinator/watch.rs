//! What a coordinator does by itself: the failure detector every second, and log time moved on when
//! nobody else moves it.

use super::detector::{judge, worth_a_command};
use super::state::State;
use model::cluster::NodeState;
use model::command::{Answer, Command, Query};
use model::{NodeId, Result};
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
        state.env.sleep(ROUND).await;
        if !state.consensus.is_leader() {
            continue;
        }
        if let Err(e) = state.detect().await {
            tracing::debug!(error = %e, "the failure detector could not do its round");
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
    async fn detect(&self) -> Result<()> {
        for report in self.reports().await? {
            let Some((stored, now)) = report.1 else { continue };
            if worth_a_command(stored, now) {
                tracing::info!(node = %report.0, ?stored, ?now, "a node changes its state");
                self.command(Command::SetNodeState { node: report.0, state: now }).await?;
            }
        }
        Ok(())
    }

    /// Each node with its state in the catalog and its state now; `None`: never heard of since it
    /// joined, so nothing to judge.
    async fn reports(&self) -> Result<Vec<(NodeId, Option<(NodeState, NodeState)>)>> {
        let view = self.view().await?;
        let now = self.now();
        let laid_out = !view.layouts.is_empty();
        let heard = |node| self.memory().heard.get(&node).map(|h| h.at);
        let report = |n: &model::cluster::Node| {
            // After a restart silence begins anew: nobody is down because this coordinator was.
            let silent = now.saturating_sub(heard(n.id).unwrap_or(self.started));
            let joined = !n.devices.is_empty();
            let holds_slots = laid_out && n.state != NodeState::Joining;
            (n.id, joined.then(|| (n.state, judge(&self.limits, n.state, silent, holds_slots))))
        };
        Ok(view.nodes.iter().map(report).collect())
    }

    /// What `cluster status` shows.
    pub async fn status(&self, token: SessionToken) -> Result<StatusResponse> {
        self.who(&token).await?;
        let mut cluster = self.view().await?;
        cluster.leader = self.consensus.leader();
        let Answer::Totals(totals) = self.ask(Query::Totals).await? else { return Err(super::state::confused()) };
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
                }
            })
            .collect();
        let coordinators = cluster.coordinators.iter().map(|c| (c.id, c.id == self.me || Some(c.id) == cluster.leader)).collect();
        Ok(StatusResponse { cluster, totals, nodes, coordinators })
    }
}
