//! The body of the gateway's own answers.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

/// How much of an unwanted request body is still taken, so that the client gets to read the answer
/// instead of a reset connection.
const LINGER_BYTES: usize = 2 << 20;
/// For how long.
const LINGER_TIME: Duration = Duration::from_secs(2);

struct Linger {
    incoming: Incoming,
    left: usize,
    timer: Pin<Box<Sleep>>,
}

/// A short text, after which the rest of the request is taken and thrown away.
pub(crate) struct OwnBody {
    data: Option<Bytes>,
    linger: Option<Linger>,
}

impl OwnBody {
    /// `unread` is the request's body if it has not been read to its end.
    pub(crate) fn new(data: String, unread: Option<Incoming>) -> Self {
        Self {
            data: Some(Bytes::from(data)),
            linger: unread.map(|incoming| Linger {
                incoming,
                left: LINGER_BYTES,
                timer: Box::pin(sleep_until(Instant::now() + LINGER_TIME)),
            }),
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Frame::data(data)));
        }
        if let Some(linger) = &mut self.linger
            && !linger.is_over(cx)
        {
            return Poll::Pending;
        }
        self.linger = None;
        Poll::Ready(None)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.linger.is_none()
    }

    /// Unknown while lingering: hyper drops a body as soon as its known length has been written.
    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.data {
            _ if self.linger.is_some() => SizeHint::default(),
            Some(data) => SizeHint::with_exact(data.len() as u64),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Linger {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.timer.as_mut().poll(cx).is_ready() {
            return true;
        }
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return false,
                Poll::Ready(None | Some(Err(_))) => return true,
                Poll::Ready(Some(Ok(frame))) => {
                    let size = frame.data_ref().map_or(0, Bytes::len);
                    match self.left.checked_sub(size) {
                        Some(left) => self.left = left,
                        None => return true,
                    }
                }
            }
        }
    }
}
