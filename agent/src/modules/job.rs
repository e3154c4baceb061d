//! The processes of a task: `[job] command`, else Berth's batch driver beside the module.

use std::collections::BTreeMap;

use berth_model::instance::InstanceSpec;
use berth_model::job::{DRIVER_PROCESS, JOB_PROCESS, TaskSpec};
use berth_model::manifest::HealthCheck;
use berth_shim::spec::ProcessSpec;

use super::environment::{argv, environment};
use super::transform::{PREDICTOR_URL, dialled, predictor_url};
use super::{Address, Place, is_tf_serving, tf_serving};

/// A task's input in its work folder: `BERTH_JOB_INPUT`.
pub const INPUT: &str = "input";

/// Where in its work folder a task leaves its output: `BERTH_JOB_OUTPUT`.
pub const OUTPUT: &str = "output";

/// Rows in one request of the driver, unless the manifest says otherwise.
const BATCH: u32 = 32;

/// What the package itself has for tasks.
pub(super) fn own_command(spec: &InstanceSpec) -> Option<&[String]> {
    let job = spec.manifest.job.as_ref()?;
    (!job.command.is_empty()).then_some(job.command.as_slice())
}

/// The only process of a task whose package has a command for it.
pub(super) fn command(spec: &InstanceSpec, place: &Place<'_>) -> Option<ProcessSpec> {
    let (task, command) = (spec.task.as_ref()?, own_command(spec)?);
    let at = Address {
        host: place.host,
        port: place.port,
    };
    let mut env = environment(spec, place, at);
    env.extend(told(task, place));
    Some(ProcessSpec {
        name: JOB_PROCESS.to_owned(),
        argv: argv(command, &env, place),
        env,
        cwd: place.package.to_owned(),
        primary: true,
    })
}

/// Puts the driver beside a module, which listens at an address, and its transform. The driver's end ends the task; the
/// end of one of the others before is a failure.
pub(super) fn drive(
    spec: &InstanceSpec,
    task: &TaskSpec,
    place: &Place<'_>,
    module: Address,
    processes: &mut Vec<ProcessSpec>,
) {
    let told = told(task, place);
    for process in &mut *processes {
        process.env.extend(told.clone());
    }
    let front = Address {
        host: place.host,
        port: place.port,
    };
    let mut ready = check(spec, module);
    if spec.manifest.transform.is_some() {
        ready.push_str(&format!(" tcp://{}", dialled(front)));
    }
    let manifest = &spec.manifest;
    let mut env = environment(spec, place, front);
    env.extend(told);
    env.extend([
        (PREDICTOR_URL.to_owned(), predictor_url(spec, front)),
        ("BERTH_JOB_READY".to_owned(), ready),
        (
            "BERTH_JOB_START_TIMEOUT_MS".to_owned(),
            manifest.health.start_timeout.as_millis().to_string(),
        ),
        ("BERTH_JOB_BATCH".to_owned(), batch(spec).to_string()),
    ]);
    if let Some(in_flight) = manifest.job.as_ref().and_then(|job| job.in_flight) {
        env.insert("BERTH_JOB_IN_FLIGHT".to_owned(), in_flight.to_string());
    }
    if let Some(timeout) = manifest.limits.timeout {
        env.insert(
            "BERTH_JOB_TIMEOUT_MS".to_owned(),
            timeout.as_millis().to_string(),
        );
    }
    processes.push(ProcessSpec {
        name: DRIVER_PROCESS.to_owned(),
        argv: vec![place.driver.to_owned()],
        env,
        cwd: place.package.to_owned(),
        primary: true,
    });
}

/// What every process of a task is told.
fn told(task: &TaskSpec, place: &Place<'_>) -> BTreeMap<String, String> {
    let path = |name: &str| place.work.join(name).to_string_lossy().into_owned();
    BTreeMap::from([
        ("BERTH_JOB_INPUT".to_owned(), path(INPUT)),
        ("BERTH_JOB_OUTPUT".to_owned(), path(OUTPUT)),
        ("BERTH_JOB_INDEX".to_owned(), task.index.to_string()),
    ])
}

/// When the module can answer, as the driver understands it: `[health]`, or TensorFlow Serving's own status.
fn check(spec: &InstanceSpec, module: Address) -> String {
    let at = dialled(module);
    if is_tf_serving(spec) {
        return format!("tf-serving+http://{at}{}", tf_serving::status_path(spec));
    }
    match &spec.manifest.health.check {
        HealthCheck::Http(path) => format!("http://{at}{path}"),
        HealthCheck::Tcp | HealthCheck::Grpc => format!("tcp://{at}"),
    }
}

