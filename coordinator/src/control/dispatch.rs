//! From a command to what it changes and how it is answered.

mod declared;

use berth_model::id::NodeName;
use berth_model::problem::Problem;

use super::actor::Actor;
use super::agent::AgentName;
use super::challenge::Second;
use super::clusters;
use super::commands::{agents, drains, gateways, jobs, joining, models, nodes, services};
use super::views;
use super::world::World;
use super::{Command, ControlError, Following, Join, Joined, Reply};

fn admitted(world: &mut World, join: &Join) -> Result<Joined, Problem> {
    if let Some(pod) = &join.pod {
        let (agent, spec) = clusters::join(world, join, pod)?;
        return Ok(Joined {
            agent,
            instance: Some(spec),
        });
    }
    let node = joining::join(world, join)?;
    Ok(Joined {
        agent: node.into(),
        instance: None,
    })
}

impl Actor {
    /// Carries out one command on the draft; its answer goes out after the commit.
    pub(crate) fn dispatch(&mut self, command: Command) -> Result<(), ControlError> {
        self.metrics.command();
        match command {
            Command::RegisterModel(version, reply) => self.change(
                reply,
                |w| models::register(w, *version),
                |_, version| Ok(version),
            ),
            Command::Deploy(deploy, reply) => self.change(
                reply,
                |w| services::deploy(w, &deploy),
                |w, name| views::service::one(w, &name),
            ),
            Command::Scale(name, replicas, reply) => self.change(
                reply,
                |w| services::scale(w, &name, replicas),
                |w, name| views::service::one(w, &name),
            ),
            Command::Delete(name, reply) => self.change(
                reply,
                |w| {
                    services::delete(w, &name)?;
                    // It may be gone by the time of the answer.
                    views::service::one(w, &name)
                },
                |_, view| Ok(view),
            ),
            Command::CreateToken(wanted, reply) => self.change(
                reply,
                |w| joining::create_token(w, wanted),
                |_, token| Ok(token),
            ),
            Command::Join(join, reply) => {
                self.change(reply, |w| admitted(w, &join), |_, joined| Ok(joined))
            }
            Command::ClusterReports(name, reports, reply) => self.change(
                reply,
                |w| {
                    clusters::take(w, &name, reports);
                    Ok(())
                },
                |_, ()| Ok(()),
            ),
            Command::ClusterReach(name, reach) => {
                self.stale |= clusters::reach(&mut self.world, &name, reach);
                self.seal()
            }
            other => self.dispatch_node(other),
        }
    }

    fn dispatch_node(&mut self, command: Command) -> Result<(), ControlError> {
        let view = |w: &World, name: NodeName| views::node::one(w, &name);
        match command {
            Command::Nodes(reply) => {
                self.read(reply, |w| Ok(views::node::all(w)));
                Ok(())
            }
            Command::Node(name, reply) => {
                self.read(reply, move |w| views::node::one(w, &name));
                Ok(())
            }
            Command::CordonNode(name, on, reply) => {
                self.change(reply, |w| nodes::cordon(w, &name, on), view)
            }
            Command::DrainNode(name, wanted, reply) => {
                self.change(reply, |w| drains::drain(w, &name, &wanted), view)
            }
            Command::LabelNode(name, wanted, reply) => {
                self.change(reply, |w| nodes::label(w, &name, wanted), view)
            }
            Command::RemoveNode(name, reply) => {
                self.change(reply, |w| nodes::remove(w, &name), |_, view| Ok(view))
            }
            Command::Declared(command) => self.dispatch_declared(command),
            other => self.dispatch_job(other),
        }
    }

