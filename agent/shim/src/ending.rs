//! Ending the tree: SIGTERM to all of it, a grace, then SIGKILL until nothing is left.

use std::time::{Duration, Instant};

use berth_shim::identity::{self, Signal};

/// Between the first rounds of SIGKILL; doubled after each.
const FIRST_ROUND: Duration = Duration::from_millis(5);

/// Between later rounds: a process that is not gone by then hangs in the kernel.
const LAST_ROUND: Duration = Duration::from_millis(500);

/// An ending under way.
#[derive(Debug)]
pub(crate) struct Ending {
    /// When the grace is over, or the next round is due.
    due: Instant,
    killing: Option<Duration>,
    /// The grace ran out with something still alive.
    pub(crate) grace_exceeded: bool,
}

impl Ending {
    /// Asks everything to end.
    pub(crate) fn begin(now: Instant, grace: Duration) -> Self {
        signal_tree(Signal::TERM);
        // An absurd grace must not overflow; a day is for ever here.
        let due = now + grace.min(Duration::from_secs(86_400));
        Self {
            due,
            killing: None,
            grace_exceeded: false,
        }
    }

    /// Kills everything, without a grace.
    pub(crate) fn kill(now: Instant) -> Self {
        let mut ending = Self {
            due: now,
            killing: None,
            grace_exceeded: false,
        };
        ending.round(now);
        ending
    }

    /// When [`Ending::tick`] is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        let first = self.killing.is_none();
        let living = self.round(now);
        if first && living {
            self.grace_exceeded = true;
        }
    }

    fn round(&mut self, now: Instant) -> bool {
        let living = signal_tree(Signal::KILL);
        let pause = self
            .killing
            .map_or(FIRST_ROUND, |pause| (2 * pause).min(LAST_ROUND));
        self.killing = Some(pause);
        self.due = now + pause;
        living
    }
}

/// Signals every descendant. Tells whether any of them was alive.
fn signal_tree(signal: Signal) -> bool {
    // A scan that fails (no descriptors, no memory) is made again in the next round.
    let Ok(tree) = identity::descendants(std::process::id()) else {
        return true;
    };
    let mut living = false;
    for process in tree {
        // One that cannot be signalled must not save the others.
        let _ = identity::send_signal(process.identity(), signal);
        living |= !process.is_zombie();
    }
    living
}
