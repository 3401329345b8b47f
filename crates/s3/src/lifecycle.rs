//! What expires when: objects, older versions, marks of deletion and uploads that nobody completes. What is due is
//! decided purely, from a rule and an object; the gateway looks once an hour, as long as it runs.

use crate::Gateway;
use crate::buckets::{Bucket, BucketConfig};
use crate::cursor::Cursor;
use crate::errors::{error, from_client, not_here, plain};
use crate::meta::{Meta, timestamp};
use crate::tree::{Object, Spots, find};
use crate::views::Brief;
use s3s::dto::{
    BucketLifecycleConfiguration, LifecycleExpiration, LifecycleRule, LifecycleRuleAndOperator, LifecycleRuleFilter, Tag, TimestampFormat,
};
use s3s::{S3ErrorCode, S3Result};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

const DAY_MS: u64 = 86_400_000;
/// Most rules of a bucket.
const RULES_MAX: usize = 1_000;
/// Most characters of a rule's id.
const ID_MAX: usize = 255;
/// Largest size that a filter may name, in bytes: as S3 says it.
const SIZE_MAX: i64 = 1_099_511_627_776_000;
/// How often the gateway looks.
const ROUND: Duration = Duration::from_secs(3_600);

/// Checks a configuration. Moves to other classes are refused: there is one.
pub fn check(config: &BucketLifecycleConfiguration) -> S3Result<()> {
    if config.rules.is_empty() || config.rules.len() > RULES_MAX {
        return Err(plain(S3ErrorCode::MalformedXML));
    }
    let mut ids = BTreeSet::new();
    for rule in &config.rules {
        check_rule(rule)?;
        let Some(id) = rule.id.as_ref().filter(|id| !id.is_empty()) else { continue };
        if id.chars().count() > ID_MAX {
            return invalid("ID length should not exceed allowed limit of 255");
        }
        if !ids.insert(id) {
            return invalid("Rule ID must be unique. Found same ID for more than one rule");
        }
    }
    Ok(())
}

fn malformed() -> S3Result<()> {
    Err(plain(S3ErrorCode::MalformedXML))
}

fn invalid(why: &'static str) -> S3Result<()> {
    Err(error(S3ErrorCode::InvalidArgument, why))
}

fn refused(why: &'static str) -> S3Result<()> {
    Err(error(S3ErrorCode::InvalidRequest, why))
}

fn check_rule(rule: &LifecycleRule) -> S3Result<()> {
    if rule.transitions.as_ref().is_some_and(|t| !t.is_empty())
        || rule.noncurrent_version_transitions.as_ref().is_some_and(|t| !t.is_empty())
    {
        return Err(not_here("moving objects to another storage class"));
    }
    if !matches!(rule.status.as_str(), "Enabled" | "Disabled") || rule.filter.is_some() == rule.prefix.is_some() {
        return malformed();
    }
    if let Some(filter) = &rule.filter {
        check_filter(filter)?;
    }
    check_tags(rule)?;
    check_sizes(rule)?;
    if let Some(expiration) = &rule.expiration {
        check_expiration(rule, expiration)?;
    }
    if let Some(older) = &rule.noncurrent_version_expiration {
        match older.noncurrent_days {
            None => return malformed(),
            Some(days) if days <= 0 => {
                return invalid("'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer");
            }
            Some(_) => {}
        }
        if older.newer_noncurrent_versions.is_some_and(|n| n <= 0) {
            return invalid("'NewerNoncurrentVersions' for NoncurrentVersionExpiration action must be a positive integer");
        }
    }
    if let Some(abort) = &rule.abort_incomplete_multipart_upload {
        if abort.days_after_initiation.is_none_or(|days| days <= 0) {
            return invalid("'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer");
        }
        // Uploads have no size yet, and their tags are not looked at.
        if names_tags(rule) {
            return refused("AbortIncompleteMultipartUpload cannot be specified with Tags.");
        }
        if names_sizes(rule) {
            return refused("AbortIncompleteMultipartUpload cannot be specified with Object Size.");
        }
    }
    if rule.expiration.is_none() && rule.noncurrent_version_expiration.is_none() && rule.abort_incomplete_multipart_upload.is_none() {
        return refused("At least one action needs to be specified in a rule");
    }
    Ok(())
}

