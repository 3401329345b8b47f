//! Ranges of bytes as typed, in the form that HTTP has made known (RFC 9110, 14.1.2): `A-B` with
//! both ends included, `A-` to the end, `-N` the last N.

use std::str::FromStr;

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From a byte to another, both included; `None`: to the end.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no range: write 0-99, 100- or -100");
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse::<u64>().map_err(|_| bad()) } else { Err(bad()) }
        };
        match text.split_once('-').ok_or_else(bad)? {
            ("", last) => Ok(Range::Last(number(last)?)),
            (from, "") => Ok(Range::From(number(from)?, None)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                if to < from {
                    return Err(format!("'{text}' ends before it begins"));
                }
                Ok(Range::From(from, Some(to)))
            }
        }
    }
}

impl Range {
    /// Whether the size of the file must be known.
    pub fn needs_size(&self) -> bool {
        matches!(self, Range::Last(_))
    }

    /// The bytes that it means in a file of `size`; none beyond its end.
    pub fn within(&self, size: u64) -> std::ops::Range<u64> {
        match *self {
            Range::From(from, to) => from.min(size)..to.map_or(size, |to| to.saturating_add(1).min(size)),
            Range::Last(n) => size.saturating_sub(n)..size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        let of = |text: &str| text.parse::<Range>().unwrap().within(1000);
        assert_eq!([of("0-0"), of("10-19"), of("990-"), of("-10"), of("-5000")], [0..1, 10..20, 990..1000, 990..1000, 0..1000]);
        assert_eq!([of("999-2000"), of("1000-"), of("5000-6000")], [999..1000, 1000..1000, 1000..1000]);
        assert_eq!("5-18446744073709551615".parse::<Range>().unwrap().within(u64::MAX), 5..u64::MAX);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "-", "5", "9-5", "a-b", "1-2-3", "+1-2", "-1x", "99999999999999999999-"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
    }
}
