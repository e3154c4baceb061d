//! From news to what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use berth_agent_plan::{Check, End, Local, Package, Run, refusal};
use berth_model::digest::PackageDigest;
use berth_model::id::InstanceId;
use berth_model::instance::{InstanceSpec, Intent, Reason};
use berth_model::route::Order;
use berth_shim::state::LOGS_DIR;

use super::ports::Chooser;
use super::{Event, Reconciler, task};
use crate::clock;
use crate::ledger::Refused;
use crate::logs::{Command, Key, last_lines};
use crate::modules::tf_serving::words;
use crate::modules::{is_tf_serving, needs_module_port};
use crate::packages::PackageNews;
use crate::runtime::{EndReason, EndState, Handle};

/// How many of the last lines are reported.
const LAST_LINES: usize = 10;

/// File in a start folder that says: it was healthy when last seen. An agent that adopts it goes on
/// reporting so, until a check fails.
pub(super) const HEALTHY_FILE: &str = "healthy";

impl Reconciler {
    pub(super) async fn hear(&mut self, event: Event) {
        match event {
            Event::Desired {
                order,
                specs,
                reply,
            } => {
                let taken = self.desired(order, specs).await;
                // If the session has ended, the next hello tells what was accepted.
                let _ = reply.send(taken);
            }
            Event::Package { digest, news } => self.package(digest, &news),
            Event::Task { id, news } => self.task(&id, news).await,
            Event::Equipped { id, result } => self.equipped(&id, result),
            Event::Launched { id, start, result } => self.launched(&id, start, result),
            Event::Ended { id, start, end } => self.ended(&id, start, &end),
            Event::Check { id, start, check } => self.checked(&id, start, check),
            Event::LogsShipped { id } => {
                if let Some(local) = self.local.get_mut(&id)
                    && matches!(local.run, Run::Down { .. })
                {
                    local.logs_shipped = true;
                }
            }
            Event::Refused { code, message } => self.refused(&code, message),
            Event::Alive { reply } => {
                // Whoever asked may have given up.
                let _ = reply.send(());
            }
            // The next step publishes anew.
            Event::Relay => {}
            Event::End => self.end_all(),
        }
    }

