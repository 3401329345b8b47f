//! Links: who made them, what they lead to, and how often and how long they may be opened. All of that
//! servers enforce; the secret, which they never see, decides whether there is anything to read.

use crate::kv::Kv;
use crate::query::{get, page};
use crate::row::{LinkSession, Place, Space};
use crate::tx::{Step, Tx};
use crate::{expiry, key};
use model::account::Account;
use model::command::{Answer, Outcome};
use model::link::{LINKS_MAX, Link, LinkTarget, SEALED_MAX};
use model::{AccountId, Error, FolderId, Hash, LinkId, Result, SpaceId};

/// Most sessions of one link at a time.
const SESSIONS_MAX: usize = 1_000;
/// Folders on the way from one asked about to a link's folder, at most.
const DEPTH_MAX: usize = 1_024;
/// Folders in one question.
const ASKED_MAX: usize = 256;

/// The one answer to everything that is wrong with a link.
fn refused() -> Error {
    Error::denied("this link is not good: it was revoked, has expired, was opened as often as it may be, or is mistyped")
}

impl Tx<'_> {
    pub(crate) fn create_link(&mut self, by: Option<AccountId>, link: &Link) -> Step<Outcome> {
        if by != Some(link.owner) {
            return Err(Error::denied("only the account itself may make its links").into());
        }
        let space: Option<Space> = self.get(&key::space(link.space))?;
        if space.is_none_or(|s| s.role(link.owner).is_none()) {
            return Err(Error::denied("you are not a member of this space").into());
        }
        if link.sealed.len() > SEALED_MAX || link.left == Some(0) || link.expires_ms.is_some_and(|at| at <= self.now) {
            return Err(Error::invalid("a link that is too long, or good for nothing").into());
        }
        if self.has(&key::link(link.id))? {
            return Err(Error::exists("there is such a link already").into());
        }
        let there = match &link.target {
            LinkTarget::Record => true,
            LinkTarget::File(manifest) => self.has(&key::manifest(link.space, *manifest))?,
            LinkTarget::Folder(folder) => {
                self.has(&key::door(link.space, *folder))? || is_root(self.get(&key::space(link.space))?, *folder)
            }
        };
        if !there {
            return Err(Error::not_found("what the link leads to does not exist").into());
        }
        let prefix = key::links_of(link.owner);
        if self.keys(&prefix, &key::end_of(&prefix), LINKS_MAX)?.len() >= LINKS_MAX {
            return Err(Error::insufficient(format!("you have {LINKS_MAX} links already: revoke some")).into());
        }
        let link = Link { created_ms: self.now, opened: 0, ..link.clone() };
        self.put(&key::link(link.id), &link)?;
        self.put(&key::link_of(link.owner, link.id), &())?;
        if let Some(at) = link.expires_ms {
            self.end_at(at, expiry::LINK, &link.id.0)?;
        }
        Ok(Outcome::Done)
    }

    /// Ends a link and what was opened by it.
    pub(crate) fn revoke_link(&mut self, by: Option<AccountId>, id: LinkId) -> Step<Outcome> {
        let link = self.get::<Link>(&key::link(id))?.filter(|link| by == Some(link.owner));
        let link = link.ok_or_else(|| Error::not_found("you have no such link"))?;
        self.end_link(&link)?;
        Ok(Outcome::Done)
    }

    pub(crate) fn end_link(&mut self, link: &Link) -> Step<()> {
        self.delete(&key::link(link.id))?;
        self.delete(&key::link_of(link.owner, link.id))?;
        let prefix = key::link_sessions(link.id);
        for of in self.keys(&prefix, &key::end_of(&prefix), usize::MAX)? {
            self.delete(&of)?;
            if let Some(token) = of.get(prefix.len()..).and_then(Hash::from_slice) {
                self.delete(&key::link_session(&token))?;
            }
        }
        Ok(())
    }

    /// Counts one opening, and begins a session of whoever holds the link.
    pub(crate) fn open_link(&mut self, id: LinkId, auth_hash: Hash, token: Hash, expires_ms: u64) -> Step<Outcome> {
        let link = self.get::<Link>(&key::link(id))?.filter(|l| l.auth_hash == auth_hash && l.left != Some(0));
        let mut link = link.ok_or_else(refused)?;
        let owner: Option<Account> = self.get(&key::account(link.owner))?;
        if !is_good(&link, self.get(&key::space(link.space))?, owner, self.now) {
            return Err(refused().into());
        }
        let prefix = key::link_sessions(id);
        if self.keys(&prefix, &key::end_of(&prefix), SESSIONS_MAX)?.len() >= SESSIONS_MAX {
            return Err(Error::unavailable("this link is being read by too many at once: try again later").into());
        }
        if expires_ms <= self.now || self.has(&key::link_session(&token))? {
            return Err(Error::invalid("a session that cannot be").into());
        }
        link.left = link.left.map(|left| left.saturating_sub(1));
        link.opened = link.opened.saturating_add(1);
        self.put(&key::link(id), &link)?;
        self.put(&key::link_session(&token), &LinkSession { link: id, expires_ms })?;
        self.put(&key::link_session_of(id, &token), &())?;
        self.end_at(expires_ms, expiry::LINK_SESSION, &token.0)?;
        Ok(Outcome::Done)
    }
}

