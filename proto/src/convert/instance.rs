use berth_model::instance::{InstanceSpec, InstanceStatus, Reason};
use berth_model::time::Timestamp;

use super::{ConvertError, field, json, word, word_of};
use crate::v1;

impl From<InstanceStatus> for v1::InstanceStatus {
    fn from(status: InstanceStatus) -> Self {
        Self {
            id: status.id.to_string(),
            phase: word_of(&status.phase),
            start: status.start,
            restarts: status.restarts,
            address: status.address.map(|a| a.to_string()).unwrap_or_default(),
            reason_json: status
                .reason
                .and_then(|reason| serde_json::to_string(&reason).ok())
                .unwrap_or_default(),
            last_lines: status.last_lines,
            pid: status.pid.unwrap_or_default(),
            since_unix_ms: status.since.0,
            digest: status.digest.map(|d| d.to_string()).unwrap_or_default(),
            output_json: status
                .output
                .and_then(|output| serde_json::to_string(&output).ok())
                .unwrap_or_default(),
            gpus: status.gpus,
        }
    }
}

impl TryFrom<v1::InstanceStatus> for InstanceStatus {
    type Error = ConvertError;
    fn try_from(status: v1::InstanceStatus) -> Result<Self, ConvertError> {
        let reason = match status.reason_json.as_str() {
            "" => None,
            // A reason of another shape (a newer agent's) must not hide the status itself.
            text => Some(serde_json::from_str(text).unwrap_or(Reason::Unknown)),
        };
        Ok(Self {
            id: field("id", &status.id)?,
            phase: word(&status.phase).ok_or_else(|| {
                ConvertError::new("phase", format!("unknown phase {:?}", status.phase))
            })?,
            start: status.start,
            restarts: status.restarts,
            address: match status.address.as_str() {
                "" => None,
                text => Some(field("address", text)?),
            },
            reason,
            last_lines: status.last_lines,
            pid: (status.pid != 0).then_some(status.pid),
            since: Timestamp(status.since_unix_ms),
            digest: match status.digest.as_str() {
                "" => None,
                text => Some(field("digest", text)?),
            },
            output: optional("output_json", &status.output_json)?,
            gpus: status.gpus,
        })
    }
}

impl From<InstanceSpec> for v1::InstanceSpec {
    fn from(spec: InstanceSpec) -> Self {
        Self {
            id: spec.id.to_string(),
            digest: spec.digest.to_string(),
            blob: spec.blob.to_string(),
            blob_bytes: spec.blob_bytes,
            version: spec.version.to_string(),
            serial: spec.serial,
            runtime: word_of(&spec.runtime),
            // A manifest is plain data with text keys, which JSON always takes.
            manifest_json: serde_json::to_string(&spec.manifest).unwrap_or_default(),
            env: spec.env.into_iter().collect(),
            intent: word_of(&spec.intent),
            task_json: spec
                .task
                .and_then(|task| serde_json::to_string(&task).ok())
                .unwrap_or_default(),
            gpus: spec.gpus,
        }
    }
}

impl TryFrom<v1::InstanceSpec> for InstanceSpec {
    type Error = ConvertError;
    fn try_from(spec: v1::InstanceSpec) -> Result<Self, ConvertError> {
        Ok(Self {
            id: field("id", &spec.id)?,
            digest: field("digest", &spec.digest)?,
            blob: field("blob", &spec.blob)?,
            blob_bytes: spec.blob_bytes,
            version: field("version", &spec.version)?,
            serial: spec.serial,
            runtime: field("runtime", &spec.runtime)?,
            manifest: json("manifest_json", &spec.manifest_json)?,
            env: spec.env.into_iter().collect(),
            intent: word(&spec.intent).ok_or_else(|| {
                ConvertError::new("intent", format!("unknown intent {:?}", spec.intent))
            })?,
            task: optional("task_json", &spec.task_json)?,
            gpus: spec.gpus,
        })
    }
}

/// JSON, or nothing where the text is empty.
fn optional<T: serde::de::DeserializeOwned>(
    name: &'static str,
    text: &str,
) -> Result<Option<T>, ConvertError> {
    match text {
        "" => Ok(None),
        text => json(name, text).map(Some),
    }
}
