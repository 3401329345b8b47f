//! W6 and W7: a node's disk is lost, and a node is added, with 5 GiB stored; how long until all is
//! whole, how many bytes moved beside the least that must, and what a user feels meanwhile.

use crate::limits::noise;
use crate::machine::{median, percentile};
use crate::workloads::{Row, Run, at};
use client::{Put, PutOptions, Source};
use model::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::coordinator::{ChangeRequest, StatusResponse};

/// Longest wait for a cluster to become whole.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a user felt: milliseconds of puts and gets of 4 KiB.
struct Felt {
    puts: Vec<f64>,
    gets: Vec<f64>,
}

impl Run {
    fn stored(&self) -> u64 {
        if self.small { 512 << 20 } else { 5 << 30 }
    }

    /// Stores what W6 and W7 work on, in files of 64 MiB.
    async fn fill(&self) {
        let size = 64 << 20;
        let local = self.tree(8, size);
        for i in 0..self.stored() / (8 * size as u64) {
            self.put(&local, &format!("/stored-{i}")).await;
        }
        // Until nobody is busy with it any more.
        tokio::time::sleep(Duration::from_secs(12)).await;
    }

    async fn status(&self) -> StatusResponse {
        self.cluster.client.status().await.expect("status")
    }

    /// Bytes that repair has written so far, on some of the nodes that run.
    async fn moved_by(&self, of: impl Fn(NodeId) -> bool) -> u64 {
        let status = self.status().await;
        status.nodes.iter().filter(|n| of(n.node)).filter_map(|n| n.heartbeat.as_ref()).map(|h| h.repair.moved_bytes).sum()
    }

