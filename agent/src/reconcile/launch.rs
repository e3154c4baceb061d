//! One start: its ports, its place, its launch.

use std::path::Path;
use std::sync::Arc;

use berth_agent_plan::Package;
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::node::RuntimeKind;

use super::{Event, Reconciler};
use crate::clock;
use crate::ledger::Ports;
use crate::modules::{
    Grpc, LaunchPlan, Place, is_tf_serving, launch_plan, needs_driver, needs_venv,
};
use crate::runtime::{Launch, PACKAGE, Runtime, RuntimeError};
use crate::tools;

fn node(error: impl Into<String>) -> Reason {
    Reason::Node {
        error: error.into(),
    }
}

impl Reconciler {
    pub(super) async fn launch(&mut self, id: &InstanceId, start: u32) -> Result<(), Reason> {
        let spec = self
            .spec(id)
            .ok_or_else(|| node("it is not in the desired set"))?
            .clone();
        // A package that is gone is no end of a task's one start, which has not begun.
        let equipped = spec.runtime != RuntimeKind::Docker || self.images.contains_key(id);
        if spec.task.is_some()
            && !(equipped && self.parts.packages.is_ready(spec.digest, needs_venv(&spec)))
            && let Some(local) = self.local.get_mut(id)
        {
            local.package = Package::Unknown;
            return Ok(());
        }
        // Begun before anything can fail, so that a failure waits its back-off and is a start that ended.
        let host = (self.parts.inside.is_none()).then(|| self.host());
        if let Some(local) = self.local.get_mut(id) {
            local.launching(start);
            local.host = host;
            local.runs_from(clock::now());
            local.grace = Some(spec.manifest.module.stop_grace.0);
        }
        if !self.parts.packages.is_ready(spec.digest, needs_venv(&spec)) {
            if let Some(local) = self.local.get_mut(id) {
                local.package = Package::Unknown;
            }
            return Err(node(
                "its package or its Python environment is gone from this node; it is prepared again",
            ));
        }
        let runtime = self.parts.runtimes.get(spec.runtime);
        let runtime = runtime.map_err(|error| node(crate::chain(&error)))?.clone();
        if !equipped {
            if let Some(local) = self.local.get_mut(id) {
                local.package = Package::Unknown;
            }
            return Err(node("its image is not prepared; it is being prepared"));
        }
        let ports = self.ports(&spec)?;
        self.lease(id, start, ports).await?;
        let plan = self.plan_launch(&spec, start, ports)?;
        let work = self.parts.data.work(id);
        plan.lay_out(&work)
            .map_err(|error| node(crate::chain(&error)))?;
        let launch = Launch {
            dir: self.parts.data.start(id, start),
            container: self.container(&spec, &plan.spec),
            confinement: Some(self.confinement(&spec, &plan.spec)),
            spec: plan.spec,
        };
        tracing::info!(instance = %id, start, port = ports.port, "starting");
        self.tell_isolation();
        self.spawn_launch(runtime, id.clone(), launch);
        Ok(())
    }

