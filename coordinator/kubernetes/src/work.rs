//! What a cluster is asked to run.

use std::fmt;
use std::str::FromStr;

use berth_model::id::{IdError, InstanceId, JobName};
use berth_model::manifest::{Manifest, ModuleKind, Preset};
use berth_model::resources::Resources;
use berth_model::time::Span;

/// One Kubernetes Job to be: an instance of a service, or a whole job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Which; decides the Job's name.
    pub id: WorkId,
    /// How often, how many at a time.
    pub shape: Shape,
    /// The module's image, if its manifest names one.
    pub image: Option<String>,
    /// Which configured image it runs in otherwise.
    pub base: Base,
    /// What a Pod asks for.
    pub resources: Resources,
    /// How long the module has between SIGTERM and SIGKILL.
    pub stop_grace: Span,
    /// With what the Pod joins the coordinator. Commit it before the Job is created: a create whose answer was
    /// lost is made up for with the same token, or the Pod that the first one made cannot join.
    pub token: String,
}

impl Work {
    /// An instance of a service, as its package's manifest wants it.
    pub fn instance(id: InstanceId, manifest: &Manifest, token: String) -> Self {
        Self::of(WorkId::Instance(id), Shape::Once, manifest, token)
    }

    /// A job, as its package's manifest wants it.
    pub fn job(name: JobName, born: u64, shape: Shape, manifest: &Manifest, token: String) -> Self {
        Self::of(WorkId::Job { name, born }, shape, manifest, token)
    }

    fn of(id: WorkId, shape: Shape, manifest: &Manifest, token: String) -> Self {
        Self {
            id,
            shape,
            image: manifest.module.image.clone(),
            base: Base::of(manifest),
            resources: manifest.resources,
            stop_grace: manifest.module.stop_grace,
            token,
        }
    }
}

/// How often a Job's Pod runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One Pod, never made up for by Kubernetes: an instance of a service.
    Once,
    /// Several Pods, counted and retried by Kubernetes: a job.
    Counted {
        /// Pods that must end well.
        completions: u32,
        /// Pods at a time.
        parallelism: u32,
        /// Failed Pods that are made up for.
        retries: u32,
        /// The longest it may take.
        deadline: Option<Span>,
    },
}

/// Which base image a module runs in when its manifest names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// With a Python interpreter.
    Python,
    /// With `tensorflow_model_server`.
    TfServing,
    /// With a C library and a shell.
    Binary,
}

impl Base {
    /// The one for a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        match (manifest.module.kind, manifest.module.preset) {
            (ModuleKind::TfServing, _) => Self::TfServing,
            (ModuleKind::Custom, Some(Preset::Python)) => Self::Python,
            (ModuleKind::Custom, _) => Self::Binary,
        }
    }
}

/// What a Job is for. Text form `instance:SERVICE.REV.ORDINAL.ATTEMPT` or `job:NAME@BORN`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkId {
    /// An instance of a service.
    Instance(InstanceId),
    /// A job.
    Job {
        /// Its name.
        name: JobName,
        /// When it was created, in milliseconds: a job's name may be used again after a deletion, and the
        /// earlier one's Job must not be taken for the later one's.
        born: u64,
    },
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => write!(f, "instance:{id}"),
            Self::Job { name, born } => write!(f, "job:{name}@{born}"),
        }
    }
}

impl FromStr for WorkId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Instance {
            text: text.to_owned(),
        };
        if let Some(id) = text.strip_prefix("instance:") {
            return id.parse().map(Self::Instance);
        }
        let (name, born) = text
            .strip_prefix("job:")
            .and_then(|rest| rest.split_once('@'))
            .ok_or_else(wrong)?;
        Ok(Self::Job {
            name: name.parse()?,
            born: born.parse().map_err(|_| wrong())?,
        })
    }
}
