//! What a Job looks like. Pure: the same work makes the same Job, byte for byte.

mod pod;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::ClusterConfig;
use crate::names::{ANNOTATION_WORK, job_name, labels};
use crate::work::{Shape, Work};

pub use pod::{MODULE, PREPARE};

/// The Job for some work in a cluster.
pub fn job(work: &Work, cluster: &ClusterConfig) -> Job {
    let labels = labels(&cluster.fleet, &work.id);
    let annotations = [(ANNOTATION_WORK.to_owned(), work.id.to_string())];
    let (completions, parallelism, retries, deadline) = match work.shape {
        Shape::Once => (1, 1, 0, None),
        Shape::Counted {
            completions,
            parallelism,
            retries,
            deadline,
        } => (completions, parallelism, retries, deadline),
    };
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(&work.id)),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(labels.clone()),
            annotations: Some(annotations.clone().into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            completions: Some(signed(completions)),
            parallelism: Some(signed(parallelism)),
            backoff_limit: Some(signed(retries)),
            // Kubernetes counts whole seconds, and refuses none at all.
            active_deadline_seconds: deadline
                .map(|d| i64::try_from(d.as_millis().div_ceil(1000).max(1)).unwrap_or(i64::MAX)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations.into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::spec(work, cluster)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn signed(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