    /// What is to be started, here on this node.
    fn plan_launch(
        &self,
        spec: &InstanceSpec,
        start: u32,
        ports: Ports,
    ) -> Result<LaunchPlan, Reason> {
        let contained = spec.runtime == RuntimeKind::Docker;
        let model_server = match is_tf_serving(spec) {
            // The image's own.
            true if contained => tools::MODEL_SERVER.to_owned(),
            true => self.model_server()?,
            false => String::new(),
        };
        let driver = match needs_driver(spec) {
            true => self.driver()?,
            false => String::new(),
        };
        let socket = self.socket(&spec.id);
        let grpc = match &self.parts.inside {
            Some(inside) => Grpc::Port(inside.grpc),
            None => Grpc::Socket(&socket),
        };
        if is_tf_serving(spec) && grpc == Grpc::Socket(&socket) {
            prepare_socket(&socket)?;
        }
        let package = self.parts.packages.path(spec.digest);
        let venv = match needs_venv(spec) {
            true => self.parts.packages.venv(spec.digest),
            false => None,
        };
        let path = std::env::var("PATH").ok();
        let place = Place {
            start,
            host: self.host(),
            port: ports.port,
            module_port: ports.module,
            package: if contained {
                Path::new(PACKAGE)
            } else {
                &package
            },
            unpacked: &package,
            work: &self.parts.data.work(&spec.id),
            venv: venv.as_deref(),
            model_server: &model_server,
            driver: &driver,
            grpc,
            log: self.parts.log,
            path: path.as_deref(),
        };
        let mut plan = launch_plan(spec, &place).map_err(|error| node(error.to_string()))?;
        let brought = self.parts.inside.iter().flat_map(|inside| &inside.env);
        for (name, value) in brought {
            for process in &mut plan.spec.processes {
                let env = &mut process.env;
                env.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        let said = [&spec.manifest.module.env, &spec.env];
        if contained && !said.iter().any(|env| env.contains_key("PATH")) {
            // The image knows where its programs are.
            for process in &mut plan.spec.processes {
                process.env.remove("PATH");
            }
        }
        Ok(plan)
    }

    /// TensorFlow Serving on this node. Looked for at each start: it may have been installed meanwhile.
    fn model_server(&self) -> Result<String, Reason> {
        tools::model_server(self.parts.model_server.as_deref())
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(node)
    }

    /// Berth's batch driver.
    fn driver(&self) -> Result<String, Reason> {
        tools::driver(self.parts.driver.as_deref())
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(node)
    }

    fn spawn_launch(&self, runtime: Arc<dyn Runtime>, id: InstanceId, launch: Launch) {
        let events = self.parts.events.0.clone();
        let start = launch.spec.start;
        tokio::spawn(async move {
            let started = tokio::task::spawn_blocking(move || {
                let handle = runtime.start(&launch)?;
                let pid = runtime.stats(&handle).main_pid;
                Ok::<_, crate::runtime::RuntimeError>((handle, pid))
            })
            .await;
            let result = match started {
                Ok(Err(error @ RuntimeError::ImageGone { .. })) => Err(image_gone(&error)),
                Ok(result) => result.map_err(|error| node(crate::chain(&error))),
                Err(error) => Err(node(format!("starting broke off: {error}"))),
            };
            // If nobody listens any more, the agent is ending; the next one adopts the start.
            let _ = events.send(Event::Launched { id, start, result }).await;
        });
    }
}

/// Has the image prepared again.
fn image_gone(error: &RuntimeError) -> Reason {
    let image = match error {
        RuntimeError::ImageGone { image } => image.clone(),
        _ => String::new(),
    };
    Reason::Image {
        image,
        error: "it is gone from this node; it is prepared again".to_owned(),
    }
}

/// The longest path of a unix socket, which the kernel ends with a NUL in 108 bytes.
const LONGEST_SOCKET: usize = 107;

/// Makes the sockets' folder, and removes what an earlier start left.
fn prepare_socket(socket: &Path) -> Result<(), Reason> {
    let length = socket.as_os_str().len();
    if length > LONGEST_SOCKET {
        return Err(node(format!(
            "the gRPC socket {} has a path of {length} bytes, and the system takes {LONGEST_SOCKET}: \
             give the agent a shorter data_dir",
            socket.display()
        )));
    }
    if let Some(folder) = socket.parent() {
        crate::files::make_dir(folder).map_err(|error| node(crate::chain(&error)))?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(node(format!("cannot remove {}: {error}", socket.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_must_fit_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s/1.sock");
        prepare_socket(&socket).unwrap();
        std::fs::write(&socket, "left over").unwrap();
        prepare_socket(&socket).unwrap();
        assert!(!socket.exists());
        let long = dir.path().join("x".repeat(100)).join("1.sock");
        let Err(Reason::Node { error }) = prepare_socket(&long) else {
            panic!("taken")
        };
        assert!(error.contains("shorter data_dir"), "{error}");
    }
}
