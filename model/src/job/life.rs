//! What becomes of a job as its tasks end: pure changes of its record.

use crate::digest::BlobDigest;
use crate::id::{InstanceId, ServiceName, Slot};
use crate::instance::Reason;
use crate::job::{JobRecord, JobState, Piece, TaskFailure, TaskOutput};
use crate::node::RuntimeKind;
use crate::time::Timestamp;

/// Failed attempts whose end is kept.
const FAILURES_KEPT: usize = 8;

impl JobRecord {
    /// How many shards there are.
    pub fn completions(&self) -> u32 {
        u32::try_from(self.shards.len()).unwrap_or(u32::MAX)
    }

    /// The name its tasks have as instances.
    pub fn service(&self) -> ServiceName {
        ServiceName::from(&self.name)
    }

    /// The slot of an index.
    pub fn slot(&self, index: u32) -> Slot {
        Slot {
            service: self.service(),
            revision: self.revision,
            ordinal: index,
        }
    }

    /// The identity of a task.
    pub fn task(&self, index: u32, attempt: u32) -> InstanceId {
        InstanceId {
            slot: self.slot(index),
            attempt,
        }
    }

    /// Whether an identity is one of its tasks.
    pub fn owns(&self, id: &InstanceId) -> bool {
        id.slot.service.as_str() == self.name.as_str()
            && id.slot.revision == self.revision
            && id.slot.ordinal < self.completions()
    }

    /// Whether an index waits for its output still.
    pub fn wants(&self, index: u32) -> bool {
        !self.state.is_over()
            && !self.deleting
            && index < self.completions()
            && !self.outputs.contains_key(&index)
    }

    /// Commits an index's output; with the last one the job has succeeded. False, and nothing changed,
    /// if the index does not wait for one: an output is committed once.
    pub fn complete(&mut self, index: u32, output: TaskOutput, now: Timestamp) -> bool {
        if !self.wants(index) {
            return false;
        }
        self.outputs.insert(index, output);
        self.announced.remove(&index);
        if self.outputs.len() == self.shards.len() {
            self.end(JobState::Succeeded, now);
        }
        true
    }

    /// Counts a failed attempt. One more than may be made up for fails the job, as does one that ran
    /// into the job's deadline.
    pub fn fail(&mut self, failure: TaskFailure) {
        if self.state.is_over() {
            return;
        }
        self.failed = self.failed.saturating_add(1);
        let (now, reason) = (failure.time, failure.reason.clone());
        self.failures.push(failure);
        let surplus = self.failures.len().saturating_sub(FAILURES_KEPT);
        self.failures.drain(..surplus);
        let deadline = matches!(reason, Reason::DeadlineExceeded { .. });
        if self.counts_here() && (self.failed > self.retries || deadline) {
            self.end(JobState::Failed { reason }, now);
        }
    }

    /// The job is over; what was decided first stays.
    pub fn end(&mut self, state: JobState, now: Timestamp) {
        if !self.state.is_over() && state.is_over() {
            self.state = state;
            self.ended = Some(now);
        }
    }

    /// Whether Berth decides by its own count when the job has failed. For a Job in a cluster Kubernetes
    /// counts, and its word is taken.
    pub fn counts_here(&self) -> bool {
        self.runtime != RuntimeKind::Kubernetes
    }

    /// When the job must have ended.
    pub fn due(&self) -> Option<Timestamp> {
        let deadline = self.deadline?;
        Some(Timestamp(
            self.created.0.saturating_add(deadline.as_millis()),
        ))
    }

