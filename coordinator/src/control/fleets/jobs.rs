//! Jobs: made once, never changed.

use std::collections::BTreeMap;

use berth_model::api::{CreateJob, Effect, EffectKind, JobFile, JobInput};
use berth_model::id::JobName;
use berth_model::job::JobRecord;
use berth_model::pool::POOL_LABEL;
use berth_model::problem::Problem;

use super::Draft;
use super::step::{Fields, Step, Todo, table};
use crate::control::NewJob;
use crate::control::commands::{jobs, services};
use crate::control::modelref;

impl Draft<'_> {
    /// What is declared of jobs.
    pub(super) fn jobs(&mut self) {
        let wanted = self.wanted;
        for (name, job) in &wanted.jobs {
            self.job(name, job);
        }
        let new = |step: &&Step| matches!(step.todo, Todo::Job(_));
        let new = self.steps.iter().filter(new).count();
        if let Err(problem) = jobs::room(self.world, new) {
            self.errors.push(problem.detail);
        }
    }

    fn job(&mut self, name: &JobName, wanted: &CreateJob) {
        let path = format!("job.{name}");
        if wanted.name.as_ref().is_some_and(|other| other != name) {
            self.fail(
                &format!("{path}.name"),
                "an entry's name is the entry's own",
            );
        }
        if wanted.request.is_some() {
            self.fail(
                &format!("{path}.request"),
                "a declared job has no request key",
            );
        }
        let services = &self.world.records.services;
        if self.wanted.services.contains_key(name.as_str()) || services.contains_key(name.as_str())
        {
            self.fail(
                &path,
                format!("{name} is the name of a service, which a job cannot have: choose another"),
            );
            return;
        }
        match self.world.records.jobs.get(name) {
            None => self.new_job(&path, name, wanted),
            Some(old) if old.deleting => self.fail(
                &path,
                format!("job {name} is being deleted: wait until `berth job show {name}` no longer finds it"),
            ),
            Some(old) => self.old_job(&path, old, wanted),
        }
    }

    fn new_job(&mut self, path: &str, name: &JobName, wanted: &CreateJob) {
        let before = self.errors.len();
        let model = modelref::resolve(&self.world.records.models, &self.coming, &wanted.model);
        if let Err(problem) = &model {
            self.fail(&format!("{path}.model"), &problem.detail);
        }
        let runtime = wanted.runtime.unwrap_or_default();
        if let Err(problem) = services::check_runtime(self.world, runtime) {
            self.fail(&format!("{path}.runtime"), problem.detail);
        }
        if let Err(message) = wanted.check() {
            self.fail(path, message);
        }
        let Some(model) = model.ok().filter(|_| self.errors.len() == before) else {
            return;
        };
        let completions = wanted.completions.unwrap_or(1);
        let parallelism = wanted.parallelism.unwrap_or(completions);
        let at_a_time = if parallelism < completions {
            format!(", {parallelism} at a time")
        } else {
            String::new()
        };
        let effect = Effect {
            kind: EffectKind::Start,
            count: completions,
            instances: Vec::new(),
            message: format!(
                "at most {completions} {}{at_a_time}",
                if completions == 1 {
                    "task runs"
                } else {
                    "tasks run"
                }
            ),
        };
        self.steps.push(Step {
            subject: format!("job/{name}"),
            old: None,
            new: Some(fields(wanted, format!("{}@{}", model.name, model.version))),
            basis: String::new(),
            adopts: false,
            effects: vec![effect],
            todo: Todo::Job(name.clone()),
        });
    }

    /// A job that is there must be as declared: it cannot be changed any more.
    fn old_job(&mut self, path: &str, old: &JobRecord, wanted: &CreateJob) {
        let model = self.model_of(old, wanted);
        let mut wish = wanted.clone();
        let shards = u32::try_from(old.shards.len()).unwrap_or(u32::MAX);
        wish.parallelism = Some(wish.parallelism.unwrap_or(shards));
        let mut there = request(old);
        there.parallelism = Some(old.parallelism);
        let is = fields(&there, there.model.clone());
        let shall = fields(&wish, model);
        let adopts = self.adopts(path, old.fleet.as_ref());
        let todo = Todo::OwnJob(old.name.clone(), self.wanted.fleet.clone());
        let step = Step {
            subject: format!("job/{}", old.name),
            old: Some(is),
            new: Some(shall),
            basis: format!("{} {:?}", old.revision, old.fleet),
            adopts,
            effects: Vec::new(),
            todo,
        };
        let none = || "none".to_owned();
        for change in step.change().fields {
            let name = &old.name;
            let message = format!(
                "it is {} and declared is {}, but a job never changes: give the new one another name, or delete \
                 this one with its output first (`berth job delete {name}`)",
                change.old.unwrap_or_else(none),
                change.new.unwrap_or_else(none)
            );
            self.fail(&format!("{path}.{}", change.field), message);
        }
        self.steps.push(step);
    }

    /// The version that a wish means for a job that is there: without one, the job's own.
    fn model_of(&self, old: &JobRecord, wanted: &CreateJob) -> String {
        if wanted.model == old.model.as_str() {
            return format!("{}@{}", old.model, old.version);
        }
        match modelref::resolve(&self.world.records.models, &self.coming, &wanted.model) {
            Ok(found) => format!("{}@{}", found.name, found.version),
            Err(_) => wanted.model.clone(),
        }
    }
}

