//! All objects of a bucket in the order of their keys' bytes, from anywhere on.
//!
//! A folder's keys all begin with its own and a slash, so folders sorted as if their names ended with it, and
//! walked in depth, give the order of the keys.

use crate::views::{Brief, Item, Look, View, Views};
use client::Entry;
use model::{EntryId, Kind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A place among the objects of a bucket.
pub struct Cursor<'a> {
    views: &'a Views,
    root: Entry,
    look: Look,
    /// Folders looked at, so that one listing sees each of them once: by id, as one above may have been moved.
    seen: BTreeMap<EntryId, Arc<View>>,
    stack: Vec<Level>,
}

struct Level {
    view: Arc<View>,
    /// The next item.
    at: usize,
    /// What all keys in it begin with.
    key: String,
}

/// Folders remembered in one listing.
const SEEN_MAX: usize = 64;

impl<'a> Cursor<'a> {
    /// Nowhere yet in a bucket, given as its folder.
    pub fn new(views: &'a Views, root: Entry) -> Self {
        Cursor { views, root, look: Look::default(), seen: BTreeMap::new(), stack: Vec::new() }
    }

    async fn view(&mut self, folder: &Entry) -> Result<Arc<View>> {
        if let Some(view) = self.seen.get(&folder.id) {
            return Ok(view.clone());
        }
        let view = match self.views.load(folder, &mut self.look).await {
            // Removed, or made a file, since its folder was looked at.
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid) && folder.id != self.root.id => Arc::default(),
            view => view?,
        };
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(folder.id, view.clone());
        Ok(view)
    }

    /// Goes to the first object whose key is `from` or after it.
    pub async fn seek(&mut self, from: &str) -> Result<()> {
        self.stack.clear();
        let (mut folder, mut key) = (Arc::new(self.root.clone()), String::new());
        loop {
            let view = self.view(&folder).await?;
            let at = first(&view, &key, from);
            let next = view.items.get(at).cloned();
            self.stack.push(Level { view, at, key: key.clone() });
            match next {
                Some((part, Item::Folder(below))) if from.starts_with(&format!("{key}{part}")) => {
                    if let Some(level) = self.stack.last_mut() {
                        level.at += 1;
                    }
                    key += &part;
                    folder = below;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The next object with its key.
    pub async fn next(&mut self) -> Result<Option<(String, Arc<Brief>)>> {
        loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            let Some((part, item)) = level.view.items.get(level.at) else {
                self.stack.pop();
                continue;
            };
            level.at += 1;
            let key = format!("{}{part}", level.key);
            match item {
                Item::Object(brief) => return Ok(Some((key, brief.clone()))),
                Item::Folder(folder) => {
                    let folder = folder.clone();
                    let view = self.view(&folder).await?;
                    self.stack.push(Level { view, at: 0, key });
                }
            }
        }
    }
}

/// The first item of a view that is not wholly before a key.
fn first(view: &View, key: &str, from: &str) -> usize {
    let Some(rest) = from.strip_prefix(key) else {
        return if key > from { 0 } else { view.items.len() };
    };
    view.items.partition_point(|(part, item)| {
        let holds = matches!(item, Item::Folder(_)) && rest.starts_with(part.as_str());
        part.as_str() < rest && !holds
    })
}
