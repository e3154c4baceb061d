//! The planner that remembers: it is told what changes, and looks only at what that can mean.
//!
//! A service or a job is planned anew when something of it has changed, when its last plan did something, when
//! its time has come, or when it found no place and some place is another one now. Of all others the last
//! outcome holds. So a plan costs what has changed, not what there is; and it is the same as one made from
//! nothing, which the tests compare at every step.

use std::collections::{BTreeMap, BTreeSet};

use berth_model::id::{ClusterName, GatewayName, InstanceId, JobName, NodeName, ServiceName, Slot};
use berth_model::service::ServiceRecord;
use berth_model::time::Monotonic;

use crate::input::MAX_SPREAD;
use crate::state::State;
use crate::view::View;
use crate::{
    ClusterSeen, Desired, GatewaySeen, InstanceSeen, JobWanted, Needs, NodeSeen, Observed, Plan,
    Rejection, Settings, WaitReason, clusters, fill, jobs, nodes, rollout, stopping, vacate,
};

/// One thing that is wanted or seen otherwise than before; none: not any more.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A service.
    Service(ServiceName, Option<ServiceRecord>),
    /// What an instance of a revision, or a task of a job of that name, needs.
    Needs((ServiceName, u32), Option<Needs>),
    /// A job.
    Job(JobName, Option<JobWanted>),
    /// A node.
    Node(NodeName, Option<NodeSeen>),
    /// A cluster.
    Cluster(ClusterName, Option<ClusterSeen>),
    /// An instance.
    Instance(InstanceId, Option<InstanceSeen>),
    /// The highest attempt of a slot.
    Attempt(Slot, Option<u32>),
    /// A gateway.
    Gateway(GatewayName, Option<GatewaySeen>),
    /// When this coordinator began to listen.
    Started(Monotonic),
    /// Whether it only looks.
    Settling(bool),
    /// Deadlines and limits.
    Settings(Settings),
}

/// What the last plan of a service or job said.
#[derive(Debug, Clone, Default)]
struct Memo {
    waits: Vec<WaitReason>,
    /// It found no place for something; what the machines' version was.
    hungry: Option<u64>,
}

/// What is wanted, what is seen, and what follows from both.
#[derive(Debug, Clone, Default)]
pub struct Planner {
    desired: Desired,
    observed: Observed,
    state: State,
    /// Nothing for those that have nothing to say.
    memos: BTreeMap<ServiceName, Memo>,
    hungry: BTreeSet<ServiceName>,
    /// Deadlines of the jobs that run.
    dues: BTreeSet<(Monotonic, JobName)>,
}

impl Planner {
    /// One that is told everything at once.
    pub fn of(desired: &Desired, observed: &Observed) -> Self {
        let mut planner = Self::default();
        planner.update(desired, observed);
        planner
    }

    /// Takes all that is wanted and seen, and finds out itself what has changed. It looks at everything:
    /// [`Planner::observe`] is for those who know.
    pub fn update(&mut self, desired: &Desired, observed: &Observed) {
        let mut changes = Vec::new();
        let out = &mut changes;
        differences(
            out,
            &self.desired.services,
            &desired.services,
            Change::Service,
        );
        differences(out, &self.desired.needs, &desired.needs, Change::Needs);
        differences(out, &self.desired.jobs, &desired.jobs, Change::Job);
        let (old, new) = (&self.observed, observed);
        differences(out, &old.nodes, &new.nodes, Change::Node);
        differences(out, &old.clusters, &new.clusters, Change::Cluster);
        differences(out, &old.instances, &new.instances, Change::Instance);
        differences(out, &old.attempts, &new.attempts, Change::Attempt);
        differences(out, &old.gateways, &new.gateways, Change::Gateway);
        changes.push(Change::Started(new.started));
        changes.push(Change::Settling(new.settling));
        changes.push(Change::Settings(new.settings.clone()));
        for change in changes {
            self.observe(change);
        }
    }

