//! The calls that agents make.

use std::sync::{Arc, Mutex};

use berth_logfile::Mirror;
use berth_model::instance::InstanceStatus;
use berth_proto::v1;
use berth_proto::v1::agent_message::Message as Up;
use berth_proto::v1::coordinator_message::Message as Down;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::State;

#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) state: Arc<Mutex<State>>,
}

impl Service {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl v1::enrollment_server::Enrollment for Service {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let request = request.into_inner();
        self.with(|state| {
            state.joins += 1;
            if request.token_secret != state.secret {
                return Err(Status::permission_denied("unknown token"));
            }
            let mut instance = None;
            if let Some(pod) = request.pod {
                let key = state.pki.key_of(&request.csr);
                if *state.token_used.get_or_insert_with(|| key.clone()) != key {
                    return Err(Status::permission_denied("this token is used up"));
                }
                state.pods.push(pod);
                instance = state.pod_instance.clone().map(Into::into);
            }
            let name = if request.name.is_empty() {
                "n1"
            } else {
                &request.name
            };
            Ok(Response::new(v1::JoinReply {
                name: name.to_owned(),
                certificate: state.pki.sign(&request.csr, name, state.certificate_life),
                ca: state.pki.ca_pem(),
                instance,
                renew_after_ms: state.renew_after_ms,
            }))
        })
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        self.with(|state| {
            state.renewals += 1;
            let csr = request.into_inner().csr;
            Ok(Response::new(v1::RenewReply {
                certificate: state.pki.sign(&csr, "n1", state.certificate_life),
                ca: state.pki.ca_pem(),
                renew_after_ms: state.renew_after_ms,
            }))
        })
    }
}

