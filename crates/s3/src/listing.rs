//! Listings: a prefix, groups up to a delimiter, and pages of both.

use crate::Gateway;
use crate::buckets::Bucket;
use crate::cursor::Cursor;
use crate::errors::{error, of_bucket};
use crate::views::Brief;
use data_encoding::BASE64URL_NOPAD;
use s3s::dto::EncodingType;
use s3s::{S3ErrorCode, S3Result};
use std::fmt::Write;
use std::sync::Arc;

/// Most keys of a page.
pub const PAGE_MAX: i32 = 1_000;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Keys that begin so.
    pub prefix: String,
    /// Keys are grouped up to its first occurrence after the prefix. Never empty.
    pub delimiter: Option<String>,
    /// Nothing up to this key, or group.
    pub after: Option<String>,
    /// Most keys and groups.
    pub max: usize,
    /// Marks of deletion, too.
    pub marks: bool,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects by key.
    pub objects: Vec<(String, Arc<Brief>)>,
    /// Groups.
    pub groups: Vec<String>,
    /// There is more.
    pub truncated: bool,
    /// The last key or group.
    pub last: Option<String>,
}

impl Gateway {
    /// A page of the objects of a bucket.
    pub(crate) async fn list(&self, bucket: &Bucket, wanted: &Wanted) -> S3Result<Page> {
        let listed = async {
            let mut cursor = Cursor::new(&self.views, self.client.stat(&bucket.path).await?);
            page(&mut cursor, wanted).await
        };
        listed.await.map_err(|e| {
            self.buckets.forget(&bucket.name);
            of_bucket(e)
        })
    }
}

async fn page(cursor: &mut Cursor<'_>, wanted: &Wanted) -> model::Result<Page> {
    let mut page = Page::default();
    let after = wanted.after.as_deref().unwrap_or_default();
    cursor.seek(if after > wanted.prefix.as_str() { after } else { &wanted.prefix }).await?;
    if wanted.max == 0 {
        return Ok(page);
    }
    while let Some((key, brief)) = cursor.next().await? {
        let Some(rest) = key.strip_prefix(&wanted.prefix) else { break };
        if key.as_str() <= after && wanted.after.is_some() || (brief.deleted && !wanted.marks) {
            continue;
        }
        let group = wanted.delimiter.as_ref().and_then(|d| Some(&key[..wanted.prefix.len() + rest.find(d.as_str())? + d.len()]));
        if let Some(group) = group
            && wanted.after.is_some()
            && group <= after
        {
            let Some(next) = successor(group) else { break };
            cursor.seek(&next).await?;
            continue;
        }
        if page.objects.len() + page.groups.len() >= wanted.max {
            page.truncated = true;
            break;
        }
        match group.map(str::to_string) {
            Some(group) => {
                page.last = Some(group.clone());
                let next = successor(&group);
                page.groups.push(group);
                let Some(next) = next else { break };
                cursor.seek(&next).await?;
            }
            None => {
                page.last = Some(key.clone());
                page.objects.push((key, brief));
            }
        }
    }
    Ok(page)
}

/// The first text after all that begin with this one, in the order of bytes; `None` when there is none.
fn successor(text: &str) -> Option<String> {
    let mut text = text.to_string();
    while let Some(last) = text.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// How many keys a page may have, by what a request says. `InvalidArgument` for less than none.
pub fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        Some(n) if n < 0 => Err(error(S3ErrorCode::InvalidArgument, "Argument max-keys must be an integer between 0 and 2147483647")),
        Some(n) => Ok(n.min(PAGE_MAX)),
        None => Ok(PAGE_MAX),
    }
}

/// The continuation token of a page that ended with this.
pub fn token(last: &str) -> String {
    BASE64URL_NOPAD.encode(last.as_bytes())
}

/// Where a continuation token goes on. `InvalidArgument` for what is none.
pub fn read_token(token: &str) -> S3Result<String> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok().and_then(|b| String::from_utf8(b).ok());
    bytes.filter(|b| !b.is_empty()).ok_or_else(|| error(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect"))
}

/// How keys are written in a listing. `InvalidArgument` for an encoding that does not exist.
pub fn encoder(encoding: Option<&EncodingType>) -> S3Result<fn(String) -> String> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(|key| key),
        Some(EncodingType::URL) => Ok(url_encoded),
        Some(_) => Err(error(S3ErrorCode::InvalidArgument, "Invalid Encoding Method specified in Request")),
    }
}

fn url_encoded(key: String) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'*' => out.push(byte.into()),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_group() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(successor("\u{10ffff}"), None);
    }

    #[test]
    fn tokens_and_encodings() {
        assert_eq!(read_token(&token("a/ä")).unwrap(), "a/ä");
        assert!(read_token("").is_err() && read_token("%").is_err());
        assert_eq!(url_encoded("a b/ä+~".into()), "a%20b/%C3%A4%2B%7E");
        assert_eq!(page_size(Some(5_000)).unwrap(), 1_000);
        assert!(page_size(Some(-1)).is_err());
    }
}
