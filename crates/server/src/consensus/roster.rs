//! Where the other coordinators are, and when each was last heard.
//!
//! Addresses come from the catalog, from the membership of the group, from the card of the last run,
//! and from a coordinator itself when it announces that it has moved; the newest word counts. What
//! was heard is short memory: by the monotonic clock of this process; so is how each says that it is.

use super::types::GROUP;
use env::Env;
use model::CoordinatorId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use transport::{Coordinators, Pool};
use wire::raft::Head;

/// A coordinator that was not heard for so long is not counted on.
const SILENT: Duration = Duration::from_secs(3);

/// The other coordinators. Clones share what is known.
#[derive(Clone)]
pub(crate) struct Roster(Arc<Inner>);

struct Inner {
    env: Env,
    me: CoordinatorId,
    places: Mutex<BTreeMap<CoordinatorId, Place>>,
    pool: OnceLock<Pool>,
}

#[derive(Default)]
struct Place {
    address: String,
    /// What the catalog last said: only another word of it replaces what the coordinator says itself.
    listed: String,
    heard: Option<Duration>,
    health: Health,
}

/// What a coordinator says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Its database is not what it was.
    pub damaged: bool,
    /// There is little room left on its disk.
    pub short_of_room: bool,
}

impl Roster {
    /// Of a coordinator that knows nobody yet.
    pub fn new(env: Env, me: CoordinatorId) -> Self {
        Roster(Arc::new(Inner { env, me, places: Mutex::default(), pool: OnceLock::new() }))
    }

    /// This coordinator.
    pub fn me(&self) -> CoordinatorId {
        self.0.me
    }

    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// From now on others can be called. The first pool counts.
    pub fn connect(&self, pool: Pool) {
        let _ = self.0.pool.set(pool);
    }

    /// The way to others; `None` before this coordinator has a certificate.
    pub fn pool(&self) -> Option<&Pool> {
        self.0.pool.get()
    }

    /// The head of every message.
    pub fn head(&self) -> Head {
        Head::new(GROUP)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<CoordinatorId, Place>> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A coordinator says itself where it is.
    pub fn moved(&self, id: CoordinatorId, address: &str) {
        if id != self.0.me && !address.is_empty() {
            self.places().entry(id).or_default().address = address.into();
        }
    }

    /// The catalog lists it there.
    pub fn listed(&self, id: CoordinatorId, address: &str) {
        if id == self.0.me || address.is_empty() {
            return;
        }
        let mut places = self.places();
        let place = places.entry(id).or_default();
        if place.listed != address {
            place.listed = address.into();
            place.address = address.into();
        }
    }

    /// Somebody remembers it there: better than nothing.
    pub fn hint(&self, id: CoordinatorId, address: &str) {
        if id != self.0.me && !address.is_empty() && self.address(id).is_none() {
            self.places().entry(id).or_default().address = address.into();
        }
    }

    pub fn address(&self, id: CoordinatorId) -> Option<String> {
        self.places().get(&id).map(|p| p.address.clone()).filter(|a| !a.is_empty())
    }

    /// All others of which the address is known.
    pub fn all(&self) -> Vec<(CoordinatorId, String)> {
        self.places().iter().filter(|(_, p)| !p.address.is_empty()).map(|(id, p)| (*id, p.address.clone())).collect()
    }

    /// Who leads by the word of whoever serves where coordinators are known to have been, whichever these are now; and
    /// the way there.
    pub async fn leader_by_address(&self) -> Option<(&Pool, String)> {
        let pool = self.pool()?;
        let known = self.all().into_iter().map(|(_, address)| address).collect();
        let leader = Coordinators::new(self.0.env.clone(), pool.clone(), known).leader().await?;
        Some((pool, leader))
    }

    /// A coordinator says of itself how it is.
    pub fn says(&self, id: CoordinatorId, health: Health) {
        self.places().entry(id).or_default().health = health;
    }

    /// How this coordinator is.
    pub fn health(&self) -> Health {
        self.places().get(&self.0.me).map(|p| p.health).unwrap_or_default()
    }

    /// This coordinator has looked whether its database is damaged.
    pub fn set_damaged(&self, damaged: bool) {
        self.places().entry(self.0.me).or_default().health.damaged = damaged;
    }

    /// This coordinator has looked whether there is little room left on its disk.
    pub fn set_short_of_room(&self, short_of_room: bool) {
        self.places().entry(self.0.me).or_default().health.short_of_room = short_of_room;
    }

    /// Those whose database is damaged.
    pub fn damaged(&self) -> BTreeSet<CoordinatorId> {
        self.of(|health| health.damaged)
    }

    /// Those with little room left on their disk.
    pub fn short_of_room(&self) -> BTreeSet<CoordinatorId> {
        self.of(|health| health.short_of_room)
    }

    fn of(&self, is: impl Fn(Health) -> bool) -> BTreeSet<CoordinatorId> {
        self.places().iter().filter(|(_, p)| is(p.health)).map(|(id, _)| *id).collect()
    }

    /// It called, or answered.
    pub fn heard(&self, id: CoordinatorId) {
        let now = self.0.env.clock.monotonic();
        if id != self.0.me {
            self.places().entry(id).or_default().heard = Some(now);
        }
    }

    /// Whether it was heard just now. This coordinator always is.
    pub fn is_live(&self, id: CoordinatorId) -> bool {
        let now = self.0.env.clock.monotonic();
        id == self.0.me || self.places().get(&id).and_then(|p| p.heard).is_some_and(|at| now.saturating_sub(at) < SILENT)
    }
}
