//! The real world: the operating system's clock, randomness, files and sockets. The one module
//! with Unix-only code.

use crate::{BoxStream, Clock, Disk, Env, File, Listener, Net, Open, Rng, Space, Spawner};
use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The real world.
pub fn env() -> Env {
    Env {
        clock: Arc::new(SystemClock(Instant::now())),
        rng: Arc::new(SystemRng),
        disk: Arc::new(SystemDisk),
        net: Arc::new(Tcp),
        spawner: Arc::new(Threads),
    }
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    #[cfg(target_os = "linux")]
    fn uptime(&self) -> Duration {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(at.tv_sec.max(0) as u64, at.tv_nsec.clamp(0, 999_999_999) as u32)
    }
}

struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives no randomness");
    }
}

struct SystemDisk;

#[derive(Debug)]
struct SystemFile(std::fs::File);

impl Disk for SystemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match how {
            Open::Existing => &mut options,
            Open::OrCreate => options.create(true),
            Open::New => options.create_new(true),
        };
        Ok(Arc::new(SystemFile(options.open(path)?)))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let missing: Vec<&Path> = path.ancestors().take_while(|a| !a.as_os_str().is_empty() && !a.exists()).collect();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let durable = missing.iter().try_for_each(|made| self.sync_dir(made.parent().unwrap_or(Path::new("."))));
        if durable.is_err() {
            // Whoever tries again must not find them there and take them for durable. The innermost comes first.
            missing.iter().for_each(|made| drop(std::fs::remove_dir(made)));
        }
        durable
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    fn try_exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::fs::File::open(path)?.sync_all()
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        let s = rustix::fs::statvfs(path)?;
        Ok(Space { total: s.f_blocks * s.f_frsize, free: s.f_bavail * s.f_frsize })
    }
    fn lock(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).read(true).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(SystemFile(file)))
    }
}

impl File for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            other => Ok(other?),
        }
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.0, flags, offset, len) {
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }
}

struct Tcp;

impl Net for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxStream)
        })
    }
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener(tokio::net::TcpListener::bind(address).await?)) as Box<dyn Listener>) })
    }
}

struct TcpListener(tokio::net::TcpListener);

impl Listener for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, peer))
        })
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct Threads;

impl Spawner for Threads {
    fn run(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }
}