/// Rows in one request: TensorFlow Serving refuses more than its largest batch.
fn batch(spec: &InstanceSpec) -> u32 {
    if let Some(batch) = spec.manifest.job.as_ref().and_then(|job| job.batch) {
        return batch;
    }
    let most = spec
        .manifest
        .tf_serving
        .as_ref()
        .and_then(|said| said.batching.get("max_batch_size"))
        .and_then(serde_json::Value::as_u64)
        .and_then(|most| u32::try_from(most).ok());
    most.map_or(BATCH, |most| BATCH.min(most.max(1)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use berth_model::job::ShardInput;
    use berth_model::manifest;

    use super::*;
    use crate::modules::tests::place;
    use crate::modules::{launch_plan, needs_driver, needs_module_port};
    use crate::testing::{MANIFEST, spec};

    fn task(more: &str) -> InstanceSpec {
        InstanceSpec {
            manifest: manifest::parse(&format!("{MANIFEST}{more}"), "berth.toml").unwrap(),
            task: Some(TaskSpec {
                index: 3,
                completions: 4,
                input: ShardInput::default(),
                deadline: None,
            }),
            ..spec("score.1.3.1")
        }
    }

    fn processes(spec: &InstanceSpec) -> Vec<ProcessSpec> {
        let plan = launch_plan(spec, &place(Path::new("/p"))).unwrap();
        assert_eq!(plan.spec.check(), Ok(()));
        plan.spec.processes
    }

    #[test]
    fn a_command_of_its_own_is_all_there_is() {
        let spec = task("[job]\ncommand = [\"bin/batch\", \"${BERTH_JOB_INPUT}\"]\n");
        assert!(!needs_driver(&spec));
        let processes = processes(&spec);
        assert_eq!(processes.len(), 1);
        assert_eq!(processes[0].name, "job");
        assert_eq!(processes[0].argv, ["/p/bin/batch", "/w/input"]);
        let env = &processes[0].env;
        assert_eq!(
            (
                env["BERTH_JOB_OUTPUT"].as_str(),
                env["BERTH_JOB_INDEX"].as_str()
            ),
            ("/w/output", "3")
        );
        assert_eq!(
            (env["A"].as_str(), env["BERTH_INSTANCE"].as_str()),
            ("manifest", "score.1.3.1")
        );
    }

    #[test]
    fn without_one_the_driver_runs_beside_the_module() {
        let spec = task("[limits]\ntimeout = \"7s\"\n");
        assert!(needs_driver(&spec));
        let processes = processes(&spec);
        let names: Vec<&str> = processes
            .iter()
            .map(|process| process.name.as_str())
            .collect();
        assert_eq!(names, ["module", "driver"]);
        assert!(processes.iter().all(|process| process.primary));
        assert_eq!(processes[0].env["BERTH_JOB_INDEX"], "3");
        let driver = &processes[1];
        assert_eq!(driver.argv, ["/opt/berth-driver"]);
        for (name, value) in [
            ("BERTH_JOB_INPUT", "/w/input"),
            (
                "BERTH_PREDICTOR_URL",
                "http://127.0.0.1:21007/v1/models/score:predict",
            ),
            ("BERTH_JOB_READY", "http://127.0.0.1:21007/healthz"),
            ("BERTH_JOB_START_TIMEOUT_MS", "60000"),
            ("BERTH_JOB_BATCH", "32"),
            ("BERTH_JOB_TIMEOUT_MS", "7000"),
        ] {
            assert_eq!(driver.env[name], value, "{name}");
        }
        assert!(!driver.env.contains_key("BERTH_JOB_IN_FLIGHT"));
    }

    #[test]
    fn with_a_transform_rows_go_to_that_and_both_must_be_ready() {
        let spec = task("[transform]\ncommand = [\"bin/t\"]\n[job]\nbatch = 5\nin_flight = 2\n");
        assert!(needs_module_port(&spec));
        let processes = processes(&spec);
        let driver = &processes[2];
        assert_eq!(
            driver.env["BERTH_PREDICTOR_URL"],
            "http://127.0.0.1:21007/v1/models/score:predict"
        );
        assert_eq!(
            driver.env["BERTH_JOB_READY"],
            "http://127.0.0.1:21008/healthz tcp://127.0.0.1:21007"
        );
        assert_eq!(
            (
                driver.env["BERTH_JOB_BATCH"].as_str(),
                driver.env["BERTH_JOB_IN_FLIGHT"].as_str()
            ),
            ("5", "2")
        );
    }

    #[test]
    fn tf_serving_is_asked_for_the_version_and_its_largest_batch_is_kept() {
        let text = MANIFEST
            .replace(
                "kind = \"custom\"\ncommand = [\"bin/serve\", \"--port=${PORT}\", \"$PORT\"]",
                "kind = \"tf-serving\"",
            )
            .replace("format = \"custom\"", "format = \"saved_model\"");
        let text = format!("{text}[tf-serving.batching]\nmax_batch_size = 8\n");
        let spec = InstanceSpec {
            manifest: manifest::parse(&text, "berth.toml").unwrap(),
            ..task("")
        };
        let processes = processes(&spec);
        let driver = &processes[1];
        assert_eq!(
            driver.env["BERTH_JOB_READY"],
            "tf-serving+http://127.0.0.1:21007/v1/models/score/versions/4"
        );
        assert_eq!(driver.env["BERTH_JOB_BATCH"], "8");
    }
}
