//! How a start's shim is brought up with a sandbox around it, and what of that is cleared away afterwards.
//!
//! There are two ways: a transient unit of systemd, and a child of the agent with control groups and a user of its own.
//! Both launch the same shim, which is found again by its state, whoever launched it; [`Record`] in the start folder says
//! what else there is to clear away. One conformance suite runs over both.

mod egress;
mod fork;
mod gpus;
mod record;
mod systemd;

#[cfg(test)]
mod isolation;

use std::fmt::Debug;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Child;

use berth_model::node::Isolation;
use berth_shim::sandbox::Sandbox;

pub(super) use fork::Fork;
use gpus::gpu_devices;
pub(super) use record::{Record, clear, write};
pub(super) use systemd::Systemd;

use crate::config::{IsolationConfig, LauncherChoice};
use crate::runtime::{Launch, RuntimeError};

/// Brings up shims.
pub(super) trait Launcher: Debug + Send + Sync {
    /// Finds out what a start gets around it, and makes nothing yet that outlives the agent.
    fn arm(&self, launch: &Launch) -> Result<Armed, RuntimeError>;

    /// Launches the shim on a folder that holds its spec and record. After an error there may be something to clear.
    fn launch(
        &self,
        shim: &Path,
        launch: &Launch,
        armed: &Armed,
    ) -> Result<Box<dyn Upcoming>, RuntimeError>;

    /// What is enforced on this machine, of instances that listen on `host`.
    fn isolation(&self, host: IpAddr) -> Isolation;
}

/// What a start gets around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Armed {
    /// What its shim is to do.
    pub(super) sandbox: Option<Sandbox>,
    /// What is to be cleared away after it.
    pub(super) record: Option<Record>,
}

/// A shim that has not reported yet.
pub(super) trait Upcoming {
    /// Why it never will, if it has ended.
    fn ended(&mut self) -> Result<Option<String>, RuntimeError>;

    /// Ends it now.
    fn abandon(&mut self);

    /// It has reported; the child to be waited for once it has ended, if it is one.
    fn child(self: Box<Self>) -> Option<Child>;
}

/// What holds for every start of this agent.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// The agent's data folder.
    pub(super) data: PathBuf,
    /// Further folders that are kept from instances.
    pub(super) hidden: Vec<PathBuf>,
    /// Further folders that they may read.
    pub(super) readable: Vec<PathBuf>,
    /// Most processes and threads of one.
    pub(super) tasks: u64,
    /// Users that may be given out.
    pub(super) users: (u32, u32),
}

impl Ground {
    /// As configured, for an agent whose data is in `data`.
    pub(super) fn new(config: &IsolationConfig, data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            hidden: config.hidden.clone(),
            readable: config.readable.clone(),
            tasks: config.tasks.into(),
            users: config.users.bounds(),
        }
    }
}

/// The launcher of a configuration. Errors: systemd was asked for and cannot be had, or does not answer.
pub(super) fn choose(
    choice: LauncherChoice,
    ground: Ground,
) -> Result<Box<dyn Launcher>, RuntimeError> {
    match choice {
        LauncherChoice::None => return Ok(Box::new(Fork::bare())),
        LauncherChoice::Fork => return Ok(Box::new(Fork::confined(ground))),
        LauncherChoice::Systemd | LauncherChoice::Auto => {}
    }
    match systemd::unavailable()? {
        None => Ok(Box::new(Systemd::new(ground))),
        Some(_) if choice == LauncherChoice::Auto => Ok(Box::new(Fork::confined(ground))),
        Some(why) => Err(RuntimeError::Io {
            what:
                "start instances as units of systemd, as launcher in [isolation] of agent.toml asks"
                    .to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::Unsupported, why),
        }),
    }
}
