//! The sections about what is started and how its health is known.

use super::rules::{self, JOB_VARIABLES, TRANSFORM_VARIABLES};
use super::sections::positive;
use super::{
    Health, HealthCheck, Job, Module, ModuleKind, Preset, Protocol, Transform, default_stop_grace,
};
use crate::read::convert::{checked, just_true, list, map, parsed, string, whole, word};
use crate::read::{Field, Section};

/// `[module]`.
pub(super) fn module(root: &Section<'_, '_>) -> Option<Module> {
    let known = [
        "kind",
        "command",
        "preset",
        "env",
        "predict_path",
        "protocol",
        "stop_grace",
        "dockerfile",
        "image",
    ];
    let Some(section) = root.section("module", "[module]", &known)? else {
        return root.missing(
            "missing section [module]: it needs kind = \"tf-serving\", or kind = \"custom\" and \
             command",
        );
    };
    let kinds = [
        ("tf-serving", ModuleKind::TfServing),
        ("custom", ModuleKind::Custom),
    ];
    let kind = section.required("kind", |field| word(field, &kinds));
    let command = section.or("command", Vec::new(), |field| command(field, &[]));
    let presets = [("binary", Preset::Binary), ("python", Preset::Python)];
    let preset = section.optional("preset", |field| word(field, &presets));
    let protocols = [("http1", Protocol::Http1), ("h2c", Protocol::H2c)];
    let env = section.or("env", Default::default(), |field| {
        map(field, rules::env_name, string)
    });
    let predict_path = section.optional("predict_path", |field| checked(field, rules::http_path));
    let protocol = section.or("protocol", Protocol::default(), |field| {
        word(field, &protocols)
    });
    let stop_grace = section.or("stop_grace", default_stop_grace(), parsed);
    let dockerfile = section.optional("dockerfile", |field| checked(field, rules::package_path));
    let image = section.optional("image", |field| checked(field, rules::image));
    let fits = kind.and_then(|kind| startable(&section, kind));
    fits?;
    Some(Module {
        kind: kind?,
        command: command?,
        preset: preset?,
        env: env?,
        predict_path: predict_path?,
        protocol: protocol?,
        stop_grace: stop_grace?,
        dockerfile: dockerfile?,
        image: image?,
    })
}

/// Whether kind, command and preset together say what to start.
fn startable(section: &Section<'_, '_>, kind: ModuleKind) -> Option<()> {
    match kind {
        ModuleKind::Custom if !section.has("command") => section.missing(
            "missing key \"command\" in [module]: a custom module needs the program to start, as \
             in command = [\"./server\"]",
        ),
        ModuleKind::TfServing if section.has("preset") => {
            section.fail(Some("preset"), "a preset is only for kind = \"custom\"")
        }
        // With a command of its own it is like a custom module.
        ModuleKind::TfServing if section.has("command") => Some(()),
        ModuleKind::TfServing if section.has("predict_path") => section.fail(
            Some("predict_path"),
            "TensorFlow Serving has its own paths; leave it out",
        ),
        _ => Some(()),
    }
}

/// A program and its arguments; `further` are the variables it has beside the module's.
fn command(field: Field<'_, '_>, further: &[&str]) -> Option<Vec<String>> {
    let words = list(field.inner(field.value), "an array of strings", |item| {
        checked(item, |text| rules::argument(&text, further).map(|()| text))
    })?;
    match words.first().map(String::as_str) {
        Some("") => field.fail("the program's name is empty"),
        Some(_) => Some(words),
        None => field.fail("the command is empty: write a program and its arguments"),
    }
}

/// `[transform]`.
pub(super) fn transform(root: &Section<'_, '_>) -> Option<Option<Transform>> {
    let Some(section) = root.section("transform", "[transform]", &["command"])? else {
        return Some(None);
    };
    let command = section.required("command", |field| command(field, &TRANSFORM_VARIABLES))?;
    Some(Some(Transform { command }))
}

/// `[job]`.
pub(super) fn job(root: &Section<'_, '_>) -> Option<Option<Job>> {
    let Some(section) = root.section("job", "[job]", &["command", "batch", "in_flight"])? else {
        return Some(None);
    };
    let driver = ["batch", "in_flight"]
        .into_iter()
        .find(|key| section.has(key));
    let fits = match driver {
        Some(key) if section.has("command") => section.fail(
            Some(key),
            &format!("{key} is for Berth's batch driver: leave out either it or command"),
        ),
        _ => Some(()),
    };
    let command = section.or("command", Vec::new(), |field| {
        command(field, &JOB_VARIABLES)
    });
    let batch = section.optional("batch", |field| whole(field, 1));
    let in_flight = section.optional("in_flight", |field| whole(field, 1));
    fits?;
    Some(Some(Job {
        command: command?,
        batch: batch?,
        in_flight: in_flight?,
    }))
}

/// `[health]`: at most one of `http`, `grpc` and `tcp`; none means `tcp`.
pub(super) fn health(root: &Section<'_, '_>, module: Option<&Module>) -> Option<Health> {
    let known = [
        "http",
        "grpc",
        "tcp",
        "start_timeout",
        "interval",
        "unhealthy_after",
    ];
    let default = Health::default();
    let Some(section) = root.section("health", "[health]", &known)? else {
        return Some(default);
    };
    let http = section.optional("http", |field| checked(field, rules::http_path));
    let grpc = section.optional("grpc", just_true);
    let tcp = section.optional("tcp", just_true);
    let kinds: Vec<&str> = ["http", "grpc", "tcp"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let single = match kinds[..] {
        [_, second, ..] => section.fail(
            Some(second),
            &format!("choose one check, not {}", kinds.join(" and ")),
        ),
        _ => Some(()),
    };
    let start_timeout = section.or("start_timeout", default.start_timeout, positive);
    let interval = section.or("interval", default.interval, positive);
    let unhealthy_after = section.or("unhealthy_after", default.unhealthy_after, |field| {
        whole(field, 1)
    });
    let berths_own = module
        .is_some_and(|module| module.kind == ModuleKind::TfServing && module.command.is_empty());
    let asked = match section.has("grpc") && berths_own {
        true => section.fail(
            Some("grpc"),
            "TensorFlow Serving's gRPC is on a unix socket, and Berth asks it for its model's state by itself: leave \
             grpc out",
        ),
        false => Some(()),
    };
    single?;
    asked?;
    let check = match (http?, grpc?, tcp?) {
        (Some(path), _, _) => HealthCheck::Http(path),
        (None, Some(()), _) => HealthCheck::Grpc,
        (None, None, _) => default.check,
    };
    Some(Health {
        check,
        start_timeout: start_timeout?,
        interval: interval?,
        unhealthy_after: unhealthy_after?,
    })
}
