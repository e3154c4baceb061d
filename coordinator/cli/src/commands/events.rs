use anyhow::Result;
use berth_model::api::List;
use berth_model::event::{Event, Level};
use berth_model::problem::Problem;
use reqwest::Method;
use std::time::Duration;

use crate::args::Events;
use crate::client::Client;
use crate::failure::nobody_reads;
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
            Err(error) if error.is::<Problem>() || nobody_reads(&error) || !seen.reached => {
                return Err(error);
            }
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
