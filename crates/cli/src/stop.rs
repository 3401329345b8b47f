//! When to stop: on SIGTERM, on Ctrl-C, and, for the children of `demo`, when the parent is gone.

use crate::failure::Failure;
use env::Env;
use std::future::Future;
use std::io::Read;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or Ctrl-C.
pub async fn told() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        // Without handlers the signals' own effect remains: the process ends.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Runs what may be dropped at any moment, and drops it when told to stop.
pub async fn unless_told<T, E: Into<Failure>>(work: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => done.map_err(Into::into),
        () = told() => Err(Failure::Interrupted("interrupted".into())),
    }
}

/// Waits until standard input ends: a parent that holds its other end has died.
pub async fn orphaned(env: &Env) {
    let ended = env.blocking(|| {
        let mut buffer = [0u8; 64];
        while !matches!(std::io::stdin().read(&mut buffer), Ok(0) | Err(_)) {}
    });
    ended.await
}
