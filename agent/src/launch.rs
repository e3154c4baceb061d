//! From an instance's specification to what its shim is told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_model::instance::InstanceSpec;
use berth_model::manifest::MODULE_VARIABLES;
use berth_shim::spec::{LogSpec, ProcessSpec, SPEC_VERSION, Spec};

/// Name of the module's process in logs, states and reasons.
pub const MODULE: &str = "module";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where one start of an instance runs.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Number of the start.
    pub start: u32,
    /// What it is told as HOST.
    pub host: IpAddr,
    /// What it is told as PORT.
    pub port: u16,
    /// The unpacked package.
    pub package: &'a Path,
    /// Its home.
    pub work: &'a Path,
    /// Limits of its log on disk.
    pub log: LogSpec,
    /// PATH of the agent, if it has one.
    pub path: Option<&'a str>,
}

/// What the shim is to run.
pub fn shim_spec(spec: &InstanceSpec, place: &Place<'_>) -> Spec {
    let env = environment(spec, place);
    let module = &spec.manifest.module;
    let mut argv: Vec<String> = module
        .command
        .iter()
        .map(|text| expand(text, &env))
        .collect();
    if let Some(program) = argv.first_mut() {
        *program = resolve(program, place.package);
    }
    Spec {
        version: SPEC_VERSION,
        instance: spec.id.to_string(),
        start: place.start,
        processes: vec![ProcessSpec {
            name: MODULE.to_owned(),
            argv,
            env,
            cwd: place.package.to_owned(),
            primary: true,
        }],
        stop_grace_ms: module.stop_grace.as_millis(),
        log: place.log,
    }
}

/// The module's whole environment: the base, then the manifest's, then the service's, then what Berth says.
fn environment(spec: &InstanceSpec, place: &Place<'_>) -> BTreeMap<String, String> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let model = match spec.manifest.model.path.as_str() {
        "." => place.package.to_owned(),
        path => place.package.join(path),
    };
    let home = text(place.work.to_owned());
    let mut env = BTreeMap::from([
        (
            "PATH".to_owned(),
            place.path.unwrap_or(DEFAULT_PATH).to_owned(),
        ),
        ("HOME".to_owned(), home.clone()),
        ("TMPDIR".to_owned(), home),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    env.extend(spec.manifest.module.env.clone());
    env.extend(spec.env.clone());
    let own = [
        ("HOST", place.host.to_string()),
        ("PORT", place.port.to_string()),
        ("BERTH_MODEL_DIR", text(model)),
        ("BERTH_MODEL_NAME", spec.id.slot.service.to_string()),
        ("BERTH_MODEL_VERSION", spec.version.to_string()),
        ("BERTH_MODEL_SERIAL", spec.serial.to_string()),
        ("BERTH_INSTANCE", spec.id.to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env
}

/// Replaces `${NAME}` of Berth's variables; every other text stays as it is.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        let Some(length) = rest[begin..].find('}') else {
            break;
        };
        let name = &rest[begin + 2..begin + length];
        let value = env.get(name).filter(|_| MODULE_VARIABLES.contains(&name));
        out.push_str(&rest[..begin]);
        match value {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[begin..=begin + length]),
        }
        rest = &rest[begin + length + 1..];
    }
    out + rest
}

/// A relative program is the package's own; one without a folder only if the package has it, else it
/// is looked up in PATH.
fn resolve(program: &str, package: &Path) -> String {
    let own = package.join(program);
    if Path::new(program).is_relative() && (program.contains('/') || own.is_file()) {
        own.to_string_lossy().into_owned()
    } else {
        program.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    fn place<'a>(package: &'a Path, work: &'a Path) -> Place<'a> {
        Place {
            start: 2,
            host: [127, 0, 0, 1].into(),
            port: 21_007,
            package,
            work,
            log: LogSpec::default(),
            path: Some("/bin"),
        }
    }

    #[test]
    fn the_module_is_told_what_the_contract_says() {
        let mut spec = spec("web.1.0.3");
        spec.env = BTreeMap::from([
            ("B".to_owned(), "service".to_owned()),
            ("PORT".to_owned(), "1".to_owned()),
        ]);
        let shim = shim_spec(&spec, &place(Path::new("/p"), Path::new("/w")));
        assert_eq!((shim.instance.as_str(), shim.start), ("web.1.0.3", 2));
        assert_eq!(shim.check(), Ok(()));
        let process = &shim.processes[0];
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
    }

    #[test]
    fn programs_are_the_packages_own_or_the_systems() {
        let package = tempfile::tempdir().unwrap();
        std::fs::write(package.path().join("serve"), "").unwrap();
        let own = package.path().join("serve").to_string_lossy().into_owned();
        assert_eq!(resolve("serve", package.path()), own);
        assert_eq!(resolve("python3", package.path()), "python3");
        assert_eq!(resolve("/bin/sh", package.path()), "/bin/sh");
        assert!(resolve("./absent", package.path()).starts_with('/'));
    }

    #[test]
    fn an_unclosed_brace_stays() {
        let env = BTreeMap::from([("PORT".to_owned(), "1".to_owned())]);
        assert_eq!(expand("a${PORT}b${PORT", &env), "a1b${PORT");
        assert_eq!(expand("${X}${PORT}", &env), "${X}1");
        assert_eq!(expand("", &env), "");
    }
}
