//! The table of endpoints: the router and the OpenAPI document are both made from it, so that
//! neither can have one that the other lacks.

mod declared;
mod machines;

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::routing::{MethodRouter, delete, get, head, patch, post};

use super::auth::{self, Access};
use super::{blobs, events, health, jobs, logs, models, openapi, services, things};
use crate::edge::Edge;

/// One method of one path.
pub(super) struct Endpoint {
    /// In upper case.
    pub(super) method: &'static str,
    /// With `{NAME}` for variable parts.
    pub(super) path: &'static str,
    /// Who may use it.
    pub(super) access: Access,
    /// What it does, in a sentence.
    pub(super) summary: &'static str,
    /// The body it takes.
    pub(super) body: Body,
    /// Query parameters: name and meaning.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// Status and body of a success.
    pub(super) answer: (u16, Body),
    handler: MethodRouter<Arc<Edge>>,
}

/// What a request or an answer carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    Nothing,
    /// JSON of this schema.
    Json(&'static str),
    /// `{"items": […]}` of this schema.
    List(&'static str),
    /// Server-sent events, whose data is JSON of this schema.
    Events(&'static str),
    /// A list, or server-sent events where the client accepts those.
    ListOrEvents(&'static str),
    /// Bytes.
    Bytes,
    /// Plain text.
    Text,
    /// JSON of no fixed schema.
    Free,
}

impl Endpoint {
    /// The handler behind its access check, counted.
    pub(super) fn guarded(self, edge: &Arc<Edge>) -> MethodRouter<Arc<Edge>> {
        let (method, path) = (self.method, self.path);
        let figures = Arc::clone(edge);
        let checked = (Arc::clone(edge), self.access);
        self.handler
            .route_layer(middleware::from_fn_with_state(checked, auth::check))
            .route_layer(middleware::from_fn(move |request: Request, next: Next| {
                let edge = Arc::clone(&figures);
                async move {
                    let response = next.run(request).await;
                    let status = response.status().as_u16();
                    edge.figures.request(method, path, status);
                    response
                }
            }))
    }

    fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    fn takes(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    fn open(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
}

fn endpoint(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    answer: (u16, Body),
    handler: MethodRouter<Arc<Edge>>,
) -> Endpoint {
    Endpoint {
        method,
        path,
        access: Access::Admin,
        summary,
        body: Body::Nothing,
        query: &[],
        answer,
        handler,
    }
}

/// Every endpoint.
pub(super) fn all() -> Vec<Endpoint> {
    let mut all = process();
    all.extend(packages());
    all.extend(workloads());
    all.extend(batch());
    all.extend(declared::all());
    all.extend(machines::all());
    all.extend(fleet());
    all.extend(edges());
    all
}

fn process() -> Vec<Endpoint> {
    vec![
        endpoint(
            "GET",
            "/healthz",
            "Whether the process answers.",
            (200, Body::Text),
            get(health::healthz),
        )
        .open(Access::Open),
        endpoint(
            "GET",
            "/readyz",
            "Whether the coordinator is ready: control answers and its store takes changes.",
            (200, Body::Text),
            get(health::readyz),
        )
        .open(Access::Open),
        endpoint(
            "GET",
            "/v1/openapi.json",
            "This document.",
            (200, Body::Free),
            get(openapi::serve),
        )
        .open(Access::Open),
        endpoint(
            "GET",
            "/metrics",
            "Figures in Prometheus' text format.",
            (200, Body::Text),
            get(health::metrics),
        )
        .open(Access::Metrics),
        endpoint(
            "GET",
            "/metrics/modules",
            "What the instances' modules say of themselves, in Prometheus' text format with the labels service, \
             revision, instance, node, model and version.",
            (200, Body::Text),
            get(health::modules),
        )
        .open(Access::Metrics),
    ]
}

fn packages() -> Vec<Endpoint> {
    vec![
        endpoint(
            "HEAD",
            "/v1/blobs/{digest}",
            "How far an upload has come: the headers Upload-Offset (bytes on disk) and Upload-Complete (?1 or ?0).",
            (200, Body::Nothing),
            head(blobs::offset),
        ),
        endpoint(
            "PATCH",
            "/v1/blobs/{digest}",
            "Append to an upload: the headers Upload-Offset (where these bytes start) and Upload-Length (size in \
             all) are required. 409 tells the right offset if that one is not.",
            (200, Body::Json("BlobView")),
            patch(blobs::append),
        )
        .takes(Body::Bytes),
        endpoint(
            "GET",
            "/v1/blobs/{digest}",
            "The bytes of a complete blob.",
            (200, Body::Bytes),
            get(blobs::download),
        ),
        endpoint(
            "POST",
            "/v1/models",
            "Register a package that was uploaded as a blob. The same package again answers with the version that is there.",
            (201, Body::Json("ModelVersionView")),
            post(models::register),
        )
        .takes(Body::Json("RegisterModel")),
        endpoint(
            "GET",
            "/v1/models",
            "All models with their versions.",
            (200, Body::List("ModelView")),
            get(models::list),
        ),
        endpoint(
            "GET",
            "/v1/models/{name}",
            "One model with its versions.",
            (200, Body::Json("ModelView")),
            get(models::show),
        ),
    ]
}

fn workloads() -> Vec<Endpoint> {
    vec![
        endpoint(
            "POST",
            "/v1/services",
            "Create a service, or give it a new revision. The same again changes nothing.",
            (200, Body::Json("ServiceView")),
            post(services::deploy),
        )
        .takes(Body::Json("Deploy")),
        endpoint(
            "GET",
            "/v1/services",
            "All services as they are now.",
            (200, Body::List("ServiceView")),
            get(services::list),
        ),
        endpoint(
            "GET",
            "/v1/services/{service}",
            "One service as it is now.",
            (200, Body::Json("ServiceView")),
            get(services::show),
        ),
        endpoint(
            "POST",
            "/v1/services/{service}/scale",
            "Change the number of instances.",
            (200, Body::Json("ServiceView")),
            post(services::scale),
        )
        .takes(Body::Json("Scale")),
        endpoint(
            "DELETE",
            "/v1/services/{service}",
            "Delete a service: its instances are drained and stopped first.",
            (202, Body::Json("ServiceView")),
            delete(services::delete),
        ),
        endpoint(
            "GET",
            "/v1/services/{service}/watch",
            "Events `service` with the service at each change, from now on; at its end one event `deleted`.",
            (200, Body::Events("ServiceView")),
            get(services::watch),
        ),
        endpoint(
            "GET",
            "/v1/logs",
            "Events `line` in the order of time; without follow, one event `end` after the last.",
            (200, Body::Events("LogLine")),
            get(logs::read),
        )
        .query(logs::PARAMETERS),
    ]
}

fn batch() -> Vec<Endpoint> {
    vec![
        endpoint(
            "POST",
            "/v1/jobs",
            "Create a job. Its input was uploaded as blobs; it is cut into shards here.",
            (201, Body::Json("JobView")),
            post(jobs::create),
        )
        .takes(Body::Json("CreateJob")),
        endpoint(
            "GET",
            "/v1/jobs",
            "All jobs as they are now, without their shards.",
            (200, Body::List("JobView")),
            get(jobs::list),
        ),
        endpoint(
            "GET",
            "/v1/jobs/{job}",
            "One job as it is now.",
            (200, Body::Json("JobView")),
            get(jobs::show),
        ),
        endpoint(
            "DELETE",
            "/v1/jobs/{job}",
            "Delete a job: its tasks are stopped, then its output and logs go, then the job.",
            (202, Body::Json("JobView")),
            delete(jobs::delete),
        ),
        endpoint(
            "GET",
            "/v1/jobs/{job}/watch",
            "Events `job` with the job at each change, from now on; at its end one event `deleted`.",
            (200, Body::Events("JobView")),
            get(jobs::watch),
        ),
        endpoint(
            "GET",
            "/v1/jobs/{job}/output/{index}",
            "The output of one shard; the header berth-output says whether it is a `file` or a `folder` (a .tar.zst).",
            (200, Body::Bytes),
            get(jobs::output),
        ),
    ]
}

fn fleet() -> Vec<Endpoint> {
    vec![
        endpoint(
            "POST",
            "/v1/tokens",
            "Make a join token. It is shown this once only.",
            (201, Body::Json("TokenView")),
            post(things::create_token),
        )
        .takes(Body::Json("CreateToken")),
        endpoint(
            "GET",
            "/v1/clusters",
            "All Kubernetes clusters.",
            (200, Body::List("ClusterView")),
            get(things::clusters),
        ),
        endpoint(
            "GET",
            "/v1/clusters/{cluster}",
            "One Kubernetes cluster.",
            (200, Body::Json("ClusterView")),
            get(things::cluster),
        ),
    ]
}

fn edges() -> Vec<Endpoint> {
    vec![
        endpoint(
            "GET",
            "/v1/gateways",
            "All gateways.",
            (200, Body::List("GatewayView")),
            get(things::gateways),
        ),
        endpoint(
            "POST",
            "/v1/gateways/{gateway}/revoke",
            "Send a gateway away: it follows no table any more, and no relay lets it in. Its name and key are not taken \
             again until it is removed.",
            (200, Body::Json("GatewayView")),
            post(things::revoke_gateway),
        ),
        endpoint(
            "DELETE",
            "/v1/gateways/{gateway}",
            "Forget a gateway, as it was last; it may come again. 409 while it is connected.",
            (200, Body::Json("GatewayView")),
            delete(things::remove_gateway),
        ),
        endpoint(
            "GET",
            "/v1/status",
            "What is wrong, worst first.",
            (200, Body::Json("StatusView")),
            get(things::status),
        ),
        endpoint(
            "GET",
            "/v1/events",
            "What happened, oldest first. As server-sent events where `accept: text/event-stream` or follow asks for \
             it; the events' ids are their numbers, so that Last-Event-ID resumes.",
            (200, Body::ListOrEvents("Event")),
            get(events::read),
        )
        .query(events::PARAMETERS),
    ]
}
