//! Re-key: everything below a folder sealed anew for another root, beside what is there, and swapped with
//! it at one moment. The catalog's part is in its `rekey` module.
//!
//! Entries are opened and sealed under fresh folder keys; contents stay where they are, under the keys that
//! they have. Folders come before what lies in them, and current entries before older versions, of which
//! some lie in other folders than their entry now.

use crate::connection::unexpected;
use crate::session::Client;
use crate::spaces::Space;
use crate::tree::Folder;
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use model::command::{Answer, Command, Query, Rekey, Rows};
use model::tree::{COMMIT_MAX, CONFLICTS, Change, CommitRecord, Expect, Resealed};
use model::{EntryId, FolderId, Result, SpaceId};
use seal::tree::{Content, Entry as Sealed, FolderKeys, Found, Listing, RowVerifier, VerifiedRow, new_folder};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows asked for at once.
const PAGE: u32 = 2_000;
/// Batches of rows on their way at once.
const BATCHES: usize = 4;

/// What was sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// Current entries.
    pub entries: u64,
    /// Older versions, and what is in the trash.
    pub older: u64,
    /// Older versions that could not be taken along: they lay in a folder elsewhere.
    pub left: u64,
}

impl Client {
    /// Seals everything in a space anew, under the keys of its newest epoch. Needed after somebody was removed
    /// or demoted; does nothing when it is done already.
    pub(crate) async fn rekey_space(&self, id: SpaceId) -> Result<Rekeyed> {
        let space = self.space_anew(id).await?;
        if space.root_epoch() == space.epoch() {
            return Ok(Rekeyed::default());
        }
        let to = Arc::new(space.next_root()?);
        let rekey = Rekey { source: id, folder: space.root_id(), target: id, root: to.folder, new: None };
        self.propose(Command::BeginRekey(Box::new(rekey))).await?;
        let done = match self.reseal(&space, &space, space.root.clone(), to).await {
            Ok(done) => self.propose(Command::SwapRekey { target: id, door: None }).await.map(|_| done),
            Err(e) => Err(e),
        };
        self.end_rekey(id, done).await
    }

    /// What failed is given up at once, so that others can write again.
    pub(crate) async fn end_rekey<T>(&self, target: SpaceId, done: Result<T>) -> Result<T> {
        if done.is_err()
            && let Err(e) = self.propose(Command::AbandonRekey { target }).await
        {
            tracing::debug!(error = %e, "a re-key could not be given up: its lease ends by itself");
        }
        self.forget_space(target);
        done
    }

    /// Everything below `from`, sealed for `to` in the target space, whose re-key has begun.
    pub(crate) async fn reseal(
        &self,
        source: &Arc<Space>,
        target: &Arc<Space>,
        from: Arc<FolderKeys>,
        to: Arc<FolderKeys>,
    ) -> Result<Rekeyed> {
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let query = Query::Older { space: source.id(), after, limit: PAGE };
            let Answer::Rows(rows) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            let more = rows.more;
            after = rows.rows.last().map(|r| (r.row.entry, r.row.rev));
            pages.push(rows);
            if !more || after.is_none() {
                break;
            }
        }
        let mut work = Work {
            client: self,
            source,
            target,
            known: BTreeMap::new(),
            made: BTreeMap::new(),
            ids: BTreeMap::new(),
            todo: Vec::new(),
            rows: Vec::new(),
            older: BTreeMap::new(),
            trash: BTreeMap::new(),
            with_older: Vec::new(),
            done: Rekeyed::default(),
        };
        work.take_older(&pages)?;
        work.known.insert(from.folder, (from.clone(), to));
        work.todo.push(from.folder);
        work.run().await?;
        Ok(work.done)
    }

    /// The change by which a folder's entry becomes the door to a space.
    pub(crate) fn door_change(&self, parent: &Folder, found: &Found, space: SpaceId) -> Result<Change> {
        let Found { id, rev, tag, entry, .. } = found;
        let door = Sealed { name: entry.name.clone(), attributes: entry.attributes.clone(), size: 0, content: Content::Space(space) };
        let row = parent.keys.seal(*id, rev + 1, &door, &mut self.env().rand())?;
        let expect = Expect::At { folder: parent.keys.folder, tag: *tag, rev: *rev };
        Ok(Change { row, expect, child: None, manifest: None, new_manifest: None, purge: false })
    }
}

