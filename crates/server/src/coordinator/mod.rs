//! A coordinator: the catalog behind consensus, and the services that clients and nodes call.
//!
//! The first start makes the cluster: its id, root, login keys, capability key, and the invite of
//! its first admin, all in one command of the log. Later starts read them from the catalog. The
//! server's own TLS key lives as long as the process; its certificate is issued by the root at each
//! start and again before it expires.
//!
//! What a coordinator never does: hold a key that opens anything. This crate cannot name one.

pub mod detector;

mod access;
mod admin;
mod backoff;
mod capability;
mod dummy;
mod layouts;
mod login;
mod membership;
mod opaque;
mod quiet;
mod register;
mod service;
mod session;
mod state;
mod watch;

use crate::consensus::{CHECKPOINT_EVERY, Consensus};
use crate::running::{Stop, Tasks, lock_dir};
use detector::Limits;
use env::{DiskExt, Env};
use membership::new_invite;
use model::account::canonical_name;
use model::command::{Answer, Command, Genesis, Query};
use model::{ClusterId, CoordinatorId, Error, Policy, PublicKey, Result};
use opaque::Opaque;
use service::CoordinatorService;
use state::{Keys, State, confused};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use transport::{CERTIFICATE_VALIDITY, ClusterRoot, InviteText, ServerId, ServerKey, TlsIdentity};
use wire::coordinator::HelloResponse;

/// How long before its certificate expires a server asks for another.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the first admin's invite is good.
const INVITE_MS: u64 = 7 * 24 * 3600 * 1000;

/// How to start a coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where it keeps its log and catalog. Made (0700) when missing; used by one process at a time.
    pub dir: PathBuf,
    /// `host:port` to listen on; port 0 takes a free one.
    pub listen: String,
    /// `host:port` that others connect to; by default the address listened on.
    pub advertise: Option<String>,
    /// Partition power of a new cluster.
    pub power: u8,
    /// Default policy of a new cluster.
    pub policy: Policy,
    /// Account name of a new cluster's first admin.
    pub root_invite_name: String,
    /// When silent nodes count as suspect, down and out.
    pub limits: Limits,
    /// Changes after which the catalog is made durable; before that the log has them.
    pub checkpoint_every: u64,
}

