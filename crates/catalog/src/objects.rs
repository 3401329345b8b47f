//! Manifests and objects: what rows refer to, counted, and the feed by which nodes learn of it.
//!
//! A row (current or older) refers to one manifest at most; a manifest refers to objects. What nothing
//! refers to any more goes: a manifest at once, an object after a grace for readers. A dead object
//! stays known until no late commit can name it any more.

use crate::kv::Kv;
use crate::row::{Manifest, Object, Space, chunk_count};
use crate::tx::{Step, Stop, Tx};
use crate::{DEAD_LIFE_MS, GRACE_MS, UPLOAD_LIFE_MS, expiry, key};
use model::chunk::SEALED_CHUNK_MAX;
use model::cluster::FeedItem;
use model::tree::{HINTS_MAX, ManifestRow, ObjectUse, SEALED_MANIFEST_MAX};
use model::{Epoch, Error, ManifestId, ObjectId, Result, SpaceId};
use std::collections::{BTreeMap, BTreeSet};

/// Most chunks of an object: 64 TiB of them.
const CHUNKS_MAX: u64 = 1 << 24;
/// Most ranges of chunk numbers of an object, and objects of a manifest.
const RANGES_MAX: usize = 4096;

/// What a commit may upload.
pub(crate) struct Uploads {
    /// Objects that the author was issued for this space.
    issued: BTreeSet<ObjectId>,
    /// Epochs of the layouts by width, as far as looked up: a layout's row is long.
    epochs: BTreeMap<u8, Option<Epoch>>,
}

impl Uploads {
    pub(crate) fn of(issued: BTreeSet<ObjectId>) -> Self {
        Uploads { issued, epochs: BTreeMap::new() }
    }
}

