//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// One piece of long work, measured in bytes.
pub(crate) struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    total: u64,
    told: u64,
}

impl Progress {
    /// Begins; `total` bytes lie ahead.
    pub(crate) fn bytes(what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{msg:<12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar
        });
        Self {
            what: what.to_owned(),
            bar,
            total,
            told: 0,
        }
    }

    /// So much is done. Without a terminal a line is written for each further quarter.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            return;
        }
        let quarter = (done * 4).checked_div(total).unwrap_or(4);
        if quarter > self.told {
            self.told = quarter;
            note(&format!("{} {} %", self.what, quarter * 25));
        }
    }

    /// Ends and clears the bar.
    pub(crate) fn done(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line to standard error about how things go.
pub(crate) fn note(text: &str) {
    // When standard error is gone, nobody wants to know.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
