//! Small packages to begin with.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_model::id::ModelName;

use crate::error::PackageError;

/// A package to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Template {
    /// A Python server of the standard library alone.
    #[default]
    Plain,
    /// Flask under gunicorn, from `requirements.txt`.
    Flask,
    /// FastAPI under uvicorn, likewise.
    Fastapi,
    /// An ONNX model under ONNX Runtime, likewise.
    Onnx,
    /// A SavedModel for TensorFlow Serving.
    TfServing,
    /// A program of its own that listens on `$PORT`.
    Binary,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Flask,
        Self::Fastapi,
        Self::Onnx,
        Self::TfServing,
        Self::Binary,
    ];

    fn files(self) -> &'static [File] {
        match self {
            Self::Plain => &PLAIN,
            Self::Flask => &FLASK,
            Self::Fastapi => &FASTAPI,
            Self::Onnx => &ONNX,
            Self::TfServing => &TF_SERVING,
            Self::Binary => &BINARY,
        }
    }
}

/// Path in the package, content, and whether it is a program.
type File = (&'static str, &'static [u8], bool);

macro_rules! file {
    ($to:literal, $from:literal) => {
        ($to, include_bytes!(concat!("../templates/", $from)), false)
    };
    ($to:literal, $from:literal, program) => {
        ($to, include_bytes!(concat!("../templates/", $from)), true)
    };
}

const PLAIN: [File; 3] = [
    file!("berth.toml", "berth.toml"),
    file!("server.py", "server.py", program),
    file!("model/weights.json", "model/weights.json"),
];

const FLASK: [File; 5] = [
    file!("berth.toml", "flask/berth.toml"),
    file!("app.py", "flask/app.py"),
    file!("requirements.txt", "flask/requirements.txt"),
    file!("README.md", "python.md"),
    file!("model/weights.json", "model/weights.json"),
];

const FASTAPI: [File; 5] = [
    file!("berth.toml", "fastapi/berth.toml"),
    file!("app.py", "fastapi/app.py"),
    file!("requirements.txt", "fastapi/requirements.txt"),
    file!("README.md", "python.md"),
    file!("model/weights.json", "model/weights.json"),
];

const ONNX: [File; 6] = [
    file!("berth.toml", "onnx/berth.toml"),
    file!("app.py", "onnx/app.py"),
    file!("requirements.txt", "onnx/requirements.txt"),
    file!("README.md", "python.md"),
    file!("make_model.py", "onnx/make_model.py", program),
    file!("model/linear.onnx", "onnx/model/linear.onnx"),
];

const TF_SERVING: [File; 5] = [
    file!("berth.toml", "tf-serving/berth.toml"),
    file!("make_model.py", "tf-serving/make_model.py", program),
    file!(
        "model/1/saved_model.pb",
        "tf-serving/model/1/saved_model.pb"
    ),
    file!(
        "model/1/variables/variables.index",
        "tf-serving/model/1/variables/variables.index"
    ),
    file!(
        "model/1/variables/variables.data-00000-of-00001",
        "tf-serving/model/1/variables/variables.data-00000-of-00001"
    ),
];

const BINARY: [File; 3] = [
    file!("berth.toml", "binary/berth.toml"),
    file!("bin/server", "binary/server", program),
    file!("model/weights.txt", "binary/weights.txt"),
];

/// Writes a package that works as it is into `dir`, which is made if need be. Errors: writing fails, or one of the
/// files is there already; nothing is overwritten.
pub fn init(dir: &Path, name: &ModelName, template: Template) -> Result<(), PackageError> {
    for (path, _, _) in template.files() {
        let full = dir.join(path);
        if full.symlink_metadata().is_ok() {
            let error = std::io::Error::new(
                ErrorKind::AlreadyExists,
                "it is there already; name another folder",
            );
            return Err(PackageError::io(format!("write {}", full.display()))(error));
        }
    }
    for (path, content, program) in template.files() {
        let full = dir.join(path);
        let doing = || format!("write {}", full.display());
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent).map_err(PackageError::io(doing()))?;
        }
        // Models are bytes, and have no name in them.
        let named = std::str::from_utf8(content).map(|text| text.replace("@NAME@", name.as_str()));
        let content = named.as_ref().map_or(*content, |text| text.as_bytes());
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if *program { 0o755 } else { 0o644 })
            .open(&full)
            .and_then(|mut file| file.write_all(content))
            .map_err(PackageError::io(doing()))?;
    }
    Ok(())
}
