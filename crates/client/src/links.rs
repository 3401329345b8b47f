//! Links: made by members for people without an account, and read by those.
//!
//! A link leads to one version of a file, or to a folder as it is. Its secret makes two keys: one opens the
//! record that the servers keep, with name and keys in it; the other is the proof that lets its holder ask
//! for rows and shards. How often and how long it works only the servers enforce.

use crate::connection::{Cluster, unexpected};
use crate::login::contact;
use crate::path::RemotePath;
use crate::profile::Profile;
use crate::session::{Client, ClientOptions};
use crate::spaces::Space;
use crate::tree::{Entry, EntryKind};
use model::command::{Answer, Command, Query};
use model::link::{Link, LinkTarget};
use model::{Error, Hash, LinkId, Result};
use seal::account::{LinkSecret, nobody};
use seal::link::{LinkKeys, Secret};
use seal::password::Password;
use seal::space::OpenSpace;
use seal::tree::{Content, Entry as Sealed};
use std::sync::Arc;
use std::time::Duration;
use transport::{LinkText, Trust};
use wire::SessionToken;
use wire::link::{OpenLink, OpenLinkRequest};
use zeroize::Zeroizing;

/// How a link is made.
#[derive(Default)]
pub struct LinkOptions {
    /// It takes this password too.
    pub password: Option<Zeroizing<String>>,
    /// The servers refuse it after this time.
    pub expires: Option<Duration>,
    /// The servers let it be opened so often.
    pub count: Option<u64>,
}

/// A link of this account.
pub struct OwnLink {
    /// Id.
    pub id: LinkId,
    /// The path that it was made of; `None`: not noted.
    pub path: Option<String>,
    /// The text to hand on. Secret. `None`: not noted.
    pub text: Option<Zeroizing<String>>,
    /// It leads to a folder.
    pub folder: bool,
    /// It takes a password too.
    pub password: bool,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// After which it is refused.
    pub expires_ms: Option<u64>,
    /// How often it may still be opened.
    pub left: Option<u64>,
    /// How often it was.
    pub opened: u64,
}

/// What somebody without an account holds after opening a link.
pub struct OpenedLink {
    /// Reads what the link leads to, by the entry below and those under it; nothing else.
    pub client: Client,
    /// The file or folder.
    pub entry: Entry,
}

/// Whether a text is meant as a link.
pub fn is_link(text: &str) -> bool {
    LinkText::is_one(text)
}

/// Whether a link takes a password. `Invalid` for a text that is no link.
pub fn link_takes_password(text: &str) -> Result<bool> {
    Ok(LinkText::parse(text)?.password)
}

/// The id of a link, from its text or as listed.
pub fn link_id(text: &str) -> Result<LinkId> {
    if is_link(text) { Ok(LinkText::parse(text)?.id) } else { text.parse() }
}

impl Client {
    /// Makes a link to a file, as it is now, or to a folder, with whatever it will hold. The text is secret.
    pub async fn create_link(&self, path: &RemotePath, options: LinkOptions) -> Result<OwnLink> {
        let entry = self.stat(path).await?;
        let (sealed, target, space) = self.link_content(&entry).await?;
        let mut rng = self.env().rand();
        let (id, secret) = (LinkId(self.env().random()), Secret::generate(&mut rng));
        let password = options.password.is_some();
        let keys = self.link_keys(id, Secret::from_bytes(secret.expose()), options.password).await?;
        let record = keys.seal(space.id(), &space.seen(), &sealed, &mut rng)?;
        let now = self.env().now_ms();
        let link = Link {
            id,
            owner: self.unlocked().account(),
            space: space.id(),
            target,
            auth_hash: keys.auth_hash(),
            sealed: record.into(),
            created_ms: now,
            expires_ms: options.expires.map(|d| now.saturating_add(d.as_millis() as u64)),
            left: options.count,
            opened: 0,
        };
        self.propose(Command::CreateLink(Box::new(link.clone()))).await?;
        let mut note = LinkSecret::new(&id.0, secret.expose());
        (note.path, note.password) = (Some(path.to_string()), Some(password));
        self.change_notes(|notes| {
            notes.links.retain(|l| l.id.as_slice() != id.0);
            let at = notes.links.partition_point(|l| l.id < note.id);
            notes.links.insert(at, note.clone());
            Ok(((), true))
        })
        .await?;
        self.own_link(link, Some(&note))
    }

    /// The links of this account, oldest first.
    pub async fn links(&self) -> Result<Vec<OwnLink>> {
        let account = self.unlocked().account();
        let Answer::Links(mut links) = self.cluster().ask(Query::Links(account)).await? else { return Err(unexpected()) };
        links.sort_by_key(|l| (l.created_ms, l.id));
        let (_, notes) = self.notes().await?;
        let note = |id: LinkId| notes.links.iter().find(|l| l.id.as_slice() == id.0);
        links
            .into_iter()
            .map(|link| {
                let noted = note(link.id);
                self.own_link(link, noted)
            })
            .collect()
    }

    /// Ends a link, and what is being read by it. `NotFound` when it is none of this account.
    pub async fn revoke_link(&self, id: LinkId) -> Result<()> {
        self.propose(Command::RevokeLink(id)).await?;
        self.change_notes(|notes| {
            let before = notes.links.len();
            notes.links.retain(|l| l.id.as_slice() != id.0);
            Ok(((), notes.links.len() < before))
        })
        .await
    }

