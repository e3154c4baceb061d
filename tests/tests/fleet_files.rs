//! Fleet files with the real programs: plan, apply, change, prune, export; two people at once; mistakes.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use berth_model::api::FleetPlan;
use berth_tests::{Cluster, Mode, Options, stage};

const MODULE: &str = env!("CARGO_BIN_EXE_test-module");

struct Files {
    cluster: Cluster,
    dir: PathBuf,
}

impl Files {
    async fn start(nodes: usize) -> Result<Self> {
        let cluster = Cluster::start(Options::nodes(nodes), MODULE).await?;
        let dir = cluster.home().join("fleet");
        std::fs::create_dir(&dir)?;
        Ok(Self { cluster, dir })
    }

    /// The package `echo` beside the files.
    fn package(&self, version: &str) -> Result<()> {
        let dir = self.dir.join("packages/echo");
        stage(&dir, MODULE.as_ref(), "echo", version, Mode::Good)?;
        let manifest = dir.join("berth.toml");
        let text = std::fs::read_to_string(&manifest)?;
        // A job turns its input to upper case.
        let job = "\n[job]\ncommand = [\"/bin/sh\", \"-c\", \"tr a-z A-Z < $BERTH_JOB_INPUT > $BERTH_JOB_OUTPUT\"]\n";
        std::fs::write(&manifest, text + job)?;
        Ok(())
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("UTF-8")?.to_owned())
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        self.cluster.cli(args)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        self.cluster.cli_text(args)
    }

    /// The standard error of a command that must fail with this code.
    fn fails(&self, code: i32, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        ensure!(output.status.code() == Some(code), "{args:?}: {output:?}");
        Ok(String::from_utf8(output.stderr)?)
    }

    async fn replicas(&self, service: &str) -> Result<u32> {
        Ok(self.cluster.client.service(service).await?.replicas)
    }
}

