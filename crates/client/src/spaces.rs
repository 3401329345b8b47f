//! Spaces at hand: opened once, kept as long as the servers say that nothing has changed in them.
//!
//! The one place in which a space is opened: its history verified, compared with what the account's notes
//! remember of it, its admins with the identities that are pinned, and the notes brought up to date.

use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::Folder;
use model::account::{Role, SpaceInfo};
use model::command::{Answer, Query, Rows};
use model::{AccountId, Error, FolderId, Policy, Result, SpaceId};
use seal::identity;
use seal::sharing::Label;
use seal::space::OpenSpace;
use seal::tree::{Content, Entry as Sealed, FolderKeys};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A space at hand.
pub(crate) struct Space {
    open: OpenSpace,
    /// What the servers said of it.
    pub info: SpaceInfo,
    /// Its root folder's keys.
    pub root: Arc<FolderKeys>,
    /// What its admins call it.
    pub label: Option<Label>,
}

impl Deref for Space {
    type Target = OpenSpace;
    fn deref(&self) -> &OpenSpace {
        &self.open
    }
}

impl Space {
    pub fn new(open: OpenSpace, info: SpaceInfo) -> Result<Self> {
        let root = Arc::new(open.root()?);
        let label = info.label.as_ref().map(|l| open.open_label(l, &info)).transpose()?;
        Ok(Space { open, info, root, label })
    }

    /// For whoever holds a link to a folder of it: that folder counts as its root.
    pub fn of_link(open: OpenSpace, info: SpaceInfo, root: FolderKeys) -> Self {
        Space { open, info, root: Arc::new(root), label: None }
    }

    /// Number of its newest member set.
    pub fn seq(&self) -> u64 {
        self.members().newest().1.seq
    }

    /// The owner, who must be one of its admins: the servers may not name just anybody.
    pub fn owner(&self) -> Result<AccountId> {
        let owner = self.info.owner.filter(|owner| self.role(*owner, self.epoch()) == Some(Role::Admin));
        owner.ok_or_else(|| Error::corrupt("the servers name an owner of a shared folder who is none of its admins"))
    }

    /// The verified account name of a member.
    pub fn name_of(&self, account: AccountId) -> Result<String> {
        let (_, set) = self.members().newest();
        let member = seal::members::member(set, account);
        let member = member.ok_or_else(|| Error::corrupt("an account is no member of a shared folder"))?;
        let identity = self.info.identities.iter().find(|i| i.fingerprint() == member.fingerprint);
        let identity = identity.ok_or_else(|| Error::corrupt("a member's identity is missing"))?;
        Ok(identity::verify(identity)?.name)
    }

    /// The folder behind an entry of this space; `None` when it is no folder of this space.
    pub fn child(&self, entry: &Sealed) -> Option<FolderKeys> {
        self.root.of_child(entry)
    }

    /// Keys by which the root of this space is entered at a path.
    pub fn at(self: &Arc<Self>, path: RemotePath) -> Folder {
        Folder { path, keys: self.root.clone(), space: self.clone() }
    }

    /// Whether this account's writes count now.
    pub fn is_writable(&self, account: AccountId) -> bool {
        self.may_write(account, self.epoch())
    }
}

/// Spaces opened so far.
#[derive(Default)]
pub(crate) struct Spaces(Mutex<BTreeMap<SpaceId, Arc<Space>>>);

