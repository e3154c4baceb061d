//! One entry at a time: keys to the API's requests.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use toml::de::DeValue;

use super::parse::{Declared, Local, Package};
use crate::api::{CreateJob, Deploy, JobFile, JobInput, ModelWanted, NodeLabels, PutPool, rules};
use crate::digest::{BlobDigest, PackageDigest};
use crate::id::{JobName, ModelName, NodeName, PoolName, ServiceName};
use crate::node::RuntimeKind;
pub(super) use crate::read::Entry;
use crate::read::convert::{boolean, checked, list, long, map, parsed, string, whole};
use crate::read::{Field, Section};
use crate::time::Span;

type Table = BTreeMap<String, String>;

/// The entry's name; its own rules decide what is one.
fn name<T: FromStr<Err: Display>>(entry: &Entry<'_, '_>, section: &Section<'_, '_>) -> Option<T> {
    match entry.name.parse() {
        Ok(name) => Some(name),
        Err(error) => section.fail(None, &error.to_string()),
    }
}

pub(super) fn node(
    declared: &mut Declared,
    entry: &Entry<'_, '_>,
    section: &Section<'_, '_>,
) -> Option<()> {
    let name: Option<NodeName> = name(entry, section);
    let labels = section.required("labels", labels);
    let wanted = NodeLabels { labels: labels? };
    declared.fleet.nodes.insert(name?, wanted);
    Some(())
}

pub(super) fn pool(
    declared: &mut Declared,
    entry: &Entry<'_, '_>,
    section: &Section<'_, '_>,
) -> Option<()> {
    let name: Option<PoolName> = name(entry, section);
    let labels = section.required("labels", labels);
    let wanted = PutPool { labels: labels? };
    if let Err(message) = wanted.check() {
        return section.fail(Some("labels"), &message);
    }
    declared.fleet.pools.insert(name?, wanted);
    Some(())
}

pub(super) fn model(
    declared: &mut Declared,
    entry: &Entry<'_, '_>,
    section: &Section<'_, '_>,
    source: usize,
) -> Option<()> {
    let name: Option<ModelName> = name(entry, section);
    let package = section.optional("package", path);
    let version = section.optional("version", |field| {
        checked(field, |text| {
            text.parse::<semver::Version>().map_err(|error| {
                format!("{text:?} is not a semantic version such as \"1.4.0\": {error}")
            })
        })
    });
    let digest = section.optional("digest", parsed::<PackageDigest>);
    let (name, package) = (name?, package?);
    if let Some(path) = &package {
        // It is looked into whatever else is wrong.
        let package = Package {
            local: Local {
                source,
                path: path.clone(),
            },
            version: version.clone().flatten(),
            digest: digest.flatten(),
        };
        declared.packages.insert(name.clone(), package);
    }
    let (version, digest) = (version?, digest?);
    match (package, version) {
        (Some(_), _) => {}
        (None, Some(version)) => {
            let wanted = ModelWanted {
                version,
                digest,
                at_hand: false,
            };
            declared.fleet.models.insert(name, wanted);
        }
        (None, None) => {
            return section.missing(&format!(
                "[model.{name}] says neither which package to push (package = \"FOLDER\") nor which version \
                 must be there (version = \"1.0.0\")"
            ));
        }
    }
    Some(())
}

pub(super) fn service(
    declared: &mut Declared,
    entry: &Entry<'_, '_>,
    section: &Section<'_, '_>,
) -> Option<()> {
    let name: Option<ServiceName> = name(entry, section);
    let model = section.required("model", string);
    let replicas = section.optional("replicas", |field| figure(field, rules::replicas));
    let runtime = section.optional("runtime", parsed::<RuntimeKind>);
    let pool = section.optional("pool", pool_name);
    let spread = section.optional("spread", spread);
    let env = section.or("env", Table::new(), env);
    let missing = |field: Field<'_, '_>| figure(field, rules::max_unavailable);
    let max_unavailable = section.optional("max_unavailable", missing);
    let (name, model) = (name?, model?);
    let all_read = replicas.is_some()
        && runtime.is_some()
        && pool.is_some()
        && spread.is_some()
        && env.is_some()
        && max_unavailable.is_some();
    // What can be read of it is looked at by the coordinator whatever else is wrong.
    let wanted = Deploy {
        model,
        service: Some(name.clone()),
        replicas: replicas.flatten(),
        runtime: runtime.flatten(),
        pool: pool.flatten(),
        spread: spread.flatten(),
        env: env.unwrap_or_default(),
        max_unavailable: max_unavailable.flatten(),
    };
    declared.fleet.services.insert(name, wanted);
    all_read.then_some(())
}

