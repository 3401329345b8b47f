//! What is refused, or put right, of a request before its signature is looked at: rules of S3 about the form of
//! signed requests that s3s does not know.

use crate::errors::{error, plain, refusal};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, RANGE, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode};

/// Longest life of a presigned URL, in seconds.
const EXPIRES_MAX: i64 = 604_800;
/// Subresources that S3 has of a bucket or an object, by what may be done with each. A request that names one with
/// another method is refused: s3s would take it for one of the bucket or object itself.
const BUCKETS: [(Method, &[&str]); 5] = [
    (
        Method::GET,
        &[
            "accelerate",
            "acl",
            "analytics",
            "cors",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "lifecycle",
            "location",
            "logging",
            "metadataTable",
            "metrics",
            "notification",
            "object-lock",
            "ownershipControls",
            "policy",
            "policyStatus",
            "publicAccessBlock",
            "replication",
            "requestPayment",
            "session",
            "tagging",
            "uploads",
            "versioning",
            "versions",
            "website",
        ],
    ),
    (
        Method::PUT,
        &[
            "accelerate",
            "acl",
            "analytics",
            "cors",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "lifecycle",
            "logging",
            "metrics",
            "notification",
            "object-lock",
            "ownershipControls",
            "policy",
            "publicAccessBlock",
            "replication",
            "requestPayment",
            "tagging",
            "versioning",
            "website",
        ],
    ),
    (
        Method::DELETE,
        &[
            "analytics",
            "cors",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "lifecycle",
            "metadataTable",
            "metrics",
            "ownershipControls",
            "policy",
            "publicAccessBlock",
            "replication",
            "tagging",
            "website",
        ],
    ),
    (Method::POST, &["delete", "metadataTable"]),
    (Method::HEAD, &[]),
];
/// The same of objects.
const OBJECTS: [(Method, &[&str]); 5] = [
    (Method::GET, &["acl", "attributes", "legal-hold", "partNumber", "retention", "tagging", "torrent", "uploadId", "versionId"]),
    (Method::PUT, &["acl", "legal-hold", "partNumber", "retention", "tagging", "uploadId", "versionId"]),
    (Method::DELETE, &["tagging", "uploadId", "versionId"]),
    (Method::POST, &["restore", "select", "uploadId", "uploads", "versionId"]),
    (Method::HEAD, &["partNumber", "versionId"]),
];
/// Those that this gateway, or s3s, does not know at all.
const UNKNOWN: [&str; 6] =
    ["abac", "annotation", "metadataConfiguration", "metadataInventoryTable", "metadataJournalTable", "renameObject"];
/// Subresources that a signature of version 2 does not cover: they are younger than it.
const AFTER_V2: [&str; 13] = [
    "accelerate",
    "attributes",
    "encryption",
    "intelligent-tiering",
    "legal-hold",
    "metadataTable",
    "object-lock",
    "ownershipControls",
    "policyStatus",
    "publicAccessBlock",
    "retention",
    "select",
    "session",
];

