//! An agent's session: its messages become commands, control's words become messages.

use std::sync::Arc;
use std::time::Duration;

use berth_model::id::{IdError, InstanceId};
use berth_model::instance::InstanceStatus;
use berth_model::problem::Problem;
use berth_proto::ConvertError;
use berth_proto::v1;
use berth_proto::v1::agent_message::Message as FromAgent;
use berth_proto::v1::coordinator_message::Message;
use berth_proto::v1::{
    AgentMessage, Callers, CoordinatorMessage, DesiredSet, Hello, Ping, Refusal, StatusAck,
    StatusReport, Welcome,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::{Outbound, Streamed, agent_of, answers, code, peer_has_gone, status};
use crate::control::{AgentName, AgentOpened, Command, ConnectionId, Handle, Statistics, ToAgent};
use crate::edge::{Counted, Edge};
use crate::modules::Modules;

/// Longest time for an agent to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// Longest time for a message to be taken by the connection.
const SEND: Duration = Duration::from_secs(10);
/// What control may send before the connection has taken it.
const OUTBOX: usize = 64;
/// Status reports that may wait for the store.
const REPORTS: usize = 64;

/// Most packages that are remembered of one node.
const MOST_PACKAGES: usize = 4096;

/// Begins a session, or answers with a refusal as its only message.
pub(super) async fn open(
    edge: &Arc<Edge>,
    request: Request<Streaming<AgentMessage>>,
) -> Result<Response<Streamed<CoordinatorMessage>>, Status> {
    let (outbound, response) = answers();
    let agent = match agent_of(edge, &request).await {
        Ok(agent) => agent,
        Err(problem) if problem.status == 403 => {
            refuse(&outbound, code(&problem), &problem.detail).await;
            return Ok(response);
        }
        Err(problem) => return Err(status(&problem)),
    };
    let session = Session {
        edge: Arc::clone(edge),
        agent,
        outbound,
    };
    tokio::spawn(session.run(request.into_inner()));
    Ok(response)
}

struct Session {
    edge: Arc<Edge>,
    agent: AgentName,
    outbound: Outbound<CoordinatorMessage>,
}

/// Tells control that the connection is over, however it ends.
struct Connection {
    control: Handle,
    modules: Arc<Modules>,
    id: ConnectionId,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.modules.closed(self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (control, id) = (self.control.clone(), self.id);
            runtime.spawn(async move { control.tell(Command::AgentClosed(id)).await });
        }
    }
}

/// Why a session ends: nothing to say any more, or an error for the agent.
type End = Result<(), Status>;

impl Session {
    async fn run(self, mut inbound: Streaming<AgentMessage>) {
        let _counted = Counted::new(&self.edge.figures.sessions);
        let end = match self.greet(&mut inbound).await {
            Ok(Some((connection, outbox))) => self.talk(&connection, outbox, inbound).await,
            Ok(None) => Ok(()),
            Err(status) => Err(status),
        };
        let Err(status) = end else {
            tracing::info!(agent = %self.agent, "an agent's session ended");
            return;
        };
        if self.edge.shutdown.is_cancelled() || peer_has_gone(&status) {
            tracing::info!(agent = %self.agent, %status, "an agent's session ended");
        } else {
            tracing::warn!(agent = %self.agent, %status, "an agent's session ended");
        }
        let _ = tokio::time::timeout(SEND, self.outbound.send(Err(status))).await;
    }

