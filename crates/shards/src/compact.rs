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

impl ShardStore {
    /// Compacts the segment with the least alive in it, where one is worth it. `true`: one segment's
    /// space came back, and there may be more.
    ///
    /// A segment in which something alive cannot be read is left as it is, until the bad shard has been
    /// set aside.
    pub async fn compact_one(&self) -> Result<bool> {
        let Some((id, oldest)) = self.worth_compacting() else { return Ok(false) };
        let s = &self.0;
        s.index.check()?;
        let shards = s.look_up(move |index| index.in_segment(id)).await?;
        let mut batch: Vec<(ShardRef, Policy)> = Vec::new();
        let mut bytes = 0;
        for (shard, position, policy) in shards {
            batch.push((shard, policy));
            bytes += u64::from(position.len);
            if bytes >= BATCH {
                self.rewrite(id, &std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.rewrite(id, &batch).await?;
        s.look_up(Index::flush).await?;
        if s.index.live_in(id) > 0 {
            return Ok(false);
        }
        let _order = s.maintenance.lock().await;
        if !oldest {
            self.carry_stones(id).await?;
        }
        s.journal.remove_segment(id).await.map_err(|e| s.error(e))?;
        s.take_in(vec![Change::ForgetSegment(id)]).await?;
        Ok(true)
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

    /// Writes shards again that still lie in a segment.
    async fn rewrite(&self, id: u64, shards: &[(ShardRef, Policy)]) -> Result<()> {
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
                    return Err(e);
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let positions = s.journal.append(records).await.map_err(|e| s.error(e))?;
        let moved = moving.into_iter().zip(positions).map(|((shard, policy), position)| Change::Put(shard, position, policy));
        s.take_in(moved.collect()).await
    }

    /// Writes a segment's drops and quarantines again, but for shards that are there.
    async fn carry_stones(&self, id: u64) -> Result<()> {
        let s = &self.0;
        let stones = s.look_up(move |index| index.stones(id)).await?;
        let mut ended: Vec<ShardRef> = Vec::new();
        for position in stones {
            let meta = s.journal.read_meta(position).await.map_err(|e| s.error(e))?;
            let unreadable = || Error::corrupt(format!("device {} holds a drop that cannot be understood", s.device));
            let keys = record::read_keys_meta(&meta).ok_or_else(unreadable)?;
            let gone = move |index: &Index| {
                let gone = keys.into_iter().map(|k| Ok(index.get(&k)?.is_none().then_some(k)));
                gone.filter_map(Result::transpose).collect::<Result<Vec<ShardRef>>>()
            };
            ended.extend(s.look_up(gone).await?);
        }
        ended.sort();
        ended.dedup();
        for some in ended.chunks(record::KEYS_MAX) {
            let stone = Record { kind: record::DROP, meta: record::keys_meta(some), body: Bytes::new() };
            let positions = s.journal.append(vec![stone]).await.map_err(|e| s.error(e))?;
            s.take_in(positions.into_iter().map(Change::Stone).collect()).await?;
        }
        Ok(())
    }
}
