//! Single objects: put, get, head, delete.

use crate::Gateway;
use crate::body::{Claims, Digest, End, Incoming};
use crate::buckets::{Bucket, Versioning};
use crate::conditions::Conditions;
use crate::errors::{error, from_client, plain};
use crate::meta::Meta;
use crate::tree::{Object, Spots, find, room};
use client::{Answered, Ask, OnConflict, PutOptions, Source, Spot};
use futures::future::BoxFuture;
use model::Kind;
use s3s::dto::{Range, StreamingBlob};
use s3s::{S3ErrorCode, S3Result};
use std::ops;
use std::sync::{Arc, Mutex, PoisonError};

/// How often a write is tried while others write to the same name.
const TRIES: usize = 16;
/// Most bytes of one put (S3's own limit).
pub const PUT_MAX: u64 = 5 << 30;

/// What came of a put.
pub struct Stored {
    /// As it is kept.
    pub meta: Meta,
    /// What the body came to.
    pub digest: Digest,
}

/// What came of a delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    /// A mark of deletion was made, or removed.
    pub mark: bool,
    /// The version that was made, or removed.
    pub version: Option<String>,
}

impl Gateway {
    /// The object of a key; of one version of it where that is asked for. `NoSuchKey`, `NoSuchVersion`.
    pub(crate) async fn object(&self, bucket: &Bucket, key: &str, version: Option<&str>) -> S3Result<Object> {
        if let Some(version) = version {
            return self.object_version(bucket, key, version).await;
        }
        let spots = Spots::of(&bucket.path, key)?;
        let found = find(&self.client, &spots, bucket.has_versions()).await.map_err(from_client)?;
        match found.object {
            Some(object) if object.meta.deleted => Err(deleted(&object)),
            Some(object) => Ok(object),
            None => {
                self.check_bucket(bucket).await?;
                Err(plain(S3ErrorCode::NoSuchKey))
            }
        }
    }

    /// `NoSuchBucket` where an object was not found because its bucket has gone.
    pub(crate) async fn check_bucket(&self, bucket: &Bucket) -> S3Result<()> {
        match self.client.stat(&bucket.path).await {
            Ok(_) => Ok(()),
            Err(e) => {
                self.buckets.forget(&bucket.name);
                Err(crate::errors::of_bucket(e))
            }
        }
    }

    /// What is kept of an object that is stored now in a bucket.
    pub(crate) fn new_meta(&self, bucket: &Bucket) -> Meta {
        let id = (bucket.config.versioning == Versioning::Enabled).then(|| self.new_id());
        Meta { id, ..Meta::new(self.client.env().now_ms()) }
    }

