//! From a plan's actions to deeds. Each is tried for itself; what fails becomes news.

use std::collections::BTreeSet;

use berth_agent_plan::{Action, Cause, Package, Run};
use berth_model::digest::PackageDigest;
use berth_model::id::InstanceId;
use berth_model::instance::InstanceSpec;
use berth_model::time::Monotonic;

use super::Reconciler;
use crate::clock;
use crate::logs::Command;
use crate::modules::needs_venv;
use crate::packages::Wanted;

impl Reconciler {
    pub(super) async fn act(&mut self, action: Action) {
        match action {
            Action::Prepare { id } => self.prepare(&id),
            Action::Launch { id, start } => {
                if let Err(reason) = self.launch(&id, start).await {
                    tracing::warn!(instance = %id, start, %reason, "cannot start");
                    if let Some(local) = self.local.get_mut(&id) {
                        local.launch_failed(&id, reason, clock::now(), &self.parts.settings);
                    }
                }
            }
            Action::Fetch { id } => self.fetch(&id),
            Action::Upload { id } => self.upload(&id),
            Action::Abandon { id } => self.abandon(&id),
            Action::Stop { id, cause, kill } => self.stop(&id, cause, kill),
            Action::Kill { id } => self.kill(&id),
            Action::Forget { id } => self.forget(&id).await,
        }
    }

    pub(super) fn spec(&self, id: &InstanceId) -> Option<&InstanceSpec> {
        self.parts.ledger.desired()?.get(id)
    }

    fn prepare(&mut self, id: &InstanceId) {
        let Some(spec) = self.spec(id) else { return };
        let wanted = Wanted {
            digest: spec.digest,
            blob: spec.blob,
            bytes: spec.blob_bytes,
            venv: needs_venv(spec),
        };
        let ready = self.parts.packages.claim(wanted.digest, wanted.venv);
        let local = self.local.entry(id.clone()).or_default();
        local.digest = Some(wanted.digest);
        if ready {
            return self.equip(id);
        }
        local.package = Package::Preparing { trouble: None };
        self.parts.packages.prepare(wanted);
    }

    fn stop(&mut self, id: &InstanceId, cause: Cause, kill: Monotonic) {
        if let Cause::Broken(reason) = &cause {
            tracing::warn!(instance = %id, %reason, "stopping what does not work");
        } else {
            tracing::info!(instance = %id, "stopping");
        }
        if let Some(local) = self.local.get_mut(id) {
            local.stopping(cause, kill);
        }
        if let Some(running) = self.running.get_mut(id) {
            if let Some(health) = running.health.take() {
                health.abort();
            }
            if let Err(error) = self.parts.runtimes.stop(&running.handle) {
                // The kill comes at its time.
                tracing::warn!(instance = %id, error = crate::chain(&error), "cannot stop in order");
            }
        }
    }

    fn kill(&mut self, id: &InstanceId) {
        tracing::warn!(instance = %id, "its stop takes too long: killing the whole tree");
        if let Some(local) = self.local.get_mut(id) {
            local.killed();
        }
        let Some(running) = self.running.get(id) else {
            return;
        };
        let (runtimes, handle, id) = (
            self.parts.runtimes.clone(),
            running.handle.clone(),
            id.clone(),
        );
        tokio::task::spawn_blocking(move || {
            if let Err(error) = runtimes.kill(&handle) {
                tracing::error!(instance = %id, error = crate::chain(&error), "cannot kill");
            }
        });
    }

    async fn forget(&mut self, id: &InstanceId) {
        self.ship(Command::Drop(id.clone()));
        self.parts.tasks.cancel(id);
        // Most instances have none.
        if let Some(folder) = self.socket(id).parent() {
            let _ = crate::files::remove_dir(folder);
        }
        let folder = self.parts.data.instance(id);
        let removed = tokio::task::spawn_blocking(move || crate::files::remove_dir(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(instance = %id, error = crate::chain(&error), "cannot delete all of it");
        }
        self.parts.ledger.forget(id);
        self.local.remove(id);
        self.images.remove(id);
        self.parts.board.forget(id);
        tracing::info!(instance = %id, "forgotten");
        let used = self.keep_packages();
        for runtime in self.parts.runtimes.iter() {
            runtime.collect(&used);
        }
    }

    /// Keeps the packages of all that is here or wanted, and lets go of the others.
    pub(super) fn keep_packages(&self) -> BTreeSet<PackageDigest> {
        let desired = || self.parts.ledger.desired().into_iter().flatten();
        let used: BTreeSet<PackageDigest> = self
            .local
            .values()
            .filter_map(|local| local.digest)
            .chain(desired().map(|(_, spec)| spec.digest))
            .collect();
        let archives = desired().map(|(_, spec)| spec.blob).collect();
        self.parts.packages.keep(used.clone(), archives);
        used
    }

    /// Has the logs of what is not wanted any more shipped to the end.
    pub(super) fn drain(&self) {
        let Some(desired) = self.parts.ledger.desired() else {
            return;
        };
        for (id, local) in &self.local {
            let down = matches!(local.run, Run::Down { .. });
            if down && local.start > 0 && !local.logs_shipped && !desired.contains_key(id) {
                self.ship(Command::Drain(id.clone()));
            }
        }
    }
}
