//! A file's content while it is being made: the objects in which its chunks lie, and the one way from stored
//! chunks to a manifest, for what is uploaded and for what is put together of files that are there.

use crate::issue::Issuer;
use crate::session::Client;
use crate::spaces::Space;
use crate::store::{Stored, Target};
use erasure::Coder;
use model::cluster::UploadGrant;
use model::tree::{HINTS_MAX, ManifestRow, ObjectUse};
use model::{Epoch, Error, Hash, ManifestId, ObjectId, Policy, Result};
use seal::content::{ChunkRecord, Cut, INDEX_FANOUT, Manifest, seal_index};
use seal::keys::{ContentKey, ManifestKey};
use seal::tree::Content;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// An object that a file's chunks lie in.
pub(crate) struct Used {
    pub object: ObjectId,
    pub key: ContentKey,
    /// That it was issued; `None` for one that a commit has named already.
    pub grant: Option<Arc<UploadGrant>>,
    pub policy: Policy,
    /// The first epoch by which any of its shards are placed.
    pub layout: Epoch,
    pub generation: u16,
}

/// Where fresh objects come from, and how they are stored.
pub(crate) struct Fresh<'a> {
    pub client: &'a Client,
    pub issuer: &'a Issuer,
    pub space: &'a Space,
    pub policy: Option<Policy>,
    pub allow_degraded: bool,
}

impl Fresh<'_> {
    pub async fn policy(&self) -> Result<Policy> {
        match self.policy {
            Some(policy) => Ok(policy),
            None => self.client.policy_in(self.space).await,
        }
    }
}

/// The objects of a file, in the order in which its records count them.
#[derive(Default)]
pub(crate) struct Making {
    used: Vec<Used>,
    /// Where chunks go now, and its place among `used`.
    target: Option<(u32, Arc<Target>)>,
    /// Next free chunk number of that.
    next: u32,
}

/// Content that is whole on the servers, to be committed.
pub(crate) struct Made {
    pub content: Content,
    pub row: ManifestRow,
    pub grants: Vec<Arc<UploadGrant>>,
    /// Some index chunk has not all its shards yet.
    pub degraded: bool,
}

/// More objects, or parts of a file, than a manifest holds.
pub(crate) fn too_many() -> Error {
    Error::invalid("the content lies in more objects, or in more parts, than one file can name").hint("store it anew as a whole")
}

impl Making {
    /// An object that is there, or was begun in an earlier run; its place.
    pub fn known(&mut self, used: Used) -> u32 {
        self.used.push(used);
        self.used.len() as u32 - 1
    }

    pub fn objects(&self) -> usize {
        self.used.len()
    }

    pub fn clear(&mut self) {
        *self = Making::default();
    }

    /// The object that chunks go to now, and its place; `None` before one is begun.
    pub fn target(&self) -> Option<(u32, Arc<Target>)> {
        self.target.clone()
    }

    /// The object begun last.
    pub fn last(&self) -> Option<&Used> {
        self.used.last()
    }

    /// A chunk number of the target is taken.
    pub fn taken(&mut self, number: u32) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// A chunk number of the target that is free, from now on taken.
    pub fn next(&mut self) -> u32 {
        let number = self.next;
        self.taken(number);
        number
    }

    /// Begins a fresh object for what is to be sent, and makes it the target.
    pub async fn begin(&mut self, fresh: &Fresh<'_>) -> Result<(u32, Arc<Target>)> {
        let Fresh { client, issuer, space, allow_degraded, .. } = *fresh;
        let policy = fresh.policy().await?;
        let layout = client.cluster().layouts(policy.width()).await?.current.clone();
        let (object, issued) = issuer.next(client, space.id()).await?;
        let key = ContentKey::generate(&mut client.env().rand());
        let grant = Some(issued.grant.clone());
        self.used.push(Used { object, key: key.share(), grant, policy, layout: layout.epoch, generation: 0 });
        let target = Arc::new(Target { object, key, issued, coder: Coder::new(policy)?, layout: Mutex::new(layout), allow_degraded });
        let place = (self.used.len() as u32 - 1, target);
        self.target = Some(place.clone());
        Ok(place)
    }

