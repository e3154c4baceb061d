//! What this fleet's files declared once and do not any more.

use berth_model::api::{Effect, EffectKind};
use berth_model::id::{JobName, PoolName, ServiceName};
use berth_model::job::JobRecord;
use berth_model::pool::POOL_LABEL;

use super::step::{Fields, Step, Todo, table};
use super::{Draft, jobs, nodes, services};

impl Draft<'_> {
    /// Removes what is left over, or only names it. What is not this fleet's is never looked at.
    pub(super) fn prune(&mut self, prune: bool) {
        let mut steps = self.left_jobs();
        steps.extend(self.left_services());
        steps.extend(self.left_pools());
        steps.extend(self.left_labels());
        if prune {
            self.steps.extend(steps);
            self.used_pools();
        } else {
            self.leftover = steps.into_iter().map(|step| step.subject).collect();
        }
    }

    fn left_jobs(&self) -> Vec<Step> {
        let jobs = self.world.records.jobs.values();
        jobs.filter(|job| self.is_mine(job.fleet.as_ref()) && !job.deleting)
            .filter(|job| !self.wanted.jobs.contains_key(&job.name))
            .map(|job| {
                let fields = vec![("model".to_owned(), jobs::request(job).model)];
                let todo = Todo::DeleteJob(JobName::clone(&job.name));
                let basis = format!("{} {:?}", job.revision, job.fleet);
                gone(
                    format!("job/{}", job.name),
                    fields,
                    basis,
                    todo,
                    Some(of_job(job)),
                )
            })
            .collect()
    }

    fn left_services(&self) -> Vec<Step> {
        let services = self.world.records.services.values();
        services
            .filter(|s| self.is_mine(s.fleet.as_ref()) && !s.deleting)
            .filter(|s| !self.wanted.services.contains_key(&s.name))
            .map(|s| {
                let fields = services::present(s).unwrap_or_default();
                let todo = Todo::DeleteService(ServiceName::clone(&s.name));
                let running = services::running(self.world, &s.name);
                let count = u32::try_from(running.len()).unwrap_or(u32::MAX);
                // Of a service that has no instance nothing stops.
                let effect = (count > 0).then(|| Effect {
                    instances: running,
                    ..services::counted(EffectKind::Stop, count)
                });
                let subject = format!("service/{}", s.name);
                gone(subject, fields, services::basis(Some(s)), todo, effect)
            })
            .collect()
    }

    fn left_pools(&self) -> Vec<Step> {
        let pools = self.world.records.pools.values();
        pools
            .filter(|p| self.is_mine(p.fleet.as_ref()) && !self.wanted.pools.contains_key(&p.name))
            .map(|p| Step {
                subject: format!("pool/{}", p.name),
                old: Some(table("labels", &p.labels)),
                new: None,
                basis: format!("{:?}", p.fleet),
                adopts: false,
                effects: Vec::new(),
                todo: Todo::DeletePool(p.name.clone()),
            })
            .collect()
    }

    /// Labels on nodes that have no entry any more.
    fn left_labels(&self) -> Vec<Step> {
        let fleet = &self.wanted.fleet;
        let nodes = self.world.records.nodes.values();
        nodes
            .filter(|node| !self.wanted.nodes.contains_key(&node.name))
            .filter(|node| !nodes::mine(node, fleet).is_empty())
            .map(|node| nodes::step(node, fleet, None))
            .collect()
    }

    /// A pool stays while something that stays is placed in it.
    fn used_pools(&mut self) {
        let pools: Vec<PoolName> = self
            .steps
            .iter()
            .filter_map(|step| match &step.todo {
                Todo::DeletePool(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        for pool in pools {
            let users = self.users(&pool);
            if !users.is_empty() {
                self.errors.push(format!(
                    "pool {pool} is not declared any more, but {} placed in it: declare the pool, or place \
                     them elsewhere",
                    if let [one] = users.as_slice() {
                        format!("{one} is")
                    } else {
                        format!("{} are", users.join(", "))
                    }
                ));
            }
        }
    }

    /// What will be placed in a pool.
    fn users(&self, pool: &PoolName) -> Vec<String> {
        let goes = |subject: &str| {
            self.steps
                .iter()
                .any(|s| s.new.is_none() && s.subject == subject)
        };
        let is = |name: Option<&str>| name == Some(pool.as_str());
        let records = &self.world.records;
        let others = records.services.values().filter(|s| {
            let current = s.current().and_then(|r| r.pool.as_deref());
            !s.deleting && !self.wanted.services.contains_key(&s.name) && is(current)
        });
        let others = others.map(|s| format!("service/{}", s.name));
        let wanted = self.wanted.services.iter();
        let wanted = wanted.filter(|(_, s)| is(s.pool.as_deref()));
        let wanted = wanted.map(|(name, _)| format!("service/{name}"));
        let jobs = records.jobs.values().filter(|j| {
            !j.deleting
                && !j.state.is_over()
                && is(j.node_labels.get(POOL_LABEL).map(String::as_str))
        });
        let jobs = jobs.map(|j| format!("job/{}", j.name));
        let new = self.wanted.jobs.iter();
        let new =
            new.filter(|(name, j)| !records.jobs.contains_key(*name) && is(j.pool.as_deref()));
        let new = new.map(|(name, _)| format!("job/{name}"));
        let all = others.chain(wanted).chain(jobs).chain(new);
        all.filter(|subject| !goes(subject)).collect()
    }
}

fn of_job(job: &JobRecord) -> Effect {
    let rest = "its output and its logs are removed";
    Effect {
        kind: EffectKind::Stop,
        count: 0,
        instances: Vec::new(),
        message: if job.state.is_over() {
            rest.to_owned()
        } else {
            format!("its tasks stop; {rest}")
        },
    }
}

fn gone(subject: String, old: Fields, basis: String, todo: Todo, effect: Option<Effect>) -> Step {
    Step {
        subject,
        old: Some(old),
        new: None,
        basis,
        adopts: false,
        effects: effect.into_iter().collect(),
        todo,
    }
}
