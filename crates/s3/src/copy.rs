//! Copies at the gateway: within a space only the entry is written, the content is shared.

use crate::Gateway;
use crate::buckets::Bucket;
use crate::errors::{error, from_client, not_here};
use crate::meta::Meta;
use crate::tree::{Object, Spots};
use client::{OnConflict, PutOptions};
use s3s::dto::CopySource;
use s3s::{S3ErrorCode, S3Result};

/// Where a copy comes from.
pub struct From<'a> {
    /// Bucket.
    pub bucket: &'a str,
    /// Key.
    pub key: &'a str,
    /// Version.
    pub version: Option<&'a str>,
}

/// Reads the header `x-amz-copy-source`.
pub fn source(header: &CopySource) -> S3Result<From<'_>> {
    match header {
        CopySource::Bucket { bucket, key, version_id } => Ok(From { bucket, key, version: version_id.as_deref() }),
        _ => Err(not_here("a copy from an access point")),
    }
}

impl Gateway {
    /// Copies an object that was looked up, over what is there. `meta` is what is kept with the copy.
    pub(crate) async fn copy(&self, from: &Object, bucket: &Bucket, key: &str, meta: &Meta) -> S3Result<()> {
        let spot = self.writable(bucket, &Spots::of(&bucket.path, key)?).await?;
        let options = PutOptions { on_conflict: OnConflict::Overwrite, allow_degraded: self.allow_degraded, ..PutOptions::default() };
        self.client.copy_file(&from.entry, spot.path(), Some(meta.to_properties()), options).await.map_err(from_client)
    }
}

/// Refuses a copy of an object to itself that changes nothing.
pub fn check_self(from: &From<'_>, bucket: &str, key: &str, changes: bool) -> S3Result<()> {
    if (from.bucket, from.key) == (bucket, key) && from.version.is_none() && !changes {
        let text = "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(error(S3ErrorCode::InvalidRequest, text));
    }
    Ok(())
}
