//! Users: each at a machine of their own, all writing to the same entries, and noting what they did
//! and saw for the checker.

use super::stage::{Phase, Stage};
use crate::check::{Does, Key};
use crate::cluster::dice::Dice;
use crate::cluster::user::content;
use client::{Client, ClientOptions, Profile, Put, PutOptions, RemotePath, Source};
use env::{DiskExt, Env};
use model::cluster::ServerRole;
use model::{Error, Kind, Policy};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The password of the account.
const PASSWORD: &str = "correct horse battery staple";
/// Where profiles lie.
const HOME: &str = "/home";
/// The one folder in which everything happens.
pub const FOLDER: &str = "/f";
/// Names in it: moves and copies go between the two of a pair.
pub const FILES: &[&str] = &["a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"];
/// How often waiting actors look.
pub const LOOK: Duration = Duration::from_millis(100);
/// No operation takes longer than this, whatever is broken.
const OPERATION: Duration = Duration::from_secs(300);

/// A user's part.
#[derive(Debug, Clone)]
pub struct Part {
    /// Number of the user.
    pub me: usize,
    /// Coordinators of the cluster.
    pub coordinators: usize,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
}

/// Somebody who is logged in.
pub struct Scene {
    /// The machine.
    pub env: Env,
    /// What all share.
    pub stage: Stage,
    /// Name of the host.
    pub name: String,
    /// The account's client.
    pub client: Client,
}

/// A user's program. Called with each start of the machine.
pub async fn user(env: Env, stage: Stage, part: Part) -> env::sim::Result {
    let name = format!("user{}", part.me);
    let client = opened(&env, &stage, &name, Some(&part).filter(|p| p.me == 0)).await;
    let scene = Arc::new(Scene { env: env.clone(), stage: stage.clone(), name, client });
    loop {
        let phase = scene.phase();
        match phase {
            Phase::Setup if part.me == 0 => scene.set_up().await,
            Phase::Play | Phase::Later | Phase::Anew => {
                let life = stage.lock().number();
                let mut tasks = Vec::new();
                for lane in 0..2 {
                    let (scene, dice) = (scene.clone(), Dice::new(part.seed, &format!("user {} {lane} {life}", part.me)));
                    tasks.push(env.spawn(async move { scene.play(phase, dice).await }));
                }
                for task in tasks {
                    task.await?;
                }
            }
            Phase::Check | Phase::CheckAnew => scene.read_everything().await,
            _ => {}
        }
        scene.ready(phase).await;
    }
}

/// The path of a name.
pub fn path(name: &str) -> RemotePath {
    RemotePath::parse(&format!("{FOLDER}/{name}")).unwrap_or_else(|_| RemotePath::root())
}

/// The first user registers and lets servers in; the others are the same account on other machines.
pub async fn opened(env: &Env, stage: &Stage, name: &str, first: Option<&Part>) -> Client {
    loop {
        match try_open(env, stage, first).await {
            Ok(client) => return client,
            Err(e) if e.kind == Kind::Unavailable => {
                stage.lock().tell(env.clock.monotonic(), format!("{name} cannot begin: {e}"));
                env.sleep(Duration::from_millis(500)).await;
            }
            // The machine died under it.
            Err(e) if e.message.contains("lost its power") || env.disk.read_dir(Path::new("/")).is_err() => {
                return std::future::pending().await;
            }
            Err(e) => {
                stage.lock().fail(env.clock.monotonic(), format!("{name} cannot begin: {:?}: {e}", e.kind));
                return std::future::pending().await;
            }
        }
    }
}

async fn try_open(env: &Env, stage: &Stage, first: Option<&Part>) -> Result<Client, Error> {
    let profile = Profile::new(env.clone(), Path::new(HOME), "me")?;
    let options = ClientOptions { memory: 64 << 20, policy: None };
    if profile.exists() {
        return Client::open(profile, options).await;
    }
    let failed = |e: std::io::Error| Error::unavailable(e.to_string());
    let Some(part) = first else {
        let files = loop {
            let files = stage.lock().profile.clone();
            match files {
                Some(files) => break files,
                None => env.sleep(LOOK).await,
            }
        };
        for (path, bytes) in files {
            env.disk.create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
            env.disk.replace(&path, &bytes).map_err(failed)?;
        }
        return Client::open(profile, options).await;
    };
    let invite = loop {
        let invite = stage.lock().invite.clone();
        match invite {
            Some(invite) => break invite,
            None => env.sleep(LOOK).await,
        }
    };
    let (client, _) = Client::register(profile, &invite, PASSWORD, options).await?;
    for i in 1..part.coordinators {
        let (token, _) = client.create_token(ServerRole::Coordinator, Duration::from_secs(3600), None).await?;
        stage.lock().tokens.insert(format!("coordinator{i}"), token);
    }
    while client.status().await?.cluster.coordinators.iter().filter(|c| !c.address.is_empty()).count() < part.coordinators {
        env.sleep(LOOK).await;
    }
    for i in 0..part.nodes {
        let (token, _) = client.create_token(ServerRole::Node, Duration::from_secs(3600), None).await?;
        stage.lock().tokens.insert(format!("node{i}"), token);
    }
    while client.layout(Policy::DEFAULT.width()).await?.is_none() {
        env.sleep(LOOK).await;
    }
    Ok(client)
}

