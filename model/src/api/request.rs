//! Bodies that clients send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::BlobDigest;
use crate::id::{JobName, ServiceName};
use crate::node::RuntimeKind;
use crate::time::Span;

/// `POST /v1/models`: register a package that was uploaded as a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModel {
    /// The archive.
    pub blob: BlobDigest,
}

/// `POST /v1/services`: create a service, or give it a new revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// `NAME`, `NAME@SEMVER` or `NAME@#SERIAL`; without a version the newest push.
    pub model: String,
    /// The service's name; the model's if absent.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// Instances; if absent those the service has, or 1.
    #[serde(default)]
    pub replicas: Option<u32>,
    /// What starts it; `process` if absent.
    #[serde(default)]
    pub runtime: Option<RuntimeKind>,
    /// Pool to place in.
    #[serde(default)]
    pub pool: Option<String>,
    /// Labels of the failure domains to spread over, the widest first; `zone`, `rack` and `host` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instances that may be missing at a time during a change without spare places; if absent what the
    /// service has, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
}

/// `POST /v1/services/{service}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Instances there shall be.
    pub replicas: u32,
}

/// `POST /v1/nodes/{node}/drain`: empty a node. Repeated, it changes what is given and goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainNode {
    /// From now on, how long what has no spare place may stay; one hour if absent.
    pub deadline: Option<Span>,
    /// At the deadline stop everything, whatever the services' `max_unavailable` says.
    pub force: bool,
}

/// `POST /v1/nodes/{node}/labels`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelNode {
    /// Labels to set.
    pub set: BTreeMap<String, String>,
    /// Keys of labels to take away.
    pub remove: Vec<String>,
}

/// `POST /v1/tokens`: make a join token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateToken {
    /// How often it may be used; 1 if absent, 0 means without limit.
    pub uses: Option<u32>,
    /// How long it lives; one hour if absent.
    pub ttl: Option<Span>,
    /// Labels for the nodes that join with it.
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/jobs`: create a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CreateJob {
    /// `NAME`, `NAME@SEMVER` or `NAME@#SERIAL`; without a version the newest push.
    pub model: String,
    /// The job's name; `MODEL-N` if absent.
    pub name: Option<JobName>,
    /// A random key of the client's: the same request again (its answer was lost, say) with the same
    /// key answers with the job that is there.
    pub request: Option<String>,
    /// What starts it; `process` if absent.
    pub runtime: Option<RuntimeKind>,
    /// Pool to place in.
    pub pool: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Shards wanted; 1 if absent. An input of fewer lines or files makes fewer.
    pub completions: Option<u32>,
    /// Tasks at a time; as many as shards if absent.
    pub parallelism: Option<u32>,
    /// Failed attempts that are made up for, of all tasks together; 3 if absent.
    pub retries: Option<u32>,
    /// The longest it may take from its creation.
    pub deadline: Option<Span>,
    /// What it works on; without one every task has an empty input.
    pub input: Option<JobInput>,
}

/// The input of a job: uploaded blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobInput {
    /// The files are dealt out to the shards. Otherwise there is one file, which is cut between lines.
    #[serde(default)]
    pub folder: bool,
    /// The files.
    pub files: Vec<JobFile>,
}

/// One file of a job's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// Relative path in the input folder, `/`-separated.
    #[serde(default)]
    pub name: String,
    /// Its content.
    pub blob: BlobDigest,
    /// Its size.
    pub bytes: u64,
}
