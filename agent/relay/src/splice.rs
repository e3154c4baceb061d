//! Bytes both ways between a caller and an instance.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::metrics::Metrics;

/// What is held of each direction at most, besides the system's and TLS's own buffers.
const TO_INSTANCE: usize = 16 << 10;
const FROM_INSTANCE: usize = 32 << 10;

/// Passes bytes on until both sides have ended; when one ends its side, the other is told and may go on.
pub(crate) async fn splice(
    caller: &mut (impl AsyncRead + AsyncWrite + Unpin),
    instance: &mut (impl AsyncRead + AsyncWrite + Unpin),
    metrics: &Metrics,
    moved: &AtomicBool,
) -> io::Result<()> {
    let mut instance = Counting {
        inner: instance,
        metrics,
        moved,
    };
    tokio::io::copy_bidirectional_with_sizes(caller, &mut instance, TO_INSTANCE, FROM_INSTANCE)
        .await
        .map(|_| ())
}

/// Notes that something moves.
struct Counting<'a, T> {
    inner: &'a mut T,
    metrics: &'a Metrics,
    moved: &'a AtomicBool,
}

impl<T> Counting<'_, T> {
    fn add(&self, counter: &AtomicU64, bytes: usize) {
        if bytes > 0 {
            counter.fetch_add(bytes as u64, Ordering::Relaxed);
            self.moved.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counting<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.inner).poll_read(cx, buf);
        self.add(&self.metrics.bytes_out, buf.filled().len() - before);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counting<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.add(&self.metrics.bytes_in, *written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
