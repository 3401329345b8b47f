//! Folders as listings see them: their objects and folders sorted by key.

use crate::keys::{Named, read};
use crate::tree::Object;
use client::{Client, Entry, EntryKind, RemotePath};
use futures::future::BoxFuture;
use model::Result;
use std::sync::Arc;

/// What listings say of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// Where it lies.
    pub path: RemotePath,
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
            path: object.entry.path.clone(),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An object.
    Object(Arc<Brief>),
    /// A folder: keys go on below.
    Folder(RemotePath),
}

/// A folder.
#[derive(Debug, Default)]
pub struct View {
    /// The part of the key (of folders with the slash at its end), sorted, none twice.
    pub items: Vec<(String, Item)>,
}

/// The folders of a gateway.
pub struct Views {
    client: Client,
}

impl Views {
    /// Of an account.
    pub fn new(client: &Client) -> Self {
        Views { client: client.clone() }
    }

    /// A folder as it is now.
    pub async fn load(&self, path: &RemotePath) -> Result<Arc<View>> {
        let mut found = Vec::new();
        let folder = self.client.stat(path).await?;
        self.add(&folder, String::new(), &mut found).await?;
        // Where a key is there twice, the one counts by which it is found first.
        found.sort_by(|a: &(String, u8, Item), b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        found.dedup_by(|b, a| a.0 == b.0);
        let items = found.into_iter().map(|(key, _, item)| (key, item)).collect();
        Ok(Arc::new(View { items }))
    }

    /// Adds what lies in a folder, and in those in which long parts go on.
    fn add<'a>(&'a self, folder: &'a Entry, before: String, found: &'a mut Vec<(String, u8, Item)>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
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
                        EntryKind::Folder => found.push((format!("{before}{part}/"), 0, Item::Folder(entry.path))),
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
                self.add(&piece, before, found).await?;
            }
            Ok(())
        })
    }
}
