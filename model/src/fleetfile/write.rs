//! A fleet as a fleet file.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use crate::api::{CreateJob, Deploy, Fleet, JobInput};
use crate::id::FleetName;

/// The fleet as TOML: read again, it is the same. Comments of the files it came from are not kept by
/// anybody.
pub fn write(fleet: &Fleet) -> String {
    let mut out = Out::default();
    if fleet.fleet != FleetName::default() {
        out.pair("fleet", &fleet.fleet);
    }
    for (name, node) in &fleet.nodes {
        out.entry("node", name);
        out.table("labels", &node.labels, true);
    }
    for (name, pool) in &fleet.pools {
        out.entry("pool", name);
        out.table("labels", &pool.labels, true);
    }
    for (name, model) in &fleet.models {
        out.entry("model", name);
        out.pair("version", &model.version);
        out.optional("digest", model.digest.as_ref());
    }
    for (name, service) in &fleet.services {
        out.entry("service", name);
        out.service(service);
    }
    for (name, job) in &fleet.jobs {
        out.entry("job", name);
        out.job(job);
    }
    out.0
}

#[derive(Default)]
struct Out(String);

impl Out {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn entry(&mut self, kind: &str, name: &impl Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(&format!("[{kind}.{name}]"));
    }

    fn pair(&mut self, key: &str, value: &impl Display) {
        self.line(&format!("{key} = {}", text(&value.to_string())));
    }

    fn optional(&mut self, key: &str, value: Option<&impl Display>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.line(&format!("{key} = {value}"));
        }
    }

    /// A table on one line; an empty one only where it is needed.
    fn table(&mut self, key: &str, table: &BTreeMap<String, String>, needed: bool) {
        if table.is_empty() && !needed {
            return;
        }
        let pairs: Vec<String> = table
            .iter()
            .map(|(k, v)| format!("{} = {}", bare(k), text(v)))
            .collect();
        let inner = if pairs.is_empty() {
            String::new()
        } else {
            format!(" {} ", pairs.join(", "))
        };
        self.line(&format!("{key} = {{{inner}}}"));
    }

    fn service(&mut self, service: &Deploy) {
        self.pair("model", &service.model);
        self.number("replicas", service.replicas);
        self.optional("runtime", service.runtime.as_ref());
        self.optional("pool", service.pool.as_ref());
        if let Some(spread) = &service.spread {
            let labels: Vec<String> = spread.iter().map(|label| text(label)).collect();
            self.line(&format!("spread = [{}]", labels.join(", ")));
        }
        self.number("max_unavailable", service.max_unavailable);
        self.table("env", &service.env, false);
    }

    fn job(&mut self, job: &CreateJob) {
        self.pair("model", &job.model);
        if let Some(input) = &job.input {
            self.input(input);
        }
        self.number("completions", job.completions);
        self.number("parallelism", job.parallelism);
        self.number("retries", job.retries);
        self.optional("deadline", job.deadline.as_ref());
        self.optional("runtime", job.runtime.as_ref());
        self.optional("pool", job.pool.as_ref());
        self.table("env", &job.env, false);
    }

    fn input(&mut self, input: &JobInput) {
        let folder = if input.folder { "folder = true, " } else { "" };
        let mut files = String::new();
        for file in &input.files {
            let name = if file.name.is_empty() {
                String::new()
            } else {
                format!("name = {}, ", text(&file.name))
            };
            let _ = write!(
                files,
                "\n  {{ {name}blob = {}, bytes = {} }},",
                text(&file.blob.to_string()),
                file.bytes
            );
        }
        let end = if files.is_empty() { "" } else { "\n" };
        self.line(&format!("input = {{ {folder}files = [{files}{end}] }}"));
    }
}

/// A string in quotes.
fn text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key, in quotes where it needs them.
fn bare(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(plain) {
        key.to_owned()
    } else {
        text(key)
    }
}
