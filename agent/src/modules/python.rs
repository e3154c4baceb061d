//! `preset = "python"`: what a virtual environment adds to the environment of every process of an instance.

use std::collections::BTreeMap;
use std::path::Path;

/// What may be said otherwise by the manifest or the service.
pub(super) fn defaults(env: &mut BTreeMap<String, String>) {
    let own = [
        // A service's log is read while it runs.
        ("PYTHONUNBUFFERED", "1"),
        // The package is read-only.
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// Has the virtual environment's programs found first, as activating it does.
pub(super) fn activate(env: &mut BTreeMap<String, String>, venv: &Path) {
    let path = env.get("PATH").cloned().unwrap_or_default();
    let own = [
        ("PATH", format!("{}:{path}", venv.join("bin").display())),
        ("VIRTUAL_ENV", venv.display().to_string()),
    ];
    env.extend(own.map(|(name, value)| (name.to_owned(), value)));
}
