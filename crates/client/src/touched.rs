//! Which folders of a space have changed: for whoever keeps listings at hand and must know whether they still
//! hold. The log of changes says it in the clear, so no row is opened for it.

use crate::connection::unexpected;
use crate::session::Client;
use crate::shared::not_here;
use crate::tree::{Entry, EntryKind};
use model::command::{Answer, Query};
use model::{Error, FolderId, Result, SpaceId};
use seal::tree::Content;
use std::collections::BTreeSet;

/// What changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Revision of the space up to which this tells everything.
    pub upto: u64,
    /// The log of changes does not reach back as far, or all folders have new keys and ids: any may have changed.
    pub resync: bool,
    /// Folders in which entries appeared, changed or went since. One that was destroyed with all below it is told
    /// by the folder in which it lay.
    pub folders: BTreeSet<(SpaceId, FolderId)>,
}

impl Entry {
    /// The folder that this entry leads to, with its space, as far as the entry says it: `None` for a file, and for
    /// the door to a space that has to be opened ([`Client::folder_id`]).
    pub fn folder_id(&self) -> Option<(SpaceId, FolderId)> {
        match &self.found.entry.content {
            _ if self.place.is_some() => None,
            Content::Folder { id, .. } => Some((self.space.id(), *id)),
            Content::Space(id) if *id == self.space.id() => Some((*id, self.space.root_id())),
            _ => None,
        }
    }
}

impl Client {
    /// The folder that an entry leads to, with its space. `Invalid` for what is no folder.
    pub async fn folder_id(&self, entry: &Entry) -> Result<(SpaceId, FolderId)> {
        match entry.folder_id() {
            Some(id) => Ok(id),
            None => self.folder_of(entry).await.map(|folder| (folder.space.id(), folder.keys.folder)),
        }
    }

    /// Folders that changed in the space that a folder lies in (behind a door: leads to) after a revision,
    /// including everything that was committed before this is asked. With `u64::MAX` the present revision, and
    /// nothing else. Does not wait. Versions that end or are dropped are not told of.
    pub async fn touched(&self, folder: &Entry, after: u64) -> Result<Touched> {
        let space = match &folder.found.entry.content {
            _ if folder.place.is_some() => return Err(not_here(&folder.path)),
            Content::Space(id) => *id,
            _ if folder.kind == EntryKind::Folder => folder.space.id(),
            _ => return Err(Error::invalid(format!("{} is not a folder", folder.path))),
        };
        let mut told = Touched { upto: after, ..Touched::default() };
        loop {
            let query = Query::Changes { space, after: told.upto };
            let Answer::Changes(page) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            let ahead = page.upto > told.upto;
            told.upto = page.upto;
            let notes = page.commits.iter().flat_map(|commit| &commit.notes);
            let places = notes.flat_map(|note| [Some(note.folder), note.from.map(|(folder, _)| folder)]);
            told.folders.extend(places.flatten().map(|folder| (space, folder)));
            if page.resync {
                told.resync = true;
                return Ok(told);
            }
            // A page that does not go on would be asked for for ever.
            if !page.more || !ahead {
                return Ok(told);
            }
        }
    }
}
