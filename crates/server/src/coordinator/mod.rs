//! A coordinator: the catalog behind consensus, and the services that clients and nodes call.
//!
//! The first start of the first one makes the cluster: its id, root, login keys, capability key, and
//! the invite of its first admin, all in one command of the log. Further ones join with a token, and get
//! the catalog from the leader. Later starts read all that from the catalog. A coordinator's TLS key
//! lives on its card; its certificate is issued by the root at each start and again before it expires.
//!
//! What a coordinator never does: hold a key that opens anything. This crate cannot name one.

pub mod detector;

mod access;
mod admin;
mod backoff;
mod backup;
mod capability;
mod card;
mod changes;
mod clock;
mod dummy;
mod layouts;
mod link;
mod login;
mod lookups;
mod membership;
mod opaque;
mod part;
mod quiet;
mod recode;
mod recode_chunk;
mod recovery;
mod register;
mod restore;
mod rot;
mod running;
mod service;
mod session;
mod snapshot;
mod state;
mod watch;

use crate::consensus::{CHECKPOINT_EVERY, Consensus, Pace, Roster};
use crate::running::{Tasks, lock_dir};
use card::Card;
use detector::Limits;
use env::{DiskExt, Env};
use membership::new_invite;
use model::account::canonical_name;
use model::command::{Answer, Command, Genesis, Query};
use model::{ClusterId, CoordinatorId, Error, Policy, PublicKey, Result};
use opaque::Opaque;
use part::Part;
pub use restore::{Page, Restored, restore};
pub use running::Running;
use running::{Served, Told};
use service::CoordinatorService;
pub use snapshot::restore_from_nodes;
use state::{State, confused};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use transport::{
    CERTIFICATE_VALIDITY, ClientTls, ClusterRoot, InviteText, JoinToken, Pool, PoolConfig, ServerId, ServerKey, TlsIdentity, Trust,
};

/// Time to connect to another coordinator.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a start waits for a leader.
const ELECTION: Duration = Duration::from_secs(3);
/// How long a start waits for the catalog, after joining.
const CATCH_UP: Duration = Duration::from_secs(15);
/// How long before its certificate expires a server asks for another.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often the catalog is made durable while it changes.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(5);
/// How often the room on the disk is looked at.
const ROOM_PAUSE: Duration = Duration::from_secs(10);
/// With less of it, in bytes, `cluster status` warns: some segments of the log, and the catalog's next growth.
const LITTLE_ROOM: u64 = 256 << 20;
/// How long after a start the first snapshot of the catalog is put onto nodes.
const FIRST_SNAPSHOT: Duration = Duration::from_secs(60);
/// Longest round trip between coordinators, unless told otherwise.
const ROUND_TRIP: Duration = Duration::from_millis(200);
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
    /// Join token, for the first start of a further coordinator; ignored when it is a member already.
    pub join: Option<String>,
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
    /// Longest time that a message between coordinators takes there and back; the same at all of them. Where it
    /// is longer than 200 ms heartbeats come more seldom, and another one leads later after a crash.
    pub round_trip: Duration,
    /// How long after its start a coordinator that is alone puts its first snapshot onto nodes.
    pub first_snapshot: Duration,
}

impl CoordinatorConfig {
    /// The defaults: partition power 16, policy 2+2, invite for `admin`.
    pub fn new(dir: impl Into<PathBuf>, listen: impl Into<String>) -> Self {
        CoordinatorConfig {
            dir: dir.into(),
            listen: listen.into(),
            advertise: None,
            join: None,
            power: 16,
            policy: Policy::DEFAULT,
            root_invite_name: "admin".into(),
            limits: Limits::default(),
            checkpoint_every: CHECKPOINT_EVERY,
            round_trip: ROUND_TRIP,
            first_snapshot: FIRST_SNAPSHOT,
        }
    }
}

/// The coordinator role.
#[derive(Debug)]
pub enum Coordinator {}