    fn own_link(&self, link: Link, note: Option<&LinkSecret>) -> Result<OwnLink> {
        let info = self.profile().info()?;
        let password = note.and_then(|n| n.password).unwrap_or(false);
        let text = note.and_then(LinkSecret::secret).map(|secret| {
            let (root, coordinators) = (info.fingerprint(), info.coordinators.clone());
            LinkText { id: link.id, secret: *secret.expose(), root, password, coordinators }.to_text()
        });
        Ok(OwnLink {
            id: link.id,
            path: note.and_then(|n| n.path.clone()),
            text,
            folder: matches!(link.target, LinkTarget::Folder(_)),
            password,
            created_ms: link.created_ms,
            expires_ms: link.expires_ms,
            left: link.left,
            opened: link.opened,
        })
    }

    /// What goes into the sealed record of a link, what the servers must know of it, and where it lies. Of a
    /// folder that is a space of its own, the root of that.
    async fn link_content(&self, entry: &Entry) -> Result<(Sealed, LinkTarget, Arc<Space>)> {
        if entry.place.is_some() {
            return Err(crate::shared::not_here(&entry.path));
        }
        let sealed = &entry.found.entry;
        let mut space = entry.space.clone();
        let (content, target) = match &sealed.content {
            Content::Inline(_) => (sealed.content.share(), LinkTarget::Record),
            Content::Manifest { id, .. } => (sealed.content.share(), LinkTarget::File(*id)),
            Content::Folder { id, .. } => (sealed.content.share(), LinkTarget::Folder(*id)),
            Content::Space(id) => {
                space = self.space(*id).await?;
                let folder = Content::Folder { id: space.root_id(), key: space.root_key()?, epoch: space.root_epoch() };
                (folder, LinkTarget::Folder(space.root_id()))
            }
            Content::Symlink(_) => return Err(Error::invalid(format!("{} is a symlink: make the link of what it leads to", entry.path))),
        };
        let sealed = Sealed { name: sealed.name.clone(), attributes: sealed.attributes.clone(), size: sealed.size, content };
        Ok((sealed, target, space))
    }

    async fn link_keys(&self, id: LinkId, secret: Secret, password: Option<Zeroizing<String>>) -> Result<LinkKeys> {
        keys(self.env(), id, secret, password).await
    }

    /// Opens a link, without an account. The profile only keeps journals of interrupted downloads. `Denied`
    /// when it was revoked, has expired, is used up, or when the password is wrong.
    pub async fn open_link(profile: Profile, text: &str, password: Option<&str>, options: ClientOptions) -> Result<OpenedLink> {
        let env = profile.env.clone();
        let link = LinkText::parse(text)?;
        let password = match (link.password, password) {
            (true, None) => return Err(Error::denied("this link takes a password")),
            (true, Some(password)) => Some(Zeroizing::new(password.to_string())),
            (false, _) => None,
        };
        let keys = keys(&env, link.id, Secret::from_bytes(&link.secret), password).await?;
        let contact = contact(&env, Trust::Fingerprint(link.root), link.coordinators.clone()).await?;
        if Hash::of(&contact.root) != link.root {
            return Err(unexpected());
        }
        let session = SessionToken(env.random());
        let (id, root) = (contact.cluster, Trust::Root(contact.root));
        let cluster = Cluster::new(&env, root, link.coordinators.clone(), Some(session), None)?;
        let request = model::RequestId::new(env.now_ms(), env.random());
        let answer = cluster.call::<OpenLink>(&OpenLinkRequest { request, link: link.id, auth: *keys.auth(), session }).await?;
        let record = keys.open(&answer.sealed)?;
        let (unlocked, own) = nobody(id, &mut env.rand())?;
        let home = Arc::new(Space::new(OpenSpace::open(&own, &unlocked, None)?, own)?);
        let space = match (record.folder(), answer.space) {
            (Some(root), Some(info)) => Arc::new(Space::of_link(OpenSpace::without_keys(&info, &record.seen)?, info, root)),
            (None, _) => home.clone(),
            (Some(_), None) => return Err(unexpected()),
        };
        let path = RemotePath::root().join(&record.entry.name);
        let author = unlocked.account();
        let client = Client::without_account(profile, options, cluster, unlocked, home).await?;
        let mut entry = Entry::made_up(path, Some(record.entry), space, author);
        if let Content::Manifest { id, .. } = &entry.found.entry.content {
            let manifest = answer.manifest.filter(|m| m.id == *id);
            let gone = || Error::not_found("the file of this link does not exist any more").hint("ask for a new link");
            entry.manifest = Some(Arc::new(manifest.ok_or_else(gone)?));
        }
        if !matches!(entry.kind, EntryKind::File | EntryKind::Folder) {
            return Err(Error::corrupt("this link leads to something that is neither file nor folder"));
        }
        Ok(OpenedLink { client, entry })
    }
}

/// Stretching a password takes a while, and memory.
async fn keys(env: &env::Env, id: LinkId, secret: Secret, password: Option<Zeroizing<String>>) -> Result<LinkKeys> {
    env.blocking(move || {
        let password = password.map(|p| Password::new(&p));
        LinkKeys::derive(id, &secret, password.as_ref())
    })
    .await
}
