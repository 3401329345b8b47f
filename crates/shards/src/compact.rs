//! Compaction: what is alive in a segment full of dead shards is written again at the end of the log,
//! and the segment goes.
//!
//! Drops and quarantines are carried along as long as an older segment may hold what they ended, except
//! for shards that have been put again since. Everything is durable before anything is removed, so a
//! crash at any moment leaves at worst two copies, of which the later counts.

use crate::index::{Change, Index};
use crate::record;
use crate::store::ShardStore;
use bytes::Bytes;
use journal::Record;
use model::{Error, Policy, Result, ShardRef};

/// A segment is compacted for its space when so much of it is dead, in percent.
const DEAD_PERCENT: u64 = 40;
/// The segment that is being written is closed for that when so many bytes of it are dead as well.
const ROLL_FROM: u64 = 8 << 20;
/// Bytes of shards read and written in one go.
const BATCH: u64 = 8 << 20;

/// What came of looking for a segment to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// None is worth it.
    Nothing,
    /// One segment's space came back, and there may be more.
    Done,
    /// One would be, but this shard in it cannot be read.
    Unreadable(ShardRef),
}

impl ShardStore {
    /// Compacts the segment with the least alive in it, where one is worth it for its space.
    ///
    /// A segment in which something alive cannot be read is left as it is, until the bad shard has been
    /// set aside.
    pub async fn compact_one(&self) -> Result<Compaction> {
        self.0.look_up(Index::flush).await?;
        let is_worth = |live: u64, len: u64| live * 100 <= len * (100 - DEAD_PERCENT);
        let sealed = self.candidates(true, |_, live, len| is_worth(live, len)).into_iter().min();
        if let Some((_, id)) = sealed {
            return self.compact(id).await;
        }
        match self.candidates(false, |dead, live, len| dead >= ROLL_FROM && is_worth(live, len)).first() {
            Some((_, id)) => self.compact_active(*id).await,
            None => Ok(Compaction::Nothing),
        }
    }

    /// Compacts the oldest segment in which anything is dead at all, so that nothing that was deleted stays on the
    /// disk for ever.
    pub async fn compact_oldest(&self) -> Result<Compaction> {
        self.0.look_up(Index::flush).await?;
        if let Some(id) = self.candidates(true, |dead, _, _| dead > 0).into_iter().map(|(_, id)| id).min() {
            return self.compact(id).await;
        }
        match self.candidates(false, |dead, _, _| dead > 0).first() {
            Some((_, id)) => self.compact_active(*id).await,
            None => Ok(Compaction::Nothing),
        }
    }

    /// In how many segments something is dead.
    pub async fn segments_with_dead(&self) -> Result<usize> {
        self.0.look_up(Index::flush).await?;
        Ok([true, false].map(|sealed| self.candidates(sealed, |dead, _, _| dead > 0).len()).iter().sum())
    }

    async fn compact_active(&self, id: u64) -> Result<Compaction> {
        self.0.journal.roll().await.map_err(|e| self.0.error(e))?;
        self.compact(id).await
    }

    /// Compacts a sealed segment.
    async fn compact(&self, id: u64) -> Result<Compaction> {
        let s = &self.0;
        let oldest = s.journal.segments().first().is_some_and(|first| first.id == id);
        // Nothing is written to it any more. Puts whose records are in it already are in the index after this.
        drop(s.puts.write().await);
        let shards = s.look_up(move |index| index.in_segment(id)).await?;
        let mut batch: Vec<(ShardRef, Policy)> = Vec::new();
        let mut bytes = 0;
        for (shard, position, policy) in shards {
            batch.push((shard, policy));
            bytes += u64::from(position.len);
            if bytes >= BATCH {
                if let Some(bad) = self.rewrite(id, &std::mem::take(&mut batch)).await? {
                    return Ok(Compaction::Unreadable(bad));
                }
                bytes = 0;
            }
        }
        if let Some(bad) = self.rewrite(id, &batch).await? {
            return Ok(Compaction::Unreadable(bad));
        }
        s.look_up(Index::flush).await?;
        if s.index.live_in(id) > 0 {
            return Ok(Compaction::Nothing);
        }
        let _order = s.maintenance.lock().await;
        if !oldest && let Err(e) = self.carry_stones(id).await {
            s.state().avoid.insert(id, 0);
            return Err(e);
        }
        s.look_up(Index::flush).await?;
        if s.index.live_in(id) > 0 {
            return Ok(Compaction::Nothing);
        }
        s.journal.remove_segment(id).await.map_err(|e| s.error(e))?;
        s.take_in(vec![Change::ForgetSegment(id)]).await?;
        Ok(Compaction::Done)
    }

