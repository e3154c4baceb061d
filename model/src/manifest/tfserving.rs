//! `[tf-serving]`: what TensorFlow Serving is told, checked before it could complain on a node.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::de::{DeInteger, DeValue};

use super::{ModuleKind, TfServing};
use crate::read::convert::{boolean, list, string, strings};
use crate::read::suggest::did_you_mean;
use crate::read::{Field, Section};

/// Flags of TensorFlow Serving that Berth sets itself, and those that would undo what it sets.
const OWN_FLAGS: [&str; 15] = [
    "port",
    "grpc_socket_path",
    "rest_api_port",
    "model_name",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "allow_version_labels_for_unavailable_models",
    "enable_model_warmup",
    "max_num_load_retries",
    "platform_config_file",
    "version",
];

/// The others of its `model_servers/main.cc`.
const FLAGS: [&str; 37] = [
    "rest_api_num_threads",
    "rest_api_timeout_in_ms",
    "rest_api_enable_cors_support",
    "enable_per_model_batching_parameters",
    "num_load_threads",
    "num_unload_threads",
    "load_retry_interval_micros",
    "file_system_poll_wait_seconds",
    "flush_filesystem_caches",
    "tensorflow_session_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "use_alts_credentials",
    "ssl_config_file",
    "per_process_gpu_memory_fraction",
    "saved_model_tags",
    "grpc_channel_arguments",
    "grpc_max_threads",
    "num_request_iterations_for_warmup",
    "remove_unused_fields_from_bundle_metagraph",
    "prefer_tflite_model",
    "num_tflite_pools",
    "num_tflite_interpreters_per_pool",
    "enable_signature_method_name_check",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "enable_profiler",
    "thread_pool_factory_config_file",
    "mixed_precision",
    "skip_initialize_tpu",
    "enable_grpc_healthcheck_service",
    "enable_serialization_as_tensor_content",
    "force_allow_any_version_labels_for_unavailable_models",
    "num_tflite_interpreters",
    "v",
    "vmodule",
];

/// What one of its batching parameters is.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    Counts,
    Flag,
    Text,
}

/// The fields of its `BatchingParameters`.
const BATCHING: [(&str, Kind); 9] = [
    ("max_batch_size", Kind::Count),
    ("batch_timeout_micros", Kind::Count),
    ("max_enqueued_batches", Kind::Count),
    ("num_batch_threads", Kind::Count),
    ("thread_pool_name", Kind::Text),
    ("allowed_batch_sizes", Kind::Counts),
    ("pad_variable_length_inputs", Kind::Flag),
    ("enable_large_batch_splitting", Kind::Flag),
    ("max_execution_batch_size", Kind::Count),
];

/// `[tf-serving]`.
pub(super) fn tf_serving(
    root: &Section<'_, '_>,
    kind: Option<ModuleKind>,
) -> Option<Option<TfServing>> {
    let known = ["batching", "extra_flags", "warmup"];
    let Some(section) = root.section("tf-serving", "[tf-serving]", &known)? else {
        return Some(None);
    };
    let fits = match kind {
        Some(ModuleKind::Custom) => section.fail(
            None,
            "this section is only for a [module] of kind = \"tf-serving\"",
        ),
        _ => Some(()),
    };
    let batching = section.or("batching", BTreeMap::new(), batching);
    let extra_flags = section.or("extra_flags", Vec::new(), extra_flags);
    let warmup = section.or("warmup", true, boolean);
    fits?;
    Some(Some(TfServing {
        batching: batching?,
        extra_flags: extra_flags?,
        warmup: warmup?,
    }))
}

fn batching(field: Field<'_, '_>) -> Option<BTreeMap<String, Json>> {
    let DeValue::Table(table) = field.value.get_ref() else {
        return field.expected("a table, as in { max_batch_size = 32 }");
    };
    let names = BATCHING.map(|(name, _)| name);
    let mut found = BTreeMap::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let kind = BATCHING.iter().find(|(known, _)| *known == name);
        let inner = field.inner(value);
        let value = match kind {
            None => field.fail_at(
                key.span().start,
                &format!(
                    "TensorFlow Serving has no batching parameter {name:?}{}",
                    did_you_mean(name, &names)
                ),
            ),
            Some((_, Kind::Count)) => count(inner),
            Some((_, Kind::Counts)) => {
                list(inner, "an array of whole numbers", count).map(Json::Array)
            }
            Some((_, Kind::Flag)) => boolean(inner).map(Json::Bool),
            Some((_, Kind::Text)) => string(inner).map(Json::String),
        };
        if let Some(value) = value {
            found.insert(name.to_owned(), value);
        }
    }
    if found.len() != table.len() {
        return None;
    }
    sizes(&field, &found)?;
    Some(found)
}

/// The rules that TensorFlow Serving ends for when they are broken.
fn sizes(field: &Field<'_, '_>, found: &BTreeMap<String, Json>) -> Option<()> {
    let Some(Json::Array(sizes)) = found.get("allowed_batch_sizes") else {
        return Some(());
    };
    let sizes: Vec<i64> = sizes.iter().filter_map(Json::as_i64).collect();
    if sizes.is_empty() || sizes.windows(2).any(|pair| pair[0] >= pair[1]) {
        return field
            .fail("allowed_batch_sizes must grow from one to the next, as in [8, 32, 128]");
    }
    let split = found.get("enable_large_batch_splitting") == Some(&Json::Bool(true));
    let most = found.get("max_batch_size").and_then(Json::as_i64);
    match most {
        Some(most) if !split && sizes.last() != Some(&most) => field.fail(&format!(
            "the last of allowed_batch_sizes must be max_batch_size, which is {most}"
        )),
        _ => Some(()),
    }
}

/// A whole number that TensorFlow Serving takes where it counts.
fn count(field: Field<'_, '_>) -> Option<Json> {
    let DeValue::Integer(number) = field.value.get_ref() else {
        return field.expected("a whole number");
    };
    match whole(number) {
        Some(number) => Some(Json::from(number)),
        None => field.fail("expected a whole number from 0 up"),
    }
}

fn whole(number: &DeInteger<'_>) -> Option<i64> {
    let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
    (number >= 0).then_some(number)
}

fn extra_flags(field: Field<'_, '_>) -> Option<Vec<String>> {
    let flags = strings(field.inner(field.value))?;
    for flag in &flags {
        let name = flag.split('=').next().unwrap_or_default();
        let Some(name) = name.strip_prefix("--") else {
            return field.fail(&format!("{flag:?} is no flag: write \"--name=value\""));
        };
        if OWN_FLAGS.contains(&name) {
            return field.fail(&format!("--{name} is set by Berth; leave it out"));
        }
        if FLAGS.contains(&name) {
            continue;
        }
        // Of one that it does not know TensorFlow Serving prints its usage and goes on. A later version may know
        // it: only what looks like a slip is refused.
        let slip = did_you_mean(name, &[&OWN_FLAGS[..], &FLAGS[..]].concat());
        if !slip.is_empty() {
            return field.fail(&format!("TensorFlow Serving has no flag --{name}{slip}"));
        }
    }
    Some(flags)
}