    /// Hello and welcome. None: refused, and told so.
    async fn greet(
        &self,
        inbound: &mut Streaming<AgentMessage>,
    ) -> Result<Option<(Connection, mpsc::Receiver<ToAgent>)>, Status> {
        let first = tokio::time::timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))??;
        let Some(FromAgent::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::failed_precondition(
                "the first message must be a hello",
            ));
        };
        let (outbox, from_control) = mpsc::channel(OUTBOX);
        let opened = opened(self.agent.clone(), hello, outbox)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = self
            .edge
            .control
            .ask(|reply| Command::AgentOpened(Box::new(opened), reply))
            .await;
        let connection = match answer {
            Ok(id) => Connection {
                control: self.edge.control.clone(),
                modules: Arc::clone(&self.edge.modules),
                id,
            },
            Err(problem) => return self.refused(&problem).await.map(|()| None),
        };
        let settings = &self.edge.settings;
        let welcome = Welcome {
            node: self.agent.label(),
            heartbeat_ms: millis(settings.heartbeat),
            lease_ms: millis(settings.node_lease),
            transport: settings.transport.to_string(),
            spread_ms: millis(spread(
                self.edge.control.metrics().nodes(),
                settings.node_lease,
            )),
        };
        self.send(Message::Welcome(welcome)).await?;
        tracing::info!(agent = %self.agent, "an agent's session began");
        Ok(Some((connection, from_control)))
    }

    async fn refused(&self, problem: &Problem) -> End {
        if problem.status >= 500 {
            return Err(status(problem));
        }
        tracing::warn!(agent = %self.agent, %problem, "an agent's session was refused");
        refuse(&self.outbound, code(problem), &problem.detail).await;
        Ok(())
    }

    async fn talk(
        &self,
        connection: &Connection,
        mut outbox: mpsc::Receiver<ToAgent>,
        mut inbound: Streaming<AgentMessage>,
    ) -> End {
        let (reports, queue) = mpsc::channel(REPORTS);
        let reporting = self.report(connection, queue);
        tokio::pin!(reporting);
        // An agent is heard of at every heartbeat: after a whole lease without one, the connection
        // is dead, whatever TCP thinks of it.
        let lease = self.edge.settings.node_lease;
        let mut deadline = Instant::now() + lease;
        loop {
            let message = tokio::time::timeout_at(deadline, inbound.message());
            tokio::select! {
                end = reporting.as_mut() => return end,
                message = message => match message {
                    Ok(Ok(Some(message))) => {
                        deadline = Instant::now() + lease;
                        self.heard(connection, message, &reports).await?;
                    }
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Err(status)) => return Err(status),
                    Err(_) => return Err(Status::deadline_exceeded("silent for a whole lease")),
                },
                word = outbox.recv() => match word {
                    Some(ToAgent::Refuse(code, message)) => {
                        refuse(&self.outbound, &code, &message).await;
                        return Ok(());
                    }
                    Some(word) => self.send(spoken(word)).await?,
                    None => return Err(Status::aborted("control has ended the session")),
                },
                () = self.outbound.closed() => return Ok(()),
                () = self.edge.shutdown.cancelled() => {
                    return Err(Status::unavailable("the coordinator is shutting down"));
                }
            }
        }
    }

    async fn heard(
        &self,
        connection: &Connection,
        message: AgentMessage,
        reports: &mpsc::Sender<StatusReport>,
    ) -> End {
        let control = &self.edge.control;
        let told = match &message.message {
            Some(FromAgent::Statistics(statistics)) => told(statistics),
            _ => None,
        };
        let heard = told.map_or(Command::AgentHeard(connection.id), |told| {
            Command::AgentStatistics(connection.id, Box::new(told))
        });
        control.tell(heard).await;
        match message.message {
            Some(FromAgent::Status(report)) => reports.try_send(report).map_err(|_| {
                Status::resource_exhausted("too many status reports without an answer")
            }),
            Some(FromAgent::DesiredAck(ack)) => {
                let order = ack.order.unwrap_or_default().into();
                let refused = (!ack.refused.is_empty()).then_some(ack.refused);
                control
                    .tell(Command::AgentAcknowledged(connection.id, order, refused))
                    .await;
                Ok(())
            }
            Some(FromAgent::Hello(_)) => Err(Status::failed_precondition(
                "a session has one hello, at its beginning",
            )),
            Some(FromAgent::Statistics(statistics)) => {
                let modules = &self.edge.modules;
                modules.heard(connection.id, &self.agent, statistics.instances);
                Ok(())
            }
            // Pongs say that the agent is there; what a newer agent adds, likewise.
            Some(FromAgent::Pong(_)) | None => Ok(()),
        }
    }

    /// Brings status reports to control one after the other, and acknowledges what is on disk.
    async fn report(
        &self,
        connection: &Connection,
        mut queue: mpsc::Receiver<StatusReport>,
    ) -> End {
        while let Some(report) = queue.recv().await {
            let seq = report.seq;
            if let Some(facts) = report.facts.clone() {
                let facts = Box::new(facts.into());
                self.edge
                    .control
                    .ask(|reply| Command::AgentFacts(connection.id, facts, reply))
                    .await
                    .map_err(|problem| status(&problem))?;
            }
            let (statuses, forgotten) = changes(report)?;
            self.edge
                .control
                .ask(|reply| Command::AgentStatus(connection.id, statuses, forgotten, reply))
                .await
                .map_err(|problem| status(&problem))?;
            self.send(Message::StatusAck(StatusAck { seq })).await?;
        }
        Ok(())
    }

    async fn send(&self, message: Message) -> End {
        let message = CoordinatorMessage {
            message: Some(message),
        };
        match tokio::time::timeout(SEND, self.outbound.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent has gone")),
            Err(_) => Err(Status::deadline_exceeded("the agent takes no messages")),
        }
    }
}

