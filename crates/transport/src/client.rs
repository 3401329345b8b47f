//! The calling side: a [`Pool`] of connections to many servers. Bulk goes over up to eight
//! HTTP/1.1 connections a server, each for one exchange at a time; control messages share one
//! HTTP/2 connection a server.
//!
//! Every call ends by its deadline, waiting for a connection included. A call may be dropped at any
//! time: its bulk connection is closed (the answer may be on its way), its control stream is
//! reset. A request is sent again by itself only when a pooled connection turns out to be dead
//! before anything was sent; after `Unavailable` the caller must assume that it may have been
//! carried out.

use crate::connect::{Connection, Failure, Shared as Connecting};
use crate::frame::{Deframer, Pieces, data};
use crate::tls::{ClientTls, Expect, connection_error};
use bytes::Bytes;
use env::Env;
use hyper::body::Incoming;
use model::{CoordinatorId, Error, Hash, NodeId, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use crate::connect::OneConnection;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Long bodies: HTTP/1.1, several connections.
    Bulk,
    /// Short messages, many at a time: one HTTP/2 connection.
    Control,
}

/// Where a call goes, and who must answer there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Who must be there, by certificate.
    pub expect: Expect,
    /// What for.
    pub mode: Mode,
}

impl Target {
    /// A node, for bulk.
    pub fn node(id: NodeId, address: impl Into<String>) -> Self {
        Target { address: address.into(), expect: Expect::Node(id), mode: Mode::Bulk }
    }

    /// Any node, for bulk.
    pub fn any_node(address: impl Into<String>) -> Self {
        Target { address: address.into(), expect: Expect::AnyNode, mode: Mode::Bulk }
    }

    /// Any coordinator, for control.
    pub fn coordinator(address: impl Into<String>) -> Self {
        Target { address: address.into(), expect: Expect::Coordinator, mode: Mode::Control }
    }

    /// This coordinator, for control.
    pub fn coordinator_id(id: CoordinatorId, address: impl Into<String>) -> Self {
        Target { address: address.into(), expect: Expect::CoordinatorId(id), mode: Mode::Control }
    }

    /// The same for another purpose.
    pub fn with(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}

/// What binds a proof to one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// `EXPORTER-Channel-Binding`, the same at both ends and on no other connection.
    pub exporter: [u8; 32],
    /// BLAKE3 of the certificate that the server showed on it.
    pub certificate_hash: Hash,
    /// Who answered, by certificate.
    pub server: crate::ServerId,
    /// Whom it was meant to reach.
    pub target: Target,
}

/// Says something first on each new connection, such as a proof of a holder key.
pub trait OnConnect: Send + Sync {
    /// Path and message; `None`: nothing for this connection. When the server refuses it, the
    /// connection fails with that error.
    fn prove(&self, binding: &Binding) -> Option<(&'static str, Bytes)>;
}

/// What a pool may take.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Bulk connections to one target. Further calls wait.
    pub max_connections: usize,
    /// Connections unused for so long are closed. Less than the server's [`crate::Limits::idle`].
    pub idle: Duration,
    /// Time to connect: TCP, TLS and [`OnConnect`].
    pub connect: Duration,
    /// Longest response body.
    pub max_response: usize,
    /// A control connection that answers no ping for so long is given up.
    pub ping: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            max_connections: 8,
            idle: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            max_response: 32 << 20,
            ping: Duration::from_secs(3),
        }
    }
}

/// Connections to many servers. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

pub(crate) struct Inner {
    pub env: Env,
    pub tls: ClientTls,
    pub config: PoolConfig,
    pub on_connect: Option<Arc<dyn OnConnect>>,
    targets: Mutex<BTreeMap<Target, Arc<Peer>>>,
}

