//! Names and labels of what Berth makes in a cluster.

use std::collections::BTreeMap;

use crate::work::WorkId;

/// Label: who made it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "berth";
/// Label: which fleet it belongs to.
pub const LABEL_FLEET: &str = "io.berth/fleet";
/// Label: a hash of what it is for; a Job of ours has the name *and* this.
pub const LABEL_WORK: &str = "io.berth/work";
/// Label: the service or job, for people.
pub(crate) const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Label: the instance, for people.
pub(crate) const LABEL_INSTANCE: &str = "io.berth/instance";
/// Label: the job, for people.
pub(crate) const LABEL_JOB: &str = "io.berth/job";
/// Annotation: what it is for, as [`WorkId`]'s text.
pub const ANNOTATION_WORK: &str = "io.berth/work";

/// Longest name of a Job: a Pod's name adds a dash and five characters, and 63 is a label's limit, of which
/// Kubernetes itself keeps five more.
const MAX: usize = 52;
const LABEL_MAX: usize = 63;

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// The Job's name. Equal work has equal names, so a create that is tried again makes no second Job.
///
/// An instance's ends in three numbers and a job's in `-job`, so that no two share a name; one that is too long
/// is cut, and a hash of the whole replaces the rest.
pub fn job_name(id: &WorkId) -> String {
    let name = match id {
        WorkId::Instance(id) => format!(
            "berth-{}-{}-{}-{}",
            id.slot.service, id.slot.revision, id.slot.ordinal, id.attempt
        ),
        WorkId::Job { name, .. } => format!("berth-{name}-job"),
    };
    shorten(name, MAX)
}

fn shorten(text: String, max: usize) -> String {
    if text.len() <= max {
        return text;
    }
    let hash = hash(&text);
    let mut cut = text;
    cut.truncate(max - hash.len() - 1);
    // A cut may end in a dash, and two in a row read badly.
    format!("{}-{hash}", cut.trim_end_matches(['-', '.']))
}

/// The value of [`LABEL_FLEET`].
pub(crate) fn fleet_label(fleet: &str) -> String {
    let plain = fleet
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && fleet.len() <= LABEL_MAX
        && fleet.starts_with(|c: char| c.is_ascii_alphanumeric())
        && fleet.ends_with(|c: char| c.is_ascii_alphanumeric());
    if plain { fleet.to_owned() } else { hash(fleet) }
}

/// The value of [`LABEL_WORK`].
pub(crate) fn work_label(id: &WorkId) -> String {
    hash(&id.to_string())
}

/// The labels of a Job and its Pods.
pub(crate) fn labels(fleet: &str, id: &WorkId) -> BTreeMap<String, String> {
    let (name, key, value) = match id {
        WorkId::Instance(id) => (id.slot.service.as_str(), LABEL_INSTANCE, id.to_string()),
        WorkId::Job { name, .. } => (name.as_str(), LABEL_JOB, name.to_string()),
    };
    [
        (LABEL_MANAGED_BY, MANAGED_BY.to_owned()),
        (LABEL_FLEET, fleet_label(fleet)),
        (LABEL_WORK, work_label(id)),
        (LABEL_NAME, name.to_owned()),
        (key, shorten(value, LABEL_MAX)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What lists and watches select: everything of this fleet.
pub(crate) fn selector(fleet: &str) -> String {
    format!(
        "{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_FLEET}={}",
        fleet_label(fleet)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(service: &str, revision: u32, ordinal: u32, attempt: u32) -> WorkId {
        format!("instance:{service}.{revision}.{ordinal}.{attempt}")
            .parse()
            .unwrap()
    }

    #[test]
    fn names_are_readable_as_long_as_they_fit() {
        assert_eq!(job_name(&id("web", 1, 0, 3)), "berth-web-1-0-3");
        let job: WorkId = "job:scores@17".parse().unwrap();
        assert_eq!(job_name(&job), "berth-scores-job");
        assert_eq!(job.to_string(), "job:scores@17");
        for bad in ["job:scores", "web.1.0.3", "instance:web", "job:A@1", ""] {
            assert!(bad.parse::<WorkId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fleets_that_are_no_label_are_hashed() {
        assert_eq!(fleet_label("f-1"), "f-1");
        for odd in ["", "-a", "a/b", &"x".repeat(64)] {
            assert_eq!(fleet_label(odd).len(), 16, "{odd}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        // Names that end in numbers or `-job`, and long ones, are the ones that could meet.
        prop_oneof![
            "[a-c]{1,2}(-[0-2]){0,4}(-job)?",
            "[a-b]{45}[a-b0-1-]{0,17}[a-b0-1]",
        ]
    }

    fn any_id() -> impl Strategy<Value = WorkId> {
        prop_oneof![
            (name(), 0..3_u32, 0..3_u32, 0..3_u32).prop_map(|(n, r, o, a)| id(&n, r, o, a)),
            name().prop_map(|n| format!("job:{n}@1").parse().unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn names_are_dns_safe_short_and_never_shared(a in any_id(), b in any_id()) {
            let name = job_name(&a);
            prop_assert!(name.len() <= MAX);
            prop_assert!(name.starts_with("berth-") && !name.ends_with('-'));
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert_eq!(a == b, name == job_name(&b));
            for value in labels("fleet", &a).values() {
                prop_assert!(value.len() <= LABEL_MAX && !value.is_empty());
                prop_assert!(value.ends_with(|c: char| c.is_ascii_alphanumeric()));
            }
            prop_assert_eq!(a.to_string().parse::<WorkId>().unwrap(), a);
        }
    }
}
