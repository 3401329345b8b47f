//! Who somebody is: identities are believed when first met, and pinned in the account's sealed notes.
//! Another key under a pinned name is a hard stop, until a person has compared the safety number.

use crate::connection::unexpected;
use crate::session::Client;
use model::account::{Identity, canonical_name};
use model::command::{Answer, Query};
use model::{AccountId, Error, Hash, Result};
use seal::account::{Notes, Pin};
use seal::identity::{safety_number, verify};

/// What is known here of somebody's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinState {
    /// Met for the first time: pinned just now.
    New,
    /// Pinned, and the same as ever.
    Pinned,
    /// Pinned, the same as ever, and its safety number was compared.
    Verified,
    /// Another key, or another account of this name, than the one pinned: with this fingerprint, and
    /// whether that one's safety number had been compared.
    Changed(Hash, bool),
}

/// What `verify-user` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquaintance {
    /// Canonical account name.
    pub name: String,
    /// Account.
    pub account: AccountId,
    /// Fingerprint of the identity that the servers show now.
    pub fingerprint: Hash,
    /// To be compared with what the other one sees: twelve groups of five digits.
    pub safety_number: String,
    /// New, pinned, verified or changed.
    pub state: PinState,
    /// When it was pinned, milliseconds since 1970; `None`: not known.
    pub since_ms: Option<u64>,
}

impl Client {
    /// The identity of an account, pinned at first use. `NotFound` where there is none of this name;
    /// `Denied` (hint: `verify-user`) when another key was pinned before.
    pub async fn pinned(&self, name: &str) -> Result<Identity> {
        let mut all = self.pinned_all(std::slice::from_ref(&name.to_string())).await?;
        all.pop().ok_or_else(unexpected)
    }

    /// The same for several accounts, in the order given, with one change of the notes.
    pub async fn pinned_all(&self, names: &[String]) -> Result<Vec<Identity>> {
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            found.push(self.identity_by_name(name).await?);
        }
        self.meet_all(&found).await?;
        Ok(found)
    }

    /// Identities of accounts, by id, pinned at first use. Those that the servers do not know are left out.
    pub async fn pinned_ids(&self, ids: &[AccountId]) -> Result<Vec<Identity>> {
        let mut found = Vec::with_capacity(ids.len());
        for asked in ids.chunks(1_000) {
            let Answer::Identities(identities) = self.cluster().ask(Query::Identities(asked.to_vec())).await? else {
                return Err(unexpected());
            };
            for identity in identities {
                let body = verify(&identity)?;
                if !asked.contains(&body.account) {
                    return Err(unexpected());
                }
                found.push(identity);
            }
        }
        self.meet_all(&found).await?;
        Ok(found)
    }

    /// Pins identities that were not met before; `Denied` for one that has changed.
    pub async fn meet_all(&self, identities: &[Identity]) -> Result<()> {
        let now = self.env().now_ms();
        let mut met = Vec::with_capacity(identities.len());
        for identity in identities {
            let body = verify(identity)?;
            if body.account != self.unlocked().account() {
                met.push((body.account, body.name, identity.fingerprint()));
            } else if identity.fingerprint() != self.unlocked().fingerprint() {
                return Err(Error::corrupt("the servers show another identity for this account than the one that is logged in here"));
            }
        }
        if met.is_empty() {
            return Ok(());
        }
        self.change_notes(|notes| {
            let mut changed = false;
            for (account, name, fingerprint) in &met {
                changed |= notes.meet(*account, name, *fingerprint, now)?;
            }
            Ok(((), changed))
        })
        .await
    }

    /// What is known of an account, and the safety number to compare with it. One that is met for the first
    /// time is pinned. Nothing changes for one whose key has changed.
    pub async fn acquaintance(&self, name: &str) -> Result<Acquaintance> {
        let identity = self.identity_by_name(name).await?;
        let body = verify(&identity)?;
        let fingerprint = identity.fingerprint();
        let own = (self.unlocked().account(), self.unlocked().fingerprint());
        if body.account == own.0 {
            return Err(Error::invalid(format!("{} is you: ask the other one to compare", body.name)));
        }
        let now = self.env().now_ms();
        let (state, since_ms) = self
            .change_notes(|notes| match notes.meet(body.account, &body.name, fingerprint, now) {
                Ok(true) => Ok(((PinState::New, Some(now)), true)),
                Ok(false) => Ok((known(notes, body.account), false)),
                Err(_) => Ok((changed(notes, body.account, &body.name), false)),
            })
            .await?;
        let safety_number = safety_number(own, (body.account, fingerprint));
        Ok(Acquaintance { name: body.name, account: body.account, fingerprint, safety_number, state, since_ms })
    }

    /// Notes that the safety number of somebody was compared, or, with `verified` false, takes a changed key as
    /// it is. `Conflict` when the servers show yet another one by now than the one that was looked at.
    pub async fn accept(&self, seen: &Acquaintance, verified: bool) -> Result<()> {
        let identity = self.identity_by_name(&seen.name).await?;
        if verify(&identity)?.account != seen.account || identity.fingerprint() != seen.fingerprint {
            return Err(Error::conflict(format!("the key of '{}' has changed again meanwhile", seen.name))
                .hint(format!("shardkeep verify-user {}", seen.name)));
        }
        let now = self.env().now_ms();
        self.change_notes(|notes| {
            let before = notes.pin(seen.account).filter(|p| p.fingerprint == seen.fingerprint);
            let since_ms = before.map_or(Some(now), |p| p.since_ms);
            let verified = verified || before.is_some_and(|p| p.verified);
            let pin = Pin { account: seen.account, name: seen.name.clone(), fingerprint: seen.fingerprint, verified, since_ms };
            let changed = notes.pin(seen.account) != Some(&pin);
            notes.set_pin(pin);
            Ok(((), changed))
        })
        .await
    }

    /// One's own identity.
    pub fn own_identity(&self) -> Identity {
        self.unlocked().identity().clone()
    }

    /// The identity that the servers show for a name: checked, not pinned.
    async fn identity_by_name(&self, name: &str) -> Result<Identity> {
        let name = canonical_name(name)?;
        let Answer::Identities(found) = self.cluster().ask(Query::IdentityByName(name.clone())).await? else { return Err(unexpected()) };
        let identity = found.into_iter().next().ok_or_else(|| Error::not_found(format!("there is no account '{name}'")))?;
        if verify(&identity)?.name != name {
            return Err(Error::corrupt(format!("the servers answered with the identity of another account than '{name}'")));
        }
        Ok(identity)
    }
}

fn known(notes: &Notes, account: AccountId) -> (PinState, Option<u64>) {
    let pin = notes.pin(account);
    let state = if pin.is_some_and(|p| p.verified) { PinState::Verified } else { PinState::Pinned };
    (state, pin.and_then(|p| p.since_ms))
}

fn changed(notes: &Notes, account: AccountId, name: &str) -> (PinState, Option<u64>) {
    let pin = notes.pins.iter().find(|p| p.name == name).or_else(|| notes.pin(account));
    let (fingerprint, verified) = pin.map_or((Hash::default(), false), |p| (p.fingerprint, p.verified));
    (PinState::Changed(fingerprint, verified), pin.and_then(|p| p.since_ms))
}