impl CoordinatorConfig {
    /// The defaults: partition power 16, policy 2+2, invite for `admin`.
    pub fn new(dir: impl Into<PathBuf>, listen: impl Into<String>) -> Self {
        CoordinatorConfig {
            dir: dir.into(),
            listen: listen.into(),
            advertise: None,
            power: 16,
            policy: Policy::DEFAULT,
            root_invite_name: "admin".into(),
            limits: Limits::default(),
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }
}

/// The coordinator role.
#[derive(Debug)]
pub enum Coordinator {}

/// A coordinator that serves.
pub struct Running {
    /// Address that others connect to.
    pub address: String,
    /// The cluster.
    pub cluster: ClusterId,
    /// Fingerprint of the cluster root (BLAKE3 of its certificate): what clients pin.
    pub fingerprint: model::Hash,
    /// Invite of the first admin, as long as nobody has registered. Secret.
    pub invite: Option<String>,
    stop: Stop,
}

impl Running {
    /// Stops serving and closes the catalog, within 5 s.
    pub async fn shutdown(self) {
        self.stop.stop().await;
    }
}

impl Coordinator {
    /// Starts a coordinator; answers when it serves. `Conflict` when another process uses its
    /// folder, `Unavailable` when the address cannot be listened on.
    pub async fn start(env: Env, config: CoordinatorConfig) -> Result<Running> {
        let lock = lock_dir(&env, &config.dir).await?;
        let listener = env
            .net
            .bind(&config.listen)
            .await
            .map_err(|e| Error::unavailable(format!("cannot listen on {}: {e}", config.listen)).hint("choose another --listen"))?;
        let bound = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?;
        let address = config.advertise.clone().unwrap_or_else(|| bound.to_string());
        let me = CoordinatorId(1);
        let consensus = Consensus::start(env.clone(), &config.dir, me, config.checkpoint_every).await?;
        let genesis = match stored(&consensus).await? {
            Some(genesis) => genesis,
            None => found(&env, &consensus, &config, &address).await?,
        };
        let root = ClusterRoot::load(&genesis.root_cert, &genesis.root_key)?;
        let fingerprint = root.fingerprint();
        let key = ServerKey::generate(&env)?;
        let certificate = root.issue(ServerId::Coordinator(me), genesis.cluster, key.spki(), env.now_ms(), CERTIFICATE_VALIDITY)?;
        let identity = TlsIdentity::new(&env, root.cert_der(), &certificate, &key)?;
        let keys = Keys {
            root,
            opaque: Opaque::load(&genesis.opaque_setup, genesis.cluster)?,
            capability: ed25519_dalek::SigningKey::from_bytes(&genesis.capability_seed),
        };
        let state = Arc::new(State::new(env.clone(), consensus, genesis.cluster, me, address.clone(), keys, config.limits));
        let invite = pending_invite(&state, &config).await?;
        let mut tasks = Tasks::new(&env);
        let service = Arc::new(CoordinatorService(state.clone()));
        tasks.serve(listener, identity.clone(), service, transport::Limits { max_body: service::COMMIT_BYTES, ..Default::default() });
        tasks.background(watch::run(state.clone()));
        tasks.background(renew(state.clone(), identity, key));
        tracing::info!(%address, cluster = %genesis.cluster, "coordinator serves");
        let consensus = state.consensus.clone();
        let stop = tasks.into_stop(async move { consensus.shutdown().await }, vec![lock]);
        Ok(Running { address, cluster: genesis.cluster, fingerprint, invite, stop })
    }
}

async fn stored(consensus: &Consensus) -> Result<Option<Box<Genesis>>> {
    match consensus.query(Query::Genesis).await? {
        Answer::Genesis(genesis) => Ok(genesis),
        _ => Err(confused()),
    }
}

/// Makes the cluster. The invite's text is on disk before the command that makes it valid, so that a
/// crash between the two does not lock everybody out.
async fn found(env: &Env, consensus: &Consensus, config: &CoordinatorConfig, address: &str) -> Result<Box<Genesis>> {
    config.policy.check()?;
    if config.power > model::Layout::MAX_POWER {
        return Err(Error::invalid(format!("the partition power is at most {}", model::Layout::MAX_POWER)));
    }
    let cluster = ClusterId(env.random());
    let root = ClusterRoot::generate(cluster, env.now_ms(), env)?;
    let capability_seed = env.random();
    let capability = ed25519_dalek::SigningKey::from_bytes(&capability_seed);
    let name = canonical_name(&config.root_invite_name)?;
    let (invite, secret) = new_invite(env, name, true, None, env.now_ms() + INVITE_MS);
    let text = InviteText {
        root: root.fingerprint(),
        id: invite.id,
        secret,
        name: invite.name.clone(),
        expires_ms: invite.expires_ms,
        coordinators: vec![address.into()],
    };
    write_invite(env, config, &text.to_text()).await?;
    let genesis = Genesis {
        cluster,
        opaque_setup: Opaque::make(env).into(),
        root_cert: root.cert_der().to_vec().into(),
        root_key: root.key_der().to_vec().into(),
        capability_seed,
        capability_key: PublicKey(capability.verifying_key().to_bytes()),
        policy: config.policy,
        power: config.power,
        coordinator: model::cluster::Coordinator {
            id: CoordinatorId(1),
            address: address.into(),
            key: model::Hash::default(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        invite,
    };
    let proposal = model::command::Proposal {
        request: model::RequestId::new(env.now_ms(), env.random()),
        account: None,
        command: Command::Init(Box::new(genesis)),
        time_ms: env.now_ms(),
    };
    consensus.propose(proposal).await?;
    tracing::info!(%cluster, policy = %config.policy, power = config.power, "a new cluster is made");
    stored(consensus).await?.ok_or_else(confused)
}

fn invite_file(config: &CoordinatorConfig) -> PathBuf {
    config.dir.join("admin-invite")
}

async fn write_invite(env: &Env, config: &CoordinatorConfig, text: &str) -> Result<()> {
    let (disk, path, bytes) = (env.disk.clone(), invite_file(config), text.as_bytes().to_vec());
    env.blocking(move || disk.replace(&path, &bytes)).await.map_err(|e| Error::unavailable(format!("cannot write the admin invite: {e}")))
}

/// The first admin's invite, as long as nobody has registered; after that its file goes.
async fn pending_invite(state: &State, config: &CoordinatorConfig) -> Result<Option<String>> {
    let Answer::Totals(totals) = state.ask(Query::Totals).await? else { return Err(confused()) };
    let (disk, path, unused) = (state.env.disk.clone(), invite_file(config), totals.accounts == 0);
    let text = state.env.blocking(move || {
        let text = disk.read(&path).ok().filter(|_| unused);
        if !unused && disk.exists(&path) {
            let _ = disk.remove_file(&path); // tried again at the next start
        }
        text
    });
    Ok(text.await.and_then(|bytes| String::from_utf8(bytes).ok()))
}

/// Renews this coordinator's own certificate before it expires.
async fn renew(state: Arc<State>, identity: Arc<TlsIdentity>, key: ServerKey) {
    loop {
        state.env.sleep(Duration::from_secs(3600)).await;
        let now = state.env.now_ms();
        if identity.not_after_ms() > now + RENEW_BEFORE.as_millis() as u64 {
            continue;
        }
        let fresh = state.root.issue(ServerId::Coordinator(state.me), state.cluster, key.spki(), now, CERTIFICATE_VALIDITY);
        if let Err(e) = fresh.and_then(|certificate| identity.replace(&certificate)) {
            tracing::warn!(error = %e, "the certificate could not be renewed");
        }
    }
}

impl State {
    pub async fn hello(&self) -> Result<HelloResponse> {
        let leader = if self.consensus.is_leader() { Some(self.address.clone()) } else { None };
        Ok(HelloResponse {
            protocol: wire::PROTOCOL,
            software: env!("CARGO_PKG_VERSION").into(),
            cluster: self.cluster,
            leader,
            root: self.root.cert_der().to_vec().into(),
        })
    }
}
