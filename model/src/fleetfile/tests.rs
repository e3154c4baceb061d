use proptest::prelude::*;

use super::*;
use crate::api::{CreateJob, Deploy, Fleet, JobFile, JobInput, ModelWanted, NodeLabels, PutPool};
use crate::node::RuntimeKind;
use crate::time::Span;

const FULL: &str = r#"
fleet = "soc"

[node.rack-a-1]
labels = { rack = "a", "data.class" = "public" }

[pool.gpu]
labels = { rack = "a" }

[model.dga]
package = "dga"
digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

[model.known]
version = "1.2.0"

[service.web]
model = "dga@1.0.0"
replicas = 3
runtime = "docker"
pool = "gpu"
spread = ["rack"]
max_unavailable = 0
[service.web.env]
LOG = "info"

[job.score]
model = "dga"
input = "names.txt"
completions = 4
parallelism = 2
retries = 0
deadline = "30m"
env = { A = "1" }
"#;

fn read(text: &str) -> Parsed {
    parse(&[Source {
        name: "fleet.toml",
        text,
    }])
}

fn errors(texts: &[(&str, &str)]) -> String {
    let sources: Vec<Source<'_>> = texts
        .iter()
        .map(|(name, text)| Source { name, text })
        .collect();
    let errors = parse(&sources).errors;
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[test]
fn entries_become_the_apis_requests() {
    let parsed = read(FULL);
    assert_eq!(parsed.errors, []);
    let Declared {
        fleet,
        packages,
        inputs,
    } = parsed.declared;
    assert_eq!(fleet.fleet.as_str(), "soc");
    assert_eq!(fleet.nodes["rack-a-1"].labels["data.class"], "public");
    assert_eq!(fleet.pools["gpu"].labels["rack"], "a");
    assert_eq!(packages["dga"].local.path, "dga");
    assert!(packages["dga"].digest.is_some());
    assert_eq!(fleet.models["known"].version.minor, 2);
    let web = Deploy {
        model: "dga@1.0.0".into(),
        service: Some("web".parse().unwrap()),
        replicas: Some(3),
        runtime: Some(RuntimeKind::Docker),
        pool: Some("gpu".into()),
        spread: Some(vec!["rack".into()]),
        env: [("LOG".to_owned(), "info".to_owned())].into(),
        max_unavailable: Some(0),
    };
    assert_eq!(fleet.services["web"], web);
    let score = CreateJob {
        model: "dga".into(),
        name: Some("score".parse().unwrap()),
        completions: Some(4),
        parallelism: Some(2),
        retries: Some(0),
        deadline: Some(Span::secs(1800)),
        env: [("A".to_owned(), "1".to_owned())].into(),
        ..CreateJob::default()
    };
    assert_eq!(fleet.jobs["score"], score);
    assert_eq!(inputs["score"].path, "names.txt");
}

#[test]
fn every_mistake_in_every_file_is_told_at_once() {
    let one = r#"
[service.web]
modle = "dga"
replicas = 5000
[servcie.x]
[pool.gpu]
labels = {}
[node.N1]
labels = { "-a" = "b" }
[model.m]
"#;
    let two = r#"
fleet = "b"
[service.web]
model = "dga"
[job.j]
model = 3
completions = 0
deadline = "soon"
input = { files = [{ blob = "x", bytes = 1 }], fodler = true }
[service.y]
model = "m"
env = { "A=B" = "1" }
runtime = "podman"
"#;
    let three = "fleet = \"c\"\n[service]\nname = \"z\"\n";
    let found = errors(&[("one.toml", one), ("two.toml", two), ("three.toml", three)]);
    let wanted = "one.toml:2:10: missing key \"model\" in [service.web]
one.toml:3:1: unknown key \"modle\" in [service.web]; did you mean \"model\"?
one.toml:4:12: [service.web] replicas: 5000 instances are more than a service may have (1000)
one.toml:5:2: unknown key \"servcie\" in the fleet file; did you mean \"service\"?
one.toml:7:10: [pool.gpu]: a pool chooses by at least one label: without any it would be every node, which is what leaving out the pool means
one.toml:8:7: [node.N1]: node \"N1\" is not a valid name: use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit
one.toml:9:12: [node.N1] labels: \"-a\" is not a label: use 1 to 63 letters, digits, '.', '_', '-' and '/', beginning and ending with a letter or digit
one.toml:10:8: [model.m] says neither which package to push (package = \"FOLDER\") nor which version must be there (version = \"1.0.0\")
two.toml:3:10: [service.web] is declared at one.toml:2:10 already: take one of them out
two.toml:6:9: [job.j] model: expected a string (in quotes), found an integer
two.toml:7:15: [job.j] completions: a job has 1 to 1000 completions
two.toml:8:12: [job.j] deadline: \"soon\" is not a duration: write a number and ms, s, m, h or d, as in \"10s\"
two.toml:9:29: [job.j] input files blob: \"x\" is not a digest: expected blake3: and 64 lower-case hexadecimal digits
two.toml:9:48: unknown key \"fodler\" in [job.j] input; did you mean \"folder\"?
two.toml:12:9: [service.y] env: \"A=B\" cannot be the name of an environment variable
two.toml:13:11: [service.y] runtime: \"podman\" is not a runtime: use process, docker or kubernetes
three.toml:1:9: these files are called \"b\" at two.toml:2:9: one fleet has one name
three.toml:3:1: [service]: expected a table for each name, written [service.NAME], found a string";
    assert_eq!(found, wanted);
}

#[test]
fn a_broken_entry_takes_what_refers_to_it_along_and_nothing_else() {
    let parsed = read(
        "[pool.gpu]\n[model.m]\nversion = 1\n[service.a]\nmodel = \"m@1.0.0\"\n[service.b]\nmodel = \"x\"\n\
         pool = \"gpu\"\n[service.c]\nmodel = \"x\"\n",
    );
    let names: Vec<&str> = parsed
        .declared
        .fleet
        .services
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["c"]);
    assert!(!parsed.unreadable);
    assert!(read("[service.a\n").unreadable);
}

#[test]
fn what_can_be_read_of_a_broken_entry_is_kept_for_whoever_knows_more() {
    let parsed = read(
        "[model.m]\npackage = \"p\"\nversion = 1\n[service.a]\nmodel = \"x\"\nreplicas = \"two\"\n\
         pool = \"gpu\"\n[job.j]\nmodel = \"x\"\ninput = \"names\"\nretries = -1\n",
    );
    assert_eq!(parsed.errors[0].errors.len(), 3, "{:?}", parsed.errors);
    let declared = parsed.declared;
    assert_eq!(declared.packages["m"].version, None);
    assert_eq!(declared.inputs["j"].path, "names");
    let a = &declared.fleet.services["a"];
    assert_eq!((a.replicas, a.pool.as_deref()), (None, Some("gpu")));
    // What a job lacks would only be told to differ from the job that is there.
    assert!(declared.fleet.jobs.is_empty());
}

#[test]
fn mistakes_name_what_they_are_about() {
    let found = errors(&[(
        "f.toml",
        "fleet = \"Team A\"\n[service.a]\nmodel = \"x\"\n\"model\" = \"y\"\n[service.a]\n",
    )]);
    let wanted = "f.toml:1:9: fleet \"Team A\" is not a valid name: use 1 to 63 lower-case letters, digits and \
'-', beginning and ending with a letter or digit
f.toml:4:1: \"model\" is written twice in one table: take one of them out
f.toml:5:10: \"a\" is written twice in one table: take one of them out";
    assert_eq!(found, wanted);
}

#[test]
fn what_the_coordinator_says_gets_its_place() {
    let places = read(FULL).places;
    for (message, shown) in [
        (
            "service.web.pool: there is none",
            "fleet.toml:21:8: [service.web] pool: there is none",
        ),
        (
            "service.web.env.LOG: odd",
            "fleet.toml:25:7: [service.web] env.LOG: odd",
        ),
        (
            "job.score: odd: very",
            "fleet.toml:27:6: [job.score]: odd: very",
        ),
        ("service.other: odd", "service.other: odd"),
        ("no path", "no path"),
    ] {
        assert_eq!(places.locate(message), shown);
    }
}

/// A request that gains a field must gain a key here, or say why not.
#[test]
fn every_field_of_a_request_is_a_key() {
    let fields = |value: serde_json::Value, without: &[&str]| -> Vec<String> {
        let serde_json::Value::Object(fields) = value else {
            panic!("{value}");
        };
        let names = fields.keys().cloned();
        names.filter(|n| !without.contains(&n.as_str())).collect()
    };
    let keys = |kind: &str| -> Vec<String> {
        let mut names = keys::kind(kind).unwrap().names();
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    };
    let fleet = read(FULL).declared.fleet;
    let web = serde_json::to_value(&fleet.services["web"]).unwrap();
    assert_eq!(fields(web, &["service"]), keys("service"));
    let score = serde_json::to_value(&fleet.jobs["score"]).unwrap();
    assert_eq!(fields(score, &["name", "request"]), keys("job"));
    let pool = serde_json::to_value(&fleet.pools["gpu"]).unwrap();
    assert_eq!(fields(pool, &[]), keys("pool"));
}

/// A part of the docs' page, between its marks.
fn documented(part: &str) -> String {
    let page = include_str!("../../../docs/fleet-files.md");
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let (_, rest) = page.split_once(&begin).unwrap();
    rest.split_once(&end).unwrap().0.to_owned()
}

/// If this fails, the reference in the page is not what the parser knows: put the left text there.
#[test]
fn the_reference_in_the_docs_is_what_the_parser_knows() {
    assert_eq!(reference().trim(), documented("reference").trim());
}

#[test]
fn the_example_is_read_and_shown() {
    let places = include_str!("../../../examples/fleet/places.toml");
    let work = include_str!("../../../examples/fleet/work.toml");
    let sources = [("places.toml", places), ("work.toml", work)];
    let sources = sources.map(|(name, text)| Source { name, text });
    let parsed = parse(&sources);
    assert_eq!(parsed.errors, []);
    assert_eq!(
        documented("example"),
        format!("```toml\n{places}\n{work}```\n")
    );
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fleet");
    for (name, package) in &parsed.declared.packages {
        let manifest = beside.join(&package.local.path).join("berth.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        let manifest = crate::manifest::parse(&text, "berth.toml").unwrap();
        assert_eq!(manifest.package.name, *name);
    }
    for input in parsed.declared.inputs.values() {
        assert!(beside.join(&input.path).exists(), "{}", input.path);
    }
    // Every kind of entry is in it.
    let fleet = &parsed.declared.fleet;
    let packages = &parsed.declared.packages;
    assert!(!fleet.nodes.is_empty() && !fleet.pools.is_empty() && !packages.is_empty());
    assert!(!fleet.services.is_empty() && !fleet.jobs.is_empty());
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}[a-z0-9]"
}

fn labels() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    prop::collection::btree_map("[a-z][a-z./]{0,5}[a-z]", "[ -~äß]{0,12}", 1..4)
}

