//! Who may use which endpoint.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use berth_model::problem::Problem;

use super::failure::Failure;
use crate::edge::Edge;
use crate::listen::Peer;
use crate::pki::Role;

/// Who may use an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Holders of the admin token.
    Admin,
    /// Holders of the metrics or the admin token, and everybody on this machine.
    Metrics,
}

/// Lets a request through only if its sender may use the endpoint.
pub(crate) async fn check(
    State((edge, access)): State<(Arc<Edge>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    match permitted(&edge, access, &request) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// Whether the sender of the request may use endpoints of this kind.
pub(crate) fn permitted(edge: &Edge, access: Access, request: &Request) -> Result<(), Failure> {
    let role = bearer(request.headers()).and_then(|token| edge.credentials.role_of(token));
    let allowed = match access {
        Access::Open => true,
        Access::Admin => role == Some(Role::Admin),
        Access::Metrics => matches!(role, Some(Role::Admin | Role::Metrics)) || is_local(request),
    };
    if allowed {
        return Ok(());
    }
    let wanted = match access {
        Access::Metrics => "metrics.token or admin.token",
        _ => "admin.token",
    };
    let detail = match bearer(request.headers()) {
        None => format!(
            "send the header `authorization: Bearer TOKEN`; the token is in {wanted} in the \
             coordinator's data folder"
        ),
        Some(_) => {
            format!(
                "this token may not do that; use the one in {wanted} in the coordinator's data folder"
            )
        }
    };
    Err(Problem::unauthorized(detail).into())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_local(request: &Request) -> bool {
    let address = request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.address.ip());
    match address {
        Some(IpAddr::V6(v6)) => v6.to_canonical().is_loopback(),
        Some(IpAddr::V4(v4)) => v4.is_loopback(),
        None => false,
    }
}