/// A filter names one thing, or several in `And`, or nothing: then it is for all.
fn check_filter(filter: &LifecycleRuleFilter) -> S3Result<()> {
    let sizes = [filter.object_size_greater_than, filter.object_size_less_than];
    let named = usize::from(filter.prefix.is_some()) + usize::from(filter.tag.is_some()) + sizes.iter().flatten().count();
    if named + usize::from(filter.and.is_some()) > 1 {
        return malformed();
    }
    let Some(and) = &filter.and else { return Ok(()) };
    let sizes = [and.object_size_greater_than, and.object_size_less_than];
    let named = usize::from(and.prefix.is_some()) + and.tags.iter().flatten().count() + sizes.iter().flatten().count();
    if named < 2 { malformed() } else { Ok(()) }
}

fn check_tags(rule: &LifecycleRule) -> S3Result<()> {
    let mut keys = BTreeSet::new();
    for tag in tags_of(rule) {
        let (Some(key), Some(value)) = (&tag.key, &tag.value) else { return malformed() };
        if !(1..=128).contains(&key.chars().count()) {
            return refused("A Tag's Key must be a length between 1 and 128.");
        }
        if value.chars().count() > 256 {
            return refused("A Tag's Value must be a length between 0 and 256.");
        }
        if !keys.insert(key) {
            return refused("Duplicate Tag Keys are not allowed.");
        }
    }
    Ok(())
}

fn check_sizes(rule: &LifecycleRule) -> S3Result<()> {
    let (above, below) = sizes_of(rule);
    if above.is_some_and(|size| !(0..=SIZE_MAX).contains(&size)) {
        return refused("'ObjectSizeGreaterThan' should be between 0 and 1099511627776000.");
    }
    if below.is_some_and(|size| !(1..=SIZE_MAX).contains(&size)) {
        return refused("'ObjectSizeLessThan' should be between 1 and 1099511627776000.");
    }
    if above.zip(below).is_some_and(|(above, below)| above >= below) {
        return refused("'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.");
    }
    Ok(())
}

fn check_expiration(rule: &LifecycleRule, expiration: &LifecycleExpiration) -> S3Result<()> {
    let marks = expiration.expired_object_delete_marker.is_some();
    if usize::from(expiration.days.is_some()) + usize::from(expiration.date.is_some()) + usize::from(marks) != 1 {
        return malformed();
    }
    if expiration.days.is_some_and(|days| days <= 0) {
        return invalid("'Days' for Expiration action must be a positive integer");
    }
    let date = expiration.date.clone().map(OffsetDateTime::from);
    if date.is_some_and(|d| d.unix_timestamp().rem_euclid(86_400) != 0 || d.nanosecond() != 0) {
        return invalid("'Date' must be at midnight GMT");
    }
    // A mark of deletion has neither.
    if marks && names_tags(rule) {
        return refused("ExpiredObjectDeleteMarker cannot be specified with Tags.");
    }
    if marks && names_sizes(rule) {
        return refused("ExpiredObjectDeleteMarker cannot be specified with Object Size.");
    }
    Ok(())
}

fn and_of(rule: &LifecycleRule) -> Option<&LifecycleRuleAndOperator> {
    rule.filter.as_ref().and_then(|f| f.and.as_ref())
}

fn prefix(rule: &LifecycleRule) -> &str {
    let said = rule.filter.as_ref().and_then(|f| f.prefix.as_deref()).or(and_of(rule).and_then(|a| a.prefix.as_deref()));
    said.or(rule.prefix.as_deref()).unwrap_or_default()
}

/// The tags that an object must have.
fn tags_of(rule: &LifecycleRule) -> impl Iterator<Item = &Tag> {
    let one = rule.filter.as_ref().and_then(|f| f.tag.as_ref());
    one.into_iter().chain(and_of(rule).and_then(|a| a.tags.as_ref()).into_iter().flatten())
}

