//! Logs from nodes: appended, synced, acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_logs::{LogsError, StreamKey};
use berth_model::id::InstanceId;
use berth_proto::v1::{LogAck, LogBatch};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tonic::{Response, Status, Streaming};

use super::{Outbound, Streamed, answers};
use crate::control::{AgentName, Command};
use crate::edge::Edge;

/// Batches that may wait for the disk; they share syncs.
const IN_FLIGHT: usize = 32;

/// Takes a node's logs until it ends the call.
pub(super) fn open(
    edge: &Arc<Edge>,
    agent: AgentName,
    inbound: Streaming<LogBatch>,
) -> Response<Streamed<LogAck>> {
    let (outbound, response) = answers();
    let shipping = Shipping {
        edge: Arc::clone(edge),
        agent,
        owned: BTreeMap::new(),
    };
    tokio::spawn(shipping.run(inbound, outbound));
    response
}

struct Shipping {
    edge: Arc<Edge>,
    agent: AgentName,
    /// Whether an instance's logs are the node's to ship, as found out before.
    owned: BTreeMap<InstanceId, bool>,
}

/// A batch with what came of it.
struct Outcome {
    batch: LogBatch,
    result: Result<u64, LogsError>,
}

impl Shipping {
    async fn run(mut self, mut inbound: Streaming<LogBatch>, outbound: Outbound<LogAck>) {
        let mut pending = FuturesOrdered::new();
        let mut open = true;
        let end = loop {
            tokio::select! {
                batch = inbound.message(), if open && pending.len() < IN_FLIGHT => match batch {
                    Ok(Some(batch)) => match self.accept(&batch).await {
                        Ok(key) => pending.push_back(append(Arc::clone(&self.edge), key, batch)),
                        Err(ack) => if outbound.send(Ok(*ack)).await.is_err() { break Ok(()) },
                    },
                    Ok(None) => open = false,
                    Err(status) => break Err(status),
                },
                Some(outcome) = pending.next() => match self.settle(outcome) {
                    Ok(ack) => if outbound.send(Ok(ack)).await.is_err() { break Ok(()) },
                    Err(status) => break Err(status),
                },
                () = outbound.closed() => break Ok(()),
                () = self.edge.shutdown.cancelled() => {
                    break Err(Status::unavailable("the coordinator is shutting down"));
                }
                else => break Ok(()),
            }
        };
        if let Err(status) = end {
            tracing::debug!(agent = %self.agent, %status, "a log shipment ended");
            let _ = outbound.send(Err(status)).await;
        }
    }

    /// The stream of a batch, or the answer to one that is not the node's to send.
    async fn accept(&mut self, batch: &LogBatch) -> Result<StreamKey, Box<LogAck>> {
        let refuse = |error: String| Box::new(acknowledgement(batch, 0, error));
        let key = StreamKey::parse(&batch.instance, batch.start, &batch.boot_id)
            .map_err(|error| refuse(error.to_string()))?;
        let owned = match self.owned.get(&key.instance) {
            Some(owned) => *owned,
            None => self.ask(&key.instance).await.map_err(refuse)?,
        };
        if !owned {
            return Err(refuse(format!(
                "{} runs on another node than {}",
                key.instance, self.agent
            )));
        }
        Ok(key)
    }

    /// An instance that control has a record of belongs to that node. One without a record ran
    /// here once: its last lines come after its record has gone, and they are wanted.
    async fn ask(&mut self, instance: &InstanceId) -> Result<bool, String> {
        let wanted = instance.clone();
        let answer = self
            .edge
            .control
            .ask(|reply| Command::AgentOf(wanted, reply))
            .await
            .map_err(|problem| problem.detail)?;
        let owned = match (answer, &self.agent) {
            (Some(agent), mine) => agent == *mine,
            (None, AgentName::Node(_)) => true,
            // A Pod ships its own instance's lines and no others.
            (None, AgentName::Pod(id)) => id == instance,
        };
        self.owned.insert(instance.clone(), owned);
        Ok(owned)
    }

    /// The answer to a batch. Errors: the disk, not the batch, is at fault.
    fn settle(&self, outcome: Outcome) -> Result<LogAck, Status> {
        let Outcome { batch, result } = outcome;
        let error = match result {
            Ok(durable) => return Ok(acknowledgement(&batch, durable, String::new())),
            Err(error) => error,
        };
        match &error {
            LogsError::WrongOffset { durable, .. } | LogsError::BadFrames { durable, .. } => {
                tracing::debug!(agent = %self.agent, %error, "a log batch was refused");
                Ok(acknowledgement(&batch, *durable, error.to_string()))
            }
            _ => {
                let error = crate::chain(&error);
                tracing::error!(agent = %self.agent, error, "logs cannot be kept");
                Err(Status::unavailable(error))
            }
        }
    }
}

async fn append(edge: Arc<Edge>, key: StreamKey, batch: LogBatch) -> Outcome {
    let result = take(&edge, &key, &batch).await;
    Outcome { batch, result }
}

/// Keeps a batch: the durable length of its stream after it.
async fn take(edge: &Edge, key: &StreamKey, batch: &LogBatch) -> Result<u64, LogsError> {
    let logs = &edge.logs;
    if batch.hole && logs.durable(key).await? < batch.offset {
        tracing::warn!(stream = %key, offset = batch.offset, "a log goes on behind a gap");
        logs.skip_to(key, batch.offset).await?;
    }
    if batch.frames.is_empty() {
        return logs.durable(key).await;
    }
    logs.append(key, batch.offset, batch.frames.clone()).await
}

fn acknowledgement(batch: &LogBatch, durable: u64, error: String) -> LogAck {
    LogAck {
        instance: batch.instance.clone(),
        start: batch.start,
        boot_id: batch.boot_id.clone(),
        durable,
        error,
        unwanted: false,
    }
}
