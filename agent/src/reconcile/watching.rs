//! Watching a start that runs: for its end, its health and its metrics.

use std::net::SocketAddr;
use std::time::Duration;

use berth_agent_plan::Local;
use berth_model::id::InstanceId;
use berth_model::instance::InstanceSpec;
use berth_model::manifest::{HealthCheck, Protocol};

use super::{Event, Reconciler, Running};
use crate::health::{Target, Watch};
use crate::modules::{
    MODULE, MODULE_HOST, TRANSFORM, is_tf_serving, metrics, needs_module_port, tf_serving,
};
use crate::runtime::Handle;

impl Reconciler {
    /// Watches a start that runs.
    pub(super) fn watch(&mut self, id: &InstanceId, handle: Handle) {
        let (events, start) = (self.parts.events.0.clone(), handle.start);
        let (ended, instance) = (self.parts.runtimes.ended(&handle), id.clone());
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
            metrics: None,
        };
        self.running.insert(id.clone(), running);
        self.publish_running();
        self.watch_health(id);
    }

    /// Begins the health checks of a start that runs, if it is known what to check.
    pub(super) fn watch_health(&mut self, id: &InstanceId) {
        // A task is not checked: whether its module is ready is the driver's business.
        let Some(spec) = self.spec(id).filter(|spec| spec.task.is_none()) else {
            return;
        };
        let local = self
            .local
            .get(id)
            .filter(|local| local.up().is_some_and(|up| up.stop.is_none()));
        let Some(targets) = local.and_then(|local| self.targets(spec, local)) else {
            return;
        };
        let interval = spec.manifest.health.interval.0;
        let scraped = is_tf_serving(spec)
            .then(|| targets.first().map(|module| module.address))
            .flatten();
        let Some(running) = self.running.get_mut(id) else {
            return;
        };
        let Ok(runtime) = self.parts.runtimes.get(running.handle.runtime) else {
            return;
        };
        let watch = Watch {
            id: id.clone(),
            handle: running.handle.clone(),
            runtime: runtime.clone(),
            targets,
            interval: interval.max(Duration::from_millis(10)),
        };
        let task = tokio::spawn(watch.run(self.parts.events.0.clone()));
        running.health = Some(task.abort_handle());
        if let Some(address) = scraped {
            let board = self.parts.board.clone();
            let task = tokio::spawn(metrics::scrape(address, id.clone(), board));
            running.metrics = Some(task.abort_handle());
        }
    }

    /// What shows that an instance is well: its module, then its transform if it has one.
    fn targets(&self, spec: &InstanceSpec, local: &Local) -> Option<Vec<Target>> {
        let front = SocketAddr::new(
            local.host.unwrap_or(self.parts.settings.address),
            local.port?,
        );
        let transformed = needs_module_port(spec);
        let module = match transformed {
            true => SocketAddr::new(MODULE_HOST, local.module_port?),
            false => front,
        };
        let mut targets = vec![Target {
            process: MODULE,
            address: module,
            protocol: spec.manifest.module.protocol,
            model_status: is_tf_serving(spec).then(|| tf_serving::status_path(spec)),
            check: spec.manifest.health.check.clone(),
        }];
        if transformed {
            targets.push(Target {
                process: TRANSFORM,
                address: front,
                protocol: Protocol::default(),
                model_status: None,
                check: HealthCheck::Tcp,
            });
        }
        Some(targets)
    }
}
