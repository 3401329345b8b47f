//! A form as it comes in: its fields, read and bounded, and then its file, of which nothing is held but a piece.
//!
//! ```text
//! field… key, policy, signature… │ file │ whatever comes after it, which is ignored
//! └─ at most FIELDS_MAX, held ─┘  └ streamed
//! ```

use crate::errors::error;
use crate::keys::unpercent;
use bytes::Bytes;
use futures::Stream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_DISPOSITION, HeaderName, HeaderValue};
use multer::{Field, Multipart};
use s3s::{S3Error, S3ErrorCode, S3Result, StdError};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

/// Most bytes of a form before its file, as they come.
const FIELDS_MAX: u64 = 64 << 10;
/// Most bytes that multer gets at once.
const PIECE: usize = 32 << 10;
/// Fields in which the file's name stays as it is written: they are signatures, and what is signed.
const VERBATIM: [&str; 3] = ["policy", "signature", "x-amz-signature"];
/// Fields that are headers of the object, beside `x-amz-…`.
const HEADERS: [&str; 6] = ["cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"];

fn invalid(why: impl Into<String>) -> S3Error {
    error(S3ErrorCode::InvalidArgument, why)
}

/// `InvalidArgument` for a field that is not there.
pub fn missing(name: &str) -> S3Error {
    invalid(format!("Bucket POST must contain a field named '{name}'. If it is specified, please check the order of the fields."))
}

/// The fields of a form, by name in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<String, String>);

impl FromIterator<(String, String)> for Fields {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Fields(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}

impl Fields {
    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A field's value where it is not empty: forms send what nobody filled in, too.
    pub fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// User metadata, by name.
    pub fn metadata(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_string(), value.clone())))
    }

    /// Those that stand for headers, as headers. `InvalidArgument` for what cannot be one.
    pub fn headers(&self) -> S3Result<HeaderMap> {
        let is_header = |name: &str| name.starts_with("x-amz-") || HEADERS.contains(&name);
        let mut headers = HeaderMap::new();
        for (name, value) in self.0.iter().filter(|(name, value)| is_header(name) && !value.is_empty()) {
            // Only metadata goes beyond ASCII.
            let is_fit = value.is_ascii() || name.starts_with("x-amz-meta-");
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes())) {
                (Ok(name), Ok(value)) if is_fit => _ = headers.insert(name, value),
                _ => return Err(invalid(format!("The field '{name}' is not a header's name and value"))),
            }
        }
        Ok(headers)
    }

    /// Puts the file's name where fields have `${filename}`.
    fn expand(&mut self, filename: &str) {
        // Old browsers tell the whole path.
        let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
        for (_, value) in self.0.iter_mut().filter(|(field, _)| !VERBATIM.contains(&field.as_str())) {
            if value.contains("${filename}") {
                *value = value.replace("${filename}", name);
            }
        }
    }
}

/// A form being read.
pub struct Form {
    parts: Multipart<'static>,
    flow: Arc<Flow>,
}

/// What a form lets through to multer, which takes all that it can get, and holds it.
struct Flow {
    /// Bytes that may still be read.
    room: AtomicU64,
    /// Once nothing: it is to use what it has.
    hold: AtomicBool,
}

impl Form {
    /// Of a body with its `Content-Type`.
    pub fn new<S>(body: S, content_type: &str) -> S3Result<Self>
    where
        S: Stream<Item = Result<Bytes, StdError>> + Send + Unpin + 'static,
    {
        // What a piece has beyond the fields may be the file's.
        let flow = Arc::new(Flow { room: AtomicU64::new(FIELDS_MAX + PIECE as u64), hold: AtomicBool::new(true) });
        let pieces = Pieces { body, part: Bytes::new(), flow: flow.clone() };
        Ok(Form { parts: Multipart::new(pieces, multer::parse_boundary(content_type).map_err(malformed)?), flow })
    }

    /// All fields before the file, with its name put in, and the file.
    pub async fn read(&mut self) -> S3Result<(Fields, Field<'static>)> {
        let mut fields = Fields::default();
        while let Some(part) = self.parts.next_field().await.map_err(malformed)? {
            self.flow.hold.store(true, Ordering::Relaxed);
            let Some((name, filename)) = part.headers().get(CONTENT_DISPOSITION).and_then(|v| disposition(v.as_bytes())) else {
                return Err(error(S3ErrorCode::MalformedPOSTRequest, "A part of your POST request has no name."));
            };
            let name = name.to_ascii_lowercase();
            if name == "file" {
                self.flow.room.store(u64::MAX, Ordering::Relaxed);
                fields.expand(&filename.unwrap_or_default());
                return Ok((fields, part));
            }
            let value = part.bytes().await.map_err(malformed)?;
            self.flow.hold.store(true, Ordering::Relaxed);
            let value = String::from_utf8(value.into()).map_err(|_| invalid(format!("The field '{name}' is not UTF-8")))?;
            if fields.0.insert(name.clone(), value).is_some() {
                // Of which the policy would allow one, and the other be kept.
                return Err(invalid(format!("POST requires each field at most once: '{name}'")));
            }
        }
        Err(invalid("POST requires exactly one file upload per request."))
    }

