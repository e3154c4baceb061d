//! Asking for predictions, again where that may help.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;

use crate::answer;
use crate::failure::{Failure, beginning};
use crate::rows::{Batch, Row, SHOWN};
use crate::settings::Settings;

/// The longest answer that is taken.
const MAX_ANSWER: u64 = 256 << 20;

/// How often a request is made that the server fails on (5xx but for 503).
const TRIES: u32 = 3;

/// Waits between attempts: the first at most so long, then twice that…
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// …up to this.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// An HTTP client for loopback: no proxies, no redirects, every status an answer.
pub(crate) fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_connect(Some(Duration::from_secs(5)))
        .timeout_global(Some(timeout))
        .user_agent("berth-driver")
        .max_idle_connections_per_host(256)
        .build()
        .into()
}

/// The server's own words: the text of its `{"error": …}`, else the beginning of what it said.
pub(crate) fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Told {
        error: String,
    }
    let text = match serde_json::from_slice::<Told>(body) {
        Ok(told) => told.error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(8000)])
            .trim()
            .to_owned(),
    };
    beginning(&text, 2000)
}

/// Posts rows of one file.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    patience: Duration,
    path: PathBuf,
}

/// Why an attempt brought no predictions.
enum Trouble {
    /// To be tried again: not now, or no answer.
    Later(String),
    /// The server fails on it.
    Server { status: u16, words: String },
    /// The server does not take it.
    Refused { status: u16, words: String },
    /// The answer makes no sense.
    Answer(String),
}

/// What the server does not take.
struct Refusal {
    status: u16,
    words: String,
}

impl Client {
    /// For the rows of the file at `path`.
    pub(crate) fn new(settings: &Settings, path: PathBuf) -> Self {
        Self {
            agent: agent(settings.timeout),
            url: settings.url.clone(),
            patience: settings.patience,
            path,
        }
    }

    /// The predictions of a batch, a line each.
    pub(crate) fn predict(&self, batch: &Batch) -> Result<Vec<u8>, Failure> {
        match self.ask(&batch.rows)? {
            Ok(lines) => Ok(lines),
            Err(refusal) => self.one_by_one(&batch.rows, refusal),
        }
    }

    /// A batch was refused: finds the row at fault. What is good only by itself is taken so.
    fn one_by_one(&self, rows: &[Row], refusal: Refusal) -> Result<Vec<u8>, Failure> {
        let refused = |row: &Row, refusal: Refusal| Failure::Refused {
            path: self.path.clone(),
            row: row.number,
            status: refusal.status,
            words: refusal.words,
            begin: beginning(&row.text, SHOWN),
        };
        if let [row] = rows {
            return Err(refused(row, refusal));
        }
        let mut all = Vec::new();
        for row in rows {
            match self.ask(std::slice::from_ref(row))? {
                Ok(mut lines) => all.append(&mut lines),
                Err(refusal) => return Err(refused(row, refusal)),
            }
        }
        Ok(all)
    }

    /// Asks until there is an answer, or it was tried for too long.
    fn ask(&self, rows: &[Row]) -> Result<Result<Vec<u8>, Refusal>, Failure> {
        let ends = || {
            let numbers = (rows.first(), rows.last());
            (
                numbers.0.map_or(0, |row| row.number),
                numbers.1.map_or(0, |row| row.number),
            )
        };
        let (begin, body) = (Instant::now(), body(rows));
        let (mut wait, mut failures) = (FIRST_WAIT, 0);
        loop {
            match self.attempt(&body, rows.len()) {
                Ok(lines) => return Ok(Ok(lines)),
                Err(Trouble::Refused { status, words }) => {
                    return Ok(Err(Refusal { status, words }));
                }
                Err(Trouble::Answer(problem)) => {
                    let ((first, last), path) = (ends(), self.path.clone());
                    return Err(Failure::Answer {
                        path,
                        first,
                        last,
                        problem,
                    });
                }
                Err(Trouble::Server { status, words }) => {
                    failures += 1;
                    if failures == TRIES {
                        return Ok(Err(Refusal { status, words }));
                    }
                }
                Err(Trouble::Later(trouble)) if begin.elapsed() >= self.patience => {
                    let ((first, last), path) = (ends(), self.path.clone());
                    let seconds = self.patience.as_secs();
                    return Err(Failure::Unreachable {
                        path,
                        first,
                        last,
                        seconds,
                        trouble,
                    });
                }
                Err(Trouble::Later(_)) => {}
            }
            std::thread::sleep(jittered(wait));
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    fn attempt(&self, body: &[u8], rows: usize) -> Result<Vec<u8>, Trouble> {
        let later = |error: ureq::Error| Trouble::Later(error.to_string());
        let mut response = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(body)
            .map_err(later)?;
        let status = response.status().as_u16();
        let body = match response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_vec()
        {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let problem = format!("is longer than {} MiB", MAX_ANSWER >> 20);
                return Err(Trouble::Answer(problem));
            }
            Err(error) => return Err(later(error)),
        };
        let words = || words(&body);
        match status {
            200..=299 => answer::lines(&body, rows).map_err(Trouble::Answer),
            429 | 503 => Err(Trouble::Later(format!("it answered {status}: {}", words()))),
            500..=599 => Err(Trouble::Server {
                status,
                words: words(),
            }),
            _ => Err(Trouble::Refused {
                status,
                words: words(),
            }),
        }
    }
}

/// `{"instances": […]}` of rows as they are.
fn body(rows: &[Row]) -> Vec<u8> {
    let mut body = b"{\"instances\":[".to_vec();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(row.text.as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

/// Half of a wait, and a random part of the other half, so that several do not beat in time.
fn jittered(wait: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    wait / 2 + (wait / 2).mul_f64(f64::from(u16::try_from(random).unwrap_or(0)) / 1000.0)
}
