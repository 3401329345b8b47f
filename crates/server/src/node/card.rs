//! A node's membership card: who it is, its key, its certificate, and whom to trust. Kept in one file
//! of its first folder (0600), replaced as a whole.
//!
//! Joining: the node checks the coordinator's chain against the root that the token pins, proves the
//! token's secret over this very connection and its own fresh public key, and gets a certificate for
//! that key. A crash between the certificate and the file costs a token, never a half-made member.

use env::{DiskExt, Env};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::cluster::ServerRole;
use model::{ClusterId, DeviceId, Error, Hash, Kind, NodeId, Result, TokenId, cbor};
use std::path::{Path, PathBuf};
use std::time::Duration;
use transport::{ClientTls, Coordinators, JoinToken, Mode, Pool, PoolConfig, ServerKey, Target, Trust, join_proof};
use wire::coordinator::{Join, JoinRequest};

/// Deadline of a join at one coordinator.
const DEADLINE: Duration = Duration::from_secs(10);

/// The card's file, format 1: CBOR of this struct.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Card {
    /// Format: 1.
    #[n(0)]
    pub version: u8,
    #[n(1)]
    pub cluster: ClusterId,
    #[n(2)]
    pub node: NodeId,
    /// Cluster root certificate, DER.
    #[n(3)]
    pub root: ByteVec,
    /// Private key, PKCS#8 DER. Secret.
    #[n(4)]
    pub key: ByteVec,
    /// Certificate, DER.
    #[n(5)]
    pub certificate: ByteVec,
    /// Addresses of coordinators.
    #[n(6)]
    pub coordinators: Vec<String>,
    /// The token with which it joined: presented again, it is ignored.
    #[n(7)]
    pub token: TokenId,
    /// Devices that it had when it joined. None of them there any more: its disks were lost.
    #[n(8)]
    pub devices: Vec<DeviceId>,
}

/// Where the card lies.
pub(crate) fn file(first_dir: &Path) -> PathBuf {
    first_dir.join("node")
}

impl Card {
    const VERSION: u8 = 1;

    /// Reads the card; `None` when the folder belongs to no node.
    pub async fn read(env: &Env, file: &Path) -> Result<Option<Card>> {
        let (disk, path) = (env.disk.clone(), file.to_path_buf());
        let bytes = match env.blocking(move || disk.read_settled(&path)).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::unavailable(format!("cannot read {}: {e}", file.display()))),
        };
        let damaged = || Error::corrupt(format!("{} is damaged", file.display()));
        // A later version may have more on it: it says so first.
        let version = cbor::from_slice::<Card>(&bytes).map_err(|_| damaged())?.version;
        if version != Self::VERSION {
            return Err(Error::invalid(format!("{} has format {version}, which this version does not know", file.display())));
        }
        cbor::from_canonical(&bytes).map(Some).map_err(|_| damaged())
    }

    pub async fn write(&self, env: &Env, file: &Path) -> Result<()> {
        let (disk, path, bytes) = (env.disk.clone(), file.to_path_buf(), cbor::to_vec(self));
        let written = env.blocking(move || disk.replace(&path, &bytes)).await;
        written.map_err(|e| Error::unavailable(format!("cannot write {}: {e}", file.display())))
    }

    /// Joins the cluster with a token, at the first of its coordinators that answers.
    pub async fn join(env: &Env, token: &JoinToken, devices: Vec<DeviceId>) -> Result<Card> {
        if token.role != ServerRole::Node {
            return Err(Error::denied("this join token is not for a node").hint("shardkeep cluster token node"));
        }
        let key = ServerKey::generate(env)?;
        let tls = ClientTls::new(env, Trust::Fingerprint(token.root), None)?;
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        let mut last = Error::invalid("this join token names no coordinator");
        for address in Coordinators::new(env.clone(), pool.clone(), token.coordinators.clone()).leader_first().await {
            match Self::join_at(&pool, &address, token, &key, &devices).await {
                Err(e) if e.kind == Kind::Unavailable => last = e,
                other => return other,
            }
        }
        Err(last)
    }

    async fn join_at(pool: &Pool, address: &str, token: &JoinToken, key: &ServerKey, devices: &[DeviceId]) -> Result<Card> {
        let target = Target::coordinator(address).with(Mode::Control);
        let mut connection = pool.connect_once(&target, DEADLINE).await?;
        let proof = join_proof(&token.secret, token.id, ServerRole::Node, &connection.binding().exporter, key.spki());
        let request = JoinRequest {
            token: token.id,
            role: ServerRole::Node,
            key: key.spki().to_vec().into(),
            proof: proof.to_vec().into(),
            protocol: wire::PROTOCOL,
        };
        let answer = connection.rpc::<Join>(&request, DEADLINE).await?;
        if Hash::of(&answer.root) != token.root {
            return Err(Error::denied("the coordinator names another cluster root than the join token"));
        }
        let node = answer.node.ok_or_else(super::link::confused)?;
        let mut coordinators: Vec<String> = answer.coordinators.into_iter().map(|(_, address)| address).collect();
        coordinators.extend(token.coordinators.iter().filter(|a| !coordinators.contains(a)).cloned().collect::<Vec<_>>());
        Ok(Card {
            version: Self::VERSION,
            cluster: answer.cluster,
            node,
            root: answer.root,
            key: key.pkcs8().to_vec().into(),
            certificate: answer.certificate,
            coordinators,
            token: token.id,
            devices: devices.to_vec(),
        })
    }
}
