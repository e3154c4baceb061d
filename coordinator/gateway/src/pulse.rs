//! Whether every thread turns: each answers when it is asked, on the runtime that serves its requests.

use std::rc::Rc;

use tokio::sync::watch;

use crate::worker::Worker;

/// Questions, and the newest that each thread has answered.
pub(crate) struct Pulse {
    asked: watch::Sender<u64>,
    answered: watch::Sender<Vec<u64>>,
}

impl Pulse {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(vec![0; threads]),
        }
    }

    /// Asks all threads; ends when all have answered.
    pub(crate) async fn ask(&self) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let mut answered = self.answered.subscribe();
        let all = answered.wait_for(|answered| answered.iter().all(|newest| *newest >= number));
        // The sender is borrowed here, so the channel cannot be closed.
        drop(all.await);
    }
}

/// Answers for a thread, for ever.
pub(crate) async fn answer(worker: Rc<Worker>) {
    let pulse = &worker.shared.pulse;
    let mut asked = pulse.asked.subscribe();
    while asked.changed().await.is_ok() {
        let number = *asked.borrow_and_update();
        pulse
            .answered
            .send_modify(|answered| answered[worker.index] = number);
    }
}