/// The sizes that an object must be above and below.
fn sizes_of(rule: &LifecycleRule) -> (Option<i64>, Option<i64>) {
    let (filter, and) = (rule.filter.as_ref(), and_of(rule));
    let above = filter.and_then(|f| f.object_size_greater_than).or(and.and_then(|a| a.object_size_greater_than));
    let below = filter.and_then(|f| f.object_size_less_than).or(and.and_then(|a| a.object_size_less_than));
    (above, below)
}

fn names_tags(rule: &LifecycleRule) -> bool {
    tags_of(rule).next().is_some()
}

fn names_sizes(rule: &LifecycleRule) -> bool {
    sizes_of(rule) != (None, None)
}

/// Whether a rule is for a key of so many bytes with these tags (asked for only where the rule names some).
fn is_for(rule: &LifecycleRule, key: &str, size: u64, tags: &[(String, String)]) -> bool {
    let has = |tag: &Tag| tags.iter().any(|(k, v)| Some(k) == tag.key.as_ref() && Some(v) == tag.value.as_ref());
    let (above, below) = sizes_of(rule);
    key.starts_with(prefix(rule))
        && tags_of(rule).all(has)
        && above.is_none_or(|min| i64::try_from(size).is_ok_and(|s| s > min))
        && below.is_none_or(|max| i64::try_from(size).is_ok_and(|s| s < max))
}

/// When what happened at a time is so many days old: at the midnight after (S3's rounding).
fn due_ms(since_ms: u64, days: i32) -> u64 {
    let end = since_ms.saturating_add(u64::try_from(days).unwrap_or(0) * DAY_MS);
    end.div_ceil(DAY_MS) * DAY_MS
}

/// When an object that was last modified at a time expires by a rule that is for it.
fn expiry_ms(rule: &LifecycleRule, modified_ms: u64) -> Option<u64> {
    let expiration = rule.expiration.as_ref()?;
    let by_age = expiration.days.map(|days| due_ms(modified_ms, days));
    let date = expiration.date.clone().map(|d| OffsetDateTime::from(d).unix_timestamp());
    let by_date = date.map(|at| u64::try_from(at).unwrap_or(0).saturating_mul(1_000));
    by_age.into_iter().chain(by_date).min()
}

/// Whether an object expires by a rule.
fn expires(rule: &LifecycleRule, key: &str, object: &Brief, tags: &[(String, String)], now_ms: u64) -> bool {
    expiry_ms(rule, object.modified_ms).is_some_and(|at| at <= now_ms) && is_for(rule, key, object.size, tags)
}

/// When an upload that began at a time is given up by a rule. A rule that names tags or sizes is for no upload.
fn abort_ms(rule: &LifecycleRule, key: &str, begun_ms: u64) -> Option<u64> {
    let days = rule.abort_incomplete_multipart_upload.as_ref()?.days_after_initiation?;
    (key.starts_with(prefix(rule)) && !names_tags(rule) && !names_sizes(rule)).then(|| due_ms(begun_ms, days))
}

fn enabled(config: &BucketLifecycleConfiguration) -> impl Iterator<Item = &LifecycleRule> {
    config.rules.iter().filter(|rule| rule.status.as_str() == "Enabled")
}

/// The header `x-amz-expiration` of an object that is its key's current version: when it expires, and by which rule.
/// `None` where no rule is for it, and of a mark of deletion.
pub fn expiration(config: &BucketConfig, key: &str, meta: &Meta, size: u64, modified_ms: u64) -> Option<String> {
    let rules = enabled(config.lifecycle.as_ref()?).filter(|rule| !meta.deleted && is_for(rule, key, size, &meta.tags));
    let (at, rule) = rules.filter_map(|rule| Some((expiry_ms(rule, modified_ms)?, rule))).min_by_key(|(at, _)| *at)?;
    let mut date = Vec::new();
    timestamp(at).format(TimestampFormat::HttpDate, &mut date).ok()?;
    let id = url_encoded(rule.id.as_deref().unwrap_or_default());
    Some(format!("expiry-date=\"{}\", rule-id=\"{id}\"", String::from_utf8(date).ok()?))
}

