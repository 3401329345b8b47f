//! When to stop: on SIGTERM, on Ctrl-C, and, for the children of `demo`, when the parent is gone.

use env::Env;
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

/// Waits until standard input ends: a parent that holds its other end has died.
pub async fn orphaned(env: &Env) {
    let ended = env.blocking(|| {
        let mut buffer = [0u8; 64];
        while !matches!(std::io::stdin().read(&mut buffer), Ok(0) | Err(_)) {}
    });
    ended.await
}
