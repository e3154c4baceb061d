use anyhow::Result;
use berth_model::api::List;
use berth_model::event::{Event, Level};
use berth_model::problem::Problem;
use reqwest::Method;
use std::time::Duration;

use crate::args::Events;
use crate::client::Client;
use crate::failure::is_output;
use crate::output::{self, Format};
use crate::sse::Reader;
use crate::table;

/// Pause before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, events: Events) -> Result<()> {
    if !events.follow {
        let list: List<Event> = client.get("/v1/events").await?;
        // Lines are as long as they are: a time or a message that is cut says nothing.
        return output::show(events.output, &list.items, |_| render(&list.items));
    }
    let mut seen = Seen::default();
    loop {
        match follow(client, events.output, &mut seen).await {
            Err(error) if is_over(&error, &seen) => return Err(error),
            // Nothing is missed: the next stream goes on after the last number.
            Ok(()) | Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// How far following has come.
#[derive(Default)]
struct Seen {
    /// The coordinator has answered once: from then on it is waited for.
    reached: bool,
    /// The last event's number.
    last: u64,
}

/// Whether following ends: it was refused, nothing can be written any more, or there is no coordinator.
fn is_over(error: &anyhow::Error, seen: &Seen) -> bool {
    error.is::<Problem>() || is_output(error) || !seen.reached
}

async fn follow(client: &Client, format: Format, seen: &mut Seen) -> Result<()> {
    let after = seen.last.to_string();
    let request = client
        .request(Method::GET, "/v1/events")
        .query(&[("follow", "true"), ("after", &after)]);
    let mut stream = Reader::new(client.send(request).await?);
    seen.reached = true;
    while let Some(event) = stream.next().await? {
        if event.name != "event" {
            continue;
        }
        let event: Event = serde_json::from_str(&event.data)?;
        match format {
            Format::Table => output::line(&one(&event))?,
            Format::Json => output::line(&serde_json::to_string(&event)?)?,
            Format::Yaml => output::print(&format!("---\n{}", serde_norway::to_string(&event)?))?,
        }
        seen.last = event.seq;
    }
    Ok(())
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn one(event: &Event) -> String {
    format!(
        "{}  {:<7}  {}  {}: {}",
        event.time.rfc3339(),
        level(event.level),
        event.subject,
        event.kind,
        event.message
    )
}

fn render(events: &[Event]) -> String {
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            vec![
                event.time.rfc3339(),
                level(event.level).to_owned(),
                event.subject.clone(),
                event.kind.clone(),
                event.message.clone(),
            ]
        })
        .collect();
    table::render(
        &["TIME", "LEVEL", "SUBJECT", "KIND", "MESSAGE"],
        &rows,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn following_ends_when_nothing_can_be_written_and_outlives_a_broken_stream() {
        let seen = Seen {
            reached: true,
            last: 7,
        };
        let full = std::fs::File::options().write(true).open("/dev/full");
        let full = full.unwrap().write_all(b"an event\n").unwrap_err();
        assert!(is_over(&full.into(), &seen));
        let (reader, mut pipe) = std::io::pipe().unwrap();
        drop(reader);
        let gone = pipe.write_all(b"an event\n").unwrap_err();
        assert!(is_over(&gone.into(), &seen));
        let broken = || anyhow::anyhow!("the stream broke off");
        assert!(!is_over(&broken(), &seen));
        assert!(is_over(&broken(), &Seen::default()));
    }
}