impl Scene {
    /// Simulated time.
    pub fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    /// Writes a line of the history.
    pub fn tell(&self, text: impl Into<String>) {
        self.stage.lock().tell(self.now(), format!("{} {}", self.name, text.into()));
    }

    /// How far the story is.
    pub fn phase(&self) -> Phase {
        self.stage.lock().phase
    }

    /// Says that a phase is over here, and waits for the next.
    pub async fn ready(&self, phase: Phase) {
        self.stage.lock().ready.insert(self.name.clone(), phase);
        while self.phase() <= phase {
            self.env.sleep(LOOK).await;
        }
    }

    /// The folder; and the profile for the others, which then knows all coordinators.
    async fn set_up(&self) {
        let folder = RemotePath::parse(FOLDER).unwrap_or_else(|_| RemotePath::root());
        if let Err(e) = self.client.mkdir(&folder, true).await {
            self.stage.lock().fail(self.now(), format!("no folder could be made: {e}"));
        }
        let dir = Path::new(HOME).join("profiles/me");
        let read = |name: &str| self.env.disk.read(&dir.join(name)).map(|bytes| (dir.join(name), bytes));
        let files: Result<Vec<_>, _> = ["profile", "session"].into_iter().map(read).collect();
        match files {
            Ok(files) => self.stage.lock().profile = Some(files),
            Err(e) => self.stage.lock().fail(self.now(), format!("no profile: {e}")),
        }
    }

    /// Whether a server may be missed now, or its absence may still be felt.
    fn excused(&self, began: Duration) -> bool {
        self.stage.lock().broken.is_some_and(|broken| broken + Duration::from_secs(90) > began)
    }

    /// Gives an operation its time; none takes longer, whatever happens.
    pub async fn bounded<T>(&self, what: &str, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.env.timeout(OPERATION, operation).await {
            Some(done) => done,
            None => {
                self.stage.lock().fail(self.now(), format!("{} {what} took more than {OPERATION:?}", self.name));
                std::future::pending().await
            }
        }
    }

    async fn play(&self, phase: Phase, mut dice: Dice) {
        while self.phase() == phase {
            let name = dice.pick(FILES);
            let twin = FILES.iter().find(|f| **f != name && f.as_bytes().first() == name.as_bytes().first()).unwrap_or(&name);
            match dice.below(16) {
                0..=5 => self.put(name, &mut dice).await,
                6..=7 => self.change(Does::Move { from: name.into(), to: (*twin).into() }).await,
                8 => self.change(Does::Copy { from: name.into(), to: (*twin).into() }).await,
                9 => self.change(Does::Remove { key: name.into() }).await,
                10 => drop(self.list().await),
                _ => drop(self.get(name).await),
            }
            self.env.sleep(Duration::from_millis(dice.below(1500))).await;
        }
    }

    async fn put(&self, name: &str, dice: &mut Dice) {
        let len = length(dice);
        // Mirrors of three beside the default: both survive two losses.
        let policy = if dice.one_in(4) { "1+2".parse::<Policy>().ok() } else { None };
        let bytes = {
            let mut shared = self.stage.lock();
            let value = shared.number();
            let bytes = content(value, len);
            shared.contents.insert(*blake3::hash(&bytes).as_bytes(), value);
            (value, bytes)
        };
        let (value, bytes) = bytes;
        let options = PutOptions { policy, ..PutOptions::default() };
        let put = vec![Put { source: Source::Bytes(bytes), remote: path(name) }];
        let stored = async {
            let report = self.client.put(put, options, Arc::new(())).await?;
            match report.failed.into_iter().next() {
                Some((_, e)) => Err(e),
                None => Ok(if report.degraded { "degraded" } else { "ok" }),
            }
        };
        self.recorded(Does::Put { key: name.into(), value }, stored).await;
    }

    async fn change(&self, does: Does) {
        // What a backup knows is not purged after it.
        let purges = self.phase() < Phase::Backup || self.phase() > Phase::Rest;
        let done = async {
            match &does {
                Does::Move { from, to } => self.client.rename(&path(from), &path(to)).await?,
                Does::Copy { from, to } => self.client.copy(&path(from), &path(to), false).await?,
                Does::Remove { key } => drop(self.client.remove(&path(key), false, purges).await?),
                _ => {}
            }
            Ok("ok")
        };
        self.recorded(does.clone(), done).await;
    }

