//! Keeps true what is said of the node's GPUs.

use std::sync::Arc;
use std::time::Duration;

use berth_model::node::{Condition, Facts};
use tokio::sync::oneshot;

use super::gpu::{Gpus, Look};
use crate::rpc::board::Board;
use crate::rpc::machine::Machine;

/// How long the hello waits for the first look.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Between looks.
const LOOK: Duration = Duration::from_secs(15);

/// How long the driver may take to answer before that is told.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at the GPUs again and again.
pub(crate) struct GpuWatch {
    board: Arc<Board>,
    machine: Arc<Machine>,
    gpus: Gpus,
    /// A look that is under way.
    looking: Option<oneshot::Receiver<Looked>>,
}

/// What was found, and what to look with the next time.
type Looked = (Gpus, Look, Option<Condition>);

impl GpuWatch {
    /// Returns after the first look, or after a moment.
    pub(crate) async fn begin(board: Arc<Board>, machine: Arc<Machine>) -> Self {
        let mut watch = Self {
            board,
            machine,
            gpus: Gpus::default(),
            looking: None,
        };
        // What is not known within the moment is told when it is.
        let _ = tokio::time::timeout(FIRST_LOOK, watch.took()).await;
        watch
    }

    /// For ever.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if tokio::time::timeout(PATIENCE, self.took()).await.is_err() {
                // A driver that hangs is waited for: a second look would hang as well.
                self.board.facts(|facts| note(facts, None, Some(silent())));
                self.took().await;
            }
        }
    }

    /// Looks, or waits for the look that is under way, and takes what was found.
    async fn took(&mut self) {
        let gpus = &mut self.gpus;
        let looking = self
            .looking
            .get_or_insert_with(|| look(std::mem::take(gpus)));
        let looked = looking.await;
        self.looking = None;
        // If it broke off by a panic, or had no thread, the next begins with nothing known.
        if let Ok((gpus, look, condition)) = looked {
            self.gpus = gpus;
            self.machine.gpus(look.busy.clone());
            self.board.facts(|facts| note(facts, Some(look), condition));
        }
    }
}

/// A look, on a thread of its own: one that hangs must not keep the agent from ending.
fn look(mut gpus: Gpus) -> oneshot::Receiver<Looked> {
    let (found, looking) = oneshot::channel();
    let thread = std::thread::Builder::new().name("gpus".to_owned());
    let begun = thread.spawn(move || {
        let (look, condition) = gpus.look();
        // Nobody waits for it any more when the agent ends.
        let _ = found.send((gpus, look, condition));
    });
    if let Err(error) = begun {
        tracing::warn!(%error, "no thread to look at GPUs with");
    }
    looking
}

fn silent() -> Condition {
    Condition {
        kind: Condition::GPU.to_owned(),
        message: format!(
            "the NVIDIA driver has not answered for {} seconds; the kernel's log on the node tells more; often only a \
             reboot helps",
            PATIENCE.as_secs()
        ),
    }
}

/// Writes down what was found; without a look the GPUs stay as they were.
fn note(facts: &mut Facts, look: Option<Look>, condition: Option<Condition>) {
    if let Some(look) = look {
        facts.capacity.gpus = u32::try_from(look.gpus.len()).unwrap_or(u32::MAX);
        facts.gpus = look.gpus;
    }
    let mut known = facts.conditions.iter();
    let before = known.find(|c| c.kind == Condition::GPU).cloned();
    if before != condition {
        match &condition {
            Some(condition) => tracing::warn!(message = condition.message, "trouble with GPUs"),
            None => tracing::info!("the GPUs are well again"),
        }
        facts.conditions.retain(|c| c.kind != Condition::GPU);
        facts.conditions.extend(condition);
    }
}

#[cfg(test)]
mod tests {
    use berth_model::node::Gpu;

    use super::*;

    #[test]
    fn what_is_said_follows_what_is_found() {
        let mut facts = Facts::default();
        let found = |uuid: &str| {
            Some(Look {
                gpus: vec![Gpu {
                    uuid: uuid.into(),
                    ..Gpu::default()
                }],
                ..Look::default()
            })
        };
        note(&mut facts, found("GPU-a"), None);
        assert_eq!((facts.capacity.gpus, facts.gpus.len()), (1, 1));
        note(&mut facts, None, Some(silent()));
        note(&mut facts, None, Some(silent()));
        assert_eq!((facts.gpus.len(), facts.conditions.len()), (1, 1));
        note(&mut facts, Some(Look::default()), None);
        assert_eq!((facts.capacity.gpus, facts.conditions.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_machine_is_looked_at_before_it_is_told_of() {
        let board = Arc::new(Board::default());
        let watch = GpuWatch::begin(board.clone(), Arc::default()).await;
        assert!(watch.looking.is_none(), "the look is over");
        let (.., facts) = board.begin();
        assert_eq!(facts.capacity.gpus as usize, facts.gpus.len());
    }
}
