//! How fast the planner is: `cargo xtask bench plan`.
//!
//! For fleets of several sizes: placing everything from nothing, taking in that it was done, replacing what
//! was on one node that is lost, one status, and a plan when nothing has happened. One thread; the least of
//! several runs, and of the lost node the worst of several nodes, too.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement talks to the terminal"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::digest::PackageDigest;
use berth_model::id::{InstanceId, ModelName, NodeName, ServiceName};
use berth_model::instance::{Phase, Stage};
use berth_model::node::RuntimeKind;
use berth_model::resources::Resources;
use berth_model::service::{Revision, ServiceRecord, default_failure_domains};
use berth_model::time::{Monotonic, Timestamp};
use berth_plan::{
    Action, Change, Desired, InstanceSeen, Needs, NodeSeen, Observed, Plan, Planner, Session,
};

const GIB: u64 = 1 << 30;
/// Instances per node, on average.
const DENSITY: usize = 10;
/// Instances per service.
const REPLICAS: u32 = 100;
/// Nodes per rack.
const RACK: usize = 40;
/// Nodes that are lost, one by one, each in a fleet that is whole.
const LOSSES: usize = 11;

fn main() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let sizes = if sizes.is_empty() {
        vec![1_000, 10_000, 100_000]
    } else {
        sizes
    };
    println!(
        "One core; {DENSITY} instances per node, {REPLICAS} per service, racks of {RACK} nodes in 3 zones."
    );
    println!(
        "placing: from nothing to a whole plan. n log n: that time for n log n of the instances, the first line as 1."
    );
    println!();
    println!(
        "   nodes  instances  services   placing  placements/s  n log n  taking in  node lost (worst)   moved  one status  nothing"
    );
    let mut first = None;
    for nodes in sizes {
        let line = measure(nodes);
        let n = (nodes * DENSITY) as f64;
        let unit = line.placing.as_secs_f64() / (n * n.log2());
        let first = *first.get_or_insert(unit);
        println!(
            "{nodes:>8}  {:>9}  {:>8}  {:>8}  {:>12.0}  {:>7.2}  {:>9}  {:>9} {:>8}  {:>5}  {:>10}  {:>7}",
            nodes * DENSITY,
            services(nodes),
            text(line.placing),
            n / line.placing.as_secs_f64(),
            unit / first,
            text(line.taking_in),
            text(line.lost),
            format!("({})", text(line.lost_worst)),
            line.moved,
            text(line.status),
            text(line.nothing),
        );
    }
}

struct Line {
    placing: Duration,
    taking_in: Duration,
    lost: Duration,
    lost_worst: Duration,
    moved: usize,
    status: Duration,
    nothing: Duration,
}

fn text(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let began = processor_time();
    let value = what();
    (processor_time().saturating_sub(began), value)
}

/// What this thread has had of a processor: others on the machine make no difference but for its caches.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn measure(nodes: usize) -> Line {
    let now = Monotonic(1_000_000);
    let (desired, observed) = (desired(nodes), observed(nodes, now));
    let runs = if nodes > 10_000 { 3 } else { 5 };
    let mut best = Duration::MAX;
    let mut placed = None;
    for _ in 0..runs {
        let (took, (planner, plan)) = timed(|| {
            let mut planner = Planner::of(&desired, &observed);
            let plan = planner.plan(now);
            (planner, plan)
        });
        assert_eq!(plan.actions.len(), nodes * DENSITY, "{:?}", plan.waiting);
        best = best.min(took);
        placed = Some((planner, plan));
    }
    let (mut planner, plan) = placed.unwrap();
    let (taking_in, ()) = timed(|| {
        done(&mut planner, &plan);
        let plan = planner.plan(now);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions.first());
    });
    let status = one_status(&mut planner, &plan, now);
    let (nothing, _) = timed(|| planner.plan(now));
    let mut losses: Vec<(Duration, usize)> = (0..LOSSES)
        .map(|i| lose(planner.clone(), &observed, i * nodes / LOSSES, now))
        .collect();
    losses.sort_unstable();
    Line {
        placing: best,
        taking_in,
        lost: losses[0].0,
        lost_worst: losses[LOSSES - 1].0,
        moved: losses[LOSSES - 1].1,
        status,
        nothing,
    }
}

/// Tells the planner that its plan was carried out and that everything is healthy.
fn done(planner: &mut Planner, plan: &Plan) {
    for action in &plan.actions {
        let Action::Create { id, .. } = action else {
            panic!("{action:?}");
        };
        let slot = id.slot.clone();
        planner.observe(Change::Attempt(slot, Some(id.attempt)));
        planner.observe(Change::Instance(
            id.clone(),
            Some(seen(action, Phase::Healthy)),
        ));
    }
}

