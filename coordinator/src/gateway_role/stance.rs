//! What this process is to the others of its name, and what its follower has come to.

use tokio::sync::watch;

/// Where a process is between taking over and being taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stance {
    /// Another process serves: tables are put in force here, and that one writes them to the disk.
    Preparing,
    /// It serves.
    Serving,
    /// It serves, and another one that control may not know yet begins with the table on disk: no newer
    /// one is acknowledged, for an instance that only the newer table lacks would be stopped under it.
    Handing,
    /// Another process serves and writes; this one finishes its requests.
    Leaving {
        /// Whether control waits for that one by itself.
        known: bool,
    },
    /// All requests are over.
    Gone,
}

/// What the follower is told.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) stance: Stance,
    /// Processes of the same name that may still serve.
    pub(super) beside: Vec<String>,
}

/// What the follower tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether control knows this process; none before the first attempt is over.
    pub(super) known: Option<bool>,
    /// The stance that it has taken.
    pub(super) stance: Stance,
    /// Whether a table is on its way to the disk.
    pub(super) saving: bool,
    /// Whether the table in force is not on disk yet.
    pub(super) unsaved: bool,
}

/// Steers a follower and sees what it does.
pub(super) struct Helm {
    standing: watch::Sender<Standing>,
    seen: watch::Receiver<Seen>,
}

/// A follower's side of it.
pub(super) struct Watch {
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) seen: watch::Sender<Seen>,
}

/// How many earlier processes are remembered: more than finish their requests at a time.
const BESIDE: usize = 8;

impl Helm {
    pub(super) fn new(stance: Stance, beside: Vec<String>) -> (Self, Watch) {
        let (standing, heard) = watch::channel(Standing { stance, beside });
        let (seen, sees) = watch::channel(Seen {
            known: None,
            stance,
            saving: false,
            unsaved: false,
        });
        let helm = Self {
            standing,
            seen: sees,
        };
        let watch = Watch {
            standing: heard,
            seen,
        };
        (helm, watch)
    }

    /// Orders a stance and waits until it is taken.
    pub(super) async fn take(&self, stance: Stance) {
        self.standing
            .send_modify(|standing| standing.stance = stance);
        self.until(|seen| seen.stance == stance).await;
    }

    /// Another process of this name may serve from now on.
    pub(super) fn add(&self, incarnation: String) {
        self.standing.send_modify(|standing| {
            standing.beside.push(incarnation);
            let many = standing.beside.len().saturating_sub(BESIDE);
            standing.beside.drain(..many);
        });
    }

    /// Processes of the same name that may still serve.
    pub(super) fn beside(&self) -> Vec<String> {
        self.standing.borrow().beside.clone()
    }

    /// Waits until the follower has come to that; also returns if it is no more.
    pub(super) async fn until(&self, come: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(come).await.map(|seen| *seen);
        reached.unwrap_or_else(|_| *self.seen.borrow())
    }
}
