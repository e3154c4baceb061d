//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// What is smaller is done before anybody wonders: without a terminal nothing is said of it.
const SMALL: u64 = 16 << 20;

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
        if total < SMALL {
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

/// Instances that get ready, one by one; cleared when dropped.
pub(crate) struct Instances(Option<ProgressBar>);

impl Instances {
    /// A bar for the service `name` if standard error is a terminal.
    pub(crate) fn new(name: &str) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} [{bar:20}] {pos}/{len} ready  {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar
        }))
    }

    /// So many of `wanted` are ready, and why not more. False if there is no bar to show it.
    pub(crate) fn at(&mut self, ready: u64, wanted: u64, why: &str) -> bool {
        let Some(bar) = &self.0 else { return false };
        bar.set_length(wanted);
        bar.set_position(ready);
        bar.set_message(why.to_owned());
        true
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A line to standard error about how things go.
pub(crate) fn note(text: &str) {
    // When standard error is gone, nobody wants to know.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
