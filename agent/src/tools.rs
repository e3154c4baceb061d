//! Programs of the system that some modules need.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// In [`berth_model::node::Facts::modules`]: TensorFlow Serving is installed.
pub const TF_SERVING: &str = "tf-serving";

/// In [`berth_model::node::Facts::modules`]: Python environments can be made.
pub const PYTHON: &str = "python";

/// Its program.
pub const MODEL_SERVER: &str = "tensorflow_model_server";

/// What modules this node can run beside those that bring all they need.
pub fn modules(model_server: Option<&Path>) -> Vec<String> {
    let mut found = Vec::new();
    if python().is_some() {
        found.push(PYTHON.to_owned());
    }
    if self::model_server(model_server).is_ok() {
        found.push(TF_SERVING.to_owned());
    }
    found
}

/// TensorFlow Serving: the configured program, else the one on PATH. An error says what to do.
pub fn model_server(configured: Option<&Path>) -> Result<PathBuf, String> {
    match configured {
        Some(path) if executable(path) => Ok(path.to_owned()),
        Some(path) => Err(format!(
            "no {MODEL_SERVER}: agent.toml names {}, which is no program that can be executed",
            path.display()
        )),
        None => on_path(MODEL_SERVER).ok_or_else(|| {
            format!(
                "no {MODEL_SERVER} on PATH: install TensorFlow Serving on this node, or name the program by \
                 {MODEL_SERVER} in agent.toml"
            )
        }),
    }
}

/// Berth's batch driver: the configured program, else the one beside this one, else the one on PATH. An
/// error says what to do.
pub fn driver(configured: Option<&Path>) -> Result<PathBuf, String> {
    const NAME: &str = "berth-driver";
    if let Some(path) = configured {
        return match executable(path) {
            true => Ok(path.to_owned()),
            false => Err(format!(
                "agent.toml names {} as driver, which is no program that can be executed",
                path.display()
            )),
        };
    }
    companion(NAME).ok_or_else(|| {
        format!(
            "{NAME} is neither beside berth-agent, nor in ../lib/berth from there, nor on PATH: install it there, set \
             driver in agent.toml, or give the package's [job] a command of its own"
        )
    })
}

/// A program that comes with this one: beside it, in `../lib/berth` from there as packages install it, or on PATH.
pub fn companion(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent);
    let places = folder.into_iter().flat_map(|folder| {
        let installed = folder.parent().map(|prefix| prefix.join("lib/berth"));
        [Some(folder.to_owned()), installed]
    });
    places
        .flatten()
        .map(|folder| folder.join(name))
        .find(|program| executable(program))
        .or_else(|| on_path(name))
}

/// The system's Python.
pub fn python() -> Option<PathBuf> {
    on_path("python3")
}

/// A program that is found by its name alone.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| executable(program))
}

fn executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The installation on which a virtual environment is based, if it is not the system's own.
pub fn python_of(venv: &Path) -> Option<PathBuf> {
    let config = std::fs::read_to_string(venv.join("pyvenv.cfg")).ok()?;
    let home = config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "home").then(|| PathBuf::from(value.trim()))
    })?;
    let installation = home.parent()?;
    let own = !installation.starts_with("/usr") && installation != Path::new("/");
    (own && installation.is_dir()).then(|| installation.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_of_python_is_known_unless_it_is_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let installed = dir.path().join("python");
        std::fs::create_dir_all(installed.join("bin")).unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("pyvenv.cfg"), text).unwrap();
        assert_eq!(python_of(dir.path()), None);
        write(&format!(
            "home = {}\nversion = 3\n",
            installed.join("bin").display()
        ));
        assert_eq!(python_of(dir.path()), Some(installed));
        write("home = /usr/bin\n");
        assert_eq!(python_of(dir.path()), None);
    }

    #[test]
    fn a_configured_server_must_be_there_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("server");
        let told = model_server(Some(&program)).unwrap_err();
        assert!(told.contains("agent.toml names"), "{told}");
        std::fs::write(&program, "").unwrap();
        assert!(model_server(Some(&program)).is_err());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(model_server(Some(&program)), Ok(program.clone()));
        assert!(modules(Some(&program)).contains(&TF_SERVING.to_owned()));
    }

    #[test]
    fn programs_are_found_on_path() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("no-such-program"), None);
    }
}
