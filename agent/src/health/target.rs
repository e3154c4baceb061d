//! What is asked of one process.

use std::net::SocketAddr;
use std::time::Duration;

use berth_model::manifest::{HealthCheck, Protocol};
use hyper::StatusCode;
use serde::Deserialize;

use super::probe::{fetch, probe};

/// How much of a model's status is read.
const MOST: usize = 64 * 1024;

/// One process and what shows that it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub process: &'static str,
    /// Where it shall listen.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The path at which TensorFlow Serving says whether the version can be used; none for other modules.
    pub model_status: Option<String>,
    /// What is asked.
    pub check: HealthCheck,
}

/// Why a process is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwell {
    /// In a few words.
    Words(String),
    /// The model server cannot load the model, in its own words.
    Load(String),
}

impl Target {
    /// Asks once.
    pub async fn ask(&self, timeout: Duration) -> Result<(), Unwell> {
        if let Some(path) = &self.model_status {
            let (status, body) = fetch(self.address, path, MOST, timeout)
                .await
                .map_err(Unwell::Words)?;
            model_status(path, status, &body)?;
            // Its port is known to accept.
            if self.check == HealthCheck::Tcp {
                return Ok(());
            }
        }
        probe(&self.check, self.protocol, self.address, timeout)
            .await
            .map_err(Unwell::Words)
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    model_version_status: Vec<VersionStatus>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct VersionStatus {
    state: String,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    error_code: String,
    error_message: String,
}

/// What TensorFlow Serving says of one version of a model.
fn model_status(path: &str, status: StatusCode, body: &[u8]) -> Result<(), Unwell> {
    let words = |text: String| Err(Unwell::Words(text));
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return words(format!("GET {path} answered {status} and no model status"));
    };
    if let Some(error) = answer.error {
        return words(format!("GET {path} answered {status}: {error}"));
    }
    let [version] = &answer.model_version_status[..] else {
        return words(format!("GET {path} answered {status} and not one version"));
    };
    let Status {
        error_code,
        error_message,
    } = &version.status;
    match version.state.as_str() {
        "AVAILABLE" => Ok(()),
        "END" if !matches!(error_code.as_str(), "" | "OK") => {
            Err(Unwell::Load(format!("{error_code}: {error_message}")))
        }
        "END" => words("the model was unloaded".to_owned()),
        state => words(format!("the model is not available yet ({state})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, body: &str) -> Result<(), Unwell> {
        let status = StatusCode::from_u16(status).unwrap();
        model_status("/v1/models/m/versions/2", status, body.as_bytes())
    }

    fn state(state: &str, code: &str, message: &str) -> Result<(), Unwell> {
        let body = serde_json::json!({"model_version_status": [{
            "version": "2",
            "state": state,
            "status": {"error_code": code, "error_message": message},
        }]});
        told(200, &body.to_string())
    }

    #[test]
    fn only_an_available_version_is_ready() {
        assert_eq!(state("AVAILABLE", "OK", ""), Ok(()));
        for starting in ["START", "LOADING", "UNLOADING", "END", "NEW"] {
            let told = state(starting, "OK", "");
            assert!(matches!(told, Err(Unwell::Words(_))), "{told:?}");
        }
        assert_eq!(
            state("END", "OUT_OF_RANGE", "Read less bytes than requested"),
            Err(Unwell::Load(
                "OUT_OF_RANGE: Read less bytes than requested".to_owned()
            ))
        );
    }

    #[test]
    fn what_is_no_status_is_told_and_nothing_panics() {
        let unknown = told(
            404,
            "{\"error\": \"Could not find any versions of model m\"}",
        );
        let Err(Unwell::Words(text)) = unknown else {
            panic!("{unknown:?}")
        };
        assert!(text.contains("404") && text.contains("any versions"));
        for body in ["", "[]", "{}", "{\"model_version_status\": []}", "\u{0}"] {
            assert!(matches!(told(200, body), Err(Unwell::Words(_))), "{body}");
        }
    }
}
