//! The servers of the demo: this same program, started again as processes of their own. The one
//! place in which Shardkeep starts processes.
//!
//! A child ends with its parent, however that ends: it runs until its standard input does, whose
//! other end the parent holds. A handle that is dropped kills and reaps its process.

#![allow(clippy::disallowed_methods)] // real processes, with real files for their logs

use crate::context::Context;
use crate::local;
use model::{Error, NodeId, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a server has to become ready.
const START: Duration = Duration::from_secs(30);
/// Least capacity of a node: its segments are small, and a demo takes little of the disk.
const CAPACITY_MIN: u64 = 1 << 30;

/// How to start the servers of one demo.
pub struct Servers {
    cx: Context,
    dir: PathBuf,
    program: PathBuf,
    capacity: u64,
}

/// A process that serves.
pub struct Server {
    pub name: String,
    pub pid: u32,
    child: Child,
    ready: Value,
    /// Held: a server that cannot write its output would end.
    _output: BufReader<ChildStdout>,
}

impl Servers {
    /// `bytes`: how much is to be stored.
    pub fn new(cx: &Context, dir: &Path, bytes: u64) -> Result<Self> {
        let program = std::env::current_exe().map_err(|e| Error::invalid(format!("this program cannot find itself: {e}")))?;
        local::make_folders(&dir.join("logs"))?;
        Ok(Servers { cx: cx.clone(), dir: dir.to_path_buf(), program, capacity: bytes.saturating_mul(2).max(CAPACITY_MIN) })
    }

    /// The folder of a node.
    pub fn node_dir(&self, number: usize) -> PathBuf {
        self.dir.join(format!("node-{number}"))
    }

    /// Starts the coordinator.
    pub async fn coordinator(&self) -> Result<Server> {
        let mut command = self.command("coordinator");
        command.arg("--dir").arg(self.dir.join("coordinator"));
        self.start("coordinator", command).await
    }

    /// Starts a node; `token` for its first start.
    pub async fn node(&self, number: usize, token: Option<String>) -> Result<Server> {
        let mut command = self.command("node");
        command.arg("--dir").arg(self.node_dir(number)).arg("--capacity").arg(self.capacity.to_string());
        if let Some(token) = token {
            // Not as an argument, which every process of this machine can read.
            let file = self.dir.join(format!("token-{number}"));
            local::write_private(&file, token.as_bytes())?;
            let mut at = std::ffi::OsString::from("@");
            at.push(&file);
            command.arg("--join").arg(at);
        }
        self.start(&format!("node-{number}"), command).await
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--json", "serve", role, "--listen", "127.0.0.1:0", "--until-stdin-ends"]);
        command
    }

    /// Starts a server and waits until it serves.
    async fn start(&self, name: &str, mut command: Command) -> Result<Server> {
        let log = self.dir.join("logs").join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log).map_err(|e| local::io_error(&log, &e))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let child = command.spawn().map_err(|e| Error::invalid(format!("{} does not start: {e}", self.program.display())))?;
        // From here on whoever drops it ends it.
        let mut starting = Starting(Some(child));
        let output = starting.0.as_mut().and_then(|c| c.stdout.take());
        let mut output = BufReader::new(output.ok_or_else(|| Error::invalid("a process without output"))?);
        let read = self.cx.env.blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| (line, output))
        });
        let failed = |why: &str| {
            let said = local::read_text(&log).ok().and_then(|text| text.lines().last().map(str::to_string)).unwrap_or_default();
            Error::unavailable(format!("{name} {why}: {said}"))
        };
        let read = self.cx.env.timeout(START, read).await.ok_or_else(|| failed("does not become ready"))?;
        let (line, output) = read.map_err(|_| failed("cannot be read"))?;
        let ready: Value = serde_json::from_str(&line).map_err(|_| failed("did not start"))?;
        let child = starting.0.take().ok_or_else(|| failed("is gone"))?;
        let name = match ready.get("node").and_then(Value::as_str) {
            Some(id) => format!("node-{id}"),
            None => name.to_string(),
        };
        Ok(Server { name, pid: child.id(), child, ready, _output: output })
    }
}

impl Server {
    /// A field of its ready line.
    pub fn field(&self, name: &str) -> Result<String> {
        let field = self.ready.get(name).and_then(Value::as_str);
        field.map(str::to_string).ok_or_else(|| Error::invalid(format!("the ready line of {} names no {name}", self.name)))
    }

    /// The node's id.
    pub fn node(&self) -> Result<NodeId> {
        self.field("node")?.parse()
    }

    /// Kills it as the hardest of crashes does (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A process that has not said yet that it is ready.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(end);
    }
}

fn end(child: &mut Child) {
    // Both fail only where the process is gone already.
    let _ = child.kill();
    let _ = child.wait();
}