    /// Reads on, but no more than `most` bytes, so that the connection can be used again.
    pub async fn skip(mut self, most: u64) {
        self.flow.room.store(most, Ordering::Relaxed);
        while let Ok(Some(_)) = self.parts.next_field().await {}
    }
}

/// More was read than there was room for.
#[derive(Debug)]
struct TooLong;

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many bytes before the file")
    }
}

impl std::error::Error for TooLong {}

/// What is wrong with a form, by what multer says of it.
fn malformed(e: multer::Error) -> S3Error {
    match e {
        multer::Error::StreamReadFailed(e) if e.is::<TooLong>() => {
            let text = "Your POST request fields preceding the upload file were too large.";
            error(S3ErrorCode::MaxPostPreDataLengthExceededError, text)
        }
        multer::Error::StreamReadFailed(_) => crate::errors::plain(S3ErrorCode::IncompleteBody),
        e => {
            error(S3ErrorCode::MalformedPOSTRequest, format!("The body of your POST request is not well-formed multipart/form-data: {e}."))
        }
    }
}

/// A body in pieces, one at a time.
struct Pieces<S> {
    body: S,
    part: Bytes,
    flow: Arc<Flow>,
}

impl<S: Stream<Item = Result<Bytes, StdError>> + Unpin> Stream for Pieces<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.flow.hold.swap(false, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while self.part.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(cx)) {
                Some(Ok(part)) => self.part = part,
                other => return Poll::Ready(other),
            }
        }
        let len = self.part.len().min(PIECE);
        let room = self.flow.room.load(Ordering::Relaxed);
        let Some(left) = room.checked_sub(len as u64) else { return Poll::Ready(Some(Err(TooLong.into()))) };
        if room < u64::MAX {
            self.flow.room.store(left, Ordering::Relaxed);
        }
        self.flow.hold.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Ok(self.part.split_to(len))))
    }
}

/// The name and the file's name that a `Content-Disposition` gives, however its parameters are written and ordered.
fn disposition(header: &[u8]) -> Option<(String, Option<String>)> {
    let header = String::from_utf8_lossy(header);
    let (_, mut rest) = header.split_once(';')?;
    let (mut name, mut file, mut extended) = (None, None, None);
    while let Some((key, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => value.split_once(';').map_or((value.trim().to_string(), ""), |(value, after)| (value.trim().to_string(), after)),
        };
        match key.rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "name" => name = Some(value),
            "filename" => file = Some(value),
            "filename*" => extended = value.split_once("''").and_then(|(_, name)| unpercent(name)),
            _ => {}
        }
        rest = after;
    }
    Some((name?, file.or(extended)))
}

