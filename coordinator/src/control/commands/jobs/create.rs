//! From a request to a job's record.

use std::collections::BTreeMap;

use berth_model::api::{CreateJob, rules};
use berth_model::id::{JobName, MAX_NAME, ModelName};
use berth_model::job::{JobRecord, JobState};
use berth_model::pool::POOL_LABEL;
use berth_model::problem::Problem;

use crate::control::NewJob;
use crate::control::commands::{check_size, services};
use crate::control::events::{Happened, OfJob};
use crate::control::modelref::{self, Coming, Resolved};
use crate::control::world::World;

/// Most jobs at a time, ended ones included.
const MAX_JOBS: usize = 10_000;
/// Most bytes of a new job's record, most of which is the list of its input files: outputs and failures
/// join it, and all of it has to fit into one transaction.
const MAX_BYTES: usize = 384 * 1024;
/// Longest request key.
const MAX_KEY: usize = 128;
pub(crate) const DEFAULT_RETRIES: u32 = 3;

/// A job that was checked against everything: what is left cannot fail.
pub(crate) struct Prepared {
    /// The job.
    pub(crate) job: JobRecord,
    /// The number in its name, if Berth chose it.
    number: Option<u64>,
}

/// Creates a job. The same request key again answers with the job that is there.
pub(crate) fn create(world: &mut World, new: NewJob) -> Result<JobName, Problem> {
    if let Some(there) = same_request(world, new.wanted.request.as_deref())? {
        return Ok(there);
    }
    let prepared = prepare(world, new)?;
    Ok(carry_out(world, prepared))
}

/// Checks a wish as far as that goes without its input. Versions that are `coming` count as registered.
pub(crate) fn check(
    world: &World,
    wanted: &CreateJob,
    coming: &Coming,
) -> Result<Resolved, Problem> {
    let model = modelref::resolve(&world.records.models, coming, &wanted.model)?;
    wanted.check().map_err(Problem::invalid)?;
    services::check_runtime(world, wanted.runtime.unwrap_or_default())?;
    room(world, 1)?;
    Ok(model)
}

/// Whether so many more jobs can be kept.
pub(crate) fn room(world: &World, more: usize) -> Result<(), Problem> {
    let there = world.records.jobs.len();
    if more == 0 || there + more <= MAX_JOBS {
        return Ok(());
    }
    Err(Problem::conflict(format!(
        "there are {there} jobs already, and at most {MAX_JOBS} are kept: delete some that have ended with \
         `berth job delete J`"
    )))
}

/// Checks a job whose input is cut, which changes nothing.
pub(crate) fn prepare(world: &World, new: NewJob) -> Result<Prepared, Problem> {
    let wanted = &new.wanted;
    let model = check(world, wanted, &Coming::new())?;
    let shards = u32::try_from(new.shards.len()).unwrap_or(u32::MAX);
    rules::completions(shards).map_err(Problem::invalid)?;
    let (name, number) = name(world, wanted.name.as_ref(), &model.name)?;
    let last = world.records.revisions.get(name.as_str()).copied();
    let pool = wanted.pool.iter();
    let node_labels = pool.map(|pool| (POOL_LABEL.to_owned(), pool.clone()));
    let job = JobRecord {
        name,
        revision: last.unwrap_or(0) + 1,
        request: wanted.request.clone(),
        model: model.name,
        serial: model.serial,
        version: model.version,
        digest: model.digest,
        runtime: wanted.runtime.unwrap_or_default(),
        node_labels: node_labels.collect(),
        env: wanted.env.clone(),
        shards: new.shards,
        note: new.note,
        wanted_shards: wanted.completions.filter(|asked| *asked != shards),
        fleet: None,
        parallelism: wanted.parallelism.unwrap_or(shards),
        retries: wanted.retries.unwrap_or(DEFAULT_RETRIES),
        deadline: wanted.deadline,
        state: JobState::Running,
        outputs: BTreeMap::new(),
        failures: Vec::new(),
        failed: 0,
        claims: BTreeMap::new(),
        cluster: None,
        uid: None,
        announced: BTreeMap::new(),
        deleting: false,
        emptied: false,
        created: world.wall,
        ended: None,
    };
    check_size("the job with the list of its input files", &job, MAX_BYTES)?;
    Ok(Prepared { job, number })
}

/// Creates what was prepared.
pub(crate) fn carry_out(world: &mut World, prepared: Prepared) -> JobName {
    let Prepared { job, number } = prepared;
    if let Some(number) = number {
        world.records.job_numbers.put(job.model.clone(), number);
    }
    world.records.revisions.put(job.service(), job.revision);
    world.happened(&Happened::Job(OfJob::Created(&job)));
    let name = job.name.clone();
    world.records.jobs.put(name.clone(), job);
    name
}

fn same_request(world: &World, key: Option<&str>) -> Result<Option<JobName>, Problem> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(Problem::invalid(format!(
            "a request key has 1 to {MAX_KEY} bytes"
        )));
    }
    let mut jobs = world.records.jobs.values();
    let there = jobs.find(|job| job.request.as_deref() == Some(key));
    Ok(there.map(|job| job.name.clone()))
}

/// The wanted name, or the model's with the next number that makes a free one, and that number.
fn name(
    world: &World,
    wanted: Option<&JobName>,
    model: &ModelName,
) -> Result<(JobName, Option<u64>), Problem> {
    let Some(name) = wanted else {
        return next(world, model);
    };
    if world.records.jobs.contains_key(name) {
        return Err(Problem::conflict(format!(
            "there is a job {name} already: choose another --name, or delete it with `berth job delete \
             {name}`"
        )));
    }
    if world.records.services.contains_key(name.as_str()) {
        return Err(Problem::conflict(format!(
            "{name} is the name of a service, which a job cannot have: choose another --name"
        )));
    }
    Ok((name.clone(), None))
}

fn next(world: &World, model: &ModelName) -> Result<(JobName, Option<u64>), Problem> {
    let mut number = world.records.job_numbers.get(model).copied().unwrap_or(0);
    loop {
        number += 1;
        let suffix = format!("-{number}");
        let model = model.as_str();
        let kept = model.get(..MAX_NAME - suffix.len()).unwrap_or(model);
        let name = JobName::new(format!("{}{suffix}", kept.trim_end_matches('-')))
            .map_err(|e| Problem::invalid(format!("{e}; name the job with --name")))?;
        let taken = world.records.jobs.contains_key(&name)
            || world.records.services.contains_key(name.as_str());
        if !taken {
            return Ok((name, Some(number)));
        }
    }
}
