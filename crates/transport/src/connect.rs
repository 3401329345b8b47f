//! One connection of a client: made, used for exchanges, closed when it is dropped, idle or broken.

use crate::client::{Binding, Inner, Mode, Target};
use crate::frame::{self, Body, Collect, Outgoing, Pieces};
use crate::server::EnvExecutor;
use crate::stream::{Fault, Noted};
use crate::tls::{Expect, connection_error};
use bytes::Bytes;
use env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Error, Result};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Longest body of a refusal.
const MAX_ERROR: usize = 64 << 10;

/// Why an exchange gave no answer, by what may be done next.
pub(crate) enum Failure {
    /// Nothing was sent: another connection may be tried.
    NotSent(Error),
    /// The server answered with an error; the connection is good.
    Refused(Error),
    /// The connection is of no use any more; the request may have been carried out.
    Broken(Error),
}

impl Failure {
    pub(crate) fn into_error(self, target: &Target) -> Error {
        let (Failure::NotSent(mut e) | Failure::Refused(mut e) | Failure::Broken(mut e)) = self;
        if let (None, Expect::Node(id)) = (e.node, target.expect) {
            e.node = Some(id);
        }
        e
    }
}

enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

/// A connection, or (HTTP/2) a share in one.
pub(crate) struct Connection {
    sender: Sender,
    binding: Arc<Binding>,
    life: Arc<Life>,
    in_use: Option<InUse>,
}

/// A failed exchange in words, by what TLS said where HTTP/2 forgot it.
fn explain(what: &str, binding: &Binding, life: &Life, e: &hyper::Error) -> Error {
    let e = life.fault.get().map_or(e as &(dyn std::error::Error + 'static), |fault| fault);
    connection_error(what, &binding.target.address, e)
}

/// The connection's task, which ends with the last who uses it.
struct Life {
    task: tokio::task::JoinHandle<()>,
    usage: Arc<Usage>,
    fault: Fault,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Usage {
    env: Env,
    calls: AtomicUsize,
    last_ms: AtomicU64,
}

impl Usage {
    fn touch(&self) {
        self.last_ms.store(self.env.clock.monotonic().as_millis() as u64, Ordering::Relaxed);
    }

    fn idle_for(&self) -> Duration {
        match self.calls.load(Ordering::Relaxed) {
            0 => self.env.clock.monotonic().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed))),
            _ => Duration::ZERO,
        }
    }
}

struct InUse(Arc<Usage>);

