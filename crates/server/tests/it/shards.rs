//! Shards in and out of nodes: who may, and what is refused.

use crate::support::*;
use bytes::Bytes;
use model::cluster::{CapabilityBody, Operation};
use model::{ChunkRef, Epoch, Kind, ObjectId, ShardRef, cbor};
use seal::keys::SigningKey;
use std::sync::Arc;
use transport::{ClientTls, Trust};
use transport::{Pool, PoolConfig};
use wire::coordinator::*;
use wire::node::*;

struct Story {
    cluster: Cluster,
    user: User,
    upload: UploadResponse,
    put: PutShardRequest,
    node: model::NodeId,
    body: Bytes,
}

/// A put of one shard that would be accepted.
async fn story() -> Story {
    let (cluster, user) = Cluster::whole().await;
    let upload = user.upload(1).await;
    let chunk = ChunkRef { object: upload.objects[0], number: 0 };
    let layout = user.layout(4).await;
    let coded = erasure::Coder::new(model::Policy::DEFAULT)
        .unwrap()
        .encode(chunk, 0, (0..50_000u32).map(|i| ((i * i) >> 7) as u8).collect())
        .unwrap();
    let place = layout.holder(&chunk, 1).unwrap();
    let put = PutShardRequest {
        capability: Some(capability(&upload.capabilities, place.node)),
        shard: ShardRef { chunk, generation: 0, index: 1 },
        descriptor: coded.descriptor.to_bytes().into(),
        epoch: layout.epoch,
        device: place.device,
    };
    let (node, body) = (place.node, coded.shards[1].clone());
    Story { cluster, user, upload, put, node, body }
}

impl Story {
    async fn refused(&self, change: impl FnOnce(&mut PutShardRequest)) -> Kind {
        let mut put = self.put.clone();
        change(&mut put);
        let error = self.user.put_shard(&put, self.node, self.body.clone()).await.unwrap_err();
        assert_eq!(error.node, Some(self.node), "{}", error.message);
        error.kind
    }
}

/// Attack 29: audience, object, holder, descriptor, epoch.
#[tokio::test(flavor = "multi_thread")]
async fn attack_29_a_put_needs_its_own_capability() {
    let s = story().await;
    let other = s.upload.capabilities.iter().find(|(node, _)| *node != s.node).unwrap().1.clone();
    assert_eq!(s.refused(|p| p.capability = Some(other)).await, Kind::Denied);
    assert_eq!(s.refused(|p| p.capability = None).await, Kind::Denied);
    assert_eq!(s.refused(|p| p.shard.chunk.object = ObjectId([1; 16])).await, Kind::Denied);
    assert_eq!(s.refused(|p| p.device = model::DeviceId([1; 16])).await, Kind::NotFound);
    assert_eq!(s.refused(|p| p.descriptor = vec![1, 2, 3].into()).await, Kind::Invalid);
    assert!(matches!(s.refused(|p| p.shard.index = 2).await, Kind::Corrupt | Kind::Invalid));

    // Somebody else's capability: the same node, another holder key.
    let thief = Arc::new(SigningKey::generate(&mut s.cluster.env.rand()));
    let tls = ClientTls::new(&s.cluster.env, Trust::Fingerprint(s.cluster.fingerprint), None).unwrap();
    let pool = Pool::new(s.cluster.env.clone(), tls, PoolConfig::default(), Some(Arc::new(Prover(thief))));
    let target = s.user.node_target(s.node).await;
    let stolen = pool.rpc_body::<PutShard>(&target, &s.put, s.body.clone(), SOON).await.unwrap_err();
    assert_eq!((stolen.kind, stolen.message.as_str()), (Kind::Denied, "this capability belongs to another key"));
    // And a connection that proved nothing.
    assert!(s.cluster.pool().rpc_body::<PutShard>(&target, &s.put, Bytes::new(), SOON).await.is_err());

    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();
    // The same again is the same.
    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();
}

