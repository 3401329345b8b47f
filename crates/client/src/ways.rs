//! Where folders lie, found from below: rows of versions, of the trash and of the log of changes name
//! folders by id, and only the rows by which these are entered say where that is and how to open them.

use crate::connection::unexpected;
use crate::path::RemotePath;
use crate::session::Client;
use crate::spaces::Space;
use crate::tree::{EntryKind, Folder};
use model::command::{Answer, Query};
use model::{AccountId, FolderId, Kind, Result};
use seal::tree::{FolderKeys, RowVerifier};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Folders asked for at once.
const ASKED: usize = 64;
/// Folders remembered at most; more are learned again.
const KNOWN_MAX: usize = 20_000;

/// A folder found.
#[derive(Clone)]
pub(crate) struct Way {
    pub path: RemotePath,
    pub keys: Arc<FolderKeys>,
    /// It, or one above it, is in the trash.
    pub removed: bool,
}

/// Folders of one space, as far as they were needed.
pub(crate) struct Ways {
    root: Way,
    known: BTreeMap<FolderId, Way>,
}

impl Ways {
    /// Nothing is known but the space's root.
    pub fn new(root: &Folder) -> Self {
        let root = Way { path: root.path.clone(), keys: root.keys.clone(), removed: false };
        Ways { known: BTreeMap::from([(root.keys.folder, root.clone())]), root }
    }

    /// A folder learned; `None` for one that is gone.
    pub fn get(&self, folder: FolderId) -> Option<&Way> {
        self.known.get(&folder)
    }

    /// Folders may lie elsewhere by now.
    pub fn forget(&mut self) {
        self.known = BTreeMap::from([(self.root.keys.folder, self.root.clone())]);
    }
}

impl Client {
    /// The last folder on a path that is there.
    pub(crate) async fn folder_above(&self, path: &RemotePath) -> Result<Folder> {
        for n in (1..=path.names().len()).rev() {
            match self.stat(&path.prefix(n)).await {
                Ok(entry) if entry.kind == EntryKind::Folder => return self.folder_of(&entry).await,
                Err(e) if !matches!(e.kind, Kind::NotFound | Kind::Invalid) => return Err(e),
                _ => {}
            }
        }
        Ok(self.root_folder())
    }

    /// Ways of the space in which a folder lies.
    pub(crate) async fn ways(&self, folder: &Folder) -> Result<Ways> {
        let home = self.root_folder();
        let mut root = if folder.space.id() == home.space.id() { home } else { folder.space.at(folder.path.clone()) };
        // Up to the door by which the space was entered.
        while root.space.id() != self.home().id() {
            let Some(above) = root.path.parent() else { break };
            match self.stat(&above).await {
                Ok(entry) if entry.place.is_none() => match self.folder_of(&entry).await? {
                    above if above.space.id() == folder.space.id() => root.path = above.path,
                    _ => break,
                },
                _ => break,
            }
        }
        Ok(Ways::new(&root))
    }

    /// Learns where folders lie and how to open them. Those that are gone are left out.
    pub(crate) async fn learn(&self, space: &Arc<Space>, ways: &mut Ways, folders: impl IntoIterator<Item = FolderId>) -> Result<()> {
        if ways.known.len() > KNOWN_MAX {
            ways.forget();
        }
        let wanted: BTreeSet<FolderId> = folders.into_iter().filter(|f| !ways.known.contains_key(f)).collect();
        let wanted: Vec<FolderId> = wanted.into_iter().collect();
        for asked in wanted.chunks(ASKED) {
            let query = Query::Doors { space: space.id(), folders: asked.to_vec() };
            let Answer::Doors(doors) = self.cluster().ask(query).await? else { return Err(unexpected()) };
            let removed: BTreeSet<FolderId> = doors.removed.iter().copied().collect();
            let (rows, space) = self.rows_of(space, doors.rows).await?;
            let verified = RowVerifier::new(&space).verify(&rows)?;
            let mut rows: Vec<_> = verified.rows().collect();
            // From the root downwards: a row opens with the keys that the one above it gave.
            loop {
                let before = rows.len();
                let mut later = Vec::new();
                for row in rows {
                    let Some(above) = ways.known.get(&row.row().row.folder).cloned() else {
                        later.push(row);
                        continue;
                    };
                    let found = row.open(&above.keys)?;
                    let Some(keys) = above.keys.of_child(&found.entry) else { continue };
                    let removed = above.removed || removed.contains(&keys.folder);
                    ways.known.insert(keys.folder, Way { path: above.path.join(&found.entry.name), keys: Arc::new(keys), removed });
                }
                if later.is_empty() || later.len() == before {
                    break;
                }
                rows = later;
            }
        }
        Ok(())
    }

    /// Names of accounts that wrote in a space, to be shown: as their identities say, which the space's members
    /// have verified. Of one that is not known any more, its id.
    pub(crate) fn names_of(&self, space: &Space, accounts: impl IntoIterator<Item = AccountId>) -> Result<BTreeMap<AccountId, String>> {
        let me = self.unlocked().account();
        let mut names = BTreeMap::new();
        for account in accounts {
            let name = match space.name_of(account) {
                Ok(name) => name,
                Err(_) if account == me => self.profile().info()?.account,
                // Of somebody who was a member once, signed by whoever that was.
                Err(_) => former(space, account).unwrap_or_else(|| account.to_string()),
            };
            names.insert(account, name);
        }
        Ok(names)
    }
}

fn former(space: &Space, account: AccountId) -> Option<String> {
    let bodies = space.info.identities.iter().filter_map(|identity| seal::identity::verify(identity).ok());
    bodies.into_iter().find(|body| body.account == account).map(|body| body.name)
}
