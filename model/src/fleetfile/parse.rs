//! Texts to one fleet.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::entries::{self, Entry};
use super::keys::{self, KINDS};
use super::places::Places;
use crate::api::Fleet;
use crate::digest::PackageDigest;
use crate::id::{FleetName, JobName, ModelName};
use crate::read::convert::string;
use crate::read::{FileErrors, Lines, Section, Sink};

/// Longest fleet file in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// One file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name as it is to be shown.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// What files came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    /// What they declare; where there are errors, only what can be understood without what is wrong.
    pub declared: Declared,
    /// Where it stands.
    pub places: Places,
    /// Every mistake, by file in the order of the files. Empty if all is well.
    pub errors: Vec<FileErrors>,
    /// Some file is no TOML at all, so that much of it may not have been seen.
    pub unreadable: bool,
}

/// What files declare.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// All of it but what lies beside the files: models with a package, and inputs of jobs.
    pub fleet: Fleet,
    /// Models that come with a package.
    pub packages: BTreeMap<ModelName, Package>,
    /// Inputs of jobs.
    pub inputs: BTreeMap<JobName, Local>,
}

/// A file or folder that is named in a fleet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Which of the sources names it: relative paths begin at its folder.
    pub source: usize,
    /// As it is written.
    pub path: String,
}

/// A package that is named in a fleet file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its folder or archive.
    pub local: Local,
    /// The version that it must have.
    pub version: Option<semver::Version>,
    /// The digest that it must have.
    pub digest: Option<PackageDigest>,
}

/// Reads files as one fleet: the same entry in two of them is a mistake.
pub fn parse(sources: &[Source<'_>]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut broken = BTreeSet::new();
    let mut named: Option<(FleetName, String)> = None;
    for (number, source) in sources.iter().enumerate() {
        one(&mut parsed, &mut broken, &mut named, number, *source);
    }
    if let Some((name, _)) = named {
        parsed.declared.fleet.fleet = name;
    }
    forget_dependants(&mut parsed.declared, &broken);
    parsed
}

fn one(
    parsed: &mut Parsed,
    broken: &mut BTreeSet<String>,
    named: &mut Option<(FleetName, String)>,
    number: usize,
    source: Source<'_>,
) {
    let sink = Sink::default();
    if source.text.len() > MAX_BYTES {
        sink.report(0, format!("the file is longer than {MAX_BYTES} bytes"));
        let errors = sink.finish(source.text, source.name, Vec::new());
        parsed.errors.push(errors);
        parsed.unreadable = true;
        return;
    }
    let (document, syntax) = DeTable::parse_recoverable(source.text);
    let syntax: Vec<(usize, String)> = syntax
        .iter()
        .map(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (at, said(source.text, at, error.message()))
        })
        .collect();
    let lines = Lines::new(source.text);
    let known: Vec<&str> = std::iter::once("fleet")
        .chain(KINDS.iter().map(|kind| kind.name))
        .collect();
    let root = Section::new("the fleet file", document.get_ref(), 0, &known, &sink);
    name(&root, &sink, &lines, source.name, named);
    for kind in &KINDS {
        for entry in root.entries(kind.name) {
            let path = format!("{}.{}", kind.name, entry.name);
            let at = lines.position(entry.offset);
            if let Some(first) = parsed.places.note(path.clone(), source.name, at) {
                let message =
                    format!("[{path}] is declared at {first} already: take one of them out");
                sink.report(entry.offset, message);
                continue;
            }
            for (key, offset) in entry.keys() {
                let at = lines.position(offset);
                parsed.places.note(format!("{path}.{key}"), source.name, at);
            }
            if !read(&mut parsed.declared, kind.name, &entry, number, &sink) {
                broken.insert(path);
            }
        }
    }
    if !(syntax.is_empty() && sink.is_empty()) {
        parsed.unreadable |= !syntax.is_empty();
        let errors = sink.finish(source.text, source.name, syntax);
        parsed.errors.push(errors);
    }
}

/// What the TOML parser says, with the word that it means.
fn said(text: &str, at: usize, message: &str) -> String {
    if message != "duplicate key" {
        return message.to_owned();
    }
    let rest = text.get(at..).unwrap_or_default();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let word = rest.trim_start_matches(['"', '\'']);
    let word = word.split(|c| !plain(c)).next().unwrap_or_default();
    format!("{word:?} is written twice in one table: take one of them out")
}

/// The key `fleet`, which all files that have it must agree on.
fn name(
    root: &Section<'_, '_>,
    sink: &Sink,
    lines: &Lines<'_>,
    file: &str,
    named: &mut Option<(FleetName, String)>,
) {
    let mut at = 0;
    let wanted = root.optional("fleet", |field| {
        at = field.value.span().start;
        let text = string(field)?;
        let name = FleetName::new(text);
        // It names itself; there is no entry to name.
        name.map_err(|error| sink.report(at, error.to_string()))
            .ok()
    });
    let Some(Some(wanted)) = wanted else { return };
    match named {
        Some((first, place)) if *first != wanted => sink.report(
            at,
            format!(
                "these files are called {first:?} at {place}: one fleet has one name",
                first = first.as_str()
            ),
        ),
        Some(_) => {}
        None => {
            let (line, column) = lines.position(at);
            *named = Some((wanted, format!("{file}:{line}:{column}")));
        }
    }
}

/// Reads one entry; false if it is wrong.
fn read(
    declared: &mut Declared,
    kind: &str,
    entry: &Entry<'_, '_>,
    source: usize,
    sink: &Sink,
) -> bool {
    let label = format!("[{kind}.{}]", entry.name);
    let known = keys::kind(kind).map(keys::Kind::names).unwrap_or_default();
    let section = Section::new(&label, entry.table, entry.offset, &known, sink);
    let unknown = entry.keys().iter().any(|(key, _)| {
        let first = key.split('.').next().unwrap_or(key);
        !known.contains(&first)
    });
    let taken = match kind {
        "node" => entries::node(declared, entry, &section),
        "pool" => entries::pool(declared, entry, &section),
        "model" => entries::model(declared, entry, &section, source),
        "service" => entries::service(declared, entry, &section),
        _ => entries::job(declared, entry, &section, source),
    };
    taken.is_some() && !unknown
}

/// What refers to a broken entry would only be told that it is not there.
fn forget_dependants(declared: &mut Declared, broken: &BTreeSet<String>) {
    if broken.is_empty() {
        return;
    }
    let is_broken = |model: &str, pool: Option<&str>| {
        let name = model.split(['@', '#']).next().unwrap_or(model);
        broken.contains(&format!("model.{name}"))
            || pool.is_some_and(|pool| broken.contains(&format!("pool.{pool}")))
    };
    let fleet = &mut declared.fleet;
    fleet
        .services
        .retain(|_, s| !is_broken(&s.model, s.pool.as_deref()));
    fleet
        .jobs
        .retain(|_, j| !is_broken(&j.model, j.pool.as_deref()));
}
