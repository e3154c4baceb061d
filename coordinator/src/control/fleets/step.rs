//! One thing that is declared: what it is, what it shall be, and what has to be done for it.

use berth_model::api::{ChangeAction, Effect, FieldChange, FleetChange};
use berth_model::id::{FleetName, JobName, PoolName, ServiceName};
use berth_model::node::NodeRecord;
use berth_model::pool::PoolRecord;
use sha2::{Digest, Sha256};

use crate::control::commands::services;

/// What people read of a thing, field by field in a fixed order.
pub(super) type Fields = Vec<(String, String)>;

/// One thing.
#[derive(Debug)]
pub(super) struct Step {
    /// As in `service/web`.
    pub(super) subject: String,
    /// What it is; none if it is not there.
    pub(super) old: Option<Fields>,
    /// What it shall be; none if it goes.
    pub(super) new: Option<Fields>,
    /// What else a plan was made from: it counts for the version, and nobody is shown it.
    pub(super) basis: String,
    /// It is there as declared, and was not this fleet's.
    pub(super) adopts: bool,
    /// What that moves, starts or stops.
    pub(super) effects: Vec<Effect>,
    /// What has to be done, also if only its owner changes.
    pub(super) todo: Todo,
}

/// What has to be done for a thing. Nothing of it can fail.
#[derive(Debug)]
pub(super) enum Todo {
    /// Nothing here: whoever asked has to register it before.
    Nothing,
    /// Keep this of a node.
    Node(Box<NodeRecord>),
    /// Keep this pool.
    Pool(PoolRecord),
    /// Deploy what was prepared.
    Service(Box<services::Prepared>),
    /// Create this job.
    Job(JobName),
    /// This job is this fleet's from now on.
    OwnJob(JobName, FleetName),
    /// Prune a service.
    DeleteService(ServiceName),
    /// Prune a job.
    DeleteJob(JobName),
    /// Prune a pool.
    DeletePool(PoolName),
}

impl Step {
    /// Whether anything of it changes that people see.
    pub(super) fn changes(&self) -> bool {
        self.old != self.new
    }

    /// The version of what was looked at and of what comes of it: the same again only if neither has
    /// changed.
    pub(super) fn version(&self) -> String {
        let text = format!("{:?}\n{:?}\n{}", self.old, self.new, self.basis);
        hex::encode(Sha256::digest(text).get(..8).unwrap_or_default())
    }

    /// As it is shown.
    pub(super) fn change(&self) -> FleetChange {
        let action = match (&self.old, &self.new) {
            (None, _) => ChangeAction::Create,
            (Some(_), Some(_)) => ChangeAction::Change,
            (Some(_), None) => ChangeAction::Delete,
        };
        FleetChange {
            subject: self.subject.clone(),
            action,
            fields: diff(self.old.as_ref(), self.new.as_ref()),
            effects: self.effects.clone(),
        }
    }
}

/// The fields that differ, in the order of the new ones and then of those that go.
fn diff(old: Option<&Fields>, new: Option<&Fields>) -> Vec<FieldChange> {
    fn fields(fields: Option<&Fields>) -> impl Iterator<Item = &(String, String)> {
        fields.into_iter().flatten()
    }
    let find = |of: Option<&Fields>, name: &str| {
        let mut of = fields(of);
        of.find(|(field, _)| field == name).map(|(_, v)| v.clone())
    };
    let names = fields(new).map(|(name, _)| name);
    let gone = fields(old)
        .map(|(name, _)| name)
        .filter(|name| find(new, name).is_none());
    names
        .chain(gone)
        .map(|name| FieldChange {
            field: name.clone(),
            old: find(old, name),
            new: find(new, name),
        })
        .filter(|change| change.old != change.new)
        .collect()
}

/// A table's entries as fields `TABLE.KEY`.
pub(super) fn table<'a>(
    name: &str,
    table: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Fields {
    let entries = table.into_iter();
    entries
        .map(|(k, v)| (format!("{name}.{k}"), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn step(old: Option<&str>, new: Option<&str>, basis: &str) -> Step {
        Step {
            subject: "service/web".into(),
            old: old.map(fields),
            new: new.map(fields),
            basis: basis.into(),
            adopts: false,
            effects: Vec::new(),
            todo: Todo::Nothing,
        }
    }

    #[test]
    fn a_change_tells_only_the_fields_that_differ() {
        let step = step(Some("a=1 b=2 c=3"), Some("a=1 b=3 d=4"), "");
        assert!(step.changes());
        let change = step.change();
        let texts: Vec<String> = change
            .fields
            .iter()
            .map(|f| format!("{}: {:?} {:?}", f.field, f.old, f.new))
            .collect();
        assert_eq!(
            texts,
            [
                "b: Some(\"2\") Some(\"3\")",
                "d: None Some(\"4\")",
                "c: Some(\"3\") None"
            ]
        );
        assert_eq!(change.action, ChangeAction::Change);
    }

    #[test]
    fn a_version_is_of_the_present_the_wish_and_what_they_came_from() {
        let one = step(Some("a=1"), Some("a=2"), "1").version();
        assert_eq!(one, step(Some("a=1"), Some("a=2"), "1").version());
        assert_eq!(one.len(), 16);
        for other in [
            step(Some("a=3"), Some("a=2"), "1"),
            step(Some("a=1"), Some("a=3"), "1"),
            step(Some("a=1"), Some("a=2"), "2"),
            step(None, Some("a=2"), "1"),
        ] {
            assert_ne!(one, other.version());
        }
    }
}
