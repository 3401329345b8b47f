//! Holders of links: people without an account, who proved that they know a link's secret. What they may
//! ask is what the link leads to, and the way there.

use super::session::Who;
use super::state::{State, confused};
use model::account::SpaceInfo;
use model::command::{Answer, Command, Query};
use model::link::{Link, LinkTarget};
use model::{Error, Hash, ObjectId, Result};
use std::net::IpAddr;
use wire::SessionToken;
use wire::link::{OpenLinkRequest, OpenLinkResponse};

/// How long a link that was opened may be read, before it must be opened again.
const LIFE_MS: u64 = 24 * 60 * 60 * 1000;
/// Objects of one file that a capability names; one with more is readable by a capability that names none.
const OBJECTS_MAX: usize = 256;

impl State {
    /// Opens a link for whoever shows its proof. Counted like a login: a password may be behind it.
    pub async fn open_link(&self, request: OpenLinkRequest, address: IpAddr) -> Result<OpenLinkResponse> {
        let OpenLinkRequest { request, link, auth, session } = request;
        let name = format!("link {link}");
        self.count_attempt(&name, address)?;
        let (token_hash, expires_ms) = (session.hash(), self.now_ms() + LIFE_MS);
        self.propose(request, None, Command::OpenLink { link, auth_hash: Hash::of(&auth), token_hash, expires_ms }).await?;
        self.memory().backoff.refund(&name, address);
        let link = self.link(&session).await?.ok_or_else(|| Error::denied("this link has just been revoked"))?;
        let manifest = match link.target {
            LinkTarget::File(id) => match self.ask(Query::Manifests { space: link.space, ids: vec![id] }).await? {
                Answer::Manifests(found) => found.into_iter().next(),
                _ => return Err(confused()),
            },
            _ => None,
        };
        let space = match link.target {
            LinkTarget::Folder(_) => Some(self.space_without_keys(&link).await?),
            _ => None,
        };
        Ok(OpenLinkResponse { sealed: link.sealed, manifest, space, expires_ms })
    }

    /// The link that a session is of, as long as it is good.
    pub async fn link(&self, token: &SessionToken) -> Result<Option<Box<Link>>> {
        match self.ask(Query::LinkBySession(token.hash())).await? {
            Answer::Link(link) => Ok(link),
            _ => Err(confused()),
        }
    }

    /// Who may sign what lies in a space: its history, and nothing of its keys.
    async fn space_without_keys(&self, link: &Link) -> Result<SpaceInfo> {
        let Answer::Space(info) = self.ask(Query::Space { space: link.space, account: link.owner }).await? else { return Err(confused()) };
        let mut info = *info.ok_or_else(|| Error::not_found("the folder of this link does not exist any more"))?;
        info.grants = Vec::new();
        (info.used, info.label, info.parent) = (0, None, None);
        (info.left, info.since) = (Vec::new(), Vec::new());
        Ok(info)
    }

    /// A question of whoever holds a link.
    pub async fn ask_by_link(&self, link: &Link, query: Query) -> Result<Answer> {
        let folders = match &query {
            Query::Cluster | Query::LayoutAt { .. } => return self.ask(query).await,
            Query::Layout(width) => return self.stored_layout(*width).await.map(Answer::Layout),
            Query::Manifests { space, ids } => match link.target {
                // Holders of a file need not know in which space it lies.
                LinkTarget::File(manifest) if ids.iter().all(|id| *id == manifest) => {
                    return self.ask(Query::Manifests { space: link.space, ids: ids.clone() }).await;
                }
                // Their ids are in rows of the folder, and nowhere else.
                LinkTarget::Folder(_) if *space == link.space => return self.ask(query).await,
                _ => None,
            },
            Query::Lookup { space, folder, .. } | Query::List { space, folder, .. } if *space == link.space => Some(vec![*folder]),
            Query::Walk { space, steps, .. } if *space == link.space => {
                let mut folders: Vec<_> = steps.iter().map(|(folder, _)| *folder).collect();
                folders.sort_unstable();
                folders.dedup();
                Some(folders)
            }
            _ => None,
        };
        if let (Some(folders), LinkTarget::Folder(top)) = (folders, link.target)
            && let Answer::Within(true) = self.ask(Query::Within { space: link.space, top, folders }).await?
        {
            return self.ask(query).await;
        }
        Err(Error::denied("this link leads elsewhere"))
    }

    /// In whose name a link's holder reads, and which objects: none means any.
    pub async fn reader_by_link(&self, link: &Link) -> Result<(Who, Vec<ObjectId>)> {
        let owner = self.account(link.owner).await?.ok_or_else(confused)?;
        let who = Who { account: owner.id, name: owner.name.clone(), home: owner.home, admin: false };
        let LinkTarget::File(id) = link.target else { return Ok((who, Vec::new())) };
        let Answer::Manifests(found) = self.ask(Query::Manifests { space: link.space, ids: vec![id] }).await? else {
            return Err(confused());
        };
        let manifest = found.into_iter().next().ok_or_else(|| Error::not_found("the file of this link does not exist any more"))?;
        let objects: Vec<ObjectId> = manifest.objects.iter().map(|o| o.object).collect();
        Ok((who, if objects.len() > OBJECTS_MAX { Vec::new() } else { objects }))
    }
}
