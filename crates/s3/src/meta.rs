//! What is kept of an object beside its content: sealed in its entry, under the property `s3`.
//!
//! ```text
//! property s3 = CBOR map { 0: version 1, 1: MD5, 2: [[parts, bytes]…] of a multipart upload, 3: headers,
//!                          4: user metadata, 5: tags, 6: checksum, 7: version id, 8: mark of deletion,
//!                          9: last modified, ms, 10: multipart upload }
//! ```
//! A file that came by another way has none of it: its ETag is made of its id and revision, in the form of a
//! multipart one, so that no tool takes it for an MD5.

use client::{Entry, Properties};
use data_encoding::{BASE64, HEXLOWER};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use model::cbor;
use s3s::dto::{Checksum, ChecksumAlgorithm, ChecksumType, ETag, Metadata, Tag, Timestamp};
use std::time::{Duration, UNIX_EPOCH};

/// The property's key.
const KEY: &[u8] = b"s3";
/// The one version of its encoding.
const VERSION: u8 = 1;
/// The type of what was stored without one.
pub const DEFAULT_TYPE: &str = "binary/octet-stream";

/// What is kept of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Meta {
    /// Of this encoding; 0 where nothing was kept.
    #[n(0)]
    pub(crate) version: u8,
    /// MD5 of the content, or of the MD5s of its parts.
    #[n(1)]
    pub md5: Option<ByteArray<16>>,
    /// Parts of a multipart upload: how many of how many bytes, in order.
    #[n(2)]
    #[cbor(default)]
    pub parts: Vec<(u32, u64)>,
    /// Headers that come back as they were given.
    #[n(3)]
    #[cbor(default)]
    pub headers: Headers,
    /// `x-amz-meta-…`, sorted.
    #[n(4)]
    #[cbor(default)]
    pub user: Vec<(String, String)>,
    /// Tags, in the order given.
    #[n(5)]
    #[cbor(default)]
    pub tags: Vec<(String, String)>,
    /// Checksum of the content.
    #[n(6)]
    pub checksum: Option<Sum>,
    /// Id of the version, where the bucket keeps versions; otherwise it is the version `null`.
    #[n(7)]
    pub id: Option<String>,
    /// It says that the object was deleted.
    #[n(8)]
    #[cbor(default)]
    pub deleted: bool,
    /// When it was stored, milliseconds since 1970. Changes of tags leave it.
    #[n(9)]
    pub modified_ms: Option<u64>,
    /// The multipart upload that it came by: whoever completes that again hears that it is done.
    #[n(10)]
    pub upload: Option<String>,
    /// Of a part: its CRC64NVME, in base64, where its checksum is another one.
    #[n(11)]
    pub crc64: Option<String>,
}

/// Headers that S3 keeps with an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Headers {
    /// `Content-Type`.
    #[n(0)]
    pub content_type: Option<String>,
    /// `Cache-Control`.
    #[n(1)]
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    #[n(2)]
    pub disposition: Option<String>,
    /// `Content-Encoding`.
    #[n(3)]
    pub encoding: Option<String>,
    /// `Content-Language`.
    #[n(4)]
    pub language: Option<String>,
    /// `Expires`, seconds since 1970.
    #[n(5)]
    pub expires: Option<i64>,
    /// `x-amz-storage-class`: kept and shown; all classes are stored alike.
    #[n(6)]
    pub storage_class: Option<String>,
    /// `x-amz-website-redirect-location`.
    #[n(7)]
    pub redirect: Option<String>,
}

/// A checksum of an object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Sum {
    /// As S3 names it: `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1`, `SHA256`.
    #[n(0)]
    pub algorithm: String,
    /// In base64, with `-N` where it is one of parts' checksums.
    #[n(1)]
    pub value: String,
}

impl Sum {
    /// Of one algorithm, from among those computed.
    pub fn of(sums: &Checksum, algorithm: &str) -> Option<Self> {
        let value = match algorithm {
            ChecksumAlgorithm::CRC32 => &sums.checksum_crc32,
            ChecksumAlgorithm::CRC32C => &sums.checksum_crc32c,
            ChecksumAlgorithm::CRC64NVME => &sums.checksum_crc64nvme,
            ChecksumAlgorithm::SHA1 => &sums.checksum_sha1,
            ChecksumAlgorithm::SHA256 => &sums.checksum_sha256,
            _ => return None,
        };
        value.clone().map(|value| Sum { algorithm: algorithm.into(), value })
    }

    /// Whether it is one of the parts' checksums, not of the whole.
    pub fn is_composite(&self) -> bool {
        self.value.contains('-')
    }

    /// As responses have it.
    pub fn to_checksum(&self) -> Checksum {
        let mut sums = Checksum::default();
        let value = Some(self.value.clone());
        match self.algorithm.as_str() {
            ChecksumAlgorithm::CRC32 => sums.checksum_crc32 = value,
            ChecksumAlgorithm::CRC32C => sums.checksum_crc32c = value,
            ChecksumAlgorithm::CRC64NVME => sums.checksum_crc64nvme = value,
            ChecksumAlgorithm::SHA1 => sums.checksum_sha1 = value,
            ChecksumAlgorithm::SHA256 => sums.checksum_sha256 = value,
            _ => return sums,
        }
        let kind = if self.is_composite() { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
        sums.checksum_type = Some(ChecksumType::from_static(kind));
        sums
    }

    /// The bytes of a checksum of a part; `None` where it is no such thing.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.value.as_bytes()).ok()
    }
}

