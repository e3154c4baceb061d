//! A simulated node: obeys desired sets as the real agent does, and remembers what it was made to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::digest::BlobDigest;
use berth_model::id::{InstanceId, NodeName};
use berth_model::instance::{InstanceSpec, InstanceStatus, Intent, Phase, Reason};
use berth_model::job::TaskOutput;
use berth_model::route::Order;
use tokio::sync::{mpsc, watch};

use crate::control::testing::{facts, status};
use crate::control::{AgentOpened, Command, ConnectionId, Handle, ToAgent};

/// Time from a desired set to a healthy instance, and from a stop order to its end.
const WORK: Duration = Duration::from_millis(50);

/// What is on the machine; survives the agent's and the coordinator's restarts.
#[derive(Default, Debug)]
pub(crate) struct Machine {
    pub(crate) accepted: Option<Order>,
    pub(crate) instances: BTreeMap<InstanceId, InstanceStatus>,
    /// Every identity that was ever started here.
    pub(crate) started: BTreeSet<InstanceId>,
    /// Everything that must not happen.
    pub(crate) violations: Vec<String>,
    /// Instances of models of this version never get healthy.
    pub(crate) broken_version: Option<semver::Version>,
    port: u16,
}

impl Machine {
    pub(crate) fn running(&self) -> impl Iterator<Item = &InstanceStatus> {
        let live = |s: &&InstanceStatus| {
            matches!(s.phase, Phase::Starting | Phase::Healthy | Phase::Stopping)
        };
        self.instances.values().filter(live)
    }
}

/// A simulated node.
#[derive(Clone)]
pub(crate) struct SimAgent {
    pub(crate) name: NodeName,
    pub(crate) machine: Arc<Mutex<Machine>>,
    pub(crate) exclusive: bool,
    /// The coordinator as the network lets it be seen; none: not at all.
    pub(crate) network: watch::Receiver<Option<Handle>>,
    pub(crate) incarnation: String,
}

impl SimAgent {
    /// Connects, obeys, connects again.
    pub(crate) async fn run(mut self) {
        loop {
            let handle = self.network.borrow_and_update().clone();
            let Some(handle) = handle else {
                if self.network.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let mut network = self.network.clone();
            tokio::select! {
                () = self.session(&handle) => tokio::time::sleep(Duration::from_millis(20)).await,
                gone = network.changed() => if gone.is_err() { return },
            }
        }
    }

    async fn session(&self, handle: &Handle) {
        let (outbox, mut inbox) = mpsc::channel(16);
        let (accepted, instances) = {
            let machine = self.machine.lock().unwrap();
            let all = machine.instances.values().cloned().collect();
            (machine.accepted, all)
        };
        let opened = AgentOpened {
            agent: self.name.clone().into(),
            incarnation: self.incarnation.clone(),
            facts: facts(self.exclusive),
            accepted,
            instances,
            outbox,
        };
        let answer = handle.ask(|reply| Command::AgentOpened(Box::new(opened), reply));
        let Ok(connection) = answer.await else {
            return;
        };
        let guard = Closer(handle.clone(), connection);
        loop {
            let message = tokio::select! {
                message = inbox.recv() => message,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    handle.tell(Command::AgentHeard(connection)).await;
                    continue;
                }
            };
            match message {
                None | Some(ToAgent::Refuse(..)) => break,
                Some(ToAgent::Callers(_)) => {}
                Some(ToAgent::Ping(_)) => handle.tell(Command::AgentHeard(connection)).await,
                Some(ToAgent::Desired { order, instances }) => {
                    if self
                        .obey(handle, connection, order, instances)
                        .await
                        .is_none()
                    {
                        break;
                    }
                }
            }
        }
        drop(guard);
    }

    async fn obey(
        &self,
        handle: &Handle,
        connection: ConnectionId,
        order: Order,
        set: Vec<InstanceSpec>,
    ) -> Option<()> {
        {
            let mut machine = self.machine.lock().unwrap();
            if machine.accepted.is_some_and(|last| order < last) {
                let text = format!("an older set {order} came after {:?}", machine.accepted);
                machine.violations.push(text);
            }
            machine.accepted = Some(order);
        }
        handle
            .tell(Command::AgentAcknowledged(connection, order, None))
            .await;
        let forgotten = self.drop_absent(&set);
        self.report(handle, connection, Vec::new(), forgotten)
            .await?;
        let (begun, ending) = self.begin(&set);
        self.report(handle, connection, begun, Vec::new()).await?;
        tokio::time::sleep(WORK).await;
        let done = self.finish(&set, &ending);
        self.report(handle, connection, done, Vec::new()).await
    }