impl InUse {
    fn new(usage: &Arc<Usage>) -> Self {
        usage.calls.fetch_add(1, Ordering::Relaxed);
        InUse(usage.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Connects, and says what [`crate::OnConnect`] has to say first.
    pub(crate) async fn open(pool: &Inner, target: &Target) -> Result<Connection> {
        let opening = async {
            let mut connection = Connection::bare(pool, target).await?;
            if let Some((path, head)) = pool.on_connect.as_ref().and_then(|hook| hook.prove(&connection.binding)) {
                let response = connection.send(path, &head, &Pieces::default()).await.map_err(|e| e.into_error(target))?;
                connection.read(response, MAX_ERROR).await.map_err(|e| e.into_error(target))?;
            }
            Ok(connection)
        };
        pool.env.timeout(pool.config.connect, opening).await.unwrap_or_else(|| Err(unreachable(target, "it does not answer in time")))
    }

    async fn bare(pool: &Inner, target: &Target) -> Result<Connection> {
        let env = &pool.env;
        let failed = |e: &(dyn std::error::Error + 'static)| connection_error("no connection to", &target.address, e);
        let io = env.net.connect(&target.address).await.map_err(|e| failed(&e))?;
        let http2 = target.mode == Mode::Control;
        let tls = pool.tls.connect(io, target.expect, http2).await.map_err(|e| failed(&e))?;
        if http2 && tls.stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(unreachable(target, "it does not speak HTTP/2"));
        }
        let binding = Arc::new(Binding {
            exporter: tls.exporter,
            certificate_hash: tls.certificate_hash,
            server: tls.server,
            target: target.clone(),
        });
        let usage = Arc::new(Usage { env: env.clone(), calls: 0.into(), last_ms: 0.into() });
        usage.touch();
        let fault = Fault::default();
        let io = TokioIo::new(Noted { tls: tls.stream, fault: fault.clone() });
        let (sender, task) = if http2 {
            let (sender, conn) = http2::Builder::new(EnvExecutor(env.clone()))
                .timer(TokioTimer::new())
                .initial_stream_window_size(4 << 20)
                .initial_connection_window_size(8 << 20)
                .max_frame_size(64 << 10)
                .max_send_buf_size(1 << 20)
                .keep_alive_interval(pool.config.ping)
                .keep_alive_timeout(pool.config.ping)
                .handshake(io)
                .await
                .map_err(|e| failed(&e))?;
            (Sender::Http2(sender), env.spawn(drive(conn, usage.clone(), pool.config.idle)))
        } else {
            let (sender, conn) = http1::Builder::new().max_headers(32).handshake(io).await.map_err(|e| failed(&e))?;
            (Sender::Http1(sender), env.spawn(drive(conn, usage.clone(), pool.config.idle)))
        };
        Ok(Connection { sender, binding, life: Arc::new(Life { task, usage, fault }), in_use: None })
    }

    pub(crate) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Sends a request; ready when the head of the answer is there.
    pub(crate) async fn send(&mut self, path: &str, head: &Bytes, body: &Pieces) -> Result<Response<Incoming>, Failure> {
        self.in_use = Some(InUse::new(&self.life.usage));
        let outgoing = Outgoing::new(head.clone(), Body::Pieces(body.clone())).map_err(Failure::NotSent)?;
        let uri = match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => format!("https://shardkeep{path}"),
        };
        let mut request = Request::post(uri);
        if matches!(self.sender, Sender::Http1(_)) {
            request = request.header(hyper::header::HOST, "shardkeep");
        }
        let request = request.body(outgoing).map_err(|_| Failure::NotSent(Error::invalid(format!("not a path: {path}"))))?;
        let (binding, life) = (&self.binding, &self.life);
        let not_ready = |e: hyper::Error| Failure::NotSent(explain("no answer from", binding, life, &e));
        let sent = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(not_ready)?;
                sender.try_send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(not_ready)?;
                sender.try_send_request(request).await
            }
        };
        sent.map_err(|mut e: TrySendError<_>| {
            let unsent = e.take_message().is_some();
            let error = explain("no answer from", binding, life, &e.into_error());
            if unsent { Failure::NotSent(error) } else { Failure::Broken(error) }
        })
    }

    /// Reads an answer to its end.
    pub(crate) async fn read(&mut self, response: Response<Incoming>, limit: usize) -> Result<(Bytes, Bytes), Failure> {
        let body = self.accept(response).await?;
        let whole = self.collect(body, limit).await?;
        self.in_use = None;
        frame::split(whole).map_err(Failure::Broken)
    }

    /// The body of a good answer; of any other the error.
    pub(crate) async fn accept(&mut self, response: Response<Incoming>) -> Result<Incoming, Failure> {
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let body = self.collect(response.into_body(), MAX_ERROR).await?;
        self.in_use = None;
        Err(Failure::Refused(frame::decode_error(&body)))
    }

    async fn collect(&self, mut body: Incoming, limit: usize) -> Result<Bytes, Failure> {
        let address = &self.binding.target.address;
        let long = || Failure::Broken(Error::invalid(format!("{address} answers with more than {limit} bytes")));
        let announced = body.size_hint().exact().unwrap_or(0);
        if announced > limit as u64 {
            return Err(long());
        }
        let mut whole = Collect::new(announced, limit);
        loop {
            match frame::data(&mut body).await {
                Ok(Some(bytes)) => whole.push(bytes).map_err(|()| long())?,
                Ok(None) => return Ok(whole.finish()),
                Err(e) => return Err(Failure::Broken(explain("the answer broke off from", &self.binding, &self.life, &e))),
            }
        }
    }
}

