//! A cluster of real processes of the built program, and users who type commands: what the tests
//! tell stories with.
//!
//! Everything lies in one temporary folder. A process that is dropped is killed and reaped, and
//! servers end by themselves when the test process dies: they watch their standard input. Nothing
//! but these processes is ever killed.

pub mod files;
pub mod three;

use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_shardkeep");
/// The password of every user.
pub const PASSWORD: &str = "correct horse battery staple";
/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(120);
/// How long any command may take.
const COMMAND: Duration = Duration::from_secs(300);
/// How often something awaited is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// How much longer than on a machine that does nothing else it may take.
const BUSY: u64 = 5;

/// Waits until something is so; fails the test after `seconds`, and as long again for each of [`BUSY`].
pub fn until(what: &str, seconds: u64, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        let most = Duration::from_secs(seconds * BUSY);
        assert!(start.elapsed() < most, "after {most:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    pub bytes: Vec<u8>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Asserts exit code 0.
    #[track_caller]
    pub fn ok(self) -> Ran {
        self.exits(0)
    }

    /// Asserts an exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// The one document on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: not one JSON document: {}\n{}", self.out, self.err))
    }

    /// The objects on standard output, one a line.
    #[track_caller]
    pub fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: no JSON: {l}"))).collect()
    }

    /// What is in `error` of the last object on standard error.
    #[track_caller]
    pub fn error(&self) -> Value {
        let line = self.err.lines().last().unwrap_or_else(|| panic!("nothing on standard error; on standard output: {}", self.out));
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: no JSON: {line}"));
        object["error"].clone()
    }

    /// Lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    out: File,
    err: File,
    started: Instant,
}

