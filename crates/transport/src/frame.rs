//! What stands in the bodies of requests and responses.
//!
//! ```text
//! body         = head length (4 bytes, big-endian) ‖ head (CBOR) ‖ raw bytes
//! stream       = head length ‖ head ‖ frame*, to the end of the HTTP body
//! frame        = length (4 bytes, big-endian, below 2^31) ‖ bytes
//! last frame   = length with its top bit set ‖ CBOR model::Error: the stream broke off
//! error        = CBOR model::Error alone, with an HTTP status other than 200
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use model::{Error, Kind, Result, cbor};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

/// Raw bytes beside a message, in pieces that are sent one after another without being copied
/// together.
#[derive(Clone, Default)]
pub struct Pieces(pub Vec<Bytes>);

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Pieces {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }
}

impl From<()> for Pieces {
    fn from(_: ()) -> Self {
        Pieces(Vec::new())
    }
}
impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Pieces(vec![bytes])
    }
}
impl From<Vec<u8>> for Pieces {
    fn from(bytes: Vec<u8>) -> Self {
        Pieces(vec![bytes.into()])
    }
}
impl From<Vec<Bytes>> for Pieces {
    fn from(pieces: Vec<Bytes>) -> Self {
        Pieces(pieces)
    }
}

/// What follows the head of a response.
pub enum Body {
    /// Bytes of known length.
    Pieces(Pieces),
    /// Frames that are made while they are sent: snapshots, watches. Read with `Pool::stream`.
    /// A frame holds at most 16 MiB. A stream that may be silent for long must send an empty frame
    /// now and then, or it counts as idle.
    Stream(BoxStream<'static, Result<Bytes>>),
}

impl<T: Into<Pieces>> From<T> for Body {
    fn from(pieces: T) -> Self {
        Body::Pieces(pieces.into())
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Body::Pieces(pieces) => pieces.fmt(f),
            Body::Stream(_) => f.write_str("a stream"),
        }
    }
}

/// Heads up to this size are copied behind their length, and small bodies behind them: one piece
/// costs less than several.
const JOIN_UP_TO: usize = 16 << 10;
/// The longest frame of a stream.
pub(crate) const MAX_FRAME: usize = 16 << 20;
const BROKEN: u32 = 1 << 31;

/// A body on its way out.
pub(crate) enum Outgoing {
    Whole(VecDeque<Bytes>),
    Stream { first: Option<Bytes>, frames: Option<BoxStream<'static, Result<Bytes>>>, next: Option<Bytes> },
}

impl Outgoing {
    /// `Invalid` where the head is longer than its length field can say.
    pub(crate) fn new(head: Bytes, body: Body) -> Result<Self> {
        let length = u32::try_from(head.len()).map_err(|_| Error::invalid("a message of more than 4 GiB"))?;
        let pieces = match body {
            Body::Stream(frames) => {
                return Ok(Outgoing::Stream { first: Some(joined(length, &head, &[])), frames: Some(frames), next: None });
            }
            Body::Pieces(pieces) => pieces.0,
        };
        let mut queue = VecDeque::with_capacity(pieces.len() + 2);
        if head.len() + pieces.iter().map(Bytes::len).sum::<usize>() <= JOIN_UP_TO {
            queue.push_back(joined(length, &head, &pieces));
        } else if head.len() <= JOIN_UP_TO {
            queue.push_back(joined(length, &head, &[]));
            queue.extend(pieces);
        } else {
            queue.push_back(Bytes::copy_from_slice(&length.to_be_bytes()));
            queue.push_back(head);
            queue.extend(pieces);
        }
        queue.retain(|piece| !piece.is_empty());
        Ok(Outgoing::Whole(queue))
    }

    pub(crate) fn error(error: &Error) -> Self {
        Outgoing::Whole(VecDeque::from([Bytes::from(cbor::to_vec(error))]))
    }

    /// Bytes in all, unless it is a stream.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Outgoing::Whole(queue) => Some(queue.iter().map(|piece| piece.len() as u64).sum()),
            Outgoing::Stream { .. } => None,
        }
    }
}