/// The pairs of a query, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decode = |text: &str| crate::keys::unpercent(&text.replace('+', " ")).unwrap_or_else(|| text.to_string());
        Query(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

/// Refuses a request by its head. `hosted`: its host names the bucket.
pub fn check(head: &Parts, hosted: bool) -> Result<(), S3Error> {
    let query = Query::of(&head.uri);
    let signed = match head.headers.get(AUTHORIZATION) {
        Some(value) => Some(of_header(value)?),
        None => of_query(&query)?,
    };
    if head.headers.contains_key(AUTHORIZATION) && time_of(&head.headers).is_none() {
        return Err(error(S3ErrorCode::AccessDenied, "AWS authentication requires a valid Date or x-amz-date header"));
    }
    if let Some(signed) = &signed {
        check_covered(&head.headers, signed, query.has("X-Amz-Signature"))?;
        check_payload_hash(&head.headers)?;
    }
    if query.has("AWSAccessKeyId") && query.has("Signature") {
        check_v2(&query)?;
    }
    if head.headers.get("content-md5").is_some_and(HeaderValue::is_empty) {
        return Err(plain(S3ErrorCode::InvalidDigest));
    }
    check_subresource(head, &query, hosted)?;
    check_length(head, &query, hosted)
}

/// Whether a request's body is a document (XML mostly), not content.
pub fn brings_document(head: &Parts, hosted: bool) -> bool {
    let query = Query::of(&head.uri);
    let object = names_object(head.uri.path(), hosted);
    let named = |names: &[&str]| names.iter().any(|name| query.has(name));
    match head.method {
        Method::PUT => !object || named(&["acl", "legal-hold", "retention", "tagging"]),
        Method::POST => named(&["delete", "restore", "select", "metadataTable"]),
        _ => false,
    }
}

/// The names of signed headers that an `Authorization` header gives.
fn of_header(value: &HeaderValue) -> Result<Vec<String>, S3Error> {
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() {
        return Err(error(S3ErrorCode::AccessDenied, "Access Denied: the Authorization header is empty"));
    }
    if text.starts_with("AWS ") {
        let text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text));
    }
    let Some(fields) = text.strip_prefix("AWS4-HMAC-SHA256") else {
        return Err(error(S3ErrorCode::InvalidArgument, "Unsupported Authorization Type"));
    };
    let field = |name: &str| fields.split(',').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('=')).filter(|v| !v.is_empty());
    let malformed = |what: &str| {
        let text = format!("The authorization header is malformed; it has no {what}.");
        refusal("AuthorizationHeaderMalformed", StatusCode::BAD_REQUEST, text)
    };
    let credential = field("Credential").ok_or_else(|| malformed("Credential"))?;
    if !is_credential(credential) {
        return Err(malformed("whole Credential"));
    }
    field("Signature").ok_or_else(|| malformed("Signature"))?;
    let names = field("SignedHeaders").ok_or_else(|| malformed("SignedHeaders"))?;
    Ok(names.split(';').map(str::to_ascii_lowercase).collect())
}

/// Whether it is `KEY/YYYYMMDD/REGION/s3/aws4_request`.
fn is_credential(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let [key, day, region, service, end] = parts[..] else { return false };
    let is_day = day.len() == 8 && day.bytes().all(|b| b.is_ascii_digit());
    !key.is_empty() && is_day && !region.is_empty() && service == "s3" && end == "aws4_request"
}

