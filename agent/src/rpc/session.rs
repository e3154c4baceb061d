//! The session with the coordinator: one at a time, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_model::id::InstanceId;
use berth_model::instance::InstanceSpec;
use berth_model::relay::Caller;
use berth_model::route::Order;
use berth_proto::v1;
use berth_proto::v1::agent_message::Message as Up;
use berth_proto::v1::agents_client::AgentsClient;
use berth_proto::v1::coordinator_message::Message as Down;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::board::Board;
use super::connect::{ConnectError, Dialer};
use super::machine::Machine;
use super::statistics::Collector;
use crate::backoff::Backoff;
use crate::clock;
use crate::identity::Identity;
use crate::reconcile::Event;
use crate::relay::Relay;
use crate::runtime::Runtimes;

/// Longest desired set: some thousand instances with their manifests.
const LARGEST: usize = 64 << 20;

/// Time for the coordinator to answer the hello, and for a message to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// A report that is not acknowledged for so long is sent again.
const REPEAT: Duration = Duration::from_secs(10);

/// About how much of modules' metrics goes with one heartbeat: far less than a message may have.
const METRICS: usize = 1 << 20;

/// What a session needs.
pub struct Session {
    /// Where the coordinator is.
    pub endpoint: String,
    /// Who this node is; changes when the certificate is renewed.
    pub identity: watch::Receiver<Arc<Identity>>,
    /// Notified when the certificate does not pass any more, or may not.
    pub expired: Arc<Notify>,
    /// Which boot this is.
    pub boot_id: String,
    /// Random, of this agent process.
    pub incarnation: String,
    /// What is to be reported.
    pub board: Arc<Board>,
    /// For desired sets.
    pub events: mpsc::Sender<Event>,
    /// Where others find the connection while a session is open.
    pub channel: watch::Sender<Option<Channel>>,
    /// The node's relay.
    pub relay: Arc<Relay>,
    /// For statistics.
    pub runtimes: Arc<Runtimes>,
    /// What heartbeats tell of the machine.
    pub machine: Arc<Machine>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", describe(.0))]
    Status(Box<tonic::Status>),
    #[error("the coordinator says that this node's certificate has expired, or is not valid yet")]
    Expired(#[source] Box<Ended>),
    #[error("the coordinator ended the session")]
    Closed,
    #[error("the coordinator does not answer")]
    Silent,
    #[error("refused ({code}): {message}")]
    Refused { code: String, message: String },
    #[error("the agent is ending")]
    Ending,
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// The status in short: tonic's own text holds the whole tree of causes.
fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// Whether it may be the certificate for which there was no session. That is what the coordinator says while it closes the
/// connection, so its word may be lost; then a renewal that is `due` is a likelier cure than waiting.
fn needs_renewal(ended: &Ended, due: bool) -> bool {
    match ended {
        Ended::Expired(_) => true,
        // The coordinator has taken the certificate.
        Ended::Refused { .. } => false,
        _ => due,
    }
}

/// Longest wait between two attempts where the lease does not ask for a shorter one.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Least upper bound of the wait, whatever the coordinator says of its lease.
const SHORTEST_LIMIT: Duration = Duration::from_millis(500);

/// What a welcome says of the time after the session.
struct Welcomed {
    /// How long the node may be silent.
    lease: Duration,
    /// Over how long the fleet's nodes come back.
    spread: Duration,
}

impl Session {
    /// Runs for ever.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_WAIT);
        let mut collector = Collector::new(self.runtimes.clone(), self.machine.clone());
        loop {
            let mut welcomed = None;
            let identity = self.identity.borrow_and_update().clone();
            let ended = match self.once(&identity, &mut collector, &mut welcomed).await {
                Ok(never) => match never {},
                Err(Ended::Ending) => return,
                Err(ended) => ended,
            };
            self.channel.send_replace(None);
            let due = identity.renewal_in(&self.boot_id, clock::now(), clock::wall());
            let newest = !self.identity.has_changed().unwrap_or(false);
            if welcomed.is_none() && newest && needs_renewal(&ended, due.is_zero()) {
                self.expired.notify_one();
            }
            let mut spread = Duration::ZERO;
            if let Some(welcomed) = welcomed {
                // However long the coordinator is away: once it is back, its lease must not be over
                // before this node has tried again.
                let third = (welcomed.lease / 3).clamp(SHORTEST_LIMIT, LONGEST_WAIT);
                backoff.limit(third);
                backoff.reset();
                // In a large fleet, all others have lost their session as well.
                spread = welcomed.spread.min(third);
            }
            let error = crate::chain(&ended);
            if let Ended::Refused { code, message } = ended {
                let wait = refusal_wait(&code);
                tracing::warn!(error, again_in = ?wait, "no session with the coordinator");
                // If nobody listens any more, the agent is ending.
                let _ = self.events.send(Event::Refused { code, message }).await;
                tokio::time::sleep(wait).await;
                continue;
            }
            let wait = backoff
                .wait()
                .max(spread.mul_f64(rand::random_range(0.0..=1.0)));
            tracing::warn!(error, again_in = ?wait, "no session with the coordinator");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // With a fresh certificate there is nothing to wait for.
                Ok(()) = self.identity.changed() => {}
            }
        }
    }

