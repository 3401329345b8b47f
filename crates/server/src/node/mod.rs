//! A node: shards on its disks, served to whoever holds a capability, and kept whole.
//!
//! The first start joins the cluster with a token; later starts need none. A node trusts the cluster
//! root alone: coordinators and other nodes are who their certificates say, clients what their
//! capabilities say.
//!
//! What a node never does: drop a shard because a client says so. There is no such request.

mod admission;
mod aside;
mod brake;
mod card;
mod collect;
mod generations;
mod handover;
mod heartbeat;
mod link;
mod map;
mod plan;
mod rebuild;
mod reconcile;
mod service;
mod snapshots;
mod state;
mod tally;
mod upkeep;
mod votes;
mod walk;

use crate::running::{Stop, Tasks, lock_dir};
use card::Card;
use env::Env;
use heartbeat::Pulse;
use link::Link;
use model::command::{Answer, Query};
use model::{ClusterId, DeviceId, Error, NodeId, Result};
use service::NodeService;
use shards::ShardStore;
use state::{Device, State};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use transport::{ClientTls, JoinToken, Pool, PoolConfig, ServerKey, TlsIdentity, Trust};

/// How long a start waits for a coordinator to take the first heartbeat before it serves without.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);
/// Bytes of shards on their way in at a time: a dozen keep disk and network busy.
const BODIES: usize = 24 << 20;

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// One folder a device; the first also keeps the node's card. Made (0700) when missing.
    pub dirs: Vec<PathBuf>,
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: String,
    /// `host:port` that others connect to; by default the address listened on.
    pub advertise: Option<String>,
    /// Join token, for the first start; ignored when the node is a member already.
    pub join: Option<String>,
    /// Failure zone; empty: the node is a zone of its own.
    pub zone: String,
    /// Usable bytes of each folder; `None`: what its file system has.
    pub capacity: Option<u64>,
    /// Wants to be taken in as soon as it has joined, without an operator's asking for it.
    pub auto_add: bool,
    /// Addresses at which to look for coordinators first, beside those that it knows: after a restore.
    pub coordinators: Vec<String>,
}

impl NodeConfig {
    /// One folder, no token, no zone.
    pub fn new(dir: impl Into<PathBuf>, listen: impl Into<String>) -> Self {
        NodeConfig {
            dirs: vec![dir.into()],
            listen: listen.into(),
            advertise: None,
            join: None,
            zone: String::new(),
            capacity: None,
            auto_add: false,
            coordinators: Vec::new(),
        }
    }
}

/// The node role.
#[derive(Debug)]
pub enum Node {}

/// A node that serves.
pub struct Running {
    /// Address that others connect to.
    pub address: String,
    /// Id.
    pub node: NodeId,
    /// Cluster.
    pub cluster: ClusterId,
    /// Devices, in the order of the folders.
    pub devices: Vec<DeviceId>,
    state: Arc<State>,
    stop: Stop,
}

impl Running {
    /// Stops serving and closes the stores, within 5 s.
    pub async fn shutdown(self) {
        self.stop.stop().await;
    }

    /// Reads and checks every shard now; answers how many were bad (set aside, and to be rebuilt).
    pub async fn scrub_now(&self) -> u64 {
        let mut bad = 0;
        for device in &self.state.devices {
            bad += upkeep::scrub_now(&self.state, device).await;
        }
        bad
    }

    /// Drops shards of earlier codings whose grace is over, now; answers how many that were.
    pub async fn drop_outdated_now(&self) -> Result<u64> {
        let now_ms = self.state.memory().catalog_ms;
        generations::sweep_now(&self.state, now_ms, self.state.brake.backed_ms()).await
    }

    /// Drops shards of uploads that have expired, now; answers how many objects that were.
    pub async fn collect_now(&self) -> Result<u64> {
        collect::collect_now(&self.state).await
    }
}

