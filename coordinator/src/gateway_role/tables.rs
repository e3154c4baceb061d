//! Tables on their way in: in force at once, on disk before they are acknowledged.

use std::path::PathBuf;
use std::sync::Arc;

use berth_gateway::{Handle, persist};
use berth_model::gateway::GatewayReport;
use berth_model::route::{Order, Table};
use tokio::task::JoinHandle;

/// The newest table: published, and saved by and by.
pub(super) struct Tables {
    gateway: Handle,
    path: PathBuf,
    /// The version on disk.
    saved: Option<Order>,
    /// What is in force and not on disk yet.
    unsaved: Option<Arc<Table>>,
    saving: Option<JoinHandle<Option<Order>>>,
}

impl Tables {
    pub(super) fn new(gateway: Handle, path: PathBuf, saved: Option<Order>) -> Self {
        Self {
            gateway,
            path,
            saved,
            unsaved: None,
            saving: None,
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

    /// Begins to save what is not saved, unless that is going on already. To be called now and then
    /// too, because a disk that was full may have room again.
    pub(super) fn save(&mut self) {
        let (None, Some(table)) = (&self.saving, self.unsaved.clone()) else {
            return;
        };
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

    /// Returns when a table has come to the disk, or could not; never if none is under way.
    pub(super) async fn saved(&mut self) {
        let Some(saving) = &mut self.saving else {
            return std::future::pending().await;
        };
        let saved = saving.await.ok().flatten();
        self.saving = None;
        let Some(version) = saved else { return };
        self.saved = Some(version);
        if self
            .unsaved
            .as_ref()
            .is_some_and(|table| table.version <= version)
        {
            self.unsaved = None;
        }
        self.save();
    }

    /// What control may be told: no table counts as acknowledged before it is on disk, because a
    /// gateway that starts anew serves by that.
    pub(super) fn report(&self) -> GatewayReport {
        let mut report = self.gateway.report();
        let saved = self.saved.unwrap_or_default();
        report.acknowledged = report.acknowledged.min(saved);
        report
    }
}
