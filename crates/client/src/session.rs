//! A logged-in client: the account's keys, its home space, and what it may ask.

use crate::connection::{Cluster, unexpected};
use crate::login;
use crate::notes::NotesAge;
use crate::profile::Profile;
use crate::spaces::{Space, Spaces};
use crate::tree::Folders;
use env::Env;
use model::cluster::{Event, ServerRole};
use model::command::{Answer, Command, Outcome, Query};
use model::{AccountId, ClusterId, Error, Hash, Layout, NodeId, Policy, RequestId, Result, ShardRef};
use seal::account::Unlocked;
use seal::space::OpenSpace;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use transport::Trust;
use wire::coordinator::{
    CreateInvite, CreateInviteRequest, CreateToken, CreateTokenRequest, Propose, ProposeRequest, ReportShard, ReportShardRequest, Status,
    StatusResponse, TextResponse, WhoAmI, WhoAmIResponse,
};

/// How a client works.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Most bytes of chunks and shards in memory at a time.
    pub memory: u64,
    /// Policy of new files; `None`: the space's or the cluster's.
    pub policy: Option<Policy>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions { memory: 256 << 20, policy: None }
    }
}

/// Who is logged in.
#[derive(Debug, Clone)]
pub struct WhoAmIAnswer {
    /// Account name.
    pub account: String,
    /// Account id.
    pub id: AccountId,
    /// Cluster.
    pub cluster: ClusterId,
    /// Fingerprint of the account's identity.
    pub fingerprint: Hash,
    /// May administer the cluster.
    pub admin: bool,
    /// Bytes on disk allowed.
    pub quota: Option<u64>,
    /// Bytes on disk used.
    pub used: u64,
    /// Unread messages.
    pub unread: u64,
}

/// A logged-in client. Cheap to clone; all clones share connections and memory budget.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    profile: Profile,
    options: ClientOptions,
    cluster: Cluster,
    unlocked: Unlocked,
    home: Arc<Space>,
    policy: Policy,
    spaces: Spaces,
    folders: Folders,
    /// The notes as this machine met them, where it had no memory of its own.
    first_notes: Option<NotesAge>,
    /// In KiB of the memory budget.
    memory: Arc<Semaphore>,
}

impl Client {
    /// Opens the profile's session. `Denied` (hint: `shardkeep login`) when there is none or it has ended.
    pub async fn open(profile: Profile, options: ClientOptions) -> Result<Client> {
        let env = profile.env.clone();
        let info = profile.info()?;
        let session = profile.session()?;
        let unlocked = Unlocked::import_session(&session.keys)?;
        let cluster =
            Cluster::new(&env, Trust::Root(info.root.to_vec()), info.coordinators.clone(), Some(session.token), Some(profile.clone()))?;
        let WhoAmIResponse { account, .. } = cluster.authed::<WhoAmI, _>(()).await?;
        if account.id != unlocked.account() || account.identity.fingerprint() != unlocked.fingerprint() {
            return Err(Error::corrupt("the servers show another account than the one that logged in here"));
        }
        let notes = unlocked.open_notes(&account.state, Some(info.state_seq).filter(|seq| *seq > 0))?;
        let first_notes = (info.state_seq == 0).then_some(NotesAge { pins: notes.pins.len(), time_ms: notes.time_ms });
        let query = Query::Space { space: account.home, account: account.id };
        let Answer::Space(Some(space)) = cluster.ask(query).await? else {
            return Err(Error::corrupt("the servers do not know the account's home space"));
        };
        let home = OpenSpace::open(&space, &unlocked, notes.seen(account.home))?;
        // The view also says where the coordinators are, for the day on which the one in the profile is gone.
        let view = cluster.view(false).await?;
        let policy = space.policy.unwrap_or(view.policy);
        profile.update_info(|info| {
            if cluster.is_of(info) && info.account == unlocked.name() {
                info.state_seq = info.state_seq.max(account.state.seq);
                info.coordinators = cluster.coordinators();
            }
        })?;
        let home = Arc::new(Space::new(home, *space)?);
        let (spaces, folders) = (Spaces::with(home.clone()), Folders::new(&home));
        let memory = Arc::new(Semaphore::new((options.memory >> 10).max(32 << 10) as usize));
        let inner = Inner { env, profile, options, cluster, unlocked, home, policy, spaces, folders, first_notes, memory };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// For whoever holds a link and has no account: `unlocked` and `home` exist on no server.
    pub(crate) async fn without_account(
        profile: Profile,
        options: ClientOptions,
        cluster: Cluster,
        unlocked: Unlocked,
        home: Arc<Space>,
    ) -> Result<Client> {
        let policy = cluster.view(false).await?.policy;
        let (spaces, folders) = (Spaces::with(home.clone()), Folders::new(&home));
        let memory = Arc::new(Semaphore::new((options.memory >> 10).max(32 << 10) as usize));
        let env = profile.env.clone();
        let inner = Inner { env, profile, options, cluster, unlocked, home, policy, spaces, folders, first_notes: None, memory };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// By which the outside world is reached: for gateways too, which have clocks, tasks and listeners of their own.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The profile that this client was opened from.
    pub fn profile(&self) -> &Profile {
        &self.inner.profile
    }
    /// What the account's notes hold, when this machine sees them for the first time: whether they are the
    /// newest ones it cannot know, so people should.
    pub fn first_notes(&self) -> Option<NotesAge> {
        self.inner.first_notes
    }
    /// The servers.
    pub fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }
    pub(crate) fn unlocked(&self) -> &Unlocked {
        &self.inner.unlocked
    }
    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }
    pub(crate) fn home(&self) -> &OpenSpace {
        &self.inner.home
    }
    pub(crate) fn home_space(&self) -> &Arc<Space> {
        &self.inner.home
    }
    pub(crate) fn spaces(&self) -> &Spaces {
        &self.inner.spaces
    }
    pub(crate) fn folders(&self) -> &Folders {
        &self.inner.folders
    }
    pub(crate) fn memory(&self) -> &Arc<Semaphore> {
        &self.inner.memory
    }
    /// Bytes that the memory budget holds in all.
    pub(crate) fn memory_budget(&self) -> u64 {
        self.inner.options.memory.max(32 << 20)
    }
    /// Policy of a new file at home, where the command says nothing.
    pub fn default_policy(&self) -> Policy {
        self.inner.options.policy.unwrap_or(self.inner.policy)
    }

