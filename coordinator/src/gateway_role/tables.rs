//! Tables on their way in: in force at once, on disk before they are acknowledged.

use std::path::PathBuf;
use std::sync::Arc;

use berth_gateway::{Handle, persist};
use berth_model::gateway::GatewayReport;
use berth_model::route::{Order, Table};
use tokio::task::JoinHandle;

use super::stance::{Stance, Watch};

/// The newest table: published, and saved by and by.
pub(super) struct Tables {
    gateway: Handle,
    path: PathBuf,
    /// The version on disk.
    saved: Option<Order>,
    /// What is in force and not on disk yet.
    unsaved: Option<Arc<Table>>,
    saving: Option<JoinHandle<Option<Order>>>,
    stance: Stance,
    /// Nothing newer is acknowledged.
    ceiling: Option<Order>,
    watch: Watch,
}

impl Tables {
    pub(super) fn new(gateway: Handle, path: PathBuf, saved: Option<Order>, watch: Watch) -> Self {
        let stance = watch.standing.borrow().stance;
        Self {
            gateway,
            path,
            saved,
            unsaved: None,
            saving: None,
            stance,
            ceiling: None,
            watch,
        }
    }

    /// Puts a table in force and begins to save it.
    pub(super) fn take(&mut self, table: Table) {
        let table = Arc::new(table);
        match self.gateway.publish(Table::clone(&table)) {
            Ok(()) => {
                if self.saved != Some(table.version) {
                    self.unsaved = Some(table);
                    self.save();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a route table of the coordinator is not taken");
            }
        }
    }

    /// Begins to save what is not saved, unless that is going on already, or is another process'
    /// business. To be called now and then too, because a disk that was full may have room again.
    pub(super) fn save(&mut self) {
        if matches!(self.stance, Stance::Serving | Stance::Handing)
            && let (None, Some(table)) = (&self.saving, self.unsaved.clone())
        {
            let path = self.path.clone();
            self.saving = Some(tokio::task::spawn_blocking(move || {
                match persist::save(&path, &table) {
                    Ok(()) => Some(table.version),
                    Err(error) => {
                        tracing::error!(
                            error = crate::chain(&error),
                            "the route table cannot be saved; not acknowledging it"
                        );
                        None
                    }
                }
            }));
        }
        self.tell();
    }

    /// Returns when a table has come to the disk, or could not, or another stance has been taken.
    pub(super) async fn news(&mut self) {
        tokio::select! {
            saved = finished(&mut self.saving) => self.finish(saved),
            changed = self.watch.standing.changed() => {
                if changed.is_err() {
                    // Whoever steers is gone: the process is about to end.
                    return std::future::pending().await;
                }
                let stance = self.watch.standing.borrow_and_update().stance;
                self.stand(stance);
            }
        }
    }

    fn finish(&mut self, saved: Option<Order>) {
        self.saving = None;
        if let Some(version) = saved {
            self.saved = Some(version);
            let is_old = |table: &mut Arc<Table>| table.version <= version;
            drop(self.unsaved.take_if(is_old));
            self.save();
        }
        self.tell();
    }

    fn stand(&mut self, stance: Stance) {
        self.stance = stance;
        match stance {
            Stance::Handing => self.ceiling = Some(self.saved.unwrap_or_default()),
            Stance::Preparing | Stance::Serving | Stance::Leaving { known: true } => {
                self.ceiling = None;
            }
            Stance::Leaving { known: false } | Stance::Gone => {}
        }
        self.save();
    }

    fn tell(&self) {
        self.watch.seen.send_if_modified(|seen| {
            let before = *seen;
            seen.stance = self.stance;
            seen.saving = self.saving.is_some();
            seen.unsaved = self.unsaved.is_some();
            *seen != before
        });
    }

    /// Whether control knows this process now.
    pub(super) fn known(&self, known: bool) {
        self.watch.seen.send_modify(|seen| seen.known = Some(known));
    }

    /// Whether this process has nothing left to do.
    pub(super) fn gone(&self) -> bool {
        self.stance == Stance::Gone
    }

    /// Processes of the same name that may still serve.
    pub(super) fn beside(&self) -> Vec<String> {
        self.watch.standing.borrow().beside.clone()
    }

    /// What control may be told: no table counts as acknowledged before it is on disk, because a
    /// gateway that starts anew serves by that.
    pub(super) fn report(&self) -> GatewayReport {
        let mut report = self.gateway.report();
        let limit = match self.stance {
            // Who starts anew does not begin with what this process has.
            Stance::Leaving { known: true } => None,
            _ => Some(self.ceiling.or(self.saved).unwrap_or_default()),
        };
        if let Some(limit) = limit {
            report.acknowledged = report.acknowledged.min(limit);
        }
        report
    }
}

/// Never, if nothing is being saved.
async fn finished(saving: &mut Option<JoinHandle<Option<Order>>>) -> Option<Order> {
    match saving {
        Some(saving) => saving.await.ok().flatten(),
        None => std::future::pending().await,
    }
}
