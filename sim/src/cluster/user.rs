//! A user at a machine of their own: writes to their own shelves, reads everybody's, and holds every
//! answer against the model.

use super::dice::Dice;
use super::model::{Act, Seen};
use super::stage::{Phase, Stage};
use client::{Client, ClientOptions, EntryKind, Profile, Put, PutOptions, RemotePath, Source};
use env::{DiskExt, Env};
use model::cluster::ServerRole;
use model::{Error, Kind, Policy};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The password of the account.
const PASSWORD: &str = "correct horse battery staple";
/// Where profiles lie.
const HOME: &str = "/home";
/// Paths of files in a shelf.
const FILES: &[&str] = &["a", "b", "c", "d/a", "d/b", "e/a"];
/// Paths of folders in a shelf.
const FOLDERS: &[&str] = &["d", "e", "d/f"];
/// With more possible states than this a writer looks before it goes on.
const OPEN_MAX: usize = 500;
/// How often waiting actors look.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time between mending and every chunk at full redundancy.
const WHOLE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// No operation takes longer than this, whatever is broken.
const OPERATION: Duration = Duration::from_secs(300);

/// A user's part: which machine it is, which shelves it writes to, and how many there are.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Number of the user.
    pub me: usize,
    /// Users in all.
    pub users: usize,
    /// Shelves of each user.
    pub each: usize,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// The seed.
    pub seed: u64,
}