    /// A fresh idempotence key.
    pub(crate) fn request_id(&self) -> RequestId {
        RequestId::new(self.env().now_ms(), self.env().random())
    }

    /// Proposes a change; tried again under the same key until a coordinator answers.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome> {
        let request = ProposeRequest { request: self.request_id(), command };
        self.cluster().authed::<Propose, _>(request).await?
    }

    /// Ends the session here and on the servers. The keys leave this machine even when no server
    /// answers; then `Unavailable` says that the server's side runs on until it expires.
    pub async fn logout(&self) -> Result<()> {
        let ended = login::logout(self.cluster()).await;
        self.profile().forget_session()?;
        ended
    }

    /// Who is logged in.
    pub async fn whoami(&self) -> Result<WhoAmIAnswer> {
        let answer = self.cluster().authed::<WhoAmI, _>(()).await?;
        Ok(WhoAmIAnswer {
            account: answer.account.name,
            id: answer.account.id,
            cluster: answer.cluster,
            fingerprint: self.unlocked().fingerprint(),
            admin: answer.account.admin,
            quota: answer.account.quota,
            used: answer.used,
            unread: answer.unread,
        })
    }

    /// What `cluster status` shows.
    pub async fn status(&self) -> Result<StatusResponse> {
        let status = self.cluster().authed::<Status, _>(()).await?;
        self.cluster().learn(&status.cluster);
        Ok(status)
    }

    /// The layout for chunks of `width` shards as it is now; `None` before there is one.
    pub async fn layout(&self, width: u8) -> Result<Option<Layout>> {
        match self.cluster().ask(Query::Layout(width)).await? {
            Answer::Layout(Some(layout)) => layout.check().map(|()| Some(layout)),
            Answer::Layout(None) => Ok(None),
            _ => Err(unexpected()),
        }
    }

    /// How long a node takes to answer a question that costs it nothing, on a connection that stands;
    /// `None` when it does not answer within `wait`.
    pub async fn ping(&self, node: NodeId, wait: Duration) -> Option<Duration> {
        let env = self.env();
        let ask = || self.cluster().head_shards(node, Vec::new(), false);
        let measured = async {
            ask().await.ok()?;
            let start = env.clock.monotonic();
            ask().await.ok()?;
            Some(env.clock.monotonic() - start)
        };
        env.timeout(wait, measured).await.flatten()
    }

    /// A join token and when it expires (milliseconds since 1970). Admins only.
    pub async fn create_token(&self, role: ServerRole, valid: Duration, replace: Option<NodeId>) -> Result<(String, u64)> {
        let request = CreateTokenRequest { role, valid_ms: valid.as_millis() as u64, replace };
        let TextResponse { text, expires_ms } = self.cluster().authed::<CreateToken, _>(request).await?;
        Ok((text, expires_ms))
    }

    /// An invite and when it expires (milliseconds since 1970). Admins only.
    pub async fn create_invite(&self, name: &str, admin: bool, quota: Option<u64>, valid: Duration) -> Result<(String, u64)> {
        let name = model::account::canonical_name(name)?;
        let request = CreateInviteRequest { name, admin, quota, valid_ms: valid.as_millis() as u64 };
        let TextResponse { text, expires_ms } = self.cluster().authed::<CreateInvite, _>(request).await?;
        Ok((text, expires_ms))
    }

    /// Events after a number, oldest first, at most 1,000. Admins only.
    pub async fn events(&self, after: u64) -> Result<Vec<Event>> {
        match self.cluster().ask(Query::Events { after, limit: 1000 }).await? {
            Answer::Events(events) => Ok(events),
            _ => Err(unexpected()),
        }
    }

    /// Tells the coordinators of a shard that did not verify. Best effort.
    pub(crate) async fn report_shard(&self, node: NodeId, shard: ShardRef, detail: &str) {
        let request = ReportShardRequest { node, shard, detail: detail.into() };
        if let Err(e) = self.cluster().authed::<ReportShard, _>(request).await {
            tracing::warn!(%node, error = %e, "a bad shard could not be reported");
        }
    }
}
