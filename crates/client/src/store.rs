//! One chunk onto the servers: sealed, coded, all shards sent at once.
//!
//! A chunk is stored when **all** its shards are durable. Where a server is down and others are free,
//! one of them stands in for it. Where none is, or one is late beyond the straggler deadline, the
//! write quorum suffices. Either way the chunk counts as partial: the commit says so, and the servers
//! bring everything to its place.
//!
//! A server that knows a newer layout refuses the shard. Then the whole chunk is sent again by that
//! one, so that it never rests on places of two layouts that nobody looks at together; what lies where
//! it should costs its way, and is not written again.

use crate::issue::Issued;
use crate::session::Client;
use bytes::Bytes;
use erasure::{Coder, Encoded};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use model::layout::DeviceInfo;
use model::{ChunkRef, Epoch, Error, Hash, Kind, Layout, NodeId, ObjectId, Policy, Result, ShardRef};
use seal::content::{ChunkRecord, seal_chunk_to};
use seal::keys::ContentKey;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use wire::node::PutShardRequest;

/// The object that a file's chunks go to.
pub(crate) struct Target {
    pub object: ObjectId,
    pub key: ContentKey,
    pub issued: Arc<Issued>,
    pub coder: Coder,
    /// The newest layout known; later chunks are placed by later ones.
    pub layout: Mutex<Arc<Layout>>,
    /// Settle for k shards where not even the write quorum answers.
    pub allow_degraded: bool,
}

/// A stored chunk.
pub(crate) struct Stored {
    pub record: ChunkRecord,
    /// Not all its shards are durable where they belong.
    pub partial: bool,
    /// Not all its shards are durable anywhere.
    pub degraded: bool,
}

/// What came of sending a chunk by one layout.
enum Sent {
    Stored(Stored),
    /// A server knows a newer layout, or may.
    Refused(Error),
}

/// A shard that is on its way: its index, whether it went to a stand-in, and what came of it.
type Sending = BoxFuture<'static, (u8, bool, Result<()>)>;

/// How often a chunk is sent again because the layout changed meanwhile.
const RELAID: usize = 8;
/// So long the other shards are waited for at least after the write quorum: where everything was slow they come soon.
const REST: Duration = Duration::from_millis(500);

impl Target {
    pub fn policy(&self) -> Policy {
        self.coder.policy()
    }

    /// Seals a chunk and codes it, on a core of its own. `index` is the object's place in the manifest.
    pub async fn encode(self: &Arc<Self>, client: &Client, number: u32, plain: Vec<u8>, index: u32) -> Result<(ChunkRecord, Encoded)> {
        let target = self.clone();
        let mut rng = client.env().rand();
        client
            .env()
            .blocking(move || {
                let longest = seal::primitive::sealed_len(seal::pad::padme(plain.len()));
                let mut sealed = Vec::with_capacity(target.coder.padded_len(longest));
                seal_chunk_to(&mut sealed, &target.key, target.object, number, &plain, true, &mut rng)?;
                drop(plain);
                target.code(number, sealed, index)
            })
            .await
    }

    /// Codes a chunk that is sealed already.
    pub fn code(&self, number: u32, sealed: Vec<u8>, index: u32) -> Result<(ChunkRecord, Encoded)> {
        let mut record = ChunkRecord::with_hash(index, number, &sealed, Hash([0; 32]))?;
        let encoded = self.coder.encode(ChunkRef { object: self.object, number }, 0, sealed)?;
        record.hash = encoded.descriptor.sealed_hash;
        Ok((record, encoded))
    }

