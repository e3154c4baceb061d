//! An instance's response on its way to the client. Whoever reads it drives the connection that it
//! comes from, so that a request is one task from its first byte to its last.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::BodyError;
use crate::routing::Lease;
use crate::upstream::Connection;
use crate::worker::Worker;

/// An answered request: counted as in flight, and measured, until this is dropped.
pub(crate) struct Served {
    pub(crate) worker: Rc<Worker>,
    pub(crate) lease: Lease,
    pub(crate) status: StatusCode,
    pub(crate) started: std::time::Instant,
}

impl Drop for Served {
    fn drop(&mut self) {
        let metrics = &self.lease.target.revision.metrics;
        metrics.request(self.worker.index, self.status, self.started.elapsed());
    }
}

pub(crate) struct UpstreamBody {
    incoming: Incoming,
    connection: Option<Connection>,
    /// None once the response is over, one way or the other.
    served: Option<Served>,
    idle: Duration,
    /// When the whole exchange must be over, if its manifest says so.
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    progress: bool,
}

impl UpstreamBody {
    pub(crate) fn new(
        incoming: Incoming,
        connection: Connection,
        served: Served,
        idle: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        let mut body = Self {
            incoming,
            connection: Some(connection),
            served: Some(served),
            idle,
            deadline,
            timer: None,
            progress: false,
        };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.served.is_none() {
            return Poll::Ready(None);
        }
        // First, so that what it reads now is there to be taken below, without a further wake-up.
        if let Some(connection) = &mut self.connection
            && !connection.is_idle()
        {
            connection.drive(cx);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.progress = true;
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(e))) => self.fail(BodyError::Upstream(e)),
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let idle_deadline = || {
            let idle = Instant::now() + self.idle;
            self.deadline.map_or(idle, |deadline| deadline.min(idle))
        };
        let timer = match &mut self.timer {
            Some(timer) => {
                if self.progress {
                    timer.as_mut().reset(idle_deadline());
                }
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(idle_deadline()))),
        };
        self.progress = false;
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(BodyError::Timeout),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    /// All has come: the connection serves the next request, if it can.
    fn finish(&mut self) {
        self.timer = None;
        let Some(served) = self.served.take() else {
            return;
        };
        if let Some(connection) = self.connection.take() {
            served.worker.pool.put(&served.lease.target, connection);
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.connection = None;
        if let Some(served) = self.served.take() {
            let instance = &served.lease.target.instance.id;
            tracing::debug!(%instance, %error, "response broke off");
        }
        Poll::Ready(Some(Err(error)))
    }
}
