//! Checksums of objects that were uploaded in parts: of the whole, computed from those of the parts (CRCs are
//! linear), or of the parts' checksums.

use crate::meta::Sum;
use crc_fast::{CrcAlgorithm, checksum_combine};
use data_encoding::BASE64;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Md5, Sha1, Sha256};
use s3s::dto::{ChecksumAlgorithm, ChecksumType};

/// A part: its checksum and its bytes.
pub type Part = (Option<Sum>, u64);

/// The MD5 of parts' MD5s: what the ETag of a multipart upload is made of.
pub fn md5_of(parts: impl IntoIterator<Item = [u8; 16]>) -> [u8; 16] {
    let mut md5 = Md5::new();
    parts.into_iter().for_each(|part| md5.update(&part));
    md5.finalize()
}

/// The kind of checksum that an algorithm has where the request does not say.
pub fn default_type(algorithm: &str) -> &'static str {
    if algorithm == ChecksumAlgorithm::CRC64NVME { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE }
}

/// Whether an algorithm can have a kind of checksum.
pub fn is_possible(algorithm: &str, kind: &str) -> bool {
    match algorithm {
        ChecksumAlgorithm::CRC64NVME => kind == ChecksumType::FULL_OBJECT,
        ChecksumAlgorithm::SHA1 | ChecksumAlgorithm::SHA256 => kind == ChecksumType::COMPOSITE,
        _ => [ChecksumType::FULL_OBJECT, ChecksumType::COMPOSITE].contains(&kind),
    }
}

/// The checksum of an object out of its parts; `None` where a part has none of this algorithm.
pub fn of_parts(algorithm: &str, kind: &str, parts: &[Part]) -> Option<Sum> {
    let sums: Vec<(Vec<u8>, u64)> = parts
        .iter()
        .map(|(sum, bytes)| sum.as_ref().filter(|s| s.algorithm == algorithm).and_then(Sum::bytes).map(|sum| (sum, *bytes)))
        .collect::<Option<_>>()?;
    let value = if kind == ChecksumType::FULL_OBJECT { whole(algorithm, &sums)? } else { composite(algorithm, &sums)? };
    Some(Sum { algorithm: algorithm.into(), value })
}

fn whole(algorithm: &str, sums: &[(Vec<u8>, u64)]) -> Option<String> {
    let (crc, bytes) = match algorithm {
        ChecksumAlgorithm::CRC32 => (CrcAlgorithm::Crc32IsoHdlc, 4),
        ChecksumAlgorithm::CRC32C => (CrcAlgorithm::Crc32Iscsi, 4),
        ChecksumAlgorithm::CRC64NVME => (CrcAlgorithm::Crc64Nvme, 8),
        _ => return None,
    };
    let number = |sum: &[u8]| sum.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let mut all = None;
    for (sum, len) in sums {
        all = Some(all.map_or(number(sum), |all| checksum_combine(crc, all, number(sum), *len)));
    }
    let all = all?.to_be_bytes();
    Some(BASE64.encode(all.get(8 - bytes..)?))
}

fn composite(algorithm: &str, sums: &[(Vec<u8>, u64)]) -> Option<String> {
    let all: Vec<u8> = sums.iter().flat_map(|(sum, _)| sum.iter().copied()).collect();
    let value = match algorithm {
        ChecksumAlgorithm::CRC32 => BASE64.encode(&Crc32::checksum(&all)),
        ChecksumAlgorithm::CRC32C => BASE64.encode(&Crc32c::checksum(&all)),
        ChecksumAlgorithm::SHA1 => BASE64.encode(&Sha1::checksum(&all)),
        ChecksumAlgorithm::SHA256 => BASE64.encode(&Sha256::checksum(&all)),
        _ => return None,
    };
    Some(format!("{value}-{}", sums.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::crypto::Crc64Nvme;

    #[test]
    fn the_checksum_of_the_whole_is_that_of_the_content() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i * 31 % 251) as u8).collect();
        let cut = [&content[..70_001], &content[70_001..70_002], &content[70_002..]];
        let sum = |algorithm: &str, bytes: &[u8]| match algorithm {
            "CRC32" => BASE64.encode(&Crc32::checksum(bytes)),
            "CRC32C" => BASE64.encode(&Crc32c::checksum(bytes)),
            _ => BASE64.encode(&Crc64Nvme::checksum(bytes)),
        };
        for algorithm in ["CRC32", "CRC32C", "CRC64NVME"] {
            let part = |bytes: &[u8]| (Some(Sum { algorithm: algorithm.into(), value: sum(algorithm, bytes) }), bytes.len() as u64);
            let parts: Vec<Part> = cut.iter().map(|bytes| part(bytes)).collect();
            assert_eq!(of_parts(algorithm, "FULL_OBJECT", &parts).unwrap().value, sum(algorithm, &content), "{algorithm}");
        }
        assert_eq!(of_parts("SHA256", "FULL_OBJECT", &[]), None);
        assert_eq!(of_parts("SHA1", "COMPOSITE", &[(None, 1)]), None);
    }
}