    /// Takes one change. What is the same as before costs next to nothing.
    pub fn observe(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => {
                if put(&mut self.desired.services, &name, service) {
                    self.state.dirty.insert(name);
                }
            }
            Change::Needs(key, needs) => self.needs(key, needs),
            Change::Job(name, job) => self.job(&name, job),
            Change::Node(name, node) => self.node(&name, node),
            Change::Cluster(name, cluster) => self.cluster(&name, cluster),
            Change::Instance(id, seen) => {
                if put(&mut self.observed.instances, &id, seen) {
                    self.state.dirty.insert(id.slot.service.clone());
                    self.state.touched.insert(id);
                }
            }
            Change::Attempt(slot, attempt) => {
                put(&mut self.observed.attempts, &slot, attempt);
            }
            Change::Gateway(name, gateway) => {
                put(&mut self.observed.gateways, &name, gateway);
            }
            Change::Started(started) => self.observed.started = started,
            Change::Settling(settling) => self.observed.settling = settling,
            Change::Settings(settings) => self.observed.settings = settings,
        }
    }

    fn needs(&mut self, key: (ServiceName, u32), needs: Option<Needs>) {
        let needs = needs.map(|mut needs| {
            needs.spread.truncate(MAX_SPREAD);
            needs
        });
        if let Some(needs) = &needs {
            self.state.machines.ask(needs);
        }
        let before = self.desired.needs.get(&key).map(|n| n.spread.clone());
        if put(&mut self.desired.needs, &key, needs) {
            let now = self.desired.needs.get(&key).map(|n| &n.spread);
            if before.is_some() && before.as_ref() != now {
                let wanted = self.desired.needs.values().map(|n| &n.spread);
                self.state.machines.keep_layouts(&wanted.collect());
            }
            self.state.dirty.insert(key.0);
        }
    }

    fn job(&mut self, name: &JobName, job: Option<JobWanted>) {
        let due = |job: &JobWanted| job.due.filter(|_| !job.over && !job.deleting);
        if let Some(at) = self.desired.jobs.get(name).and_then(due) {
            self.dues.remove(&(at, name.clone()));
        }
        if put(&mut self.desired.jobs, name, job) {
            self.state.dirty.insert(name.into());
        }
        if let Some(at) = self.desired.jobs.get(name).and_then(due) {
            self.dues.insert((at, name.clone()));
        }
    }

    fn node(&mut self, name: &NodeName, node: Option<NodeSeen>) {
        let old = self.observed.nodes.get(name);
        if old == node.as_ref() {
            return;
        }
        let only_packages = old.zip(node.as_ref()).is_some_and(|(old, new)| {
            let packages = std::sync::Arc::clone(&new.packages);
            let old = NodeSeen {
                packages,
                ..old.clone()
            };
            old == *new
        });
        put(&mut self.observed.nodes, name, node);
        self.state.touched_nodes.insert(name.clone());
        if !only_packages {
            let here = self.state.on_node.get(name).into_iter().flatten();
            let services = here.map(|id| id.slot.service.clone());
            self.state.dirty.extend(services);
        }
    }

    fn cluster(&mut self, name: &ClusterName, cluster: Option<ClusterSeen>) {
        if put(&mut self.observed.clusters, name, cluster) {
            self.state.machines.touch();
            let here = self.state.in_clusters.iter();
            let services = here.map(|id| id.slot.service.clone());
            self.state.dirty.extend(services);
        }
    }

    /// Why each node that cannot take an instance of a service's revision, or a task of a job of that name,
    /// cannot: of nodes only, and as of the last plan.
    pub fn explain(&self, service: &ServiceName, revision: u32) -> BTreeMap<NodeName, Rejection> {
        let needs = self.desired.needs.get(&(service.clone(), revision));
        needs.map_or_else(BTreeMap::new, |needs| self.state.machines.explain(needs))
    }

    /// The revisions of a service, or the job of that name, whose needs are known.
    pub fn revisions(&self, service: &ServiceName) -> impl Iterator<Item = u32> {
        let first = (service.clone(), 0);
        let last = (service.clone(), u32::MAX);
        self.desired.needs.range(first..=last).map(|(key, _)| key.1)
    }

    /// The gateways that are known.
    pub fn gateways(&self) -> impl Iterator<Item = &GatewayName> {
        self.observed.gateways.keys()
    }

    /// The nodes that are drained, as of the last plan.
    pub fn draining(&self) -> impl Iterator<Item = &NodeName> {
        self.state.draining.iter()
    }

    /// The instances past the stage running, as of the last plan.
    pub fn leaving(&self) -> impl Iterator<Item = &InstanceId> {
        self.state.leaving.iter()
    }

    /// The instances in clusters, as of the last plan.
    pub fn in_clusters(&self) -> impl Iterator<Item = &InstanceId> {
        self.state.in_clusters.iter()
    }

    /// What to do now so that what is seen becomes what is wanted. `now` is on the same clock as the times
    /// that were told. The actions count as done only when they are told as changes.
    pub fn plan(&mut self, now: Monotonic) -> Plan {
        self.catch_up();
        let due: Vec<JobName> = self
            .dues
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, job)| job.clone())
            .collect();
        self.state.dirty.extend(due.iter().map(ServiceName::from));
        let mut units = Units {
            memos: &mut self.memos,
            hungry: &mut self.hungry,
        };
        let mut view = View::new(&self.desired, &self.observed, &mut self.state, now);
        if view.observed.settling {
            settle(&mut view);
            return view.plan;
        }
        nodes::plan(&mut view);
        clusters::plan(&mut view);
        stopping::plan(&mut view);
        let names: BTreeSet<ServiceName> = std::mem::take(&mut view.state.dirty);
        units.services(&mut view, &names);
        let drains = vacate::plan(&mut view);
        units.jobs(&mut view, &names);
        fill::drain_unwanted(&mut view, &names);
        units.say(&mut view);
        view.plan.waiting.extend(drains);
        if let Some((at, _)) = self.dues.iter().find(|(at, _)| *at > now) {
            view.wake(*at);
        }
        view.plan
    }

    /// Makes everything that may differ from what is seen agree with it.
    fn catch_up(&mut self) {
        let state = &mut self.state;
        state.remember();
        for name in std::mem::take(&mut state.touched_nodes) {
            state.refresh_node(&name, self.observed.nodes.get(&name));
        }
        // A node may be the first with a label that something is spread over; there are few such labels.
        while state.machines.resort() {
            for (name, seen) in &self.observed.nodes {
                state.refresh_node(name, Some(seen));
            }
        }
        let mut rooms = BTreeSet::new();
        for id in std::mem::take(&mut state.touched) {
            state.refresh_instance(&id, self.observed.instances.get(&id), &mut rooms);
        }
        for node in rooms {
            state.machines.index(&node);
        }
    }
}

