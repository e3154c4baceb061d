use proptest::prelude::*;

use super::*;

const FULL: &str = r#"
[package]
name = "dga-detector"
version = "1.4.0"
description = "Was this name made by an algorithm?"
labels = { team = "soc", "data.class" = "public" }

[model]
path = "./model/"
format = "custom"
task = "classification"
metrics = { accuracy = 0.97, rows = 12000 }
inputs = { domain = "string" }
outputs = [{ score = "float" }, 3, true, 1979-05-27]

[module]
kind = "custom"
command = ["./server", "--listen=${HOST}:${PORT}", "$HOME"]
preset = "binary"
env = { RUST_LOG = "info" }
predict_path = "/invocations"
protocol = "h2c"
stop_grace = "3s"
dockerfile = "Dockerfile"
image = "example/dga:1"

[transform]
command = ["python3", "t.py", "${BERTH_PREDICTOR_URL}"]

[health]
http = "/healthz"
start_timeout = "2m"
interval = "500ms"
unhealthy_after = 5

[job]
command = ["./batch", "${BERTH_JOB_INPUT}"]

[resources]
cpu = 0.5
memory = "512MiB"
gpu = 1
disk = "2GB"

[network]
egress = ["db.internal:5432", "10.0.0.0/8", "[fd00::1]:443"]

[[golden]]
request = '{"instances": ["example.com"]}'
response = { predictions = [0.02] }
tolerance = 0.01

[limits]
concurrency = 8
queue = 64
timeout = "10s"
max_body = "1MiB"
retryable = false
"#;

const LEAST: &str = "[package]\nname = \"m\"\nversion = \"0.1.0\"\n[model]\npath = \".\"\n\
                     [module]\nkind = \"custom\"\ncommand = [\"./s\"]\n";

fn errors(text: &str) -> Vec<String> {
    parse(text, "berth.toml")
        .unwrap_err()
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// [`LEAST`] with a further text, whose own errors start at line 9.
fn errors_of(further: &str) -> Vec<String> {
    errors(&format!("{LEAST}{further}"))
}

#[test]
fn a_full_manifest_is_read() {
    let manifest = parse(FULL, "berth.toml").unwrap();
    assert_eq!(manifest.package.name.as_str(), "dga-detector");
    assert_eq!(manifest.model.path, "model");
    assert_eq!(manifest.model.metrics["rows"], 12000.0);
    assert_eq!(
        manifest.model.outputs,
        serde_json::json!([{"score": "float"}, 3, true, "1979-05-27"])
    );
    assert_eq!(manifest.module.preset, Some(Preset::Binary));
    assert_eq!(manifest.module.protocol, Protocol::H2c);
    assert_eq!(manifest.module.stop_grace, crate::time::Span::secs(3));
    assert_eq!(manifest.health.check, HealthCheck::Http("/healthz".into()));
    assert_eq!(manifest.resources.cpu_millis, 500);
    assert_eq!(manifest.resources.memory_bytes, 512 << 20);
    assert_eq!(manifest.resources.disk_bytes, 2_000_000_000);
    assert_eq!(
        manifest.golden[0].request,
        serde_json::json!({"instances": ["example.com"]})
    );
    assert_eq!(manifest.limits.retryable, Some(false));
    let json = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
}

#[test]
fn the_least_manifest_gets_the_defaults() {
    let manifest = parse(LEAST, "berth.toml").unwrap();
    assert_eq!(manifest.health, Health::default());
    assert_eq!(manifest.model.format, ModelFormat::Custom);
    assert_eq!(manifest.module.stop_grace, default_stop_grace());
    let served = LEAST.replace("\"custom\"\ncommand = [\"./s\"]", "\"tf-serving\"");
    let served = parse(&served, "berth.toml").unwrap();
    assert_eq!(served.model.format, ModelFormat::SavedModel);
    assert!(served.module.command.is_empty());
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let text = r#"[package]
name = "Bad_Name"
verison = "1.0.0"
  labels = { "ä" = "x", ok = 3 }
[module]
kind = "custon"
[health]
http = "/a"
tcp = true
interval = "5"
[modle]
"#;
    assert_eq!(
        errors(text),
        [
            "berth.toml:1:1: missing key \"version\" in [package]",
            "berth.toml:1:1: missing section [model]: it needs path, as in path = \"model\"",
            "berth.toml:2:8: [package] name: model \"Bad_Name\" is not a valid name: use 1 to 63 \
             lower-case letters, digits and '-', beginning and ending with a letter or digit",
            "berth.toml:3:1: unknown key \"verison\" in [package]; did you mean \"version\"?",
            "berth.toml:4:14: [package] labels: \"ä\" is not a label: use 1 to 63 letters, digits, \
             '.', '_', '-' and '/', beginning and ending with a letter or digit",
            "berth.toml:4:30: [package] labels: expected a string (in quotes), found an integer",
            "berth.toml:6:8: [module] kind: expected \"tf-serving\" or \"custom\", found \
             \"custon\"; did you mean \"custom\"?",
            "berth.toml:9:7: [health]: choose one check, not http and tcp",
            "berth.toml:10:12: [health] interval: \"5\" is not a duration: write a number and ms, \
             s, m, h or d, as in \"10s\"",
            "berth.toml:11:2: unknown key \"modle\" in the manifest; did you mean \"model\"?",
        ]
    );
}

#[test]
fn syntax_errors_do_not_hide_the_others() {
    let found = errors("[package]\nname = \nversion = \"1.0.0\"\nlabel = 3\n[model\npath=1\n");
    assert!(
        found.iter().any(|line| line.starts_with("berth.toml:2:")),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.contains("did you mean \"labels\"")),
        "{found:#?}"
    );
    assert!(
        !found.iter().any(|line| line.contains("missing section")),
        "{found:#?}"
    );
}

