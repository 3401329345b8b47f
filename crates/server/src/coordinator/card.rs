//! A coordinator's card: who it is, its key and certificate, whom to trust, and where the others
//! are. Kept in one file of its folder (0600), replaced as a whole, so that it can serve its peers
//! before it has any catalog.
//!
//! A folder of the first version has a log and no card; it was the only coordinator, number 1.

use crate::consensus::Roster;
use env::{DiskExt, Env};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::cluster::ServerRole;
use model::command::Genesis;
use model::{ClusterId, CoordinatorId, Error, Hash, Kind, Result, cbor};
use std::path::{Path, PathBuf};
use std::time::Duration;
use transport::{
    CERTIFICATE_VALIDITY, ClientTls, ClusterRoot, Coordinators, JoinToken, Mode, Pool, PoolConfig, ServerId, ServerKey, Target, Trust,
    join_proof,
};
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
    pub id: CoordinatorId,
    /// Cluster root certificate, DER.
    #[n(3)]
    pub root: ByteVec,
    /// Private key, PKCS#8 DER. Secret.
    #[n(4)]
    pub key: ByteVec,
    /// Certificate, DER.
    #[n(5)]
    pub certificate: ByteVec,
    /// Where the other coordinators are, in order of id.
    #[n(6)]
    pub peers: Vec<(CoordinatorId, String)>,
}

/// Where the card lies.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("coordinator")
}

impl Card {
    const VERSION: u8 = 1;

    /// Reads the card; `None` when there is none.
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

    /// Of a coordinator that has the catalog, with a fresh key.
    pub fn issue(env: &Env, genesis: &Genesis, id: CoordinatorId) -> Result<Card> {
        Self::issue_with(env, genesis, id, &ServerKey::generate(env)?)
    }

    /// The same with a given key.
    pub fn issue_with(env: &Env, genesis: &Genesis, id: CoordinatorId, key: &ServerKey) -> Result<Card> {
        let mut card = Card {
            version: Self::VERSION,
            cluster: genesis.cluster,
            id,
            root: genesis.root_cert.clone(),
            key: key.pkcs8().to_vec().into(),
            certificate: Vec::new().into(),
            peers: Vec::new(),
        };
        card.certify(env, &ClusterRoot::load(&genesis.root_cert, &genesis.root_key)?)?;
        Ok(card)
    }

    /// Issues its own certificate anew.
    pub fn certify(&mut self, env: &Env, root: &ClusterRoot) -> Result<()> {
        let key = ServerKey::load(&self.key)?;
        let id = ServerId::Coordinator(self.id);
        self.certificate = root.issue(id, self.cluster, key.spki(), env.now_ms(), CERTIFICATE_VALIDITY)?.into();
        Ok(())
    }

    /// What is known of the others goes onto the card; whether it says anything new.
    pub fn note_peers(&mut self, roster: &Roster) -> bool {
        let peers = roster.all();
        let new = peers != self.peers;
        self.peers = peers;
        new
    }

    /// Joins the cluster with a token, at the first of its coordinators that takes it.
    pub async fn join(env: &Env, token: &JoinToken) -> Result<Card> {
        if token.role != ServerRole::Coordinator {
            return Err(Error::denied("this join token is not for a coordinator").hint("shardkeep cluster token coordinator"));
        }
        let key = ServerKey::generate(env)?;
        let tls = ClientTls::new(env, Trust::Fingerprint(token.root), None)?;
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        let mut last = Error::invalid("this join token names no coordinator");
        for address in Coordinators::new(env.clone(), pool.clone(), token.coordinators.clone()).leader_first().await {
            match Self::join_at(&pool, &address, token, &key).await {
                Err(e) if e.kind == Kind::Unavailable => last = e,
                other => return other,
            }
        }
        Err(last)
    }

    async fn join_at(pool: &Pool, address: &str, token: &JoinToken, key: &ServerKey) -> Result<Card> {
        let target = Target::coordinator(address).with(Mode::Control);
        let mut connection = pool.connect_once(&target, DEADLINE).await?;
        let proof = join_proof(&token.secret, token.id, ServerRole::Coordinator, &connection.binding().exporter, key.spki());
        let request = JoinRequest {
            token: token.id,
            role: ServerRole::Coordinator,
            key: key.spki().to_vec().into(),
            proof: proof.to_vec().into(),
            protocol: wire::PROTOCOL,
        };
        let answer = connection.rpc::<Join>(&request, DEADLINE).await?;
        if Hash::of(&answer.root) != token.root {
            return Err(Error::denied("the coordinator names another cluster root than the join token"));
        }
        let id = answer.coordinator.ok_or_else(super::state::confused)?;
        Ok(Card {
            version: Self::VERSION,
            cluster: answer.cluster,
            id,
            root: answer.root,
            key: key.pkcs8().to_vec().into(),
            certificate: answer.certificate,
            peers: answer.coordinators,
        })
    }
}