/// The names of signed headers of a presigned URL; `None` where it is none of version 4.
fn of_query(query: &Query) -> Result<Option<Vec<String>>, S3Error> {
    let fields = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];
    if !query.has("X-Amz-Signature") && !query.has("X-Amz-Algorithm") {
        return Ok(None);
    }
    let wrong = |text: String| refusal("AuthorizationQueryParametersError", StatusCode::BAD_REQUEST, text);
    if fields.iter().any(|name| query.get(name).is_none_or(str::is_empty)) {
        let text = "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
        return Err(wrong(text.into()));
    }
    if !query.get("X-Amz-Credential").is_some_and(is_credential) {
        return Err(wrong("Error parsing the X-Amz-Credential parameter; expecting KEY/YYYYMMDD/REGION/s3/aws4_request".into()));
    }
    if query.get("X-Amz-Algorithm") != Some("AWS4-HMAC-SHA256") {
        return Err(wrong("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"".into()));
    }
    match query.get("X-Amz-Expires").and_then(|v| v.parse::<i64>().ok()) {
        None => return Err(wrong("X-Amz-Expires should be a number".into())),
        Some(expires) if expires < 0 => return Err(wrong("X-Amz-Expires must be non-negative".into())),
        Some(expires) if expires > EXPIRES_MAX => {
            return Err(wrong(format!(
                "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than {EXPIRES_MAX} seconds"
            )));
        }
        Some(_) => {}
    }
    Ok(query.get("X-Amz-SignedHeaders").map(|names| names.split(';').map(str::to_ascii_lowercase).collect()))
}

/// Every header that means something to S3 must be signed: else whoever holds a presigned URL, or stands between,
/// could add a source to copy from.
fn check_covered(headers: &HeaderMap, signed: &[String], presigned: bool) -> Result<(), S3Error> {
    let is_signed = |name: &str| signed.iter().any(|s| s == name);
    let free = |name: &str| presigned && name == "x-amz-content-sha256";
    let extra = headers.keys().map(HeaderName::as_str).find(|name| name.starts_with("x-amz-") && !is_signed(name) && !free(name));
    match extra {
        Some(name) => {
            let text = format!("There were headers present in the request which were not signed: {name}");
            Err(error(S3ErrorCode::AccessDenied, text))
        }
        None if !is_signed("host") => Err(error(S3ErrorCode::AccessDenied, "The host header must be signed")),
        None => Ok(()),
    }
}

fn check_payload_hash(headers: &HeaderMap) -> Result<(), S3Error> {
    let Some(value) = headers.get("x-amz-content-sha256") else { return Ok(()) };
    let value = value.to_str().unwrap_or_default();
    let is_hash = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash || value == "UNSIGNED-PAYLOAD" || value.starts_with("STREAMING-") {
        return Ok(());
    }
    let text = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.";
    Err(error(S3ErrorCode::InvalidArgument, text))
}

/// A signature of version 2 says nothing of what is younger than it.
fn check_v2(query: &Query) -> Result<(), S3Error> {
    match query.0.iter().find(|(name, _)| AFTER_V2.contains(&name.as_str())) {
        Some((name, _)) => Err(error(S3ErrorCode::AccessDenied, format!("A signature of version 2 does not cover '{name}'"))),
        None => Ok(()),
    }
}

/// Whether a path names an object, not a bucket.
fn names_object(path: &str, hosted: bool) -> bool {
    let path = path.trim_start_matches('/');
    if hosted { !path.is_empty() } else { path.split_once('/').is_some_and(|(_, key)| !key.is_empty()) }
}

fn is_subresource(name: &str) -> bool {
    BUCKETS.iter().chain(&OBJECTS).any(|(_, names)| names.contains(&name))
}

/// Refuses a subresource that this method does not have.
fn check_subresource(head: &Parts, query: &Query, hosted: bool) -> Result<(), S3Error> {
    let object = names_object(head.uri.path(), hosted);
    let Some((_, allowed)) = (if object { &OBJECTS } else { &BUCKETS }).iter().find(|(method, _)| *method == head.method) else {
        return Ok(());
    };
    for (name, _) in &query.0 {
        if UNKNOWN.contains(&name.as_str()) {
            return Err(crate::errors::not_here(&format!("'{name}'")));
        }
        if is_subresource(name) && !allowed.contains(&name.as_str()) {
            return Err(plain(S3ErrorCode::MethodNotAllowed));
        }
    }
    let invalid = |text: &'static str| Err(error(S3ErrorCode::InvalidArgument, text));
    if object && head.method == Method::PUT {
        let of_entry = ["acl", "legal-hold", "retention", "tagging"].iter().any(|name| query.has(name));
        if query.has("partNumber") != query.has("uploadId") {
            return invalid("This operation takes both a part number and an upload id.");
        }
        if query.has("versionId") && !of_entry {
            return invalid("This operation does not accept a version-id.");
        }
    }
    if query.get("versionId").is_some_and(str::is_empty) {
        return invalid("Version id cannot be the empty string");
    }
    Ok(())
}

/// `MissingContentLength` for an object, or a part, of which nothing says where it ends: it is not taken for empty.
fn check_length(head: &Parts, query: &Query, hosted: bool) -> Result<(), S3Error> {
    let missing = || Err(refusal("MissingContentLength", StatusCode::LENGTH_REQUIRED, "You must provide the Content-Length HTTP header."));
    let decoded = head.headers.get("x-amz-decoded-content-length");
    if decoded.is_some_and(|v| v.to_str().ok().and_then(|v| v.parse::<u64>().ok()).is_none()) {
        return missing();
    }
    let other = query.0.iter().any(|(name, _)| is_subresource(name) && !["partNumber", "uploadId", "versionId"].contains(&name.as_str()));
    let framed = head.headers.contains_key(CONTENT_LENGTH) || head.headers.contains_key(TRANSFER_ENCODING);
    let copied = head.headers.contains_key("x-amz-copy-source");
    if head.method != Method::PUT || !names_object(head.uri.path(), hosted) || other || framed || copied {
        return Ok(());
    }
    missing()
}

/// Whether a request deletes several objects.
pub fn is_delete(head: &Parts) -> bool {
    Query::of(&head.uri).has("delete")
}

/// Whether a read asks for a range that is none, or for several: S3 answers with the whole then.
pub fn has_odd_range(head: &Parts) -> bool {
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    let is_good = |v: &HeaderValue| v.to_str().is_ok_and(|text| s3s::dto::Range::parse(text).is_ok());
    reads && head.headers.get(RANGE).is_some_and(|v| !is_good(v))
}

/// The same request without its signature.
pub fn without_signature(mut head: Parts) -> Parts {
    head.headers.remove(AUTHORIZATION);
    let signs = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        name.to_ascii_lowercase().starts_with("x-amz-") || ["Signature", "AWSAccessKeyId", "Expires"].contains(&name)
    };
    let query: Vec<&str> = head.uri.query().unwrap_or_default().split('&').filter(|pair| !signs(pair)).collect();
    let path = format!("{}?{}", head.uri.path(), query.join("&"));
    if let Some(uri) = with_path(&head.uri, path.trim_end_matches('?').to_string()) {
        head.uri = uri;
    }
    head
}

