//! What the driver is told by its environment.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::failure::Failure;
use crate::ready::Check;

/// What the driver is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `BERTH_JOB_INPUT`: a file of JSONL rows, or a folder of such files.
    pub(crate) input: PathBuf,
    /// `BERTH_JOB_OUTPUT`: where the predictions go; not there yet.
    pub(crate) output: PathBuf,
    /// `BERTH_PREDICTOR_URL`: where rows are posted.
    pub(crate) url: String,
    /// `BERTH_JOB_READY`: what must be ready before, separated by spaces.
    pub(crate) ready: Vec<Check>,
    /// `BERTH_JOB_START_TIMEOUT_MS`: how long that may take.
    pub(crate) start_timeout: Duration,
    /// `BERTH_JOB_BATCH`: rows in one request.
    pub(crate) batch: usize,
    /// `BERTH_JOB_IN_FLIGHT`: requests at a time.
    pub(crate) in_flight: usize,
    /// `BERTH_JOB_TIMEOUT_MS`: the longest that one request may take.
    pub(crate) timeout: Duration,
    /// `BERTH_JOB_PATIENCE_MS`: how long rows are tried again that get no answer, or "not now".
    pub(crate) patience: Duration,
}

impl Settings {
    /// From an environment.
    pub(crate) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let needed = |name: &str| {
            env(name).filter(|text| !text.is_empty()).ok_or_else(|| {
                Failure::Settings(format!(
                    "{name} is not set: Berth starts this program for a job and says what it needs"
                ))
            })
        };
        let millis = |name, default: u64| {
            number(env, name, default).map(|number: u64| Duration::from_millis(number))
        };
        let ready = env("BERTH_JOB_READY").unwrap_or_default();
        Ok(Self {
            input: needed("BERTH_JOB_INPUT")?.into(),
            output: needed("BERTH_JOB_OUTPUT")?.into(),
            url: needed("BERTH_PREDICTOR_URL")?,
            ready: ready
                .split_whitespace()
                .map(|text| text.parse().map_err(Failure::Settings))
                .collect::<Result<_, _>>()?,
            start_timeout: millis("BERTH_JOB_START_TIMEOUT_MS", 60_000)?,
            batch: number(env, "BERTH_JOB_BATCH", 32)?.max(1),
            in_flight: number(env, "BERTH_JOB_IN_FLIGHT", 4)?.clamp(1, 256),
            timeout: millis("BERTH_JOB_TIMEOUT_MS", 300_000)?,
            patience: millis("BERTH_JOB_PATIENCE_MS", 300_000)?,
        })
    }
}

fn number<T: FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    name: &str,
    default: T,
) -> Result<T, Failure> {
    match env(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| Failure::Settings(format!("{name} is {text:?}, which is no number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_what_is_wrong_is_named() {
        let full = |name: &str| match name {
            "BERTH_JOB_INPUT" => Some("/in".to_owned()),
            "BERTH_JOB_OUTPUT" => Some("/out".to_owned()),
            "BERTH_PREDICTOR_URL" => Some("http://127.0.0.1:1/p".to_owned()),
            _ => None,
        };
        let settings = Settings::from_env(&full).unwrap();
        assert_eq!((settings.batch, settings.in_flight), (32, 4));
        let without = |name: &str| {
            if name == "BERTH_JOB_OUTPUT" {
                None
            } else {
                full(name)
            }
        };
        let told = Settings::from_env(&without).unwrap_err();
        assert!(told.to_string().contains("BERTH_JOB_OUTPUT is not set"));
        let wrong = |name: &str| {
            let batch = (name == "BERTH_JOB_BATCH").then(|| "many".to_owned());
            batch.or_else(|| full(name))
        };
        let told = Settings::from_env(&wrong).unwrap_err();
        assert_eq!(
            (told.code(), told.to_string().contains("\"many\"")),
            (2, true)
        );
    }
}
