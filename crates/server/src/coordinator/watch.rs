//! What a coordinator does by itself: the failure detector every second, and log time moved on when
//! nobody else moves it.

use super::detector::{judge, worth_a_command};
use super::state::{State, confused};
use model::cluster::NodeState;
use model::command::{Answer, Command, Query};
use model::{Epoch, NodeId, Result};
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
        let holders = self.holders(&view.layouts).await?;
        let now = self.now();
        let heard = |node| self.memory().heard.get(&node).map(|h| h.at);
        let report = |n: &model::cluster::Node| {
            // After a restart silence begins anew: nobody is down because this coordinator was.
            let silent = now.saturating_sub(heard(n.id).unwrap_or(self.started));
            let joined = !n.devices.is_empty();
            (n.id, joined.then(|| (n.state, judge(&self.limits, n.state, silent, holders.contains(&n.id)))))
        };
        Ok(view.nodes.iter().map(report).collect())
    }

    /// Nodes that hold slots in any layout. A layout is fetched once an epoch: it is long.
    async fn holders(&self, layouts: &[(u8, Epoch)]) -> Result<BTreeSet<NodeId>> {
        for (width, epoch) in layouts {
            if self.memory().holders.get(width).is_some_and(|(known, _)| known == epoch) {
                continue;
            }
            let Answer::Layout(Some(layout)) = self.ask(Query::Layout(*width)).await? else { return Err(confused()) };
            let filled: BTreeSet<u16> = layout.slot_indexes().into_iter().collect();
            let nodes = filled.iter().filter_map(|slot| layout.devices.get(*slot as usize)).map(|d| d.node).collect();
            self.memory().holders.insert(*width, (layout.epoch, nodes));
        }
        Ok(self.memory().holders.values().flat_map(|(_, nodes)| nodes.iter().copied()).collect())
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
                }
            })
            .collect();
        let coordinators = cluster.coordinators.iter().map(|c| (c.id, c.id == self.me || Some(c.id) == cluster.leader)).collect();
        Ok(StatusResponse { cluster, totals, nodes, coordinators })
    }
}
