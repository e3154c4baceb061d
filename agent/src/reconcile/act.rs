//! From a plan's actions to deeds. Each is tried for itself; what fails becomes news.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_agent_plan::{Action, Cause, Package, Run};
use berth_model::digest::PackageDigest;
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Reason};
use berth_model::time::Monotonic;

use super::{Event, Reconciler, Running};
use crate::clock;
use crate::health;
use crate::launch::{Place, shim_spec};
use crate::logs::Command;
use crate::packages::Wanted;
use crate::ports::{PortRange, choose, ephemeral_range, is_free};
use crate::runtime::{Handle, Launch};

/// A port that can be listened on now; none if there is none.
pub(super) fn choose_port(
    range: PortRange,
    address: IpAddr,
    leased: &BTreeSet<u16>,
    after: Option<u16>,
) -> Option<u16> {
    choose(range, leased, after, ephemeral_range(), |port| {
        is_free(address, port)
    })
    .inspect_err(|error| tracing::error!(%error, "cannot give out a port"))
    .ok()
}

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
            Action::Stop { id, cause, kill } => self.stop(&id, cause, kill),
            Action::Kill { id } => self.kill(&id),
            Action::Forget { id } => self.forget(&id).await,
        }
    }

    fn spec(&self, id: &InstanceId) -> Option<&InstanceSpec> {
        self.parts.ledger.desired()?.get(id)
    }

    fn prepare(&mut self, id: &InstanceId) {
        let Some(spec) = self.spec(id) else { return };
        let wanted = Wanted {
            digest: spec.digest,
            blob: spec.blob,
            bytes: spec.blob_bytes,
        };
        let ready = self.parts.packages.is_ready(wanted.digest);
        let local = self.local.entry(id.clone()).or_default();
        local.digest = Some(wanted.digest);
        if ready {
            local.package = Package::Ready;
            return;
        }
        local.package = Package::Preparing { trouble: None };
        self.parts.packages.prepare(wanted);
    }

    async fn launch(&mut self, id: &InstanceId, start: u32) -> Result<(), Reason> {
        let node = |error: String| Reason::Node { error };
        let spec = self
            .spec(id)
            .ok_or_else(|| node("it is not in the desired set".to_owned()))?
            .clone();
        // Begun before anything can fail, so that a failure waits its back-off and is a start that ended.
        if let Some(local) = self.local.get_mut(id) {
            local.launching(start);
            local.grace = Some(spec.manifest.module.stop_grace.0);
        }
        if !self.parts.packages.is_ready(spec.digest) {
            if let Some(local) = self.local.get_mut(id) {
                local.package = Package::Unknown;
            }
            return Err(node(
                "its package is gone from this node; it is fetched again".to_owned(),
            ));
        }
        let port = self.port(id)?;
        self.lease(id, start, port).await?;
        let work = self.parts.data.work(id);
        crate::files::make_dir(&work).map_err(|error| node(crate::chain(&error)))?;
        let path = std::env::var("PATH").ok();
        let place = Place {
            start,
            host: self.parts.settings.address,
            port,
            package: &self.parts.packages.path(spec.digest),
            work: &work,
            log: self.parts.log,
            path: path.as_deref(),
        };
        let launch = Launch {
            dir: self.parts.data.start(id, start),
            spec: shim_spec(&spec, &place),
        };
        tracing::info!(instance = %id, start, port, "starting");
        let (runtime, events, id) = (
            self.parts.runtime.clone(),
            self.parts.events.0.clone(),
            id.clone(),
        );
        tokio::spawn(async move {
            let started = tokio::task::spawn_blocking(move || {
                let handle = runtime.start(&launch)?;
                let pid = runtime.stats(&handle).main_pid;
                Ok::<_, crate::runtime::RuntimeError>((handle, pid))
            })
            .await;
            let result = match started {
                Ok(result) => result.map_err(|error| Reason::Node {
                    error: crate::chain(&error),
                }),
                Err(error) => Err(Reason::Node {
                    error: format!("starting broke off: {error}"),
                }),
            };
            // If nobody listens any more, the agent is ending; the next one adopts the start.
            let _ = events.send(Event::Launched { id, start, result }).await;
        });
        Ok(())
    }

    /// The instance's port if it still can be listened on, else another.
    fn port(&mut self, id: &InstanceId) -> Result<u16, Reason> {
        let address = self.parts.settings.address;
        let held = self.local.get(id).and_then(|local| local.port);
        if let Some(port) = held.filter(|port| is_free(address, *port)) {
            return Ok(port);
        }
        let leased = self.parts.ledger.ports(id);
        let ephemeral = ephemeral_range();
        let port = choose(
            self.parts.ports,
            &leased,
            self.last_port,
            ephemeral,
            |port| is_free(address, port),
        )
        .map_err(|error| Reason::Node {
            error: error.to_string(),
        })?;
        self.last_port = Some(port);
        if let Some(local) = self.local.get_mut(id) {
            local.port = Some(port);
        }
        Ok(port)
    }

    /// Writes down what this start was given. Of a first start all is on disk with the desired set.
    async fn lease(&mut self, id: &InstanceId, start: u32, port: u16) -> Result<(), Reason> {
        let known = self.parts.ledger.leases().get(id);
        if start == 1 && known.is_some_and(|lease| lease.port == Some(port)) {
            return Ok(());
        }
        let local = self.local.get(id).cloned().unwrap_or_default();
        let change = |leases: &mut std::collections::BTreeMap<_, crate::ledger::Lease>| {
            let lease = leases.entry(id.clone()).or_default();
            lease.port = Some(port);
            lease.start = lease.start.max(start);
            lease.restarts = local.restarts;
            lease.streak = local.streak;
            lease.ended = local.ended;
        };
        self.parts
            .ledger
            .lease(change)
            .await
            .map_err(|error| Reason::Node {
                error: crate::chain(&error),
            })
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
            if let Err(error) = self.parts.runtime.stop(&running.handle) {
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
        let (runtime, handle, id) = (
            self.parts.runtime.clone(),
            running.handle.clone(),
            id.clone(),
        );
        tokio::task::spawn_blocking(move || {
            if let Err(error) = runtime.kill(&handle) {
                tracing::error!(instance = %id, error = crate::chain(&error), "cannot kill");
            }
        });
    }

    async fn forget(&mut self, id: &InstanceId) {
        self.ship(Command::Drop(id.clone()));
        let folder = self.parts.data.instance(id);
        let removed = tokio::task::spawn_blocking(move || crate::files::remove_dir(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(instance = %id, error = crate::chain(&error), "cannot delete all of it");
        }
        self.parts.ledger.forget(id);
        self.local.remove(id);
        self.parts.board.forget(id);
        tracing::info!(instance = %id, "forgotten");
        let used: BTreeSet<PackageDigest> = self
            .local
            .values()
            .filter_map(|local| local.digest)
            .chain(
                self.parts
                    .ledger
                    .desired()
                    .into_iter()
                    .flatten()
                    .map(|(_, spec)| spec.digest),
            )
            .collect();
        self.parts
            .packages
            .collect(used, self.parts.unused_packages);
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

    /// Watches a start that runs: for its end, and its health.
    pub(super) fn watch(&mut self, id: &InstanceId, handle: Handle) {
        let (events, start) = (self.parts.events.0.clone(), handle.start);
        let (ended, instance) = (self.parts.runtime.ended(&handle), id.clone());
        let waiting = tokio::spawn(async move {
            let end = ended.await;
            // If nobody listens any more, the agent is ending.
            let _ = events
                .send(Event::Ended {
                    id: instance,
                    start,
                    end,
                })
                .await;
        });
        let running = Running {
            handle,
            ended: waiting.abort_handle(),
            health: None,
        };
        self.running.insert(id.clone(), running);
        self.publish_running();
        self.watch_health(id);
    }

    /// Begins the health checks of a start that runs, if it is known what to check.
    pub(super) fn watch_health(&mut self, id: &InstanceId) {
        let Some(spec) = self.spec(id) else { return };
        let (health, protocol) = (spec.manifest.health.clone(), spec.manifest.module.protocol);
        let port = self
            .local
            .get(id)
            .filter(|l| l.up().is_some_and(|up| up.stop.is_none()));
        let Some(port) = port.and_then(|local| local.port) else {
            return;
        };
        let Some(running) = self.running.get_mut(id) else {
            return;
        };
        let watch = health::Watch {
            id: id.clone(),
            handle: running.handle.clone(),
            runtime: self.parts.runtime.clone(),
            check: health.check,
            protocol,
            address: (self.parts.settings.address, port).into(),
            interval: health.interval.0.max(Duration::from_millis(10)),
        };
        let task = tokio::spawn(watch.run(self.parts.events.0.clone()));
        running.health = Some(task.abort_handle());
    }
}
