//! TLS 1.3 under the cluster's own root: what a process shows ([`TlsIdentity`]), what it trusts
//! ([`Trust`]), and whom it found at the other end ([`Peer`]).
//!
//! Key exchange is X25519 with ML-KEM-768, the cipher AES-128-GCM (contents are sealed before they
//! get here). No 0-RTT and no resumption: each connection proves its identity anew, and a proof
//! over the exporter holds for one connection only. A certificate must be issued by the root
//! itself; there are no intermediates. The time comes from `env`, so that simulation works.

use crate::identity::{CertificateInfo, ServerId, ServerKey, certificate_info, certificate_key};
use crate::stream::{Buffered, WRITE_BUFFER};
use env::{BoxStream, Env};
use model::{CoordinatorId, Error, Hash, Kind, NodeId, Result};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme, version::TLS13};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// RFC 9266: what both ends of a connection can compute, and nobody else.
const EXPORTER: &[u8] = b"EXPORTER-Channel-Binding";

/// Who is at the other end, as its certificate proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Showed no certificate.
    Anonymous,
    /// A storage server of this cluster.
    Node(NodeId),
    /// A catalog server of this cluster.
    Coordinator(CoordinatorId),
}

/// Whom a client means to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expect {
    /// This node.
    Node(NodeId),
    /// Any coordinator.
    Coordinator,
    /// This coordinator.
    CoordinatorId(CoordinatorId),
    /// Any node.
    AnyNode,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Node(id) => ServerId::Node(*id).fmt(f),
            Expect::Coordinator => f.write_str("coordinator"),
            Expect::CoordinatorId(id) => ServerId::Coordinator(*id).fmt(f),
            Expect::AnyNode => f.write_str("node"),
        }
    }
}

/// What a client believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// This root certificate (DER): the normal case.
    Root(Vec<u8>),
    /// The root certificate of which this is the BLAKE3: for joining and registering, where a token
    /// or invite carries no more. The server shows the certificate itself.
    Fingerprint(Hash),
}

/// A server's certificate in use. Certificates can be replaced at run time: connections that stand
/// keep theirs, new ones get the new one.
pub struct TlsIdentity {
    base: Base,
    root: Vec<u8>,
    key: ServerKey,
    shown: Mutex<Arc<Shown>>,
}

/// What one connection of a server shows; it stays what it is while the connection lives.
pub(crate) struct Shown {
    certified: Arc<CertifiedKey>,
    config: Arc<rustls::ServerConfig>,
    certificate_hash: Hash,
    info: CertificateInfo,
    certificate: Vec<u8>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsIdentity({})", self.id())
    }
}

impl TlsIdentity {
    /// From the root's and the server's certificate (both DER) and the server's key. `Invalid`
    /// unless the certificate is for this key and issued by this root. An expired one is accepted
    /// here (others will refuse it).
    pub fn new(env: &Env, root_der: &[u8], cert_der: &[u8], key: &ServerKey) -> Result<Arc<Self>> {
        let base = Base::new(env);
        let key = ServerKey::load(key.pkcs8())?;
        let shown = Mutex::new(Arc::new(Shown::new(&base, root_der, cert_der, &key)?));
        Ok(Arc::new(TlsIdentity { base, root: root_der.to_vec(), key, shown }))
    }

