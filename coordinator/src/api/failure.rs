//! Errors as RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use berth_model::problem::Problem;

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl Failure {
    /// 400: the request itself is malformed.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self(Problem::new(400, "bad-request", "Bad request", detail))
    }

    /// 413: the body is longer than allowed.
    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self(Problem::new(413, "too-large", "Too large", detail))
    }

    /// 408: the body did not come.
    pub(crate) fn too_slow() -> Self {
        let detail = "the request's body did not come in time; send it again";
        Self(Problem::new(408, "too-slow", "Request timeout", detail))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), problem = %self.0, "a request failed");
        }
        // A problem is plain text and numbers, which JSON always takes.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"berth\""),
            );
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
