//! Pods that join: each is exactly one instance, by its token, and never a second time.

use berth_model::id::{InstanceId, JobName};
use berth_model::instance::{InstanceSpec, PodRecord, Stage};
use berth_model::problem::Problem;

use super::orders::POD;
use super::{WorkName, pod_secret};
use crate::control::agent::AgentName;
use crate::control::commands::jobs;
use crate::control::commands::joining::same_bytes;
use crate::control::publish;
use crate::control::world::World;
use crate::control::{Join, PodJoin};

/// Lets a Pod in: as the instance that its token is for.
pub(crate) fn join(
    world: &mut World,
    join: &Join,
    pod: &PodJoin,
) -> Result<(AgentName, InstanceSpec), Problem> {
    let id = match check_token(world, join)? {
        WorkName::Instance(id) => {
            admit(world, &id, join, pod)?;
            id
        }
        WorkName::Job { name, born } => claim(world, join, &name, born, pod)?,
    };
    let record = world.records.instances.get(&id);
    let spec = record.and_then(|record| publish::build(world, record));
    let spec = spec.ok_or_else(|| not_wanted(&id))?;
    Ok((AgentName::Pod(id), spec))
}

/// A Pod of a job's Job: it gets a free shard, the same one however often it asks.
fn claim(
    world: &mut World,
    join: &Join,
    name: &JobName,
    born: u64,
    pod: &PodJoin,
) -> Result<InstanceId, Problem> {
    let job = world.records.jobs.get(name);
    if job.is_none_or(|job| job.created.0 != born) {
        return Err(Problem::new(
            403,
            crate::control::commands::agents::REMOVED,
            "Not wanted",
            format!("job {name} is gone: its Job is deleted soon"),
        ));
    }
    let pod = PodRecord {
        job_uid: pod.job_uid.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        key_hash: join.key_hash.clone(),
    };
    jobs::claim(world, name, pod)
}

/// Whose token it is. Whether it is wrong or for something unknown is not told apart for strangers.
fn check_token(world: &World, join: &Join) -> Result<WorkName, Problem> {
    let text = join.token_id.strip_prefix(POD).map(hex::decode);
    let work = text
        .and_then(Result::ok)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.parse::<WorkName>().ok());
    work.filter(|work| {
        let wanted = pod_secret(&world.pod_key, work);
        same_bytes(join.token_secret.as_bytes(), wanted.as_bytes())
    })
    .ok_or_else(|| Problem::unauthorized("this Pod's token is not one of this coordinator"))
}

fn not_wanted(id: &InstanceId) -> Problem {
    Problem::new(
        403,
        crate::control::commands::agents::REMOVED,
        "Not wanted",
        format!("instance {id} is not wanted any more: its Job is deleted soon"),
    )
}

/// The first Pod of an instance's Job is the instance. Another Job, or a second Pod of the same Job (made by
/// Kubernetes because the first was deleted), is not: it ends, and Berth makes the next attempt.
fn admit(world: &mut World, id: &InstanceId, join: &Join, pod: &PodJoin) -> Result<(), Problem> {
    let record = world
        .records
        .instances
        .get(id)
        .ok_or_else(|| not_wanted(id))?;
    let wanted = matches!(record.stage, Stage::Running | Stage::Draining);
    if record.place.cluster().is_none() || !wanted {
        return Err(not_wanted(id));
    }
    let known = record.pod.clone().unwrap_or_default();
    let differs = |known: &str, given: &str| !known.is_empty() && known != given;
    if differs(&known.job_uid, &pod.job_uid) {
        return Err(taken(id, "its Job was made a second time by somebody else"));
    }
    if differs(&known.uid, &pod.uid) {
        let why = format!("Pod {} was it before this one", known.name);
        return Err(taken(id, &why));
    }
    if pod.job_uid.is_empty() || pod.uid.is_empty() {
        return Err(Problem::invalid(
            "a Pod joins with its UID and that of its Job (downward API)",
        ));
    }
    let mut record = record.clone();
    record.pod = Some(PodRecord {
        job_uid: pod.job_uid.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        key_hash: join.key_hash.clone(),
    });
    world.records.instances.put(id.clone(), record);
    Ok(())
}

fn taken(id: &InstanceId, why: &str) -> Problem {
    Problem::new(
        403,
        "pod-replaced",
        "Not this Pod",
        format!(
            "instance {id} has had its Pod: {why}. This one ends; Berth makes the next attempt"
        ),
    )
}
