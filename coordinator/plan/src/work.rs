//! Jobs on the small fleet: scripts and random happenings.

use std::collections::BTreeMap;

use berth_model::digest::{BlobDigest, PackageDigest};
use berth_model::id::{InstanceId, JobName, ServiceName};
use berth_model::instance::{Phase, Reason, Stage};
use berth_model::job::{JobRecord, JobState, ShardInput, TaskFailure, TaskOutput};
use berth_model::node::RuntimeKind;
use berth_model::time::{Span, Timestamp};
use proptest::prelude::*;

use crate::fleet::{Fleet, node};
use crate::{Action, JobWanted, Needs, Plan, Session, WaitReason};

/// A fleet that works on jobs: their records change as control changes them.
struct Work {
    fleet: Fleet,
    jobs: BTreeMap<JobName, JobRecord>,
    /// Attempts of each index that fail.
    failing: u32,
    /// Every output that was committed, and by whom.
    committed: BTreeMap<(JobName, u32), InstanceId>,
}

fn job(name: &str, shards: usize, parallelism: u32, retries: u32) -> JobRecord {
    JobRecord {
        name: name.parse().unwrap(),
        revision: 1,
        request: None,
        model: "m".parse().unwrap(),
        serial: 1,
        version: semver::Version::new(1, 0, 0),
        digest: PackageDigest::from_bytes([0; 32]),
        runtime: RuntimeKind::Process,
        node_labels: BTreeMap::new(),
        env: BTreeMap::new(),
        shards: vec![ShardInput::default(); shards],
        note: None,
        wanted_shards: None,
        fleet: None,
        parallelism,
        retries,
        deadline: None,
        state: JobState::Running,
        outputs: BTreeMap::new(),
        failures: Vec::new(),
        failed: 0,
        claims: BTreeMap::new(),
        cluster: None,
        uid: None,
        announced: BTreeMap::new(),
        deleting: false,
        emptied: false,
        created: Timestamp(0),
        ended: None,
    }
}

impl Work {
    fn new(nodes: usize) -> Self {
        Self {
            fleet: Fleet::exclusive(nodes),
            jobs: BTreeMap::new(),
            failing: 0,
            committed: BTreeMap::new(),
        }
    }

    fn add(&mut self, mut job: JobRecord) {
        job.created = Timestamp(self.fleet.now.0);
        self.jobs.insert(job.name.clone(), job);
    }

    fn record(&self, name: &str) -> &JobRecord {
        &self.jobs[name]
    }

    fn plan(&mut self) -> Plan {
        let now = self.fleet.now;
        let jobs = self.jobs.values();
        self.fleet.desired.jobs = jobs
            .map(|job| (job.name.clone(), JobWanted::of(job, now, Timestamp(now.0))))
            .collect();
        for job in self.jobs.values() {
            let key = (job.service(), job.revision);
            self.fleet.desired.needs.insert(key, Needs::default());
        }
        let plan = self.fleet.plan();
        assert_eq!(
            plan,
            self.fleet.plan(),
            "the same input gives the same plan"
        );
        self.check_waiting(&plan);
        plan
    }

    fn check_waiting(&self, plan: &Plan) {
        for waiting in &plan.waiting {
            assert!(!waiting.reason.to_string().is_empty());
            assert!(self.jobs.contains_key(waiting.service.as_str()));
        }
    }

    fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match action {
                Action::ExpireJob { job } => {
                    let reason = Reason::DeadlineExceeded { after_ms: 1 };
                    let now = Timestamp(self.fleet.now.0);
                    let job = self.jobs.get_mut(job).unwrap();
                    job.end(JobState::Failed { reason }, now);
                }
                Action::DropJob { job } => {
                    self.jobs.remove(job).unwrap();
                    self.committed.retain(|(name, _), _| name != job);
                    let service = ServiceName::from(job);
                    let slots = &mut self.fleet.observed.attempts;
                    slots.retain(|slot, _| slot.service != service);
                }
                _ => {}
            }
        }
        self.fleet.apply(plan);
        self.check();
    }

    /// One step of every agent, and control's reading of what they say.
    fn advance(&mut self) {
        let before = self.fleet.observed.instances.clone();
        self.fleet.advance();
        let after = self.fleet.observed.instances.clone();
        for (id, seen) in after {
            if seen.phase != Phase::Healthy || before[&id].phase == Phase::Starting {
                continue;
            }
            // It has run for a step: it ends. A fenced one may end well, too, and is not heard.
            let seen_now = self.fleet.observed.instances.get_mut(&id).unwrap();
            let connected =
                self.fleet.observed.nodes[seen.place.node().unwrap()].session == Session::Connected;
            if connected {
                seen_now.phase = Phase::Stopped;
                if seen.stage == Stage::Running {
                    self.ended(&id);
                }
            }
        }
    }

    fn ended(&mut self, id: &InstanceId) {
        let now = Timestamp(self.fleet.now.0);
        let job = self.jobs.get_mut(id.slot.service.as_str()).unwrap();
        if id.attempt <= self.failing {
            job.fail(TaskFailure {
                task: id.clone(),
                reason: Reason::Rebooted,
                last_lines: Vec::new(),
                time: now,
            });
            return;
        }
        let output = TaskOutput {
            blob: BlobDigest::from_bytes([1; 32]),
            bytes: 0,
            folder: false,
        };
        if job.complete(id.slot.ordinal, output, now) {
            let key = (job.name.clone(), id.slot.ordinal);
            assert_eq!(self.committed.insert(key, id.clone()), None, "{id}");
        }
    }

    fn check(&self) {
        let mut held: BTreeMap<_, u32> = BTreeMap::new();
        let mut current: BTreeMap<_, u32> = BTreeMap::new();
        let mut busy: BTreeMap<_, u32> = BTreeMap::new();
        for (id, seen) in &self.fleet.observed.instances {
            let runs = seen.phase != Phase::Stopped;
            *held.entry(seen.place.clone()).or_default() += u32::from(runs);
            if seen.stage == Stage::Running {
                *current.entry(id.slot.clone()).or_default() += 1;
            }
            if seen.stage != Stage::Lost && runs {
                *busy.entry(id.slot.service.clone()).or_default() += 1;
            }
        }
        assert!(held.values().all(|n| *n <= 1), "{held:?}");
        assert!(current.values().all(|n| *n <= 1), "{current:?}");
        for (name, n) in busy {
            if let Some(job) = self.jobs.get(name.as_str()) {
                assert!(n <= job.parallelism, "{name}: {n}");
            }
        }
    }

    fn converge(&mut self) {
        for _ in 0..400 {
            let plan = self.plan();
            self.apply(&plan);
            let before = self.fleet.observed.clone();
            self.advance();
            if plan.actions.is_empty() && before == self.fleet.observed {
                return;
            }
        }
        panic!("does not converge: {:#?}", self.fleet.plan());
    }
}

#[test]
fn shards_share_the_places_and_all_are_done_once() {
    let mut work = Work::new(2);
    work.add(job("a", 5, 3, 0));
    let plan = work.plan();
    assert_eq!(plan.actions.len(), 2);
    assert_eq!(
        plan.waiting[0].reason.to_string(),
        "1 task waits for a node: 2 nodes: 2 taken (exclusive)"
    );
    work.converge();
    assert_eq!(work.record("a").state, JobState::Succeeded);
    assert_eq!(work.committed.len(), 5);
    assert!(work.fleet.observed.instances.is_empty());
}

#[test]
fn failures_are_made_up_for_until_there_are_too_many() {
    for (retries, succeeds) in [(4, true), (3, false)] {
        let mut work = Work::new(2);
        work.failing = 2;
        work.add(job("a", 2, 2, retries));
        work.converge();
        let state = &work.record("a").state;
        assert_eq!(*state == JobState::Succeeded, succeeds, "{state:?}");
        assert!(work.fleet.observed.instances.is_empty());
    }
}

