//! What headers ask for that there is not, told before anything of a request is done: whoever asks for encryption
//! under a key of theirs, or for a lock, must not believe to have got it.

use crate::body::ALGORITHMS;
use crate::errors::{error, not_here};
use hyper::HeaderMap;
use s3s::{S3ErrorCode, S3Result};

/// Begins the names of headers with checksums.
const SUM: &str = "x-amz-checksum-";
/// Names the algorithm of a checksum that is to be made.
const ALGORITHM: &str = "x-amz-checksum-algorithm";

/// Refuses what an operation's headers ask for in vain.
pub fn check(operation: &str, headers: &HeaderMap) -> S3Result<()> {
    let value = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let any = |prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
    let invalid = |text: &'static str| Err(error(S3ErrorCode::InvalidArgument, text));
    let reads = ["GetObject", "HeadObject", "GetObjectAttributes"].contains(&operation);
    if any("x-amz-server-side-encryption-customer-") || any("x-amz-copy-source-server-side-encryption-customer-") {
        if reads {
            return Err(error(S3ErrorCode::InvalidRequest, "The encryption parameters are not applicable to this object."));
        }
        return Err(not_here("encryption with keys of the request (SSE-C); everything is encrypted before it leaves this machine"));
    }
    match value("x-amz-server-side-encryption") {
        Some(_) if reads => return invalid("x-amz-server-side-encryption header is not supported for this operation."),
        Some("aws:kms" | "aws:kms:dsse") => {
            return Err(not_here("encryption with a key service (SSE-KMS); everything is encrypted before it leaves this machine"));
        }
        Some("AES256") | None => {}
        Some(_) => return invalid("The encryption method specified is not supported"),
    }
    if any("x-amz-server-side-encryption-aws-kms-key-id") || any("x-amz-server-side-encryption-context") {
        return invalid("Server Side Encryption with KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms");
    }
    let (mode, until) = (any("x-amz-object-lock-mode"), any("x-amz-object-lock-retain-until-date"));
    if mode != until {
        return invalid("x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied");
    }
    if mode || any("x-amz-object-lock-legal-hold") {
        return Err(error(S3ErrorCode::InvalidRequest, "Bucket is missing Object Lock Configuration"));
    }
    check_sums(headers)?;
    if let Some(source) = headers.get("x-amz-copy-source") {
        let path = source.to_str().ok().and_then(|text| crate::keys::unpercent(text.split('?').next().unwrap_or_default()));
        let names = path.as_deref().map(|p| p.trim_start_matches('/')).and_then(|p| p.split_once('/'));
        if names.is_none_or(|(bucket, key)| bucket.is_empty() || key.is_empty()) {
            return invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
        }
    }
    for (name, text) in
        [("x-amz-metadata-directive", "Unknown metadata directive."), ("x-amz-tagging-directive", "Unknown tagging directive.")]
    {
        if value(name).is_some_and(|directive| !["COPY", "REPLACE"].contains(&directive)) {
            return invalid(text);
        }
    }
    match value("x-amz-object-ownership") {
        Some("BucketOwnerEnforced") | None => {}
        Some("BucketOwnerPreferred" | "ObjectWriter") => return Err(not_here("ACLs; what is stored here is the owner's")),
        Some(_) => return invalid("Invalid x-amz-object-ownership header"),
    }
    if any("x-amz-grant-") {
        return Err(no_acls());
    }
    Ok(())
}

/// Refuses checksums that would not be looked at, and algorithms without them.
fn check_sums(headers: &HeaderMap) -> S3Result<()> {
    let wrong = |text: String| Err(error(S3ErrorCode::InvalidRequest, text));
    let announced = headers.get("x-amz-trailer").and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let trailers = announced.split(',').map(str::trim).filter(|name| name.starts_with(SUM));
    let named = |name: &&str| name.starts_with(SUM) && ![ALGORITHM, "x-amz-checksum-type", "x-amz-checksum-mode"].contains(name);
    let carried: Vec<&str> = headers.keys().map(|name| name.as_str()).filter(named).collect();
    if headers.iter().any(|(name, value)| carried.contains(&name.as_str()) && value.is_empty()) {
        return wrong("Value for a x-amz-checksum- header is invalid.".into());
    }
    let all: Vec<&str> = carried.iter().copied().chain(trailers).collect();
    if let Some(other) = all.iter().find(|name| !ALGORITHMS.iter().any(|(_, header, _)| header == *name)) {
        return wrong(format!(
            "{other}: checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
        ));
    }
    if all.len() > 1 {
        return wrong("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.".into());
    }
    let Some(algorithm) = headers.get("x-amz-sdk-checksum-algorithm").and_then(|v| v.to_str().ok()) else { return Ok(()) };
    let header = format!("{SUM}{}", crate::body::known(algorithm)?.to_ascii_lowercase());
    match all.first() {
        Some(name) if *name == header => Ok(()),
        Some(_) => wrong("Value for x-amz-sdk-checksum-algorithm header is invalid.".into()),
        None => wrong(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.".into(),
        ),
    }
}