fn is_root(space: Option<Space>, folder: FolderId) -> bool {
    space.is_some_and(|s| s.root == folder)
}

/// Whether a link may be used: in its time, by an owner who may still log in and read the space.
fn is_good(link: &Link, space: Option<Space>, owner: Option<Account>, now: u64) -> bool {
    link.expires_ms.is_none_or(|at| at > now) && owner.is_some_and(|o| !o.disabled) && space.is_some_and(|s| s.role(link.owner).is_some())
}

/// The link that was opened with a session's token, as long as both are good.
pub(crate) fn by_session(kv: &dyn Kv, token: &Hash, now: u64) -> Result<Answer> {
    let session = get::<LinkSession>(kv, &key::link_session(token))?.filter(|s| s.expires_ms > now);
    let Some(session) = session else { return Ok(Answer::Link(None)) };
    let Some(link) = get::<Link>(kv, &key::link(session.link))? else { return Ok(Answer::Link(None)) };
    let good = is_good(&link, get(kv, &key::space(link.space))?, get(kv, &key::account(link.owner))?, now);
    Ok(Answer::Link(Some(Box::new(link)).filter(|_| good)))
}

/// All links of an account.
pub(crate) fn of_account(kv: &dyn Kv, owner: AccountId) -> Result<Answer> {
    let prefix = key::links_of(owner);
    let (ids, _) = page::<()>(kv, &prefix, &key::end_of(&prefix), LINKS_MAX)?;
    let ids = ids.iter().filter_map(|(key, ())| key.get(prefix.len()..).and_then(LinkId::from_slice));
    let links: Result<Vec<Option<Link>>> = ids.map(|id| get(kv, &key::link(id))).collect();
    Ok(Answer::Links(links?.into_iter().flatten().collect()))
}

/// Whether all of some folders are a link's folder or lie below it.
pub(crate) fn are_within(kv: &dyn Kv, space: SpaceId, top: FolderId, folders: &[FolderId]) -> Result<Answer> {
    if folders.len() > ASKED_MAX {
        return Err(Error::invalid("too many folders are asked for at once"));
    }
    for folder in folders {
        let mut at = *folder;
        let mut depth = 0;
        while at != top {
            let door: Option<Place> = get(kv, &key::door(space, at))?;
            match door.filter(|_| depth < DEPTH_MAX) {
                Some(door) => (at, depth) = (door.folder, depth + 1),
                None => return Ok(Answer::Within(false)),
            }
        }
    }
    Ok(Answer::Within(true))
}
