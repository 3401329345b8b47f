//! The listening side: accepts connections within limits, finds out who is there, and hands each
//! request, whole and checked, to a [`Service`].
//!
//! Everything that a stranger can make us hold is bounded: connections by number, handshakes and
//! silence by time, bodies by size, by time, and together by a budget for which requests wait.
//! A [`Service`] narrows the size further by path and peer, before a byte of the body is read.

use crate::frame::{self, Body, Collect, Outgoing, Pieces};
use crate::stop::{Stop, Stopped, Stopper};
use crate::tls::{Accepted, Peer, TlsIdentity};
use bytes::Bytes;
use env::{BoxStream, Env, Listener};
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Error, Hash, PublicKey, Result, cbor};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::Semaphore;

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one. Called side by side, also for one connection. The future is dropped at any
    /// await when the client goes away or the server shuts down: what must not stop half-way runs
    /// in a task of its own.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>>;

    /// The longest body (head included) that is read for a path from this peer; [`Limits::max_body`]
    /// holds in any case. Keep it small for those who have proved nothing yet.
    fn max_body(&self, path: &str, connection: &Connection) -> usize {
        let _ = (path, connection);
        usize::MAX
    }
}

/// A request, read to its end.
pub struct Request {
    /// For example `/v1/query`.
    pub path: String,
    /// The message (CBOR).
    pub head: Bytes,
    /// Raw bytes beside it.
    pub body: Bytes,
    /// Where it came from.
    pub connection: Arc<Connection>,
}

/// Sizes only: messages carry session tokens.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request({}, {} + {} bytes, {:?})", self.path, self.head.len(), self.body.len(), self.connection.peer)
    }
}

impl Request {
    /// The message; `Invalid` where it cannot be read.
    pub fn message<T: for<'b> minicbor::Decode<'b, ()>>(&self) -> Result<T> {
        wire::decode(&self.head)
    }
}

/// A good answer.
pub struct Response {
    /// The message (CBOR).
    pub head: Bytes,
    /// Raw bytes beside it.
    pub body: Body,
}

/// Sizes only: messages carry session tokens.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({} + {:?})", self.head.len(), self.body)
    }
}

impl Response {
    /// From an encoded message and what follows it.
    pub fn new(head: impl Into<Bytes>, body: impl Into<Body>) -> Self {
        Response { head: head.into(), body: body.into() }
    }

    /// A message alone.
    pub fn message<T: minicbor::Encode<()>>(message: &T) -> Self {
        Response::new(cbor::to_vec(message), Pieces::default())
    }
}

/// What is known of a connection. The same for all its requests.
#[derive(Debug)]
pub struct Connection {
    /// Who is there, by certificate.
    pub peer: Peer,
    /// From which address.
    pub remote: SocketAddr,
    /// `EXPORTER-Channel-Binding`, the same at both ends and on no other connection.
    pub exporter: [u8; 32],
    /// BLAKE3 of the certificate that this server showed on it.
    pub certificate_hash: Hash,
    /// The holder key proved on it, once it was: set by the service.
    pub holder: OnceLock<PublicKey>,
}

/// What a server grants.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time; further ones are closed at once.
    pub max_connections: u32,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time from the handshake to the first request.
    pub first_request: Duration,
    /// Connections without a running request and without progress are closed after this.
    pub idle: Duration,
    /// Longest request body.
    pub max_body: usize,
    /// Bytes of request bodies longer than 64 KiB that may be in memory at a time, from their
    /// announcement to the answer. Requests wait for their share. At least `max_body`.
    pub body_budget: usize,
    /// Time for a request body, and between two pieces of it a quarter of that.
    pub body_deadline: Duration,
    /// Time to finish what runs when the server shuts down.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 1024,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            max_body: 6 << 20,
            body_budget: 48 << 20,
            body_deadline: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}

/// Bodies up to this size have a budget of their own, and those of other servers none at all, so
/// that heartbeats and consensus never wait for bulk or for strangers.
const SMALL_BODY: usize = 64 << 10;
const SMALL_BUDGET: usize = 8 << 20;

