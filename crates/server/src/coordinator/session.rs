//! Sessions: whose request is this? The catalog keeps the BLAKE3 of each token; this coordinator
//! remembers the answer for [`TRUSTED`]. So a session ended through another coordinator may live on
//! here for that long. Who is a member of a space is asked each time.

use super::state::{State, confused};
use model::account::{Account, Role};
use model::command::{Answer, Command, Query};
use model::{AccountId, Error, Hash, Result, SpaceId};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::SessionToken;
use wire::coordinator::SessionResponse;

/// How long a session lives.
const LIFE_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// How long this coordinator believes what the catalog said of a session.
const TRUSTED: Duration = Duration::from_secs(5);
/// How long after a login the password may be changed without another.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// Most sessions remembered.
const MOST: usize = 10_000;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub account: AccountId,
    pub name: String,
    pub home: SpaceId,
    pub admin: bool,
}

#[derive(Debug)]
struct Remembered {
    who: Who,
    until: Duration,
}

/// What this coordinator remembers of sessions, by BLAKE3 of the token.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    known: BTreeMap<Hash, Remembered>,
    /// Monotonic time until which a session counts as freshly opened by password.
    fresh: BTreeMap<Hash, Duration>,
}

impl Sessions {
    fn get(&self, now: Duration, token: &Hash) -> Option<&Remembered> {
        self.known.get(token).filter(|r| r.until > now)
    }

    fn remember(&mut self, now: Duration, token: Hash, who: Who) {
        if self.known.len() >= MOST {
            self.known.retain(|_, r| r.until > now);
        }
        if self.known.len() < MOST {
            self.known.insert(token, Remembered { who, until: now + TRUSTED });
        }
    }

    fn opened(&mut self, now: Duration, token: Hash) {
        self.fresh.retain(|_, until| *until > now);
        if self.fresh.len() < MOST {
            self.fresh.insert(token, now + FRESH);
        }
    }

    fn forget(&mut self, token: &Hash) {
        self.known.remove(token);
        self.fresh.remove(token);
    }

    /// Forgets all sessions of an account.
    pub fn forget_account(&mut self, account: AccountId) {
        let of: Vec<Hash> = self.known.iter().filter(|(_, r)| r.who.account == account).map(|(t, _)| *t).collect();
        of.iter().for_each(|token| self.forget(token));
    }
}

impl State {
    /// Opens a session for an account. The token goes to the client; its hash to the catalog.
    pub async fn open_session(&self, account: &Account, by_password: bool) -> Result<SessionResponse> {
        let session = SessionToken(self.env.random());
        let token_hash = session.hash();
        let expires_ms = self.now_ms() + LIFE_MS;
        self.command(Command::OpenSession { token_hash, account: account.id, expires_ms }).await?;
        if by_password {
            self.memory().sessions.opened(self.now(), token_hash);
        }
        Ok(SessionResponse { session, expires_ms })
    }

    /// Ends a session; one that is not there is no error.
    pub async fn close_session(&self, token: &SessionToken) -> Result<()> {
        self.memory().sessions.forget(&token.hash());
        self.command(Command::CloseSession { token_hash: token.hash() }).await.map(|_| ())
    }

    /// Whose session this is. `Denied` for one that is unknown, ended or expired.
    pub async fn who(&self, token: &SessionToken) -> Result<Who> {
        let hash = token.hash();
        if let Some(known) = self.memory().sessions.get(self.now(), &hash) {
            return Ok(known.who.clone());
        }
        let denied = || Error::denied("this session has ended").hint("shardkeep login");
        let Answer::Session(account) = self.ask(Query::Session(hash)).await? else { return Err(confused()) };
        let account = self.account(account.ok_or_else(denied)?).await?.filter(|a| !a.disabled).ok_or_else(denied)?;
        let who = Who { account: account.id, name: account.name.clone(), home: account.home, admin: account.admin };
        self.memory().sessions.remember(self.now(), hash, who.clone());
        Ok(who)
    }

    /// Whose session this is, if an admin's.
    pub async fn admin(&self, token: &SessionToken) -> Result<Who> {
        let who = self.who(token).await?;
        if who.admin { Ok(who) } else { Err(Error::denied("only admins of the cluster may do this")) }
    }

    /// Whether the session was opened with the password a short while ago, at this coordinator.
    pub fn is_fresh(&self, token: &SessionToken) -> bool {
        let now = self.now();
        self.memory().sessions.fresh.get(&token.hash()).is_some_and(|until| *until > now)
    }

    /// `Denied` unless the account is a member of the space, with at least this role. Says nothing about whether
    /// the space exists. Asked of the catalog each time: whoever is removed is refused from that moment on.
    pub async fn check_member(&self, who: &Who, space: SpaceId, least: Role) -> Result<()> {
        if space == who.home {
            return Ok(());
        }
        match self.ask(Query::Role { space, account: who.account }).await? {
            Answer::Role(Some(role)) if role >= least => Ok(()),
            Answer::Role(Some(_)) => {
                Err(Error::denied("you may only read in this shared folder").hint("ask its owner for the right to write"))
            }
            Answer::Role(None) => Err(Error::denied("you are not a member of this space")),
            _ => Err(confused()),
        }
    }
}
