//! The workloads W1 to W5. W6 and W7 are in `healing`.

use crate::cluster::Cluster;
use crate::limits::{Limits, noise};
use crate::machine::{cpu, cpu_of, forget_peak, median, memory_mb, percentile};
use client::{Get, Put, PutOptions, RemotePath, Source};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One line of the report.
pub struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// The same as a part of the limit, where there is one.
    of_limit: Option<f64>,
    /// Seconds of CPU a GB: client, all servers.
    cpu: Option<(f64, f64)>,
    all: Vec<f64>,
}

impl Row {
    /// As a JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "value": self.value, "unit": self.unit, "of_limit": self.of_limit,
            "client_cpu_s_per_gb": self.cpu.map(|c| c.0), "server_cpu_s_per_gb": self.cpu.map(|c| c.1), "rounds": self.all,
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.value < 10.0 { 2 } else { 0 };
        write!(f, "  {:<34}{:>10.digits$} {:<8}", self.name, self.value, self.unit)?;
        match self.of_limit {
            Some(part) => write!(f, "{part:>6.2} of the limit")?,
            None => write!(f, "{:>19}", "")?,
        }
        if let Some((client, servers)) = self.cpu {
            write!(f, "   CPU s/GB: client {client:.1}, servers {servers:.1}")?;
        }
        Ok(())
    }
}

/// A cluster with what is measured on it.
pub struct Run {
    pub(crate) cluster: Cluster,
    pub(crate) limits: Limits,
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) small: bool,
}

pub(crate) fn at(path: &str) -> RemotePath {
    RemotePath::parse(path).expect("a path")
}

/// One measured transfer: seconds, and CPU seconds of the client and of all servers.
pub(crate) struct Cost {
    seconds: f64,
    client: f64,
    servers: f64,
}

impl Run {
    /// Starts the servers.
    pub async fn start(dir: &Path, binary: PathBuf, limits: Limits, rounds: usize, small: bool) -> Self {
        let cluster = Cluster::start(binary, dir.to_path_buf()).await;
        // Until they are at rest.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let run = Run { cluster, limits, dir: dir.to_path_buf(), rounds, small };
        println!("  {:<34}{:>10.0} MB", "memory of all servers, idle", run.memory("VmRSS"));
        run
    }

    fn memory(&self, what: &str) -> f64 {
        self.cluster.pids().into_iter().map(|p| memory_mb(p, what)).sum()
    }

    async fn cost<T>(&self, work: impl Future<Output = T>) -> (Cost, T) {
        let servers = || self.cluster.pids().into_iter().map(cpu_of).sum::<f64>();
        let (client, before, start) = (cpu(), servers(), Instant::now());
        let value = work.await;
        (Cost { seconds: start.elapsed().as_secs_f64(), client: cpu() - client, servers: servers() - before }, value)
    }

    pub(crate) async fn put(&self, local: &Path, remote: &str) -> Cost {
        let put = vec![Put { source: Source::Path(local.into()), remote: at(remote) }];
        let (cost, report) = self.cost(self.cluster.client.put(put, PutOptions::default(), Arc::new(()))).await;
        let report = report.expect("put");
        assert!(report.failed.is_empty(), "put failed: {:?}", report.failed.first());
        cost
    }

    async fn get(&self, remote: &str, local: &Path) -> Cost {
        let get = vec![Get { remote: at(remote), local: local.into() }];
        let (cost, report) = self.cost(self.cluster.client.get(get, true, Arc::new(()))).await;
        let report = report.expect("get");
        assert!(report.failed.is_empty(), "get failed: {:?}", report.failed.first());
        cost
    }

    pub(crate) async fn remove(&self, remote: &str) {
        self.cluster.client.remove(&at(remote), true, true).await.expect("rm");
    }

    fn bytes_row(&self, name: &str, bytes: f64, costs: &[Cost], limit: Option<f64>) -> Row {
        let all: Vec<f64> = costs.iter().map(|c| bytes / c.seconds / 1e6).collect();
        let value = median(all.clone());
        let gb = bytes / 1e9;
        let of = |part: fn(&Cost) -> f64| median(costs.iter().map(|c| part(c) / gb).collect());
        Row {
            name: name.into(),
            value,
            unit: "MB/s",
            of_limit: limit.map(|l| value / l),
            cpu: Some((of(|c| c.client), of(|c| c.servers))),
            all,
        }
    }

    fn rate_row(name: &str, count: f64, costs: &[Cost]) -> Row {
        let all: Vec<f64> = costs.iter().map(|c| count / c.seconds).collect();
        Row { name: name.into(), value: median(all.clone()), unit: "/s", of_limit: None, cpu: None, all }
    }

    /// A rate with what part of a limit it is.
    pub(crate) fn limited_row(name: &str, value: f64, limit: f64) -> Row {
        Row { name: name.into(), value, unit: "MB/s", of_limit: Some(value / limit), cpu: None, all: Vec::new() }
    }

    pub(crate) fn plain_row(name: &str, value: f64, unit: &'static str) -> Row {
        Row { name: name.into(), value, unit, of_limit: None, cpu: None, all: Vec::new() }
    }

    /// `files` files of `size` bytes in a folder; made once.
    pub(crate) fn tree(&self, files: usize, size: usize) -> PathBuf {
        let dir = self.dir.join(format!("tree-{files}-{size}"));
        if !dir.exists() {
            std::fs::create_dir(&dir).expect("a folder");
            for i in 0..files {
                std::fs::write(dir.join(format!("f{i:06}")), noise(size)).expect("a file");
            }
        }
        dir
    }

