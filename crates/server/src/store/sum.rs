//! A sum over all rows, by which it is found that the database does not hold any more what was written.
//!
//! It is the sum of the rows' hashes modulo 2^128: it changes with each row by itself, whatever their
//! order (the additive hash of Bellare and Micciancio, "A New Paradigm for Collision-free Hashing:
//! Incrementality at Reduced Cost", 1997). It is against decay, not against malice: 128 bits of such a sum
//! do not stop somebody who chooses the rows.

/// A sum over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum(u128);

impl Sum {
    /// A row came.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(key, value));
    }

    /// A row went.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(key, value));
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Sum(u128::from_be_bytes(bytes))
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(value);
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[(&[u8], &[u8])]) -> Sum {
        rows.iter().fold(Sum::default(), |mut sum, (key, value)| {
            sum.add(key, value);
            sum
        })
    }

    #[test]
    fn it_is_of_the_rows_and_not_of_the_way_there() {
        let rows: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"b", b"2")];
        let mut long = of(&[rows[1], (b"c", b""), rows[0]]);
        assert_ne!(long, of(&rows));
        long.take(b"c", b"");
        assert_eq!(long, of(&rows));
        assert_eq!(Sum::from_bytes(long.to_bytes()), long);
    }

    #[test]
    fn bytes_that_move_from_key_to_value_count() {
        assert_ne!(of(&[(b"ab", b"c")]), of(&[(b"a", b"bc")]));
        assert_ne!(of(&[(b"a", b"1"), (b"b", b"2")]), of(&[(b"a", b"2"), (b"b", b"1")]));
    }
}
