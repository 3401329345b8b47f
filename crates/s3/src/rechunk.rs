//! Bodies on their way to s3s: read only when asked for, cut off when they stall, and with long `aws-chunked` chunks
//! cut into short ones.
//!
//! s3s holds each chunk of an `aws-chunked` body wholly, as it must to check a chunk's signature. Unsigned bodies
//! have no such signatures, and clients may send a whole upload as one chunk: that is framed anew here, so that
//! nothing is held but a piece. Chunks that are signed may be as long as [`SIGNED_MAX`].

use bytes::{Buf, Bytes, BytesMut};
use client::Env;
use futures::Stream;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Incoming;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// A body from which nothing comes for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// Most bytes that are taken of a body that nobody wants, and the time for it.
const DRAINED_MAX: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Pieces that wait to be taken.
const AHEAD: usize = 2;
/// Longest piece of a chunk that is framed anew, in bytes.
const PIECE: usize = 64 << 10;
/// Longest line that announces a chunk, in bytes.
const LINE_MAX: usize = 1024;
/// Longest chunk that is signed, in bytes.
pub const SIGNED_MAX: u64 = 16 << 20;

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Not at all.
    Plain,
    /// In chunks whose signatures s3s checks.
    Signed,
    /// In chunks without signatures.
    Unsigned,
}

impl Framing {
    /// By the header `x-amz-content-sha256`.
    pub fn of(header: Option<&str>) -> Self {
        match header {
            Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => Framing::Unsigned,
            Some(value) if value.starts_with("STREAMING-") => Framing::Signed,
            _ => Framing::Plain,
        }
    }
}

/// Whether a request's body has been read to its end.
#[derive(Clone)]
pub struct Reading(Arc<AtomicBool>);

impl Reading {
    /// Of a body that nobody has begun to read.
    pub fn of(body: &Incoming) -> Self {
        Reading(Arc::new(AtomicBool::new(hyper::body::Body::is_end_stream(body))))
    }

    /// Whether it has.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// It has, if this is so.
    pub fn end_if(&self, over: bool) {
        self.0.fetch_or(over, Ordering::Relaxed);
    }
}

/// A body that a task of its own reads, from the first time on that something is asked of it: so that a client that
/// waits for `100 Continue` sends nothing that is refused.
pub struct Body {
    state: State,
    left: RemainingLength,
    /// The client waits to be told to send it.
    waits: bool,
}

enum State {
    Waiting(Option<(Incoming, Env, Framing, Reading)>),
    Reading(mpsc::Receiver<Result<Bytes, StdError>>),
}

impl Body {
    /// Of a request. `length`: its bytes as sent, where known.
    pub fn new(body: Incoming, env: Env, framing: Framing, length: Option<usize>, reading: Reading, waits: bool) -> Self {
        // What is framed anew is longer than what was sent.
        let left = length.filter(|_| framing != Framing::Unsigned).map_or_else(RemainingLength::unknown, RemainingLength::new_exact);
        Body { state: State::Waiting(Some((body, env, framing, reading))), left, waits }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let State::Waiting(body) = &mut self.state
            && let Some((body, env, ..)) = body.take().filter(|_| !self.waits)
        {
            env.clone().spawn(drain(body, env));
        }
    }
}

/// Gives up a body of which nothing was read.
pub fn leave(body: Incoming, headers: &HeaderMap, env: &Env) {
    if !headers.contains_key(hyper::header::EXPECT) {
        env.spawn(drain(body, env.clone()));
    }
}

/// Takes what a client still sends, for a while: one that is busy sending would not hear why it was refused.
async fn drain(mut body: Incoming, env: Env) {
    let mut left = DRAINED_MAX;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                break;
            }
            left -= length;
        }
    };
    env.timeout(DRAIN_TIME, all).await;
}

impl Stream for Body {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::Waiting(body) = &mut self.state
            && let Some((body, env, framing, reading)) = body.take()
        {
            let (send, receive) = mpsc::channel(AHEAD);
            env.clone().spawn(read(body, env, framing, reading, send));
            self.state = State::Reading(receive);
        }
        match &mut self.state {
            State::Reading(parts) => parts.poll_recv(cx),
            State::Waiting(_) => Poll::Ready(None),
        }
    }
}

impl ByteStream for Body {
    fn remaining_length(&self) -> RemainingLength {
        match self.left.exact() {
            Some(length) => RemainingLength::new_exact(length),
            None => RemainingLength::unknown(),
        }
    }
}

async fn read(mut body: Incoming, env: Env, framing: Framing, reading: Reading, send: mpsc::Sender<Result<Bytes, StdError>>) {
    let mut frames = Frames::default();
    loop {
        let part = match env.timeout(STALL, body.frame()).await {
            None => Err(StdError::from("the body of a request stalled")),
            Some(None) => break,
            Some(Some(Err(e))) => Err(e.into()),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(part) => Ok(part),
                Err(_) => continue,
            },
        };
        let failed = part.is_err();
        // Known before the last part is taken: who has that may answer at once.
        reading.end_if(hyper::body::Body::is_end_stream(&body));
        let parts = match part {
            Ok(part) if framing != Framing::Plain => match frames.take(part, framing) {
                Ok(parts) => parts.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(StdError::from(e))],
            },
            part => vec![part],
        };
        for part in parts {
            let failed = failed || part.is_err();
            if send.send(part).await.is_err() {
                return drain(body, env).await;
            }
            if failed {
                return;
            }
        }
    }
    reading.end_if(true);
    let _ = send.send(Ok(frames.rest())).await;
}

