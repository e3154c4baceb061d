//! The runtimes of one agent. What is started is chosen by kind; what runs, by its handle or folder.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use berth_model::node::{Isolation, RuntimeKind};

use super::marker;
use super::{Adopted, EndReason, EndState, Ended, Handle, ProcessStats, Runtime, RuntimeError};

/// All runtimes that an agent has.
#[derive(Clone, Default)]
pub struct Runtimes {
    all: BTreeMap<RuntimeKind, Result<Arc<dyn Runtime>, String>>,
}

impl Runtimes {
    /// With one of a kind; a later one of the same kind takes the place of the earlier.
    pub fn new(runtimes: impl IntoIterator<Item = Arc<dyn Runtime>>) -> Self {
        let all = runtimes.into_iter().map(|one| (one.kind(), Ok(one)));
        Self { all: all.collect() }
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.all.insert(runtime.kind(), Ok(runtime));
        self
    }

    /// Says why there is none of a kind, and what to do.
    #[must_use]
    pub fn without(mut self, kind: RuntimeKind, why: impl Into<String>) -> Self {
        self.all.insert(kind, Err(why.into()));
        self
    }

    /// The runtime of a kind. Errors: there is none here.
    pub fn get(&self, kind: RuntimeKind) -> Result<&Arc<dyn Runtime>, RuntimeError> {
        let absent = |why: &str| RuntimeError::Absent {
            kind,
            why: why.to_owned(),
        };
        match self.all.get(&kind) {
            Some(Ok(runtime)) => Ok(runtime),
            Some(Err(why)) => Err(absent(why)),
            None => Err(absent("this agent knows no such runtime")),
        }
    }

    /// Those that this agent has.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.all.values().filter_map(|one| one.as_ref().ok())
    }

    /// How instances that are plain processes are kept apart, if they listen on `host`.
    pub fn isolation(&self, host: IpAddr) -> Option<Isolation> {
        self.iter().find_map(|runtime| runtime.isolation(host))
    }

    /// See [`Runtime::adopt`]; the folder says whose start it is. **Blocking.**
    pub fn adopt(&self, dir: &Path) -> Result<Adopted, RuntimeError> {
        self.get(marker::read(dir)?)?.adopt(dir)
    }

    /// See [`Runtime::stop`].
    pub fn stop(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.get(handle.runtime)?.stop(handle)
    }

    /// See [`Runtime::kill`]. **Blocking.**
    pub fn kill(&self, handle: &Handle) -> Result<(), RuntimeError> {
        self.get(handle.runtime)?.kill(handle)
    }

    /// See [`Runtime::ended`].
    pub fn ended(&self, handle: &Handle) -> Ended {
        match self.get(handle.runtime) {
            Ok(runtime) => runtime.ended(handle),
            // A handle comes from a runtime that is here; without one nobody looks after it.
            Err(_) => Box::pin(std::future::ready(EndState {
                reason: EndReason::SupervisorLost,
                stop_requested: false,
                processes: Vec::new(),
                started_at_ms: 0,
                ended_at_ms: None,
                stderr_tail: None,
            })),
        }
    }

    /// See [`Runtime::stats`]. **Blocking.**
    pub fn stats(&self, handle: &Handle) -> ProcessStats {
        let runtime = self.get(handle.runtime);
        runtime.map_or_else(|_| ProcessStats::default(), |runtime| runtime.stats(handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::process::ProcessRuntime;

    #[test]
    fn a_start_belongs_to_the_runtime_that_its_folder_names() {
        let process: Arc<dyn Runtime> = Arc::new(ProcessRuntime::new("/no/such/shim".into()));
        let runtimes = Runtimes::new([process]).without(RuntimeKind::Docker, "not in this build");
        let kinds: Vec<RuntimeKind> = runtimes.iter().map(|one| one.kind()).collect();
        assert_eq!(kinds, [RuntimeKind::Process]);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(runtimes.adopt(dir.path()).unwrap(), Adopted::Nothing);
        marker::write(dir.path(), RuntimeKind::Docker).unwrap();
        let error = runtimes.adopt(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("docker") && error.contains("not in this build"),
            "{error}"
        );
        assert!(matches!(
            runtimes.get(RuntimeKind::Kubernetes),
            Err(RuntimeError::Absent { .. })
        ));
    }
}
