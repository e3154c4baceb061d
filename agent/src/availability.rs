//! Which runtimes work now and what is installed, kept true in what the coordinator is told of this node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_model::node::{Condition, Facts, RuntimeKind};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::rpc::board::Board;
use crate::runtime::{Availability, Runtimes};
use crate::tools;

/// How long the hello waits for what is not known yet.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Between looks at what is installed.
const LOOK: Duration = Duration::from_secs(60);

/// Writes down what works, and goes on doing so until the set is dropped. Returns once each runtime was
/// looked at, or after a moment.
pub(crate) async fn watch(runtimes: &Runtimes, board: &Arc<Board>) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    board.facts(|facts| facts.runtimes.clear());
    for runtime in runtimes.iter() {
        let kind = runtime.kind();
        match runtime.availability() {
            None => board.facts(|facts| note(facts, kind, &Availability::Works)),
            Some(mut changes) => {
                // Not known within the moment: the first change tells.
                let _ = tokio::time::timeout(FIRST_LOOK, changes.changed()).await;
                let now = changes.borrow_and_update().clone();
                board.facts(|facts| note(facts, kind, &now));
                watching.spawn(follow(kind, changes, board.clone()));
            }
        }
    }
    watching
}

async fn follow(kind: RuntimeKind, mut changes: watch::Receiver<Availability>, board: Arc<Board>) {
    while changes.changed().await.is_ok() {
        let now = changes.borrow_and_update().clone();
        match &now {
            Availability::Broken { message } => {
                tracing::warn!(runtime = %kind, message, "does not work")
            }
            Availability::Works => tracing::info!(runtime = %kind, "works"),
            Availability::NotHere => tracing::info!(runtime = %kind, "is not here"),
        }
        board.facts(|facts| note(facts, kind, &now));
    }
}

/// Looks again and again which modules can run here, for ever: what they need may be installed or removed later.
pub(crate) async fn installed(model_server: Option<PathBuf>, board: Arc<Board>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let model_server = model_server.clone();
        // A folder of PATH may be on a disk that hangs.
        let found = tokio::task::spawn_blocking(move || tools::modules(model_server.as_deref()));
        let Ok(found) = found.await else { continue };
        board.facts(|facts| {
            if facts.modules != found {
                tracing::info!(modules = ?found, "what is installed has changed");
                facts.modules = found;
            }
        });
    }
}

fn note(facts: &mut Facts, kind: RuntimeKind, now: &Availability) {
    facts.runtimes.retain(|known| *known != kind);
    facts
        .conditions
        .retain(|known| known.kind != kind.to_string());
    match now {
        Availability::Works => {
            facts.runtimes.push(kind);
            facts.runtimes.sort_unstable();
        }
        Availability::NotHere => {}
        Availability::Broken { message } => facts.conditions.push(Condition {
            kind: kind.to_string(),
            message: message.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_model_server_that_is_installed_later_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tensorflow_model_server");
        let board: Arc<Board> = Arc::default();
        let known = || {
            let (.., facts) = board.begin();
            facts.modules.contains(&tools::TF_SERVING.to_owned())
        };
        let looking = tokio::spawn(installed(Some(program.clone()), board.clone()));
        tokio::time::sleep(LOOK / 2).await;
        assert!(!known());
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        tokio::time::sleep(2 * LOOK).await;
        assert!(known());
        std::fs::remove_file(&program).unwrap();
        tokio::time::sleep(2 * LOOK).await;
        assert!(!known());
        looking.abort();
    }

    #[test]
    fn what_does_not_work_is_a_condition_and_no_runtime() {
        let mut facts = Facts::default();
        note(&mut facts, RuntimeKind::Docker, &Availability::Works);
        note(&mut facts, RuntimeKind::Process, &Availability::Works);
        assert_eq!(facts.runtimes, [RuntimeKind::Process, RuntimeKind::Docker]);
        let broken = Availability::Broken {
            message: "away".into(),
        };
        note(&mut facts, RuntimeKind::Docker, &broken);
        note(&mut facts, RuntimeKind::Docker, &broken);
        assert_eq!(facts.runtimes, [RuntimeKind::Process]);
        assert_eq!(facts.conditions.len(), 1);
        assert_eq!(facts.conditions[0].kind, "docker");
        note(&mut facts, RuntimeKind::Docker, &Availability::Works);
        assert!(facts.conditions.is_empty());
    }
}
