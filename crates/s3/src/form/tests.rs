//! What is decided about a form without a store.

use super::*;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const POLICY: &str = "eyJleHBpcmF0aW9uIjogIjIwMDcifQ==";
/// Made with Python's `hmac` in the way that also gives the signature in AWS's "Example: Browser-Based Upload using
/// HTTP POST".
const V4: [(&str, &str); 5] = [
    ("policy", POLICY),
    ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
    ("X-Amz-Credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"),
    ("X-Amz-Date", "20151229T000000Z"),
    ("X-Amz-Signature", "85df6520bb704286579c64ea179f604705002f9d102f8ef868464d56a09fb36b"),
];
const V2: [(&str, &str); 3] =
    [("policy", POLICY), ("AWSAccessKeyId", "AKIAIOSFODNN7EXAMPLE"), ("Signature", "bKTFbouBA1TZyIM5A11T2rohQdM=")];

#[test]
fn signatures_of_both_versions_are_checked() {
    let secret = |text: &str| SecretKey::from(text.to_string());
    for good in [&V4[..], &V2[..]] {
        let form = fields(good);
        let signed = Signed::of(&form).unwrap().unwrap();
        assert_eq!(signed.key(), "AKIAIOSFODNN7EXAMPLE");
        assert!(signed.is_by(&secret(SECRET)));
        assert!(!signed.is_by(&secret("other")));
        for (name, value) in
            [("policy", "eyJleHBpcmF0aW9uIjogIjIwMDgifQ=="), ("x-amz-signature", ""), ("x-amz-signature", "zz"), ("signature", "")]
        {
            let Some(at) = good.iter().position(|(n, _)| n.eq_ignore_ascii_case(name)) else { continue };
            let mut changed = good.to_vec();
            changed[at].1 = value;
            assert!(!Signed::of(&fields(&changed)).unwrap().unwrap().is_by(&secret(SECRET)), "{name}: {value}");
        }
        for at in 0..good.len() {
            let rest: Vec<_> = good.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, field)| *field).collect();
            assert_eq!(
                Signed::of(&fields(&rest)).err().map(|e| e.code().clone()),
                Some(S3ErrorCode::InvalidArgument),
                "without {}",
                good[at].0
            );
        }
    }
    assert!(Signed::of(&fields(&[("key", "k"), ("policy", POLICY)])).unwrap().is_none());
}

#[test]
fn credentials_are_whole() {
    let good = "K/20151229/r/s3/aws4_request";
    assert_eq!(read_credential(good, "20151229T000000Z"), Some(("K", ["20151229", "r", "s3", "aws4_request"])));
    for date in ["20151230T000000Z", "20151229", "20151229T000000", "2015122äT00000Z", ""] {
        assert_eq!(read_credential(good, date), None, "{date}");
    }
    for bad in [
        "K",
        "",
        "////",
        "K/20151229/r/ec2/aws4_request",
        "K/20151229//s3/aws4_request",
        "/20151229/r/s3/aws4_request",
        "K/20151229/r/s3/aws4_request/x",
    ] {
        assert_eq!(read_credential(bad, "20151229T000000Z"), None, "{bad}");
    }
}

#[test]
fn a_form_is_for_a_bucket() {
    assert_eq!(bucket_of("/b", None).as_deref(), Some("b"));
    assert_eq!(bucket_of("/b%2D1/", None).as_deref(), Some("b-1"));
    assert_eq!(bucket_of("/", Some("b")).as_deref(), Some("b"));
    for (path, hosted) in [("/", None), ("/b/k", None), ("/b%2Fk", None), ("/k", Some("b")), ("/%zz", None)] {
        assert_eq!(bucket_of(path, hosted), None, "{path}");
    }
    let headers = |value: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
    assert!(is_form(&Method::POST, &headers("Multipart/Form-Data ; boundary=x")));
    assert!(
        !is_form(&Method::PUT, &headers("multipart/form-data; boundary=x")) && !is_form(&Method::POST, &headers("multipart/form-data2"))
    );
}

