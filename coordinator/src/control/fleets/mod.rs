//! Fleets as a whole: what fleet files declare becomes one plan, which is carried out whole or not at all.
//!
//! [`plan`] is a pure function of the world: for each thing that is declared a [`step::Step`] with what it is,
//! what it shall be and what has to be done. [`apply`] makes the same plan, compares its versions with those
//! of the plan that somebody looked at, and does what cannot fail any more, with the same functions that
//! single requests use.

mod effects;
mod export;
mod jobs;
mod models;
mod nodes;
mod pools;
mod prune;
mod services;
mod step;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use berth_model::api::{Fleet, FleetPlan, FleetRequest};
use berth_model::id::FleetName;
use berth_model::problem::Problem;

use self::step::{Step, Todo};
use super::NewJob;
use super::commands;
use super::events::Happened;
use super::modelref::Coming;
use super::world::World;

pub(crate) use self::export::export;

/// Most things that one fleet declares.
const MAX_ENTRIES: usize = 20_000;

/// What is declared, on its way to a plan.
struct Draft<'a> {
    world: &'a World,
    wanted: &'a Fleet,
    /// Whether things of other fleets may be taken over.
    adopt: bool,
    /// Versions that count as registered.
    coming: Coming,
    steps: Vec<Step>,
    errors: Vec<String>,
    warnings: Vec<String>,
    leftover: Vec<String>,
}

/// What would change. Errors: 422 with every mistake.
pub(crate) fn plan(world: &World, request: &FleetRequest) -> Result<FleetPlan, Problem> {
    draft(world, request, true).map(|draft| draft.shown())
}

/// Carries a fleet out: all of it, or nothing. `jobs` are those that are to be created, their inputs cut.
/// Errors: 422 with every mistake; 409 if something has changed since the plan whose versions are given.
pub(crate) fn apply(
    world: &mut World,
    request: &FleetRequest,
    jobs: Vec<NewJob>,
) -> Result<FleetPlan, Problem> {
    let draft = draft(world, request, false)?;
    let shown = draft.shown();
    if let Some(versions) = &request.versions {
        unchanged_since(versions, &shown.versions)?;
    }
    let fleet = draft.wanted.fleet.clone();
    let prepared = jobs::prepare(&draft, jobs)?;
    let todo: Vec<Todo> = draft.steps.into_iter().map(|step| step.todo).collect();
    carry_out(world, &fleet, todo, prepared);
    if !shown.changes.is_empty() {
        world.happened(&Happened::FleetApplied(&fleet, shown.changes.len()));
    }
    Ok(shown)
}

fn draft<'a>(
    world: &'a World,
    request: &'a FleetRequest,
    with_coming: bool,
) -> Result<Draft<'a>, Problem> {
    let wanted = &request.fleet;
    let mut draft = Draft {
        world,
        wanted,
        adopt: request.adopt,
        coming: Coming::new(),
        steps: Vec::new(),
        errors: Vec::new(),
        warnings: Vec::new(),
        leftover: Vec::new(),
    };
    let entries = wanted.nodes.len()
        + wanted.pools.len()
        + wanted.models.len()
        + wanted.services.len()
        + wanted.jobs.len();
    if entries > MAX_ENTRIES {
        return Err(Problem::invalid(format!(
            "{entries} entries are more than one fleet may declare ({MAX_ENTRIES}): make several fleets of them"
        )));
    }
    draft.nodes();
    draft.pools();
    draft.models(with_coming);
    draft.services();
    draft.jobs();
    draft.prune(request.prune);
    draft.effects();
    draft.doubts();
    if draft.errors.is_empty() {
        return Ok(draft);
    }
    let count = draft.errors.len();
    let s = if count == 1 { "" } else { "s" };
    Err(Problem {
        errors: draft.errors,
        ..Problem::new(
            422,
            "invalid-fleet",
            "Invalid fleet",
            format!("the fleet has {count} mistake{s}; nothing was changed"),
        )
    })
}

