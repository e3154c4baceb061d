//! A whole shard: one file, or a folder of files, each to a file of the same name.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, sync_parent, temporary};
use crate::pipeline::{self, Progress};
use crate::ready;
use crate::rows::Rows;
use crate::settings::Settings;

/// Works off the shard.
pub(crate) fn work(settings: &Settings) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut progress = Progress::new();
    ready::wait(&settings.ready, settings.start_timeout)?;
    crate::say(&format!(
        "ready after {:.1} s; rows go to {} in batches of {}",
        begin.elapsed().as_secs_f64(),
        settings.url,
        settings.batch
    ));
    let input = &settings.input;
    if input.metadata().map_err(Failure::read(input))?.is_dir() {
        folder(settings, &mut progress)?;
    } else {
        file(settings, input, &settings.output, &mut progress)?;
    }
    crate::say(&format!(
        "done: {} rows in {:.1} s",
        progress.rows,
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn file(
    settings: &Settings,
    from: &Path,
    to: &Path,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let reader = BufReader::with_capacity(1 << 18, File::open(from).map_err(Failure::read(from))?);
    let mut rows = Rows::new(from, reader, settings.batch);
    let client = Client::new(settings, from.to_owned());
    let mut output = Output::begin(to)?;
    pipeline::run(
        &mut rows,
        &client,
        settings.in_flight,
        &mut output,
        progress,
    )?;
    output.finish()
}

/// The output folder appears complete, as a file does.
fn folder(settings: &Settings, progress: &mut Progress) -> Result<(), Failure> {
    let part = temporary(&settings.output);
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::write(&part)(error));
        }
        _ => {}
    }
    std::fs::create_dir(&part).map_err(Failure::write(&part))?;
    let mut files = Vec::new();
    list(&settings.input, Path::new(""), &mut files)?;
    files.sort_unstable();
    for name in files {
        let to = part.join(&name);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(Failure::write(parent))?;
        }
        file(settings, &settings.input.join(&name), &to, progress)?;
    }
    std::fs::rename(&part, &settings.output).map_err(Failure::write(&settings.output))?;
    sync_parent(&settings.output)
}

/// The files below `root/under`, relative to the root.
fn list(root: &Path, under: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let at = root.join(under);
    for entry in at.read_dir().map_err(Failure::read(&at))? {
        let entry = entry.map_err(Failure::read(&at))?;
        let name = under.join(entry.file_name());
        // Not through links: the input is made of files and folders.
        if entry.file_type().map_err(Failure::read(&at))?.is_dir() {
            list(root, &name, found)?;
        } else {
            found.push(name);
        }
    }
    Ok(())
}
