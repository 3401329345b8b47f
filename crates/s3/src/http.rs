//! The server: connections, what is answered before s3s sees a request, and what is noted of each.

use crate::access::{Passed, Proven};
use crate::errors::plain;
use crate::metrics::Metrics;
use crate::ops::Operations;
use crate::rechunk::{self, Body as Framed, Framing, Reading};
use crate::tls::Tls;
use crate::{Gateway, answering, cors, documents, form, gate};
use bytes::Bytes;
use client::{BoxStream, Client, Env, Listener, RemotePath};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Error, Result};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::StreamingBlob;
use s3s::host::{S3Host, VirtualHost};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, StdError};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Most connections at a time; more wait to be taken.
const CONNECTIONS: usize = 4_096;
/// Most bytes of a request's line and headers.
const HEAD_MAX: usize = 64 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 200;
/// Longest time for a request's head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Documents up to this length, in bytes, are read at once; of longer ones [`LONG_DOCUMENTS`] at a time.
const SHORT_DOCUMENT: u64 = 64 << 10;
const LONG_DOCUMENTS: usize = 8;
/// Time that requests under way have when the gateway stops.
const DRAIN: Duration = Duration::from_secs(4);

/// How a gateway works.
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: String,
    /// A chain of certificates and its key, as PEM: TLS.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// Buckets that are folders elsewhere than below `/s3`.
    pub buckets: BTreeMap<String, RemotePath>,
    /// Domains below which buckets are hosts of their own, without ports.
    pub domains: Vec<String>,
    /// The region that it says it is in.
    pub region: String,
    /// The account's name: the owner of everything.
    pub account: String,
    /// Settle for k shards where the write quorum does not answer.
    pub allow_degraded: bool,
}

/// A gateway that serves.
pub struct Running {
    /// Where it listens.
    pub address: String,
    /// Where clients find it.
    pub url: String,
    stop: watch::Sender<bool>,
    done: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Stops: what is being answered has a few seconds.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.done.await;
    }
}

/// Begins to serve. `Unavailable` when the address is taken.
pub async fn serve(client: Client, config: Config) -> Result<Running> {
    let tls = config.tls.as_ref().map(|(chain, key)| Tls::new(chain, key)).transpose()?;
    let env = client.env().clone();
    let gateway = Gateway::new(client, &config)?;
    let taken = |e: std::io::Error| Error::unavailable(format!("cannot listen on {}: {e}", config.listen)).hint("choose another --listen");
    let listener = env.net.bind(&config.listen).await.map_err(taken)?;
    let address = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?.to_string();
    let url = format!("{}://{address}", gateway.scheme);
    let domains = Domains(config.domains.iter().map(|d| d.to_ascii_lowercase()).collect());
    let server = Arc::new(Server {
        service: service(&gateway, domains.clone()),
        domains,
        gateway: gateway.clone(),
        metrics: Metrics::new()?,
        env: env.clone(),
        documents: Semaphore::new(LONG_DOCUMENTS),
    });
    let (stop, stopped) = watch::channel(false);
    let expiry = env.spawn(gateway.expire());
    let done = env.spawn(async move {
        server.accept(listener, tls, stopped).await;
        expiry.abort();
    });
    Ok(Running { address, url, stop, done })
}

fn service(gateway: &Arc<Gateway>, domains: Domains) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Operations(gateway.clone()));
    builder.set_auth(gateway.keys.clone());
    builder.set_access(gateway.keys.clone());
    builder.set_host(domains);
    let mut config = S3Config::default();
    config.xml_max_body_size = documents::DOCUMENT_MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// Domains below which buckets are hosts of their own. Any other name of this host means paths.
#[derive(Clone)]
struct Domains(Vec<String>);

impl Domains {
    /// The bucket that a host names.
    fn bucket<'a>(&self, host: &'a str) -> Option<&'a str> {
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
        self.0.iter().find_map(|domain| {
            let at = name.len().checked_sub(domain.len() + 1)?;
            let (bucket, rest) = name.split_at_checked(at)?;
            (rest.strip_prefix('.')?.eq_ignore_ascii_case(domain) && !bucket.is_empty()).then_some(bucket)
        })
    }
}

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(host);
        Ok(match self.bucket(host) {
            Some(bucket) => found.with_bucket(bucket),
            None => found,
        })
    }
}