fn joined(length: u32, head: &[u8], rest: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + head.len() + rest.iter().map(Bytes::len).sum::<usize>());
    out.put_u32(length);
    out.put_slice(head);
    rest.iter().for_each(|piece| out.put_slice(piece));
    out.freeze()
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Outgoing::Whole(queue) => queue.pop_front(),
            Outgoing::Stream { first, frames, next } => match (first.take().or_else(|| next.take()), frames.as_mut()) {
                (Some(piece), _) => Some(piece),
                (None, None) => None,
                (None, Some(source)) => match ready!(source.poll_next_unpin(cx)) {
                    None => {
                        *frames = None;
                        None
                    }
                    Some(Ok(bytes)) if bytes.len() <= MAX_FRAME => {
                        let length = Bytes::copy_from_slice(&(bytes.len() as u32).to_be_bytes());
                        *next = Some(bytes).filter(|b| !b.is_empty());
                        Some(length)
                    }
                    broken => {
                        *frames = None;
                        let error = match broken {
                            Some(Err(e)) => e,
                            _ => Error::invalid("a frame of more than 16 MiB"),
                        };
                        let error = cbor::to_vec(&error);
                        Some(joined(error.len() as u32 | BROKEN, &error, &[]))
                    }
                },
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(queue) if queue.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or(SizeHint::default(), SizeHint::with_exact)
    }
}

/// Takes a body apart: head, and what follows. `Invalid` where it is none.
pub(crate) fn split(mut body: Bytes) -> Result<(Bytes, Bytes)> {
    let length = body.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize);
    match length {
        Some(length) if length <= body.len() - 4 => {
            let rest = body.split_off(4 + length);
            Ok((body.split_off(4), rest))
        }
        _ => Err(Error::invalid("a message that is cut short")),
    }
}

/// The next bytes of a body, `None` at its end.
pub(crate) async fn data(body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
    loop {
        match poll_fn(|cx| pin!(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(e)) => return Err(e),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_trailers) => {}
            },
        }
    }
}

/// Puts a body together in one buffer, made at the size that was announced.
pub(crate) struct Collect {
    parts: Vec<u8>,
    only: Option<Bytes>,
    announced: usize,
    limit: usize,
}

impl Collect {
    /// For a body of an announced length (0: none was), refusing more than `limit` bytes.
    pub(crate) fn new(announced: u64, limit: usize) -> Self {
        Collect { parts: Vec::new(), only: None, announced: usize::try_from(announced).unwrap_or(limit).min(limit), limit }
    }

    /// `Err` when the limit is passed.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Result<(), ()> {
        let have = self.only.as_ref().map_or(self.parts.len(), Bytes::len);
        if have + bytes.len() > self.limit {
            return Err(());
        }
        if have == 0 && bytes.len() >= self.announced {
            self.only = Some(bytes);
            return Ok(());
        }
        if self.parts.capacity() == 0 {
            self.parts.reserve_exact(self.announced.max(bytes.len()));
        }
        if let Some(first) = self.only.take() {
            self.parts.extend_from_slice(&first);
        }
        self.parts.extend_from_slice(&bytes);
        Ok(())
    }

    pub(crate) fn finish(self) -> Bytes {
        self.only.unwrap_or_else(|| self.parts.into())
    }
}

/// HTTP status of an error: for people and proxies; clients read the kind in the body.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Exists => StatusCode::CONFLICT,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Conflict => StatusCode::PRECONDITION_FAILED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Insufficient => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Invalid => StatusCode::BAD_REQUEST,
    }
}

/// Takes frames out of a stream's bytes as they come.
#[derive(Default)]
pub(crate) struct Deframer(BytesMut);

impl Deframer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The head at the beginning of a stream, once it is there.
    pub(crate) fn head(&mut self, limit: usize) -> Result<Option<Bytes>> {
        self.take(|length| if length as usize > limit { Err(Error::invalid("a message that is too long")) } else { Ok(length as usize) })
    }

    /// The next frame, once it is there; the error that broke the stream off.
    pub(crate) fn frame(&mut self) -> Result<Option<Bytes>> {
        let broken = self.0.first().is_some_and(|b| b & 0x80 != 0);
        let frame = self.take(|length| match (length & !BROKEN) as usize {
            length if length > MAX_FRAME => Err(Error::invalid("a frame of more than 16 MiB")),
            length => Ok(length),
        })?;
        match frame {
            Some(bytes) if broken => Err(decode_error(&bytes)),
            frame => Ok(frame),
        }
    }

    /// Whether nothing of an unfinished frame is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, check: impl Fn(u32) -> Result<usize>) -> Result<Option<Bytes>> {
        let Some(length) = self.0.first_chunk::<4>() else { return Ok(None) };
        let length = check(u32::from_be_bytes(*length))?;
        if self.0.len() - 4 < length {
            return Ok(None);
        }
        Ok(Some(self.0.split_to(4 + length).freeze().split_off(4)))
    }
}

/// The error in the body of a refusal.
pub(crate) fn decode_error(body: &[u8]) -> Error {
    cbor::from_slice::<Error>(body).unwrap_or_else(|_| Error::invalid("the answer of something that is no Shardkeep server"))
}

#[cfg(test)]
mod tests;
