//! Versions of objects in buckets that keep them.
//!
//! An entry's revisions are its versions. A delete makes a revision that says so, and hides it under a name of its
//! own, so that everybody else sees the file gone while its history stays with the entry. Revisions that differ in
//! tags only, or that a rename made, have the same version id and count as one. How long older versions are kept is
//! the space's retention (30 days unless set), not S3's for ever.

use crate::Gateway;
use crate::buckets::{Bucket, Versioning};
use crate::errors::{from_client, plain};
use crate::meta::Meta;
use crate::objects::Deleted;
use crate::tree::{Object, Spots, find};
use client::{Entry, OnConflict, Properties, PutOptions, RemotePath, Source, VersionNumber};
use model::Kind;
use s3s::{S3ErrorCode, S3Result};

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
        let object = self.any_version(bucket, key, id).await?.0.object;
        if object.meta.deleted {
            let mut e = plain(S3ErrorCode::MethodNotAllowed);
            let mut headers = hyper::HeaderMap::new();
            headers.insert("x-amz-delete-marker", hyper::header::HeaderValue::from_static("true"));
            e.set_headers(headers);
            return Err(e);
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

    /// Puts a mark of deletion in the place of an object (or of nothing); `strict`: of this revision of it only.
    pub(crate) async fn mark_deleted(
        &self,
        bucket: &Bucket,
        key: &str,
        spots: &Spots,
        there: Option<Object>,
        strict: bool,
    ) -> S3Result<Deleted> {
        let expected = there.as_ref().map(|o| o.entry.version).filter(|_| strict);
        let id = (bucket.config.versioning == Versioning::Enabled).then(|| self.new_id());
        let meta = Meta { id, deleted: true, ..Meta::new(self.client.now_ms()) };
        let version = Some(id_of(&meta).to_string());
        let path = match there {
            Some(object) => object.entry.path,
            None => {
                // Its folders may be missing: they are made as for any object.
                self.store(bucket, key, &Default::default(), marked(&meta)).await?;
                spots.free(&self.client).await.map_err(from_client)?
            }
        };
        let spot = self.client.spot(&path).await.map_err(from_client)?;
        if spot.entry().is_some_and(|e| Meta::of(e).id != meta.id || meta.id.is_none()) {
            let on_conflict = if strict { OnConflict::Refuse } else { OnConflict::Overwrite };
            let options = PutOptions { on_conflict, if_version: expected, ..PutOptions::default() };
            self.writer.put(spot, marked(&meta), options).await.map_err(from_client)?;
        }
        self.hide(&path, spots).await?;
        Ok(Deleted { mark: true, version })
    }

    /// Moves a mark of deletion out of sight. Where that fails it is a mark all the same.
    async fn hide(&self, path: &RemotePath, spots: &Spots) -> S3Result<()> {
        if spots.is_deleted(path) {
            return Ok(());
        }
        match self.client.rename(path, spots.mark()).await {
            Err(e) if !matches!(e.kind, Kind::Exists | Kind::NotFound | Kind::Conflict) => Err(from_client(e)),
            _ => Ok(()),
        }
    }

    /// Destroys one version for good. Where that was the current one, the one before it is the current one.
    pub(crate) async fn delete_version(&self, bucket: &Bucket, key: &str, id: &str) -> S3Result<Deleted> {
        let gone = Deleted { mark: false, version: Some(id.into()) };
        let (version, others, path) = match self.any_version(bucket, key, id).await {
            Err(e) if *e.code() == S3ErrorCode::NoSuchVersion => return Ok(gone),
            other => other?,
        };
        let done = Deleted { mark: version.object.meta.deleted, ..gone };
        let spots = Spots::of(&bucket.path, key)?;
        if version.latest {
            let Some(before) = others.first() else {
                let spot = self.client.spot(&path).await.map_err(from_client)?;
                return self.writer.remove(spot, true).await.map(|()| done).map_err(from_client);
            };
            let options =
                PutOptions { on_conflict: OnConflict::Refuse, if_version: Some(version.object.entry.version), ..PutOptions::default() };
            self.client.copy_file(&before.object.entry, &path, None, options).await.map_err(from_client)?;
            if before.object.meta.deleted {
                self.hide(&path, &spots).await?;
            } else if spots.is_deleted(&path) {
                let back = spots.free(&self.client).await.map_err(from_client)?;
                self.client.rename(&path, &back).await.map_err(from_client)?;
            }
        }
        let found = find(&self.client, &spots, true).await.map_err(from_client)?;
        let Some(now) = found.object else { return Ok(done) };
        for number in version.revisions {
            match self.client.drop_version(&now.entry, number).await {
                Err(e) if e.kind == Kind::NotFound => {}
                other => other.map_err(from_client)?,
            }
        }
        Ok(done)
    }
}

/// An empty file that is a mark.
fn marked(meta: &Meta) -> Source {
    let properties: Properties = meta.to_properties();
    Source::Described(Box::new(tokio::io::empty()), Box::new(move || Ok(properties)))
}
