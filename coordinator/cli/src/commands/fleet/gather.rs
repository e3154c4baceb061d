//! From files to a request: read, parse, look at what lies beside them; every mistake at once.

use std::collections::BTreeMap;

use anyhow::{Context as _, Error, Result};
use berth_model::api::{FleetPlan, FleetRequest};
use berth_model::fleetfile::{self, Declared, Parsed, Places, Source};
use berth_model::problem::Problem;

use super::files::{self, File};
use super::local::{self, LocalInput, LocalPackage};
use crate::args::FleetFiles;
use crate::client::Client;

/// Everything that fleet files ask for.
pub(super) struct Gathered {
    /// For the coordinator.
    pub(super) request: FleetRequest,
    /// Where it stands.
    pub(super) places: Places,
    /// Packages beside the files.
    pub(super) packages: Vec<LocalPackage>,
    /// Inputs beside the files.
    pub(super) inputs: Vec<LocalInput>,
    /// Where folders were packed; removed with this.
    _temp: tempfile::TempDir,
}

/// Reads files and what lies beside them. Errors: every mistake, with its place.
pub(super) async fn gather(client: &Client, wanted: &FleetFiles) -> Result<Gathered> {
    let mut request = super::request(wanted)?;
    let files = files::read(&wanted.files)?;
    let sources: Vec<Source<'_>> = files
        .iter()
        .map(|file| Source {
            name: &file.name,
            text: &file.text,
        })
        .collect();
    let Parsed {
        declared,
        places,
        errors,
        unreadable,
    } = fleetfile::parse(&sources);
    let mut mistakes = Mistakes::of(&files);
    for file in errors {
        for error in file.errors {
            let text = format!(
                "{}:{}:{}: {}",
                file.file, error.line, error.column, error.message
            );
            mistakes.add(&file.file, error.line, error.column, text);
        }
    }
    let temp = tempfile::tempdir().context("no temporary folder")?;
    let (packages, inputs) = beside(&declared, &files, temp.path(), &places, &mut mistakes);
    request.fleet = declared.fleet;
    for package in &packages {
        let models = &mut request.fleet.models;
        models.insert(package.name.clone(), package.wanted());
    }
    for input in &inputs {
        if let Some(job) = request.fleet.jobs.get_mut(&input.job) {
            job.input = Some(input.input.wanted());
        }
    }
    if mistakes.are_none() {
        return Ok(Gathered {
            request,
            places,
            packages,
            inputs,
            _temp: temp,
        });
    }
    if !unreadable {
        ask_too(client, &request, &places, &mut mistakes).await;
    }
    Err(mistakes.problem().into())
}

/// Reads packages and inputs. Entries whose own cannot be read are mistakes, and count as they are.
fn beside(
    declared: &Declared,
    files: &[File],
    temp: &std::path::Path,
    places: &Places,
    mistakes: &mut Mistakes,
) -> (Vec<LocalPackage>, Vec<LocalInput>) {
    let path = |local: &fleetfile::Local| match files.get(local.source) {
        Some(file) => file.folder.join(&local.path),
        None => local.path.clone().into(),
    };
    let mut packages = Vec::new();
    for (name, wanted) in &declared.packages {
        match local::package(name, wanted, &path(&wanted.local), temp) {
            Ok(package) => packages.push(package),
            Err(messages) => messages.iter().for_each(|m| mistakes.place(places, m)),
        }
    }
    let mut inputs = Vec::new();
    for (job, wanted) in &declared.inputs {
        match local::input(job, &path(wanted)) {
            Ok(input) => inputs.push(input),
            Err(message) => mistakes.place(places, &message),
        }
    }
    (packages, inputs)
}

