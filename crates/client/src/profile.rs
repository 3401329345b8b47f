//! What this machine remembers of a cluster: where it is, who is logged in, what was under way.
//!
//! ```text
//! HOME/profiles/NAME/profile     cluster id, root certificate, coordinators, account name
//!                    session     secret, 0600: session token and the account's unlocked keys
//!                    audit       how far the log of events was verified
//!                    transfers/  journals of interrupted uploads and downloads
//! ```
//! Files are CBOR with a version in front, replaced whole, readable by their owner only. `NAME.*.tmp` is what a
//! process left that was killed while it wrote one.

use env::{DiskExt, Env};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use model::cluster::CatalogLife;
use model::{ClusterId, Error, Hash, Layout, Result, cbor};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use wire::SessionToken;
use zeroize::Zeroizing;

/// Version of the files.
const VERSION: u8 = 1;

/// A profile: one cluster and one account on this machine.
#[derive(Clone)]
pub struct Profile {
    pub(crate) env: Env,
    dir: PathBuf,
}

/// What a profile says of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ProfileInfo {
    #[n(0)]
    version: u8,
    /// Cluster.
    #[n(1)]
    pub cluster: ClusterId,
    /// Root certificate, DER: pinned.
    #[n(2)]
    pub root: ByteVec,
    /// Addresses of coordinators.
    #[n(3)]
    pub coordinators: Vec<String>,
    /// Account name.
    #[n(4)]
    pub account: String,
    /// Highest number of the account's sealed notes that was seen here.
    #[n(5)]
    pub state_seq: u64,
}

impl ProfileInfo {
    pub(crate) fn new(cluster: ClusterId, root: Vec<u8>, coordinators: Vec<String>, account: String) -> Self {
        ProfileInfo { version: VERSION, cluster, root: root.into(), coordinators, account, state_seq: 0 }
    }

    /// BLAKE3 of the root certificate: what people compare.
    pub fn fingerprint(&self) -> Hash {
        Hash::of(&self.root)
    }
}

/// The session file. Secret.
#[derive(Encode, Decode)]
pub(crate) struct StoredSession {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub token: SessionToken,
    #[n(2)]
    pub expires_ms: u64,
    #[n(3)]
    pub keys: ByteVec,
}

impl Drop for StoredSession {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token.0);
        zeroize::Zeroize::zeroize(&mut *self.keys);
    }
}

impl StoredSession {
    pub fn new(token: SessionToken, expires_ms: u64, keys: &[u8]) -> Self {
        StoredSession { version: VERSION, token, expires_ms, keys: keys.to_vec().into() }
    }
}

