//! After a restart of the agent: what became of what the last one started.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_agent_plan::{End, Local, Run};
use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use berth_model::time::Monotonic;
use berth_shim::spec::{ProcessSpec, Spec};
use berth_shim::state::State;

use super::hear::{HEALTHY_FILE, tail_of};
use super::{Reconciler, task};
use crate::clock;
use crate::logs::{Command, Key};
use crate::modules::{MODULE, TRANSFORM};
use crate::runtime::{Adopted, RuntimeError};

impl Reconciler {
    pub(super) async fn adopt_all(&mut self) {
        let mut ids: BTreeSet<InstanceId> = self.parts.ledger.leases().keys().cloned().collect();
        ids.extend(
            self.parts
                .ledger
                .desired()
                .into_iter()
                .flatten()
                .map(|(id, _)| id.clone()),
        );
        match self.parts.data.instance_ids() {
            Ok(found) => ids.extend(found),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "cannot list the instances")
            }
        }
        for id in ids {
            self.adopt_one(&id).await;
        }
    }

    async fn adopt_one(&mut self, id: &InstanceId) {
        let lease = self
            .parts
            .ledger
            .leases()
            .get(id)
            .cloned()
            .unwrap_or_default();
        let spec = self.parts.ledger.desired().and_then(|set| set.get(id));
        let local = Local {
            digest: spec.map(|spec| spec.digest),
            port: lease.port,
            module_port: lease.module_port,
            start: lease.start,
            restarts: lease.restarts,
            streak: lease.streak,
            ended: lease.ended.clone(),
            task: task::known(spec, &lease),
            ..Local::default()
        };
        self.local.insert(id.clone(), local);
        let starts = match self.parts.data.starts(id) {
            Ok(starts) => starts,
            Err(error) => {
                return self.leave_alone(id, lease.start, &crate::chain(&error));
            }
        };
        for start in &starts {
            // Only the newest can run; earlier ones wait for their logs to be shipped.
            self.adopt_start(id, *start).await;
        }
        self.adopt_task(id, lease.task);
        if let Some(newest) = starts.last() {
            self.ship(Command::Supersede(Key {
                id: id.clone(),
                start: *newest,
            }));
        }
    }

    async fn adopt_start(&mut self, id: &InstanceId, start: u32) {
        let dir = self.parts.data.start(id, start);
        let (runtimes, folder) = (self.parts.runtimes.clone(), dir.clone());
        let adopted = tokio::task::spawn_blocking(move || {
            let adopted = runtimes.adopt(&folder)?;
            let pid = match &adopted {
                Adopted::Running(handle) => runtimes.stats(handle).main_pid,
                _ => None,
            };
            Ok::<_, RuntimeError>((adopted, pid))
        });
        let (adopted, pid) = match adopted.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return self.leave_alone(id, start, &crate::chain(&error)),
            Err(error) => return self.leave_alone(id, start, &error.to_string()),
        };
        let now = clock::now();
        let meaning = match &adopted {
            Adopted::Ended(end) | Adopted::Lost(end) => self.end_of(id, &dir, end),
            // Of no account: it has not ended.
            Adopted::Running(_) | Adopted::Nothing => End::Rebooted,
        };
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        local.start = local.start.max(start);
        if let Ok(spec) = Spec::load(&dir) {
            local.grace = Some(std::time::Duration::from_millis(spec.stop_grace_ms));
            local.host = told_host(&spec).filter(|_| self.parts.inside.is_none());
            let (port, module_port) = told_ports(&spec);
            local.port = local.port.or(port);
            local.module_port = local.module_port.or(module_port);
        }
        let ended = !matches!(adopted, Adopted::Running(_));
        let boot_id = match &adopted {
            Adopted::Running(handle) => handle.boot_id.clone(),
            // Without a state there was no boot id, nor a line.
            _ => {
                State::load(&dir).map_or_else(|_| self.parts.boot_id.clone(), |state| state.boot_id)
            }
        };
        match adopted {
            Adopted::Running(handle) => {
                tracing::info!(instance = %id, start, "adopted");
                local.launched(pid, dir.join(HEALTHY_FILE).exists(), now);
                self.watch(id, handle);
            }
            Adopted::Ended(end) | Adopted::Lost(end) => {
                local.launched(None, false, now);
                local.last_lines = tail_of(&dir, &end);
                local.end(id, meaning, now, &self.parts.settings);
                let reason = local
                    .ended
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                tracing::info!(instance = %id, start, reason, "ended while no agent was there");
            }
            Adopted::Nothing => {
                if local.task.is_some() {
                    // Called off before anything ran: it is yet to be started.
                    local.start = start.saturating_sub(1);
                }
                if let Err(error) = crate::files::remove_dir(&dir) {
                    tracing::warn!(
                        error = crate::chain(&error),
                        "cannot delete a start that never was"
                    );
                }
                return;
            }
        }
        let key = Key {
            id: id.clone(),
            start,
        };
        self.ship(Command::Follow {
            key,
            dir,
            boot_id,
            ended,
        });
    }

    /// It may run or not, and this agent cannot tell: nothing is started in its place.
    fn leave_alone(&mut self, id: &InstanceId, start: u32, problem: &str) {
        tracing::error!(instance = %id, start, problem, "cannot tell whether it runs; it is left alone");
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        local.start = local.start.max(start);
        local.ended = Some(Reason::Node {
            error: format!(
                "cannot tell whether start {start} runs ({problem}); upgrade the agent, or stop it by hand and restart the agent"
            ),
        });
        local.run = Run::Down {
            not_before: Some(Monotonic(u64::MAX)),
            by_itself: false,
        };
    }
}

/// Where its front process was told to listen.
fn told_host(spec: &Spec) -> Option<IpAddr> {
    let front = |process: &&ProcessSpec| process.name == TRANSFORM;
    let process = spec
        .processes
        .iter()
        .find(front)
        .or(spec.processes.first())?;
    process.env.get("HOST")?.parse().ok()
}

/// The instance's and its module's port, as its processes were told them.
fn told_ports(spec: &Spec) -> (Option<u16>, Option<u16>) {
    let told = |process: &ProcessSpec| process.env.get("PORT")?.parse().ok();
    let named = |name| spec.processes.iter().find(|process| process.name == name);
    match named(TRANSFORM) {
        Some(transform) => (told(transform), named(MODULE).and_then(told)),
        None => (spec.processes.first().and_then(told), None),
    }
}
