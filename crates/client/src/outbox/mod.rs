//! The outbox: uploads that somebody else carries out. A job is durable once it is in here; an agent, one a
//! profile, uploads what lies here with the usual upload code, and survives whatever happens to it.
//!
//! ```text
//! HOME/profiles/NAME/outbox/lock       held by the agent; its process id
//!                           adding     held while a job is being added
//!                           ID.job     sealed, never changed: what goes where
//!                           ID.state   sealed, the agent's: tries, where things go, why it failed
//!                           ID.want    sealed, the user's: pause, retry, remove
//!                           ID.now     sealed, the agent's: bytes done, while it is at it
//!                           ID.tried   empty: some of it may be stored
//!                           ID.done    numbers of items that are stored, 4 bytes each, big-endian
//!                           ID.rest    empty: nothing is to be done until the user says so
//!                           ID.N.spool item N's content in sealed pieces of one chunk each
//! ```
//! Everything that says what is stored, from where and whither is sealed with the account's local key. A job
//! refers to files by path, size, modification time and inode, or spools them. Removing a job begins with its
//! `ID.job`: files without one are left over, and are swept.

mod agent;
mod job;
mod spool;

pub(crate) use agent::changed;
pub use agent::{Agent, AgentOptions, Resolve};
pub use job::{JobInfo, JobPhase, JobSource, NewJob, Queued, QueuedFile};
pub use spool::SpooledFile;

use crate::local::LocalReader;
use crate::profile::Profile;
use env::{DiskExt, Env, FileExt, Open};
use job::{Item, Job, Now, State, Want};
use minicbor::{Decode, Encode};
use model::{Error, Kind, Result, cbor};
use seal::account::Unlocked;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long somebody who adds a job waits for another one who does.
const ADDING: Duration = Duration::from_secs(600);

/// The outbox of a profile, for whoever is logged in there.
#[derive(Clone)]
pub struct Outbox {
    env: Env,
    dir: PathBuf,
    unlocked: Arc<Unlocked>,
}

fn dir_of(profile: &Profile) -> PathBuf {
    profile.path("outbox")
}

/// An error of the local disk.
fn failed(path: &Path, e: &io::Error) -> Error {
    let kind = if e.kind() == io::ErrorKind::StorageFull { Kind::Insufficient } else { Kind::Invalid };
    Error::new(kind, format!("{}: {e}", path.display()))
}

/// Names of files in the outbox; none when there is no outbox.
fn files(env: &Env, dir: &Path) -> Vec<String> {
    env.disk.read_dir(dir).unwrap_or_default()
}

impl Outbox {
    /// Opens the outbox; needs no server. `Denied` when nobody is logged in. Blocking.
    pub fn open(profile: &Profile) -> Result<Outbox> {
        let session = profile.session()?;
        let unlocked = Arc::new(Unlocked::import_session(&session.keys)?);
        let dir = dir_of(profile);
        profile.env.disk.create_dir_all(&dir).map_err(|e| failed(&dir, &e))?;
        Ok(Outbox { env: profile.env.clone(), dir, unlocked })
    }

    /// Whether a profile's outbox holds jobs to be done, and no agent is at it. Looks at names only, so that
    /// every command may ask. Blocking.
    pub fn needs_agent(profile: &Profile) -> bool {
        let dir = dir_of(profile);
        let names = files(&profile.env, &dir);
        // By name alone: nobody need be logged in.
        let resting: BTreeSet<&str> = names.iter().filter_map(|n| n.strip_suffix(".rest")).collect();
        let waits = names.iter().filter_map(|n| n.strip_suffix(".job")).any(|id| !resting.contains(id));
        waits && profile.env.disk.lock(&dir.join("lock")).is_ok()
    }

