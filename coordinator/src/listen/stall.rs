//! A stream that gives up on a peer that stands still.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a peer may stand still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Longest time in which nothing comes although something is waited for; none where the
    /// protocol lets a peer be silent.
    pub(super) read: Option<Duration>,
    /// Longest time in which the peer takes nothing of what waits for it.
    pub(super) write: Duration,
}

/// Wraps a stream; both directions have a deadline that starts anew with every byte.
pub(super) struct Stall<S> {
    inner: S,
    patience: Patience,
    reading: Deadline,
    writing: Deadline,
}

#[derive(Default)]
struct Deadline(Option<Pin<Box<Sleep>>>);

impl Deadline {
    /// To be asked when the stream is not ready: an error once it has not been for too long.
    fn check(&mut self, limit: Duration, cx: &mut Context<'_>) -> Result<(), io::Error> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

impl<S> Stall<S> {
    pub(super) fn new(inner: S, patience: Patience) -> Self {
        Self {
            inner,
            patience,
            reading: Deadline::default(),
            writing: Deadline::default(),
        }
    }

    fn wrote<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.writing.clear();
            return result;
        }
        self.writing.check(self.patience.write, cx)?;
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(limit) = this.patience.read else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.reading.clear();
            return Poll::Ready(result);
        }
        this.reading.check(limit, cx)?;
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.wrote(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.wrote(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.inner).poll_flush(cx);
        this.wrote(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let closed = ready!({
            let result = Pin::new(&mut this.inner).poll_shutdown(cx);
            this.wrote(result, cx)
        });
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience = Patience {
        read: Some(Duration::from_secs(60)),
        write: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_ends_the_stream_after_its_time() {
        let (near, _far) = tokio::io::duplex(8);
        let mut near = Stall::new(near, PATIENCE);
        let began = Instant::now();
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_served_for_as_long_as_it_moves() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut near = Stall::new(near, PATIENCE);
        let reader = tokio::spawn(async move {
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(20)).await;
                far.read_u8().await.unwrap();
            }
        });
        near.write_all(&[0; 8]).await.unwrap();
        reader.await.unwrap();
    }
}