/// Over which time nodes shall come back that lose their sessions together: a handshake and a hello take
/// under a millisecond of a core. Not so long that their leases would be over.
fn spread(nodes: u64, lease: Duration) -> Duration {
    Duration::from_millis(nodes).min(lease / 3)
}

async fn refuse(outbound: &Outbound<CoordinatorMessage>, code: &str, message: &str) {
    let refusal = CoordinatorMessage {
        message: Some(Message::Refusal(Refusal {
            code: code.to_owned(),
            message: message.to_owned(),
        })),
    };
    // An agent that does not take it any more has no use for it.
    let _ = tokio::time::timeout(SEND, outbound.send(Ok(refusal))).await;
}

fn opened(
    agent: AgentName,
    hello: Hello,
    outbox: mpsc::Sender<ToAgent>,
) -> Result<AgentOpened, ConvertError> {
    Ok(AgentOpened {
        agent,
        incarnation: hello.incarnation,
        facts: hello.facts.unwrap_or_default().into(),
        accepted: hello.accepted.map(Into::into),
        instances: hello
            .instances
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
        outbox,
    })
}

/// What a heartbeat tells of the machine, if it does.
fn told(heartbeat: &v1::Statistics) -> Option<Statistics> {
    let node = heartbeat.node.clone().map(Into::into);
    let packages = heartbeat.packages.as_ref();
    let packages = packages.map(|list| list.digests().take(MOST_PACKAGES).collect());
    (node.is_some() || packages.is_some()).then_some(Statistics { node, packages })
}

fn changes(report: StatusReport) -> Result<(Vec<InstanceStatus>, Vec<InstanceId>), Status> {
    let statuses = report
        .instances
        .into_iter()
        .map(TryInto::try_into)
        .collect::<Result<_, ConvertError>>()
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let forgotten = report
        .forgotten
        .iter()
        .map(|id| id.parse())
        .collect::<Result<_, IdError>>()
        .map_err(|error| Status::invalid_argument(format!("field forgotten: {error}")))?;
    Ok((statuses, forgotten))
}

fn spoken(word: ToAgent) -> Message {
    match word {
        ToAgent::Desired { order, instances } => Message::Desired(DesiredSet {
            order: Some(order.into()),
            instances: instances.into_iter().map(Into::into).collect(),
        }),
        ToAgent::Callers(callers) => Message::Callers(Callers {
            callers: callers.iter().cloned().map(Into::into).collect(),
        }),
        ToAgent::Ping(nonce) => Message::Ping(Ping { nonce }),
        ToAgent::Refuse(code, message) => Message::Refusal(Refusal { code, message }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_nodes_come_back_spread_over_a_part_of_their_lease() {
        let lease = Duration::from_secs(30);
        assert_eq!(spread(0, lease), Duration::ZERO);
        assert_eq!(spread(3_000, lease), Duration::from_secs(3));
        assert_eq!(spread(50_000, lease), Duration::from_secs(10));
    }
}