fn with_path(uri: &Uri, path: String) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

/// Puts right what s3s would refuse, without a change to what is signed.
pub fn amend(head: &mut Parts, hosted: bool) {
    join_metadata(&mut head.headers);
    if head.headers.contains_key(AUTHORIZATION)
        && !head.headers.contains_key("x-amz-date")
        && let Some(time) = time_of(&head.headers).and_then(|time| HeaderValue::try_from(time).ok())
    {
        head.headers.insert("x-amz-date", time);
    }
    let query = Query::of(&head.uri);
    // boto signs `/BUCKET/` by version 2, and asks for `/BUCKET`.
    let path = head.uri.path();
    if !hosted && query.has("AWSAccessKeyId") && query.has("Signature") && path.len() > 1 && !path.trim_start_matches('/').contains('/') {
        let slashed = format!("{path}/?{}", head.uri.query().unwrap_or_default());
        if let Some(uri) = with_path(&head.uri, slashed) {
            head.uri = uri;
        }
    }
}

/// When a request was signed, as `x-amz-date` has it, or made of `Date`; `None` where neither says it.
fn time_of(headers: &HeaderMap) -> Option<String> {
    let Some(time) = headers.get("x-amz-date") else {
        let date = Timestamp::parse(TimestampFormat::HttpDate, headers.get(DATE)?.to_str().ok()?).ok()?;
        let at = time::OffsetDateTime::from(date);
        let (day, time) = ((at.year(), u8::from(at.month()), at.day()), (at.hour(), at.minute(), at.second()));
        return Some(format!("{:04}{:02}{:02}T{:02}{:02}{:02}Z", day.0, day.1, day.2, time.0, time.1, time.2));
    };
    let is_time = |text: &&str| {
        let digits = |range| text.get(range).is_some_and(|part: &str| part.bytes().all(|b| b.is_ascii_digit()));
        text.len() == 16 && digits(0..8) && text.get(8..9) == Some("T") && digits(9..15) && text.ends_with('Z')
    };
    time.to_str().ok().filter(is_time).map(str::to_string)
}