impl Draft<'_> {
    /// Notes a mistake of an entry, whose path has dots, as in `service.web.pool`.
    fn fail(&mut self, path: &str, message: impl std::fmt::Display) {
        self.errors.push(format!("{path}: {message}"));
    }

    /// Whether something that is there becomes this fleet's now. What another fleet's files declare is
    /// refused unless it may be taken over.
    fn adopts(&mut self, path: &str, owner: Option<&FleetName>) -> bool {
        match owner {
            Some(owner) if *owner == self.wanted.fleet => false,
            Some(owner) if !self.adopt => {
                self.fail(
                    path,
                    format!(
                        "the fleet files {owner} declare it: take it out of those, or take it over with --adopt"
                    ),
                );
                false
            }
            Some(_) | None => true,
        }
    }

    fn is_mine(&self, owner: Option<&FleetName>) -> bool {
        owner == Some(&self.wanted.fleet)
    }

    fn shown(&self) -> FleetPlan {
        let changes = self.steps.iter().filter(|step| step.changes());
        let adopted = self.steps.iter().filter(|step| step.adopts);
        let same = self.steps.iter().filter(|step| !step.changes()).count();
        let versions = self.steps.iter();
        FleetPlan {
            fleet: self.wanted.fleet.clone(),
            changes: changes.map(Step::change).collect(),
            unchanged: u32::try_from(same).unwrap_or(u32::MAX),
            adopted: adopted.map(|step| step.subject.clone()).collect(),
            leftover: self.leftover.clone(),
            warnings: self.warnings.clone(),
            // Registering a model is no change of what was looked at: what uses it names its version.
            versions: versions
                .filter(|step| !step.subject.starts_with("model/"))
                .map(|step| (step.subject.clone(), step.version()))
                .collect(),
        }
    }
}

/// Refuses if a plan made now is another one than that which was looked at.
fn unchanged_since(
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Result<(), Problem> {
    let mut subjects: Vec<&String> = then.keys().chain(now.keys()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects.retain(|subject| then.get(*subject) != now.get(*subject));
    if subjects.is_empty() {
        return Ok(());
    }
    let many = subjects.len();
    Err(Problem {
        errors: subjects.into_iter().cloned().collect(),
        ..Problem::new(
            409,
            "changed-since",
            "Changed since the plan",
            format!(
                "the plan is not what would be done now: somebody else changed what it was made from, or the \
                 files are others ({many} thing{}, listed below). Nothing was done: plan again, look at it, and \
                 apply then",
                if many == 1 { "" } else { "s" }
            ),
        )
    })
}

/// Does everything. Nothing here can fail.
fn carry_out(
    world: &mut World,
    fleet: &FleetName,
    todo: Vec<Todo>,
    mut prepared: Vec<commands::jobs::Prepared>,
) {
    for todo in todo {
        match todo {
            Todo::Nothing => {}
            Todo::Node(record) => nodes::keep(world, *record),
            Todo::Pool(record) => pools::keep(world, record),
            Todo::Service(service) => {
                commands::services::carry_out(world, *service);
            }
            Todo::Job(name) => {
                let at = prepared.iter().position(|p| p.job.name == name);
                if let Some(at) = at {
                    let mut job = prepared.swap_remove(at);
                    job.job.fleet = Some(fleet.clone());
                    commands::jobs::carry_out(world, job);
                }
            }
            Todo::OwnJob(name, fleet) => {
                if let Some(mut job) = world.records.jobs.get(&name).cloned() {
                    job.fleet = Some(fleet);
                    world.records.jobs.put(name, job);
                }
            }
            // What is gone meanwhile cannot be: this is one command.
            Todo::DeleteService(name) => {
                let _ = commands::services::delete(world, &name);
            }
            Todo::DeleteJob(name) => {
                let _ = commands::jobs::delete(world, &name);
            }
            Todo::DeletePool(name) => commands::pools::remove(world, &name),
        }
    }
}
