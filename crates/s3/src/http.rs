//! The server: connections, what is answered before s3s sees a request, and what is noted of each.

use crate::errors::plain;
use crate::metrics::Metrics;
use crate::ops::Operations;
use crate::rechunk::{Body as Framed, Framing};
use crate::tls::Tls;
use crate::{Gateway, cors};
use bytes::Bytes;
use client::{BoxStream, Client, Env, Listener, RemotePath};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
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
/// Most bytes of a file in a POST form: it is held in memory.
const FORM_FILE_MAX: u64 = 64 << 20;
/// POST forms read at a time.
const FORMS: usize = 2;
/// Most bytes of a document in a request.
const XML_MAX: usize = 4 << 20;
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
    let env = client.environment();
    let gateway = Gateway::new(client, &config)?;
    let taken = |e: std::io::Error| Error::unavailable(format!("cannot listen on {}: {e}", config.listen)).hint("choose another --listen");
    let listener = env.net.bind(&config.listen).await.map_err(taken)?;
    let address = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?.to_string();
    let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    let domains = Domains(config.domains.iter().map(|d| d.to_ascii_lowercase()).collect());
    let server = Arc::new(Server {
        service: service(&gateway, domains.clone()),
        domains,
        gateway: gateway.clone(),
        metrics: Metrics::new()?,
        env: env.clone(),
        forms: Semaphore::new(FORMS),
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
    config.xml_max_body_size = XML_MAX;
    config.post_object_max_file_size = FORM_FILE_MAX;
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
    forms: Semaphore,
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
        let mut response = self.clone().respond(request).await;
        let took = self.env.clock.monotonic() - since;
        let status = response.status();
        self.metrics.request(method.as_str(), status.as_u16(), received, took);
        // The query may carry a signature: it is never written down.
        tracing::info!(target: "s3::access", %method, path, status = status.as_u16(), received, ms = took.as_millis() as u64);
        let id = data_encoding::HEXUPPER.encode(&self.env.random::<8>());
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(HeaderName::from_static("x-amz-request-id"), id);
        }
        headers.insert(header::SERVER, HeaderValue::from_static("Shardkeep"));
        response.map(|body| Counted { body, server: self })
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refused) = refuse(&request) {
            return error_response(refused);
        }
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
        let form = request.method() == Method::POST && is_form(request.headers());
        // A file in a form is held whole: few at a time.
        let _turn = if form { self.forms.acquire().await.ok() } else { None };
        let mut response = match self.service.call(self.framed(request)).await {
            Ok(response) => response,
            Err(e) => {
                let e: StdError = e.into();
                tracing::warn!(error = %e, "a request could not be answered");
                error_response(plain(S3ErrorCode::InternalError))
            }
        };
        if let Some(allowed) = allowed {
            response.headers_mut().extend(allowed);
        }
        response
    }

    /// The request with its body as s3s is to see it.
    fn framed(&self, request: Request<Incoming>) -> Request<Body> {
        let framing = Framing::of(request.headers().get("x-amz-content-sha256").and_then(|v| v.to_str().ok()));
        let env = self.env.clone();
        request.map(|body| {
            let length = body.size_hint().exact();
            if length == Some(0) {
                return Body::empty();
            }
            let length = length.and_then(|l| usize::try_from(l).ok());
            Body::from(StreamingBlob::new(Framed::new(body, env, framing, length)))
        })
    }

    /// The cross-origin headers that a bucket's rules give.
    async fn cors(&self, request: &Request<Incoming>, preflight: bool) -> Option<HeaderMap> {
        let host = request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        let of_path = || request.uri().path().trim_start_matches('/').split('/').next();
        let name = self.domains.bucket(host).or_else(of_path).filter(|n| !n.is_empty())?;
        let bucket = self.gateway.buckets.get(name).await.ok()?;
        cors::headers(bucket.config.cors.as_ref()?, request.headers(), request.method().as_str(), preflight)
    }

    async fn preflight(&self, request: &Request<Incoming>) -> Response<Body> {
        if !request.headers().contains_key(header::ORIGIN) {
            let text = "Insufficient information. Origin request header needed.";
            return error_response(S3Error::with_message(S3ErrorCode::InvalidRequest, text));
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

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"multipart/form-data"))
}

/// What is refused before anything of it is looked at: headers signed by version 2, which says nothing of the body.
/// Presigned URLs and forms may be: boto3 makes such by default.
fn refuse(request: &Request<Incoming>) -> Option<S3Error> {
    let old = request.headers().get(header::AUTHORIZATION).is_some_and(|v| v.as_bytes().starts_with(b"AWS "));
    let text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
    old.then(|| S3Error::with_message(S3ErrorCode::InvalidRequest, text))
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
