//! Backups: one consistent view of the catalog, held open while an admin reads it page by page, while
//! everything else goes on. It is plaintext to whoever asks, with all secrets of the servers in it;
//! the client encrypts it before it touches a disk.

use super::state::{State, confused};
use crate::store::{END, Sum, View};
use catalog::kv::Kv;
use model::command::{Answer, Query};
use model::{AccountId, Error, Result};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::SessionToken;
use wire::admin::{BackupId, OpenBackupResponse, ReadBackupRequest, ReadBackupResponse};

/// Most views open at a time: each keeps old pages of the database from being used again.
const MOST: usize = 2;
/// A view from which nothing was read for so long is let go of.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of rows after which a page ends.
const PAGE: usize = 4 << 20;

/// Views that are open.
#[derive(Default)]
pub(crate) struct Backups {
    open: Mutex<BTreeMap<BackupId, Open>>,
}

struct Open {
    view: Arc<View>,
    /// Whose.
    account: AccountId,
    /// Monotonic time at which it is let go of.
    until: Duration,
    /// The rows read so far: their sum, and the last one's key.
    read: (Sum, Vec<u8>),
    /// Known at the end of them.
    damaged: bool,
}

impl Backups {
    fn open(&self) -> MutexGuard<'_, BTreeMap<BackupId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of views that nobody reads. Called now and then.
    pub fn sweep(&self, now: Duration) {
        self.open().retain(|_, open| open.until > now);
    }

    /// Adds up what is read; at the end, where nothing was passed over: the sum over all rows.
    fn take_in(&self, id: BackupId, after: &[u8], page: &ReadBackupResponse) -> Option<Sum> {
        let mut open = self.open();
        let (sum, upto) = &mut open.get_mut(&id)?.read;
        if upto != after {
            return None;
        }
        page.rows.iter().for_each(|(key, value)| sum.add(key, value));
        if let Some((key, _)) = page.rows.last() {
            *upto = key.to_vec();
        }
        (!page.more).then_some(*sum)
    }
}

impl State {
    pub async fn open_backup(&self, session: SessionToken) -> Result<OpenBackupResponse> {
        let who = self.admin(&session).await?;
        // Whatever was acknowledged before this question is in the view.
        let Answer::Cluster(cluster) = self.ask(Query::Cluster).await? else { return Err(confused()) };
        let Answer::Totals(totals) = self.ask(Query::Totals).await? else { return Err(confused()) };
        let view = Arc::new(self.consensus.view()?);
        let (id, now) = (BackupId(self.env.random()), self.now());
        self.backups.sweep(now);
        let mut open = self.backups.open();
        if open.len() >= MOST {
            return Err(Error::unavailable("other backups are being made: try again in a minute"));
        }
        open.insert(id, Open { view, account: who.account, until: now + IDLE, read: Default::default(), damaged: false });
        tracing::info!(account = who.name, "a backup of the catalog begins");
        Ok(OpenBackupResponse { id, cluster: self.cluster, time_ms: cluster.time_ms, entries: totals.entries })
    }

    pub async fn read_backup(&self, session: SessionToken, request: ReadBackupRequest) -> Result<ReadBackupResponse> {
        let who = self.admin(&session).await?;
        let now = self.now();
        self.backups.sweep(now);
        let view = {
            let mut open = self.backups.open();
            let found = open.get_mut(&request.id).filter(|o| o.account == who.account);
            let found = found.ok_or_else(|| Error::not_found("this backup is not being made here (any more): begin it again"))?;
            found.until = now + IDLE;
            found.view.clone()
        };
        let (id, after) = (request.id, request.after.clone());
        let (from, mut page) = (view.clone(), self.env.blocking(move || page(&view, &request.after)).await?);
        if let Some(sum) = self.backups.take_in(id, &after, &page)
            && from.sum()? != Some(sum)
        {
            self.consensus.roster().set_damaged(true);
            if let Some(open) = self.backups.open().get_mut(&id) {
                open.damaged = true;
            }
        }
        // Also where the last page is asked for again.
        page.damaged = !page.more && self.backups.open().get(&id).is_some_and(|open| open.damaged);
        Ok(page)
    }

    pub async fn close_backup(&self, session: SessionToken, id: BackupId) -> Result<()> {
        let who = self.admin(&session).await?;
        self.backups.open().retain(|open, o| *open != id || o.account != who.account);
        Ok(())
    }
}

/// Rows after a key.
pub(crate) fn page(view: &View, after: &[u8]) -> Result<ReadBackupResponse> {
    let from = if after.is_empty() { Vec::new() } else { [after, &[0]].concat() };
    let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
    view.scan(&from, END, &mut |key, value| {
        if bytes > PAGE {
            more = true;
            return ControlFlow::Break(());
        }
        bytes += key.len() + value.len();
        rows.push((key.to_vec().into(), value.to_vec().into()));
        ControlFlow::Continue(())
    })?;
    Ok(ReadBackupResponse { rows, more, damaged: false })
}