/// A folder's keys, and those of the fresh one that takes its place.
type Pair = (Arc<FolderKeys>, Arc<FolderKeys>);

struct Work<'a> {
    client: &'a Client,
    source: &'a Arc<Space>,
    target: &'a Arc<Space>,
    /// Folders met so far.
    known: BTreeMap<FolderId, Pair>,
    /// What leads to the fresh folder of each, and its id.
    made: BTreeMap<FolderId, (Content, FolderId)>,
    /// New ids of entries.
    ids: BTreeMap<EntryId, EntryId>,
    /// Folders whose entries are still to be done.
    todo: Vec<FolderId>,
    /// Rows not sent yet.
    rows: Vec<Resealed>,
    /// Older versions by entry, the newest first.
    older: BTreeMap<EntryId, Vec<VerifiedRow<'a>>>,
    /// Entries in the trash, by the folder in which they lay.
    trash: BTreeMap<FolderId, Vec<EntryId>>,
    /// Current entries that have older versions: with their new id and folder.
    with_older: Vec<(Found, EntryId, Arc<FolderKeys>)>,
    done: Rekeyed,
}

async fn send(client: &Client, (record, rows): (CommitRecord, Vec<Resealed>)) -> Result<()> {
    client.propose(Command::RekeyRows { record, rows }).await.map(|_| ())
}

impl<'a> Work<'a> {
    fn take_older(&mut self, pages: &'a [Rows]) -> Result<()> {
        for page in pages {
            for row in RowVerifier::new(self.source).verify(page)?.rows() {
                self.older.entry(row.row().row.entry).or_default().push(row);
            }
        }
        for (entry, rows) in &mut self.older {
            rows.sort_by_key(|r| std::cmp::Reverse(r.row().row.rev));
            // What was removed last is in the trash, unless it came back: then a current row tells.
            let last = rows.iter().find(|r| r.row().row.rev < CONFLICTS);
            if let Some(last) = last.filter(|r| r.is_removal()) {
                self.trash.entry(last.row().row.folder).or_default().push(*entry);
            }
        }
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        loop {
            while let Some(folder) = self.todo.pop() {
                self.folder(folder).await?;
            }
            // Folders in the trash have entries of their own.
            let Some(folder) = self.trash.keys().copied().find(|f| self.known.contains_key(f)) else { break };
            for entry in self.trash.remove(&folder).unwrap_or_default() {
                if let Some(rows) = self.older.remove(&entry)
                    && let Some((_, to)) = self.known.get(&folder).cloned()
                {
                    let id = self.id_of(entry);
                    self.versions(id, &to, &rows, None)?;
                }
            }
            self.flush(false).await?;
        }
        for (found, id, to) in std::mem::take(&mut self.with_older) {
            let rows = self.older.remove(&found.id).unwrap_or_default();
            self.versions(id, &to, &rows, Some(&found))?;
            self.flush(false).await?;
        }
        // A folder of which only older versions tell: nothing leads to it any more.
        self.flush(true).await
    }

    /// The current entries of a folder.
    async fn folder(&mut self, folder: FolderId) -> Result<()> {
        let Some((from, to)) = self.known.get(&folder).cloned() else { return Ok(()) };
        let mut listing = Listing::new();
        loop {
            let (after, have) = (listing.after(), listing.have());
            let query = Query::List { space: self.source.id(), folder, after, limit: PAGE, manifests: false, have };
            let Answer::Rows(rows) = self.client.cluster().ask(query).await? else { return Err(unexpected()) };
            for row in listing.page(self.source, &rows)?.rows() {
                let found = row.open(&from)?;
                let id = self.id_of(found.id);
                self.push(id, &to, &found)?;
                self.done.entries += 1;
                if self.older.contains_key(&found.id) {
                    self.with_older.push((found, id, to.clone()));
                }
            }
            self.flush(false).await?;
            if !rows.more {
                return Ok(());
            }
        }
    }