fn service() -> impl Strategy<Value = (String, Deploy)> {
    let env = prop::collection::btree_map("[A-Z\"\\\\ .]{1,6}", "[^\0]{0,12}", 0..3);
    let runtime = prop::option::of(prop::sample::select(vec![
        RuntimeKind::Process,
        RuntimeKind::Docker,
        RuntimeKind::Kubernetes,
    ]));
    let pool = prop::option::of("[ -~]{1,20}");
    let model = "[ -~]{0,20}";
    (
        name(),
        model,
        prop::option::of(0..1_000_u32),
        runtime,
        pool,
        env,
        prop::option::of(0..9_u32),
    )
        .prop_map(
            |(name, model, replicas, runtime, pool, env, max_unavailable)| {
                let deploy = Deploy {
                    model,
                    service: Some(name.parse().unwrap()),
                    replicas,
                    runtime,
                    pool,
                    spread: (max_unavailable == Some(3))
                        .then(|| vec!["zone".into(), "rack".into()]),
                    env,
                    max_unavailable,
                };
                (name, deploy)
            },
        )
}

fn job() -> impl Strategy<Value = (String, CreateJob)> {
    let file =
        ("[^\0]{0,9}", any::<[u8; 32]>(), 0..=i64::MAX as u64).prop_map(|(name, blob, bytes)| {
            JobFile {
                name,
                blob: crate::digest::BlobDigest::from_bytes(blob),
                bytes,
            }
        });
    let input = (any::<bool>(), prop::collection::vec(file, 0..3))
        .prop_map(|(folder, files)| JobInput { folder, files });
    let figures = (
        prop::option::of(1..1_000_u32),
        prop::option::of(1..1_000_u32),
        prop::option::of(0..1_000_u32),
        prop::option::of(1..1_000_000_u64),
    );
    (service(), prop::option::of(input), figures).prop_map(
        |((name, like), input, (completions, parallelism, retries, deadline))| {
            let job = CreateJob {
                model: like.model,
                name: Some(name.parse().unwrap()),
                request: None,
                runtime: like.runtime,
                pool: like.pool,
                env: like.env,
                completions,
                parallelism,
                retries,
                deadline: deadline.map(Span::millis),
                input,
            };
            (name, job)
        },
    )
}

