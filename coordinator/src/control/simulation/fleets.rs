//! A fleet that does not fit into one transaction: cut off anywhere, applying it again does the rest.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_model::api::{Deploy, Fleet, FleetPlan, FleetRequest, PutPool};
use berth_model::id::{PoolName, ServiceName};
use berth_model::problem::Problem;
use tokio::task::JoinHandle;

use crate::control::testing::{Disk, Fault, MemStore, model_version};
use crate::control::{Command, Config, ControlError, Declared, Handle, start};

/// Far more than one transaction takes, and a pool that all of them are placed in.
const SERVICES: usize = 150;

fn request() -> FleetRequest {
    let service = |n: usize| {
        let name: ServiceName = format!("s{n:03}").parse().unwrap();
        let deploy = Deploy {
            model: "dga".into(),
            pool: Some("gpu".into()),
            replicas: Some(0),
            ..Deploy::default()
        };
        (name, deploy)
    };
    let labels = [("rack".to_owned(), "a".to_owned())].into();
    let gpu: PoolName = "gpu".parse().unwrap();
    FleetRequest {
        fleet: Fleet {
            pools: [(gpu, PutPool { labels })].into(),
            services: (0..SERVICES).map(service).collect(),
            ..Fleet::default()
        },
        ..FleetRequest::default()
    }
}

async fn open(disk: &Arc<Mutex<Disk>>) -> (MemStore, Handle, JoinHandle<Result<(), ControlError>>) {
    let store = MemStore::on(disk);
    let config = Config::new(Arc::new(store.clone()), "ca");
    let (handle, actor) = start(config).await.unwrap();
    (store, handle, actor)
}

async fn register(handle: &Handle) {
    let model = Box::new(model_version("dga", "1.0.0", 0));
    let register = |reply| Command::RegisterModel(model, reply);
    handle.ask(register).await.unwrap();
}

async fn apply(handle: &Handle) -> Result<FleetPlan, Problem> {
    let request = Box::new(request());
    let apply = |reply| Command::Declared(Declared::Apply(request, Vec::new(), reply));
    handle.ask(apply).await
}

/// How many services there are, and whether the pool they are placed in is there.
async fn there(handle: &Handle) -> (usize, bool) {
    let services = handle.ask(Command::Services).await.unwrap();
    let pools = |reply| Command::Declared(Declared::Pools(reply));
    let pools = handle.ask(pools).await.unwrap();
    (services.len(), !pools.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_midst_leaves_what_is_sound_and_applying_again_does_the_rest() {
    let mut seen = Vec::new();
    for (dies_in, dies_after) in (1..6).flat_map(|n| [(n, false), (n, true)]) {
        let disk = Arc::default();
        let (store, handle, actor) = open(&disk).await;
        register(&handle).await;
        *store.fault.lock().unwrap() = Fault {
            dies_in: Some(dies_in),
            dies_after,
            ..Fault::default()
        };
        let died = Arc::clone(&store.died);
        tokio::select! {
            _ = apply(&handle) => {}
            () = died.notified() => {}
        }
        drop(handle);
        actor.abort();
        let _ = actor.await;

        let (_, handle, _actor) = open(&disk).await;
        let (services, pool) = there(&handle).await;
        assert!(
            services == 0 || pool,
            "no service before its pool: {services}"
        );
        seen.push(services);
        let done = apply(&handle).await.unwrap();
        assert_eq!(done.unchanged as usize, services + usize::from(pool));
        assert_eq!(there(&handle).await, (SERVICES, true));
        assert!(apply(&handle).await.unwrap().is_empty());
    }
    // It was cut off in the midst at least once.
    assert!(seen.iter().any(|n| *n > 0 && *n < SERVICES), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_in_the_midst_is_told_as_such() {
    let mut partly = 0;
    for full_in in 0..6 {
        let disk = Arc::default();
        let (store, handle, _actor) = open(&disk).await;
        register(&handle).await;
        *store.fault.lock().unwrap() = Fault {
            full_in: Some(full_in),
            ..Fault::default()
        };
        let answer = apply(&handle).await;
        let (services, _) = there(&handle).await;
        match answer {
            Ok(_) => assert_eq!(services, SERVICES),
            Err(problem) => {
                assert_eq!(problem.status, 503);
                let told = problem
                    .detail
                    .contains("a part of it was made: ask for the same again");
                assert_eq!(told, full_in > 0, "{problem}");
                partly += u32::from(services > 0 && services < SERVICES);
            }
        }
        *store.fault.lock().unwrap() = Fault::default();
        // Commands that wait for the store are answered once it takes changes again.
        tokio::time::sleep(Duration::from_secs(3)).await;
        apply(&handle).await.unwrap();
        assert_eq!(there(&handle).await, (SERVICES, true));
    }
    assert!(partly > 0);
}
