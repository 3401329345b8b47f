//! A consensus group that begins with a catalog: after a restore.
//!
//! It looks as if its only member had installed a snapshot of these rows at the first entry of a log
//! that is empty since: whoever joins later gets the rows as a snapshot too, and never a log that
//! begins without them. The log comes first, the catalog's file gets its name last; a crash between
//! leaves a folder that refuses to start.

use super::failure::Failure;
use super::log::LogStore;
use super::types::{LogId, StoredMembership, TypeConfig, Vote};
use crate::store::Store;
use catalog::kv::KvMut;
use env::Env;
use model::{CoordinatorId, Error, Result};
use openraft::storage::RaftLogStorage;
use openraft::vote::RaftLeaderId;
use std::collections::BTreeSet;
use std::path::Path;

/// Term and index of the entry up to which the rows count.
const FIRST: u64 = 1;
/// Who wrote that entry: none of the members, whose ids begin at 1.
const NOBODY: u64 = 0;

type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

/// Writes log and catalog of a group of one into an empty folder. `fill` writes the rows, and says who
/// the member is; what else it says is handed back. All of its rows are there after a crash, or the
/// folder does not start.
pub(crate) async fn lay_down<T: Send + 'static>(
    env: &Env,
    dir: &Path,
    fill: impl FnOnce(&mut dyn KvMut) -> Result<(CoordinatorId, T)> + Send + 'static,
) -> Result<Laid<T>> {
    let io = |e: std::io::Error| Error::unavailable(format!("{}: {e}", dir.display()));
    env.disk.create_dir_all(&dir.join("log")).map_err(io)?;
    let mut log = LogStore::open(env, dir.join("log"), Failure::default()).await?;
    log.save_vote(&Vote::new(FIRST, NOBODY)).await.map_err(io)?;
    log.purge(position()).await.map_err(io)?;
    log.close().await;
    let unnamed = dir.join("catalog.restoring");
    let (disk, path) = (env.clone(), unnamed.clone());
    let write = move || {
        let store = Store::open(&disk, &path, |_, _| ())?;
        let filled = store.change(|rows| {
            let (me, told) = fill(rows)?;
            let members = openraft::Membership::new_with_defaults(vec![BTreeSet::from([me.0])], [me.0]);
            let state = (Some(position()), StoredMembership::new(Some(position()), members));
            Ok(((me, told), postcard::to_stdvec(&state).map_err(crate::store::failed)?))
        })?;
        store.checkpoint()?;
        Ok::<_, Error>(filled)
    };
    let (me, told) = env.blocking(write).await?;
    Ok(Laid { me, told, unnamed })
}

fn position() -> LogId {
    LogId::new(LeaderId::new(FIRST, NOBODY), FIRST)
}

/// A catalog that needs but its name.
pub(crate) struct Laid<T> {
    pub me: CoordinatorId,
    /// What `fill` told beside.
    pub told: T,
    unnamed: std::path::PathBuf,
}

impl<T> Laid<T> {
    /// From here on the folder starts.
    pub async fn finish(self, env: &Env, dir: &Path) -> Result<T> {
        let (disk, to, folder) = (env.disk.clone(), dir.join("catalog.redb"), dir.to_path_buf());
        let unnamed = self.unnamed;
        let named = env.blocking(move || disk.rename(&unnamed, &to).and_then(|()| disk.sync_dir(&folder))).await;
        named.map_err(|e| Error::unavailable(format!("{}: {e}", dir.display())))?;
        Ok(self.told)
    }
}
