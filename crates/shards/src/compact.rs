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

/// A segment is compacted when so much of it is dead, in percent.
const DEAD_PERCENT: u64 = 40;
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
    /// Compacts the segment with the least alive in it, where one is worth it.
    ///
    /// A segment in which something alive cannot be read is left as it is, until the bad shard has been
    /// set aside.
    pub async fn compact_one(&self) -> Result<Compaction> {
        let s = &self.0;
        s.look_up(Index::flush).await?;
        let Some((id, oldest)) = self.worth_compacting() else { return Ok(Compaction::Nothing) };
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

    /// The sealed segment with the least alive in it, if enough of it is dead; and whether it is the
    /// oldest.
    fn worth_compacting(&self) -> Option<(u64, bool)> {
        let segments = self.0.journal.segments();
        let oldest = segments.first()?.id;
        let state = self.0.state();
        let sealed = segments.iter().filter(|s| s.sealed && s.len > 0);
        let dead = sealed.filter_map(|s| {
            let live = self.0.index.live_in(s.id);
            let worth = live * 100 <= s.len * (100 - DEAD_PERCENT) && state.avoid.get(&s.id) != Some(&live);
            worth.then_some((live, s.id))
        });
        dead.min().map(|(_, id)| (id, id == oldest))
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
