//! Login by password (OPAQUE), logout, and who am I.
//!
//! An unknown name and a wrong password cost the same and are answered alike: `Denied`, after the
//! same two messages. State between them lives in this coordinator's memory for a minute.

use super::opaque::Pending;
use super::state::{State, confused};
use model::account::{Account, canonical_name};
use model::command::{Answer, Query};
use model::{Error, Result};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use wire::SessionToken;
use wire::coordinator::{LoginFinishRequest, LoginFinishResponse, LoginStartRequest, LoginStartResponse, WhoAmIResponse};

/// Time between the two messages of a login.
const PENDING: Duration = Duration::from_secs(60);
/// Most logins begun and not ended.
const MOST: usize = 4096;

/// Logins begun, by their random number.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    begun: BTreeMap<[u8; 16], Begun>,
}

#[derive(Debug)]
struct Begun {
    until: Duration,
    /// Canonical where the name is one.
    name: String,
    address: IpAddr,
    pending: Pending,
}

impl Logins {
    fn insert(&mut self, now: Duration, id: [u8; 16], begun: Begun) -> Result<()> {
        if self.begun.len() >= MOST {
            self.begun.retain(|_, b| b.until > now);
        }
        if self.begun.len() >= MOST {
            return Err(Error::unavailable("too many logins at once: try again in a minute"));
        }
        self.begun.insert(id, begun);
        Ok(())
    }

    fn take(&mut self, now: Duration, id: &[u8; 16]) -> Option<Begun> {
        self.begun.remove(id).filter(|b| b.until > now)
    }
}

/// The one answer to everything that is wrong with a login.
pub(crate) fn refused() -> Error {
    Error::denied("wrong account name or password")
}

/// The name under which an attempt is counted and keyed: what cannot be an account's name is kept as
/// it is, and known to nobody.
pub(crate) fn name_of(name: &str) -> Result<String> {
    if name.len() > 4 * model::account::NAME_MAX {
        return Err(refused());
    }
    Ok(canonical_name(name).unwrap_or_else(|_| name.to_owned()))
}

impl State {
    /// Counts an OPAQUE evaluation. `Denied`, with the seconds to wait, when it comes too early.
    pub fn count_attempt(&self, name: &str, address: IpAddr) -> Result<()> {
        let now = self.now();
        self.memory().backoff.attempt(now, name, address).map_err(|s| Error::denied(format!("too many attempts, try again in {s} s")))
    }

    pub async fn login_start(&self, request: LoginStartRequest, address: IpAddr) -> Result<LoginStartResponse> {
        let name = name_of(&request.name)?;
        self.count_attempt(&name, address)?;
        let account = self.account_by_name(&name).await?;
        // A disabled account is answered like one that does not exist, also to whoever knows its password.
        let record = account.as_ref().filter(|a| !a.disabled).map(|a| &a.login.opaque[..]);
        let (ke2, pending) = self.opaque.start(&self.env, &name, record, &request.ke1)?;
        let login = self.env.random();
        let now = self.now();
        self.memory().logins.insert(now, login, Begun { until: now + PENDING, name, address, pending })?;
        Ok(LoginStartResponse { login, ke2: ke2.into() })
    }

    pub async fn login_finish(&self, request: LoginFinishRequest) -> Result<LoginFinishResponse> {
        let begun = self.memory().logins.take(self.now(), &request.login).ok_or_else(refused)?;
        if !self.opaque.finish(begun.pending, &begun.name, &request.ke3) {
            return Err(refused());
        }
        let account = self.account_by_name(&begun.name).await?.filter(|a| !a.disabled).ok_or_else(refused)?;
        self.memory().backoff.refund(&begun.name, begun.address);
        let session = self.open_session(&account, true).await?;
        tracing::info!(account = account.name, "login");
        Ok(LoginFinishResponse { session, account: shown(*account) })
    }

    pub async fn logout(&self, token: SessionToken) -> Result<()> {
        self.close_session(&token).await
    }

    pub async fn who_am_i(&self, token: SessionToken) -> Result<WhoAmIResponse> {
        let who = self.who(&token).await?;
        let account = self.account(who.account).await?.ok_or_else(refused)?;
        let used = self.space_used(&who).await?;
        let Answer::Mailbox(mailbox) = self.ask(Query::Mailbox(who.account)).await? else { return Err(confused()) };
        Ok(WhoAmIResponse { account: shown(*account), used, cluster: self.cluster, unread: mailbox.unread })
    }
}

/// An account's row as its owner gets it: without the registration record. Whoever has that can
/// test guesses against it with an OPRF answer.
pub(crate) fn shown(mut account: Account) -> Account {
    account.login.opaque = Vec::new().into();
    account
}
