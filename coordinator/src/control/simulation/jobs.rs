//! Jobs under crashes: whatever dies when, a job is there once, and every task's end counts once.

use std::sync::Arc;
use std::time::Duration;

use berth_model::api::{CreateJob, JobStatus, JobView};
use berth_model::id::JobName;
use berth_model::job::ShardInput;
use berth_model::problem::Problem;
use proptest::prelude::*;

use super::fleet::Fleet;
use crate::control::testing::Fault;
use crate::control::{Command, NewJob};

/// Creates a job as a client does that insists on an answer.
async fn create(fleet: &Fleet, key: &str, shards: usize) -> Result<JobView, Problem> {
    let new = NewJob {
        wanted: CreateJob {
            model: "dga".into(),
            request: Some(key.into()),
            retries: Some(u32::try_from(shards).unwrap()),
            ..CreateJob::default()
        },
        shards: vec![ShardInput::default(); shards],
        note: None,
    };
    let command = |reply| Command::CreateJob(Box::new(new), reply);
    fleet.handle.ask(command).await
}

async fn job(fleet: &Fleet, name: &JobName) -> Result<JobView, Problem> {
    let name = name.clone();
    fleet.handle.ask(|reply| Command::Job(name, reply)).await
}

/// Goes on with a coordinator that may die at any moment until `done`.
async fn through<T>(
    fleet: &mut Fleet,
    what: &str,
    mut done: impl AsyncFnMut(&Fleet) -> Option<T>,
) -> T {
    for _ in 0..600 {
        let died = Arc::clone(&fleet.store.died);
        let pause = Duration::from_millis(50);
        let outcome = tokio::select! {
            outcome = done(fleet) => Some(outcome),
            () = died.notified() => None,
        };
        match outcome {
            Some(Some(value)) => return value,
            Some(None) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = died.notified() => fleet.restart(pause).await,
                }
            }
            None => fleet.restart(pause).await,
        }
    }
    panic!("never {what}");
}

async fn script(nodes: usize, jobs: Vec<usize>, crashes: Vec<(u64, bool)>) {
    let mut fleet = Fleet::new(nodes, true).await;
    let mut crashes = crashes.into_iter();
    let mut names = Vec::new();
    for (n, shards) in jobs.iter().enumerate() {
        if let Some((dies_in, dies_after)) = crashes.next() {
            fleet.fault(Fault {
                full: false,
                dies_in: Some(dies_in),
                dies_after,
                ..Fault::default()
            });
        }
        let key = format!("key-{n}");
        let created = through(&mut fleet, "created", async |f| {
            create(f, &key, *shards).await.ok()
        });
        names.push(created.await.name);
    }
    for (name, shards) in names.iter().zip(&jobs) {
        if let Some((dies_in, dies_after)) = crashes.next() {
            fleet.fault(Fault {
                full: false,
                dies_in: Some(dies_in),
                dies_after,
                ..Fault::default()
            });
        }
        let ended = through(&mut fleet, "ended", async |f| {
            let view = job(f, name).await.ok()?;
            view.state.is_over().then_some(view)
        });
        let view = ended.await;
        assert_eq!(view.state, JobStatus::Succeeded, "{view:#?}");
        // Every failure once and no more, every output that of its index.
        assert_eq!(view.failed as usize, shards / 2);
        for shard in &view.shards {
            assert_eq!(shard.attempts, 1 + shard.index % 2, "{view:#?}");
            let blob = shard.output.as_ref().unwrap().blob;
            assert_eq!(u32::from(blob.as_bytes()[0]), shard.index);
        }
    }
    let all = through(&mut fleet, "listed", async |f| {
        f.handle.ask(Command::Jobs).await.ok()
    });
    assert_eq!(all.await.len(), jobs.len(), "no job is there twice");
    for name in &names {
        through(&mut fleet, "gone", async |f| gone(f, name).await).await;
    }
    fleet.check();
}

/// Deletes as the edges do; none until the job is gone.
async fn gone(fleet: &Fleet, name: &JobName) -> Option<()> {
    let wanted = name.clone();
    match fleet
        .handle
        .ask(|reply| Command::DeleteJob(wanted, reply))
        .await
    {
        Err(problem) if problem.status == 404 => return Some(()),
        _ => {}
    }
    for leavings in fleet.handle.ask(Command::Leavings).await.ok()? {
        let removed = |reply| Command::LeavingsRemoved(leavings.job, reply);
        fleet.handle.ask(removed).await.ok()?;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn tasks_use_both_nodes_and_their_records_go() {
    script(2, vec![5], Vec::new()).await;
}

#[tokio::test(start_paused = true)]
async fn a_fenced_tasks_end_is_refused_when_its_node_returns() {
    let fleet = Fleet::new(2, true).await;
    let view = create(&fleet, "k", 1).await.unwrap();
    let name = view.name;
    // The task's end is on the machine, but the word of it never arrives.
    tokio::time::sleep(Duration::from_millis(10)).await;
    fleet.cable(0, false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let view = job(&fleet, &name).await.unwrap();
    assert_eq!(
        (view.state, view.failed),
        (JobStatus::Succeeded, 0),
        "{view:#?}"
    );
    let first = view.shards[0].output.clone();
    fleet.cable(0, true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let view = job(&fleet, &name).await.unwrap();
    assert_eq!(view.shards[0].output, first);
    assert_eq!(view.shards[0].attempts, 2);
    let (events, _) = fleet
        .handle
        .ask(|reply| Command::Events(0, reply))
        .await
        .unwrap();
    let done = events.iter().filter(|e| e.kind == "task-completed").count();
    assert_eq!(done, 1);
    fleet.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_at_any_commit_neither_loses_nor_doubles_a_job(
        nodes in 1..4usize,
        jobs in prop::collection::vec(1..5usize, 1..4),
        crashes in prop::collection::vec((1u64..8, any::<bool>()), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(script(nodes, jobs, crashes));
    }
}
