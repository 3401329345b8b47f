//! Watch channels as openraft uses them, but for the dice: tokio's wakes those who wait for a change in
//! an order that it draws from a generator of the thread. Here they wake in the order in which they
//! began to wait.

use openraft::async_runtime::watch::{self, RecvError, SendError};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::watch as tokio_watch;

/// The kind of channel.
pub(crate) struct Watch;

/// What is watched, and who wakes the watchers.
pub(crate) struct Sender<T> {
    // Before the bell, so that whom it wakes finds this gone.
    value: tokio_watch::Sender<T>,
    bell: Bell,
}

/// Rings also when its sender goes.
#[derive(Clone)]
struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { value: self.value.clone(), bell: self.bell.clone() }
    }
}

/// A watcher.
pub(crate) struct Receiver<T> {
    value: tokio_watch::Receiver<T>,
    bell: Arc<Notify>,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { value: self.value.clone(), bell: self.bell.clone() }
    }
}

impl watch::Watch for Watch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = tokio_watch::Ref<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = tokio_watch::channel(init);
        let bell = Arc::new(Notify::new());
        (Sender { value: sender, bell: Bell(bell.clone()) }, Receiver { value: receiver, bell })
    }
}

impl<T: Send + Sync> watch::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.value.send(value).map_err(|e| SendError(e.0))?;
        self.bell.0.notify_waiters();
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = self.value.send_if_modified(modify);
        if modified {
            self.bell.0.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.value.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver { value: self.value.subscribe(), bell: self.bell.0.clone() }
    }
}

impl<T: Send + Sync> watch::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // Waits before it looks, so that it misses nothing in between.
            let mut rung = std::pin::pin!(self.bell.notified());
            rung.as_mut().enable();
            if self.value.borrow_and_update().has_changed() {
                return Ok(());
            }
            self.value.has_changed().map_err(|_| RecvError(()))?;
            rung.await;
        }
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.value.borrow()
    }

    fn borrow_and_update(&mut self) -> tokio_watch::Ref<'_, T> {
        self.value.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::async_runtime::watch::{Watch as _, WatchReceiver as _, WatchSender as _};
    use std::sync::Mutex;

    #[tokio::test]
    async fn watchers_wake_in_the_order_in_which_they_wait() {
        let (sender, receiver) = Watch::channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..20)
            .map(|i| {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(i);
                }
            })
            .map(|watcher| env::real::env().spawn(watcher))
            .collect();
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        futures::future::join_all(waiting).await;
        assert_eq!(*woken.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_missed_and_the_end_is_told() {
        let (sender, mut receiver) = Watch::channel(0);
        sender.send_if_modified(|value| std::mem::replace(value, 1) == 0);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_watched(), 1);
        let last = sender.clone();
        drop(sender);
        let waiting = env::real::env().spawn(async move { receiver.changed().await.is_err() });
        tokio::task::yield_now().await;
        drop(last);
        assert!(waiting.await.unwrap());
    }
}
