//! Reading requests: bodies, queries and path parts, with problem documents where they are wrong.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::{header, request::Parts};
use berth_model::problem::Problem;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::failure::Failure;

/// Longest JSON body.
const MAX_JSON: usize = 1024 * 1024;
/// Longest JSON body with a whole fleet.
const MAX_LARGE_JSON: usize = 16 * 1024 * 1024;
/// Longest time for a JSON body to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        json(request, MAX_JSON).await.map(Self)
    }
}

/// A JSON body that may be large: a whole fleet.
pub(crate) struct LargeJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for LargeJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        json(request, MAX_LARGE_JSON).await.map(Self)
    }
}

async fn json<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Failure> {
    let json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .is_some_and(|value| value.eq_ignore_ascii_case("application/json"));
    if !json {
        return Err(Failure(Problem::new(
            415,
            "unsupported-media-type",
            "Unsupported media type",
            "send the body as JSON, with the header content-type: application/json",
        )));
    }
    let bytes = whole(request.into_body(), most).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not as wanted: {error}")))
}

async fn whole(body: Body, most: usize) -> Result<bytes::Bytes, Failure> {
    let collected = Limited::new(body, most).collect();
    match tokio::time::timeout(BODY_TIME, collected).await {
        Err(_) => Err(Failure::too_slow()),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::too_large(format!(
            "the body is longer than {most} bytes"
        ))),
        Ok(Err(error)) => Err(Failure::bad_request(format!(
            "the body ended early: {error}"
        ))),
    }
}

/// The query's parameters.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Failure::bad_request(error.body_text()))
    }
}

/// The two variable parts of the path.
pub(crate) struct Names<A, B>(pub(crate) A, pub(crate) B);

impl<A, B, S> FromRequestParts<S> for Names<A, B>
where
    A: FromStr<Err: Display>,
    B: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        let mut values = params.iter();
        let mut next = || values.next().map_or(("", ""), |pair| pair);
        let (first, second) = (next(), next());
        Ok(Self(part(first)?, part(second)?))
    }
}

fn part<T: FromStr<Err: Display>>((name, text): (&str, &str)) -> Result<T, Failure> {
    text.parse().map_err(|error: T::Err| {
        Failure::bad_request(format!("{name} in the path, {text:?}: {error}"))
    })
}

/// The one variable part of the path.
pub(crate) struct Name<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Name<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        let text = params.iter().next().map_or("", |(_, value)| value);
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| Failure::bad_request(error.to_string()))
    }
}