    /// Shows a new certificate from now on; same id and same key, or `Invalid`.
    pub fn replace(&self, cert_der: &[u8]) -> Result<()> {
        let fresh = Shown::new(&self.base, &self.root, cert_der, &self.key)?;
        if fresh.info.id != self.id() {
            return Err(Error::invalid(format!("the new certificate is for {}, not for {}", fresh.info.id, self.id())));
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    /// Whose it is.
    pub fn id(&self) -> ServerId {
        self.shown().info.id
    }

    /// What the certificate in use says.
    pub fn info(&self) -> CertificateInfo {
        self.shown().info.clone()
    }

    /// The certificate in use, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.shown().certificate.clone()
    }

    /// When the certificate in use ends, milliseconds since 1970.
    pub fn not_after_ms(&self) -> u64 {
        self.shown().info.not_after_ms
    }

    /// Public key (SubjectPublicKeyInfo, DER), to be sent when renewing.
    pub fn spki(&self) -> &[u8] {
        self.key.spki()
    }

    pub(crate) fn shown(&self) -> Arc<Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shown {
    fn new(base: &Base, root_der: &[u8], cert_der: &[u8], key: &ServerKey) -> Result<Self> {
        let info = certificate_info(cert_der)?;
        if info.spki != key.spki() {
            return Err(Error::invalid("the certificate is not for this server's key"));
        }
        let leaf = CertificateDer::from(cert_der.to_vec());
        let roots = roots(root_der)?;
        // Checked at a time at which it is good: only the issuer matters here.
        let within = UnixTime::since_unix_epoch(Duration::from_millis(info.not_before_ms + 1000));
        issued_by(&leaf, &roots, within).map_err(|_| Error::invalid("the certificate was not issued by this cluster's root"))?;

        let signing = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.pkcs8())).map_err(config_error)?;
        let certified = Arc::new(CertifiedKey::new(vec![leaf, CertificateDer::from(root_der.to_vec())], signing));
        let inner = WebPkiClientVerifier::builder_with_provider(roots, base.provider.clone())
            .clear_root_hint_subjects()
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::invalid(format!("the cluster's root cannot be used: {e}")))?;
        let mut config = rustls::ServerConfig::builder_with_details(base.provider.clone(), base.time.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(config_error)?
            .with_client_cert_verifier(Arc::new(ClientCheck(inner)))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Shown { certified, config: Arc::new(config), certificate_hash: Hash::of(cert_der), info, certificate: cert_der.to_vec() })
    }

    /// The server's side of a handshake. Never call it without a time limit.
    pub(crate) async fn accept(&self, io: BoxStream) -> std::io::Result<Accepted> {
        let acceptor = TlsAcceptor::from(self.config.clone());
        let stream = acceptor.accept_with(Buffered::new(io), |c| c.set_buffer_limit(Some(WRITE_BUFFER))).await?;
        let session = stream.get_ref().1;
        let exporter = session.export_keying_material([0; 32], EXPORTER, Some(b"")).map_err(std::io::Error::other)?;
        let peer = match session.peer_certificates() {
            None | Some([]) => Peer::Anonymous,
            // Verified by `ClientCheck`, which refuses what it cannot read.
            Some([leaf, ..]) => match certificate_info(leaf).map_err(std::io::Error::other)?.id {
                ServerId::Node(id) => Peer::Node(id),
                ServerId::Coordinator(id) => Peer::Coordinator(id),
            },
        };
        let http2 = session.alpn_protocol() == Some(b"h2");
        Ok(Accepted { stream, peer, exporter, certificate_hash: self.certificate_hash, http2 })
    }
}

/// A connection after the server's side of a handshake.
pub(crate) struct Accepted {
    pub stream: server::TlsStream<Buffered>,
    pub peer: Peer,
    pub exporter: [u8; 32],
    /// BLAKE3 of the certificate that this connection showed.
    pub certificate_hash: Hash,
    pub http2: bool,
}

/// TLS as a client: whom to trust, and what to show if asked. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    http1: Arc<rustls::ClientConfig>,
    http2: Arc<rustls::ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// With an identity, servers see who connects; a replaced certificate is shown from the next
    /// connection on.
    pub fn new(env: &Env, trust: Trust, identity: Option<Arc<TlsIdentity>>) -> Result<Self> {
        let base = Base::new(env);
        let check = Arc::new(ServerCheck::new(&trust)?);
        let resolver = Arc::new(ClientCertificate(identity));
        let config = |protocol: &[u8]| -> Result<_> {
            let mut config = rustls::ClientConfig::builder_with_details(base.provider.clone(), base.time.clone())
                .with_protocol_versions(&[&TLS13])
                .map_err(config_error)?
                .dangerous() // not WebPKI's public roots: `ServerCheck` is stricter than they are
                .with_custom_certificate_verifier(check.clone())
                .with_client_cert_resolver(resolver.clone());
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = Resumption::disabled();
            config.enable_sni = false;
            Ok(Arc::new(config))
        };
        Ok(ClientTls { http1: config(b"http/1.1")?, http2: config(b"h2")? })
    }

    /// The client's side of a handshake. Never call it without a time limit.
    pub(crate) async fn connect(&self, io: BoxStream, expect: Expect, http2: bool) -> std::io::Result<Connected> {
        let config = if http2 { &self.http2 } else { &self.http1 };
        let name = ServerName::try_from(format!("{expect}.shardkeep")).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect_with(name, Buffered::new(io), |c| c.set_buffer_limit(Some(WRITE_BUFFER))).await?;
        let session = stream.get_ref().1;
        let exporter = session.export_keying_material([0; 32], EXPORTER, Some(b"")).map_err(std::io::Error::other)?;
        let leaf = session.peer_certificates().and_then(|c| c.first()).ok_or(std::io::ErrorKind::InvalidData)?;
        let certificate_hash = Hash::of(leaf);
        let server = certificate_info(leaf).map_err(std::io::Error::other)?.id;
        Ok(Connected { stream, exporter, certificate_hash, server })
    }
}