    /// What is not in the set any more goes; it must have stopped before.
    fn drop_absent(&self, set: &[InstanceSpec]) -> Vec<InstanceId> {
        let wanted: BTreeSet<&InstanceId> = set.iter().map(|s| &s.id).collect();
        let mut machine = self.machine.lock().unwrap();
        let gone: Vec<InstanceId> = machine
            .instances
            .keys()
            .filter(|id| !wanted.contains(id))
            .cloned()
            .collect();
        for id in &gone {
            let old = machine.instances.remove(id);
            if let Some(old) = old.filter(|s| s.phase == Phase::Healthy) {
                let text = format!("{} was dropped while it ran", old.id);
                machine.violations.push(text);
            }
        }
        gone
    }

    fn begin(&self, set: &[InstanceSpec]) -> (Vec<InstanceStatus>, Vec<InstanceId>) {
        let mut machine = self.machine.lock().unwrap();
        let (mut begun, mut ending) = (Vec::new(), Vec::new());
        for spec in set {
            let known = machine.instances.get(&spec.id).cloned();
            match (spec.intent, known) {
                (Intent::Run, None) => {
                    if !machine.started.insert(spec.id.clone()) {
                        let text = format!("{} was started twice", spec.id);
                        machine.violations.push(text);
                    }
                    machine.port += 1;
                    let address = SocketAddr::from(([127, 0, 0, 1], 21_000 + machine.port));
                    let status = InstanceStatus {
                        address: Some(address),
                        digest: Some(spec.digest),
                        ..status(&spec.id.to_string(), Phase::Starting)
                    };
                    machine.instances.insert(spec.id.clone(), status.clone());
                    begun.push(status);
                }
                (Intent::Stop, None) => {
                    let status = status(&spec.id.to_string(), Phase::Stopped);
                    machine.instances.insert(spec.id.clone(), status.clone());
                    begun.push(status);
                }
                (Intent::Stop, Some(mut status)) if status.phase != Phase::Stopped => {
                    status.phase = Phase::Stopping;
                    machine.instances.insert(spec.id.clone(), status.clone());
                    begun.push(status);
                    ending.push(spec.id.clone());
                }
                _ => {}
            }
        }
        if self.exclusive && machine.running().count() > 1 {
            let ids: Vec<String> = machine.running().map(|s| s.id.to_string()).collect();
            machine
                .violations
                .push(format!("{ids:?} run together on an exclusive node"));
        }
        (begun, ending)
    }

    fn finish(&self, set: &[InstanceSpec], ending: &[InstanceId]) -> Vec<InstanceStatus> {
        let mut machine = self.machine.lock().unwrap();
        let broken = machine.broken_version.clone();
        let mut done = Vec::new();
        for spec in set {
            let Some(status) = machine.instances.get_mut(&spec.id) else {
                continue;
            };
            if spec.task.is_some() && status.phase == Phase::Starting {
                work_off(status);
                done.push(status.clone());
                continue;
            }
            let next = match status.phase {
                Phase::Starting if broken.as_ref() != Some(&spec.version) => Phase::Healthy,
                Phase::Stopping if ending.contains(&spec.id) => Phase::Stopped,
                _ => continue,
            };
            status.phase = next;
            done.push(status.clone());
        }
        done
    }

    async fn report(
        &self,
        handle: &Handle,
        connection: ConnectionId,
        statuses: Vec<InstanceStatus>,
        forgotten: Vec<InstanceId>,
    ) -> Option<()> {
        if statuses.is_empty() && forgotten.is_empty() {
            return Some(());
        }
        let answer =
            handle.ask(|reply| Command::AgentStatus(connection, statuses, forgotten, reply));
        answer.await.ok()
    }
}

/// A task's end: the first attempt of every odd index fails, everything else brings its output.
fn work_off(status: &mut InstanceStatus) {
    let id = &status.id;
    let index = u8::try_from(id.slot.ordinal).unwrap();
    status.phase = Phase::Stopped;
    if index % 2 == 1 && id.attempt == 1 {
        let process = "task".to_owned();
        status.reason = Some(Reason::Exited { process, code: 3 });
        return;
    }
    status.reason = Some(Reason::Completed);
    status.output = Some(TaskOutput {
        blob: BlobDigest::from_bytes([index; 32]),
        bytes: 1,
        folder: false,
    });
}

/// Says that a session is over, however it ended.
struct Closer(Handle, ConnectionId);

impl Drop for Closer {
    fn drop(&mut self) {
        let (handle, connection) = (self.0.clone(), self.1);
        tokio::spawn(async move { handle.tell(Command::AgentClosed(connection)).await });
    }
}
