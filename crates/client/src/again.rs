//! A file whose commit was refused because its folder has got new keys while it was on its way: it is sealed for
//! the folder as it is now, and committed again. Its contents are there already.

use crate::commit::Pending;
use crate::conflict::Rescue;
use crate::session::Client;
use model::cluster::UploadGrant;
use model::tree::{Change, Expect};
use model::{EntryId, Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;

/// How often it is sealed anew, when keys change again meanwhile.
const TRIES: usize = 6;
/// Time for a change of keys to end.
const PAUSE: Duration = Duration::from_millis(200);

impl Client {
    /// `None` when the folder and its keys are what they were: then it was refused for another reason.
    pub(crate) async fn under_new_keys(&self, rescue: &Rescue, change: &Change, grants: &[Arc<UploadGrant>]) -> Option<Result<()>> {
        let parent = rescue.path.parent()?;
        let (mut before, mut refused) = (rescue.folder.clone(), None::<Error>);
        for _ in 0..TRIES {
            self.folders().forget(&parent);
            let found = match self.stat(&parent).await {
                Ok(entry) => self.folder_of(&entry).await,
                Err(e) => Err(e),
            };
            let Ok(folder) = found else {
                // Seen in the middle of a change, perhaps.
                self.env().sleep(PAUSE).await;
                continue;
            };
            if folder.is(&before) && folder.space.epoch() == before.space.epoch() {
                // The keys are right by now: somebody else was first.
                return match refused? {
                    e if e.kind == Kind::Conflict => {
                        let moved = Rescue { folder, there: None, ..rescue.clone() };
                        Some(self.keep_conflict(&moved, change, grants, e).await)
                    }
                    e => Some(Err(e)),
                };
            }
            if folder.space.id() != before.space.id() && change.new_manifest.is_some() {
                // Its chunks were uploaded for the space in which the folder was.
                return Some(Err(Error::conflict(format!("{parent} was shared meanwhile")).hint("put it again")));
            }
            let moved = Rescue { folder: folder.clone(), there: None, ..rescue.clone() };
            match self.commit_moved(&moved, rescue.there, change, grants).await {
                Ok(done) => return Some(done),
                Err(e) if matches!(e.kind, Kind::NotFound | Kind::Conflict) => (before, refused) = (folder, Some(e)),
                Err(e) => return Some(Err(e)),
            }
        }
        refused.map(Err)
    }

    /// What came of it. The outer error: it was refused once more, and nothing was kept.
    async fn commit_moved(
        &self,
        moved: &Rescue,
        there: Option<(EntryId, u64)>,
        change: &Change,
        grants: &[Arc<UploadGrant>],
    ) -> Result<Result<()>> {
        let keys = &moved.folder.keys;
        let now = self.look(moved).await?;
        // New keys give an entry another id, and leave its revision.
        if now.as_ref().map(|n| n.rev) != there.map(|(_, rev)| rev) {
            let refused = Error::conflict(format!("{}: somebody else was first", moved.path));
            return Ok(self.keep_conflict(moved, change, grants, refused).await);
        }
        let (id, rev) = now.as_ref().map_or_else(|| (EntryId(self.env().random()), 1), |n| (n.id, n.rev + 1));
        let row = keys.seal(id, rev, &moved.entry, &mut self.env().rand())?;
        let expect = now.map_or(Expect::Absent, |n| Expect::At { folder: keys.folder, tag: row.tag, rev: n.rev });
        let again = Change { row, expect, ..change.clone() };
        self.commit(vec![Pending::with_content(&moved.folder.space, again, grants.to_vec(), None)]).await.map(|_| Ok(()))
    }
}