#[test]
fn values_are_checked() {
    let cases = [
        ("[tf-serving]\nwarmup = true", "only for a [module] of kind"),
        ("[job]\ncommand = []", "the command is empty"),
        ("[job]\nbatch = 0", "[job] batch"),
        (
            "[job]\ncommand = [\"x\"]\nin_flight = 2",
            "in_flight is for Berth's batch driver",
        ),
        ("[job]\ncommand = [\"\"]", "program's name is empty"),
        (
            "[job]\ncommand = [\"x\", \"${BERTH_PREDICTOR_URL}\"]",
            "Berth sets no variable",
        ),
        (
            "[transform]\ncommand = [\"x${PROT}\"]",
            "did you mean \"PORT\"",
        ),
        ("[transform]\ncommand = [\"x${PORT\"]", "without \"}\""),
        ("[transform]", "missing key \"command\""),
        ("[health]\ngrpc = false", "leave the key out"),
        ("[health]\nhttp = \"healthz\"", "is not an HTTP path"),
        ("[health]\nunhealthy_after = 0", "from 1"),
        ("[health]\ninterval = \"0s\"", "longer than nothing"),
        ("[resources]\ncpu = -1", "number of cores"),
        ("[resources]\ncpu = nan", "finite"),
        ("[resources]\nmemory = 512", "expected a string"),
        ("[resources]\nmemory = \"512 MB\"", "is not a size"),
        ("[network]\negress = [\"a b\"]", "no destination"),
        ("[network]\negress = [\"db:0\"]", "no destination"),
        ("[[golden]]\nrequest = \"{\"\nresponse = 1", "not JSON"),
        ("[golden]\nrequest = 1", "array of tables"),
        (
            "[[golden]]\nrequest = 1\nresponse = 1\ntolerance = -0.1",
            "from 0 up",
        ),
        ("[limits]\nmax_body = \"0B\"", "more than nothing"),
        (
            "[limits]\nconcurrency = 4294967296",
            "expected a whole number",
        ),
        ("limits = 3", "unknown key \"limits\" in [module]"),
    ];
    for (further, wanted) in cases {
        let found = errors_of(further);
        assert_eq!(found.len(), 1, "{further}: {found:#?}");
        assert!(found[0].contains(wanted), "{further}: {found:#?}");
        let line: u32 = found[0].split(':').nth(1).unwrap().parse().unwrap();
        assert!(line >= 9, "{found:#?}");
    }
}