    /// A name that nothing else has.
    pub(crate) fn new_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.client.env().random::<16>())
    }

    /// Stores a body as the object of a key.
    pub(crate) async fn put(
        self: &Arc<Self>,
        bucket: &Bucket,
        key: &str,
        meta: Meta,
        conditions: &Conditions,
        blob: Option<StreamingBlob>,
        claims: Claims,
    ) -> S3Result<Stored> {
        if claims.length.is_some_and(|length| length > PUT_MAX) {
            return Err(plain(S3ErrorCode::EntityTooLarge));
        }
        let (source, receiving) = receive(meta, blob, claims, false);
        receiving.end(self.store(bucket, key, conditions, source).await)
    }

    /// Stores something as the object of a key, in the place of what is there, if the conditions hold: of what is
    /// there at the end, when all of it has been read.
    pub(crate) async fn store(self: &Arc<Self>, bucket: &Bucket, key: &str, conditions: &Conditions, source: Source) -> S3Result<()> {
        let spot = self.over(bucket, key, conditions).await?;
        let refused = Arc::new(Mutex::new(None));
        let place = {
            let (gateway, bucket, key, conditions) = (self.clone(), bucket.clone(), key.to_string(), conditions.clone());
            let refused = refused.clone();
            move || -> BoxFuture<'static, model::Result<Answered>> {
                let (gateway, bucket, key, conditions) = (gateway.clone(), bucket.clone(), key.clone(), conditions.clone());
                let refused = refused.clone();
                Box::pin(async move {
                    let hold = gateway.histories.hold(&bucket, &key).await;
                    match gateway.over(&bucket, &key, &conditions).await {
                        Ok(spot) => Ok(Answered { spot, hold: hold.map(|hold| Box::new(hold) as Box<dyn Send>) }),
                        Err(e) => {
                            let told = model::Error::invalid(e.code().as_str().to_string());
                            *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                            Err(told)
                        }
                    }
                })
            }
        };
        let options = PutOptions { on_conflict: OnConflict::Refuse, allow_degraded: self.allow_degraded, ..PutOptions::default() };
        let ask = Ask { always: bucket.has_versions(), place: Box::new(place) };
        let done = self.writer.put_where(spot, source, options, Some(ask)).await;
        if let Some(e) = refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(e);
        }
        self.written(bucket, done.map(|_| ())).await
    }

    /// Where a key's object is to be written, if the conditions hold of what is there now.
    pub(crate) async fn over(&self, bucket: &Bucket, key: &str, conditions: &Conditions) -> S3Result<Spot> {
        let spots = Spots::of(&bucket.path, key)?;
        let spot = self.writable(bucket, &spots).await?;
        let there = spot.entry().cloned().map(Object::new).filter(|o| !o.meta.deleted);
        conditions.check_write(there.as_ref().map(Object::etag).as_deref())?;
        Ok(spot)
    }

    /// What came of a write, as S3 says it.
    pub(crate) async fn written(&self, bucket: &Bucket, done: model::Result<()>) -> S3Result<()> {
        match done {
            Err(e) if matches!(e.kind, Kind::Conflict | Kind::Exists) => Err(conflict()),
            Err(e) if e.kind == Kind::NotFound => {
                self.check_bucket(bucket).await?;
                Err(from_client(e))
            }
            done => done.map_err(from_client),
        }
    }

    /// The place at which a key's object is to be written: with its folders made, and the mark of a deleted one
    /// brought back to its name.
    pub(crate) async fn writable(&self, bucket: &Bucket, spots: &Spots) -> S3Result<Spot> {
        let found = find(&self.client, spots, bucket.has_versions()).await.map_err(from_client)?;
        let mut path = found.path;
        match found.spot {
            Some(spot) if !(spot.entry().is_some() && spots.is_deleted(&path)) => return Ok(spot),
            Some(_) => {
                let back = spots.free(&self.client).await.map_err(from_client)?;
                match self.client.rename(&path, &back).await {
                    Err(e) if !matches!(e.kind, Kind::Exists | Kind::NotFound | Kind::Conflict) => return Err(from_client(e)),
                    // Or somebody else was faster with the same.
                    _ => path = back,
                }
            }
            None => {}
        }
        match room(&self.client, spots, &path).await {
            Err(e) if matches!(e.kind, Kind::NotFound | Kind::Invalid) => {
                self.check_bucket(bucket).await?;
                Err(from_client(e))
            }
            spot => spot.map_err(from_client),
        }
    }

    /// Deletes the object of a key: to the trash, or under a mark where the bucket keeps versions. What is not
    /// there is deleted already.
    pub(crate) async fn delete(&self, bucket: &Bucket, key: &str, version: Option<&str>, conditions: &Conditions) -> S3Result<Deleted> {
        if let Some(version) = version {
            return self.delete_version(bucket, key, version).await;
        }
        if bucket.has_versions() {
            return self.mark_deleted(bucket, key, conditions).await;
        }
        let spots = Spots::of(&bucket.path, key)?;
        for _ in 0..TRIES {
            let found = find(&self.client, &spots, false).await.map_err(from_client)?;
            let (there, spot) = (found.object.filter(|o| !o.meta.deleted), found.spot);
            if conditions.matches.is_some() {
                conditions.check_write(there.as_ref().map(Object::etag).as_deref())?;
            }
            let Some(spot) = spot.filter(|_| there.is_some()) else {
                self.check_bucket(bucket).await?;
                return Ok(Deleted::default());
            };
            match self.writer.remove(spot, false).await {
                Err(e) if e.kind == Kind::Conflict => {}
                Err(e) if e.kind == Kind::NotFound => return Ok(Deleted::default()),
                done => {
                    done.map_err(from_client)?;
                    return Ok(Deleted::default());
                }
            }
        }
        Err(conflict())
    }
}

