//! Objects and versions as S3's answers have them.

use crate::keys::unpercent;
use crate::meta::{DEFAULT_TYPE, strong, timestamp};
use crate::objects::range_of;
use crate::tree::Object;
use crate::versions::id_of;
use crate::views::Brief;
use hyper::Uri;
use hyper::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HeaderMap, HeaderValue,
};
use s3s::dto::{
    Checksum, ChecksumAlgorithm, ChecksumType, HeadObjectOutput, Object as Listed, ObjectAttributes, ObjectStorageClass, Owner, Range,
    ServerSideEncryption, StorageClass, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Result};
use std::ops;

/// What part of an object is asked for.
pub struct Portion {
    /// Its bytes.
    pub range: ops::Range<u64>,
    /// It is not the whole: answered as 206.
    pub partial: bool,
    /// How many parts the object has, where one was asked for by number.
    pub parts: Option<i32>,
}

/// The portion that a request asks for. `InvalidRange`, `InvalidPartNumber`.
pub fn portion(object: &Object, range: Option<&Range>, part: Option<i32>) -> S3Result<Portion> {
    let size = object.entry.size;
    match (range, part) {
        (Some(_), Some(_)) => {
            Err(S3Error::with_message(S3ErrorCode::InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
        (Some(range), None) => Ok(Portion { range: range_of(range, size)?, partial: true, parts: None }),
        (None, None) => Ok(Portion { range: 0..size, partial: false, parts: None }),
        (None, Some(number)) => {
            crate::multipart::check_number(number)?;
            let count = object.meta.part_count();
            let found = match u64::try_from(number) {
                Ok(1) if count == 0 => Some((0, size)),
                Ok(number) => object.meta.part(number),
                Err(_) => None,
            };
            let (start, len) = found.ok_or_else(no_such_part)?;
            let parts = i32::try_from(count).ok().filter(|n| *n > 0);
            Ok(Portion { range: start..start + len, partial: true, parts })
        }
    }
}

fn no_such_part() -> S3Error {
    let mut e = S3Error::with_message(S3ErrorCode::Custom("InvalidPartNumber".into()), "The requested partnumber is not satisfiable");
    e.set_status_code(hyper::StatusCode::RANGE_NOT_SATISFIABLE);
    e
}

/// The headers that a query asks for in the place of an object's own.
pub fn overrides(uri: &Uri) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs {
        let name = match name {
            "response-cache-control" => CACHE_CONTROL,
            "response-content-disposition" => CONTENT_DISPOSITION,
            "response-content-encoding" => CONTENT_ENCODING,
            "response-content-language" => CONTENT_LANGUAGE,
            "response-content-type" => CONTENT_TYPE,
            "response-expires" => EXPIRES,
            _ => continue,
        };
        let value = unpercent(&value.replace('+', " ")).and_then(|value| HeaderValue::from_str(&value).ok());
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    headers
}

/// Refuses attributes that no object has.
pub fn check_attributes(asked: &[ObjectAttributes]) -> S3Result<()> {
    let known = [
        ObjectAttributes::ETAG,
        ObjectAttributes::CHECKSUM,
        ObjectAttributes::OBJECT_PARTS,
        ObjectAttributes::STORAGE_CLASS,
        ObjectAttributes::OBJECT_SIZE,
    ];
    let mut names = asked.iter().flat_map(|a| a.as_str().split(',')).map(str::trim).peekable();
    if names.peek().is_none_or(|name| name.is_empty()) {
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, "The x-amz-object-attributes header names nothing"));
    }
    if names.any(|name| !known.contains(&name)) {
        return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "Invalid attribute name specified."));
    }
    Ok(())
}

/// What a HEAD says of an object, of a portion of it.
pub fn head(object: &Object, portion: &Portion, versions: bool, checksums: bool) -> HeadObjectOutput {
    let meta = &object.meta;
    let headers = &meta.headers;
    let whole = portion.range == (0..object.entry.size);
    let sums = meta.checksum.as_ref().filter(|_| checksums && whole).map(|s| s.to_checksum()).unwrap_or_default();
    let Checksum { checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256, checksum_type, .. } = sums;
    HeadObjectOutput {
        accept_ranges: Some("bytes".into()),
        cache_control: headers.cache_control.clone(),
        checksum_crc32,
        checksum_crc32c,
        checksum_crc64nvme,
        checksum_sha1,
        checksum_sha256,
        checksum_type,
        content_disposition: headers.disposition.clone(),
        content_encoding: headers.encoding.clone(),
        content_language: headers.language.clone(),
        content_length: Some((portion.range.end - portion.range.start) as i64),
        content_range: portion
            .partial
            .then(|| format!("bytes {}-{}/{}", portion.range.start, portion.range.end.saturating_sub(1), object.entry.size)),
        content_type: Some(headers.content_type.clone().unwrap_or_else(|| DEFAULT_TYPE.into())),
        e_tag: Some(strong(object.etag())),
        expires: headers.expires.and_then(|t| time::OffsetDateTime::from_unix_timestamp(t).ok()).map(Timestamp::from),
        last_modified: Some(timestamp(object.modified_ms())),
        metadata: Some(meta.user_metadata()).filter(|m| !m.is_empty()),
        parts_count: portion.parts,
        server_side_encryption: Some(ServerSideEncryption::from_static(ServerSideEncryption::AES256)),
        storage_class: headers.storage_class.clone().map(StorageClass::from),
        version_id: versions.then(|| id_of(meta).to_string()),
        website_redirect_location: headers.redirect.clone(),
        ..Default::default()
    }
}

/// An object in a listing.
pub fn listed(key: String, brief: &Brief, owner: Option<Owner>) -> Listed {
    let kind = if brief.composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    Listed {
        key: Some(key),
        size: Some(brief.size as i64),
        last_modified: Some(timestamp(brief.modified_ms)),
        e_tag: Some(strong(brief.etag.clone())),
        storage_class: Some(
            brief.storage_class.clone().map_or(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD), ObjectStorageClass::from),
        ),
        checksum_algorithm: brief.algorithm.clone().map(|a| vec![ChecksumAlgorithm::from(a)]),
        checksum_type: brief.algorithm.as_ref().map(|_| ChecksumType::from_static(kind)),
        owner,
        ..Default::default()
    }
}
