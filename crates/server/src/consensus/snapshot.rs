//! A snapshot on its way: rows of a consistent view of the leader's catalog, in order of their keys,
//! page by page, never a copy in memory. The follower writes them to a database of its own beside
//! its catalog; when all are there the consensus library installs them from it, in one transaction.
//!
//! ```text
//! page = key length u32 ‖ key ‖ value length u32 ‖ value ‖ …      (big-endian)
//! ```
//! A transfer that stops half-way leaves a file that goes with the next transfer, after
//! [`ABANDONED`], or at the next start.

use super::machine::{Machine, State};
use super::peers::{Peer, decoded, encoded};
use super::types::{Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::store::{END, Scratch, Sum, View};
use bytes::Bytes;
use catalog::kv::Kv;
use env::Env;
use model::{Error, Result};
use openraft::Raft;
use openraft::raft::SnapshotResponse;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use transport::Mode;
use wire::raft::SnapshotPage;

/// Bytes of rows in a page.
const PAGE: usize = 2 << 20;
/// Time for a page.
const PAGE_DEADLINE: Duration = Duration::from_secs(30);
/// Time for installing it.
const INSTALL_DEADLINE: Duration = Duration::from_secs(600);
/// A transfer of which nothing more comes for so long is given up.
const ABANDONED: Duration = Duration::from_secs(60);
/// Names of the files of transfers.
const PREFIX: &str = "incoming-";

/// A page of rows.
#[derive(Default)]
struct Page {
    bytes: Vec<u8>,
    /// The last one's key.
    last: Option<Vec<u8>>,
    rows: u64,
}

/// Rows after a key, up to a page of them; also added to a sum.
fn page(view: &View, after: Option<&[u8]>, sum: &mut Sum) -> Result<Page> {
    let from = after.map_or_else(Vec::new, |key| [key, &[0]].concat());
    let Page { mut bytes, mut last, mut rows } = Page::default();
    view.scan(&from, END, &mut |key, value| {
        sum.add(key, value);
        for part in [key, value] {
            bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        last = Some(key.to_vec());
        rows += 1;
        if bytes.len() < PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(Page { bytes, last, rows })
}

/// Key and value of each row of a page. `Invalid` where it is cut off.
fn rows_of(mut bytes: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        rows.push((part(&mut bytes)?, part(&mut bytes)?));
    }
    Ok(rows)
}

fn part<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8]> {
    let cut = || Error::invalid("a page of a snapshot is cut off");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    let (part, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(cut)?;
    *bytes = rest;
    Ok(part)
}

/// Sends a snapshot to a follower and has it installed there.
pub(crate) async fn send(peer: &Peer, vote: Vote, snapshot: Snapshot<Arc<View>>) -> Result<SnapshotResponse<TypeConfig>> {
    let env = peer.roster.env().clone();
    let damaged = || Error::corrupt("the catalog here is damaged: nobody gets a snapshot of it");
    if peer.roster.health().damaged {
        return Err(damaged());
    }
    let mut message = SnapshotPage { head: peer.roster.head(), transfer: env.random(), page: 0, rows: None, sum: None };
    let (mut after, mut sent, mut sum) = (None, 0, Sum::default());
    tracing::info!(to = %peer.id, "a snapshot of the catalog is sent");
    loop {
        let view = snapshot.snapshot.clone();
        let start: Option<Vec<u8>> = after.take();
        let read = env.blocking(move || {
            let mut sum = sum;
            page(&view, start.as_deref(), &mut sum).map(|page| (page, sum))
        });
        let (Page { bytes, last, rows }, upto) = read.await?;
        sum = upto;
        if last.is_none() && message.page > 0 {
            break;
        }
        let more = last.is_some();
        after = last;
        sent += rows;
        peer.call::<wire::raft::Snapshot>(Mode::Bulk, &message, bytes.into(), PAGE_DEADLINE).await?;
        message.page += 1;
        if !more {
            break;
        }
    }
    if snapshot.snapshot.sum()? != Some(sum) {
        peer.roster.set_damaged(true);
        return Err(damaged());
    }
    (message.rows, message.sum) = (Some(sent), Some(sum.to_bytes().to_vec().into()));
    let state: State = (snapshot.meta.last_log_id, snapshot.meta.last_membership);
    let body = encoded(&(vote, state))?;
    // Short, and long to wait for: over the connection with pings, which notices when the other one has lost its power.
    let (_, answer) = peer.call::<wire::raft::Snapshot>(Mode::Control, &message, body, INSTALL_DEADLINE).await?;
    tracing::info!(to = %peer.id, rows = sent, "the snapshot is installed there");
    decoded(&answer)
}

/// What comes from leaders. At most one transfer at a time; another one replaces it.
#[derive(Clone)]
pub(crate) struct Incoming {
    env: Env,
    dir: PathBuf,
    under_way: Arc<Mutex<Option<Transfer>>>,
}

struct Transfer {
    id: [u8; 16],
    next: u64,
    rows: u64,
    scratch: Scratch,
    /// Monotonic time of the last page.
    at: Duration,
}

impl Incoming {
    /// For a coordinator's folder. Removes what a crash left of earlier transfers. Blocking.
    pub fn new(env: Env, dir: &Path) -> Result<Self> {
        let io = |e: std::io::Error| Error::unavailable(format!("{}: {e}", dir.display()));
        for name in env.disk.read_dir(dir).map_err(io)?.iter().filter(|n| n.starts_with(PREFIX)) {
            env.disk.remove_file(&dir.join(name)).map_err(io)?;
        }
        Ok(Incoming { env, dir: dir.to_path_buf(), under_way: Arc::default() })
    }

    /// Takes a page; the last one installs the snapshot. Answers the body of the answer.
    pub async fn take(&self, raft: &Raft<TypeConfig, Machine>, message: SnapshotPage, body: Bytes) -> Result<Bytes> {
        let mut under_way = self.under_way.lock().await;
        let mut transfer = match under_way.take() {
            Some(transfer) if transfer.id == message.transfer && transfer.next == message.page => transfer,
            _ if message.page == 0 => self.begin(message.transfer).await?,
            other => {
                *under_way = other;
                return Err(Error::conflict("a page of a snapshot that is not expected here: it begins anew"));
            }
        };
        let Some(rows) = message.rows else {
            let (env, scratch) = (self.env.clone(), transfer.scratch.clone());
            transfer.rows += env.blocking(move || scratch.add(&rows_of(&body)?)).await?;
            transfer.next += 1;
            transfer.at = self.env.clock.monotonic();
            *under_way = Some(transfer);
            return Ok(Bytes::new());
        };
        drop(under_way);
        if rows != transfer.rows {
            return Err(Error::conflict(format!("a snapshot of {rows} rows came with {}", transfer.rows)));
        }
        let (env, scratch) = (self.env.clone(), transfer.scratch);
        let (view, sum) = env
            .blocking(move || -> Result<(View, Sum)> {
                let view = scratch.into_view()?;
                let sum = view.sum_of_rows()?;
                Ok((view, sum))
            })
            .await?;
        if message.sum.is_some_and(|sent| sent[..] != sum.to_bytes()) {
            return Err(Error::conflict("the rows of a snapshot are not those that were sent: it begins anew"));
        }
        let (vote, state): (Vote, State) = decoded(&body)?;
        let meta = SnapshotMeta { last_log_id: state.0, last_membership: state.1 };
        tracing::info!(rows, "a snapshot of the catalog has arrived and is installed");
        let snapshot = Snapshot { meta, snapshot: Arc::new(view) };
        let installed = raft.install_full_snapshot(vote, snapshot).await;
        encoded(&installed.map_err(|e| Error::unavailable(format!("the snapshot could not be installed: {e}")))?)
    }

    async fn begin(&self, id: [u8; 16]) -> Result<Transfer> {
        let name: String = id.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let (env, path) = (self.env.clone(), self.dir.join(format!("{PREFIX}{name}")));
        let scratch = self.env.blocking(move || Scratch::create(&env, &path)).await?;
        Ok(Transfer { id, next: 0, rows: 0, scratch, at: self.env.clock.monotonic() })
    }

    /// Gives up a transfer of which nothing comes any more.
    pub async fn sweep(&self) {
        let now = self.env.clock.monotonic();
        let mut under_way = self.under_way.lock().await;
        if under_way.as_ref().is_some_and(|t| now.saturating_sub(t.at) > ABANDONED) {
            tracing::warn!("a snapshot that stopped half-way is given up");
            *under_way = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_cut_off_is_refused() {
        let whole = [&3u32.to_be_bytes()[..], b"key", &2u32.to_be_bytes(), b"ab"].concat();
        assert_eq!(rows_of(&whole).unwrap(), [(&b"key"[..], &b"ab"[..])]);
        for end in 1..whole.len() {
            assert!(rows_of(&whole[..end]).is_err(), "{end}");
        }
    }
}