/// What is put or confirmed by another layout than the node's own may be where nobody looks for it.
#[tokio::test(flavor = "multi_thread")]
async fn rule_01_a_put_is_fenced_and_a_shard_confirmed_by_its_epoch() {
    let s = story().await;
    let fenced = || async {
        let old = PutShardRequest { epoch: Epoch(0), ..s.put.clone() };
        s.user.put_shard(&old, s.node, s.body.clone()).await.is_err_and(|e| e.kind == Kind::Conflict)
    };
    eventually(&s.cluster.env, "an old epoch is fenced", fenced).await;
    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();

    let other = s.cluster.nodes.iter().position(|n| n.as_ref().unwrap().node != s.node).unwrap();
    let pool = s.cluster.pool_of_node(other);
    let target = s.user.node_target(s.node).await;
    let descriptor = model::Hash::of(&s.put.descriptor);
    let ask = async |epoch, shard, descriptor, device| {
        let request = ConfirmShardsRequest { width: 4, epoch, shards: vec![(shard, descriptor, device)] };
        pool.rpc::<ConfirmShards>(&target, &request, SOON).await
    };
    let (epoch, shard, device) = (s.put.epoch, s.put.shard, s.put.device);
    assert_eq!(ask(epoch, shard, descriptor, device).await, Ok(vec![true]));
    assert_eq!(ask(epoch, shard, model::Hash([1; 32]), device).await, Ok(vec![false]), "another version");
    assert_eq!(ask(epoch, shard, descriptor, model::DeviceId([1; 16])).await, Ok(vec![false]), "on another device");
    assert_eq!(ask(epoch, ShardRef { index: 3, ..shard }, descriptor, device).await, Ok(vec![false]), "not its own");
    for epoch in [Epoch(epoch.0 - 1), Epoch(epoch.0 + 1)] {
        assert_eq!(ask(epoch, shard, descriptor, device).await.unwrap_err().kind, Kind::Conflict);
    }
    let request = ConfirmShardsRequest { width: 4, epoch, shards: vec![(shard, descriptor, device)] };
    let stranger = s.user.node_target(s.node).await;
    assert_eq!(s.cluster.pool().rpc::<ConfirmShards>(&stranger, &request, SOON).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_capability_reads_and_does_not_write() {
    let s = story().await;
    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();
    let all = s.user.rpc::<ReadCapabilities, _>(s.user.holder()).await.unwrap();
    let read = capability(&all, s.node);
    let body: CapabilityBody = cbor::from_canonical(&read.body).unwrap();
    assert_eq!((body.operations, body.objects), (vec![Operation::Get], vec![]));
    assert_eq!(s.refused(|p| p.capability = Some(read.clone())).await, Kind::Denied);
    let get = |range| GetShardRequest { capability: Some(read.clone()), shard: s.put.shard, range, device: s.put.device };
    assert_eq!(s.user.get_shard(&get(None), s.node).await.unwrap().1, s.body);
    assert_eq!(s.user.get_shard(&get(Some((100, 50))), s.node).await.unwrap().1, s.body.slice(100..150));
    let missing = GetShardRequest { shard: ShardRef { index: 3, ..s.put.shard }, ..get(None) };
    assert_eq!(s.user.get_shard(&missing, s.node).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_byte_limit_holds() {
    let s = story().await;
    let request = UploadRequest {
        space: s.user.account.home,
        objects: 1,
        holder: s.user.holder(),
        byte_limit: 1000,
        renew: Some(s.upload.grant.clone()),
    };
    let renewed = s.user.rpc::<Upload, _>(request).await.unwrap();
    assert_eq!(renewed.objects, s.upload.objects);
    let small = capability(&renewed.capabilities, s.node);
    assert_eq!(s.refused(|p| p.capability = Some(small)).await, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_renewed_for_its_own_account_only() {
    let s = story().await;
    let ada = s.cluster.register(&s.user.invite("ada").await).await.unwrap();
    let mut request =
        UploadRequest { space: ada.account.home, objects: 1, holder: ada.holder(), byte_limit: 1, renew: Some(s.upload.grant.clone()) };
    assert_eq!(ada.rpc::<Upload, _>(request.clone()).await.unwrap_err().kind, Kind::Denied);
    request.space = s.user.account.home;
    request.renew = None;
    assert_eq!(ada.rpc::<Upload, _>(request).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_tell_what_is_there() {
    let s = story().await;
    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();
    let absent = ShardRef { index: 3, ..s.put.shard };
    let target = s.user.node_target(s.node).await;
    for deep in [false, true] {
        let request = HeadShardsRequest { capability: s.put.capability.clone(), shards: vec![s.put.shard, absent], deep };
        let states = s.user.nodes.rpc::<HeadShards>(&target, &request, SOON).await.unwrap();
        assert_eq!(states[1], ShardState::Missing);
        assert!(matches!(states[0], ShardState::Held(_, device) if device == s.put.device));
    }
    let many = HeadShardsRequest { capability: s.put.capability.clone(), shards: vec![absent; 65], deep: true };
    assert_eq!(s.user.nodes.rpc::<HeadShards>(&target, &many, SOON).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_path_is_an_error_and_nothing_falls_over() {
    let s = story().await;
    let node = s.user.node_target(s.node).await;
    let paths = [
        "/v1/hello",
        "/v1/login/start",
        "/v1/login/finish",
        "/v1/register/start",
        "/v1/register/finish",
        "/v1/password/start",
        "/v1/password/finish",
        "/v1/recover/start",
        "/v1/recover/finish",
        "/v1/logout",
        "/v1/whoami",
        "/v1/query",
        "/v1/propose",
        "/v1/upload",
        "/v1/capabilities",
        "/v1/status",
        "/v1/token",
        "/v1/invite",
        "/v1/report",
        "/v1/join",
        "/v1/heartbeat",
        "/v1/peer/query",
        "/v1/peer/report",
        "/v1/prove",
        "/v1/shard/put",
        "/v1/shard/get",
        "/v1/shard/head",
        "/v1/nothing",
    ];
    let mut noise: Vec<Vec<u8>> = vec![vec![], vec![0xff; 100], vec![0x9f; 300], vec![0x81; 2000]];
    noise.extend((0..8).map(|_| s.cluster.env.random::<64>().to_vec()));
    for path in paths {
        for bytes in &noise {
            for target in [&s.cluster.at(), &node] {
                let answer = s.user.nodes.call(target, path, bytes.clone().into(), Bytes::new(), SOON).await;
                assert!(answer.is_err(), "{path} took {bytes:?}");
            }
        }
    }
    s.user.put_shard(&s.put, s.node, s.body.clone()).await.unwrap();
}
