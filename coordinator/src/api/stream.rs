//! Server-sent events.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Events that may wait for a slow client; its producer then waits, too.
const WAITING: usize = 64;
/// A comment goes out after this long without an event, so that both ends see a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a producer puts its events.
pub(super) struct Sender(mpsc::Sender<Event>);

impl Sender {
    /// Sends one event with JSON as its data. None once the client has gone.
    pub(super) async fn json<T: Serialize>(
        &self,
        name: &'static str,
        id: Option<String>,
        data: &T,
    ) -> Option<()> {
        let text = match serde_json::to_string(data) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, name, "an event has no JSON form");
                return None;
            }
        };
        let mut event = Event::default().event(name).data(text);
        if let Some(id) = id {
            event = event.id(id);
        }
        self.0.send(event).await.ok()
    }

    /// Returns once the client has gone.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Answers with the events of a producer: a task of its own that ends when it returns, when the
/// client goes, or at shutdown.
pub(super) fn events<P, F>(shutdown: &CancellationToken, producer: P) -> Response
where
    P: FnOnce(Sender) -> F,
    F: Future<Output = Option<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING);
    let work = producer(Sender(sender));
    let until = shutdown.clone();
    tokio::spawn(async move {
        until.run_until_cancelled(work).await;
    });
    let stream = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}
