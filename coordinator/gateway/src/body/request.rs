//! The request's body: passed on as it comes, its beginning kept so that it can be sent again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyError;

/// What the client did wrong with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    TooLarge,
    Stalled,
    Broken,
}

struct Source {
    incoming: Option<Incoming>,
    /// Whether the client waits for `100 Continue` before it sends.
    expects: bool,
    /// The length that the head announced.
    exact: Option<u64>,
    kept: Vec<Bytes>,
    /// How much may still be kept; none once more has come than can be kept.
    room: Option<usize>,
    /// How much may still come.
    left: u64,
    trailers: Option<HeaderMap>,
    fault: Option<Fault>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something came since the timer was set.
    progress: bool,
}

/// The client's body, read by one attempt at a time.
pub(crate) struct RequestBody(Rc<RefCell<Source>>);

impl RequestBody {
    /// Keeps up to `room` bytes; takes a pause of `idle` at most. `expects`: the client waits for
    /// `100 Continue`.
    pub(crate) fn new(incoming: Incoming, expects: bool, room: usize, idle: Duration) -> Self {
        let exact = incoming.size_hint().exact();
        let ended = incoming.is_end_stream();
        Self(Rc::new(RefCell::new(Source {
            incoming: (!ended).then_some(incoming),
            expects,
            exact,
            kept: Vec::new(),
            // What is announced to be too large is not kept in vain.
            room: Some(
                exact
                    .filter(|length| *length > room as u64)
                    .map_or(room, |_| 0),
            ),
            left: u64::MAX,
            trailers: None,
            fault: None,
            idle,
            timer: None,
            progress: false,
        })))
    }

    /// Sets the largest size; to be called before the first attempt. False if the announced length is
    /// larger.
    pub(crate) fn limit(&self, max: u64) -> bool {
        let mut source = self.0.borrow_mut();
        source.left = max;
        source.exact.is_none_or(|length| length <= max)
    }

    /// Whether there is a body whose length the head did not tell.
    pub(crate) fn is_unsized(&self) -> bool {
        let source = self.0.borrow();
        source.exact.is_none()
    }

    /// The body from its beginning. Only right while [`Self::can_begin_anew`].
    pub(crate) fn attempt(&self) -> AttemptBody {
        AttemptBody {
            source: Rc::clone(&self.0),
            next: 0,
        }
    }

    /// Whether all that has come is kept.
    pub(crate) fn can_begin_anew(&self) -> bool {
        let source = self.0.borrow();
        source.room.is_some() && source.fault.is_none()
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.0.borrow().fault
    }

    /// What the client has not sent yet, if that is worth waiting for: a client that waits for
    /// `100 Continue` sends nothing after a final status.
    pub(crate) fn take_unread(&self) -> Option<Incoming> {
        let mut source = self.0.borrow_mut();
        if source.expects || matches!(source.fault, Some(Fault::Broken | Fault::Stalled)) {
            return None;
        }
        source.incoming.take()
    }
}

/// What one attempt sends.
pub(crate) struct AttemptBody {
    source: Rc<RefCell<Source>>,
    /// The next kept piece.
    next: usize,
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut source = this.source.borrow_mut();
        if let Some(piece) = source.kept.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = source.poll_incoming(cx);
        this.next = source.kept.len();
        polled
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        self.next >= source.kept.len() && source.incoming.is_none() && source.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // Asked for before the first piece, to frame the message.
        match self.source.borrow().exact {
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}

impl Source {
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else {
            let trailers = self.trailers.clone().map(Frame::trailers);
            return Poll::Ready(trailers.map(Ok));
        };
        match Pin::new(&mut *incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.progress = true;
                if incoming.is_end_stream() {
                    self.incoming = None;
                }
                self.take(frame)
            }
            Poll::Ready(None) => {
                self.incoming = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(e))) => self.fail(Fault::Broken, BodyError::Client(e)),
            Poll::Pending => self.wait(cx),
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match frame.into_data() {
            Ok(data) => {
                match self.left.checked_sub(data.len() as u64) {
                    Some(left) => self.left = left,
                    None => return self.fail(Fault::TooLarge, BodyError::TooLarge),
                }
                self.room = self.room.and_then(|room| room.checked_sub(data.len()));
                if self.room.is_some() {
                    self.kept.push(data.clone());
                } else {
                    self.kept = Vec::new();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                self.incoming = None;
                self.trailers = frame.into_trailers().ok();
                let trailers = self.trailers.clone().map(Frame::trailers);
                Poll::Ready(trailers.map(Ok))
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let deadline = || Instant::now() + self.idle;
        let timer = match &mut self.timer {
            Some(timer) => {
                if self.progress {
                    timer.as_mut().reset(deadline());
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(deadline()))),
        };
        self.progress = false;
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(Fault::Stalled, BodyError::Stalled),
            Poll::Pending => Poll::Pending,
        }
    }

    fn fail(
        &mut self,
        fault: Fault,
        error: BodyError,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.fault = Some(fault);
        Poll::Ready(Some(Err(error)))
    }
}
