//! Tells all connections of a server that it stops. tokio's watch channel wakes those who wait in an order that it
//! draws from a generator of the thread; here they wake in the order in which they began to wait, so that a
//! simulation repeats.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::sync::Notify;

/// How far a server is that does not serve any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What runs is let end.
    Draining = 1,
    /// Nothing is waited for.
    Now,
}

#[derive(Default)]
struct Signal {
    /// A [`Stop`]; 0: it serves.
    stop: AtomicU8,
    changed: Notify,
}

/// The server's end. When it goes, everything stops at once.
#[derive(Default)]
pub(crate) struct Stopper(Arc<Signal>);

/// A connection's end.
#[derive(Clone)]
pub(crate) struct Stopped(Arc<Signal>);

impl Stopper {
    pub fn stopped(&self) -> Stopped {
        Stopped(self.0.clone())
    }

    pub fn set(&self, stop: Stop) {
        self.0.stop.store(stop as u8, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.set(Stop::Now);
    }
}

impl Stopped {
    /// Waits until the server is as far as that, or further.
    pub async fn at(&self, stop: Stop) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.0.stop.load(Ordering::SeqCst) >= stop as u8 {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_change_is_seen_before_and_while_it_is_waited_for_and_the_end_is_one() {
        let stopper = Stopper::default();
        let (early, late) = (stopper.stopped(), stopper.stopped());
        let mut waits = Box::pin(early.at(Stop::Draining));
        assert!(waits.as_mut().now_or_never().is_none());
        stopper.set(Stop::Draining);
        assert!(waits.as_mut().now_or_never().is_some() && late.at(Stop::Draining).now_or_never().is_some());
        assert!(late.at(Stop::Now).now_or_never().is_none());
        drop(stopper);
        assert!(late.at(Stop::Now).now_or_never().is_some());
    }
}