/// Chunks being read.
#[derive(Default)]
struct Frames {
    /// Bytes of the chunk still to come, with the line end after it.
    left: u64,
    /// A line, or a piece, that is not whole yet.
    held: BytesMut,
    /// The last chunk was seen: what comes now are headers.
    ended: bool,
}

impl Frames {
    /// Takes in what came; gives what can be passed on.
    fn take(&mut self, mut part: Bytes, framing: Framing) -> Result<Vec<Bytes>, &'static str> {
        let mut out = Vec::new();
        while part.has_remaining() {
            if self.ended {
                out.push(part);
                break;
            }
            if self.left > 0 {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(part.len());
                self.data(part.split_to(len), framing, &mut out);
                continue;
            }
            let end = part.iter().position(|b| *b == b'\n').map_or(part.len(), |at| at + 1);
            self.held.extend_from_slice(&part.split_to(end));
            if self.held.len() > LINE_MAX {
                return Err("ChunkMetaTooLarge");
            }
            if self.held.last() == Some(&b'\n') {
                self.line(framing, &mut out)?;
            }
        }
        Ok(out)
    }

    /// A line that announces a chunk is whole.
    fn line(&mut self, framing: Framing, out: &mut Vec<Bytes>) -> Result<(), &'static str> {
        let line = self.held.split().freeze();
        let size = line.split(|b| *b == b';' || *b == b'\r' || *b == b'\n').next().unwrap_or_default();
        let size = std::str::from_utf8(size).ok().and_then(|s| u64::from_str_radix(s, 16).ok()).ok_or("FormatError")?;
        if framing == Framing::Signed && size > SIGNED_MAX {
            return Err("ChunkTooLarge");
        }
        if size == 0 {
            self.ended = true;
            out.push(line);
            return Ok(());
        }
        self.left = size.checked_add(2).ok_or("FormatError")?;
        if framing == Framing::Signed {
            out.push(line);
        }
        Ok(())
    }

    /// Bytes of a chunk, or of the line end after it.
    fn data(&mut self, part: Bytes, framing: Framing, out: &mut Vec<Bytes>) {
        self.left -= part.len() as u64;
        if framing == Framing::Signed {
            out.push(part);
            return;
        }
        self.held.extend_from_slice(&part);
        // The line end stays behind until it is whole: each piece gets one of its own.
        let end = usize::try_from(2u64.saturating_sub(self.left)).unwrap_or(0);
        let mut data = self.held.len().saturating_sub(end);
        while data >= PIECE || (data > 0 && self.left <= 2) {
            let len = data.min(PIECE);
            let piece = self.held.split_to(len).freeze();
            data -= len;
            out.push(Bytes::from(format!("{len:x}\r\n")));
            out.push(piece);
            out.push(Bytes::from_static(b"\r\n"));
        }
        if self.left == 0 {
            self.held.clear();
        }
    }

    /// What was held when the body ended: passed on, so that s3s sees that it is cut off.
    fn rest(self) -> Bytes {
        self.held.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pass(body: &[u8], cuts: usize, framing: Framing) -> Result<Vec<u8>, &'static str> {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        for part in body.chunks(cuts.max(1)) {
            for part in frames.take(Bytes::copy_from_slice(part), framing)? {
                assert!(part.len() <= PIECE.max(cuts), "a piece of {}", part.len());
                out.extend_from_slice(&part);
            }
        }
        out.extend_from_slice(&frames.rest());
        Ok(out)
    }

    /// The content of a framed body, and what comes after the last chunk.
    fn content(mut body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        loop {
            let at = body.windows(2).position(|w| w == b"\r\n").expect("a line");
            let size = usize::from_str_radix(std::str::from_utf8(&body[..at]).unwrap(), 16).unwrap();
            body = &body[at + 2..];
            if size == 0 {
                return (out, body.to_vec());
            }
            out.extend_from_slice(&body[..size]);
            assert_eq!(&body[size..size + 2], b"\r\n");
            body = &body[size + 2..];
        }
    }

    proptest! {
        #[test]
        fn content_and_trailers_stay_the_same(sizes in prop::collection::vec(1usize..200_000, 0..4), cuts in 1usize..70_000) {
            let mut body = Vec::new();
            let mut all = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                let data: Vec<u8> = (0..*size).map(|n| (n * 7 + i) as u8).collect();
                body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                body.extend_from_slice(&data);
                body.extend_from_slice(b"\r\n");
                all.extend(data);
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
            let (got, rest) = content(&pass(&body, cuts, Framing::Unsigned).unwrap());
            prop_assert!(got == all);
            prop_assert_eq!(rest, b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n".to_vec());
            prop_assert!(pass(&body, cuts, Framing::Signed).unwrap() == body);
        }

        #[test]
        fn garbage_is_refused_or_passed_on(body in prop::collection::vec(any::<u8>(), 0..3_000), cuts in 1usize..100) {
            let _ = pass(&body, cuts, Framing::Unsigned);
            let _ = pass(&body, cuts, Framing::Signed);
        }
    }

    #[test]
    fn long_chunks_are_refused_where_they_must_be_held() {
        let body = b"1000001;chunk-signature=00\r\n";
        assert_eq!(pass(body, 10, Framing::Signed), Err("ChunkTooLarge"));
        assert!(pass(b"ffffffffffffffff\r\n", 100, Framing::Unsigned).is_err());
    }
}
