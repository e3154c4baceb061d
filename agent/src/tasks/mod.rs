//! What a task needs beside its processes: its input before, its output after.

mod input;
mod names;
mod output;
mod upload;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use berth_model::job::{ShardInput, TaskOutput};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::data::DataDir;
use crate::limit::Limit;
use crate::modules;
use crate::reconcile::Event;

/// Transfers at a time; the others wait for their turn.
const AT_A_TIME: usize = 4;

/// News of a task's input or output.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskNews {
    /// The input is being fetched, with trouble.
    FetchTrouble(Reason),
    /// The input is there, complete.
    Fetched,
    /// The input cannot be had.
    FetchFailed(Reason),
    /// The output is being uploaded, with trouble.
    UploadTrouble(Reason),
    /// The output is on the coordinator's disk.
    Uploaded(TaskOutput),
    /// The output cannot be used, or is not taken.
    UploadFailed(Reason),
}

/// Fetches inputs and uploads outputs, at most one of both for a task at a time.
#[derive(Debug)]
pub struct Tasks {
    data: DataDir,
    /// The largest output.
    max_output: u64,
    channel: watch::Receiver<Option<Channel>>,
    events: mpsc::Sender<Event>,
    running: BTreeMap<InstanceId, AbortHandle>,
    turns: Arc<Semaphore>,
    limit: Option<Arc<Limit>>,
}

impl Tasks {
    /// In an agent's data folder.
    pub(crate) fn new(
        data: DataDir,
        max_output: u64,
        channel: watch::Receiver<Option<Channel>>,
        events: mpsc::Sender<Event>,
        limit: Option<Arc<Limit>>,
    ) -> Self {
        Self {
            data,
            max_output,
            channel,
            events,
            running: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            limit,
        }
    }

    /// Begins to fetch a task's input; news come as events.
    pub fn fetch(&mut self, id: &InstanceId, input: ShardInput) {
        let (work, channel) = (self.data.work(id), self.channel.clone());
        let (tell, limit) = (self.teller(id), self.limit.clone());
        self.run(id, async move {
            let trouble = |reason| tell(TaskNews::FetchTrouble(reason));
            let path = work.join(modules::INPUT);
            let fetched = input::fetch(&input, &path, channel, limit.as_deref(), trouble).await;
            tell(match fetched {
                Ok(()) => TaskNews::Fetched,
                Err(reason) => TaskNews::FetchFailed(reason),
            })
            .await;
        });
    }

    /// Begins to upload a task's output; news come as events.
    pub fn upload(&mut self, id: &InstanceId) {
        let (data, most, channel) = (self.data.clone(), self.max_output, self.channel.clone());
        let (tell, task) = (self.teller(id), id.clone());
        self.run(id, async move {
            let trouble = |reason| tell(TaskNews::UploadTrouble(reason));
            let (left, archive) = (
                data.work(&task).join(modules::OUTPUT),
                data.output_archive(&task),
            );
            let packed =
                tokio::task::spawn_blocking(move || output::pack(&left, &archive, most)).await;
            let packed = packed.unwrap_or_else(|error| {
                Err(Reason::Node {
                    error: format!("packing the output broke off: {error}"),
                })
            });
            let uploaded = match packed {
                Ok(packed) => upload::upload(&task, packed, channel, trouble).await,
                Err(reason) => Err(reason),
            };
            // Of no use more, either way; it is made anew if it is asked for again.
            let _ = tokio::fs::remove_file(data.output_archive(&task)).await;
            tell(match uploaded {
                Ok(output) => TaskNews::Uploaded(output),
                Err(reason) => TaskNews::UploadFailed(reason),
            })
            .await;
        });
    }

    /// Calls off what is under way for a task.
    pub fn cancel(&mut self, id: &InstanceId) {
        if let Some(running) = self.running.remove(id) {
            running.abort();
        }
    }

    fn run(&mut self, id: &InstanceId, work: impl Future<Output = ()> + Send + 'static) {
        let turns = self.turns.clone();
        let task = tokio::spawn(async move {
            // The semaphore is never closed; without a permit it would only be less orderly.
            let _turn = turns.acquire_owned().await;
            work.await;
        });
        if let Some(before) = self.running.insert(id.clone(), task.abort_handle()) {
            before.abort();
        }
    }

    /// Sends news of a task.
    fn teller(
        &self,
        id: &InstanceId,
    ) -> impl Fn(TaskNews) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static
    {
        let (events, id) = (self.events.clone(), id.clone());
        move |news| {
            let (events, id) = (events.clone(), id.clone());
            // If nobody listens any more, the agent is ending.
            Box::pin(async move { _ = events.send(Event::Task { id, news }).await })
        }
    }
}

/// The connection, once there is one; none when the agent is ending.
async fn connected(channel: &mut watch::Receiver<Option<Channel>>) -> Option<Channel> {
    channel
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|channel| channel.clone())
}
