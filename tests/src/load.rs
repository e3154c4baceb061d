//! Steady traffic that counts what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::Client;

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// Numbers of the requests that were answered with 200.
    pub answered: BTreeSet<u64>,
    /// Everything else, in words.
    pub failed: Vec<String>,
    /// Answers by instance.
    pub by_instance: BTreeMap<String, u64>,
}

impl Outcome {
    /// Fails unless every request was answered, and there were some.
    pub fn assert_none_failed(&self) {
        let first: Vec<_> = self.failed.iter().take(5).collect();
        assert!(
            self.failed.is_empty(),
            "{} of {} requests failed, first: {first:#?}",
            self.failed.len(),
            self.failed.len() + self.answered.len()
        );
        assert!(!self.answered.is_empty(), "no request was sent");
    }
}

/// Clients that post one prediction after another until they are told to end.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Outcome>>,
}

impl Load {
    /// Starts `clients` clients on a service; request numbers begin at `first`.
    pub fn start(client: &Client, service: &str, clients: usize, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(first));
        let tasks = (0..clients)
            .map(|_| {
                let (client, service) = (client.clone(), service.to_owned());
                let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
                tokio::spawn(async move { one(&client, &service, &stop, &sent).await })
            })
            .collect();
        Self { stop, sent, tasks }
    }

    /// Number of the next request.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were begun.
    pub async fn pass(&self, more: u64) -> Result<()> {
        let goal = self.sent() + more;
        crate::until("the load to go on", || async {
            let sent = self.sent();
            Ok((sent >= goal, sent))
        })
        .await
    }

    /// Ends the load and takes the sum.
    pub async fn end(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Outcome::default();
        for task in self.tasks {
            let one = task.await?;
            sum.answered.extend(one.answered);
            sum.failed.extend(one.failed);
            for (instance, n) in one.by_instance {
                *sum.by_instance.entry(instance).or_default() += n;
            }
        }
        Ok(sum)
    }
}

async fn one(client: &Client, service: &str, stop: &AtomicBool, sent: &AtomicU64) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        match client.predict(service, number).await {
            Ok((status, instance, _)) if status.is_success() => {
                outcome.answered.insert(number);
                *outcome.by_instance.entry(instance).or_default() += 1;
            }
            Ok((status, instance, body)) => {
                outcome
                    .failed
                    .push(format!("{number}: {status} from {instance:?}: {body}"));
            }
            Err(error) => outcome.failed.push(format!("{number}: {error:#}")),
        }
        // A pace that two cores keep up with beside everything else.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    outcome
}
