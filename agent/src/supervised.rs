//! What the agent tells systemd of itself.

use std::convert::Infallible;

use tokio::sync::{mpsc, oneshot, watch};
use tonic::transport::Channel;

use crate::reconcile::Event;

/// Says that the agent is ready once its reconciler turns, then for ever that it does, and whether there is a session. The
/// coordinator need not be there for any of it: what was desired runs without.
pub(crate) async fn tell(
    node: String,
    endpoint: String,
    events: mpsc::Sender<Event>,
    mut connected: watch::Receiver<Option<Channel>>,
) -> Infallible {
    let probe = || turns(&events);
    if let Err(why) = probe().await {
        tracing::error!(why, "not ready");
        return std::future::pending().await;
    }
    let words = |connected: bool| match connected {
        true => format!("{node}, connected to {endpoint}"),
        false => format!("{node}, without a session with {endpoint}; instances go on"),
    };
    let now = words(connected.borrow_and_update().is_some());
    berth_notify::ready(&now).await;
    let status = async {
        while connected.changed().await.is_ok() {
            berth_notify::status(&words(connected.borrow_and_update().is_some()));
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        never = berth_notify::watch(probe) => never,
        never = status => never,
    }
}

async fn turns(events: &mpsc::Sender<Event>) -> Result<(), String> {
    let gone = || "the reconciler has ended".to_owned();
    let (reply, heard) = oneshot::channel();
    let asked = events.send(Event::Alive { reply }).await;
    asked.map_err(|_| gone())?;
    heard.await.map_err(|_| gone())
}