impl Coordinator {
    /// Starts a coordinator; answers when it serves. `Conflict` when another process uses its
    /// folder, `Unavailable` when the address cannot be listened on, `Denied` when the token is refused.
    pub async fn start(env: Env, config: CoordinatorConfig) -> Result<Running> {
        let folder = lock_dir(&env, &config.dir).await?;
        let (served, told) = serve(&env, &config, false).await?;
        let again = CoordinatorConfig { listen: told.listen.clone(), advertise: Some(told.address.clone()), join: None, ..config };
        Ok(Running::new(&env, again, served, told, folder))
    }
}

/// Opens a coordinator's folder and serves. `is_damaged`: its database was found so before.
async fn serve(env: &Env, config: &CoordinatorConfig, is_damaged: bool) -> Result<(Served, Told)> {
    let listener = env
        .net
        .bind(&config.listen)
        .await
        .map_err(|e| Error::unavailable(format!("cannot listen on {}: {e}", config.listen)).hint("choose another --listen"))?;
    let bound = listener.local_addr().map_err(|e| Error::unavailable(format!("no address: {e}")))?;
    let address = config.advertise.clone().unwrap_or_else(|| bound.to_string());

    let (card, consensus) = take_seat(env, config, &address).await?;
    consensus.roster().set_damaged(is_damaged);
    let key = ServerKey::load(&card.key)?;
    let identity = TlsIdentity::new(env, &card.root, &card.certificate, &key)?;
    let tls = ClientTls::new(env, Trust::Root(card.root.to_vec()), Some(identity.clone()))?;
    let pool = PoolConfig { connect: CONNECT, ..PoolConfig::default() };
    consensus.roster().connect(Pool::new(env.clone(), tls, pool, None));
    let (me, cluster, fingerprint) = (card.id, card.cluster, model::Hash::of(&card.root));
    let part = Arc::new(Part::new(env.clone(), consensus.clone(), &card, address.clone(), config.limits));
    if let Some(genesis) = part.genesis()? {
        part.open(&genesis)?;
    }

    let mut tasks = Tasks::new(env);
    tasks.serve(listener, identity.clone(), Arc::new(CoordinatorService(part.clone())), limits());
    let (keeping, serving, spki) = (part.clone(), part.clone(), key.spki().to_vec());
    let (card_file, serving_as) = (card::file(&config.dir), identity.clone());
    tasks.background(async move { keeping.keep_place(card, card_file).await });
    tasks.background(async move { serving.serve_catalog(serving_as, spki).await });
    tasks.background(checkpoints(env.clone(), consensus.clone()));
    tasks.background(watch_room(env.clone(), config.dir.clone(), consensus.clone()));
    tasks.background(rot::run(part.clone()));
    tasks.background(snapshot::run(part.clone(), config.dir.clone(), config.first_snapshot));
    let closing = consensus.clone();
    let stop = tasks.into_stop(async move { closing.shutdown().await }, Vec::new());

    let caught_up = settled(env, &part).await;
    let invite = match part.state() {
        Ok(state) => pending_invite(state, config).await?,
        Err(_) => None,
    };
    tracing::info!(%address, %cluster, id = %me, caught_up, "coordinator serves");
    let told = Told { listen: bound.to_string(), address, id: me, cluster, fingerprint, invite, caught_up };
    Ok((Served { consensus, identity, stop }, told))
}

fn limits() -> transport::Limits {
    transport::Limits { max_body: service::PEER_BYTES, ..Default::default() }
}

/// Makes the catalog durable now and then: a crash leaves seconds of the log to be applied again, not hours.
async fn checkpoints(env: Env, consensus: Consensus) {
    loop {
        env.sleep(CHECKPOINT_PAUSE).await;
        if let Err(e) = consensus.checkpoint_if_behind().await {
            tracing::warn!(error = %e, "the catalog could not be made durable; the log has it");
        }
    }
}

/// Looks now and then whether there is room on the disk, so that `cluster status` can say so before it is full.
async fn watch_room(env: Env, dir: PathBuf, consensus: Consensus) {
    loop {
        let (disk, dir) = (env.disk.clone(), dir.clone());
        match env.blocking(move || disk.space(&dir)).await {
            Ok(space) => consensus.roster().set_short_of_room(space.free < LITTLE_ROOM),
            Err(e) => tracing::warn!(error = %e, "the room on the catalog's disk is not known"),
        }
        env.sleep(ROOM_PAUSE).await;
    }
}

