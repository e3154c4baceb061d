//! One cluster's task: compares what shall be there with what is there, and acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_kubernetes::{Class, Cluster, Error, Picture, Verdict, job_name};
use berth_model::id::ClusterName;
use berth_model::instance::Reason;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::decide::{Shown, Step, decide};
use super::words;
use crate::control::{Command, Handle, Orders, Reach, WorkName, WorkNews, WorkOrder, WorkReport};

/// The first pause after a command that failed; it doubles.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// The loop looks at everything at least this often.
const TICK: Duration = Duration::from_secs(10);

/// A command that is over.
struct Done {
    job: String,
    work: Option<WorkName>,
    result: Result<(), Error>,
}

/// Failures of the commands for one Job, and when the next is due.
struct Wait {
    failures: u32,
    until: Instant,
}

pub(super) struct Driver {
    cluster: Cluster,
    name: ClusterName,
    control: Handle,
    /// Commands under way.
    commands: JoinSet<Done>,
    /// Jobs with a create (true) or a delete (false) under way.
    busy: BTreeMap<String, bool>,
    waits: BTreeMap<String, Wait>,
    /// What control was told last.
    told: BTreeMap<WorkName, WorkReport>,
    reach: Option<Reach>,
}

impl Driver {
    pub(super) fn new(cluster: Cluster, control: Handle) -> Self {
        Self {
            name: cluster.config().name.clone(),
            cluster,
            control,
            commands: JoinSet::new(),
            busy: BTreeMap::new(),
            waits: BTreeMap::new(),
            told: BTreeMap::new(),
            reach: None,
        }
    }

    /// Runs until control has gone.
    pub(super) async fn run(mut self) {
        let name = self.name.clone();
        let ask = self
            .control
            .ask(|reply| Command::ClusterOrders(name, reply));
        let Ok(mut orders) = ask.await else { return };
        let mut picture = self.cluster.picture();
        loop {
            let now = (
                Arc::clone(&orders.borrow_and_update()),
                Arc::clone(&picture.borrow_and_update()),
            );
            let pause = self.step(&now.0, &now.1).await;
            if !self.wait(&mut orders, &mut picture, pause).await {
                return;
            }
        }
    }

