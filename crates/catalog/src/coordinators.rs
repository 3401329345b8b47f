//! The coordinators that there should be. The consensus group follows these rows; here they only
//! come, say where they are, and go. An id is given out once and never again.

use crate::key;
use crate::tx::{Step, Tx};
use model::cluster::Coordinator;
use model::command::Outcome;
use model::{AccountId, CoordinatorId, Error, Hash};

impl Tx<'_> {
    /// Whoever used a coordinator's token gets the next id, and a row that does not say yet where it is.
    pub(crate) fn join_coordinator(&mut self, spki_hash: Hash) -> Step<Outcome> {
        // Catalogs of the first version did not count: theirs had the one with id 1.
        let highest = self.rows::<Coordinator>(&key::coordinators())?.iter().map(|c| c.id.0).max().unwrap_or(0);
        let id = CoordinatorId(self.counters.last_coordinator.max(highest).max(1) + 1);
        self.counters.last_coordinator = id.0;
        self.put(&key::coordinator(id), &Coordinator { id, address: String::new(), key: spki_hash, version: String::new() })?;
        self.event("coordinator-joined", None, format!("coordinator-{id}"))?;
        Ok(Outcome::Joined { node: None, coordinator: Some(id) })
    }

    pub(crate) fn update_coordinator(&mut self, id: CoordinatorId, address: &str, version: &str) -> Step<Outcome> {
        if address.is_empty() || address.len() > 256 || version.len() > 64 {
            return Err(Error::invalid("a coordinator with impossible fields").into());
        }
        let row: Option<Coordinator> = self.get(&key::coordinator(id))?;
        let row = row.ok_or_else(|| Error::not_found(format!("coordinator-{id} is none of this cluster's coordinators")))?;
        if row.address != address {
            self.event("coordinator-address", None, format!("coordinator-{id} is at {address}"))?;
        }
        self.put(&key::coordinator(id), &Coordinator { address: address.into(), version: version.into(), ..row })?;
        Ok(Outcome::Done)
    }

    pub(crate) fn remove_coordinator(&mut self, by: Option<AccountId>, id: CoordinatorId) -> Step<Outcome> {
        let admin = self.admin(by)?;
        let row: Option<Coordinator> = self.get(&key::coordinator(id))?;
        let row = row.ok_or_else(|| Error::not_found(format!("there is no coordinator-{id}")))?;
        // One that never said where it is holds nothing: it is not one of those that must stay.
        let others = self.rows::<Coordinator>(&key::coordinators())?.into_iter().filter(|c| c.id != id && !c.address.is_empty());
        if others.count() == 0 && !row.address.is_empty() {
            return Err(Error::invalid("the last coordinator cannot be removed: the cluster is what it keeps").into());
        }
        self.delete(&key::coordinator(id))?;
        self.event("coordinator-removed", None, format!("{} removed coordinator-{id}", admin.name))?;
        Ok(Outcome::Done)
    }
}