/// Waits for the catalog, and for a leader, for as long as that takes normally: then a start that
/// returns has a coordinator to show that can be asked. Whether the catalog is here.
async fn settled(env: &Env, part: &Part) -> bool {
    let ready = async {
        while part.state().is_err() || part.consensus.leader().is_none() {
            env.sleep(Duration::from_millis(50)).await;
        }
    };
    let patience = if part.state().is_ok() { ELECTION } else { CATCH_UP };
    env.timeout(patience, ready).await;
    part.state().is_ok()
}

/// A coordinator's card and its part in the group: what they were, or by joining, or, in a fresh
/// folder without a token, by making a cluster.
async fn take_seat(env: &Env, config: &CoordinatorConfig, address: &str) -> Result<(Card, Consensus)> {
    let file = card::file(&config.dir);
    let token = config.join.as_deref().map(JoinToken::parse).transpose()?;
    let used = env.disk.try_exists(&config.dir.join("catalog.redb"));
    let used = used.map_err(|e| Error::unavailable(format!("{}: {e}", config.dir.display())))?;
    let (card, joined) = match (Card::read(env, &file).await?, token) {
        (Some(card), token) => {
            if token.is_some() {
                tracing::info!(id = %card.id, "this coordinator is a member already: the join token is not used");
            }
            (Some(card), false)
        }
        (None, Some(_)) if used => {
            return Err(Error::invalid(format!("{} holds a catalog already: it cannot join a cluster", config.dir.display()))
                .hint("choose an empty folder for --dir"));
        }
        (None, Some(token)) => {
            let card = Card::join(env, &token).await?;
            tracing::info!(id = %card.id, "joined the cluster");
            (Some(card), true)
        }
        (None, None) => (None, false),
    };
    let me = card.as_ref().map_or(CoordinatorId(1), |card| card.id);
    let roster = Roster::new(env.clone(), me);
    if let Some(card) = &card {
        card.peers.iter().for_each(|(id, address)| roster.hint(*id, address));
    }
    if let Some(card) = card.as_ref().filter(|_| joined) {
        card.write(env, &file).await?;
    }
    let pace = Pace { checkpoint_every: config.checkpoint_every, round_trip: config.round_trip };
    let consensus = Consensus::start(env.clone(), &config.dir, roster, pace, card.is_none()).await?;
    let genesis = match (stored(&consensus)?, &card) {
        (Some(genesis), _) => genesis,
        (None, Some(card)) => return Ok((card.clone(), consensus)),
        (None, None) => {
            let genesis = match consensus.query(Query::Genesis).await? {
                Answer::Genesis(Some(genesis)) => genesis,
                _ => found(env, &consensus, config, address).await?,
            };
            // From here on every start finds it, whoever leads.
            consensus.checkpoint().await?;
            genesis
        }
    };
    let card = match card {
        Some(mut card) => {
            card.certify(env, &ClusterRoot::load(&genesis.root_cert, &genesis.root_key)?)?;
            card
        }
        None => Card::issue(env, &genesis, me)?,
    };
    card.write(env, &file).await?;
    Ok((card, consensus))
}

/// The catalog's first row, as far as it was applied here.
fn stored(consensus: &Consensus) -> Result<Option<Box<Genesis>>> {
    match consensus.query_local(&Query::Genesis)? {
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
    stored(consensus)?.ok_or_else(confused)
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
    let Answer::Totals(totals) = state.consensus.query_local(&Query::Totals)? else { return Err(confused()) };
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

/// Renews this coordinator's own certificate before it expires. The card gets it at the next start.
async fn renew(state: Arc<State>, identity: Arc<TlsIdentity>, spki: Vec<u8>) {
    loop {
        // A clock that was back when this one started may have been set since.
        state.env.sleep(Duration::from_secs(60)).await;
        let now = state.env.now_ms();
        if identity.not_after_ms() > now + RENEW_BEFORE.as_millis() as u64 {
            continue;
        }
        let fresh = state.root.issue(ServerId::Coordinator(state.me), state.cluster, &spki, now, CERTIFICATE_VALIDITY);
        if let Err(e) = fresh.and_then(|certificate| identity.replace(&certificate)) {
            tracing::warn!(error = %e, "the certificate could not be renewed");
        }
    }
}