/// Runs a connection until it ends, or has been idle for too long.
async fn drive(conn: impl Future<Output = hyper::Result<()>>, usage: Arc<Usage>, idle: Duration) {
    let mut conn = pin!(conn);
    let env = usage.env.clone();
    loop {
        tokio::select! {
        biased; // no dice: simulation must repeat
                   _ended = conn.as_mut() => return,
                   () = env.sleep(idle / 4) => if usage.idle_for() >= idle {
                       return;
                   }
               }
    }
}

fn unreachable(target: &Target, why: &str) -> Error {
    Failure::NotSent(Error::unavailable(format!("no connection to {}: {why}", target.address))).into_error(target)
}

/// A control connection that several callers wait for and then share.
#[derive(Clone)]
pub(crate) struct Shared {
    made: futures::future::Shared<BoxFuture<'static, Result<Share>>>,
    discarded: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Share {
    sender: http2::SendRequest<Outgoing>,
    binding: Arc<Binding>,
    life: Arc<Life>,
}

impl Shared {
    /// Begins to connect, in a task of its own.
    pub(crate) fn start(pool: &Arc<Inner>, target: &Target) -> Self {
        let (env, pool, target) = (pool.env.clone(), pool.clone(), target.clone());
        let made = async move {
            let Connection { sender, binding, life, .. } = Connection::open(&pool, &target).await?;
            match sender {
                Sender::Http2(sender) => Ok(Share { sender, binding, life }),
                Sender::Http1(_) => Err(unreachable(&target, "a bulk connection where a control connection was asked for")),
            }
        };
        let made = made.boxed().shared();
        env.spawn(made.clone());
        Shared { made, discarded: Arc::default() }
    }

    /// Whether it is being made or stands.
    pub(crate) fn is_usable(&self) -> bool {
        let failed = match self.made.peek() {
            None => false,
            Some(Ok(share)) => share.sender.is_closed(),
            Some(Err(_)) => true,
        };
        !failed && !self.discarded.load(Ordering::Relaxed)
    }

    /// Nobody else shall take it.
    pub(crate) fn discard(&self) {
        self.discarded.store(true, Ordering::Relaxed);
    }

    /// Waits until it stands.
    pub(crate) async fn get(&self) -> Result<Connection> {
        let Share { sender, binding, life } = self.made.clone().await?;
        Ok(Connection { sender: Sender::Http2(sender), binding, life, in_use: None })
    }
}

/// A connection of one caller, which knows its [`Binding`]. Closed when dropped.
pub struct OneConnection {
    connection: Connection,
    env: Env,
    max_response: usize,
}

impl std::fmt::Debug for OneConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OneConnection({:?})", self.connection.binding.target)
    }
}

impl OneConnection {
    pub(crate) async fn open(pool: &Inner, target: &Target) -> Result<Self> {
        let connection = Connection::bare(pool, target).await?;
        Ok(OneConnection { connection, env: pool.env.clone(), max_response: pool.config.max_response })
    }

    /// What binds a proof to this connection.
    pub fn binding(&self) -> &Binding {
        &self.connection.binding
    }

    /// One exchange, as [`crate::Pool::call`]. After `Unavailable` the connection is of no more use.
    pub async fn call(&mut self, path: &str, head: Bytes, body: impl Into<Pieces>, deadline: Duration) -> Result<(Bytes, Bytes)> {
        let (body, env, limit) = (body.into(), self.env.clone(), self.max_response);
        let binding = self.connection.binding.clone();
        let exchange = async {
            let response = self.connection.send(path, &head, &body).await?;
            self.connection.read(response, limit).await
        };
        match env.timeout(deadline, exchange).await {
            Some(answer) => answer.map_err(|e| e.into_error(&binding.target)),
            None => Err(crate::client::late(&binding.target, deadline)),
        }
    }

    /// [`OneConnection::call`] with messages of an exchange of `wire`.
    pub async fn rpc<R: wire::Rpc>(&mut self, request: &R::Request, deadline: Duration) -> Result<R::Response> {
        let (head, _) = self.call(R::PATH, wire::encode(request).into(), (), deadline).await?;
        wire::decode(&head)
    }
}