pub(super) fn job(
    declared: &mut Declared,
    entry: &Entry<'_, '_>,
    section: &Section<'_, '_>,
    source: usize,
) -> Option<()> {
    let name: Option<JobName> = name(entry, section);
    let model = section.required("model", string);
    let input = section.optional("input", input);
    let completions = section.optional("completions", |f| figure(f, rules::completions));
    let parallelism = section.optional("parallelism", |f| figure(f, rules::parallelism));
    let retries = section.optional("retries", |f| figure(f, rules::retries));
    let deadline = section.optional("deadline", |field| {
        checked(field, |text| {
            let span: Span = text.parse().map_err(|e| format!("{e}"))?;
            rules::deadline(span).map(|()| span)
        })
    });
    let runtime = section.optional("runtime", parsed::<RuntimeKind>);
    let pool = section.optional("pool", pool_name);
    let env = section.or("env", Table::new(), env);
    let name = name?;
    let uploaded = match input {
        Some(Some(Input::Local(path))) => {
            // It is looked for whatever else is wrong.
            let local = Local { source, path };
            declared.inputs.insert(name.clone(), local);
            None
        }
        Some(Some(Input::Uploaded(input))) => Some(input),
        Some(None) => None,
        None => return None,
    };
    let wanted = CreateJob {
        model: model?,
        name: Some(name.clone()),
        request: None,
        runtime: runtime?,
        pool: pool?,
        env: env?,
        completions: completions?,
        parallelism: parallelism?,
        retries: retries?,
        deadline: deadline?,
        input: uploaded,
    };
    declared.fleet.jobs.insert(name, wanted);
    Some(())
}

fn figure(field: Field<'_, '_>, rule: fn(u32) -> Result<(), String>) -> Option<u32> {
    let n = whole(field.inner(field.value), 0)?;
    match rule(n) {
        Ok(()) => Some(n),
        Err(message) => field.fail(&message),
    }
}

fn pool_name(field: Field<'_, '_>) -> Option<String> {
    checked(field, |text| rules::pool(&text).map(|()| text))
}

fn path(field: Field<'_, '_>) -> Option<String> {
    checked(field, |text| {
        if text.is_empty() {
            return Err("expected a path".to_owned());
        }
        Ok(text)
    })
}

fn labels(field: Field<'_, '_>) -> Option<Table> {
    map(field, rules::label_key, |field| {
        checked(field, |text| rules::label_value(&text).map(|()| text))
    })
}

fn env(field: Field<'_, '_>) -> Option<Table> {
    let found = map(field.inner(field.value), rules::env_name, string)?;
    match rules::env(&found) {
        Ok(()) => Some(found),
        Err(message) => field.fail(&message),
    }
}

enum Input {
    Local(String),
    Uploaded(JobInput),
}

/// A path, or what the API takes.
fn input(field: Field<'_, '_>) -> Option<Input> {
    if let DeValue::String(_) = field.value.get_ref() {
        return path(field).map(Input::Local);
    }
    let section = field.section(&["folder", "files"])?;
    let folder = section.or("folder", false, boolean);
    let files = section.required("files", |field| {
        list(field, "an array of tables", |item| {
            let file = item.section(&["name", "blob", "bytes"])?;
            let name = file.or("name", String::new(), string);
            let blob = file.required("blob", parsed::<BlobDigest>);
            let bytes = file.required("bytes", long);
            Some(JobFile {
                name: name?,
                blob: blob?,
                bytes: bytes?,
            })
        })
    });
    Some(Input::Uploaded(JobInput {
        folder: folder?,
        files: files?,
    }))
}

fn spread(field: Field<'_, '_>) -> Option<Vec<String>> {
    let labels = list(
        field.inner(field.value),
        "a list of labels, as in [\"zone\", \"rack\"]",
        string,
    )?;
    match rules::spread(&labels) {
        Ok(()) => Some(labels),
        Err(message) => field.fail(&message),
    }
}