impl Node {
    /// Starts a node; answers when it serves. `Denied` when the token is refused or there is none and
    /// the folder belongs to no node, `Conflict` when another process uses a folder.
    pub async fn start(env: Env, config: NodeConfig) -> Result<Running> {
        let first = config.dirs.first().ok_or_else(|| Error::invalid("a node needs at least one folder"))?;
        let mut locks = Vec::new();
        for dir in &config.dirs {
            locks.push(lock_dir(&env, dir).await?);
        }
        let listener = env
            .net
            .bind(&config.listen)
            .await
            .map_err(|e| Error::unavailable(format!("cannot listen on {}: {e}", config.listen)).hint("choose another --listen"))?;
        let bound = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?;
        let address = config.advertise.clone().unwrap_or_else(|| bound.to_string());

        let mut devices = Vec::new();
        let mut failed = Vec::new();
        for dir in &config.dirs {
            match open_device(&env, dir, config.capacity).await {
                Ok(device) => devices.push(device),
                // The card is in the first folder. Without one of the others the rest is served.
                Err(e) if dir != first && e.kind != model::Kind::Conflict => {
                    tracing::error!(dir = %dir.display(), error = %e, "this folder cannot be opened: the node goes on without it");
                    failed.push(format!("a folder of the node cannot be opened: {}", e.message));
                }
                Err(e) => return Err(e),
            }
        }
        let card_file = card::file(first);
        let card = match membership(&env, &config, &card_file, &devices).await {
            Ok(card) => card,
            Err(e) => {
                // Closed now, not at some time: whoever corrects the mistake starts again at once.
                for device in &devices {
                    device.store.close().await?;
                }
                return Err(e);
            }
        };

        let Way { key, identity, pool, link } = Way::new(&env, &config, &card)?;
        let (node, cluster, ids) = (card.node, card.cluster, devices.iter().map(|d| d.id).collect());
        let state = Arc::new(State::new(env.clone(), node, devices, pool, Arc::new(link)));

        state.load_brake().await;

        let mut pulse = Pulse {
            state: state.clone(),
            identity: identity.clone(),
            key,
            card,
            card_file,
            address: address.clone(),
            zone: config.zone.clone(),
            auto_add: config.auto_add,
            started_ms: env.now_ms(),
        };
        // With a coordinator in reach the node is known, and knows the map, when its start returns.
        // Without one it still serves its shards to peers and holders.
        let known = async {
            pulse.beat().await?;
            state.map.refresh(&state.link).await.map(|_| ())
        };
        match env.timeout(FIRST_HEARTBEAT, known).await {
            Some(Err(e)) if e.kind == model::Kind::Denied => return Err(e),
            Some(Err(e)) => tracing::warn!(error = %e, "no coordinator takes this node's heartbeat"),
            Some(Ok(())) => {}
            None => tracing::warn!("no coordinator answers yet"),
        }

        let mut tasks = Tasks::new(&env);
        let service = Arc::new(NodeService(state.clone()));
        tasks.serve(listener, identity, service, transport::Limits { body_budget: BODIES, ..transport::Limits::default() });
        tasks.background(pulse.run());
        let told = state.clone();
        tasks.background(async move {
            for detail in failed {
                told.link.report("device-failed", detail).await;
            }
            told.link.keep_telling(&told.env).await;
        });
        tasks.background(heartbeat::keep_map(state.clone()));
        tasks.background(reconcile::run(state.clone()));
        tasks.background(handover::run(state.clone()));
        tasks.background(upkeep::scrub(state.clone()));
        tasks.background(upkeep::compact(state.clone()));
        tasks.background(collect::run(state.clone()));
        tasks.background(generations::run(state.clone()));
        tracing::info!(%node, %address, "node serves");
        let closing = state.clone();
        let close = async move {
            for device in &closing.devices {
                if let Err(e) = device.store.close().await {
                    tracing::warn!(device = %device.id, error = %e, "a store did not close cleanly");
                }
            }
        };
        Ok(Running { address, node, cluster, devices: ids, state, stop: tasks.into_stop(close, locks) })
    }
}

