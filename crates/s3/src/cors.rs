//! Cross-origin rules of buckets, applied as browsers expect it (the Fetch standard's CORS protocol).

use crate::errors::{error, plain};
use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3ErrorCode, S3Result};

/// Most rules of a bucket.
const RULES_MAX: usize = 100;
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

/// Checks a configuration.
pub fn check(config: &CORSConfiguration) -> S3Result<()> {
    if config.cors_rules.is_empty() || config.cors_rules.len() > RULES_MAX {
        return Err(plain(S3ErrorCode::MalformedXML));
    }
    for rule in &config.cors_rules {
        if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
            return Err(plain(S3ErrorCode::MalformedXML));
        }
        if let Some(bad) = rule.allowed_methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
            let text = format!("Found unsupported HTTP method in CORS config. Unsupported method is {bad}");
            return Err(error(S3ErrorCode::InvalidRequest, text));
        }
        if rule.allowed_origins.iter().chain(rule.allowed_headers.iter().flatten()).any(|o| o.matches('*').count() > 1) {
            return Err(error(S3ErrorCode::InvalidRequest, "An AllowedOrigin or AllowedHeader can not have more than one wildcard."));
        }
    }
    Ok(())
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after),
        None => pattern == text,
    }
}

fn rule<'a>(config: &'a CORSConfiguration, origin: &str, method: &str, asked: &[String]) -> Option<&'a CORSRule> {
    config.cors_rules.iter().find(|rule| {
        let headers = rule.allowed_headers.as_deref().unwrap_or_default();
        rule.allowed_origins.iter().any(|o| matches(o, origin))
            && rule.allowed_methods.iter().any(|m| m == method)
            && asked.iter().all(|h| headers.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), h)))
    })
}

/// Headers of the answer to a request that says where it comes from. `preflight`: the request asks whether another
/// one may be made. `None`: no rule allows it.
pub fn headers(config: &CORSConfiguration, request: &HeaderMap, method: &str, preflight: bool) -> Option<HeaderMap> {
    let text = |name: HeaderName| request.get(name).and_then(|v| v.to_str().ok());
    let origin = text(header::ORIGIN)?;
    let method = if preflight { text(header::ACCESS_CONTROL_REQUEST_METHOD)? } else { method };
    let asked = text(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|_| preflight).unwrap_or_default();
    let asked: Vec<String> = asked.split(',').map(|h| h.trim().to_ascii_lowercase()).filter(|h| !h.is_empty()).collect();
    let rule = rule(config, origin, method, &asked)?;
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    let anybody = rule.allowed_origins.iter().any(|o| o == "*");
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, if anybody { "*" } else { origin });
    if !anybody {
        set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    set(header::ACCESS_CONTROL_ALLOW_METHODS, &rule.allowed_methods.join(", "));
    if !asked.is_empty() {
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, &asked.join(", "));
    }
    if let Some(expose) = rule.expose_headers.as_ref().filter(|e| !e.is_empty()) {
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, &expose.join(", "));
    }
    if let Some(seconds) = rule.max_age_seconds.filter(|_| preflight) {
        set(header::ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
    }
    set(header::VARY, "Origin, Access-Control-Request-Headers, Access-Control-Request-Method");
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_origin_method_and_headers() {
        let rule = CORSRule {
            allowed_methods: vec!["GET".into(), "PUT".into()],
            allowed_origins: vec!["https://*.example.org".into()],
            allowed_headers: Some(vec!["x-amz-*".into()]),
            expose_headers: Some(vec!["ETag".into()]),
            max_age_seconds: Some(60),
            ..Default::default()
        };
        let config = CORSConfiguration { cors_rules: vec![rule] };
        check(&config).unwrap();
        let mut request = HeaderMap::new();
        request.insert("origin", HeaderValue::from_static("https://a.example.org"));
        request.insert("access-control-request-method", HeaderValue::from_static("PUT"));
        request.insert("access-control-request-headers", HeaderValue::from_static("X-Amz-Date"));
        let answer = headers(&config, &request, "OPTIONS", true).unwrap();
        assert_eq!(answer["access-control-allow-origin"], "https://a.example.org");
        assert_eq!(answer["access-control-allow-headers"], "x-amz-date");
        assert_eq!(answer["access-control-max-age"], "60");
        assert_eq!(headers(&config, &request, "GET", false).unwrap()["access-control-expose-headers"], "ETag");
        assert!(headers(&config, &request, "DELETE", false).is_none());
        request.insert("access-control-request-headers", HeaderValue::from_static("content-type"));
        assert!(headers(&config, &request, "OPTIONS", true).is_none());
        request.insert("origin", HeaderValue::from_static("https://example.com"));
        assert!(headers(&config, &request, "GET", false).is_none());
    }
}
