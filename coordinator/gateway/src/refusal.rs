//! The gateway's own answers: JSON `{"error": …}` as TensorFlow Serving's are, with `berth-error`.

use std::borrow::Cow;

use http::StatusCode;

/// The value of `berth-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    NoService,
    NoInstance,
    Overloaded,
    Timeout,
    Upstream,
    BadRequest,
    TooLarge,
}

impl ErrorKind {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoService,
        Self::NoInstance,
        Self::Overloaded,
        Self::Timeout,
        Self::Upstream,
        Self::BadRequest,
        Self::TooLarge,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoService => "no-service",
            Self::NoInstance => "no-instance",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Upstream => "upstream",
            Self::BadRequest => "bad-request",
            Self::TooLarge => "too-large",
        }
    }
}

/// An answer that the gateway gives itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) kind: ErrorKind,
    pub(crate) message: Cow<'static, str>,
    /// Seconds for `retry-after`.
    pub(crate) retry_after: Option<u32>,
    /// Methods for `allow`, with 405.
    pub(crate) allow: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            retry_after: None,
            allow: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::BadRequest, message)
    }

    pub(crate) fn no_such_path(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::BadRequest, message)
    }

    pub(crate) fn method(message: impl Into<Cow<'static, str>>, allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorKind::BadRequest,
                message,
            )
        }
    }

    pub(crate) fn no_service(name: &str) -> Self {
        let message = format!("There is no service named {name:?}.");
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NoService, message)
    }

    /// TensorFlow Serving's words for a version that is not loaded.
    pub(crate) fn no_version(service: &str, serial: u64) -> Self {
        let message = format!("Servable not found for request: Specific({service}, {serial})");
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NoInstance, message)
    }

    pub(crate) fn no_instance(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::NoInstance,
                message,
            )
        }
    }

    pub(crate) fn overloaded(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorKind::Overloaded,
                message,
            )
        }
    }

    pub(crate) fn timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, ErrorKind::Timeout, message)
    }

    pub(crate) fn slow_client() -> Self {
        let message = "The request's body stopped coming.";
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorKind::Timeout, message)
    }

    pub(crate) fn upstream(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Upstream, message)
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let message = format!("The request's body is larger than the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, message)
    }

    /// The JSON body.
    pub(crate) fn body(&self) -> String {
        serde_json::json!({ "error": self.message }).to_string()
    }
}
