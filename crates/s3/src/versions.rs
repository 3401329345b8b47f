//! Versions of objects in buckets that keep them.
//!
//! An entry's revisions are its versions. A delete makes a revision that says so, and hides it under a name of its
//! own, so that everybody else sees the file gone while its history stays with the entry. Revisions that differ in
//! tags only, or that a rename made, have the same version id and count as one. How long older versions are kept is
//! the space's retention (30 days unless set), not S3's for ever.

use crate::Gateway;
use crate::buckets::{Bucket, Versioning};
use crate::conditions::Conditions;
use crate::errors::{error, from_client, plain};
use crate::meta::{Meta, timestamp};
use crate::objects::Deleted;
use crate::tree::{Object, Spots, find};
use client::{Entry, OnConflict, Properties, PutOptions, RemotePath, Source, VersionNumber};
use hyper::header::{ALLOW, HeaderMap, HeaderValue, LAST_MODIFIED};
use model::{Error, Kind};
use s3s::dto::TimestampFormat;
use s3s::{S3Error, S3ErrorCode, S3Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How often a change is tried while others change the same key.
const TRIES: usize = 16;
/// Locks of keys.
const LOCKS: u64 = 256;

/// The id of the version that has none.
pub const NULL: &str = "null";

/// The id by which requests name what has this.
pub fn id_of(meta: &Meta) -> &str {
    meta.id.as_deref().unwrap_or(NULL)
}

/// One version of an object, or a mark of its deletion.
pub struct ObjectVersion {
    /// As an object that can be read.
    pub object: Object,
    /// It is the current one.
    pub latest: bool,
    /// The revisions that are this version: the newest first.
    revisions: Vec<VersionNumber>,
}

impl ObjectVersion {
    /// Its id.
    pub fn id(&self) -> &str {
        id_of(&self.object.meta)
    }
}

impl Gateway {
    /// All versions of an entry, newest first. `null` is there once at most.
    pub(crate) async fn versions_of(&self, entry: &Entry) -> model::Result<Vec<ObjectVersion>> {
        let current =
            ObjectVersion { object: Object::new(entry.clone()), latest: true, revisions: vec![VersionNumber::Revision(entry.version)] };
        let mut versions = vec![current];
        if entry.version == 1 {
            return Ok(versions);
        }
        let mut all = self.client.versions(&entry.path).await?;
        all.reverse();
        for version in all {
            let (VersionNumber::Revision(number), false, false) = (version.number, version.current, version.removal) else { continue };
            let Ok(old) = version.entry() else { continue };
            if number >= entry.version {
                continue;
            }
            let object = Object::new(old);
            match versions.iter_mut().find(|v| v.id() == id_of(&object.meta)) {
                Some(known) => known.revisions.push(version.number),
                None => versions.push(ObjectVersion { object, latest: false, revisions: vec![version.number] }),
            }
        }
        Ok(versions)
    }

    /// One version of a key's object. `NoSuchVersion`; `MethodNotAllowed` for a mark of deletion.
    pub(crate) async fn object_version(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Object> {
        check_id(id)?;
        let object = self.any_version(bucket, key, id).await?.0.object;
        if object.meta.deleted {
            return Err(is_mark(&object));
        }
        Ok(object)
    }

    /// One version, mark or not, with all of them and where the newest lies.
    async fn any_version(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<(ObjectVersion, Vec<ObjectVersion>, RemotePath)> {
        let spots = Spots::of(&bucket.path, key)?;
        let found = find(&self.client, &spots, true).await.map_err(from_client)?;
        let Some(object) = found.object else {
            self.check_bucket(bucket).await?;
            return Err(plain(S3ErrorCode::NoSuchVersion));
        };
        let mut versions = self.versions_of(&object.entry).await.map_err(from_client)?;
        let at = versions.iter().position(|v| v.id() == id).ok_or_else(|| plain(S3ErrorCode::NoSuchVersion))?;
        Ok((versions.remove(at), versions, found.path))
    }

    /// Puts a mark of deletion in the place of a key's object (or of nothing), if the conditions hold.
    pub(crate) async fn mark_deleted(&self, bucket: &Bucket, key: &str, conditions: &Conditions) -> S3Result<Deleted> {
        let spots = Spots::of(&bucket.path, key)?;
        let id = (bucket.config.versioning == Versioning::Enabled).then(|| self.new_id());
        let meta = Meta { id, deleted: true, ..Meta::new(self.client.env().now_ms()) };
        let done = Deleted { mark: true, version: Some(id_of(&meta).to_string()) };
        let _hold = self.histories.hold(bucket, key).await;
        for _ in 0..TRIES {
            let found = find(&self.client, &spots, true).await.map_err(from_client)?;
            let live = found.object.as_ref().filter(|o| !o.meta.deleted);
            if conditions.matches.is_some() {
                conditions.check_write(live.map(Object::etag).as_deref())?;
            }
            // The folders above nothing may be missing: they are made as for any object.
            let spot = match found.spot.filter(|_| found.object.is_some()) {
                Some(spot) => spot,
                None => self.writable(bucket, &spots).await?,
            };
            let path = spot.path().clone();
            let options = PutOptions {
                on_conflict: OnConflict::Refuse,
                if_version: spot.entry().map(|e| e.version),
                if_absent: spot.entry().is_none(),
                ..PutOptions::default()
            };
            match self.writer.put(spot, marked(&meta), options).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound) => continue,
                put => put.map_err(from_client)?,
            };
            self.hide(&path, &spots).await?;
            return Ok(done);
        }
        Err(plain(S3ErrorCode::OperationAborted))
    }

    /// Moves a mark of deletion out of sight. Where somebody has written over it meanwhile, or that fails, it is a
    /// mark all the same.
    async fn hide(&self, path: &RemotePath, spots: &Spots) -> S3Result<()> {
        if spots.is_deleted(path) {
            return Ok(());
        }
        let renamed = match self.client.stat(path).await {
            Ok(entry) if Meta::of(&entry).deleted => self.client.rename_entry(&entry, spots.mark()).await,
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        match renamed {
            Err(e) if !matches!(e.kind, Kind::Exists | Kind::NotFound | Kind::Conflict) => Err(from_client(e)),
            _ => Ok(()),
        }
    }

    /// Destroys one version for good. Where that was the current one, the one before it is the current one.
    pub(crate) async fn delete_version(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Deleted> {
        check_id(id)?;
        let _hold = self.histories.hold(bucket, key).await;
        let mut done = Deleted { mark: false, version: Some(id.into()) };
        // Until it is gone: others may bring it back to the front meanwhile.
        for _ in 0..TRIES {
            let (version, others, path) = match self.any_version(bucket, key, id).await {
                Err(e) if *e.code() == S3ErrorCode::NoSuchVersion => return Ok(done),
                other => other?,
            };
            done.mark |= version.object.meta.deleted;
            match self.drop_once(bucket, key, version, &others, &path).await {
                Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound) => {}
                dropped => dropped.map_err(from_client)?,
            }
        }
        Err(plain(S3ErrorCode::OperationAborted))
    }

    /// Drops a version out of a history. `Conflict` where that has changed meanwhile.
    async fn drop_once(
        &self,
        bucket: &Bucket,
        key: &str,
        version: ObjectVersion,
        others: &[ObjectVersion],
        path: &RemotePath,
    ) -> model::Result<()> {
        let spots = Spots::of(&bucket.path, key).map_err(|e| Error::invalid(e.to_string()))?;
        if version.latest {
            let Some(before) = others.first() else {
                let spot = self.client.spot(path).await?;
                if spot.entry().is_none_or(|e| e.version != version.object.entry.version) {
                    return Err(Error::conflict("somebody else wrote to it meanwhile"));
                }
                return self.writer.remove(spot, true).await;
            };
            let options =
                PutOptions { on_conflict: OnConflict::Refuse, if_version: Some(version.object.entry.version), ..PutOptions::default() };
            self.client.copy_file(&before.object.entry, path, None, options).await?;
            if before.object.meta.deleted {
                self.hide(path, &spots).await.map_err(|e| Error::unavailable(e.to_string()))?;
            } else if spots.is_deleted(path) {
                let back = spots.free(&self.client).await?;
                self.client.rename(path, &back).await?;
            }
        }
        let Some(now) = find(&self.client, &spots, true).await?.object else { return Ok(()) };
        for number in version.revisions {
            match self.client.drop_version(&now.entry, number).await {
                Err(e) if e.kind == Kind::NotFound => {}
                dropped => dropped?,
            }
        }
        Ok(())
    }
}

/// `InvalidArgument` for what is no id of a version.
fn check_id(id: &str) -> S3Result<()> {
    let is_one = id == NULL || id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_one { Ok(()) } else { Err(error(S3ErrorCode::InvalidArgument, "Invalid version id specified")) }
}

/// Locks of keys: whoever changes the history of one holds its own, since that takes several commits. Keys share a
/// few; another gateway's changes are found out at commits.
pub(crate) struct Histories(Vec<Arc<Mutex<()>>>);

impl Default for Histories {
    fn default() -> Self {
        Histories((0..LOCKS).map(|_| Arc::default()).collect())
    }
}

impl Histories {
    /// The lock of a key, where its bucket keeps versions.
    pub async fn hold(&self, bucket: &Bucket, key: &str) -> Option<OwnedMutexGuard<()>> {
        if !bucket.has_versions() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (&bucket.name, key).hash(&mut hasher);
        let lock = self.0.get((hasher.finish() % LOCKS) as usize)?;
        Some(lock.clone().lock_owned().await)
    }
}

/// What is answered to whoever reads a mark of deletion by its id.
fn is_mark(mark: &Object) -> S3Error {
    let mut e = plain(S3ErrorCode::MethodNotAllowed);
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    headers.insert(ALLOW, HeaderValue::from_static("DELETE"));
    let mut time = Vec::new();
    if timestamp(mark.modified_ms()).format(TimestampFormat::HttpDate, &mut time).is_ok()
        && let Ok(time) = HeaderValue::from_bytes(&time)
    {
        headers.insert(LAST_MODIFIED, time);
    }
    if let Ok(id) = HeaderValue::from_str(id_of(&mark.meta)) {
        headers.insert("x-amz-version-id", id);
    }
    e.set_headers(headers);
    e
}

/// An empty file that is a mark.
fn marked(meta: &Meta) -> Source {
    let properties: Properties = meta.to_properties();
    Source::Described(Box::new(tokio::io::empty()), Box::new(move || Ok(properties)))
}
