//! The way from a node to its coordinators: tries each one that it knows, the last that answered first.

use model::command::{Answer, Query};
use model::{Error, Kind, Result};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use transport::{Mode, Pool, Target};
use wire::Rpc;
use wire::coordinator::{AskPeer, ReportPeer, ReportPeerRequest};

/// Deadline of one call to one coordinator.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most coordinators remembered.
const MOST: usize = 16;

/// A node's way to the coordinators.
pub(crate) struct Link {
    pool: Pool,
    /// The one that answered last comes first.
    coordinators: Mutex<Vec<String>>,
}

impl Link {
    pub fn new(pool: Pool, coordinators: Vec<String>) -> Self {
        Link { pool, coordinators: Mutex::new(coordinators) }
    }

    /// Calls a coordinator; when it does not answer, the next.
    pub async fn rpc<R: Rpc>(&self, request: &R::Request) -> Result<R::Response>
    where
        R::Request: Sync,
    {
        let mut last = Error::unavailable("this node knows no coordinator");
        for address in self.coordinators() {
            let target = Target::coordinator(&address).with(Mode::Control);
            match self.pool.rpc::<R>(&target, request, DEADLINE).await {
                Ok(answer) => {
                    self.prefer(&address);
                    return Ok(answer);
                }
                Err(e) if e.kind == Kind::Unavailable => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
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
        self.coordinators.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prefer(&self, address: &str) {
        let mut all = self.coordinators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|a| a == address) {
            all[..=at].rotate_right(1);
        }
    }

    /// Takes over the cluster's own list; those that it leaves out stay as a last resort, so that a
    /// node with addresses from the command line is never cut off by a wrong list. Whether anything
    /// is new.
    pub fn learn(&self, addresses: &[String]) -> bool {
        let mut all = self.coordinators.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: Vec<&String> = addresses.iter().filter(|a| !all.contains(a)).collect();
        let any = !fresh.is_empty();
        let fresh: Vec<String> = fresh.into_iter().cloned().collect();
        all.extend(fresh);
        all.truncate(MOST);
        any
    }
}

/// A coordinator answered another question than was asked.
pub(crate) fn confused() -> Error {
    Error::invalid("the coordinator's answer does not fit the question")
}
