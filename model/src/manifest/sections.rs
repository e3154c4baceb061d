//! The sections about the package and the model, and what they need and may do.

use crate::id::ModelName;
use crate::resources::Resources;
use crate::time::{Bytes, Span};

use super::{Golden, Limits, Model, ModelFormat, ModuleKind, Package, rules};
use crate::read::convert::{
    body, boolean, checked, json, list, map, number, parsed, string, whole, word,
};
use crate::read::{Field, Section};

/// `[package]`.
pub(super) fn package(root: &Section<'_, '_>) -> Option<Package> {
    let known = ["name", "version", "description", "labels"];
    let Some(section) = root.section("package", "[package]", &known)? else {
        return root.missing("missing section [package]: it needs name and version");
    };
    let name = section.required("name", |field| {
        checked(field, |text| {
            ModelName::new(text).map_err(|error| error.to_string())
        })
    });
    let version = section.required("version", |field| {
        checked(field, |text| {
            text.parse::<semver::Version>().map_err(|error| {
                format!("{text:?} is not a semantic version such as \"1.4.0\": {error}")
            })
        })
    });
    let description = section.or("description", String::new(), string);
    let labels = section.or("labels", Default::default(), |field| {
        map(field, rules::label_key, |field| {
            checked(field, rules::one_line)
        })
    });
    Some(Package {
        name: name?,
        version: version?,
        description: description?,
        labels: labels?,
    })
}

/// `[model]`. The format's default follows from the module's kind, if that is known.
pub(super) fn model(root: &Section<'_, '_>, kind: Option<ModuleKind>) -> Option<Model> {
    let known = ["path", "format", "task", "metrics", "inputs", "outputs"];
    let Some(section) = root.section("model", "[model]", &known)? else {
        return root.missing("missing section [model]: it needs path, as in path = \"model\"");
    };
    let path = section.required("path", |field| checked(field, rules::package_path));
    let formats = [
        ("saved_model", ModelFormat::SavedModel),
        ("onnx", ModelFormat::Onnx),
        ("custom", ModelFormat::Custom),
    ];
    let served = kind == Some(ModuleKind::TfServing);
    let default = if served {
        ModelFormat::SavedModel
    } else {
        ModelFormat::Custom
    };
    let format = section.or("format", default, |field| word(field, &formats));
    let fits = match format {
        Some(format) if served && format != ModelFormat::SavedModel => section.fail(
            Some("format"),
            "TensorFlow Serving serves only format = \"saved_model\"",
        ),
        _ => Some(()),
    };
    let task = section.or("task", String::new(), |field| {
        checked(field, rules::one_line)
    });
    let metrics = section.or("metrics", Default::default(), |field| {
        map(field, rules::label_key, number)
    });
    let inputs = section.or("inputs", serde_json::Value::Null, json);
    let outputs = section.or("outputs", serde_json::Value::Null, json);
    fits?;
    Some(Model {
        path: path?,
        format: format?,
        task: task?,
        metrics: metrics?,
        inputs: inputs?,
        outputs: outputs?,
    })
}

/// `[resources]`: `cpu` in cores, `memory` and `disk` as sizes, `gpu` in whole devices.
pub(super) fn resources(root: &Section<'_, '_>) -> Option<Resources> {
    let known = ["cpu", "memory", "gpu", "disk"];
    let Some(section) = root.section("resources", "[resources]", &known)? else {
        return Some(Resources::default());
    };
    let cpu = section.or("cpu", 0, cores);
    let memory = section.or("memory", Bytes(0), parsed);
    let gpu = section.or("gpu", 0, |field| whole(field, 0));
    let disk = section.or("disk", Bytes(0), parsed);
    Some(Resources {
        cpu_millis: cpu?,
        memory_bytes: memory?.0,
        gpus: gpu?,
        disk_bytes: disk?.0,
    })
}

/// Cores as a number such as `0.5`, in thousandths.
fn cores(field: Field<'_, '_>) -> Option<u64> {
    let cores = number(field.inner(field.value))?;
    if (0.0..=65_536.0).contains(&cores) {
        // In range, so the cast neither truncates nor loses a sign.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some((cores * 1000.0).round() as u64)
    } else {
        field.fail("expected a number of cores from 0 to 65536, such as 0.5")
    }
}

/// `[network]`.
pub(super) fn network(root: &Section<'_, '_>) -> Option<Vec<String>> {
    let Some(section) = root.section("network", "[network]", &["egress"])? else {
        return Some(Vec::new());
    };
    section.or("egress", Vec::new(), |field| {
        list(field, "an array of strings", |item| {
            checked(item, rules::egress)
        })
    })
}

/// `[[golden]]`.
pub(super) fn golden(root: &Section<'_, '_>) -> Option<Vec<Golden>> {
    let sections = root.sections(
        "golden",
        "[[golden]]",
        &["request", "response", "tolerance"],
    )?;
    let found: Vec<Golden> = sections
        .iter()
        .filter_map(|section| {
            let request = section.required("request", body);
            let response = section.required("response", body);
            let tolerance = section.or("tolerance", 0.0, |field| {
                match number(field.inner(field.value))? {
                    tolerance if tolerance >= 0.0 => Some(tolerance),
                    _ => field.fail("expected a number from 0 up"),
                }
            });
            Some(Golden {
                request: request?,
                response: response?,
                tolerance: tolerance?,
            })
        })
        .collect();
    (found.len() == sections.len()).then_some(found)
}

/// `[limits]`.
pub(super) fn limits(root: &Section<'_, '_>) -> Option<Limits> {
    let known = ["concurrency", "queue", "timeout", "max_body", "retryable"];
    let Some(section) = root.section("limits", "[limits]", &known)? else {
        return Some(Limits::default());
    };
    let concurrency = section.optional("concurrency", |field| whole(field, 1));
    let queue = section.optional("queue", |field| whole(field, 0));
    let timeout = section.optional("timeout", positive);
    let max_body = section.optional("max_body", |field| {
        match parsed::<Bytes>(field.inner(field.value))? {
            Bytes(0) => field.fail("must be more than nothing"),
            size => Some(size),
        }
    });
    let retryable = section.optional("retryable", boolean);
    Some(Limits {
        concurrency: concurrency?,
        queue: queue?,
        timeout: timeout?,
        max_body: max_body?,
        retryable: retryable?,
    })
}

/// A duration longer than nothing.
pub(super) fn positive(field: Field<'_, '_>) -> Option<Span> {
    match parsed::<Span>(field.inner(field.value))? {
        span if span.0.is_zero() => field.fail("must be longer than nothing"),
        span => Some(span),
    }
}
