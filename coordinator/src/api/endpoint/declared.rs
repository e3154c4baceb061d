//! Pools, and fleets as a whole.

use axum::routing::{delete, get, put};

use super::{Body, Endpoint, endpoint};
use crate::api::pools;

pub(super) fn all() -> Vec<Endpoint> {
    vec![
        endpoint(
            "GET",
            "/v1/pools",
            "All pools that have a record.",
            (200, Body::List("PoolView")),
            get(pools::list),
        ),
        endpoint(
            "GET",
            "/v1/pools/{pool}",
            "One pool with the places in it and what is placed there.",
            (200, Body::Json("PoolView")),
            get(pools::show),
        ),
        endpoint(
            "PUT",
            "/v1/pools/{pool}",
            "Make a pool, or change what it chooses by. What runs stays where it is.",
            (200, Body::Json("PoolView")),
            put(pools::put),
        )
        .takes(Body::Json("PutPool")),
        endpoint(
            "DELETE",
            "/v1/pools/{pool}",
            "Take a pool away, as it was last. 409 while services or jobs are placed in it.",
            (200, Body::Json("PoolView")),
            delete(pools::delete),
        ),
    ]
}
