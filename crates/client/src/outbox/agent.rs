//! The agent: takes one job after the other and uploads it, until there is nothing left to do.
//!
//! All that it knows is in the outbox: killed at any moment, the next one goes on where it was, within a file
//! with the upload's own journal. What cannot be reached now is tried again, later and later, with jitter;
//! what will not get better by itself waits for the user.

use super::job::{Item, Job, Now, Stamp, State, Want, from_names, stamp, to_names};
use super::spool::SpooledFile;
use super::{Outbox, QueuedFile, failed, files};
use crate::path::RemotePath;
use crate::profile::Profile;
use crate::session::{Client, ClientOptions};
use crate::tree::EntryKind;
use crate::upload::{Put, PutReport, Source};
use crate::{Progress, outbox::dir_of};
use env::{DiskExt, Env, FileExt, Open};
use futures::future::BoxFuture;
use model::{Error, Kind, Result};
use seal::tree::Attributes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the agent looks at the outbox.
const LOOK: Duration = Duration::from_millis(300);
/// How often the agent tries to take its place.
const TRIES: u32 = 5;
/// Files handed to one upload: what they need is in memory.
const BATCH: usize = 512;
/// The longest pause between two tries of a job, and the shortest.
const PAUSE_MS: (u64, u64) = (1_000, 300_000);
/// Items that may have been stored although nobody noted it: those that were under way.
const UNSURE: usize = BATCH;

/// How an agent works.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Ends when there has been nothing to do for so long; `None`: never.
    pub until_idle: Option<Duration>,
    /// Most bytes of chunks and shards in memory.
    pub memory: u64,
}

/// Decides where the sources of a job go: of each its name and whether it is a folder, the destination as
/// typed, whether that ends in a slash, whether several sources were typed.
pub type Resolve = dyn for<'a> Fn(&'a Client, Vec<(Option<Vec<u8>>, bool)>, RemotePath, bool, bool) -> BoxFuture<'a, Result<Vec<RemotePath>>>
    + Send
    + Sync;

/// The agent of a profile.
pub struct Agent {
    env: Env,
    profile: Profile,
    options: AgentOptions,
    resolve: Arc<Resolve>,
    client: Option<Client>,
}

/// How a try of a job ended.
enum Tried {
    Done,
    /// To be tried again.
    Away(Error),
    /// Nothing will change by itself.
    Failed(Error),
    /// The user wants something else.
    Stopped,
}

impl Agent {
    /// An agent; nothing happens yet.
    pub fn new(profile: Profile, options: AgentOptions, resolve: Arc<Resolve>) -> Self {
        Agent { env: profile.env.clone(), profile, options, resolve, client: None }
    }

    /// Works until there is nothing to do, or for ever. `Conflict` when another agent is at work.
    pub async fn run(&mut self) -> Result<()> {
        let dir = dir_of(&self.profile);
        loop {
            self.env.disk.create_dir_all(&dir).map_err(|e| failed(&dir, &e))?;
            let lock = self.lock_patiently().await?;
            self.work().await?;
            drop(lock);
            // A job that was added when it was too late to see it found the lock taken.
            if self.options.until_idle.is_none() || !self.env.disk.exists(&dir) || !Outbox::needs_agent(&self.profile) {
                return Ok(());
            }
        }
    }

    /// Others take the lock for a moment, to see whether somebody holds it; and an agent that has just ended
    /// its work lingers for some seconds, which one that is to stay waits for.
    async fn lock_patiently(&self) -> Result<Arc<dyn env::File>> {
        let tries = if self.options.until_idle.is_some() { TRIES } else { 8 * TRIES };
        for _ in 0..tries {
            match self.lock() {
                Err(e) if e.kind == Kind::Conflict => self.env.sleep(LOOK).await,
                other => return other,
            }
        }
        self.lock()
    }

