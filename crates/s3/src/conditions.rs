//! Conditional requests, decided purely (RFC 9110 section 13.2.2, in S3's order).

use crate::errors::{error, plain, precondition};
use crate::meta::timestamp;
use hyper::HeaderMap;
use hyper::header::{ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED};
use s3s::dto::{ETag, ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// Conditions of a request.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// `If-Match`.
    pub matches: Option<ETagCondition>,
    /// `If-None-Match`.
    pub none_match: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub unmodified_since: Option<Timestamp>,
}

fn holds(condition: &ETagCondition, etag: &str) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(ETag::Strong(value) | ETag::Weak(value)) => value == etag,
    }
}

/// Whether a time (whole seconds, as headers have it) is before that of an object.
fn is_before(header: &Timestamp, modified_ms: u64) -> bool {
    let whole = timestamp(modified_ms / 1000 * 1000);
    *header < whole
}

impl Conditions {
    /// Those of a write by its headers, where the operation's own input does not have them.
    pub fn of_headers(headers: &HeaderMap) -> S3Result<Self> {
        let read = |name: hyper::header::HeaderName| {
            let Some(value) = headers.get(&name) else { return Ok(None) };
            let text = value.to_str().map(str::trim).ok().filter(|t| !t.is_empty());
            let text = text.ok_or_else(|| error(S3ErrorCode::InvalidArgument, format!("{name} is no ETag")))?;
            let etag = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
            Ok::<_, S3Error>(Some(if text == "*" { ETagCondition::Any } else { ETagCondition::ETag(ETag::Strong(etag.into())) }))
        };
        Ok(Conditions { matches: read(IF_MATCH)?, none_match: read(IF_NONE_MATCH)?, ..Conditions::default() })
    }

    /// For a read. `PreconditionFailed`, or `NotModified` with the object's ETag and time.
    pub fn check_read(&self, etag: &str, modified_ms: u64) -> S3Result<()> {
        match (&self.matches, &self.unmodified_since) {
            (Some(condition), _) if !holds(condition, etag) => return Err(precondition("If-Match")),
            (None, Some(since)) if is_before(since, modified_ms) => return Err(precondition("If-Unmodified-Since")),
            _ => {}
        }
        let same = match (&self.none_match, &self.modified_since) {
            (Some(condition), _) => holds(condition, etag),
            (None, Some(since)) => !is_before(since, modified_ms),
            _ => false,
        };
        if same { Err(not_modified(etag, modified_ms)) } else { Ok(()) }
    }

    /// For the source of a copy: everything that does not hold is `PreconditionFailed`.
    pub fn check_copy(&self, etag: &str, modified_ms: u64) -> S3Result<()> {
        self.check_read(etag, modified_ms).map_err(|e| match e.code() {
            S3ErrorCode::NotModified => precondition("x-amz-copy-source-if-none-match or -if-modified-since"),
            _ => e,
        })
    }

    /// For a write over what is there (its ETag), or over nothing. `NoSuchKey` where `If-Match` finds nothing.
    pub fn check_write(&self, there: Option<&str>) -> S3Result<()> {
        match (&self.matches, there) {
            (Some(_), None) => return Err(plain(S3ErrorCode::NoSuchKey)),
            (Some(condition), Some(etag)) if !holds(condition, etag) => return Err(precondition("If-Match")),
            _ => {}
        }
        match (&self.none_match, there) {
            (Some(condition), Some(etag)) if holds(condition, etag) => Err(precondition("If-None-Match")),
            _ => Ok(()),
        }
    }
}

fn not_modified(etag: &str, modified_ms: u64) -> S3Error {
    let mut e = S3Error::new(S3ErrorCode::NotModified);
    e.set_status_code(hyper::StatusCode::NOT_MODIFIED);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::try_from(format!("\"{etag}\"")) {
        headers.insert(ETAG, value);
    }
    let mut text = Vec::new();
    if timestamp(modified_ms).format(TimestampFormat::HttpDate, &mut text).is_ok()
        && let Ok(value) = HeaderValue::from_bytes(&text)
    {
        headers.insert(LAST_MODIFIED, value);
    }
    e.set_headers(headers);
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &str) -> Option<ETagCondition> {
        Some(ETagCondition::ETag(ETag::Strong(value.into())))
    }

    fn code(result: S3Result<()>) -> Option<S3ErrorCode> {
        result.err().map(|e| e.code().clone())
    }

    #[test]
    fn reads_follow_the_order_of_the_standard() {
        let at = 1_000_500;
        let read = |c: Conditions| code(c.check_read("a", at));
        assert_eq!(read(Conditions::default()), None);
        assert_eq!(read(Conditions { matches: tag("a"), ..Default::default() }), None);
        assert_eq!(read(Conditions { matches: tag("b"), ..Default::default() }), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(read(Conditions { none_match: tag("a"), ..Default::default() }), Some(S3ErrorCode::NotModified));
        assert_eq!(read(Conditions { none_match: Some(ETagCondition::Any), ..Default::default() }), Some(S3ErrorCode::NotModified));
        // Times count in whole seconds.
        assert_eq!(read(Conditions { modified_since: Some(timestamp(1_000_000)), ..Default::default() }), Some(S3ErrorCode::NotModified));
        assert_eq!(read(Conditions { modified_since: Some(timestamp(999_000)), ..Default::default() }), None);
        assert_eq!(read(Conditions { unmodified_since: Some(timestamp(1_000_000)), ..Default::default() }), None);
        let old = Some(timestamp(999_000));
        assert_eq!(read(Conditions { unmodified_since: old.clone(), ..Default::default() }), Some(S3ErrorCode::PreconditionFailed));
        // An ETag that matches outweighs a time that does not.
        assert_eq!(read(Conditions { matches: tag("a"), unmodified_since: old, ..Default::default() }), None);
        let new = Some(timestamp(2_000_000));
        assert_eq!(read(Conditions { none_match: tag("b"), modified_since: new, ..Default::default() }), None);
    }

    #[test]
    fn writes_and_copies() {
        let none = || Conditions { none_match: Some(ETagCondition::Any), ..Default::default() };
        assert_eq!(code(none().check_write(None)), None);
        assert_eq!(code(none().check_write(Some("a"))), Some(S3ErrorCode::PreconditionFailed));
        let same = || Conditions { matches: tag("a"), ..Default::default() };
        assert_eq!(code(same().check_write(Some("a"))), None);
        assert_eq!(code(same().check_write(Some("b"))), Some(S3ErrorCode::PreconditionFailed));
        assert_eq!(code(same().check_write(None)), Some(S3ErrorCode::NoSuchKey));
        assert_eq!(
            code(Conditions { none_match: tag("a"), ..Default::default() }.check_copy("a", 1)),
            Some(S3ErrorCode::PreconditionFailed)
        );
    }
}