/// Serves until `shutdown` is ready: then takes no more connections, finishes the requests that
/// run (within [`Limits::drain`]), closes everything and returns. Dropping the future closes
/// everything at once.
pub async fn serve(
    env: Env,
    listener: Box<dyn Listener>,
    identity: Arc<TlsIdentity>,
    service: Arc<dyn Service>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let stop = Stopper::default();
    let places = Arc::new(Semaphore::new(limits.max_connections as usize));
    let max_connections = limits.max_connections;
    let drain = limits.drain;
    let shared = Arc::new(Shared {
        budget: Semaphore::new(limits.body_budget.max(limits.max_body).min(u32::MAX as usize)),
        small_budget: Semaphore::new(SMALL_BUDGET),
        refusals: Throttle::default(),
        env: env.clone(),
        service,
        limits,
    });
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
        biased; // no dice: simulation must repeat
                   () = &mut shutdown => break,
                   accepted = listener.accept() => accepted,
               };
        let (io, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file handles, most likely: wait until some connections are gone.
                shared.refused("a connection could not be accepted", &e);
                env.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            shared.refused("a connection was closed", &format!("{max_connections} are open already, from {remote}"));
            continue;
        };
        let (shared, identity, stopped) = (shared.clone(), identity.clone(), stop.stopped());
        env.spawn(async move {
            let _place = place;
            let killed = stopped.clone();
            tokio::select! {
            biased; // no dice: simulation must repeat
                           () = killed.at(Stop::Now) => {}
                           () = connection(shared, identity, io, remote, stopped) => {}
                       }
        });
    }
    drop(listener);
    stop.set(Stop::Draining);
    if env.timeout(drain, places.acquire_many(max_connections)).await.is_none() {
        stop.set(Stop::Now);
        env.timeout(Duration::from_secs(1), places.acquire_many(max_connections)).await;
    }
}

struct Shared {
    env: Env,
    service: Arc<dyn Service>,
    limits: Limits,
    budget: Semaphore,
    small_budget: Semaphore,
    refusals: Throttle,
}

impl Shared {
    fn refused(&self, what: &str, why: &dyn std::fmt::Display) {
        if let Some(unsaid) = self.refusals.speak(self.env.clock.monotonic()) {
            tracing::warn!("{what}: {why} ({unsaid} such lines left out in the last minute)");
        }
    }
}

/// Lets one line a minute through: strangers must not be able to fill the log.
#[derive(Default)]
struct Throttle(Mutex<(Option<Duration>, u64)>);

impl Throttle {
    /// Whether to speak now, and how many times it was silent since the last time.
    fn speak(&self, now: Duration) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.saturating_sub(last) < Duration::from_secs(60)) {
            state.1 += 1;
            return None;
        }
        let unsaid = std::mem::take(&mut state.1);
        state.0 = Some(now);
        Some(unsaid)
    }
}

/// When a connection last did something.
struct Activity {
    env: Env,
    requests: AtomicU64,
    running: AtomicUsize,
    last_ms: AtomicU64,
}

impl Activity {
    fn new(env: &Env) -> Arc<Self> {
        let activity = Activity { env: env.clone(), requests: 0.into(), running: 0.into(), last_ms: 0.into() };
        activity.touch();
        Arc::new(activity)
    }

    fn touch(&self) {
        self.last_ms.store(self.env.clock.monotonic().as_millis() as u64, Ordering::Relaxed);
    }

    fn begin(self: &Arc<Self>) -> Running {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    fn overdue(&self, limits: &Limits) -> bool {
        let limit = if self.requests.load(Ordering::Relaxed) == 0 { limits.first_request } else { limits.idle };
        let silent = self.env.clock.monotonic().as_millis() as u64 - self.last_ms.load(Ordering::Relaxed);
        self.running.load(Ordering::Relaxed) == 0 && silent >= limit.as_millis() as u64
    }
}

struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}

