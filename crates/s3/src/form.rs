//! POST forms: uploads by browsers, as far as a policy allows them that somebody with a key has signed.
//!
//! ```text
//! fields ─▶ signature, rights of the key ─▶ policy ─▶ what is kept ─▶ file ─▶ answer
//! ```
//! The file is streamed, and stored as a put with the same headers would be. How long it is shows at its end only:
//! one that the policy does not allow is refused there, before anything is committed.

mod fields;
mod policy;

use crate::Gateway;
use crate::answering::escaped;
use crate::asked::{Asked, check_acl};
use crate::body::{ALGORITHMS, Carried, Claims};
use crate::conditions::Conditions;
use crate::errors::{error, plain};
use crate::keys::unpercent;
use crate::rechunk::Body as Framed;
use crate::versions::id_of;
use crate::{refused, tagging};
use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER};
use fields::{Fields, Form, missing};
use hyper::header::{CONTENT_TYPE, ETAG, HOST, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use policy::Policy;
use s3s::auth::{Credentials, S3Auth, SecretKey};
use s3s::dto::{StreamingBlob, Tagging, Timestamp, TimestampFormat};
use s3s::xml::{Deserialize, Deserializer};
use s3s::{Body, S3ErrorCode, S3Result};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes that are read of what follows a file.
const REST_MAX: u64 = 1 << 20;
/// And for how long.
const REST_TIME: Duration = Duration::from_secs(2);

/// Whether a request is a form.
pub fn is_form(method: &Method, headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|v| v.as_bytes().split(|b| *b == b';').next()).unwrap_or_default();
    method == Method::POST && essence.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data")
}

/// Stores what a form brings. `hosted`: the bucket that its host names; `scheme`: how the gateway is spoken to.
pub async fn post(gateway: &Arc<Gateway>, head: &Parts, body: Framed, hosted: Option<&str>, scheme: &str) -> S3Result<Response<Body>> {
    let bucket = bucket_of(head.uri.path(), hosted).ok_or_else(|| plain(S3ErrorCode::MethodNotAllowed))?;
    gateway.keys.check_owner(&head.headers)?;
    refused::check("PostObject", &head.headers)?;
    let text = |name: HeaderName| head.headers.get(name).and_then(|v| v.to_str().ok());
    let root = match (text(HOST), hosted) {
        (Some(host), Some(_)) => format!("{scheme}://{host}"),
        (Some(host), None) => format!("{scheme}://{host}/{bucket}"),
        (None, _) => format!("/{bucket}"),
    };
    let mut form = Form::new(body, text(CONTENT_TYPE).unwrap_or_default())?;
    let answer = store(gateway, &mut form, &bucket, &root).await?;
    gateway.client.env().timeout(REST_TIME, form.skip(REST_MAX)).await;
    Ok(answer)
}

/// The bucket that a form is for; `None` where its address names an object, or nothing.
fn bucket_of(path: &str, hosted: Option<&str>) -> Option<String> {
    let path = path.trim_start_matches('/');
    match hosted {
        Some(bucket) => path.is_empty().then(|| bucket.to_string()),
        None => unpercent(path.strip_suffix('/').unwrap_or(path)).filter(|name| !name.is_empty() && !name.contains('/')),
    }
}

async fn store(gateway: &Arc<Gateway>, form: &mut Form, bucket: &str, root: &str) -> S3Result<Response<Body>> {
    let (fields, file) = form.read().await?;
    let key = fields.get("key").ok_or_else(|| missing("key"))?;
    let Some(signed) = Signed::of(&fields)? else {
        return Err(error(S3ErrorCode::AccessDenied, "Access Denied: forms must be signed"));
    };
    let secret_key = gateway.keys.get_secret_key(signed.key()).await?;
    if !signed.is_by(&secret_key) {
        return Err(plain(S3ErrorCode::SignatureDoesNotMatch));
    }
    let credentials = Credentials { access_key: signed.key().into(), secret_key };
    gateway.keys.check(Some(&credentials), Some(bucket), true).await?;
    let policy = Policy::parse(signed.policy)?;
    policy.check(&fields, bucket, gateway.client.env().now_ms())?;
    if key.is_empty() {
        return Err(error(S3ErrorCode::InvalidArgument, "User key must have a length greater than 0."));
    }
    refused::check("PostObject", &fields.headers()?)?;
    let bucket = gateway.buckets.get(bucket).await?;
    let mut meta = asked(&fields)?.keep(gateway.new_meta(&bucket))?;
    if let Some(tags) = tags(&fields)? {
        meta.tags = tags;
    }
    let claims = Claims::of(carried(&fields), &HeaderMap::new(), None)?.within(policy.lengths());
    let stored = gateway.put(&bucket, key, meta, &Conditions::default(), Some(StreamingBlob::wrap(file)), claims).await?;
    let version = bucket.has_versions().then(|| id_of(&stored.meta));
    let etag = format!("\"{}\"", HEXLOWER.encode(&stored.digest.md5));
    let made = Made { bucket: &bucket.name, key, etag: &etag, version, location: format!("{root}/{}", encoded(key, "/")) };
    Ok(made.answer(&fields))
}

