//! What lies beside fleet files: packages and inputs of jobs.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use berth_model::api::{ModelVersionView, ModelWanted, RegisterModel};
use berth_model::fleetfile::Package;
use berth_model::id::{JobName, ModelName};
use berth_package::{PackageError, Summary};

use super::super::job::input;
use super::super::package;
use crate::client::Client;
use crate::progress::{Progress, note};
use crate::upload;

/// A package that was read.
pub(super) struct LocalPackage {
    /// The model.
    pub(super) name: ModelName,
    archive: PathBuf,
    summary: Summary,
}

impl LocalPackage {
    /// What it asks of the registry.
    pub(super) fn wanted(&self) -> ModelWanted {
        ModelWanted {
            version: self.summary.version.clone(),
            digest: Some(self.summary.digest),
            at_hand: true,
        }
    }

    /// Uploads and registers it.
    pub(super) async fn push(&self, client: &Client) -> Result<()> {
        let size = self.summary.archive_size;
        let mut progress = Progress::bytes("uploading", size);
        upload::blob(client, &self.archive, self.summary.archive, size, |done| {
            progress.at(done, size);
        })
        .await?;
        progress.done();
        let blob = self.summary.archive;
        let model: ModelVersionView = client.post("/v1/models", &RegisterModel { blob }).await?;
        note(&format!(
            "pushed {}@{}  #{}",
            model.name, model.version, model.serial
        ));
        Ok(())
    }
}

/// Reads a package and compares it with its entry. Errors: mistakes, each with its entry's path; a folder is
/// packed into `temp`.
pub(super) fn package(
    name: &ModelName,
    wanted: &Package,
    path: &Path,
    temp: &Path,
) -> Result<LocalPackage, Vec<String>> {
    let entry = format!("model.{name}");
    let (archive, summary) = look(name, path, temp).map_err(|error| {
        let text = match error.downcast_ref::<PackageError>() {
            Some(PackageError::Manifest(errors)) => errors.to_string(),
            _ => format!("{error:#}"),
        };
        let lines = text.lines();
        lines
            .map(|line| format!("{entry}.package: {}: {line}", path.display()))
            .collect::<Vec<_>>()
    })?;
    let mut mistakes = Vec::new();
    if summary.name != *name {
        mistakes.push(format!(
            "{entry}.package: the package in {} is called {}: write [model.{}]",
            path.display(),
            summary.name,
            summary.name
        ));
    }
    if let Some(version) = wanted.version.as_ref().filter(|v| **v != summary.version) {
        mistakes.push(format!(
            "{entry}.version: the package in {} has version {}, not {version}",
            path.display(),
            summary.version
        ));
    }
    if let Some(digest) = wanted.digest.filter(|d| *d != summary.digest) {
        mistakes.push(format!(
            "{entry}.digest: the package in {} is {}, not {digest}",
            path.display(),
            summary.digest
        ));
    }
    if mistakes.is_empty() {
        let name = name.clone();
        Ok(LocalPackage {
            name,
            archive,
            summary,
        })
    } else {
        Err(mistakes)
    }
}

fn look(name: &ModelName, path: &Path, temp: &Path) -> Result<(PathBuf, Summary)> {
    if path.is_dir() {
        let archive = temp.join(format!("{name}.tar.zst"));
        let summary = package::pack(path, &archive)?;
        return Ok((archive, summary));
    }
    std::fs::metadata(path).context("cannot be read")?;
    Ok((path.to_owned(), berth_package::verify(path, None)?))
}

/// An input of a job that was looked through.
pub(super) struct LocalInput {
    /// The job.
    pub(super) job: JobName,
    /// Its files.
    pub(super) input: input::Local,
}

/// Looks an input through. Errors: the mistake with its entry's path.
pub(super) fn input(job: &JobName, path: &Path) -> Result<LocalInput, String> {
    match input::look(path) {
        Ok(input) => Ok(LocalInput {
            job: job.clone(),
            input,
        }),
        Err(error) => Err(format!("job.{job}.input: {error:#}")),
    }
}
