//! What modules say of themselves for Prometheus: kept as long as their agents' sessions, and republished with Berth's
//! labels.

mod exposition;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_model::api::ServiceView;
use berth_model::id::InstanceId;
use berth_proto::v1::InstanceStatistics;

use crate::control::{AgentName, ConnectionId};
use exposition::{Label, Merged};

/// The longest text of one instance. Agents send less.
const MOST: usize = 1 << 20;

/// All texts together.
const MOST_IN_ALL: usize = 256 << 20;

/// The last that each instance said.
#[derive(Debug, Default)]
pub struct Modules {
    sessions: Mutex<BTreeMap<ConnectionId, Session>>,
}

#[derive(Debug)]
struct Session {
    agent: AgentName,
    said: BTreeMap<InstanceId, Arc<str>>,
}

impl Modules {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Session>> {
        // A panic elsewhere does not make the data wrong: every change is complete in itself.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent's statistics came: they name every instance that runs, and hold what is new.
    pub fn heard(
        &self,
        connection: ConnectionId,
        agent: &AgentName,
        instances: Vec<InstanceStatistics>,
    ) {
        let mut sessions = self.lock();
        let before = sessions.remove(&connection);
        let mut known = before.map(|session| session.said).unwrap_or_default();
        let others =
            |session: &Session| session.said.values().map(|text| text.len()).sum::<usize>();
        let mut bytes: usize = sessions.values().map(others).sum();
        let mut said = BTreeMap::new();
        for instance in instances {
            let Ok(id) = instance.id.parse::<InstanceId>() else {
                continue;
            };
            let text = match instance.metrics {
                text if text.is_empty() => known.remove(&id),
                text if text.len() > MOST => None,
                text => Some(text.into()),
            };
            let Some(text) = text else { continue };
            bytes += text.len();
            if bytes <= MOST_IN_ALL {
                said.insert(id, text);
            }
        }
        if !said.is_empty() {
            let agent = agent.clone();
            sessions.insert(connection, Session { agent, said });
        }
    }

    /// A session is over.
    pub fn closed(&self, connection: ConnectionId) {
        self.lock().remove(&connection);
    }

    /// What the instances of these services said, in Prometheus' text format.
    pub fn render(&self, services: &[ServiceView]) -> String {
        let sessions = self.lock();
        let said: Vec<(AgentName, InstanceId, Arc<str>)> = sessions
            .values()
            .flat_map(|session| {
                let of = |(id, text): (&InstanceId, &Arc<str>)| {
                    (session.agent.clone(), id.clone(), text.clone())
                };
                session.said.iter().map(of)
            })
            .collect();
        // Reading the texts takes a while: agents are not held up by it.
        drop(sessions);
        let mut merged = Merged::default();
        for (agent, id, text) in said {
            if let Some(labels) = labels(services, &agent, &id) {
                merged.add(&text, &labels);
            }
        }
        merged.render()
    }
}

/// Berth's labels of an instance; none if it is not known, or another agent's.
fn labels(services: &[ServiceView], agent: &AgentName, id: &InstanceId) -> Option<Vec<Label>> {
    let service = services
        .iter()
        .find(|service| service.name == id.slot.service)?;
    let instance = service
        .instances
        .iter()
        .find(|instance| instance.status.id == *id)?;
    let revision = service
        .revisions
        .iter()
        .find(|r| r.number == id.slot.revision)?;
    let place = instance.node.to_string();
    let theirs = match agent {
        AgentName::Node(node) => instance.node == node.clone().into(),
        AgentName::Pod(pod) => pod == id,
    };
    let labels = [
        ("service", service.name.to_string()),
        ("revision", revision.number.to_string()),
        ("instance", id.to_string()),
        ("node", place),
        ("model", revision.model.to_string()),
        ("version", revision.version.to_string()),
    ];
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    theirs.then(|| labels.map(owned).into())
}