/// How a form is signed: what is signed is the text of its policy.
struct Signed<'a> {
    policy: &'a str,
    signature: Signature<'a>,
}

enum Signature<'a> {
    /// Version 4: the key with its date, region and service; in hexadecimal.
    V4 { key: &'a str, scope: [&'a str; 4], signature: &'a str },
    /// Version 2, in base64.
    V2 { key: &'a str, signature: &'a str },
}

impl<'a> Signed<'a> {
    /// As the fields say; `None` where they say nothing. `InvalidArgument` for half of it.
    fn of(fields: &'a Fields) -> S3Result<Option<Self>> {
        let any = |names: &[&str]| names.iter().any(|name| fields.get(name).is_some());
        let need = |name: &str| fields.get(name).ok_or_else(|| missing(name));
        let signature = if any(&["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"]) {
            let (algorithm, credential, date) = (need("x-amz-algorithm")?, need("x-amz-credential")?, need("x-amz-date")?);
            let invalid = |text: &'static str| error(S3ErrorCode::InvalidArgument, text);
            if algorithm != "AWS4-HMAC-SHA256" {
                return Err(invalid("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
            }
            let text = "The X-Amz-Credential is malformed; expecting \"KEY/YYYYMMDD/REGION/s3/aws4_request\", of the day of X-Amz-Date.";
            let (key, scope) = read_credential(credential, date).ok_or_else(|| invalid(text))?;
            Signature::V4 { key, scope, signature: need("x-amz-signature")? }
        } else if any(&["awsaccesskeyid", "signature"]) {
            Signature::V2 { key: need("awsaccesskeyid")?, signature: need("signature")? }
        } else {
            return Ok(None);
        };
        Ok(Some(Signed { policy: need("policy")?, signature }))
    }

    /// The key's id.
    fn key(&self) -> &'a str {
        match self.signature {
            Signature::V4 { key, .. } | Signature::V2 { key, .. } => key,
        }
    }

    /// Whether it was made with this secret. Takes the same time for all wrong signatures.
    fn is_by(&self, secret: &SecretKey) -> bool {
        let (key, signature) = match &self.signature {
            Signature::V4 { scope, signature, .. } => {
                let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
                let first = key(format!("AWS4{}", secret.expose()).as_bytes());
                let last = scope.iter().fold(first, |last, part| key(hmac::sign(&last, part.as_bytes()).as_ref()));
                (last, HEXLOWER.decode(signature.as_bytes()))
            }
            Signature::V2 { signature, .. } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
                (key, BASE64.decode(signature.as_bytes()))
            }
        };
        signature.is_ok_and(|signature| hmac::verify(&key, self.policy.as_bytes(), &signature).is_ok())
    }
}

/// A key and the scope of its signature, `date/region/s3/aws4_request`, out of a credential. How long ago that date
/// is does not matter: the policy says until when a form counts.
fn read_credential<'a>(credential: &'a str, date: &str) -> Option<(&'a str, [&'a str; 4])> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [key, day, region, service, end] = parts.try_into().ok()?;
    let is_time = date.len() == 16
        && date.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        });
    let is_scope = !key.is_empty() && !region.is_empty() && service == "s3" && end == "aws4_request";
    (is_scope && is_time && date.get(..8) == Some(day)).then_some((key, [day, region, service, end]))
}

