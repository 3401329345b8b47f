use super::*;
use s3s::dto::{AbortIncompleteMultipartUpload, ExpirationStatus, NoncurrentVersionExpiration};

/// A rule `r` for a filter that ends objects after 10 days.
fn rule(filter: LifecycleRuleFilter) -> LifecycleRule {
    LifecycleRule {
        abort_incomplete_multipart_upload: None,
        expiration: Some(LifecycleExpiration { days: Some(10), ..Default::default() }),
        filter: Some(filter),
        id: Some("r".into()),
        noncurrent_version_expiration: None,
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
        transitions: None,
    }
}

fn tag(key: &str, value: &str) -> Tag {
    Tag { key: Some(key.into()), value: Some(value.into()) }
}

fn of_prefix(prefix: &str) -> LifecycleRuleFilter {
    LifecycleRuleFilter { prefix: Some(prefix.into()), ..Default::default() }
}

fn of_tag(tag: Tag) -> LifecycleRuleFilter {
    LifecycleRuleFilter { tag: Some(tag), ..Default::default() }
}

fn of_sizes(above: Option<i64>, below: Option<i64>) -> LifecycleRuleFilter {
    LifecycleRuleFilter { object_size_greater_than: above, object_size_less_than: below, ..Default::default() }
}

fn of_all(and: LifecycleRuleAndOperator) -> LifecycleRuleFilter {
    LifecycleRuleFilter { and: Some(and), ..Default::default() }
}

fn marks() -> Option<LifecycleExpiration> {
    Some(LifecycleExpiration { expired_object_delete_marker: Some(true), ..Default::default() })
}

fn aborts() -> Option<AbortIncompleteMultipartUpload> {
    Some(AbortIncompleteMultipartUpload { days_after_initiation: Some(1) })
}

fn code(rules: Vec<LifecycleRule>) -> Option<S3ErrorCode> {
    check(&BucketLifecycleConfiguration { rules }).err().map(|e| e.code().clone())
}

#[test]
fn days_end_at_midnight() {
    assert_eq!(due_ms(10, 1), 2 * DAY_MS);
    assert_eq!(due_ms(DAY_MS, 1), 2 * DAY_MS);
    assert_eq!(due_ms(DAY_MS + 1, 3), 5 * DAY_MS);
}

#[test]
fn filters_name_one_thing_or_several_in_and() {
    let tags = |tags: &[Tag]| of_all(LifecycleRuleAndOperator { tags: Some(tags.to_vec()), ..Default::default() });
    let bounds = |above, below| {
        of_all(LifecycleRuleAndOperator { object_size_greater_than: above, object_size_less_than: below, ..Default::default() })
    };
    for good in [
        LifecycleRuleFilter::default(),
        of_prefix(""),
        of_prefix("a/"),
        of_tag(tag("k", "")),
        of_sizes(Some(0), None),
        tags(&[tag("a", "1"), tag("b", "1")]),
        of_all(LifecycleRuleAndOperator { prefix: Some(String::new()), tags: Some(vec![tag("k", "v")]), ..Default::default() }),
        bounds(Some(5), Some(6)),
    ] {
        assert_eq!(code(vec![rule(good.clone())]), None, "{good:?}");
    }
    for bad in [
        LifecycleRuleFilter { tag: Some(tag("k", "v")), ..of_prefix("a") },
        LifecycleRuleFilter { and: tags(&[tag("a", "1"), tag("b", "1")]).and, ..of_prefix("a") },
        of_sizes(Some(5), Some(6)),
        of_all(LifecycleRuleAndOperator::default()),
        of_all(LifecycleRuleAndOperator { prefix: Some("a".into()), ..Default::default() }),
        of_tag(Tag { key: Some("k".into()), value: None }),
        of_tag(Tag { key: None, value: Some("v".into()) }),
    ] {
        assert_eq!(code(vec![rule(bad.clone())]), Some(S3ErrorCode::MalformedXML), "{bad:?}");
    }
    for bad in [
        tags(&[tag("k", "1"), tag("k", "2")]),
        of_tag(tag("", "v")),
        bounds(Some(5), Some(5)),
        of_sizes(Some(-1), None),
        of_sizes(None, Some(0)),
    ] {
        assert_eq!(code(vec![rule(bad.clone())]), Some(S3ErrorCode::InvalidRequest), "{bad:?}");
    }
}