#[test]
fn paths_and_environment_are_checked() {
    let with = |from: &str, to: &str| errors(&LEAST.replace(from, to));
    for bad in ["/m", "../m", "a//b", "a/./b", "a/..", "", "a\\u0007"] {
        let found = with("path = \".\"", &format!("path = \"{bad}\""));
        assert!(found[0].contains("5:8: [model] path"), "{bad}: {found:#?}");
    }
    for bad in ["PORT", "BERTH_X", "1A", "A-B", "\"\""] {
        let found = errors_of(&format!("env = {{ {bad} = \"x\" }}"));
        assert!(found[0].contains("9:9: [module] env"), "{bad}: {found:#?}");
    }
    assert!(errors_of("env = { A = \"a\\u0000\" }")[0].contains("NUL"));
    let served = LEAST.replace("\"custom\"\ncommand = [\"./s\"]", "\"tf-serving\"");
    let flags = format!("{served}[tf-serving]\nextra_flags = [\"--port=1\"]");
    assert!(errors(&flags)[0].contains("set by Berth"));
    let onnx = served.replace("path = \".\"", "path = \".\"\nformat = \"onnx\"");
    assert!(
        errors(&onnx)[0].contains("serves only"),
        "{:#?}",
        errors(&onnx)
    );
    let preset = format!("{served}preset = \"python\"");
    assert!(errors(&preset)[0].contains("only for kind"));
    assert!(errors(&LEAST.replace("command = [\"./s\"]", ""))[0].contains("needs the program"));
}

#[test]
fn what_tf_serving_is_told_is_checked() {
    let served = LEAST.replace("\"custom\"\ncommand = [\"./s\"]", "\"tf-serving\"");
    let with = |text: &str| format!("{served}[tf-serving]\n{text}\n");
    let good = with(
        "batching = { max_batch_size = 128, batch_timeout_micros = 0, num_batch_threads = 2, \
         allowed_batch_sizes = [8, 128], pad_variable_length_inputs = true, thread_pool_name = \"a \\\"b\" }\n\
         extra_flags = [\"--grpc_max_threads=3\", \"--a_flag_of_a_later_day=1\"]\nwarmup = false",
    );
    let said = parse(&good, "x").unwrap().tf_serving.unwrap();
    assert_eq!(
        said.batching["allowed_batch_sizes"],
        serde_json::json!([8, 128])
    );
    assert_eq!(said.batching["thread_pool_name"], "a \"b");
    assert!(!said.warmup && parse(&with(""), "x").unwrap().tf_serving.unwrap().warmup);
    let cases = [
        (
            "batching = { max_bach_size = 1 }",
            "no batching parameter \"max_bach_size\"; did you mean \"max_batch_size\"?",
        ),
        (
            "batching = { max_batch_size = \"8\" }",
            "expected a whole number, found a string",
        ),
        ("batching = { max_batch_size = -8 }", "from 0 up"),
        (
            "batching = { allowed_batch_sizes = 8 }",
            "an array of whole numbers",
        ),
        ("batching = { allowed_batch_sizes = [8, 4] }", "must grow"),
        (
            "batching = { max_batch_size = 9, allowed_batch_sizes = [8] }",
            "must be max_batch_size, which is 9",
        ),
        (
            "batching = { pad_variable_length_inputs = 1 }",
            "true or false",
        ),
        ("batching = 3", "expected a table"),
        ("extra_flags = [\"--port=1\"]", "--port is set by Berth"),
        ("extra_flags = [\"--enable_batching\"]", "set by Berth"),
        ("extra_flags = [\"port=1\"]", "is no flag"),
        (
            "extra_flags = [\"--grpc_max_thread=1\"]",
            "did you mean \"grpc_max_threads\"?",
        ),
        (
            "extra_flags = [\"--rest_api_prot=1\"]",
            "did you mean \"rest_api_port\"?",
        ),
    ];
    for (text, wanted) in cases {
        let found = errors(&with(text));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].contains(wanted), "{text}: {found:#?}");
    }
    let elsewhere = [
        ("predict_path = \"/x\"", "has its own paths"),
        ("[health]\ngrpc = true", "leave grpc out"),
    ];
    for (text, wanted) in elsewhere {
        let found = errors(&format!("{served}{text}\n"));
        assert!(found.len() == 1 && found[0].contains(wanted), "{found:#?}");
    }
}