fn seen(action: &Action, phase: Phase) -> InstanceSeen {
    let Action::Create {
        place,
        reserved,
        gpus,
        ..
    } = action
    else {
        panic!("{action:?}");
    };
    InstanceSeen {
        place: place.clone(),
        reserved: *reserved,
        gpus: gpus.clone(),
        stage: Stage::Running,
        phase,
        reported: true,
        draining_since: None,
        out_since: None,
        ended: None,
    }
}

fn one_status(planner: &mut Planner, plan: &Plan, now: Monotonic) -> Duration {
    let action = &plan.actions[plan.actions.len() / 2];
    let Action::Create { id, .. } = action else {
        panic!("{action:?}");
    };
    let phases = [Phase::Unhealthy, Phase::Healthy].into_iter().cycle();
    let runs = phases.take(20).map(|phase| {
        let change = Change::Instance(id.clone(), Some(seen(action, phase)));
        let (took, plan) = timed(|| {
            planner.observe(change);
            planner.plan(now)
        });
        assert!(plan.actions.is_empty());
        took
    });
    runs.min().unwrap()
}

/// One node falls silent and its lease ends: all of what it ran is placed elsewhere, and nothing else moves.
fn lose(
    mut planner: Planner,
    observed: &Observed,
    which: usize,
    now: Monotonic,
) -> (Duration, usize) {
    let (name, node) = observed.nodes.iter().nth(which).unwrap();
    let silent = NodeSeen {
        session: Session::Silent(now),
        ..node.clone()
    };
    planner.observe(Change::Node(name.clone(), Some(silent)));
    planner.plan(now);
    let later = now.after(observed.settings.node_lease.0);
    let (took, plan) = timed(|| planner.plan(later));
    let mut lost: BTreeSet<InstanceId> = BTreeSet::new();
    let mut made = 0;
    for action in &plan.actions {
        match action {
            Action::LoseNode { node } => assert_eq!(node, name),
            Action::LoseInstance { id } => assert!(lost.insert(id.clone())),
            Action::Create { place, .. } => {
                assert_ne!(place.node(), Some(name));
                made += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made, lost.len());
    (took, made)
}

fn services(nodes: usize) -> usize {
    nodes * DENSITY / REPLICAS as usize
}

fn observed(nodes: usize, now: Monotonic) -> Observed {
    let node = |i: usize| {
        // Racks are dealt to the zones; every tenth node has GPUs.
        let rack = i / RACK;
        let gpus = if i.is_multiple_of(10) { 8 } else { 0 };
        let labels = [
            ("zone", format!("z{}", rack % 3)),
            ("rack", format!("r{rack}")),
        ];
        let seen = NodeSeen {
            capacity: Resources {
                cpu_millis: 64_000,
                // No two machines report quite the same.
                memory_bytes: 256 * GIB - (i as u64 % 97) * 4_096,
                gpus,
                disk_bytes: 0,
            },
            gpus: (0..gpus).map(|g| format!("GPU-{i:06}-{g}")).collect(),
            labels: labels.map(|(k, v)| (k.to_owned(), v)).into(),
            runtimes: vec![RuntimeKind::Process],
            session: Session::Connected,
            packages: Arc::default(),
            ..NodeSeen::default()
        };
        (NodeName::new(format!("node-{i:06}")).unwrap(), seen)
    };
    Observed {
        nodes: (0..nodes).map(node).collect(),
        started: now,
        ..Observed::default()
    }
}

fn desired(nodes: usize) -> Desired {
    let mut desired = Desired::default();
    for i in 0..services(nodes) {
        let name = ServiceName::new(format!("service-{i:05}")).unwrap();
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(i as u64).to_le_bytes());
        let digest = PackageDigest::from_bytes(digest);
        let size = i as u64 % 5;
        let needs = Needs {
            resources: Resources {
                cpu_millis: 1_000 + 1_000 * size,
                memory_bytes: (2 + 4 * size) * GIB,
                gpus: u32::from(i.is_multiple_of(25)),
                disk_bytes: 0,
            },
            spread: default_failure_domains(),
            package: Some(digest),
            ..Needs::default()
        };
        desired.needs.insert((name.clone(), 1), needs);
        desired.services.insert(name.clone(), service(name, digest));
    }
    desired
}

fn service(name: ServiceName, digest: PackageDigest) -> ServiceRecord {
    let revision = Revision {
        number: 1,
        model: ModelName::new("model").unwrap(),
        serial: 1,
        version: semver::Version::new(1, 0, 0),
        digest,
        runtime: RuntimeKind::Process,
        node_labels: BTreeMap::new(),
        pool: None,
        spread: None,
        env: BTreeMap::new(),
        replicas: REPLICAS,
        created: Timestamp(0),
    };
    ServiceRecord {
        name,
        revisions: BTreeMap::from([(1, revision)]),
        replicas: REPLICAS,
        deleting: false,
        max_unavailable: 1,
        fleet: None,
        created: Timestamp(0),
        updated: Timestamp(0),
    }
}
