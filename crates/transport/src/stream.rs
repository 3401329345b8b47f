//! A read buffer under TLS. rustls asks the socket for 4 KiB at a time; on the bulk path this
//! buffer makes one system call of up to 256 KiB out of many. It grows while reads fill it, and
//! shrinks when they do not, so that idle connections hold little.
//!
//! And a note pad above TLS: HTTP/2 forgets what exactly went wrong below it, [`Noted`] remembers.

use bytes::{Buf, BytesMut};
use env::BoxStream;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes that TLS encrypts before it calls the socket. With 64 KiB (the default) and no read buffer
/// a GB costs 1.1 s of CPU (both ends), with these sizes 0.8 s; more gains nothing.
pub(crate) const WRITE_BUFFER: usize = 512 << 10;
const SMALLEST: usize = 8 << 10;
const LARGEST: usize = 256 << 10;

/// See the module.
pub(crate) struct Buffered {
    io: BoxStream,
    buffer: BytesMut,
    size: usize,
}

impl Buffered {
    pub(crate) fn new(io: BoxStream) -> Self {
        Buffered { io, buffer: BytesMut::new(), size: SMALLEST }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.capacity() > 2 * self.size {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(self.size);
        let n = ready!(pin!(self.io.read_buf(&mut self.buffer)).poll(cx))?;
        if n >= self.size {
            self.size = (self.size * 2).min(LARGEST);
        } else if n < self.size / 8 {
            self.size = (self.size / 2).max(SMALLEST);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Buffered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            ready!(this.poll_fill(cx))?;
        }
        let n = this.buffer.len().min(into.remaining());
        into.put_slice(&this.buffer[..n]);
        this.buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What TLS said when it broke.
pub(crate) type Fault = Arc<OnceLock<rustls::Error>>;

/// A TLS stream that notes why it broke.
pub(crate) struct Noted<S> {
    pub(crate) tls: S,
    pub(crate) fault: Fault,
}

impl<S> Noted<S> {
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(e)) = &result
            && let Some(e) = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let _ = self.fault.set(e.clone());
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_read(cx, into);
        self.note(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tls).poll_write_vectored(cx, bytes);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_flush(cx);
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.tls).poll_shutdown(cx);
        self.note(result)
    }
}