#[test]
fn fields_are_what_headers_of_a_put_are() {
    let form = fields(&[
        ("Content-Type", "text/plain"),
        ("Cache-Control", ""),
        ("Expires", "Thu, 01 Dec 2033 16:00:00 GMT"),
        ("x-amz-meta-Name", "ä"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-tagging", "a=b"),
        ("acl", "private"),
    ]);
    let kept = asked(&form).unwrap().keep(crate::meta::Meta::new(1)).unwrap();
    assert_eq!(kept.headers.content_type.as_deref(), Some("text/plain"));
    assert_eq!((kept.headers.cache_control, kept.headers.expires), (None, Some(2_017_065_600)));
    assert_eq!(kept.headers.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!((kept.user, kept.tags), (vec![("name".into(), "ä".into())], vec![("a".into(), "b".into())]));
    let code = |name: &str, value: &str| {
        let form = fields(&[(name, value)]);
        let headers = form.headers().and_then(|headers| refused::check("PostObject", &headers));
        let kept = headers.and_then(|()| asked(&form)?.keep(crate::meta::Meta::new(1))).and_then(|_| tags(&form));
        let claimed = kept.and_then(|_| Claims::of(carried(&form), &HeaderMap::new(), None));
        claimed.err().map(|e| e.code().as_str().to_string()).unwrap_or_default()
    };
    for (name, value, expected) in [
        ("acl", "public-read", "AccessControlListNotSupported"),
        ("x-amz-acl", "public-read", "AccessControlListNotSupported"),
        ("x-amz-grant-read", "id=x", "AccessControlListNotSupported"),
        ("x-amz-server-side-encryption", "AES256", ""),
        ("x-amz-server-side-encryption", "aws:kms", "NotImplemented"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256", "NotImplemented"),
        ("x-amz-object-lock-legal-hold", "ON", "InvalidRequest"),
        ("x-amz-storage-class", "SLOW", "InvalidStorageClass"),
        ("expires", "tomorrow", "InvalidArgument"),
        ("x-amz-meta-a", "a\nb", "InvalidArgument"),
        ("x-amz-tagging", "a=%zz", "InvalidArgument"),
        ("tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>", ""),
        ("tagging", "<Tagging><TagSet></Tagging>", "MalformedXML"),
        ("tagging", "a=b", "MalformedXML"),
        ("content-md5", "AAAA", "InvalidDigest"),
        ("x-amz-checksum-crc32", "AAAAAA==", ""),
        ("x-amz-checksum-crc32", "AAAA", "InvalidRequest"),
        ("x-amz-checksum-algorithm", "CRC7", "InvalidRequest"),
    ] {
        assert_eq!(code(name, value), expected, "{name}: {value}");
    }
    let found = tags(&fields(&[("tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>")])).unwrap();
    assert_eq!(found, Some(vec![("a".into(), "b".into())]));
}

#[test]
fn answers_are_as_asked_for() {
    let made =
        Made { bucket: "b", key: "a/ä<&.txt", etag: "\"00\"", version: Some("v"), location: "http://h/b/a/%C3%A4%3C%26.txt".into() };
    let answer = |pairs: &[(&str, &str)]| {
        let response = made.answer(&fields(pairs));
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_string()).unwrap_or_default();
        assert_eq!((header("etag").as_str(), header("x-amz-version-id").as_str()), ("\"00\"", "v"));
        assert_eq!(header("x-amz-server-side-encryption"), "AES256");
        let body = response.body().bytes().map(|b| String::from_utf8(b.to_vec()).unwrap()).unwrap_or_default();
        (response.status().as_u16(), header("location"), header("content-type"), body)
    };
    let plain = |status| (status, made.location.clone(), String::new(), String::new());
    for (asked, status) in [("200", 200), ("204", 204), ("404", 204), ("x", 204), ("", 204)] {
        assert_eq!(answer(&[("success_action_status", asked)]), plain(status), "{asked}");
    }
    let (status, _, kind, body) = answer(&[("success_action_status", "201")]);
    assert_eq!((status, kind.as_str()), (201, "application/xml"));
    assert!(body.ends_with(
        "<PostResponse><Location>http://h/b/a/%C3%A4%3C%26.txt</Location><Bucket>b</Bucket><Key>a/ä&lt;&amp;.txt</Key><ETag>&quot;00&quot;</ETag></PostResponse>"
    ));
    let query = "bucket=b&key=a%2F%C3%A4%3C%26.txt&etag=%2200%22";
    for (to, expected) in
        [("http://x.org", format!("http://x.org?{query}")), ("https://x.org/a?b=c#d", format!("https://x.org/a?b=c&{query}#d"))]
    {
        for name in ["success_action_redirect", "redirect"] {
            let (status, location, ..) = answer(&[(name, to), ("success_action_status", "201")]);
            assert_eq!((status, location), (303, expected.clone()), "{to}");
        }
    }
    for to in ["", "x", "/a", "javascript:alert(1)", "ftp://x.org/", "http://", "http://x.org/\r\nA: b"] {
        assert_eq!(answer(&[("success_action_redirect", to)]), plain(204), "{to}");
    }
}

#[tokio::test]
async fn a_file_of_another_length_than_allowed_is_refused_at_its_end() {
    use tokio::io::AsyncReadExt;
    let end = async |length: usize| {
        let parts = (0..length).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"x")));
        let claims = Claims::default().within(2..=4);
        let (mut body, end) = crate::body::Incoming::new(Some(StreamingBlob::wrap(futures::stream::iter(parts))), claims);
        let read = body.read_to_end(&mut Vec::new()).await;
        // Whoever reads on does not make it good.
        let again = body.read_to_end(&mut Vec::new()).await;
        let end = end.take().unwrap().map(|digest| digest.length).map_err(|e| e.code().as_str().to_string());
        assert_eq!(read.is_ok(), end.is_ok());
        assert_eq!(again.unwrap(), 0);
        end
    };
    for (length, expected) in [(0, Err("EntityTooSmall")), (1, Err("EntityTooSmall")), (2, Ok(2)), (4, Ok(4)), (5, Err("EntityTooLarge"))] {
        assert_eq!(end(length).await, expected.map_err(str::to_string), "{length}");
    }
}
