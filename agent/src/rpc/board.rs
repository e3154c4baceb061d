//! What is to be reported: written by the reconciler, read by the session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_agent_plan::Status;
use berth_model::id::InstanceId;
use berth_model::instance::InstanceStatus;
use berth_model::node::Facts;
use berth_model::route::Order;
use berth_model::time::Timestamp;
use tokio::sync::Notify;

use crate::runtime::Handle;

/// What is to be reported. Shared; no lock is held while waiting.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
    /// Every status is to be acknowledged, also one that a hello told.
    insists: bool,
    answered: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    accepted: Option<Order>,
    statuses: BTreeMap<InstanceId, InstanceStatus>,
    running: BTreeMap<InstanceId, Handle>,
    /// What modules said last of themselves.
    metrics: BTreeMap<InstanceId, Said>,
    /// How many texts have been put there.
    said: u64,
    /// Changed and not sent.
    dirty: BTreeSet<InstanceId>,
    /// Sent, by number of the report, and not acknowledged.
    sent: BTreeMap<u64, BTreeSet<InstanceId>>,
    /// Forgotten instances and the number of the report that last said so.
    forgotten: BTreeMap<InstanceId, Option<u64>>,
    seq: u64,
    /// What the machine is now.
    facts: Facts,
    /// The facts changed and the coordinator does not have them; the number of the report that told them.
    facts_due: Option<Option<u64>>,
}

/// What a module said of itself for Prometheus.
#[derive(Debug)]
struct Said {
    text: String,
    /// Since when it waits to be sent, as a number of its own; none: it was sent.
    waits: Option<u64>,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Its number.
    pub seq: u64,
    /// Instances that changed.
    pub statuses: Vec<InstanceStatus>,
    /// Instances of which nothing is left.
    pub forgotten: Vec<InstanceId>,
    /// The machine's facts, if they changed.
    pub facts: Option<Facts>,
}

