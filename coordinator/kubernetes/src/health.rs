//! Whether the API server answers: what the watches and every other request hear, in one place.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::error::Error;
use crate::picture::ClusterState;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Topic {
    Jobs,
    Pods,
    Events,
}

impl Topic {
    pub(crate) const ALL: [Self; 3] = [Self::Jobs, Self::Pods, Self::Events];

    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Events => "events",
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    /// It was listed once.
    listed: bool,
    failing: Option<Error>,
}

/// Pure: time is an argument.
#[derive(Debug)]
pub(crate) struct Health {
    lines: BTreeMap<Topic, Line>,
    /// No client can be made: the configuration is wrong.
    access: Option<Error>,
    state: ClusterState,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            lines: Topic::ALL
                .into_iter()
                .map(|t| (t, Line::default()))
                .collect(),
            access: None,
            state: ClusterState::Connecting,
        }
    }

    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Jobs and Pods were listed at least once.
    pub(crate) fn complete(&self) -> bool {
        [Topic::Jobs, Topic::Pods]
            .iter()
            .all(|topic| self.lines.get(topic).is_some_and(|line| line.listed))
    }

    /// A list is through.
    pub(crate) fn listed(&mut self, topic: Topic, now: SystemTime) {
        let line = self.lines.entry(topic).or_default();
        line.listed = true;
        line.failing = None;
        self.settle(now);
    }

    /// The watch goes on: the API server took it up again.
    pub(crate) fn resumed(&mut self, topic: Topic, now: SystemTime) {
        let line = self.lines.entry(topic).or_default();
        if line.listed {
            line.failing = None;
        }
        self.settle(now);
    }

    /// A list or watch could not be begun.
    pub(crate) fn failed(&mut self, topic: Topic, error: Error, now: SystemTime) {
        self.lines.entry(topic).or_default().failing = Some(error);
        self.settle(now);
    }

    /// There is, or is no, client.
    pub(crate) fn access(&mut self, error: Option<Error>, now: SystemTime) {
        self.access = error;
        self.settle(now);
    }

    fn settle(&mut self, now: SystemTime) {
        let failing = |topic: Topic| self.lines.get(&topic).and_then(|line| line.failing.clone());
        let why = self
            .access
            .clone()
            .or_else(|| failing(Topic::Jobs))
            .or_else(|| failing(Topic::Pods));
        self.state = match (why, &self.state) {
            (Some(why), ClusterState::Unreachable { since, .. }) => {
                let since = *since;
                ClusterState::Unreachable { since, why }
            }
            (Some(why), _) => ClusterState::Unreachable { since: now, why },
            (None, _) if !self.complete() => return,
            (None, ClusterState::Reachable { since, .. }) => {
                let since = *since;
                let lacking = failing(Topic::Events);
                ClusterState::Reachable { since, lacking }
            }
            (None, _) => ClusterState::Reachable {
                since: now,
                lacking: failing(Topic::Events),
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(s: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(s)
    }

    #[test]
    fn a_cluster_is_reachable_once_jobs_and_pods_are_listed_and_away_while_either_fails() {
        let mut health = Health::new();
        health.listed(Topic::Jobs, at(1));
        assert!(matches!(health.state(), ClusterState::Connecting));
        assert!(!health.complete());
        health.listed(Topic::Pods, at(2));
        assert!(
            matches!(health.state(), ClusterState::Reachable { since, lacking: None } if *since == at(2))
        );

        health.failed(Topic::Pods, Error::Closed, at(5));
        health.failed(Topic::Jobs, Error::Closed, at(6));
        assert!(
            matches!(health.state(), ClusterState::Unreachable { since, .. } if *since == at(5))
        );
        health.resumed(Topic::Pods, at(7));
        assert!(!health.state().is_reachable());
        health.resumed(Topic::Jobs, at(8));
        assert!(matches!(health.state(), ClusterState::Reachable { since, .. } if *since == at(8)));
        assert!(health.complete());
    }

    #[test]
    fn events_are_a_help_and_no_condition() {
        let mut health = Health::new();
        health.listed(Topic::Jobs, at(1));
        health.listed(Topic::Pods, at(1));
        health.failed(Topic::Events, Error::Closed, at(2));
        assert!(matches!(
            health.state(),
            ClusterState::Reachable {
                lacking: Some(_),
                ..
            }
        ));
        health.resumed(Topic::Events, at(3));
        assert!(
            matches!(
                health.state(),
                ClusterState::Reachable {
                    lacking: Some(_),
                    ..
                }
            ),
            "never listed"
        );
        health.listed(Topic::Events, at(3));
        assert!(matches!(
            health.state(),
            ClusterState::Reachable { lacking: None, .. }
        ));
    }

    #[test]
    fn without_access_nothing_else_counts() {
        let mut health = Health::new();
        health.access(Some(Error::Closed), at(1));
        assert!(matches!(health.state(), ClusterState::Unreachable { .. }));
        health.access(None, at(2));
        assert!(!health.state().is_reachable());
    }
}