/// A body that is being stored.
pub(crate) struct Receiving {
    end: End,
    kept: Arc<Mutex<Option<Stored>>>,
}

/// A body as what is to be stored: with `meta`, to which its digests come at its end. Of a part more of them are kept.
pub(crate) fn receive(meta: Meta, blob: Option<StreamingBlob>, claims: Claims, is_part: bool) -> (Source, Receiving) {
    let (body, end) = Incoming::new(blob, claims);
    let kept = Arc::new(Mutex::new(None));
    let receiving = Receiving { end: end.clone(), kept: kept.clone() };
    let describe = move || {
        let mut stored = describe(meta, &end)?;
        if is_part {
            let other = stored.digest.crc64.clone().filter(|_| stored.digest.sum != stored.digest.crc64);
            stored.meta.crc64 = other.map(|sum| sum.value);
        }
        let properties = stored.meta.to_properties();
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored);
        Ok(properties)
    };
    (Source::Described(Box::new(body), Box::new(describe)), receiving)
}

impl Receiving {
    /// What came of it, when storing it has ended so. That a body was not what was announced counts first.
    pub fn end(self, done: S3Result<()>) -> S3Result<Stored> {
        if let Some(Err(wrong)) = self.end.take() {
            return Err(wrong);
        }
        done?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.ok_or_else(|| error(S3ErrorCode::InternalError, "an upload ended without a digest"))
    }
}

/// What is kept of a body that was read to its end.
fn describe(mut meta: Meta, end: &End) -> model::Result<Stored> {
    let digest = match end.take() {
        Some(Ok(digest)) => digest,
        other => {
            let why = match &other {
                Some(Err(e)) => e.to_string(),
                _ => "its end is missing".into(),
            };
            if let Some(wrong) = other {
                end.put_back(wrong);
            }
            return Err(model::Error::invalid(format!("the body of a request is not what was announced: {why}")));
        }
    };
    meta.md5 = Some(digest.md5.into());
    meta.checksum = digest.sum.clone();
    Ok(Stored { meta, digest })
}

/// The answer to whoever asks for an object that was deleted.
fn deleted(mark: &Object) -> s3s::S3Error {
    let mut e = error(S3ErrorCode::NoSuchKey, "The specified key does not exist.");
    let mut headers = hyper::HeaderMap::new();
    headers.insert("x-amz-delete-marker", hyper::header::HeaderValue::from_static("true"));
    if let Ok(id) = hyper::header::HeaderValue::try_from(crate::versions::id_of(&mark.meta)) {
        headers.insert("x-amz-version-id", id);
    }
    e.set_headers(headers);
    e
}

fn conflict() -> s3s::S3Error {
    let text = "A conflicting conditional operation is currently in progress against this resource. Please try again.";
    let mut e = error(S3ErrorCode::ConditionalRequestConflict, text);
    e.set_status_code(hyper::StatusCode::CONFLICT);
    e
}

/// The bytes that a range header names; `InvalidRange` with the size where it names none.
pub fn range_of(range: &Range, size: u64) -> S3Result<ops::Range<u64>> {
    range.check(size).map_err(|_| {
        let mut e = error(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
        let mut headers = hyper::HeaderMap::new();
        if let Ok(value) = hyper::header::HeaderValue::try_from(format!("bytes */{size}")) {
            headers.insert(hyper::header::CONTENT_RANGE, value);
        }
        e.set_headers(headers);
        e
    })
}
