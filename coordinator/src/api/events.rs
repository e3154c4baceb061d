//! What happened: a list, or a stream.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use berth_model::api::List;
use berth_model::event::Event;
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::extract::Query;
use super::failure::Failure;
use super::stream::{self, Sender};
use crate::control::{Command, Handle};
use crate::edge::Edge;

pub(super) const PARAMETERS: &[(&str, &str)] = &[
    (
        "after",
        "Only events with a higher number. 0 if absent: all that are kept.",
    ),
    (
        "follow",
        "true: a stream that goes on with what happens next.",
    ),
    (
        "tail",
        "Of those that are there already, only the last ones.",
    ),
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parameters {
    after: Option<u64>,
    follow: bool,
    tail: Option<usize>,
}

pub(super) async fn read(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    Query(query): Query<Parameters>,
) -> Result<Response, Failure> {
    let resumed = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let after = resumed.or(query.after).unwrap_or(0);
    let (mut past, live) = ask(&edge.control, after).await?;
    if let Some(tail) = query.tail {
        past.drain(..past.len().saturating_sub(tail));
    }
    if !query.follow && !accepts_events(&headers) {
        return Ok(Answer(List { items: past }).into_response());
    }
    let control = edge.control.clone();
    Ok(stream::events(&edge.shutdown, move |sender| async move {
        if query.follow {
            follow(&sender, &control, after, past, live).await
        } else {
            send(&sender, after, &past).await?;
            sender.json("end", None, &serde_json::json!({})).await
        }
    }))
}

async fn ask(
    control: &Handle,
    after: u64,
) -> Result<(Vec<Event>, Receiver<Event>), berth_model::problem::Problem> {
    control.ask(|reply| Command::Events(after, reply)).await
}

/// Sends what is newer than `after`; answers with the newest number sent.
async fn send(sender: &Sender, after: u64, events: &[Event]) -> Option<u64> {
    let mut last = after;
    for event in events.iter().filter(|event| event.seq > after) {
        let id = event.seq.to_string();
        sender.json("event", Some(id), event).await?;
        last = event.seq;
    }
    Some(last)
}

async fn follow(
    sender: &Sender,
    control: &Handle,
    after: u64,
    past: Vec<Event>,
    mut live: Receiver<Event>,
) -> Option<()> {
    let mut last = send(sender, after, &past).await?;
    drop(past);
    loop {
        let next = tokio::select! {
            next = live.recv() => next,
            () = sender.closed() => return None,
        };
        match next {
            Ok(event) => last = send(sender, last, std::slice::from_ref(&event)).await?,
            // Too slow for the channel, which is not too slow for the store.
            Err(RecvError::Lagged(_)) => {
                let (missed, again) = ask(control, last).await.ok()?;
                live = again;
                last = send(sender, last, &missed).await?;
            }
            Err(RecvError::Closed) => return None,
        }
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream"))
}
