//! Watching a space: a question that waits until there is something to answer.
//!
//! The log of changes is part of the catalog, so that a watcher goes on at another coordinator where it
//! stood, and what waits here is nothing but a question: bounded in time and number, checked again for
//! session and membership whenever it wakes.

use super::session::Who;
use super::state::{State, confused};
use model::account::Role;
use model::command::{Answer, Query};
use model::history::Changes;
use model::{AccountId, Error, Result, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::SessionToken;
use wire::watch::{WAIT_MAX_MS, WatchRequest};

/// Most questions of one account that wait: half of what one connection carries.
const EACH: u32 = 32;
/// Most that wait in all.
const ALL: u32 = 4_096;
/// Pause after something was applied: many commits in a row wake a watcher once.
const GATHER: Duration = Duration::from_millis(20);
/// How often a waiting question looks whether it may wait on.
const LOOK: Duration = Duration::from_secs(2);

/// Who waits, by account.
#[derive(Debug, Default, Clone)]
pub(crate) struct Watchers(Arc<Mutex<BTreeMap<AccountId, u32>>>);

/// A place among those who wait; left when dropped.
struct Waiting {
    among: Watchers,
    account: AccountId,
}

impl Watchers {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<AccountId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, account: AccountId) -> Result<Waiting> {
        let mut counts = self.counts();
        let all: u32 = counts.values().sum();
        let mine = counts.entry(account).or_default();
        if all >= ALL || *mine >= EACH {
            counts.retain(|_, n| *n > 0);
            return Err(Error::insufficient("too many watch already"));
        }
        *mine += 1;
        Ok(Waiting { among: self.clone(), account })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut counts = self.among.counts();
        if let Some(n) = counts.get_mut(&self.account) {
            *n = n.saturating_sub(1);
        }
        counts.retain(|_, n| *n > 0);
    }
}

impl State {
    /// The changes of a space after a revision, once there are any.
    pub async fn watch_space(&self, token: SessionToken, request: WatchRequest) -> Result<Changes> {
        let WatchRequest { space, after, wait_ms } = request;
        let who = self.who(&token).await?;
        self.check_member(&who, space, Role::Read).await?;
        let _place = self.watchers.enter(who.account)?;
        let until = self.now() + Duration::from_millis(wait_ms.min(WAIT_MAX_MS));
        let mut applied = self.consensus.applied();
        loop {
            applied.borrow_and_update();
            let told = self.changes(Query::Changes { space, after }).await?;
            if told.upto > after || told.resync || after == u64::MAX || self.now() >= until {
                return Ok(told);
            }
            // From here on only a look at what was applied here, until that says that there is something.
            loop {
                let left = until.saturating_sub(self.now());
                if left.is_zero() || !self.consensus.is_leader() || self.latest(space)? > after {
                    break;
                }
                if self.env.timeout(left.min(LOOK), applied.changed()).await.is_some() {
                    self.env.sleep(GATHER).await;
                    applied.borrow_and_update();
                }
                self.still_allowed(&token, &who, space).await?;
            }
        }
    }

    async fn still_allowed(&self, token: &SessionToken, who: &Who, space: SpaceId) -> Result<()> {
        let now = self.who(token).await?;
        if now.account != who.account {
            return Err(Error::denied("this session has ended"));
        }
        self.check_member(&now, space, Role::Read).await
    }

    async fn changes(&self, query: Query) -> Result<Changes> {
        match self.ask(query).await? {
            Answer::Changes(told) => Ok(*told),
            _ => Err(confused()),
        }
    }

    /// The latest revision of a space, as far as it was applied here.
    fn latest(&self, space: SpaceId) -> Result<u64> {
        match self.consensus.query_local(&Query::Changes { space, after: u64::MAX })? {
            Answer::Changes(told) => Ok(told.upto),
            _ => Err(confused()),
        }
    }
}
