//! What older versions and the trash take on disk, beside what is current. The numbers are the servers':
//! nothing is decided by them.

use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::tree::EntryKind;
use model::command::{Answer, Query};
use model::{EntryId, FolderId, ObjectId, Result, SpaceId};
use std::collections::BTreeSet;

/// Bytes on disk of what is not current.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of older and conflict versions of what is there.
    pub versions: u64,
    /// Of the trash, with all versions of what is in it.
    pub trash: u64,
}

impl Client {
    /// What is kept of what lies, or lay, at a path or below. Content that something current shares counts
    /// there, not here; what two versions share counts once.
    pub async fn kept(&self, path: &RemotePath) -> Result<Kept> {
        let (mut below, mut entries, mut counted) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        self.walk(path, true, |entry| {
            if entry.kind == EntryKind::Folder && entry.place.is_none() {
                below.push(entry.clone());
            }
            entries.insert(entry.id);
            counted.extend(entry.manifest.iter().flat_map(|m| &m.objects).map(|o| o.object));
            Ok(())
        })
        .await?;
        let (mut folders, mut spaces) = (BTreeSet::new(), BTreeSet::new());
        for entry in &below {
            let folder = self.folder_of(entry).await?;
            folders.insert(folder.keys.folder);
            spaces.insert(folder.space.id());
        }
        if below.is_empty() {
            spaces.insert(self.folder_above(path).await?.space.id());
        }
        let mut kept = Kept::default();
        for space in spaces {
            self.add_kept(space, &folders, &entries, &mut counted, &mut kept).await?;
        }
        Ok(kept)
    }

    async fn add_kept(
        &self,
        space: SpaceId,
        folders: &BTreeSet<FolderId>,
        entries: &BTreeSet<EntryId>,
        counted: &mut BTreeSet<ObjectId>,
        kept: &mut Kept,
    ) -> Result<()> {
        let (mut after, mut removed) = (None, Vec::new());
        loop {
            let Answer::Kept(page, more) = self.cluster().ask(Query::Kept { space, after, limit: 1_000 }).await? else {
                return Err(unexpected());
            };
            for size in &page {
                let here = if size.trashed { folders.contains(&size.folder) } else { entries.contains(&size.entry) };
                if !here {
                    continue;
                }
                let sum = if size.trashed { &mut kept.trash } else { &mut kept.versions };
                *sum = sum.saturating_add(size.sealed);
                for (object, bytes) in &size.objects {
                    if counted.insert(*object) {
                        *sum = sum.saturating_add(*bytes);
                    }
                }
                removed.extend(size.child.filter(|_| size.trashed));
            }
            let last = page.last().map(|size| (size.entry, size.rev));
            if !more || last.is_none() || last <= after {
                break;
            }
            after = last;
        }
        kept.trash = kept.trash.saturating_add(self.size_below(space, removed, counted).await?);
        Ok(())
    }

    /// Bytes on disk of all that lies in folders and below. No key is needed for that.
    async fn size_below(&self, space: SpaceId, mut folders: Vec<FolderId>, counted: &mut BTreeSet<ObjectId>) -> Result<u64> {
        let (mut sum, mut seen) = (0u64, BTreeSet::new());
        while let Some(folder) = folders.pop() {
            let mut after = None;
            while seen.insert((folder, after)) {
                let query = Query::List { space, folder, after, limit: 500, manifests: true, have: Vec::new() };
                let Answer::Rows(rows) = self.cluster().ask(query).await? else { return Err(unexpected()) };
                sum = rows.rows.iter().fold(sum, |sum, row| sum.saturating_add(row.row.sealed.len() as u64));
                folders.extend(rows.rows.iter().filter_map(|row| row.child));
                for content in rows.manifests.iter().flat_map(|m| &m.objects).filter(|o| counted.insert(o.object)) {
                    let shards = content.bytes.div_ceil(u64::from(content.policy.k.max(1)));
                    sum = sum.saturating_add(shards.saturating_mul(u64::from(content.policy.width())));
                }
                match rows.rows.last() {
                    Some(row) if rows.more => after = Some(row.row.tag),
                    _ => break,
                }
            }
        }
        Ok(sum)
    }
}
