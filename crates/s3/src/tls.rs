//! TLS with a certificate of the user's own, for gateways that others on the network use.

use client::{BoxStream, Env};
use model::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// Longest time that a handshake takes.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a gateway shows to who connects.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// A chain of certificates and its key, both as PEM. `Invalid` for what they are not.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Self> {
        let wrong = |what: &str, e: String| Error::invalid(format!("{what}: {e}"));
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| wrong("the certificate", e.to_string()))?;
        if chain.is_empty() {
            return Err(wrong("the certificate", "there is none in the file".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong("the certificate's key", e.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let config = config.map_err(|e| wrong("TLS", e.to_string()))?.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.map_err(|e| wrong("the certificate and its key", e.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// Greets a connection; `None` when that fails or takes too long.
    pub async fn accept(&self, env: &Env, stream: BoxStream) -> Option<BoxStream> {
        let stream = env.timeout(HANDSHAKE, self.0.accept(stream)).await?.ok()?;
        Some(Box::new(stream))
    }
}
