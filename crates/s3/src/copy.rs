//! Copies at the gateway: within a space only the entry is written, the content is shared.

use crate::Gateway;
use crate::buckets::Bucket;
use crate::conditions::Conditions;
use crate::errors::{error, not_here};
use crate::meta::Meta;
use crate::tree::Object;
use client::{OnConflict, PutOptions};
use model::Kind;
use s3s::dto::CopySource;
use s3s::{S3ErrorCode, S3Result};

/// How often a copy is tried while others write to the same key.
const TRIES: usize = 16;

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
    /// Copies an object that was looked up, over what is there, if the conditions hold. `meta` is what is kept with
    /// the copy.
    pub(crate) async fn copy(&self, from: &Object, bucket: &Bucket, key: &str, meta: &Meta, conditions: &Conditions) -> S3Result<()> {
        let _hold = self.histories.hold(bucket, key).await;
        let mut last = Ok(());
        for _ in 0..TRIES {
            let spot = self.over(bucket, key, conditions).await?;
            let options = PutOptions {
                on_conflict: OnConflict::Refuse,
                if_version: spot.entry().map(|e| e.version),
                if_absent: spot.entry().is_none(),
                allow_degraded: self.allow_degraded,
                ..PutOptions::default()
            };
            last = self.client.copy_file(&from.entry, spot.path(), Some(meta.to_properties()), options).await;
            // Somebody else was first there: the place is looked up once more, and the conditions with it.
            if !last.as_ref().is_err_and(|e| matches!(e.kind, Kind::Conflict | Kind::Exists | Kind::NotFound)) {
                break;
            }
        }
        self.written(bucket, last).await
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
