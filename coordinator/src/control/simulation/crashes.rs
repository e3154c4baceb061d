//! The coordinator dies, at every step and at any commit, and nothing that was acknowledged is lost.

use std::sync::Arc;
use std::time::Duration;

use berth_model::api::{CreateToken, Deploy, ServiceView};
use berth_model::problem::Problem;
use berth_store::{Store, Txn};
use proptest::prelude::*;

use super::fleet::{Fleet, begin, web};
use crate::control::testing::{Fault, MemStore, TestClock, model_version};
use crate::control::{Command, Config, start};

#[tokio::test(start_paused = true)]
async fn a_restart_after_every_step_restarts_no_instance() {
    let mut fleet = Fleet::new(3, true).await;
    let pause = Duration::from_millis(300);
    fleet.restart(pause).await;
    fleet.deploy("dga@1.0.0", 2).await.unwrap();
    fleet.restart(pause).await;
    fleet.ready().await;
    fleet.steady(true).await;
    let before = fleet.running();
    fleet.restart(pause).await;
    fleet.ready().await;
    assert_eq!(fleet.running(), before);
    // Longer than the lease: what still runs is not replaced.
    fleet.restart(Duration::from_secs(120)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    fleet.ready().await;
    assert_eq!(fleet.running(), before);
    fleet.scale(3).await.unwrap();
    fleet.restart(pause).await;
    assert_eq!(fleet.ready().await.ready, 3);
    fleet.deploy("dga@2.0.0", 3).await.unwrap();
    for _ in 0..10 {
        fleet.restart(pause).await;
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    assert_eq!(fleet.ready().await.revision, 2);
    fleet.check();
    fleet.steady(false).await;
    let delete = |reply| Command::Delete(web(), reply);
    fleet.handle.ask(delete).await.unwrap();
    fleet.restart(pause).await;
    let _ = fleet.until("gone", Result::is_err).await;
    fleet.check();
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_looks_before_it_acts_and_adopts_what_runs() {
    let mut fleet = Fleet::new(4, true).await;
    fleet.deploy("dga@1.0.0", 1).await.unwrap();
    fleet.ready().await;
    let backup = fleet.disk.lock().unwrap().clone();
    // After the backup: the instance is replaced by scaling to 0 and back, and two more come.
    fleet.scale(0).await.unwrap();
    fleet.ready().await;
    fleet.scale(3).await.unwrap();
    fleet.ready().await;
    let before = fleet.running();
    assert!(before[0].attempt > 1);
    {
        let mut disk = fleet.disk.lock().unwrap();
        *disk = backup;
        disk.epoch += 1;
    }
    fleet.steady(true).await;
    fleet.restart(Duration::from_secs(1)).await;
    let one = |v: &Result<ServiceView, Problem>| {
        v.as_ref()
            .is_ok_and(|v| v.instances.len() == 1 && v.ready == 1)
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let view = fleet.until("settled on one", one).await.unwrap();
    assert_eq!(view.replicas, 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One of what ran goes on, under the identity it had; the rest was drained in order.
    let after = fleet.running();
    assert_eq!(after.len(), 1);
    assert!(before.contains(&after[0]), "{before:?} {after:?}");
    fleet.check();
    fleet.scale(3).await.unwrap();
    fleet.ready().await;
    fleet.check();
    // The next start is an ordinary one.
    fleet.restart(Duration::from_secs(1)).await;
    let (events, _) = fleet
        .handle
        .ask(|reply| Command::Events(0, reply))
        .await
        .unwrap();
    let restored = events.iter().filter(|e| e.kind == "restored").count();
    assert_eq!(restored, 1);
}

/// What the store refuses was never there, for `/metrics` neither.
#[tokio::test(start_paused = true)]
async fn figures_never_show_what_could_not_be_stored() {
    let store = MemStore::on(&Arc::default());
    let clock = TestClock(tokio::time::Instant::now());
    let (handle, _actor) = begin(&store, &clock).await;
    let model = Box::new(model_version("dga", "1.0.0", 0));
    let register = |reply| Command::RegisterModel(model, reply);
    handle.ask(register).await.unwrap();
    let token = |reply| Command::CreateToken(CreateToken::default(), reply);
    let deploy = |reply| {
        let wanted = Deploy {
            model: "dga".into(),
            service: Some(web()),
            ..Deploy::default()
        };
        Command::Deploy(Box::new(wanted), reply)
    };
    let services = || {
        let text = handle.metrics().render();
        let mut states = text.lines().filter(|l| l.starts_with("berth_services{"));
        states.any(|state| !state.ends_with(" 0"))
    };
    // The figures are taken at the first change; at the third they are due again, for the second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    handle.ask(token).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    handle.ask(token).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    store.fault.lock().unwrap().full = true;
    handle.ask(deploy).await.unwrap_err();
    assert!(!services());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!services());
    *store.fault.lock().unwrap() = Fault::default();
    tokio::time::sleep(Duration::from_secs(3)).await;
    handle.ask(deploy).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(services());
}

#[tokio::test(start_paused = true)]
async fn an_older_coordinator_is_fenced_off_by_a_newer_one() {
    let fleet = Fleet::new(1, true).await;
    let (newer, _actor) = begin(&MemStore::on(&fleet.disk), &fleet.clock).await;
    // What the older one would change, it may not any more; it ends.
    assert_eq!(fleet.deploy("dga", 1).await.unwrap_err().status, 503);
    assert!(fleet.service().await.is_err());
    let services = newer.ask(Command::Services).await.unwrap();
    assert!(services.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_understood_is_named() {
    let fleet = Fleet::new(1, true).await;
    let store = MemStore::on(&fleet.disk);
    let open = || start(Config::new(Arc::new(store.clone()), "ca"));
    let put = |key: &str, value: &str| Txn::new().put(key, value.as_bytes());
    store.commit(put("/nodes/n0", "{}")).await.unwrap();
    let error = open().await.err().unwrap();
    assert!(error.to_string().contains("/nodes/n0"), "{error}");
    store.commit(Txn::new().delete("/nodes/n0")).await.unwrap();
    store
        .commit(put("/seq/services/Not-A-Name", "1"))
        .await
        .unwrap();
    let error = open().await.err().unwrap();
    assert!(
        error.to_string().contains("/seq/services/Not-A-Name"),
        "{error}"
    );
}

/// One step of a script.
#[derive(Debug, Clone, Copy)]
enum Step {
    Deploy(bool, u32),
    Scale(u32),
    Delete,
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 1u32..4).prop_map(|(two, n)| Step::Deploy(two, n)),
        3 => (0u32..4).prop_map(Step::Scale),
        1 => Just(Step::Delete),
        2 => (0u16..400).prop_map(Step::Wait),
    ]
}

/// What was acknowledged last: revision's version and replicas, or that it is gone.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Nothing,
    Service(semver::Version, u32),
}

/// Carries out a step with a coordinator that may die in it. A step whose answer never came may or may
/// not have happened; asking again makes sure, as a client would.
async fn carry_out(fleet: &mut Fleet, step: Step, wanted: &mut Wanted) {
    if let Step::Wait(ms) = step {
        let died = Arc::clone(&fleet.store.died);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(u64::from(ms))) => {}
            () = died.notified() => fleet.restart(Duration::from_millis(100)).await,
        }
        return;
    }
    for _ in 0..200 {
        let died = Arc::clone(&fleet.store.died);
        let outcome = tokio::select! {
            outcome = attempt(fleet, step) => Some(outcome),
            () = died.notified() => None,
        };
        match outcome {
            Some(Ok(after)) => {
                *wanted = after.unwrap_or_else(|| wanted.clone());
                return;
            }
            // Being deleted: wait until it is gone.
            Some(Err(problem)) if problem.status == 409 => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some(Err(problem)) if problem.status == 404 => return,
            Some(Err(problem)) => panic!("{step:?}: {problem}"),
            None => fleet.restart(Duration::from_millis(100)).await,
        }
    }
    panic!("{step:?} was never carried out");
}

async fn attempt(fleet: &Fleet, step: Step) -> Result<Option<Wanted>, Problem> {
    match step {
        Step::Deploy(two, replicas) => {
            let version = if two { "2.0.0" } else { "1.0.0" };
            let view = fleet.deploy(&format!("dga@{version}"), replicas).await?;
            assert_eq!(
                (view.version.to_string().as_str(), view.replicas),
                (version, replicas)
            );
            Ok(Some(Wanted::Service(view.version, replicas)))
        }
        Step::Scale(replicas) => {
            let view = fleet.scale(replicas).await?;
            assert_eq!(view.replicas, replicas);
            Ok(Some(Wanted::Service(view.version, replicas)))
        }
        Step::Delete => {
            let delete = |reply| Command::Delete(web(), reply);
            match fleet.handle.ask(delete).await {
                Ok(_) => Ok(Some(Wanted::Nothing)),
                Err(problem) if problem.status == 404 => Ok(Some(Wanted::Nothing)),
                Err(problem) => Err(problem),
            }
        }
        Step::Wait(_) => Ok(None),
    }
}

async fn script(steps: Vec<Step>, crashes: Vec<(u64, bool)>) {
    let mut fleet = Fleet::new(4, true).await;
    let mut wanted = Wanted::Nothing;
    let mut crashes = crashes.into_iter();
    for step in steps {
        let armed = fleet.store.fault.lock().unwrap().dies_in.is_some();
        if !armed && let Some((dies_in, dies_after)) = crashes.next() {
            fleet.fault(Fault {
                full: false,
                dies_in: Some(dies_in),
                dies_after,
                ..Fault::default()
            });
        }
        carry_out(&mut fleet, step, &mut wanted).await;
    }
    // A last crash may still be armed: it is part of the game.
    let died = Arc::clone(&fleet.store.died);
    let died = tokio::time::timeout(Duration::from_secs(3), died.notified()).await;
    if died.is_ok() {
        fleet.restart(Duration::from_millis(100)).await;
    }
    fleet.fault(Fault::default());
    match wanted {
        Wanted::Nothing => {
            let _ = fleet.until("gone", Result::is_err).await;
        }
        Wanted::Service(version, replicas) => {
            let view = fleet.ready().await;
            assert_eq!((view.version, view.replicas), (version, replicas));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(fleet.running().len(), replicas as usize);
        }
    }
    fleet.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_at_any_commit_loses_nothing_acknowledged(
        steps in prop::collection::vec(step(), 1..8),
        crashes in prop::collection::vec((1u64..8, any::<bool>()), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(script(steps, crashes));
    }
}
