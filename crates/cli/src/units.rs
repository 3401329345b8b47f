//! Sizes, durations, times and modes, as typed and as printed.

use std::time::Duration;

/// `10G`, `500MiB`, `4096`: bytes. Powers of 1024; `kB`, `MB`, … are powers of 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size: write 4096, 10M, 20GiB or 1.5T");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit = unit.trim();
    let power = |i: usize| i as i32 + 1;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        u => {
            let letter = u.chars().next().and_then(|c| "kmgtp".find(c)).ok_or_else(bad)?;
            match u.get(1..) {
                Some("" | "ib") => 1024f64.powi(power(letter)),
                Some("b") => 1000f64.powi(power(letter)),
                _ => return Err(bad()),
            }
        }
    };
    let bytes = number * factor;
    if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(bad()) }
}

/// `4.2 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&"")),
    }
}

/// `90s`, `30m`, `1h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no duration: write 90s, 30m, 1h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(bad)?))
}

/// `0.4 s`, `3.2 s`, `2 min 5 s`, `3 h 10 min`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{:.1} s", d.as_secs_f64()),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Years, months, days from days since 1970 (the proleptic Gregorian calendar; the algorithm is
/// the well-known one that counts years from March).
fn civil(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// RFC 3339 in UTC, from nanoseconds since 1970.
pub fn rfc3339_ns(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let s = seconds.rem_euclid(86_400);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", s / 3600, s / 60 % 60, s % 60)
}

/// RFC 3339 in UTC, from milliseconds since 1970.
pub fn rfc3339_ms(ms: u64) -> String {
    let ns = i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1_000_000));
    let text = rfc3339_ns(ns.unwrap_or(i64::MAX));
    // Milliseconds need no nine digits.
    match text.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{}Z", fraction.get(..3).unwrap_or("000")),
        None => text,
    }
}

/// `2026-11-21 08:51`, for columns.
pub fn short_time(ns: i64) -> String {
    rfc3339_ns(ns).replace('T', " ").chars().take(16).collect()
}

/// `-rw-r--r--`.
pub fn mode_letters(kind: char, mode: u32) -> String {
    let mut text = String::from(kind);
    for shift in [6, 3, 0] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(if bits & 1 != 0 { 'x' } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("10M"), Ok(10 << 20));
        assert_eq!(parse_size("20 GiB"), Ok(20 << 30));
        assert_eq!(parse_size("1.5k"), Ok(1536));
        assert_eq!(parse_size("2kB"), Ok(2000));
        for bad in ["", "G", "1X", "1Gi", "-5", "1e400", "1..2"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_durations_for_people() {
        assert_eq!([size(0), size(1023), size(1536), size(20 << 20)], ["0 B", "1023 B", "1.5 KiB", "20.0 MiB"]);
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(duration(Duration::from_millis(430)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "5", "h", "5y", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339_ns(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_ns(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339_ns(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339_ms(1_795_251_062_123), "2026-11-21T08:51:02.123Z");
        assert_eq!(rfc3339_ns(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(short_time(0), "1970-01-01 00:00");
    }

    #[test]
    fn modes_in_letters() {
        assert_eq!(mode_letters('-', 0o644), "-rw-r--r--");
        assert_eq!(mode_letters('d', 0o750), "drwxr-x---");
    }
}
