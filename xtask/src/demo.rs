//! The demo: a whole Berth on this machine, serving a real model.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{build, http, run, stage, table};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Shut everything down after the predictions and exit
    #[arg(long)]
    once: bool,
    /// Build optimised programs
    #[arg(long)]
    release: bool,
    /// Where the demo keeps its state (a folder of its own under target/ if absent)
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    println!("==> Building");
    let bin = build::run(&build::Options {
        release: options.release,
        full: false,
    })?;
    let home = match &options.data {
        Some(dir) => std::path::absolute(dir)?,
        None => run::target().join("berth/demo"),
    };
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let demo = Demo {
        bin,
        home,
        interrupted,
    };
    // What an earlier demo left behind (it was killed, say) goes first.
    demo.down()?;
    demo.forget()?;
    let served = demo.serve(began).and_then(|url| {
        if options.once {
            return Ok(());
        }
        demo.tell_how_to_go_on(&url);
        demo.wait()
    });
    println!("\n==> Shutting down");
    let down = demo.down();
    served?;
    down?;
    println!("    everything is stopped");
    Ok(())
}

struct Demo {
    bin: PathBuf,
    home: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    /// The CLI with a context of the demo's own, so that the user's is left alone.
    fn berth(&self) -> Command {
        let mut command = Command::new(self.bin.join("berth"));
        command.env("XDG_CONFIG_HOME", self.home.join("config"));
        for name in ["BERTH_ENDPOINT", "BERTH_TOKEN", "BERTH_CA", "BERTH_CONTEXT"] {
            command.env_remove(name);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn down(&self) -> Result<()> {
        run::output(self.berth().arg("down").arg("--data").arg(self.data())).map(|_| ())
    }

    /// Every demo begins anew: a detector that was built again is another package, which a coordinator
    /// that knows the old one rightly refuses under the same version. Only what `berth up` made goes.
    fn forget(&self) -> Result<()> {
        let data = self.data();
        if !data.join("up.json").is_file() {
            return Ok(());
        }
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot clear {}", data.display()))
    }

    fn serve(&self, began: Instant) -> Result<String> {
        println!("==> Starting a coordinator, a gateway and two local nodes");
        let (api, gateway) = (port(7450)?, port(7480)?);
        run::check(
            self.berth()
                .args(["up", "--detach", "--nodes", "2", "--data"])
                .arg(self.data())
                .args([
                    "--api-port",
                    &api.to_string(),
                    "--gateway-port",
                    &gateway.to_string(),
                ]),
        )?;
        self.stop_if_interrupted()?;
        println!("==> Building and pushing examples/dga-detector");
        let package = stage::dga_detector(&self.bin, &self.home.join("dga-detector"))?;
        run::check(self.berth().args(["model", "push"]).arg(&package))?;
        self.stop_if_interrupted()?;
        println!("==> Deploying it with 2 replicas");
        run::check(
            self.berth()
                .args(["deploy", "dga-detector", "--replicas", "2", "--wait"]),
        )?;
        self.stop_if_interrupted()?;
        let url = format!("http://127.0.0.1:{gateway}");
        let instances = predict(&url)?;
        println!(
            "\n    first predictions {:.1} s after the start",
            began.elapsed().as_secs_f32()
        );
        self.logs(&instances)?;
        Ok(url)
    }

    fn stop_if_interrupted(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    fn logs(&self, instances: &[String]) -> Result<()> {
        for instance in instances {
            println!("\n==> Last log lines of {instance}");
            run::check(self.berth().args(["logs", instance, "--tail", "4"]))?;
        }
        Ok(())
    }

    fn tell_how_to_go_on(&self, url: &str) {
        println!("\n==> Serving at {url}; try it:\n");
        println!(
            "    curl -s {url}/v1/models/dga-detector:predict -d '{{\"instances\": [\"debian.org\", \"xjwqkvbtnzrp.info\"]}}'\n"
        );
        println!(
            "    export XDG_CONFIG_HOME={}\n    {} status",
            self.home.join("config").display(),
            self.bin.join("berth").display()
        );
    }

    fn wait(&self) -> Result<()> {
        println!("\n    Ctrl-C stops everything.");
        while !self.interrupted.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// The usual port if it is free, else any that is.
fn port(usual: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", usual))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
        .context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// One request per name, so that the table can tell who answered; returns the instances that did.
fn predict(url: &str) -> Result<Vec<String>> {
    println!("\n==> Asking whether these domain names were made by malware");
    let list = run::root().join("examples/dga-detector/domains.txt");
    let names = std::fs::read_to_string(&list)
        .with_context(|| format!("cannot read {}", list.display()))?;
    let mut rows = Vec::new();
    let mut instances = std::collections::BTreeSet::new();
    for name in names
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let body = serde_json::json!({ "instances": [name] }).to_string();
        let answer = http::post(url, "/v1/models/dga-detector:predict", &body)?;
        if answer.status != 200 {
            bail!(
                "{name}: the gateway answered {}: {}",
                answer.status,
                answer.body
            );
        }
        rows.push(row(name, &answer, &mut instances)?);
    }
    table::print(&["DOMAIN", "SCORE", "VERDICT", "ANSWERED BY"], &rows);
    Ok(instances.into_iter().collect())
}

fn row(
    name: &str,
    answer: &http::Answer,
    instances: &mut std::collections::BTreeSet<String>,
) -> Result<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(&answer.body)
        .with_context(|| format!("{name}: not JSON: {}", answer.body))?;
    let first = &json["predictions"][0];
    let score = first["score"]
        .as_f64()
        .with_context(|| format!("{name}: no score in {json}"))?;
    let verdict = first["verdict"].as_str().unwrap_or_default().to_owned();
    let instance = answer
        .headers
        .get("berth-instance")
        .cloned()
        .unwrap_or_default();
    instances.insert(instance.clone());
    Ok(vec![
        name.to_owned(),
        format!("{score:.3}"),
        verdict,
        instance,
    ])
}
