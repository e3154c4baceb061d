//! Services.

use berth_model::api::{Deploy, Effect, EffectKind};
use berth_model::id::{InstanceId, ServiceName, Slot};
use berth_model::instance::Stage;
use berth_model::service::{Revision, ServiceRecord};

use super::Draft;
use super::step::{Fields, Step, Todo, table};
use crate::control::commands::services::{self, Change};
use crate::control::modelref;
use crate::control::world::World;

impl Draft<'_> {
    /// What is declared of services.
    pub(super) fn services(&mut self) {
        let wanted = self.wanted;
        for (name, deploy) in &wanted.services {
            self.service(name, deploy);
        }
    }

    fn service(&mut self, name: &ServiceName, deploy: &Deploy) {
        let path = format!("service.{name}");
        let before = self.errors.len();
        if deploy.service.as_ref().is_some_and(|other| other != name) {
            self.fail(
                &format!("{path}.service"),
                "an entry's service is the entry's name",
            );
        }
        let model = modelref::resolve(&self.world.records.models, &self.coming, &deploy.model);
        if let Err(problem) = model {
            self.fail(&format!("{path}.model"), problem.detail);
        }
        let runtime = deploy.runtime.unwrap_or_default();
        if let Err(problem) = services::check_runtime(self.world, runtime) {
            self.fail(&format!("{path}.runtime"), problem.detail);
        }
        let old = self.world.records.services.get(name);
        let adopts = old.is_some_and(|old| self.adopts(&path, old.fleet.as_ref()));
        if self.errors.len() > before {
            return;
        }
        let named = Deploy {
            service: Some(name.clone()),
            ..deploy.clone()
        };
        match services::prepare(self.world, &named, &self.coming) {
            Err(problem) => self.fail(&path, problem.detail),
            Ok(mut prepared) => {
                prepared.service.fleet = Some(self.wanted.fleet.clone());
                let new = fields(&prepared.wanted, &prepared.service);
                self.steps.push(Step {
                    subject: format!("service/{name}"),
                    old: old.and_then(present),
                    new: Some(new),
                    basis: basis(old),
                    adopts,
                    effects: effects(self.world, old, &prepared),
                    todo: Todo::Service(Box::new(prepared)),
                });
            }
        }
    }
}

/// What a service is now, as far as users decide it.
pub(super) fn present(service: &ServiceRecord) -> Option<Fields> {
    let current = service.current()?;
    Some(fields(current, service))
}

/// What else tells that a user has changed it.
pub(super) fn basis(service: Option<&ServiceRecord>) -> String {
    service.map_or(String::new(), |s| {
        let revision = s.current().map_or(0, |r| r.number);
        format!("{revision} {} {:?}", s.deleting, s.fleet)
    })
}

fn fields(revision: &Revision, service: &ServiceRecord) -> Fields {
    let mut fields = vec![
        (
            "model".to_owned(),
            format!("{}@{}", revision.model, revision.version),
        ),
        ("replicas".to_owned(), service.replicas.to_string()),
        (
            "max_unavailable".to_owned(),
            service.max_unavailable.to_string(),
        ),
        ("runtime".to_owned(), revision.runtime.to_string()),
    ];
    if let Some(pool) = &revision.pool {
        fields.push(("pool".to_owned(), pool.clone()));
    }
    if let Some(spread) = &revision.spread {
        fields.push(("spread".to_owned(), spread.join(", ")));
    }
    fields.extend(table("env", &revision.env));
    fields
}

/// The instances of a service that shall run.
pub(super) fn running(world: &World, name: &ServiceName) -> Vec<InstanceId> {
    let id = |revision, ordinal, attempt| InstanceId {
        slot: Slot {
            service: name.clone(),
            revision,
            ordinal,
        },
        attempt,
    };
    let all = id(0, 0, 0)..=id(u32::MAX, u32::MAX, u32::MAX);
    let all = world.records.instances.range(all);
    all.filter(|(_, i)| i.stage == Stage::Running)
        .map(|(id, _)| id.clone())
        .collect()
}

fn effects(
    world: &World,
    old: Option<&ServiceRecord>,
    prepared: &services::Prepared,
) -> Vec<Effect> {
    let after = prepared.service.replicas;
    let before = old.map_or(0, |old| old.replicas);
    let mut effects = Vec::new();
    if prepared.change == Change::Revise && old.is_some() {
        let all = running(world, &prepared.service.name);
        let kept = all.len().min(after as usize);
        if kept > 0 {
            effects.push(replace(all.into_iter().take(kept).collect()));
        }
    }
    if after > before {
        effects.push(counted(EffectKind::Start, after - before));
    } else if after < before {
        effects.push(counted(EffectKind::Stop, before - after));
    }
    effects
}

fn replace(instances: Vec<InstanceId>) -> Effect {
    let count = u32::try_from(instances.len()).unwrap_or(u32::MAX);
    let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
    let what = match count {
        1 => "1 instance is replaced".to_owned(),
        n => format!("{n} instances are replaced, one by one"),
    };
    Effect {
        kind: EffectKind::Replace,
        count,
        instances,
        message: format!("{what}: {}", names.join(", ")),
    }
}

/// So many instances start or stop; which, is decided when it is time.
pub(super) fn counted(kind: EffectKind, count: u32) -> Effect {
    let one = count == 1;
    let what = match (kind, one) {
        (EffectKind::Start, true) => "1 instance starts".to_owned(),
        (EffectKind::Start, false) => format!("{count} instances start"),
        (_, true) => "1 instance drains and stops".to_owned(),
        (_, false) => format!("{count} instances drain and stop"),
    };
    Effect {
        kind,
        count,
        instances: Vec::new(),
        message: what,
    }
}