    /// Waits for news. False: nobody is left to tell.
    async fn wait(
        &mut self,
        orders: &mut watch::Receiver<Arc<Orders>>,
        picture: &mut watch::Receiver<Arc<Picture>>,
        pause: Duration,
    ) -> bool {
        tokio::select! {
            changed = orders.changed() => changed.is_ok(),
            changed = picture.changed() => changed.is_ok(),
            Some(done) = self.commands.join_next(), if !self.commands.is_empty() => {
                match done {
                    Ok(done) => self.done(done).await,
                    Err(error) => tracing::error!(%error, "a command for Kubernetes broke off"),
                }
                true
            }
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// One look at everything. Answers how long the next may take.
    async fn step(&mut self, orders: &Orders, picture: &Picture) -> Duration {
        self.tell_reach(words::reach(&picture.state)).await;
        if !orders.settled {
            return TICK;
        }
        let mut reports = Vec::new();
        let mut known = BTreeSet::new();
        for (work, order) in &orders.works {
            let job = job_name(&words::id(work));
            let shown = Shown {
                verdict: picture.verdict(&job),
                seen: picture.jobs.get(&job).map(Arc::as_ref),
                creating: self.busy.get(&job) == Some(&true),
                job: &job,
            };
            let (report, step) = decide(work, order, &shown);
            reports.extend(report.filter(|report| self.told.get(work) != Some(report)));
            if picture.state.is_reachable() {
                self.command(work, order, &job, step);
            }
            known.insert(job);
        }
        self.told.retain(|work, _| orders.works.contains_key(work));
        self.waits.retain(|job, _| known.contains(job));
        self.tell(reports).await;
        self.sweep(&known, picture);
        self.pause()
    }

    /// Jobs of this fleet that nobody ordered: their records have gone while the coordinator was away.
    fn sweep(&mut self, known: &BTreeSet<String>, picture: &Picture) {
        if !picture.complete || !picture.state.is_reachable() {
            return;
        }
        for (job, seen) in &picture.jobs {
            let ours = seen.work.is_some() && !known.contains(job);
            let ended = matches!(seen.verdict, Verdict::Deleting | Verdict::Gone);
            if ours && !ended && !self.busy.contains_key(job) {
                tracing::info!(cluster = %self.name, job, "deleting a Job that nobody ordered");
                self.delete(job, &seen.uid, None);
            }
        }
    }

    fn command(&mut self, work: &WorkName, order: &WorkOrder, job: &str, step: Option<Step>) {
        let early = self
            .waits
            .get(job)
            .is_some_and(|w| w.until > Instant::now());
        if early || self.busy.contains_key(job) {
            return;
        }
        match step {
            None => {}
            Some(Step::Create) => self.create(work, order, job),
            Some(Step::Delete { uid }) => self.delete(job, &uid, Some(work.clone())),
        }
    }

    fn create(&mut self, work: &WorkName, order: &WorkOrder, job: &str) {
        self.busy.insert(job.to_owned(), true);
        let cluster = self.cluster.clone();
        let wanted = words::work(work, order);
        let (work, job) = (work.clone(), job.to_owned());
        self.commands.spawn(async move {
            // The picture shows the Job when this returns: its UID is reported from there.
            let result = cluster.create(&wanted).await.map(|_| ());
            Done {
                job,
                work: Some(work),
                result,
            }
        });
    }

    fn delete(&mut self, job: &str, uid: &str, work: Option<WorkName>) {
        self.busy.insert(job.to_owned(), false);
        let cluster = self.cluster.clone();
        let (job, uid) = (job.to_owned(), uid.to_owned());
        self.commands.spawn(async move {
            let result = cluster.delete(&job, &uid).await;
            Done { job, work, result }
        });
    }

    async fn done(&mut self, done: Done) {
        let created = self.busy.remove(&done.job);
        let Err(error) = done.result else {
            self.waits.remove(&done.job);
            return;
        };
        let failures = self.waits.get(&done.job).map_or(0, |w| w.failures) + 1;
        let pause = FIRST
            .saturating_mul(1 << (failures - 1).min(16))
            .min(LONGEST);
        let pause = pause.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        tracing::warn!(cluster = %self.name, job = done.job, %error, "a command for Kubernetes failed");
        let until = Instant::now() + pause;
        self.waits
            .insert(done.job.clone(), Wait { failures, until });
        if let (Some(work), Some(true)) = (done.work, created)
            && error.class() != Class::Hold
        {
            let error = error.to_string();
            let report = WorkReport {
                work,
                job: done.job,
                uid: String::new(),
                news: WorkNews::Refused(Reason::Refused { error }),
                pods: Vec::new(),
            };
            self.tell(vec![report]).await;
        }
    }

    fn pause(&self) -> Duration {
        let now = Instant::now();
        let next = self.waits.values().map(|wait| wait.until).min();
        let until = next.map_or(TICK, |at| at.saturating_duration_since(now));
        until.clamp(Duration::from_millis(10), TICK)
    }

    async fn tell_reach(&mut self, reach: Reach) {
        if self.reach.as_ref() != Some(&reach) {
            self.reach = Some(reach.clone());
            let command = Command::ClusterReach(self.name.clone(), reach);
            self.control.tell(command).await;
        }
    }

    /// What control could not store is told again with the next look.
    async fn tell(&mut self, reports: Vec<WorkReport>) {
        if reports.is_empty() {
            return;
        }
        let (name, sent) = (self.name.clone(), reports.clone());
        let ask = self
            .control
            .ask(|reply| Command::ClusterReports(name, sent, reply));
        match ask.await {
            Ok(()) => {
                let told = reports
                    .into_iter()
                    .map(|report| (report.work.clone(), report));
                self.told.extend(told);
            }
            Err(problem) => {
                tracing::warn!(cluster = %self.name, %problem, "control cannot take what was seen");
                tokio::time::sleep(FIRST).await;
            }
        }
    }
}
