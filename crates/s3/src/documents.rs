//! Documents that requests bring (XML mostly): short, read whole, and checked against the digests that came with them
//! before anything is done. s3s parses them without looking at those.

use crate::body::{ALGORITHMS, decoded_len};
use crate::errors::{error, plain};
use bytes::{Bytes, BytesMut};
use client::Env;
use data_encoding::{BASE64, HEXLOWER};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::ChecksumAlgorithm;
use s3s::{S3Error, S3ErrorCode, S3Result};
use std::time::Duration;

/// Longest document, in bytes.
pub const DOCUMENT_MAX: usize = 4 << 20;
/// Time in which it must come.
const READ_TIME: Duration = Duration::from_secs(60);

/// Reads a document and checks it. `must_be_digested`: one without any digest is refused.
pub async fn read(body: Incoming, headers: &HeaderMap, env: &Env, must_be_digested: bool) -> S3Result<Bytes> {
    let document = match env.timeout(READ_TIME, collect(body)).await {
        Some(document) => document?,
        None => return Err(plain(S3ErrorCode::IncompleteBody)),
    };
    check(headers, &document, must_be_digested)?;
    Ok(document)
}

async fn collect(mut body: Incoming) -> S3Result<Bytes> {
    let mut document = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| plain(S3ErrorCode::IncompleteBody))?.into_data() else { continue };
        if document.len() + part.len() > DOCUMENT_MAX {
            return Err(plain(S3ErrorCode::EntityTooLarge));
        }
        document.extend_from_slice(&part);
    }
    Ok(document.freeze())
}

/// Whether a document is what its headers say.
fn check(headers: &HeaderMap, document: &[u8], must_be_digested: bool) -> S3Result<()> {
    let value = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    let mut digested = false;
    if let Some(md5) = value("content-md5") {
        if decoded_len(md5) != Some(16) {
            return Err(plain(S3ErrorCode::InvalidDigest));
        }
        if md5 != BASE64.encode(&Md5::checksum(document)) {
            return Err(plain(S3ErrorCode::BadDigest));
        }
        digested = true;
    }
    for (algorithm, header, bytes) in ALGORITHMS {
        let Some(claimed) = value(header) else { continue };
        if decoded_len(claimed) != Some(bytes) {
            return Err(error(S3ErrorCode::InvalidRequest, format!("Value for {header} header is invalid.")));
        }
        if claimed != sum(algorithm, document) {
            let text = format!("The {algorithm} you specified did not match the calculated checksum.");
            return Err(error(S3ErrorCode::BadDigest, text));
        }
        digested = true;
    }
    if let Some(claimed) = value("x-amz-content-sha256").filter(|v| v.len() == 64)
        && !claimed.eq_ignore_ascii_case(&HEXLOWER.encode(&Sha256::checksum(document)))
    {
        return Err(crate::body::hash_mismatch());
    }
    if must_be_digested && !digested {
        return Err(missing_digest());
    }
    Ok(())
}

fn missing_digest() -> S3Error {
    error(S3ErrorCode::InvalidRequest, "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
}

fn sum(algorithm: &str, bytes: &[u8]) -> String {
    match algorithm {
        ChecksumAlgorithm::CRC32 => BASE64.encode(&Crc32::checksum(bytes)),
        ChecksumAlgorithm::CRC32C => BASE64.encode(&Crc32c::checksum(bytes)),
        ChecksumAlgorithm::CRC64NVME => BASE64.encode(&Crc64Nvme::checksum(bytes)),
        ChecksumAlgorithm::SHA1 => BASE64.encode(&Sha1::checksum(bytes)),
        _ => BASE64.encode(&Sha256::checksum(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[test]
    fn a_document_is_what_its_digests_say_or_refused() {
        let code = |pairs: &[(&'static str, String)], must| {
            let headers = pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_str(v).unwrap())).collect();
            check(&headers, b"<Delete/>", must).err().map(|e| e.code().as_str().to_string())
        };
        let md5 = |bytes: &[u8]| ("content-md5", BASE64.encode(&Md5::checksum(bytes)));
        assert_eq!(code(&[], false), None);
        assert_eq!(code(&[], true).as_deref(), Some("InvalidRequest"));
        assert_eq!(code(&[md5(b"<Delete/>")], true), None);
        assert_eq!(code(&[md5(b"<delete/>")], true).as_deref(), Some("BadDigest"));
        assert_eq!(code(&[("content-md5", "x".into())], true).as_deref(), Some("InvalidDigest"));
        assert_eq!(code(&[("x-amz-checksum-crc32", BASE64.encode(&Crc32::checksum(b"<Delete/>")))], true), None);
        assert_eq!(code(&[("x-amz-checksum-crc32", BASE64.encode(b"1234"))], true).as_deref(), Some("BadDigest"));
        assert_eq!(code(&[("x-amz-checksum-sha1", BASE64.encode(b"1234"))], true).as_deref(), Some("InvalidRequest"));
        let hash = |bytes: &[u8]| ("x-amz-content-sha256", HEXLOWER.encode(&Sha256::checksum(bytes)));
        assert_eq!(code(&[hash(b"<Delete/>")], false), None);
        assert_eq!(code(&[hash(b"")], false).as_deref(), Some("XAmzContentSHA256Mismatch"));
    }
}
