//! Tasks: their inputs, their outputs, and what must survive of them.

use berth_agent_plan::{Input, Local, Task};
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::job::TaskOutput;

use super::Reconciler;
use crate::clock;
use crate::ledger::{Lease, TaskLease};
use crate::tasks::TaskNews;

/// What is so of a task whose specification is known, from what the last agent wrote down.
pub(super) fn known(spec: Option<&InstanceSpec>, lease: &Lease) -> Option<Task> {
    let task = spec?.task.as_ref()?;
    Some(Task {
        limit: task.deadline.map(|deadline| deadline.0),
        deadline: lease.task.as_ref().and_then(|lease| lease.deadline),
        ..Task::default()
    })
}

impl Reconciler {
    pub(super) fn fetch(&mut self, id: &InstanceId) {
        let Some(task) = self.spec(id).and_then(|spec| spec.task.clone()) else {
            return;
        };
        if let Some(local) = self.local.get_mut(id) {
            local.fetching();
            self.parts.tasks.fetch(id, task.input);
        }
    }

    pub(super) fn upload(&mut self, id: &InstanceId) {
        if let Some(local) = self.local.get_mut(id) {
            local.uploading(None);
            self.parts.tasks.upload(id);
        }
    }

    pub(super) fn abandon(&mut self, id: &InstanceId) {
        self.parts.tasks.cancel(id);
        if let Some(local) = self.local.get_mut(id) {
            local.abandon();
        }
    }

    /// A task's input or output made progress.
    pub(super) async fn task(&mut self, id: &InstanceId, news: TaskNews) {
        if let TaskNews::Uploaded(output) = &news {
            self.remember(id, output.clone()).await;
        }
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        match news {
            TaskNews::FetchTrouble(reason) => local.input(Input::Fetching {
                trouble: Some(reason),
            }),
            TaskNews::Fetched => local.input(Input::Ready),
            TaskNews::FetchFailed(reason) => {
                tracing::warn!(task = %id, %reason, "its input cannot be had");
                local.unprepared(reason);
            }
            TaskNews::UploadTrouble(reason) => local.uploading(Some(reason)),
            TaskNews::Uploaded(output) => local.uploaded(output),
            TaskNews::UploadFailed(reason) => {
                tracing::warn!(task = %id, %reason, "its output is lost");
                local.upload_failed(reason);
            }
        }
    }

    /// Writes down that a task's output is on the coordinator's disk. If that fails, an agent that is started
    /// before the coordinator heard of it uploads the same bytes again.
    async fn remember(&mut self, id: &InstanceId, output: TaskOutput) {
        let written = self
            .parts
            .ledger
            .lease(|leases| {
                let lease = leases.entry(id.clone()).or_default();
                lease.task.get_or_insert_default().output = Some(output);
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(task = %id, error = crate::chain(&error), "cannot write down an upload");
        }
    }

    /// After all starts of a task were looked at: what becomes of it.
    pub(super) fn adopt_task(&mut self, id: &InstanceId, lease: Option<TaskLease>) {
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        local.untraced();
        if let Some(output) = lease.and_then(|lease| lease.output) {
            local.uploaded(output);
        }
    }
}

/// What is written down of a task before its launch.
pub(super) fn lease(local: &Local) -> Option<TaskLease> {
    local.task.as_ref().map(|task| TaskLease {
        deadline: task.deadline,
        output: None,
    })
}

/// A task's specification became known.
pub(super) fn tell(local: &mut Local, spec: &InstanceSpec) {
    if let Some(task) = &spec.task {
        local.is_task(task.deadline.map(|deadline| deadline.0), clock::now());
    }
}

/// A task's package cannot be had.
pub(super) fn without_package(local: &mut Local, reason: Reason) -> bool {
    if local.task.is_some() {
        local.unprepared(reason);
        return true;
    }
    false
}
