//! The admin API: REST/JSON under `/v1`.

mod auth;
mod blobs;
mod endpoint;
mod events;
mod extract;
mod failure;
mod fleets;
mod health;
mod jobs;
mod logs;
mod machines;
mod models;
mod nodes;
mod openapi;
mod pools;
mod services;
mod stream;
mod things;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use berth_model::problem::Problem;

use crate::edge::Edge;
use auth::Access;
use failure::Failure;

/// Header that names the coordinator's version in every answer.
pub const VERSION_HEADER: &str = "berth-version";

/// The routes of the whole API.
pub fn router(edge: &Arc<Edge>) -> Router {
    let mut router = Router::new();
    for endpoint in endpoint::all() {
        router = router.route(endpoint.path, endpoint.guarded(edge));
    }
    let for_404 = Arc::clone(edge);
    let for_405 = Arc::clone(edge);
    router
        .fallback(move |request: Request| async move {
            if let Some(answer) = unknown_grpc(&request) {
                return answer;
            }
            refuse(&for_404, &request, |path| {
                Problem::not_found(format!("there is no {path}; see /v1/openapi.json"))
            })
        })
        .method_not_allowed_fallback(move |request: Request| async move {
            let method = request.method().clone();
            refuse(&for_405, &request, |path| {
                Problem::new(
                    405,
                    "method-not-allowed",
                    "Method not allowed",
                    format!("{path} does not take {method}; see /v1/openapi.json"),
                )
            })
        })
        .with_state(Arc::clone(edge))
        .layer(middleware::map_response(add_version))
}

/// A gRPC service of a newer version is told in gRPC's own way that it is not known here.
fn unknown_grpc(request: &Request) -> Option<Response> {
    let kind = request.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    kind.starts_with("application/grpc")
        .then(|| tonic::Status::unimplemented("this version has no such service").into_http())
}

/// What there is and is not is told to nobody without a credential.
fn refuse(edge: &Edge, request: &Request, problem: impl FnOnce(&str) -> Problem) -> Response {
    match auth::permitted(edge, Access::Admin, request) {
        Ok(()) => Failure(problem(request.uri().path())).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn add_version(mut response: Response) -> Response {
    response.headers_mut().insert(
        HeaderName::from_static(VERSION_HEADER),
        HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
    );
    response
}