#[test]
fn the_deadline_ends_what_runs() {
    let mut work = Work::new(1);
    let mut wanted = job("a", 3, 1, 0);
    wanted.deadline = Some(Span::secs(60));
    work.add(wanted);
    let plan = work.plan();
    assert_eq!(plan.wake, Some(work.fleet.now.after(Span::secs(60).0)));
    work.apply(&plan);
    work.fleet.pass(60_000);
    let plan = work.plan();
    assert!(matches!(plan.actions[0], Action::ExpireJob { .. }));
    assert!(matches!(plan.actions[1], Action::EndTask { .. }));
    work.apply(&plan);
    work.converge();
    assert!(matches!(work.record("a").state, JobState::Failed { .. }));
    assert!(work.fleet.observed.instances.is_empty());
}

#[test]
fn a_lost_nodes_task_is_replaced_and_is_no_failure() {
    let mut work = Work::new(3);
    work.add(job("a", 1, 1, 0));
    let plan = work.plan();
    work.apply(&plan);
    work.fleet.silence("n0");
    work.fleet.pass(30_000);
    let plan = work.plan();
    let created = |a: &Action| matches!(a, Action::Create { id, .. } if id.attempt == 2);
    assert!(plan.actions.iter().any(created), "{plan:?}");
    work.apply(&plan);
    work.fleet
        .observed
        .nodes
        .get_mut(&node("n0"))
        .unwrap()
        .session = Session::Connected;
    work.converge();
    let record = work.record("a");
    assert_eq!(
        (record.state.clone(), record.failed),
        (JobState::Succeeded, 0)
    );
    assert_eq!(work.committed.values().next().unwrap().attempt, 2);
}

#[test]
fn a_drained_nodes_task_may_end_by_itself_until_the_deadline() {
    let mut work = Work::new(2);
    work.add(job("a", 1, 1, 0));
    let plan = work.plan();
    work.apply(&plan);
    work.fleet.drain("n0", 60_000, false);
    let plan = work.plan();
    assert!(plan.actions.is_empty(), "{plan:?}");
    assert!(matches!(
        plan.waiting[0].reason,
        WaitReason::TaskEnds { .. }
    ));
    let mut patient = Work::new(0);
    (patient.fleet, patient.jobs) = (work.fleet.clone(), work.jobs.clone());
    patient.converge();
    assert_eq!(patient.committed.values().next().unwrap().attempt, 1);
    work.fleet.pass(60_000);
    work.converge();
    let record = work.record("a");
    let ended = (record.state.clone(), record.failed);
    assert_eq!(ended, (JobState::Succeeded, 0));
    assert_eq!(work.committed.values().next().unwrap().attempt, 2);
    for fleet in [&work.fleet, &patient.fleet] {
        let drain = fleet.observed.nodes[&node("n0")].drain.unwrap();
        assert!(drain.drained);
    }
}

#[test]
fn a_deleted_job_goes_when_its_tasks_have_stopped_and_a_clusters_when_its_job_has() {
    let mut work = Work::new(2);
    work.add(job("a", 4, 4, 0));
    let plan = work.plan();
    work.apply(&plan);
    work.jobs.get_mut("a").unwrap().deleting = true;
    let plan = work.plan();
    assert!(
        plan.actions
            .iter()
            .all(|a| matches!(a, Action::EndTask { .. })),
        "{plan:?}"
    );
    work.converge();
    assert!(work.jobs.is_empty());

    let mut outside = job("b", 1, 1, 0);
    outside.runtime = RuntimeKind::Kubernetes;
    outside.deleting = true;
    outside.cluster = Some("prod".parse().unwrap());
    work.add(outside);
    assert!(work.plan().actions.is_empty());
    work.jobs.get_mut("b").unwrap().cluster = None;
    assert!(matches!(work.plan().actions[..], [Action::DropJob { .. }]));
}

#[test]
fn a_clusters_job_is_placed_as_a_whole() {
    let mut work = Work::new(2);
    let mut wanted = job("a", 4, 4, 0);
    wanted.runtime = RuntimeKind::Kubernetes;
    work.add(wanted);
    let needs = Needs {
        runtime: RuntimeKind::Kubernetes,
        ..Needs::default()
    };
    let key = (work.record("a").service(), 1);
    work.fleet.desired.needs.insert(key, needs);
    let plan = work.fleet_plan();
    assert!(plan.actions.is_empty());
    assert!(matches!(
        plan.waiting[0].reason,
        WaitReason::NoCluster { .. }
    ));
    work.fleet.add_cluster("prod");
    let plan = work.fleet_plan();
    let cluster = "prod".parse().unwrap();
    let job = "a".parse().unwrap();
    assert_eq!(plan.actions, [Action::PlaceJob { job, cluster }]);
    work.jobs.get_mut("a").unwrap().cluster = Some("prod".parse().unwrap());
    assert!(work.fleet_plan().actions.is_empty());
}

