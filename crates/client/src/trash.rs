//! The trash of a space: what was removed, where it lay, when and by whom; and back again.

use crate::commit::Pending;
use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::{EntryKind, Folder};
use crate::versions::{VersionNumber, choose};
use crate::ways::Ways;
use model::command::{Answer, Command, Query};
use model::history::{TrashPage, Trashed};
use model::tree::{Change, Expect, Row};
use model::{AccountId, EntryId, Error, FolderId, Kind, Result};
use seal::tree::{Found, RowVerifier, VerifiedRow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Items of a page.
const PAGE: u32 = 250;

/// Something in the trash.
#[derive(Clone)]
pub struct TrashItem {
    /// Its id: stays when it comes back.
    pub id: EntryId,
    /// Where it lay; `None` when its folder is gone for good, and with it the means to open it.
    pub path: Option<RemotePath>,
    /// File, folder or symlink, where known.
    pub kind: Option<EntryKind>,
    /// Bytes, of a file.
    pub size: Option<u64>,
    /// When it was removed, milliseconds since 1970, as the servers say.
    pub removed_ms: u64,
    /// Who removed it, as signed.
    pub by: AccountId,
    /// Name of that account.
    pub by_name: String,
    /// When it will be gone, milliseconds since 1970.
    pub until_ms: u64,
    /// The folder in which it lay is in the trash itself.
    pub in_removed_folder: bool,
    trashed: Trashed,
    /// The signed removal.
    removal: Row,
    last: Option<Arc<Found>>,
}

impl Client {
    /// Goes through the trash of the space at a path, newest first: what lay there or below. `each` says
    /// whether to go on.
    pub async fn trash(&self, below: &RemotePath, mut each: impl FnMut(TrashItem) -> Result<bool>) -> Result<()> {
        let folder = self.folder_above(below).await?;
        let mut ways = self.ways(&folder).await?;
        let mut after = None;
        loop {
            let (items, next) = self.trash_page(&folder, &mut ways, after).await?;
            for item in items {
                let within = item.path.as_ref().map_or(below.name().is_none(), |path| path.is_within(below));
                if within && !each(item)? {
                    return Ok(());
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn trash_page(
        &self,
        folder: &Folder,
        ways: &mut Ways,
        after: Option<(u64, EntryId)>,
    ) -> Result<(Vec<TrashItem>, Option<(u64, EntryId)>)> {
        let space = &folder.space;
        let query = Query::Trash { space: space.id(), after, limit: PAGE };
        let Answer::Trash(page) = self.cluster().ask(query).await? else { return Err(unexpected()) };
        let TrashPage { items, rows, more, retention_ms } = page;
        let (rows, space) = self.rows_of(space, rows).await?;
        let verified = RowVerifier::new(&space).verify(&rows)?;
        let folders: BTreeSet<FolderId> = rows.rows.iter().map(|row| row.row.folder).collect();
        self.learn(&space, ways, folders).await?;
        let by_revision: BTreeMap<(EntryId, u64), VerifiedRow<'_>> =
            verified.rows().map(|row| ((row.row().row.entry, row.row().row.rev), row)).collect();
        let mut found = Vec::with_capacity(items.len());
        let mut last = after;
        for trashed in items {
            if last.is_some_and(|(ms, id)| (ms, std::cmp::Reverse(id)) <= (trashed.ended_ms, std::cmp::Reverse(trashed.entry))) {
                return Err(Error::corrupt("the trash is listed out of order"));
            }
            last = Some((trashed.ended_ms, trashed.entry));
            // Its removal may end between the listing and now: then it is gone.
            let Some(removal) = by_revision.get(&(trashed.entry, trashed.rev)) else { continue };
            if !removal.is_removal() {
                return Err(Error::corrupt("the trash holds something that nobody has removed"));
            }
            let before = by_revision.get(&(trashed.entry, trashed.rev.saturating_sub(1))).filter(|row| !row.is_removal());
            let way = before.and_then(|row| ways.get(row.row().row.folder));
            let opened = before.zip(way).map(|(row, way)| row.open(&way.keys).map(Arc::new)).transpose()?;
            found.push(TrashItem {
                id: trashed.entry,
                path: way.zip(opened.as_ref()).map(|(way, found)| way.path.join(&found.entry.name)),
                kind: opened.as_ref().map(|f| f.entry.kind()),
                size: opened.as_ref().map(|f| f.entry.size),
                removed_ms: removal.row().time_ms,
                by: removal.author(),
                by_name: String::new(),
                until_ms: trashed.ended_ms.saturating_add(retention_ms),
                in_removed_folder: way.is_some_and(|way| way.removed),
                removal: removal.row().row.clone(),
                trashed,
                last: opened,
            });
        }
        let names = self.names_of(&space, found.iter().map(|i| i.by).collect::<BTreeSet<_>>())?;
        for item in &mut found {
            item.by_name = names.get(&item.by).cloned().unwrap_or_default();
        }
        let next = last.filter(|_| more && last != after);
        Ok((found, next))
    }

    /// What was removed last from a path. `NotFound` when the trash holds nothing from there.
    pub(crate) async fn find_in_trash(&self, path: &RemotePath) -> Result<TrashItem> {
        let mut newest = None;
        self.trash(path, |item| {
            if item.path.as_ref() == Some(path) {
                newest = Some(item);
            }
            Ok(newest.is_none())
        })
        .await?;
        newest
            .ok_or_else(|| Error::not_found(format!("{path}: no such file or folder, and none in the trash")).hint("shardkeep trash list"))
    }

    /// Brings back what was removed last from a path, there or to another free place; answers with which.
    pub async fn restore_removed(&self, path: &RemotePath, to: Option<&RemotePath>) -> Result<RemotePath> {
        let item = self.find_in_trash(path).await?;
        self.untrash(&item, to).await
    }

    /// Brings something back from the trash: a folder with everything below it, as it was. To where it lay,
    /// or to another free place. `Exists` when something lies there.
    pub async fn untrash(&self, item: &TrashItem, to: Option<&RemotePath>) -> Result<RemotePath> {
        self.restore_from_trash(item, None, to).await?;
        to.cloned().or_else(|| item.path.clone()).ok_or_else(unexpected)
    }

    pub(crate) async fn restore_from_trash(
        &self,
        item: &TrashItem,
        number: Option<VersionNumber>,
        to: Option<&RemotePath>,
    ) -> Result<VersionNumber> {
        let gone = || Error::invalid("the folder in which it lay is gone for good, and with it the means to open it");
        let lay = item.path.as_ref().ok_or_else(gone)?;
        let to = to.unwrap_or(lay);
        let (folder, name, there) = self.resolve(to).await.map_err(|e| match (e.kind, lay.parent()) {
            (Kind::NotFound, Some(parent)) if item.in_removed_folder => Error::not_found(format!("{parent} is in the trash itself"))
                .hint(format!("shardkeep restore {parent}, or restore {lay} --to PATH")),
            _ => e,
        })?;
        if there.is_some() {
            return Err(Error::exists(format!("{to} exists already")).hint(format!("shardkeep restore {lay} --to PATH")));
        }
        let last = item.last.clone().ok_or_else(gone)?;
        let versions;
        let (content, number) = match number {
            None => (&last.entry, VersionNumber::of(last.rev)),
            Some(_) if item.kind == Some(EntryKind::Folder) => {
                return Err(Error::invalid(format!("{lay} is a folder: it comes back as it was")));
            }
            Some(number) => {
                versions = self.versions_of(&folder, item.id, None).await?;
                let chosen = choose(lay, &versions, Some(number))?;
                (chosen.content(lay)?, number)
            }
        };
        let rev = item.trashed.rev;
        self.commit_restored(&folder, &name, item.id, rev + 1, Expect::Removed { rev }, content).await?;
        Ok(number)
    }

    /// Destroys for good what lies in the trash below a path and was removed before a time (milliseconds
    /// since 1970). Answers with how many that were.
    pub async fn empty_trash(&self, below: &RemotePath, removed_before_ms: u64) -> Result<u64> {
        let space = self.folder_above(below).await?.space;
        let committer = self.committer();
        let (mut items, mut sent) = (Vec::new(), 0);
        self.trash(below, |item| {
            if item.removed_ms < removed_before_ms {
                items.push((item.removal, item.trashed));
            }
            Ok(true)
        })
        .await?;
        for (removal, trashed) in items {
            let row = Row { rev: trashed.rev + 1, ..removal };
            let expect = Expect::Removed { rev: trashed.rev };
            let change = Change { row, expect, child: trashed.child, manifest: None, new_manifest: None, purge: true };
            committer.send(Pending::new(&space, change), trashed.entry.to_string()).await?;
            sent += 1;
        }
        let done = committer.finish().await;
        // What somebody else has restored or destroyed meanwhile is not in the trash any more.
        match done.failed.into_iter().find(|(_, e)| e.kind != Kind::Conflict) {
            Some((_, e)) => Err(e),
            None => Ok(done.done.min(sent)),
        }
    }

    /// For how long the space at a path keeps versions and trash. Admins of the space only.
    pub async fn set_retention(&self, path: &RemotePath, keep: Duration) -> Result<()> {
        let folder = self.folder_above(path).await?;
        let space = folder.space.id();
        let retention_ms = u64::try_from(keep.as_millis()).map_err(|_| Error::invalid("that is too long"))?;
        self.propose(Command::SetRetention { space, retention_ms: Some(retention_ms) }).await.map(|_| ())
    }

    /// For how long the space at a path keeps versions and trash.
    pub async fn retention(&self, path: &RemotePath) -> Result<Duration> {
        let folder = self.folder_above(path).await?;
        let query = Query::Trash { space: folder.space.id(), after: None, limit: 1 };
        let Answer::Trash(page) = self.cluster().ask(query).await? else { return Err(unexpected()) };
        Ok(Duration::from_millis(page.retention_ms))
    }
}
