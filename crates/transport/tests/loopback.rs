//! Servers and clients over real loopback sockets: who gets through to whom, and what is bounded.

use bytes::Bytes;
use env::Env;
use futures::StreamExt;
use futures::future::BoxFuture;
use model::{ClusterId, CoordinatorId, Error, Hash, Kind, NodeId, PublicKey, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use transport::*;

const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
const SOON: Duration = Duration::from_secs(20);
const NODE: ServerId = ServerId::Node(NodeId(5));
const COORDINATOR: ServerId = ServerId::Coordinator(CoordinatorId(1));

struct World {
    env: Env,
    root: ClusterRoot,
}

impl World {
    fn new() -> Self {
        let env = env::real::env();
        let root = ClusterRoot::generate(CLUSTER, env.now_ms(), &env).unwrap();
        World { env, root }
    }

    fn identity_at(&self, id: ServerId, issued_ms: u64) -> Arc<TlsIdentity> {
        let key = ServerKey::generate(&self.env).unwrap();
        let cert = self.root.issue(id, CLUSTER, key.spki(), issued_ms, CERTIFICATE_VALIDITY).unwrap();
        TlsIdentity::new(&self.env, self.root.cert_der(), &cert, &key).unwrap()
    }

    fn identity(&self, id: ServerId) -> Arc<TlsIdentity> {
        self.identity_at(id, self.env.now_ms())
    }

    async fn serve(&self, identity: Arc<TlsIdentity>, limits: Limits) -> Server {
        let listener = self.env.net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let echo = Echo::new(&self.env);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = self.env.spawn(serve(self.env.clone(), listener, identity, echo.clone(), limits, shutdown));
        Server { address, echo, stop: Some(stop), task }
    }

    async fn node(&self) -> Server {
        self.serve(self.identity(NODE), Limits::default()).await
    }

    async fn coordinator(&self) -> Server {
        self.serve(self.identity(COORDINATOR), Limits::default()).await
    }

    fn trust(&self) -> Trust {
        Trust::Root(self.root.cert_der().to_vec())
    }

    fn pool_of(&self, trust: Trust, identity: Option<Arc<TlsIdentity>>, config: PoolConfig) -> Pool {
        Pool::new(self.env.clone(), ClientTls::new(&self.env, trust, identity).unwrap(), config, None)
    }

    fn pool(&self) -> Pool {
        self.pool_of(self.trust(), None, PoolConfig::default())
    }
}

struct Server {
    address: String,
    echo: Arc<Echo>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    fn node(&self) -> Target {
        Target::node(NodeId(5), &self.address)
    }

    fn coordinator(&self) -> Target {
        Target::coordinator(&self.address)
    }

    /// Waits until so many calls are in the handler.
    async fn runs(&self, calls: usize) {
        for _ in 0..1000 {
            if self.echo.running.load(Ordering::SeqCst) == calls {
                return;
            }
            self.echo.env.sleep(Duration::from_millis(20)).await;
        }
        panic!("{} calls are in the handler, and not {calls}", self.echo.running.load(Ordering::SeqCst));
    }
}

/// Calls `/v1/echo` until it is not `Unavailable`, for 20 s.
async fn at_last(world: &World, pool: &Pool, target: &Target) -> Result<(Bytes, Bytes)> {
    let begun = world.env.clock.monotonic();
    loop {
        match pool.call(target, "/v1/echo", Bytes::new(), (), SOON).await {
            Err(e) if e.kind == Kind::Unavailable && world.env.clock.monotonic() - begun < SOON => {
                world.env.sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Echo {
    env: Env,
    running: AtomicUsize,
    /// Whether calls of `/v1/held` are answered.
    let_go: AtomicBool,
}

impl Echo {
    fn new(env: &Env) -> Arc<Self> {
        Arc::new(Echo { env: env.clone(), running: AtomicUsize::new(0), let_go: AtomicBool::new(false) })
    }
}

struct Count<'a>(&'a AtomicUsize);
impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Echo {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            self.running.fetch_add(1, Ordering::SeqCst);
            let _count = Count(&self.running);
            match request.path.as_str() {
                "/v1/echo" | "/v1/small" => Ok(Response::new(request.head, request.body)),
                "/v1/who" => Ok(Response::new(
                    format!("{:?}", request.connection.peer),
                    [&request.connection.exporter[..], &request.connection.certificate_hash.0].concat(),
                )),
                "/v1/slow" => {
                    self.env.sleep(Duration::from_millis(500)).await;
                    Ok(Response::new("slow", ()))
                }
                "/v1/held" => {
                    while !self.let_go.load(Ordering::SeqCst) {
                        self.env.sleep(Duration::from_millis(10)).await;
                    }
                    Ok(Response::new("held", ()))
                }
                "/v1/never" => std::future::pending().await,
                "/v1/conflict" => Err(Error::conflict("somebody was faster").hint("look again")),
                "/v1/long" => Ok(Response::new("", vec![0; 200_000])),
                "/v1/prove" if request.head == "good" => {
                    request.connection.holder.set(PublicKey([1; 32])).map_err(|_| Error::conflict("proved twice"))?;
                    Ok(Response::new("", ()))
                }
                "/v1/prove" => Err(Error::denied("the proof is not valid")),
                "/v1/holder" => Ok(Response::new(format!("{}", request.connection.holder.get().is_some()), ())),
                "/v1/stream" => {
                    let frames = (0..100u32).map(|i| Ok(Bytes::from(vec![i as u8; i as usize * 1000])));
                    let end = futures::stream::once(async { Err(Error::corrupt("the source broke")) });
                    let frames = futures::stream::iter(frames);
                    let frames = if request.head == "break" { frames.chain(end).boxed() } else { frames.boxed() };
                    Ok(Response { head: request.head, body: Body::Stream(frames) })
                }
                path => Err(Error::not_found(format!("nothing at {path}"))),
            }
        })
    }

    fn max_body(&self, path: &str, _: &Connection) -> usize {
        if path == "/v1/small" { 1000 } else { usize::MAX }
    }
}

fn text(s: &str) -> Bytes {
    Bytes::copy_from_slice(s.as_bytes())
}

#[tokio::test]
async fn messages_and_bytes_go_there_and_back() {
    let world = World::new();
    let (node, coordinator, pool) = (world.node().await, world.coordinator().await, world.pool());
    for target in [node.node(), node.node().with(Mode::Control), coordinator.coordinator(), coordinator.coordinator().with(Mode::Bulk)] {
        for (head, body) in [(0, 0), (3, 0), (0, 3), (100, 70_000), (200_000, 1), (30_000, 2_000_000)] {
            let (head, body) = (Bytes::from(vec![1; head]), Bytes::from(vec![2; body]));
            let pieces = vec![body.slice(..body.len() / 3), Bytes::new(), body.slice(body.len() / 3..)];
            assert_eq!(pool.call(&target, "/v1/echo", head.clone(), pieces, SOON).await.unwrap(), (head, body), "{target:?}");
        }
        let e = pool.call(&target, "/v1/conflict", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!((e.kind, e.message.as_str(), e.hint.as_deref()), (Kind::Conflict, "somebody was faster", Some("look again")));
        assert_eq!(e.node, matches!(target.expect, Expect::Node(_)).then_some(NodeId(5)));
        assert_eq!(pool.call(&target, "no path", Bytes::new(), (), SOON).await.unwrap_err().kind, Kind::Invalid);
        assert_eq!(pool.call(&target, "/v1/echo", text("still"), (), SOON).await.unwrap().0, "still");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_in_parallel_wait_for_the_budget() {
    let world = World::new();
    let limits = Limits { body_budget: 12 << 20, ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let pool = world.pool();
    let calls = (0..24u8).map(|i| {
        let (pool, target) = (pool.clone(), node.node());
        async move {
            let body = Bytes::from(vec![i; 5 << 20]);
            let (head, back) = pool.call(&target, "/v1/echo", text("x"), body.clone(), SOON).await.unwrap();
            assert_eq!(head, "x");
            assert!(back == body);
        }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn a_server_of_another_cluster_is_refused() {
    let (world, other) = (World::new(), World::new());
    let node = other.node().await;
    for mode in [Mode::Bulk, Mode::Control] {
        let e = world.pool().call(&node.node().with(mode), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied);
        assert_eq!(e.message, format!("no connection to {}: it does not belong to this cluster", node.address));
    }
}

#[tokio::test]
async fn the_root_itself_cannot_issue_for_another_cluster() {
    let world = World::new();
    let key = ServerKey::generate(&world.env).unwrap();
    let cert = world.root.issue(NODE, ClusterId([2; 16]), key.spki(), world.env.now_ms(), CERTIFICATE_VALIDITY).unwrap();
    assert_eq!(TlsIdentity::new(&world.env, world.root.cert_der(), &cert, &key).unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn roles_and_ids_are_not_interchangeable() {
    let world = World::new();
    let (node, coordinator, pool) = (world.node().await, world.coordinator().await, world.pool());
    let wrong = [
        node.coordinator(),
        Target::node(NodeId(6), &node.address),
        Target::coordinator_id(CoordinatorId(5), &node.address),
        coordinator.node(),
        Target::node(NodeId(1), &coordinator.address),
        Target::coordinator_id(CoordinatorId(2), &coordinator.address),
    ];
    for target in wrong {
        for mode in [Mode::Bulk, Mode::Control] {
            let e = pool.call(&target.clone().with(mode), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
            assert_eq!(e.kind, Kind::Denied, "{target:?}");
            assert!(e.message.ends_with("another server of the cluster answers there"), "{e}");
        }
    }
    pool.call(&Target::coordinator_id(CoordinatorId(1), &coordinator.address), "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
}

#[tokio::test]
async fn servers_see_who_connects() {
    let world = World::new();
    let server = world.coordinator().await;
    for (identity, seen) in [
        (None, "Anonymous"),
        (Some(world.identity(NODE)), "Node(NodeId(5))"),
        (Some(world.identity(COORDINATOR)), "Coordinator(CoordinatorId(1))"),
    ] {
        let pool = world.pool_of(world.trust(), identity, PoolConfig::default());
        for mode in [Mode::Bulk, Mode::Control] {
            let (head, _) = pool.call(&server.coordinator().with(mode), "/v1/who", Bytes::new(), (), SOON).await.unwrap();
            assert_eq!(head, seen);
        }
    }
    let stranger = World::new().identity(NODE);
    let pool = world.pool_of(world.trust(), Some(stranger), PoolConfig::default());
    for mode in [Mode::Bulk, Mode::Control] {
        let e = pool.call(&server.coordinator().with(mode), "/v1/who", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!(e.kind, Kind::Denied, "{e}");
        assert!(e.message.ends_with("it refuses this server's certificate"), "{e}");
    }
}

#[tokio::test]
async fn a_fingerprint_is_enough_to_find_the_root() {
    let world = World::new();
    let server = world.coordinator().await;
    let pool = world.pool_of(Trust::Fingerprint(world.root.fingerprint()), None, PoolConfig::default());
    assert_eq!(pool.call(&server.coordinator(), "/v1/echo", text("hi"), (), SOON).await.unwrap().0, "hi");
    let pool = world.pool_of(Trust::Fingerprint(Hash([1; 32])), None, PoolConfig::default());
    assert_eq!(pool.call(&server.coordinator(), "/v1/echo", text("hi"), (), SOON).await.unwrap_err().kind, Kind::Denied);
    let node = world.node().await;
    let pool = world.pool_of(Trust::Fingerprint(world.root.fingerprint()), None, PoolConfig::default());
    assert_eq!(pool.call(&node.coordinator(), "/v1/echo", text("hi"), (), SOON).await.unwrap_err().kind, Kind::Denied);
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides() {
    let world = World::new();
    let now = world.env.now_ms();
    let old = world.identity_at(NODE, now - 91 * 86_400_000);
    let node = world.serve(old.clone(), Limits::default()).await;
    let e = world.pool().call(&node.node(), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
    assert_eq!(e.kind, Kind::Denied);
    assert!(e.message.ends_with("its certificate has expired"), "{e}");
    let server = world.coordinator().await;
    let pool = world.pool_of(world.trust(), Some(old), PoolConfig::default());
    assert_eq!(pool.call(&server.coordinator(), "/v1/who", Bytes::new(), (), SOON).await.unwrap_err().kind, Kind::Denied);
    // By a clock that is ahead: whose it is they can only find out if they talk to each other.
    let early = world.identity_at(NODE, now + 40 * 86_400_000);
    let node = world.serve(early, Limits::default()).await;
    world.pool().call(&node.node(), "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    let world = World::new();
    let identity = world.identity(NODE);
    let node = world.serve(identity.clone(), Limits::default()).await;
    let pool = world.pool();
    let who = |pool: Pool| {
        let target = node.node();
        async move { pool.call(&target, "/v1/who", Bytes::new(), (), SOON).await.unwrap().1.split_off(32) }
    };
    let old = Hash::of(&identity.certificate());
    assert_eq!(who(pool.clone()).await, &old.0[..]);
    let fresh = world.root.issue(NODE, CLUSTER, identity.spki(), world.env.now_ms() + 5000, CERTIFICATE_VALIDITY).unwrap();
    identity.replace(&fresh).unwrap();
    assert_eq!(who(pool.clone()).await, &old.0[..], "the connection that stands keeps its own");
    assert_eq!(who(world.pool()).await, &Hash::of(&fresh).0[..]);
    let other = world.root.issue(ServerId::Node(NodeId(6)), CLUSTER, identity.spki(), 0, CERTIFICATE_VALIDITY).unwrap();
    assert!(identity.replace(&other).is_err(), "another id");
    assert!(identity.replace(&world.identity(NODE).certificate()).is_err(), "another key");
    assert!(identity.replace(b"garbage").is_err());
}

#[tokio::test]
async fn both_ends_know_the_same_binding() {
    let world = World::new();
    let server = world.coordinator().await;
    let mut seen = Vec::new();
    for mode in [Mode::Bulk, Mode::Control] {
        let mut one = world.pool().connect_once(&server.coordinator().with(mode), SOON).await.unwrap();
        let binding = one.binding().clone();
        for _ in 0..2 {
            let (_, there) = one.call("/v1/who", Bytes::new(), (), SOON).await.unwrap();
            assert_eq!(there[..32], binding.exporter);
            assert_eq!(there[32..], binding.certificate_hash.0);
        }
        assert_eq!(binding.server, COORDINATOR);
        seen.push(binding.exporter);
    }
    assert_ne!(seen[0], seen[1]);
}

struct Prover(&'static str);
impl OnConnect for Prover {
    fn prove(&self, binding: &Binding) -> Option<(&'static str, Bytes)> {
        matches!(binding.target.expect, Expect::Node(_)).then(|| ("/v1/prove", text(self.0)))
    }
}

#[tokio::test]
async fn a_proof_is_made_once_on_each_connection() {
    let world = World::new();
    let (node, coordinator) = (world.node().await, world.coordinator().await);
    let pool = |proof| {
        let tls = ClientTls::new(&world.env, world.trust(), None).unwrap();
        Pool::new(world.env.clone(), tls, PoolConfig::default(), Some(Arc::new(Prover(proof))))
    };
    let good = pool("good");
    for target in [node.node(), node.node(), node.node().with(Mode::Control), node.node().with(Mode::Control)] {
        assert_eq!(good.call(&target, "/v1/holder", Bytes::new(), (), SOON).await.unwrap().0, "true");
    }
    assert_eq!(good.call(&coordinator.coordinator(), "/v1/holder", Bytes::new(), (), SOON).await.unwrap().0, "false");
    let bad = pool("bad");
    for mode in [Mode::Bulk, Mode::Control] {
        let e = bad.call(&node.node().with(mode), "/v1/holder", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!((e.kind, e.message.as_str()), (Kind::Denied, "the proof is not valid"));
    }
}

#[tokio::test]
async fn garbage_on_the_port_does_no_harm() {
    let world = World::new();
    let node = world.node().await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xff, 0xff], &[0xff; 70_000]] {
        let mut socket = world.env.net.connect(&node.address).await.unwrap();
        let _ = socket.write_all(garbage).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = world.env.timeout(SOON, socket.read_to_end(&mut answer)).await.expect("closed");
        assert!(answer.len() < 100);
    }
    assert_eq!(world.pool().call(&node.node(), "/v1/echo", text("hi"), (), SOON).await.unwrap().0, "hi");
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let world = World::new();
    // During the handshake.
    let limits = Limits { handshake: Duration::from_millis(200), ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let mut socket = world.env.net.connect(&node.address).await.unwrap();
    socket.write_all(&[0x16]).await.unwrap();
    let mut end = Vec::new();
    world.env.timeout(SOON, socket.read_to_end(&mut end)).await.expect("closed").ok();
    // After it.
    let limits = Limits { first_request: Duration::from_secs(1), ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    for mode in [Mode::Bulk, Mode::Control] {
        let mut one = world.pool().connect_once(&node.node().with(mode), SOON).await.unwrap();
        world.env.sleep(Duration::from_millis(2500)).await;
        let e = one.call("/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unavailable, "{e}");
    }
    // After a request; the pool does not mind.
    let limits = Limits { idle: Duration::from_millis(600), ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let pool = world.pool();
    let mut crossed = 0;
    for _ in 0..3 {
        for mode in [Mode::Bulk, Mode::Control] {
            let target = node.node().with(mode);
            if let Err(e) = pool.call(&target, "/v1/echo", Bytes::new(), (), SOON).await {
                // It may have been sent at the moment of the closing.
                assert_eq!(e.kind, Kind::Unavailable, "{e}");
                crossed += 1;
                pool.call(&target, "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
            }
        }
        world.env.sleep(Duration::from_millis(1200)).await;
    }
    assert!(crossed < 2, "{crossed} calls of six failed");
}

#[tokio::test]
async fn bodies_that_are_too_long_are_refused_with_a_reason() {
    let world = World::new();
    let limits = Limits { max_body: 1 << 20, ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let pool = world.pool();
    for mode in [Mode::Bulk, Mode::Control] {
        let target = node.node().with(mode);
        let e = pool.call(&target, "/v1/echo", Bytes::new(), vec![0; 1_500_000], SOON).await.unwrap_err();
        assert_eq!(e.kind, Kind::Invalid, "{e}");
        assert_eq!(e.message, "a request of 1500004 bytes to /v1/echo, where at most 1048576 are taken");
        let e = pool.call(&target, "/v1/small", Bytes::new(), vec![0; 1000], SOON).await.unwrap_err();
        assert_eq!(e.message, "a request of 1004 bytes to /v1/small, where at most 1000 are taken");
        pool.call(&target, "/v1/echo", Bytes::new(), vec![0; 1_000_000], SOON).await.unwrap();
    }
    let small = world.pool_of(world.trust(), None, PoolConfig { max_response: 100_000, ..PoolConfig::default() });
    for mode in [Mode::Bulk, Mode::Control] {
        let e = small.call(&node.node().with(mode), "/v1/long", Bytes::new(), (), SOON).await.unwrap_err();
        assert!(e.message.contains("more than 100000 bytes"), "{e}");
        small.call(&node.node().with(mode), "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_ends_by_its_deadline_and_stops_at_the_server() {
    let world = World::new();
    let node = world.node().await;
    let pool = world.pool_of(world.trust(), None, PoolConfig { max_connections: 2, ..PoolConfig::default() });
    for mode in [Mode::Bulk, Mode::Control] {
        let target = node.node().with(mode);
        for _ in 0..5 {
            let begun = world.env.clock.monotonic();
            let e = pool.call(&target, "/v1/never", Bytes::new(), (), Duration::from_millis(100)).await.unwrap_err();
            assert_eq!((e.kind, e.node), (Kind::Unavailable, Some(NodeId(5))));
            assert_eq!(e.message, format!("no answer from {} within 100 ms", node.address));
            assert!(world.env.clock.monotonic() - begun < SOON);
        }
        pool.call(&target, "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
        // Dropped with the call.
        node.runs(0).await;
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let world = World::new();
    let address = {
        let listener = world.env.net.bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let e = world.pool().call(&Target::coordinator(&address), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable);
    assert!(e.message.starts_with(&format!("no connection to {address}: ")), "{e}");
    // Somebody who accepts and says nothing.
    let mute = world.env.net.bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let config = PoolConfig { connect: Duration::from_millis(200), ..PoolConfig::default() };
    let e = world.pool_of(world.trust(), None, config).call(&Target::coordinator(&address), "/", Bytes::new(), (), SOON).await.unwrap_err();
    assert_eq!((e.kind, e.message), (Kind::Unavailable, format!("no connection to {address}: it does not answer in time")));
}

#[tokio::test]
async fn a_server_that_shuts_down_finishes_what_runs() {
    let world = World::new();
    let limits = Limits { drain: 3 * SOON, ..Limits::default() };
    let mut node = world.serve(world.identity(NODE), limits).await;
    let pool = world.pool();
    for mode in [Mode::Bulk, Mode::Control] {
        pool.call(&node.node().with(mode), "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
    }
    let held = |mode| {
        let (pool, target) = (pool.clone(), node.node().with(mode));
        world.env.spawn(async move { pool.call(&target, "/v1/held", Bytes::new(), (), SOON).await })
    };
    let running = [held(Mode::Bulk), held(Mode::Control)];
    node.runs(2).await;
    node.stop.take().unwrap().send(()).unwrap();
    world.env.sleep(Duration::from_millis(200)).await;
    node.echo.let_go.store(true, Ordering::SeqCst);
    for call in running {
        assert_eq!(call.await.unwrap().unwrap().0, "held");
    }
    world.env.timeout(SOON, &mut node.task).await.expect("ends soon after, and not when its patience does").unwrap();
    for mode in [Mode::Bulk, Mode::Control] {
        let e = pool.call(&node.node().with(mode), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unavailable, "{e}");
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_does_not_wait_for_ever() {
    let world = World::new();
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let mut node = world.serve(world.identity(NODE), limits).await;
    let (pool, target) = (world.pool(), node.node());
    let call = world.env.spawn(async move { pool.call(&target, "/v1/never", Bytes::new(), (), 3 * SOON).await });
    node.runs(1).await;
    node.stop.take().unwrap().send(()).unwrap();
    world.env.timeout(SOON, &mut node.task).await.expect("ends").unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_at_once() {
    let world = World::new();
    let limits = Limits { handshake: SOON, first_request: SOON, ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let calls = (0..200usize).map(|i| {
        let pool = world.pool_of(world.trust(), None, PoolConfig { connect: SOON, ..PoolConfig::default() });
        let target = node.node().with(if i % 2 == 0 { Mode::Bulk } else { Mode::Control });
        async move { pool.call(&target, "/v1/slow", Bytes::new(), vec![1; 10_000], SOON).await }
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().0, "slow");
    }
}

#[tokio::test]
async fn connections_past_the_limit_are_closed() {
    let world = World::new();
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let node = world.serve(world.identity(NODE), limits).await;
    let pools = [world.pool(), world.pool()];
    for pool in &pools {
        pool.call(&node.node(), "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
    }
    let e = world.pool().call(&node.node(), "/v1/echo", Bytes::new(), (), SOON).await.unwrap_err();
    assert_eq!(e.kind, Kind::Unavailable, "{e}");
    drop(pools);
    at_last(&world, &world.pool(), &node.node()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let world = World::new();
    let identity = world.identity(NODE);
    let pool = world.pool();
    let mut node = world.serve(identity.clone(), Limits::default()).await;
    let address = node.address.clone();
    let targets = [Mode::Bulk, Mode::Control].map(|mode| Target::node(NodeId(5), &address).with(mode));
    for target in &targets {
        pool.call(target, "/v1/echo", Bytes::new(), (), SOON).await.unwrap();
    }
    node.task.abort();
    assert!((&mut node.task).await.is_err_and(|e| e.is_cancelled()));
    let begun = world.env.clock.monotonic();
    let listener = loop {
        match world.env.net.bind(&address).await {
            Ok(listener) => break listener,
            Err(e) => assert!(world.env.clock.monotonic() - begun < SOON, "{e}"),
        }
        world.env.sleep(Duration::from_millis(50)).await;
    };
    let echo = Echo::new(&world.env);
    let again = world.env.spawn(serve(world.env.clone(), listener, identity, echo, Limits::default(), std::future::pending()));
    for target in &targets {
        at_last(&world, &pool, target).await.unwrap();
    }
    again.abort();
}

#[tokio::test]
async fn many_control_calls_share_one_connection() {
    let world = World::new();
    let server = world.serve(world.identity(COORDINATOR), Limits { max_connections: 1, ..Limits::default() }).await;
    let pool = world.pool();
    let calls = (0..60).map(|i| {
        let (pool, target) = (pool.clone(), server.coordinator());
        async move { pool.call(&target, "/v1/echo", text(&format!("{i}")), vec![7; 30_000], SOON).await.unwrap().0 }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers, (0..60).map(|i| format!("{i}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn streams_bring_frames_and_how_they_ended() {
    let world = World::new();
    let server = world.coordinator().await;
    let pool = world.pool();
    for how in ["whole", "break"] {
        let (head, mut frames) = pool.stream(&server.coordinator(), "/v1/stream", text(how), SOON).await.unwrap();
        assert_eq!(head, how);
        for i in 0..100u32 {
            let frame = frames.next(SOON).await.unwrap().unwrap();
            assert!(frame.len() == i as usize * 1000 && frame.iter().all(|b| *b == i as u8));
        }
        match frames.next(SOON).await {
            Err(e) if how == "break" => assert_eq!(e, Error::corrupt("the source broke")),
            end => assert_eq!(end, Ok(None)),
        }
        assert_eq!(frames.next(SOON).await, Ok(None));
    }
    assert_eq!(pool.stream(&server.coordinator(), "/v1/none", Bytes::new(), SOON).await.unwrap_err().kind, Kind::NotFound);
}