struct Server {
    service: S3Service,
    domains: Domains,
    gateway: Arc<Gateway>,
    metrics: Metrics,
    env: Env,
    /// Turns of long documents.
    documents: Semaphore,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: Box<dyn Listener>, tls: Option<Tls>, mut stopped: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, or a connection that is gone already: others may do better soon.
                self.env.sleep(Duration::from_millis(20)).await;
                continue;
            };
            let (server, tls, stopped) = (self.clone(), tls.clone(), stopped.clone());
            self.env.spawn(async move {
                server.metrics.connections(1.0);
                let stream = match &tls {
                    Some(tls) => tls.accept(&server.env, stream).await,
                    None => Some(stream),
                };
                if let Some(stream) = stream {
                    server.clone().connection(stream, stopped).await;
                }
                server.metrics.connections(-1.0);
                drop(permit);
            });
        }
        drop(listener);
        // All permits back: all connections are done.
        self.env.timeout(DRAIN, room.acquire_many(CONNECTIONS as u32)).await;
    }

    async fn connection(self: Arc<Self>, stream: BoxStream, mut stopped: watch::Receiver<bool>) {
        let answer = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = async { stopped.wait_for(|stop| *stop).await.is_ok() } => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!(error = %e, "a connection ended");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Counted> {
        let since = self.env.clock.monotonic();
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        let received = request.body().size_hint().exact().unwrap_or(0);
        let reading = Reading::of(request.body());
        let response = self.respond(request, &reading).await;
        let took = self.env.clock.monotonic() - since;
        let id = data_encoding::HEXUPPER.encode(&self.env.random::<8>());
        let mut response = answering::finish(response, &method, &path, &id);
        let status = response.status();
        self.metrics.request(method.as_str(), status.as_u16(), received, took);
        // The query may carry a signature: it is never written down.
        tracing::info!(target: "s3::access", %method, path, status = status.as_u16(), received, ms = took.as_millis() as u64);
        let headers = response.headers_mut();
        headers.insert(header::SERVER, HeaderValue::from_static("Shardkeep"));
        if !reading.is_over() {
            // What is left of the body would be taken for the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Counted { body, server: self })
    }

    async fn respond(&self, request: Request<Incoming>, reading: &Reading) -> Response<Body> {
        let hosted = self.hosted_bucket(request.headers()).is_some();
        let signed = request.headers().contains_key(header::AUTHORIZATION) || request.uri().query().is_some_and(|q| q.contains("X-Amz-"));
        if request.method() == Method::GET && request.uri().path() == "/metrics" && !signed {
            let mut response = Response::new(Body::from(self.metrics.text()));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
            return response;
        }
        let crossing = request.headers().contains_key(header::ORIGIN);
        if request.method() == Method::OPTIONS {
            return self.preflight(&request).await;
        }
        let allowed = if crossing { self.cors(&request, false).await } else { None };
        let (mut head, body) = request.into_parts();
        let mut response = match gate::check(&head, hosted) {
            Ok(()) => {
                gate::amend(&mut head, hosted);
                self.pass_on(head, body, hosted, reading).await
            }
            Err(refused) => {
                rechunk::leave(body, &head.headers, &self.env);
                error_response(refused)
            }
        };
        if let Some(allowed) = allowed {
            response.headers_mut().extend(allowed);
        }
        response
    }

    /// Has a request answered that the gate has let in.
    async fn pass_on(&self, head: Parts, body: Incoming, hosted: bool, reading: &Reading) -> Response<Body> {
        if form::is_form(&head.method, &head.headers) {
            let waits = head.headers.contains_key(header::EXPECT);
            let body = Framed::new(body, self.env.clone(), Framing::Plain, None, reading.clone(), waits);
            let answer = form::post(&self.gateway, &head, body, self.hosted_bucket(&head.headers), self.gateway.scheme).await;
            return answer.unwrap_or_else(error_response);
        }
        let framing = Framing::of(head.headers.get("x-amz-content-sha256").and_then(|v| v.to_str().ok()));
        if framing == Framing::Plain && gate::brings_document(&head, hosted) {
            let digested = head.method == Method::POST && gate::is_delete(&head);
            // It is held whole, before anybody knows who sends it: few long ones at a time.
            let is_short = body.size_hint().exact().is_some_and(|length| length <= SHORT_DOCUMENT);
            let _turn = if is_short { None } else { self.documents.acquire().await.ok() };
            let read = documents::read(body, &head.headers, &self.env, digested).await;
            reading.end_if(read.is_ok());
            return match read {
                Ok(document) => self.call(Request::from_parts(head, Body::from(document))).await,
                Err(refused) => error_response(refused),
            };
        }
        if gate::has_odd_range(&head) {
            return self.call_without_range(head).await;
        }
        let length = body.size_hint().exact();
        let body = if length == Some(0) {
            Body::empty()
        } else {
            let length = length.and_then(|l| usize::try_from(l).ok());
            let waits = head.headers.contains_key(header::EXPECT);
            Body::from(StreamingBlob::new(Framed::new(body, self.env.clone(), framing, length, reading.clone(), waits)))
        };
        self.call(Request::from_parts(head, body)).await
    }

    /// A range that is none is as if it were not there; but it may be signed. So its signature is checked with it,
    /// and then the request is answered without it.
    async fn call_without_range(&self, head: Parts) -> Response<Body> {
        let passed = Passed::default();
        let mut first = head.clone();
        first.extensions.insert(passed.clone());
        let response = self.call(Request::from_parts(first, Body::empty())).await;
        if !passed.is_so() || response.status() != StatusCode::BAD_REQUEST {
            return response;
        }
        let mut again = gate::without_signature(head);
        again.headers.remove(header::RANGE);
        again.extensions.insert(Proven);
        self.call(Request::from_parts(again, Body::empty())).await
    }

    async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.service.call(request).await {
            Ok(response) => response,
            Err(e) => {
                let e: StdError = e.into();
                tracing::warn!(error = %e, "a request could not be answered");
                error_response(plain(S3ErrorCode::InternalError))
            }
        }
    }

    /// The bucket that the host of a request names.
    fn hosted_bucket<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        self.domains.bucket(headers.get(header::HOST)?.to_str().ok()?)
    }

    /// The cross-origin headers that a bucket's rules give.
    async fn cors(&self, request: &Request<Incoming>, preflight: bool) -> Option<HeaderMap> {
        let of_path = || request.uri().path().trim_start_matches('/').split('/').next();
        let name = self.hosted_bucket(request.headers()).or_else(of_path).filter(|n| !n.is_empty())?;
        let bucket = self.gateway.buckets.get(name).await.ok()?;
        cors::headers(bucket.config.cors.as_ref()?, request.headers(), request.method().as_str(), preflight)
    }

    async fn preflight(&self, request: &Request<Incoming>) -> Response<Body> {
        if let Err(wrong) = cors::check_preflight(request.headers()) {
            return error_response(wrong);
        }
        match self.cors(request, true).await {
            Some(headers) => {
                let mut response = Response::new(Body::empty());
                response.headers_mut().extend(headers);
                response
            }
            None => {
                let mut e =
                    S3Error::with_message(S3ErrorCode::Custom("AccessForbidden".into()), "CORSResponse: This CORS request is not allowed.");
                e.set_status_code(StatusCode::FORBIDDEN);
                error_response(e)
            }
        }
    }
}

fn error_response(e: S3Error) -> Response<Body> {
    e.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// A body of an answer, counted as it goes out.
struct Counted {
    body: Body,
    server: Arc<Server>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Bytes>, StdError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.server.metrics.sent(data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_hosts_below_the_domains_only() {
        let domains = Domains(vec!["s3.example.org".into(), "localhost".into()]);
        assert_eq!(domains.bucket("photos.s3.example.org"), Some("photos"));
        assert_eq!(domains.bucket("a.b.localhost:9000"), Some("a.b"));
        assert_eq!(domains.bucket("photos.S3.Example.org:443"), Some("photos"));
        for host in ["s3.example.org", "localhost:9000", "127.0.0.1:9000", "xlocalhost", "example.org", ".localhost", ""] {
            assert_eq!(domains.bucket(host), None, "{host}");
        }
    }
}
