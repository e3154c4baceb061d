mod line;

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use berth_model::id::InstanceId;
use berth_model::problem::Problem;
use berth_model::record::LogLine;
use reqwest::Method;

use crate::args::Logs;
use crate::client::Client;
use crate::failure::is_output;
use crate::output::{self, Format};
use crate::sse::Reader;

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(500);

/// Where lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    Stdout,
    Stderr,
}

pub(super) async fn run(client: &Client, logs: Logs) -> Result<()> {
    stream(client, &logs, To::Stdout).await
}

/// Writes the lines; returns when all that was asked for has come.
pub(super) async fn stream(client: &Client, logs: &Logs, to: To) -> Result<()> {
    let mut cursor = String::new();
    // Lines that came after the last cursor are sent again when the stream is opened again.
    let mut since_cursor = Vec::new();
    loop {
        let ended = once(client, logs, to, &mut cursor, &mut since_cursor).await;
        match ended {
            Ok(true) => return Ok(()),
            Err(error) if !logs.follow || is_final(&error) || is_output(&error) => {
                return Err(error);
            }
            Ok(false) | Err(_) if logs.follow => tokio::time::sleep(AGAIN).await,
            _ => return Ok(()),
        }
    }
}

/// Whether the coordinator has refused, rather than being on its way up or down.
pub(super) fn is_final(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<Problem>();
    problem.is_some_and(|problem| problem.status != 503)
}

fn query(logs: &Logs, resumed: bool) -> Vec<(&'static str, String)> {
    let subject = if logs.subject.parse::<InstanceId>().is_ok() {
        "instance"
    } else {
        "service"
    };
    let mut query = vec![(subject, logs.subject.clone())];
    if logs.follow {
        query.push(("follow", "true".to_owned()));
    }
    if let Some(since) = logs.since {
        query.push(("since", since.to_string()));
    }
    if let Some(grep) = &logs.grep {
        query.push(("grep", grep.clone()));
    }
    // Of what came while the stream was broken, everything is wanted.
    if let Some(tail) = logs.tail.filter(|_| !resumed) {
        query.push(("tail", tail.to_string()));
    }
    query
}

/// Reads one stream to its end; true if that is the end of what was asked for.
async fn once(
    client: &Client,
    logs: &Logs,
    to: To,
    cursor: &mut String,
    since_cursor: &mut Vec<LogLine>,
) -> Result<bool> {
    let resumed = !cursor.is_empty();
    let mut request = client
        .request(Method::GET, "/v1/logs")
        .query(&query(logs, resumed));
    if resumed {
        request = request.header("last-event-id", cursor.as_str());
    }
    let mut events = Reader::new(client.send(request).await?);
    let mut seen = std::mem::take(since_cursor);
    let printer = line::Printer::new(to == To::Stdout && output::colours());
    while let Some(event) = events.next().await? {
        match event.name.as_str() {
            "line" => {
                let record: LogLine = serde_json::from_str(&event.data)?;
                if event.id != *cursor {
                    cursor.clone_from(&event.id);
                    since_cursor.clear();
                } else {
                    since_cursor.push(record.clone());
                }
                if let Some(at) = seen.iter().position(|old| *old == record) {
                    seen.swap_remove(at);
                    continue;
                }
                let text = render(logs.output, &printer, &record)?;
                match to {
                    To::Stdout => write(&mut std::io::stdout().lock(), &text)?,
                    To::Stderr => write(&mut std::io::stderr().lock(), &text)?,
                };
            }
            "problem" => return Err(serde_json::from_str::<Problem>(&event.data)?.into()),
            "end" => return Ok(true),
            _ => {}
        }
    }
    Ok(false)
}

fn render(format: Format, printer: &line::Printer, record: &LogLine) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Table => printer.render(record),
        Format::Json => (serde_json::to_string(record)? + "\n").into_bytes(),
        Format::Yaml => format!("---\n{}", serde_norway::to_string(record)?).into_bytes(),
    })
}

fn write(out: &mut impl Write, text: &[u8]) -> std::io::Result<()> {
    out.write_all(text)?;
    out.flush()
}