impl Meta {
    /// Of an object that is stored now.
    pub fn new(now_ms: u64) -> Self {
        Meta { version: VERSION, modified_ms: Some(now_ms), ..Meta::default() }
    }

    /// Of an entry. What no version of this gateway wrote counts as nothing.
    pub fn of(entry: &Entry) -> Self {
        let kept = entry.property(KEY).and_then(|value| minicbor::decode::<Meta>(value).ok());
        kept.filter(|meta| meta.version == VERSION).unwrap_or_default()
    }

    /// As a property of an entry.
    pub fn to_properties(&self) -> Properties {
        let kept = Meta { version: VERSION, ..self.clone() };
        Properties::one(KEY, cbor::to_vec(&kept))
    }

    /// The ETag of an entry that has this.
    pub fn etag(&self, entry: &Entry) -> String {
        match &self.md5 {
            Some(md5) if self.parts.is_empty() => HEXLOWER.encode(&**md5),
            Some(md5) => format!("{}-{}", HEXLOWER.encode(&**md5), self.part_count()),
            None => format!("{}-{}", HEXLOWER.encode(&entry.id.0), entry.version),
        }
    }

    /// Parts of the multipart upload that it came by; 0: it did not.
    pub fn part_count(&self) -> u64 {
        self.parts.iter().map(|(count, _)| u64::from(*count)).sum()
    }

    /// The checksum of an algorithm, where it is kept.
    pub fn sum_of(&self, algorithm: &str) -> Option<Sum> {
        let other = || {
            let value = self.crc64.clone().filter(|_| algorithm == ChecksumAlgorithm::CRC64NVME)?;
            Some(Sum { algorithm: algorithm.into(), value })
        };
        self.checksum.clone().filter(|sum| sum.algorithm == algorithm).or_else(other)
    }

    /// Where part `number` (from 1) begins, and how long it is.
    pub fn part(&self, number: u64) -> Option<(u64, u64)> {
        let (mut before, mut start) = (0, 0u64);
        for (count, bytes) in &self.parts {
            let within = number.checked_sub(before + 1)?;
            if within < u64::from(*count) {
                return Some((start + within * bytes, *bytes));
            }
            before += u64::from(*count);
            start += u64::from(*count) * bytes;
        }
        None
    }

    /// The sizes of parts, as kept.
    pub fn set_parts(&mut self, sizes: impl IntoIterator<Item = u64>) {
        self.parts.clear();
        for size in sizes {
            match self.parts.last_mut() {
                Some((count, bytes)) if *bytes == size => *count += 1,
                _ => self.parts.push((1, size)),
            }
        }
    }

    /// When an entry that has this was last modified, milliseconds since 1970.
    pub fn modified_ms(&self, entry: &Entry) -> u64 {
        self.modified_ms.unwrap_or_else(|| (entry.mtime_ns.max(0) / 1_000_000) as u64)
    }

    /// User metadata, as requests and responses have it.
    pub fn user_metadata(&self) -> Metadata {
        self.user.iter().cloned().collect()
    }

    /// Sets user metadata.
    pub fn set_user_metadata(&mut self, metadata: Option<Metadata>) {
        self.user = metadata.into_iter().flatten().collect();
        self.user.sort();
    }

    /// Tags, as responses have them.
    pub fn tag_set(&self) -> Vec<Tag> {
        self.tags.iter().map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
    }
}

/// An ETag as responses have it.
pub fn strong(etag: String) -> ETag {
    ETag::Strong(etag)
}

/// A time as responses have it.
pub fn timestamp(ms: u64) -> Timestamp {
    // Years beyond what a timestamp can hold do not come from clocks.
    (UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_and_found() {
        let mut meta = Meta::new(1);
        meta.set_parts([5, 5, 5, 2, 5]);
        assert_eq!(meta.parts, [(3, 5), (1, 2), (1, 5)]);
        assert_eq!(meta.part_count(), 5);
        assert_eq!(meta.part(0), None);
        assert_eq!(meta.part(1), Some((0, 5)));
        assert_eq!(meta.part(3), Some((10, 5)));
        assert_eq!(meta.part(4), Some((15, 2)));
        assert_eq!(meta.part(5), Some((17, 5)));
        assert_eq!(meta.part(6), None);
    }

    #[test]
    fn what_is_kept_comes_back() {
        let mut meta = Meta::new(1_700_000_000_000);
        meta.md5 = Some([7; 16].into());
        meta.user = vec![("a".into(), "ä".into())];
        meta.tags = vec![("k".into(), "v".into())];
        meta.checksum = Some(Sum { algorithm: "CRC32".into(), value: "AAAAAA==".into() });
        meta.headers.content_type = Some("text/plain".into());
        let bytes = minicbor::to_vec(&meta).unwrap();
        assert_eq!(minicbor::decode::<Meta>(&bytes).unwrap(), meta);
        for len in 0..bytes.len() {
            assert!(minicbor::decode::<Meta>(&bytes[..len]).is_err(), "{len}");
        }
    }
}