    /// Waits until a node has everything and no change is under way; seconds since `from`.
    async fn whole(&self, node: NodeId, from: Instant) -> f64 {
        loop {
            let status = self.status().await;
            let report = status.nodes.iter().find(|n| n.node == node).and_then(|n| n.heartbeat.as_ref());
            let is_whole = report.is_some_and(|h| {
                h.layouts.iter().all(|l| l.settled && status.cluster.layouts.contains(&(l.width, l.epoch)))
                    && !h.layouts.is_empty()
                    && h.repair.shards == 0
                    && h.repair.healed > 0
            });
            if is_whole && status.cluster.changes.is_empty() {
                return from.elapsed().as_secs_f64();
            }
            assert!(from.elapsed() < PATIENCE, "the cluster does not become whole: {:?}", report.map(|h| &h.repair));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Puts and gets 4 KiB, one after another, until told to stop or `most` times.
    async fn feel(&self, folder: &str, most: usize, stop: &tokio::sync::Notify) -> Felt {
        let client = &self.cluster.client;
        client.mkdir(&at(folder), false).await.expect("mkdir");
        let bytes = noise(4096);
        let mut felt = Felt { puts: Vec::new(), gets: Vec::new() };
        let mut stopped = std::pin::pin!(stop.notified());
        for i in 0..most {
            let path = at(&format!("{folder}/{i}"));
            let put = vec![Put { source: Source::Bytes(bytes.clone()), remote: path.clone() }];
            let start = Instant::now();
            let report = client.put(put, PutOptions::default(), Arc::new(())).await.expect("put");
            felt.puts.push(start.elapsed().as_secs_f64() * 1e3);
            assert!(report.failed.is_empty());
            let start = Instant::now();
            client.cat(&path, None, &mut Vec::new()).await.expect("cat");
            felt.gets.push(start.elapsed().as_secs_f64() * 1e3);
            if futures::future::poll_immediate(&mut stopped).await.is_some() {
                break;
            }
        }
        felt
    }

    fn felt_rows(name: &str, idle: Felt, busy: Felt) -> Vec<Row> {
        let p99 = |v: Vec<f64>| percentile(v, 99);
        let rows = [("put", idle.puts, busy.puts), ("get", idle.gets, busy.gets)];
        let rows = rows.into_iter().flat_map(|(what, idle, busy)| {
            let ratio = p99(busy.clone()) / p99(idle.clone()).max(1e-9);
            [
                Run::plain_row(&format!("{name} {what} 4 KiB p99, before"), p99(idle), "ms"),
                Run::plain_row(&format!("{name} {what} 4 KiB median, meanwhile"), median(busy.clone()), "ms"),
                Run::plain_row(&format!("{name} {what} 4 KiB p99, meanwhile"), p99(busy), "ms"),
                Run::plain_row(&format!("{name} {what} 4 KiB p99, ratio"), ratio, "x"),
            ]
        });
        rows.collect()
    }

    /// One node of four emptied: first with nobody else there, then with a user.
    pub async fn w6(&mut self) -> Vec<Row> {
        self.fill().await;
        let never = tokio::sync::Notify::new();
        let idle = self.feel("/w6-idle", 300, &never).await;
        let mut rows = Vec::new();
        let mut felt = None;
        for (round, name) in ["W6 alone", "W6 with a user"].into_iter().enumerate() {
            let lost = self.cluster.client.status().await.expect("status").cluster.nodes;
            // The node that came last: the one replaced before is gone from the layouts.
            let old = lost.last().expect("a node").id;
            self.cluster.kill(self.cluster.last());
            let start = Instant::now();
            let (_, node) = self.cluster.join(&format!("heir{round}"), Some(old)).await;
            let stop = tokio::sync::Notify::new();
            let seconds = if round == 0 {
                self.whole(node, start).await
            } else {
                let whole = async {
                    let seconds = self.whole(node, start).await;
                    stop.notify_one();
                    seconds
                };
                let folder = format!("/w6-busy-{round}");
                let (seconds, busy) = futures::join!(whole, self.feel(&folder, usize::MAX, &stop));
                felt = Some(busy);
                seconds
            };
            let bytes = self.moved_by(|n| n == node).await as f64;
            rows.push(Self::plain_row(&format!("{name}: whole after"), seconds, "s"));
            rows.push(Self::limited_row(&format!("{name}: rebuilt"), bytes / seconds / 1e6, self.limits.rebuild()));
        }
        if let Some(busy) = felt {
            rows.extend(Self::felt_rows("W6", idle, busy));
        }
        rows
    }

    /// A fifth node added.
    pub async fn w7(&mut self) -> Vec<Row> {
        if self.cluster.client.stat(&at("/stored-0")).await.is_err() {
            self.fill().await;
        }
        let never = tokio::sync::Notify::new();
        let idle = self.feel("/w7-idle", 300, &never).await;
        let (_, node) = self.cluster.join("fifth", None).await;
        let request = ChangeRequest { add: vec![node], ..ChangeRequest::default() };
        let before = self.moved_by(|_| true).await;
        let start = Instant::now();
        let plan = self.cluster.client.apply_layout(request).await.expect("the plan");
        let stop = tokio::sync::Notify::new();
        let whole = async {
            let seconds = self.whole(node, start).await;
            stop.notify_one();
            seconds
        };
        let (seconds, busy) = futures::join!(whole, self.feel("/w7-busy", usize::MAX, &stop));
        let bytes = (self.moved_by(|_| true).await - before) as f64;
        let (moved, minimum) = plan.widths.iter().fold((0, 0), |sum, w| (sum.0 + w.moved, sum.1 + w.minimum));
        let mut rows = vec![
            Self::plain_row("W7 slots moved, of the minimum", moved as f64 / (minimum as f64).max(1.0), "x"),
            Self::plain_row("W7 bytes moved, of the minimum", bytes / (plan.minimum_bytes as f64).max(1.0), "x"),
            Self::plain_row("W7 with a user: done after", seconds, "s"),
            Self::limited_row("W7 with a user: copied", bytes / seconds / 1e6, self.limits.copy()),
        ];
        rows.extend(Self::felt_rows("W7", idle, busy));
        rows
    }
}
