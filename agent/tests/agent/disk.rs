//! A full disk, a real one; what is kept of packages; and downloads that are held back or damaged.

use std::io::Write;
use std::path::Path;

use berth_logfile::{Frames, segments};
use berth_model::digest::PackageDigest;
use berth_model::instance::{InstanceSpec, Phase};

use crate::coordinator::Coordinator;
use crate::module::ask;
use crate::node::{Node, Package, order, pid_at, stopping};
use crate::wait::until_true;

const ID: &str = "web.1.0.1";
const MIB: usize = 1 << 20;
const QUICK: &str =
    "http = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 3\nstart_timeout = \"20s\"";

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for length in [1 << 16, 4096] {
        let block = vec![0; length];
        while file.write_all(&block).is_ok() {}
    }
}

async fn condition(coordinator: &Coordinator, kind: &str, there: bool) -> String {
    let said = |state: &mut crate::coordinator::State| {
        let mut conditions = state.facts.conditions.iter();
        conditions
            .find(|c| c.kind == kind)
            .map(|c| c.message.clone())
    };
    until_true(&format!("the condition {kind}: {there}"), || {
        coordinator.with(said).is_some() == there
    })
    .await;
    coordinator.with(said).unwrap_or_default()
}

/// Lines of an instance that have come, and lines told as gaps.
fn count(coordinator: &Coordinator, id: &str) -> (usize, u64) {
    let lines = coordinator.lines(id, "line ").len();
    let dir = coordinator.with(|state| state.logs.path().join(id));
    let mut gaps = 0;
    for start in std::fs::read_dir(dir).into_iter().flatten() {
        for segment in segments(&start.unwrap().path()).unwrap() {
            let bytes = std::fs::read(&segment.path).unwrap();
            let frames = Frames::new(&bytes).map_while(Result::ok);
            gaps += frames
                .filter_map(|(_, frame)| frame.gap())
                .map(|gap| gap.lines)
                .sum::<u64>();
        }
    }
    (lines, gaps)
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_root_a_full_disk_is_told_stops_nothing_and_heals_by_itself() {
    let coordinator = Coordinator::start().await;
    let Some(mut node) = Node::on_small_disk(&coordinator, 32 << 20, "") else {
        return;
    };
    let small = Package::new(&coordinator, QUICK, 100_000);
    let large = Package::new(&coordinator, QUICK, 8 * MIB);
    let (a, b, c) = (
        small.spec(ID, "serve"),
        large.spec("large.1.0.1", "serve"),
        small.spec("other.1.0.1", "serve"),
    );
    coordinator.desire(order(1), &[a.clone(), c.clone()]);
    node.run();
    let address = coordinator.phase(ID, Phase::Healthy).await.address.unwrap();
    coordinator.phase("other.1.0.1", Phase::Healthy).await;
    let pid = pid_at(address);
    until_true("the reserve", || node.data().join("reserve").exists()).await;
    let ballast = node.data().join("ballast");
    fill(&ballast);
    let said = condition(&coordinator, "disk-full", true).await;
    let data = std::fs::canonicalize(node.data()).unwrap();
    assert!(said.contains(&data.display().to_string()), "{said}");
    // What is to be stopped is stopped, and what has no room is not begun.
    coordinator.desire(order(2), &[a.clone(), b.clone(), stopping(&c)]);
    coordinator.phase("other.1.0.1", Phase::Stopped).await;
    let failed = coordinator
        .status(b.id.to_string().as_str(), |status| {
            let reason = status.reason.as_ref().map(ToString::to_string);
            reason.is_some_and(|reason| reason.contains("no room on the disk"))
        })
        .await;
    assert_ne!(failed.phase, Phase::Healthy);
    let refused = |state: &mut crate::coordinator::State| {
        let all = state.acks.iter().map(|ack| ack.refused.clone());
        all.filter(|why| !why.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(coordinator.with(refused), Vec::<String>::new());
    // Far more lines than fit: each comes, or is counted.
    ask(address, "/log?0-30000").unwrap();
    assert_eq!(pid_at(address), pid, "it runs on");
    assert_eq!(
        coordinator.phase(ID, Phase::Healthy).await.restarts,
        0,
        "and is well"
    );
    // An agent that starts on a full disk finds all as it was.
    node.kill();
    node.run();
    coordinator.hello(2).await;
    condition(&coordinator, "disk-full", true).await;
    assert_eq!(pid_at(address), pid);

    std::fs::remove_file(&ballast).unwrap();
    coordinator
        .phase(b.id.to_string().as_str(), Phase::Healthy)
        .await;
    condition(&coordinator, "disk-full", false).await;
    ask(address, "/log?30000-30001").unwrap();
    until_true("every line, or its count", || {
        let (lines, gaps) = count(&coordinator, ID);
        lines as u64 + gaps == 30_001
    })
    .await;
    assert_eq!(coordinator.lines(ID, "line 30000").len(), 1);
    assert_eq!(pid_at(address), pid);
    until_true("the reserve, again", || {
        node.data().join("reserve").exists()
    })
    .await;
}

/// Runs an instance and takes it away again.
async fn once(coordinator: &Coordinator, spec: &InstanceSpec, generation: u64) {
    let id = spec.id.to_string();
    coordinator.desire(order(generation), std::slice::from_ref(spec));
    coordinator.phase(&id, Phase::Healthy).await;
    coordinator.desire(order(generation + 1), &[stopping(spec)]);
    coordinator.phase(&id, Phase::Stopped).await;
    coordinator.desire(order(generation + 2), &[]);
    coordinator.forgotten(&id).await;
}

async fn has(coordinator: &Coordinator, node: &Node, packages: &[&Package]) {
    let mut digests: Vec<PackageDigest> = packages.iter().map(|p| p.summary.digest).collect();
    digests.sort();
    let folders = || {
        let there = std::fs::read_dir(node.data().join("packages")).unwrap();
        let names = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let digest = |name: String| format!("sha256:{name}").parse().ok();
        let mut found: Vec<PackageDigest> = names.filter_map(digest).collect();
        found.sort();
        found
    };
    until_true("the packages that are kept", || folders() == digests).await;
    until_true("word of them", || {
        coordinator.with(|state| state.packages == digests)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_stay_within_their_budget_but_for_those_in_use() {
    let coordinator = Coordinator::start().await;
    let mut node = Node::joined_with(&coordinator, "package_budget = \"1500KiB\"\n");
    node.run();
    let packages = [0, 1, 2].map(|n| Package::new(&coordinator, QUICK, 600_000 + n));
    let [a, b, c] = &packages;
    let spec = |package: &Package, n: u32| package.spec(&format!("web.{n}.0.1"), "serve");
    once(&coordinator, &spec(a, 1), 1).await;
    once(&coordinator, &spec(b, 2), 4).await;
    // Used once more, so that the other one was not used for longer.
    once(&coordinator, &spec(a, 3), 7).await;
    has(&coordinator, &node, &[a, b]).await;
    assert_eq!(coordinator.with(|state| state.fetches.len()), 2);
    coordinator.desire(order(10), &[spec(c, 4)]);
    coordinator.phase("web.4.0.1", Phase::Healthy).await;
    has(&coordinator, &node, &[a, c]).await;
    // All are in use at once: all stay.
    coordinator.desire(order(11), &[spec(a, 5), spec(b, 6), spec(c, 4)]);
    for id in ["web.4.0.1", "web.5.0.1", "web.6.0.1"] {
        coordinator.phase(id, Phase::Healthy).await;
    }
    has(&coordinator, &node, &[a, b, c]).await;
    node.kill();
    node.run();
    coordinator.hello(2).await;
    has(&coordinator, &node, &[a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_held_back_resumed_and_checked() {
    let coordinator = Coordinator::start().await;
    let packages = [0, 1].map(|n| Package::new(&coordinator, QUICK, 300_000 + n));
    let specs = [
        packages[0].spec("a.1.0.1", "serve"),
        packages[1].spec("b.1.0.1", "serve"),
    ];
    // Each piece breaks off once, in its middle.
    coordinator.with(|state| state.fetch_limit = Some(10_000));
    // And one archive comes damaged.
    let blob = packages[1].summary.archive.to_string();
    let flip = |state: &mut crate::coordinator::State| {
        let bytes = state.blobs.get_mut(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xFF;
    };
    coordinator.with(flip);
    coordinator.desire(order(1), &specs);
    let mut node = Node::joined_with(&coordinator, "download_limit = \"256KiB\"\n");
    node.run();
    coordinator
        .status("a.1.0.1", |status| status.reason.is_some())
        .await;
    coordinator.with(|state| state.fetch_limit = None);
    coordinator.phase("a.1.0.1", Phase::Healthy).await;
    coordinator
        .status("b.1.0.1", |status| {
            let reason = status.reason.as_ref().map(ToString::to_string);
            reason.is_some_and(|reason| reason.contains("was damaged"))
        })
        .await;
    coordinator.with(flip);
    coordinator.phase("b.1.0.1", Phase::Healthy).await;
    let ranges = coordinator.with(|state| state.ranges.clone());
    let pieces = ranges
        .iter()
        .all(|(_, length)| (1..=16 << 10).contains(length));
    assert!(pieces, "{ranges:?}");
    let resumed = ranges.iter().any(|(begin, _)| begin % (16 << 10) != 0);
    assert!(resumed, "{ranges:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_after_a_kill_and_begins_anew_if_it_went_bad() {
    for went_bad in [false, true] {
        let coordinator = Coordinator::start().await;
        let package = Package::new(&coordinator, QUICK, 300_000);
        coordinator.with(|state| state.fetch_limit = Some(40_000));
        coordinator.desire(order(1), &[package.spec(ID, "serve")]);
        let mut node = Node::joined(&coordinator);
        node.run();
        let part = node
            .data()
            .join("blobs")
            .join(package.summary.archive.hex());
        let length = || part.metadata().map_or(0, |found| found.len());
        until_true("a part of it", || length() >= 40_000).await;
        node.kill();
        let had = length();
        if went_bad {
            let mut bytes = std::fs::read(&part).unwrap();
            bytes[0] ^= 0xFF;
            std::fs::write(&part, bytes).unwrap();
        }
        coordinator.with(|state| {
            state.fetch_limit = None;
            state.ranges.clear();
        });
        node.run();
        coordinator.phase(ID, Phase::Healthy).await;
        let begins: Vec<u64> = coordinator.with(|state| {
            let begins = state.ranges.iter().map(|(begin, _)| *begin);
            begins.collect()
        });
        let expected = if went_bad { vec![had, 0] } else { vec![had] };
        assert_eq!(begins, expected, "went bad: {went_bad}");
        assert!(!part.exists(), "of no use more");
    }
}
