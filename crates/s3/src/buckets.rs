//! Buckets: folders below `/s3`, or anywhere else in the tree where the user says so, each with its
//! configuration in a file of its own.

use crate::errors::{error, from_client, of_bucket, plain};
use crate::keys::{CONFIG, Named, read};
use crate::tree::below;
use client::{Client, Entry, EntryKind, OnConflict, PutOptions, RemotePath, Source, Writer};
use model::{Kind, Result};
use s3s::dto::{BucketLifecycleConfiguration, CORSConfiguration, PublicAccessBlockConfiguration, Tag};
use s3s::{S3ErrorCode, S3Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The folder of buckets that are not mapped.
const HOME: &str = "/s3";
/// For how long a configuration read counts, milliseconds. What this gateway changes counts at once.
const FRESH_MS: u64 = 2_000;
/// How often a change is tried while others change the same settings.
const TRIES: usize = 16;
/// Most buckets whose configuration is remembered.
const KNOWN_MAX: usize = 10_000;
/// How names begin and end that Amazon keeps for itself, beside `xn--`, which makes no name at all. No bucket is made
/// with one; folders that have one are shown.
const RESERVED: [&str; 2] = ["sthree-", "amzn-s3-demo-"];
const RESERVED_ENDS: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// It never did.
    #[default]
    Never,
    /// Each write makes a version.
    Enabled,
    /// Writes make the version `null`; older ones stay.
    Suspended,
}

/// What a bucket is set to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketConfig {
    /// Versions.
    pub versioning: Versioning,
    /// Tags.
    pub tags: Option<Vec<Tag>>,
    /// Cross-origin rules.
    pub cors: Option<CORSConfiguration>,
    /// What expires when.
    pub lifecycle: Option<BucketLifecycleConfiguration>,
    /// Kept and shown; nothing here is ever public.
    pub public_access: Option<PublicAccessBlockConfiguration>,
}

/// A bucket found.
#[derive(Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub path: RemotePath,
    /// What it is set to.
    pub config: Arc<BucketConfig>,
}

impl Bucket {
    /// Whether objects in it may have versions or marks of deletion.
    pub fn has_versions(&self) -> bool {
        self.config.versioning != Versioning::Never
    }
}

/// The buckets of a gateway.
pub struct Buckets {
    client: Client,
    writer: Writer,
    home: RemotePath,
    /// Those that lie elsewhere.
    mapped: BTreeMap<String, RemotePath>,
    known: Mutex<BTreeMap<String, (u64, Arc<BucketConfig>)>>,
}

impl Buckets {
    /// `mapped`: buckets that are other folders.
    pub fn new(client: &Client, writer: &Writer, mapped: BTreeMap<String, RemotePath>) -> Result<Self> {
        let home = RemotePath::parse(HOME)?;
        Ok(Buckets { client: client.clone(), writer: writer.clone(), home, mapped, known: Mutex::default() })
    }

    /// Where a bucket lies.
    fn path(&self, name: &str) -> Result<RemotePath> {
        self.mapped.get(name).cloned().map_or_else(|| below(&self.home, name), Ok)
    }

    /// A bucket. `NoSuchBucket` when there is none.
    pub async fn get(&self, name: &str) -> S3Result<Bucket> {
        let path = self.path(name).map_err(of_bucket)?;
        let now = self.client.env().now_ms();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((_, config)) = known.filter(|(since, _)| now.saturating_sub(*since) < FRESH_MS) {
            return Ok(Bucket { name: name.into(), path, config });
        }
        let config = Arc::new(self.read(&path).await?);
        self.remember(name, config.clone());
        Ok(Bucket { name: name.into(), path, config })
    }

    async fn read(&self, path: &RemotePath) -> S3Result<BucketConfig> {
        let file = below(path, CONFIG).map_err(from_client)?;
        let (folder, config) = futures::join!(self.client.stat(path), self.client.stat(&file));
        if folder.map_err(of_bucket)?.kind != EntryKind::Folder {
            return Err(plain(S3ErrorCode::NoSuchBucket));
        }
        match config {
            Err(e) if e.kind == Kind::NotFound => Ok(BucketConfig::default()),
            config => self.read_file(&config.map_err(from_client)?).await,
        }
    }

    async fn read_file(&self, config: &Entry) -> S3Result<BucketConfig> {
        let reader = self.client.open_file(config).await.map_err(from_client)?;
        let bytes = reader.read(0..reader.size).await.map_err(from_client)?;
        serde_json::from_slice(&bytes).map_err(|e| error(S3ErrorCode::InternalError, format!("{}: not a configuration: {e}", config.path)))
    }

