//! The node's pulse: once a second it says that it lives and what it has, and learns what changed.

use super::card::Card;
use super::state::State;
use crate::coordinator::RENEW_BEFORE;
use model::cluster::Device;
use model::{Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use transport::{ServerKey, TlsIdentity};
use wire::coordinator::HeartbeatRequest;

/// Pause between two heartbeats.
const PULSE: Duration = Duration::from_secs(1);

/// What a heartbeat says that never changes while the node runs, and where the card lies.
pub(crate) struct Pulse {
    pub state: Arc<State>,
    pub identity: Arc<TlsIdentity>,
    pub key: ServerKey,
    pub card: Card,
    pub card_file: PathBuf,
    pub address: String,
    pub zone: String,
    pub auto_add: bool,
    pub started_ms: u64,
}

impl Pulse {
    /// Runs until the process stops.
    pub async fn run(mut self) {
        let mut silent = false;
        let mut healed_before = 0;
        loop {
            healed_before = self.measure(healed_before);
            match self.beat().await {
                Ok(()) => silent = false,
                Err(e) if silent => tracing::debug!(error = %e, "still no heartbeat"),
                Err(e) => {
                    silent = true;
                    tracing::warn!(error = %e, "no coordinator takes this node's heartbeat");
                    if e.kind == Kind::Denied {
                        self.state.refresh_soon();
                    }
                }
            }
            self.state.env.sleep(PULSE).await;
        }
    }

    /// Keeps a moving average of the bytes rebuilt a second.
    fn measure(&self, before: u64) -> u64 {
        let memory = &mut *self.state.memory();
        let now = memory.report.moved_bytes;
        memory.report.rate = (memory.report.rate * 4 + (now - before)) / 5;
        now
    }

    /// One heartbeat. The node's start waits for the first.
    pub async fn beat(&mut self) -> Result<()> {
        let state = self.state.clone();
        // What is claimed comes before what proves it is counted: a heartbeat that says a layout is settled never counts
        // what was left before, and one that says a scrub is done misses what that found.
        let (layouts, scrub) = (state.layout_progress(), state.scrub_report());
        let repair = state.repair_report();
        let mut devices = Vec::with_capacity(state.devices.len());
        for device in &state.devices {
            let usage = device.store.usage().await;
            devices.push(Device {
                id: device.id,
                capacity: usage.capacity,
                used: usage.used,
                problem: usage.problem,
                shards: usage.shards,
            });
        }
        let ends = self.identity.not_after_ms().saturating_sub(RENEW_BEFORE.as_millis() as u64);
        let renew = (ends <= state.env.now_ms()).then(|| self.key.spki().to_vec().into());
        let request = HeartbeatRequest {
            address: self.address.clone(),
            zone: self.zone.clone(),
            devices,
            version: env!("CARGO_PKG_VERSION").into(),
            repair,
            started_ms: self.started_ms,
            renew,
            layouts,
            scrub,
            frozen: state.brake.reason(),
            protocol: wire::PROTOCOL,
            auto_add: self.auto_add,
            now_ms: state.env.now_ms(),
        };
        let (from, answer) = match state.link.beat(&request).await {
            Ok(answered) => answered,
            Err(e) => {
                state.brake.silent();
                return Err(e);
            }
        };
        state.check_brake(&answer.life, answer.feed, answer.time_ms).await;
        state.link.follow(from);
        state.scrubs.ask(answer.life.scrub_ms);
        state.memory().catalog_ms = answer.time_ms;
        state.map.note_wanting(answer.wanting);
        if answer.busy {
            state.user_called();
        }
        let feed_moved = std::mem::replace(&mut state.memory().feed, answer.feed) != answer.feed;
        if feed_moved {
            state.work.notify_one();
        }
        if state.map.is_behind(answer.revision) {
            state.refresh_soon();
        }
        if let Some(certificate) = answer.certificate {
            self.identity.replace(&certificate)?;
            self.card.certificate = certificate;
            self.card.write(&state.env, &self.card_file).await?;
            tracing::info!("this node's certificate is renewed");
        }
        state.link.learn(&answer.coordinators);
        let known = state.link.coordinators();
        // Also one that another one named.
        if known.iter().any(|c| !self.card.coordinators.contains(c)) {
            self.card.coordinators = known;
            self.card.write(&state.env, &self.card_file).await?;
        }
        Ok(())
    }
}

/// Fetches the map when asked to, and twice a minute: addresses of nodes change without a layout.
pub(crate) async fn keep_map(state: Arc<State>) {
    loop {
        match state.map.refresh(&state.link).await {
            Ok(changed) => {
                state.work.notify_one();
                state.relaid.notify_one();
                if changed {
                    state.hand_over.notify_one();
                }
                state.env.timeout(Duration::from_secs(30), state.refresh.notified()).await;
            }
            Err(e) => {
                tracing::debug!(error = %e, "the map cannot be fetched now");
                state.env.sleep(PULSE).await;
            }
        }
    }
}