    fn lock(&self) -> Result<Arc<dyn env::File>> {
        let path = dir_of(&self.profile).join("lock");
        let lock = self.env.disk.lock(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Error::conflict("an agent is at work on this outbox already").hint("shardkeep queue list"),
            _ => failed(&path, &e),
        })?;
        let pid = std::process::id().to_string();
        lock.set_len(0).and_then(|()| lock.write_all_at(pid.as_bytes(), 0)).map_err(|e| failed(&path, &e))?;
        // How far an agent was that is no more says nothing.
        let dir = dir_of(&self.profile);
        for name in files(&self.env, &dir).iter().filter(|n| n.ends_with(".now")) {
            self.env.disk.remove_file(&dir.join(name)).map_err(|e| failed(&dir, &e))?;
        }
        Ok(lock)
    }

    /// Whether to go on: somebody may have removed the whole profile.
    fn is_there(&self) -> bool {
        self.env.disk.exists(&dir_of(&self.profile))
    }

    async fn work(&mut self) -> Result<()> {
        let mut idle_since = self.env.clock.monotonic();
        while self.is_there() {
            let runnable = match Outbox::open(&self.profile) {
                Ok(outbox) => {
                    outbox.sweep()?;
                    self.next_job(&outbox)?.map(|next| (outbox, next))
                }
                // Nobody is logged in: what lies here cannot be read until somebody is.
                Err(e) if e.kind == Kind::Denied => None,
                Err(e) => return Err(e),
            };
            let Some((outbox, (id, job, state))) = runnable else {
                let waits = Outbox::open(&self.profile).is_ok_and(|o| self.will_wake(&o));
                let idle = self.env.clock.monotonic() - idle_since;
                if !waits && self.options.until_idle.is_some_and(|limit| idle >= limit) {
                    return Ok(());
                }
                self.env.sleep(LOOK).await;
                continue;
            };
            self.one(&outbox, &id, job, state).await?;
            idle_since = self.env.clock.monotonic();
        }
        Ok(())
    }

    /// What is known of a job, with the user's wishes heard.
    fn state(&self, outbox: &Outbox, id: &str) -> Result<(State, Want)> {
        let mut state: State = outbox.read(id, "state")?.unwrap_or_default();
        let want: Want = outbox.read(id, "want")?.unwrap_or_default();
        if want.retries > state.retries {
            state = State { retries: want.retries, as_is: state.as_is || want.as_is, places: state.places, ..State::default() };
            outbox.write(id, "state", &state)?;
        }
        Ok((state, want))
    }

    /// The job that is longest due.
    fn next_job(&self, outbox: &Outbox) -> Result<Option<(String, Job, State)>> {
        let now = self.env.now_ms();
        let mut due = Vec::new();
        for id in outbox.active() {
            let Ok((state, want)) = self.state(outbox, &id) else { continue };
            if !want.paused && !state.failed && state.next_ms <= now {
                due.push((state.next_ms, id, state));
            }
        }
        due.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (_, id, state) in due {
            match outbox.read::<Job>(&id, "job") {
                Ok(Some(job)) if job.check().is_ok() => return Ok(Some((id, job, state))),
                // Removed just now, or another account's.
                _ => continue,
            }
        }
        Ok(None)
    }

    /// Whether some job will be tried again by itself.
    fn will_wake(&self, outbox: &Outbox) -> bool {
        outbox.active().iter().any(|id| self.state(outbox, id).is_ok_and(|(s, w)| !w.paused && !s.failed && s.next_ms > 0))
    }

    /// One try of a job, and what follows from it.
    async fn one(&mut self, outbox: &Outbox, id: &str, job: Job, mut state: State) -> Result<()> {
        let before = outbox.done(id)?.len();
        let tried = self.try_job(outbox, id, &job, &mut state).await;
        outbox.remove_file(&outbox.path(id, "now"))?;
        if !self.is_there() || !self.env.disk.exists(&outbox.path(id, "job")) {
            return Ok(());
        }
        match tried {
            Tried::Done => return outbox.remove_files(id),
            Tried::Stopped => {}
            Tried::Away(e) => {
                let got_on = outbox.done(id)?.len() > before;
                state.tries = if got_on { 1 } else { state.tries.saturating_add(1) };
                state.next_ms = self.env.now_ms() + self.pause_ms(state.tries);
                state.reason = Some(e.message);
                outbox.write(id, "state", &state)?;
            }
            Tried::Failed(e) => {
                tracing::warn!(job = id, kind = ?e.kind, "a job of the outbox has failed");
                (state.failed, state.reason) = (true, Some(e.message));
                outbox.write(id, "state", &state)?;
                // Unless the user has asked for a retry in this very moment.
                let want: Want = outbox.read(id, "want")?.unwrap_or_default();
                outbox.set_rest(id, want.retries <= state.retries)?;
            }
        }
        Ok(())
    }

    /// Twice as long with each try, and between half and the whole of that, so that not all come at once.
    fn pause_ms(&self, tries: u32) -> u64 {
        let (least, most) = PAUSE_MS;
        let whole = least.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(most);
        let part = u64::from(u16::from_be_bytes(self.env.random()));
        whole / 2 + whole / 2 * part / u64::from(u16::MAX)
    }

    /// A client of whoever the outbox was opened for: somebody else may have logged in meanwhile.
    async fn client(&mut self, outbox: &Outbox) -> Result<Client> {
        let account = outbox.unlocked.account();
        if let Some(client) = self.client.as_ref().filter(|c| c.unlocked().account() == account) {
            return Ok(client.clone());
        }
        let options = ClientOptions { memory: self.options.memory, ..Default::default() };
        let client = Client::open(self.profile.clone(), options).await?;
        if client.unlocked().account() != account {
            return Err(Error::unavailable("another account has logged in just now"));
        }
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn try_job(&mut self, outbox: &Outbox, id: &str, job: &Job, state: &mut State) -> Tried {
        // A session that has ended comes back with the next login: that is not the job's fault.
        let client = match self.client(outbox).await {
            Ok(client) => client,
            Err(e) => return Tried::Away(e),
        };
        let alive = match client.whoami().await {
            Err(e) => {
                self.client = None;
                return Tried::Away(e);
            }
            Ok(_) => client,
        };
        match self.watched(&alive, outbox, id, job, state).await {
            None => Tried::Stopped,
            Some(Ok(())) => Tried::Done,
            Some(Err(e)) if e.kind == Kind::Unavailable => Tried::Away(e),
            // A session that has ended in the middle is not the job's fault either.
            Some(Err(e)) if e.kind == Kind::Denied && alive.whoami().await.is_err() => {
                self.client = None;
                Tried::Away(e)
            }
            Some(Err(e)) => Tried::Failed(e),
        }
    }

    /// Stores what is left of a job, and shows how far it is; `None` when the user has other wishes.
    async fn watched(&self, client: &Client, outbox: &Outbox, id: &str, job: &Job, state: &mut State) -> Option<Result<()>> {
        let progress = Arc::new(Noting::default());
        let work = self.store(client, outbox, id, job, state, &progress);
        tokio::pin!(work);
        let mut shown = None;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = outbox.env.sleep(LOOK) => {
                    let wanted: Option<Want> = outbox.read(id, "want").unwrap_or_default();
                    if !outbox.env.disk.exists(&outbox.path(id, "job")) || wanted.is_some_and(|w| w.paused) {
                        return None;
                    }
                    let now = Now { bytes: progress.bytes.load(Ordering::Relaxed) };
                    if shown != Some(now) {
                        outbox.show(id, &now);
                        shown = Some(now);
                    }
                }
            }
        }
    }

    /// Stores everything of a job that is not stored yet.
    async fn store(&self, client: &Client, outbox: &Outbox, id: &str, job: &Job, state: &mut State, progress: &Arc<Noting>) -> Result<()> {
        let tops = self.places(client, outbox, id, job, state).await?;
        let mut done = outbox.done(id)?;
        let file = outbox.env.disk.open(&outbox.path(id, "done"), Open::OrCreate).map_err(|e| failed(&outbox.path(id, "done"), &e))?;
        // A number that a crash has torn is written anew.
        let notes = Arc::new(Done { file, count: AtomicU64::new(outbox.done(id)?.len() as u64) });
        let left: Vec<(u32, &Item)> = (0u32..).zip(&job.items).filter(|(number, _)| !done.contains(number)).collect();
        let stored: u64 = (0u32..).zip(&job.items).filter(|(n, i)| i.is_file() && done.contains(n)).map(|(_, i)| i.size).sum();
        progress.bytes.store(stored, Ordering::Relaxed);
        let mut failed_items = Vec::new();
        for (part, batch) in left.chunks(BATCH).enumerate() {
            let (mut puts, mut numbers) = (Vec::new(), BTreeMap::new());
            for (number, item) in batch {
                let remote = item.remote(&tops)?;
                if item.is_folder() {
                    client.make_folder(&remote, item.attributes()).await?;
                    notes.add(*number)?;
                    done.insert(*number);
                    continue;
                }
                // Stored by a try that died before it could say so.
                if part * BATCH < UNSURE && !outbox.is_first_try(id, state) && self.is_stored(client, item, &remote, job).await? {
                    notes.add(*number)?;
                    continue;
                }
                match self.source(outbox, id, *number, item, state.as_is).await {
                    Ok(source) => {
                        numbers.entry(remote.to_string()).or_insert_with(BTreeSet::new).insert(*number);
                        puts.push(Put { source, remote });
                    }
                    Err(e) => failed_items.push(e),
                }
            }
            outbox.note_try(id)?;
            progress.begin(numbers, notes.clone());
            let PutReport { failed, .. } = client.put(puts, job.options(), progress.clone()).await?;
            for (_, e) in failed {
                // The servers being away concerns all that is left, too.
                if e.kind == Kind::Unavailable {
                    return Err(e);
                }
                failed_items.push(e);
            }
        }
        let count = failed_items.len();
        match failed_items.into_iter().next() {
            None => Ok(()),
            Some(e) if count == 1 => Err(e),
            Some(e) => Err(Error { message: format!("{} (and {} more files)", e.message, count - 1), ..e }),
        }
    }

    /// Where the sources go: decided at the first try, so that a second one does not find its own traces.
    async fn places(&self, client: &Client, outbox: &Outbox, id: &str, job: &Job, state: &mut State) -> Result<Vec<RemotePath>> {
        if let Some(places) = &state.places {
            return places.iter().map(|p| from_names(p)).collect();
        }
        let places = (self.resolve)(client, job.sources(), job.destination()?, job.slash, job.several).await?;
        state.places = Some(places.iter().map(to_names).collect());
        outbox.write(id, "state", state)?;
        Ok(places)
    }

    /// Whether what lies at a place is what this item put there.
    async fn is_stored(&self, client: &Client, item: &Item, remote: &RemotePath, job: &Job) -> Result<bool> {
        match client.stat(remote).await {
            Ok(entry) => Ok(entry.kind == EntryKind::File
                && item.is_file()
                && (entry.size, entry.mtime_ns) == (item.size, item.attributes().mtime_ns)
                && entry.committed_ms.saturating_add(3_600_000) > job.created_ms
                && entry.found.author == client.unlocked().account()),
            Err(e) if e.kind == Kind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn source(&self, outbox: &Outbox, id: &str, number: u32, item: &Item, as_is: bool) -> Result<Source> {
        if item.spooled {
            return Ok(Source::Spooled(SpooledFile {
                env: outbox.env.clone(),
                unlocked: outbox.unlocked.clone(),
                id: id.to_string(),
                item: number,
                path: outbox.path(id, &format!("{number}.spool")),
                size: item.size,
                attributes: item.attributes(),
            }));
        }
        let path = item.path();
        let looked_at = path.clone();
        let now = outbox.env.blocking(move || stamp(&looked_at)).await;
        let now = now.map_err(|e| Error { message: format!("the source is gone or unreadable: {}", e.message), ..e })?;
        if !as_is && !item.is(&now) {
            return Err(changed(&path.display().to_string()));
        }
        if !item.is_file() || as_is {
            return Ok(Source::Path(path));
        }
        let stamp: Stamp = item.stamp();
        Ok(Source::Queued(QueuedFile { path, stamp, attributes: item.attributes() }))
    }
}

impl Client {
    /// Makes a folder unless it is there.
    async fn make_folder(&self, path: &RemotePath, attributes: Attributes) -> Result<()> {
        if path.name().is_none() {
            return Ok(());
        }
        loop {
            let (folder, name, entry) = self.resolve(path).await?;
            match entry {
                Some(entry) if entry.kind == EntryKind::Folder => return Ok(()),
                Some(_) => return Err(Error::exists(format!("{path} exists and is no folder"))),
                None => {}
            }
            let made = self.new_folder_change(&folder, &name, attributes.clone())?.0;
            match self.commit(vec![made]).await {
                Err(e) if e.kind == Kind::Exists => {}
                done => return done.map(|_| ()),
            }
        }
    }
}

/// The source is another one than was queued.
pub(crate) fn changed(path: &str) -> Error {
    Error::conflict(format!("{path} has changed since it was queued")).hint("shardkeep queue retry --as-is JOB")
}

impl Outbox {
    /// Whether no try of a job has come as far as uploading.
    fn is_first_try(&self, id: &str, state: &State) -> bool {
        state.tries == 0 && !self.env.disk.exists(&self.path(id, "tried"))
    }

    /// From here on something may be stored that nobody has noted.
    fn note_try(&self, id: &str) -> Result<()> {
        let path = self.path(id, "tried");
        self.env.disk.open(&path, Open::OrCreate).map(|_| ()).map_err(|e| failed(&path, &e))
    }

    /// Shows how far a job is. Best effort: whoever looks in the middle sees nothing of it.
    fn show(&self, id: &str, now: &Now) {
        let sealed = self.sealed(id, "now", now);
        let part = self.path(id, "now.part");
        let shown = self.env.disk.open(&part, Open::OrCreate).and_then(|file| {
            file.set_len(0)?;
            file.write_all_at(&sealed, 0)?;
            self.env.disk.rename(&part, &self.path(id, "now"))
        });
        if let Err(e) = shown {
            tracing::debug!(error = %e, "progress is not shown");
        }
    }
}

/// The list of items that are stored.
struct Done {
    file: Arc<dyn env::File>,
    count: AtomicU64,
}

impl Done {
    fn add(&self, number: u32) -> Result<()> {
        let at = self.count.fetch_add(1, Ordering::Relaxed) * 4;
        self.file.write_all_at(&number.to_be_bytes(), at).map_err(|e| Error::invalid(format!("the outbox cannot be written: {e}")))
    }
}

/// Numbers of the items that are being stored, by path.
type UnderWay = BTreeMap<String, BTreeSet<u32>>;

/// Notes each file that is stored.
#[derive(Default)]
struct Noting {
    bytes: AtomicU64,
    under_way: Mutex<(UnderWay, Option<Arc<Done>>)>,
}

impl Noting {
    fn begin(&self, numbers: UnderWay, notes: Arc<Done>) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = (numbers, Some(notes));
    }
}

impl Progress for Noting {
    fn total(&self, _: u64, _: u64) {}

    fn bytes(&self, done: u64) {
        self.bytes.fetch_add(done, Ordering::Relaxed);
    }

    fn file(&self, path: &str) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, notes) = &mut *under_way;
        let number = numbers.get_mut(path).and_then(BTreeSet::pop_first);
        if let (Some(number), Some(notes)) = (number, notes)
            && let Err(e) = notes.add(number)
        {
            tracing::warn!(error = %e, "a stored file could not be noted in the outbox");
        }
    }
}