impl Running {
    /// Starts it.
    pub fn of(mut command: Command) -> Running {
        let file = || tempfile::tempfile().expect("a temporary file");
        let (out, err) = (file(), file());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let child = command.spawn().expect("the program starts");
        Running { child, out, err, started: Instant::now() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far, on standard output and on standard error.
    pub fn said(&self) -> (String, String) {
        let text = |file| String::from_utf8_lossy(&content(file)).into_owned();
        (text(&self.out), text(&self.err))
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL: as the hardest of crashes.
    pub fn kill(mut self) -> Ran {
        let _ = self.child.kill();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ran {
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            if self.started.elapsed() > COMMAND {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("a command did not end within {COMMAND:?}: {}", String::from_utf8_lossy(&content(&self.err)));
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        let bytes = content(&self.out);
        let err = String::from_utf8_lossy(&content(&self.err)).into_owned();
        Ran { code, out: String::from_utf8_lossy(&bytes).into_owned(), bytes, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is in a file. The process that writes it shares its position: that stays as it is.
fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The program, with nothing of the caller's environment that could change what it does.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    for name in ["HOME", "PASSWORD_FILE", "LOG", "MEMORY"] {
        command.env_remove(format!("SHARDKEEP_{name}"));
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program alone.
pub fn run(args: &[&str]) -> Ran {
    let mut command = program();
    command.args(args);
    Running::of(command).wait()
}

/// Somebody at a terminal of their own: a home folder and a password file.
#[derive(Clone)]
pub struct User {
    pub home: PathBuf,
    pub password_file: PathBuf,
}

impl User {
    pub fn new(dir: &Path, name: &str) -> User {
        User::with_password(dir, name, PASSWORD)
    }

    pub fn with_password(dir: &Path, name: &str, password: &str) -> User {
        let password_file = dir.join(format!("{name}.password"));
        std::fs::write(&password_file, format!("{password}\n")).unwrap();
        User { home: dir.join(format!("{name}.home")), password_file }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.arg("--home").arg(&self.home).env("SHARDKEEP_PASSWORD_FILE", &self.password_file).args(args);
        command
    }

    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(self.command(args))
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.start(args).wait()
    }

    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input).unwrap();
        file.rewind().unwrap();
        let mut command = self.command(args);
        command.stdin(file);
        Running::of(command).wait()
    }

    /// What must work.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}\nstdout: {}\nstderr: {}", ran.out, ran.err);
        ran
    }

    /// The document that a command prints with `--json`.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.ok(&[&["--json"], args].concat()).json()
    }

    /// The objects that a command prints with `--json`.
    #[track_caller]
    pub fn objects(&self, args: &[&str]) -> Vec<Value> {
        self.ok(&[&["--json"], args].concat()).objects()
    }

    /// A remote file's bytes.
    #[track_caller]
    pub fn read(&self, path: &str) -> Vec<u8> {
        self.ok(&["cat", path]).bytes
    }

    /// The events that the cluster knows.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        self.objects(&["cluster", "events"])
    }
}

/// A process that serves.
pub struct Server {
    child: Child,
    /// Its ready line.
    pub ready: Value,
}

impl Server {
    /// Starts a server and waits until it says that it is ready. Its output goes to `LOGS/NAME.out`
    /// and `.err`, also that of a later start.
    pub fn start(mut command: Command, logs: &Path, name: &str) -> Result<Server, Ran> {
        std::fs::create_dir_all(logs).unwrap();
        let open = |end: &str| File::options().create(true).append(true).read(true).open(logs.join(format!("{name}.{end}"))).unwrap();
        let (out, err) = (open("out"), open("err"));
        let (before_out, before_err) = (out.metadata().unwrap().len(), err.metadata().unwrap().len());
        let child = command.stdin(Stdio::piped()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).spawn().unwrap();
        let mut server = Server { child, ready: Value::Null };
        let start = Instant::now();
        let since = |file: &File, from: u64| {
            let (mut file, mut bytes) = (file, Vec::new());
            file.seek(std::io::SeekFrom::Start(from)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        loop {
            let ended = server.child.try_wait().unwrap();
            let said = since(&out, before_out);
            if let Some((line, _)) = said.split_once('\n') {
                server.ready = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: no ready line: {line}"));
                assert_eq!(server.ready["ready"], true, "{line}");
                return Ok(server);
            }
            if let Some(status) = ended {
                let err = since(&err, before_err);
                return Err(Ran { code: status.code().unwrap_or(-1), bytes: Vec::new(), out: said, err });
            }
            assert!(start.elapsed() < START, "{name} is not ready after {START:?}: {}", since(&err, before_err));
            std::thread::sleep(LOOK);
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn address(&self) -> &str {
        self.ready["address"].as_str().expect("a ready line names the address")
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; answers with the exit code and how long it took. Fails the test where it does not end at all.
    pub fn stop(mut self) -> (i32, Duration) {
        let start = Instant::now();
        terminate(self.pid());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code().unwrap_or(-1), start.elapsed());
            }
            assert!(start.elapsed() < START, "SIGTERM does not end process {}", self.pid());
            std::thread::sleep(LOOK);
        }
    }
}

/// SIGTERM to a process of ours.
pub fn terminate(pid: u32) {
    let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody uses, below those that the system gives out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 11_000 + (std::process::id() % 400) as u16 * 40;
    for _ in 0..200 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// A coordinator, its admin and some nodes, each a process.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub coordinator: Option<Server>,
    pub nodes: Vec<Option<Server>>,
    pub owner: User,
    pub address: String,
    pub fingerprint: String,
    /// Of each node: where it listens, its `--capacity`, and further arguments.
    settings: Vec<(String, String, Vec<String>)>,
}

impl Cluster {
    /// A coordinator, its admin (registered and logged in), and so many nodes.
    pub fn start(nodes: usize) -> Cluster {
        let mut cluster = Cluster::without_nodes();
        for _ in 0..nodes {
            cluster.add_node("127.0.0.1:0", "1G");
        }
        cluster
    }

    pub fn without_nodes() -> Cluster {
        let dir = tempfile::Builder::new().prefix("shardkeep-test-").tempdir().unwrap();
        let owner = User::new(dir.path(), "owner");
        let mut cluster = Cluster {
            dir,
            coordinator: None,
            nodes: Vec::new(),
            owner,
            address: "127.0.0.1:0".into(),
            fingerprint: String::new(),
            settings: Vec::new(),
        };
        cluster.start_coordinator();
        let ready = &cluster.coordinator.as_ref().unwrap().ready;
        let invite = ready["invite"].as_str().expect("a new cluster's coordinator prints an invite").to_string();
        cluster.address = ready["address"].as_str().unwrap().to_string();
        cluster.fingerprint = ready["fingerprint"].as_str().unwrap().to_string();
        cluster.owner.ok(&["register", &invite]);
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    pub fn node_dir(&self, i: usize) -> PathBuf {
        self.path(&format!("node-{i}"))
    }

    pub fn start_coordinator(&mut self) {
        let mut command = program();
        command.args(["--json", "serve", "coordinator", "--until-stdin-ends", "--partition-power", "8", "--listen", &self.address]);
        command.arg("--dir").arg(self.path("coordinator"));
        let started = Server::start(command, &self.logs(), "coordinator");
        self.coordinator = Some(started.unwrap_or_else(|ran| panic!("no coordinator: {ran:?}")));
    }

    /// A further node, which joins with a token of its own; answers its place among the nodes.
    pub fn add_node(&mut self, listen: &str, capacity: &str) -> usize {
        self.add_node_with(listen, capacity, &[])
    }

    /// The same, with further arguments for `serve node`.
    pub fn add_node_with(&mut self, listen: &str, capacity: &str, more: &[&str]) -> usize {
        let token = self.owner.json(&["cluster", "token", "node"])["token"].as_str().unwrap().to_string();
        self.settings.push((listen.into(), capacity.into(), more.iter().map(|a| a.to_string()).collect()));
        self.nodes.push(None);
        let i = self.nodes.len() - 1;
        self.try_start_node(i, Some(&token)).unwrap_or_else(|ran| panic!("node {i} does not start: {ran:?}"));
        i
    }

    pub fn start_node(&mut self, i: usize) {
        self.try_start_node(i, None).unwrap_or_else(|ran| panic!("node {i} does not start: {ran:?}"));
    }

    pub fn try_start_node(&mut self, i: usize, join: Option<&str>) -> Result<(), Ran> {
        let (listen, capacity, more) = &self.settings[i];
        let mut command = program();
        command.args(["--json", "serve", "node", "--until-stdin-ends", "--listen", listen, "--capacity", capacity]);
        command.args(more).arg("--dir").arg(self.node_dir(i));
        if let Some(token) = join {
            let file = self.path(&format!("token-{i}"));
            std::fs::write(&file, token).unwrap();
            command.arg("--join").arg([OsStr::new("@"), file.as_os_str()].join(OsStr::new("")));
        }
        self.nodes[i] = Some(Server::start(command, &self.logs(), &format!("node-{i}"))?);
        Ok(())
    }

    /// kill -9; answers the node's name.
    pub fn kill_node(&mut self, i: usize) -> String {
        let node = self.nodes[i].take().expect("it runs");
        let name = format!("node-{}", node.ready["node"].as_str().unwrap());
        node.kill();
        name
    }

    /// SIGTERM; answers the node's name.
    pub fn stop_node(&mut self, i: usize) -> String {
        let node = self.nodes[i].take().expect("it runs");
        let name = format!("node-{}", node.ready["node"].as_str().unwrap());
        assert_eq!(node.stop().0, 0, "a node that is told to stop ends well");
        name
    }

    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("it runs").kill();
    }

    /// All servers that run.
    pub fn servers(&mut self) -> impl Iterator<Item = &mut Server> {
        self.coordinator.iter_mut().chain(self.nodes.iter_mut().flatten())
    }

    /// Somebody else at a machine of their own, with nothing on it.
    pub fn user(&self, name: &str) -> User {
        User::new(self.dir.path(), name)
    }

    /// The file of the log into which a stopped node wrote last.
    pub fn last_segment(&self, i: usize) -> PathBuf {
        let mut files = files::files_below(&self.node_dir(i).join("shards/log"));
        files.retain(|f| f.extension().is_some_and(|e| e == "seg"));
        files.pop().expect("it has a segment")
    }

    /// Waits until every chunk below a path is at full redundancy.
    #[track_caller]
    pub fn wait_until_whole(&self, path: &str, seconds: u64) {
        until(&format!("{path} is whole"), seconds, || {
            let ran = self.owner.run(&["--json", "verify", "-r", "--deep", path]);
            ran.code == 0 && ran.json()["ok"] == ran.json()["chunks"]
        });
    }
}
