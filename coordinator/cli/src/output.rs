//! Writing results: tables for people, JSON and YAML for programs.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// The API's own JSON
    Json,
    /// The same as YAML
    Yaml,
}

/// Writes `value` as JSON or YAML, or what `table` makes of it and the terminal's width.
pub(crate) fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(Option<usize>) -> String,
) -> Result<()> {
    let text = match format {
        Format::Table => table(width()),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_norway::to_string(value)?,
    };
    print(&text)
}

/// Writes text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

/// How the end of something is told: by [`line`], or aside where standard output has something else.
pub(crate) type Say = fn(&str) -> Result<()>;

/// Writes one line to standard error.
pub(crate) fn aside(text: &str) -> Result<()> {
    crate::progress::note(text);
    Ok(())
}

/// The terminal's width in characters; none if standard output is not one.
pub(crate) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}

/// Whether colours are welcome on standard output.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
