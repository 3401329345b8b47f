//! Tags: read from headers and documents, and checked.

use crate::Gateway;
use crate::buckets::Bucket;
use crate::errors::{error, from_client, plain, refusal};
use crate::keys::unpercent;
use crate::meta::Meta;
use crate::tree::Object;
use model::Kind;
use s3s::dto::Tag;
use s3s::{S3Error, S3ErrorCode, S3Result};
use std::collections::BTreeSet;

/// Most tags of an object.
pub const OBJECT_TAGS: usize = 10;
/// Most tags of a bucket.
pub const BUCKET_TAGS: usize = 50;
/// How often a change of tags is tried while others change the object.
const TRIES: usize = 16;

fn invalid(why: &str) -> S3Error {
    error(S3ErrorCode::InvalidTag, why)
}

/// Whether a character may be in a tag.
fn is_allowed(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "+-=._:/@".contains(c)
}

/// Checks tags: how many, how long, none twice.
pub fn check(tags: Vec<Tag>, most: usize) -> S3Result<Vec<(String, String)>> {
    if tags.len() > most {
        let text = if most == OBJECT_TAGS { "Object tags cannot be greater than 10" } else { "Bucket tag count cannot be greater than 50" };
        return Err(refusal("BadRequest", hyper::StatusCode::BAD_REQUEST, text));
    }
    let mut keys = BTreeSet::new();
    let mut out = Vec::with_capacity(tags.len());
    for tag in tags {
        let (key, value) = (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(is_allowed) {
            return Err(invalid("The TagKey you have provided is invalid"));
        }
        if key.starts_with("aws:") {
            return Err(invalid("System tags cannot be added/updated by requester"));
        }
        if value.chars().count() > 256 || !value.chars().all(is_allowed) {
            return Err(invalid("The TagValue you have provided is invalid"));
        }
        if !keys.insert(key.clone()) {
            return Err(invalid("Cannot provide multiple Tags with the same key"));
        }
        out.push((key, value));
    }
    Ok(out)
}

/// Tags of the header `x-amz-tagging`: `key=value&…`, percent-encoded.
pub fn of_header(header: Option<&str>) -> S3Result<Vec<(String, String)>> {
    let Some(header) = header.filter(|h| !h.is_empty()) else { return Ok(Vec::new()) };
    let wrong = || {
        error(
            S3ErrorCode::InvalidArgument,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.",
        )
    };
    let decode = |text: &str| unpercent(&text.replace('+', " ")).ok_or_else(wrong);
    let mut tags = Vec::new();
    let mut keys = BTreeSet::new();
    for pair in header.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key)?;
        if key.is_empty() || !keys.insert(key.clone()) {
            return Err(wrong());
        }
        tags.push(Tag { key: Some(key), value: Some(decode(value)?) });
    }
    check(tags, OBJECT_TAGS)
}

impl Gateway {
    /// Gives an object other tags, without making a version.
    pub(crate) async fn set_tags(
        &self,
        bucket: &Bucket,
        key: &str,
        version: Option<&str>,
        tags: Vec<(String, String)>,
    ) -> S3Result<Object> {
        for _ in 0..TRIES {
            let object = self.object(bucket, key, None).await?;
            if version.is_some_and(|v| v != crate::versions::id_of(&object.meta)) {
                // Older versions stay as they were written.
                self.object_version(bucket, key, version.unwrap_or_default()).await?;
                return Err(crate::errors::not_here("changing the tags of a version that is not the current one"));
            }
            let meta = Meta { tags: tags.clone(), modified_ms: Some(object.modified_ms()), ..object.meta.clone() };
            match self.client.set_properties(&object.entry, meta.to_properties()).await {
                Err(e) if e.kind == Kind::Conflict => {}
                done => return done.map(|()| Object { meta, ..object }).map_err(from_client),
            }
        }
        Err(plain(S3ErrorCode::OperationAborted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_headers_are_decoded_and_checked() {
        assert_eq!(
            of_header(Some("a=b&c=%C3%A4+x&d")).unwrap(),
            [("a".into(), "b".into()), ("c".into(), "ä x".into()), ("d".into(), "".into())]
        );
        assert_eq!(of_header(None).unwrap(), []);
        for bad in ["a=1&a=2", "=1", "a=%zz", "a=%ff", "aws:x=1", "a=%3C", "%26=1"] {
            assert!(of_header(Some(bad)).is_err(), "{bad}");
        }
        let eleven: Vec<String> = (0..11).map(|i| format!("k{i}=v")).collect();
        assert_eq!(*of_header(Some(&eleven.join("&"))).unwrap_err().code(), S3ErrorCode::Custom("BadRequest".into()));
        assert!(of_header(Some(&format!("{}=v", "k".repeat(129)))).is_err());
    }
}