    /// Older versions of an entry, the newest first; of one in the trash its removal.
    fn versions(&mut self, id: EntryId, here: &Arc<FolderKeys>, rows: &[VerifiedRow<'a>], current: Option<&Found>) -> Result<()> {
        let opened: Vec<Option<Found>> =
            rows.iter().map(|row| if row.is_removal() { None } else { row.open(&self.known.get(&row.row().row.folder)?.0).ok() }).collect();
        for (i, (row, found)) in rows.iter().zip(&opened).enumerate() {
            let row = row.row();
            // It lay elsewhere perhaps: then it is kept as if it had lain here.
            let to = self.known.get(&row.row.folder).map_or(here, |(_, to)| to).clone();
            match found {
                Some(found) => self.push(id, &to, found)?,
                None if row.row.sealed.is_empty() => {
                    // Its name is that of the revision before it.
                    let before = opened.iter().skip(i + 1).find_map(|f| f.as_ref()).or(current);
                    let content = before.map(|b| self.fresh(&b.entry.content)).transpose()?;
                    match (before, content) {
                        (Some(before), Some((_, child))) if child.is_some() == row.child.is_some() => {
                            let removal = to.removal(id, row.row.rev, &before.entry.name);
                            self.rows.push(Resealed { row: removal, child, of: row.row.entry });
                        }
                        _ => {
                            self.done.left += 1;
                            continue;
                        }
                    }
                }
                None => {
                    self.done.left += 1;
                    continue;
                }
            }
            self.done.older += 1;
        }
        Ok(())
    }

    fn push(&mut self, id: EntryId, to: &FolderKeys, found: &Found) -> Result<()> {
        let old = &found.entry;
        let (content, child) = self.fresh(&old.content)?;
        let new = Sealed { name: old.name.clone(), attributes: old.attributes.clone(), size: old.size, content };
        let row = to.seal(id, found.rev, &new, &mut self.client.env().rand())?;
        self.rows.push(Resealed { row, child, of: found.id });
        Ok(())
    }

    /// Entries that stay in their space get other ids, since both trees are there for a while.
    fn id_of(&mut self, entry: EntryId) -> EntryId {
        if self.source.id() != self.target.id() {
            return entry;
        }
        *self.ids.entry(entry).or_insert_with(|| EntryId(self.client.env().random()))
    }

    /// The same content for the fresh tree. A folder's is a fresh folder, the same one each time.
    fn fresh(&mut self, content: &Content) -> Result<(Content, Option<FolderId>)> {
        let Content::Folder { id, key, epoch } = content else { return Ok((content.share(), None)) };
        if !self.made.contains_key(id) {
            let (folder, fresh_key) = new_folder(&mut self.client.env().rand());
            let now = self.target.epoch();
            let from = FolderKeys::new(self.source.id(), *id, *epoch, key);
            let to = FolderKeys::new(self.target.id(), folder, now, &fresh_key);
            self.known.insert(*id, (Arc::new(from), Arc::new(to)));
            self.todo.push(*id);
            self.made.insert(*id, (Content::Folder { id: folder, key: fresh_key, epoch: now }, folder));
        }
        let (content, folder) = self.made.get(id).ok_or_else(unexpected)?;
        Ok((content.share(), Some(*folder)))
    }

    /// Sends full batches, or with `all` everything. A folder's row is there before what lies in it is sent.
    async fn flush(&mut self, all: bool) -> Result<()> {
        let mut sending = FuturesUnordered::new();
        while self.rows.len() >= COMMIT_MAX || (all && !self.rows.is_empty()) {
            let rows: Vec<Resealed> = self.rows.drain(..self.rows.len().min(COMMIT_MAX)).collect();
            let folders = rows.iter().any(|r| r.child.is_some());
            let (_, record) =
                self.target.sign_commit(self.client.unlocked(), rows.iter().map(|r| &r.row), &mut self.client.env().rand())?;
            sending.push(send(self.client, (record, rows)));
            while sending.len() >= BATCHES || (folders && !sending.is_empty()) {
                sending.try_next().await?;
            }
        }
        while sending.try_next().await?.is_some() {}
        Ok(())
    }
}