impl Tx<'_> {
    /// A new manifest with one reference.
    pub(crate) fn add_manifest(&mut self, id: SpaceId, space: &mut Space, row: &ManifestRow, uploads: &mut Uploads) -> Step<()> {
        if row.sealed.is_empty() || row.sealed.len() > SEALED_MANIFEST_MAX || row.objects.len() > RANGES_MAX {
            return Err(Error::invalid("a manifest that is empty or too long").into());
        }
        let key = key::manifest(id, row.id);
        if self.has(&key)? {
            return Err(Error::exists("there is such a manifest already").into());
        }
        let mut seen = BTreeSet::new();
        for content in &row.objects {
            check_use(content)?;
            if !seen.insert(content.object) {
                return Err(Error::invalid("a manifest names an object twice").into());
            }
            self.add_reference(id, space, content, uploads)?;
        }
        space.take(row.sealed.len() as u64)?;
        self.put(&key, &Manifest { refs: 1, row: row.clone() })
    }

    fn add_reference(&mut self, id: SpaceId, space: &mut Space, content: &ObjectUse, uploads: &mut Uploads) -> Step<()> {
        let key = key::object(content.object);
        if let Some(mut object) = self.get::<Object>(&key)? {
            let guest = key::guest(content.object, id);
            let held: Option<u32> = if object.space == id { None } else { self.get(&guest)? };
            if object.space != id && held.is_none() {
                return Err(Error::denied("an object of another space cannot be referred to").into());
            }
            if object.refs == 0 || object.dead {
                return Err(Error::conflict("the content referred to was removed meanwhile").into());
            }
            // How it is coded may have changed since the author looked: that is for the catalog to say.
            if !covers(&object.content.chunks, &content.chunks) {
                return Err(Error::invalid("an object does not have the chunks referred to").into());
            }
            object.refs += 1;
            if let Some(held) = held {
                self.put(&guest, &(held + 1))?;
            }
            return self.put(&key, &object);
        }
        if !uploads.issued.contains(&content.object) {
            return Err(Error::denied("an object is referred to that was not issued for this space").into());
        }
        if content.object.time_ms().saturating_add(UPLOAD_LIFE_MS) < self.now {
            return Err(Error::conflict("this upload began more than a day ago and has expired").hint("upload the file again").into());
        }
        // Shards may have been placed by an older layout than the current one: a node acknowledges a
        // shard only by an epoch that it has not fenced, and a change of layouts ends only when each old
        // holder has fenced the older epoch and handed over everything, uncommitted shards too, or is
        // out. So what was acknowledged under an older epoch has been moved with the rest.
        let current = self.layout_epoch(content.policy.width(), uploads)?;
        if content.layout == Epoch(0) {
            return Err(Error::invalid("an object was placed by no layout").into());
        }
        if current.is_none_or(|current| content.layout > current) {
            // After a restore it may be one of which the backup knew nothing.
            let message = "this upload was placed by a layout that the catalog does not have";
            return Err(Error::conflict(message).hint("upload the file again").into());
        }
        if content.generation != 0 {
            return Err(Error::invalid("a new object begins at coding generation 0").into());
        }
        let feed = self.feed(FeedItem::Live(content.clone(), 0))?;
        if !content.partial.is_empty() {
            self.counters.totals.partial = feed;
        }
        let object = Object { space: id, content: content.clone(), refs: 1, generation: 0, feed, dead: false, recoded_ms: 0 };
        self.count(space, &object)?;
        self.put(&key, &object)
    }

    /// The epoch of the layout of a width.
    fn layout_epoch(&self, width: u8, uploads: &mut Uploads) -> Step<Option<Epoch>> {
        if let Some(epoch) = uploads.epochs.get(&width) {
            return Ok(*epoch);
        }
        let row = self.kv.get(&key::layout(width)).map_err(Stop::Failed)?;
        let epoch = row.map(|bytes| crate::query::layout_epoch(&bytes)).transpose().map_err(Stop::Failed)?.map(|(_, epoch)| epoch);
        uploads.epochs.insert(width, epoch);
        Ok(epoch)
    }

    pub(crate) fn feed(&mut self, item: FeedItem) -> Step<u64> {
        self.counters.totals.feed += 1;
        let number = self.counters.totals.feed;
        self.put(&key::feed(number), &item)?;
        Ok(number)
    }

    /// One more row names a manifest. `Conflict` when it is not there.
    pub(crate) fn hold_manifest(&mut self, space: SpaceId, id: ManifestId) -> Step<()> {
        let key = key::manifest(space, id);
        let mut manifest: Manifest = self.get(&key)?.ok_or_else(|| Error::conflict("the content referred to was removed meanwhile"))?;
        manifest.refs += 1;
        self.put(&key, &manifest)
    }

    /// One row fewer names a manifest.
    pub(crate) fn release_manifest(&mut self, id: SpaceId, space: &mut Space, manifest: ManifestId) -> Step<()> {
        let key = key::manifest(id, manifest);
        let mut held: Manifest = self.must(&key)?;
        held.refs = held.refs.saturating_sub(1);
        if held.refs > 0 {
            return self.put(&key, &held);
        }
        self.delete(&key)?;
        space.used = space.used.saturating_sub(held.row.sealed.len() as u64);
        for content in &held.row.objects {
            self.release_object(id, space, content.object)?;
        }
        Ok(())
    }

    /// One manifest of a space fewer refers to an object. It counts for the space that it was uploaded for, as
    /// long as that refers to it; then for another one that came to refer to it by a re-key.
    fn release_object(&mut self, id: SpaceId, space: &mut Space, of: ObjectId) -> Step<()> {
        let key = key::object(of);
        let mut object: Object = self.must(&key)?;
        object.refs = object.refs.saturating_sub(1);
        if object.refs == 0 {
            self.put(&key, &object)?;
            self.uncount(space, &object);
            return self.end_at(self.now.saturating_add(GRACE_MS), expiry::OBJECT, &of.0);
        }
        if object.space != id {
            let guest = key::guest(of, id);
            let held: u32 = self.must(&guest)?;
            if held > 1 {
                self.put(&guest, &(held - 1))?
            } else {
                self.delete(&guest)?
            }
            return self.put(&key, &object);
        }
        let prefix = key::guests(of);
        let guests = self.keys(&prefix, &key::end_of(&prefix), usize::MAX)?;
        let mut elsewhere = 0u32;
        for guest in &guests {
            elsewhere = elsewhere.saturating_add(self.must::<u32>(guest)?);
        }
        if let Some(heir) = guests.first().filter(|_| elsewhere >= object.refs) {
            self.delete(heir)?;
            let heir = key::read_space_of(heir).ok_or_else(|| Stop::Failed(Error::corrupt("a reference to an object is damaged")))?;
            self.uncount(space, &object);
            object.space = heir;
            let mut other: Space = self.must(&key::space(heir))?;
            // What comes next for it must be none that it has, or that was begun for it.
            if other.coding.generation <= space.coding.generation {
                other.coding.generation = space.coding.generation.saturating_add(1);
            }
            self.count(&mut other, &object)?;
            self.put(&key::space(heir), &other)?;
        }
        self.put(&key, &object)
    }

    /// The grace of an object is over: nodes may drop it.
    pub(crate) fn bury(&mut self, id: ObjectId) -> Step<()> {
        let key = key::object(id);
        let Some(mut object) = self.get::<Object>(&key)?.filter(|o| o.refs == 0 && !o.dead) else { return Ok(()) };
        self.delete(&key::feed(object.feed))?;
        object.feed = self.feed(FeedItem::Dead(id))?;
        object.dead = true;
        self.put(&key, &object)?;
        // No late commit may revive it: known as dead at least until its upload would have expired.
        let forget = self.now.saturating_add(DEAD_LIFE_MS).max(id.time_ms().saturating_add(UPLOAD_LIFE_MS + 1));
        self.end_at(forget, expiry::DEAD, &id.0)
    }

    /// A dead object is forgotten.
    pub(crate) fn forget(&mut self, id: ObjectId) -> Step<()> {
        let key = key::object(id);
        if let Some(object) = self.get::<Object>(&key)?.filter(|o| o.dead) {
            self.delete(&key::feed(object.feed))?;
            self.delete(&key)?;
        }
        Ok(())
    }
}

/// Whether a use of an object makes sense by itself.
fn check_use(content: &ObjectUse) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("an object is described impossibly: {why}")));
    content.policy.check()?;
    if content.chunks.is_empty() || content.chunks.len() > RANGES_MAX || content.partial.len() > HINTS_MAX {
        return bad("its ranges");
    }
    let mut end = None;
    for (from, to) in &content.chunks {
        if from >= to || end.is_some_and(|end| *from <= end) {
            return bad("its chunks are not sorted and apart");
        }
        end = Some(*to);
    }
    let chunks = chunk_count(content);
    if chunks > CHUNKS_MAX || content.bytes < chunks || content.bytes > chunks * SEALED_CHUNK_MAX as u64 {
        return bad("its size");
    }
    let inside = |n: &u32| content.chunks.iter().any(|(from, to)| from <= n && n < to);
    if !content.partial.is_sorted() || !content.partial.iter().all(inside) {
        return bad("its hints");
    }
    Ok(())
}

/// Whether sorted ranges cover others.
fn covers(all: &[(u32, u32)], some: &[(u32, u32)]) -> bool {
    some.iter().all(|(from, to)| all.iter().any(|(f, t)| f <= from && to <= t))
}