impl Profile {
    /// The profile `name` under a home folder (`~/.shardkeep`). Nothing is created yet.
    /// `Invalid` for a name that is no plain file name.
    pub fn new(env: Env, home: &Path, name: &str) -> Result<Self> {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b)) && !name.starts_with('.');
        if !plain {
            return Err(Error::invalid(format!("'{}' is no name of a profile: use letters, digits, '.', '_', '-'", name.escape_debug())));
        }
        Ok(Profile { env, dir: home.join("profiles").join(name) })
    }

    /// Whether it was set up.
    pub fn exists(&self) -> bool {
        self.env.disk.exists(&self.dir.join("profile"))
    }

    /// Its cluster. `NotFound` when it was not set up.
    pub fn info(&self) -> Result<ProfileInfo> {
        if !self.exists() {
            return Err(Error::not_found(format!("there is no profile in {}", self.dir.display()))
                .hint("shardkeep up, shardkeep register INVITE, or shardkeep login --user NAME --coordinator ADDR --fingerprint HEX"));
        }
        let bytes = self.read("profile")?;
        let info: ProfileInfo = cbor::from_slice(&bytes).map_err(|_| self.damaged("profile"))?;
        if info.version != VERSION {
            return Err(self.damaged("profile"));
        }
        Ok(info)
    }

    /// Changes what is kept of the cluster, as it is now: other processes use the profile as well.
    pub(crate) fn update_info(&self, change: impl FnOnce(&mut ProfileInfo)) -> Result<()> {
        // Of this process one at a time.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.info()?;
        let mut info = held.clone();
        change(&mut info);
        if info == held { Ok(()) } else { self.save_info(&info) }
    }

    pub(crate) fn save_info(&self, info: &ProfileInfo) -> Result<()> {
        self.write("profile", &cbor::to_vec(info))
    }

    pub(crate) fn session(&self) -> Result<StoredSession> {
        if !self.env.disk.exists(&self.dir.join("session")) {
            return Err(Error::denied("nobody is logged in here").hint("shardkeep login --user NAME"));
        }
        let bytes = Zeroizing::new(self.read("session")?);
        let session: StoredSession = cbor::from_slice(&bytes).map_err(|_| self.damaged("session"))?;
        if session.version != VERSION {
            return Err(self.damaged("session"));
        }
        Ok(session)
    }

    pub(crate) fn save_session(&self, session: &StoredSession) -> Result<()> {
        self.write("session", &Zeroizing::new(cbor::to_vec(session)))
    }

    /// Removes the session. The keys in it are gone from this machine.
    pub fn forget_session(&self) -> Result<()> {
        if !self.env.disk.try_exists(&self.dir).map_err(|e| self.io("", &e))? {
            return Ok(());
        }
        // Also what a process left that was killed while it wrote one.
        let files = self.env.disk.read_dir(&self.dir).map_err(|e| self.io("", &e))?;
        for name in files.iter().filter(|name| *name == "session" || name.starts_with("session.")) {
            match self.env.disk.remove_file(&self.dir.join(name)) {
                // Gone with another logout beside this one.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(|e| self.io(name, &e))?,
            }
        }
        Ok(())
    }

    /// The folder for journals of transfers; created.
    pub(crate) fn transfers(&self) -> Result<PathBuf> {
        let dir = self.dir.join("transfers");
        self.env.disk.create_dir_all(&dir).map_err(|e| self.io("transfers", &e))?;
        Ok(dir)
    }

    /// The layout of a width as it was last seen, if there is one that makes sense. It is long, and
    /// changes rarely.
    pub(crate) fn cached_layout(&self, life: &CatalogLife, width: u8) -> Option<Layout> {
        let bytes = self.read(&layout_file(life, width)).ok()?;
        let layout: Layout = cbor::from_slice(&bytes).ok()?;
        (layout.check().is_ok() && layout.width == width).then_some(layout)
    }

    /// Keeps a layout for next time. A disk that does not take it costs no more than asking again.
    pub(crate) fn cache_layout(&self, life: &CatalogLife, layout: &Layout) {
        if let Err(e) = self.write(&layout_file(life, layout.width), &cbor::to_vec(layout)) {
            tracing::debug!(error = %e, "a layout is not kept for next time");
        }
    }

    /// A file of the profile.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        self.env.disk.read(&self.dir.join(name)).map_err(|e| self.io(name, &e))
    }

    /// Several processes may write at once: a gateway, and whoever types commands beside it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.env.disk.create_dir_all(&self.dir).map_err(|e| self.io("", &e))?;
        let own = self.dir.join(format!("{name}.{:016x}.tmp", u64::from_le_bytes(self.env.random())));
        let written = self.env.disk.replace_by(&self.dir.join(name), &own, bytes);
        written.map_err(|e| {
            let _ = self.env.disk.remove_file(&own); // as far as it was written
            self.io(name, &e)
        })
    }

    fn io(&self, name: &str, e: &std::io::Error) -> Error {
        let kind = if e.kind() == std::io::ErrorKind::StorageFull { model::Kind::Insufficient } else { model::Kind::Invalid };
        Error::new(kind, format!("{}: {e}", self.dir.join(name).display()))
    }

    fn damaged(&self, name: &str) -> Error {
        Error::corrupt(format!("{} is damaged or of another version", self.dir.join(name).display())).hint("shardkeep login --user NAME")
    }
}

/// Epochs mean something within one life of the catalog only.
fn layout_file(life: &CatalogLife, width: u8) -> String {
    let [a, b, c, d, ..] = life.incarnation;
    format!("layout-{width}-{a:02x}{b:02x}{c:02x}{d:02x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn several_processes_may_write_one_profile_at_once() {
        let (env, home) = (env::real::env(), tempfile::tempdir().unwrap());
        // Each knows nothing of the others, as processes do.
        let profile = || Profile::new(env.clone(), home.path(), "p").unwrap();
        let info = |n: u64| ProfileInfo { state_seq: n, ..ProfileInfo::new(ClusterId([7; 16]), vec![1; 500], Vec::new(), "anna".into()) };
        profile().save_info(&info(0)).unwrap();
        let write = |n: u64| {
            let (own, info) = (profile(), info(n));
            let all = move || (0..100).try_for_each(|_| own.save_info(&info).and_then(|()| own.info()).map(drop));
            let env = env.clone();
            env.clone().spawn(async move { env.blocking(all).await })
        };
        for writer in (1..=8).map(write).collect::<Vec<_>>() {
            writer.await.unwrap().unwrap();
        }
        let left = env.disk.read_dir(&home.path().join("profiles/p")).unwrap();
        assert_eq!(left, ["profile"], "nothing is left of it");
        // What a killed process left of a session goes with the session.
        env.disk.replace(&profile().path("session.0011.tmp"), b"secret").unwrap();
        profile().forget_session().unwrap();
        assert_eq!(env.disk.read_dir(&home.path().join("profiles/p")).unwrap(), ["profile"]);
    }
}
