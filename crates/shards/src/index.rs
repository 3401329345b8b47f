//! Which shards there are and where they lie, and how much of each segment is alive.
//!
//! A database on the device itself, so that memory does not grow with the shards. It holds nothing that the log
//! does not: it is made anew from the log at each opening, is never synced, and nobody trusts an old one. It is
//! told what is in the log in whatever order the acknowledgements come.

use crate::scratch::ScratchFile;
use env::{Env, Open};
use journal::Position;
use model::{ObjectId, Policy, Result, ShardRef};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Shard → segment 8, offset 8, length 4, k 1, m 1.
const SHARDS: TableDefinition<ShardKey, &[u8; 22]> = TableDefinition::new("shards");
/// Segment 8, offset 8 → the shard that lies there.
const PLACES: TableDefinition<Place, ShardKey> = TableDefinition::new("places");
/// Segment 8, offset 8 of the record of a drop or quarantine → its length.
const STONES: TableDefinition<Place, u32> = TableDefinition::new("stones");

type ShardKey = &'static [u8; ShardRef::KEY_LEN];
type Place = &'static [u8; 16];

/// Cache of the database, in bytes.
const CACHE: usize = 16 << 20;
/// Changes that are gathered in memory before they go to the database together.
const GATHERED: usize = 512;
/// After so many transactions the pages that they freed are given back to the database.
const TIDY: u64 = 64;

/// What happened in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A shard lies here. The later of two copies is kept.
    Put(ShardRef, Position, Policy),
    /// A shard is gone.
    Remove(ShardRef),
    /// A record of a drop or quarantine lies here.
    Stone(Position),
    /// A segment was removed.
    ForgetSegment(u64),
}

/// Changes that are not in the database yet.
#[derive(Default)]
struct Gathered {
    changes: Vec<Change>,
    /// What they say of single shards: where each lies, or that it is gone.
    places: BTreeMap<ShardRef, Option<Position>>,
}

#[derive(Default)]
struct Recent {
    now: Gathered,
    /// Those on their way into the database.
    before: Arc<Gathered>,
    /// Somebody was asked to bring them there.
    asked: bool,
}

/// Bytes of records of shards in a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Use {
    /// Of those that are in the index.
    live: u64,
    /// Of those that were.
    dead: u64,
}

/// The index. Its methods block, but for [`Index::tell`] and [`Index::check`].
pub(crate) struct Index {
    db: Database,
    recent: Mutex<Recent>,
    /// Held while changes are on their way into the database.
    turn: Mutex<()>,
    changes: AtomicU64,
    /// What is in segments.
    uses: Mutex<BTreeMap<u64, Use>>,
    /// Why what it says cannot be trusted any more.
    broken: Mutex<Option<model::Error>>,
}

fn failed(e: impl std::fmt::Display) -> model::Error {
    model::Error::unavailable(format!("the index of a device failed: {e}")).hint("start the server again: its index is then made anew")
}

fn place(position: Position) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&position.segment.to_be_bytes());
    key[8..].copy_from_slice(&position.offset.to_be_bytes());
    key
}

/// All places in a segment.
fn places(segment: u64) -> (Bound<[u8; 16]>, Bound<[u8; 16]>) {
    let at = |offset| place(Position { segment, offset, len: 0 });
    (Bound::Included(at(0)), Bound::Included(at(u64::MAX)))
}

fn position(place: &[u8; 16], len: u32) -> Position {
    let number = |half: &[u8]| half.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let (segment, offset) = place.split_at(8);
    Position { segment: number(segment), offset: number(offset), len }
}

fn entry(at: Position, policy: Policy) -> [u8; 22] {
    let mut value = [0; 22];
    value[..16].copy_from_slice(&place(at));
    value[16..20].copy_from_slice(&at.len.to_be_bytes());
    value[20..].copy_from_slice(&[policy.k, policy.m]);
    value
}

fn read_entry(value: &[u8; 22]) -> Result<(Position, Policy)> {
    let [at @ .., a, b, c, d, k, m] = value;
    Ok((position(at, u32::from_be_bytes([*a, *b, *c, *d])), Policy::new(*k, *m).map_err(failed)?))
}

fn read_shard(key: &[u8; ShardRef::KEY_LEN]) -> Result<ShardRef> {
    ShardRef::from_key(key).ok_or_else(|| failed("a key that is no shard's"))
}

impl Index {
    /// An empty one, in the place of whatever an earlier process left there.
    pub fn create(env: &Env, path: &Path) -> Result<Self> {
        let io = |e: std::io::Error| model::Error::unavailable(format!("{}: {e}", path.display()));
        if env.disk.try_exists(path).map_err(io)? {
            env.disk.remove_file(path).map_err(io)?;
        }
        let file = env.disk.open(path, Open::New).map_err(io)?;
        let db = Database::builder().set_cache_size(CACHE).create_with_backend(ScratchFile::new(file)).map_err(failed)?;
        let (recent, turn) = (Mutex::default(), Mutex::default());
        let index = Index { db, recent, turn, changes: AtomicU64::new(0), uses: Mutex::default(), broken: Mutex::default() };
        index.apply([])?;
        Ok(index)
    }