fn url_encoded(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

impl Gateway {
    /// Looks for what is due, for ever.
    pub(crate) async fn expire(self: Arc<Self>) {
        let env = self.client.env().clone();
        loop {
            match self.buckets.list().await {
                Ok(buckets) => {
                    for (name, _) in buckets {
                        if let Err(e) = self.expire_in(&name).await {
                            tracing::warn!(bucket = name, error = %e, "a bucket was not looked through for what has expired");
                        }
                    }
                }
                Err(e) => tracing::warn!(error = %e, "the buckets were not looked through for what has expired"),
            }
            env.sleep(ROUND).await;
        }
    }

    async fn expire_in(&self, name: &str) -> S3Result<()> {
        let bucket = self.buckets.get(name).await?;
        self.sweep_parts(&bucket).await?;
        let Some(config) = bucket.config.lifecycle.clone() else { return Ok(()) };
        let rules: Vec<&LifecycleRule> = enabled(&config).collect();
        let now_ms = self.client.env().now_ms();
        for upload in self.uploads(&bucket).await? {
            let due = |rule: &&LifecycleRule| abort_ms(rule, &upload.record.key, upload.begun_ms).is_some_and(|at| at <= now_ms);
            if rules.iter().any(due) {
                self.abort(&upload).await?;
            }
        }
        let folder = self.client.stat(&bucket.path).await.map_err(from_client)?;
        let mut cursor = Cursor::new(&self.views, folder);
        cursor.seek("").await.map_err(from_client)?;
        while let Some((key, brief)) = cursor.next().await.map_err(from_client)? {
            self.expire_object(&bucket, &rules, &key, &brief, now_ms).await?;
        }
        Ok(())
    }

    async fn expire_object(&self, bucket: &Bucket, rules: &[&LifecycleRule], key: &str, brief: &Brief, now_ms: u64) -> S3Result<()> {
        let tags = if rules.iter().any(|r| names_tags(r)) && !brief.deleted {
            match self.object(bucket, key, None).await {
                Err(e) if *e.code() == S3ErrorCode::NoSuchKey => return Ok(()),
                object => object?.meta.tags,
            }
        } else {
            Vec::new()
        };
        if !brief.deleted && rules.iter().any(|rule| expires(rule, key, brief, &tags, now_ms)) {
            self.delete(bucket, key, None, &Default::default()).await?;
        }
        let older: Vec<_> = rules.iter().filter_map(|r| Some((r, r.noncurrent_version_expiration.as_ref()?))).collect();
        let marks = rules.iter().filter(|r| r.expiration.as_ref().and_then(|e| e.expired_object_delete_marker) == Some(true));
        let marks = marks.filter(|r| is_for(r, key, brief.size, &tags)).count() > 0 && brief.deleted;
        if !bucket.has_versions() || (older.is_empty() && !marks) {
            return Ok(());
        }
        let found = find(&self.client, &Spots::of(&bucket.path, key)?, true).await.map_err(from_client)?;
        let Some(Object { entry, .. }) = found.object else { return Ok(()) };
        let versions = self.versions_of(&entry).await.map_err(from_client)?;
        if marks && versions.len() == 1 {
            let id = versions.first().map(|v| v.id().to_string()).unwrap_or_default();
            return self.delete_version(bucket, key, &id).await.map(|_| ());
        }
        // A version is noncurrent since the one after it was made.
        let since = versions.iter().map(|v| v.object.modified_ms());
        for (i, (version, since_ms)) in versions.iter().skip(1).zip(since).enumerate() {
            let due = |(rule, n): &(&&LifecycleRule, &s3s::dto::NoncurrentVersionExpiration)| {
                let kept = n.newer_noncurrent_versions.and_then(|k| usize::try_from(k).ok()).unwrap_or(0);
                i >= kept && n.noncurrent_days.is_some_and(|days| due_ms(since_ms, days) <= now_ms) && is_for(rule, key, brief.size, &tags)
            };
            if older.iter().any(due) {
                self.delete_version(bucket, key, version.id()).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
