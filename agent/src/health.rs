//! Health checks: a start is healthy when its check passes and the socket is its own.

mod probe;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_agent_plan::Check;
use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use tokio::sync::mpsc;

use crate::modules::tf_serving::words::{self, Said};
use crate::reconcile::Event;
use crate::runtime::{Handle, PortOwner, Runtime, RuntimeError};

pub use probe::{fetch, probe};
pub use target::{Target, Unwell};

/// The first check comes at once, the next so much later, then twice as much…
const FIRST_WAIT: Duration = Duration::from_millis(5);

/// …up to this, until the first success.
const STARTING_WAIT: Duration = Duration::from_millis(250);

/// How often the owner of the socket is looked for again: while it runs a socket hardly changes hands, and
/// looking costs milliseconds.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// As long as it does not answer, how often it is looked whether somebody else holds the port, or it
/// listens elsewhere.
const LOOK_WHY: Duration = Duration::from_millis(500);

/// What was last seen of a port.
#[derive(Clone, Default)]
struct Looked {
    at: Option<Instant>,
    /// Why it did not answer; holds until it is looked again.
    why: Option<Check>,
}

/// What is watched of one start.
#[derive(Clone)]
pub struct Watch {
    /// Which instance.
    pub id: InstanceId,
    /// The start.
    pub handle: Handle,
    /// What started it.
    pub runtime: Arc<dyn Runtime>,
    /// Its processes: all must be well.
    pub targets: Vec<Target>,
    /// Time between checks.
    pub interval: Duration,
}

impl Watch {
    /// Checks until dropped. Every failure is told; of successes the first.
    pub async fn run(self, events: mpsc::Sender<Event>) {
        let timeout = self
            .interval
            .clamp(Duration::from_secs(1), Duration::from_secs(10));
        let mut wait = FIRST_WAIT;
        let (mut passed, mut ever) = (false, false);
        let mut looked = vec![Looked::default(); self.targets.len()];
        loop {
            let check = self.check(timeout, passed, &mut looked).await;
            let news = !(passed && check == Check::Passed);
            passed = check == Check::Passed;
            ever |= passed;
            if news {
                let start = self.handle.start;
                let event = Event::Check {
                    id: self.id.clone(),
                    start,
                    check,
                };
                if events.send(event).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(if ever { self.interval } else { wait }).await;
            wait = (wait * 2).min(STARTING_WAIT).min(self.interval);
        }
    }

    /// Asks every process in its turn, until one is not well.
    async fn check(&self, timeout: Duration, passed_before: bool, looked: &mut [Looked]) -> Check {
        for (target, looked) in self.targets.iter().zip(looked) {
            let answer = target.ask(timeout).await;
            match self.judge(target, answer, passed_before, looked).await {
                Check::Passed => {}
                other => return other,
            }
        }
        Check::Passed
    }

    /// What an answer is worth, as the answering socket may be somebody else's.
    async fn judge(
        &self,
        target: &Target,
        answer: Result<(), Unwell>,
        passed_before: bool,
        looked: &mut Looked,
    ) -> Check {
        let often = if answer.is_ok() { LOOK_AGAIN } else { LOOK_WHY };
        let due = looked.at.is_none_or(|at| at.elapsed() >= often);
        match answer {
            // Not looked at again and again: the owner was seen when it began to pass.
            Ok(()) if passed_before && !due => Check::Passed,
            Ok(()) => {
                *looked = Looked {
                    at: Some(Instant::now()),
                    why: None,
                };
                self.owned(target).await
            }
            Err(Unwell::Load(error)) => Check::Hopeless(Reason::ModelLoad { error }),
            Err(Unwell::Words(text)) => {
                // The very first failures are those of a module that has not got there yet.
                let first = looked.at.is_none();
                if due {
                    let why = if first { None } else { self.why(target).await };
                    *looked = Looked {
                        at: Some(Instant::now()),
                        why,
                    };
                }
                looked.why.clone().unwrap_or(self.failed(target, text))
            }
        }
    }

    /// A check that failed; of two processes it is said which.
    fn failed(&self, target: &Target, text: String) -> Check {
        let last_check = match self.targets.len() {
            1 => text,
            _ => format!("{}: {text}", target.process),
        };
        Check::Failed(Reason::ChecksFailed { last_check })
    }

    async fn owned(&self, target: &Target) -> Check {
        let at = target.address;
        let port = at.port();
        let failed = |text| self.failed(target, text);
        match self
            .look(move |runtime, handle| runtime.listeners(handle, at))
            .await
        {
            Some(Ok(PortOwner::Instance)) => Check::Passed,
            Some(Ok(PortOwner::Other { pid })) => Check::Failed(Reason::PortTaken { port, pid }),
            Some(Ok(PortOwner::Nobody)) => failed(format!("nothing listens at {at} any more")),
            Some(Err(error)) => failed(format!("cannot see who listens: {}", crate::chain(&error))),
            None => failed("cannot see who listens".to_owned()),
        }
    }

    /// Why it does not answer, if that can be seen.
    async fn why(&self, target: &Target) -> Option<Check> {
        let at = target.address;
        let port = at.port();
        if target.model_status.is_some()
            && let Some(why) = self.said(at).await
        {
            return Some(why);
        }
        let expected: Vec<u16> = self.targets.iter().map(|t| t.address.port()).collect();
        let look = move |runtime: &dyn Runtime, handle: &Handle| {
            let owner = runtime.listeners(handle, at)?;
            Ok::<_, RuntimeError>((owner, runtime.ports(handle)?))
        };
        match self.look(look).await?.ok()? {
            (PortOwner::Other { pid }, _) => Some(Check::Failed(Reason::PortTaken { port, pid })),
            // Its gRPC may have a port of its own, and opens before REST.
            (PortOwner::Nobody, _) if target.model_status.is_some() => None,
            (PortOwner::Nobody, mut found) => {
                found.retain(|found| !expected.contains(found));
                (!found.is_empty()).then_some(Check::Failed(Reason::WrongPort {
                    expected: port,
                    found,
                }))
            }
            _ => None,
        }
    }

    /// What TensorFlow Serving says in its log of troubles that it does not end for.
    async fn said(&self, at: SocketAddr) -> Option<Check> {
        let port = at.port();
        let read = |_: &dyn Runtime, handle: &Handle| words::of_running(&handle.dir);
        match self.look(read).await?? {
            Said::Load(error) => Some(Check::Hopeless(Reason::ModelLoad { error })),
            // It goes on without, for ever.
            Said::NoRest => {
                let look =
                    move |runtime: &dyn Runtime, handle: &Handle| runtime.listeners(handle, at);
                let pid = match self.look(look).await {
                    Some(Ok(PortOwner::Other { pid })) => pid,
                    _ => None,
                };
                Some(Check::Hopeless(Reason::PortTaken { port, pid }))
            }
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Runtime, &Handle) -> T + Send + 'static,
    ) -> Option<T> {
        let (runtime, handle) = (self.runtime.clone(), self.handle.clone());
        tokio::task::spawn_blocking(move || look(&*runtime, &handle))
            .await
            .ok()
    }
}
