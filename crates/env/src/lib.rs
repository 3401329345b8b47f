//! Everything by which the outside world reaches the program: time, randomness, disks, network
//! and tasks. All other crates go through [`Env`], so that a whole cluster can run under a seed.
//!
//! There are two worlds: [`real`] and, with feature `sim`, [`sim`] (turmoil). In simulation there
//! are no threads: [`Env::blocking`] runs its closure at once, on the spot.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // the one crate in which they are used

pub mod real;
#[cfg(feature = "sim")]
pub mod sim;

use futures::future::BoxFuture;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// Time. Wall-clock time may jump; [`Clock::monotonic`] never goes back.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 by this machine's clock.
    fn now_ms(&self) -> u64;
    /// Time since some fixed moment in this process's life.
    fn monotonic(&self) -> Duration;
    /// The same, and it goes on while the machine sleeps, where the machine can tell.
    fn uptime(&self) -> Duration {
        self.monotonic()
    }
}

/// Randomness fit for keys (in the real world).
pub trait Rng: Send + Sync {
    /// Fills a buffer. Panics when the operating system has no randomness: there is nothing safe
    /// to do then.
    fn fill(&self, buffer: &mut [u8]);
}

/// How to open a file. Files are always readable and writable and never truncated by opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Must exist.
    Existing,
    /// Is created when missing.
    OrCreate,
    /// Must not exist.
    New,
}

/// Size of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that this process may still use.
    pub free: u64,
}

/// A file system. Blocking: call it inside [`Env::blocking`].
///
/// Durability: contents are durable after [`File::sync_data`], names (creation, rename, removal)
/// after [`Disk::sync_dir`] of the folder. Implementations must not promise more by accident.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Creates a folder and its parents. Those that were missing are durable afterwards.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// File and folder names in a folder, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Whether the path exists; an error where the disk does not say.
    fn try_exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Size and free space of the file system that holds a path.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes an exclusive lock named by a file, held until the handle is dropped or the process
    /// dies. `WouldBlock` when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>>;
}

/// An open file with positioned reads and writes. Blocking.
pub trait File: Send + Sync + std::fmt::Debug {
    /// Reads up to `buffer.len()` bytes at an offset; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes at an offset; returns how many.
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes contents and length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Sets the length; new bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reserves blocks for `[0, len)` and sets the length; new bytes read as zero.
    /// `StorageFull` where there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Frees the blocks of a range, which then reads as zero; a hint, may do nothing.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Conveniences over [`File`].
pub trait FileExt: File {
    /// Reads exactly `buffer.len()` bytes at an offset; `UnexpectedEof` past the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all bytes at an offset.
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.write_at(&buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
impl<F: File + ?Sized> FileExt for F {}

/// Conveniences over [`Disk`].
pub trait DiskExt: Disk {
    /// Whether the path exists, as far as the disk says. Only where a wrong no does no harm: what is made because
    /// nothing is there may be made over what is.
    fn exists(&self, path: &Path) -> bool {
        self.try_exists(path).unwrap_or(false)
    }

    /// The whole of a (small) file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Existing)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The whole of a small file that says who somebody is, and on which more is built from now on. A
    /// [`DiskExt::replace`] whose last step failed leaves a file that is seen and that the next loss of power may take,
    /// so it is replaced by itself once more. Where there is no room for that it stays as it is.
    fn read_settled(&self, path: &Path) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        match self.replace(path, &bytes) {
            Err(e) if e.kind() != io::ErrorKind::StorageFull => Err(e),
            _ => Ok(bytes),
        }
    }

    /// Replaces a small file so that after a crash either the old or the new contents are there:
    /// writes `PATH.tmp`, syncs it, renames it and syncs the folder. For one writer at a time.
    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut tmp = path.as_os_str().to_owned();
        tmp.push(".tmp");
        self.replace_by(path, Path::new(&tmp), contents)
    }

    /// The same by way of a file of the writer's own, where several may write at once: the last one wins.
    fn replace_by(&self, path: &Path, tmp: &Path, contents: &[u8]) -> io::Result<()> {
        let file = self.open(tmp, Open::OrCreate)?;
        file.set_len(contents.len() as u64)?;
        file.write_all_at(contents, 0)?;
        file.sync_data()?;
        drop(file);
        self.rename(tmp, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }
}
impl<D: Disk + ?Sized> DiskExt for D {}

/// A byte stream between two hosts.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A boxed [`Stream`].
pub type BoxStream = Box<dyn Stream>;

/// A network of byte streams.
pub trait Net: Send + Sync {
    /// Connects to `host:port`.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>>;
    /// Listens on `host:port`; port 0 takes a free one.
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// The next connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>>;
    /// The address bound, with its port.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Runs blocking or CPU-heavy work.
pub trait Spawner: Send + Sync {
    /// Runs a closure off the async threads (in simulation: at once, on the spot).
    fn run(&self, work: Box<dyn FnOnce() + Send>);
    /// Cores that CPU-heavy work may use.
    fn cores(&self) -> usize;
}

/// The world that a process lives in. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Network.
    pub net: Arc<dyn Net>,
    /// Threads.
    pub spawner: Arc<dyn Spawner>,
}

impl Env {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// A generator for crates that want `rand_core` 0.10.
    pub fn rand(&self) -> RandCore {
        RandCore(self.rng.clone())
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await
    }

    /// Gives a future so long; `None` when it did not finish.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(duration, future).await.ok()
    }

    /// Starts a task on the runtime of this process (or simulated host).
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(future)
    }

    /// Runs blocking or CPU-heavy work off the async threads. A panic inside goes on here.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.spawner.run(Box::new(move || {
            let _ = send.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
        }));
        match receive.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will look at the answer.
            Err(_) => std::future::pending().await,
        }
    }

    /// Cores that CPU-heavy work may use.
    pub fn cores(&self) -> usize {
        self.spawner.cores()
    }
}

/// [`Env::rng`] as a `rand_core` 0.10 generator.
#[derive(Clone)]
pub struct RandCore(Arc<dyn Rng>);

impl rand_core::TryRng for RandCore {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut b = [0; 4];
        self.0.fill(&mut b);
        Ok(u32::from_le_bytes(b))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut b = [0; 8];
        self.0.fill(&mut b);
        Ok(u64::from_le_bytes(b))
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(dst);
        Ok(())
    }
}
impl rand_core::TryCryptoRng for RandCore {}
