//! The simulated network of one host: turmoil's TCP under the names and rules of [`Net`].
//!
//! Turmoil binds unspecified and loopback addresses only; a host's own name or address is served by
//! the unspecified one, and shown as asked for. A connection stands when the other side has accepted
//! it (there is no backlog), and is refused at once over a partition. Once the host has lost its power nothing more leaves
//! it, even while its tasks run on to the end of the tick.

use super::Life;
use crate::{BoxStream, Listener, Net};
use futures::future::BoxFuture;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct SimNet {
    pub life: Life,
    pub name: String,
    pub ip: IpAddr,
}

/// Host and port of `host:port` or `[v6]:port`.
fn split(address: &str) -> io::Result<(&str, u16)> {
    let (host, port) = address.rsplit_once(':').ok_or(ErrorKind::InvalidInput)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    Ok((host, port.parse().map_err(|_| ErrorKind::InvalidInput)?))
}

impl Net for SimNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            alive(&self.life).await;
            let stream = turmoil::net::TcpStream::connect(split(address)?).await?;
            Ok(Box::new(SimStream { life: self.life.clone(), stream }) as BoxStream)
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (host, port) = split(address)?;
            let asked: IpAddr = if host == self.name { self.ip } else { host.parse().map_err(|_| ErrorKind::AddrNotAvailable)? };
            let bound = match asked {
                ip if ip.is_loopback() || ip.is_unspecified() => ip,
                ip if ip == self.ip => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                _ => return Err(ErrorKind::AddrNotAvailable.into()),
            };
            if bound.is_ipv4() != self.ip.is_ipv4() {
                return Err(ErrorKind::AddrNotAvailable.into());
            }
            let listener = turmoil::net::TcpListener::bind((bound, port)).await?;
            let shown = SocketAddr::new(asked, listener.local_addr()?.port());
            Ok(Box::new(SimListener { life: self.life.clone(), listener, shown }) as Box<dyn Listener>)
        })
    }
}

/// Never comes back once the life is over.
async fn alive(life: &Life) {
    if life.is_over() {
        std::future::pending().await
    }
}

struct SimListener {
    life: Life,
    listener: turmoil::net::TcpListener,
    shown: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            alive(&self.life).await;
            let (stream, peer) = self.listener.accept().await?;
            Ok((Box::new(SimStream { life: self.life.clone(), stream }) as BoxStream, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shown)
    }
}

struct SimStream {
    life: Life,
    stream: turmoil::net::TcpStream,
}

impl AsyncRead for SimStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if self.life.is_over() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.life.is_over() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
