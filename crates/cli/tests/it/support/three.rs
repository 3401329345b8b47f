//! Three coordinators as processes of their own.

use super::{Cluster, Server, program, until};
use std::path::PathBuf;

/// A cluster with further coordinators, each in a folder of its own.
pub struct Three {
    pub cluster: Cluster,
    pub others: Vec<Option<Server>>,
    pub addresses: Vec<String>,
}

impl Three {
    pub fn start(nodes: usize) -> Three {
        let cluster = Cluster::start(nodes);
        let mut three = Three { addresses: vec![cluster.address.clone()], cluster, others: Vec::new() };
        for _ in 0..2 {
            let token = three.cluster.owner.json(&["cluster", "token", "coordinator"])["token"].as_str().unwrap().to_string();
            let file = three.cluster.path("coordinator-token");
            std::fs::write(&file, token).unwrap();
            let i = three.others.len();
            let server = three.serve(i, "127.0.0.1:0", Some(&format!("@{}", file.display())));
            three.addresses.push(server.address().to_string());
            three.others.push(Some(server));
        }
        until("three coordinators are up", 20, || three.states() == ["up", "up", "up"]);
        three
    }

    pub fn dir(&self, i: usize) -> PathBuf {
        self.cluster.path(&format!("coordinator-{}", i + 2))
    }

    pub fn serve(&self, i: usize, listen: &str, join: Option<&str>) -> Server {
        let mut command = program();
        command.args(["--json", "serve", "coordinator", "--until-stdin-ends", "--listen", listen]);
        command.arg("--dir").arg(self.dir(i));
        if let Some(token) = join {
            command.args(["--join", token]);
        }
        let started = Server::start(command, &self.cluster.logs(), &format!("coordinator-{}", i + 2));
        started.unwrap_or_else(|ran| panic!("coordinator {}: {ran:?}", i + 2))
    }

    pub fn states(&self) -> Vec<String> {
        let ran = self.cluster.owner.run(&["--json", "cluster", "status"]);
        if ran.code != 0 {
            return Vec::new();
        }
        let status = ran.json();
        status["coordinators"].as_array().unwrap().iter().map(|c| c["state"].as_str().unwrap().to_string()).collect()
    }

    /// Number of the coordinator that leads, from 0: the first is the cluster's own.
    pub fn leader(&self) -> usize {
        let status = self.cluster.owner.json(&["cluster", "status"]);
        status["coordinators"].as_array().unwrap().iter().position(|c| c["leader"] == true).expect("one leads")
    }

    /// kill -9.
    pub fn kill(&mut self, i: usize) {
        match i {
            0 => self.cluster.kill_coordinator(),
            i => self.others[i - 1].take().expect("it runs").kill(),
        }
    }

    pub fn restart(&mut self, i: usize) {
        match i {
            0 => self.cluster.start_coordinator(),
            i => self.others[i - 1] = Some(self.serve(i - 1, &self.addresses[i].clone(), None)),
        }
    }
}
