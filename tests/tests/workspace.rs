//! What holds for the workspace itself: dependencies run one way, files are of a readable size, links in
//! documents lead somewhere, and every example is what it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Crate → the crates of Berth that it may use. Whoever adds an edge here argues for it.
const MAY_USE: [(&str, &[&str]); 22] = [
    ("berth-model", &[]),
    ("berth-logfile", &[]),
    ("berth-notify", &[]),
    ("berth-handover", &["berth-notify"]),
    ("berth-trust", &[]),
    ("berth-package", &["berth-model"]),
    ("berth-proto", &["berth-model"]),
    ("berth-kubernetes", &["berth-model"]),
    ("berth-plan", &["berth-model"]),
    ("berth-agent-plan", &["berth-model"]),
    ("berth-shim", &["berth-logfile"]),
    ("berth-driver", &[]),
    ("berth-skipped", &[]),
    (
        "berth-relay",
        &["berth-handover", "berth-model", "berth-notify"],
    ),
    ("berth-store", &[]),
    ("berth-logs", &["berth-logfile", "berth-model"]),
    ("berth-gateway", &["berth-model"]),
    (
        "berth-agent",
        &[
            "berth-agent-plan",
            "berth-logfile",
            "berth-model",
            "berth-notify",
            "berth-package",
            "berth-proto",
            "berth-relay",
            "berth-shim",
            "berth-trust",
        ],
    ),
    (
        "berth-coordinator",
        &[
            "berth-gateway",
            "berth-handover",
            "berth-kubernetes",
            "berth-logfile",
            "berth-logs",
            "berth-model",
            "berth-notify",
            "berth-package",
            "berth-plan",
            "berth-proto",
            "berth-store",
            "berth-trust",
        ],
    ),
    // The shim's library for the identity of processes, which `up` and `down` need.
    (
        "berth",
        &["berth-model", "berth-package", "berth-shim", "berth-trust"],
    ),
    ("dga-detector", &[]),
    ("xtask", &[]),
];

fn manifests() -> Result<BTreeMap<String, toml::Table>> {
    let workspace: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let members = workspace["workspace"]["members"]
        .as_array()
        .context("members")?
        .clone();
    let mut all = BTreeMap::new();
    for member in members {
        let path = root()
            .join(member.as_str().context("a path")?)
            .join("Cargo.toml");
        let table: toml::Table = std::fs::read_to_string(&path)?.parse()?;
        let name = table["package"]["name"]
            .as_str()
            .context("a name")?
            .to_owned();
        all.insert(name, table);
    }
    Ok(all)
}

#[test]
fn dependencies_run_one_way() -> Result<()> {
    let manifests = manifests()?;
    for (name, table) in manifests.iter().filter(|(name, _)| *name != "berth-tests") {
        let (_, may) = MAY_USE
            .iter()
            .find(|(known, _)| known == name)
            .with_context(|| format!("{name} is new: say in this test what it may use"))?;
        let empty = toml::Table::new();
        let uses = table
            .get("dependencies")
            .and_then(|d| d.as_table())
            .unwrap_or(&empty);
        for used in uses.keys().filter(|used| manifests.contains_key(*used)) {
            assert!(may.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
    Ok(())
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found)?;
        } else if path.extension().is_some_and(|ext| ext == extension) {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn no_file_is_over_500_lines() -> Result<()> {
    let mut found = Vec::new();
    files(&root(), "rs", &mut found)?;
    assert!(found.len() > 100, "found only {} files", found.len());
    for file in found {
        let lines = std::fs::read_to_string(&file)?.lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines: it is two things",
            file.display()
        );
    }
    Ok(())
}

#[test]
fn every_example_has_a_valid_manifest() -> Result<()> {
    let mut found = 0;
    for example in std::fs::read_dir(root().join("examples"))? {
        let manifest = example?.path().join("berth.toml");
        if manifest.is_file() {
            let text = std::fs::read_to_string(&manifest)?;
            if let Err(errors) = berth_model::manifest::parse(&text, &manifest.to_string_lossy()) {
                panic!("{errors}");
            }
            found += 1;
        }
    }
    assert!(found > 0, "no example has a manifest");
    Ok(())
}

#[test]
fn every_link_in_a_document_leads_to_a_file() -> Result<()> {
    let mut found = Vec::new();
    files(&root(), "md", &mut found)?;
    let mut links = 0;
    for file in found {
        let text = std::fs::read_to_string(&file)?;
        let targets = text.split("](").skip(1).filter_map(|t| t.split(')').next());
        for target in targets.filter(|t| !t.starts_with("http") && !t.starts_with('#')) {
            let path = target.split('#').next().unwrap_or_default();
            let folder = file.parent().context("a file is in a folder")?;
            assert!(folder.join(path).exists(), "{}: {target}", file.display());
            links += 1;
        }
    }
    assert!(links > 30, "found only {links} links");
    Ok(())
}
