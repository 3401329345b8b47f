//! A coordinator that serves. When its disk fails or is full, which neither log nor database outlives, it takes
//! no part, says why to whoever asks, and is opened anew after a pause, again and again.

use super::service::max_body;
use super::{CoordinatorConfig, limits, serve};
use crate::consensus::{Consensus, Digest, not_now};
use crate::running::Stop;
use env::{Env, File};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{ClusterId, CoordinatorId, Error, Kind, Result};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use transport::{Connection, Limits, Request, Response, Service, TlsIdentity};

/// Pause before a coordinator that failed is opened anew; twice as long when it soon fails again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time for what is being refused when it is opened.
const REFUSE_DRAIN: Duration = Duration::from_millis(200);
/// A failure later than that does not follow from the one before.
const CALM: Duration = Duration::from_secs(300);

/// A coordinator that serves.
pub struct Running {
    /// Address that others connect to.
    pub address: String,
    /// Its id.
    pub id: CoordinatorId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Fingerprint of the cluster root (BLAKE3 of its certificate): what clients pin.
    pub fingerprint: model::Hash,
    /// Invite of the first admin, as long as nobody has registered. Secret.
    pub invite: Option<String>,
    /// Whether it has the catalog. Where it does not, it is still catching up.
    pub caught_up: bool,
    now: Now,
    ended: watch::Receiver<Option<Error>>,
    keeper: Keeper,
    _lock: Arc<dyn File>,
}

/// What serves at present; nothing while it is closed after a failure.
type Now = Arc<Mutex<Option<Served>>>;

/// A coordinator from an opening of its folder to the next failure.
pub(super) struct Served {
    pub consensus: Consensus,
    pub identity: Arc<TlsIdentity>,
    pub stop: Stop,
}

/// Ends with the [`Running`] that it keeps up.
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock(now: &Now) -> MutexGuard<'_, Option<Served>> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a start tells beside what serves.
pub(super) struct Told {
    pub listen: String,
    pub address: String,
    pub id: CoordinatorId,
    pub cluster: ClusterId,
    pub fingerprint: model::Hash,
    pub invite: Option<String>,
    pub caught_up: bool,
}

impl Running {
    /// Keeps up what serves. `config` is how to open it anew: at the same address.
    pub(super) fn new(env: &Env, config: CoordinatorConfig, served: Served, told: Told, folder: Arc<dyn File>) -> Self {
        let Told { address, id, cluster, fingerprint, invite, caught_up, .. } = told;
        let now: Now = Arc::new(Mutex::new(Some(served)));
        let (end, ended) = watch::channel(None);
        let keep = keep_up(env.clone(), config, id, Arc::downgrade(&now), end);
        let keeper = Keeper(env.spawn(keep));
        Running { address, id, cluster, fingerprint, invite, caught_up, now, ended, keeper, _lock: folder }
    }

    /// Lets another one lead, stops serving and closes the catalog, within 6 s.
    pub async fn shutdown(mut self) {
        self.keeper.0.abort();
        let _ = (&mut self.keeper.0).await; // cut off, wherever it was
        let served = lock(&self.now).take();
        if let Some(served) = served {
            close(served).await;
        }
    }

    /// Waits until this coordinator has ended by itself: after a failure of its disk its data turned out to be
    /// damaged. What is not in a hurry stays up, and is opened anew.
    pub fn ended(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let why = ended.wait_for(Option::is_some).await.map(|why| why.clone());
            why.ok().flatten().unwrap_or_else(|| Error::unavailable("this coordinator is not kept up any more, which is a bug"))
        }
    }

    fn consensus(&self) -> Option<Consensus> {
        lock(&self.now).as_ref().map(|served| served.consensus.clone())
    }

    /// Whether this coordinator leads the group, as it believes.
    pub fn leads(&self) -> bool {
        self.consensus().is_some_and(|consensus| consensus.is_leader())
    }

    /// The catalog here, summed up. Reads all of it; blocking.
    pub fn digest(&self) -> Result<Digest> {
        self.consensus().ok_or_else(|| Error::unavailable("the catalog is closed after a failure of its disk"))?.digest()
    }

    /// Index of the last change that was applied here: the same change has the same everywhere. 0 after a failure.
    pub fn applied_index(&self) -> u64 {
        self.consensus().map_or(0, |consensus| consensus.applied_index())
    }
}

/// Opens a coordinator anew after each failure, until its [`Running`] goes or its data are damaged.
async fn keep_up(
    env: Env,
    config: CoordinatorConfig,
    me: CoordinatorId,
    now: Weak<Mutex<Option<Served>>>,
    end: watch::Sender<Option<Error>>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = env.clock.monotonic();
        let Some(failed) = now.upgrade().and_then(|now| Some(lock(&now).as_ref()?.consensus.failed())) else { return };
        let why = failed.await;
        let Some(served) = now.upgrade().and_then(|now| lock(&now).take()) else { return };
        tracing::error!(error = %why, "this coordinator takes no part until it could be opened anew");
        if env.clock.monotonic().saturating_sub(began) > CALM {
            pause = FIRST_PAUSE;
        }
        let (identity, roster) = (served.identity.clone(), served.consensus.roster().clone());
        if AssertUnwindSafe(close(served)).catch_unwind().await.is_err() {
            tracing::error!("this coordinator was not closed cleanly");
        }
        if why.kind == Kind::Corrupt {
            tracing::error!(error = %why, "this coordinator cannot go on");
            end.send_replace(Some(why));
            return;
        }
        // Nobody has mended that meanwhile.
        let is_damaged = roster.health().damaged;
        let served = loop {
            refuse(&env, &config, identity.clone(), not_now(me, &why), pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            let opened = AssertUnwindSafe(serve(&env, &config, is_damaged)).catch_unwind().await;
            match opened.unwrap_or_else(|_| Err(Error::corrupt("the catalog's database makes no sense, or this is a bug"))) {
                Ok((served, _)) => break served,
                Err(e) if e.kind == Kind::Corrupt => {
                    tracing::error!(error = %e, "this coordinator cannot be opened any more");
                    end.send_replace(Some(e));
                    return;
                }
                Err(e) => tracing::error!(error = %e, "this coordinator could not be opened"),
            }
        };
        let Some(now) = now.upgrade() else { return };
        *lock(&now) = Some(served);
    }
}

async fn close(served: Served) {
    served.consensus.hand_over().await;
    drop(served.consensus);
    served.stop.stop().await;
}

/// Says why to whoever asks, for a while.
async fn refuse(env: &Env, config: &CoordinatorConfig, identity: Arc<TlsIdentity>, why: Error, pause: Duration) {
    match env.net.bind(&config.listen).await {
        Ok(listener) => {
            let service = Arc::new(Refusing(why));
            let limits = Limits { drain: REFUSE_DRAIN, ..limits() };
            transport::serve(env.clone(), listener, identity, service, limits, env.sleep(pause)).await;
        }
        Err(_) => env.sleep(pause).await,
    }
}

/// Answers everything with the same error.
struct Refusing(Error);

impl Service for Refusing {
    fn call(&self, _: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }

    fn max_body(&self, path: &str, connection: &Connection) -> usize {
        max_body(path, connection)
    }
}