/// Services and jobs, one by one.
struct Units<'a> {
    memos: &'a mut BTreeMap<ServiceName, Memo>,
    hungry: &'a mut BTreeSet<ServiceName>,
}

impl Units<'_> {
    fn services(&mut self, view: &mut View<'_>, names: &BTreeSet<ServiceName>) {
        let desired = view.desired;
        for name in self.candidates(names) {
            match desired.services.get(&name) {
                Some(service) => self.one(view, &name, names.contains(&name), |view| {
                    let targets = rollout::targets(view, service);
                    fill::plan(view, service, &targets);
                }),
                None if desired.jobs.contains_key(name.as_str()) => {}
                None => self.note(&name, Memo::default()),
            }
        }
    }

    /// The older ones first.
    fn jobs(&mut self, view: &mut View<'_>, names: &BTreeSet<ServiceName>) {
        let desired = view.desired;
        let names = self.candidates(names).into_iter().map(|name| {
            let dirty = names.contains(&name);
            (name, dirty)
        });
        let mut jobs: Vec<_> = names
            .filter_map(|(name, dirty)| {
                let (job, wanted) = desired.jobs.get_key_value(name.as_str())?;
                Some((wanted.created, job, name, wanted, dirty))
            })
            .collect();
        jobs.sort_by_key(|(created, job, ..)| (*created, *job));
        for (_, job, name, wanted, dirty) in jobs {
            self.one(view, &name, dirty, |view| jobs::plan(view, job, wanted));
        }
    }

    fn candidates(&self, names: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
        names.union(self.hungry).cloned().collect()
    }

    fn one(
        &mut self,
        view: &mut View<'_>,
        name: &ServiceName,
        dirty: bool,
        plan: impl FnOnce(&mut View<'_>),
    ) {
        let same = |memo: &Memo| memo.hungry == Some(view.state.machines.version());
        if !dirty && self.memos.get(name).is_some_and(same) {
            return;
        }
        let actions = view.plan.actions.len();
        let waits = view.plan.waiting.len();
        view.hungry = false;
        plan(view);
        let version = view.state.machines.version();
        let memo = Memo {
            waits: view.plan.waiting.drain(waits..).map(|w| w.reason).collect(),
            hungry: view.hungry.then_some(version),
        };
        self.note(name, memo);
        if view.plan.actions.len() > actions {
            view.state.dirty.insert(name.clone());
        }
    }

    fn note(&mut self, name: &ServiceName, memo: Memo) {
        if memo.hungry.is_some() {
            self.hungry.insert(name.clone());
        } else {
            self.hungry.remove(name);
        }
        if memo.hungry.is_none() && memo.waits.is_empty() {
            self.memos.remove(name);
        } else {
            self.memos.insert(name.clone(), memo);
        }
    }

    /// Says what all of them wait for: services by name, then jobs by age.
    fn say(&self, view: &mut View<'_>) {
        let job = |name: &ServiceName| view.desired.jobs.get_key_value(name.as_str());
        let mut memos: Vec<_> = self.memos.iter().collect();
        memos.sort_by_key(|(name, _)| job(name).map(|(name, job)| (job.created, name)));
        for (name, memo) in memos {
            for reason in &memo.waits {
                view.wait(name, reason.clone());
            }
        }
    }
}

fn settle(view: &mut View<'_>) {
    for service in view.desired.services.keys() {
        view.wait(service, WaitReason::Settling);
    }
    for job in view.desired.jobs.keys() {
        view.wait(&job.into(), WaitReason::Settling);
    }
}

/// Sets or removes an entry. Answers whether that is another one than before.
fn put<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> bool {
    let same = map.get(key) == value.as_ref();
    if !same {
        match value {
            Some(value) => drop(map.insert(key.clone(), value)),
            None => drop(map.remove(key)),
        }
    }
    !same
}

/// Notes where two maps differ.
fn differences<K: Ord + Clone, V: PartialEq + Clone>(
    out: &mut Vec<Change>,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    change: impl Fn(K, Option<V>) -> Change,
) {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    out.extend(gone.map(|key| change(key.clone(), None)));
    let other = new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value));
    out.extend(other.map(|(key, value)| change(key.clone(), Some(value.clone()))));
}