/// What is well formed may be wrong all the same, which only the coordinator knows. If it cannot be asked
/// now, what is known is enough.
async fn ask_too(
    client: &Client,
    request: &FleetRequest,
    places: &Places,
    mistakes: &mut Mistakes,
) {
    let mut request = request.clone();
    // What is missing here may only be wrong: nothing may follow from that.
    request.prune = false;
    let broken: Vec<&str> = mistakes.entries("model.");
    let uses = |model: &str| {
        let name = model.split(['@', '#']).next().unwrap_or(model);
        broken.contains(&name)
    };
    request.fleet.services.retain(|_, s| !uses(&s.model));
    request.fleet.jobs.retain(|_, j| !uses(&j.model));
    let answer: Result<FleetPlan> = client.post("/v1/plan", &request).await;
    let Err(error) = answer else { return };
    let Some(problem) = error.downcast_ref::<Problem>() else {
        return;
    };
    if is_invalid(problem) {
        problem
            .errors
            .iter()
            .for_each(|m| mistakes.place(places, m));
    }
}

fn is_invalid(problem: &Problem) -> bool {
    problem.kind == "urn:berth:problem:invalid-fleet"
}

/// The coordinator's mistakes with their places in the files.
pub(super) fn placed(error: Error, places: &Places) -> Error {
    match error.downcast::<Problem>() {
        Ok(problem) if is_invalid(&problem) => {
            let mut mistakes = Mistakes::default();
            for message in &problem.errors {
                mistakes.place(places, message);
            }
            mistakes.problem().into()
        }
        Ok(problem) => problem.into(),
        Err(error) => error,
    }
}

/// Mistakes in the order of files, lines and columns.
#[derive(Default)]
struct Mistakes {
    /// Where each file stands in the order.
    order: BTreeMap<String, usize>,
    found: Vec<(usize, u32, u32, String)>,
    /// The entries' paths of those that were told by path.
    paths: Vec<String>,
}

impl Mistakes {
    fn of(files: &[File]) -> Self {
        let names = files.iter().enumerate();
        Self {
            order: names.map(|(n, file)| (file.name.clone(), n)).collect(),
            ..Self::default()
        }
    }

    fn are_none(&self) -> bool {
        self.found.is_empty()
    }

    fn add(&mut self, file: &str, line: u32, column: u32, text: String) {
        let at = self.order.get(file).copied().unwrap_or(usize::MAX);
        self.found.push((at, line, column, text));
    }

    /// A mistake that begins with an entry's path.
    fn place(&mut self, places: &Places, message: &str) {
        let path = message.split(": ").next().unwrap_or(message);
        self.paths.push(path.to_owned());
        match places.error(message) {
            Some((file, error)) => {
                let (line, column) = (error.line, error.column);
                self.add(&file, line, column, places.locate(message));
            }
            None => self.found.push((usize::MAX, 0, 0, message.to_owned())),
        }
    }

    /// Names of the entries with mistakes whose paths begin so.
    fn entries(&self, prefix: &str) -> Vec<&str> {
        let paths = self.paths.iter();
        paths
            .filter_map(|path| path.strip_prefix(prefix)?.split('.').next())
            .collect()
    }

    fn problem(mut self) -> Problem {
        self.found.sort();
        self.found.dedup();
        let errors: Vec<String> = self.found.into_iter().map(|(.., text)| text).collect();
        let count = errors.len();
        let s = if count == 1 { "" } else { "s" };
        let detail = format!("{count} mistake{s} in the fleet files; nothing was changed");
        Problem {
            errors,
            ..Problem::new(422, "invalid-fleet", "Invalid fleet files", detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_stand_in_the_order_of_the_files() {
        let text = "[service.b]\nmodel = \"m\"\n[service.a]\nmodel = \"m\"\n";
        let source = Source {
            name: "f.toml",
            text,
        };
        let places = fleetfile::parse(&[source]).places;
        let mut mistakes = Mistakes::default();
        mistakes.order.insert("f.toml".into(), 0);
        for message in [
            "two pools too many",
            "service.a.model: there is none",
            "service.b.pool: odd",
            "service.b.pool: odd",
        ] {
            mistakes.place(&places, message);
        }
        assert_eq!(mistakes.entries("service."), ["a", "b", "b"]);
        let problem = mistakes.problem();
        assert_eq!(
            problem.detail,
            "3 mistakes in the fleet files; nothing was changed"
        );
        assert_eq!(
            problem.errors,
            [
                "f.toml:1:10: [service.b] pool: odd",
                "f.toml:4:9: [service.a] model: there is none",
                "two pools too many"
            ]
        );
    }
}