/// One connection from its first byte to its last.
async fn connection(shared: Arc<Shared>, identity: Arc<TlsIdentity>, io: BoxStream, remote: SocketAddr, stopped: Stopped) {
    let shown = identity.shown();
    let Accepted { stream, peer, exporter, certificate_hash, http2 } =
        match shared.env.timeout(shared.limits.handshake, shown.accept(io)).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(e)) => return shared.refused("a TLS handshake failed", &format!("{e}, from {remote}")),
            None => return shared.refused("a TLS handshake took too long", &remote),
        };
    drop((shown, identity));
    let connection = Arc::new(Connection { peer, remote, exporter, certificate_hash, holder: OnceLock::new() });
    let activity = Activity::new(&shared.env);
    let service = {
        let (shared, activity) = (shared.clone(), activity.clone());
        service_fn(move |request| handle(shared.clone(), connection.clone(), activity.clone(), request))
    };
    let io = TokioIo::new(stream);
    if http2 {
        // Who has not shown a certificate gets windows that keep what it can make us buffer small.
        let (window, streams) = if peer == Peer::Anonymous { (256 << 10, 64) } else { (4 << 20, 256) };
        let conn = hyper::server::conn::http2::Builder::new(EnvExecutor(shared.env.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .initial_connection_window_size(window)
            .max_concurrent_streams(streams)
            .max_frame_size(64 << 10)
            .max_header_list_size(16 << 10)
            .max_send_buf_size(1 << 20)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .auto_date_header(false)
            .serve_connection(io, service);
        drive(&shared, pin!(conn), |c| c.graceful_shutdown(), &activity, stopped).await
    } else {
        let conn = hyper::server::conn::http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(32)
            .auto_date_header(false)
            .serve_connection(io, service);
        drive(&shared, pin!(conn), |c| c.graceful_shutdown(), &activity, stopped).await
    }
}

async fn drive<C: Future<Output = hyper::Result<()>>>(
    shared: &Shared,
    mut conn: Pin<&mut C>,
    graceful: impl Fn(Pin<&mut C>),
    activity: &Activity,
    stopped: Stopped,
) {
    let tick = shared.limits.first_request.min(shared.limits.idle) / 2;
    let mut watching = true;
    loop {
        tokio::select! {
        biased; // no dice: simulation must repeat
                   _ended = conn.as_mut() => return,
                   () = stopped.at(Stop::Draining), if watching => {
                       watching = false;
                       graceful(conn.as_mut());
                   }
                   () = shared.env.sleep(tick) => if activity.overdue(&shared.limits) {
                       return;
                   }
               }
    }
}

/// hyper's tasks on `env`.
#[derive(Clone)]
pub(crate) struct EnvExecutor(pub(crate) Env);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for EnvExecutor {
    fn execute(&self, future: F) {
        self.0.spawn(async move {
            future.await;
        });
    }
}

/// One request: never fails, errors are answers.
async fn handle(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    activity: Arc<Activity>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Served>, Infallible> {
    let running = activity.begin();
    let (status, body) = match answer(&shared, connection, request).await {
        Ok(response) => match Outgoing::new(response.head, response.body) {
            Ok(body) => (hyper::StatusCode::OK, body),
            Err(e) => (frame::status(e.kind), Outgoing::error(&e)),
        },
        Err(e) => (frame::status(e.kind), Outgoing::error(&e)),
    };
    drop(running);
    let mut response = hyper::Response::new(Served { body, activity });
    *response.status_mut() = status;
    Ok(response)
}

async fn answer(shared: &Shared, connection: Arc<Connection>, request: hyper::Request<Incoming>) -> Result<Response> {
    let limits = &shared.limits;
    let (parts, mut body) = request.into_parts();
    if parts.method != hyper::Method::POST {
        return Err(Error::invalid("this is a Shardkeep server: it answers its own clients only"));
    }
    let path = parts.uri.path().to_owned();
    let limit = limits.max_body.min(shared.service.max_body(&path, &connection));
    let Some(length) = body.size_hint().exact() else {
        return Err(Error::invalid("a request whose length is not announced"));
    };
    if length > limit as u64 {
        // Read and forget what is not absurdly long, so that a client that sends first and reads
        // later still sees the answer.
        if length <= 2 * limits.max_body as u64 {
            shared.env.timeout(Duration::from_secs(5), discard(&mut body)).await;
        }
        return Err(Error::invalid(format!("a request of {length} bytes to {path}, where at most {limit} are taken")));
    }
    let length = length as usize;
    let budget = match connection.peer {
        _ if length > SMALL_BODY => Some(&shared.budget),
        Peer::Anonymous => Some(&shared.small_budget),
        Peer::Node(_) | Peer::Coordinator(_) => None,
    };
    let _share = match budget {
        Some(budget) => Some(budget.acquire_many(length as u32).await.map_err(|_| Error::unavailable("the server is shutting down"))?),
        None => None,
    };
    let whole = collect(&shared.env, &mut body, length, limits.body_deadline).await?;
    let (head, body) = frame::split(whole)?;
    shared.service.call(Request { path, head, body, connection }).await
}

async fn collect(env: &Env, body: &mut Incoming, length: usize, deadline: Duration) -> Result<Bytes> {
    let late = || Error::unavailable("a request whose body did not arrive in time");
    let read = async {
        let mut whole = Collect::new(length as u64, length);
        loop {
            match env.timeout(deadline / 4, frame::data(body)).await {
                None => return Err(late()),
                Some(Err(_)) => return Err(Error::invalid("a request that broke off")),
                Some(Ok(None)) => return Ok(whole.finish()),
                Some(Ok(Some(bytes))) => whole.push(bytes).map_err(|()| Error::invalid("a request longer than it announced"))?,
            }
        }
    };
    env.timeout(deadline, read).await.unwrap_or_else(|| Err(late()))
}

async fn discard(body: &mut Incoming) {
    while let Ok(Some(_)) = frame::data(body).await {}
}

/// A response's body; its progress counts as activity of the connection.
struct Served {
    body: Outgoing,
    activity: Arc<Activity>,
}

impl HttpBody for Served {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.activity.touch();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