fn authenticated<T>(request: &Request<T>) -> Result<(), Status> {
    match request.peer_certs() {
        Some(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(Status::unauthenticated("no client certificate")),
    }
}

#[async_trait::async_trait]
impl v1::agents_server::Agents for Service {
    type SessionStream = UnboundedReceiverStream<Result<v1::CoordinatorMessage, Status>>;
    type FetchBlobStream = ReceiverStream<Result<v1::BlobChunk, Status>>;
    async fn put_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<v1::OutputReply>, Status> {
        authenticated(&request)?;
        let mut chunks = request.into_inner();
        let (mut head, mut data) = (None, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            let limit = self.with(|state| state.output_limit);
            if limit.is_some_and(|limit| data.len() >= limit) {
                return Err(Status::unavailable("the network broke"));
            }
            head.get_or_insert((chunk.task, chunk.blob));
            data.extend_from_slice(&chunk.data);
        }
        let (task, blob) = head.ok_or_else(|| Status::invalid_argument("nothing"))?;
        let found = format!("blake3:{}", blake3::hash(&data).to_hex());
        if blob != found {
            return Err(Status::invalid_argument(format!("{found}, not {blob}")));
        }
        let bytes = data.len() as u64;
        self.with(|state| {
            if let Some(refusal) = &state.output_refusal {
                return Err(Status::failed_precondition(refusal.clone()));
            }
            state.outputs.push((task, blob, data));
            if std::mem::take(&mut state.lose_answer) {
                return Err(Status::unavailable("the network broke after all"));
            }
            Ok(Response::new(v1::OutputReply { bytes }))
        })
    }

    async fn certify_relay(
        &self,
        request: Request<v1::CertifyRelayRequest>,
    ) -> Result<Response<v1::Certified>, Status> {
        authenticated(&request)?;
        let csr = request.into_inner().csr;
        self.with(|state| {
            let name = "n1.relay.berth.internal";
            Ok(Response::new(v1::Certified {
                certificate: state.pki.sign_server(&csr, name, state.certificate_life),
                ca: state.pki.ca_pem(),
                renew_after_ms: 60_000,
            }))
        })
    }

    type ShipLogsStream = UnboundedReceiverStream<Result<v1::LogAck, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        authenticated(&request)?;
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::unbounded_channel();
        let service = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                service.with(|state| state.heard.push(message.clone()));
                if let Some(message) = message.message {
                    service.with(|state| hear(state, message, &out));
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(queue)))
    }

    async fn fetch_blob(
        &self,
        request: Request<v1::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        authenticated(&request)?;
        let request = request.into_inner();
        let (bytes, limit) = self.with(|state| {
            state.fetches.push(request.offset);
            state.ranges.push((request.offset, request.length));
            let bytes = state.blobs.get(&request.blob).cloned();
            (bytes, state.fetch_limit)
        });
        let bytes = bytes.ok_or_else(|| Status::not_found("no such blob"))?;
        let (out, queue) = mpsc::channel(4);
        let begin = request.offset as usize;
        let end = match request.length {
            0 => bytes.len(),
            length => bytes.len().min(begin + length as usize),
        };
        tokio::spawn(async move {
            let mut sent = 0;
            for piece in bytes[begin..end].chunks(1000) {
                if limit.is_some_and(|limit| sent >= limit) {
                    let _ = out
                        .send(Err(Status::unavailable("the network broke")))
                        .await;
                    return;
                }
                sent += piece.len();
                let data = piece.to_vec().into();
                if out.send(Ok(v1::BlobChunk { data })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn ship_logs(
        &self,
        request: Request<Streaming<v1::LogBatch>>,
    ) -> Result<Response<Self::ShipLogsStream>, Status> {
        authenticated(&request)?;
        let mut inbound = request.into_inner();
        let (out, queue) = mpsc::unbounded_channel();
        let service = self.clone();
        tokio::spawn(async move {
            let mut count = 0;
            while let Ok(Some(batch)) = inbound.message().await {
                count += 1;
                let ack = service.with(|state| store(state, &batch));
                let limit = service.with(|state| state.ship_limit);
                if limit.is_some_and(|limit| count > limit) {
                    // Stored, and the answer is lost.
                    let _ = out.send(Err(Status::unavailable("the network broke")));
                    return;
                }
                let _ = out.send(Ok(ack));
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(queue)))
    }
}

fn hear(
    state: &mut State,
    message: Up,
    out: &mpsc::UnboundedSender<Result<v1::CoordinatorMessage, Status>>,
) {
    let send = |message| {
        _ = out.send(Ok(v1::CoordinatorMessage {
            message: Some(message),
        }))
    };
    match message {
        Up::Hello(hello) => {
            state.hellos.push(hello.clone());
            if let Some(refusal) = state.refusal.clone() {
                return send(Down::Refusal(refusal));
            }
            state.facts = hello.facts.unwrap_or_default();
            note(state, hello.instances);
            send(Down::Welcome(v1::Welcome {
                node: "n1".into(),
                heartbeat_ms: 100,
                lease_ms: 5000,
                transport: state.transport.clone(),
                spread_ms: 0,
            }));
            if let Some(desired) = state.desired.clone() {
                send(Down::Desired(desired));
            }
            state.session = Some(out.clone());
        }
        Up::Status(report) => {
            if let Some(facts) = report.facts {
                state.facts = facts;
            }
            note(state, report.instances);
            for id in report.forgotten {
                state.statuses.remove(&id);
                state.forgotten.push(id);
            }
            send(Down::StatusAck(v1::StatusAck { seq: report.seq }));
        }
        Up::Statistics(statistics) => {
            state.statistics += 1;
            if let Some(packages) = statistics.packages {
                state.packages = packages.digests().collect();
            }
            let said = statistics.instances.into_iter();
            let said = said.filter(|instance| !instance.metrics.is_empty());
            state
                .metrics
                .extend(said.map(|instance| (instance.id, instance.metrics)));
        }
        Up::DesiredAck(ack) => state.acks.push(ack),
        Up::Pong(pong) => state.pongs.push(pong.nonce),
    }
}

fn note(state: &mut State, statuses: Vec<v1::InstanceStatus>) {
    for status in statuses {
        let status = InstanceStatus::try_from(status).unwrap();
        state.history.push(status.clone());
        state.statuses.insert(status.id.to_string(), status);
    }
}

fn store(state: &mut State, batch: &v1::LogBatch) -> v1::LogAck {
    let key = (batch.instance.clone(), batch.start, batch.boot_id.clone());
    let dir = state
        .logs
        .path()
        .join(&batch.instance)
        .join(format!("{}-{}", batch.start, batch.boot_id));
    let mirror = state
        .mirrors
        .entry(key)
        .or_insert_with(|| Mirror::open(&dir, 1 << 20).unwrap());
    let error = if batch.frames.is_empty() {
        String::new()
    } else {
        let taken = mirror.append_at(batch.offset, &batch.frames);
        taken
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    v1::LogAck {
        instance: batch.instance.clone(),
        start: batch.start,
        boot_id: batch.boot_id.clone(),
        durable: mirror.durable(),
        error,
        unwanted: false,
    }
}