    fn uses(&self) -> MutexGuard<'_, BTreeMap<u64, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `Unavailable` once a change could not be taken in: from then on it does not say what is in the log.
    pub fn check(&self) -> Result<()> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers some changes, which count from now on. `true`: there are so many that whoever told the last one
    /// is to call [`Index::flush`].
    pub fn tell(&self, changes: Vec<Change>) -> bool {
        let recent = &mut *self.recent();
        let Gathered { changes: all, places } = &mut recent.now;
        for change in &changes {
            match *change {
                Change::Put(shard, at, _) if places.get(&shard).is_none_or(|known| known.is_none_or(|known| known <= at)) => {
                    places.insert(shard, Some(at));
                }
                Change::Remove(shard) => {
                    places.insert(shard, None);
                }
                _ => {}
            }
        }
        all.extend(changes);
        let ask = all.len() >= GATHERED && !recent.asked;
        recent.asked |= ask;
        ask
    }

    /// Brings all that was told into the database.
    pub fn flush(&self) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush_in_turn()
    }

    /// The same, where the turn is taken.
    fn flush_in_turn(&self) -> Result<()> {
        self.check()?;
        let batch = {
            let recent = &mut *self.recent();
            recent.asked = false;
            if recent.now.changes.is_empty() {
                return Ok(());
            }
            recent.before = Arc::new(std::mem::take(&mut recent.now));
            recent.before.clone()
        };
        self.apply(batch.changes.iter().cloned())?;
        self.recent().before = Arc::default();
        Ok(())
    }

    /// Takes in some changes, all or none, before any that were told.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<()> {
        // A panic of the database breaks the index as an error does.
        let mut broken = Breaks { index: self, with: Some(failed("it stopped in the middle of a change")) };
        let done = self.try_apply(changes);
        broken.with = done.as_ref().err().cloned();
        done
    }

    fn try_apply(&self, changes: impl IntoIterator<Item = Change>) -> Result<()> {
        let mut write = self.db.begin_write().map_err(failed)?;
        let tidy = self.changes.fetch_add(1, Ordering::Relaxed) % TIDY == TIDY - 1;
        write.set_durability(if tidy { Durability::Immediate } else { Durability::None }).map_err(failed)?;
        let (mut more, mut forgotten): (BTreeMap<u64, (i64, u64)>, Vec<u64>) = Default::default();
        {
            let mut shards = write.open_table(SHARDS).map_err(failed)?;
            let mut places_of = write.open_table(PLACES).map_err(failed)?;
            let mut stones = write.open_table(STONES).map_err(failed)?;
            let mut count = |at: Position, live: i64, dead: u64| {
                let (more_live, more_dead) = more.entry(at.segment).or_default();
                *more_live += live * i64::from(at.len);
                *more_dead += dead * u64::from(at.len);
            };
            for change in changes {
                match change {
                    Change::Put(shard, at, policy) => {
                        let key = shard.to_key();
                        let old = shards.get(&key).map_err(failed)?.map(|v| read_entry(v.value())).transpose()?;
                        if let Some((old, _)) = old {
                            if old > at {
                                count(at, 0, 1);
                                continue;
                            }
                            places_of.remove(&place(old)).map_err(failed)?;
                            count(old, -1, 1);
                        }
                        shards.insert(&key, &entry(at, policy)).map_err(failed)?;
                        places_of.insert(&place(at), &key).map_err(failed)?;
                        count(at, 1, 0);
                    }
                    Change::Remove(shard) => {
                        let old = shards.remove(&shard.to_key()).map_err(failed)?.map(|v| read_entry(v.value())).transpose()?;
                        if let Some((old, _)) = old {
                            places_of.remove(&place(old)).map_err(failed)?;
                            count(old, -1, 1);
                        }
                    }
                    Change::Stone(at) => {
                        stones.insert(&place(at), at.len).map_err(failed)?;
                    }
                    Change::ForgetSegment(id) => {
                        stones.retain_in::<&[u8; 16], _>(bounds(&places(id)), |_, _| false).map_err(failed)?;
                        forgotten.push(id);
                    }
                }
            }
        }
        write.commit().map_err(failed)?;
        let mut uses = self.uses();
        let forgotten = forgotten.into_iter().map(|id| (id, (0, 0), true));
        for (segment, (live, dead), is_forgotten) in more.into_iter().map(|(id, more)| (id, more, false)).chain(forgotten) {
            let of = uses.remove(&segment).unwrap_or_default();
            let dead = if is_forgotten { 0 } else { of.dead.saturating_add(dead) };
            let of = Use { live: of.live.saturating_add_signed(live), dead };
            if of != Use::default() {
                uses.insert(segment, of);
            }
        }
        Ok(())
    }

    /// Where a shard lies.
    pub fn get(&self, shard: &ShardRef) -> Result<Option<Position>> {
        self.check()?;
        let told = {
            let recent = self.recent();
            [&recent.now, &*recent.before].map(|gathered| gathered.places.get(shard).copied())
        };
        // The later of two copies counts, in whatever order they were told; what lies before a removal does not.
        let mut latest = None;
        for told in told {
            match told {
                Some(Some(at)) => latest = latest.max(Some(at)),
                Some(None) => return Ok(latest),
                None => {}
            }
        }
        let table = self.db.begin_read().map_err(failed)?.open_table(SHARDS).map_err(failed)?;
        let found = table.get(&shard.to_key()).map_err(failed)?;
        let found = found.map(|v| read_entry(v.value()).map(|(at, _)| at)).transpose()?;
        Ok(latest.max(found))
    }

    /// How a shard's chunk is coded.
    pub fn policy(&self, shard: &ShardRef) -> Result<Option<Policy>> {
        let key = shard.to_key();
        let found = self.range((Bound::Included(&key), Bound::Included(&key)), 1)?;
        Ok(found.first().map(|(_, policy)| *policy))
    }

    /// How many shards. While changes are on their way into the database it does not wait: then without these.
    pub fn len(&self) -> Result<u64> {
        match self.turn.try_lock() {
            Ok(_turn) => self.flush_in_turn()?,
            Err(TryLockError::Poisoned(_)) | Err(TryLockError::WouldBlock) => self.check()?,
        }
        self.db.begin_read().map_err(failed)?.open_table(SHARDS).map_err(failed)?.len().map_err(failed)
    }

    /// Shards after a key, in order.
    pub fn list(&self, after: Option<ShardRef>, limit: usize) -> Result<Vec<(ShardRef, Policy)>> {
        let after = after.map(|s| s.to_key());
        let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.range((from, Bound::Unbounded), limit)
    }

    /// Shards of an object.
    pub fn of_object(&self, object: ObjectId) -> Result<Vec<ShardRef>> {
        let at = |number, generation, index| ShardRef { chunk: model::ChunkRef { object, number }, generation, index }.to_key();
        let (first, last) = (at(0, 0, 0), at(u32::MAX, u16::MAX, u8::MAX));
        let found = self.range((Bound::Included(&first), Bound::Included(&last)), usize::MAX)?;
        Ok(found.into_iter().map(|(shard, _)| shard).collect())
    }

    fn range(
        &self,
        range: (Bound<&[u8; ShardRef::KEY_LEN]>, Bound<&[u8; ShardRef::KEY_LEN]>),
        limit: usize,
    ) -> Result<Vec<(ShardRef, Policy)>> {
        self.flush()?;
        let table = self.db.begin_read().map_err(failed)?.open_table(SHARDS).map_err(failed)?;
        let mut all = Vec::new();
        for found in table.range::<&[u8; ShardRef::KEY_LEN]>(range).map_err(failed)?.take(limit) {
            let (key, value) = found.map_err(failed)?;
            all.push((read_shard(key.value())?, read_entry(value.value())?.1));
        }
        Ok(all)
    }

    /// Shards in a segment with their places, in the order in which they lie.
    pub fn in_segment(&self, id: u64) -> Result<Vec<(ShardRef, Position, Policy)>> {
        self.flush()?;
        let read = self.db.begin_read().map_err(failed)?;
        let (shards, places_of) = (read.open_table(SHARDS).map_err(failed)?, read.open_table(PLACES).map_err(failed)?);
        let mut all = Vec::new();
        for found in places_of.range::<&[u8; 16]>(bounds(&places(id))).map_err(failed)? {
            let (_, key) = found.map_err(failed)?;
            let at = shards.get(key.value()).map_err(failed)?.ok_or_else(|| failed("a place without its shard"))?;
            let (at, policy) = read_entry(at.value())?;
            all.push((read_shard(key.value())?, at, policy));
        }
        Ok(all)
    }

    /// Records of drops and quarantines in a segment, in the order in which they lie.
    pub fn stones(&self, id: u64) -> Result<Vec<Position>> {
        self.flush()?;
        let table = self.db.begin_read().map_err(failed)?.open_table(STONES).map_err(failed)?;
        let mut all = Vec::new();
        for found in table.range::<&[u8; 16]>(bounds(&places(id))).map_err(failed)? {
            let (key, len) = found.map_err(failed)?;
            all.push(position(key.value(), len.value()));
        }
        Ok(all)
    }

    /// Bytes of records in a segment whose shards are in the index, as of the last [`Index::flush`].
    pub fn live_in(&self, id: u64) -> u64 {
        self.uses().get(&id).map_or(0, |of| of.live)
    }

    /// Bytes of records in a segment whose shards were in the index and are not any more, or lie elsewhere now; as of
    /// the last [`Index::flush`].
    pub fn dead_in(&self, id: u64) -> u64 {
        self.uses().get(&id).map_or(0, |of| of.dead)
    }
}

/// Breaks an index when dropped, but for where it was told that all went well.
struct Breaks<'a> {
    index: &'a Index,
    with: Option<model::Error>,
}

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if let Some(e) = self.with.take() {
            *self.index.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        }
    }
}

fn bounds<T>((from, to): &(Bound<T>, Bound<T>)) -> (Bound<&T>, Bound<&T>) {
    (from.as_ref(), to.as_ref())
}

#[cfg(test)]
mod tests;
