//! Object ids for uploads: asked for in batches, each batch with the catalog's proof that it was
//! issued and a capability for every node.

use crate::connection::Moment;
use crate::session::Client;
use model::cluster::{Capability, UploadGrant};
use model::{Error, NodeId, ObjectId, Result, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wire::coordinator::{Upload, UploadRequest};

/// Ids a batch: a capability names them all and travels with each shard.
const BATCH: u32 = 32;
/// For how long an id is given out after it was issued (milliseconds).
const FRESH_MS: u64 = 3_600_000;
/// Bytes that one batch may put on one node.
const BYTE_LIMIT: u64 = 1 << 50;

/// Ids issued together.
pub(crate) struct Issued {
    space: SpaceId,
    pub grant: Arc<UploadGrant>,
    renewable: Mutex<Good>,
}

#[derive(Clone)]
struct Good {
    capabilities: Arc<BTreeMap<NodeId, Capability>>,
    since: Moment,
    valid: Duration,
}

impl Issued {
    /// The capability for a node; renewed when it is about to expire.
    pub async fn capability(&self, client: &Client, node: NodeId) -> Result<Capability> {
        let good = self.renewable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let good = if good.since.is_younger_than(good.valid, client.env()) && good.capabilities.contains_key(&node) {
            good
        } else {
            let fresh = request(client, self.space, 0, Some((*self.grant).clone())).await?.1;
            *self.renewable.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
            fresh
        };
        good.capabilities.get(&node).cloned().ok_or_else(|| Error::unavailable(format!("node-{node} takes no uploads now")).on(node))
    }

    /// A node does not take its capability: it may have been made by a clock that was wrong for a moment. Whether it is
    /// forgotten, so that the next one is a fresh one.
    pub fn forget_capabilities(&self, client: &Client) -> bool {
        let mut good = self.renewable.lock().unwrap_or_else(PoisonError::into_inner);
        let forgets = good.since.is_worth_renewing(client.env());
        if forgets {
            good.valid = Duration::ZERO;
        }
        forgets
    }

    /// Ids issued in an earlier run, taken up again with their proof.
    pub async fn renewed(client: &Client, space: SpaceId, grant: UploadGrant) -> Result<Arc<Issued>> {
        let (_, good) = request(client, space, 0, Some(grant.clone())).await?;
        Ok(Arc::new(Issued { space, grant: Arc::new(grant), renewable: Mutex::new(good) }))
    }
}

async fn request(
    client: &Client,
    space: SpaceId,
    objects: u32,
    renew: Option<UploadGrant>,
) -> Result<((Vec<ObjectId>, UploadGrant), Good)> {
    let since = Moment::now(client.env());
    let holder = client.cluster().holder_key();
    let request = UploadRequest { space, objects, holder, byte_limit: BYTE_LIMIT, renew };
    let answer = client.cluster().authed::<Upload, _>(request).await?;
    let capabilities = Arc::new(answer.capabilities.into_iter().collect());
    let valid = Duration::from_millis(answer.valid_ms).mul_f64(0.8);
    Ok(((answer.objects, answer.grant), Good { capabilities, since, valid }))
}

/// Fresh ids by space, each with what was issued with it.
type Free = BTreeMap<SpaceId, Vec<(ObjectId, Arc<Issued>)>>;

/// Hands out fresh ids.
#[derive(Default)]
pub(crate) struct Issuer(tokio::sync::Mutex<Free>);

impl Issuer {
    /// A fresh id for a space, never given out before.
    pub async fn next(&self, client: &Client, space: SpaceId) -> Result<(ObjectId, Arc<Issued>)> {
        let mut all = self.0.lock().await;
        let free = all.entry(space).or_default();
        // What is not committed a day after it was issued has expired: long uploads need most of that.
        let now = client.env().now_ms();
        free.retain(|(id, _)| now < id.time_ms().saturating_add(FRESH_MS));
        if free.is_empty() {
            let ((ids, grant), good) = request(client, space, BATCH, None).await?;
            let issued = Arc::new(Issued { space, grant: Arc::new(grant), renewable: Mutex::new(good) });
            free.extend(ids.into_iter().map(|id| (id, issued.clone())));
        }
        free.pop().ok_or_else(crate::connection::unexpected)
    }
}
