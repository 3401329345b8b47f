//! HTTP as no client of ours speaks it, inside good TLS.

use super::*;
use crate::tls::{ClientTls, Expect, Trust};
use crate::{CERTIFICATE_VALIDITY, ClusterRoot, ServerId, ServerKey};
use model::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Echo;
impl Service for Echo {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move { Ok(Response::new(request.head, request.body)) })
    }
}

/// Whether an answer is there as a whole: its head, and as much as that announces.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let lines = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let length = lines.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head + 4 + length)
}

/// What a server answers to some bytes: one answer, or all until it closes the connection.
async fn answer_to(request: &[u8]) -> String {
    let env = env::real::env();
    let cluster = ClusterId([1; 16]);
    let root = ClusterRoot::generate(cluster, env.now_ms(), &env).unwrap();
    let key = ServerKey::generate(&env).unwrap();
    let cert = root.issue(ServerId::Node(NodeId(1)), cluster, key.spki(), env.now_ms(), CERTIFICATE_VALIDITY).unwrap();
    let identity = TlsIdentity::new(&env, root.cert_der(), &cert, &key).unwrap();
    let listener = env.net.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = Limits { body_deadline: Duration::from_millis(800), ..Limits::default() };
    let task = env.spawn(serve(env.clone(), listener, identity, Arc::new(Echo), limits, std::future::pending()));
    let tls = ClientTls::new(&env, Trust::Root(root.cert_der().to_vec()), None).unwrap();
    let io = env.net.connect(&address).await.unwrap();
    let mut stream = tls.connect(io, Expect::Node(NodeId(1)), false).await.unwrap().stream;
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer: Vec<u8> = Vec::new();
    let whole = async { while !is_whole(&answer) && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {} };
    env.timeout(Duration::from_secs(20), whole).await.expect("an answer");
    task.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_by_hand_is_answered() {
    let answer = answer_to(b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n\0\0\0\x02hebo").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n") && answer.ends_with("\r\n\r\n\0\0\0\x02hebo"), "{answer}");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_answered_with_errors() {
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n\0\0\0\x01", "400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n\0\0\0\0\r\n0\r\n\r\n", "400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\nabc", "400"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n\0\0", "503"),
        (b"\0\x01\x02 garbage \xff\r\n\r\n", "400"),
    ] {
        let answer = answer_to(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:?}: {answer:?}", String::from_utf8_lossy(request));
    }
}

#[test]
fn the_log_cannot_be_flooded() {
    let throttle = Throttle::default();
    assert_eq!(throttle.speak(Duration::from_secs(1)), Some(0));
    for _ in 0..100 {
        assert_eq!(throttle.speak(Duration::from_secs(50)), None);
    }
    assert_eq!(throttle.speak(Duration::from_secs(61)), Some(100));
    assert_eq!(throttle.speak(Duration::from_secs(62)), None);
}
