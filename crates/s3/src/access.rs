//! Who may do what: access keys out of the account's sealed notes, and what each allows.

use crate::errors::{error, from_client, plain};
use crate::refused;
use client::{Client, GatewayKey};
use hyper::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::{S3ErrorCode, S3Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// For how long keys read from the account count, milliseconds: a revoked one works no longer than that.
const FRESH_MS: u64 = 10_000;
/// A key that is not known is asked for no more often than that, milliseconds.
const ASK_MS: u64 = 1_000;

/// The keys of the account, as last read.
#[derive(Clone)]
pub struct AccessKeys {
    client: Client,
    owner: String,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    read_ms: Option<u64>,
    keys: Vec<Arc<GatewayKey>>,
}

impl AccessKeys {
    /// Of an account, by its name.
    pub fn new(client: &Client, owner: &str) -> Self {
        AccessKeys { client: client.clone(), owner: owner.into(), known: Arc::default() }
    }

    /// A key. `InvalidAccessKeyId` when there is none.
    async fn get(&self, id: &str) -> S3Result<Arc<GatewayKey>> {
        let mut known = self.known.lock().await;
        let now = self.client.env().now_ms();
        let found = known.keys.iter().find(|k| k.id == id).cloned();
        let good_for = if found.is_some() { FRESH_MS } else { ASK_MS };
        if known.read_ms.is_none_or(|read| now.saturating_sub(read) >= good_for) {
            // While no coordinator answers nothing can be read or written either.
            let keys = self.client.gateway_keys().await.map_err(from_client)?;
            known.keys = keys.into_iter().map(Arc::new).collect();
            known.read_ms = Some(now);
        } else if let Some(found) = found {
            return Ok(found);
        }
        known.keys.iter().find(|k| k.id == id).cloned().ok_or_else(|| plain(S3ErrorCode::InvalidAccessKeyId))
    }

    /// `AccessDenied` when a key does not allow this.
    pub async fn check(&self, credentials: Option<&Credentials>, bucket: Option<&str>, writes: bool) -> S3Result<()> {
        let denied = |why: &str| error(S3ErrorCode::AccessDenied, why.to_string());
        let credentials = credentials.ok_or_else(|| denied("Access Denied: requests must be signed"))?;
        let key = self.get(&credentials.access_key).await?;
        if writes && key.read_only {
            return Err(denied("Access Denied: this access key may only read"));
        }
        match (&key.buckets, bucket) {
            (Some(buckets), Some(bucket)) if !buckets.iter().any(|b| b == bucket) => {
                Err(denied("Access Denied: this access key is for other buckets"))
            }
            _ => Ok(()),
        }
    }

    /// `AccessDenied` when a request expects a bucket to be another account's.
    pub fn check_owner(&self, headers: &HeaderMap) -> S3Result<()> {
        let expected = ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"];
        if expected.iter().filter_map(|name| headers.get(*name)).any(|owner| owner.as_bytes() != self.owner.as_bytes()) {
            return Err(error(S3ErrorCode::AccessDenied, "Access Denied: the bucket is not owned by the account that was expected"));
        }
        Ok(())
    }

    /// Whether a key may see a bucket.
    pub async fn sees(&self, credentials: Option<&Credentials>, bucket: &str) -> bool {
        self.check(credentials, Some(bucket), false).await.is_ok()
    }
}

#[async_trait::async_trait]
impl S3Auth for AccessKeys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.get(access_key).await?.secret()))
    }
}

/// In a request's extensions: tells that its signature, and the right to what it asks for, were found good.
#[derive(Clone, Default)]
pub struct Passed(Arc<AtomicBool>);

impl Passed {
    /// Whether they were.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// In a request's extensions: they were found good already, of the same request with its signature.
#[derive(Clone)]
pub struct Proven;

#[async_trait::async_trait]
impl S3Access for AccessKeys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.extensions_mut().get::<Proven>().is_some() {
            return Ok(());
        }
        self.check_owner(cx.headers())?;
        let bucket = cx.s3_path().get_bucket_name().map(str::to_string);
        let writes = !reads_only(cx.s3_op().name());
        AccessKeys::check(self, cx.credentials(), bucket.as_deref(), writes).await?;
        refused::check(cx.s3_op().name(), cx.headers())?;
        if let Some(Passed(passed)) = cx.extensions_mut().get() {
            passed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Whether an operation changes nothing, by its name.
fn reads_only(operation: &str) -> bool {
    ["Get", "Head", "List", "Select"].iter().any(|prefix| operation.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::reads_only;

    #[test]
    fn operations_that_change_something_are_told_by_their_names() {
        for name in ["GetObject", "HeadBucket", "ListObjectsV2", "GetObjectTagging", "ListParts"] {
            assert!(reads_only(name), "{name}");
        }
        for name in ["PutObject", "DeleteObjects", "CreateBucket", "UploadPartCopy", "CompleteMultipartUpload", "PostObject", "CopyObject"]
        {
            assert!(!reads_only(name), "{name}");
        }
    }
}
