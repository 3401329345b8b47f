//! The policy of a form: until when it may be sent, and what its fields may be.
//!
//! ```text
//! policy     = base64 JSON { "expiration": "2030-01-01T12:00:00.000Z", "conditions": [ condition… ] }
//! condition  = { "field": "value" } | [ "eq" | "starts-with", "$field", "value" ] | [ "content-length-range", min, max ]
//! ```
//! As AWS describes it under "POST Policy". A field that no condition names is refused: what the signer did not think
//! of is not allowed.

use super::fields::Fields;
use crate::errors::error;
use crate::objects::PUT_MAX;
use data_encoding::BASE64;
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Fields that need no condition, beside `x-ignore-…`.
const FREE: [&str; 4] = ["x-amz-signature", "signature", "awsaccesskeyid", "policy"];

/// What the owner of a key allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// When it ends, milliseconds since 1970.
    expires_ms: i128,
    conditions: Vec<Condition>,
}

/// Of a field, its name in lower case.
#[derive(Debug, PartialEq, Eq)]
enum Condition {
    Equals(String, String),
    StartsWith(String, String),
    /// Bytes of the file.
    Length(RangeInclusive<u64>),
}

/// `InvalidPolicyDocument`.
fn invalid(why: impl std::fmt::Display) -> S3Error {
    error(S3ErrorCode::InvalidPolicyDocument, format!("Invalid Policy: {why}"))
}

fn denied(why: impl std::fmt::Display) -> S3Error {
    error(S3ErrorCode::AccessDenied, format!("Invalid according to Policy: {why}"))
}

impl Policy {
    /// Out of the field `policy`. `InvalidPolicyDocument` for what is none.
    pub fn parse(field: &str) -> S3Result<Self> {
        let packed: String = field.split_ascii_whitespace().collect();
        let document = BASE64.decode(packed.as_bytes()).map_err(|_| invalid("it is not Base64."))?;
        let document = String::from_utf8(document).map_err(|_| invalid("it is not UTF-8."))?;
        let document =
            serde_json::from_str::<Map<String, Value>>(&unescaped(&document)).map_err(|e| invalid(format!("Invalid JSON: {e}.")))?;
        let Some(expiration) = document.get("expiration") else { return Err(invalid("Policy missing expiration.")) };
        let Some(conditions) = document.get("conditions") else { return Err(invalid("Policy missing conditions.")) };
        let expires_ms =
            expiration.as_str().and_then(time_ms).ok_or_else(|| invalid(format!("Invalid 'expiration' value: {expiration}.")))?;
        let conditions = conditions.as_array().ok_or_else(|| invalid("Invalid 'conditions' value: must be a List."))?;
        Ok(Policy { expires_ms, conditions: conditions.iter().map(condition).collect::<S3Result<_>>()? })
    }

    /// `AccessDenied` when it has ended, or a form is not as it demands; the file's length is for the caller to check.
    pub fn check(&self, fields: &Fields, bucket: &str, now_ms: u64) -> S3Result<()> {
        if i128::from(now_ms) >= self.expires_ms {
            return Err(denied("Policy expired."));
        }
        // The bucket is that of the address, whatever a field says.
        let value = |name: &str| if name == "bucket" { Some(bucket) } else { fields.get(name) };
        if let Some(failed) = self.conditions.iter().find(|condition| !condition.holds(&value)) {
            return Err(denied(format!("Policy Condition failed: {}", failed.shown())));
        }
        let is_free = |name: &str| FREE.contains(&name) || name.starts_with("x-ignore-");
        let mut names = fields.names().chain(["bucket"]);
        match names.find(|name| !is_free(name) && !self.conditions.iter().any(|condition| condition.names(name))) {
            Some(extra) => Err(denied(format!("Extra input fields: {extra}"))),
            None => Ok(()),
        }
    }

    /// Bytes that the file may have.
    pub fn lengths(&self) -> RangeInclusive<u64> {
        let ranges = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Length(range) => Some(range),
            _ => None,
        });
        ranges.fold(0..=PUT_MAX, |all, one| *all.start().max(one.start())..=*all.end().min(one.end()))
    }
}

impl Condition {
    fn holds<'a>(&self, value: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Condition::Equals(field, expected) => value(field) == Some(expected),
            Condition::StartsWith(field, prefix) if field == "content-type" => {
                value(field).is_some_and(|types| types.split(',').all(|one| one.trim_start().starts_with(prefix)))
            }
            Condition::StartsWith(field, prefix) => value(field).is_some_and(|value| value.starts_with(prefix)),
            Condition::Length(_) => true,
        }
    }

    fn names(&self, name: &str) -> bool {
        matches!(self, Condition::Equals(field, _) | Condition::StartsWith(field, _) if field == name)
    }

    /// As a document would have it.
    fn shown(&self) -> String {
        let shown = |operator: &str, field: &str, value: &str| {
            let (field, value) = (Value::from(format!("${field}")), Value::from(value));
            format!("[\"{operator}\", {field}, {value}]")
        };
        match self {
            Condition::Equals(field, value) => shown("eq", field, value),
            Condition::StartsWith(field, prefix) => shown("starts-with", field, prefix),
            Condition::Length(range) => format!("[\"content-length-range\", {}, {}]", range.start(), range.end()),
        }
    }
}

