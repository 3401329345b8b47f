//! The way from a node to its coordinators: to whichever leads.
//!
//! What the catalog says of objects is believed only from the coordinator whose last heartbeat's answer was looked
//! at: after a restore from a backup an old coordinator may be switched on again, which says that it leads, and of
//! what its own catalog does not know that it is dead.

use env::Env;
use model::command::{Answer, Query};
use model::{Error, Result};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use transport::{Coordinators, Pool};
use wire::Rpc;
use wire::coordinator::{AskPeer, Heartbeat, HeartbeatRequest, HeartbeatResponse, ReportPeer, ReportPeerRequest};

/// Deadline of one call to one coordinator.
const DEADLINE: Duration = Duration::from_secs(5);

/// A node's way to the coordinators.
pub(crate) struct Link {
    coordinators: Coordinators,
    /// Where the coordinator is whose life the brake has judged; `None` before the first heartbeat.
    followed: Mutex<Option<String>>,
}

impl Link {
    pub fn new(env: Env, pool: Pool, coordinators: Vec<String>) -> Self {
        Link { coordinators: Coordinators::new(env, pool, coordinators), followed: Mutex::default() }
    }

    /// Calls whichever coordinator leads.
    pub async fn rpc<R: Rpc>(&self, request: &R::Request) -> Result<R::Response> {
        self.coordinators.rpc::<R>(request, DEADLINE).await
    }

    /// Asks the catalog. `Unavailable` where another coordinator answers than the one that is followed.
    pub async fn ask(&self, query: &Query) -> Result<Answer> {
        let (from, answer) = self.coordinators.rpc_from::<AskPeer>(query, DEADLINE).await?;
        let followed = self.followed().clone();
        match followed.is_none_or(|followed| followed == from) {
            true => Ok(answer),
            false => Err(Error::unavailable(format!("the coordinator at {from} has answered no heartbeat yet"))),
        }
    }

    /// A heartbeat, with where the coordinator is that answers.
    pub async fn beat(&self, request: &HeartbeatRequest) -> Result<(String, HeartbeatResponse)> {
        self.coordinators.rpc_from::<Heartbeat>(request, DEADLINE).await
    }

    /// From now on the catalog of the coordinator at an address is believed, as far as the brake lets it.
    pub fn follow(&self, address: String) {
        *self.followed() = Some(address);
    }

    fn followed(&self) -> MutexGuard<'_, Option<String>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.coordinators.known()
    }

    /// Takes over the cluster's own list. Whether anything is new.
    pub fn learn(&self, addresses: &[String]) -> bool {
        self.coordinators.learn(addresses)
    }
}

/// A coordinator answered another question than was asked.
pub(crate) fn confused() -> Error {
    Error::invalid("the coordinator's answer does not fit the question")
}
