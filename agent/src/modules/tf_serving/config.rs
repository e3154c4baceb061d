//! TensorFlow Serving's configuration files.

use berth_model::instance::InstanceSpec;
use berth_model::manifest::TfServing;
use serde_json::Value;

use super::textproto::Message;

/// Parameters that are plain fields of `BatchingParameters`; all others are wrapped in a message of their own.
const PLAIN: [&str; 2] = ["allowed_batch_sizes", "pad_variable_length_inputs"];

/// The label that always names the instance's version, as TensorFlow Serving's own examples call it.
const LABEL: &str = "stable";

/// `ModelServerConfig`: one model, one version, which has the version's name and `stable` as labels.
pub(super) fn models(spec: &InstanceSpec, base: &str) -> String {
    // A serial counts pushes: it is far from overflowing.
    let serial = i64::try_from(spec.serial).unwrap_or(i64::MAX);
    let mut root = Message::default();
    root.message("model_config_list", |list| {
        list.message("config", |config| {
            config.text("name", spec.id.slot.service.as_str());
            config.text("base_path", base);
            config.text("model_platform", "tensorflow");
            config.message("model_version_policy", |policy| {
                policy.message("specific", |specific| specific.integer("versions", serial));
            });
            for label in [LABEL, &spec.version.to_string()] {
                config.message("version_labels", |entry| {
                    entry.text("key", label);
                    entry.integer("value", serial);
                });
            }
        });
    });
    root.finish()
}

/// `BatchingParameters` by the manifest's keys, which were checked when it was read.
pub(super) fn batching(said: &TfServing) -> String {
    let mut root = Message::default();
    for (name, value) in &said.batching {
        if PLAIN.contains(&name.as_str()) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| scalar(&mut root, name, item)),
                value => scalar(&mut root, name, value),
            }
        } else {
            root.message(name, |wrapper| scalar(wrapper, "value", value));
        }
    }
    root.finish()
}

fn scalar(message: &mut Message, name: &str, value: &Value) {
    match value {
        Value::Bool(value) => message.boolean(name, *value),
        Value::String(value) => message.text(name, value),
        value => {
            if let Some(value) = value.as_i64() {
                message.integer(name, value);
            }
        }
    }
}

/// `MonitoringConfig`: Prometheus at a path.
pub(super) fn monitoring(path: &str) -> String {
    let mut root = Message::default();
    root.message("prometheus_config", |prometheus| {
        prometheus.boolean("enable", true);
        prometheus.text("path", path);
    });
    root.finish()
}