    fn remember(&self, name: &str, config: Arc<BucketConfig>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(name.into(), (self.client.env().now_ms(), config));
    }

    /// What is remembered of a bucket may be wrong: an operation did not find it.
    pub fn forget(&self, name: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Changes a bucket's configuration; again, on the newer one, when somebody else changes it meanwhile.
    pub async fn configure(&self, name: &str, change: impl Fn(&mut BucketConfig)) -> S3Result<()> {
        let path = self.path(name).map_err(of_bucket)?;
        let file = below(&path, CONFIG).map_err(from_client)?;
        for _ in 0..TRIES {
            let spot = self.client.spot(&file).await.map_err(of_bucket)?;
            let mut config = match spot.entry() {
                Some(there) => self.read_file(there).await?,
                None => BucketConfig::default(),
            };
            change(&mut config);
            let bytes = serde_json::to_vec(&config).map_err(|e| error(S3ErrorCode::InternalError, e.to_string()))?;
            let options = PutOptions { if_version: spot.entry().map(|e| e.version), on_conflict: OnConflict::Refuse, ..Default::default() };
            match self.writer.put(spot, Source::Bytes(bytes), options).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists) => {}
                done => {
                    done.map_err(from_client)?;
                    self.remember(name, Arc::new(config));
                    return Ok(());
                }
            }
        }
        Err(plain(S3ErrorCode::OperationAborted))
    }

    /// All buckets, by name, with when each was made (milliseconds since 1970).
    pub async fn list(&self) -> S3Result<Vec<(String, u64)>> {
        let mut all = BTreeMap::new();
        match self.client.list(&self.home).await {
            Err(e) if e.kind == Kind::NotFound => {}
            entries => {
                let folders = entries.map_err(from_client)?.into_iter().filter(|e| e.kind == EntryKind::Folder);
                all.extend(folders.filter(|e| is_bucket_name(&e.name())).map(|e| (e.name(), made_ms(&e))));
            }
        }
        for (name, path) in &self.mapped {
            match self.client.stat(path).await {
                Ok(entry) if entry.kind == EntryKind::Folder => _ = all.insert(name.clone(), made_ms(&entry)),
                Err(e) if !matches!(e.kind, Kind::NotFound | Kind::Denied | Kind::Invalid) => return Err(from_client(e)),
                _ => _ = all.remove(name),
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Makes a bucket below `/s3`.
    pub async fn create(&self, name: &str) -> S3Result<()> {
        if !is_bucket_name(name) || is_reserved(name) {
            return Err(plain(S3ErrorCode::InvalidBucketName));
        }
        self.forget(name);
        let path = self.path(name).map_err(from_client)?;
        for again in [true, false] {
            match self.client.mkdir(&path, false).await {
                Err(e) if e.kind == Kind::Exists => return Err(plain(S3ErrorCode::BucketAlreadyOwnedByYou)),
                Err(e) if e.kind == Kind::NotFound && again && !self.mapped.contains_key(name) => {
                    self.client.mkdir(&self.home, true).await.map_err(from_client)?;
                }
                made => return made.map_err(from_client),
            }
        }
        Ok(())
    }

    /// Removes a bucket that holds no objects: its folder with what is not S3's to see goes to the trash.
    pub async fn remove(&self, bucket: &Bucket) -> S3Result<()> {
        self.forget(&bucket.name);
        if self.mapped.contains_key(&bucket.name) {
            let text = "this bucket is a folder that the gateway was given (--bucket): remove it there";
            return Err(error(S3ErrorCode::MethodNotAllowed, text));
        }
        self.client.remove(&bucket.path, true, false).await.map_err(of_bucket)?;
        Ok(())
    }
}

/// When a bucket's folder was made, as far as it tells.
fn made_ms(entry: &Entry) -> u64 {
    (entry.mtime_ns.max(0) / 1_000_000) as u64
}

/// Amazon's rules for names of buckets.
pub fn is_bucket_name(name: &str) -> bool {
    s3s::path::check_bucket_name(name) && matches!(read(name), Named::Part(_))
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|start| name.starts_with(start)) || RESERVED_ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_names_all_the_same() {
        assert!(!is_bucket_name("xn--a"));
        for name in ["sthree-a", "amzn-s3-demo-a", "a-s3alias", "a--ol-s3", "a.mrap", "a--x-s3", "a--table-s3"] {
            assert!(is_bucket_name(name) && is_reserved(name), "{name}");
        }
        for name in ["a-xn--b", "sthree", "amzn-s3", "s3alias", "x-s3", "mrap", "a-x-s3"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
