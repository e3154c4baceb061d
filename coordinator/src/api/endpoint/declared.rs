//! Pools, and fleets as a whole.

use axum::routing::{delete, get, post, put};

use super::{Body, Endpoint, endpoint};
use crate::api::{fleets, pools};

pub(super) fn all() -> Vec<Endpoint> {
    vec![
        endpoint(
            "POST",
            "/v1/plan",
            "What applying a fleet would change, field by field, and what that moves. 422 with every mistake.",
            (200, Body::Json("FleetPlan")),
            post(fleets::plan),
        )
        .takes(Body::Json("FleetRequest")),
        endpoint(
            "POST",
            "/v1/apply",
            "Make a fleet so, all of it or nothing. 422 with every mistake; 409 if something was changed since the \
             plan whose versions are given. Packages are registered, and inputs of jobs uploaded, before.",
            (200, Body::Json("FleetPlan")),
            post(fleets::apply),
        )
        .takes(Body::Json("FleetRequest")),
        endpoint(
            "GET",
            "/v1/export",
            "What there is, as one fleet: planning it changes nothing.",
            (200, Body::Json("Fleet")),
            get(fleets::export),
        )
        .query(fleets::PARAMETERS),
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
