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
        let mut cluster = Cluster { client, coordinator, nodes: Vec::new(), addresses: Vec::new(), binary, dir };
        for i in 0..4 {
            cluster.join(&format!("n{i}"), None).await;
        }
        cluster
    }

    /// A further node in a folder of this name; with `replace` it takes over that node's slots. Its
    /// place among the nodes, and its id.
    pub async fn join(&mut self, name: &str, replace: Option<NodeId>) -> (usize, NodeId) {
        let (token, _) = self.client.create_token(ServerRole::Node, Duration::from_secs(600), replace).await.expect("a token");
        let file = self.dir.join(format!("token-{name}"));
        std::fs::File::create(&file).and_then(|mut f| f.write_all(token.as_bytes())).expect("the token's file");
        let (dir, join) = (text(&self.dir.join(name)), format!("@{}", text(&file)));
        let (node, ready) = serve(&self.binary, &["node", "--dir", &dir, "--listen", "127.0.0.1:0", "--join", &join]);
        self.nodes.push(Some(node));
        self.addresses.push(ready["address"].as_str().expect("an address").to_owned());
        let id = ready["node"].as_str().and_then(|n| n.parse().ok()).expect("an id");
        (self.nodes.len() - 1, id)
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
        for child in self.nodes.iter_mut().flatten().chain([&mut self.coordinator]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