    fn dispatch_job(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::CreateJob(new, reply) => self.change(
                reply,
                |w| jobs::create(w, *new),
                |w, name| views::job::one(w, &name),
            ),
            Command::DeleteJob(name, reply) => self.change(
                reply,
                |w| {
                    jobs::delete(w, &name)?;
                    // It may be gone by the time of the answer.
                    views::job::one(w, &name)
                },
                |_, view| Ok(view),
            ),
            Command::AnnounceOutput(agent, task, blob, reply) => self.change(
                reply,
                |w| jobs::announce(w, &agent, &task, blob),
                |_, ()| Ok(()),
            ),
            Command::LeavingsRemoved(name, reply) => {
                self.change(reply, |w| jobs::removed(w, &name), |_, ()| Ok(()))
            }
            other => self.dispatch_session(other),
        }
    }

    fn dispatch_session(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::AgentOpened(opened, reply) => {
                let second = Second {
                    opened: *opened,
                    reply,
                };
                match self.challenges.consider(&self.world, second) {
                    Some(second) => self.admit(second),
                    None => Ok(()),
                }
            }
            Command::AgentStatus(connection, changed, forgotten, reply) => {
                self.challenges.heard(connection);
                self.change(
                    reply,
                    |w| agents::status(w, connection, changed, &forgotten),
                    |_, ()| Ok(()),
                )
            }
            Command::AgentFacts(connection, facts, reply) => {
                self.challenges.heard(connection);
                self.change(
                    reply,
                    |w| agents::facts(w, connection, *facts),
                    |_, ()| Ok(()),
                )
            }
            Command::AgentHeard(connection) => {
                self.challenges.heard(connection);
                agents::heard(&mut self.world, connection);
                Ok(())
            }
            Command::AgentStatistics(connection, statistics) => {
                self.challenges.heard(connection);
                agents::statistics(&mut self.world, connection, *statistics);
                Ok(())
            }
            Command::AgentAcknowledged(connection, order, refused) => {
                self.challenges.heard(connection);
                agents::acknowledged(&mut self.world, connection, order, refused);
                self.seal()
            }
            Command::Disk(found) => {
                self.world.disk = found;
                Ok(())
            }
            Command::AgentClosed(connection) => {
                self.stale |= agents::close(&mut self.world, connection).is_some();
                Ok(())
            }
            other => self.dispatch_gateway(other),
        }
    }

    fn dispatch_gateway(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::GatewayOpened(opened, reply) => {
                let tables = self.tables.clone();
                self.change(
                    reply,
                    |w| gateways::open(w, &opened),
                    move |_, (connection, over)| {
                        Ok(Following {
                            connection,
                            tables: tables.subscribe(),
                            over,
                        })
                    },
                )
            }
            Command::GatewayKey(connection, key, reply) => self.change(
                reply,
                |w| gateways::key(w, connection, &key),
                |_, ()| Ok(()),
            ),
            Command::RevokeGateway(name, reply) => {
                self.change(reply, |w| gateways::revoke(w, &name), |_, view| Ok(view))
            }
            Command::RemoveGateway(name, reply) => {
                self.change(reply, |w| gateways::remove(w, &name), |_, view| Ok(view))
            }
            Command::GatewayReported(connection, report) => {
                self.stale |= gateways::report(&mut self.world, connection, report);
                Ok(())
            }
            Command::GatewayClosed(connection) => {
                gateways::close(&mut self.world, connection);
                self.stale = true;
                Ok(())
            }
            Command::GatewayLeft(connection) => {
                gateways::leave(&mut self.world, connection);
                self.stale = true;
                Ok(())
            }
            other => {
                self.dispatch_read(other);
                Ok(())
            }
        }
    }

    fn dispatch_read(&mut self, command: Command) {
        match command {
            Command::Models(reply) => self.read(reply, |w| Ok(views::model::all(w))),
            Command::Model(name, reply) => {
                self.read(reply, move |w| views::model::one(w, &name));
            }
            Command::Services(reply) => self.read(reply, |w| Ok(views::service::all(w))),
            Command::Service(name, reply) => {
                self.read(reply, move |w| views::service::one(w, &name));
            }
            Command::Jobs(reply) => self.read(reply, |w| Ok(views::job::all(w))),
            Command::Job(name, reply) => {
                self.read(reply, move |w| views::job::one(w, &name));
            }
            Command::JobOutput(name, index, reply) => {
                self.read(reply, move |w| views::job::output(w, &name, index));
            }
            Command::JobTold(name, reply) => {
                self.read(reply, move |w| jobs::is_told(w, &name));
            }
            Command::Leavings(reply) => self.read(reply, |w| Ok(jobs::leavings(w))),
            Command::UnusedBlobs(blobs, reply) => {
                self.read(reply, move |w| Ok(jobs::unused(w, blobs)));
            }
            Command::Machines(reply) => self.read(reply, |w| Ok(views::node::machines(w))),
            Command::Gateways(reply) => self.read(reply, |w| Ok(views::gateway::all(w))),
            Command::Status(reply) => self.read(reply, |w| Ok(views::status::status(w))),
            Command::Events(after, reply) => {
                // Subscribed when answering: what is in the list is not told again.
                let events = self.events.clone();
                self.read(reply, move |w| {
                    let list = w.records.events.range(after.saturating_add(1)..);
                    let list = list.map(|(_, event)| event.clone()).collect();
                    Ok((list, events.subscribe()))
                });
            }
            other => self.dispatch_lookup(other),
        }
    }

    fn dispatch_lookup(&mut self, command: Command) {
        match command {
            Command::Clusters(reply) => self.read(reply, |w| Ok(views::cluster::all(w))),
            Command::Cluster(name, reply) => {
                self.read(reply, move |w| views::cluster::one(w, &name));
            }
            Command::ClusterOrders(name, reply) => {
                self.read(reply, move |w| views::cluster::orders(w, &name));
            }
            Command::AgentByKey(key_hash, reply) => {
                self.read(reply, move |w| agents::by_key(w, &key_hash));
            }
            Command::AgentOf(id, reply) => self.read(reply, move |w| {
                Ok(w.records.instances.get(&id).map(AgentName::of))
            }),
            Command::BlobWanted(blob, reply) => {
                self.read(reply, move |w| models::blob_bytes(w, &blob));
            }
            // Taken care of before; named, so that the compiler finds a command that nobody takes.
            Command::Declared(..)
            | Command::RegisterModel(..)
            | Command::Deploy(..)
            | Command::Scale(..)
            | Command::Delete(..)
            | Command::CreateJob(..)
            | Command::DeleteJob(..)
            | Command::AnnounceOutput(..)
            | Command::LeavingsRemoved(..)
            | Command::Nodes(..)
            | Command::UnusedBlobs(..)
            | Command::Node(..)
            | Command::CordonNode(..)
            | Command::DrainNode(..)
            | Command::LabelNode(..)
            | Command::RemoveNode(..)
            | Command::CreateToken(..)
            | Command::Join(..)
            | Command::ClusterReports(..)
            | Command::ClusterReach(..)
            | Command::AgentOpened(..)
            | Command::AgentStatus(..)
            | Command::AgentFacts(..)
            | Command::AgentHeard(..)
            | Command::AgentStatistics(..)
            | Command::AgentAcknowledged(..)
            | Command::AgentClosed(..)
            | Command::Disk(..)
            | Command::GatewayOpened(..)
            | Command::GatewayKey(..)
            | Command::RevokeGateway(..)
            | Command::RemoveGateway(..)
            | Command::GatewayReported(..)
            | Command::GatewayLeft(..)
            | Command::GatewayClosed(..)
            | Command::Models(..)
            | Command::Model(..)
            | Command::Services(..)
            | Command::Service(..)
            | Command::Jobs(..)
            | Command::Job(..)
            | Command::JobOutput(..)
            | Command::JobTold(..)
            | Command::Leavings(..)
            | Command::Machines(..)
            | Command::Gateways(..)
            | Command::Status(..)
            | Command::Events(..) => {}
        }
    }

    /// Changes the draft; the answer is made from the world after the commit. What is refused has
    /// changed nothing and is answered at once.
    fn change<A: Send + 'static, T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        apply: impl FnOnce(&mut World) -> Result<A, Problem>,
        view: impl FnOnce(&World, A) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(), ControlError> {
        match apply(&mut self.world) {
            Ok(value) => {
                self.stale = true;
                self.seal()?;
                self.answer(reply, self.groups.len(), move |w| view(w, value));
            }
            Err(problem) => {
                // A closed reply: whoever asked has gone.
                let _ = reply.send(Err(problem));
            }
        }
        Ok(())
    }

    /// Reads see what is on disk: they are answered after the batch's commit, whatever became of it.
    fn read<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        view: impl FnOnce(&World) -> Result<T, Problem> + Send + 'static,
    ) {
        self.answer(reply, 0, view);
    }

    fn answer<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        groups: usize,
        view: impl FnOnce(&World) -> Result<T, Problem> + Send + 'static,
    ) {
        let answer = Box::new(move |world: &World, outcome: Result<(), &Problem>| {
            let answer = match outcome {
                Ok(()) => view(world),
                Err(problem) => Err(problem.clone()),
            };
            let _ = reply.send(answer);
        });
        self.answers.push((groups, answer));
    }

    /// Begins a session.
    pub(crate) fn admit(&mut self, second: Second) -> Result<(), ControlError> {
        let Second { opened, reply } = second;
        self.change(
            reply,
            |w| {
                // It may have been removed while an earlier session was asked.
                agents::check_known(w, &opened.agent)?;
                Ok(agents::admit(w, opened))
            },
            |_, connection| Ok(connection),
        )
    }
}
