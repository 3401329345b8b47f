//! One chunk onto the servers: sealed, coded, all shards sent at once.
//!
//! A chunk is stored when **all** its shards are durable. Where a server is down, or late beyond
//! the straggler deadline, the write quorum suffices and the chunk counts as partial: the commit
//! says so, and the servers heal it.

use crate::issue::Issued;
use crate::session::Client;
use bytes::Bytes;
use erasure::{Coder, Encoded};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{ChunkRef, Error, Hash, Kind, Layout, NodeId, ObjectId, Policy, Result, ShardRef};
use seal::content::{ChunkRecord, seal_chunk_to};
use seal::keys::ContentKey;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use wire::node::PutShardRequest;

/// The object that a file's chunks go to.
pub(crate) struct Target {
    pub object: ObjectId,
    pub key: ContentKey,
    pub issued: Arc<Issued>,
    pub coder: Coder,
    pub layout: Arc<Layout>,
    /// Settle for k shards where not even the write quorum answers.
    pub allow_degraded: bool,
}

/// A stored chunk.
pub(crate) struct Stored {
    pub record: ChunkRecord,
    /// Not all its shards were durable in time.
    pub partial: bool,
}

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
        let chunk = encoded.descriptor.chunk;
        let descriptor: Bytes = encoded.descriptor.to_bytes().into();
        let permit = Arc::new(permit);
        let mut sends = FuturesUnordered::new();
        let mut failed: Vec<Error> = Vec::new();
        let mut nodes: Vec<NodeId> = Vec::new();
        for (index, body) in (0u8..).zip(encoded.shards) {
            let Some(device) = self.layout.holder(&chunk, index).cloned() else {
                failed.push(Error::unavailable(format!("no device holds shard {index} of this partition now")));
                continue;
            };
            nodes.push(device.node);
            let (target, client, descriptor, permit) = (self.clone(), client.clone(), descriptor.clone(), permit.clone());
            let shard = ShardRef { chunk, generation: 0, index };
            // A task of its own, so that a late shard goes on when nobody waits for it any more.
            let send = client.env().clone().spawn(async move {
                let done = target.send(&client, shard, device.node, device.device, descriptor, body).await;
                drop(permit);
                done
            });
            sends.push(async move { send.await.unwrap_or_else(|e| Err(Error::unavailable(format!("a sending task ended: {e}")))) });
        }
        let policy = self.policy();
        let quorum = if self.allow_degraded { policy.k } else { policy.write_quorum() } as usize;
        let mut done = 0usize;
        let late = client.env().sleep(client.cluster().paces.straggler(&nodes));
        tokio::pin!(late);
        let mut is_late = false;
        while !(sends.is_empty() || is_late && done >= quorum) {
            tokio::select! {
                biased;
                Some(sent) = sends.next() => match sent {
                    Ok(()) => done += 1,
                    Err(e) => failed.push(e),
                },
                () = &mut late, if !is_late => is_late = true,
            }
        }
        if done < quorum {
            return Err(self.too_few(done, quorum, failed));
        }
        Ok(Stored { record, partial: done < policy.width() as usize })
    }

    /// One shard to its node. A connection that broke is tried once more; a writer with an old layout
    /// is told so and stops.
    async fn send(
        &self,
        client: &Client,
        shard: ShardRef,
        node: NodeId,
        device: model::DeviceId,
        descriptor: Bytes,
        body: Bytes,
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            let capability = Some(self.issued.capability(client, node).await?);
            let descriptor = descriptor.to_vec().into();
            let request = PutShardRequest { capability, shard, descriptor, epoch: self.layout.epoch, device };
            match client.cluster().put_shard(node, &request, body.clone()).await {
                Err(e) if e.kind == Kind::Unavailable && tries == 0 && !client.cluster().paces.resting(node) => tries += 1,
                Err(e) => {
                    if e.kind == Kind::Conflict {
                        client.cluster().outdated();
                    }
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
