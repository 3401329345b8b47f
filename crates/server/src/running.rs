//! What is common to a server that runs: its folder's lock, its tasks, and a stop within 5 s.

use env::{Env, File, Listener};
use futures::future::BoxFuture;
use model::{Error, Result};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use transport::Service;
use transport::TlsIdentity;

/// Time in which what is being answered is answered.
const DRAIN: Duration = Duration::from_secs(2);
/// Longest time that a stop takes.
const STOP: Duration = Duration::from_millis(4500);

/// Makes a server's folder and takes its lock. `Conflict` when another process has it.
pub(crate) async fn lock_dir(env: &Env, dir: &Path) -> Result<Arc<dyn File>> {
    let (disk, dir) = (env.disk.clone(), dir.to_path_buf());
    env.blocking(move || {
        let at = |e: std::io::Error| Error::unavailable(format!("cannot use {}: {e}", dir.display()));
        disk.create_dir_all(&dir).map_err(at)?;
        disk.lock(&dir.join("lock")).map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::conflict(format!("another process uses {}", dir.display())),
            _ => at(e),
        })
    })
    .await
}

/// The tasks of a server.
pub(crate) struct Tasks {
    env: Env,
    stopping: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

impl Tasks {
    pub fn new(env: &Env) -> Self {
        Tasks { env: env.clone(), stopping: watch::Sender::new(false), serving: Vec::new(), background: Vec::new() }
    }

    /// Serves until the stop; what is being answered then is answered.
    pub fn serve(&mut self, listener: Box<dyn Listener>, identity: Arc<TlsIdentity>, service: Arc<dyn Service>, limits: transport::Limits) {
        let stopped = self.stopped();
        let env = self.env.clone();
        let limits = transport::Limits { drain: DRAIN, ..limits };
        self.serving.push(self.env.spawn(async move {
            transport::serve(env, listener, identity, service, limits, stopped).await;
        }));
    }

    /// Runs beside it, and is cut off at the stop: it must be able to stop at any await.
    pub fn background(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.background.push(self.env.spawn(task));
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.subscribe();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }

    /// `close` runs last, when no task runs any more; then the locks go.
    pub fn into_stop(self, close: impl Future<Output = ()> + Send + 'static, locks: Vec<Arc<dyn File>>) -> Stop {
        Stop { tasks: self, close: Box::pin(close), _locks: locks }
    }
}

/// How to stop a server. Dropped without [`Stop::stop`], its background tasks are cut off at once.
pub(crate) struct Stop {
    tasks: Tasks,
    close: BoxFuture<'static, ()>,
    _locks: Vec<Arc<dyn File>>,
}

impl Stop {
    pub async fn stop(mut self) {
        self.tasks.background.iter().for_each(JoinHandle::abort);
        let _ = self.tasks.stopping.send(true);
        let env = self.tasks.env.clone();
        let serving = std::mem::take(&mut self.tasks.serving);
        let end = async {
            for task in serving {
                let _ = task.await;
            }
            (&mut self.close).await;
        };
        if env.timeout(STOP, end).await.is_none() {
            tracing::warn!("the server did not stop in time and is cut off");
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.background.iter().chain(&self.serving).for_each(JoinHandle::abort);
    }
}
