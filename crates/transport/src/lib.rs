//! The one connection layer for coordinators, nodes and clients: TLS 1.3 with the cluster's own
//! root, and HTTP over it. HTTP/1.1 pools carry shard bodies ([`Mode::Bulk`]), one HTTP/2
//! connection a peer carries small messages side by side ([`Mode::Control`]).
//!
//! What this crate guarantees to those above it:
//! - a [`Peer`] or a [`Target`] was checked against the pinned root, role and id included: a node's
//!   certificate never passes as a coordinator's;
//! - every call ends by its deadline, every connection is bounded in time, memory and number;
//! - both ends of a connection see the same [`Binding::exporter`], so that a signature over it
//!   proves something about this very connection.
//!
//! ```text
//! identity   ClusterRoot::{generate(cluster, now_ms, &Env), load(cert, key), cert_der(), key_der(), fingerprint()}
//!            ClusterRoot::issue(ServerId, cluster, spki, now_ms, validity) -> cert; certificate_info(cert) -> CertificateInfo
//!            ServerKey::{generate(&Env), load(pkcs8), pkcs8(), spki(), hash()}
//! token      JoinToken / InviteText::{to_text(), parse(text)}
//!            join_proof(&secret, token, role, &exporter, spki) -> [u8; 32]; check_join_proof(.., proof) -> Result<()>
//! tls        TlsIdentity::{new(&Env, root, cert, &ServerKey) -> Result<Arc<_>>, replace(cert), id(), info(), not_after_ms(), spki()}
//!            ClientTls::new(&Env, Trust, Option<Arc<TlsIdentity>>) -> Result<ClientTls>
//! server     serve(Env, Box<dyn Listener>, Arc<TlsIdentity>, Arc<dyn Service>, Limits, shutdown: impl Future<Output = ()>)
//!            trait Service { fn call(&self, Request) -> BoxFuture<'_, Result<Response>>; fn max_body(&self, path, &Connection) -> usize }
//!            Request { path, head, body, connection: Arc<Connection> }; request.message::<T>()
//!            Response { head: Bytes, body: Body }; Response::new(head, body), Response::message(&impl Encode)
//!            Connection { peer: Peer, remote, exporter, certificate_hash, holder: OnceLock<PublicKey> }
//! client     Target::{node(id, address), coordinator(address), coordinator_id(id, address)}.with(Mode)
//!            Pool::new(Env, ClientTls, PoolConfig, Option<Arc<dyn OnConnect>>): cheap to clone
//!            pool.call(&Target, path, head: Bytes, body: impl Into<Pieces>, deadline) -> Result<(Bytes, Bytes)>
//!            pool.rpc::<R: wire::Rpc>(&Target, &R::Request, deadline) -> Result<R::Response>
//!            pool.rpc_body::<R>(&Target, &R::Request, body, deadline) -> Result<(R::Response, Bytes)>
//!            pool.stream(&Target, path, head, deadline) -> Result<(Bytes, Frames)>; frames.next(wait) -> Result<Option<Bytes>>
//!            pool.connect_once(&Target, deadline) -> Result<OneConnection>; one.binding(), one.call(..), one.rpc::<R>(..)
//!            Coordinators::new(Env, Pool, addresses); .rpc::<R>(&R::Request, deadline): whichever leads; .learn(addresses)
//!            trait OnConnect { fn prove(&self, &Binding) -> Option<(&'static str, Bytes)> }
//! ```
//!
//! A certificate is checked when a connection is made, not again while it stands, and there are no
//! revocation lists: whether a server still belongs to the cluster is for the service to ask.

pub mod identity;
pub mod link;
pub mod tls;
pub mod token;

pub mod client;
pub mod coordinators;
pub mod server;

mod connect;
mod frame;
mod stop;
mod stream;

pub use client::{Binding, Frames, Mode, OnConnect, OneConnection, Pool, PoolConfig, Target};
pub use coordinators::Coordinators;
pub use frame::{Body, Pieces};
pub use identity::{CERTIFICATE_VALIDITY, CertificateInfo, ClusterRoot, ServerId, ServerKey, certificate_info};
pub use link::LinkText;
pub use server::{Connection, Limits, Request, Response, Service, serve};
pub use tls::{ClientTls, Expect, Peer, TlsIdentity, Trust};
pub use token::{InviteText, JoinToken, check_join_proof, join_proof};