/// Checks the jobs that are to be created with their shards. Errors: 422 with every mistake; 409 if one is
/// not among those that were cut.
pub(super) fn prepare(draft: &Draft<'_>, new: Vec<NewJob>) -> Result<Vec<jobs::Prepared>, Problem> {
    let mut cut: BTreeMap<JobName, NewJob> = BTreeMap::new();
    for mut new in new {
        if let Some(name) = &new.wanted.name {
            let name = name.clone();
            new.wanted.request = None;
            cut.insert(name, new);
        }
    }
    let mut errors = Vec::new();
    let mut prepared = Vec::new();
    for step in &draft.steps {
        let Todo::Job(name) = &step.todo else {
            continue;
        };
        let Some(new) = cut.remove(name) else {
            return Err(Problem::conflict(format!(
                "job {name} was deleted while the fleet was being applied: apply it again"
            )));
        };
        match jobs::prepare(draft.world, new) {
            Ok(job) => prepared.push(job),
            Err(problem) => errors.push(format!("job.{name}: {}", problem.detail)),
        }
    }
    if errors.is_empty() {
        return Ok(prepared);
    }
    let detail = "jobs of the fleet cannot be created; nothing was changed";
    Err(Problem {
        errors,
        ..Problem::new(422, "invalid-fleet", "Invalid fleet", detail)
    })
}

/// The request that would make this job.
pub(super) fn request(job: &JobRecord) -> CreateJob {
    let shards = u32::try_from(job.shards.len()).unwrap_or(u32::MAX);
    CreateJob {
        model: format!("{}@{}", job.model, job.version),
        name: Some(job.name.clone()),
        request: None,
        runtime: Some(job.runtime).filter(|r| *r != Default::default()),
        pool: job.node_labels.get(POOL_LABEL).cloned(),
        env: job.env.clone(),
        completions: Some(job.wanted_shards.unwrap_or(shards)).filter(|n| *n != 1),
        parallelism: Some(job.parallelism).filter(|n| *n != shards),
        retries: Some(job.retries).filter(|n| *n != jobs::DEFAULT_RETRIES),
        deadline: job.deadline,
        input: input(job),
    }
}

/// The input that the shards were cut from. An empty file leaves nothing, as no input does.
fn input(job: &JobRecord) -> Option<JobInput> {
    let folder = job.shards.iter().any(|shard| shard.folder);
    let mut files: BTreeMap<&str, JobFile> = BTreeMap::new();
    for piece in job.shards.iter().flat_map(|shard| &shard.pieces) {
        let end = piece.offset.saturating_add(piece.bytes);
        let file = files.entry(&piece.name).or_insert_with(|| JobFile {
            name: piece.name.clone(),
            blob: piece.blob,
            bytes: 0,
        });
        file.bytes = file.bytes.max(end);
    }
    let files: Vec<JobFile> = files.into_values().collect();
    (folder || !files.is_empty()).then_some(JobInput { folder, files })
}

fn fields(job: &CreateJob, model: String) -> Fields {
    let number = |n: Option<u32>, default: u32| n.unwrap_or(default).to_string();
    let completions = job.completions.unwrap_or(1);
    let mut fields: Fields = vec![("model".to_owned(), model)];
    if let Some(input) = described(job.input.as_ref()) {
        fields.push(("input".to_owned(), input));
    }
    fields.push(("completions".to_owned(), completions.to_string()));
    fields.push((
        "parallelism".to_owned(),
        number(job.parallelism, completions),
    ));
    fields.push((
        "retries".to_owned(),
        number(job.retries, jobs::DEFAULT_RETRIES),
    ));
    if let Some(deadline) = job.deadline {
        fields.push(("deadline".to_owned(), deadline.to_string()));
    }
    let runtime = job.runtime.unwrap_or_default();
    fields.push(("runtime".to_owned(), runtime.to_string()));
    if let Some(pool) = &job.pool {
        fields.push(("pool".to_owned(), pool.clone()));
    }
    fields.extend(table("env", &job.env));
    fields
}

/// An input in one line: the same text only for the same content.
fn described(input: Option<&JobInput>) -> Option<String> {
    let input = input?;
    if !input.folder {
        let file = input.files.first().filter(|file| file.bytes > 0)?;
        return Some(format!("{} bytes, {}", file.bytes, file.blob));
    }
    let mut files: Vec<&JobFile> = input.files.iter().collect();
    files.sort_by_key(|file| &file.name);
    let mut hash = digest_of(&files);
    hash.truncate(16);
    let bytes: u64 = files
        .iter()
        .map(|file| file.bytes)
        .fold(0, u64::saturating_add);
    Some(format!("{} files, {bytes} bytes, {hash}", files.len()))
}

fn digest_of(files: &[&JobFile]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for file in files {
        hash.update(format!("{:?} {} {}\n", file.name, file.blob, file.bytes));
    }
    hex::encode(hash.finalize())
}
