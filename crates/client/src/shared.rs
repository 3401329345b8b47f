//! `/Shared/OWNER/NAME`: the spaces that others have shared with this account, as folders of its tree.
//!
//! A space appears there when no folder of a space of one's own leads to it. What it is called comes from
//! its admins, sealed and signed; the account may rename or hide it for itself, in its notes.

use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::Space;
use crate::tree::{Entry, Folder};
use futures::StreamExt;
use model::account::Membership;
use model::command::{Answer, Query};
use model::{Error, Result, SpaceId};
use seal::account::ShareNote;
use seal::tree::{Attributes, Content, Entry as Sealed, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The folder of all shares.
pub(crate) const SHARED: &str = "Shared";

/// A folder that only this account sees: of all shares, of all of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Virtual {
    All,
    Owner,
}

/// A space that appears under `/Shared`.
#[derive(Clone)]
pub(crate) struct Share {
    pub membership: Membership,
    pub space: Arc<Space>,
    pub owner: String,
    pub name: Name,
    pub hidden: bool,
}

/// How deep in the tree a path lies in what only this account sees: 1 for `/Shared`, 3 for a share.
pub(crate) fn depth_of(path: &RemotePath) -> Option<usize> {
    let first = path.names().first()?;
    (first.as_bytes() == SHARED.as_bytes()).then(|| path.names().len())
}

/// Why nothing can be done with `/Shared` itself and with its folders of owners.
pub(crate) fn not_here(path: &RemotePath) -> Error {
    Error::invalid(format!("{path}: only what others share with you appears here, under their names"))
        .hint("shardkeep shares rename|hide PATH, or shardkeep shares leave PATH")
}

impl Client {
    /// All memberships, homes left out.
    pub(crate) async fn memberships(&self) -> Result<Vec<Membership>> {
        let account = self.unlocked().account();
        match self.cluster().ask(Query::Spaces { account }).await? {
            Answer::Spaces(spaces) => Ok(spaces),
            _ => Err(unexpected()),
        }
    }

    /// The spaces that appear under `/Shared`, in order of owner and name, and why others could not be opened.
    pub(crate) async fn shared(&self) -> Result<(Vec<Share>, Vec<(SpaceId, Error)>)> {
        let all = self.memberships().await?;
        let mine: BTreeSet<SpaceId> = all.iter().map(|m| m.space).chain([self.home().id()]).collect();
        let shown: Vec<Membership> = all.into_iter().filter(|m| m.parent.is_none_or(|p| !mine.contains(&p))).collect();
        if shown.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let opened = futures::stream::iter(shown.into_iter().map(|m| async move {
            let space = match self.space(m.space).await {
                Ok(space) if space.seq() >= m.seq && space.info.owner == Some(m.owner) => Ok(space),
                _ => self.space_anew(m.space).await,
            };
            (m, space)
        }));
        let opened: Vec<_> = opened.buffered(8).collect().await;
        let (_, notes) = self.notes().await?;
        let (mut shares, mut failed) = (Vec::new(), Vec::new());
        for (membership, space) in opened {
            let id = membership.space;
            let share = space.and_then(|space| {
                let owner = space.name_of(space.owner()?)?;
                let note = notes.share(id);
                let name = match (note.and_then(|n| n.name.clone()), &space.label) {
                    (Some(name), _) => name,
                    (None, Some(label)) => label.name.clone(),
                    (None, None) => Name::new(&id.to_string())?,
                };
                Ok(Share { owner, name, hidden: note.is_some_and(|n| n.hidden), membership, space })
            });
            match share {
                Ok(share) => shares.push(share),
                Err(e) => failed.push((id, e)),
            }
        }
        tell_apart(&mut shares)?;
        shares.sort_by(|a, b| (&a.owner, &a.name).cmp(&(&b.owner, &b.name)));
        Ok((shares, failed))
    }

    /// The share at `/Shared/OWNER/NAME`.
    pub(crate) async fn share_at(&self, path: &RemotePath) -> Result<Share> {
        let [_, owner, name, ..] = path.names() else { return Err(not_here(path)) };
        let (shares, failed) = self.shared().await?;
        let found = shares.into_iter().find(|s| s.owner.as_bytes() == owner.as_bytes() && s.name == *name);
        match (found, failed.into_iter().next()) {
            (Some(share), _) => Ok(share),
            // It may be the one that does not open: that is worth more than a word that there is none.
            (None, Some((_, e))) => Err(e),
            (None, None) => Err(Error::not_found(format!("{}: nothing is shared with you under this name", path.prefix(3)))),
        }
    }

    /// The root folder of the share that a path leads into.
    pub(crate) async fn share_folder(&self, path: &RemotePath) -> Result<Folder> {
        Ok(self.share_at(path).await?.space.at(path.prefix(3)))
    }

    /// The entry at a path that only this account sees.
    pub(crate) async fn virtual_entry(&self, path: &RemotePath) -> Result<Entry> {
        match path.names() {
            [_] => Ok(self.folder_entry(path.clone(), Virtual::All)),
            [_, owner] => {
                let (shares, failed) = self.shared().await?;
                match (shares.iter().any(|s| s.owner.as_bytes() == owner.as_bytes()), failed.into_iter().next()) {
                    (true, _) => Ok(self.folder_entry(path.clone(), Virtual::Owner)),
                    (false, Some((_, e))) => Err(e),
                    (false, None) => Err(Error::not_found(format!("{path}: nobody of this name shares anything with you"))),
                }
            }
            _ => {
                let share = self.share_at(path).await?;
                Ok(self.share_entry(path.clone(), &share))
            }
        }
    }

