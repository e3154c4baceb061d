//! What can go wrong with a cluster, in words that people can act on.

use std::path::PathBuf;
use std::sync::Arc;

/// Something between Berth and an API server went wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {why}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// The coordinator is not in a cluster.
    #[error(
        "in_cluster = true, but this coordinator runs in no Pod with a service account ({why}): \
         name a kubeconfig, or set automountServiceAccountToken in the coordinator's Pod"
    )]
    NotInCluster {
        /// What is missing.
        why: String,
    },
    /// The client certificate is over.
    #[error(
        "kubeconfig {}: the client certificate of user {user:?} expired on {on}: have a new kubeconfig issued",
        path.display()
    )]
    CertificateExpired {
        /// The file.
        path: PathBuf,
        /// Whose.
        user: String,
        /// When.
        on: String,
    },
    /// The API server does not know who asks.
    #[error(
        "the API server at {server} does not accept these credentials ({words}): \
         the token or certificate is expired or from another cluster"
    )]
    Unauthorized {
        /// Where.
        server: String,
        /// Its words.
        words: String,
    },
    /// A right is missing.
    #[error(
        "the right to {verb} {resource} in namespace {namespace} is missing: add verb \"{verb}\" for resource \
         \"{resource}\" (API group \"{group}\") to Berth's Role, as in examples/kubernetes/rbac.yaml ({words})"
    )]
    Forbidden {
        /// The verb.
        verb: String,
        /// The resource.
        resource: String,
        /// Its API group.
        group: String,
        /// Where.
        namespace: String,
        /// The API server's words.
        words: String,
    },
    /// The namespace is not there.
    #[error(
        "namespace {namespace} does not exist or is being deleted: create it with `kubectl create namespace \
         {namespace}` or set another one in [[cluster]] ({words})"
    )]
    NamespaceAbsent {
        /// Which.
        namespace: String,
        /// The API server's words.
        words: String,
    },
    /// A quota is used up.
    #[error("quota exceeded in namespace {namespace}: {words}")]
    Quota {
        /// Where.
        namespace: String,
        /// The API server's words.
        words: String,
    },
    /// The API server does not take it as it is.
    #[error("the API server refuses {what}: {words}")]
    Refused {
        /// What was asked for.
        what: String,
        /// Its words.
        words: String,
    },
    /// The name is somebody else's.
    #[error(
        "Job {name} exists already and is not ours ({whose}): let every fleet have a namespace of its own, or \
         delete that Job"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// What is known of its owner.
        whose: String,
    },
    /// What has that name is still being deleted.
    #[error("Job {name} is still being deleted; it can be made again when it is gone")]
    StillDeleting {
        /// The name.
        name: String,
    },
    /// It is not there.
    #[error("{what} does not exist")]
    Absent {
        /// What.
        what: String,
    },
    /// Too many requests.
    #[error("the API server at {server} asks for fewer requests ({words}); Berth backs off")]
    Throttled {
        /// Where.
        server: String,
        /// Its words.
        words: String,
    },
    /// The API server fails.
    #[error("the API server at {server} answers with an error of its own ({code}): {words}")]
    Server {
        /// Where.
        server: String,
        /// The HTTP status.
        code: u16,
        /// Its words.
        words: String,
    },
    /// No connection.
    #[error(
        "the API server at {server} cannot be reached: {why}. What runs there runs on; Berth holds and keeps trying"
    )]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        why: String,
        /// The cause.
        #[source]
        source: Option<Arc<kube::Error>>,
    },
    /// No answer in time.
    #[error("the API server at {server} did not answer within {after_ms} ms ({what})")]
    Timeout {
        /// Where.
        server: String,
        /// What was asked for.
        what: String,
        /// The deadline.
        after_ms: u64,
    },
    /// The answer makes no sense.
    #[error("the API server at {server} answered {what} with something else: {why}")]
    Garbled {
        /// Where.
        server: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The handle outlived the task.
    #[error("this cluster's task has ended")]
    Closed,
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later; nothing is known to have failed.
    Hold,
    /// People must change the configuration, the credentials or the rights; Berth keeps trying.
    Configuration,
    /// This very thing is refused; the same again will be, until something there changes.
    Refused,
}

impl Error {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Throttled { .. }
            | Self::Server { .. }
            | Self::Garbled { .. }
            | Self::StillDeleting { .. }
            | Self::Closed => Class::Hold,
            Self::Kubeconfig { .. }
            | Self::NotInCluster { .. }
            | Self::CertificateExpired { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NamespaceAbsent { .. } => Class::Configuration,
            Self::Quota { .. }
            | Self::Refused { .. }
            | Self::NameTaken { .. }
            | Self::Absent { .. } => Class::Refused,
        }
    }
}
