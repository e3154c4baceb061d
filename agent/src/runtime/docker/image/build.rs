//! Building an image, and telling what went wrong.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt;

use super::recipe::{Dockerfile, LABEL_DIGEST, LABEL_RECIPE, Recipe};
use super::{LAST_LINES, Problem, context};
use crate::runtime::docker::daemon::Daemon;

/// Longest build.
const LIMIT: Duration = Duration::from_secs(3600);

/// Bytes of a build's output that are kept in its file, from the beginning, and of its end.
const KEPT: usize = 1 << 20;

/// Longest line that is taken as one.
const LINE: usize = 4096;

/// What a build has said so far.
#[derive(Debug, Default)]
struct Said {
    all: Vec<u8>,
    step: String,
    last: VecDeque<String>,
    line: String,
}

impl Said {
    fn hear(&mut self, text: &str) {
        let room = KEPT.saturating_sub(self.all.len());
        self.all
            .extend_from_slice(&text.as_bytes()[..text.len().min(room)]);
        for piece in text.split_inclusive(['\n', '\r']) {
            if self.line.len() < LINE {
                self.line.push_str(piece.trim_end_matches(['\n', '\r']));
            }
            if piece.ends_with(['\n', '\r']) {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = plain(&std::mem::take(&mut self.line));
        if line.starts_with("Step ") {
            self.step = line.clone();
        }
        // Docker's own remarks (" ---> 0123…") say nothing to people.
        let remark = line.starts_with(" ---> ") || line.starts_with("Removing intermediate");
        if line.trim().is_empty() || remark {
            return;
        }
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The step in which it failed, with Docker's words.
    fn problem(&mut self, error: &str) -> String {
        if !self.line.is_empty() {
            self.end_line();
        }
        match self.step.split_once(" : ") {
            Some((number, step)) => format!(
                "building failed in {}: `{step}`: {error}",
                number.to_lowercase()
            ),
            None => format!("building failed: {error}"),
        }
    }
}

/// A line without the colours that Docker gives to what was written to standard error.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    out + rest
}

/// Builds by a recipe. What the build said is kept in `folder`, by the package's digest.
pub(super) async fn build(
    daemon: &Daemon,
    recipe: &Recipe,
    package: &Path,
    folder: &Path,
) -> Result<(), Problem> {
    if let Some(path) = context::missing(&recipe.dockerfile, package) {
        let name = path
            .strip_prefix(package)
            .unwrap_or(&path)
            .display()
            .to_string();
        return Err(Problem::new(format!(
            "the package has no {name}: put it in and push the package again"
        )));
    }
    let offline =
        matches!(recipe.dockerfile, Dockerfile::Preset { .. }) && context::has_wheels(package);
    let options = BuildImageOptions {
        dockerfile: context::path(&recipe.dockerfile),
        t: Some(recipe.tag.clone()),
        rm: true,
        forcerm: true,
        labels: Some(HashMap::from([
            (LABEL_DIGEST.to_owned(), recipe.digest.to_string()),
            (LABEL_RECIPE.to_owned(), recipe.hash()),
        ])),
        networkmode: offline.then(|| "none".to_owned()),
        ..BuildImageOptions::default()
    };
    let said = Arc::new(Mutex::new(Said::default()));
    let (heard, dockerfile, package) =
        (said.clone(), recipe.dockerfile.clone(), package.to_owned());
    let built = daemon
        .call(LIMIT, |docker| async move {
            let body = bollard::body_try_stream(context::stream(&dockerfile, &package));
            let mut news = Box::pin(docker.build_image(options, None, Some(body)));
            while let Some(news) = news.next().await {
                let text = news?.stream.unwrap_or_default();
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .hear(&text);
            }
            Ok(())
        })
        .await;
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    keep(folder, recipe, &said.all);
    built.map_err(|error| {
        use bollard::errors::Error;
        use std::error::Error as _;
        let inner = error
            .source()
            .and_then(|source| source.downcast_ref::<Error>());
        let words = match inner {
            Some(Error::DockerStreamError { error }) => error.clone(),
            _ => crate::chain(&error),
        };
        Problem {
            error: said.problem(&words),
            lines: said.last.iter().cloned().collect(),
            passing: error.is_passing(),
        }
    })
}

/// Keeps what a build said, for people.
fn keep(folder: &Path, recipe: &Recipe, said: &[u8]) {
    let kept = crate::files::make_dir(folder).and_then(|()| {
        crate::files::replace(
            &folder.join(format!("{}.log", recipe.digest.hex())),
            said,
            0o600,
        )
    });
    if let Err(error) = kept {
        tracing::warn!(error = crate::chain(&error), "cannot keep a build's output");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_and_the_last_lines_are_told() {
        let mut said = Said::default();
        said.hear("Step 1/2 : FROM x\n ---> 0123\nStep 2/2 : RUN ma");
        said.hear("ke\n ---> Running in 4567\n");
        for i in 0..20 {
            said.hear(&format!("line {i}\n"));
        }
        said.hear("no newline");
        let problem = said.problem("returned a non-zero code: 2");
        assert_eq!(
            problem,
            "building failed in step 2/2: `RUN make`: returned a non-zero code: 2"
        );
        assert_eq!(said.last.len(), LAST_LINES);
        assert_eq!(said.last.back().unwrap(), "no newline");
        assert!(!said.last.iter().any(|line| line.contains("--->")));
    }

    #[test]
    fn colours_are_taken_off() {
        assert_eq!(plain("\u{1b}[91mred\u{1b}[0m plain"), "red plain");
        assert_eq!(plain("a\u{1b}[9"), "a");
        assert_eq!(plain(""), "");
    }

    #[test]
    fn an_endless_line_takes_no_endless_memory() {
        let mut said = Said::default();
        for _ in 0..10_000 {
            said.hear(&"x".repeat(1000));
        }
        assert!(said.line.len() <= LINE + 1000 && said.all.len() <= KEPT);
        assert_eq!(said.problem("e"), "building failed: e");
    }
}
