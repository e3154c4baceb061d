use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_model::manifest;

use super::*;
use crate::testing::{MANIFEST, spec};

/// A place with everything that any instance may need.
pub(crate) fn place(package: &Path) -> Place<'_> {
    Place {
        start: 2,
        host: [127, 0, 0, 1].into(),
        port: 21_007,
        module_port: Some(21_008),
        package,
        unpacked: package,
        work: Path::new("/w"),
        venv: Some(Path::new("/venvs/x")),
        model_server: "/opt/tensorflow_model_server",
        driver: "/opt/berth-driver",
        grpc: Grpc::Socket(Path::new("/d/s/1.sock")),
        log: LogSpec::default(),
        path: Some("/bin"),
    }
}

/// A specification with another text in its manifest.
fn with(from: &str, to: &str) -> InstanceSpec {
    let text = MANIFEST.replace(from, to);
    assert_ne!(text, MANIFEST);
    InstanceSpec {
        manifest: manifest::parse(&text, "berth.toml").unwrap(),
        ..spec("web.1.0.3")
    }
}

fn planned(spec: &InstanceSpec, place: &Place<'_>) -> LaunchPlan {
    let plan = launch_plan(spec, place).unwrap();
    assert_eq!(plan.spec.check(), Ok(()));
    plan
}

#[test]
fn the_module_is_told_what_the_contract_says() {
    let mut spec = spec("web.1.0.3");
    spec.env = BTreeMap::from([
        ("B".to_owned(), "service".to_owned()),
        ("PORT".to_owned(), "1".to_owned()),
    ]);
    let plan = planned(&spec, &place(Path::new("/p")));
    assert_eq!(plan.layout, []);
    let shim = plan.spec;
    assert_eq!((shim.instance.as_str(), shim.start), ("web.1.0.3", 2));
    let [process] = &shim.processes[..] else {
        panic!("{shim:?}")
    };
    assert_eq!(process.name, MODULE);
    assert_eq!(process.argv, ["/p/bin/serve", "--port=21007", "$PORT"]);
    assert_eq!(process.cwd, Path::new("/p"));
    let expected = [
        ("A", "manifest"),
        ("B", "service"),
        ("HOST", "127.0.0.1"),
        ("PORT", "21007"),
        ("BERTH_MODEL_DIR", "/p/model"),
        ("BERTH_MODEL_NAME", "web"),
        ("BERTH_MODEL_VERSION", "1.2.0"),
        ("BERTH_MODEL_SERIAL", "4"),
        ("BERTH_INSTANCE", "web.1.0.3"),
        ("PATH", "/bin"),
        ("HOME", "/w"),
        ("TMPDIR", "/w"),
    ];
    for (name, value) in expected {
        assert_eq!(process.env[name], value, "{name}");
    }
    assert!(!process.env.contains_key("VIRTUAL_ENV"));
}

#[test]
fn an_instance_sees_the_gpus_that_are_its_own_and_no_others() {
    let env = |gpus: u32, own: &[&str], runtime| {
        let mut spec = spec("web.1.0.3");
        spec.env = [("CUDA_VISIBLE_DEVICES".to_owned(), "0".to_owned())].into();
        spec.manifest.resources.gpus = gpus;
        spec.gpus = own.iter().map(|gpu| (*gpu).to_owned()).collect();
        spec.runtime = runtime;
        let plan = planned(&spec, &place(Path::new("/p")));
        let env = &plan.spec.processes[0].env;
        let told = |name: &str| env.get(name).cloned();
        (told("CUDA_VISIBLE_DEVICES"), told("NVIDIA_VISIBLE_DEVICES"))
    };
    let some = |text: &str| Some(text.to_owned());
    let process = RuntimeKind::Process;
    assert_eq!(
        env(2, &["GPU-a", "GPU-b"], process),
        (some("GPU-a,GPU-b"), None)
    );
    assert_eq!(env(0, &[], process), (some(""), None));
    assert_eq!(env(0, &[], RuntimeKind::Docker), (some(""), some("void")));
    // What a coordinator says that knows of no UUIDs leaves things as they were.
    assert_eq!(env(1, &[], process), (some("0"), None));
}

#[test]
fn a_python_module_has_its_virtual_environment_first() {
    let text = "[module.env]\nPATH = \"/mine\"\nPYTHONUNBUFFERED = \"\"\n";
    let mut spec = with("[module.env]\n", text);
    spec.manifest.module.preset = Some(Preset::Python);
    let plan = planned(&spec, &place(Path::new("/p")));
    let env = &plan.spec.processes[0].env;
    assert_eq!(env["PATH"], "/venvs/x/bin:/mine");
    assert_eq!(env["VIRTUAL_ENV"], "/venvs/x");
    assert_eq!(env["PYTHONUNBUFFERED"], "");
    assert_eq!(env["PYTHONDONTWRITEBYTECODE"], "1");
    let image = Place {
        venv: None,
        ..place(Path::new("/p"))
    };
    let plan = planned(&spec, &image);
    assert_eq!(plan.spec.processes[0].env["PATH"], "/mine");
}