    /// Sends all shards; returns when the chunk is stored. `permit` is held until the last shard,
    /// also a late one, is done with.
    pub async fn store(
        self: &Arc<Self>,
        client: &Client,
        record: ChunkRecord,
        encoded: Encoded,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Stored> {
        let permit = Arc::new(permit);
        let (mut refused, mut once_more) = (None, false);
        for _ in 0..RELAID {
            let layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match self.store_by(client, &layout, &record, &encoded, &permit, once_more).await? {
                Sent::Stored(stored) => return Ok(stored),
                Sent::Refused(e) => refused = Some(e),
            }
            client.cluster().outdated();
            let fresh = client.cluster().layouts(self.policy().width()).await?.current.clone();
            once_more = fresh.epoch <= layout.epoch;
            if once_more {
                // The servers hear of a new layout one after another; else it was not about the layout.
                client.env().sleep(Duration::from_millis(500)).await;
            }
            *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Err(refused.unwrap_or_else(|| Error::conflict("the layout changes faster than a chunk can be stored")))
    }

    /// Stores by one layout. A server that refuses may know another one: that ends it, unless `once_more`, when there is
    /// none, and it counts as one that failed (somebody may have put something else there beforehand).
    async fn store_by(
        self: &Arc<Self>,
        client: &Client,
        layout: &Arc<Layout>,
        record: &ChunkRecord,
        encoded: &Encoded,
        permit: &Arc<Option<OwnedSemaphorePermit>>,
        once_more: bool,
    ) -> Result<Sent> {
        let chunk = encoded.descriptor.chunk;
        let descriptor: Bytes = encoded.descriptor.to_bytes().into();
        let mut sends: FuturesUnordered<Sending> = FuturesUnordered::new();
        let mut failed: Vec<Error> = Vec::new();
        let mut nodes: Vec<NodeId> = Vec::new();
        let mut stand_ins = layout.stand_ins(chunk.partition(layout.power)).into_iter().cloned().collect::<VecDeque<_>>();
        let send = |index: u8, device: DeviceInfo, stands_in: bool| -> Sending {
            let body = encoded.shards.get(usize::from(index)).cloned().unwrap_or_default();
            let (target, client, descriptor, permit) = (self.clone(), client.clone(), descriptor.clone(), permit.clone());
            let (shard, epoch) = (ShardRef { chunk, generation: 0, index }, layout.epoch);
            // A task of its own, so that a late shard goes on when nobody waits for it any more.
            let task = client.env().clone().spawn(async move {
                let done = target.send(&client, shard, &device, epoch, descriptor, body).await;
                drop(permit);
                done
            });
            Box::pin(async move {
                let sent = task.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a sending task ended: {e}"))));
                (index, stands_in, sent)
            })
        };
        for index in 0..layout.width {
            match layout.holder(&chunk, index).cloned().map(|d| (d, false)).or_else(|| Some((stand_ins.pop_front()?, true))) {
                Some((device, stands_in)) => {
                    nodes.push(device.node);
                    sends.push(send(index, device, stands_in));
                }
                None => failed.push(Error::unavailable(format!("no device holds shard {index} of this partition now"))),
            }
        }
        let policy = self.policy();
        let quorum = if self.allow_degraded { policy.k } else { policy.write_quorum() } as usize;
        let (mut done, mut stood_in) = (0usize, false);
        let (began, straggler) = (client.env().clock.monotonic(), client.cluster().paces.straggler(&nodes));
        let late = client.env().sleep(straggler);
        tokio::pin!(late);
        let mut is_late = false;
        while !(sends.is_empty() || is_late && done >= quorum) {
            tokio::select! {
                biased;
                Some((index, by_stand_in, sent)) = sends.next() => match sent {
                    Ok(()) => {
                        done += 1;
                        stood_in |= by_stand_in;
                        let waited = client.env().clock.monotonic().saturating_sub(began);
                        if done == quorum && waited + REST > straggler {
                            // All were slow, perhaps: the others are given a moment, too.
                            late.set(client.env().sleep(REST));
                            is_late = false;
                        }
                    }
                    Err(e) if e.kind == Kind::Conflict && !once_more => return Ok(Sent::Refused(e)),
                    Err(e) => {
                        failed.push(e);
                        if let Some(device) = stand_ins.pop_front() {
                            sends.push(send(index, device, true));
                        }
                    }
                },
                () = &mut late, if !is_late => is_late = true,
            }
        }
        if done < quorum {
            return Err(self.too_few(done, quorum, failed));
        }
        let degraded = done < policy.width() as usize;
        Ok(Sent::Stored(Stored { record: record.clone(), partial: degraded || stood_in, degraded }))
    }

    /// One shard to its node. A connection that broke is tried once more.
    async fn send(
        &self,
        client: &Client,
        shard: ShardRef,
        device: &DeviceInfo,
        epoch: Epoch,
        descriptor: Bytes,
        body: Bytes,
    ) -> Result<()> {
        let node = device.node;
        let mut tries = 0;
        loop {
            let capability = Some(self.issued.capability(client, node).await?);
            let descriptor = descriptor.to_vec().into();
            let request = PutShardRequest { capability, shard, descriptor, epoch, device: device.device };
            match client.cluster().put_shard(node, &request, body.clone()).await {
                Err(e) if e.kind == Kind::Unavailable && tries == 0 && !client.cluster().paces.resting(node) => tries += 1,
                Err(e) if e.kind == Kind::Denied && tries == 0 && self.issued.forget_capabilities(client) => tries += 1,
                Err(e) => {
                    tracing::warn!(%node, error = %e, "a shard was not stored");
                    return Err(e);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    fn too_few(&self, done: usize, quorum: usize, failed: Vec<Error>) -> Error {
        let mut reasons: Vec<String> = failed.iter().map(|e| e.message.clone()).collect();
        reasons.sort();
        reasons.dedup();
        let full = failed.iter().any(|e| e.kind == Kind::Insufficient);
        let kind = if full { Kind::Insufficient } else { Kind::Unavailable };
        let message = format!(
            "only {done} of the {} servers of a chunk took their shard and policy {} needs {quorum}: {}",
            self.policy().width(),
            self.policy(),
            reasons.join("; ")
        );
        let hint = if full { "free or add space on that server" } else { "shardkeep cluster status; --allow-degraded stores with fewer" };
        let mut error = Error::new(kind, message).hint(hint);
        error.node = failed.iter().find_map(|e| e.node);
        error
    }
}