    /// All pieces of its input.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.shards.iter().flat_map(|shard| &shard.pieces)
    }

    /// Every blob that it needs or left.
    pub fn blobs(&self) -> impl Iterator<Item = BlobDigest> {
        let outputs = self.outputs.values().map(|output| output.blob);
        let announced = self.announced.values().copied();
        self.pieces()
            .map(|piece| piece.blob)
            .chain(outputs)
            .chain(announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::PackageDigest;
    use crate::job::ShardInput;
    use crate::time::Span;

    fn job(shards: usize, retries: u32) -> JobRecord {
        JobRecord {
            name: "score".parse().unwrap(),
            revision: 3,
            request: None,
            model: "dga".parse().unwrap(),
            serial: 1,
            version: semver::Version::new(1, 0, 0),
            digest: PackageDigest::from_bytes([0; 32]),
            runtime: RuntimeKind::Process,
            node_labels: Default::default(),
            env: Default::default(),
            shards: vec![ShardInput::default(); shards],
            note: None,
            wanted_shards: None,
            fleet: None,
            parallelism: 1,
            retries,
            deadline: Some(Span::secs(10)),
            state: JobState::Running,
            outputs: Default::default(),
            failures: Vec::new(),
            failed: 0,
            claims: Default::default(),
            cluster: None,
            uid: None,
            announced: Default::default(),
            deleting: false,
            emptied: false,
            created: Timestamp(5_000),
            ended: None,
        }
    }

    fn output(n: u8) -> TaskOutput {
        TaskOutput {
            blob: BlobDigest::from_bytes([n; 32]),
            bytes: 1,
            folder: false,
        }
    }

    fn failure(job: &JobRecord, n: u64) -> TaskFailure {
        TaskFailure {
            task: job.task(0, u32::try_from(n).unwrap()),
            reason: Reason::Exited {
                process: "task".into(),
                code: i32::try_from(n).unwrap(),
            },
            last_lines: Vec::new(),
            time: Timestamp(n),
        }
    }

    #[test]
    fn an_output_is_committed_once_and_the_last_one_ends_the_job() {
        let mut j = job(2, 0);
        assert!(j.complete(1, output(1), Timestamp(1)));
        assert!(!j.complete(1, output(2), Timestamp(2)));
        assert!(!j.complete(2, output(2), Timestamp(2)), "no such shard");
        assert_eq!(j.outputs[&1], output(1));
        assert_eq!(j.state, JobState::Running);
        assert!(j.complete(0, output(3), Timestamp(9)));
        assert_eq!(
            (j.state.clone(), j.ended),
            (JobState::Succeeded, Some(Timestamp(9)))
        );
        j.fail(failure(&j, 1));
        assert_eq!((j.state, j.failed), (JobState::Succeeded, 0));
    }

    #[test]
    fn one_failure_more_than_retries_decides_and_stays() {
        let mut j = job(1, 20);
        for n in 1..=20 {
            j.fail(failure(&j, n));
            assert_eq!(j.state, JobState::Running);
        }
        j.fail(failure(&j, 21));
        let JobState::Failed { reason } = &j.state else {
            panic!("{:?}", j.state)
        };
        assert_eq!(reason.to_string(), "task exited with code 21");
        assert_eq!((j.failures.len(), j.failed), (FAILURES_KEPT, 21));
        assert!(!j.complete(0, output(1), Timestamp(30)), "too late");
        j.end(JobState::Succeeded, Timestamp(31));
        assert_eq!(j.ended, Some(Timestamp(21)));
    }

    #[test]
    fn kubernetes_counts_for_itself() {
        let mut j = job(1, 0);
        j.runtime = RuntimeKind::Kubernetes;
        j.fail(failure(&j, 1));
        assert_eq!((j.state.clone(), j.failed), (JobState::Running, 1));
        assert!(j.complete(0, output(1), Timestamp(1)));
        assert_eq!(j.state, JobState::Succeeded);
    }

    #[test]
    fn a_tasks_identity_has_the_jobs_revision() {
        let j = job(2, 0);
        assert_eq!(j.task(1, 4).to_string(), "score.3.1.4");
        assert!(j.owns(&j.task(1, 4)));
        for other in ["score.1.1.4", "other.3.1.4", "score.3.2.1"] {
            assert!(!j.owns(&other.parse().unwrap()), "{other}");
        }
        assert_eq!(j.due(), Some(Timestamp(15_000)));
    }
}
