//! RFC 9457 problem documents: the admin API's errors.

use serde::{Deserialize, Serialize};

/// An error of the admin API, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// `urn:berth:problem:CODE`; CODE is stable.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of error in a few words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened, to what, why, and what to do next.
    pub detail: String,
    /// Single errors, where there are several (a manifest's, say).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl Problem {
    /// A problem of the given stable code, as in `not-found`.
    pub fn new(
        status: u16,
        code: &str,
        title: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:berth:problem:{code}"),
            title: title.into(),
            status,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not-found", "Not found", detail)
    }

    /// 409: it clashes with what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", "Conflict", detail)
    }

    /// 422: the request is understood and cannot be carried out as it is.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(422, "invalid", "Invalid request", detail)
    }

    /// 401: no or a wrong credential.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", "Unauthorized", detail)
    }

    /// 503: not now; try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, "unavailable", "Not available now", detail)
    }

    /// 500: our fault.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(500, "internal", "Internal error", detail)
    }
}