/// A connection after the client's side of a handshake.
pub(crate) struct Connected {
    pub stream: client::TlsStream<Buffered>,
    pub exporter: [u8; 32],
    pub certificate_hash: Hash,
    pub server: ServerId,
}

/// What both sides' configurations are made of.
struct Base {
    provider: Arc<CryptoProvider>,
    time: Arc<EnvTime>,
}

impl Base {
    fn new(env: &Env) -> Self {
        let provider = CryptoProvider {
            cipher_suites: vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![provider::kx_group::X25519MLKEM768],
            ..provider::default_provider()
        };
        Base { provider: Arc::new(provider), time: Arc::new(EnvTime(env.clone())) }
    }
}

struct EnvTime(Env);

impl fmt::Debug for EnvTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvTime")
    }
}

impl rustls::time_provider::TimeProvider for EnvTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}

fn roots(root_der: &[u8]) -> Result<Arc<RootCertStore>> {
    certificate_key(root_der)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root_der)).map_err(|e| Error::invalid(format!("not a root certificate: {e}")))?;
    Ok(Arc::new(roots))
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    provider::default_provider().signature_verification_algorithms
}

/// Whether a root issued this certificate, directly, and its name constraint allows the names.
fn issued_by(leaf: &CertificateDer<'_>, roots: &RootCertStore, now: UnixTime) -> Result<(), rustls::Error> {
    let cert = ParsedCertificate::try_from(leaf)?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&cert, roots, &[], now, algorithms().all)
}

fn config_error(e: rustls::Error) -> Error {
    Error::invalid(format!("TLS cannot be set up: {e}"))
}

/// What clients check of servers.
#[derive(Debug)]
enum ServerCheck {
    Root(Arc<RootCertStore>),
    Fingerprint(Hash),
}

impl ServerCheck {
    fn new(trust: &Trust) -> Result<Self> {
        match trust {
            Trust::Root(der) => Ok(ServerCheck::Root(roots(der)?)),
            Trust::Fingerprint(hash) => Ok(ServerCheck::Fingerprint(*hash)),
        }
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self {
            ServerCheck::Root(roots) => issued_by(leaf, roots, now)?,
            ServerCheck::Fingerprint(hash) => {
                let root = rest.iter().find(|c| Hash::of(c) == *hash).ok_or(CertificateError::UnknownIssuer)?;
                issued_by(leaf, &*roots(root).map_err(|_| CertificateError::BadEncoding)?, now)?;
            }
        }
        let id = certificate_info(leaf).map_err(|_| CertificateError::BadEncoding)?.id;
        let wanted = name.to_str();
        let by_role = match id.role() {
            model::cluster::ServerRole::Coordinator => wanted == "coordinator.shardkeep",
            model::cluster::ServerRole::Node => wanted == "node.shardkeep",
        };
        if by_role || wanted == format!("{id}.shardkeep") {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::NotValidForName.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// What servers check of clients that show a certificate: issued by the root, for a server.
#[derive(Debug)]
struct ClientCheck(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(leaf, &[], now)?;
        certificate_info(leaf).map_err(|_| CertificateError::BadEncoding)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[derive(Debug)]
struct ClientCertificate(Option<Arc<TlsIdentity>>);

impl rustls::client::ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.as_ref()?;
        schemes.contains(&SignatureScheme::ED25519).then(|| identity.shown().certified.clone())
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Says what became of a connection to an address: `Denied` where one side's certificate was
/// refused (trying again will not help), else `Unavailable`.
pub(crate) fn connection_error(what: &str, address: &str, e: &(dyn std::error::Error + 'static)) -> Error {
    use rustls::{AlertDescription as Alert, Error as Tls};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(e);
    let mut innermost = e.to_string();
    while let Some(e) = cause {
        innermost = e.to_string();
        let io = e.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let tls = e.downcast_ref::<Tls>().or_else(|| io.and_then(|inner| inner.downcast_ref::<Tls>()));
        let refused = match tls {
            Some(Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                Some("its certificate has expired")
            }
            Some(Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
                Some("its certificate is not valid yet: is a clock wrong?")
            }
            Some(Tls::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Some("another server of the cluster answers there")
            }
            Some(Tls::InvalidCertificate(_)) => Some("it does not belong to this cluster"),
            Some(Tls::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRevoked
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError,
            )) => Some("it refuses this server's certificate"),
            _ => None,
        };
        if let Some(why) = refused {
            return Error::new(Kind::Denied, format!("{what} {address}: {why}"));
        }
        cause = e.source().or_else(|| io.map(|inner| inner as &(dyn std::error::Error + 'static)));
    }
    Error::unavailable(format!("{what} {address}: {innermost}"))
}