    async fn once(
        &self,
        identity: &Identity,
        collector: &mut Collector,
        welcomed: &mut Option<Welcomed>,
    ) -> Result<std::convert::Infallible, Ended> {
        let dialer = Dialer::mutual(&self.endpoint, identity)?;
        let session = self.over(&dialer, collector, welcomed);
        session.await.map_err(|ended| match ended {
            ended if dialer.expired() => Ended::Expired(Box::new(ended)),
            ended => ended,
        })
    }

    async fn over(
        &self,
        dialer: &Dialer,
        collector: &mut Collector,
        welcomed: &mut Option<Welcomed>,
    ) -> Result<std::convert::Infallible, Ended> {
        let channel = dialer.connect().await?;
        let (out, queue) = mpsc::channel(64);
        let (accepted, instances, facts) = self.board.begin();
        let hello = v1::Hello {
            facts: Some(facts.into()),
            incarnation: self.incarnation.clone(),
            accepted: accepted.map(Into::into),
            instances: instances.into_iter().map(Into::into).collect(),
        };
        let wire = Wire { out };
        wire.send(Up::Hello(hello)).await?;
        let mut client = AgentsClient::new(channel.clone()).max_decoding_message_size(LARGEST);
        let answer = client.session(ReceiverStream::new(queue));
        let mut inbound = patient(answer).await??.into_inner();
        let welcome = self.welcome(&mut inbound).await?;
        *welcomed = Some(Welcomed {
            lease: Duration::from_millis(welcome.lease_ms),
            spread: Duration::from_millis(welcome.spread_ms),
        });
        tracing::info!(
            node = welcome.node,
            endpoint = self.endpoint,
            "session with the coordinator"
        );
        self.relay.welcome(&welcome.transport).await;
        self.channel.send_replace(Some(channel));
        let beat = Duration::from_millis(welcome.heartbeat_ms.clamp(100, 60_000));
        self.talk(&wire, &mut inbound, beat, collector).await
    }

    async fn welcome(
        &self,
        inbound: &mut Streaming<v1::CoordinatorMessage>,
    ) -> Result<v1::Welcome, Ended> {
        match patient(inbound.message())
            .await??
            .ok_or(Ended::Closed)?
            .message
        {
            Some(Down::Welcome(welcome)) => Ok(welcome),
            Some(Down::Refusal(refusal)) => Err(Ended::Refused {
                code: refusal.code,
                message: refusal.message,
            }),
            _ => Err(Ended::Refused {
                code: "version".to_owned(),
                message: "its first message is not a welcome".to_owned(),
            }),
        }
    }

    async fn talk(
        &self,
        wire: &Wire,
        inbound: &mut Streaming<v1::CoordinatorMessage>,
        beat: Duration,
        collector: &mut Collector,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut heartbeat = tokio::time::interval(beat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unacknowledged: Option<(u64, Instant)> = None;
        collector.begin();
        let mut packages = None;
        loop {
            while let Some(report) = self.board.report() {
                let report = v1::StatusReport {
                    seq: report.seq,
                    instances: report.statuses.into_iter().map(Into::into).collect(),
                    forgotten: report.forgotten.iter().map(ToString::to_string).collect(),
                    facts: report.facts.map(Into::into),
                };
                wire.send(Up::Status(report)).await?;
            }
            tokio::select! {
                message = inbound.message() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    self.hear(wire, message).await?;
                }
                () = self.board.changed() => {}
                _ = heartbeat.tick() => {
                    let mut statistics = collector.collect(self.board.handles()).await;
                    let mut metrics = self.board.fresh_metrics(METRICS);
                    for instance in &mut statistics.instances {
                        let id = instance.id.parse().ok();
                        let said = id.and_then(|id: InstanceId| metrics.remove(&id));
                        instance.metrics = said.unwrap_or_default();
                    }
                    statistics.packages = self.machine.news(&mut packages);
                    wire.send(Up::Statistics(statistics)).await?;
                    self.repeat(&mut unacknowledged);
                }
            }
        }
    }

