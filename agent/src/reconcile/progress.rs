//! How far the only instance of an agent is, for who ends the agent with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_agent_plan::{Local, Run, Status};
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Phase, Reason};
use berth_model::node::RuntimeKind;
use tokio::sync::watch;

use super::Reconciler;
use crate::logs::Command;
use crate::runtime::EndState;

/// How far the only instance of an agent is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Its start's folder, once it runs.
    pub dir: Option<PathBuf>,
    /// How its start ended.
    pub end: Option<EndState>,
    /// It has stopped for good.
    pub stopped: bool,
    /// Why, as it is reported.
    pub reason: Option<Reason>,
    /// The end of its output, as it is reported.
    pub last_lines: Vec<String>,
    /// Its logs are all on the coordinator's disk.
    pub shipped: bool,
    /// The coordinator does not know it any more, and said so in these words: nobody will take its logs.
    pub disowned: Option<String>,
}

/// Where it is told.
pub type ProgressSender = watch::Sender<Progress>;

impl Reconciler {
    pub(super) fn progress(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = &self.parts.progress {
            progress.send_modify(change);
        }
    }

    /// Tells how far it is, as it has just been reported, and has the logs shipped once it has stopped.
    pub(super) fn tell(&self, statuses: &BTreeMap<InstanceId, Status>) {
        if self.parts.progress.is_none() || statuses.values().any(|s| s.phase != Phase::Stopped) {
            return;
        }
        for (id, local) in &self.local {
            let down = matches!(local.run, Run::Down { .. });
            if down && local.start > 0 && !local.logs_shipped {
                self.ship(Command::Drain(id.clone()));
            }
        }
        let shipped = |local: &Local| local.start == 0 || local.logs_shipped;
        let shipped = self.local.values().all(shipped);
        self.progress(|progress| {
            progress.stopped = true;
            progress.shipped |= shipped;
            // Of one that is forgotten already, there is no status any more.
            if let Some(status) = statuses.values().next() {
                progress.reason.clone_from(&status.reason);
                progress.last_lines.clone_from(&status.last_lines);
            }
        });
    }

    /// Of a set, what may run here: in a Pod its one instance, and there Kubernetes has done what a runtime does.
    pub(super) fn own(&self, specs: Vec<InstanceSpec>) -> Vec<InstanceSpec> {
        if self.parts.progress.is_none() {
            return specs;
        }
        let known = |spec: &InstanceSpec| self.local.contains_key(&spec.id);
        let own = specs.into_iter().filter(known);
        own.map(|spec| InstanceSpec {
            runtime: RuntimeKind::Process,
            ..spec
        })
        .collect()
    }

    /// The agent ends with its instance: an ordered stop, as if nothing were wanted any more.
    pub(super) fn end_all(&mut self) {
        self.parts.settings.ending = true;
    }

    /// The coordinator ended the session for good.
    pub(super) fn refused(&mut self, code: &str, message: String) {
        if self.parts.progress.is_some() && code == "removed" {
            tracing::warn!(
                message,
                "the coordinator does not know this instance any more"
            );
            self.end_all();
            self.progress(|progress| progress.disowned = Some(message));
        }
    }
}
