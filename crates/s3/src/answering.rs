//! What answers get on their way out: the status that s3s leaves out, the id of the request, and errors as whole
//! documents.

use crate::errors::plain;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use s3s::{Body, S3ErrorCode, S3Response};

/// The status that an operation chose: s3s passes it on for some of them only.
#[derive(Clone)]
struct Chosen(StatusCode);

/// The answer's ETag has no quotes: one operation of S3 says it so.
#[derive(Clone)]
pub struct BareETag;

/// An answer with a status of its own.
pub fn with_status<T>(output: T, status: StatusCode) -> S3Response<T> {
    let mut response = S3Response::with_status(output, status);
    response.extensions.insert(Chosen(status));
    response
}

/// Makes an answer whole. `path` is what was asked for, `id` the request's.
pub fn finish(mut response: Response<Body>, method: &Method, path: &str, id: &str) -> Response<Body> {
    if let Some(Chosen(status)) = response.extensions().get::<Chosen>().cloned()
        && response.status().is_success()
    {
        *response.status_mut() = status;
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-amz-request-id", id);
    }
    // Nothing of nothing is no range.
    if response.headers().get(CONTENT_RANGE).is_some_and(|v| v.as_bytes().ends_with(b"/0") && !v.as_bytes().starts_with(b"bytes *")) {
        response.headers_mut().remove(CONTENT_RANGE);
        *response.status_mut() = StatusCode::OK;
    }
    if response.extensions().get::<BareETag>().is_some()
        && let Some(document) = response.body().bytes().and_then(|b| String::from_utf8(b.to_vec()).ok())
    {
        replace(
            &mut response,
            document
                .replace("<ETag>&quot;", "<ETag>")
                .replace("&quot;</ETag>", "</ETag>")
                .replace("<ETag>\"", "<ETag>")
                .replace("\"</ETag>", "</ETag>"),
        );
    }
    if response.status().as_u16() < 400 || method == Method::HEAD {
        return response;
    }
    let Some(document) = response.body().bytes().and_then(|b| String::from_utf8(b.to_vec()).ok()) else { return response };
    let Some(document) = whole(&document, path, id) else { return response };
    replace(&mut response, document);
    response
}

fn replace(response: &mut Response<Body>, document: String) {
    let length = document.len();
    *response.body_mut() = Body::from(document);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
}

/// An error's document with all that S3 puts into it; `None` for what is none.
fn whole(document: &str, path: &str, id: &str) -> Option<String> {
    let rest = document.strip_suffix("</Error>")?;
    let code = rest.split_once("<Code>")?.1.split_once("</Code>")?.0;
    let message = if rest.contains("<Message>") {
        String::new()
    } else {
        let known = S3ErrorCode::from_bytes(code.as_bytes()).map(plain);
        let text = known.and_then(|e| e.message().map(str::to_string)).unwrap_or_else(|| code.to_string());
        format!("<Message>{}</Message>", escaped(&text))
    };
    let request = if rest.contains("<RequestId>") { String::new() } else { format!("<RequestId>{id}</RequestId>") };
    Some(format!("{rest}{message}<Resource>{}</Resource>{request}</Error>", escaped(path)))
}

/// Text for an XML document.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_whole_documents() {
        let error = "<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>";
        let told = "<Error><Code>NoSuchKey</Code><Message>gone</Message><Resource>/b/a&amp;b</Resource><RequestId>ID</RequestId></Error>";
        assert_eq!(whole(error, "/b/a&b", "ID").as_deref(), Some(told));
        let without = whole("<Error><Code>SignatureDoesNotMatch</Code></Error>", "/", "ID").unwrap();
        assert!(without.contains("<Message>The request signature"), "{without}");
        assert!(whole("<Error><Code>Odd</Code></Error>", "/", "ID").unwrap().contains("<Message>Odd</Message>"));
        assert_eq!(whole("<ListBucketResult/>", "/", "ID"), None);
    }

    #[test]
    fn a_range_of_nothing_is_the_whole() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_static("bytes 0-0/0"));
        let response = finish(response, &Method::GET, "/b/k", "ID");
        assert_eq!((response.status(), response.headers().get(CONTENT_RANGE)), (StatusCode::OK, None));
    }
}
