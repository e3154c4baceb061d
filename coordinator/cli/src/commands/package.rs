use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use berth_model::id::ModelName;
use berth_package::{Inspection, Summary};

use crate::args::{Package, Template};
use crate::failure::Usage;
use crate::progress::Progress;
use crate::{output, table, words};

pub(super) fn run(package: Package) -> Result<()> {
    match package {
        Package::Init { dir, template } => init(&dir, template),
        Package::Build { dir, out } => build(&dir, out),
        Package::Inspect { file, reading } => {
            no_folder(&file)?;
            let inspection = berth_package::inspect(&file)?;
            output::show(reading.output, &inspection, |width| {
                contents(&inspection, width)
            })
        }
        Package::Verify { file } => {
            no_folder(&file)?;
            let summary = berth_package::verify(&file, None)?;
            output::line(&format!("{}: good\n{}", file.display(), describe(&summary)))
        }
    }
}

/// Only archives are looked into.
fn no_folder(file: &Path) -> Result<()> {
    if file.is_dir() {
        let dir = file.display();
        bail!("{dir} is a folder, not an archive: `berth package build {dir}` makes one of it");
    }
    Ok(())
}

fn init(dir: &Path, template: Template) -> Result<()> {
    let name = std::path::absolute(dir)?
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let name = ModelName::new(name).map_err(|error| Usage(error.to_string()))?;
    berth_package::init(dir, &name, template.into())?;
    let dir = dir.display();
    output::line(&format!(
        "made {dir}; next:\n  berth model push {dir}\n  berth deploy {name} --wait"
    ))
}

fn build(dir: &Path, out: Option<PathBuf>) -> Result<()> {
    // The archive's usual name is known only when the manifest has been read.
    let temp = tempfile::Builder::new()
        .prefix(".berth-build-")
        .tempdir_in(".");
    let temp = temp.context("cannot write to the current folder")?;
    let target = out
        .clone()
        .unwrap_or_else(|| temp.path().join("package.tar.zst"));
    let summary = pack(dir, &target)?;
    let file = match out {
        Some(file) => file,
        None => {
            let file = PathBuf::from(format!("{}-{}.tar.zst", summary.name, summary.version));
            std::fs::rename(&target, &file)
                .with_context(|| format!("cannot write {}", file.display()))?;
            file
        }
    };
    output::line(&format!("{}\n{}", file.display(), describe(&summary)))
}

/// Packs a folder with progress.
pub(super) fn pack(dir: &Path, out: &Path) -> Result<Summary> {
    let mut progress = Progress::bytes("packing", 0);
    let summary =
        berth_package::build_with_progress(dir, out, &mut |done, total| progress.at(done, total))?;
    progress.done();
    Ok(summary)
}

fn describe(summary: &Summary) -> String {
    format!(
        "  {}@{}  {}\n  {} files, {}, packed {}",
        summary.name,
        summary.version,
        summary.digest,
        summary.files,
        words::bytes(summary.size),
        words::bytes(summary.archive_size),
    )
}

fn contents(inspection: &Inspection, width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = inspection
        .index
        .entries()
        .iter()
        .map(|entry| {
            let (kind, size) = match &entry.kind {
                berth_package::EntryKind::File {
                    size, executable, ..
                } => (
                    if *executable { "program" } else { "file" },
                    words::bytes(*size),
                ),
                berth_package::EntryKind::Dir => ("folder", String::new()),
                berth_package::EntryKind::Link { .. } => ("link", String::new()),
            };
            vec![entry.path.clone(), kind.to_owned(), size]
        })
        .collect();
    format!(
        "{}\n\n{}",
        describe(&inspection.summary),
        table::render(&["PATH", "KIND", "SIZE"], &rows, width)
    )
}