/// The user's program. Called with each start of the machine.
pub async fn user(env: Env, stage: Stage, part: Part) -> env::sim::Result {
    left_over(&env, &stage, part);
    let client = opened(&env, &stage, part).await;
    let scene = Arc::new(Scene { env: env.clone(), stage: stage.clone(), part, client });
    if stage.lock().phase == Phase::Setup {
        for shelf in scene.own() {
            if let Err(e) = scene.client.mkdir(&path(&format!("/s{shelf}")), false).await {
                stage.lock().fail(env.clock.monotonic(), format!("no folder could be made: {e}"));
            }
        }
        scene.ready(Phase::Setup).await;
    }
    let life = stage.lock().number();
    let writers = scene.own().map(|shelf| (shelf, true));
    let readers = [(part.me, false)];
    let tasks: Vec<_> = writers
        .chain(readers)
        .map(|(number, writes)| {
            let scene = scene.clone();
            let dice = Dice::new(part.seed, &format!("user {} {number} {writes} {life}", part.me));
            env.spawn(async move { if writes { scene.write(number, dice).await } else { scene.look_around(dice).await } })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    scene.ready(Phase::Mend).await;
    if part.me == 0 {
        scene.wait_until_whole().await;
    }
    scene.read_everything().await;
    scene.ready(Phase::Check).await;
    std::future::pending().await
}

/// What this machine had under way when it crashed: nobody got the answers.
fn left_over(env: &Env, stage: &Stage, part: Part) {
    let mut shared = stage.lock();
    shared.shelves.iter_mut().for_each(|shelf| shelf.reader_gone(part.me));
    for shelf in part.me * part.each..(part.me + 1) * part.each {
        if let Some((change, act)) = shared.under_way.remove(&shelf) {
            let now = env.clock.monotonic();
            shared.shelves[shelf].unknown(change, now);
            shared.tell(now, format!("user{} s{shelf} {act:?} was under way", part.me));
        }
    }
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap_or_else(|_| RemotePath::root())
}

/// The first user registers and lets the nodes in; the others are the same account on other machines.
async fn opened(env: &Env, stage: &Stage, part: Part) -> Client {
    loop {
        match try_open(env, stage, part).await {
            Ok(client) => return client,
            Err(e) if e.kind == Kind::Unavailable => env.sleep(Duration::from_millis(500)).await,
            // The machine died under it.
            Err(e) if e.message.contains("lost its power") => return std::future::pending().await,
            Err(e) => {
                stage.lock().fail(env.clock.monotonic(), format!("user{} cannot begin: {:?}: {e}", part.me, e.kind));
                return std::future::pending().await;
            }
        }
    }
}

async fn try_open(env: &Env, stage: &Stage, part: Part) -> Result<Client, Error> {
    let profile = Profile::new(env.clone(), Path::new(HOME), "me")?;
    let options = ClientOptions { memory: 64 << 20, policy: None };
    if profile.exists() {
        return Client::open(profile, options).await;
    }
    if part.me > 0 {
        let files = loop {
            let files = stage.lock().profile.clone();
            match files {
                Some(files) => break files,
                None => env.sleep(LOOK).await,
            }
        };
        let failed = |e: std::io::Error| Error::unavailable(e.to_string());
        for (path, bytes) in files {
            env.disk.create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
            env.disk.replace(&path, &bytes).map_err(failed)?;
        }
        return Client::open(profile, options).await;
    }
    let invite = loop {
        let invite = stage.lock().invite.clone();
        match invite {
            Some(invite) => break invite,
            None => env.sleep(LOOK).await,
        }
    };
    let (client, _) = Client::register(profile, &invite, PASSWORD, options).await?;
    for node in 0..part.nodes {
        let (token, _) = client.create_token(ServerRole::Node, Duration::from_secs(3600), None).await?;
        stage.lock().tokens.insert(node, token);
    }
    while client.layout(Policy::DEFAULT.width()).await?.is_none() {
        env.sleep(LOOK).await;
    }
    let dir = Path::new(HOME).join("profiles/me");
    let read = |name: &str| env.disk.read(&dir.join(name)).map(|bytes| (dir.join(name), bytes));
    let files = ["profile", "session"].into_iter().map(read).collect::<Result<_, _>>();
    stage.lock().profile = Some(files.map_err(|e| Error::unavailable(e.to_string()))?);
    Ok(client)
}

/// A user who is logged in.
struct Scene {
    env: Env,
    stage: Stage,
    part: Part,
    client: Client,
}

impl Scene {
    fn now(&self) -> Duration {
        self.env.clock.monotonic()
    }

    fn own(&self) -> std::ops::Range<usize> {
        self.part.me * self.part.each..(self.part.me + 1) * self.part.each
    }

    /// Says that a phase is over here, and waits for the next.
    async fn ready(&self, phase: Phase) {
        self.stage.lock().ready.insert(self.part.me, phase);
        while self.stage.lock().phase <= phase {
            self.env.sleep(LOOK).await;
        }
    }

    fn playing(&self) -> bool {
        self.stage.lock().phase == Phase::Play
    }

    /// Whether a server may be missed now, or its absence may still be felt.
    fn excused(&self, began: Duration) -> bool {
        self.stage.lock().broken.is_some_and(|broken| broken + Duration::from_secs(60) > began)
    }

    /// Gives an operation its time; none takes longer, whatever happens.
    async fn bounded<T>(&self, what: &str, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.env.timeout(OPERATION, operation).await {
            Some(done) => done,
            None => {
                self.stage.lock().fail(self.now(), format!("user{} {what} took more than {OPERATION:?}", self.part.me));
                std::future::pending().await
            }
        }
    }

    async fn write(&self, shelf: usize, mut dice: Dice) {
        while self.playing() {
            // With too many answers missing, too much would be possible to check anything: first look.
            if self.stage.lock().shelves[shelf].possible().len() > OPEN_MAX {
                let file = dice.pick(FILES);
                self.get(shelf, file).await;
                self.list(shelf, "").await;
                self.env.sleep(Duration::from_secs(1)).await;
                continue;
            }
            let act = choose(&mut dice);
            self.act(shelf, act).await;
            self.env.sleep(Duration::from_millis(dice.below(400))).await;
        }
    }

    async fn act(&self, shelf: usize, act: Act) {
        let began = self.now();
        let change = {
            let mut shared = self.stage.lock();
            let change = shared.number();
            if let Err(why) = shared.shelves[shelf].begin(&act, change, began) {
                shared.fail(began, why);
            }
            shared.under_way.insert(shelf, (change, act.clone()));
            change
        };
        let what = format!("s{shelf} {act:?} #{change}");
        let done = self.bounded(&what, self.carry_out(shelf, &act, change)).await;
        let ended = self.now();
        let excused = self.excused(began);
        let mut shared = self.stage.lock();
        shared.under_way.remove(&shelf);
        let state = &mut shared.shelves[shelf];
        let (text, kept) = match done {
            Ok(text) => (text, state.done(change)),
            Err(e) if e.kind == Kind::Unavailable => {
                state.unknown(change, ended);
                (format!("{e}"), if excused { Ok(()) } else { Err(format!("unavailable although nothing is broken: {e}")) })
            }
            Err(e) => (format!("{:?}: {e}", e.kind), state.refused(&act, change, e.kind)),
        };
        shared.tell(ended, format!("user{} {what} since {:.3}: {text}", self.part.me, began.as_secs_f64()));
        if let Err(why) = kept {
            shared.fail(ended, format!("{what}: {why}"));
        }
    }

    async fn carry_out(&self, shelf: usize, act: &Act, change: u64) -> Result<String, Error> {
        let at = |p: &str| path(&format!("/s{shelf}/{p}"));
        match act {
            Act::Put { path, len, allow_degraded, policy } => {
                let options = PutOptions { policy: *policy, allow_degraded: *allow_degraded, ..PutOptions::default() };
                let put = vec![Put { source: Source::Bytes(content(change, *len)), remote: at(path) }];
                let report = self.client.put(put, options, Arc::new(())).await?;
                match report.failed.into_iter().next() {
                    Some((_, e)) => Err(e),
                    None => Ok(if report.degraded { "degraded" } else { "ok" }.into()),
                }
            }
            Act::Mkdir { path } => self.client.mkdir(&at(path), false).await.map(|()| "ok".into()),
            Act::Move { from, to } => self.client.rename(&at(from), &at(to)).await.map(|()| "ok".into()),
            Act::Copy { from, to } => self.client.copy(&at(from), &at(to), false).await.map(|()| "ok".into()),
            Act::Remove { path, purge } => self.client.remove(&at(path), true, *purge).await.map(|n| format!("ok, {n}")),
        }
    }

    /// Reads and lists what anybody wrote.
    async fn look_around(&self, mut dice: Dice) {
        while self.playing() {
            let shelf = dice.below((self.part.users * self.part.each) as u64) as usize;
            if dice.one_in(4) {
                let folder = if dice.one_in(2) { "" } else { dice.pick(FOLDERS) };
                self.list(shelf, folder).await;
            } else {
                self.get(shelf, dice.pick(FILES)).await;
            }
            self.env.sleep(Duration::from_millis(dice.below(400))).await;
        }
    }

    async fn get(&self, shelf: usize, file: &str) -> bool {
        let at = path(&format!("/s{shelf}/{file}"));
        let read = async {
            let mut bytes = Vec::new();
            self.client.cat(&at, None, &mut bytes).await?;
            Ok(Seen::File(blake3::hash(&bytes), bytes.len()))
        };
        self.read("get", shelf, file, read).await
    }

    async fn list(&self, shelf: usize, folder: &str) -> bool {
        let at = path(&format!("/s{shelf}/{folder}"));
        let read = async {
            let mut names = BTreeMap::new();
            for entry in self.client.list(&at).await? {
                let len = (entry.kind == EntryKind::File).then_some(entry.size as u32);
                names.insert(entry.name(), len);
            }
            Ok(Seen::Names(names))
        };
        self.read("list", shelf, folder, read).await
    }

    /// Reads and compares. Whether there was an answer.
    async fn read(&self, verb: &str, shelf: usize, file: &str, read: impl Future<Output = Result<Seen, Error>>) -> bool {
        let began = self.now();
        let number = {
            let mut shared = self.stage.lock();
            let number = shared.number();
            shared.shelves[shelf].read_begins((self.part.me, number), file, began);
            (self.part.me, number)
        };
        let what = format!("{verb} s{shelf}/{file}");
        let done = self.bounded(&what, read).await;
        let ended = self.now();
        let excused = self.excused(began);
        let mut shared = self.stage.lock();
        let state = &mut shared.shelves[shelf];
        let seen = match done {
            Ok(seen) => Ok(seen),
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid) => Ok(Seen::Refused(e.kind)),
            Err(e) => Err(e),
        };
        let answered = seen.is_ok();
        let (text, kept) = match seen {
            Ok(seen) => {
                let text = match &seen {
                    Seen::File(hash, len) => format!("{len} bytes {}", &hash.to_hex()[..8]),
                    Seen::Names(names) => format!("{:?}", names.keys().collect::<Vec<_>>()),
                    Seen::Refused(kind) => format!("{kind:?}"),
                };
                (text, state.read_saw(number, &seen, |change, len| blake3::hash(&content(change, len))))
            }
            Err(e) => {
                state.read_failed(number);
                let good = e.kind == Kind::Unavailable && excused;
                (e.to_string(), if good { Ok(()) } else { Err(format!("{:?} although nothing is broken: {e}", e.kind)) })
            }
        };
        shared.tell(ended, format!("user{} {what} since {:.3}: {text}", self.part.me, began.as_secs_f64()));
        if let Err(why) = kept {
            shared.fail(ended, format!("{what}: {why}"));
        }
        answered
    }

    /// Looks until every chunk of every file is there in full.
    async fn wait_until_whole(&self) {
        let began = self.now();
        loop {
            let verified = self.bounded("verify", self.client.verify(&RemotePath::root(), true, true, Arc::new(()))).await;
            let now = self.now();
            let (whole, text) = match &verified {
                Ok(r) => (
                    r.ok == r.chunks && r.problems.is_empty(),
                    format!(
                        "{} files, {} chunks, {} whole, {} degraded, {} lost, {} problems",
                        r.files,
                        r.chunks,
                        r.ok,
                        r.degraded,
                        r.lost,
                        r.problems.len()
                    ),
                ),
                Err(e) => (false, format!("{:?}: {e}", e.kind)),
            };
            {
                let mut shared = self.stage.lock();
                shared.tell(now, format!("user{} verify: {text}", self.part.me));
                if whole {
                    return;
                }
                if now > began + WHOLE_WITHIN {
                    let first: Vec<_> = verified.iter().flat_map(|r| &r.problems).take(5).collect();
                    return shared.fail(now, format!("not whole {WHOLE_WITHIN:?} after all was mended: {text}; {first:?}"));
                }
            }
            self.env.sleep(Duration::from_secs(5)).await;
        }
    }

    /// Lists and reads all shelves.
    async fn read_everything(&self) {
        for shelf in 0..self.part.users * self.part.each {
            for folder in [""].iter().chain(FOLDERS) {
                while !self.list(shelf, folder).await {
                    self.env.sleep(Duration::from_secs(5)).await;
                }
            }
            let tree = self.stage.lock().shelves[shelf]
                .possible()
                .iter()
                .flat_map(|s| s.tree().into_keys())
                .collect::<std::collections::BTreeSet<_>>();
            for file in tree.iter().filter(|p| !FOLDERS.contains(&p.as_str())) {
                while !self.get(shelf, file).await {
                    self.env.sleep(Duration::from_secs(5)).await;
                }
            }
        }
    }
}

fn choose(dice: &mut Dice) -> Act {
    match dice.below(20) {
        0..=8 => {
            let policy = [None, None, None, Some("1+2"), Some("2+1"), Some("1+1")][dice.below(6) as usize];
            let policy = policy.and_then(|p| p.parse::<Policy>().ok());
            Act::Put { path: dice.pick(FILES).into(), len: length(dice), allow_degraded: dice.one_in(8), policy }
        }
        9..=10 => Act::Mkdir { path: dice.pick(FOLDERS).into() },
        11..=13 => loop {
            let things = if dice.one_in(3) { FOLDERS } else { FILES };
            let (from, to) = (dice.pick(things), dice.pick(things));
            if from != to {
                break Act::Move { from: from.into(), to: to.into() };
            }
        },
        14..=15 => loop {
            let (from, to) = (dice.pick(FILES), dice.pick(FILES));
            if from != to && !to.starts_with(&format!("{from}/")) {
                break Act::Copy { from: from.into(), to: to.into() };
            }
        },
        16..=18 => Act::Remove { path: dice.pick(FILES).into(), purge: dice.one_in(2) },
        _ => Act::Remove { path: dice.pick(FOLDERS).into(), purge: false },
    }
}

/// Lengths around all limits, mostly small.
fn length(dice: &mut Dice) -> u32 {
    match dice.below(24) {
        0..=5 => dice.below(4097) as u32,
        6 => 4096 + dice.below(2) as u32,
        7..=20 => dice.between(4097, 60_000) as u32,
        21 => dice.between(60_000, 1 << 20) as u32,
        22 => (4 << 20) + dice.between(0, 3000) as u32 - 1000,
        _ => dice.between(5 << 20, 9 << 20) as u32,
    }
}

/// Bytes that belong to a change and repeat nowhere soon.
pub(crate) fn content(change: u64, len: u32) -> Vec<u8> {
    let mut dice = Dice::new(change, "content");
    let mut bytes = Vec::with_capacity(len as usize + 8);
    while bytes.len() < len as usize {
        bytes.extend_from_slice(&dice.throw().to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}
