//! What a request brings: read once, hashed on the way, and checked at its end against all that the request said
//! of it, before anything is committed. Nothing is held but the part being read.

use crate::errors::{error, plain, refusal};
use crate::meta::Sum;
use bytes::{Buf, Bytes};
use data_encoding::BASE64;
use futures::Stream;
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{ChecksumAlgorithm, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// Checksum algorithms with the headers that carry them.
pub const ALGORITHMS: [(&str, &str, usize); 5] = [
    (ChecksumAlgorithm::CRC32, "x-amz-checksum-crc32", 4),
    (ChecksumAlgorithm::CRC32C, "x-amz-checksum-crc32c", 4),
    (ChecksumAlgorithm::CRC64NVME, "x-amz-checksum-crc64nvme", 8),
    (ChecksumAlgorithm::SHA1, "x-amz-checksum-sha1", 20),
    (ChecksumAlgorithm::SHA256, "x-amz-checksum-sha256", 32),
];

/// What a request says of its body.
#[derive(Default)]
pub struct Claims {
    /// Bytes.
    pub length: Option<u64>,
    /// Bytes that it may have.
    lengths: Option<RangeInclusive<u64>>,
    /// MD5, in base64.
    pub md5: Option<String>,
    /// The algorithm of the checksum to be kept.
    algorithm: Option<&'static str>,
    /// The checksum, in base64, where it came before the body.
    sum: Option<String>,
    /// The checksum is to come after the body.
    announced: bool,
    /// Headers that come after the body.
    trailers: Option<TrailingHeaders>,
}

/// What a request carries of checksums, as s3s reads it out of headers or a form.
#[derive(Default)]
pub struct Carried {
    /// `Content-MD5`.
    pub md5: Option<String>,
    /// `Content-Length`, of the body itself.
    pub length: Option<i64>,
    /// Values, in the order CRC32, CRC32C, CRC64NVME, SHA1, SHA256.
    pub sums: [Option<String>; 5],
    /// `x-amz-sdk-checksum-algorithm`.
    pub algorithm: Option<String>,
    /// Headers that come after the body.
    pub trailers: Option<TrailingHeaders>,
}

impl Claims {
    /// Of what a request carries. `wanted`: the algorithm that a multipart upload was begun with.
    pub fn of(carried: Carried, headers: &HeaderMap, wanted: Option<&str>) -> S3Result<Self> {
        let Carried { md5, length, sums, algorithm, trailers } = carried;
        if md5.as_ref().is_some_and(|md5| decoded_len(md5) != Some(16)) {
            return Err(plain(S3ErrorCode::InvalidDigest));
        }
        let mut claims = Claims { length: length.and_then(|l| u64::try_from(l).ok()), md5, trailers, ..Claims::default() };
        let announced = headers.get("x-amz-trailer").and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        for ((algorithm, header, bytes), value) in ALGORITHMS.into_iter().zip(sums) {
            if value.is_none() && !announced.split(',').any(|name| name.trim() == header) {
                continue;
            }
            if claims.algorithm.is_some() {
                let text = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
                return Err(error(S3ErrorCode::InvalidRequest, text));
            }
            if value.as_ref().is_some_and(|value| decoded_len(value) != Some(bytes)) {
                return Err(error(S3ErrorCode::InvalidRequest, format!("Value for {header} header is invalid.")));
            }
            claims.algorithm = Some(algorithm);
            claims.announced = value.is_none();
            claims.sum = value;
        }
        let named = match algorithm.as_deref().or(wanted) {
            Some(named) => Some(known(named)?),
            None => None,
        };
        let wanted = wanted.map(known).transpose()?;
        if let (Some(wanted), Some(given)) = (wanted, claims.algorithm)
            && wanted != given
        {
            return Err(error(S3ErrorCode::InvalidRequest, "Checksum Type mismatch occurred: the upload was begun with another one."));
        }
        claims.algorithm = claims.algorithm.or(wanted).or(named);
        Ok(claims)
    }

    /// And what a form's policy says of its length.
    pub fn within(self, lengths: RangeInclusive<u64>) -> Self {
        Claims { lengths: Some(lengths), ..self }
    }

    /// `EntityTooLarge`, `EntityTooSmall` for a body of this length, be it at its `end` or still to grow.
    fn check_length(&self, length: u64, end: bool) -> S3Result<()> {
        match &self.lengths {
            Some(lengths) if length > *lengths.end() => Err(plain(S3ErrorCode::EntityTooLarge)),
            Some(lengths) if end && length < *lengths.start() => {
                Err(error(S3ErrorCode::EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size."))
            }
            _ => Ok(()),
        }
    }

    /// The checksum that has to be, once the body is read.
    fn expected(&self) -> Option<String> {
        let algorithm = self.algorithm?;
        let (_, header, _) = ALGORITHMS.iter().find(|(a, ..)| *a == algorithm)?;
        let later = || self.trailers.as_ref()?.read(|h| h.get(*header)?.to_str().ok().map(str::to_string)).flatten();
        self.sum.clone().or_else(later)
    }
}

/// Bytes that base64 stands for; `None` for what is none.
pub fn decoded_len(base64: &str) -> Option<usize> {
    BASE64.decode(base64.as_bytes()).ok().map(|b| b.len())
}

/// An algorithm by name. `InvalidRequest` for one that does not exist.
pub fn known(named: &str) -> S3Result<&'static str> {
    let found = ALGORITHMS.iter().find(|(algorithm, ..)| named.eq_ignore_ascii_case(algorithm));
    found.map(|(algorithm, ..)| *algorithm).ok_or_else(|| error(S3ErrorCode::InvalidRequest, "Checksum algorithm provided is unsupported."))
}

/// What a body came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub length: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// The checksum kept.
    pub sum: Option<Sum>,
    /// CRC64NVME: those of parts give that of the whole.
    pub crc64: Option<Sum>,
}

/// How a body ended; shared with whoever stores it.
#[derive(Clone, Default)]
pub struct End(Arc<Mutex<Option<S3Result<Digest>>>>);

impl End {
    /// The digest of a body that was read to its end, or what was wrong with it. `None` while it is being read.
    pub fn take(&self) -> Option<S3Result<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// For the next one who asks.
    pub fn put_back(&self, end: S3Result<Digest>) {
        self.set(end);
    }

    fn set(&self, end: S3Result<Digest>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

/// A body being read.
pub struct Incoming {
    blob: Option<StreamingBlob>,
    part: Bytes,
    length: u64,
    md5: Option<Md5>,
    sums: ChecksumHasher,
    claims: Claims,
    end: End,
}

impl Incoming {
    /// A body, and where it tells how it ended.
    pub fn new(blob: Option<StreamingBlob>, claims: Claims) -> (Self, End) {
        // Without any the default of S3: cheap, and parts' ones give that of the whole.
        let algorithm = claims.algorithm.unwrap_or(ChecksumAlgorithm::CRC64NVME);
        let mut sums = ChecksumHasher::default();
        match algorithm {
            ChecksumAlgorithm::CRC32 => sums.crc32 = Some(Crc32::new()),
            ChecksumAlgorithm::CRC32C => sums.crc32c = Some(Crc32c::new()),
            ChecksumAlgorithm::SHA1 => sums.sha1 = Some(Sha1::new()),
            ChecksumAlgorithm::SHA256 => sums.sha256 = Some(Sha256::new()),
            _ => {}
        }
        sums.crc64nvme = Some(Crc64Nvme::new());
        let end = End::default();
        (Incoming { blob, part: Bytes::new(), length: 0, md5: Some(Md5::new()), sums, claims, end: end.clone() }, end)
    }

    /// All was read: what it came to, if that is what the request said.
    fn finish(&mut self) -> S3Result<Digest> {
        if self.claims.length.is_some_and(|length| length != self.length) {
            return Err(plain(S3ErrorCode::IncompleteBody));
        }
        self.claims.check_length(self.length, true)?;
        let md5: [u8; 16] = self.md5.take().unwrap_or_default().finalize();
        if self.claims.md5.as_ref().is_some_and(|claimed| *claimed != BASE64.encode(&md5)) {
            return Err(plain(S3ErrorCode::BadDigest));
        }
        let sums = std::mem::take(&mut self.sums).finalize();
        let sum = Sum::of(&sums, self.claims.algorithm.unwrap_or(ChecksumAlgorithm::CRC64NVME));
        let claimed = self.claims.expected();
        if self.claims.announced && claimed.is_none() {
            let text = "The request contained trailing data that was not well-formed";
            return Err(refusal("MalformedTrailerError", hyper::StatusCode::BAD_REQUEST, text));
        }
        if let (Some(claimed), Some(sum)) = (claimed, &sum)
            && claimed != sum.value
        {
            if decoded_len(&claimed) != decoded_len(&sum.value) {
                return Err(error(S3ErrorCode::InvalidRequest, format!("Value for the trailing {} is invalid.", sum.algorithm)));
            }
            return Err(error(
                S3ErrorCode::BadDigest,
                format!("The {} you specified did not match the calculated checksum.", sum.algorithm),
            ));
        }
        let crc64 = Sum::of(&sums, ChecksumAlgorithm::CRC64NVME);
        Ok(Digest { length: self.length, md5, sum, crc64 })
    }
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.part.is_empty() {
            let Some(blob) = &mut this.blob else { break };
            let part = match ready!(Pin::new(blob).poll_next(cx)) {
                Some(Ok(part)) => this.claims.check_length(this.length + part.len() as u64, false).map(|()| part),
                Some(Err(e)) => Err(broken(&e.to_string())),
                None => {
                    this.blob = None;
                    break;
                }
            };
            match part {
                Ok(part) => this.part = part,
                Err(e) => {
                    let told = io::Error::other(e.to_string());
                    (this.blob, this.md5) = (None, None);
                    this.end.set(Err(e));
                    return Poll::Ready(Err(told));
                }
            }
        }
        if this.part.is_empty() {
            if this.md5.is_none() {
                return Poll::Ready(Ok(()));
            }
            let end = this.finish();
            let told = end.as_ref().err().map(|e| io::Error::other(e.to_string()));
            this.md5 = None;
            this.end.set(end);
            return Poll::Ready(told.map_or(Ok(()), Err));
        }
        let len = this.part.len().min(buf.remaining());
        let taken = this.part.get(..len).unwrap_or_default();
        if let Some(md5) = &mut this.md5 {
            md5.update(taken);
        }
        this.sums.update(taken);
        buf.put_slice(taken);
        this.length += len as u64;
        this.part.advance(len);
        Poll::Ready(Ok(()))
    }
}

/// The error of a body that broke, by what s3s says of it (its types are its own).
fn broken(text: &str) -> S3Error {
    let code = if text.contains("SignatureMismatch") {
        S3ErrorCode::SignatureDoesNotMatch
    } else if text.contains("Sha256Mismatch") {
        return hash_mismatch();
    } else if text.contains("FormatError") || text.contains("TooLarge") || text.contains("TooMany") {
        return error(S3ErrorCode::IncompleteBody, "The aws-chunked body is malformed");
    } else {
        S3ErrorCode::IncompleteBody
    };
    plain(code)
}

/// That a body is not the one whose hash was signed.
pub fn hash_mismatch() -> S3Error {
    let text = "The provided 'x-amz-content-sha256' header does not match what was computed.";
    refusal("XAmzContentSHA256Mismatch", hyper::StatusCode::BAD_REQUEST, text)
}
