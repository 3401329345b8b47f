//! Why a coordinator can take part no more: its disk has failed or is full, or a bug has shown.
//!
//! After the first failure log and database are good for nothing until they are opened anew: what they
//! hold in memory may not be what is on the disk.

use model::{CoordinatorId, Error, Kind};
use std::sync::Arc;
use tokio::sync::watch;

/// The first failure, once there is one. Clones share it.
#[derive(Clone)]
pub(crate) struct Failure(Arc<watch::Sender<Option<Error>>>);

impl Default for Failure {
    fn default() -> Self {
        Failure(Arc::new(watch::Sender::new(None)))
    }
}

impl Failure {
    /// Notes a failure. The first one stays: those after it follow from it. `Insufficient` where the disk is full,
    /// `Corrupt` where opening it anew cannot help.
    pub fn note(&self, what: impl Into<String>, kind: Kind) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert_with(|| Error::new(kind, what));
            is_first
        });
    }

    /// What failed, as it was noted. For the log: it names paths.
    pub fn get(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    /// Waits for one.
    pub async fn wait(&self) -> Error {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await.map(|first| first.clone()) {
            Ok(Some(first)) => first,
            // Not with a sender in hand.
            _ => std::future::pending().await,
        }
    }
}

/// What whoever asks is told while a coordinator takes no part.
pub(crate) fn not_now(me: CoordinatorId, why: &Error) -> Error {
    let (what, hint) = match why.kind {
        Kind::Insufficient => ("its disk is full", "make room on it; it goes on by itself"),
        _ => ("its disk or its database has failed", "its log says how; it is opened anew by itself"),
    };
    Error::unavailable(format!("coordinator-{me} takes no part at present: {what}")).hint(hint)
}