/// The document as JSON: `\$` and `\v`, which AWS has too, are no escapes there.
fn unescaped(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    let mut chars = document.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('$')) => out.push('$'),
            ('\\', Some('v')) => out.push_str("\\u000b"),
            (c, escaped) => out.extend([c].into_iter().chain(escaped)),
        }
    }
    out
}

/// ISO 8601 in UTC, with or without fractions of a second.
fn time_ms(text: &str) -> Option<i128> {
    if !text.ends_with('Z') || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let time = time::OffsetDateTime::from(Timestamp::parse(TimestampFormat::DateTime, text).ok()?);
    Some(time.unix_timestamp_nanos() / 1_000_000)
}

fn condition(value: &Value) -> S3Result<Condition> {
    match value {
        Value::Object(pairs) => {
            let mut all = pairs.iter();
            let (Some((field, value)), None) = (all.next(), all.next()) else {
                return Err(invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."));
            };
            let value = value.as_str().ok_or_else(|| invalid("Invalid Simple-Condition: value must be a string."))?;
            Ok(Condition::Equals(field.to_ascii_lowercase(), value.into()))
        }
        Value::Array(list) => {
            let [operator, first, second] = list.as_slice() else {
                return Err(invalid(format!("Invalid Condition: wrong number of arguments: {value}.")));
            };
            let operator = operator.as_str().unwrap_or_default().to_ascii_lowercase();
            if operator == "content-length-range" {
                return match (length(first), length(second)) {
                    (Some(min), Some(max)) => Ok(Condition::Length(min..=max)),
                    _ => Err(invalid(format!("Invalid content-length-range: {value}."))),
                };
            }
            let field = first.as_str().and_then(|field| field.strip_prefix('$')).map(str::to_ascii_lowercase);
            match (operator.as_str(), field, second.as_str()) {
                ("eq", Some(field), Some(value)) => Ok(Condition::Equals(field, value.into())),
                ("starts-with", Some(field), Some(prefix)) => Ok(Condition::StartsWith(field, prefix.into())),
                ("eq" | "starts-with", ..) => Err(invalid(format!("Invalid Condition: not a field and a string: {value}."))),
                _ => Err(invalid(format!("Invalid Condition: unknown operation: {value}."))),
            }
        }
        _ => Err(invalid(format!("Invalid Condition: must be a list or an object: {value}."))),
    }
}

fn length(value: &Value) -> Option<u64> {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    value.as_u64().or_else(|| value.as_str().and_then(digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(conditions: &str) -> S3Result<Policy> {
        Policy::parse(&BASE64.encode(format!(r#"{{"expiration": "2030-01-01T12:00:00.000Z", "conditions": {conditions}}}"#).as_bytes()))
    }

    /// What a policy says of a form to the bucket `b`: the error's words.
    fn refused(conditions: &str, fields: &[(&str, &str)]) -> Option<String> {
        let fields = fields.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Fields>();
        let all = format!(r#"[{{"bucket": "b"}}, {conditions}]"#);
        let e = policy(&all).unwrap().check(&fields, "b", 1_700_000_000_000).err()?;
        assert_eq!(*e.code(), S3ErrorCode::AccessDenied);
        Some(e.message().unwrap_or_default().trim_start_matches("Invalid according to Policy: ").to_string())
    }

    #[test]
    fn conditions_hold_or_are_named() {
        let key = [("key", "a/b")];
        assert_eq!(refused(r#"{"KEY": "a/b"}"#, &key), None);
        assert_eq!(refused(r#"["Starts-With", "$Key", "a/"]"#, &key), None);
        assert_eq!(refused(r#"["starts-with", "$key", ""]"#, &key), None);
        assert_eq!(refused(r#"["eq", "$key", "A/b"]"#, &key).unwrap(), r#"Policy Condition failed: ["eq", "$key", "A/b"]"#);
        assert_eq!(
            refused(r#"["starts-with", "$key", "\"b"]"#, &key).unwrap(),
            r#"Policy Condition failed: ["starts-with", "$key", "\"b"]"#
        );
        // What is not there does not begin with nothing.
        assert!(refused(r#"{"key": "a/b"}, ["starts-with", "$acl", ""]"#, &key).unwrap().starts_with("Policy Condition failed"));
        // A field does not say what the bucket is.
        assert_eq!(refused(r#"{"key": "a/b"}"#, &[("key", "a/b"), ("bucket", "other")]), None);
        assert!(refused(r#"{"bucket": "other"}, {"key": "a/b"}"#, &[("key", "a/b"), ("bucket", "other")]).is_some());
    }

    #[test]
    fn every_field_needs_a_condition() {
        assert_eq!(refused(r#"["content-length-range", 1, 2]"#, &[("key", "k")]).unwrap(), "Extra input fields: key");
        let free = [("policy", "x"), ("signature", "x"), ("awsaccesskeyid", "x"), ("x-amz-signature", "x"), ("x-ignore-it", "x")];
        assert_eq!(refused(r#"["content-length-range", 1, 2]"#, &free), None);
        let e = policy(r#"[{"key": "k"}]"#).unwrap().check(&Fields::default(), "b", 0).unwrap_err();
        assert!(e.message().unwrap().contains("Policy Condition failed"));
        let e = policy("[]").unwrap().check(&Fields::default(), "b", 0).unwrap_err();
        assert!(e.message().unwrap().ends_with("Extra input fields: bucket"));
    }

    #[test]
    fn all_of_several_content_types_must_match() {
        let images = r#"["starts-with", "$Content-Type", "image/"]"#;
        assert_eq!(refused(images, &[("content-type", "image/png")]), None);
        assert_eq!(refused(images, &[("content-type", "image/png, image/gif,image/jpg")]), None);
        assert!(refused(images, &[("content-type", "image/png,text/html")]).is_some());
    }

    #[test]
    fn a_policy_ends() {
        let policy = policy(r#"[{"bucket": "b"}]"#).unwrap();
        assert!(policy.check(&Fields::default(), "b", 1_893_499_199_999).is_ok());
        let e = policy.check(&Fields::default(), "b", 1_893_499_200_000).unwrap_err();
        assert_eq!(e.message(), Some("Invalid according to Policy: Policy expired."));
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T00:00:01.5Z", Some(1_500)),
            ("2033-01-01", None),
            ("1970-01-01 00:00:01Z", None),
            ("1970-01-01T00:00:01+00:00", None),
            ("tomorrow", None),
            (" ", None),
            ("", None),
        ] {
            assert_eq!(time_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn lengths_narrow_each_other() {
        assert_eq!(policy("[]").unwrap().lengths(), 0..=PUT_MAX);
        assert_eq!(policy(r#"[["content-length-range", 1, "10"], ["Content-Length-Range", "0", 7]]"#).unwrap().lengths(), 1..=7);
        assert_eq!(policy(&format!(r#"[["content-length-range", 1, {}]]"#, u64::MAX)).unwrap().lengths(), 1..=PUT_MAX);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for bad in [
            "{}",
            r#""x""#,
            "[{}]",
            r#"[{"a": "b", "c": "d"}]"#,
            r#"[{"a": 1}]"#,
            "[1]",
            "[[]]",
            r#"[["eq", "$a"]]"#,
            r#"[["eq", "a", "b"]]"#,
            r#"[["like", "$a", "b"]]"#,
            r#"[["eq", "$a", 1]]"#,
            r#"[["content-length-range", 0]]"#,
            r#"[["content-length-range", -1, 0]]"#,
            r#"[["content-length-range", 0, "1k"]]"#,
            r#"[["content-length-range", "", 1]]"#,
            r#"[[1, "$a", "b"]]"#,
        ] {
            assert_eq!(*policy(bad).unwrap_err().code(), S3ErrorCode::InvalidPolicyDocument, "{bad}");
        }
        for bad in
            [r#"{"conditions": []}"#, r#"{"expiration": "2030-01-01T12:00:00Z"}"#, r#"{"expiration": 1, "conditions": []}"#, "[]", "", "{"]
        {
            assert_eq!(*Policy::parse(&BASE64.encode(bad.as_bytes())).unwrap_err().code(), S3ErrorCode::InvalidPolicyDocument, "{bad}");
        }
        assert!(Policy::parse("%%%").is_err() && Policy::parse("/w==").is_err());
    }

    #[test]
    fn documented_escapes_are_read() {
        assert_eq!(
            policy(r#"[{"key": "\$a\\$b\v\u00e9\n"}]"#).unwrap().conditions,
            [Condition::Equals("key".into(), "$a\\$b\u{b}é\n".into())]
        );
        assert_eq!(unescaped(r"a\"), r"a\");
    }

    proptest! {
        #[test]
        fn garbage_is_refused(field in "\\PC{0,60}", document in prop::collection::vec(any::<u8>(), 0..60), conditions in "[\\[\\]{}\",:$a-e0-9 \\\\-]{0,40}") {
            prop_assert!(Policy::parse(&field).is_err());
            prop_assert!(Policy::parse(&BASE64.encode(&document)).is_err());
            let _ = policy(&conditions);
        }
    }
}
