//! What expires when: objects, older versions, marks of deletion and uploads that nobody completes. What is due is
//! decided purely, from a rule and an object; the gateway looks once an hour, as long as it runs.

use crate::Gateway;
use crate::buckets::Bucket;
use crate::cursor::Cursor;
use crate::errors::{error, from_client, not_here, plain};
use crate::tree::{Object, Spots, find};
use crate::views::Brief;
use s3s::dto::{BucketLifecycleConfiguration, LifecycleRule};
use s3s::{S3ErrorCode, S3Result};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const DAY_MS: u64 = 86_400_000;
/// Most rules of a bucket.
const RULES_MAX: usize = 1_000;
/// How often the gateway looks.
const ROUND: Duration = Duration::from_secs(3_600);

/// Checks a configuration. Moves to other classes are refused: there is one.
pub fn check(config: &BucketLifecycleConfiguration) -> S3Result<()> {
    if config.rules.is_empty() || config.rules.len() > RULES_MAX {
        return Err(plain(S3ErrorCode::MalformedXML));
    }
    let mut ids = BTreeSet::new();
    for rule in &config.rules {
        let invalid = |why: &str| Err(error(S3ErrorCode::InvalidArgument, why.to_string()));
        if rule.transitions.as_ref().is_some_and(|t| !t.is_empty())
            || rule.noncurrent_version_transitions.as_ref().is_some_and(|t| !t.is_empty())
        {
            return Err(not_here("moving objects to another storage class"));
        }
        if !matches!(rule.status.as_str(), "Enabled" | "Disabled") {
            return Err(plain(S3ErrorCode::MalformedXML));
        }
        if let Some(id) = rule.id.as_ref().filter(|id| !id.is_empty()) {
            if id.len() > 255 {
                return invalid("ID length should not exceed allowed limit of 255");
            }
            if !ids.insert(id.clone()) {
                return invalid("Rule ID must be unique. Found same ID for more than one rule");
            }
        }
        if let Some(expiration) = &rule.expiration {
            let said = [expiration.days.is_some(), expiration.date.is_some(), expiration.expired_object_delete_marker.is_some()];
            if said.iter().filter(|s| **s).count() != 1 {
                return Err(plain(S3ErrorCode::MalformedXML));
            }
            if expiration.days.is_some_and(|days| days <= 0) {
                return invalid("'Days' for Expiration action must be a positive integer");
            }
            let date = expiration.date.clone().map(time::OffsetDateTime::from);
            if date.is_some_and(|d| d.unix_timestamp().rem_euclid(86_400) != 0) {
                return invalid("'Date' must be at midnight GMT");
            }
        }
        let days = rule.noncurrent_version_expiration.as_ref().map(|n| n.noncurrent_days);
        if days.is_some_and(|days| days.is_none_or(|d| d <= 0)) {
            return invalid("'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer");
        }
        let abort = rule.abort_incomplete_multipart_upload.as_ref().map(|a| a.days_after_initiation);
        if abort.is_some_and(|days| days.is_none_or(|d| d <= 0)) {
            return invalid("'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer");
        }
        if rule.expiration.is_none() && rule.noncurrent_version_expiration.is_none() && rule.abort_incomplete_multipart_upload.is_none() {
            return Err(error(S3ErrorCode::InvalidRequest, "At least one action needs to be specified in a rule"));
        }
    }
    Ok(())
}

fn prefix(rule: &LifecycleRule) -> &str {
    let filter = rule.filter.as_ref();
    let and = filter.and_then(|f| f.and.as_ref());
    let said = filter.and_then(|f| f.prefix.as_deref()).or(and.and_then(|a| a.prefix.as_deref()));
    said.or(rule.prefix.as_deref()).unwrap_or_default()
}

/// Whether a rule is for a key of so many bytes with these tags (asked for only where the rule names some).
fn is_for(rule: &LifecycleRule, key: &str, size: u64, tags: &[(String, String)]) -> bool {
    let Some(filter) = &rule.filter else { return key.starts_with(prefix(rule)) };
    let and = filter.and.as_ref();
    let has = |tag: &s3s::dto::Tag| tags.iter().any(|(k, v)| Some(k) == tag.key.as_ref() && Some(v) == tag.value.as_ref());
    let above = filter.object_size_greater_than.or(and.and_then(|a| a.object_size_greater_than));
    let below = filter.object_size_less_than.or(and.and_then(|a| a.object_size_less_than));
    key.starts_with(prefix(rule))
        && filter.tag.iter().chain(and.and_then(|a| a.tags.as_ref()).into_iter().flatten()).all(has)
        && above.is_none_or(|min| i64::try_from(size).is_ok_and(|s| s > min))
        && below.is_none_or(|max| i64::try_from(size).is_ok_and(|s| s < max))
}

fn names_tags(rule: &LifecycleRule) -> bool {
    rule.filter.as_ref().is_some_and(|f| f.tag.is_some() || f.and.as_ref().is_some_and(|a| a.tags.is_some()))
}

/// When what happened at a time is so many days old: at the midnight after (S3's rounding).
fn due_ms(since_ms: u64, days: i32) -> u64 {
    let end = since_ms.saturating_add(u64::try_from(days).unwrap_or(0) * DAY_MS);
    end.div_ceil(DAY_MS) * DAY_MS
}

/// Whether an object expires by a rule.
fn expires(rule: &LifecycleRule, key: &str, object: &Brief, tags: &[(String, String)], now_ms: u64) -> bool {
    let Some(expiration) = &rule.expiration else { return false };
    let by_age = expiration.days.is_some_and(|days| due_ms(object.modified_ms, days) <= now_ms);
    let date = expiration.date.clone().map(|d| time::OffsetDateTime::from(d).unix_timestamp());
    let by_date = date.is_some_and(|at| u64::try_from(at).map_or(true, |at| at.saturating_mul(1_000) <= now_ms));
    (by_age || by_date) && is_for(rule, key, object.size, tags)
}

impl Gateway {
    /// Looks for what is due, for ever.
    pub(crate) async fn expire(self: Arc<Self>) {
        let env = self.client.environment();
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
        let rules: Vec<&LifecycleRule> = config.rules.iter().filter(|r| r.status.as_str() == "Enabled").collect();
        let now_ms = self.client.now_ms();
        for upload in self.uploads(&bucket).await? {
            let due = |rule: &&LifecycleRule| {
                let days = rule.abort_incomplete_multipart_upload.as_ref().and_then(|a| a.days_after_initiation);
                days.is_some_and(|days| due_ms(upload.begun_ms, days) <= now_ms) && upload.record.key.starts_with(prefix(rule))
            };
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
mod tests {
    use super::*;

    #[test]
    fn days_end_at_midnight() {
        assert_eq!(due_ms(10, 1), 2 * DAY_MS);
        assert_eq!(due_ms(DAY_MS, 1), 2 * DAY_MS);
        assert_eq!(due_ms(DAY_MS + 1, 3), 5 * DAY_MS);
    }
}