/// What the pool has for one target.
struct Peer {
    /// Bulk: the right to use a connection.
    places: Arc<Semaphore>,
    /// Bulk: connections without a call, used last at the end.
    idle: Mutex<Vec<Connection>>,
    /// Control: the one connection, standing or being made.
    control: Mutex<Option<Connecting>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// A pool without connections; they are made when needed.
    pub fn new(env: Env, tls: ClientTls, config: PoolConfig, on_connect: Option<Arc<dyn OnConnect>>) -> Self {
        Pool(Arc::new(Inner { env, tls, config, on_connect, targets: Mutex::default() }))
    }

    /// One exchange: message and bytes there, message and bytes back. The error is the server's
    /// own, or `Unavailable` naming the address, or `Denied` where a certificate was refused.
    pub async fn call(
        &self,
        target: &Target,
        path: &str,
        head: Bytes,
        body: impl Into<Pieces>,
        deadline: Duration,
    ) -> Result<(Bytes, Bytes)> {
        let body = body.into();
        let exchange = async {
            match target.mode {
                Mode::Bulk => {
                    let (mut connection, _place, response) = self.bulk(target, path, &head, &body).await?;
                    let answer = connection.read(response, self.0.config.max_response).await;
                    if !matches!(answer, Err(Failure::Broken(_))) {
                        self.put_back(target, connection);
                    }
                    answer.map_err(|e| e.into_error(target))
                }
                Mode::Control => {
                    let (mut connection, response) = self.control(target, path, &head, &body).await?;
                    let answer = connection.read(response, self.0.config.max_response).await;
                    answer.map_err(|e| e.into_error(target))
                }
            }
        };
        match self.0.env.timeout(deadline, exchange).await {
            Some(answer) => answer,
            None => Err(late(target, deadline)),
        }
    }

    /// [`Pool::call`] with messages of an exchange of `wire`.
    pub async fn rpc<R: wire::Rpc>(&self, target: &Target, request: &R::Request, deadline: Duration) -> Result<R::Response> {
        Ok(self.rpc_body::<R>(target, request, (), deadline).await?.0)
    }

    /// [`Pool::rpc`] with bytes beside the messages.
    pub async fn rpc_body<R: wire::Rpc>(
        &self,
        target: &Target,
        request: &R::Request,
        body: impl Into<Pieces>,
        deadline: Duration,
    ) -> Result<(R::Response, Bytes)> {
        let (head, body) = self.call(target, R::PATH, wire::encode(request).into(), body, deadline).await?;
        Ok((wire::decode(&head)?, body))
    }

    /// An exchange whose answer is a stream of frames. It has a bulk connection for itself, beside
    /// those of the pool, until it is read to its end or dropped.
    pub async fn stream(&self, target: &Target, path: &str, head: Bytes, deadline: Duration) -> Result<(Bytes, Frames)> {
        let exchange = async {
            let mut connection = Connection::open(&self.0, &target.clone().with(Mode::Bulk)).await?;
            let response = connection.send(path, &head, &Pieces::default()).await.map_err(|e| e.into_error(target))?;
            let mut body = connection.accept(response).await.map_err(|e| e.into_error(target))?;
            let mut deframer = Deframer::default();
            loop {
                if let Some(head) = deframer.head(self.0.config.max_response)? {
                    return Ok((
                        head,
                        Frames { env: self.0.env.clone(), target: target.clone(), body: Some(body), deframer, _connection: connection },
                    ));
                }
                match data(&mut body).await {
                    Ok(Some(bytes)) => deframer.push(&bytes),
                    Ok(None) => return Err(broke_off(&target.address)),
                    Err(e) => return Err(connection_error("the answer broke off from", &target.address, &e)),
                }
            }
        };
        match self.0.env.timeout(deadline, exchange).await {
            Some(answer) => answer,
            None => Err(late(target, deadline)),
        }
    }

    /// A connection of one's own, with its [`Binding`]: for proofs that the caller makes itself.
    /// [`OnConnect`] is not asked.
    pub async fn connect_once(&self, target: &Target, deadline: Duration) -> Result<OneConnection> {
        match self.0.env.timeout(deadline, OneConnection::open(&self.0, target)).await {
            Some(connection) => connection,
            None => Err(late(target, deadline)),
        }
    }