prop_compose! {
    fn fleet()(
        called in name(),
        nodes in prop::collection::vec((name(), labels()), 0..3),
        pools in prop::collection::vec((name(), labels()), 0..3),
        models in prop::collection::vec((name(), any::<(u8, Option<[u8; 32]>)>()), 0..3),
        services in prop::collection::vec(service(), 0..4),
        jobs in prop::collection::vec(job(), 0..3),
    ) -> Fleet {
        Fleet {
            fleet: called.parse().unwrap(),
            nodes: nodes
                .into_iter()
                .map(|(name, labels)| (name.parse().unwrap(), NodeLabels { labels }))
                .collect(),
            pools: pools
                .into_iter()
                .map(|(name, labels)| (name.parse().unwrap(), PutPool { labels }))
                .collect(),
            models: models
                .into_iter()
                .map(|(name, (minor, digest))| {
                    let wanted = ModelWanted {
                        version: semver::Version::new(1, minor.into(), 0),
                        digest: digest.map(crate::digest::PackageDigest::from_bytes),
                        at_hand: false,
                    };
                    (name.parse().unwrap(), wanted)
                })
                .collect(),
            services: services
                .into_iter()
                .map(|(name, deploy)| (name.parse().unwrap(), deploy))
                .collect(),
            jobs: jobs
                .into_iter()
                .map(|(name, job)| (name.parse().unwrap(), job))
                .collect(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(fleet in fleet()) {
        let text = write(&fleet);
        let parsed = read(&text);
        prop_assert_eq!(&parsed.errors, &[], "{}", text);
        prop_assert_eq!(parsed.declared.fleet, fleet, "{}", text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn damaged_files_never_panic(at in 0..FULL.len(), put in any::<char>()) {
        let at = FULL.floor_char_boundary(at);
        let _ = read(&format!("{}{put}{}", &FULL[..at], &FULL[at..]));
    }
}