const PLACES: &str = "[node.node-1]
labels = { rack = \"a\" }
[node.node-2]
labels = { rack = \"a\" }
[pool.front]
labels = { rack = \"a\" }
";

const WORK: &str = "[model.echo]
package = \"packages/echo\"
[service.echo]
model = \"echo\"
replicas = 1
pool = \"front\"
[job.upper]
model = \"echo@1.0.0\"
input = \"names.txt\"
";

/// A plan changes nothing, and says what there is to do.
async fn planned(files: &Files, f: &str) -> Result<()> {
    let output = files.run(&["plan", "-f", f, "--exit-code"])?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    let shown = String::from_utf8(output.stdout)?;
    for line in [
        "~ node/node-1",
        "    labels.rack  (none) → a",
        "+ pool/front",
        "+ model/echo",
        "+ service/echo",
        "    model            echo@1.0.0",
        "  * 1 instance starts",
        "+ job/upper",
        "4 to create, 2 to change, 0 to delete; nothing is as declared.",
    ] {
        ensure!(shown.lines().any(|l| l == line), "{line:?} in\n{shown}");
    }
    ensure!(!shown.contains('\u{1b}'), "no colours in a pipe: {shown}");
    ensure!(files.cluster.client.services().await?.is_empty());
    Ok(())
}

/// What is left out stays until it is pruned; what was made by hand stays anyway.
async fn pruned(files: &Files, f: &str, work: &str) -> Result<()> {
    files.ok(&["deploy", "echo", "--service", "by-hand", "--replicas", "0"])?;
    let less = work.split("[job.upper]").next().context("work")?;
    files.write("work.toml", less)?;
    let kept = files.ok(&["plan", "-f", f])?;
    ensure!(
        kept.contains("not declared any more: job/upper; --prune removes it"),
        "{kept}"
    );
    files.write("work.toml", "")?;
    let gone = files.ok(&["apply", "-f", f, "--prune", "--wait"])?;
    ensure!(
        gone.contains("- service/echo") && gone.contains("echo is gone"),
        "{gone}"
    );
    let services = files.cluster.client.services().await?;
    let names: Vec<String> = services.iter().map(|s| s.name.to_string()).collect();
    ensure!(names == ["by-hand"], "{names:?}");
    ensure!(files.ok(&["pool", "list"])?.contains("front"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_planned_applied_changed_exported_and_pruned() -> Result<()> {
    let files = Files::start(3).await?;
    files.package("1.0.0")?;
    files.write("names.txt", "one\ntwo\n")?;
    files.write("places.toml", PLACES)?;
    files.write("work.toml", WORK)?;
    let dir = files.dir.to_str().context("UTF-8")?.to_owned();
    let f = dir.as_str();

    planned(&files, f).await?;
    let done = files.ok(&["apply", "-f", f, "--wait"])?;
    ensure!(
        done.contains("Applied: 4 created, 2 changed, 0 deleted."),
        "{done}"
    );
    ensure!(done.contains("echo is ready: 1 of 1"), "{done}");
    let service = files.cluster.client.service("echo").await?;
    let node = service.instances[0].node.to_string();
    ensure!(
        ["node-1", "node-2"].contains(&node.as_str()),
        "in the pool: {node}"
    );
    // Jobs are waited for, too.
    ensure!(done.contains("upper has succeeded: 1 of 1"), "{done}");
    ensure!(files.ok(&["job", "output", "upper"])? == "ONE\nTWO\n");
    let again = files.ok(&["apply", "-f", f])?;
    ensure!(
        again == "Nothing to do: 6 things are as declared.\n",
        "{again}"
    );

    // What is exported is what is there.
    let exported = files.ok(&["export"])?;
    let export = files.write("export", &exported)?;
    let plan = files.ok(&["plan", "-f", &export, "--prune", "--exit-code"])?;
    ensure!(
        plan.starts_with("Nothing to do: 6 things"),
        "{plan}\n{exported}"
    );

    // A new version of the package and a scale: one new revision.
    files.package("1.1.0")?;
    let more = WORK.replace("replicas = 1", "replicas = 2");
    files.write("work.toml", &more)?;
    let shown = files.ok(&["plan", "-f", f])?;
    for line in [
        "    version  1.1.0",
        "    model     echo@1.0.0 → echo@1.1.0",
        "    replicas  1 → 2",
        "  * 1 instance is replaced: echo.1.0.1",
        "1 to create, 1 to change, 0 to delete; 4 things are as declared.",
    ] {
        ensure!(shown.lines().any(|l| l == line), "{line:?} in\n{shown}");
    }
    files.ok(&["apply", "-f", f, "--wait"])?;
    let service = files.cluster.client.service("echo").await?;
    ensure!(
        (service.ready, service.version.minor) == (2, 1),
        "{service:?}"
    );

    pruned(&files, f, &more).await?;
    let events = files.cluster.client.events().await?;
    let applied = events.iter().filter(|e| e.kind == "fleet-applied").count();
    ensure!(applied == 3, "{applied}");
    Ok(())
}

/// What does not get there is told, each for its own reason; standard output stays what programs read.
fn waits_in_vain(files: &Files) -> Result<()> {
    let f = files.write(
        "stuck.toml",
        "fleet = \"stuck\"\n[service.alone]\nmodel = \"echo\"\n[job.waiting]\nmodel = \"echo\"\n\
         [service.empty]\nmodel = \"echo\"\nreplicas = 0\n",
    )?;
    let args = ["apply", "-f", &f, "--wait", "--timeout", "1s", "-o", "json"];
    let output = files.run(&args)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let plan: FleetPlan = serde_json::from_slice(&output.stdout)?;
    ensure!(plan.changes.len() == 3, "{plan:?}");
    let told = String::from_utf8(output.stderr)?;
    for part in [
        "error: alone is not as wanted after 1s: unavailable, 0 of 1 ready",
        "empty is ready: 0 of 0",
        "error: job waiting is not over after 1s: 0 of 1 shards done, 0 running",
        "error: not everything is as declared",
    ] {
        ensure!(told.contains(part), "{part:?} in\n{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_and_other_peoples_changes_stop_an_apply_before_it_does_anything() -> Result<()> {
    let files = Files::start(0).await?;
    files.package("1.0.0")?;
    let good = "[model.echo]\npackage = \"packages/echo\"\n[service.echo]\nmodel = \"echo\"\nreplicas = 0\n";
    let good = files.write("good.toml", good)?;
    let bad = files.write(
        "bad.toml",
        "[model.ecko]\npackage = \"packages/echo\"\n[service.web]\nmodle = \"x\"\nreplicas = 5000\n\
         [service.other]\nmodel = \"nothing\"\n[job.j]\nmodel = \"echo\"\ninput = \"missing.txt\"\n\
         [service.both]\nmodel = \"ekho\"\nreplicas = \"two\"\n[job.k]\nmodel = \"echo\"\n\
         completions = 0\ninput = \"gone.txt\"\n",
    )?;

    // Everything that is wrong, of the syntax, of what lies beside the files and of what the coordinator
    // knows, in one go; and what is right is not done either.
    let told = files.fails(1, &["apply", "-f", &good, &bad])?;
    let at = |line: &str| format!("  {bad}:{line}");
    for line in [
        at("2:11: [model.ecko] package: the package in"),
        at("3:10: missing key \"model\" in [service.web]"),
        at("4:1: unknown key \"modle\" in [service.web]; did you mean \"model\"?"),
        at("5:12: [service.web] replicas: 5000 instances are more than a service may have (1000)"),
        at("7:9: [service.other] model: there is no model nothing; there are echo"),
        at("10:9: [job.j] input: "),
        // An entry that is wrong is looked at all the same.
        at(
            "12:9: [service.both] model: there is no model ekho; there are echo; did you mean \"echo\"?",
        ),
        at("13:12: [service.both] replicas: expected a whole number, found a string"),
        at("16:15: [job.k] completions: a job has 1 to 1000 completions"),
        at("17:9: [job.k] input: "),
        "error: 10 mistakes in the fleet files; nothing was changed".to_owned(),
    ] {
        ensure!(told.contains(&line), "{line:?} in\n{told}");
    }
    ensure!(files.cluster.client.services().await?.is_empty());
    ensure!(files.ok(&["model", "list", "-o", "json"])?.trim() == "[]");
    files.fails(2, &["plan"])?;

    // Two people look at the same state; the second one's apply would undo what the first one did.
    files.ok(&["apply", "-f", &good])?;
    let by_one = "[model.echo]\npackage = \"packages/echo\"\n[service.echo]\nmodel = \"echo\"\nenv = { A = \"1\" }\n";
    let by_one = files.write("one.toml", by_one)?;
    let plan = files.dir.join("plan.json").display().to_string();
    files.ok(&["plan", "-f", &by_one, "--save", &plan])?;
    files.ok(&["service", "scale", "echo", "3"])?;
    let refused = files.fails(1, &["apply", "-f", &by_one, "--plan", &plan])?;
    ensure!(refused.contains("somebody else changed"), "{refused}");
    ensure!(refused.contains("service/echo"), "{refused}");
    let view = files.cluster.client.service("echo").await?;
    ensure!((view.revision, view.replicas) == (1, 3), "{view:?}");
    let text = files.ok(&["plan", "-f", &by_one, "--save", &plan, "-o", "json"])?;
    let shown: FleetPlan = serde_json::from_str(&text)?;
    ensure!(
        shown.changes.len() == 1 && shown.changes[0].fields.len() == 1,
        "{shown:?}"
    );
    files.ok(&["apply", "-f", &by_one, "--plan", &plan])?;
    ensure!(files.cluster.client.service("echo").await?.revision == 2);
    waits_in_vain(&files)?;

    // Without `replicas` the file leaves them to `scale`; with them it takes them back.
    ensure!(files.replicas("echo").await? == 3);
    let back = files.ok(&["apply", "-f", &good, "-o", "json"])?;
    let back: FleetPlan = serde_json::from_str(&back)?;
    let fields: Vec<&str> = back.changes[0]
        .fields
        .iter()
        .map(|f| f.field.as_str())
        .collect();
    ensure!(fields == ["replicas", "env.A"], "{fields:?}");
    ensure!(files.replicas("echo").await? == 0);

    // Another team's files.
    let theirs = files.write(
        "theirs.toml",
        "fleet = \"b\"\n[service.echo]\nmodel = \"echo\"\n",
    )?;
    let refused = files.fails(1, &["plan", "-f", &theirs])?;
    ensure!(
        refused.contains("the fleet files default declare it"),
        "{refused}"
    );
    files.ok(&["apply", "-f", &theirs, "--adopt"])?;
    ensure!(
        files
            .ok(&["export", "--fleet", "b"])?
            .contains("[service.echo]")
    );
    Ok(())
}
