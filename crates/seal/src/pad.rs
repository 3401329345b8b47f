//! Padding hides exact sizes: Padmé for contents, multiples of 128 for entries, zeros always.

use model::{Error, Result};

/// Shortest padded content, in bytes.
pub const CONTENT_MIN: usize = 256;
/// Entries are padded to a multiple of this, in bytes.
pub const ENTRY_STEP: usize = 128;

/// The padded length of `len` bytes of content: Padmé (Nikitin et al., PETS 2019) of at least 256
/// bytes. Overhead at most 12 %; a length tells O(log log) bits. A full chunk (4 MiB) stays as it is.
pub fn padme(len: usize) -> usize {
    let len = len.max(CONTENT_MIN);
    let exponent = usize::BITS - 1 - len.leading_zeros();
    let kept = u32::BITS - exponent.leading_zeros();
    let mask = (1usize << (exponent - kept)) - 1;
    (len + mask) & !mask
}

/// `Corrupt` unless all bytes are zero.
pub(crate) fn check_zeros(bytes: &[u8]) -> Result<()> {
    if bytes.iter().fold(0, |acc, b| acc | b) == 0 { Ok(()) } else { Err(Error::corrupt("the padding is not zero")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_values() {
        for (len, padded) in [(0, 256), (1, 256), (256, 256), (257, 272), (272, 272), (1000, 1024), (4096, 4096), (4097, 4352)] {
            assert_eq!(padme(len), padded, "{len}");
        }
        assert_eq!(padme(model::chunk::CHUNK_SIZE), model::chunk::CHUNK_SIZE);
        assert_eq!(padme(model::chunk::CHUNK_SIZE - 1), model::chunk::CHUNK_SIZE);
    }

    #[test]
    fn padme_is_monotone_idempotent_and_below_twelve_percent() {
        let mut last = 0;
        for len in (0..70_000).chain((0..200).map(|i| (4 << 20) - i * 1013)) {
            let p = padme(len);
            assert!(p >= len && p == padme(p));
            assert!(len < 256 || p * 100 <= len * 112, "{len} {p}");
            if len < 70_000 {
                assert!(p >= last);
                last = p;
            }
        }
    }
}
