//! Commits: signed, in batches. Whatever many tasks have ready goes into one commit, in the order
//! in which it was handed over, so that a folder always comes before what lies in it.

use crate::Progress;
use crate::conflict::Rescue;
use crate::session::Client;
use crate::spaces::Space;
use crate::transfer::Transfer;
use model::cluster::UploadGrant;
use model::command::{Command, Outcome};
use model::tree::{COMMIT_MAX, Change};
use model::{CommitId, Error, Kind, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use wire::coordinator::{Propose, ProposeRequest};

/// Bytes of rows and manifests after which a batch is full.
const BATCH_BYTES: usize = 1 << 20;

/// How long a commit waits for a folder that is being given new keys.
const LOCKED: Duration = Duration::from_secs(60);

/// A change ready to be committed, with the proofs that its objects were issued.
pub(crate) struct Pending {
    /// The space that it changes.
    space: Arc<Space>,
    change: Change,
    grants: Vec<Arc<UploadGrant>>,
    /// Removed once the change is committed: until then an interrupted upload can be resumed.
    journal: Option<Transfer>,
    /// With this, what somebody else was faster than is kept all the same.
    rescue: Option<Rescue>,
}

impl Pending {
    pub fn new(space: &Arc<Space>, change: Change) -> Self {
        Pending { space: space.clone(), change, grants: Vec::new(), journal: None, rescue: None }
    }

    pub fn with_content(space: &Arc<Space>, change: Change, grants: Vec<Arc<UploadGrant>>, journal: Option<Transfer>) -> Self {
        Pending { space: space.clone(), change, grants, journal, rescue: None }
    }

    /// The same, to be kept as a conflict version when somebody else is faster.
    pub fn or_kept(self, rescue: Rescue) -> Self {
        Pending { rescue: Some(rescue), ..self }
    }

    fn weight(&self) -> usize {
        self.change.row.sealed.len() + self.change.new_manifest.as_ref().map_or(0, |m| m.sealed.len() + 128 * m.objects.len()) + 256
    }
}

/// What came of many changes.
pub(crate) struct Committed {
    pub done: u64,
    /// Those of them that were files.
    pub files: u64,
    pub failed: Vec<(String, Error)>,
}

impl Committed {
    /// The number done, or the first failure.
    pub fn into_result(self) -> Result<u64> {
        match self.failed.into_iter().next() {
            Some((_, e)) => Err(e),
            None => Ok(self.done),
        }
    }
}

struct Item {
    pending: Pending,
    label: String,
    file: bool,
    /// Who waits for this one alone.
    done: Option<oneshot::Sender<Result<()>>>,
}

/// Takes changes one by one and commits them in batches.
pub(crate) struct Committer {
    sender: mpsc::Sender<Item>,
    task: JoinHandle<Committed>,
}

/// The sending half, for the tasks of an upload.
#[derive(Clone)]
pub(crate) struct CommitSender {
    sender: mpsc::Sender<Item>,
    /// Each change is waited for by whoever hands it over.
    waits: bool,
}

impl CommitSender {
    /// Hands a file's change over. Its result is in [`Committer::finish`], unless it is waited for here.
    pub async fn send_file(&self, pending: Pending, label: String) -> Result<()> {
        let (told, done) = oneshot::channel();
        let item = Item { pending, label, file: true, done: self.waits.then_some(told) };
        self.sender.send(item).await.map_err(|_| stopped())?;
        if self.waits { done.await.map_err(|_| stopped())? } else { Ok(()) }
    }
}

impl Committer {
    /// Hands a change over, to be named by `label` if it fails.
    pub async fn send(&self, pending: Pending, label: String) -> Result<()> {
        self.sender.send(Item { pending, label, file: false, done: None }).await.map_err(|_| stopped())
    }

    pub fn sender(&self) -> CommitSender {
        CommitSender { sender: self.sender.clone(), waits: false }
    }

    /// For a committer that outlives what is handed over: each change is waited for by itself.
    pub fn waiting_sender(&self) -> CommitSender {
        CommitSender { sender: self.sender.clone(), waits: true }
    }

    /// Waits until everything handed over is committed or has failed.
    pub async fn finish(self) -> Committed {
        drop(self.sender);
        match self.task.await {
            Ok(committed) => committed,
            Err(e) => {
                Committed { done: 0, files: 0, failed: vec![("commit".into(), Error::unavailable(format!("the commit task ended: {e}")))] }
            }
        }
    }
}

fn stopped() -> Error {
    Error::unavailable("the commit task has ended")
}

impl Client {
    /// Commits changes of one space as one: all or none. Waits while a folder is being given new keys.
    pub(crate) async fn commit(&self, batch: Vec<Pending>) -> Result<Outcome> {
        self.commit_named(batch).await.map(|(_, outcome)| outcome)
    }

    /// The same, with the commit's id.
    pub(crate) async fn commit_named(&self, batch: Vec<Pending>) -> Result<(CommitId, Outcome)> {
        let Some(space) = batch.first().map(|p| p.space.clone()) else { return Err(Error::invalid("a commit without changes")) };
        if batch.iter().any(|p| p.space.id() != space.id()) {
            return Err(Error::invalid("a commit changes one space"));
        }
        let changes: Vec<_> = batch.iter().map(|p| p.change.clone()).collect();
        let mut grants: Vec<Arc<UploadGrant>> = batch.into_iter().flat_map(|p| p.grants).collect();
        grants.sort_by_key(|a| a.signature);
        grants.dedup();
        let (id, record) = space.sign_commit(self.unlocked(), changes.iter().map(|c| &c.row), &mut self.env().rand())?;
        let grants = grants.iter().map(|g| (**g).clone()).collect();
        let command = Command::Commit { record, changes, grants };
        let start = self.env().clock.monotonic();
        loop {
            let request = ProposeRequest { request: self.request_id(), command: command.clone() };
            match self.cluster().authed::<Propose, _>(request).await? {
                // Decided: folders below are being given new keys. That is asked anew, under an id of its own.
                Err(e) if e.kind == Kind::Unavailable && self.env().clock.monotonic() - start < LOCKED => {
                    self.env().sleep(Duration::from_millis(500)).await;
                }
                Err(e) => {
                    // Perhaps we know an older key epoch, folders that are there no more, or layouts of a catalog that
                    // was restored since.
                    if matches!(e.kind, Kind::Conflict | Kind::Denied | Kind::NotFound) {
                        self.forget_space(space.id());
                    }
                    if e.kind == Kind::Conflict {
                        self.cluster().outdated();
                    }
                    return Err(e);
                }
                done => return done.map(|outcome| (id, outcome)),
            }
        }
    }

    /// A task that commits in batches.
    pub(crate) fn committer(&self) -> Committer {
        self.committer_with(Arc::new(()))
    }

    pub(crate) fn committer_with(&self, progress: Arc<dyn Progress>) -> Committer {
        let (sender, receiver) = mpsc::channel(2 * COMMIT_MAX);
        let client = self.clone();
        let task = self.env().spawn(async move { client.commit_all(receiver, progress).await });
        Committer { sender, task }
    }

    async fn commit_all(&self, mut receiver: mpsc::Receiver<Item>, progress: Arc<dyn Progress>) -> Committed {
        let mut result = Committed { done: 0, files: 0, failed: Vec::new() };
        let mut held: Option<Item> = None;
        loop {
            let first = match held.take() {
                Some(item) => item,
                None => match receiver.recv().await {
                    Some(item) => item,
                    None => return result,
                },
            };
            let mut bytes = first.pending.weight();
            let mut batch = vec![first];
            while batch.len() < COMMIT_MAX {
                let Ok(item) = receiver.try_recv() else { break };
                bytes += item.pending.weight();
                let other = batch.first().is_some_and(|b| b.pending.space.id() != item.pending.space.id());
                if bytes > BATCH_BYTES || other {
                    held = Some(item);
                    break;
                }
                batch.push(item);
            }
            self.commit_batch(batch, &mut result, &*progress).await;
        }
    }

    /// Commits a batch; when one of its changes is refused, each by itself, so that one conflict
    /// fails one file.
    async fn commit_batch(&self, batch: Vec<Item>, result: &mut Committed, progress: &dyn Progress) {
        let copies = |item: &Item| {
            let Pending { space, change, grants, .. } = &item.pending;
            Pending::with_content(space, change.clone(), grants.clone(), None)
        };
        let whole = self.commit(batch.iter().map(copies).collect()).await;
        let alone = batch.len() > 1 && whole.as_ref().is_err_and(|e| e.kind != Kind::Unavailable);
        for item in batch {
            let one =
                if alone { self.commit(vec![copies(&item)]).await.map(|_| ()) } else { whole.as_ref().map(|_| ()).map_err(Clone::clone) };
            let one = match (one, &item.pending.rescue) {
                (Err(e), Some(rescue)) if matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound) => {
                    match self.under_new_keys(rescue, &item.pending.change, &item.pending.grants).await {
                        Some(done) => done,
                        None if e.kind == Kind::NotFound => Err(e),
                        None => self.keep_conflict(rescue, &item.pending.change, &item.pending.grants, e).await,
                    }
                }
                (one, _) => one,
            };
            if let Some(told) = item.done {
                // Whoever waited may be gone: then it is committed all the same.
                let _ = told.send(one);
                continue;
            }
            match one {
                Ok(()) => {
                    result.done += 1;
                    if let Some(journal) = item.pending.journal {
                        journal.remove();
                    }
                    if item.file {
                        result.files += 1;
                        progress.file(&item.label);
                    }
                }
                Err(e) => {
                    // Kept beside: there is nothing left to resume.
                    if let (Kind::Conflict | Kind::Exists, Some(journal)) = (e.kind, item.pending.journal) {
                        journal.remove();
                    }
                    result.failed.push((item.label, e));
                }
            }
        }
    }
}