/// What stands before the closing quotation mark, and after it. A backslash is itself, but before such a mark:
/// paths of Windows have them.
fn unquoted(quoted: &str) -> Option<(String, &str)> {
    let mut from = 0;
    loop {
        let at = from + quoted.get(from..)?.find('"')?;
        let (value, after) = (quoted.get(..at)?, quoted.get(at + 1..)?);
        if !value.ends_with('\\') {
            return Some((value.replace("\\\"", "\""), after));
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, TryStreamExt, stream};
    use proptest::prelude::*;

    /// A form's fields and file; it comes in pieces of so many bytes.
    async fn read(body: &[u8], cuts: usize) -> S3Result<(Fields, Vec<u8>)> {
        let parts: Vec<_> = body.chunks(cuts.max(1)).map(|part| Ok::<_, StdError>(Bytes::copy_from_slice(part))).collect();
        let mut form = Form::new(stream::iter(parts), "multipart/form-data; boundary=\"e\"")?;
        let (fields, file) = form.read().await?;
        let file = file.map_err(malformed).try_fold(Vec::new(), |mut all, part| async move {
            assert!(part.len() <= 2 * PIECE, "a piece of {}", part.len());
            all.extend_from_slice(&part);
            Ok(all)
        });
        let file = file.await?;
        form.skip(1 << 20).await;
        Ok((fields, file))
    }

    fn part(name: &str, value: &str) -> String {
        format!("--e\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[tokio::test]
    async fn fields_are_read_up_to_the_file() {
        let file = "--e\r\nContent-Type: a/b\r\ncontent-disposition:form-data; filename=\"C:\\dir\\a b.txt\"; name=file\r\nContent-Length: 9\r\n\r\n\r\n--x\r\n-\r\n";
        let form =
            ["preamble\r\n", &part("KEY", "up/${filename}"), &part("policy", "${filename}"), file, &part("late", "x"), "--e--\r\nepilogue"]
                .concat();
        for cuts in [1, 2, 7, 100, 10_000] {
            let (read, file) = read(form.as_bytes(), cuts).await.unwrap();
            assert_eq!(read, fields(&[("key", "up/a b.txt"), ("policy", "${filename}")]), "{cuts}");
            assert_eq!(file, b"\r\n--x\r\n-", "{cuts}");
        }
    }

    #[tokio::test]
    async fn a_file_is_never_held() {
        let body = "\r\n--".repeat(1_000_000);
        // Many short fields do not draw in what follows them.
        let fields: String = (0..500).map(|n| part(&format!("x-ignore-{n}"), "")).collect();
        let form = [&fields, &part("file", &body), "--e--"].concat();
        for cuts in [100, 5_000, 1 << 20] {
            let (fields, file) = read(form.as_bytes(), cuts).await.unwrap();
            assert_eq!(fields.names().count(), 500);
            assert!(file == body.as_bytes());
        }
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let code = async |form: &str| read(form.as_bytes(), 10).await.unwrap_err().code().as_str().to_string();
        assert_eq!(code("").await, "MalformedPOSTRequest");
        assert_eq!(code("garbage").await, "MalformedPOSTRequest");
        assert_eq!(code("--e\r\nX: y\r\n\r\nvalue\r\n--e--").await, "MalformedPOSTRequest");
        assert_eq!(code(&part("key", "k")).await, "MalformedPOSTRequest");
        assert_eq!(code(&part("file", "cut")).await, "MalformedPOSTRequest");
        assert_eq!(code(&[&part("key", "k"), "--e--"].concat()).await, "InvalidArgument");
        assert_eq!(code(&[part("key", "k"), part("Key", "l"), part("file", "")].concat()).await, "InvalidArgument");
        assert_eq!(code(&part("key", &"k".repeat(200_000))).await, "MaxPostPreDataLengthExceededError");
        assert_eq!(code(&"p".repeat(200_000)).await, "MaxPostPreDataLengthExceededError");
        for bad in ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary="] {
            let form = Form::new(stream::empty::<Result<Bytes, StdError>>().boxed(), bad);
            assert!(form.is_err() || form.unwrap().read().await.is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        let found = |header: &str| disposition(header.as_bytes()).map(|(name, file)| (name, file.unwrap_or("-".into())));
        for (header, name, file) in [
            ("form-data; name=\"file\"", "file", "-"),
            ("form-data; name=\"file\"; filename=\"\"", "file", ""),
            ("form-data;name=file;filename=a.txt", "file", "a.txt"),
            ("form-data; filename=\"a name=x; b.txt\"; Name = \"file\"", "file", "a name=x; b.txt"),
            ("form-data; name=\"a\\\"b\"; filename=\"ä%22.txt\"", "a\"b", "ä%22.txt"),
            ("form-data; filename*=UTF-8''%c3%a4.txt; name=file", "file", "ä.txt"),
            ("form-data; name=file; filename*=UTF-8''b; filename=a", "file", "a"),
            ("form-data; x; name=file; y", "file", "-"),
        ] {
            assert_eq!(found(header), Some((name.to_string(), file.to_string())), "{header}");
        }
        for bad in ["form-data", "", "form-data; name=\"x", "form-data; filename=a", ";"] {
            assert_eq!(found(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_name_of_the_file_is_what_follows_the_last_slash() {
        for (filename, expected) in
            [("a.txt", "k/a.txt-a.txt"), ("x/y\\a", "k/a-a"), ("x/", "k/-"), ("", "k/-"), ("${filename}", "k/${filename}-${filename}")]
        {
            let mut form = fields(&[("key", "k/${filename}-${filename}")]);
            form.expand(filename);
            assert_eq!(form, fields(&[("key", expected)]), "{filename}");
        }
    }

    #[test]
    fn fields_that_cannot_be_headers_are_refused() {
        let headers = fields(&[("Cache-Control", "no-cache"), ("x-amz-meta-a", "ä"), ("expires", ""), ("key", "a\nb")]).headers().unwrap();
        assert_eq!(headers.len(), 2);
        for (name, value) in
            [("x-amz-meta-a", "a\r\nb"), ("x-amz-meta-ä", "a"), ("x-amz-meta-a b", "a"), ("content-type", "ä"), ("content-type", "\0")]
        {
            assert!(fields(&[(name, value)]).headers().is_err(), "{name}: {value:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_read_or_refused(header in prop::collection::vec(any::<u8>(), 0..80), text in "[ ;=\"\\\\a*'%]{0,30}") {
            let _ = disposition(&header);
            let _ = disposition(format!("form-data; {text}").as_bytes());
        }
    }
}
