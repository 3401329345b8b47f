//! How fast one process moves bytes over loopback TLS, both ends on the same cores.
//! `cargo test --release -p transport --test throughput -- --ignored --nocapture`

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{ClusterId, NodeId, Result};
use std::sync::Arc;
use std::time::Duration;
use transport::*;

struct Sink(Bytes);

impl Service for Sink {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            Ok(match request.path.as_str() {
                "/v1/put" => Response::new("", ()),
                "/v1/get" => Response::new("", self.0.clone()),
                _ => Response::new(request.head, ()),
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    const MINUTE: Duration = Duration::from_secs(60);
    let env = env::real::env();
    let cluster = ClusterId([1; 16]);
    let root = ClusterRoot::generate(cluster, env.now_ms(), &env).unwrap();
    let key = ServerKey::generate(&env).unwrap();
    let cert = root.issue(ServerId::Node(NodeId(1)), cluster, key.spki(), env.now_ms(), CERTIFICATE_VALIDITY).unwrap();
    let identity = TlsIdentity::new(&env, root.cert_der(), &cert, &key).unwrap();
    let listener = env.net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shard = Bytes::from(vec![7u8; 2 << 20]);
    let service = Arc::new(Sink(shard.clone()));
    env.spawn(serve(env.clone(), listener, identity, service, Limits::default(), std::future::pending()));
    let pool = || {
        let tls = ClientTls::new(&env, Trust::Root(root.cert_der().to_vec()), None).unwrap();
        Pool::new(env.clone(), tls, PoolConfig::default(), None)
    };
    for mode in [Mode::Bulk, Mode::Control] {
        let target = Target::node(NodeId(1), &address).with(mode);
        for lanes in [1usize, 4] {
            for path in ["/v1/put", "/v1/get"] {
                let pool = pool();
                let rounds = 512 / lanes;
                let begun = (env.clock.monotonic(), cpu());
                futures::future::join_all((0..lanes).map(|_| {
                    let (pool, target, shard) = (pool.clone(), target.clone(), shard.clone());
                    env.spawn(async move {
                        for _ in 0..rounds {
                            let body = if path == "/v1/put" { shard.clone() } else { Bytes::new() };
                            pool.call(&target, path, Bytes::from_static(b"head"), body, MINUTE).await.unwrap();
                        }
                    })
                }))
                .await;
                let bytes = (rounds * lanes * shard.len()) as f64;
                let (seconds, cpu) = ((env.clock.monotonic() - begun.0).as_secs_f64(), cpu() - begun.1);
                println!("{mode:?} {path} x{lanes}: {:.0} MB/s, {:.2} s CPU a GB, both ends", bytes / 1e6 / seconds, cpu / (bytes / 1e9));
            }
        }
        for lanes in [1usize, 32] {
            let pool = pool();
            let rounds = 10_000 / lanes;
            let begun = (env.clock.monotonic(), cpu());
            futures::future::join_all((0..lanes).map(|_| {
                let (pool, target) = (pool.clone(), target.clone());
                env.spawn(async move {
                    for _ in 0..rounds {
                        pool.call(&target, "/v1/echo", Bytes::from_static(&[1; 300]), (), MINUTE).await.unwrap();
                    }
                })
            }))
            .await;
            let seconds = (env.clock.monotonic() - begun.0).as_secs_f64();
            let calls = (rounds * lanes) as f64;
            println!("{mode:?} small x{lanes}: {:.0} calls/s, {:.0} µs CPU a call", calls / seconds, (cpu() - begun.1) / calls * 1e6);
        }
    }
    let begun = (env.clock.monotonic(), cpu());
    for _ in 0..200 {
        pool().call(&Target::node(NodeId(1), &address), "/v1/echo", Bytes::new(), (), MINUTE).await.unwrap();
    }
    let seconds = (env.clock.monotonic() - begun.0).as_secs_f64();
    println!("new connections: {:.0} /s, {:.0} µs CPU each", 200.0 / seconds, (cpu() - begun.1) / 200.0 * 1e6);
}

/// Seconds of CPU that this process has used.
#[allow(clippy::disallowed_methods)] // a measurement of the real machine
fn cpu() -> f64 {
    let stat = std::fs::read("/proc/self/stat").unwrap();
    let stat = String::from_utf8_lossy(&stat).into_owned();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