    async fn both(&self, name: &str, files: usize, size: usize) -> Vec<Row> {
        let local = self.tree(files, size);
        forget_peak();
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        let mut most = 0.0f64;
        for round in 0..self.rounds {
            let remote = format!("/{name}-{round}");
            puts.push(self.put(&local, &remote).await);
            most = most.max(self.memory("VmRSS"));
            let out = self.dir.join("out");
            gets.push(self.get(&remote, &out).await);
            most = most.max(self.memory("VmRSS"));
            std::fs::remove_dir_all(&out).expect("removing");
            self.remove(&remote).await;
        }
        let bytes = (files * size) as f64;
        let mut rows = vec![
            self.bytes_row(&format!("{name} put, {files} x {} MiB", size >> 20), bytes, &puts, Some(self.limits.put())),
            self.bytes_row(&format!("{name} get"), bytes, &gets, Some(self.limits.get())),
        ];
        rows.push(Self::plain_row(&format!("{name} memory of all servers"), most, "MB"));
        rows.push(Self::plain_row(&format!("{name} memory of the client, peak"), memory_mb(std::process::id(), "VmHWM"), "MB"));
        rows
    }

    /// One file of 1 GiB.
    pub async fn w1(&mut self) -> Vec<Row> {
        self.both("W1", 1, if self.small { 256 << 20 } else { 1 << 30 }).await
    }

    /// 64 files of 16 MiB.
    pub async fn w2(&mut self) -> Vec<Row> {
        self.both("W2", if self.small { 16 } else { 64 }, 16 << 20).await
    }

    /// 5,000 files of 4 KiB (inline), and of 64 KiB.
    pub async fn w3(&mut self) -> Vec<Row> {
        let files = if self.small { 1000 } else { 5000 };
        let mut rows = Vec::new();
        for (name, size) in [("W3", 4 << 10), ("W3b", 64 << 10)] {
            let local = self.tree(files, size);
            let (mut puts, mut gets, mut lists, mut deletes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for round in 0..self.rounds {
                let remote = format!("/{name}-{round}");
                puts.push(self.put(&local, &remote).await);
                let out = self.dir.join("out");
                gets.push(self.get(&remote, &out).await);
                std::fs::remove_dir_all(&out).expect("removing");
                let client = &self.cluster.client;
                let mut entries = Vec::new();
                for _ in 0..5 {
                    let (cost, listed) = self.cost(client.list(&at(&remote))).await;
                    entries = listed.expect("list");
                    assert_eq!(entries.len(), files);
                    lists.push(cost);
                }
                let parent = client.stat(&at(&remote)).await.expect("stat");
                let (cost, removed) = self.cost(client.remove_entries(&parent, &entries, false)).await;
                assert_eq!(removed.expect("rm"), files as u64);
                deletes.push(cost);
                self.remove(&remote).await;
            }
            let n = files as f64;
            rows.push(Self::rate_row(&format!("{name} put, {files} x {} KiB", size >> 10), n, &puts));
            rows.push(Self::rate_row(&format!("{name} get"), n, &gets));
            rows.push(Self::rate_row(&format!("{name} list"), n, &lists));
            rows.push(Self::rate_row(&format!("{name} delete"), n, &deletes));
        }
        rows
    }

    /// 4 KiB, one after another.
    pub async fn w4(&mut self) -> Vec<Row> {
        let client = &self.cluster.client;
        client.mkdir(&at("/w4"), false).await.expect("mkdir");
        let bytes = noise(4096);
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        for i in 0..200 {
            let path = at(&format!("/w4/{i}"));
            let put = vec![Put { source: Source::Bytes(bytes.clone()), remote: path.clone() }];
            let start = Instant::now();
            let report = client.put(put, PutOptions::default(), Arc::new(())).await.expect("put");
            puts.push(start.elapsed().as_secs_f64() * 1e3);
            assert!(report.failed.is_empty());
            let mut out = Vec::new();
            let start = Instant::now();
            client.cat(&path, None, &mut out).await.expect("cat");
            gets.push(start.elapsed().as_secs_f64() * 1e3);
            assert!(out == bytes);
        }
        self.remove("/w4").await;
        let sync = self.limits.sync * 1e3;
        vec![
            Self::plain_row("W4 put 4 KiB, median", median(puts.clone()), "ms"),
            Self::plain_row("W4 put 4 KiB, median", median(puts.clone()) / sync, "fdatasync"),
            Self::plain_row("W4 put 4 KiB, p99", percentile(puts, 99), "ms"),
            Self::plain_row("W4 get 4 KiB, median", median(gets.clone()), "ms"),
            Self::plain_row("W4 get 4 KiB, p99", percentile(gets, 99), "ms"),
        ]
    }

    /// W1 with one and with two of four nodes killed.
    pub async fn w5(&mut self) -> Vec<Row> {
        let size = if self.small { 256 << 20 } else { 1 << 30 };
        let local = self.tree(1, size);
        self.put(&local, "/w5").await;
        let mut rows = Vec::new();
        for down in 1..=2 {
            self.cluster.kill(down);
            let (mut puts, mut gets) = (Vec::new(), Vec::new());
            for round in 0..self.rounds {
                if down == 1 {
                    puts.push(self.put(&local, &format!("/w5-put-{round}")).await);
                }
                let out = self.dir.join("out");
                gets.push(self.get("/w5", &out).await);
                std::fs::remove_dir_all(&out).expect("removing");
            }
            if down == 1 {
                rows.push(self.bytes_row("W5 put, one node down", size as f64, &puts, Some(self.limits.put())));
            }
            rows.push(self.bytes_row(&format!("W5 get, {down} down"), size as f64, &gets, Some(self.limits.get_degraded())));
        }
        for i in 1..=2 {
            self.cluster.restart(i);
        }
        rows
    }
}
