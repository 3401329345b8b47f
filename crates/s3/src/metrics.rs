//! What is counted, for Prometheus to read at `/metrics`: nothing of keys or names.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use model::{Error, Result};
use std::time::Duration;

/// The counters of a gateway.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// Bounds of the histogram of times, in seconds.
const SECONDS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self> {
        let builder = PrometheusBuilder::new().set_buckets(&SECONDS).map_err(|e| Error::invalid(format!("metrics: {e}")))?;
        let recorder = builder.build_recorder();
        let metrics = Metrics { handle: recorder.handle(), recorder };
        metrics.with(|| {
            metrics::describe_counter!("shardkeep_s3_requests_total", "Requests answered, by method and status");
            metrics::describe_counter!("shardkeep_s3_received_bytes_total", "Bytes of bodies received, as announced");
            metrics::describe_counter!("shardkeep_s3_sent_bytes_total", "Bytes of bodies sent");
            metrics::describe_histogram!("shardkeep_s3_request_seconds", "Time from a request to the head of its answer");
            metrics::describe_gauge!("shardkeep_s3_connections", "Connections open");
        });
        Ok(metrics)
    }

    fn with<T>(&self, count: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, count)
    }

    /// A request was answered.
    pub fn request(&self, method: &str, status: u16, received: u64, took: Duration) {
        let (method, status) = (method.to_string(), status.to_string());
        self.with(|| {
            metrics::counter!("shardkeep_s3_requests_total", "method" => method.clone(), "status" => status).increment(1);
            metrics::counter!("shardkeep_s3_received_bytes_total").increment(received);
            metrics::histogram!("shardkeep_s3_request_seconds", "method" => method).record(took.as_secs_f64());
        });
    }

    /// Bytes of a body went out.
    pub fn sent(&self, bytes: u64) {
        self.with(|| metrics::counter!("shardkeep_s3_sent_bytes_total").increment(bytes));
    }

    /// A connection was opened (1) or closed (-1).
    pub fn connections(&self, change: f64) {
        self.with(|| metrics::gauge!("shardkeep_s3_connections").increment(change));
    }

    /// As Prometheus reads it.
    pub fn text(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}