    /// Sends a request over a pooled connection, or else a new one.
    async fn bulk(
        &self,
        target: &Target,
        path: &str,
        head: &Bytes,
        body: &Pieces,
    ) -> Result<(Connection, OwnedSemaphorePermit, hyper::Response<Incoming>)> {
        let peer = self.peer(target);
        let place = peer.places.clone().acquire_owned().await.map_err(|_| broke_off(&target.address))?;
        loop {
            let pooled = peer.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let (mut connection, fresh) = match pooled {
                Some(connection) if connection.is_closed() => continue,
                Some(connection) => (connection, false),
                None => (Connection::open(&self.0, target).await?, true),
            };
            match connection.send(path, head, body).await {
                Ok(response) => return Ok((connection, place, response)),
                Err(Failure::NotSent(_)) if !fresh => {}
                Err(e) => return Err(e.into_error(target)),
            }
        }
    }

    fn put_back(&self, target: &Target, connection: Connection) {
        let peer = self.peer(target);
        let mut idle = peer.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|c| !c.is_closed());
        if !connection.is_closed() {
            idle.push(connection);
        }
    }

    /// Sends a request over the control connection. Several callers that find none make one
    /// together, and it is made to the end even when they lose patience.
    async fn control(&self, target: &Target, path: &str, head: &Bytes, body: &Pieces) -> Result<(Connection, hyper::Response<Incoming>)> {
        let peer = self.peer(target);
        let mut fresh = false;
        loop {
            let connecting = {
                let mut control = peer.control.lock().unwrap_or_else(PoisonError::into_inner);
                match control.as_ref().filter(|c| c.is_usable()) {
                    Some(standing) => standing.clone(),
                    None => {
                        fresh = true;
                        control.insert(Connecting::start(&self.0, target)).clone()
                    }
                }
            };
            let mut connection = connecting.get().await?;
            match connection.send(path, head, body).await {
                Ok(response) => return Ok((connection, response)),
                Err(e) => {
                    connecting.discard();
                    if fresh || !matches!(e, Failure::NotSent(_)) {
                        return Err(e.into_error(target));
                    }
                }
            }
        }
    }

    fn peer(&self, target: &Target) -> Arc<Peer> {
        let mut targets = self.0.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = targets.get(target) {
            return peer.clone();
        }
        let peer = Arc::new(Peer {
            places: Arc::new(Semaphore::new(self.0.config.max_connections)),
            idle: Mutex::default(),
            control: Mutex::default(),
        });
        targets.insert(target.clone(), peer.clone());
        peer
    }
}

/// Frames of a stream, as they come.
pub struct Frames {
    env: Env,
    target: Target,
    body: Option<Incoming>,
    deframer: Deframer,
    _connection: Connection,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames from {}", self.target.address)
    }
}

impl Frames {
    /// The next frame, `None` after the last. An error ends the stream: the server's own, or
    /// `Unavailable` where nothing comes within `wait`.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Bytes>> {
        let frame = match self.env.clone().timeout(wait, self.read()).await {
            Some(frame) => frame,
            None => Err(late(&self.target, wait)),
        };
        if !matches!(frame, Ok(Some(_))) {
            self.body = None;
            self.deframer = Deframer::default();
        }
        frame
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.deframer.frame()? {
                return Ok(Some(frame));
            }
            let Some(body) = self.body.as_mut() else { return Ok(None) };
            match data(body).await {
                Ok(Some(bytes)) => self.deframer.push(&bytes),
                Ok(None) if self.deframer.is_empty() => return Ok(None),
                Ok(None) => return Err(broke_off(&self.target.address)),
                Err(e) => return Err(connection_error("the stream broke off from", &self.target.address, &e)),
            }
        }
    }
}

pub(crate) fn late(target: &Target, deadline: Duration) -> Error {
    let error = Error::unavailable(format!("no answer from {} within {} ms", target.address, deadline.as_millis()));
    Failure::Broken(error).into_error(target)
}

fn broke_off(address: &str) -> Error {
    Error::unavailable(format!("the answer broke off from {address}"))
}
