//! Folders as listings see them: their objects and folders sorted by key.

use crate::keys::{Named, read};
use crate::tree::Object;
use client::{Client, Entry, EntryKind, Touched};
use futures::future::BoxFuture;
use model::{FolderId, Result, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What listings say of an object. Not where it lies: a folder remembered may have been moved as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// Bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
    /// Without quotes.
    pub etag: String,
    /// Where another one than the usual was asked for.
    pub storage_class: Option<String>,
    /// Of the checksum kept.
    pub algorithm: Option<String>,
    /// The checksum is one of the parts' checksums.
    pub composite: bool,
    /// It is a mark of deletion.
    pub deleted: bool,
}

impl Brief {
    fn of(object: &Object) -> Self {
        let sum = object.meta.checksum.as_ref();
        Brief {
            size: object.entry.size,
            modified_ms: object.modified_ms(),
            etag: object.etag(),
            storage_class: object.meta.headers.storage_class.clone(),
            algorithm: sum.map(|s| s.algorithm.clone()),
            composite: sum.is_some_and(|s| s.is_composite()),
            deleted: object.meta.deleted,
        }
    }
}

/// What a folder holds under one part of a key.
#[derive(Clone)]
pub enum Item {
    /// An object.
    Object(Arc<Brief>),
    /// A folder: keys go on below.
    Folder(Arc<Entry>),
}

/// A folder.
#[derive(Default)]
pub struct View {
    /// The part of the key (of folders with the slash at its end), sorted, none twice.
    pub items: Vec<(String, Item)>,
    /// The folders that it is made of: itself, and those in which long parts go on.
    folders: Vec<FolderKey>,
}

type FolderKey = (SpaceId, FolderId);

/// Most objects and folders remembered, in all views.
const ITEMS_MAX: usize = 400_000;
/// Folders of which it is remembered when they were touched last.
const TOUCHED_MAX: usize = 100_000;

/// The folders of a gateway. Those looked at are remembered, and what of them has changed is asked of the catalog's
/// log at the beginning of each listing: a listing shows everything that was acknowledged before it began.
pub struct Views {
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    views: BTreeMap<FolderKey, (u64, Arc<View>)>,
    items: usize,
    /// Counts uses, for the oldest to go first.
    uses: u64,
    /// Revision of each space up to which its log was followed.
    upto: BTreeMap<SpaceId, u64>,
    /// Revision at which a folder was touched last.
    touched: BTreeMap<FolderKey, u64>,
    /// Revision of a space from which on all must be read anew.
    floor: BTreeMap<SpaceId, u64>,
    /// Views that hold a folder beside their own.
    holders: BTreeMap<FolderKey, FolderKey>,
}

impl State {
    fn remove(&mut self, key: &FolderKey) {
        if let Some((_, view)) = self.views.remove(key) {
            self.items -= view.items.len();
        }
    }

    /// Takes in what a space's log says.
    fn follow(&mut self, space: SpaceId, told: Touched) {
        if told.resync || self.touched.len() > TOUCHED_MAX {
            let of_space: Vec<FolderKey> = self.views.keys().filter(|k| k.0 == space).copied().collect();
            of_space.iter().for_each(|key| self.remove(key));
            self.touched.retain(|k, _| k.0 != space);
            // What is being read just now may be of before, too.
            self.floor.insert(space, told.upto);
        }
        for key in told.folders {
            self.remove(&key);
            if let Some(holder) = self.holders.remove(&key) {
                self.remove(&holder);
            }
            let at = self.touched.entry(key).or_insert(told.upto);
            *at = told.upto.max(*at);
        }
        let upto = self.upto.entry(space).or_insert(told.upto);
        *upto = told.upto.max(*upto);
    }

    /// Remembers a view that was read when its space's log had been followed up to a revision.
    fn add(&mut self, key: FolderKey, since: u64, view: &Arc<View>) {
        let stale = view.folders.iter().any(|f| self.touched.get(f).is_some_and(|at| *at > since));
        if stale || self.floor.get(&key.0).is_some_and(|floor| *floor > since) || view.items.len() > ITEMS_MAX {
            return;
        }
        self.remove(&key);
        while self.items + view.items.len() > ITEMS_MAX {
            let Some(oldest) = self.views.iter().min_by_key(|(_, (used, _))| *used).map(|(k, _)| *k) else { break };
            self.remove(&oldest);
        }
        self.holders.extend(view.folders.iter().filter(|f| **f != key).map(|f| (*f, key)));
        self.items += view.items.len();
        self.uses += 1;
        self.views.insert(key, (self.uses, view.clone()));
    }

    fn get(&mut self, key: &FolderKey) -> Option<Arc<View>> {
        self.uses += 1;
        let (used, view) = self.views.get_mut(key)?;
        *used = self.uses;
        Some(view.clone())
    }
}

/// The spaces whose log a listing has followed.
#[derive(Default)]
pub struct Look(BTreeMap<SpaceId, u64>);

impl Views {
    /// Of an account.
    pub fn new(client: &Client) -> Self {
        Views { client: client.clone(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder as it was when the listing began, or later.
    pub async fn load(&self, folder: &Entry, look: &mut Look) -> Result<Arc<View>> {
        let key = self.client.folder_id(folder).await?;
        let since = match look.0.get(&key.0) {
            Some(since) => *since,
            None => {
                let after = self.state().upto.get(&key.0).copied();
                let told = self.client.touched(folder, after.unwrap_or(u64::MAX)).await?;
                let upto = told.upto;
                self.state().follow(key.0, told);
                look.0.insert(key.0, upto);
                upto
            }
        };
        if let Some(view) = self.state().get(&key) {
            return Ok(view);
        }
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        self.add(folder, String::new(), &mut found, &mut folders).await?;
        // Where a key is there twice, the one counts by which it is found first.
        found.sort_by(|a: &(String, u8, Item), b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        found.dedup_by(|b, a| a.0 == b.0);
        let items = found.into_iter().map(|(key, _, item)| (key, item)).collect();
        let view = Arc::new(View { items, folders });
        self.state().add(key, since, &view);
        Ok(view)
    }

    /// Adds what lies in a folder, and in those in which long parts go on.
    fn add<'a>(
        &'a self,
        folder: &'a Entry,
        before: String,
        found: &'a mut Vec<(String, u8, Item)>,
        folders: &'a mut Vec<FolderKey>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            folders.push(self.client.folder_id(folder).await?);
            let mut pieces = Vec::new();
            let page = |page: Vec<Entry>| {
                for entry in page {
                    let folder = entry.kind == EntryKind::Folder;
                    let (part, rank) = match read(&entry.name()) {
                        Named::Part(part) => (part, 0),
                        Named::Aside(part) if !folder => (part, 1),
                        Named::Deleted(part) if !folder => (part, 2),
                        Named::Piece(piece) if folder => {
                            pieces.push((format!("{before}{piece}"), entry));
                            continue;
                        }
                        _ => continue,
                    };
                    match entry.kind {
                        EntryKind::Folder => found.push((format!("{before}{part}/"), 0, Item::Folder(Arc::new(entry)))),
                        EntryKind::File => {
                            let brief = Arc::new(Brief::of(&Object::new(entry)));
                            found.push((format!("{before}{part}"), rank, Item::Object(brief)));
                        }
                        EntryKind::Symlink => {}
                    }
                }
                Ok(())
            };
            self.client.each_page(folder, page).await?;
            for (before, piece) in pieces {
                self.add(&piece, before, found, folders).await?;
            }
            Ok(())
        })
    }
}
