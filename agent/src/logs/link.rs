//! The call over which batches go and answers come, opened anew whenever it broke and a session is there.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::backoff::Backoff;

/// Batches under way in all; each stream has one at most.
const WINDOW: usize = 8;

type Opened = Result<(mpsc::Sender<v1::LogBatch>, Streaming<v1::LogAck>), Status>;

/// The state of the call.
enum State {
    /// Waiting for a session, and for a while if the last call failed.
    Down(Pin<Box<dyn Future<Output = Option<Channel>> + Send>>),
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Up(mpsc::Sender<v1::LogBatch>, Box<Streaming<v1::LogAck>>),
    /// The agent is ending.
    Closed,
}

/// What a link tells.
#[derive(Debug)]
pub(super) enum News {
    Up,
    Ack(v1::LogAck),
    Down,
}

pub(super) struct Link {
    channel: watch::Receiver<Option<Channel>>,
    backoff: Backoff,
    state: State,
}

impl Link {
    pub(super) fn new(channel: watch::Receiver<Option<Channel>>) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let state = State::Down(wait(channel.clone(), Duration::ZERO));
        Self {
            channel,
            backoff,
            state,
        }
    }

    /// Sends if there is room; gives the batch back otherwise.
    pub(super) fn send(&self, batch: v1::LogBatch) -> Result<(), v1::LogBatch> {
        match &self.state {
            State::Up(batches, _) => batches.try_send(batch).map_err(|error| error.into_inner()),
            _ => Err(batch),
        }
    }

    /// Whether a batch could be sent now.
    pub(super) fn has_room(&self) -> bool {
        matches!(&self.state, State::Up(batches, _) if batches.capacity() > 0)
    }

    /// Waits for news. Cancel-safe.
    pub(super) async fn news(&mut self) -> News {
        loop {
            match &mut self.state {
                State::Down(waiting) => match waiting.await {
                    Some(channel) => self.state = State::Opening(Box::pin(open(channel))),
                    None => self.state = State::Closed,
                },
                State::Opening(opening) => match opening.await {
                    Ok((batches, acks)) => {
                        self.state = State::Up(batches, Box::new(acks));
                        return News::Up;
                    }
                    Err(status) => self.broken(&status),
                },
                State::Up(_, acks) => match acks.message().await {
                    Ok(Some(ack)) => {
                        self.backoff.reset();
                        return News::Ack(ack);
                    }
                    Ok(None) => {
                        self.broken(&Status::unavailable("the coordinator ended the call"));
                        return News::Down;
                    }
                    Err(status) => {
                        self.broken(&status);
                        return News::Down;
                    }
                },
                State::Closed => std::future::pending().await,
            }
        }
    }

    fn broken(&mut self, status: &Status) {
        let pause = self.backoff.wait();
        tracing::debug!(code = ?status.code(), message = status.message(), again_in = ?pause, "shipping logs broke off");
        self.state = State::Down(wait(self.channel.clone(), pause));
    }
}

fn wait(
    mut channel: watch::Receiver<Option<Channel>>,
    pause: Duration,
) -> Pin<Box<dyn Future<Output = Option<Channel>> + Send>> {
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        channel
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|channel| channel.clone())
    })
}

async fn open(channel: Channel) -> Opened {
    let (batches, queue) = mpsc::channel(WINDOW);
    let mut client = AgentsClient::new(channel);
    let call = client.ship_logs(ReceiverStream::new(queue));
    let acks = tokio::time::timeout(Duration::from_secs(10), call)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer"))??
        .into_inner();
    Ok((batches, acks))
}