#[test]
fn older_jobs_get_places_first_and_services_before_jobs() {
    let mut work = Work::new(2);
    work.add(job("b", 9, 9, 0));
    work.fleet.pass(1);
    work.add(job("a", 9, 9, 0));
    work.fleet.deploy("web", 1, Needs::default());
    let plan = work.fleet_plan();
    let created: Vec<String> = plan
        .actions
        .iter()
        .filter_map(|a| match a {
            Action::Create { id, .. } => Some(id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(created, ["web.1.0.1", "b.1.0.1"]);
    let waits = plan
        .waiting
        .iter()
        .filter(|w| matches!(w.reason, WaitReason::TasksWait { .. }));
    assert_eq!(waits.count(), 2);
}

impl Work {
    fn fleet_plan(&mut self) -> Plan {
        let now = self.fleet.now;
        let jobs = self.jobs.values();
        self.fleet.desired.jobs = jobs
            .map(|job| (job.name.clone(), JobWanted::of(job, now, Timestamp(now.0))))
            .collect();
        self.fleet.plan()
    }
}

#[derive(Debug, Clone)]
enum Happening {
    Add(u8, u8, u32, u32),
    Delete(u8),
    Silence(u8),
    Return(u8),
    Pass(u64),
    Step,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..3u8, 1..6u8, 1..4u32, 0..5u32).prop_map(|(j, n, p, r)| Happening::Add(j, n, p, r)),
        1 => (0..3u8).prop_map(Happening::Delete),
        1 => (0..4u8).prop_map(Happening::Silence),
        1 => (0..4u8).prop_map(Happening::Return),
        1 => (0..40_000u64).prop_map(Happening::Pass),
        6 => Just(Happening::Step),
    ]
}

fn happen(work: &mut Work, what: &Happening, revision: u32) {
    match what {
        Happening::Add(j, n, parallelism, retries) => {
            let mut new = job(&format!("j{j}"), usize::from(*n), *parallelism, *retries);
            // As control gives them: no identity is used twice.
            new.revision = revision;
            new.deadline = (*n == 5).then(|| Span::secs(20));
            if !work.jobs.contains_key(&new.name) {
                work.add(new);
            }
        }
        Happening::Delete(j) => {
            if let Some(job) = work.jobs.get_mut(format!("j{j}").as_str()) {
                job.deleting = true;
            }
        }
        Happening::Silence(n) => work.fleet.silence(&format!("n{n}")),
        Happening::Return(n) => {
            let name = node(&format!("n{n}"));
            work.fleet.observed.nodes.get_mut(&name).unwrap().session = Session::Connected;
        }
        Happening::Pass(ms) => work.fleet.pass(*ms),
        Happening::Step => work.advance(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never two attempts of an index that both may commit, never more tasks than parallelism, never two
    /// on an exclusive node, every output committed once (asserted along the way); and in the end every
    /// job is over or gone.
    #[test]
    fn jobs_are_safe_and_end(failing in 0..3u32, happenings in prop::collection::vec(happening(), 1..60)) {
        let mut work = Work::new(4);
        work.failing = failing;
        for (n, what) in happenings.iter().enumerate() {
            happen(&mut work, what, u32::try_from(n).unwrap() + 1);
            let plan = work.plan();
            work.apply(&plan);
        }
        for seen in work.fleet.observed.nodes.values_mut() {
            seen.session = Session::Connected;
        }
        work.fleet.pass(60_000);
        work.converge();
        for job in work.jobs.values() {
            prop_assert!(job.state.is_over() && !job.deleting, "{:?}", job);
            let all = job.outputs.len() == job.shards.len();
            prop_assert_eq!(all, job.state == JobState::Succeeded);
        }
        prop_assert!(work.fleet.observed.instances.is_empty());
    }
}