/// A header of metadata that comes several times is one with commas; so it is signed, too.
fn join_metadata(headers: &mut HeaderMap) {
    let repeated: Vec<HeaderName> =
        headers.keys().filter(|n| n.as_str().starts_with("x-amz-meta-") && headers.get_all(*n).iter().count() > 1).cloned().collect();
    for name in repeated {
        let all: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(value) = HeaderValue::from_bytes(&all.join(&b","[..])) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder().method(method).uri(uri), |request, (k, v)| request.header(*k, *v));
        request.body(()).unwrap().into_parts().0
    }

    fn code(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<(String, StatusCode)> {
        let refused = check(&head(method, uri, headers), false).err()?;
        let status = refused.status_code().or_else(|| refused.code().status_code()).unwrap_or_default();
        Some((refused.code().as_str().to_string(), status))
    }

    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00";
    const DATED: (&str, &str) = ("x-amz-date", "20260101T000000Z");
    const URL: &str = "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K/20260101/us-east-1/s3/aws4_request&X-Amz-Date=D&X-Amz-SignedHeaders=host&X-Amz-Signature=00&X-Amz-Expires=";

    #[test]
    fn headers_that_mean_something_must_be_signed() {
        let denied = Some(("AccessDenied".to_string(), StatusCode::FORBIDDEN));
        assert_eq!(code("GET", "/b/k", &[("authorization", SIGNED), DATED]), None);
        assert_eq!(code("GET", "/b/k", &[("authorization", SIGNED), DATED, ("x-amz-copy-source", "s/k")]), denied);
        assert_eq!(code("GET", &format!("{URL}60"), &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")]), None);
        assert_eq!(code("PUT", &format!("{URL}60"), &[("x-amz-copy-source", "s/k")]), denied);
        assert_eq!(code("GET", "/b/k", &[("authorization", &SIGNED.replace("host;", "")), DATED]), denied);
        assert_eq!(code("GET", "/b?publicAccessBlock&AWSAccessKeyId=K&Signature=s&Expires=9", &[]), denied);
        assert_eq!(code("GET", "/b?versioning&AWSAccessKeyId=K&Signature=s&Expires=9", &[]), None);
    }

    #[test]
    fn what_is_malformed_has_its_own_error() {
        let bad = |name: &str| Some((name.to_string(), StatusCode::BAD_REQUEST));
        assert_eq!(code("GET", &format!("{URL}604801"), &[]), bad("AuthorizationQueryParametersError"));
        assert_eq!(code("GET", &format!("{URL}-1"), &[]), bad("AuthorizationQueryParametersError"));
        assert_eq!(code("GET", "/b/k?X-Amz-Signature=00", &[]), bad("AuthorizationQueryParametersError"));
        let denied = Some(("AccessDenied".to_string(), StatusCode::FORBIDDEN));
        assert_eq!(code("GET", "/b/k", &[("authorization", SIGNED)]), denied);
        assert_eq!(code("GET", "/b/k", &[("authorization", SIGNED), ("x-amz-date", "yesterday")]), denied);
        assert_eq!(code("GET", "/b/k", &[("authorization", SIGNED), ("date", "Thu, 01 Jan 2026 00:00:00 GMT")]), None);
        assert_eq!(code("GET", "/b/k", &[("authorization", &SIGNED.replace("/s3/", "/ec2/"))]), bad("AuthorizationHeaderMalformed"));
        assert_eq!(code("GET", "/b/k", &[("authorization", "HAHAHA")]), bad("InvalidArgument"));
        assert_eq!(code("GET", "/b/k", &[("authorization", "AWS4-HMAC-SHA256 HAHAHA")]), bad("AuthorizationHeaderMalformed"));
        assert_eq!(code("GET", "/b/k", &[("authorization", "AWS K:x")]), bad("InvalidRequest"));
        assert_eq!(code("GET", "/b/k", &[("content-md5", "")]), bad("InvalidDigest"));
    }

    #[test]
    fn a_subresource_with_a_wrong_method_is_not_taken_for_the_thing_itself() {
        for (method, uri) in [
            ("DELETE", "/b?acl"),
            ("DELETE", "/b?versioning"),
            ("DELETE", "/b/o?acl"),
            ("PUT", "/b?location"),
            ("PUT", "/b/o?uploads"),
            ("HEAD", "/b?acl"),
        ] {
            assert_eq!(code(method, uri, &[]).map(|(code, _)| code).as_deref(), Some("MethodNotAllowed"), "{method} {uri}");
        }
        for uri in ["/b/o?uploadId=x", "/b/o?partNumber=1", "/b/o?versionId=null", "/b/o?acl&versionId="] {
            assert_eq!(code("PUT", uri, &[("content-length", "1")]).map(|(code, _)| code).as_deref(), Some("InvalidArgument"), "{uri}");
        }
        assert_eq!(code("GET", "/b?abac", &[]).map(|(code, _)| code).as_deref(), Some("NotImplemented"));
        for (method, uri) in [
            ("DELETE", "/b?cors"),
            ("GET", "/b?prefix=acl&max-keys=2"),
            ("POST", "/b/o?uploads"),
            ("GET", "/b/o?response-expires=x&x-id=GetObject"),
        ] {
            assert_eq!(code(method, uri, &[]), None, "{method} {uri}");
        }
        let document = |method, uri| brings_document(&head(method, uri, &[]), false);
        assert!(document("PUT", "/b?cors") && document("POST", "/b?delete") && document("PUT", "/b") && document("PUT", "/b/o?tagging"));
        assert!(!document("PUT", "/b/o") && !document("POST", "/b/o?uploadId=x") && !document("PUT", "/b/o?partNumber=1&uploadId=x"));
    }

    #[test]
    fn an_object_without_length_is_not_taken_for_an_empty_one() {
        let missing = Some(("MissingContentLength".to_string(), StatusCode::LENGTH_REQUIRED));
        assert_eq!(code("PUT", "/b/k", &[]), missing);
        assert_eq!(code("PUT", "/b/k?partNumber=1&uploadId=x", &[]), missing);
        for (method, uri, headers) in [
            ("PUT", "/b/k", &[("content-length", "0")][..]),
            ("PUT", "/b/k", &[("x-amz-copy-source", "b/o")]),
            ("PUT", "/b/k?acl", &[]),
            ("PUT", "/b", &[]),
            ("PUT", "/b/", &[]),
            ("DELETE", "/b/k", &[]),
        ] {
            assert_eq!(code(method, uri, headers), None, "{method} {uri}");
        }
    }

    #[test]
    fn what_is_signed_otherwise_is_put_right() {
        let mut one = head("PUT", "/b?uploads&AWSAccessKeyId=K&Signature=s", &[("x-amz-meta-a", "1"), ("x-amz-meta-a", "2")]);
        amend(&mut one, false);
        assert_eq!(one.uri.to_string(), "/b/?uploads&AWSAccessKeyId=K&Signature=s");
        assert_eq!(one.headers.get_all("x-amz-meta-a").iter().collect::<Vec<_>>(), ["1,2"]);
        let mut dated = head("GET", "/b/k", &[("authorization", SIGNED), ("date", "Thu, 01 Jan 2026 01:02:03 GMT")]);
        amend(&mut dated, false);
        assert_eq!(dated.headers.get("x-amz-date").unwrap(), "20260101T010203Z");
        let mut other = head("GET", "/b/k?AWSAccessKeyId=K&Signature=s", &[]);
        amend(&mut other, false);
        assert_eq!(other.uri.path(), "/b/k");
    }
}
