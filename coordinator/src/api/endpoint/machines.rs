//! Nodes.

use axum::routing::{delete, get, post};

use super::{Body, Endpoint, endpoint};
use crate::api::nodes;

pub(super) fn all() -> Vec<Endpoint> {
    vec![
        endpoint(
            "GET",
            "/v1/nodes",
            "All nodes.",
            (200, Body::List("NodeView")),
            get(nodes::list),
        ),
        endpoint(
            "GET",
            "/v1/nodes/{node}",
            "One node.",
            (200, Body::Json("NodeView")),
            get(nodes::show),
        ),
        endpoint(
            "POST",
            "/v1/nodes/{node}/cordon",
            "Keep new instances off a node; what runs there stays.",
            (200, Body::Json("NodeView")),
            post(nodes::cordon),
        ),
        endpoint(
            "POST",
            "/v1/nodes/{node}/uncordon",
            "Let a node take instances again; this ends its drain, too.",
            (200, Body::Json("NodeView")),
            post(nodes::uncordon),
        ),
        endpoint(
            "POST",
            "/v1/nodes/{node}/drain",
            "Empty a node: what is on it is replaced on other nodes first, then stopped.",
            (202, Body::Json("NodeView")),
            post(nodes::drain),
        )
        .takes(Body::Json("DrainNode")),
        endpoint(
            "POST",
            "/v1/nodes/{node}/labels",
            "Change a node's labels. They count for what is placed from now on.",
            (200, Body::Json("NodeView")),
            post(nodes::label),
        )
        .takes(Body::Json("LabelNode")),
        endpoint(
            "DELETE",
            "/v1/nodes/{node}",
            "Take a node out of the fleet, as it was last. 409 while it is connected and has instances.",
            (200, Body::Json("NodeView")),
            delete(nodes::remove),
        ),
    ]
}
