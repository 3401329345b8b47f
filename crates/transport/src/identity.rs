//! Who a server is: the cluster's root, the keys of servers, and the certificates between them.
//!
//! All keys are Ed25519, so that keys, signatures and certificates have fixed sizes. Role and id
//! stand in a certificate as DNS names under `CLUSTER.shardkeep`, the only names that the root's
//! name constraint allows:
//!
//! ```text
//! node         node-ID.CLUSTER.shardkeep
//! coordinator  coordinator-ID.CLUSTER.shardkeep, coordinator.CLUSTER.shardkeep
//! ```

use env::Env;
use model::cluster::ServerRole;
use model::{ClusterId, CoordinatorId, Error, Hash, NodeId, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::time::Duration;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// How long a server's certificate is good for. Servers renew theirs long before.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
const ROOT_VALIDITY_MS: u64 = 30 * 365 * 86_400_000;

/// RFC 8410: `SEQUENCE { 0, { 1.3.101.112 }, OCTET STRING { OCTET STRING seed } }` up to the seed.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// RFC 8410: `SEQUENCE { { 1.3.101.112 }, BIT STRING key }` up to the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A server, by role and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerId {
    /// Storage server.
    Node(NodeId),
    /// Catalog server.
    Coordinator(CoordinatorId),
}

impl ServerId {
    /// Its role.
    pub fn role(&self) -> ServerRole {
        match self {
            ServerId::Node(_) => ServerRole::Node,
            ServerId::Coordinator(_) => ServerRole::Coordinator,
        }
    }

    /// The DNS names of its certificate, in order.
    fn names(&self, cluster: &ClusterId) -> Vec<String> {
        let own = format!("{self}.{cluster}.shardkeep");
        match self {
            ServerId::Node(_) => vec![own],
            ServerId::Coordinator(_) => vec![own, format!("coordinator.{cluster}.shardkeep")],
        }
    }

    /// The inverse of [`ServerId::names`]: exactly these names, nothing beside them.
    fn from_names(names: &[String]) -> Option<(ServerId, ClusterId)> {
        let (label, rest) = names.first()?.split_once('.')?;
        let cluster: ClusterId = rest.strip_suffix(".shardkeep")?.parse().ok()?;
        let id = match label.rsplit_once('-')? {
            ("node", n) => ServerId::Node(n.parse().ok()?),
            ("coordinator", n) => ServerId::Coordinator(n.parse().ok()?),
            _ => return None,
        };
        (id.names(&cluster) == names).then_some((id, cluster))
    }
}

/// `node-5` or `coordinator-1`.
impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerId::Node(id) => write!(f, "node-{id}"),
            ServerId::Coordinator(id) => write!(f, "coordinator-{id}"),
        }
    }
}

/// A server's key pair (Ed25519). Secret: it is the server's identity.
pub struct ServerKey {
    pkcs8: Vec<u8>,
    spki: Vec<u8>,
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey({})", self.hash())
    }
}

impl ServerKey {
    /// A fresh key.
    pub fn generate(env: &Env) -> Result<Self> {
        let seed: [u8; 32] = env.random();
        Self::load(&[&PKCS8_PREFIX[..], &seed].concat())
    }

    /// From its PKCS#8 form; `Invalid` where that is no Ed25519 key.
    pub fn load(pkcs8: &[u8]) -> Result<Self> {
        let pair = key_pair(pkcs8)?;
        Ok(ServerKey { pkcs8: pkcs8.to_vec(), spki: [&SPKI_PREFIX[..], pair.public_key_raw()].concat() })
    }

    /// PKCS#8 DER, to be kept in a file with mode 0600. Secret.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Public key (SubjectPublicKeyInfo, DER).
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// BLAKE3 of [`ServerKey::spki`]: `Node::key` of the catalog.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.spki)
    }
}

fn key_pair(pkcs8: &[u8]) -> Result<KeyPair> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &rcgen::PKCS_ED25519)
        .map_err(|_| Error::invalid("not an Ed25519 private key in PKCS#8 form"))
}

/// The root of a cluster: a certificate that everybody pins, and the key that issues all others.
/// The key lives in the coordinators' catalog only; backups that hold it are encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterRoot {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for ClusterRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterRoot({})", self.fingerprint())
    }
}