    /// What lies in a folder that only this account sees.
    pub(crate) async fn virtual_list(&self, path: &RemotePath, kind: Virtual) -> Result<Vec<Entry>> {
        let (shares, failed) = self.shared().await?;
        for (space, e) in &failed {
            tracing::warn!(%space, error = %e, "something shared with you does not open, and is not shown");
        }
        let visible = shares.iter().filter(|s| !s.hidden);
        match kind {
            Virtual::All => {
                let owners: BTreeSet<&str> = visible.map(|s| s.owner.as_str()).collect();
                owners.into_iter().map(|o| Ok(self.folder_entry(path.join(&Name::new(o)?), Virtual::Owner))).collect()
            }
            Virtual::Owner => {
                let owner = path.name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
                Ok(visible.filter(|s| s.owner.as_bytes() == owner).map(|s| self.share_entry(path.join(&s.name), s)).collect())
            }
        }
    }

    /// `/Shared` among the entries of the root, when there is something in it.
    pub(crate) async fn shared_entry(&self) -> Result<Option<Entry>> {
        let mine: BTreeSet<SpaceId> = [self.home().id()].into();
        let all = self.memberships().await?;
        let mine: BTreeSet<SpaceId> = all.iter().map(|m| m.space).chain(mine).collect();
        let any = all.iter().any(|m| m.parent.is_none_or(|p| !mine.contains(&p)));
        let path = RemotePath::root().join(&Name::new(SHARED)?);
        Ok(any.then(|| self.folder_entry(path, Virtual::All)))
    }

    fn folder_entry(&self, path: RemotePath, kind: Virtual) -> Entry {
        // Its content is never looked at: `kind` says what it is.
        let entry = self.made_up(path, Content::Space(SpaceId([0; 16])), 0o500, 0);
        Entry { place: Some(kind), ..entry }
    }

    fn share_entry(&self, path: RemotePath, share: &Share) -> Entry {
        let mode = if share.space.is_writable(self.unlocked().account()) { 0o700 } else { 0o500 };
        self.made_up(path, Content::Space(share.space.id()), mode, share.membership.since_ms)
    }

    fn made_up(&self, path: RemotePath, content: Content, mode: u32, time_ms: u64) -> Entry {
        let mtime_ns = i64::try_from(time_ms).unwrap_or(0).saturating_mul(1_000_000);
        let attributes = Attributes { mode, mtime_ns, more: Vec::new() };
        let sealed = path.name().cloned().map(|name| Sealed { name, attributes, size: 0, content });
        Entry::made_up(path, sealed, self.home_space().clone(), self.unlocked().account())
    }

    /// Renames a share for this account alone; `None`: back to what its owner calls it. `Exists` when another
    /// one of the same owner has this name.
    pub async fn rename_share(&self, path: &RemotePath, name: Option<&str>) -> Result<()> {
        let share = self.only_share(path).await?;
        let name = name.map(Name::new).transpose()?;
        if let Some(name) = &name {
            let (shares, _) = self.shared().await?;
            if shares.iter().any(|s| s.owner == share.owner && s.name == *name && s.space.id() != share.space.id()) {
                return Err(Error::exists(format!("{} shares something of this name already", share.owner)));
            }
        }
        self.note_share(share.space.id(), |note| note.name.clone_from(&name)).await
    }

    /// Shows a share no more, or again. It can still be reached by its path.
    pub async fn hide_share(&self, path: &RemotePath, hidden: bool) -> Result<()> {
        let share = self.only_share(path).await?;
        self.note_share(share.space.id(), |note| note.hidden = hidden).await
    }

    /// The share at exactly this path.
    pub(crate) async fn only_share(&self, path: &RemotePath) -> Result<Share> {
        if depth_of(path) == Some(3) { self.share_at(path).await } else { Err(not_here(path)) }
    }

    async fn note_share(&self, space: SpaceId, change: impl Fn(&mut ShareNote)) -> Result<()> {
        self.change_notes(|notes| {
            let before = notes.share(space).cloned().unwrap_or_else(|| ShareNote::of(space));
            let mut note = before.clone();
            change(&mut note);
            let changed = note != before;
            notes.set_share(note);
            Ok(((), changed))
        })
        .await
    }
}

/// Shares of one owner under one name get numbers, in order of their spaces.
fn tell_apart(shares: &mut [Share]) -> Result<()> {
    shares.sort_by_key(|s| s.space.id());
    let mut taken: BTreeMap<(String, Name), u32> = BTreeMap::new();
    for share in shares {
        let count = taken.entry((share.owner.clone(), share.name.clone())).or_default();
        *count += 1;
        if *count > 1 {
            let numbered = format!("{} ({count})", String::from_utf8_lossy(share.name.as_bytes()));
            share.name = Name::new(&numbered).unwrap_or_else(|_| share.name.clone());
        }
    }
    Ok(())
}
