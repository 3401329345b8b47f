//! A TLS stream over loopback through the project's own connection layer: shards as a node gets
//! them, measured by the CPU time of both ends.

use super::work::cpu;
use super::{RUNS, median};
use bytes::Bytes;
use env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::chunk::CHUNK_SIZE;
use model::{ClusterId, Error, NodeId, Policy, Result};
use rustix::time::ClockId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use transport::{
    CERTIFICATE_VALIDITY, ClientTls, ClusterRoot, Limits, Pool, PoolConfig, Request, Response, ServerId, ServerKey, Service, Target,
    TlsIdentity, Trust,
};

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(30);
/// The node that the server claims to be.
const NODE: NodeId = NodeId(1);

/// Takes what it gets, and says nothing.
struct Sink;

impl Service for Sink {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        async move {
            drop(request);
            Ok(Response::new(Bytes::new(), ()))
        }
        .boxed()
    }
}

/// Bytes a second by the CPU time of both ends.
pub async fn tls(env: &Env, policy: Policy, time: Duration) -> Result<f64> {
    let cluster = ClusterId(env.random());
    let root = ClusterRoot::generate(cluster, env.now_ms(), env)?;
    let key = ServerKey::generate(env)?;
    let certificate = root.issue(ServerId::Node(NODE), cluster, key.spki(), env.now_ms(), CERTIFICATE_VALIDITY)?;
    let identity = TlsIdentity::new(env, root.cert_der(), &certificate, &key)?;
    let listener = env.net.bind("127.0.0.1:0").await.map_err(|e| Error::unavailable(format!("cannot listen on loopback: {e}")))?;
    let address = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?.to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = env.spawn(transport::serve(env.clone(), listener, identity, Arc::new(Sink), Limits::default(), async move {
        let _ = stopped.await;
    }));

    let pool = Pool::new(env.clone(), ClientTls::new(env, Trust::Root(root.cert_der().to_vec()), None)?, PoolConfig::default(), None);
    let target = Target::node(NODE, address);
    let mut shard = vec![0; CHUNK_SIZE.div_ceil(usize::from(policy.k.max(1)))];
    env.rng.fill(&mut shard);
    let shard = Bytes::from(shard);
    let send = || pool.call(&target, "/v1/bench", Bytes::new(), shard.clone(), CALL);
    // The first one makes the connection.
    send().await?;
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let (start, before, mut bytes) = (env.clock.monotonic(), cpu(ClockId::ProcessCPUTime), 0u64);
        while env.clock.monotonic() - start < time / RUNS as u32 {
            send().await?;
            bytes += shard.len() as u64;
        }
        let spent = cpu(ClockId::ProcessCPUTime).saturating_sub(before);
        rates.push(bytes as f64 / spent.as_secs_f64().max(1e-9));
    }
    drop(pool);
    let _ = stop.send(());
    server.abort();
    Ok(median(rates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn shards_of_any_policy_go_through() {
        let env = env::real::env();
        for policy in ["2+2", "1+1", "20+10"] {
            assert!(tls(&env, policy.parse().unwrap(), Duration::from_millis(20)).await.unwrap() > 1e6, "{policy}");
        }
    }
}