/// How a node that has a card proves who it is, and reaches the others.
struct Way {
    key: ServerKey,
    identity: Arc<TlsIdentity>,
    pool: Pool,
    link: Link,
}

impl Way {
    fn new(env: &Env, config: &NodeConfig, card: &Card) -> Result<Self> {
        let key = ServerKey::load(&card.key)?;
        let identity = TlsIdentity::new(env, &card.root, &card.certificate, &key)?;
        let tls = ClientTls::new(env, Trust::Root(card.root.to_vec()), Some(identity.clone()))?;
        let pool = Pool::new(env.clone(), tls, PoolConfig::default(), None);
        let link = Link::new(env.clone(), pool.clone(), known_coordinators(config, card));
        Ok(Way { key, identity, pool, link })
    }
}

/// Where to look for coordinators: those of the command line first.
fn known_coordinators(config: &NodeConfig, card: &Card) -> Vec<String> {
    let mut known = config.coordinators.clone();
    known.extend(card.coordinators.iter().filter(|address| !config.coordinators.contains(address)).cloned());
    known
}

async fn open_device(env: &Env, dir: &Path, capacity: Option<u64>) -> Result<Device> {
    let store = ShardStore::open(env.clone(), &dir.join("shards"), capacity).await?;
    let device = Device { id: store.device(), dir: dir.to_path_buf(), store };
    walk::mark_suspect(env, &device).await;
    Ok(device)
}

/// The node's card: the one on disk, or a new one by joining.
///
/// A member that is given a token all the same keeps its card, unless none of the devices with which
/// it joined is there any more: then its disks were lost, and the token says whose slots the new
/// ones take. Whoever is no member any more, since it was removed, or since a catalog was restored that
/// does not know it yet, joins anew with a new token and keeps its shards: whom they belong to gets them from it.
async fn membership(env: &Env, config: &NodeConfig, file: &Path, devices: &[Device]) -> Result<Card> {
    let card = Card::read(env, file).await?;
    let token = config.join.as_deref().map(JoinToken::parse).transpose()?;
    let ids: Vec<DeviceId> = devices.iter().map(|d| d.id).collect();
    match (card, token) {
        (Some(card), token) if ids.iter().any(|id| card.devices.contains(id)) => match token {
            Some(token) if token.id != card.token && is_no_member(env, config, &card).await => {
                tracing::warn!(node = %card.node, "the cluster does not know this node: it joins anew with what it holds");
                joined(env, file, &token, ids).await
            }
            Some(_) => {
                tracing::info!(node = %card.node, "this node is a member already: the join token is not used");
                Ok(card)
            }
            None => Ok(card),
        },
        (Some(card), None) => {
            tracing::warn!(node = %card.node, "this node's disks are not those with which it joined: to rebuild what they held, \
                make a token with `shardkeep cluster token node --replace` and start it with --join");
            Ok(card)
        }
        (_, Some(token)) => joined(env, file, &token, ids).await,
        (None, None) => {
            Err(Error::denied(format!("{} belongs to no node yet: a join token is needed", file.parent().unwrap_or(file).display()))
                .hint("shardkeep cluster token node"))
        }
    }
}

async fn joined(env: &Env, file: &Path, token: &JoinToken, devices: Vec<DeviceId>) -> Result<Card> {
    let card = Card::join(env, token, devices).await?;
    card.write(env, file).await?;
    tracing::info!(node = %card.node, "joined the cluster");
    Ok(card)
}

/// Whether the catalog says that it does not know a node. Where nobody answers it may know it.
async fn is_no_member(env: &Env, config: &NodeConfig, card: &Card) -> bool {
    let asked = async {
        let way = Way::new(env, config, card)?;
        match way.link.ask(&Query::Cluster).await? {
            Answer::Cluster(view) => Ok(view.nodes.iter().all(|n| n.id != card.node)),
            _ => Err(link::confused()),
        }
    };
    matches!(env.timeout(FIRST_HEARTBEAT, asked).await, Some(Ok(true)))
}
