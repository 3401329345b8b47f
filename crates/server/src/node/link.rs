//! The way from a node to its coordinators: to whichever leads.

use env::Env;
use model::command::{Answer, Query};
use model::{Error, Result};
use std::time::Duration;
use transport::{Coordinators, Pool};
use wire::Rpc;
use wire::coordinator::{AskPeer, ReportPeer, ReportPeerRequest};

/// Deadline of one call to one coordinator.
const DEADLINE: Duration = Duration::from_secs(5);

/// A node's way to the coordinators.
pub(crate) struct Link(Coordinators);

impl Link {
    pub fn new(env: Env, pool: Pool, coordinators: Vec<String>) -> Self {
        Link(Coordinators::new(env, pool, coordinators))
    }

    /// Calls whichever coordinator leads.
    pub async fn rpc<R: Rpc>(&self, request: &R::Request) -> Result<R::Response> {
        self.0.rpc::<R>(request, DEADLINE).await
    }

    pub async fn ask(&self, query: &Query) -> Result<Answer> {
        self.rpc::<AskPeer>(query).await
    }

    /// Tells the event log something. Failures are logged only: nobody waits for it.
    pub async fn report(&self, what: &str, detail: String) {
        tracing::warn!(what, detail, "event");
        let request = ReportPeerRequest { what: what.into(), detail };
        if let Err(e) = self.rpc::<ReportPeer>(&request).await {
            tracing::warn!(error = %e, "an event could not be reported");
        }
    }

    pub fn coordinators(&self) -> Vec<String> {
        self.0.known()
    }

    /// Takes over the cluster's own list. Whether anything is new.
    pub fn learn(&self, addresses: &[String]) -> bool {
        self.0.learn(addresses)
    }
}

/// A coordinator answered another question than was asked.
pub(crate) fn confused() -> Error {
    Error::invalid("the coordinator's answer does not fit the question")
}
