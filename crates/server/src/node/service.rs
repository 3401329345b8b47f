//! What a node answers: proof of a holder key, and shards in and out. The exchanges, and who may call
//! them, are described in `wire::node`.

use super::admission::{Admitted, prove};
use super::state::{Device, State};
use super::votes::{is_undecodable, is_vouched_for};
use crate::rpc::answer;
use bytes::Bytes;
use futures::future::BoxFuture;
use model::chunk::SEALED_CHUNK_MAX;
use model::cluster::Capability;
use model::{DeviceId, Error, Kind, Result, ShardRef};
use std::sync::Arc;
use transport::{Connection, Peer, Request, Response, Service};
use wire::Rpc;
use wire::node::{
    ConfirmShards, ConfirmShardsRequest, GetShard, GetShardRequest, GetShardResponse, HeadShards, HeadShardsRequest, Prove, PutShard,
    PutShardRequest, ShardState,
};
use wire::snapshot::{GetSnapshot, PutSnapshot};

/// Longest message, without a shard beside it.
const MESSAGE_BYTES: usize = 64 << 10;
/// Most shards in one question.
const HEADS: usize = 1024;
/// Most shards in one question when each is read.
const DEEP_HEADS: usize = 64;

/// The service of a node.
pub(crate) struct NodeService(pub Arc<State>);

impl Service for NodeService {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move { self.route(request).await.map_err(|e| e.on(self.0.node)) })
    }

    /// Only whom we know may send bulk bytes, and only to store them.
    fn max_body(&self, path: &str, connection: &Connection) -> usize {
        if path == PutSnapshot::PATH && matches!(connection.peer, Peer::Coordinator(_)) {
            return super::snapshots::PART + MESSAGE_BYTES;
        }
        let bulk = path == PutShard::PATH && (is_server(connection) || connection.holder.get().is_some());
        if bulk { SEALED_CHUNK_MAX + MESSAGE_BYTES } else { MESSAGE_BYTES }
    }
}

fn is_server(connection: &Connection) -> bool {
    matches!(connection.peer, Peer::Node(_) | Peer::Coordinator(_))
}

impl NodeService {
    async fn route(&self, request: Request) -> Result<Response> {
        match request.path.as_str() {
            Prove::PATH => {
                let connection = &request.connection;
                let message = wire::decode(&request.head)?;
                let holder = prove(&message, &connection.exporter, &connection.certificate_hash)?;
                // One key a connection: a second, different one is refused.
                if *connection.holder.get_or_init(|| holder) != holder {
                    return Err(Error::denied("this connection has proved another key already"));
                }
                Ok(Response::message(&()))
            }
            PutShard::PATH => {
                let message = wire::decode(&request.head)?;
                self.put(message, request.body, &request.connection).await?;
                Ok(Response::message(&()))
            }
            GetShard::PATH => {
                let message = wire::decode(&request.head)?;
                let (head, body) = self.get(message, &request.connection).await?;
                Ok(Response::new(wire::encode(&head), body))
            }
            ConfirmShards::PATH => answer::<ConfirmShards, _>(&request, |r| self.confirm(r, &request.connection)).await,
            HeadShards::PATH => answer::<HeadShards, _>(&request, |r| self.heads(r, &request.connection)).await,
            PutSnapshot::PATH => {
                if !matches!(request.connection.peer, Peer::Coordinator(_)) {
                    return Err(Error::denied("only coordinators leave snapshots of the catalog here"));
                }
                self.0.put_snapshot(wire::decode(&request.head)?, request.body).await?;
                Ok(Response::message(&()))
            }
            GetSnapshot::PATH => {
                let message = wire::decode(&request.head)?;
                let owner = request.connection.holder.get().ok_or_else(|| Error::denied("this connection has proved no key"))?;
                let (head, body) = self.0.get_snapshot(owner, message).await?;
                Ok(Response::new(wire::encode(&head), body))
            }
            other => Err(wire::unserved(other)),
        }
    }

    /// `None`: a server of the cluster, which needs no capability.
    fn admit(&self, capability: &Option<Capability>, connection: &Connection) -> Result<Option<Arc<Admitted>>> {
        match capability {
            None if is_server(connection) => Ok(None),
            None => Err(Error::denied("a capability is needed")),
            Some(capability) => {
                let s = &self.0;
                s.user_called();
                s.admission.admit(&s.map.capability_key()?, s.env.now_ms(), capability, connection.holder.get()).map(Some)
            }
        }
    }