    /// Carries out a change and notes it.
    async fn recorded(&self, does: Does, change: impl Future<Output = Result<&'static str, Error>>) {
        let began = self.now();
        let number = self.stage.lock().record.begins(self.name.clone(), does.clone());
        let what = format!("{does:?}");
        let done = self.bounded(&what, change).await;
        let excused = self.excused(began);
        let mut shared = self.stage.lock();
        let text = match &done {
            Ok(text) => {
                shared.record.ends(number);
                (*text).to_owned()
            }
            Err(e) if e.kind == Kind::Unavailable => e.to_string(),
            Err(e) => {
                let saw = |key: &Key, there| Does::Saw { key: key.clone(), there };
                let seen = match (&does, e.kind) {
                    (Does::Move { from: key, .. } | Does::Copy { from: key, .. } | Does::Remove { key }, Kind::NotFound) => saw(key, false),
                    (Does::Move { to, .. } | Does::Copy { to, .. }, Kind::Exists) => saw(to, true),
                    _ => Does::Nothing,
                };
                shared.record.ends_as(number, seen);
                format!("{:?}: {e}", e.kind)
            }
        };
        let now = self.now();
        shared.tell(now, format!("{} {what} since {:.3}: {text}", self.name, began.as_secs_f64()));
        // Two users who write the same entry may meet; everything else has an excuse or is a finding.
        let kept = match done.map_err(|e| e.kind) {
            Ok(_) | Err(Kind::Conflict | Kind::NotFound | Kind::Exists) => true,
            Err(Kind::Unavailable | Kind::Insufficient) => excused,
            Err(_) => false,
        };
        if !kept {
            shared.fail(now, format!("{what}: {text}, although nothing is broken"));
        }
    }

    /// Reads a file. Whether there was an answer.
    async fn get(&self, name: &str) -> bool {
        let read = async {
            let mut bytes = Vec::new();
            match self.client.cat(&path(name), None, &mut bytes).await {
                Ok(_) => Ok(Some(bytes)),
                Err(e) if e.kind == Kind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        };
        let see = |found: Option<Vec<u8>>| {
            let Some(bytes) = found else { return Ok(Does::Read { key: name.into(), saw: None }) };
            let hash = blake3::hash(&bytes);
            match self.stage.lock().contents.get(hash.as_bytes()) {
                Some(value) => Ok(Does::Read { key: name.into(), saw: Some(*value) }),
                None => Err(format!("{} bytes that nobody ever stored in {name}", bytes.len())),
            }
        };
        self.looked(&format!("get {name}"), read, see).await
    }

    async fn list(&self) -> bool {
        let folder = RemotePath::parse(FOLDER).unwrap_or_else(|_| RemotePath::root());
        let read = async { self.client.list(&folder).await };
        let see = |entries: Vec<client::Entry>| Ok(Does::List { keys: entries.iter().map(|e| e.name()).collect() });
        self.looked("list", read, see).await
    }

    async fn looked<T>(
        &self,
        what: &str,
        read: impl Future<Output = Result<T, Error>>,
        see: impl FnOnce(T) -> Result<Does, String>,
    ) -> bool {
        let began = self.now();
        let number = self.stage.lock().record.begins(self.name.clone(), Does::Nothing);
        let done = self.bounded(what, read).await.map(see);
        let excused = self.excused(began);
        let now = self.now();
        let mut shared = self.stage.lock();
        let (answered, text, kept) = match done {
            Ok(Ok(does)) => {
                let text = format!("{does:?}");
                shared.record.ends_as(number, does);
                (true, text, true)
            }
            Ok(Err(why)) => (true, why, false),
            Err(e) => (false, format!("{:?}: {e}", e.kind), e.kind == Kind::Unavailable && excused),
        };
        shared.tell(now, format!("{} {what} since {:.3}: {text}", self.name, began.as_secs_f64()));
        if !kept {
            shared.fail(now, format!("{what}: {text}"));
        }
        answered
    }

    async fn read_everything(&self) {
        while !self.list().await {
            self.env.sleep(Duration::from_secs(5)).await;
        }
        for name in FILES {
            while !self.get(name).await {
                self.env.sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// Lengths around all limits, mostly small.
fn length(dice: &mut Dice) -> u32 {
    match dice.below(24) {
        0..=3 => dice.below(4097) as u32,
        4..=21 => dice.between(4097, 40_000) as u32,
        22 => dice.between(60_000, 1 << 20) as u32,
        _ => (4 << 20) + dice.between(0, 3000) as u32 - 1000,
    }
}
