//! What writes ask for beside the content: what is kept of it, and what is refused.

use crate::errors::{error, not_here, plain, refusal};
use crate::meta::{Headers, Meta};
use crate::refused::no_acls;
use crate::tagging;
use s3s::dto::{Metadata, Timestamp};
use s3s::{S3ErrorCode, S3Result};

/// Most bytes of user metadata (S3's own limit).
const METADATA_MAX: usize = 2 << 10;
/// Classes that are accepted: all are stored alike, and shown as asked for.
const CLASSES: [&str; 7] =
    ["STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "EXPRESS_ONEZONE"];

/// What a write asks for.
#[derive(Default)]
pub struct Asked {
    pub acl: Option<String>,
    pub grants: bool,
    pub customer_key: bool,
    pub encryption: Option<String>,
    pub lock: bool,
    pub storage_class: Option<String>,
    pub redirect: Option<String>,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub disposition: Option<String>,
    pub encoding: Option<String>,
    pub language: Option<String>,
    pub expires: Option<Timestamp>,
    pub metadata: Option<Metadata>,
    pub tagging: Option<String>,
}

/// Reads what a request asks for; their inputs have the same fields, and no common type.
#[macro_export]
macro_rules! asked {
    ($input:expr) => {
        $crate::asked::Asked {
            acl: $input.acl.as_ref().map(|a| a.as_str().to_string()),
            grants: $input.grant_full_control.is_some()
                || $input.grant_read.is_some()
                || $input.grant_read_acp.is_some()
                || $input.grant_write_acp.is_some(),
            customer_key: $input.sse_customer_algorithm.is_some()
                || $input.sse_customer_key.is_some()
                || $input.sse_customer_key_md5.is_some(),
            encryption: $input.server_side_encryption.as_ref().map(|e| e.as_str().to_string()),
            lock: $input.object_lock_mode.is_some()
                || $input.object_lock_retain_until_date.is_some()
                || $input.object_lock_legal_hold_status.is_some(),
            storage_class: $input.storage_class.as_ref().map(|c| c.as_str().to_string()),
            redirect: $input.website_redirect_location.clone(),
            content_type: $input.content_type.clone(),
            cache_control: $input.cache_control.clone(),
            disposition: $input.content_disposition.clone(),
            encoding: $input.content_encoding.clone(),
            language: $input.content_language.clone(),
            expires: $input.expires.clone(),
            metadata: $input.metadata.clone(),
            tagging: $input.tagging.clone(),
        }
    };
}

/// `AccessControlListNotSupported` for an ACL that says more than that the owner owns it.
pub fn check_acl(acl: Option<&str>, grants: bool) -> S3Result<()> {
    match acl {
        None | Some("private" | "bucket-owner-full-control" | "bucket-owner-read") if !grants => Ok(()),
        _ => Err(no_acls()),
    }
}

impl Asked {
    /// Refuses what there is not.
    pub fn check(&self) -> S3Result<()> {
        check_acl(self.acl.as_deref(), self.grants)?;
        if self.customer_key {
            return Err(not_here("encryption with keys of the request (SSE-C); everything is encrypted before it leaves this machine"));
        }
        match self.encryption.as_deref() {
            None | Some("AES256") => {}
            Some(_) => {
                return Err(not_here("encryption with a key service (SSE-KMS); everything is encrypted before it leaves this machine"));
            }
        }
        if self.lock {
            return Err(error(S3ErrorCode::InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
        let leads_away = |to: &String| !["/", "http://", "https://"].iter().any(|begin| to.starts_with(begin));
        if self.redirect.as_ref().is_some_and(leads_away) {
            let text = "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.";
            return Err(refusal("InvalidRedirectLocation", hyper::StatusCode::BAD_REQUEST, text));
        }
        if self.storage_class.as_deref().is_some_and(|class| !CLASSES.contains(&class)) {
            return Err(plain(S3ErrorCode::InvalidStorageClass));
        }
        let bytes: usize = self.metadata.iter().flatten().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > METADATA_MAX {
            return Err(plain(S3ErrorCode::MetadataTooLarge));
        }
        Ok(())
    }

    /// What of it is kept with the object, over what `meta` has.
    pub fn keep(self, mut meta: Meta) -> S3Result<Meta> {
        self.check()?;
        meta.tags = tagging::of_header(self.tagging.as_deref())?;
        Ok(self.keep_headers(meta))
    }

    /// The same without tags.
    pub fn keep_headers(self, mut meta: Meta) -> Meta {
        meta.headers = Headers {
            content_type: self.content_type.filter(|t| !t.is_empty()),
            cache_control: self.cache_control,
            disposition: self.disposition,
            // What only says how the request was framed is none of the object's.
            encoding: self.encoding.map(|e| without_chunked(&e)).filter(|e| !e.is_empty()),
            language: self.language,
            expires: self.expires.map(|t| time::OffsetDateTime::from(t).unix_timestamp()),
            storage_class: self.storage_class.filter(|class| class != "STANDARD"),
            redirect: self.redirect,
        };
        meta.set_user_metadata(self.metadata);
        meta
    }
}

fn without_chunked(encoding: &str) -> String {
    encoding.split(',').map(str::trim).filter(|e| !e.is_empty() && !e.eq_ignore_ascii_case("aws-chunked")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_has_its_own_error() {
        let code = |asked: Asked| asked.check().err().map(|e| e.code().clone());
        assert_eq!(code(Asked::default()), None);
        assert_eq!(code(Asked { acl: Some("private".into()), ..Default::default() }), None);
        assert_eq!(code(Asked { acl: Some("public-read".into()), ..Default::default() }), Some(S3ErrorCode::AccessControlListNotSupported));
        assert_eq!(code(Asked { customer_key: true, ..Default::default() }), Some(S3ErrorCode::NotImplemented));
        assert_eq!(code(Asked { encryption: Some("aws:kms".into()), ..Default::default() }), Some(S3ErrorCode::NotImplemented));
        assert_eq!(code(Asked { storage_class: Some("X".into()), ..Default::default() }), Some(S3ErrorCode::InvalidStorageClass));
        let metadata = Some(Metadata::from_iter([("k".to_string(), "v".repeat(2048))]));
        assert_eq!(code(Asked { metadata, ..Default::default() }), Some(S3ErrorCode::MetadataTooLarge));
        assert_eq!(without_chunked("aws-chunked, gzip"), "gzip");
    }
}