    /// The process id of the agent, if one is at work. Blocking.
    pub fn agent(&self) -> Option<u32> {
        let path = self.dir.join("lock");
        match self.env.disk.lock(&path) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let bytes = self.env.disk.read(&path).ok()?;
                String::from_utf8(bytes).ok()?.trim().parse().ok()
            }
            _ => None,
        }
    }

    fn path(&self, id: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    fn read<T: for<'b> Decode<'b, ()>>(&self, id: &str, kind: &str) -> Result<Option<T>> {
        let path = self.path(id, kind);
        let sealed = match self.env.disk.read(&path) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&path, &e)),
        };
        let plain = self.unlocked.open_local(&purpose(kind), id.as_bytes(), &sealed)?;
        cbor::from_slice(&plain).map(Some)
    }

    fn sealed<T: Encode<()>>(&self, id: &str, kind: &str, value: &T) -> Vec<u8> {
        self.unlocked.seal_local(&purpose(kind), id.as_bytes(), &zeroize::Zeroizing::new(cbor::to_vec(value)), &mut self.env.rand())
    }

    /// Writes a file so that it is whole and durable.
    fn write<T: Encode<()>>(&self, id: &str, kind: &str, value: &T) -> Result<()> {
        let path = self.path(id, kind);
        self.env.disk.replace(&path, &self.sealed(id, kind, value)).map_err(|e| failed(&path, &e))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        match self.env.disk.remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, &e)),
            _ => Ok(()),
        }
    }

    /// Whether nothing is to be done for a job until the user says so.
    fn set_rest(&self, id: &str, rests: bool) -> Result<()> {
        let path = self.path(id, "rest");
        if rests { self.env.disk.open(&path, Open::OrCreate).map(|_| ()).map_err(|e| failed(&path, &e)) } else { self.remove_file(&path) }
    }

    /// Ids of all jobs, also those of other accounts.
    fn ids(&self) -> Vec<String> {
        files(&self.env, &self.dir).iter().filter_map(|n| n.strip_suffix(".job")).map(str::to_string).collect()
    }

    /// Ids of jobs for which something is to be done.
    fn active(&self) -> Vec<String> {
        let names = files(&self.env, &self.dir);
        let resting: BTreeSet<&str> = names.iter().filter_map(|n| n.strip_suffix(".rest")).collect();
        names.iter().filter_map(|n| n.strip_suffix(".job")).filter(|id| !resting.contains(id)).map(str::to_string).collect()
    }

    /// Adds a job. It is durable when this returns: after that the source may be needed still, unless it is
    /// spooled, but this process is not.
    pub async fn add(&self, new: NewJob) -> Result<Queued> {
        let _adding = self.adding().await?;
        let id = self.fresh_id()?;
        let added = self.try_add(&id, new).await;
        if added.is_err() {
            let (outbox, id) = (self.clone(), id.clone());
            let _ = self.env.blocking(move || outbox.remove_files(&id)).await;
        }
        added
    }

    async fn adding(&self) -> Result<Arc<dyn env::File>> {
        let path = self.dir.join("adding");
        let start = self.env.clock.monotonic();
        loop {
            match self.env.disk.lock(&path) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.env.clock.monotonic() - start < ADDING => {
                    self.env.sleep(Duration::from_millis(50)).await;
                }
                other => return other.map_err(|e| failed(&path, &e)),
            }
        }
    }

    fn fresh_id(&self) -> Result<String> {
        loop {
            let id: String = self.env.random::<4>().iter().map(|b| format!("{b:02x}")).collect();
            if !self.env.disk.exists(&self.path(&id, "job")) {
                return Ok(id);
            }
        }
    }

    async fn try_add(&self, id: &str, new: NewJob) -> Result<Queued> {
        let NewJob { sources, destination, slash, several, spool, options } = new;
        let (tops, mut items, stream) = self.env.blocking(move || job::collect(sources)).await?;
        if let Some(stream) = stream {
            let size = self.spool(id, 0, Content::Stream(stream)).await?;
            items.push(Item::of_stream(size, self.env.now_ms()));
        } else if spool {
            for (number, item) in (0u32..).zip(&mut items).filter(|(_, item)| item.is_file()) {
                let path = item.path();
                let stamped = path.clone();
                let (file, before) = self.env.blocking(move || job::open_source(&stamped)).await?;
                let size = self.spool(id, number, Content::File(file, before.size)).await?;
                let after = self.env.blocking(move || job::stamp(&path)).await?;
                if before != after || size != item.size || !item.is(&before) {
                    return Err(Error::conflict(format!("{} changed while it was spooled", item.path().display())).hint("put it again"));
                }
                item.spooled = true;
            }
        }
        let queued = Queued {
            id: id.to_string(),
            files: items.iter().filter(|i| !i.is_folder()).count() as u64,
            bytes: items.iter().filter(|i| i.is_file()).map(|i| i.size).sum(),
        };
        let job = Job::new(self.env.now_ms(), tops, items, &destination, slash, several, options);
        let (outbox, owned) = (self.clone(), id.to_string());
        self.env.blocking(move || outbox.write(&owned, "job", &job)).await?;
        Ok(queued)
    }

    /// Spools content; durable when it returns. Answers with its length.
    async fn spool(&self, id: &str, item: u32, mut content: Content) -> Result<u64> {
        let path = self.path(id, &format!("{item}.spool"));
        let file = self.env.disk.open(&path, Open::New).map_err(|e| failed(&path, &e))?;
        let (mut index, mut size, mut at) = (0u64, 0u64, 0u64);
        loop {
            let plain = content.piece(&self.env, size).await?;
            let len = plain.len();
            if len == 0 {
                break;
            }
            let (outbox, id, file, owned) = (self.clone(), id.to_string(), file.clone(), path.clone());
            at += self
                .env
                .blocking(move || {
                    let context = spool::context(&id, item, index);
                    let sealed = outbox.unlocked.seal_local(spool::PURPOSE, &context, &plain, &mut outbox.env.rand());
                    file.write_all_at(&sealed, at).map(|()| sealed.len() as u64).map_err(|e| failed(&owned, &e))
                })
                .await?;
            size += len as u64;
            index += 1;
            if len < spool::PIECE {
                break;
            }
        }
        let (env, dir) = (self.env.clone(), self.dir.clone());
        self.env.blocking(move || file.sync_data().and_then(|()| env.disk.sync_dir(&dir))).await.map_err(|e| failed(&path, &e))?;
        Ok(size)
    }

    /// All jobs, oldest first. Those of other accounts have only an id. Blocking.
    pub fn list(&self) -> Result<Vec<JobInfo>> {
        let at_work = self.agent().is_some();
        let mut all = Vec::new();
        for id in self.ids() {
            // One that cannot be read must not hide the others.
            all.push(self.info(&id, at_work).unwrap_or_else(|_| JobInfo::foreign(id)));
        }
        all.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        Ok(all)
    }

    fn info(&self, id: &str, at_work: bool) -> Result<JobInfo> {
        let gone = || Error::not_found(format!("there is no job {id} in the queue"));
        let job: Job = self.read(id, "job")?.ok_or_else(gone)?;
        let state: State = self.read(id, "state")?.unwrap_or_default();
        let want: Want = self.read(id, "want")?.unwrap_or_default();
        let now: Option<Now> = self.read(id, "now").unwrap_or_default().filter(|_| at_work);
        Ok(JobInfo::of(id.to_string(), &job, &state, &want, now, &self.done(id)?))
    }

    /// Numbers of the items of a job that are stored.
    fn done(&self, id: &str) -> Result<BTreeSet<u32>> {
        let path = self.path(id, "done");
        match self.env.disk.read(&path) {
            Ok(bytes) => Ok(bytes.chunks_exact(4).filter_map(|b| Some(u32::from_be_bytes(b.try_into().ok()?))).collect()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(e) => Err(failed(&path, &e)),
        }
    }

    /// The one job whose id begins so. `NotFound`; `Invalid` when there are several.
    fn find(&self, prefix: &str) -> Result<String> {
        let mut found = self.ids().into_iter().filter(|id| id.starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::not_found(format!("there is no job {prefix} in the queue")).hint("shardkeep queue list")),
            _ => Err(Error::invalid(format!("there are several jobs that begin with {prefix}"))),
        }
    }

    fn chosen(&self, prefixes: &[String]) -> Result<Vec<String>> {
        if prefixes.is_empty() { Ok(self.ids()) } else { prefixes.iter().map(|p| self.find(p)).collect() }
    }

    fn change_want(&self, id: &str, change: impl FnOnce(&mut Want)) -> Result<()> {
        let mut want: Want = self.read(id, "want")?.unwrap_or_default();
        change(&mut want);
        self.write(id, "want", &want)
    }

    /// Pauses jobs (none named: all). Answers with their ids. Blocking, as are the following.
    pub fn pause(&self, jobs: &[String]) -> Result<Vec<String>> {
        self.each(jobs, |id| {
            self.change_want(id, |want| want.paused = true)?;
            self.set_rest(id, true)
        })
    }

    /// Goes on with jobs that are paused.
    pub fn resume(&self, jobs: &[String]) -> Result<Vec<String>> {
        self.each(jobs, |id| {
            self.change_want(id, |want| want.paused = false)?;
            let state: State = self.read(id, "state")?.unwrap_or_default();
            self.set_rest(id, state.failed)
        })
    }

    /// Tries jobs again at once that failed or wait; `as_is`: with their sources as they are now.
    pub fn retry(&self, jobs: &[String], as_is: bool) -> Result<Vec<String>> {
        self.each(jobs, |id| {
            self.change_want(id, |want| {
                want.paused = false;
                want.retries += 1;
                want.as_is |= as_is;
            })?;
            self.set_rest(id, false)
        })
    }

    /// Removes jobs. What of them is stored already stays stored.
    pub fn remove(&self, jobs: &[String]) -> Result<Vec<String>> {
        self.each(jobs, |id| {
            // Without its first file it is no job any more: an agent that is at it sees that, and stops.
            self.remove_file(&self.path(id, "job"))?;
            self.env.disk.sync_dir(&self.dir).map_err(|e| failed(&self.dir, &e))?;
            self.remove_files(id)
        })
    }

    fn each(&self, jobs: &[String], act: impl Fn(&str) -> Result<()>) -> Result<Vec<String>> {
        let chosen = self.chosen(jobs)?;
        chosen.iter().try_for_each(|id| act(id))?;
        Ok(chosen)
    }

    /// Removes all files of a job, the one that makes it a job first.
    fn remove_files(&self, id: &str) -> Result<()> {
        self.remove_file(&self.path(id, "job"))?;
        let prefix = format!("{id}.");
        for name in files(&self.env, &self.dir).iter().filter(|n| n.starts_with(&prefix)) {
            self.remove_file(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// Removes what jobs have left over that are no more, unless one is just being added.
    fn sweep(&self) -> Result<()> {
        let Ok(_adding) = self.env.disk.lock(&self.dir.join("adding")) else { return Ok(()) };
        let names = files(&self.env, &self.dir);
        let jobs: BTreeSet<&str> = names.iter().filter_map(|n| n.strip_suffix(".job")).collect();
        for name in &names {
            if name.split_once('.').is_some_and(|(id, _)| !jobs.contains(id)) {
                self.remove_file(&self.dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// What is spooled.
enum Content {
    Stream(job::Stream),
    File(Arc<LocalReader>, u64),
}

impl Content {
    /// The piece at an offset; shorter than a full one only at the end.
    async fn piece(&mut self, env: &Env, at: u64) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        match self {
            Content::Stream(stream) => {
                let mut plain = zeroize::Zeroizing::new(Vec::with_capacity(spool::PIECE));
                let read = stream.take(spool::PIECE as u64).read_to_end(&mut plain).await;
                read.map_err(|e| Error::invalid(format!("the source cannot be read: {e}")))?;
                Ok(plain)
            }
            Content::File(file, size) => {
                let (file, len) = (file.clone(), size.saturating_sub(at).min(spool::PIECE as u64) as usize);
                env.blocking(move || file.read(at, len)).await.map(zeroize::Zeroizing::new)
            }
        }
    }
}

/// What a file is sealed for: none can be taken for one of another kind.
fn purpose(kind: &str) -> String {
    format!("outbox-{kind}")
}