#[test]
fn a_flood_of_errors_is_cut_and_depth_is_bounded() {
    let flood: String = (0..5000).map(|n| format!("k{n} = 1\n")).collect();
    let found = errors(&flood);
    assert_eq!(found.len(), 100);
    assert!(found[99].contains("more errors"));
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(parse(&deep, "x").is_err());
    assert!(parse(&" ".repeat(MAX_BYTES + 1), "x").is_err());
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Writes the generated manifests as TOML.
fn render(manifest: &Manifest) -> String {
    let list = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!("[{}]", words.join(", "))
    };
    let mut text = format!(
        "[package]\nname = {}\nversion = {}\ndescription = {}\n",
        quoted(manifest.package.name.as_str()),
        quoted(&manifest.package.version.to_string()),
        quoted(&manifest.package.description),
    );
    text += &format!(
        "[model]\npath = {}\nmetrics = {{ ",
        quoted(&manifest.model.path)
    );
    let metrics: Vec<String> = manifest
        .model
        .metrics
        .iter()
        .map(|(key, value)| format!("{key} = {value:?}"))
        .collect();
    text += &format!("{} }}\n", metrics.join(", "));
    text += &format!(
        "[module]\nkind = \"custom\"\ncommand = {}\n",
        list(&manifest.module.command)
    );
    text += &format!(
        "stop_grace = {}\n[module.env]\n",
        quoted(&manifest.module.stop_grace.to_string())
    );
    for (key, value) in &manifest.module.env {
        text += &format!("{key} = {}\n", quoted(value));
    }
    if let HealthCheck::Http(path) = &manifest.health.check {
        text += &format!("[health]\nhttp = {}\n", quoted(path));
    }
    let resources = &manifest.resources;
    text += &format!(
        "[resources]\ncpu = {}\nmemory = \"{}B\"\ngpu = {}\n",
        resources.cpu_millis as f64 / 1000.0,
        resources.memory_bytes,
        resources.gpus
    );
    text
}

prop_compose! {
    fn manifests()(
        name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
        version in (0u64..99, 0u64..99, 0u64..99),
        description in "[^\\x00\\x7f]{0,40}",
        path in prop_oneof![Just(".".to_owned()), "[a-zA-Z0-9_é ]{1,9}(/[a-z0-9]{1,9}){0,3}"],
        metrics in prop::collection::btree_map("[a-z]{1,8}", -1e6..1e6f64, 0..3),
        program in "[^\\x00\\x7f$]{1,20}",
        arguments in prop::collection::vec("[^\\x00\\x7f$]{0,20}", 0..4),
        grace in 0u64..1_000_000,
        env in prop::collection::btree_map("[AC-GI-OQ-Z][A-Z0-9_]{0,9}", "[^\\x00\\x7f]{0,20}", 0..3),
        http in prop::option::of("/[a-z/]{0,9}"),
        amounts in (0u64..10_000, any::<u64>(), any::<u32>()),
    ) -> Manifest {
        let mut manifest = parse(LEAST, "least").unwrap();
        manifest.package.name = name.parse().unwrap();
        manifest.package.version = semver::Version::new(version.0, version.1, version.2);
        manifest.package.description = description;
        manifest.model.path = path;
        manifest.model.metrics = metrics;
        manifest.module.command = std::iter::once(program).chain(arguments).collect();
        manifest.module.stop_grace = crate::time::Span::millis(grace);
        manifest.module.env = env;
        if let Some(path) = http {
            manifest.health.check = HealthCheck::Http(path);
        }
        manifest.resources.cpu_millis = amounts.0;
        manifest.resources.memory_bytes = amounts.1;
        manifest.resources.gpus = amounts.2;
        manifest
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = parse(&text, "berth.toml");
    }

    #[test]
    fn damaged_manifests_never_panic(at in 0..FULL.len(), cut in 0..40usize, junk in ".{0,6}") {
        let at = FULL.floor_char_boundary(at);
        let end = FULL.floor_char_boundary((at + cut).min(FULL.len()));
        let text = format!("{}{junk}{}", &FULL[..at], &FULL[end..]);
        if let Err(errors) = parse(&text, "berth.toml") {
            prop_assert!(!errors.errors.is_empty());
            let lines = text.split('\n').count();
            for error in errors.errors {
                prop_assert!(error.line >= 1 && error.line as usize <= lines);
            }
        }
    }

    #[test]
    fn valid_manifests_round_trip(manifest in manifests()) {
        let text = render(&manifest);
        prop_assert_eq!(parse(&text, "berth.toml").unwrap(), manifest);
    }
}
