//! Health checks: a start is healthy when its check passes and the socket is its own.

mod probe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_agent_plan::Check;
use berth_model::id::InstanceId;
use berth_model::instance::Reason;
use berth_model::manifest::{HealthCheck, Protocol};
use tokio::sync::mpsc;

use crate::reconcile::Event;
use crate::runtime::{Handle, PortOwner, Runtime, RuntimeError};

pub use probe::probe;

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

/// What was last seen of the port.
#[derive(Default)]
struct Looked {
    at: Option<Instant>,
    /// Why it did not answer; holds until it is looked again.
    why: Option<Reason>,
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
    /// What is asked.
    pub check: HealthCheck,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it shall listen.
    pub address: SocketAddr,
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
        let (mut passed, mut ever, mut looked) = (false, false, Looked::default());
        loop {
            let answer = probe(&self.check, self.protocol, self.address, timeout).await;
            let check = self.judge(answer, passed, &mut looked).await;
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

    /// What an answer is worth, as the answering socket may be somebody else's.
    async fn judge(
        &self,
        answer: Result<(), String>,
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
                self.owned().await
            }
            Err(text) => {
                // The very first failures are those of a module that has not got there yet.
                let first = looked.at.is_none();
                if due {
                    let why = if first { None } else { self.why().await };
                    *looked = Looked {
                        at: Some(Instant::now()),
                        why,
                    };
                }
                let failed = Reason::ChecksFailed { last_check: text };
                Check::Failed(looked.why.clone().unwrap_or(failed))
            }
        }
    }

    async fn owned(&self) -> Check {
        let port = self.address.port();
        let failed = |last_check| Check::Failed(Reason::ChecksFailed { last_check });
        match self
            .look(move |runtime, handle| runtime.listeners(handle, port))
            .await
        {
            Some(Ok(PortOwner::Instance)) => Check::Passed,
            Some(Ok(PortOwner::Other { pid })) => Check::Failed(Reason::PortTaken { port, pid }),
            Some(Ok(PortOwner::Nobody)) => {
                failed(format!("nothing listens on port {port} any more"))
            }
            Some(Err(error)) => failed(format!("cannot see who listens: {}", crate::chain(&error))),
            None => failed("cannot see who listens".to_owned()),
        }
    }

    /// Why it does not answer, if that can be seen.
    async fn why(&self) -> Option<Reason> {
        let port = self.address.port();
        let look = move |runtime: &dyn Runtime, handle: &Handle| {
            let owner = runtime.listeners(handle, port)?;
            Ok::<_, RuntimeError>((owner, runtime.ports(handle)?))
        };
        match self.look(look).await?.ok()? {
            (PortOwner::Other { pid }, _) => Some(Reason::PortTaken { port, pid }),
            (PortOwner::Nobody, found) if !found.is_empty() && !found.contains(&port) => {
                Some(Reason::WrongPort {
                    expected: port,
                    found,
                })
            }
            _ => None,
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
