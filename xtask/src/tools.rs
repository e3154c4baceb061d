//! Cargo's own helpers that Berth's tasks need: built once and kept in `~/.cache/berth`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run;

/// A helper: its program, which is its crate, and its version if one must be had.
pub(crate) type Tool = (&'static str, Option<&'static str>);

/// Checks licences and sources of dependencies.
pub(crate) const CARGO_DENY: Tool = ("cargo-deny", None);
/// Makes Debian packages.
pub(crate) const CARGO_DEB: Tool = ("cargo-deb", Some("3.8.0"));

/// A `PATH` on which the tools are; those that are missing are built first.
pub(crate) fn with(tools: &[Tool]) -> Result<OsString> {
    let root = cache()?.join("tools");
    for (name, version) in tools {
        if run::on_path(name) || root.join("bin").join(name).is_file() {
            continue;
        }
        println!("building {name} once, into {}", root.display());
        let mut cargo = run::cargo();
        cargo.args(["install", name, "--locked", "--quiet", "--root"]);
        cargo.arg(&root);
        if let Some(version) = version {
            cargo.args(["--version", version]);
        }
        run::check(&mut cargo)?;
    }
    let mut path = OsString::from(root.join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    Ok(path)
}

/// What is slow to build is kept in `~/.cache/berth`.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("berth"))
        .context("neither XDG_CACHE_HOME nor HOME is set")
}
