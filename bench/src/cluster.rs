//! One coordinator and four nodes as processes of the release binary.

use client::{Client, ClientOptions, Profile};
use model::NodeId;
use model::cluster::ServerRole;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The processes; killed when dropped.
pub struct Cluster {
    pub client: Client,
    coordinator: Child,
    second: Option<Child>,
    nodes: Vec<Option<Child>>,
    addresses: Vec<String>,
    binary: PathBuf,
    dir: PathBuf,
}

fn serve(binary: &Path, args: &[&str]) -> (Child, Value) {
    let mut child = Command::new(binary)
        .arg("serve")
        .args(args)
        .arg("--json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("its first line");
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a ready line: {line}"));
    assert_eq!(ready["ready"], true);
    // What it says later is not of interest, but must go somewhere.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    (child, ready)
}

impl Cluster {
    /// Starts all in a folder and makes the first account.
    pub async fn start(binary: PathBuf, dir: PathBuf) -> Self {
        let (coordinator, ready) = serve(&binary, &["coordinator", "--dir", &text(&dir.join("c")), "--listen", "127.0.0.1:0"]);
        let invite = ready["invite"].as_str().expect("an invite").to_owned();
        let profile = Profile::new(env::real::env(), &dir.join("home"), "bench").expect("a profile");
        let (client, _) =
            Client::register(profile, &invite, "a long enough passphrase 9", ClientOptions::default()).await.expect("an account");
        let mut cluster = Cluster { client, coordinator, second: None, nodes: Vec::new(), addresses: Vec::new(), binary, dir };
        for i in 0..4 {
            cluster.join(&format!("n{i}"), None).await;
        }
        cluster
    }

    /// A further node in a folder of this name; with `replace` it takes over that node's slots. Its
    /// place among the nodes, and its id.
    pub async fn join(&mut self, name: &str, replace: Option<NodeId>) -> (usize, NodeId) {
        let join = self.token(ServerRole::Node, name, replace).await;
        let dir = text(&self.dir.join(name));
        let (node, ready) = serve(&self.binary, &["node", "--dir", &dir, "--listen", "127.0.0.1:0", "--join", &join]);
        self.nodes.push(Some(node));
        self.addresses.push(ready["address"].as_str().expect("an address").to_owned());
        let id = ready["node"].as_str().and_then(|n| n.parse().ok()).expect("an id");
        (self.nodes.len() - 1, id)
    }

    /// A join token in a file, as `serve` takes it.
    async fn token(&self, role: ServerRole, name: &str, replace: Option<NodeId>) -> String {
        let (token, _) = self.client.create_token(role, Duration::from_secs(600), replace).await.expect("a token");
        let file = self.dir.join(format!("token-{name}"));
        std::fs::File::create(&file).and_then(|mut f| f.write_all(token.as_bytes())).expect("the token's file");
        format!("@{}", text(&file))
    }

    /// A second coordinator in a folder of this name. It serves before it has the catalog.
    pub async fn join_coordinator(&mut self, name: &str) {
        let join = self.token(ServerRole::Coordinator, name, None).await;
        let dir = text(&self.dir.join(name));
        self.second = Some(serve(&self.binary, &["coordinator", "--dir", &dir, "--listen", "127.0.0.1:0", "--join", &join]).0);
    }

    /// Folder of the first coordinator.
    pub fn coordinator_dir(&self) -> PathBuf {
        self.dir.join("c")
    }

    /// Process id of the first coordinator.
    pub fn coordinator_pid(&self) -> u32 {
        self.coordinator.id()
    }

    /// Process id of the second coordinator.
    pub fn second_coordinator_pid(&self) -> Option<u32> {
        self.second.as_ref().map(Child::id)
    }

    /// Ends the first coordinator, by kill -9 or as an operator stops it.
    pub fn stop_coordinator(&mut self, kill: bool) {
        if kill {
            self.coordinator.kill().expect("killing the coordinator");
        } else {
            let stopped = Command::new("kill").arg(self.coordinator.id().to_string()).status().expect("kill");
            assert!(stopped.success());
        }
        self.coordinator.wait().expect("the coordinator ends");
    }

    /// Starts the first coordinator again, at its address; back when it serves.
    pub fn start_coordinator(&mut self) {
        let dir = text(&self.coordinator_dir());
        self.coordinator = serve(&self.binary, &["coordinator", "--dir", &dir, "--listen", "127.0.0.1:0"]).0;
    }

    /// Kill -9.
    pub fn kill(&mut self, i: usize) {
        if let Some(mut node) = self.nodes[i].take() {
            node.kill().and_then(|()| node.wait()).expect("killing a node");
        }
    }

    /// Starts a killed node again, at its address.
    pub fn restart(&mut self, i: usize) {
        let (node, _) = serve(&self.binary, &["node", "--dir", &text(&self.dir.join(format!("n{i}"))), "--listen", &self.addresses[i]]);
        self.nodes[i] = Some(node);
    }

    /// The place of the node that joined last.
    pub fn last(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Process ids of all servers that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().flatten().chain([&self.coordinator]).map(Child::id).collect()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten().chain(&mut self.second).chain([&mut self.coordinator]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
