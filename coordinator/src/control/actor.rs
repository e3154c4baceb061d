//! The loop: take what is in the mailbox, plan, commit once, then answer and apply.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_model::event::Event;
use berth_model::id::NodeName;
use berth_model::problem::Problem;
use berth_model::route::Table;
use berth_model::time::{Monotonic, Span};
use berth_plan::Planner;
use berth_store::{Guard, Op, Store, StoreError, Txn};
use tokio::sync::{broadcast, mpsc, watch};

use super::agent::AgentName;
use super::batch::{self, Part};
use super::challenge::Challenges;
use super::clock::Clock;
use super::clusters;
use super::commands::{agents, drains, gateways, joining};
use super::events::Happened;
use super::records::{LAST_EPOCH, PROBE, Records, TERM};
use super::world::World;
use super::{Command, ControlError, Metrics, act, callers, feed, pending, publish};

/// Most commands in one batch: a bound on how long the first of them waits.
const MAX_BATCH: usize = 256;
/// Most plans in a row before the mailbox is looked at again.
const MAX_ROUNDS: usize = 8;
/// The loop looks at the clock at least this often.
const TICK: Span = Span::secs(1);

/// Sends an answer once it is known how the commit went.
pub(crate) type Answer = Box<dyn FnOnce(&World, Result<(), &Problem>) + Send>;

/// How far writing came.
struct Written {
    /// Groups that are wholly on disk.
    done: usize,
    /// Some of the next group is on disk, too: it did not fit into one transaction.
    torn: bool,
    /// What stopped the rest.
    failure: Option<StoreError>,
}

/// For a change of which only a part is on disk.
fn partly(problem: &Problem) -> Problem {
    Problem {
        detail: format!(
            "{}; it was too large for one transaction of the store, and a part of it was made: ask for the same \
             again once the store takes changes, which makes the rest",
            problem.detail.replace("so it was not made", "not wholly")
        ),
        ..problem.clone()
    }
}

/// The one owner of the state.
pub(crate) struct Actor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) mailbox: mpsc::Receiver<Command>,
    pub(crate) world: World,
    pub(crate) challenges: Challenges,
    pub(crate) tables: watch::Sender<Arc<Table>>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    /// Revision of the key that a later coordinator would change.
    pub(crate) term_revision: u64,
    /// What is to be committed: one group of operations per command or action.
    pub(crate) groups: Vec<Vec<Op>>,
    /// What is to be answered, and how many groups must be on disk for it.
    pub(crate) answers: Vec<(usize, Answer)>,
    /// Something has changed since the last plan.
    pub(crate) stale: bool,
    /// Something has changed since the views' watchers were rung.
    pub(crate) news: bool,
    /// When the fleet's figures were taken last, and whether something has changed since.
    pub(crate) observed: Option<Monotonic>,
    pub(crate) unobserved: bool,
    pub(crate) planned: Monotonic,
    pub(crate) wake: Option<Monotonic>,
    /// After a failed commit: not before then.
    pub(crate) retry: Option<Monotonic>,
}