    /// Leaves out objects of which there is no record.
    pub fn drop_unused(&mut self, records: &mut [Stored]) {
        let used = std::mem::take(&mut self.used);
        let mut new_index = BTreeMap::new();
        for (old, object) in (0u32..).zip(used) {
            if records.iter().any(|s| s.record.object == old) {
                new_index.insert(old, self.used.len() as u32);
                self.used.push(object);
            }
        }
        for stored in records {
            if let Some(index) = new_index.get(&stored.record.object) {
                stored.record.object = *index;
            }
        }
        self.target = self.target.take().and_then(|(old, target)| Some((*new_index.get(&old)?, target)));
    }

    /// Makes the manifest of a file all of whose chunks are stored, given in its order: index chunks are stored
    /// where it is long, and what the catalog must know of the objects is put beside it. [`too_many`] when it can
    /// never fit; nothing is stored then.
    pub async fn finish(mut self, fresh: &Fresh<'_>, cut: Cut, mtime_ns: i64, chunks: Vec<Stored>) -> Result<Made> {
        let client = fresh.client;
        let mut stored: Vec<Lies> = chunks.iter().map(Lies::of).collect();
        let records: Vec<ChunkRecord> = chunks.into_iter().map(|s| s.record).collect();
        let mut manifest = Manifest { cut, mtime_ns, objects: self.keys(), level: 0, records };
        if !manifest.can_fit() {
            return Err(too_many());
        }
        let mut degraded = false;
        while !manifest.fits() {
            // One record is as short as it gets.
            if manifest.records.len() <= 1 {
                return Err(too_many());
            }
            let (place, target) = match self.target() {
                Some(target) => target,
                None => self.begin(fresh).await?,
            };
            manifest.objects = self.keys();
            let mut above = Vec::new();
            for part in manifest.records.chunks(INDEX_FANOUT) {
                let number = self.next();
                let sealed = seal_index(&target.key, target.object, number, part, &mut client.env().rand())?;
                let (record, encoded) = target.code(number, sealed, place)?;
                let index = target.store(client, record, encoded, None).await?;
                degraded |= index.degraded;
                stored.push(Lies::of(&index));
                above.push(index.record);
            }
            manifest.records = above;
            manifest.level += 1;
        }
        let objects = self.uses(&stored);
        let id = ManifestId(client.env().random());
        let mut rng = client.env().rand();
        let key = ManifestKey::generate(&mut rng);
        let sealed = manifest.seal(id, &key, &mut rng)?;
        let content = Content::Manifest { key, hash: Hash::of(&sealed), id };
        let grants = self.used.into_iter().filter_map(|u| u.grant).collect();
        Ok(Made { content, row: ManifestRow { id, sealed: sealed.into(), objects }, grants, degraded })
    }

    fn keys(&self) -> Vec<(ObjectId, ContentKey)> {
        self.used.iter().map(|u| (u.object, u.key.share())).collect()
    }

    /// Each object with the chunks of it that the file uses.
    fn uses(&self, stored: &[Lies]) -> Vec<ObjectUse> {
        let mut by_object: BTreeMap<u32, Vec<&Lies>> = BTreeMap::new();
        for lies in stored {
            by_object.entry(lies.object).or_default().push(lies);
        }
        let uses = (0u32..).zip(&self.used).map(|(i, used)| {
            let mut mine = by_object.remove(&i).unwrap_or_default();
            // One chunk may be in a file twice.
            mine.sort_by_key(|l| l.number);
            mine.dedup_by_key(|l| l.number);
            ObjectUse {
                object: used.object,
                policy: used.policy,
                chunks: ranges(mine.iter().map(|l| l.number)),
                layout: used.layout,
                bytes: mine.iter().map(|l| u64::from(l.sealed_len)).sum(),
                // Hints for repair: no more than the catalog takes.
                partial: mine.iter().filter(|l| l.partial).map(|l| l.number).take(HINTS_MAX).collect(),
                generation: used.generation,
            }
        });
        uses.collect()
    }
}

/// Where one stored chunk lies.
struct Lies {
    object: u32,
    number: u32,
    sealed_len: u32,
    partial: bool,
}

impl Lies {
    fn of(stored: &Stored) -> Self {
        let ChunkRecord { object, number, sealed_len, .. } = stored.record;
        Lies { object, number, sealed_len, partial: stored.partial }
    }
}

/// Disjoint ranges `[from, to)` of sorted numbers.
fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some((_, to)) if *to == n => *to = n + 1,
            _ => out.push((n, n + 1)),
        }
    }
    out
}