/// For an ACL that says more than that the owner owns it.
pub fn no_acls() -> s3s::S3Error {
    error(S3ErrorCode::AccessControlListNotSupported, "The bucket does not allow ACLs: what is stored here is the owner's")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    #[test]
    fn what_would_be_ignored_is_refused() {
        let code = |operation: &str, pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect();
            check(operation, &headers).err().map(|e| e.code().clone())
        };
        let sse = "x-amz-server-side-encryption";
        for (operation, pairs, expected) in [
            ("PutObject", &[(sse, "AES256"), ("x-amz-acl", "private")][..], None),
            ("PutObject", &[(sse, "aws:kms")], Some(S3ErrorCode::NotImplemented)),
            ("PutObject", &[(sse, "aes:kms")], Some(S3ErrorCode::InvalidArgument)),
            ("PutObject", &[(sse, "AES256"), ("x-amz-server-side-encryption-aws-kms-key-id", "k")], Some(S3ErrorCode::InvalidArgument)),
            ("PutObject", &[("x-amz-server-side-encryption-customer-key-md5", "x")], Some(S3ErrorCode::NotImplemented)),
            ("UploadPart", &[("x-amz-server-side-encryption-customer-algorithm", "AES256")], Some(S3ErrorCode::NotImplemented)),
            ("GetObject", &[("x-amz-server-side-encryption-customer-key", "x")], Some(S3ErrorCode::InvalidRequest)),
            ("HeadObject", &[(sse, "AES256")], Some(S3ErrorCode::InvalidArgument)),
            ("PutObject", &[("x-amz-object-lock-retain-until-date", "2030-01-01")], Some(S3ErrorCode::InvalidArgument)),
            ("PutObject", &[("x-amz-object-lock-legal-hold", "ON")], Some(S3ErrorCode::InvalidRequest)),
            ("CopyObject", &[("x-amz-metadata-directive", "COPY"), ("x-amz-tagging-directive", "REPLACE")], None),
            ("CopyObject", &[("x-amz-copy-source", "/bucket/a%20b?versionId=null")], None),
            ("CopyObject", &[("x-amz-copy-source", "bucket/")], Some(S3ErrorCode::InvalidArgument)),
            ("CopyObject", &[("x-amz-copy-source", "bucket/%ZZ")], Some(S3ErrorCode::InvalidArgument)),
            ("CopyObject", &[("x-amz-tagging-directive", "OTHER")], Some(S3ErrorCode::InvalidArgument)),
            ("PutObject", &[("x-amz-checksum-sha512", "x")], Some(S3ErrorCode::InvalidRequest)),
            ("PutObject", &[("x-amz-checksum-crc32", "")], Some(S3ErrorCode::InvalidRequest)),
            ("PutObject", &[("x-amz-checksum-crc32", "x"), ("x-amz-trailer", "x-amz-checksum-crc32")], Some(S3ErrorCode::InvalidRequest)),
            ("PutObject", &[("x-amz-sdk-checksum-algorithm", "CRC32"), ("x-amz-trailer", "x-amz-checksum-crc32")], None),
            ("PutObject", &[("x-amz-sdk-checksum-algorithm", "CRC32"), ("x-amz-checksum-crc32c", "x")], Some(S3ErrorCode::InvalidRequest)),
            ("PutObject", &[("x-amz-sdk-checksum-algorithm", "CRC32")], Some(S3ErrorCode::InvalidRequest)),
            ("CreateMultipartUpload", &[("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", "FULL_OBJECT")], None),
            ("CreateBucket", &[("x-amz-object-ownership", "ObjectWriter")], Some(S3ErrorCode::NotImplemented)),
            ("CreateBucket", &[("x-amz-grant-read-acp", "id=x")], Some(S3ErrorCode::AccessControlListNotSupported)),
        ] {
            assert_eq!(code(operation, pairs), expected, "{operation} {pairs:?}");
        }
    }
}