impl ClusterRoot {
    /// A fresh root, once in a cluster's life.
    pub fn generate(cluster: ClusterId, now_ms: u64, env: &Env) -> Result<Self> {
        let key = ServerKey::generate(env)?;
        let mut params = params(&format!("Shardkeep cluster {cluster}"), now_ms, ROOT_VALIDITY_MS, &[&key.spki, b"root"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(format!("{cluster}.shardkeep"))],
            excluded_subtrees: Vec::new(),
        });
        let cert = params.self_signed(&key_pair(&key.pkcs8)?).map_err(issuing)?;
        Ok(ClusterRoot { cert: cert.der().to_vec(), key: key.pkcs8 })
    }

    /// From what was kept; `Invalid` unless the key is the certificate's.
    pub fn load(cert_der: &[u8], key_der: &[u8]) -> Result<Self> {
        if certificate_key(cert_der)? != ServerKey::load(key_der)?.spki {
            return Err(Error::invalid("the cluster's root certificate and key do not belong together"));
        }
        Ok(ClusterRoot { cert: cert_der.to_vec(), key: key_der.to_vec() })
    }

    /// Certificate, DER.
    pub fn cert_der(&self) -> &[u8] {
        &self.cert
    }

    /// Private key, PKCS#8 DER. Secret: who has it can be any server of the cluster.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// BLAKE3 of the certificate: what join tokens and invites carry.
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&self.cert)
    }

    /// A server's certificate, DER, for its public key (SubjectPublicKeyInfo). The caller has
    /// checked that the key belongs to the holder of this id: a certificate is all that it takes
    /// to act as that server.
    pub fn issue(&self, id: ServerId, cluster: ClusterId, spki: &[u8], now_ms: u64, validity: Duration) -> Result<Vec<u8>> {
        let key = SubjectPublicKeyInfo::from_der(spki).ok().filter(|_| spki.len() == 44 && spki.starts_with(&SPKI_PREFIX));
        let key = key.ok_or_else(|| Error::invalid("not an Ed25519 public key in SubjectPublicKeyInfo form"))?;
        let issued = now_ms.to_be_bytes();
        let mut params = params(&id.to_string(), now_ms, validity.as_millis() as u64, &[spki, id.to_string().as_bytes(), &issued]);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for name in id.names(&cluster) {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(issuing)?));
        }
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(&self.cert[..]), key_pair(&self.key)?).map_err(issuing)?;
        Ok(params.signed_by(&key, &issuer).map_err(issuing)?.der().to_vec())
    }
}

/// What all our certificates have in common. The serial number is 16 bytes of a hash, of fixed
/// length in DER, and the same whenever the same is issued.
fn params(common_name: &str, now_ms: u64, validity_ms: u64, serial: &[&[u8]]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // Not when it was issued: servers whose clocks differ must be able to tell each other so.
    params.not_before = epoch;
    params.not_after = epoch + Duration::from_millis(now_ms.saturating_add(validity_ms));
    let mut number: [u8; 16] = [0; 16];
    number.copy_from_slice(&model::signed::hash_parts(serial).0[..16]);
    number[0] = number[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&number));
    params.use_authority_key_identifier_extension = true;
    params
}

fn issuing(e: rcgen::Error) -> Error {
    Error::invalid(format!("a certificate cannot be issued: {e}"))
}

/// What a server's certificate says. Nothing of it is verified: [`certificate_info`] only reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whose it is.
    pub id: ServerId,
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Good from, milliseconds since 1970.
    pub not_before_ms: u64,
    /// Good until, milliseconds since 1970.
    pub not_after_ms: u64,
    /// Public key (SubjectPublicKeyInfo, DER).
    pub spki: Vec<u8>,
}

/// Reads a server's certificate; `Invalid` where it is none of ours.
pub fn certificate_info(cert_der: &[u8]) -> Result<CertificateInfo> {
    let cert = parse(cert_der)?;
    let mut names = Vec::new();
    for extension in cert.extensions() {
        if let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() {
            for name in &san.general_names {
                match name {
                    GeneralName::DNSName(name) => names.push(name.to_string()),
                    _ => return Err(Error::invalid("a certificate with a name of a kind that this cluster does not use")),
                }
            }
        }
    }
    let (id, cluster) = ServerId::from_names(&names).ok_or_else(|| Error::invalid("a certificate that names no server of a cluster"))?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Ok(CertificateInfo {
        id,
        cluster,
        not_before_ms: ms(cert.validity().not_before.timestamp()),
        not_after_ms: ms(cert.validity().not_after.timestamp()),
        spki: cert.public_key().raw.to_vec(),
    })
}

/// Public key (SubjectPublicKeyInfo, DER) of any certificate.
pub(crate) fn certificate_key(cert_der: &[u8]) -> Result<Vec<u8>> {
    Ok(parse(cert_der)?.public_key().raw.to_vec())
}

fn parse(cert_der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(cert_der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(Error::invalid("not an X.509 certificate")),
    }
}

#[cfg(test)]
mod tests;
