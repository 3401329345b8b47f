//! How well each node answers: moving averages of latency and its deviation, and a short rest for
//! those that fail. Reads choose the best nodes by it, writes learn when to stop waiting.

use env::Env;
use model::{Error, Kind, NodeId, Result};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A node that could not be reached is left alone for so long, then tried again.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// Moving average of seconds a call, and of its absolute deviation (as TCP estimates its
    /// retransmission time-out, RFC 6298).
    mean: f64,
    deviation: f64,
    calls: u64,
    under_way: u32,
    rests_until: Duration,
}

/// The paces of all nodes.
pub(crate) struct Paces {
    env: Env,
    nodes: Mutex<BTreeMap<NodeId, Pace>>,
}

impl Paces {
    pub fn new(env: Env) -> Self {
        Paces { env, nodes: Mutex::new(BTreeMap::new()) }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pace>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, but a resting node fails at once: writes do without it rather than wait.
    pub async fn timed_unless_resting<T>(&self, node: NodeId, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.resting(node) {
            return Err(Error::unavailable(format!("node-{node} does not answer")).on(node));
        }
        self.timed(node, call).await
    }

    /// Runs a call to a node and remembers how long it took.
    pub async fn timed<T>(&self, node: NodeId, call: impl Future<Output = Result<T>>) -> Result<T> {
        let start = self.env.clock.monotonic();
        self.nodes().entry(node).or_default().under_way += 1;
        let under_way = UnderWay(self, node);
        let result = call.await.map_err(|e| if e.node.is_some() { e } else { e.on(node) });
        drop(under_way);
        let now = self.env.clock.monotonic();
        let mut nodes = self.nodes();
        let pace = nodes.entry(node).or_default();
        match &result {
            Err(e) if e.kind == Kind::Unavailable => pace.rests_until = now + REST,
            Err(_) => {}
            Ok(_) => {
                pace.rests_until = Duration::ZERO;
                let took = (now - start).as_secs_f64();
                let first = pace.calls == 0;
                pace.deviation = if first { took / 2.0 } else { pace.deviation * 0.75 + (took - pace.mean).abs() * 0.25 };
                pace.mean = if first { took } else { pace.mean * 0.875 + took * 0.125 };
                pace.calls += 1;
            }
        }
        result
    }

    /// Whether a node failed just now.
    pub fn resting(&self, node: NodeId) -> bool {
        let now = self.env.clock.monotonic();
        self.nodes().get(&node).is_some_and(|p| p.rests_until > now)
    }

    /// Lower is better: expected seconds for one more call, far higher for a resting node.
    pub fn cost(&self, node: NodeId) -> f64 {
        let now = self.env.clock.monotonic();
        let Some(pace) = self.nodes().get(&node).copied() else { return 0.0 };
        let rest = if pace.rests_until > now { 1e6 } else { 0.0 };
        pace.mean * (1.0 + f64::from(pace.under_way) / 8.0) + rest
    }

    /// After so long a read of this node is late: about its 95th percentile, at least 50 ms.
    pub fn late_read(&self, node: NodeId) -> Duration {
        let pace = self.nodes().get(&node).copied().unwrap_or_default();
        let seconds = if pace.calls < 4 { 1.0 } else { pace.mean + 4.0 * pace.deviation };
        Duration::from_secs_f64(seconds.clamp(0.05, 5.0))
    }

    /// After so long a write that has its quorum stops waiting for the rest: a few times the
    /// slowest known pace, at least 1 s.
    pub fn straggler(&self, among: &[NodeId]) -> Duration {
        let nodes = self.nodes();
        let slowest = among.iter().filter_map(|n| nodes.get(n)).map(|p| p.mean + 4.0 * p.deviation).fold(0.0, f64::max);
        Duration::from_secs_f64((3.0 * slowest).clamp(1.0, 10.0))
    }
}

/// Counts a call under way, also when it is dropped.
struct UnderWay<'a>(&'a Paces, NodeId);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(pace) = self.0.nodes().get_mut(&self.1) {
            pace.under_way = pace.under_way.saturating_sub(1);
        }
    }
}
