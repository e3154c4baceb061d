//! Bodies that clients send.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::BlobDigest;
use crate::id::ServiceName;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// `POST /v1/services/{service}/scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Instances there shall be.
    pub replicas: u32,
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