impl Board {
    /// One that can tell when the coordinator has everything on its disk ([`Board::settled`]).
    pub fn insisting() -> Self {
        Self {
            insists: true,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere does not make the data wrong: every change is complete in itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces all statuses; `wall` becomes the time of those whose phase or start changed.
    pub fn publish(&self, statuses: BTreeMap<InstanceId, Status>, wall: Timestamp) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut changed = false;
        inner.statuses.retain(|id, _| statuses.contains_key(id));
        for (id, status) in statuses {
            let old = inner.statuses.get(&id);
            let same = old.filter(|old| (old.phase, old.start) == (status.phase, status.start));
            let new = InstanceStatus {
                id: id.clone(),
                phase: status.phase,
                start: status.start,
                restarts: status.restarts,
                address: status.address,
                reason: status.reason,
                last_lines: status.last_lines,
                pid: status.pid,
                since: same.map_or(wall, |old| old.since),
                digest: status.digest,
                output: status.output,
                gpus: status.gpus,
            };
            if old != Some(&new) {
                // An instance that came back after it was forgotten is not forgotten.
                inner.forgotten.remove(&id);
                inner.dirty.insert(id.clone());
                inner.statuses.insert(id, new);
                changed = true;
            }
        }
        if changed {
            self.changed.notify_one();
        }
    }

    /// An instance is gone, with its files; its logs are all on the coordinator's disk.
    pub fn forget(&self, id: &InstanceId) {
        let mut inner = self.lock();
        inner.statuses.remove(id);
        inner.dirty.remove(id);
        inner.forgotten.insert(id.clone(), None);
        self.changed.notify_one();
    }

    /// Changes what is known of the machine; told if it makes a difference.
    pub fn facts(&self, change: impl FnOnce(&mut Facts)) {
        let mut inner = self.lock();
        let mut facts = inner.facts.clone();
        change(&mut facts);
        if facts != inner.facts {
            inner.facts = facts;
            inner.facts_due = Some(None);
            self.changed.notify_one();
        }
    }

    /// The newest desired set on disk.
    pub fn accepted(&self, order: Order) {
        self.lock().accepted = Some(order);
    }

    /// What runs, for statistics.
    pub fn running(&self, running: BTreeMap<InstanceId, Handle>) {
        let mut inner = self.lock();
        inner.metrics.retain(|id, _| running.contains_key(id));
        inner.running = running;
    }

    /// What a module that runs says of itself for Prometheus.
    pub fn metrics(&self, id: &InstanceId, text: String) {
        let mut inner = self.lock();
        if inner.running.contains_key(id) {
            inner.said += 1;
            let known = inner.metrics.get(id).and_then(|said| said.waits);
            let waits = known.or(Some(inner.said));
            inner.metrics.insert(id.clone(), Said { text, waits });
        }
    }

    /// What modules said since they were asked last: so many that it is about `most` bytes in all, the others the
    /// next time.
    pub fn fresh_metrics(&self, most: usize) -> BTreeMap<InstanceId, String> {
        let mut inner = self.lock();
        let mut waiting: Vec<_> = inner
            .metrics
            .iter_mut()
            .filter(|(_, said)| said.waits.is_some())
            .collect();
        waiting.sort_by_key(|(_, said)| said.waits);
        let mut bytes = 0;
        let mut fresh = BTreeMap::new();
        for (id, said) in waiting {
            if bytes >= most {
                break;
            }
            bytes += said.text.len();
            said.waits = None;
            fresh.insert(id.clone(), said.text.clone());
        }
        fresh
    }

    /// What runs.
    pub fn handles(&self) -> BTreeMap<InstanceId, Handle> {
        self.lock().running.clone()
    }

    /// A new session begins: everything is told anew. Forgotten instances follow in the first report.
    pub fn begin(&self) -> (Option<Order>, Vec<InstanceStatus>, Facts) {
        let mut inner = self.lock();
        inner.dirty.clear();
        inner.sent.clear();
        inner.facts_due = None;
        inner
            .metrics
            .values_mut()
            .for_each(|said| said.waits = said.waits.or(Some(0)));
        inner.forgotten.values_mut().for_each(|seq| *seq = None);
        if self.insists {
            // A hello is not acknowledged: what it tells is reported again.
            inner.dirty = inner.statuses.keys().cloned().collect();
        }
        let statuses = inner.statuses.values().cloned().collect();
        (inner.accepted, statuses, inner.facts.clone())
    }

    /// What changed since the last report; none if nothing.
    pub fn report(&self) -> Option<Report> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let fresh: Vec<InstanceId> = inner
            .forgotten
            .iter()
            .filter(|(_, seq)| seq.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        let facts = (inner.facts_due == Some(None)).then(|| inner.facts.clone());
        if inner.dirty.is_empty() && fresh.is_empty() && facts.is_none() {
            return None;
        }
        inner.seq += 1;
        if facts.is_some() {
            inner.facts_due = Some(Some(inner.seq));
        }
        for id in &fresh {
            inner.forgotten.insert(id.clone(), Some(inner.seq));
        }
        let dirty = std::mem::take(&mut inner.dirty);
        let statuses = dirty
            .iter()
            .filter_map(|id| inner.statuses.get(id))
            .cloned()
            .collect();
        inner.sent.insert(inner.seq, dirty);
        Some(Report {
            seq: inner.seq,
            statuses,
            forgotten: fresh,
            facts,
        })
    }

    /// All reports up to this one are on the coordinator's disk.
    pub fn acknowledged(&self, seq: u64) {
        let mut inner = self.lock();
        inner.sent.retain(|sent, _| *sent > seq);
        inner.facts_due = inner
            .facts_due
            .filter(|told| told.is_none_or(|told| told > seq));
        inner
            .forgotten
            .retain(|_, sent| sent.is_none_or(|sent| sent > seq));
        self.answered.notify_one();
    }

    /// Resolves when all that was published is acknowledged. Of one that insists; for one caller at a time.
    pub async fn settled(&self) {
        loop {
            {
                let inner = self.lock();
                if inner.dirty.is_empty() && inner.sent.is_empty() && inner.forgotten.is_empty() {
                    return;
                }
            }
            self.answered.notified().await;
        }
    }

    /// The number of the oldest report that is not acknowledged.
    pub fn oldest_unacknowledged(&self) -> Option<u64> {
        self.lock().sent.keys().next().copied()
    }

    /// What is not acknowledged is reported again, as it is by then.
    pub fn repeat(&self) {
        let mut inner = self.lock();
        let sent = std::mem::take(&mut inner.sent);
        inner.dirty.extend(sent.into_values().flatten());
        inner.forgotten.values_mut().for_each(|seq| *seq = None);
        if inner.facts_due.is_some() {
            inner.facts_due = Some(None);
        }
        self.changed.notify_one();
    }

    /// Resolves when there is something to report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use berth_model::instance::Phase;

    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    fn publish(board: &Board, phase: Phase, wall: u64) {
        let status = Status {
            phase,
            ..Status::default()
        };
        board.publish(BTreeMap::from([(id("a.1.0.1"), status)]), Timestamp(wall));
    }

    #[test]
    fn only_changes_are_reported_and_the_time_is_that_of_the_phase() {
        let board = Board::default();
        assert_eq!(board.report(), None);
        publish(&board, Phase::Starting, 1);
        publish(&board, Phase::Starting, 2);
        let report = board.report().unwrap();
        assert_eq!((report.seq, report.statuses[0].since), (1, Timestamp(1)));
        assert_eq!(board.report(), None);
        publish(&board, Phase::Starting, 3);
        assert_eq!(board.report(), None);
        publish(&board, Phase::Healthy, 4);
        publish(&board, Phase::Unhealthy, 5);
        let report = board.report().unwrap();
        assert_eq!(
            (report.seq, report.statuses[0].phase),
            (2, Phase::Unhealthy)
        );
    }

    #[test]
    fn metrics_are_sent_once_each_in_its_turn_and_anew_to_a_new_session() {
        let board = Board::default();
        let handle = |name: &str| Handle {
            dir: "/d".into(),
            instance: name.to_owned(),
            runtime: berth_model::node::RuntimeKind::Process,
            start: 1,
            boot_id: String::new(),
            supervisor: berth_shim::state::ProcessIdentity {
                pid: 1,
                start_ticks: 1,
            },
        };
        let names = ["a.1.0.1", "b.1.0.1"];
        board.running(names.map(|name| (id(name), handle(name))).into());
        board.metrics(&id("gone.1.0.1"), "x 1".to_owned());
        board.metrics(&id("b.1.0.1"), "b 1".to_owned());
        board.metrics(&id("a.1.0.1"), "a 1".to_owned());
        // It keeps its turn with what it says later.
        board.metrics(&id("b.1.0.1"), "b 2".to_owned());
        let go = |most| -> Vec<String> { board.fresh_metrics(most).into_values().collect() };
        assert_eq!(go(1), ["b 2"]);
        assert_eq!(go(1), ["a 1"]);
        assert!(go(99).is_empty());
        board.begin();
        assert_eq!(go(99), ["a 1", "b 2"]);
        board.running(BTreeMap::new());
        board.begin();
        assert!(go(99).is_empty());
    }

    #[test]
    fn what_is_forgotten_is_said_until_it_is_acknowledged() {
        let board = Board::default();
        publish(&board, Phase::Stopped, 1);
        board.report().unwrap();
        board.forget(&id("a.1.0.1"));
        let report = board.report().unwrap();
        assert_eq!(
            (report.seq, report.forgotten.len(), report.statuses.len()),
            (2, 1, 0)
        );
        assert_eq!(board.report(), None);
        let (_, all, _) = board.begin();
        assert_eq!(all, []);
        assert_eq!(board.report().unwrap().forgotten, [id("a.1.0.1")]);
        board.acknowledged(2);
        board.begin();
        assert_eq!(
            board.report().unwrap().seq,
            4,
            "the acknowledged one was the older report"
        );
        board.acknowledged(4);
        board.begin();
        assert_eq!(board.report(), None);
    }

    #[tokio::test]
    async fn one_that_insists_is_settled_by_acknowledgements_alone() {
        let board = Board::insisting();
        let settled = async || {
            let patience = std::time::Duration::from_millis(20);
            tokio::time::timeout(patience, board.settled())
                .await
                .is_ok()
        };
        assert!(settled().await);
        publish(&board, Phase::Stopped, 1);
        assert!(!settled().await, "it is not even sent");
        assert_eq!(board.report().unwrap().seq, 1);
        assert!(!settled().await, "it is sent");
        let (_, told, _) = board.begin();
        assert_eq!(told.len(), 1);
        assert!(!settled().await, "a hello told it");
        assert_eq!(board.report().unwrap().statuses.len(), 1);
        board.acknowledged(2);
        assert!(settled().await);
    }

    #[test]
    fn changed_facts_are_told_until_they_are_acknowledged() {
        let board = Board::default();
        board.facts(|_| {});
        assert_eq!(board.report(), None);
        board.facts(|facts| facts.hostname = "a".into());
        let told = |report: Option<Report>| report.and_then(|r| r.facts).map(|f| f.hostname);
        assert_eq!(told(board.report()).as_deref(), Some("a"));
        assert_eq!(board.report(), None);
        board.repeat();
        board.facts(|facts| facts.hostname = "b".into());
        assert_eq!(told(board.report()).as_deref(), Some("b"));
        board.facts(|facts| facts.hostname = "c".into());
        board.acknowledged(2);
        assert_eq!(told(board.report()).as_deref(), Some("c"));
        board.acknowledged(3);
        board.repeat();
        assert_eq!(board.report(), None);
        board.facts(|facts| facts.hostname = "d".into());
        let (_, _, facts) = board.begin();
        assert_eq!(facts.hostname, "d");
        assert_eq!(board.report(), None, "the hello has told them");
    }

    #[test]
    fn what_is_not_acknowledged_is_repeated() {
        let board = Board::default();
        publish(&board, Phase::Starting, 1);
        board.report().unwrap();
        assert_eq!(board.oldest_unacknowledged(), Some(1));
        board.repeat();
        assert_eq!(board.report().unwrap().seq, 2);
        board.acknowledged(2);
        assert_eq!(board.oldest_unacknowledged(), None);
        board.repeat();
        assert_eq!(board.report(), None);
    }
}