    async fn desired(&mut self, order: Order, specs: Vec<InstanceSpec>) -> Result<(), Refused> {
        let specs = self.own(specs);
        let (range, address) = (self.parts.ports, self.host());
        let (local, last_port) = (&self.local, &mut self.last_port);
        // Ports are given out with the same write, so that a start needs none of its own.
        let ports = |ledger: &crate::ledger::Ledger,
                     desired: &BTreeMap<InstanceId, InstanceSpec>| {
            let mut given = BTreeMap::new();
            let mut taken = BTreeSet::new();
            for (id, spec) in desired {
                let has = ledger
                    .leases()
                    .get(id)
                    .is_some_and(|lease| lease.port.is_some());
                let known = local.get(id).is_some_and(|local| local.port.is_some());
                if has || known || spec.intent != Intent::Run || refusal(spec).is_some() {
                    continue;
                }
                let mut leased = ledger.ports(id);
                leased.extend(&taken);
                let mut chooser = Chooser {
                    range,
                    address,
                    leased,
                    last: last_port,
                };
                match chooser.choose(needs_module_port(spec), None, None) {
                    Ok(ports) => {
                        taken.extend([Some(ports.port), ports.module].into_iter().flatten());
                        given.insert(id.clone(), ports);
                    }
                    Err(error) => tracing::error!(%error, "cannot give out a port"),
                }
            }
            given
        };
        let taken = self.parts.ledger.accept(order, specs, ports).await;
        if let Err(Refused::Disk(error)) = &taken
            && error.is_full()
        {
            self.parts.disk.refused(&error.path);
        }
        let new = taken?;
        self.parts.board.accepted(order);
        if new {
            tracing::info!(%order, "accepted a desired set");
        }
        for (id, spec) in self.parts.ledger.desired().into_iter().flatten() {
            let local = self.local.entry(id.clone()).or_default();
            local.digest = Some(spec.digest);
            task::tell(local, spec);
            let lease = self.parts.ledger.leases().get(id);
            local.port = local.port.or_else(|| lease.and_then(|lease| lease.port));
            let module_port = lease.and_then(|lease| lease.module_port);
            local.module_port = local.module_port.or(module_port);
        }
        self.keep_packages();
        // What was adopted before its specification was known is watched from now on.
        let unwatched: Vec<InstanceId> = self
            .running
            .iter()
            .filter(|(_, running)| running.health.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in unwatched {
            self.watch_health(&id);
        }
        Ok(())
    }

    fn package(&mut self, digest: PackageDigest, news: &PackageNews) {
        self.parts.packages.done(digest, news);
        let mut here = Vec::new();
        let waiting = self
            .local
            .iter_mut()
            .filter(|(_, local)| local.digest == Some(digest));
        for (id, local) in waiting {
            if !matches!(local.package, Package::Preparing { .. }) {
                continue;
            }
            if let PackageNews::Failed { reason, .. } = news
                && task::without_package(local, reason.clone())
            {
                continue;
            }
            local.package = match news {
                PackageNews::Ready => {
                    here.push(id.clone());
                    continue;
                }
                PackageNews::Trouble(reason) => Package::Preparing {
                    trouble: Some(reason.clone()),
                },
                PackageNews::Failed { reason, retry, .. } => Package::Failed {
                    reason: reason.clone(),
                    retry: clock::now().after(*retry),
                },
            };
        }
        for id in here {
            self.equip(&id);
        }
    }

    fn launched(
        &mut self,
        id: &InstanceId,
        start: u32,
        result: Result<(Handle, Option<u32>), Reason>,
    ) {
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        if local.start != start || local.run != Run::Launching {
            return;
        }
        match result {
            Ok((handle, pid)) => {
                local.launched(pid, false, clock::now());
                self.ship(Command::Follow {
                    key: Key {
                        id: id.clone(),
                        start,
                    },
                    dir: handle.dir.clone(),
                    boot_id: handle.boot_id.clone(),
                    ended: false,
                });
                self.progress(|progress| progress.dir = Some(handle.dir.clone()));
                self.ship(Command::Supersede(Key {
                    id: id.clone(),
                    start,
                }));
                self.watch(id, handle);
            }
            Err(reason) => {
                tracing::warn!(instance = %id, start, %reason, "cannot start");
                if matches!(reason, Reason::Image { .. }) {
                    local.package = Package::Unknown;
                }
                local.launch_failed(id, reason, clock::now(), &self.parts.settings);
            }
        }
    }

    fn ended(&mut self, id: &InstanceId, start: u32, end: &EndState) {
        if !self.running_start(id, start) {
            return;
        }
        let Some(running) = self.running.remove(id) else {
            return;
        };
        self.publish_running();
        self.ship(Command::Ended(Key {
            id: id.clone(),
            start,
        }));
        self.progress(|progress| progress.end = Some(end.clone()));
        let lines = tail(&running.handle, end);
        let meaning = self.end_of(id, &running.handle.dir, end);
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        local.last_lines = lines;
        local.end(id, meaning, clock::now(), &self.parts.settings);
        let reason = local
            .ended
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::info!(instance = %id, start, reason, "ended");
    }

    /// What an end means for what comes next, in the words of the model server if it said why.
    pub(super) fn end_of(&self, id: &InstanceId, dir: &Path, end: &EndState) -> End {
        match end_of(end) {
            End::ByItself(reason) if self.spec(id).is_some_and(is_tf_serving) => {
                End::ByItself(words::of_end(reason, dir))
            }
            other => other,
        }
    }

    fn checked(&mut self, id: &InstanceId, start: u32, check: Check) {
        if !self.running_start(id, start) {
            return;
        }
        let after = self
            .parts
            .ledger
            .desired()
            .and_then(|set| set.get(id))
            .map_or(u32::MAX, |spec| spec.manifest.health.unhealthy_after.max(1));
        let Some(running) = self.running.get(id) else {
            return;
        };
        let Some(local) = self.local.get_mut(id) else {
            return;
        };
        let healthy = |local: &Local| {
            local
                .up()
                .is_some_and(|up| up.passing.is_some() && up.failures < after)
        };
        let before = healthy(local);
        local.checked(check, after, clock::now());
        let marker = running.handle.dir.join(HEALTHY_FILE);
        // The marker is a hint for the next agent: losing it costs a moment in which the instance is
        // reported as starting.
        match (before, healthy(local)) {
            (false, true) => {
                tracing::info!(instance = %id, start, "healthy");
                let _ = crate::files::touch(&marker);
            }
            (true, false) => {
                tracing::warn!(instance = %id, start, "unhealthy");
                let _ = std::fs::remove_file(marker);
                local.last_lines = last_lines(&running.handle.dir.join(LOGS_DIR), LAST_LINES);
            }
            _ => {}
        }
    }
}

/// The last lines of a start that ended.
pub(super) fn tail(handle: &Handle, end: &EndState) -> Vec<String> {
    tail_of(&handle.dir, end)
}

/// The last lines in a start folder; if the log has none, what its state says.
pub(super) fn tail_of(dir: &Path, end: &EndState) -> Vec<String> {
    let lines = last_lines(&dir.join(LOGS_DIR), LAST_LINES);
    if !lines.is_empty() {
        return lines;
    }
    let text = end.stderr_tail.as_deref().unwrap_or_default();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

/// What an end means for what comes next.
fn end_of(end: &EndState) -> End {
    match &end.reason {
        EndReason::NodeRestarted => End::Rebooted,
        reason @ (EndReason::Stopped | EndReason::KilledAfterGrace) => End::Stopped(reason.into()),
        reason @ (EndReason::Process(_)
        | EndReason::OutOfMemory { .. }
        | EndReason::Outside { .. }
        | EndReason::SupervisorLost) => End::ByItself(reason.into()),
    }
}
