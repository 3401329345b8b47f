//! A coordinator that cheats: it has the cluster's own root key and everything that the real one knows, passes
//! on what clients ask, and changes the answers as a test says. It keeps what it hears.

use super::Cluster;
use client::{BackupReader, Client, Profile};
use env::{DiskExt, Env};
use futures::future::BoxFuture;
use minicbor::{Decode, Encode};
use model::command::{Answer, Genesis, Query};
use model::{CoordinatorId, Result};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use transport::{
    ClientTls, ClusterRoot, Connection, Limits, Pool, PoolConfig, Request, Response, ServerId, ServerKey, Service, Target, TlsIdentity,
    Trust,
};
use wire::coordinator::{Ask, Hello, Propose, ProposeRequest};
use wire::{Authed, Rpc, SessionToken};

type Lie = Box<dyn FnMut(&str, &[u8], Vec<u8>) -> Vec<u8> + Send>;

type Instead = Box<dyn FnMut(&Query) -> Option<Answer> + Send>;

/// The coordinator that cheats.
pub struct Evil {
    pub address: String,
    inner: Arc<Inner>,
}

struct Inner {
    own: String,
    real: String,
    pool: Pool,
    lie: Mutex<Lie>,
    /// What it says where the real one refuses to answer.
    instead: Mutex<Option<Instead>>,
    heard: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Service for Inner {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let Request { path, head, body, .. } = request;
            self.heard.lock().unwrap().push((path.clone(), head.to_vec()));
            let target = Target::coordinator(self.real.clone());
            let answer = match self.pool.call(&target, &path, head.clone(), body, Duration::from_secs(15)).await {
                Ok((answer, _)) => answer.to_vec(),
                Err(e) => return self.instead(&path, &head).map(|a| Response::new(a, transport::Pieces::default())).ok_or(e),
            };
            let answer = self.lead_here(&path, answer);
            let answer = (self.lie.lock().unwrap())(&path, &head, answer);
            Ok(Response::new(answer, transport::Pieces::default()))
        })
    }

    fn max_body(&self, _: &str, _: &Connection) -> usize {
        12 << 20
    }
}

impl Inner {
    fn instead(&self, path: &str, request: &[u8]) -> Option<Vec<u8>> {
        let asked: Authed<Query> = if path == Ask::PATH { wire::decode(request).unwrap() } else { return None };
        let answer = self.instead.lock().unwrap().as_mut()?(&asked.request)?;
        Some(wire::encode(&answer))
    }

    /// All coordinators are this one.
    fn lead_here(&self, path: &str, answer: Vec<u8>) -> Vec<u8> {
        if path == Hello::PATH {
            return rewrite::<wire::coordinator::HelloResponse>(&answer, |hello| {
                hello.leader = Some(self.own.clone());
                hello.leads = true;
            });
        }
        if path != Ask::PATH {
            return answer;
        }
        rewrite::<Answer>(&answer, |answer| {
            if let Answer::Cluster(view) = answer {
                view.coordinators.iter_mut().for_each(|c| c.address = self.own.clone());
            }
        })
    }
}

/// Changes a message.
pub fn rewrite<T: Encode<()> + for<'b> Decode<'b, ()>>(bytes: &[u8], change: impl FnOnce(&mut T)) -> Vec<u8> {
    let mut message: T = wire::decode(bytes).unwrap();
    change(&mut message);
    wire::encode(&message)
}

/// The secrets of a cluster, as any coordinator has them.
pub async fn secrets(cluster: &Cluster, admin: &Client) -> Genesis {
    let file = cluster.dir.path().join(format!("backup-{:x}", u64::from_be_bytes(cluster.env.random())));
    admin.backup(&file, "a passphrase for tests", false, &()).await.unwrap();
    let mut reader = BackupReader::open(&cluster.env, &file, "a passphrase for tests").unwrap();
    while let Some(rows) = reader.next_rows().unwrap() {
        if let Some((_, genesis)) = rows.into_iter().find(|(key, _)| key == &[0x01]) {
            return model::cbor::from_slice(&genesis).unwrap();
        }
    }
    panic!("a catalog without its first row");
}