#[test]
fn a_transform_stands_before_the_module() {
    let transform =
        "[transform]\ncommand = [\"t\", \"${PORT}\", \"${BERTH_PREDICTOR_URL}\"]\n[health]\n";
    let mut spec = with("[health]\n", transform);
    let mut place = place(Path::new("/p"));
    place.host = [0, 0, 0, 0].into();
    let plan = planned(&spec, &place);
    let [module, transform] = &plan.spec.processes[..] else {
        panic!("{plan:?}")
    };
    let url = "http://127.0.0.1:21008/v1/models/web:predict";
    assert_eq!(
        (module.name.as_str(), transform.name.as_str()),
        (MODULE, TRANSFORM)
    );
    assert_eq!(module.env["PORT"], "21008");
    assert_eq!(module.env["HOST"], "127.0.0.1");
    assert!(!module.env.contains_key("BERTH_PREDICTOR_URL"));
    assert_eq!(transform.env["PORT"], "21007");
    assert_eq!(transform.env["HOST"], "0.0.0.0");
    assert_eq!(transform.env["BERTH_PREDICTOR_URL"], url);
    assert_eq!(transform.env["BERTH_MODEL_SERIAL"], "4");
    assert_eq!(transform.argv, ["t", "21007", url]);
    spec.manifest.module.predict_path = Some("/invocations".to_owned());
    let plan = planned(&spec, &place);
    assert_eq!(
        plan.spec.processes[1].env["BERTH_PREDICTOR_URL"],
        "http://127.0.0.1:21008/invocations"
    );
    place.module_port = None;
    assert_eq!(launch_plan(&spec, &place), Err(PlanError::NoModulePort));
}

fn served(further: &str) -> InstanceSpec {
    let text = format!(
        "[package]\nname = \"web\"\nversion = \"1.2.0\"\n[model]\npath = \"model\"\n\
         [module]\nkind = \"tf-serving\"\n{further}"
    );
    InstanceSpec {
        manifest: manifest::parse(&text, "berth.toml").unwrap(),
        ..spec("web.1.0.3")
    }
}

#[test]
fn tf_serving_is_started_with_its_own_flags() {
    let spec = served(
        "[tf-serving]\nbatching = { max_batch_size = 8 }\nextra_flags = [\"--grpc_max_threads=3\"]\n\
         [resources]\ncpu = 1.5\n",
    );
    let plan = planned(&spec, &place(Path::new("/p")));
    let [process] = &plan.spec.processes[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        process.argv,
        [
            "/opt/tensorflow_model_server",
            "--port=0",
            "--grpc_socket_path=/d/s/1.sock",
            "--rest_api_port=21007",
            "--model_config_file=/w/tf-serving/models.pbtxt",
            "--monitoring_config_file=/w/tf-serving/monitoring.pbtxt",
            "--allow_version_labels_for_unavailable_models=true",
            "--enable_model_warmup=true",
            "--max_num_load_retries=0",
            "--enable_batching=true",
            "--batching_parameters_file=/w/tf-serving/batching.pbtxt",
            "--tensorflow_intra_op_parallelism=2",
            "--tensorflow_inter_op_parallelism=2",
            "--grpc_max_threads=3",
        ]
    );
    let pod = Place {
        grpc: Grpc::Port(8500),
        ..place(Path::new("/p"))
    };
    let plain = served(
        "[tf-serving]\nwarmup = false\nextra_flags = [\"--tensorflow_session_parallelism=1\"]\n[resources]\ncpu = 4\n",
    );
    let argv = &planned(&plain, &pod).spec.processes[0].argv;
    assert!(argv.contains(&"--port=8500".to_owned()), "{argv:?}");
    assert!(argv.contains(&"--enable_model_warmup=false".to_owned()));
    let not = |part: &str| assert!(!argv.iter().any(|flag| flag.contains(part)), "{argv:?}");
    ["socket", "batching", "op_parallelism"]
        .into_iter()
        .for_each(not);
}

#[test]
fn tf_servings_folder_and_files_are_laid_out_anew_at_each_start() {
    let spec = served("[tf-serving]\nbatching = { max_batch_size = 8 }\n");
    let dir = tempfile::tempdir().unwrap();
    let place = Place {
        work: dir.path(),
        ..place(Path::new("/p"))
    };
    let plan = planned(&spec, &place);
    for _ in 0..2 {
        plan.lay_out(dir.path()).unwrap();
        let link = |path: &str| std::fs::read_link(dir.path().join(path)).unwrap();
        assert_eq!(link("models/web/4"), PathBuf::from("/p/model"));
        assert_eq!(link("grpc.sock"), PathBuf::from("/d/s/1.sock"));
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(read("tf-serving/batching.pbtxt").contains("max_batch_size {\n  value: 8\n}"));
        assert!(read("tf-serving/models.pbtxt").contains("versions: 4"));
        assert!(read("tf-serving/monitoring.pbtxt").contains("enable: true"));
        // What an earlier version left is not served.
        std::fs::create_dir(dir.path().join("models/web/3")).unwrap();
    }
    plan.lay_out(dir.path()).unwrap();
    assert!(!dir.path().join("models/web/3").exists());
}