impl Actor {
    /// Runs until every handle is gone. Errors are fatal.
    pub(crate) async fn run(mut self) -> Result<(), ControlError> {
        loop {
            let pause = self.pause();
            let command = tokio::select! {
                command = self.mailbox.recv() => match command {
                    Some(command) => Some(command),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(pause) => None,
            };
            self.read_clock();
            self.metrics.mailbox(self.mailbox.len());
            if let Some(command) = command {
                self.take(command)?;
            }
            self.turn().await?;
        }
    }

    /// How long there is nothing to do unless somebody writes.
    fn pause(&self) -> Duration {
        let now = self.clock.monotonic();
        if self.stale && self.retry.is_none_or(|at| now >= at) {
            return Duration::ZERO;
        }
        let wakes = [self.wake, self.challenges.wake(), self.retry];
        let next = wakes.into_iter().flatten().min();
        let until = next.map_or(TICK.0, |at| at.since(now));
        // A deadline in this very millisecond must not make the loop hot.
        until.clamp(Duration::from_millis(1), TICK.0)
    }

    pub(crate) fn read_clock(&mut self) {
        self.world.now = self.clock.monotonic();
        self.world.wall = self.clock.wall();
    }

    /// Takes a command and everything else that is already there.
    fn take(&mut self, command: Command) -> Result<(), ControlError> {
        self.dispatch(command)?;
        for _ in 1..MAX_BATCH {
            match self.mailbox.try_recv() {
                Ok(command) => self.dispatch(command)?,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// One turn: time, plan, commit, apply; again while applying is news for the planner.
    pub(crate) async fn turn(&mut self) -> Result<(), ControlError> {
        self.tick()?;
        for _ in 0..MAX_ROUNDS {
            let planned = self.plan()?;
            let wrote = !self.groups.is_empty();
            if !self.commit().await? {
                return Ok(());
            }
            if !planned && !wrote {
                return Ok(());
            }
            self.apply()?;
            if !self.stale {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What time alone changes.
    fn tick(&mut self) -> Result<(), ControlError> {
        if self.retry.is_some_and(|at| self.world.now >= at) {
            self.retry = None;
            let meta = &mut self.world.records.meta;
            meta.put(PROBE.to_owned(), self.world.wall.0);
        }
        for second in self.challenges.decide(&mut self.world) {
            self.admit(second)?;
        }
        self.stale |= agents::sweep(&mut self.world);
        joining::prune_tokens(&mut self.world);
        gateways::prune(&mut self.world);
        drains::count_down(&mut self.world);
        self.settle();
        self.seal()
    }

    /// Ends the looking-around after a restore once every node was heard or its lease is over.
    fn settle(&mut self) {
        let world = &mut self.world;
        if !world.settling {
            return;
        }
        let over = world.now >= world.started.after(world.settings.node_lease.0);
        let heard = |name| {
            let live = world
                .live
                .agents
                .get(&AgentName::Node(NodeName::clone(name)));
            live.is_some_and(|n| n.last_heard.is_some())
        };
        let nodes = world.records.nodes.values();
        let all = nodes.filter(|n| !n.lost).all(|n| heard(&n.name));
        if over || all {
            world.settling = false;
            let epoch = world.epoch;
            world.records.meta.put(LAST_EPOCH.to_owned(), epoch);
            world.happened(&Happened::Settled);
            self.stale = true;
        }
    }

    /// Plans on the draft until nothing is left to do. Answers whether there is news to tell.
    fn plan(&mut self) -> Result<bool, ControlError> {
        let now = self.world.now;
        let due = self.stale
            || now >= self.planned.after(TICK.0)
            || self.wake.is_some_and(|at| now >= at);
        if !due || self.retry.is_some() {
            return Ok(false);
        }
        self.planned = now;
        self.news |= self.stale;
        for _ in 0..MAX_ROUNDS {
            let began = Instant::now();
            feed::feed(&mut self.world);
            let plan = self.world.planner.plan(now);
            #[cfg(test)]
            {
                let (desired, observed) = feed::everything(&self.world);
                let fresh = berth_plan::plan(&desired, &observed, now);
                assert_eq!(plan, fresh, "the planner was not told of everything");
            }
            self.metrics.planned(began.elapsed(), plan.actions.len());
            self.wake = plan.wake;
            self.note_waiting(plan.waiting);
            self.stale = !plan.actions.is_empty();
            if !self.stale {
                break;
            }
            for action in plan.actions {
                act::act(&mut self.world, action);
                self.seal()?;
            }
        }
        self.seal()?;
        // On a quiet fleet nothing has to be told.
        Ok(self.news)
    }

    fn note_waiting(&mut self, waiting: Vec<berth_plan::Waiting>) {
        let before = self.world.mass_loss();
        if self.world.waiting != waiting {
            self.news = true;
            let old = std::mem::replace(&mut self.world.waiting, waiting);
            pending::waits_otherwise(&mut self.world, &old);
        }
        match (before, self.world.mass_loss()) {
            (None, Some((silent, nodes))) => {
                self.world.happened(&Happened::MassLoss(silent, nodes));
            }
            (Some(_), None) => self.world.happened(&Happened::MassLossOver),
            _ => {}
        }
    }

    /// Closes the group of what has changed since the last one.
    pub(crate) fn seal(&mut self) -> Result<(), ControlError> {
        let ops = self.world.records.take_changes()?;
        if !ops.is_empty() {
            self.news = true;
            self.groups.push(ops);
        }
        Ok(())
    }

    /// Writes all groups, then answers. False if the store did not take everything: then what it did
    /// not take has not happened.
    async fn commit(&mut self) -> Result<bool, ControlError> {
        let groups = std::mem::take(&mut self.groups);
        let answers = std::mem::take(&mut self.answers);
        let all = groups.len();
        let wrote = all > 0;
        let Written {
            done,
            torn,
            failure,
        } = self.write(batch::pack(groups), all).await?;
        let problem = match failure {
            None => {
                if wrote {
                    self.world.store_problem = None;
                    self.metrics.store_refuses(false);
                }
                None
            }
            Some(error) => Some(self.undo(&error).await?),
        };
        let fresh = std::mem::take(&mut self.world.fresh);
        for event in fresh {
            if self.world.records.events.get(&event.seq) == Some(&event) {
                self.metrics.event();
                // Nobody may be listening.
                let _ = self.events.send(event);
            }
        }
        for (needs, answer) in answers {
            match &problem {
                Some(problem) if torn && needs == done + 1 => {
                    answer(&self.world, Err(&partly(problem)));
                }
                Some(problem) if needs > done => answer(&self.world, Err(problem)),
                _ => answer(&self.world, Ok(())),
            }
        }
        self.observe();
        Ok(problem.is_none())
    }

    /// Writes the parts in order until one is not taken.
    async fn write(&mut self, parts: Vec<Part>, all: usize) -> Result<Written, ControlError> {
        let (mut done, mut torn) = (0, false);
        for part in parts {
            let began = Instant::now();
            let ops = part.ops.len();
            let fence = Guard::At(TERM.to_owned(), self.term_revision);
            let txn = Txn {
                guards: vec![fence],
                ops: part.ops,
            };
            match self.store.commit(txn).await {
                Ok(revision) => {
                    self.world.revision = revision;
                    self.metrics.committed(began.elapsed(), ops);
                    (done, torn) = (part.groups, part.torn);
                }
                Err(StoreError::Conflict { .. }) => return Err(ControlError::TakenOver),
                Err(error @ StoreError::Stopped { .. }) => return Err(error.into()),
                Err(error) => {
                    return Ok(Written {
                        done,
                        torn,
                        failure: Some(error),
                    });
                }
            }
        }
        Ok(Written {
            done: all,
            torn: false,
            failure: None,
        })
    }

    /// After a failed commit only the store knows what has happened.
    async fn undo(&mut self, error: &StoreError) -> Result<Problem, ControlError> {
        self.metrics.commit_failed();
        self.metrics.store_refuses(true);
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the store did not take a change"
        );
        self.world.records = Records::load(self.store.as_ref()).await?;
        self.world.planner = Planner::default();
        let nodes = self.world.records.nodes.keys().cloned();
        self.world.live.touched.extend(nodes);
        pending::everything(&mut self.world);
        self.world.revision = self.store.identity().await?.revision;
        self.world.store_problem = Some(error.to_string());
        self.retry = Some(self.world.now.after(TICK.0));
        self.stale = true;
        self.unobserved = true;
        self.ring();
        Ok(Problem::unavailable(format!(
            "the change could not be stored, so it was not made: {error}"
        )))
    }

    /// Tells gateways and agents what is on disk now.
    pub(crate) fn apply(&mut self) -> Result<(), ControlError> {
        pending::gather(&mut self.world);
        publish::removed_nodes(&mut self.world);
        self.stale |= publish::table(&mut self.world, &self.tables);
        clusters::publish(&self.world);
        let mut over: BTreeSet<_> = publish::desired_sets(&mut self.world).into_iter().collect();
        over.extend(callers::tell(&mut self.world));
        for connection in over {
            agents::close(&mut self.world, connection);
            self.stale = true;
        }
        #[cfg(test)]
        self.world.live.check();
        if std::mem::take(&mut self.news) {
            self.unobserved = true;
            self.observe();
            self.ring();
        }
        self.seal()
    }

    /// Takes the fleet's figures, which looks at all of it: at most once a second. Only where no draft is open: what the
    /// store then refuses has never been.
    fn observe(&mut self) {
        let now = self.world.now;
        let due = self.observed.is_none_or(|at| now >= at.after(TICK.0));
        if self.unobserved && due {
            (self.observed, self.unobserved) = (Some(now), false);
            self.metrics.observe(&self.world);
        }
    }

    /// Whoever watches a service looks again.
    fn ring(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}
