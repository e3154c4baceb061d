//! `dga-detector`: serves the model over HTTP in the shape of TensorFlow Serving's REST API.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use dga_detector::model::Model;

mod api;
mod config;
mod predict;
mod server;

use config::Config;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            say(&format!("error: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::read(|name| std::env::var(name).ok())?;
    let model = Model::load(&config.model_dir)?;
    say(&format!(
        "{} version {} loaded from {}",
        config.model_name,
        config.serial,
        config.model_dir.display()
    ));
    // One thread judges a hundred thousand names a second; more instances are Berth's business.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(server::serve(
        &config,
        Arc::new(api::Api::new(&config, model)),
    ))?;
    say("stopped");
    Ok(())
}

/// A line about the program itself. Nobody reading is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "dga-detector: {line}");
}
