//! What an instance needs besides its package before it can be started: of a container, its image.

use std::path::{Path, PathBuf};

use berth_agent_plan::Package;
use berth_model::id::InstanceId;

use super::{Event, Reconciler, task};
use crate::clock;
use crate::runtime::{Confinement, Container, PrepareError};

impl Reconciler {
    /// The package is there; has the rest prepared, if there is more.
    pub(super) fn equip(&mut self, id: &InstanceId) {
        let preparing = self.spec(id).and_then(|spec| {
            // Without the runtime the start says so.
            let runtime = self.parts.runtimes.get(spec.runtime).ok()?;
            runtime.prepare(spec, &self.parts.packages.path(spec.digest))
        });
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        let Some(preparing) = preparing else {
            local.package = Package::Ready;
            return;
        };
        local.package = Package::Preparing { trouble: None };
        let (events, id) = (self.parts.events.0.clone(), id.clone());
        tokio::spawn(async move {
            let result = preparing.await;
            // If nobody listens any more, the agent is ending.
            let _ = events.send(Event::Equipped { id, result }).await;
        });
    }

    /// It is prepared, or it is not.
    pub(super) fn equipped(&mut self, id: &InstanceId, result: Result<String, PrepareError>) {
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        if !matches!(local.package, Package::Preparing { .. }) {
            return;
        }
        match result {
            Ok(image) => {
                local.package = Package::Ready;
                self.images.insert(id.clone(), image);
            }
            Err(error) => {
                tracing::warn!(instance = %id, reason = %error.reason, "cannot prepare");
                local.last_lines = error.last_lines;
                if !error.passing && task::without_package(local, error.reason.clone()) {
                    return;
                }
                local.package = Package::Failed {
                    reason: error.reason,
                    retry: clock::now().after(error.retry),
                };
            }
        }
    }

    /// What its runtime is told of a start's container; none for runtimes that make none.
    pub(super) fn container(
        &self,
        spec: &berth_model::instance::InstanceSpec,
        plan: &berth_shim::spec::Spec,
    ) -> Option<Container> {
        let image = self.images.get(&spec.id)?.clone();
        let mut writable = vec![self.parts.data.work(&spec.id)];
        if crate::modules::is_tf_serving(spec)
            && let Some(folder) = self.socket(&spec.id).parent()
        {
            writable.push(folder.to_owned());
        }
        // Berth's own; everything else is the package's or the image's.
        let driver = crate::tools::driver(self.parts.driver.as_deref()).ok();
        let runs = |driver: &PathBuf| {
            let mut programs = plan.processes.iter().filter_map(|one| one.argv.first());
            programs.any(|program| Path::new(program) == driver)
        };
        Some(Container {
            image,
            package: self.parts.packages.path(spec.digest),
            writable,
            readable: driver.filter(runs).into_iter().collect(),
            resources: spec.manifest.resources,
            gpus: spec.gpus.clone(),
        })
    }

    /// What the processes of a start are kept to that is no container.
    pub(super) fn confinement(
        &self,
        spec: &berth_model::instance::InstanceSpec,
        plan: &berth_shim::spec::Spec,
    ) -> Confinement {
        let mut writable = vec![self.parts.data.work(&spec.id)];
        if crate::modules::is_tf_serving(spec)
            && let Some(folder) = self.socket(&spec.id).parent()
        {
            writable.push(folder.to_owned());
        }
        let mut readable = vec![self.parts.packages.path(spec.digest)];
        if crate::modules::needs_venv(spec) {
            let venv = self.parts.packages.venv(spec.digest);
            readable.extend(venv.iter().filter_map(|venv| crate::tools::python_of(venv)));
            readable.extend(venv);
        }
        // Berth's driver and TensorFlow Serving may lie where instances see nothing.
        // A task's driver starts the model server.
        let server = crate::modules::is_tf_serving(spec)
            .then(|| crate::tools::model_server(self.parts.model_server.as_deref()).ok());
        let programs = plan.processes.iter().filter_map(|one| one.argv.first());
        for program in programs.map(PathBuf::from).chain(server.flatten()) {
            let known = readable.iter().any(|folder| program.starts_with(folder));
            if !known && program.is_absolute() && program.exists() {
                readable.push(program);
            }
        }
        Confinement {
            writable,
            readable,
            resources: spec.manifest.resources,
            egress: spec.manifest.egress.clone(),
            host: Some(self.host()),
            deadline: None,
        }
    }

    /// Reports what keeps instances apart that are started now. It depends on where they listen.
    pub(super) fn tell_isolation(&self) {
        // In a Pod its own agent has nothing to keep apart.
        if self.parts.inside.is_some() {
            return;
        }
        let isolation = self.parts.runtimes.isolation(self.host());
        self.parts.board.facts(|known| {
            if known.isolation == isolation {
                return;
            }
            if let Some(isolation) = &isolation {
                let enforced = isolation.enforced.join(", ");
                let missing = isolation.missing.join("; ");
                tracing::info!(
                    launcher = isolation.launcher,
                    enforced,
                    missing,
                    "isolation"
                );
            }
            known.isolation = isolation;
        });
    }

    /// The gRPC socket of an instance: in a folder of its own, as none may see another's.
    pub(super) fn socket(&self, id: &InstanceId) -> PathBuf {
        self.parts.data.socket(id).with_extension("d").join("s")
    }
}