    /// Has reports repeated that wait for their acknowledgement too long.
    fn repeat(&self, unacknowledged: &mut Option<(u64, Instant)>) {
        let oldest = self.board.oldest_unacknowledged();
        match (oldest, &unacknowledged) {
            (Some(seq), Some((known, since))) if seq == *known => {
                if since.elapsed() >= REPEAT {
                    self.board.repeat();
                    *unacknowledged = None;
                }
            }
            (Some(seq), _) => *unacknowledged = Some((seq, Instant::now())),
            (None, _) => *unacknowledged = None,
        }
    }

    async fn hear(&self, wire: &Wire, message: v1::CoordinatorMessage) -> Result<(), Ended> {
        match message.message {
            Some(Down::Ping(ping)) => wire.send(Up::Pong(v1::Pong { nonce: ping.nonce })).await,
            Some(Down::StatusAck(ack)) => {
                self.board.acknowledged(ack.seq);
                Ok(())
            }
            Some(Down::Desired(desired)) => self.desired(wire, desired).await,
            Some(Down::Refusal(refusal)) => Err(Ended::Refused {
                code: refusal.code,
                message: refusal.message,
            }),
            Some(Down::Callers(callers)) => {
                self.callers(callers).await;
                Ok(())
            }
            // A second welcome, or what a newer coordinator says.
            Some(Down::Welcome(_)) | None => Ok(()),
        }
    }

    /// One whose name cannot be read is let in nowhere; the others are.
    async fn callers(&self, callers: v1::Callers) {
        let read = callers.callers.into_iter().filter_map(|caller| {
            let caller = Caller::try_from(caller);
            caller
                .inspect_err(|error| tracing::error!(%error, "a caller that cannot be read"))
                .ok()
        });
        self.relay.callers(read.collect()).await;
    }

    async fn desired(&self, wire: &Wire, desired: v1::DesiredSet) -> Result<(), Ended> {
        let order: Order = desired.order.unwrap_or_default().into();
        let specs: Result<Vec<InstanceSpec>, String> = desired
            .instances
            .into_iter()
            .enumerate()
            .map(|(i, spec)| {
                InstanceSpec::try_from(spec).map_err(|e| format!("invalid: instances[{i}]: {e}"))
            })
            .collect();
        let ack = move |refused: String| {
            if !refused.is_empty() {
                tracing::error!(%order, refused, "refused a desired set");
            }
            Up::DesiredAck(v1::DesiredAck {
                order: Some(order.into()),
                refused,
            })
        };
        let specs = match specs {
            Ok(specs) => specs,
            Err(refused) => return wire.send(ack(refused)).await,
        };
        let (reply, answer) = oneshot::channel();
        let event = Event::Desired {
            order,
            specs,
            reply,
        };
        self.events.send(event).await.map_err(|_| Ended::Ending)?;
        // Not waited for here: pings are answered while the disk is busy. Answers keep the order of the
        // sets, as the reconciler takes one after the other.
        let wire = wire.clone();
        tokio::spawn(async move {
            if let Ok(taken) = answer.await {
                let refused = taken
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default();
                // If the session has ended, the next hello tells what was accepted.
                let _ = wire.send(ack(refused)).await;
            }
        });
        Ok(())
    }
}

/// The outgoing half.
#[derive(Clone)]
struct Wire {
    out: mpsc::Sender<v1::AgentMessage>,
}

impl Wire {
    async fn send(&self, message: Up) -> Result<(), Ended> {
        let message = v1::AgentMessage {
            message: Some(message),
        };
        match self.out.send_timeout(message, PATIENCE).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Ended::Silent),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Ended::Closed),
        }
    }
}

async fn patient<T>(call: impl Future<Output = T>) -> Result<T, Ended> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .map_err(|_| Ended::Silent)
}

/// A refusal is not a failure of the network: trying again quickly helps nobody.
fn refusal_wait(code: &str) -> Duration {
    let seconds = match code {
        // Until one of the two machines with this key is stopped.
        "key-in-use" => 30,
        "removed" => 300,
        _ => 15,
    };
    Duration::from_secs(seconds).mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_it_is_refused_or_may_be() {
        let refused = Ended::Refused {
            code: "removed".to_owned(),
            message: "removed".to_owned(),
        };
        for (ended, due, wanted) in [
            (Ended::Expired(Box::new(Ended::Closed)), false, true),
            (Ended::Closed, false, false),
            (Ended::Closed, true, true),
            (Ended::Silent, true, true),
            (refused, true, false),
        ] {
            assert_eq!(needs_renewal(&ended, due), wanted, "{ended:?}, {due}");
        }
    }
}