    /// Sealed segments, or the one that is being written, as `(alive, id)`; those of which `(dead, alive, length)`, all
    /// in bytes, is so, but for those that could not be compacted as they are.
    fn candidates(&self, sealed: bool, is: impl Fn(u64, u64, u64) -> bool) -> Vec<(u64, u64)> {
        let state = self.0.state();
        let segments = self.0.journal.segments().into_iter().filter(|s| s.sealed == sealed && s.len > 0);
        let chosen = segments.filter_map(|s| {
            let live = self.0.index.live_in(s.id);
            (is(self.0.index.dead_in(s.id), live, s.len) && state.avoid.get(&s.id) != Some(&live)).then_some((live, s.id))
        });
        chosen.collect()
    }

    /// Writes shards again that still lie in a segment; none of them where one cannot be read, which it answers.
    async fn rewrite(&self, id: u64, shards: &[(ShardRef, Policy)]) -> Result<Option<ShardRef>> {
        let s = &self.0;
        let _order = s.maintenance.lock().await;
        let mut moving = Vec::new();
        let mut records = Vec::new();
        for (shard, policy) in shards {
            let Some(position) = s.position(shard).await?.filter(|p| p.segment == id) else { continue };
            match s.journal.read(position).await {
                Ok((meta, body)) => {
                    moving.push((*shard, *policy));
                    records.push(Record { kind: record::SHARD, meta, body });
                }
                Err(e) => {
                    let e = s.error(e);
                    s.state().avoid.insert(id, s.index.live_in(id));
                    tracing::warn!(device = %s.device, error = %e, "compaction leaves a damaged segment alone");
                    return Ok(Some(*shard));
                }
            }
        }
        if records.is_empty() {
            return Ok(None);
        }
        let positions = s.journal.append(records).await.map_err(|e| s.error(e))?;
        let moved = moving.into_iter().zip(positions).map(|((shard, policy), position)| Change::Put(shard, position, policy));
        s.take_in(moved.collect()).await?;
        Ok(None)
    }

    /// Writes a segment's drops and quarantines again, but for shards that are there. `Corrupt` where one of them
    /// cannot be read: the segment must stay.
    async fn carry_stones(&self, id: u64) -> Result<()> {
        let s = &self.0;
        let stones = s.look_up(move |index| index.stones(id)).await?;
        let mut ended: Vec<ShardRef> = Vec::new();
        for position in stones {
            let meta = s.journal.read_meta(position).await.map_err(|e| s.error(e))?;
            let unreadable = || Error::corrupt(format!("device {} holds a drop that cannot be understood", s.device));
            let keys = record::read_keys_meta(&meta).ok_or_else(unreadable)?;
            ended.extend(s.look_up(gone(keys)).await?);
        }
        ended.sort();
        ended.dedup();
        for some in ended.chunks(record::KEYS_MAX) {
            // The stone ends whatever is before it in the log: none of these may be put until it is there.
            let _alone = s.puts.write().await;
            let some = s.look_up(gone(some.to_vec())).await?;
            if some.is_empty() {
                continue;
            }
            let stone = Record { kind: record::DROP, meta: record::keys_meta(&some), body: Bytes::new() };
            let positions = s.journal.append(vec![stone]).await.map_err(|e| s.error(e))?;
            s.take_in(positions.into_iter().map(Change::Stone).collect()).await?;
        }
        Ok(())
    }
}

/// Those of some shards that are not in the index.
fn gone(shards: Vec<ShardRef>) -> impl FnOnce(&Index) -> Result<Vec<ShardRef>> {
    move |index| {
        let gone = shards.into_iter().map(|shard| Ok(index.get(&shard)?.is_none().then_some(shard)));
        gone.filter_map(Result::transpose).collect()
    }
}
