//! Waiting until the module can answer.

use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::client::{agent, words};
use crate::failure::Failure;

/// Longest time for one question.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time between two questions.
const PAUSE: Duration = Duration::from_millis(500);

/// What must answer, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// `http://…`: GET answers 2xx.
    Http(String),
    /// `tcp://HOST:PORT`: it accepts.
    Tcp(String),
    /// `tf-serving+http://…/versions/N`: the status of that version is AVAILABLE.
    TfServing(String),
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(url) = text.strip_prefix("tf-serving+") {
            return Ok(Self::TfServing(url.to_owned()));
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            return Ok(Self::Tcp(address.to_owned()));
        }
        if text.starts_with("http://") {
            return Ok(Self::Http(text.to_owned()));
        }
        Err(format!(
            "BERTH_JOB_READY names {text:?}, which this version does not understand"
        ))
    }
}

/// What one question brought.
enum Answer {
    Ready,
    NotYet(String),
    Never(String),
}

/// Waits until all are ready.
pub(crate) fn wait(checks: &[Check], limit: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    for check in checks {
        let mut pause = Duration::from_millis(10);
        loop {
            match ask(check) {
                Answer::Ready => break,
                Answer::Never(words) => return Err(Failure::ModelLoad(words)),
                Answer::NotYet(last) if begin.elapsed() >= limit => {
                    return Err(Failure::NotReady {
                        what: check.to_string(),
                        seconds: limit.as_secs_f64(),
                        last,
                    });
                }
                Answer::NotYet(_) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }
    Ok(())
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(url) | Self::TfServing(url) => write!(f, "GET {url}"),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

fn ask(check: &Check) -> Answer {
    match check {
        Check::Tcp(address) => match connect(address) {
            Ok(()) => Answer::Ready,
            Err(error) => Answer::NotYet(error.to_string()),
        },
        Check::Http(url) => match get(url) {
            Ok((200..=299, _)) => Answer::Ready,
            Ok((status, _)) => Answer::NotYet(format!("it answered {status}")),
            Err(error) => Answer::NotYet(error),
        },
        Check::TfServing(url) => match get(url) {
            Ok((200, body)) => version(&body),
            Ok((status, body)) => Answer::NotYet(format!("it answered {status}: {}", words(&body))),
            Err(error) => Answer::NotYet(error),
        },
    }
}

fn connect(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("it has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn get(url: &str) -> Result<(u16, Vec<u8>), String> {
    let mut response = agent(TIMEOUT)
        .get(url)
        .call()
        .map_err(|error| error.to_string())?;
    let body = response
        .body_mut()
        .with_config()
        .limit(1 << 20)
        .read_to_vec();
    Ok((
        response.status().as_u16(),
        body.map_err(|error| error.to_string())?,
    ))
}

#[derive(Deserialize)]
struct Statuses {
    model_version_status: Vec<VersionStatus>,
}

#[derive(Deserialize)]
struct VersionStatus {
    state: String,
    #[serde(default)]
    status: ErrorStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorStatus {
    error_code: String,
    error_message: String,
}

/// What the status of one version means.
fn version(body: &[u8]) -> Answer {
    let Ok(statuses) = serde_json::from_slice::<Statuses>(body) else {
        return Answer::NotYet(format!("its status makes no sense: {}", words(body)));
    };
    let Some(version) = statuses.model_version_status.first() else {
        return Answer::NotYet("it has no such version yet".to_owned());
    };
    match (version.state.as_str(), version.status.error_code.as_str()) {
        ("AVAILABLE", _) => Answer::Ready,
        ("END", code) if !matches!(code, "" | "OK") => {
            Answer::Never(format!("{code}: {}", version.status.error_message))
        }
        (state, _) => Answer::NotYet(format!("the model's state is {state}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versions_state_is_understood() {
        let status = |state: &str, code: &str| {
            let text = format!(
                r#"{{"model_version_status":[{{"version":"2","state":"{state}","status":{{"error_code":"{code}","error_message":"words"}}}}]}}"#
            );
            version(text.as_bytes())
        };
        assert!(matches!(status("AVAILABLE", "OK"), Answer::Ready));
        assert!(matches!(status("LOADING", "OK"), Answer::NotYet(_)));
        assert!(matches!(status("END", "OK"), Answer::NotYet(_)));
        assert!(
            matches!(status("END", "NOT_FOUND"), Answer::Never(text) if text == "NOT_FOUND: words")
        );
        assert!(matches!(version(b"<html>"), Answer::NotYet(_)));
        assert!(matches!(
            version(br#"{"model_version_status":[]}"#),
            Answer::NotYet(_)
        ));
    }

    #[test]
    fn checks_are_read() {
        let read = |text: &str| text.parse::<Check>();
        assert_eq!(read("tcp://h:1"), Ok(Check::Tcp("h:1".into())));
        assert_eq!(read("http://h/x"), Ok(Check::Http("http://h/x".into())));
        assert_eq!(
            read("tf-serving+http://h/x"),
            Ok(Check::TfServing("http://h/x".into()))
        );
        assert!(read("grpc://h:1").is_err());
    }
}