impl Evil {
    /// Between clients and the real coordinator. Honest, until told otherwise.
    pub async fn start(cluster: &Cluster, admin: &Client) -> Evil {
        let (env, genesis) = (cluster.env.clone(), secrets(cluster, admin).await);
        let root = ClusterRoot::load(&genesis.root_cert, &genesis.root_key).unwrap();
        let key = ServerKey::generate(&env).unwrap();
        let day = Duration::from_secs(86_400);
        let certificate = root.issue(ServerId::Coordinator(CoordinatorId(9)), genesis.cluster, key.spki(), env.now_ms(), day).unwrap();
        let identity = TlsIdentity::new(&env, root.cert_der(), &certificate, &key).unwrap();
        let tls = ClientTls::new(&env, Trust::Root(genesis.root_cert.to_vec()), None).unwrap();
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        let listener = env.net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let inner = Arc::new(Inner {
            own: address.clone(),
            real: cluster.address.clone(),
            pool,
            lie: Mutex::new(Box::new(|_, _, answer| answer)),
            instead: Mutex::default(),
            heard: Mutex::default(),
        });
        let limits = Limits { max_body: 12 << 20, ..Limits::default() };
        let serving = transport::serve(env.clone(), listener, identity, inner.clone(), limits, std::future::pending());
        tokio::spawn(serving);
        Evil { address, inner }
    }

    /// From now on it answers so: path, request and true answer make the false one.
    pub fn lie(&self, lie: impl FnMut(&str, &[u8], Vec<u8>) -> Vec<u8> + Send + 'static) {
        *self.inner.lie.lock().unwrap() = Box::new(lie);
    }

    /// Lies about answers to questions to the catalog only.
    pub fn lie_about(&self, mut lie: impl FnMut(&Query, &mut Answer) + Send + 'static) {
        self.lie(move |path, request, answer| {
            if path != Ask::PATH {
                return answer;
            }
            let asked: Authed<Query> = wire::decode(request).unwrap();
            rewrite::<Answer>(&answer, |answer| lie(&asked.request, answer))
        });
    }

    /// Answers questions to the catalog that the real coordinator refuses.
    pub fn answer_instead(&self, instead: impl FnMut(&Query) -> Option<Answer> + Send + 'static) {
        *self.inner.instead.lock().unwrap() = Some(Box::new(instead));
    }

    /// No lies any more.
    pub fn honest(&self) {
        self.lie(|_, _, answer| answer);
    }

    /// Whether bytes were in any request so far.
    pub fn heard(&self, what: &[u8]) -> bool {
        self.inner.heard.lock().unwrap().iter().any(|(_, head)| head.windows(what.len()).any(|w| w == what))
    }

    /// How many requests there were to a path.
    pub fn calls(&self, path: &str) -> usize {
        self.inner.heard.lock().unwrap().iter().filter(|(p, _)| p == path).count()
    }

    /// Where a machine that knows nothing finds it.
    pub fn at(&self, known: &Client) -> Option<client::Address> {
        Some(client::Address { coordinator: self.address.clone(), fingerprint: known.profile().info().unwrap().fingerprint() })
    }
}

/// A client of nobody's making: it says to the real coordinator whatever it likes, in the name of a session.
pub struct Hostile {
    pool: Pool,
    at: Target,
    pub session: SessionToken,
    env: Env,
}

impl Hostile {
    /// With the session that a profile holds.
    pub fn with_session_of(cluster: &Cluster, profile: &str) -> Hostile {
        let dir = cluster.dir.path().join("home/profiles").join(profile);
        let session = cluster.env.disk.read(&dir.join("session")).unwrap();
        let mut decoder = minicbor::Decoder::new(&session);
        decoder.array().unwrap();
        decoder.skip().unwrap();
        let session: SessionToken = decoder.decode().unwrap();
        Self::with(cluster, &cluster.profile(profile), session)
    }

    /// With any token. The profile says which root to trust.
    pub fn with(cluster: &Cluster, known: &Profile, session: SessionToken) -> Hostile {
        let root = known.info().unwrap().root.to_vec();
        let tls = ClientTls::new(&cluster.env, Trust::Root(root), None).unwrap();
        let pool = Pool::new(cluster.env.clone(), tls, PoolConfig::default(), None);
        Hostile { pool, at: Target::coordinator(cluster.address.clone()), session, env: cluster.env.clone() }
    }

    pub async fn call<R: Rpc>(&self, request: &R::Request) -> Result<R::Response> {
        self.pool.rpc::<R>(&self.at, request, Duration::from_secs(10)).await
    }

    pub async fn ask(&self, query: Query) -> Result<Answer> {
        self.call::<Ask>(&Authed { session: self.session, request: query }).await
    }

    pub async fn propose(&self, command: model::command::Command) -> Result<model::command::Outcome> {
        let request = model::RequestId::new(self.env.now_ms(), self.env.random());
        self.call::<Propose>(&Authed { session: self.session, request: ProposeRequest { request, command } }).await?
    }
}
