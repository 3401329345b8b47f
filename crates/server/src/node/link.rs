//! The way from a node to its coordinators: to whichever leads.
//!
//! What the catalog says of objects is believed only from the coordinator whose last heartbeat's answer was looked
//! at: after a restore from a backup an old coordinator may be switched on again, which says that it leads, and of
//! what its own catalog does not know that it is dead.

use env::Env;
use model::command::{Answer, Query};
use model::{Error, Kind, Result};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use transport::{Coordinators, Pool};
use wire::Rpc;
use wire::coordinator::{AskPeer, Heartbeat, HeartbeatRequest, HeartbeatResponse, ReportPeer, ReportPeerRequest};

/// Deadline of one call to one coordinator.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most events kept until a coordinator answers. Later ones are in this process's log only.
const UNTOLD: usize = 256;
/// Pause until they are tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// A node's way to the coordinators.
pub(crate) struct Link {
    coordinators: Coordinators,
    /// Where the coordinator is whose life the brake has judged; `None` before the first heartbeat.
    followed: Mutex<Option<String>>,
    /// Events that no coordinator has written down yet, oldest first.
    untold: Mutex<VecDeque<ReportPeerRequest>>,
}

impl Link {
    pub fn new(env: Env, pool: Pool, coordinators: Vec<String>) -> Self {
        Link { coordinators: Coordinators::new(env, pool, coordinators), followed: Mutex::default(), untold: Mutex::default() }
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

    /// Tells the event log something: now, or later where no coordinator writes it down now.
    /// At least once: one whose answer is lost may be there twice.
    pub async fn report(&self, what: &str, detail: String) {
        tracing::warn!(what, detail, "event");
        {
            let mut untold = self.untold();
            if untold.len() >= UNTOLD {
                tracing::warn!("too many events wait to be told: this one will not be");
                return;
            }
            untold.push_back(ReportPeerRequest { what: what.into(), detail });
        }
        self.tell().await;
    }

    /// Tells again and again what nobody has written down yet, until the process stops.
    pub async fn keep_telling(&self, env: &Env) {
        loop {
            env.sleep(AGAIN).await;
            self.tell().await;
        }
    }

    async fn tell(&self) {
        loop {
            let Some(event) = self.untold().pop_front() else { return };
            match self.rpc::<ReportPeer>(&event).await {
                Ok(_) => {}
                Err(e) if e.kind == Kind::Unavailable => {
                    tracing::debug!(error = %e, "an event is told later");
                    self.untold().push_front(event);
                    return;
                }
                Err(e) => tracing::warn!(error = %e, "an event was refused"),
            }
        }
    }

    fn untold(&self) -> MutexGuard<'_, VecDeque<ReportPeerRequest>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
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
