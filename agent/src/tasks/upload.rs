//! Uploading a task's output, again and again until the coordinator says that it is on its disk.

use std::future::Future;
use std::time::Duration;

use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use berth_model::job::TaskOutput;
use berth_proto::v1;
use berth_proto::v1::agents_client::AgentsClient;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::connected;
use super::output::{self, Packed};
use crate::backoff::Backoff;

/// Bytes in one message.
const CHUNK: usize = 256 << 10;

/// Time in which the coordinator must take a message.
const STALL: Duration = Duration::from_secs(30);

/// Time in which it must answer once it has everything: it writes it to its disk.
const ANSWER: Duration = Duration::from_secs(120);

/// Why an attempt brought nothing.
enum Failure {
    /// It may work another time.
    Later(String),
    /// The coordinator does not want it.
    Refused(String),
    /// It cannot be read any more.
    Here(Reason),
}

/// Uploads, as long as it takes.
pub(super) async fn upload<F: Future<Output = ()>>(
    id: &InstanceId,
    packed: Packed,
    mut channel: watch::Receiver<Option<Channel>>,
    trouble: impl Fn(Reason) -> F,
) -> Result<TaskOutput, Reason> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    loop {
        let Some(connected) = connected(&mut channel).await else {
            return Err(Reason::Node {
                error: "the agent is ending".to_owned(),
            });
        };
        match attempt(id, &packed, connected).await {
            Ok(()) => {
                tracing::info!(task = %id, blob = %packed.output.blob, bytes = packed.output.bytes, "output uploaded");
                return Ok(packed.output);
            }
            Err(Failure::Here(reason)) => return Err(reason),
            Err(Failure::Refused(words)) => {
                return Err(Reason::Output {
                    error: format!("the coordinator does not take it: {words}"),
                });
            }
            Err(Failure::Later(words)) => {
                tracing::warn!(task = %id, words, "cannot upload the output yet");
                trouble(Reason::Output {
                    error: format!("not uploaded yet, tried again: {words}"),
                })
                .await;
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

async fn attempt(id: &InstanceId, packed: &Packed, channel: Channel) -> Result<(), Failure> {
    let file = output::open(&packed.path).map_err(Failure::Here)?;
    let mut client = AgentsClient::new(channel);
    let (chunks, queue) = mpsc::channel(4);
    let sending = async {
        send(id, packed, file.into(), chunks).await?;
        tokio::time::sleep(ANSWER).await;
        Err::<(), _>(Failure::Later(format!("no answer within {ANSWER:?}")))
    };
    tokio::select! {
        // A refusal may come before everything is sent.
        biased;
        answer = client.put_output(ReceiverStream::new(queue)) => match answer {
            Ok(reply) if reply.get_ref().bytes == packed.output.bytes => Ok(()),
            Ok(reply) => Err(Failure::Later(format!(
                "the coordinator has {} bytes of {}",
                reply.get_ref().bytes,
                packed.output.bytes
            ))),
            Err(status) => Err(failure(&status)),
        },
        ended = sending => ended,
    }
}

fn failure(status: &Status) -> Failure {
    let words = status.message().to_owned();
    match status.code() {
        Code::NotFound | Code::PermissionDenied | Code::FailedPrecondition => {
            Failure::Refused(words)
        }
        _ => Failure::Later(words),
    }
}

/// Sends everything. An ended call is no error here: its answer says more.
async fn send(
    id: &InstanceId,
    packed: &Packed,
    mut file: tokio::fs::File,
    chunks: mpsc::Sender<v1::OutputChunk>,
) -> Result<(), Failure> {
    let mut chunk = v1::OutputChunk {
        task: id.to_string(),
        blob: packed.output.blob.to_string(),
        ..Default::default()
    };
    let (mut first, mut buffer) = (true, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut buffer).await.map_err(|error| {
            Failure::Here(Reason::Node {
                error: format!("cannot read {}: {error}", packed.path.display()),
            })
        })?;
        // An empty output is a message, too.
        if read == 0 && !first {
            return Ok(());
        }
        chunk.data = buffer[..read].to_vec().into();
        first = false;
        match tokio::time::timeout(STALL, chunks.send(std::mem::take(&mut chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Failure::Later(format!("uploading stalled for {STALL:?}"))),
        }
    }
}