impl Spaces {
    pub fn with(home: Arc<Space>) -> Self {
        Spaces(Mutex::new(BTreeMap::from([(home.id(), home)])))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SpaceId, Arc<Space>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder was given new keys, or moved, while somebody looked: look again.
pub(crate) fn moved() -> Error {
    Error::conflict("the folder has been given new keys meanwhile").hint("try again")
}

impl Client {
    /// A space, opened now unless it is at hand.
    pub(crate) async fn space(&self, id: SpaceId) -> Result<Arc<Space>> {
        let known = self.spaces().known().get(&id).cloned();
        match known {
            Some(space) => Ok(space),
            None => self.space_anew(id).await,
        }
    }

    /// A space as it is now. What was known of its folders is forgotten where its root is another one.
    pub(crate) async fn space_anew(&self, id: SpaceId) -> Result<Arc<Space>> {
        let account = self.unlocked().account();
        let Answer::Space(info) = self.cluster().ask(Query::Space { space: id, account }).await? else { return Err(unexpected()) };
        let Some(info) = info.filter(|i| i.space == id) else {
            self.forget_space(id);
            return Err(Error::denied("this folder is shared with others, not with you (any more)"));
        };
        let open = self
            .change_notes(|notes| {
                let open = OpenSpace::open(&info, self.unlocked(), notes.seen(id))?;
                let mut changed = notes.seen(id).is_none_or(|seen| seen.seq < open.seen().seq);
                notes.remember(open.seen());
                for member in &open.members().newest().1.members {
                    let pinned = notes.pin(member.account).is_some();
                    if member.account == account || (member.role < Role::Admin && !pinned) {
                        continue;
                    }
                    let identity = info.identities.iter().find(|i| i.fingerprint() == member.fingerprint);
                    let body = identity::verify(identity.ok_or_else(|| Error::corrupt("an admin's identity is missing"))?)?;
                    changed |= notes.meet(body.account, &body.name, member.fingerprint, self.env().now_ms())?;
                }
                Ok((open, changed))
            })
            .await?;
        let space = Arc::new(Space::new(open, *info)?);
        let before = self.spaces().known().insert(id, space.clone());
        if before.is_some_and(|b| b.root_id() != space.root_id()) {
            self.folders().forget_space(id);
        }
        Ok(space)
    }

    /// The next look asks the servers anew.
    pub(crate) fn forget_space(&self, id: SpaceId) {
        if id != self.home().id() {
            self.spaces().known().remove(&id);
            self.folders().forget_space(id);
        }
    }

    /// Rows of a space, and the space as it was when they were read: opened anew when the servers know
    /// more members or another root than we do. `Conflict` ([`moved`]) in the latter case.
    pub(crate) async fn rows(&self, space: &Arc<Space>, query: Query) -> Result<(Rows, Arc<Space>)> {
        let Answer::Rows(rows) = self.cluster().ask(query).await? else { return Err(unexpected()) };
        self.rows_of(space, rows).await
    }

    /// The same for an answer at hand.
    pub(crate) async fn rows_of(&self, space: &Arc<Space>, rows: Rows) -> Result<(Rows, Arc<Space>)> {
        let other_root = rows.root.is_some_and(|root: FolderId| root != space.root_id());
        if rows.members <= space.seq() && !other_root {
            return Ok((rows, space.clone()));
        }
        let fresh = self.space_anew(space.id()).await?;
        if fresh.root_id() == space.root_id() { Ok((rows, fresh)) } else { Err(moved()) }
    }

    /// The folder behind an entry: of the entry's own space, or the root of another one.
    pub(crate) async fn behind(&self, space: &Arc<Space>, path: &RemotePath, entry: &Sealed) -> Result<Folder> {
        if let Content::Space(id) = entry.content {
            let opened = self.space(id).await;
            return Ok(opened.map_err(|e| Error { message: format!("{path}: {}", e.message), ..e })?.at(path.clone()));
        }
        let keys = space.child(entry).ok_or_else(|| Error::invalid(format!("{path} is not a folder")))?;
        Ok(Folder { path: path.clone(), keys: Arc::new(keys), space: space.clone() })
    }

    /// Policy of a new file in a space, where the command says nothing.
    pub(crate) async fn policy_in(&self, space: &Space) -> Result<Policy> {
        Ok(match self.options().policy.or(space.info.policy) {
            Some(policy) => policy,
            None => self.cluster().view(false).await?.policy,
        })
    }

    /// `Denied`, in words, where this account may not write.
    pub(crate) fn check_writable(&self, folder: &Folder) -> Result<()> {
        if folder.space.is_writable(self.unlocked().account()) {
            return Ok(());
        }
        let owner = folder.space.owner().and_then(|owner| folder.space.name_of(owner));
        let hint = owner.map(|owner| format!("ask {owner} for the right to write")).unwrap_or_default();
        Err(Error { hint: Some(hint).filter(|h| !h.is_empty()), ..Error::denied(format!("{}: you may only read here", folder.path)) })
    }
}
