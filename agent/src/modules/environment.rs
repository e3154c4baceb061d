//! What the processes of an instance are told, and how their commands are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth_model::instance::InstanceSpec;
use berth_model::manifest::{JOB_VARIABLES, MODULE_VARIABLES, TRANSFORM_VARIABLES};
use berth_model::node::RuntimeKind;

use super::{Address, Place, is_python, python};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole environment of a process that listens at `at`: the base, then the manifest's, then the service's, then
/// what Berth says.
pub(super) fn environment(
    spec: &InstanceSpec,
    place: &Place<'_>,
    at: Address,
) -> BTreeMap<String, String> {
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
    let python = is_python(spec);
    if python {
        python::defaults(&mut env);
    }
    env.extend(spec.manifest.module.env.clone());
    env.extend(spec.env.clone());
    if let Some(venv) = place.venv.filter(|_| python) {
        python::activate(&mut env, venv);
    }
    let own = [
        ("HOST", at.host.to_string()),
        ("PORT", at.port.to_string()),
        ("BERTH_MODEL_DIR", text(model_dir(spec, place.package))),
        ("BERTH_MODEL_NAME", spec.id.slot.service.to_string()),
        ("BERTH_MODEL_VERSION", spec.version.to_string()),
        ("BERTH_MODEL_SERIAL", spec.serial.to_string()),
        ("BERTH_INSTANCE", spec.id.to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
    env.extend(gpus(spec));
    env
}

/// Which of the node's GPUs are the instance's own: it sees no others, and none if it asked for none. In a
/// cluster that is Kubernetes' business.
fn gpus(spec: &InstanceSpec) -> BTreeMap<String, String> {
    let own = spec.gpus.join(",");
    // A coordinator from before GPUs were given out says only how many.
    let unknown = own.is_empty() && spec.manifest.resources.gpus > 0;
    let for_container = if own.is_empty() { "void" } else { &own };
    let told: &[(&str, &str)] = match spec.runtime {
        _ if unknown => &[],
        RuntimeKind::Kubernetes => &[],
        RuntimeKind::Process => &[("CUDA_VISIBLE_DEVICES", &own)],
        // Images ask NVIDIA's runtime for all of them.
        RuntimeKind::Docker => &[
            ("CUDA_VISIBLE_DEVICES", &own),
            ("NVIDIA_VISIBLE_DEVICES", for_container),
        ],
    };
    let told = told.iter();
    told.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The model's files in a package.
pub(super) fn model_dir(spec: &InstanceSpec, package: &Path) -> PathBuf {
    match spec.manifest.model.path.as_str() {
        "." => package.to_owned(),
        path => package.join(path),
    }
}

/// A command's words: Berth's variables replaced, and the program found if it is the package's own.
pub(super) fn argv(
    command: &[String],
    env: &BTreeMap<String, String>,
    place: &Place<'_>,
) -> Vec<String> {
    let mut argv: Vec<String> = command.iter().map(|text| expand(text, env)).collect();
    if let Some(program) = argv.first_mut() {
        *program = resolve(program, place);
    }
    argv
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// Replaces `${NAME}` of Berth's variables; every other text stays as it is.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let ours = |name: &str| {
        MODULE_VARIABLES.contains(&name)
            || TRANSFORM_VARIABLES.contains(&name)
            || JOB_VARIABLES.contains(&name)
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("${") {
        let Some(length) = rest[begin..].find('}') else {
            break;
        };
        let name = &rest[begin + 2..begin + length];
        let value = env.get(name).filter(|_| ours(name));
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
fn resolve(program: &str, place: &Place<'_>) -> String {
    let relative = Path::new(program).is_relative();
    if relative && (program.contains('/') || place.unpacked.join(program).is_file()) {
        text(place.package.join(program))
    } else {
        program.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::tests::place;

    #[test]
    fn programs_are_the_packages_own_or_the_systems() {
        let package = tempfile::tempdir().unwrap();
        std::fs::write(package.path().join("serve"), "").unwrap();
        let mut place = place(package.path());
        let own = package.path().join("serve").to_string_lossy().into_owned();
        assert_eq!(resolve("serve", &place), own);
        assert_eq!(resolve("python3", &place), "python3");
        assert_eq!(resolve("/bin/sh", &place), "/bin/sh");
        assert!(resolve("./absent", &place).starts_with('/'));
        place.package = Path::new("/berth/package");
        assert_eq!(resolve("serve", &place), "/berth/package/serve");
    }

    #[test]
    fn an_unclosed_brace_stays() {
        let env = BTreeMap::from([("PORT".to_owned(), "1".to_owned())]);
        assert_eq!(expand("a${PORT}b${PORT", &env), "a1b${PORT");
        assert_eq!(expand("${X}${PORT}", &env), "${X}1");
        assert_eq!(expand("", &env), "");
    }
}