/// What a form asks for beside the content.
fn asked(fields: &Fields) -> S3Result<Asked> {
    let filled = |name: &str| fields.filled(name).map(str::to_string);
    check_acl(fields.filled("acl"), false)?;
    let expires = |text: &str| {
        let wrong = |_| error(S3ErrorCode::InvalidArgument, format!("Invalid value of the field 'Expires': {text}"));
        Timestamp::parse(TimestampFormat::HttpDate, text).map_err(wrong)
    };
    Ok(Asked {
        acl: filled("x-amz-acl"),
        encryption: filled("x-amz-server-side-encryption"),
        storage_class: filled("x-amz-storage-class"),
        redirect: filled("x-amz-website-redirect-location"),
        content_type: filled("content-type"),
        cache_control: filled("cache-control"),
        disposition: filled("content-disposition"),
        encoding: filled("content-encoding"),
        language: filled("content-language"),
        expires: fields.filled("expires").map(expires).transpose()?,
        metadata: Some(fields.metadata().collect()),
        tagging: filled("x-amz-tagging"),
        // `refused` has looked for the others.
        ..Asked::default()
    })
}

/// Tags out of the field `tagging`: a document, not what the header of tags is.
fn tags(fields: &Fields) -> S3Result<Option<Vec<(String, String)>>> {
    let Some(document) = fields.filled("tagging") else { return Ok(None) };
    let mut read = Deserializer::new(document.as_bytes());
    let found = Tagging::deserialize(&mut read).and_then(|found| read.expect_eof().map(|()| found));
    let found = found.map_err(|_| plain(S3ErrorCode::MalformedXML))?;
    tagging::check(found.tag_set, tagging::OBJECT_TAGS).map(Some)
}

/// What a form says of its file's checksums.
fn carried(fields: &Fields) -> Carried {
    let filled = |name: &str| fields.filled(name).map(str::to_string);
    Carried {
        md5: filled("content-md5"),
        length: None,
        sums: ALGORITHMS.map(|(_, header, _)| filled(header)),
        algorithm: filled("x-amz-checksum-algorithm").or_else(|| filled("x-amz-sdk-checksum-algorithm")),
        trailers: None,
    }
}

/// What a form made.
struct Made<'a> {
    bucket: &'a str,
    key: &'a str,
    /// With quotation marks.
    etag: &'a str,
    version: Option<&'a str>,
    location: String,
}

impl Made<'_> {
    /// The answer that the fields ask for.
    fn answer(&self, fields: &Fields) -> Response<Body> {
        let to = ["success_action_redirect", "redirect"].iter().find_map(|name| fields.filled(name));
        let to = to.and_then(|to| self.redirect(to)).and_then(|to| HeaderValue::try_from(to).ok());
        let (status, body) = match (&to, fields.get("success_action_status")) {
            (Some(_), _) => (StatusCode::SEE_OTHER, Body::empty()),
            (None, Some("200")) => (StatusCode::OK, Body::empty()),
            (None, Some("201")) => (StatusCode::CREATED, Body::from(self.document())),
            _ => (StatusCode::NO_CONTENT, Body::empty()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(ETAG, self.etag);
        put(LOCATION, &self.location);
        put(HeaderName::from_static("x-amz-server-side-encryption"), "AES256");
        if let Some(version) = self.version {
            put(HeaderName::from_static("x-amz-version-id"), version);
        }
        if status == StatusCode::CREATED {
            put(CONTENT_TYPE, "application/xml");
        }
        if let Some(to) = to {
            headers.insert(LOCATION, to);
        }
        response
    }

    /// Where a browser is sent, told what was made; `None` for what is no URL.
    fn redirect(&self, to: &str) -> Option<String> {
        let uri = to.parse::<Uri>().ok()?;
        uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")))?;
        let (to, fragment) = to.split_at(to.find('#').unwrap_or(to.len()));
        let mark = if to.contains('?') { '&' } else { '?' };
        let [bucket, key, etag] = [self.bucket, self.key, self.etag].map(|value| encoded(value, ""));
        Some(format!("{to}{mark}bucket={bucket}&key={key}&etag={etag}{fragment}"))
    }

    fn document(&self) -> String {
        let [location, bucket, key, etag] = [&self.location, self.bucket, self.key, self.etag].map(escaped);
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{location}</Location><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag></PostResponse>"
        )
    }
}

/// Percent-encoded for a URL, but for what is unreserved and `also`.
fn encoded(text: &str, also: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || also.as_bytes().contains(&b);
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests;
