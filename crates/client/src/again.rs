//! A file whose commit was refused because its folder has got new keys while it was on its way: it is sealed for
//! the folder as it is now, and committed again. Its contents are there already.

use crate::commit::Pending;
use crate::conflict::Rescue;
use crate::session::Client;
use model::cluster::UploadGrant;
use model::tree::{Change, Expect};
use model::{EntryId, Error, Result};
use std::sync::Arc;

impl Client {
    /// `None` when the folder and its keys are what they were: then it was refused for another reason.
    pub(crate) async fn under_new_keys(&self, rescue: &Rescue, change: &Change, grants: &[Arc<UploadGrant>]) -> Option<Result<()>> {
        let parent = rescue.path.parent()?;
        self.folders().forget(&parent);
        let folder = match self.stat(&parent).await {
            Ok(entry) => self.folder_of(&entry).await.ok()?,
            Err(_) => return None,
        };
        let before = &rescue.folder;
        if folder.is(before) && folder.space.epoch() == before.space.epoch() {
            return None;
        }
        if folder.space.id() != before.space.id() && change.new_manifest.is_some() {
            // Its chunks were uploaded for the space in which the folder was.
            return Some(Err(Error::conflict(format!("{parent} was shared meanwhile")).hint("put it again")));
        }
        let moved = Rescue { folder, there: None, ..rescue.clone() };
        Some(self.commit_moved(&moved, rescue.there, change, grants).await)
    }

    async fn commit_moved(
        &self,
        moved: &Rescue,
        there: Option<(EntryId, u64)>,
        change: &Change,
        grants: &[Arc<UploadGrant>],
    ) -> Result<()> {
        let keys = &moved.folder.keys;
        let now = self.look(moved).await?;
        // New keys give an entry another id, and leave its revision.
        if now.as_ref().map(|n| n.rev) != there.map(|(_, rev)| rev) {
            let refused = Error::conflict(format!("{}: somebody else was first", moved.path));
            return self.keep_conflict(moved, change, grants, refused).await;
        }
        let (id, rev) = now.as_ref().map_or_else(|| (EntryId(self.env().random()), 1), |n| (n.id, n.rev + 1));
        let row = keys.seal(id, rev, &moved.entry, &mut self.env().rand())?;
        let expect = now.map_or(Expect::Absent, |n| Expect::At { folder: keys.folder, tag: row.tag, rev: n.rev });
        let again = Change { row, expect, ..change.clone() };
        self.commit(vec![Pending::with_content(&moved.folder.space, again, grants.to_vec(), None)]).await.map(|_| ())
    }
}