    async fn put(&self, request: PutShardRequest, body: Bytes, connection: &Connection) -> Result<()> {
        let PutShardRequest { capability, shard, descriptor, epoch, device } = request;
        let admitted = self.admit(&capability, connection)?;
        if let Some(admitted) = &admitted {
            admitted.may_put(&shard.chunk.object, body.len() as u64)?;
            if shard.generation != 0 {
                return Err(Error::denied("uploads are of coding generation 0: later ones are made by servers"));
            }
        }
        let descriptor = wire::node::descriptor(&descriptor).map_err(|e| Error::invalid(e.message))?;
        let s = &self.0;
        let width = descriptor.policy.width();
        // Of one that hands over, whose word alone does not count. (Coordinators code chunks anew: theirs is the first.)
        if let (None, Peer::Node(from), Some(layouts)) = (admitted, &connection.peer, s.map.layouts(width)) {
            let id = descriptor.id();
            if !is_vouched_for(s, *from, &layouts, shard, id).await {
                return Err(Error::conflict("other nodes have another version of this chunk"));
            }
            if let Some(device) = s.device(&device)
                && let Some((here, policy)) = device.store.head(&shard).await?.zip(device.store.policy(&shard).await?)
                && (here != id && policy == descriptor.policy && descriptor.certifies(shard.index, &body))
                && layouts.current.holder(&shard.chunk, shard.index).is_some_and(|d| d.device == device.id)
                && !s.is_frozen()
                && is_undecodable(s, &layouts, shard, here, policy).await
                && device.store.head(&shard).await? == Some(here)
            {
                s.damaged(device, shard, &Error::corrupt("too few shards are of this version of its chunk, and there is another one"))
                    .await;
            }
        }
        // Until the shard is durable no newer layout is learned: whoever hands over finds it.
        let _gate = s.map.gate().await;
        s.map.fence(width, epoch)?;
        let layouts = s.map.layouts(width);
        if layouts.as_ref().is_none_or(|l| l.current.epoch < epoch) {
            s.refresh_soon();
        }
        let device = s.device(&device).ok_or_else(|| Error::not_found(format!("this node has no device {device}")))?;
        device.store.put(shard, descriptor, body).await?;
        // It stands in for another, or the writer knows a layout that we don't.
        if layouts.is_none_or(|l| !l.is_rightful(&shard.chunk, shard.index, device.id)) {
            s.hand_over.notify_one();
        }
        Ok(())
    }

    /// Which shards another node may drop, since they are durable here, where they belong.
    async fn confirm(&self, request: ConfirmShardsRequest, connection: &Connection) -> Result<Vec<bool>> {
        if !matches!(connection.peer, Peer::Node(_)) {
            return Err(Error::denied("only nodes of the cluster may ask this"));
        }
        if request.shards.len() > HEADS {
            return Err(Error::invalid(format!("at most {HEADS} shards can be asked about at once")));
        }
        let s = &self.0;
        let _gate = s.map.gate().await;
        let Some(layouts) = s.map.layouts(request.width).filter(|l| l.current.epoch == request.epoch) else {
            s.refresh_soon();
            return Err(Error::conflict("the layout of that epoch is not the one that this node knows"));
        };
        let mut confirmed = Vec::with_capacity(request.shards.len());
        for (shard, descriptor, device) in request.shards {
            let device = s.device(&device).filter(|d| layouts.is_rightful(&shard.chunk, shard.index, d.id));
            confirmed.push(match device {
                Some(device) => device.store.head(&shard).await? == Some(descriptor),
                None => false,
            });
        }
        Ok(confirmed)
    }

    async fn get(&self, request: GetShardRequest, connection: &Connection) -> Result<(GetShardResponse, Bytes)> {
        let GetShardRequest { capability, shard, range, device } = request;
        if let Some(admitted) = self.admit(&capability, connection)? {
            admitted.may_get(&shard.chunk.object)?;
        }
        let mut last = Error::not_found(format!("this node does not hold shard {} of this chunk", shard.index));
        for device in self.devices(&device) {
            match device.store.get(&shard, range).await {
                Ok((descriptor, bytes)) => return Ok((GetShardResponse { descriptor: descriptor.to_bytes().into() }, bytes)),
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => {
                    match e.kind {
                        Kind::Corrupt => self.0.damaged(device, shard, &e).await,
                        Kind::Unavailable => self.0.doubt(device, shard).await,
                        _ => {}
                    }
                    last = e;
                }
            }
        }
        Err(last)
    }

    async fn heads(&self, request: HeadShardsRequest, connection: &Connection) -> Result<Vec<ShardState>> {
        let HeadShardsRequest { capability, shards, deep } = request;
        if let Some(admitted) = self.admit(&capability, connection)? {
            shards.iter().try_for_each(|shard| admitted.may_get(&shard.chunk.object))?;
        }
        let most = if deep { DEEP_HEADS } else { HEADS };
        if shards.len() > most {
            return Err(Error::invalid(format!("at most {most} shards can be asked about at once")));
        }
        let mut states = Vec::with_capacity(shards.len());
        for shard in shards {
            states.push(self.head(shard, deep).await?);
        }
        Ok(states)
    }

    async fn head(&self, shard: ShardRef, deep: bool) -> Result<ShardState> {
        for device in &self.0.devices {
            let Some(descriptor) = device.store.head(&shard).await? else { continue };
            if deep && let Err(e) = device.store.verify(&shard).await {
                if e.kind != Kind::Corrupt {
                    return Err(e);
                }
                self.0.damaged(device, shard, &e).await;
                return Ok(ShardState::Corrupt(device.id));
            }
            return Ok(ShardState::Held(descriptor, device.id));
        }
        Ok(ShardState::Missing)
    }

    /// All devices, the one hinted at first.
    fn devices(&self, hint: &DeviceId) -> impl Iterator<Item = &Device> {
        let (hinted, others): (Vec<_>, Vec<_>) = self.0.devices.iter().partition(|d| d.id == *hint);
        hinted.into_iter().chain(others)
    }
}
