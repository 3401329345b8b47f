//! Content as a stream: for whoever passes it on as it comes.

use crate::download::{Part, Reader, Room};
use crate::session::Client;
use crate::tree::Entry;
use futures::{Stream, StreamExt, TryStreamExt};
use model::{Error, Result};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncRead;

/// Parts of a streamed read that are read ahead.
const AHEAD: usize = 4;
/// A streamed read of which nothing is taken for so long is given up.
const STALL: Duration = Duration::from_secs(60);

impl Client {
    /// The content of files, one after another. A file is opened when it is its turn.
    pub fn read_all(&self, files: Vec<Entry>) -> impl AsyncRead + Send + Unpin + use<> {
        let client = self.clone();
        let contents = futures::stream::iter(files).then(move |file| {
            let client = client.clone();
            async move { client.open_file(&file).await.map(|reader| reader.stream(0..reader.size)) }
        });
        let bytes = contents.try_flatten().map(|part| part.map(io::Cursor::new).map_err(io::Error::other));
        tokio_util::io::StreamReader::new(Box::pin(bytes))
    }
}

impl Reader {
    /// A range (cut to the file's end) as a stream of verified parts, in order. A few parts are read ahead while they
    /// are taken. It ends when it is dropped, and breaks when nothing is taken for a minute: what waits takes memory.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = Result<Vec<u8>>> + Send + Sync + Unpin + use<> {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let reader = self.share();
        let range = range.start.min(reader.size)..range.end.min(reader.size).max(range.start.min(reader.size));
        let env = self.client.env().clone();
        env.clone().spawn(async move {
            let mut parts = match reader.held_parts(range, AHEAD).await {
                Ok(parts) => parts,
                Err(e) => return drop(send.send(Err(e)).await),
            };
            while let Some(part) = parts.next().await {
                let failed = part.is_err();
                let taken = env.timeout(STALL, send.send(part)).await;
                if !matches!(taken, Some(Ok(()))) || failed {
                    return;
                }
            }
            let _ = send.send(Ok(Part::end())).await;
        });
        Parts { receive, held: None, left: true }
    }
}

/// What a task reads. Ends well only with the mark of its end: a task that gave up is an error.
struct Parts {
    receive: tokio::sync::mpsc::Receiver<Result<Part>>,
    /// The part taken last, for as long as it may be in somebody's hands.
    held: Option<Room>,
    left: bool,
}

impl Stream for Parts {
    type Item = Result<Vec<u8>>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.held = None;
        if !self.left {
            return Poll::Ready(None);
        }
        let part = match ready!(self.receive.poll_recv(cx)) {
            Some(Ok(part)) => part,
            Some(Err(e)) => {
                self.left = false;
                return Poll::Ready(Some(Err(e)));
            }
            None => {
                self.left = false;
                return Poll::Ready(Some(Err(Error::unavailable("nobody took what was read for a minute"))));
            }
        };
        if part.is_end() {
            self.left = false;
            return Poll::Ready(None);
        }
        let (bytes, room) = part.into_parts();
        self.held = room;
        Poll::Ready(Some(Ok(bytes)))
    }
}
