//! By real environments and a real pip, without a network.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::runtime::conformance;
use crate::runtime::process::ProcessRuntime;

/// A source that does what it likes while it is built, and leaves word of it.
const CURIOUS: &str = r#"
import base64, hashlib, os, sys, zipfile
def tries(what, do):
    try:
        do()
        return what + ": yes"
    except OSError:
        return what + ": no"
def build_wheel(folder, config_settings=None, metadata_directory=None):
    data = os.environ["PIP_TEST_DATA"]
    status = open("/proc/self/status").read().split("\n")
    found = [line.replace("\t", " ") for line in status if line.startswith(("CapEff", "NoNewPrivs"))]
    open("build.log", "w").write("built")
    found.append(tries("key", lambda: open(data + "/key").read()))
    found.append(tries("package", lambda: open(data + "/package/berth.toml", "a")))
    found.append(tries("data", lambda: open(data + "/new", "w")))
    found.append(tries("system", lambda: open("/etc/berth-new", "w")))
    open(sys.prefix + "/found", "w").write("\n".join(found))
    open(sys.prefix + "/pyvenv.cfg", "a").write("\nhome = /etc/berth/bin\n")
    name = "curious-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("curious.py", "")
        info = "curious-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: curious\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return name
"#;

#[tokio::test]
async fn what_is_installed_runs_with_no_more_rights_than_the_module() {
    if !rustix::process::geteuid().is_root() {
        berth_skipped::skip("isolation", "users and control groups need root");
        return;
    }
    let data = root();
    let at = |path: &str| data.path().join(path);
    std::fs::create_dir_all(at("package/curious")).unwrap();
    let project = "[build-system]\nrequires = []\nbuild-backend = \"curious\"\nbackend-path = [\".\"]\n\
                       [project]\nname = \"curious\"\nversion = \"1.0\"\n";
    let source = CURIOUS.replace(
        "os.environ[\"PIP_TEST_DATA\"]",
        &format!("{:?}", data.path().to_string_lossy()),
    );
    for (path, text) in [
        ("key", "secret"),
        ("package/berth.toml", ""),
        ("package/requirements.txt", "./curious\n"),
        ("package/curious/pyproject.toml", project),
        ("package/curious/curious.py", &source),
    ] {
        std::fs::write(at(path), text).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(at("key"), mode).unwrap();
    std::fs::create_dir(at("package/wheels")).unwrap();
    let made = make(&at("venvs"), digest(1), &at("package"), &runtime()).await;
    made.unwrap();
    let venv = find(&at("venvs"), digest(1)).unwrap();
    let found = std::fs::read_to_string(venv.join("found")).unwrap();
    let expected = [
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "key: no",
        "package: no",
        "data: no",
        "system: no",
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    // What it left is the agent's, and says nothing to it.
    let left = std::fs::metadata(venv.join("found")).unwrap();
    assert_eq!((left.uid(), left.mode() & 0o7777), (0, 0o644));
    let config = std::fs::read_to_string(venv.join(CONFIG)).unwrap();
    assert!(!config.contains("/etc/berth"), "{config}");
    assert!(!venv.join(".home").exists());
}

fn digest(n: u8) -> PackageDigest {
    PackageDigest::from_bytes([n; 32])
}

fn runtime() -> Arc<dyn Runtime> {
    let config = crate::config::IsolationConfig {
        launcher: crate::config::LauncherChoice::Fork,
        ..crate::config::IsolationConfig::default()
    };
    let (shim, data) = (conformance::shim(), conformance::data());
    Arc::new(ProcessRuntime::isolated(shim, &config, &data).unwrap())
}

/// A folder of the agent's data.
fn root() -> tempfile::TempDir {
    tempfile::tempdir_in(conformance::data()).unwrap()
}

fn package(requirements: &str) -> tempfile::TempDir {
    let dir = root();
    std::fs::create_dir(dir.path().join(WHEELS)).unwrap();
    std::fs::write(dir.path().join(REQUIREMENTS), requirements).unwrap();
    dir
}

#[tokio::test]
async fn one_is_made_once_and_found_again_until_its_python_is_gone() {
    let (root, package) = (root(), package(""));
    assert_eq!(find(root.path(), digest(1)), None);
    make(root.path(), digest(1), package.path(), &runtime())
        .await
        .unwrap();
    let venv = find(root.path(), digest(1)).unwrap();
    assert!(venv.join("bin/pip").is_file());
    // What was interrupted is deleted, what is complete stays.
    let folder = root.path().join(digest(1).hex());
    std::fs::create_dir(folder.join("interrupted")).unwrap();
    std::fs::write(folder.join("x.log"), "").unwrap();
    let packages = tempfile::tempdir().unwrap();
    std::fs::create_dir(packages.path().join(digest(1).hex())).unwrap();
    std::fs::create_dir(root.path().join(digest(2).hex())).unwrap();
    sweep(root.path(), packages.path(), None);
    assert_eq!(find(root.path(), digest(1)).as_ref(), Some(&venv));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
    assert!(!root.path().join(digest(2).hex()).exists());
    // As after an upgrade of the system.
    let lib = std::fs::read_dir(venv.join("lib")).unwrap().next().unwrap();
    std::fs::rename(lib.unwrap().path(), venv.join("lib/python3.0")).unwrap();
    assert_eq!(find(root.path(), digest(1)), None);
    let gone = take_away(root.path(), digest(1)).unwrap();
    assert!(!folder.exists());
    remove(&gone);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    assert_eq!(take_away(root.path(), digest(1)), None);
}

#[test]
fn what_could_not_be_ended_is_left_for_the_next_sweep() {
    let (root, packages, runtime) = (root(), tempfile::tempdir().unwrap(), runtime());
    let wanted = digest(1).hex();
    std::fs::create_dir(packages.path().join(&wanted)).unwrap();
    for folder in [wanted, digest(2).hex()].map(|name| root.path().join(name)) {
        std::fs::create_dir_all(folder.join("one.start")).unwrap();
        std::fs::create_dir(folder.join("one")).unwrap();
        std::fs::create_dir(folder.join("other")).unwrap();
        // Of a later build: what it says cannot be cleared away.
        let record = "{\"version\":1000,\"launcher\":\"new\"}";
        std::fs::write(folder.join("one.start/launcher.json"), record).unwrap();
    }
    sweep(root.path(), packages.path(), Some(&runtime));
    for n in 1..=2 {
        let folder = root.path().join(digest(n).hex());
        let left = ["one", "one.start", "other"].map(|name| folder.join(name).exists());
        assert_eq!(left, [true, true, false], "{n}");
        assert_eq!(take_away(root.path(), digest(n)), None);
        std::fs::remove_file(folder.join("one.start/launcher.json")).unwrap();
    }
    sweep(root.path(), packages.path(), Some(&runtime));
    let left = std::fs::read_dir(root.path().join(digest(1).hex())).unwrap();
    assert_eq!(left.count(), 0);
    assert!(!root.path().join(digest(2).hex()).exists());
}

/// A source that is used where it is.
const IN_PLACE: &str = r#"
import os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    open("mine.py", "w").write("made = True\n")
    name = "mine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("mine.pth", os.getcwd() + "\n")
        info = "mine-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return name
build_wheel = build_editable
"#;

#[tokio::test]
async fn what_is_used_where_it_was_built_stays_there() {
    let (root, package) = (root(), package("-e .\n"));
    let project = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n\
                       [project]\nname = \"mine\"\nversion = \"1.0\"\n";
    std::fs::write(package.path().join("pyproject.toml"), project).unwrap();
    std::fs::write(package.path().join("backend.py"), IN_PLACE).unwrap();
    let made = make(root.path(), digest(1), package.path(), &runtime()).await;
    made.unwrap();
    let venv = find(root.path(), digest(1)).unwrap();
    let mut import = Command::new(venv.join("bin/python3"));
    import.args(["-c", "import mine; assert mine.made"]);
    run(import).await.unwrap().unwrap();
    assert!(!package.path().join("mine.py").exists());
}

#[tokio::test]
async fn a_missing_wheel_is_named_in_pips_words_and_nothing_is_left() {
    let (root, package) = (root(), package("no-such-thing==1.2\n"));
    let problem = make(root.path(), digest(1), package.path(), &runtime())
        .await
        .unwrap_err();
    assert!(problem.permanent && !problem.node);
    for words in ["no-such-thing==1.2", "pip download -d wheels"] {
        assert!(problem.text.contains(words), "{}", problem.text);
    }
    assert_eq!(find(root.path(), digest(1)), None);
    let left = std::fs::read_dir(root.path().join(digest(1).hex())).unwrap();
    assert_eq!(left.count(), 0);
}