#[test]
fn rules_that_say_too_little_or_too_much_are_refused() {
    let all = || rule(LifecycleRuleFilter::default());
    let tagged = || rule(of_tag(tag("k", "v")));
    let sized = || rule(of_sizes(Some(5), None));
    let old = |prefix: &str| LifecycleRule { filter: None, prefix: Some(prefix.into()), ..all() };
    let older = |days, newer| {
        let older = NoncurrentVersionExpiration { noncurrent_days: days, newer_noncurrent_versions: newer };
        LifecycleRule { expiration: None, noncurrent_version_expiration: Some(older), ..all() }
    };
    let named = |id: &str| LifecycleRule { id: Some(id.into()), ..all() };
    for good in [
        vec![old("a"), LifecycleRule { id: None, ..old("b") }, LifecycleRule { id: None, ..old("c") }],
        vec![LifecycleRule { expiration: marks(), ..all() }],
        vec![LifecycleRule { expiration: None, abort_incomplete_multipart_upload: aborts(), ..rule(of_prefix("a")) }],
        vec![older(Some(1), Some(2))],
        vec![named(&"ä".repeat(255))],
    ] {
        assert_eq!(code(good.clone()), None, "{good:?}");
    }
    let (malformed, request, argument) = (S3ErrorCode::MalformedXML, S3ErrorCode::InvalidRequest, S3ErrorCode::InvalidArgument);
    for (bad, expected) in [
        (vec![], &malformed),
        (vec![LifecycleRule { filter: None, ..all() }], &malformed),
        (vec![LifecycleRule { prefix: Some("a".into()), ..all() }], &malformed),
        (vec![LifecycleRule { status: "enabled".to_string().into(), ..all() }], &malformed),
        (vec![LifecycleRule { expiration: Some(LifecycleExpiration::default()), ..all() }], &malformed),
        (vec![older(None, Some(1))], &malformed),
        (vec![LifecycleRule { expiration: None, ..all() }], &request),
        (vec![LifecycleRule { expiration: marks(), ..tagged() }], &request),
        (vec![LifecycleRule { expiration: marks(), ..sized() }], &request),
        (vec![LifecycleRule { abort_incomplete_multipart_upload: aborts(), ..tagged() }], &request),
        (vec![LifecycleRule { abort_incomplete_multipart_upload: aborts(), ..sized() }], &request),
        (vec![older(Some(0), None)], &argument),
        (vec![older(Some(1), Some(0))], &argument),
        (vec![named(&"a".repeat(256))], &argument),
        (vec![all(), all()], &argument),
    ] {
        assert_eq!(code(bad.clone()).as_ref(), Some(expected), "{bad:?}");
    }
}

#[test]
fn uploads_are_given_up_by_prefix_alone() {
    let gives_up = |filter| abort_ms(&LifecycleRule { abort_incomplete_multipart_upload: aborts(), ..rule(filter) }, "a/k", 10);
    assert_eq!(gives_up(of_prefix("a/")), Some(2 * DAY_MS));
    assert_eq!(gives_up(of_prefix("b/")), None);
    // Kept by a gateway that did not refuse such rules.
    assert_eq!(gives_up(of_tag(tag("k", "v"))), None);
    assert_eq!(gives_up(of_sizes(None, Some(5))), None);
}

#[test]
fn the_earliest_expiry_is_told() {
    let by_days = |id: &str, days, filter| LifecycleRule {
        id: Some(id.into()),
        expiration: Some(LifecycleExpiration { days: Some(days), ..Default::default() }),
        ..rule(filter)
    };
    let date = Some(LifecycleExpiration { date: Some(timestamp(3 * DAY_MS)), ..Default::default() });
    let rules = vec![
        by_days("all", 30, LifecycleRuleFilter::default()),
        by_days("logs, ä", 5, of_prefix("logs/")),
        by_days("same", 5, of_prefix("logs/")),
        by_days("small", 1, of_sizes(None, Some(10))),
        LifecycleRule { status: "Disabled".to_string().into(), ..by_days("off", 1, LifecycleRuleFilter::default()) },
        LifecycleRule { id: Some("dated".into()), expiration: date, ..rule(of_tag(tag("k", "v"))) },
        LifecycleRule { id: Some("marks".into()), expiration: marks(), ..rule(LifecycleRuleFilter::default()) },
    ];
    let config = BucketConfig { lifecycle: Some(BucketLifecycleConfiguration { rules }), ..Default::default() };
    let mut meta = Meta::new(10);
    let told = |meta: &Meta, key: &str, size| expiration(&config, key, meta, size, 10);
    assert_eq!(told(&meta, "x", 10).as_deref(), Some(r#"expiry-date="Sun, 01 Feb 1970 00:00:00 GMT", rule-id="all""#));
    assert_eq!(told(&meta, "logs/x", 10).as_deref(), Some(r#"expiry-date="Wed, 07 Jan 1970 00:00:00 GMT", rule-id="logs%2C%20%C3%A4""#));
    assert_eq!(told(&meta, "x", 9).as_deref(), Some(r#"expiry-date="Sat, 03 Jan 1970 00:00:00 GMT", rule-id="small""#));
    meta.tags = vec![("k".into(), "v".into())];
    assert_eq!(told(&meta, "x", 10).as_deref(), Some(r#"expiry-date="Sun, 04 Jan 1970 00:00:00 GMT", rule-id="dated""#));
    meta.deleted = true;
    assert_eq!(told(&meta, "x", 10), None);
    assert_eq!(expiration(&BucketConfig::default(), "x", &Meta::new(10), 10, 10), None);
}
