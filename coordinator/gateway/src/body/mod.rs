//! Bodies: the client's on its way to an instance, and what the client gets.

mod own;
mod request;
mod response;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

pub(crate) use own::OwnBody;
pub(crate) use request::{AttemptBody, Fault, RequestBody};
pub(crate) use response::{Served, UpstreamBody};

/// Why a body ended before its end. The connection it was for is closed, which is how HTTP/1 tells
/// the other side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request's body is too large")]
    TooLarge,
    #[error("the request's body stopped coming")]
    Stalled,
    #[error("the request's body broke off: {0}")]
    Client(#[source] hyper::Error),
    #[error("the response's body broke off: {0}")]
    Upstream(#[source] hyper::Error),
    #[error("the response took too long")]
    Timeout,
}

/// The body of every response.
pub(crate) enum GatewayBody {
    Own(OwnBody),
    Upstream(UpstreamBody),
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(own) => own.poll_frame(cx).map(|frame| frame.map(Ok)),
            Self::Upstream(upstream) => upstream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(own) => own.is_end_stream(),
            Self::Upstream(upstream) => upstream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(own) => own.size_hint(),
            Self::Upstream(upstream) => upstream.size_hint(),
        }
    }
}
