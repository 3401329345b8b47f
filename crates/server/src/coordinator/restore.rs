//! A fresh coordinator from a backup: the cluster's catalog as it was, one coordinator, which nobody has
//! met yet, and another incarnation that drops nothing until an operator says so.
//!
//! Offline: it writes a folder, in which a coordinator is then started like any other. Clients and nodes
//! trust it because its certificate comes from the same root.

use super::card::{self, Card};
use crate::consensus::lay_down;
use crate::running::lock_dir;
use catalog::kv::KvMut;
use env::Env;
use model::cluster::ClusterView;
use model::command::{Answer, Command, Genesis, Proposal, Query};
use model::{ClusterId, CoordinatorId, Error, Hash, RequestId, Result};
use std::path::Path;
use transport::ServerKey;

/// Rows of a backup, in order of their keys: a page of them, or the end.
pub type Page = Vec<(Vec<u8>, Vec<u8>)>;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The cluster.
    pub cluster: ClusterId,
    /// Fingerprint of its root.
    pub fingerprint: Hash,
    /// The new coordinator.
    pub coordinator: CoordinatorId,
    /// Catalog time of the backup, milliseconds since 1970.
    pub time_ms: u64,
    /// Live entries.
    pub entries: u64,
    /// Rows.
    pub rows: u64,
}

/// Writes a coordinator's folder from the rows of a backup. `pages` is called until it answers `None`.
/// `Exists` when the folder is not empty; `Corrupt` when the rows are no whole catalog.
pub async fn restore(env: Env, dir: &Path, mut pages: impl FnMut() -> Result<Option<Page>> + Send + 'static) -> Result<Restored> {
    let io = |e: std::io::Error| Error::invalid(format!("{}: {e}", dir.display()));
    let used = env.disk.try_exists(dir).map_err(io)? && !env.disk.read_dir(dir).map_err(io)?.is_empty();
    if used {
        return Err(
            Error::exists(format!("{} is not empty: a restore begins with an empty folder", dir.display())).hint("choose another --dir")
        );
    }
    let _lock = lock_dir(&env, dir).await?;
    let key = ServerKey::generate(&env)?;
    let (incarnation, now_ms, request) = (env.random(), env.now_ms(), RequestId::new(env.now_ms(), env.random()));
    let spki = Hash::of(key.spki());
    let fill = move |rows: &mut dyn KvMut| {
        let count = copy(rows, &mut pages)?;
        let (genesis, view, entries) = known(rows)?;
        let coordinator = model::cluster::Coordinator {
            id: CoordinatorId(catalog::last_coordinator(rows)? + 1),
            address: String::new(),
            key: spki,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let id = coordinator.id;
        let command = Command::Restored { incarnation, coordinator };
        // Log time never goes back, and a clock that is behind must not have the request refused.
        let time_ms = now_ms.max(view.time_ms);
        let request = if time_ms == now_ms { request } else { RequestId::new(time_ms, random_of(request)) };
        catalog::apply(rows, &Proposal { request, account: None, command, time_ms })??;
        Ok((id, (genesis, view.time_ms, entries, count)))
    };
    let laid = lay_down(&env, dir, fill).await?;
    let me = laid.me;
    let card = Card::issue_with(&env, &laid.told.0, me, &key)?;
    card.write(&env, &card::file(dir)).await?;
    let (genesis, time_ms, entries, rows) = laid.finish(&env, dir).await?;
    tracing::info!(cluster = %genesis.cluster, coordinator = %me, rows, "a catalog was restored");
    Ok(Restored { cluster: genesis.cluster, fingerprint: Hash::of(&genesis.root_cert), coordinator: me, time_ms, entries, rows })
}

fn random_of(request: RequestId) -> [u8; 10] {
    let mut random = [0; 10];
    random.copy_from_slice(&request.0[6..]);
    random
}

/// Takes over the rows, which must come in order.
fn copy(rows: &mut dyn KvMut, pages: &mut impl FnMut() -> Result<Option<Page>>) -> Result<u64> {
    let (mut last, mut count): (Vec<u8>, u64) = (Vec::new(), 0);
    while let Some(page) = pages()? {
        for (key, value) in page {
            if key <= last {
                return Err(Error::corrupt("the rows of this backup are not in order"));
            }
            rows.put(&key, &value)?;
            last = key;
            count += 1;
        }
    }
    Ok(count)
}

/// What must be in a catalog for it to be one.
fn known(rows: &dyn KvMut) -> Result<(Genesis, ClusterView, u64)> {
    let no_catalog = || Error::corrupt("this backup holds no whole catalog");
    let Answer::Genesis(Some(genesis)) = catalog::query(rows, &Query::Genesis)? else { return Err(no_catalog()) };
    let Answer::Cluster(view) = catalog::query(rows, &Query::Cluster)? else { return Err(no_catalog()) };
    let Answer::Totals(totals) = catalog::query(rows, &Query::Totals)? else { return Err(no_catalog()) };
    Ok((*genesis, *view, totals.entries))
}
