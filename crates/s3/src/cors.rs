//! Cross-origin rules of buckets, applied as browsers expect it (the Fetch standard's CORS protocol).

use crate::errors::{error, plain, refusal};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use s3s::dto::{CORSConfiguration, CORSRule};
use s3s::{S3ErrorCode, S3Result};

/// Most rules of a bucket.
const RULES_MAX: usize = 100;
/// Most characters of a rule's id.
const ID_MAX: usize = 255;
const METHODS: [&str; 5] = ["GET", "PUT", "HEAD", "POST", "DELETE"];

/// Checks a configuration.
pub fn check(config: &CORSConfiguration) -> S3Result<()> {
    if config.cors_rules.is_empty() {
        return Err(plain(S3ErrorCode::MalformedXML));
    }
    if config.cors_rules.len() > RULES_MAX {
        return refused("The number of CORS rules should not exceed allowed limit of 100 rules.");
    }
    config.cors_rules.iter().try_for_each(check_rule)
}

fn refused(why: impl Into<String>) -> S3Result<()> {
    Err(error(S3ErrorCode::InvalidRequest, why))
}

fn check_rule(rule: &CORSRule) -> S3Result<()> {
    if rule.allowed_methods.is_empty() || rule.allowed_origins.is_empty() {
        return Err(plain(S3ErrorCode::MalformedXML));
    }
    if rule.id.as_ref().is_some_and(|id| id.chars().count() > ID_MAX) {
        return refused("The ID of a CORS rule should not exceed allowed limit of 255 characters.");
    }
    if let Some(bad) = rule.allowed_methods.iter().find(|m| !METHODS.contains(&m.as_str())) {
        return refused(format!("Found unsupported HTTP method in CORS config. Unsupported method is {bad}"));
    }
    let allowed = rule.allowed_headers.as_deref().unwrap_or_default();
    let exposed = rule.expose_headers.as_deref().unwrap_or_default();
    let origins = rule.allowed_origins.iter().map(|origin| ("AllowedOrigin", origin));
    let mut patterns = origins.chain(allowed.iter().map(|header| ("AllowedHeader", header)));
    if let Some((what, bad)) = patterns.find(|(_, pattern)| pattern.matches('*').count() > 1) {
        return refused(format!("{what} \"{bad}\" can not have more than one wildcard."));
    }
    if let Some(bad) = exposed.iter().find(|header| header.contains('*')) {
        return refused(format!("ExposeHeader \"{bad}\" contains wildcard. We currently do not support wildcard for ExposeHeader."));
    }
    // Else it would be missing in answers, without a word.
    let named = allowed.iter().map(|header| ("AllowedHeader", header)).chain(exposed.iter().map(|header| ("ExposeHeader", header)));
    for (what, header) in named {
        if HeaderName::from_bytes(header.as_bytes()).is_err() {
            return refused(format!("{what} \"{header}\" contains invalid character."));
        }
    }
    Ok(())
}

/// Checks a request that asks whether another one may be made: `BadRequest` where it does not say which.
pub fn check_preflight(request: &HeaderMap) -> S3Result<()> {
    let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD).map(|m| String::from_utf8_lossy(m.as_bytes()));
    let text = if !request.contains_key(header::ORIGIN) {
        "Insufficient information. Origin request header needed.".to_string()
    } else if method.as_ref().is_none_or(|m| !METHODS.contains(&m.as_ref())) {
        format!("Invalid Access-Control-Request-Method: {}", method.as_deref().unwrap_or("null"))
    } else {
        return Ok(());
    };
    Err(refusal("BadRequest", StatusCode::BAD_REQUEST, text))
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
    #[test]
    fn rules_are_as_s3_takes_them() {
        let rule = || CORSRule { allowed_methods: vec!["GET".into()], allowed_origins: vec!["http://*.a".into()], ..Default::default() };
        let code = |cors_rules: Vec<CORSRule>| check(&CORSConfiguration { cors_rules }).err().map(|e| e.code().clone());
        let one = |change: &dyn Fn(&mut CORSRule)| {
            let mut rule = rule();
            change(&mut rule);
            code(vec![rule])
        };
        let (refused, malformed) = (Some(S3ErrorCode::InvalidRequest), Some(S3ErrorCode::MalformedXML));
        assert_eq!(code(vec![rule(); 100]), None);
        assert_eq!(code(vec![rule(); 101]), refused);
        assert_eq!(code(vec![]), malformed);
        assert_eq!(one(&|r| r.allowed_origins.clear()), malformed);
        assert_eq!(one(&|r| r.allowed_methods.clear()), malformed);
        assert_eq!(one(&|r| r.allowed_methods.push("PATCH".into())), refused);
        assert_eq!(one(&|r| r.allowed_methods.push("get".into())), refused);
        assert_eq!(one(&|r| r.allowed_origins.push("*a*".into())), refused);
        assert_eq!(one(&|r| r.allowed_headers = Some(vec!["x-*".into(), "*".into()])), None);
        assert_eq!(one(&|r| r.allowed_headers = Some(vec!["*a*".into()])), refused);
        assert_eq!(one(&|r| r.allowed_headers = Some(vec!["a b".into()])), refused);
        assert_eq!(one(&|r| r.expose_headers = Some(vec!["x-*".into()])), refused);
        assert_eq!(one(&|r| r.expose_headers = Some(vec!["a:b".into()])), refused);
        assert_eq!(one(&|r| r.id = Some("a".repeat(255))), None);
        assert_eq!(one(&|r| r.id = Some("a".repeat(256))), refused);
    }

    #[test]
    fn a_preflight_says_where_it_comes_from_and_what_for() {
        let mut request = HeaderMap::new();
        let told = |request: &HeaderMap| {
            check_preflight(request).err().map(|e| (e.code().as_str().to_string(), e.message().unwrap_or_default().to_string()))
        };
        let bad = |text: &str| Some(("BadRequest".to_string(), text.to_string()));
        assert_eq!(told(&request), bad("Insufficient information. Origin request header needed."));
        request.insert("origin", HeaderValue::from_static("http://a"));
        assert_eq!(told(&request), bad("Invalid Access-Control-Request-Method: null"));
        request.insert("access-control-request-method", HeaderValue::from_static("PATCH"));
        assert_eq!(told(&request), bad("Invalid Access-Control-Request-Method: PATCH"));
        request.insert("access-control-request-method", HeaderValue::from_static("GET"));
        assert_eq!(told(&request), None);
    }
}
